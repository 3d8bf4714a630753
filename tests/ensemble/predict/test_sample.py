"""How a sample of training data is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from cosanneal.ensemble.predict.batches import Batches
from cosanneal.ensemble.predict.sample import Sample, count_samples


def batches(x: Any, **options: Any) -> Batches:
    given: dict[str, Any] = {"batch_size": None, "arrays": np.ndarray, "convert": np.asarray}
    return Batches(x, training=True, **{**given, **options})


def rows(sample: Sample) -> list[int]:
    """Which samples it has, of data whose rows are their numbers."""
    return [int(row) for (batch,) in sample for row in batch.reshape(len(batch), -1)[:, 0]]


class Loader:
    def __init__(self, sizes: Sequence[int]) -> None:
        self.parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])

    def __iter__(self) -> Iterator[Any]:
        return iter(self.parts)


@pytest.mark.parametrize("of_loader", [False, True])
def test_every_sample_has_the_same_chance(of_loader: bool) -> None:
    draws, total, wanted = 2000, 40, 10
    counts = np.zeros(total)
    for seed in range(draws):
        data = Loader([2] * 20) if of_loader else np.arange(total)
        sample = Sample.of(batches(data), wanted, seed)
        found = rows(sample)
        assert len({*found}) == len(found) == sample.samples == wanted
        assert sample.seed == seed
        counts[found] += 1
    # Each is binomial with p = 1/4: within five standard deviations.
    assert np.abs(counts - draws / 4).max() < 5 * np.sqrt(draws * 3 / 16)


def test_it_is_the_same_in_every_pass_and_for_every_seed() -> None:
    for data in (np.arange(100), Loader([10] * 10)):
        first = Sample.of(batches(data), 30, 7)
        assert rows(first) == rows(first) == rows(Sample.of(batches(data), 30, 7))
        assert rows(first) != rows(Sample.of(batches(data), 30, 8))
        for (batch,) in first:  # which is no other's
            batch[:] = -1
        assert -1 not in rows(first)


def test_structures_are_cut_alike_and_in_batches_of_the_size_that_was_asked_for() -> None:
    data = {"a": np.arange(100), "b": np.arange(100)[:, None] * 2}
    (whole,) = Sample.of(batches(data), 30, 0)
    assert np.array_equal(whole["a"] * 2, whole["b"][:, 0])
    parts = [*Sample.of(batches(data, batch_size=16), 30, 0)]
    assert [len(part["a"]) for part in parts] == [15, 15]
    assert np.array_equal(np.concatenate([part["a"] for part in parts]), whole["a"])


@pytest.mark.parametrize("sizes", [[1, 50, 1, 50, 7], [50, 50, 50], [3] * 40])
def test_batches_of_any_sizes_are_taken_until_there_are_enough(sizes: list[int]) -> None:
    for seed in range(20):
        sample = Sample.of(batches(Loader(sizes)), 60, seed)
        found = rows(sample)
        assert len(found) == sample.samples
        assert 60 <= len(found) < 60 + max(sizes)
        # By another algorithm: all batches in the order of their numbers.
        keys = np.random.default_rng(seed).random(len(sizes))
        order = np.argsort(keys)
        enough = int(np.searchsorted(np.cumsum(np.array(sizes)[order]), 60)) + 1
        parts = Loader(sizes).parts
        assert found == [int(i) for j in sorted(order[:enough]) for i in parts[j]]


def test_all_are_taken_where_nothing_can_be_drawn() -> None:
    few = Sample.of(batches(np.arange(20)), 20, 0)
    assert (rows(few), few.samples, few.seed) == ([*range(20)], 20, None)
    every = Sample.of(batches(np.arange(50)), None, 0)
    assert (len(rows(every)), every.seed) == (50, None)
    linked = Sample.of(batches(np.arange(50), linked=True), 20, 0)
    assert (rows(linked), linked.seed) == ([*range(50)], None)

    def refuses(array: Any, places: Any) -> Any:
        raise NotImplementedError(f"{len(array)} {len(places)}")

    nested = Sample.of(batches(np.arange(50), take=refuses), 20, 0)
    assert (rows(nested), nested.samples, nested.seed) == ([*range(50)], 50, None)
    # Of graphs it is not known how many a batch has.
    graph = {"nodes": np.zeros((5, 2)), "edges": np.zeros((9, 2))}
    graphs = Sample.of(batches([graph] * 30), 2, 0)
    assert (len([*graphs]), graphs.samples, graphs.seed) == (30, None, None)


def test_a_batch_that_a_function_takes_whole_is_counted_by_its_arrays() -> None:
    pairs = [(np.arange(5) + 5 * i, np.zeros(5)) for i in range(8)]
    for given in (pairs, [{"x": x, "labels": y} for x, y in pairs]):
        sample = Sample.of(batches(given, whole=True), 10, 0)
        assert (sample.samples, sample.seed, len([*sample])) == (10, 0, 2)
    assert count_samples(({"x": 1}, 2)) is None
