"""Files that are all there or not there."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import CosannealError
from .paths import local_path


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike[str], *, error: type[CosannealError] = CosannealError, advice: str = ""
) -> Iterator[BinaryIO]:
    """A temporary sibling of `path`, which takes its name once it is durable.

    The temporary file is synced before the rename and the folder after it. If
    anything up to the rename fails, or is interrupted, it is removed and `path`
    is as it was. If the folder's sync fails, `path` is whole, and a power cut
    may yet take it.

    Args:
        path: the file to write.
        error: what to raise when the file system fails.
        advice: what to do then, for the message.

    Raises:
        CosannealError: (or `error`) the file system fails, or a device, a pipe or
            a socket is there; with the path. Or it is none, as `local_path` says.
    """
    path = local_path(path, error=error)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    done = "written"
    try:
        _refuse_special(path)
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        done = "made durable"
        sync_folder(path.parent)
    except OSError as failure:
        raise error(
            f"{path} could not be {done}: {failure.strerror or failure}{advice}"
        ) from failure


@contextlib.contextmanager
def arriving(
    path: str | os.PathLike[str], *, error: type[CosannealError] = CosannealError
) -> Iterator[Path]:
    """A name in a temporary sibling folder: what is written there, a file or a folder, is moved.

    For writers that want a path: `replacing` hands out an open file. What was written
    is synced, takes the name `path`, and the folder is synced. If anything before that fails,
    it is removed and `path` is as it was. A file is replaced, a folder that holds something
    is not.

    Args:
        path: the file or the folder to write.
        error: what to raise when the file system fails.

    Raises:
        CosannealError: (or `error`) as in `replacing`.
    """
    path = local_path(path, error=error)
    try:
        _refuse_special(path)
        with tempfile.TemporaryDirectory(
            prefix=f".{path.name}.", suffix=".tmp", dir=path.parent
        ) as folder:
            made = Path(folder) / path.name
            yield made
            sync_tree(made)
            made.replace(path)
        sync_folder(path.parent)
    except OSError as failure:
        raise error(f"{path} could not be written: {failure.strerror or failure}") from failure


def sync_tree(path: Path) -> None:
    """Make a file durable, or a folder with all that is in it."""
    for each in (path, *path.rglob("*")):
        _sync(each)


def _sync(path: Path) -> None:
    if path.is_dir():
        sync_folder(path)
        return
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _refuse_special(path: Path) -> None:
    """Refuse to put a file in the place of a device, a pipe or a socket; root could."""
    try:
        mode = path.stat().st_mode
    except OSError:  # nothing is there, or what cannot be told of
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a folder is refused by the rename
        raise OSError("it is a device, a pipe or a socket, and stays; choose another name")


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it, so that a power cut takes none of their names.

    Raises:
        OSError: it cannot be made.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(made):
        # One in which we may make names, but not read them, cannot be synced.
        with contextlib.suppress(PermissionError):
            sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Make the folder's names durable; Windows, where folders cannot be synced, sees to it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
