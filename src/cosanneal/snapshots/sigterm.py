"""SIGTERM, which clusters send some seconds before they kill: what was taken is written first."""

from __future__ import annotations

import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ..core.errors import SnapshotError


class FinishOnSigterm:
    """Has what is under way finished when SIGTERM comes, then does what it did before.

    A handler that was there is called; where there was none, the process ends of the
    signal. Python runs handlers in its main thread, between two of its own
    instructions: a call into a framework's code is over first. A forked child,
    such as a loader's worker, goes straight on to what was there before.

    Args:
        finish: given `of`, returns when all is finished.
        of: what is finished. It is not held: where it is gone, nothing is under way.

    Raises:
        SnapshotError: not in the main thread, the only one that may set a handler.
    """

    def __init__(self, finish: Callable[[Any], None], of: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise SnapshotError(
                "Argument `install_sigterm` must be False outside of the main thread, the only "
                "one that may handle signals. Received: True in thread "
                f"{threading.current_thread().name!r}; make the recorder in the main thread, or "
                "call its wait() in a handler of your own"
            )
        self._finish, self._of = finish, weakref.ref(of)
        self._process = os.getpid()
        self._active = True
        self._held = 0
        self._came: FrameType | bool | None = False  # while it was held
        self._before = _active(signal.signal(signal.SIGTERM, self._handle))

    @property
    def before(self) -> Any:
        """The handler that was there before."""
        return self._before

    @property
    def over(self) -> bool:
        """Whether there is nothing any more that it could finish."""
        return not self._active or self._of() is None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have the signal wait for the end of the block, which the main thread runs."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if self._came is not False and not self._held:
                self._came = False
                self._handle(signal.SIGTERM, None)

    def release(self) -> None:
        """Put back what was there before, unless somebody has put another in its place."""
        self._active = False
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, _active(self._before))

    def _handle(self, number: int, frame: FrameType | None) -> Any:
        of = self._of()
        if self._active and of is not None and self._process == os.getpid():
            if self._held:
                self._came = frame
                return
            self._finish(of)
        if callable(self._before):
            self._before(number, frame)
        elif self._before != signal.SIG_IGN:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            # Still here: the first process of a container, for which there is no default.
            raise SystemExit(128 + number)


def _active(handler: Any) -> Any:
    """The handler, or where it is of no use any more, the first that it leads to that is."""
    while isinstance(owner := getattr(handler, "__self__", None), FinishOnSigterm) and owner.over:
        handler = owner.before
    return handler
