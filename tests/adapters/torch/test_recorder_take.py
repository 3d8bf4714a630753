"""Snapshots of torch models that are taken between the cycles' ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder
from cosanneal.core.errors import SnapshotError
from tests.shared.torch_runs import SCHEDULE, Training, clone, data, small_net

pytestmark = pytest.mark.filterwarnings("ignore:The run ended at update:UserWarning")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def often(run: Training, updates: int) -> None:
    """Take one after every third update."""
    for _ in range(updates):
        run.update()
        if run.scheduler.last_epoch % 3 == 0:
            run.recorder.take({"third": run.scheduler.last_epoch})


def test_one_is_taken_at_any_update_with_the_rate_that_was_in_force(tmp_path: Path) -> None:
    run, rates, states = Training(tmp_path), {}, {}
    for step in range(1, 8):
        rates[step] = run.optimizer.param_groups[1]["lr"]  # the leading one's
        run.update()
        states[step] = clone(run.model)
        if step == 6:
            assert run.recorder.step()  # of the cycle that ended at update 5
        if step == 7:
            assert run.recorder.take(metrics={"val_error": 0.25})
            assert not run.recorder.step()  # which tells of no other
    run.recorder.close()
    first, taken = run.recorder.store.list()
    assert (first.cycle, first.step, taken.cycle, taken.step) == (0, 5, 1, 7)
    assert taken.metadata["metrics"] == {"val_error": 0.25}
    assert taken.metadata["rate"] == rates[7] == SCHEDULE.rate(6) != SCHEDULE.rate(7)
    for name, value in taken.load(framework="pt").items():
        assert torch.equal(value, states[7][name])


def test_the_rate_of_another_schedule_is_the_one_that_is_noted(tmp_path: Path) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0035)
    with SnapshotRecorder(tmp_path, model, SCHEDULE) as recorder:
        x, y = data()
        for update in range(2):
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            if update:  # in place of `step`, it counts the update
                assert recorder.take()
                optimizer.param_groups[0]["lr"] = 0.7  # of the update to come
            else:
                recorder.step()
        assert not recorder.take()
    (taken,) = recorder.store.list()
    assert (taken.step, taken.metadata["rate"]) == (2, 0.0035)


@pytest.mark.parametrize(("saved", "killed"), [(2, 4), (6, 11), (9, 20)])
def test_a_killed_run_that_is_resumed_takes_the_same(
    tmp_path: Path, saved: int, killed: int
) -> None:
    torch.manual_seed(0)
    whole = Training(tmp_path / "whole")
    often(whole, 20)
    torch.manual_seed(0)
    broken = Training(tmp_path / "broken")
    often(broken, saved)
    broken.save(tmp_path / "checkpoint.pt")
    often(broken, killed - saved)
    broken.recorder.close()
    torch.manual_seed(999)
    resumed = Training(tmp_path / "broken", lr=0.5)
    resumed.load(tmp_path / "checkpoint.pt")
    assert not resumed.recorder.take() or saved == 2  # where it has its snapshot
    often(resumed, 20 - saved)
    for run in (whole, resumed):
        run.recorder.close()
    steps = [each.step for each in resumed.recorder.store.list()]
    assert [step for step in steps if step != 2] == [3, 5, 6, 9, 10, 12, 15, 18, 20]
    ours, theirs = contents(tmp_path / "broken"), contents(tmp_path / "whole")
    assert {name: ours[name] for name in theirs} == theirs


def test_an_update_has_one_snapshot_and_metrics_write_it_anew(tmp_path: Path) -> None:
    run = Training(tmp_path)
    for _ in range(5):
        run.update()
    assert not run.recorder.take()
    run.recorder.wait()
    assert [each.metadata["metrics"] for each in run.recorder.store.list()] == [{"seen": 5}]
    assert run.recorder.take({"val_error": 0.5})
    run.recorder.close()
    (only,) = run.recorder.store.list()
    assert only.metadata["metrics"] == {"val_error": 0.5}
    assert only.metadata["rate"] == SCHEDULE.rate(4)


def test_one_between_the_optimizers_step_and_the_schedulers_is_of_that_update(
    tmp_path: Path,
) -> None:
    run = Training(tmp_path)
    x, y = data()
    for step in range(1, 7):
        torch.nn.functional.cross_entropy(run.model(x), y).backward()
        run.optimizer.step()
        if step in (3, 5, 6):
            assert run.recorder.take()
        run.scheduler.step()
    run.recorder.close()
    found = run.recorder.store.list()
    assert [(each.cycle, each.step) for each in found] == [(0, 3), (0, 5), (1, 6)]
    assert [each.metadata["rate"] for each in found] == [SCHEDULE.rate(k) for k in (2, 4, 5)]
    assert [each.standing.position for each in found] == [3, 5, 6]


def test_a_cycles_end_that_is_lost_is_said_though_one_was_taken_in_its_midst(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Training(tmp_path)
    often(run, 7)
    run.recorder.close()
    (tmp_path / "cycle-0000-step-0000000005.safetensors").unlink()
    with SnapshotRecorder(tmp_path, small_net(), SCHEDULE, resume_from=7):
        pass
    assert "Resuming at step 7 without the snapshot of cycle 0" in caplog.text


def test_they_are_members_and_retention_counts_them(tmp_path: Path) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with SnapshotRecorder(tmp_path, model, SCHEDULE, keep_last=3) as recorder:
        x, y = data()
        for update in range(1, 14):
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            recorder.step()
            if update in (7, 12):
                recorder.take()
    assert [each.step for each in recorder.store.list()] == [7, 10, 12]
    model.eval()
    every = SnapshotEnsemble(model, tmp_path, last=2)
    assert [each.step for each in every.members] == [10, 12]
    ends = SnapshotEnsemble(
        model, tmp_path, members=lambda each: SCHEDULE.is_cycle_end(each.step - 1)
    )
    assert [each.step for each in ends.members] == [10]


def test_what_cannot_be_taken_is_refused(tmp_path: Path) -> None:
    run = Training(tmp_path)
    with pytest.raises(SnapshotError, match=r"once an update was done\. Received: none so far"):
        run.recorder.take()
    run.update()
    with pytest.raises(SnapshotError, match="Argument `metrics` must be a dict of numbers"):
        run.recorder.take({"model": run.model})
    run.recorder.close()
    with pytest.raises(SnapshotError, match="The recorder is closed"):
        run.recorder.take()
    assert run.recorder.store.list() == []


def test_beyond_the_schedule_it_has_the_last_cycle(tmp_path: Path) -> None:
    model, schedule = small_net(), ca.CyclicCosine(0.1, total_steps=2, num_cycles=2)
    with SnapshotRecorder(tmp_path, model, schedule) as recorder:
        for _ in range(2):
            recorder.step()
        with pytest.warns(UserWarning, match="beyond its schedule"):
            recorder.step()
        assert recorder.take()
    assert [(each.cycle, each.step) for each in recorder.store.list()] == [(0, 1), (1, 2), (1, 3)]
