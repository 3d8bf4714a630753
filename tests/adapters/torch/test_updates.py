"""The optimizer's updates beside the scheduler's steps: what is counted, noted and said."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ChainedScheduler, ConstantLR, LambdaLR, SequentialLR
from torch.optim.swa_utils import SWALR
from torch.utils.data import DataLoader, TensorDataset

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotRecorder
from cosanneal.snapshots import Snapshot, SnapshotStore
from tests.shared.torch_runs import small_net

SCHEDULE = ca.CyclicCosine(0.1, total_steps=20, num_cycles=4)


class Run:
    """A model whose one weight says how many updates it has seen."""

    def __init__(self, schedule: ca.Schedule = SCHEDULE) -> None:
        self.model = nn.ParameterDict({"w": torch.zeros(1, dtype=torch.float64)})
        self.optimizer = SGD(self.model.parameters(), lr=1.0)
        self.scheduler = CyclicCosineLR(self.optimizer, schedule)
        self.seen = 0

    def update(self) -> None:
        self.optimizer.step()
        self.seen += 1
        with torch.no_grad():
            self.model["w"].fill_(self.seen)

    def train(self, updates: int, *, moves: int = 1) -> None:
        for _ in range(updates):
            self.update()
            for _ in range(moves):
                self.scheduler.step()


def seen(snapshots: list[Snapshot]) -> list[tuple[int, int, float]]:
    """Of each: its step, the schedule's, and the updates that its weights have seen."""
    return [
        (each.step, each.metadata["schedule_step"], float(each.load()["w"][0]))
        for each in snapshots
    ]


RIGHT = [(5, 5, 5.0), (10, 10, 10.0), (15, 15, 15.0), (20, 20, 20.0)]


@pytest.mark.parametrize("order", ["none", "before", "after", "between", "twice"])
def test_no_order_of_calls_shifts_a_snapshot(tmp_path: Path, order: str) -> None:
    run, asked = Run(), []
    with SnapshotRecorder(tmp_path, run.model, run.scheduler) as recorder:
        for _ in range(20):
            if order in ("before", "twice"):
                asked.append(recorder.step())
            run.update()
            if order == "between":
                asked.append(recorder.step())
            run.scheduler.step()
            if order in ("after", "twice"):
                asked.append(recorder.step())
        asked.append(recorder.step())
    assert seen(recorder.store.list()) == RIGHT
    assert sum(asked) == (1 if order == "none" else 4)


def test_the_snapshot_is_there_when_the_scheduler_has_left_the_cycle(tmp_path: Path) -> None:
    run = Run()
    with SnapshotRecorder(tmp_path, run.model, run.scheduler, background=False) as recorder:
        for step in range(1, 21):
            run.update()
            before = len(recorder.store.list())
            run.scheduler.step()
            assert len(recorder.store.list()) - before == (step % 5 == 0)


@pytest.mark.parametrize("cycle_steps", [1, 2, 3, 255, 256, 257, 700])
def test_no_cycle_of_any_length_is_missed_on_the_schedulers_short_way(
    tmp_path: Path, cycle_steps: int
) -> None:
    run = Run(ca.CyclicCosine(0.1, cycle_steps=cycle_steps, num_cycles=4))
    with SnapshotRecorder(tmp_path, run.model, run.scheduler, background=False) as recorder:
        run.train(4 * cycle_steps)
    ends = [cycle_steps * number for number in (1, 2, 3, 4)]
    assert seen(recorder.store.list()) == [(end, end, float(end)) for end in ends]


def test_a_recorder_made_in_mid_run_does_not_miss_the_next_end(tmp_path: Path) -> None:
    run = Run(ca.CyclicCosine(0.1, total_steps=2000, num_cycles=2))
    for _ in range(700):  # by now the short way goes on to the cycle's end, and beyond
        run.update()
        run.scheduler.step()
    with SnapshotRecorder(tmp_path, run.model, run.scheduler) as recorder:
        run.train(1300)
    assert [each.step for each in recorder.store.list()] == [1000, 2000]


