"""What a recorder has to say to whoever calls it next: errors and warnings from the background."""

from __future__ import annotations

import contextlib
import logging
from typing import Literal, TypeAlias, get_args

from ..core.errors import SnapshotError, shown
from ..core.warn import warn

OnError: TypeAlias = Literal["raise", "warn"]

_log = logging.getLogger(__name__)


class Notices:
    """Errors and warnings, kept until they are said; each is said once.

    Any thread may add, and any may have them said.

    Args:
        on_error: whether an error is raised, or warned of.

    Raises:
        SnapshotError: neither.
    """

    def __init__(self, on_error: OnError) -> None:
        if on_error not in get_args(OnError):
            raise SnapshotError(
                "Argument `on_error` must be 'raise' or 'warn'. "
                f"Received: on_error={shown(on_error)}"
            )
        self._on_error: OnError = on_error
        self._failures: list[Exception] = []
        self._warnings: list[Warning] = []
        self._said: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._failures or self._warnings)

    def fail(self, error: Exception) -> None:
        """Add an error."""
        if self._on_error == "raise":
            self._failures.append(error)
        else:
            self._warnings.append(RuntimeWarning(str(error)))

    def warn(self, text: str, *, once: str = "") -> None:
        """Add a warning.

        Args:
            text: what it says.
            once: what it is about, where one warning of that is enough.
        """
        if once not in self._said:
            self._warnings.append(UserWarning(text))
        self._said |= {once} - {""}

    def note(self, text: str, *, once: str) -> None:
        """Log at once what may be meant: a warning, where one of it is enough."""
        if once not in self._said:
            self._said.add(once)
            log(text)

    def say(self) -> None:
        """Warn, and raise, what was added since the last call."""
        # Another thread may do so at the same time. Where warnings are errors, the
        # first is raised, and the others are yet to be said.
        with contextlib.suppress(IndexError):
            while True:
                warn(self._warnings.pop(0))
        failures: list[Exception] = []
        with contextlib.suppress(IndexError):
            while True:
                failures.append(self._failures.pop(0))
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise SnapshotError("\n".join(map(str, failures))) from failures[0]

    def log(self) -> None:
        """Log what was added, where nobody will call again."""
        while self._warnings:
            _log.warning("%s", self._warnings.pop(0))
        while self._failures:
            _log.error("%s", self._failures.pop(0))


def log(text: str) -> None:
    """Log what may be meant, where it may be that nobody will call again."""
    _log.warning("%s", text)
