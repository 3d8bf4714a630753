"""Recording a torch model: what is recorded when, and what is refused."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder
from cosanneal.ensemble import folder_results
from cosanneal.snapshots import SnapshotStore
from tests.shared.torch_runs import SCHEDULE, Training, clone, data, record_once, small_net


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.filterwarnings("ignore:The run ended at update:UserWarning")
@pytest.mark.parametrize(("saved", "killed"), [(3, 4), (8, 13), (10, 10), (9, 20), (0, 2)])
def test_a_killed_run_resumed_from_a_checkpoint_is_the_run_that_was_not(
    tmp_path: Path, saved: int, killed: int
) -> None:
    torch.manual_seed(0)
    whole = Training(tmp_path / "whole")
    for _ in range(20):
        whole.update()

    torch.manual_seed(0)
    broken = Training(tmp_path / "broken")
    for step in range(killed):
        if step == saved:
            broken.save(tmp_path / "checkpoint.pt")
        broken.update()
    if saved == killed:
        broken.save(tmp_path / "checkpoint.pt")
    broken.recorder.close()

    torch.manual_seed(999)  # another process, with another random state
    resumed = Training(tmp_path / "broken", lr=0.5)
    resumed.load(tmp_path / "checkpoint.pt")
    for _ in range(20 - saved):
        resumed.update()
    for run in (whole, resumed):
        run.recorder.close()

    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert contents(tmp_path / "whole") == contents(tmp_path / "broken")
    assert len(contents(tmp_path / "whole")) == 4


LONGER = SCHEDULE.extended(at=10, num_cycles=3, total_steps=22)


@pytest.mark.parametrize("saved", [7, 10])
def test_a_run_extended_and_resumed_is_one_that_had_the_new_schedule_all_along(
    tmp_path: Path, saved: int
) -> None:
    torch.manual_seed(0)
    whole = Training(tmp_path / "whole", schedule=LONGER)
    for _ in range(22):
        whole.update()

    torch.manual_seed(0)
    short = Training(tmp_path / "short")
    for step in range(16):  # with a snapshot that the longer run will not have
        if step == saved:
            short.save(tmp_path / "checkpoint.pt")
        short.update()
    short.recorder.close(unfinished=True)

    torch.manual_seed(999)
    resumed = Training(tmp_path / "short", lr=0.5, schedule=LONGER)
    resumed.load(tmp_path / "checkpoint.pt")
    for _ in range(saved, 22):
        resumed.update()
    for run in (whole, resumed):
        run.recorder.close()

    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    folders = whole.recorder.store, resumed.recorder.store
    assert [each.step for each in folders[0].list()] == [5, 10, 14, 18, 22]
    for ours, theirs in zip(folders[1].list(), folders[0].list(), strict=True):
        assert ours.path.name == theirs.path.name
        expected = theirs.load(framework="pt")
        assert all(torch.equal(expected[name], x) for name, x in ours.load(framework="pt").items())
        assert ours.schedule == (SCHEDULE if ours.step <= saved else LONGER)
    # Members of both schedules are one ensemble, and one curve in a report.
    x, _ = data()
    ensembles = [SnapshotEnsemble(whole.model, each) for each in folders]
    assert torch.equal(ensembles[0].predict(x), ensembles[1].predict(x))
    run = folder_results(folders[1].folder)["run"]
    assert run["schedule"] == LONGER.to_dict()
    assert run["cycle_ends"] == [4, 9, 13, 17, 21]


def test_snapshots_are_the_weights_after_each_cycles_last_update(tmp_path: Path) -> None:
    run = Training(tmp_path)
    expected = {}
    for step in range(20):
        run.update()
        if SCHEDULE.is_cycle_end(step):
            expected[step + 1] = clone(run.model)
    run.recorder.wait()
    snapshots = run.recorder.store.list()
    assert [snapshot.step for snapshot in snapshots] == [5, 10, 15, 20] == [*expected]
    assert [snapshot.cycle for snapshot in snapshots] == [0, 1, 2, 3]
    for snapshot in snapshots:
        loaded = snapshot.load(framework="pt")
        assert loaded.keys() == expected[snapshot.step].keys()  # buffers are among them
        for name, value in expected[snapshot.step].items():
            assert torch.equal(loaded[name], value)
            assert loaded[name].dtype == value.dtype
        assert snapshot.metadata["rate"] == SCHEDULE.rate(snapshot.step - 1)
        assert snapshot.metadata["metrics"] == {"seen": snapshot.step}
        assert snapshot.metadata["framework"] == "torch"
        assert snapshot.metadata["versions"]["torch"] == str(torch.__version__)
        assert snapshot.schedule == SCHEDULE


@pytest.mark.filterwarnings("ignore:The run goes on beyond its schedule:UserWarning")
def test_a_recorder_with_a_schedule_counts_by_itself_and_resumes(tmp_path: Path) -> None:
    model = small_net()
    with SnapshotRecorder(tmp_path, model, SCHEDULE) as recorder:
        assert [step for step in range(1, 13) if recorder.step()] == [5, 10]
        state = recorder.state_dict()
    with SnapshotRecorder(tmp_path, model, SCHEDULE) as recorder:
        recorder.load_state_dict(state)
        assert [step for step in range(13, 25) if recorder.step()] == [15, 20]
    with SnapshotRecorder(tmp_path, model, SCHEDULE, resume_from=12) as recorder:
        assert [step for step in range(13, 18) if recorder.step()] == [15]
        recorder.wait()
        assert [snapshot.step for snapshot in recorder.store.list()] == [5, 10, 15]
        assert [step for step in range(18, 25) if recorder.step()] == [20]


def test_a_run_beyond_a_plain_schedule_is_said_once(tmp_path: Path) -> None:
    with SnapshotRecorder(tmp_path, small_net(), SCHEDULE) as recorder:
        for _ in range(20):
            recorder.step()
        with pytest.warns(UserWarning, match=r"done 21 updates of a schedule of 20") as said:
            recorder.step()
        assert said[0].filename == __file__
        recorder.step()


def test_metrics_are_only_computed_when_a_cycle_ends(tmp_path: Path) -> None:
    calls: list[int] = []

    def measure() -> dict[str, Any]:
        calls.append(len(calls))
        return {"loss": torch.tensor(0.25), "nan": float("nan"), "names": ["a"]}

    with SnapshotRecorder(tmp_path, small_net(), SCHEDULE) as recorder:
        for _ in range(10):
            recorder.step(measure)
    assert len(calls) == 2
    metrics = recorder.store.list()[0].metadata["metrics"]
    assert metrics["loss"] == 0.25
    assert metrics["nan"] != metrics["nan"]
    assert metrics["names"] == ["a"]


@pytest.mark.filterwarnings("ignore:The scheduler moved:UserWarning")
def test_a_scheduler_that_takes_several_steps_per_update_misses_no_cycle(tmp_path: Path) -> None:
    # As accelerate does with several processes: two steps of the scheduler per update.
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    with SnapshotRecorder(tmp_path, model, scheduler) as recorder:
        for _ in range(10):
            optimizer.step()
            scheduler.step()
            scheduler.step()
    found = [(s.cycle, s.step, s.metadata["schedule_step"]) for s in recorder.store.list()]
    assert found == [(0, 3, 5), (1, 5, 10), (2, 8, 15), (3, 10, 20)]


def test_a_new_run_does_not_mix_with_an_earlier_one(tmp_path: Path) -> None:
    model = small_net()
    with SnapshotRecorder(tmp_path, model, SCHEDULE) as recorder:
        for _ in range(10):
            recorder.step()
    before = contents(tmp_path)
    message = r"must hold no snapshots of another run\. Received: 2, up to step 10; .*resume_from=0"
    with (
        SnapshotRecorder(tmp_path, model, SCHEDULE) as again,
        pytest.raises(ca.SnapshotError, match=message),
    ):
        again.step()
    assert contents(tmp_path) == before
    with SnapshotRecorder(tmp_path, model, SCHEDULE, resume_from=0) as fresh:
        for _ in range(5):
            assert contents(tmp_path).keys() >= before.keys()
            fresh.step()
    assert [snapshot.step for snapshot in fresh.store.list()] == [5]

    scheduler = CyclicCosineLR(torch.optim.SGD(model.parameters(), lr=0.1), SCHEDULE)
    with SnapshotRecorder(tmp_path, model, scheduler, resume_from=0) as fresh:
        for step in range(1, 6):
            scheduler.optimizer.step()
            scheduler.step()
            assert fresh.step() is (step == 5)
        assert fresh.step() is False


def test_a_recorder_made_after_the_state_was_loaded_takes_the_run_up(tmp_path: Path) -> None:
    run = Training(tmp_path)
    for _ in range(12):
        run.update()
    run.recorder.close()
    state = run.scheduler.state_dict()
    scheduler = CyclicCosineLR(torch.optim.SGD(run.model.parameters(), lr=1.0), SCHEDULE)
    scheduler.load_state_dict(state | {"base_lrs": [1.0], "factors": [1.0]})
    with SnapshotRecorder(tmp_path, run.model, scheduler) as recorder:
        for _ in range(3):
            scheduler.optimizer.step()
            scheduler.step()
    assert [snapshot.step for snapshot in recorder.store.list()] == [5, 10, 15]


def test_resuming_under_another_schedule_is_refused(tmp_path: Path) -> None:
    model = small_net()
    with SnapshotRecorder(tmp_path, model, SCHEDULE) as recorder:
        for _ in range(10):
            recorder.step()
    other = ca.CyclicCosine(0.1, total_steps=24, num_cycles=4)
    with pytest.raises(ca.SnapshotError, match=r"the number of steps is 20 in .*, 24 in the"):
        SnapshotRecorder(tmp_path, model, other, resume_from=10)
    assert len(recorder.store.list()) == 2


def test_a_recorder_that_is_refused_after_a_load_lets_others_write(tmp_path: Path) -> None:
    run = Training(tmp_path)
    for _ in range(10):
        run.update()
    run.recorder.close()
    other = ca.CyclicCosine(0.1, total_steps=24, num_cycles=4)
    scheduler = CyclicCosineLR(run.optimizer, other)
    scheduler.load_state_dict(run.scheduler.state_dict(), strict=False)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ca.SnapshotError, match="the number of steps is 20") as refused:
        SnapshotRecorder(tmp_path, run.model, scheduler, install_sigterm=True)
    # The traceback holds the recorder, and nothing else must be held for it.
    assert refused.tb is not None
    assert not (tmp_path / ".cosanneal.lock").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_model_whose_structure_changed_is_refused(tmp_path: Path) -> None:
    every_step = ca.CyclicCosine(0.1, cycle_steps=1)
    model = nn.Sequential(nn.Linear(4, 3))
    with SnapshotRecorder(tmp_path, model, every_step) as recorder:
        recorder.step()
        model.append(nn.Linear(3, 2, bias=False))
        with pytest.raises(ca.SnapshotError, match=r"the model's tensor '1\.weight' is not"):
            recorder.step()
        model.pop(1)
        assert recorder.step()
        assert recorder.updates == 3
    # Another model is refused when its recorder is made, wherever it is to begin.
    model.double()
    for resume_from in (3, 0, None):
        with pytest.raises(
            ca.SnapshotError,
            match=r"'0\.weight' is float32 .*, the model's float64 of .*overwrite=True",
        ):
            SnapshotRecorder(tmp_path, model, every_step, resume_from=resume_from)
    assert [snapshot.step for snapshot in SnapshotStore(tmp_path).list()] == [1, 3]
    with SnapshotRecorder(tmp_path, model, every_step, overwrite=True) as recorder:
        assert len(recorder.store.list()) == 2
        recorder.step()
    (snapshot,) = recorder.store.list()
    assert snapshot.layout()["0.weight"] == ((3, 4), "float64")


def test_a_closed_recorder_and_bad_arguments_are_refused(tmp_path: Path) -> None:
    model = small_net()
    recorder = SnapshotRecorder(tmp_path, model, SCHEDULE)
    for _ in range(5):
        recorder.step()
    recorder.close()
    recorder.close()
    with pytest.raises(ca.SnapshotError, match=r"closed.*resume_from=5"):
        recorder.step()
    with pytest.raises(ca.SnapshotError, match=r"`model` must be a torch.nn.Module.*dict"):
        SnapshotRecorder(tmp_path, {}, SCHEDULE)  # type: ignore[arg-type]
    with pytest.raises(ca.ScheduleError, match=r"`schedule` must be a cosanneal.Schedule"):
        SnapshotRecorder(tmp_path, model, 3)  # type: ignore[arg-type]
    with pytest.raises(ca.SnapshotError, match=r"must be the state of a SnapshotRecorder"):
        recorder.load_state_dict({})
    (tmp_path / "file").write_text("")
    with pytest.raises(ca.SnapshotError, match=r"must be a folder that can be written to"):
        SnapshotRecorder(tmp_path / "file", model, SCHEDULE)
    groups = [{"params": [nn.Parameter(torch.ones(1))]}, {"params": [nn.Parameter(torch.ones(1))]}]
    differing = CyclicCosineLR(
        torch.optim.SGD(groups, lr=0.1), [SCHEDULE, ca.CyclicCosine(0.1, cycle_steps=3)]
    )
    with pytest.raises(ca.ScheduleError, match=r"must have the same cycles for a recorder"):
        SnapshotRecorder(tmp_path, model, differing)


class Extra(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"a": 1}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Extra(2, 2), r"must consist of tensors.*'_extra_state', a dict"),
        (lambda: nn.LazyLinear(3), r"must be built before.*'weight' is not initialized"),
        (
            lambda: nn.ParameterDict({"z": nn.Parameter(torch.zeros(1, dtype=torch.complex128))}),
            r"'z' must have a dtype that safetensors holds.*complex128",
        ),
        (
            lambda: nn.ParameterDict({"s": nn.Parameter(torch.eye(2).to_sparse())}),
            r"must be dense.*'s' of layout torch.sparse_coo",
        ),
        (
            lambda: nn.ParameterDict({"__metadata__": nn.Parameter(torch.zeros(1))}),
            r"must not be named '__metadata__'",
        ),
    ],
)
def test_state_that_cannot_be_held_is_refused_by_name(
    tmp_path: Path, build: Callable[[], nn.Module], message: str
) -> None:
    model = build()
    with pytest.raises(ca.SnapshotError, match=message):
        record_once(tmp_path, model)
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_is_not_the_schedulers_is_refused(tmp_path: Path) -> None:
    """What comes then would be taken in the middle of a cycle, as its end."""
    run = Training(tmp_path)
    for _ in range(12):
        run.update()
    run.recorder.close()
    for other in (0, 8, 20):
        with pytest.raises(ca.SnapshotError, match=rf"resume_from={other}, and 12 updates"):
            SnapshotRecorder(tmp_path, run.model, run.scheduler, resume_from=other)
    assert [each.step for each in SnapshotStore(tmp_path).list()] == [5, 10]
    SnapshotRecorder(tmp_path, run.model, run.scheduler, resume_from=12).close()
