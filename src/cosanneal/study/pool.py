"""Runs through an executor: each alone, so that one that fails loses no other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeAlias

from ..core.errors import StudyError, shown
from .job import Job, do

# A run, and what is known of it, or what it failed with.
Ended: TypeAlias = tuple[Job, dict[str, Any] | Exception]


def check_importable(train: Callable[..., Any]) -> None:
    """Refuse a function that another process cannot import.

    Raises:
        StudyError: it is one within another function, or of an interactive session.
    """
    advice = (
        "; put it at the top of a file that can be imported, or give an executor of threads: "
        "executor=concurrent.futures.ThreadPoolExecutor(1)"
    )
    module = getattr(train, "__module__", None)
    if module == "__mp_main__":
        raise StudyError(
            "The call of `study.run` in a script must stand under `if __name__ == '__main__':`, "
            "for each process reads the script anew. Received: a call while it was read"
        )
    if module == "__main__" and not hasattr(sys.modules["__main__"], "__file__"):
        raise StudyError(
            "Argument `train` must be a function that other processes can import. "
            f"Received: {shown(train)}, of an interactive session{advice}"
        )
    try:
        ForkingPickler.dumps(train)
    except Exception as error:
        raise StudyError(
            "Argument `train` must be a function that other processes can import. "
            f"Received: {shown(train)} ({error}){advice}"
        ) from error


def in_processes(jobs: Sequence[Job], workers: int) -> Iterator[Ended]:
    """Do the jobs in fresh processes, so many at a time.

    Where a process dies, all that were running fail with it; each of them, and
    what was not begun, is then done alone, so that the one at fault is known.
    """
    left = {job.document: job for job in jobs}
    with _processes(workers) as pool:
        _start(pool)
        for job, found in through(pool, jobs):
            if not isinstance(found, BrokenProcessPool):
                del left[job.document]
                yield job, found
    for job in left.values():
        with _processes(1) as pool:
            for _, found in through(pool, [job]):
                if isinstance(found, BrokenProcessPool):
                    found = StudyError("its process ended, of a signal or for want of memory")
                yield job, found


def through(executor: Executor, jobs: Sequence[Job]) -> Iterator[Ended]:
    """Do the jobs through any executor, and give each as it ends."""
    futures: dict[Future[dict[str, Any]], Job] = {}
    ended: list[Ended] = []
    try:
        for job in jobs:
            try:
                futures[executor.submit(do, job)] = job
            except Exception as error:  # a pool that broke, or one that cannot send the job
                ended.append((job, error))
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except Exception as error:
                yield futures[future], error
        yield from ended
    finally:
        for future in futures:
            future.cancel()


def _processes(workers: int) -> ProcessPoolExecutor:
    # Forked processes would share the threads and devices of a framework.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)


def _start(pool: ProcessPoolExecutor) -> None:
    """Have one process start, before runs are counted as failed for what is no fault of theirs."""
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool as error:
        raise StudyError(
            "No process could be started. The call of `study.run` in a script must stand under "
            "`if __name__ == '__main__':`, for each process reads the script anew"
        ) from error


def _end_with_parent() -> None:
    """End this process when the study's ends, even if that is killed."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        with suppress(OSError):
            connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)  # for which a recorder may finish its snapshot

    threading.Thread(target=watch, daemon=True).start()
