"""Several outputs, and batches of several lengths, with a model of numpy alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosanneal.ensemble import SnapshotEnsemble
from tests.ensemble.test_model import LinearModel
from tests.shared.modes import MODES
from tests.shared.recording import EVERY_STEP, ArrayRecorder
from tests.shared.several import (
    MEMBERS,
    Build,
    check_fitted_by_one,
    check_ragged,
    check_ragged_judged,
    check_several,
    kernels,
)


class SeveralModel(LinearModel):
    """A dict of logits, values and something else."""

    def layout(self) -> dict[str, Any]:
        return {"w": ((4, 5), "float32"), "b": ((5,), "float32")}

    @contextlib.contextmanager
    def running(self, pick: Any) -> Iterator[Callable[[Any, Any], Any]]:
        def run(weights: Any, batch: Any) -> Any:
            z = batch[0] @ weights["w"] + weights["b"]
            return pick({"class": z[..., :3], "box": z[..., 3:], "aux": z[:, :1]})

        yield run

    def stack(self, members: Sequence[Callable[[], Any]], pick: Any) -> Callable[[Any], Any]:
        loaded = [load() for load in members]

        def run(batch: Any) -> Any:
            with self.running(pick) as one:
                every = [one(weights, batch) for weights in loaded]
            if isinstance(every[0], tuple):
                return tuple(np.stack(each) for each in zip(*every, strict=True))
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


def test_a_choice_by_one_of_several(build: Build, tmp_path: Path) -> None:
    check_fitted_by_one(build, tmp_path)


@pytest.mark.parametrize("mode", MODES)
def test_batches_of_several_lengths(build: Build, mode: Any) -> None:
    check_ragged(build, mode)


def test_a_choice_by_batches_of_several_lengths(build: Build, tmp_path: Path) -> None:
    check_ragged_judged(build, tmp_path)
