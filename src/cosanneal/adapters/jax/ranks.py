"""The processes of a run under jax.distributed."""

from __future__ import annotations

from typing import Final

import jax
import numpy as np
from jax.experimental import multihost_utils
from numpy.typing import NDArray

from ...snapshots.ranks import ALONE, Ranks, Together

# A message up to this many bytes, with four for its length, takes one collective.
_USUAL: Final = 4096
_HEADER: Final = 4


def ranks_here() -> Ranks:
    """The processes of jax.distributed; this one alone where there are no others."""
    return Together(Processes()) if are_several() else ALONE


def are_several() -> bool:
    """Whether there is more than one process."""
    # Asked first, for a backend that is up could no longer be told of other processes.
    begun = getattr(jax.distributed, "is_initialized", None)
    return (begun is None or bool(begun())) and jax.process_count() > 1


class Processes:
    """The processes of jax.distributed, by whose own collectives messages go."""

    def __init__(self) -> None:
        self.rank: int = jax.process_index()
        self.size: int = jax.process_count()

    def everyones(self, message: str) -> list[str]:
        """The messages of all, by rank."""
        own = message.encode()
        found = self._gathered(own, _USUAL)
        lengths = [int(each[:_HEADER].view("<u4")[0]) for each in found]
        if (longest := max(lengths) + _HEADER) > _USUAL:
            # Of few sizes, each of which is compiled.
            found = self._gathered(own, 1 << (longest - 1).bit_length())
        pairs = zip(found, lengths, strict=True)
        return [each[_HEADER : _HEADER + length].tobytes().decode() for each, length in pairs]

    def _gathered(self, own: bytes, size: int) -> list[NDArray[np.uint8]]:
        """So many bytes of each: the length of its message, and as much of it as fits."""
        padded = np.zeros(size, np.uint8)
        padded[:_HEADER] = np.frombuffer(len(own).to_bytes(_HEADER, "little"), np.uint8)
        there = np.frombuffer(own, np.uint8)[: size - _HEADER]
        padded[_HEADER : _HEADER + len(there)] = there
        return [*np.asarray(multihost_utils.process_allgather(padded))]
