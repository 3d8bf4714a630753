"""Several outputs, and batches of several lengths, with a model of numpy alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cosanneal as ca
from cosanneal.ensemble import SnapshotEnsemble
from tests.ensemble.test_model import LinearModel
from tests.shared.modes import MODES
from tests.shared.recording import EVERY_STEP, ArrayRecorder
from tests.shared.several import (
    MEMBERS,
    Build,
    Inputs,
    Ragged,
    check_fitted_by_one,
    check_pairs,
    check_ragged,
    check_ragged_judged,
    check_several,
    close,
    inputs,
    kernels,
    means,
)


class SeveralModel(LinearModel):
    """A dict of logits, values and something else."""

    def layout(self) -> dict[str, Any]:
        return {"w": ((4, 5), "float32"), "b": ((5,), "float32")}

    @contextlib.contextmanager
    def running(self, pick: Any) -> Iterator[Callable[[Any, Any], Any]]:
        def run(weights: Any, batch: Any) -> Any:
            z = batch[0] @ weights["w"] + weights["b"]
            box = z[..., 3:]
            return pick(
                {"class": z[..., :3], "box": box, "aux": z[:, :1], "pair": (box, box * box + 1)}
            )

        yield run

    def stack(self, members: Sequence[Callable[[], Any]], pick: Any) -> Callable[[Any], Any]:
        loaded = [load() for load in members]

        def run(batch: Any) -> Any:
            with self.running(pick) as one:
                every = [one(weights, batch) for weights in loaded]
            return stacked(every)

        def stacked(every: Sequence[Any]) -> Any:
            if isinstance(every[0], tuple):
                return tuple(stacked(each) for each in zip(*every, strict=True))
            return np.stack(every)

        return run


@pytest.fixture
def build(tmp_path: Path) -> Build:
    with ArrayRecorder(tmp_path, EVERY_STEP) as recorder:
        for seed in range(MEMBERS):
            w, b = kernels(seed)
            recorder.step({"w": w, "b": b})
    return lambda **options: SnapshotEnsemble(SeveralModel(), tmp_path, **options)


@pytest.mark.parametrize("mode", MODES)
def test_several_outputs(build: Build, mode: Any) -> None:
    check_several(build, mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_mean_and_its_variance_are_one_output(build: Build, mode: Any, tmp_path: Path) -> None:
    check_pairs(build, mode, tmp_path)


def test_a_choice_by_one_of_several(build: Build, tmp_path: Path) -> None:
    check_fitted_by_one(build, tmp_path)


@pytest.mark.parametrize("mode", MODES)
def test_batches_of_several_lengths(build: Build, mode: Any) -> None:
    check_ragged(build, mode)


class PairModel(SeveralModel):
    """A tuple of logits and values."""

    @contextlib.contextmanager
    def running(self, pick: Any) -> Iterator[Callable[[Any, Any], Any]]:
        with super().running(lambda found: pick((found["class"], found["box"]))) as run:
            yield run


def test_a_tuple_and_labels_in_one(build: Build) -> None:
    pairs = SnapshotEnsemble(
        PairModel(), build().stores[0], outputs=("logits", "values"), class_axis=2
    )
    x, y = inputs(8, 5)
    found: Any = pairs.predict(x)
    assert isinstance(found, tuple)
    close(found[0], means(x)[0])
    close(found[1], means(x)[1])
    loader = Ragged((8, 5), (4, 6), labels=lambda y: [y, 0])
    batches = [y for _, y in loader.batches]
    with pytest.warns(UserWarning, match="12 validation samples"):
        expected = pairs.fit(loader)
    assert expected.output == "0"
    for output, labels in ((0, batches), ("0", (batches, 0)), (None, [*batches])):
        with pytest.warns(UserWarning, match="12 validation samples"):
            assert pairs.fit(Inputs(loader), labels, output=output) == expected
    with pytest.warns(UserWarning, match="8 validation samples"):
        one = pairs.fit(x, (y, 0))
    # Batches of one shape may have labels in a list too.
    halves = [y[:3], y[3:]]
    loader = Ragged((3, 5), (5, 5))
    loader.batches = [(x[:3], halves[0]), (x[3:], halves[1])]
    with pytest.warns(UserWarning, match="8 validation samples"):
        again = pairs.fit(Inputs(loader), halves)
    assert again.weights == pytest.approx(one.weights)
    with pytest.raises(ca.EnsembleError, match=r"labels must be of one shape.*\(5, 4\) in batch 1"):
        pairs.fit(Inputs(loader), [halves[0], halves[1][:, :4]])


def test_a_choice_by_batches_of_several_lengths(build: Build, tmp_path: Path) -> None:
    check_ragged_judged(build, tmp_path)