def test_the_metrics_are_a_function_of_the_recorders(tmp_path: Path) -> None:
    run = Run()
    calls: list[int] = []

    def measure() -> dict[str, int]:
        calls.append(run.seen)
        return {"seen": run.seen}

    with SnapshotRecorder(tmp_path, run.model, run.scheduler, metrics=measure) as recorder:
        run.train(10)
        with pytest.raises(ca.SnapshotError, match=r"metrics=function\).*Received: {'a': 1} in st"):
            recorder.step({"a": 1})
    assert calls == [5, 10]
    assert [each.metadata["metrics"]["seen"] for each in recorder.store.list()] == [5, 10]
    with pytest.raises(ca.SnapshotError, match=r"`metrics` must be a function.*Received: {'a': 1}"):
        SnapshotRecorder(tmp_path / "b", run.model, SCHEDULE, metrics={"a": 1})  # type: ignore[arg-type]


def test_keep_best_without_metrics_is_refused_at_construction(tmp_path: Path) -> None:
    run = Run()
    with pytest.raises(ca.SnapshotError, match=r"function that returns the metric.*metric='loss'"):
        SnapshotRecorder(tmp_path, run.model, run.scheduler, keep_best=1, metric="loss")
    losses = iter([3.0, 1.0, 4.0, 2.0])
    with SnapshotRecorder(
        *(tmp_path, run.model, run.scheduler),
        keep_best=2,
        metric="loss",
        metrics=lambda: {"loss": next(losses)},
    ) as recorder:
        run.train(20)
    assert [each.step for each in recorder.store.list()] == [10, 20]


def test_an_error_of_the_metrics_or_the_weights_costs_that_snapshot_alone(tmp_path: Path) -> None:
    run = Run()

    def measure() -> dict[str, int]:
        if run.seen == 5:
            raise RuntimeError("no data")
        return {}

    with SnapshotRecorder(tmp_path, run.model, run.scheduler, metrics=measure) as recorder:
        for step in range(1, 21):
            run.update()
            if step == 5:
                with pytest.raises(RuntimeError, match="no data"):
                    run.scheduler.step()
                assert run.optimizer.param_groups[0]["lr"] == SCHEDULE.rate(5)
            else:
                run.scheduler.step()
    assert seen(recorder.store.list()) == RIGHT[1:]


def test_two_recorders_follow_one_scheduler_each_whatever_the_other_does(tmp_path: Path) -> None:
    run = Run()

    def fails() -> dict[str, int]:
        raise RuntimeError("no data")

    first = SnapshotRecorder(tmp_path / "a", run.model, run.scheduler, metrics=fails)
    second = SnapshotRecorder(tmp_path / "b", run.model, run.scheduler)
    for step in range(1, 11):
        run.update()
        if step % 5:
            run.scheduler.step()
        else:
            with pytest.raises(RuntimeError, match="no data"):
                run.scheduler.step()
    first.close()
    run.train(10)  # of which the closed one is not told any more
    second.close()
    assert seen(second.store.list()) == RIGHT


def test_a_recorder_made_anew_for_the_same_scheduler_takes_the_followers_place(
    tmp_path: Path,
) -> None:
    """As in a notebook's cell that is run again beside the one that makes the scheduler."""
    run = Run()
    earlier = SnapshotRecorder(tmp_path, run.model, run.scheduler)
    run.train(7)
    recorder = SnapshotRecorder(tmp_path, run.model, run.scheduler, resume_from=7)
    run.train(13)
    recorder.close()
    assert seen(recorder.store.list()) == RIGHT
    with pytest.raises(ca.SnapshotError, match="took the folder over"):
        earlier.step()


def test_an_earlier_recorder_whose_own_scheduler_moves_on_says_that_it_lost_its_folder(
    tmp_path: Path,
) -> None:
    run, other = Run(), Run()
    SnapshotRecorder(tmp_path, run.model, run.scheduler)
    with (
        SnapshotRecorder(tmp_path, other.model, other.scheduler),
        pytest.raises(ca.SnapshotError, match="took the folder over"),
    ):
        run.train(5)


