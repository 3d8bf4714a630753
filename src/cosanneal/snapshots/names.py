"""The names of the files in a folder of snapshots; nothing else says which belong together."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

SNAPSHOT_NAME: Final = re.compile(r"cycle-(\d{4,20})-step-(\d{10,20})\.safetensors")

# The snapshot's name without its end; the part's number from 1, and how many there are; the token.
_PART: Final = r"(cycle-\d{4,20}-step-\d{10,20})-part-(\d{4,9})-of-(\d{4,9})-([0-9a-f]{8})"
_PART_NAME: Final = re.compile(rf"{_PART}\.safetensors")
_NOTE: Final = re.compile(rf"\.{_PART}\.safetensors\.failed")
_LEFTOVER: Final = re.compile(rf"\.(cycle-\d+-step-\d+|{_PART})\.safetensors\.[0-9a-f]+\.tmp")
# Of a document beside the snapshots, as it is put at a URL.
_DOCUMENT: Final = re.compile(r"\.\w+\.json\.[0-9a-f]+\.tmp")

_END: Final = ".safetensors"


def snapshot_name(cycle: int, step: int) -> str:
    """The name of a snapshot's file; of one in parts, that of its index."""
    return f"cycle-{cycle:04d}-step-{step:010d}{_END}"


def part_name(whole: str, part: int, number: int, token: str) -> str:
    """The name of a part's file.

    Args:
        whole: the snapshot's.
        part: the index of the part, from 0.
        number: of all of its parts.
        token: what tells them from those of another writing of the snapshot.

    Example:
        >>> part_name("cycle-0003-step-0000012000.safetensors", 0, 4, "0a1b2c3d")
        'cycle-0003-step-0000012000-part-0001-of-0004-0a1b2c3d.safetensors'
    """
    return f"{whole.removesuffix(_END)}-part-{part + 1:04d}-of-{number:04d}-{token}{_END}"


def note_name(part: str) -> str:
    """The name of the note that a part, whose name is given, could not be written."""
    return f".{part}.failed"


def probe_name(token: str) -> str:
    """The name of a file by which processes see that they look at one folder.

    One that is left behind goes as an interrupted write does.
    """
    return f".{snapshot_name(0, 0)}.{token}.tmp"


def is_leftover(name: str) -> bool:
    """Whether a file is what an interrupted write left: a temporary one, or a note."""
    return bool(_LEFTOVER.fullmatch(name) or _NOTE.fullmatch(name))


def is_leftover_there(name: str) -> bool:
    """Whether a file at a URL is what an interrupted write left, also of a document beside them."""
    return is_leftover(name) or bool(_DOCUMENT.fullmatch(name))


def parts_among(files: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """The parts among files: their names, by the snapshot's name, then by the token."""
    found: dict[str, dict[str, list[str]]] = {}
    for name in files:
        if match := _PART_NAME.fullmatch(name):
            of_snapshot = found.setdefault(match[1] + _END, {})
            of_snapshot.setdefault(match[4], []).append(name)
    return found


def of_writing(folder: Path, whole: str, token: str) -> list[Path]:
    """What there is of one writing of a snapshot in parts: parts, and notes that one failed.

    Raises:
        OSError: the folder cannot be read.
    """
    start, end = f"{whole.removesuffix(_END)}-part-", f"-{token}{_END}"
    return [
        each
        for each in folder.iterdir()
        if (name := each.name.removeprefix(".").removesuffix(".failed")).startswith(start)
        and name.endswith(end)
        and (_PART_NAME.fullmatch(each.name) or _NOTE.fullmatch(each.name))
    ]
