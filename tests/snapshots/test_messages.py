"""Messages of any length, by a collective of arrays of one size."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from cosanneal.snapshots.messages import everyones


@pytest.mark.parametrize(
    "messages",
    [
        ["", "a", "b" * 4092],
        ["é" * 3000, "", "c"],
        ["a" * 4092, "b" * 4093, "c" * 100_000],
        ["a", "b" * 8189],
    ],
)
def test_every_message_comes_whole(messages: list[str]) -> None:
    box: list[Any] = [None] * len(messages)
    barrier = threading.Barrier(len(messages))

    def run(rank: int) -> list[str]:
        def gathered(own: Any) -> Any:
            box[rank] = own
            barrier.wait(10)
            found = np.stack(box)  # of one size, or it raises
            barrier.wait(10)
            return found

        return everyones(messages[rank], gathered)

    with ThreadPoolExecutor(len(messages)) as pool:
        assert [*pool.map(run, range(len(messages)))] == [messages] * len(messages)
