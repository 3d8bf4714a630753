"""Batches, which must be the same in every pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cosanneal as ca
from cosanneal.ensemble.predict.batches import BATCH_SIZE, Batches
from tests.shared.modes import Loader


def batches_of(loader: Any) -> Batches:
    return Batches(loader, batch_size=None, arrays=np.ndarray, convert=np.asarray)


@pytest.mark.parametrize("size", [1, 8, 16, 32, 64, 128, 1024])
@pytest.mark.parametrize("kind", ["bordered images", "tokens", "sparse"])
def test_a_loader_that_shuffles_is_known_by_what_its_samples_differ_in(
    kind: str, size: int
) -> None:
    """Samples may be alike at their borders and at their beginnings, or nearly everywhere."""
    generator = np.random.default_rng(0)
    if kind == "bordered images":
        x: Any = np.zeros((1024, 1, 28, 28), np.float32)
        x[:, :, 4:24, 4:24] = generator.random((1024, 1, 20, 20))
    elif kind == "tokens":
        x = generator.integers(1000, size=(1024, 32))
        x[:, 0] = 101
    else:
        x = (generator.random((1024, 5000)) < 0.01).astype(np.float32)
    same = batches_of(Loader(x, x, size))
    for _ in range(2):
        assert sum(len(each) for (each,) in same) == 1024
    shuffled = batches_of(Loader(x, x, size, shuffled=True))
    list(shuffled)
    with pytest.raises(ca.EnsembleError, match="another batch"):
        list(shuffled)


def test_one_number_of_a_small_batch_is_enough() -> None:
    x = np.zeros((64, 64))
    batches = batches_of(Loader(x, x, 64))
    list(batches)
    x[63, 63] = 1
    with pytest.raises(ca.EnsembleError, match="another batch 0"):
        list(batches)


def test_texts_are_known_by_what_they_say() -> None:
    """Not by where they lie, which differs from pass to pass."""
    words = ["good", "bad"]

    class Texts:
        def __iter__(self) -> Any:
            yield np.array(["a " + word for word in words], object)

    batches = batches_of(Texts())
    for _ in range(2):
        list(batches)
    words[1] = "worse"
    with pytest.raises(ca.EnsembleError, match="another batch 0"):
        list(batches)


@pytest.mark.parametrize("labels", [3, {"class": 1}, np.arange(5), np.array(1)])
def test_labels_that_do_not_fit_their_batch_are_refused(labels: Any) -> None:
    with pytest.raises(ca.EnsembleError, match=r"a label for each sample.*4 samples"):
        batches_of([(np.zeros((4, 2)), labels)].__iter__()).labels()


def test_the_kind_of_array_that_is_wanted_is_named() -> None:
    with pytest.raises(ca.EnsembleError, match=r"must be an array \(ndarray\).*Received: int"):
        batches_of(3)


@pytest.mark.parametrize(("samples", "size", "expected"), [(21, 10, [7, 7, 7]), (3, 2, [1, 2])])
def test_training_data_are_cut_evenly(samples: int, size: int, expected: list[int]) -> None:
    def sizes(training: bool) -> list[int]:
        batches = Batches(
            np.arange(samples),
            batch_size=size,
            arrays=np.ndarray,
            convert=np.asarray,
            training=training,
        )
        parts = [batch for (batch,) in batches]
        assert np.concatenate(parts).tolist() == list(range(samples))
        return [len(part) for part in parts]

    assert sizes(True) == expected
    assert sizes(False) == [size] * (samples // size) + [samples % size]


@pytest.mark.parametrize("samples", [0, 1, BATCH_SIZE, BATCH_SIZE + 1, 1000])
def test_large_arrays_are_cut_into_batches_of_about_one_size(samples: int) -> None:
    parts = [batch for (batch,) in batches_of(np.arange(samples))]
    assert np.concatenate(parts).tolist() == list(range(samples))
    sizes = [len(part) for part in parts]
    assert len(sizes) == max(-(-samples // BATCH_SIZE), 1)
    assert max(sizes) - min(sizes) <= 1


def test_training_data_and_what_has_no_usual_size_come_at_once() -> None:
    options: dict[str, Any]
    for options in ({"training": True}, {"usual_size": None}):
        batches = Batches(
            np.arange(1000),
            batch_size=None,
            arrays=np.ndarray,
            convert=np.asarray,
            **options,
        )
        assert [len(batch) for (batch,) in batches] == [1000]


def test_labels_may_be_of_other_lengths_in_each_batch() -> None:
    padded = [(np.ones((4, size)), np.zeros((4, size), int)) for size in (5, 7)]

    class Loaded:
        def __iter__(self) -> Any:
            return iter(padded)

    found = batches_of(Loaded()).labels(lambda labels: labels + 1)
    assert [each.shape for each in found] == [(4, 5), (4, 7)]
    assert all((each == 1).all() for each in found)
