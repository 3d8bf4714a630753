"""The processes of one run: the first writes, and all hear how that went.

A run on several processes has a recorder in each. They step alike, so that a cycle ends
in all at once. What only one of them can do (open the folder, write) rank 0 does, and
an error of it is raised in every process: one that went on alone would wait for the
others for ever.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from ..core import errors
from ..core.errors import CosannealError, SnapshotError

T = TypeVar("T")


class Link(Protocol):
    """What brings the processes of a run together: a framework's own collectives."""

    rank: int
    size: int

    def everyones(self, message: str) -> list[str]:
        """The messages of all, by rank, once each has sent its own."""


class Ranks(Protocol):
    """The processes of a run, as one of them sees them.

    Attributes:
        alone: whether there is no other.
        writes: whether this is the one that writes.
    """

    alone: bool
    writes: bool

    def told(self, do: Callable[[], T]) -> T | None:
        """What rank 0 makes by a function; None in the others, where it is not called.

        Raises:
            Exception: in rank 0 what the function raises; in the others the same of ours,
                else a SnapshotError that says it.
        """

    def shared(self, do: Callable[[], Any]) -> Any:
        """Plain data for JSON that rank 0 makes by a function, in all; errors as of `told`."""

    def agreed(self, do: Callable[[], T]) -> T:
        """What each makes by a function, if none fails; errors as of `told`, of the first."""

    def said(self, do: Callable[[], T], say: Callable[[T], Any]) -> tuple[T, list[Any]]:
        """What each makes, and the plain data that each says of its own, by rank.

        Errors as of `agreed`.
        """

    def agreed_and_told(
        self, do: Callable[[], T], tell: Callable[[], object], say: Callable[[T], Any]
    ) -> tuple[T, list[Any], Exception | None]:
        """As `said`, and in the same message how a process fails at another function.

        Returns:
            What this one makes; what each says of its own; and what all are to raise of the
            other function, or None. Of a run of one process None, and the other is not called.

        Raises:
            Exception: as of `agreed`, with a note of what failed besides.
        """


class Alone:
    """A run of one process."""

    alone = writes = True

    def told(self, do: Callable[[], T]) -> T | None:
        """What the function makes."""
        return do()

    def shared(self, do: Callable[[], Any]) -> Any:
        """What the function makes."""
        return do()

    def agreed(self, do: Callable[[], T]) -> T:
        """What the function makes."""
        return do()

    def said(self, do: Callable[[], T], say: Callable[[T], Any]) -> tuple[T, list[Any]]:
        """What the function makes, and what is said of it."""
        made = do()
        return made, [say(made)]

    def agreed_and_told(
        self,
        do: Callable[[], T],
        tell: Callable[[], object],  # noqa: ARG002
        say: Callable[[T], Any],
    ) -> tuple[T, list[Any], None]:
        """What the function makes, and what is said of it."""
        return *self.said(do, say), None


class Together:
    """One of several processes.

    Args:
        link: what brings them together.
        error: what is raised here where another process fails by none of our own errors.
    """

    alone = False

    def __init__(self, link: Link, error: type[CosannealError] = SnapshotError) -> None:
        self._link, self._error = link, error
        self.writes: bool = link.rank == 0

    def told(self, do: Callable[[], T]) -> T | None:
        """What rank 0 makes; see `Ranks.told`."""
        return self.agreed(do) if self.writes else self.agreed(_nothing)

    def shared(self, do: Callable[[], Any]) -> Any:
        """What rank 0 makes; see `Ranks.shared`."""
        return self.said(do if self.writes else _nothing, lambda made: made)[1][0]

    def agreed(self, do: Callable[[], T]) -> T:
        """What each makes; see `Ranks.agreed`."""
        return self.said(do, _no_word)[0]

    def said(self, do: Callable[[], T], say: Callable[[T], Any]) -> tuple[T, list[Any]]:
        """What each makes, and what each says of its own; see `Ranks.said`."""
        return self._meet(do, say, None, [])

    def agreed_and_told(
        self, do: Callable[[], T], tell: Callable[[], object], say: Callable[[T], Any]
    ) -> tuple[T, list[Any], Exception | None]:
        """What each makes and says, and how one fails besides; see `Ranks.agreed_and_told`."""
        own: Exception | None = None
        try:
            tell()
        except Exception as error:
            own = error
        heard: list[Exception] = []
        try:
            made, words = self._meet(do, say, own, heard)
        except Exception as error:
            for each in heard[:1]:
                error.add_note(str(own or each))
            raise
        return made, words, own or next(iter(heard), None)

    def _meet(
        self,
        do: Callable[[], T],
        say: Callable[[T], Any],
        failed: Exception | None,
        heard: list[Exception],
    ) -> tuple[T, list[Any]]:
        """What a function makes here, and what each says of its own.

        Args:
            do: the function.
            say: what is said of what it makes.
            failed: what went wrong here besides.
            heard: what went wrong besides, in any process, is added to it.
        """
        failure: Exception | None = None
        message: dict[str, Any] = {}
        if failed is not None:
            message["failed"] = [type(failed).__name__, str(failed)]
        try:
            made = do()
            message["said"] = say(made)
        except Exception as error:
            failure = error
            message["error"] = [type(error).__name__, str(error)]
        answers = [json.loads(each) for each in self._link.everyones(json.dumps(message))]
        heard += [
            self._error_of(rank, *answer["failed"])
            for rank, answer in enumerate(answers)
            if "failed" in answer
        ]
        if failure is not None:
            raise failure
        for rank, answer in enumerate(answers):
            if "error" in answer:
                raise self._error_of(rank, *answer["error"])
        return made, [answer["said"] for answer in answers]

    def _error_of(self, rank: int, name: str, text: str) -> CosannealError:
        """The error of another process, as one of this."""
        kind = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, CosannealError):
            return kind(f"{text} (in the process of rank {rank})")
        return self._error(f"The process of rank {rank} failed: {name}: {text}")


ALONE = Alone()


def _nothing() -> None:
    """What the others do while rank 0 does something."""


def _no_word(_: object) -> None:
    """What is said of what is nobody else's."""
