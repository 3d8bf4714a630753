"""What recorders of this process are writing to a folder, which who reads it waits for.

A loop that ran outside of a `with` block has nobody who waits for its last snapshot: whoever lists
the folder next would miss it without a word.
"""

from __future__ import annotations

import os
import re
import weakref
from pathlib import Path
from typing import Final, NamedTuple

from .writer import Writer


class _Place(NamedTuple):
    """Where a writer writes, and in which process."""

    folder: Path
    url: str | None
    process: int
    writer: weakref.ref[Writer]


# A set, and copied at once: another thread, or the collector, may change it meanwhile.
_places: Final[set[_Place]] = set()


def follow(writer: Writer, folder: Path, url: str | None) -> None:
    """Have who reads a folder wait for what this writer has in hand.

    Args:
        writer: it is not held.
        folder: where it writes; of a URL, where the local copies are.
        url: the folder's, if it has one.
    """
    place = _Place(folder, url, os.getpid(), weakref.ref(writer))
    _places.add(place)
    weakref.finalize(writer, _places.discard, place).atexit = False


def settle(folder: Path, url: str | None) -> None:
    """Return when what this process was writing to a folder is there, or lost.

    At once where nothing is under way, and in the thread that writes. What went wrong is its
    recorder's to say. A forked child has no thread that would go on with its parent's.
    """
    for place in tuple(_places):
        writer = place.writer()
        if writer is None or not writer.pending or place.process != os.getpid():
            continue
        if _same(place, folder, url):
            writer.settle()


def _same(place: _Place, folder: Path, url: str | None) -> bool:
    if url is not None or place.url is not None:
        # Stores of several names and options may be one; to wait for too much does no harm.
        return url is not None and place.url is not None and _path(url) == _path(place.url)
    try:
        return folder == place.folder or folder.samefile(place.folder)
    except OSError:
        return False


def _path(url: str) -> str:
    return re.sub("/+", "/", url.partition("://")[2]).strip("/")
