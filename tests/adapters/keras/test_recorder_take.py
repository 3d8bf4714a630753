"""Snapshots of Keras models that are taken between the cycles' ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from cosanneal.adapters.keras import SnapshotRecorder
from cosanneal.core.errors import SnapshotError
from tests.shared.keras_runs import SCHEDULE, fit, small_net, steps

pytestmark = pytest.mark.filterwarnings("ignore:The run ended at update:UserWarning")


class Often(keras.callbacks.Callback):
    """Takes a snapshot after some updates, and at an epoch's end with the loss."""

    def __init__(self, recorder: SnapshotRecorder, *at: int) -> None:
        super().__init__()
        self.recorder, self.at, self.done = recorder, at, 0
        self.taken: list[bool] = []
        self.rates: dict[int, float] = {}
        self.weights: dict[int, list[Any]] = {}

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.done += 1
        rate = self.model.optimizer.learning_rate
        self.rates[self.done] = float(keras.ops.convert_to_numpy(rate))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        if self.done in self.at:
            self.weights[self.done] = self.model.get_weights()
            self.taken.append(self.recorder.take({"at": self.done}))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.taken.append(self.recorder.take())


@pytest.mark.parametrize("set_lr", [False, True])
def test_one_is_taken_at_any_update_with_the_optimizers_rate(tmp_path: Path, set_lr: bool) -> None:
    model = small_net(rate=0.5 if set_lr else None)
    recorder = SnapshotRecorder(tmp_path, SCHEDULE, set_lr=set_lr)
    other = Often(recorder, 3, 7, 10)
    fit(model, recorder, other, updates=20)
    recorder.close()
    assert set(other.at) <= {step for _, step in steps(recorder.store)}
    found = {each.step: each for each in recorder.store.list()}
    assert {(each.cycle, step) for step, each in found.items()} >= {(0, 3), (1, 7), (1, 10)}
    for step in (3, 7):
        rate = found[step].metadata["rate"]
        assert rate == SCHEDULE.rate(step - 1)
        assert rate == pytest.approx(other.rates[step], rel=1e-6) or not set_lr
        assert found[step].metadata["metrics"] == {"at": step}
        recorded = sorted(value.tobytes() for value in found[step].load().values())
        assert recorded == sorted(np.asarray(each).tobytes() for each in other.weights[step])
    assert not other.taken[-1]  # the last update has its cycle's
    with pytest.raises(SnapshotError, match="no fit under way"):
        recorder.take()


@pytest.mark.filterwarnings("ignore:Nothing anneals:UserWarning")
def test_a_rate_that_another_sets_is_the_one_that_is_noted(tmp_path: Path) -> None:
    model = small_net(rate=0.0035)
    recorder = SnapshotRecorder(tmp_path, SCHEDULE)
    fit(model, recorder, Often(recorder, 3), updates=5)
    recorder.close()
    rates = {each.step: each.metadata["rate"] for each in recorder.store.list()}
    assert rates[3] == pytest.approx(0.0035, rel=1e-6)
