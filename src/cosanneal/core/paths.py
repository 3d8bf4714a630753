"""Paths as they come from a user, made into what they mean at this moment."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final, Literal

from .errors import CosannealError, shown

# Also "s3:/bucket", which pathlib makes of "s3://bucket", and chains of fsspec's such as
# "simplecache::s3://bucket". One letter is a drive of Windows.
_URL: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]+::?)+[/\\]")


def local_path(
    path: str | os.PathLike[str], *, error: type[CosannealError] = CosannealError
) -> Path:
    """The path of a local file or folder, in which `~` is the home folder.

    Args:
        path: as the user gave it.
        error: what to raise.

    Raises:
        CosannealError: (as `error`) a URL, bytes, an empty string, one with characters that
            no name of a file has, or no path at all.
    """
    try:
        text: str | bytes = os.fspath(path)
    except TypeError:
        raise error(f"A path must be a str or a pathlib.Path. Received: {shown(path)}") from None
    if isinstance(text, bytes):
        raise error(
            f"A path must be a str or a pathlib.Path. Received: bytes, {shown(text)}; make a str "
            "of it with os.fsdecode"
        )
    if not text or "\0" in text or not _can_be_named(text):
        received = "a character that no path has" if text else "an empty string"
        raise error(
            f"A path must name a file or a folder. Received: {shown(text)}, {received}; the "
            "current folder is '.'"
        )
    if _URL.match(text):
        raise error(
            f"A path must lead to a local file or folder. Received: {shown(text)}, a URL, which is "
            "taken for folders of snapshots alone, and as a str; give a local path, and copy the "
            "file from or to the store, or mount it"
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as failure:  # no home, or no such user
        raise error(f"The path {shown(text)} leads nowhere: {failure}") from failure


def url_of(path: object) -> str | None:
    """The URL that a path is, without a slash at its end; None if it is none.

    A `Path` of a URL has lost a slash and is none, for it may be of another place.
    """
    if not isinstance(path, str) or not _URL.match(path) or "://" not in path:
        return None
    return path.rstrip("/")


def kind_of(
    path: Path, *, error: type[CosannealError] = CosannealError
) -> Literal["folder", "file"] | None:
    """Whether a path leads to a folder, to anything else ("file"), or to nothing.

    Raises:
        CosannealError: (as `error`) that cannot be seen.
    """
    try:
        return "folder" if stat.S_ISDIR(path.stat().st_mode) else "file"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as failure:
        raise error(f"{path} could not be read: {failure.strerror or failure}") from failure


def _can_be_named(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def lasting_path(
    path: str | os.PathLike[str], *, error: type[CosannealError] = CosannealError
) -> Path:
    """The path made absolute, so that it is the same after a chdir; else as `local_path`.

    Links and `..` stay as they were written: what they lead to is the file system's to say.
    """
    found = local_path(path, error=error)
    try:
        return found.absolute()
    except OSError as failure:
        raise error(
            f"The path {shown(str(found))} leads nowhere, for the current folder is gone: "
            f"{failure.strerror or failure}; change to another, or give an absolute path"
        ) from failure
