"""Runs of which a recorder sees nothing, or not what is trained: each says so."""

from __future__ import annotations

import gc
import warnings
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder

SCHEDULE = ca.CyclicCosine(0.1, total_steps=30, num_cycles=3)
CLOSED = r"A cycle ended, and no snapshot was taken: the recorder of .*run was closed after"


class Loop:
    """A model, its optimizer and its scheduler."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(3, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.scheduler = CyclicCosineLR(self.optimizer, SCHEDULE)

    def train(self, updates: int) -> None:
        for _ in range(updates):
            self.optimizer.zero_grad()
            self.model(torch.randn(8, 3)).square().mean().backward()
            self.optimizer.step()
            self.scheduler.step()


@pytest.mark.parametrize("before", [0, 14, 10])
def test_a_cycle_that_ends_after_the_recorder_was_closed_is_warned_of_once(
    tmp_path: Path, before: int
) -> None:
    loop = Loop()
    with SnapshotRecorder(tmp_path / "run", loop.model, loop.scheduler):
        loop.train(before)
    loop.train(9 - before % 10)  # within the cycle there is nothing to say
    with pytest.warns(UserWarning, match=f"{CLOSED} {before} updates") as found:
        loop.train(1)
    assert [each.filename for each in found] == [__file__]
    loop.train(10)


def test_whoever_records_after_a_closed_recorder_takes_its_place(tmp_path: Path) -> None:
    loop = Loop()
    SnapshotRecorder(tmp_path / "run", loop.model, loop.scheduler).close()
    with SnapshotRecorder(tmp_path / "run", loop.model, loop.scheduler) as recorder:
        loop.train(30)
    assert [each.step for each in recorder.store.list()] == [10, 20, 30]


def test_nothing_is_said_after_an_error_or_after_the_last_cycle(tmp_path: Path) -> None:
    loop = Loop()
    with pytest.raises(KeyError), SnapshotRecorder(tmp_path / "a", loop.model, loop.scheduler):
        raise KeyError
    loop.train(12)
    loop = Loop()
    with SnapshotRecorder(tmp_path / "b", loop.model, loop.scheduler):
        loop.train(30)
    loop.train(0)


def test_a_recorder_of_the_schedule_that_is_never_stepped_is_warned_of(tmp_path: Path) -> None:
    loop = Loop()
    recorder = SnapshotRecorder(tmp_path, loop.model, SCHEDULE)
    loop.train(30)
    with pytest.warns(
        UserWarning, match=r"did 30 updates, .* no snapshot was taken\. .* its own recorder\.step"
    ):
        recorder.close()
    assert not recorder.store.list()


def test_a_recorder_of_the_schedule_that_is_stepped_is_not(tmp_path: Path) -> None:
    loop = Loop()
    with SnapshotRecorder(tmp_path, loop.model, SCHEDULE) as recorder:
        for _ in range(30):
            loop.train(1)
            recorder.step()
    assert len(recorder.store.list()) == 3


@pytest.mark.parametrize("other", [False, True])
def test_a_model_that_the_optimizer_does_not_train_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, other: bool
) -> None:
    loop = Loop()
    model = nn.Linear(3, 1) if other else loop.model
    with SnapshotRecorder(tmp_path, model, loop.scheduler):
        loop.train(30)
    said = [each.message for each in caplog.records]
    if not other:
        assert said == []
        return
    assert len(said) == 1
    assert said[0].startswith("The weights at update 20 are those at update 10, to the last bit")


def test_weights_that_follow_the_trained_ones_are_trained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop()
    average = torch.optim.swa_utils.AveragedModel(loop.model)
    with SnapshotRecorder(tmp_path, average, loop.scheduler):
        for _ in range(30):
            average.update_parameters(loop.model)
            loop.train(1)
    assert caplog.text == ""


def test_a_snapshot_taken_anew_of_the_same_update_is_not_called_untrained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop()
    with SnapshotRecorder(tmp_path, loop.model, loop.scheduler) as recorder:
        loop.train(10)
        recorder.take(metrics={"error": 0.5})
        loop.train(20)
    assert caplog.text == ""


def test_where_warnings_are_errors_the_scheduler_has_moved_on(tmp_path: Path) -> None:
    loop = Loop()
    SnapshotRecorder(tmp_path / "run", loop.model, loop.scheduler).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match=CLOSED):
            loop.train(10)
    assert loop.scheduler.last_epoch == 10
    assert loop.optimizer.param_groups[0]["lr"] == SCHEDULE.rate(10)


def test_a_scheduler_goes_at_once_after_its_recorder_was_closed(tmp_path: Path) -> None:
    loop = Loop()
    SnapshotRecorder(tmp_path / "run", loop.model, loop.scheduler).close()
    gc.disable()
    try:
        held = weakref.ref(loop.scheduler)
        del loop.scheduler
        assert held() is None
    finally:
        gc.enable()


def test_a_warning_of_an_ensemble_is_of_the_line_that_fits_it(tmp_path: Path) -> None:
    loop = Loop()
    with SnapshotRecorder(tmp_path, loop.model, loop.scheduler):
        loop.train(30)
    ensemble = SnapshotEnsemble(loop.model, tmp_path, outputs="values")
    with pytest.warns(UserWarning, match="The ensemble was chosen on 40 validation") as found:
        ensemble.fit(torch.randn(40, 3), torch.randn(40, 1))
    assert [each.filename for each in found] == [__file__]
