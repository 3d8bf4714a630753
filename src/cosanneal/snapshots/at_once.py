"""What is done with each of many tensors, of several at once where there is much to do."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

T = TypeVar("T")

# Less than this is digested before threads have started.
MUCH_BYTES: Final = 1 << 24
_MOST_THREADS: Final = 8


def of_each(sizes: Mapping[str, int], make: Callable[[str], T]) -> dict[str, T]:
    """What is made of each tensor, by name and in their order.

    Args:
        sizes: the bytes of each, by name.
        make: makes it of a name; in several threads, where the bytes are many.

    Raises:
        Exception: what the first that failed has raised, when all have ended.

    Example:
        >>> of_each({"a": 8, "b": 4}, str.upper)
        {'a': 'A', 'b': 'B'}
    """
    if sum(sizes.values()) < MUCH_BYTES:
        return {name: make(name) for name in sizes}
    # The largest first: the last to be begun should not take long.
    names = deque(sorted(sizes, key=sizes.__getitem__, reverse=True))
    made: dict[str, T] = {}
    failed: list[BaseException] = []

    def work() -> None:
        while not failed:
            try:
                name = names.popleft()
            except IndexError:
                return
            try:
                made[name] = make(name)
            except BaseException as error:
                failed.append(error)

    # The caller's own thread does its share: an executor, which has it wait, takes a millisecond
    # more than the 4 of 100 MB.
    others = min(os.cpu_count() or 1, _MOST_THREADS, len(names)) - 1
    threads = [threading.Thread(target=work, daemon=True) for _ in range(others)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return {name: made[name] for name in sizes}
