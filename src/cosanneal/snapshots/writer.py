"""The background writer: the thread that makes files of held copies of the weights."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from ..core.errors import SnapshotError
from .capture import HostBuffers

Job: TypeAlias = Callable[[], None]


class Writer:
    """Runs jobs one after another, in a thread that lives while there are any.

    The thread is no daemon: an interpreter that ends waits for it, so that what
    was taken is written even where nobody waits for it or closes the recorder.

    Args:
        buffers: held memory, once for each job that may be in flight.
        background: False runs each job when it is submitted.
        failed: told of each job that fails.
    """

    def __init__(
        self,
        buffers: Sequence[HostBuffers],
        *,
        background: bool,
        failed: Callable[[Exception], None],
    ) -> None:
        self._buffers = buffers
        self._failed = failed
        self.background: bool = background
        self._condition = threading.Condition()
        # The first is being done. No other record says which buffers are in use,
        # so that an interrupt, at whatever line, leaves none lost.
        self._jobs: deque[tuple[HostBuffers, Job]] = deque()
        self._thread: threading.Thread | None = None
        self._last_wish: Job | None = None
        self._done = 0
        self._doing: int | None = None  # the thread that does a job
        self._telling = False

    @property
    def pending(self) -> int:
        """The number of jobs that are not done."""
        return len(self._jobs)

    def free_buffers(self) -> HostBuffers:
        """Buffers that no job uses, waited for if all are in flight."""
        with self._condition:
            self._see_to_it()
            self._condition.wait_for(lambda: len(self._jobs) < len(self._buffers))
            used = [buffers for buffers, _ in self._jobs]
            # The first of them: those never used need no memory.
            return next(buffers for buffers in self._buffers if buffers not in used)

    def submit(self, buffers: HostBuffers, job: Job) -> None:
        """Have the job done, after which the buffers are free again."""
        # The end of the interpreter waits for threads that were there when it began.
        if self.background and threading.main_thread().is_alive():
            with self._condition:
                self._jobs.append((buffers, job))
                self._see_to_it()
        else:
            self.wait()
            self._do(job)

    def wait(self) -> None:
        """Return when all jobs are done.

        Raises:
            SnapshotError: a job waits for itself.
        """
        if threading.current_thread() is self._thread:
            raise SnapshotError(
                "The recorder must not be waited for, or closed, by the thread that writes. "
                "Received: such a call, as in `on_durable`; call it where the loop is"
            )
        with self._condition:
            self._see_to_it()
            self._condition.wait_for(lambda: not self._jobs)

    def settle(self) -> None:
        """Return when what the jobs until now write is there, or lost; at once where it is written.

        The last may still be `telling`, for whom it tells may be who calls this.
        """
        if threading.get_ident() == self._doing:
            return
        with self._condition:
            self._see_to_it()
            last = self._done + len(self._jobs)
            self._condition.wait_for(lambda: self._done + self._telling >= last)

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Within a job: what it was to write is there, and somebody is told so."""
        with self._condition:
            self._telling = True
            self._condition.notify_all()
        try:
            yield
        finally:
            self._telling = False

    def at_rest(self, wish: Job) -> None:
        """Have something done when all jobs are; it may be done twice.

        Without waiting, but at the interpreter's end: an interrupt may have ended
        its own waiting for the thread.
        """
        # The collector may call this in any thread and between any two lines,
        # also those of `_work`, which therefore looks for the wish last.
        self._last_wish = wish
        main = threading.main_thread()
        if not main.is_alive() and threading.current_thread() is main:
            self.wait()
        if not self._jobs:
            wish()

    def _see_to_it(self) -> None:
        """Have a thread at work if there are jobs."""
        if not self._jobs or (self._thread is not None and self._thread.is_alive()):
            return
        # No daemon, also where a daemon of the user's asks for it.
        self._thread = threading.Thread(target=self._start, name="cosanneal-writer", daemon=False)
        try:
            self._thread.start()
        except RuntimeError:  # there is no thread to be had
            self._work()

    def _start(self) -> None:
        # An interrupt of `Thread.start` lets the next call take a thread that begins late for none.
        with self._condition:
            if self._thread is not threading.current_thread():
                return
        self._work()

    def _work(self) -> None:
        more = True
        while more:
            self._do(self._jobs[0][1])
            with self._condition:
                self._jobs.popleft()
                self._done += 1
                more = bool(self._jobs)
                if not more:
                    self._thread = None
                self._condition.notify_all()
        if self._last_wish is not None:
            self._last_wish()

    def _do(self, job: Job) -> None:
        self._doing = threading.get_ident()
        try:
            job()
        except Exception as error:
            self._failed(error)
        finally:
            self._doing = None
