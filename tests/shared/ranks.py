"""The processes of a run, as threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cosanneal.snapshots.ranks import Ranks, Together


class Threads:
    """A link of threads."""

    def __init__(self, rank: int, box: list[str], barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, barrier.parties
        self.box, self.barrier = box, barrier

    def everyones(self, message: str) -> list[str]:
        self.box[self.rank] = message
        self.barrier.wait(10)
        found = [*self.box]
        self.barrier.wait(10)
        return found


def together(do: Callable[[Ranks, int], Any], size: int = 3) -> list[Any]:
    """What each makes, or the error that it raises."""
    box, barrier = [""] * size, threading.Barrier(size)

    def run(rank: int) -> Any:
        try:
            return do(Together(Threads(rank, box, barrier)), rank)
        except Exception as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return [*pool.map(run, range(size))]
