"""The processes of a run under jax.distributed."""

from __future__ import annotations

import jax
import numpy as np
from jax.experimental import multihost_utils
from numpy.typing import NDArray

from ...snapshots.messages import everyones
from ...snapshots.ranks import ALONE, Ranks, Together


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
        return everyones(message, _gathered)


def _gathered(own: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(multihost_utils.process_allgather(own))