def test_a_closed_recorder_and_its_model_go_without_the_garbage_collector(tmp_path: Path) -> None:
    run = Run()
    gc.collect()
    gc.disable()
    try:
        recorder = SnapshotRecorder(tmp_path, run.model, run.scheduler)
        run.train(20)
        recorder.close()
        left = weakref.ref(recorder), weakref.ref(run.model)
        del recorder, run.model
        assert [each() for each in left] == [None, None]
    finally:
        gc.enable()


def test_a_failure_in_the_background_is_raised_by_the_schedulers_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(ca.CyclicCosine(0.1, total_steps=2000, num_cycles=2))

    fails = threading.Event()

    def full(*_: Any, **__: Any) -> Any:
        assert fails.wait(60)
        raise ca.SnapshotError("the disk is full")

    with SnapshotRecorder(tmp_path, run.model, run.scheduler) as recorder:
        run.train(999)
        monkeypatch.setattr(SnapshotStore, "write", full)
        run.update()
        run.scheduler.step()
        fails.set()  # not before that step is over
        recorder.flush()
        run.update()
        with pytest.raises(ca.SnapshotError, match="the disk is full"):
            run.scheduler.step()
        monkeypatch.undo()
        run.train(999)
    assert [each.step for each in recorder.store.list()] == [2000]


def test_a_state_of_the_scheduler_is_not_ahead_of_the_snapshots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, written = Run(), list[Snapshot]()
    late = threading.Event()
    write = SnapshotStore.write

    def slow(*args: Any, **kwargs: Any) -> Any:
        late.wait(0.3)
        written.append(write(*args, **kwargs))
        return written[-1]

    monkeypatch.setattr(SnapshotStore, "write", slow)
    with SnapshotRecorder(tmp_path, run.model, run.scheduler):
        run.train(5)
        state = run.scheduler.state_dict()
        assert len(written) == 1
    assert (state["updates"], state["last_epoch"]) == (5, 5)


def test_the_step_says_the_updates_where_the_scheduler_moves_otherwise(tmp_path: Path) -> None:
    run = Run()
    with SnapshotRecorder(tmp_path, run.model, run.scheduler) as recorder:
        with pytest.warns(UserWarning, match=r"moved 18 steps in 9 updates.*accelerate") as said:
            run.train(10, moves=2)
        assert len(said) == 1
    assert seen(recorder.store.list()) == [(3, 5, 3.0), (5, 10, 5.0), (8, 15, 8.0), (10, 20, 10.0)]


def in_epochs(run: Run, epochs: int, updates: int) -> None:
    for _ in range(epochs):
        run.train(updates, moves=0)
        run.scheduler.step()


def test_a_schedule_in_epochs_is_noted_and_said_once(tmp_path: Path) -> None:
    run = Run(ca.CyclicCosine(0.1, total_steps=20, num_cycles=2))
    with SnapshotRecorder(tmp_path, run.model, run.scheduler) as recorder:
        with pytest.warns(UserWarning, match=r'moved 1 step in 7 upd.*"interval": "step"') as said:
            in_epochs(run, 20, 7)
        assert len(said) == 1
    assert seen(recorder.store.list()) == [(70, 10, 70.0), (140, 20, 140.0)]


def test_a_scheduler_that_never_moves_is_said_once_in_the_run(tmp_path: Path) -> None:
    run = Run()
    with SnapshotRecorder(tmp_path, run.model, run.scheduler):
        with pytest.warns(UserWarning, match=r"did 6 updates, and .* has not moved") as said:
            run.train(60, moves=0)
        assert len(said) == 1


def test_a_short_run_in_which_the_scheduler_never_moved_is_said_at_its_end(tmp_path: Path) -> None:
    run = Run()
    recorder = SnapshotRecorder(tmp_path, run.model, run.scheduler)
    run.train(3, moves=0)
    with pytest.warns(UserWarning, match=r"did 3 updates, and the schedule did not move"):
        recorder.close()
    recorder.close()


