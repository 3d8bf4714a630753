"""A loader that gives each of several processes a share of the samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from ...core.errors import EnsembleError
from ...snapshots.ranks import ALONE, Ranks

T = TypeVar("T")


class Share(Protocol):
    """What one process has of the samples, and what brings the shares together.

    Attributes:
        ranks: the processes.
    """

    ranks: Ranks

    def whole(self, rows: Any) -> Any:
        """The rows of all processes as one array, row i that of sample i, none twice.

        All must ask, for the same thing in the same order.

        Args:
            rows: those of this process, in the order in which its loader gives the
                samples: an array of the framework's or of numpy's.

        Raises:
            EnsembleError: in every process, where rows do not fit the loader or each other.
        """


class Shared:
    """What is made of batches, be they all of the samples or a share of them.

    Args:
        share: what this process has of them; None for all.
    """

    def __init__(self, share: Share | None) -> None:
        self._share = share
        self.ranks: Ranks = ALONE if share is None else share.ranks

    def refuse(self, name: str, remedy: str) -> None:
        """Refuse an argument that cannot be where this is a share.

        Raises:
            EnsembleError: it is one.
        """
        if self._share is not None:
            raise EnsembleError(
                f"Argument `{name}` must be left out where each process has a loader of its share "
                f"of the samples. Received: both; {remedy}"
            )

    def whole(self, rows: Any) -> Any:
        """The rows of all samples, of those of this process; see `Share.whole`."""
        return rows if self._share is None else self._share.whole(rows)

    def laid(
        self,
        join: Callable[[Sequence[Any]], Any],
        lay: Callable[[Callable[[Sequence[Any]], Any]], T],
    ) -> T:
        """What is laid out of the outputs of all batches, of those of this process.

        Args:
            join: the framework's own way to join arrays along the first axis.
            lay: lays outputs out by such a function.
        """
        if self._share is None:
            return lay(join)
        self.ranks.agreed(lambda: lay(join))  # or one would wait for another that cannot
        return lay(lambda parts: self.whole(join(parts)))
