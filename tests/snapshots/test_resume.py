"""A run that goes on, or begins anew: what was there stays until the next snapshot is durable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.snapshots import SnapshotStore
from tests.shared.gates import Gate
from tests.shared.recording import EVERY_STEP, ArrayRecorder, contents, filled

TENS = ca.CyclicCosine(0.1, cycle_steps=10)


def run(
    folder: Path, updates: int, schedule: ca.Schedule = TENS, size: int = 100, **options: Any
) -> SnapshotStore:
    """Record up to so many updates, from where the options say."""
    with ArrayRecorder(folder, schedule, **options) as recorder:
        for step in range(recorder.updates, updates):
            recorder.step(filled(step, size))
    return recorder.store


def steps(store: SnapshotStore) -> list[int]:
    return [snapshot.step for snapshot in store.list()]


def test_later_snapshots_stay_until_the_next_is_durable(tmp_path: Path, gate: Gate) -> None:
    assert steps(run(tmp_path, 90, keep_last=2)) == [80, 90]
    with ArrayRecorder(tmp_path, TENS, resume_from=50, keep_last=2) as recorder:
        assert steps(recorder.store) == [80, 90]
        for step in range(50, 59):
            recorder.step(filled(step, 100))
        gate.close()
        recorder.step(filled(59, 100))
        assert gate.reached.wait(30)
        there = sorted(path.stem[-2:] for path in tmp_path.glob("*.safetensors"))
        assert there == ["80", "90"]
        gate.open.set()
        recorder.wait()
        # Not one of the two that are kept, although there are newer names.
        assert steps(recorder.store) == [60]
    run(tmp_path, 90, resume_from=60, keep_last=2)
    run(tmp_path / "whole", 90, keep_last=2)
    (tmp_path / "whole").rename(other := tmp_path.with_name(f"{tmp_path.name}-whole"))
    assert contents(tmp_path) == contents(other)


@pytest.mark.parametrize("kind", [{"resume_from": 0}, {"overwrite": True}])
@pytest.mark.filterwarnings("ignore:The run ended at update 9:UserWarning")
def test_starting_over_removes_nothing_before_its_first_snapshot(
    tmp_path: Path, kind: dict[str, Any]
) -> None:
    run(tmp_path, 30)
    before = contents(tmp_path)
    ArrayRecorder(tmp_path, TENS, **kind).close()
    run(tmp_path, 9, **kind)
    assert contents(tmp_path) == before
    assert steps(run(tmp_path, 10, size=100, **kind)) == [10]


def test_one_that_cannot_be_written_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, 30)
    before = contents(tmp_path)
    with ArrayRecorder(tmp_path, TENS, resume_from=9, background=False) as recorder:
        with monkeypatch.context() as patch:

            def fsync(_: int) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr(os, "fsync", fsync)
            with pytest.raises(ca.SnapshotError, match="No space left"):
                recorder.step(filled(9, 100))
        names = before.keys() | {".cosanneal.lock"}
        assert contents(tmp_path).keys() == names
        for step in range(10, 20):
            recorder.step(filled(step, 100))
    # The old one of step 10 is gone with the others, of which it was one.
    assert steps(recorder.store) == [20]


def test_what_cannot_be_removed_is_said_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, 3, EVERY_STEP)
    with ArrayRecorder(tmp_path, EVERY_STEP, overwrite=True, background=False) as recorder:
        with monkeypatch.context() as patch:

            def unlink(_: Path, **__: object) -> None:
                raise PermissionError(1, "Operation not permitted")

            patch.setattr(Path, "unlink", unlink)
            with pytest.raises(ca.SnapshotError, match=r"could not be deleted: Operation not"):
                recorder.step(filled(7, 100))
        assert steps(recorder.store) == [1, 2, 3]
        recorder.step(filled(8, 100))
        assert steps(recorder.store) == [1, 2]
    assert [float(each.load()["w"][0]) for each in recorder.store.list()] == [7, 8]


@pytest.mark.parametrize("resume_from", [0, 20, 25])
@pytest.mark.parametrize("what", ["schedule", "model"])
def test_another_runs_folder_is_refused_wherever_it_is_to_begin(
    tmp_path: Path, what: str, resume_from: int
) -> None:
    run(tmp_path, 30)
    before = contents(tmp_path)
    other: dict[str, Any] = (
        {"schedule": ca.CyclicCosine(0.2, cycle_steps=10)} if what == "schedule" else {"size": 7}
    )
    with pytest.raises(
        ca.SnapshotError, match=r"Received: .*(another, for|of another: its tensor)"
    ):
        run(tmp_path, resume_from + 1, resume_from=resume_from, **other)
    assert contents(tmp_path) == before
    # Also what is kept of it, for it is another's.
    updates = resume_from - resume_from % 10 + 10
    with ArrayRecorder(
        tmp_path, other.get("schedule", TENS), resume_from=resume_from, overwrite=True
    ) as recorder:
        for step in range(resume_from, updates):
            assert contents(tmp_path).items() >= before.items()
            recorder.step(filled(step, other.get("size", 100)))
    assert steps(recorder.store) == [updates]


def test_overwrite_takes_nothing_from_a_run_that_goes_on(tmp_path: Path) -> None:
    run(tmp_path / "a", 25)
    assert steps(run(tmp_path / "a", 30, resume_from=25, overwrite=True)) == [10, 20, 30]
    run(tmp_path / "b", 30)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_starting_over_by_overwrite_asks_nothing_of_what_is_there(tmp_path: Path) -> None:
    (damaged,) = run(tmp_path, 10).list()
    damaged.path.write_bytes(b"cut")
    with pytest.raises(ca.SnapshotError, match="could not be read"):
        ArrayRecorder(tmp_path, TENS, resume_from=0)
    assert steps(run(tmp_path, 20, overwrite=True, resume_from=0)) == [10, 20]
    assert SnapshotStore(tmp_path).verify() == 2


def test_what_overwrite_must_be(tmp_path: Path) -> None:
    options: dict[str, Any] = {"overwrite": 1}
    with pytest.raises(ca.SnapshotError, match=r"`overwrite` must be True or False.*overwrite=1"):
        ArrayRecorder(tmp_path, TENS, **options)


SIX = ca.CyclicCosine(0.1, total_steps=60, num_cycles=6)
EXTENDED = [
    (SIX, SIX.extended(num_cycles=2, max_lr=0.3), 60),
    (SIX, SIX.extended(at=30, total_steps=45), 30),
    (TENS, TENS.extended(at=30, num_cycles=2, total_steps=37), 30),
    (SIX.extended(at=30, num_cycles=1), TENS, 40),  # and shortened, or made endless
]


@pytest.mark.parametrize("resume_from", ["cut", 25, 30])
@pytest.mark.parametrize(("old", "new", "at"), EXTENDED)
def test_a_folder_goes_on_under_a_schedule_extended_from_its_own(
    tmp_path: Path, old: ca.Schedule, new: ca.Schedule, at: int, resume_from: Any
) -> None:
    done = at if resume_from == "cut" else resume_from
    run(tmp_path / "a", 60 if old.total_steps is None else old.total_steps, old)
    before = contents(tmp_path / "a")
    end = new.total_steps or 50
    # The old ones after the cut are another run's, once it is known that this one goes on.
    ArrayRecorder(tmp_path / "a", new, resume_from=done).close(unfinished=True)
    assert contents(tmp_path / "a") == before
    store = run(tmp_path / "a", end, new, resume_from=done)
    assert steps(store) == [step + 1 for step in new.cycle_ends(end)]
    assert store.verify() == len(store.list())
    whole = run(tmp_path / "whole", end, new)
    for each, other in zip(store.list(), whole.list(), strict=True):
        assert each.path.name == other.path.name
        ours, theirs = each.metadata, other.metadata
        if each.step <= done:
            assert before[each.path.name] == each.path.read_bytes()
            assert each.schedule == old
            assert {**ours, "schedule": 0, "digest": 0} == {**theirs, "schedule": 0, "digest": 0}
        else:
            assert each.schedule == new
            assert each.path.read_bytes() == other.path.read_bytes()
        assert each.load()["w"].tobytes() == other.load()["w"].tobytes()


def test_what_was_trained_beyond_the_common_part_is_refused(tmp_path: Path) -> None:
    run(tmp_path, 60, SIX)
    before = contents(tmp_path)
    new = SIX.extended(at=30, total_steps=45)
    message = (
        r"or with one that has the same cycles up to there\. Received: another, for .*extended"
    )
    for resume_from in (40, 60):
        with pytest.raises(ca.SnapshotError, match=message):
            ArrayRecorder(tmp_path, new, resume_from=resume_from)
    with pytest.raises(
        ca.SnapshotError,
        match=r"must hold snapshots of this schedule for a run that starts over\. Received: those "
        r"of another, for .*replace what is in this one with overwrite=True",
    ):
        ArrayRecorder(tmp_path, new, resume_from=0)
    other = ca.CyclicCosine(0.1, total_steps=120, num_cycles=11)
    with pytest.raises(ca.SnapshotError, match=message):
        ArrayRecorder(tmp_path, other, resume_from=30)
    assert contents(tmp_path) == before


def test_a_recorders_state_loads_into_one_of_the_extended_schedule(tmp_path: Path) -> None:
    with ArrayRecorder(tmp_path, SIX) as recorder:
        for step in range(60):
            recorder.step(filled(step, 100))
        state = recorder.state_dict()
    longer = SIX.extended(num_cycles=1)
    with ArrayRecorder(tmp_path, longer, keep_last=3) as recorder:
        recorder.load_state_dict(state)
        for step in range(60, 70):
            recorder.step(filled(step, 100))
    assert steps(recorder.store) == [50, 60, 70]