def test_a_run_beyond_its_last_cycle_is_said_once() -> None:
    run = Run()
    run.train(20)  # of which nothing is said
    with pytest.warns(
        UserWarning, match=r"The schedule is over: its 20 steps.*a rate of 0\."
    ) as said:
        run.train(20)
    assert len(said) == 1


def test_an_update_between_the_last_cycle_and_another_scheduler_is_nothing_to_warn_of() -> None:
    """As in the recipe of torch.optim.swa_utils, whose SWALR is stepped after that update."""
    run = Run()
    averaging = SWALR(run.optimizer, swa_lr=0.05, anneal_epochs=3)
    for step in range(30):
        run.update()
        (run.scheduler if step < 20 else averaging).step()
    run = Run()
    run.train(20)
    run.update()
    with pytest.warns(UserWarning, match="The schedule is over"):
        run.update()  # where the scheduler is stepped no more


@pytest.mark.parametrize(
    ("num_cycles", "updates", "missing"), [(2, 19, 1), (4, 4, 1), (4, 3, 2), (1, 1, 19)]
)
def test_a_run_that_ends_a_little_early_or_without_a_snapshot_is_said(
    tmp_path: Path, num_cycles: int, updates: int, missing: int
) -> None:
    run = Run(ca.CyclicCosine(0.1, total_steps=20, num_cycles=num_cycles))
    recorder = SnapshotRecorder(tmp_path, run.model, run.scheduler)
    run.train(updates)
    with pytest.warns(UserWarning, match=rf"ended at update {updates}, {missing} before its"):
        recorder.close()


