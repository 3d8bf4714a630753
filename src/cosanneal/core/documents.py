"""The one way in for a JSON document: a regular file of bounded size, depth and numbers.

Whoever wrote it, reading it takes bounded time and memory, and what comes out
can be walked, compared and computed with. What its fields must be is not looked
at here: see `records.py`.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO, Final

from .errors import CosannealError, shown
from .paths import local_path

MAX_BYTES: Final = 1 << 26
MAX_DEPTH: Final = 64
# Integers of so many digits are within the range of floats.
MAX_DIGITS: Final = 308


def read_document(
    path: str | os.PathLike[str], *, error: type[CosannealError], advice: str = ""
) -> Any:
    """The JSON document in a file: of at most `MAX_BYTES`, and as `parse_document` reads it.

    Args:
        path: the file, or a link to it.
        error: what to raise.
        advice: what to do where there is no such file, for the message.

    Raises:
        CosannealError: (as `error`) it cannot be read, or is no such document;
            with the path, and the field if it is one.
    """
    file_path = local_path(path, error=error)
    try:
        with open_regular(file_path, remedy="put the document itself there") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as failure:
        raise error(f"{path} could not be read: {failure.strerror or failure}{advice}") from failure
    if len(text) > MAX_BYTES:
        raise error(f"{path} could not be read: it must have at most {MAX_BYTES} bytes")
    try:
        return parse_document(text)
    except ValueError as failure:
        raise error(f"{path} could not be read: {failure}") from failure


def open_regular(path: Path, *, links: bool = True, remedy: str) -> BinaryIO:
    """Open a regular file to be read: no device, and no pipe, which would block.

    Args:
        path: the file.
        links: whether it may be a symbolic link to one.
        remedy: what to do with anything else, for the message.

    Raises:
        OSError: it is none, or cannot be opened.
    """
    _refuse_other_than_file(path.stat(follow_symlinks=links).st_mode, remedy)
    flags = os.O_RDONLY
    for flag in ("O_BINARY", "O_CLOEXEC", "O_NONBLOCK", *(() if links else ("O_NOFOLLOW",))):
        flags |= getattr(os, flag, 0)
    descriptor = os.open(path, flags)
    try:
        # It may be another by now.
        _refuse_other_than_file(os.fstat(descriptor).st_mode, remedy)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _refuse_other_than_file(mode: int, remedy: str) -> None:
    if stat.S_ISLNK(mode):
        raise OSError(f"it is a symbolic link; put the file itself there, or {remedy}")
    if not stat.S_ISREG(mode):
        raise OSError(f"it is no regular file; {remedy}")


def parse_document(
    text: str | bytes, *, at: str = "", finite: bool = True, depth: int = MAX_DEPTH
) -> Any:
    """JSON in which nothing is nested deeper than `depth` and no name stands twice.

    No integer has more than `MAX_DIGITS` digits.

    Args:
        text: the document.
        at: the path of its field where it is part of another document, for the message.
        finite: refuse NaN and the infinities.
        depth: how deep lists and dicts may be nested.

    Raises:
        ValueError: it is none; the message names the field.
    """
    unfit = _not_finite if finite else None
    try:
        value = json.loads(
            text, parse_int=_integer, parse_constant=unfit, object_pairs_hook=_unique
        )
    except RecursionError:
        raise ValueError(_at(at, "it is no JSON (nested too deep)")) from None
    except ValueError as error:
        raise ValueError(_at(at, f"it is no JSON ({error})")) from error
    fault = _fault(value, finite=finite, level=0, most=depth)
    if fault is not None:
        place, what = fault
        raise ValueError(_at(f"{at}{place}" if at else place.removeprefix("."), what))
    return value


class _Unfit(str):
    """In the place of a number that no document may have: what it must be, and what came."""

    __slots__ = ()


def _integer(text: str) -> int | _Unfit:
    count = len(text.removeprefix("-"))
    if count <= MAX_DIGITS:
        return int(text)
    return _Unfit(
        f"must be a finite number of at most {MAX_DIGITS} digits. Received: one of {count}"
    )


def _not_finite(name: object) -> _Unfit:
    return _Unfit(f"must be a finite number. Received: {name}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # JSON leaves open which of two equal names counts; two readers might differ.
    found = dict(pairs)
    if len(found) != len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the name {shown(twice)} stands twice")
    return found


def _fault(value: Any, *, finite: bool, level: int, most: int) -> tuple[str, str] | None:
    """The path of what cannot stay, made on the way back up, and what it must be."""
    if isinstance(value, _Unfit):
        return "", value
    if isinstance(value, float):  # 1e999 is JSON, and infinite
        return None if not finite or math.isfinite(value) else ("", _not_finite(value))
    if not isinstance(value, dict | list):
        return None
    if level == most:
        return "", f"must be nested at most {most} deep"
    for name, each in value.items() if isinstance(value, dict) else enumerate(value):
        fault = _fault(each, finite=finite, level=level + 1, most=most)
        if fault is not None:
            return (f"[{name}]" if isinstance(value, list) else f".{name}") + fault[0], fault[1]
    return None


def _at(path: str, what: str) -> str:
    short = path if len(path) <= 80 else f"{path[:77]}..."
    return f"in {short!r}: {what}" if path else what
