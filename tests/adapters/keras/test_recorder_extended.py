"""A Keras model goes on under a schedule that was extended from its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import cosanneal as ca
from cosanneal.adapters.keras import CyclicCosineSchedule, SnapshotEnsemble, SnapshotRecorder
from cosanneal.ensemble import folder_results
from tests.shared.keras_runs import SCHEDULE, data, fit, small_net, steps

LONGER = SCHEDULE.extended(num_cycles=2, total_steps=35, max_lr=0.15)


def whole(folder: Path) -> Any:
    model = small_net(rate=CyclicCosineSchedule(LONGER))
    fit(model, SnapshotRecorder(folder, LONGER), updates=35)
    return model


def check_alike(model: Any, folder: Path, tmp_path: Path) -> None:
    """The run is one that had the new schedule all along."""
    other = whole(tmp_path / "whole")
    for weight, wanted in zip(model.get_weights(), other.get_weights(), strict=True):
        assert weight.tobytes() == wanted.tobytes()
    recorder = SnapshotRecorder(tmp_path / "whole", LONGER)
    recorder.close()
    store = type(recorder.store)(folder)
    assert (
        steps(store)
        == steps(recorder.store)
        == [(0, 5), (1, 10), (2, 15), (3, 20), (4, 27), (5, 35)]
    )
    for each, expected in zip(store.list(), recorder.store.list(), strict=True):
        assert each.schedule == (SCHEDULE if each.step <= 20 else LONGER)
        assert each.metadata["rate"] == LONGER.rate(each.step - 1)
        loaded = each.load()
        for name, value in expected.load().items():
            assert loaded[name].tobytes() == value.tobytes()
    x, _ = data()
    ours, theirs = (SnapshotEnsemble(model, each) for each in (folder, recorder.store))
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    assert folder_results(folder)["run"]["cycle_ends"] == [4, 9, 14, 19, 26, 34]


def test_a_saved_model_goes_on_under_the_extended_schedule(tmp_path: Path) -> None:
    model = small_net()
    fit(model, SnapshotRecorder(tmp_path / "run", SCHEDULE))
    model.save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    model.optimizer.learning_rate = CyclicCosineSchedule(LONGER)
    fit(model, SnapshotRecorder(tmp_path / "run", LONGER), updates=15)
    check_alike(model, tmp_path / "run", tmp_path)


def test_a_model_in_use_goes_on_under_the_extended_schedule(tmp_path: Path) -> None:
    model = small_net()
    fit(model, SnapshotRecorder(tmp_path / "run", SCHEDULE))
    # Its compiled step has the constants of the schedule before, which end at a rate of 0.
    model.optimizer.learning_rate = CyclicCosineSchedule(LONGER)
    fit(model, SnapshotRecorder(tmp_path / "run", LONGER), updates=15)
    check_alike(model, tmp_path / "run", tmp_path)


def test_a_rate_that_the_recorder_sets_goes_on(tmp_path: Path) -> None:
    model = small_net(rate=0.1)
    fit(model, SnapshotRecorder(tmp_path, SCHEDULE, set_lr=True))
    fit(model, SnapshotRecorder(tmp_path, LONGER, set_lr=True), updates=15)
    alone = small_net(rate=0.1)
    fit(alone, SnapshotRecorder(tmp_path / "alone", LONGER, set_lr=True), updates=35)
    for ours, theirs in zip(model.get_weights(), alone.get_weights(), strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_one_that_differs_in_what_was_done_is_refused(tmp_path: Path) -> None:
    model = small_net()
    fit(model, SnapshotRecorder(tmp_path, SCHEDULE))
    other = ca.CyclicCosine(0.1, total_steps=40, num_cycles=6)
    model.optimizer.learning_rate = CyclicCosineSchedule(other)
    with pytest.raises(ca.SnapshotError, match=r"the same cycles up to there.*extended"):
        fit(model, SnapshotRecorder(tmp_path, other), updates=5)
    # And so is a recorder of the new schedule for an optimizer of the old one.
    fresh = small_net()
    with pytest.raises(ca.ScheduleError, match="must be the schedule of the optimizer"):
        fit(fresh, SnapshotRecorder(tmp_path / "b", LONGER), updates=5)