def test_a_run_that_is_stopped_or_fails_is_not_said_to_end_early(tmp_path: Path) -> None:
    run = Run(ca.CyclicCosine(0.1, total_steps=40, num_cycles=2))
    with SnapshotRecorder(tmp_path / "a", run.model, run.scheduler):
        run.train(30)
    run = Run()

    def fail() -> None:
        with SnapshotRecorder(tmp_path / "b", run.model, run.scheduler):
            run.train(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler:UserWarning")
def test_a_scheduler_stepped_on_to_where_a_run_stopped_stands_right(tmp_path: Path) -> None:
    run = Run()
    for _ in range(12):
        run.scheduler.step()
    run.seen = 12
    with SnapshotRecorder(tmp_path, run.model, run.scheduler, resume_from=12) as recorder:
        run.train(8)
    assert seen(recorder.store.list()) == RIGHT[2:]


@pytest.mark.parametrize("skipped", [[4, 5], [9], [2, 3, 5, 8, 13, 18]])
def test_updates_that_a_gradient_scaler_skips_are_nothing_to_warn_of(
    tmp_path: Path, skipped: list[int]
) -> None:
    run = Run()
    with SnapshotRecorder(tmp_path, run.model, run.scheduler) as recorder:
        for step in range(20):
            if step not in skipped:
                run.update()
            run.scheduler.step()
    done = [end - sum(step < end for step in skipped) for end in (5, 10, 15, 20)]
    assert [each[0] for each in seen(recorder.store.list())] == done
    assert [each[2] for each in seen(recorder.store.list())] == done


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler:UserWarning")
def test_an_update_that_calls_no_hook_is_counted_by_the_scheduler(tmp_path: Path) -> None:
    """As that of SAM, whose `second_step` has another optimizer do it."""

    def train(run: Run, updates: int) -> None:
        base = SGD(run.optimizer.param_groups, lr=1.0)
        for _ in range(updates):
            run.optimizer, outer = base, run.optimizer
            run.train(1)
            run.optimizer = outer

    run = Run()
    with SnapshotRecorder(tmp_path, run.model, run.scheduler):
        train(run, 13)
        state = run.scheduler.state_dict()
    again = Run()
    again.seen = 13
    again.scheduler.load_state_dict(state)
    with SnapshotRecorder(tmp_path, again.model, again.scheduler, resume_from=13) as recorder:
        train(again, 7)
    assert seen(recorder.store.list()) == RIGHT


def test_a_scheduler_that_begins_after_a_while_keeps_pace(tmp_path: Path) -> None:
    run = Run()
    with SnapshotRecorder(tmp_path, run.model, run.scheduler) as recorder:
        run.train(4, moves=0)
        run.train(20)
    assert seen(recorder.store.list()) == [(4 + n, n, 4.0 + n) for n in (5, 10, 15, 20)]


def test_a_scheduler_that_is_set_back_by_hand_keeps_pace() -> None:
    run = Run()
    for _ in range(4):
        run.train(10)
        run.scheduler.last_epoch = 0


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.parametrize("factor", [0.1, 0.5])  # of which the second warms up at our own rate
def test_after_another_scheduler_the_updates_count_on_and_nothing_is_said(
    tmp_path: Path, factor: float
) -> None:
    run = Run(ca.CyclicCosine(0.5, total_steps=20, num_cycles=4))
    warmup = ConstantLR(run.optimizer, factor, total_iters=30)
    both = SequentialLR(run.optimizer, [warmup, run.scheduler], milestones=[30])
    with SnapshotRecorder(tmp_path, run.model, run.scheduler) as recorder:
        for _ in range(50):
            run.update()
            both.step()
    assert seen(recorder.store.list()) == [(30 + n, n, 30.0 + n) for n in (5, 10, 15, 20)]


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.parametrize("more", [0, 1, 30])
def test_the_last_snapshot_is_taken_where_another_scheduler_comes_next(
    tmp_path: Path, more: int
) -> None:
    """SequentialLR steps the next one in place of ours, which so never leaves its last cycle."""
    run = Run()
    after = ConstantLR(run.optimizer, 0.01, total_iters=1000)
    both = SequentialLR(run.optimizer, [run.scheduler, after], milestones=[20])
    with SnapshotRecorder(tmp_path, run.model, run.scheduler) as recorder:
        for _ in range(20 + more):
            run.update()
            both.step()
    assert seen(recorder.store.list()) == RIGHT
    assert [each.metadata["rate"] for each in recorder.store.list()][-1] == SCHEDULE.rate(19)


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
def test_a_run_resumed_under_the_next_scheduler_goes_on(tmp_path: Path) -> None:
    def both(run: Run) -> SequentialLR:
        after = ConstantLR(run.optimizer, 0.01, total_iters=1000)
        return SequentialLR(run.optimizer, [run.scheduler, after], milestones=[20])

    run, states = Run(), []
    schedulers = both(run)
    with SnapshotRecorder(tmp_path, run.model, run.scheduler):
        for _ in range(25):
            run.update()
            schedulers.step()
        states += [run.optimizer.state_dict(), schedulers.state_dict()]
    again = Run()
    schedulers = both(again)
    again.optimizer.load_state_dict(states[0])
    schedulers.load_state_dict(states[1])
    again.scheduler.load_state_dict(run.scheduler.state_dict())
    with SnapshotRecorder(tmp_path, again.model, again.scheduler) as recorder:
        for _ in range(5):
            again.update()
            schedulers.step()
            assert not recorder.step()
    assert seen(recorder.store.list()) == RIGHT
    assert recorder.updates == 30


def test_a_loop_that_leaves_out_its_last_step_has_its_last_snapshot(tmp_path: Path) -> None:
    run = Run()
    with SnapshotRecorder(tmp_path, run.model, run.scheduler) as recorder:
        run.train(19)
        run.update()
    assert seen(recorder.store.list()) == RIGHT
    assert recorder.updates == 20
    recorder.close()


def test_a_schedule_in_epochs_that_is_stopped_in_its_last_one_is_not_at_its_end(
    tmp_path: Path,
) -> None:
    run = Run(ca.CyclicCosine(0.1, total_steps=20, num_cycles=2))
    recorder = SnapshotRecorder(tmp_path, run.model, run.scheduler)
    with pytest.warns(UserWarning, match="moved 1 step in 7"):
        in_epochs(run, 10, 7)
    recorder.wait()  # from here on, no step of the scheduler is looked at
    in_epochs(run, 9, 7)
    run.train(3, moves=0)
    with pytest.warns(UserWarning, match="update 19, 1 before its next snapshot was due"):
        recorder.close()
    assert seen(recorder.store.list()) == [(70, 10, 70.0)]


def test_the_rate_noted_is_the_one_that_the_optimizer_had(tmp_path: Path) -> None:
    for name, tensor in (("float", False), ("tensor", True)):
        model = nn.Linear(2, 1)
        optimizer = SGD(model.parameters(), lr=torch.tensor(1.0) if tensor else 1.0)
        ours = CyclicCosineLR(optimizer, SCHEDULE, chainable=True)
        half = LambdaLR(optimizer, lambda _: 0.5)
        chain = ChainedScheduler([ours, half], optimizer=optimizer)
        used = []
        with SnapshotRecorder(tmp_path / name, model, ours) as recorder:
            for _ in range(10):
                used.append(float(optimizer.param_groups[0]["lr"]))
                optimizer.step()
                chain.step()
        noted = [each.metadata["rate"] for each in recorder.store.list()]
        assert noted == [used[4], used[9]]
    plain = SGD(model.parameters(), lr=0.3)  # which no schedule sets
    with SnapshotRecorder(tmp_path / "plain", model, SCHEDULE) as recorder:
        for _ in range(10):
            plain.step()
            recorder.step()
    assert [each.metadata["rate"] for each in recorder.store.list()] == [0.3, 0.3]


def test_a_replayed_graph_which_calls_no_hooks_does_an_update_at_each_step(tmp_path: Path) -> None:
    """As a CUDA graph of the whole update: some to warm up, one that is captured, then replays."""
    run = Run(ca.CyclicCosine(0.1, total_steps=80, num_cycles=4))
    for _ in range(4):
        run.update()
    with SnapshotRecorder(tmp_path, run.model, run.scheduler) as recorder:
        for _ in range(80):
            run.seen += 1
            with torch.no_grad():
                run.model["w"].fill_(run.seen)
            run.scheduler.step()
    found = recorder.store.list()
    # The captured one called a hook, and did no update.
    assert seen(found) == [(3 + n, n, 4.0 + n) for n in (20, 40, 60, 80)]
    assert found[0].metadata["rate"] == run.scheduler.schedules[0].rate(19)


def test_many_steps_an_update_are_not_taken_for_replays(tmp_path: Path) -> None:
    run = Run(ca.CyclicCosine(0.1, total_steps=2000, num_cycles=4))
    with (
        SnapshotRecorder(tmp_path, run.model, run.scheduler) as recorder,
        pytest.warns(UserWarning, match="The scheduler moved"),
    ):
        run.train(125, moves=16)
    assert seen(recorder.store.list()) == [
        (32, 500, 32.0),
        (63, 1000, 63.0),
        (94, 1500, 94.0),
        (125, 2000, 125.0),
    ]


def test_the_count_survives_a_checkpoint(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = Run()
        with SnapshotRecorder(tmp_path / "whole", whole.model, whole.scheduler) as recorder:
            whole.train(10, moves=2)
        broken = Run()
        with SnapshotRecorder(tmp_path / "broken", broken.model, broken.scheduler):
            broken.train(4, moves=2)
            state = broken.scheduler.state_dict()
            broken.train(3, moves=2)
        again = Run()
        again.scheduler.load_state_dict(state)
        again.seen = 4
        with SnapshotRecorder(tmp_path / "broken", again.model, again.scheduler):
            again.train(6, moves=2)
    assert seen(SnapshotStore(tmp_path / "broken").list()) == seen(recorder.store.list())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])  # noqa: S301
