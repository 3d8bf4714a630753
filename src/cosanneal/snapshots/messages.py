"""Messages by a collective that knows arrays of one size alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# A message up to this many bytes, with four for its length, takes one collective.
_USUAL: Final = 4096
_HEADER: Final = 4


def everyones(
    message: str, gathered: Callable[[NDArray[np.uint8]], Iterable[NDArray[Any]]]
) -> list[str]:
    """The messages of all processes, by rank; see `Link.everyones`.

    Args:
        message: that of this process.
        gathered: the arrays of all, of so many bytes each, by rank; all ask at the same time.
    """
    own = message.encode()
    found = [*gathered(_padded(own, _USUAL))]
    lengths = [int(each[:_HEADER].view("<u4")[0]) for each in found]
    if (longest := max(lengths) + _HEADER) > _USUAL:
        # Of few sizes, each of which is compiled.
        found = [*gathered(_padded(own, 1 << (longest - 1).bit_length()))]
    pairs = zip(found, lengths, strict=True)
    return [each[_HEADER : _HEADER + length].tobytes().decode() for each, length in pairs]


def _padded(own: bytes, size: int) -> NDArray[np.uint8]:
    """So many bytes: the length of a message, and as much of it as fits."""
    padded = np.zeros(size, np.uint8)
    padded[:_HEADER] = np.frombuffer(len(own).to_bytes(_HEADER, "little"), np.uint8)
    there = np.frombuffer(own, np.uint8)[: size - _HEADER]
    padded[_HEADER : _HEADER + len(there)] = there
    return padded