def test_a_copy_counts_by_itself_and_has_no_recorder(tmp_path: Path, copied: Any) -> None:
    run = Run()
    with SnapshotRecorder(tmp_path, run.model, run.scheduler):
        run.train(5)
        optimizer, scheduler = copied((run.optimizer, run.scheduler))
        for _ in range(10):
            optimizer.step()
            scheduler.step()
        assert scheduler.pace.standing(scheduler.last_epoch)[:2] == (15, 15)
        assert run.scheduler.pace.standing(run.scheduler.last_epoch)[:2] == (5, 5)
    assert [each.step for each in SnapshotStore(tmp_path).list()] == [5]


def test_calls_without_an_update_are_none_for_a_plain_schedule(tmp_path: Path) -> None:
    """As under gradient accumulation, whose loop runs once a batch."""
    model = small_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    other = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)  # of no weight of the model
    updates = 0
    with SnapshotRecorder(tmp_path, model, ca.CyclicCosine(0.1, cycle_steps=5)) as recorder:
        for batch in range(1, 61):
            other.step()
            model(torch.ones(2, 4)).sum().backward()
            if batch % 4 == 0:
                optimizer.step()
                updates += 1
            taken = recorder.step()
            assert taken is (batch in (20, 40, 60))
    assert [each.step for each in recorder.store.list()] == [5, 10, 15]
    assert updates == 15


def test_batches_before_the_first_update_of_a_resumed_run_are_none(tmp_path: Path) -> None:
    model = small_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    with SnapshotRecorder(
        tmp_path, model, ca.CyclicCosine(0.1, cycle_steps=10), resume_from=18
    ) as recorder:
        for batch in range(1, 9):
            model(torch.ones(2, 4)).sum().backward()
            if batch % 4 == 0:
                optimizer.step()
                optimizer.zero_grad()
            assert recorder.step() is (batch == 8)
    assert [each.step for each in recorder.store.list()] == [20]


def test_a_loop_without_an_optimizer_does_an_update_at_each_call(tmp_path: Path) -> None:
    model = small_net()
    with SnapshotRecorder(tmp_path, model, ca.CyclicCosine(0.1, cycle_steps=5)) as recorder:
        for step in range(1, 11):
            model(torch.ones(2, 4)).sum().backward()
            with torch.no_grad():
                for weight in model.parameters():
                    assert weight.grad is not None
                    weight.sub_(0.1 * weight.grad)
            assert recorder.step() is (step % 5 == 0)
    assert [each.step for each in recorder.store.list()] == [5, 10]


def test_optimizers_that_take_turns_are_one_for_a_plain_schedule(tmp_path: Path) -> None:
    model = small_net()
    first = SGD(model[0].parameters(), lr=0.1)
    second = SGD(model[4].parameters(), lr=0.1)
    with SnapshotRecorder(tmp_path, model, ca.CyclicCosine(0.1, cycle_steps=5)) as recorder:
        for _ in range(10):
            first.step()
            second.step()
            recorder.step()
    assert [each.step for each in recorder.store.list()] == [5, 10]


def test_accelerates_wrapper_is_unwrapped_and_its_optimizer_counted(tmp_path: Path) -> None:
    from accelerate import Accelerator  # which takes seconds

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    run = Run(ca.CyclicCosine(0.1, total_steps=15, num_cycles=3))
    data = DataLoader(TensorDataset(torch.zeros(60, 1)), batch_size=1)
    model, optimizer, loader, scheduler = accelerator.prepare(
        run.model, run.optimizer, data, run.scheduler
    )
    assert type(scheduler).__name__ == "AcceleratedScheduler"
    with SnapshotRecorder(tmp_path, run.model, scheduler) as recorder:
        for _ in loader:
            with accelerator.accumulate(model):
                run.model["w"].grad = torch.zeros_like(run.model["w"])
                optimizer.step()
                if accelerator.sync_gradients:
                    run.seen += 1
                    with torch.no_grad():
                        run.model["w"].fill_(run.seen)
                scheduler.step()
                optimizer.zero_grad()
    assert seen(recorder.store.list()) == [(5, 5, 5.0), (10, 10, 10.0), (15, 15, 15.0)]
    # One that is made on the prepared optimizer, which has no hooks of its own.
    inner = CyclicCosineLR(optimizer, SCHEDULE)
    optimizer.optimizer.step()
    assert inner.pace.count == 1
