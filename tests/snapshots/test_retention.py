"""Which snapshots a run keeps, also when it was killed and resumed."""

from __future__ import annotations

import itertools
import math
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.snapshots import SnapshotStore
from cosanneal.snapshots.lock import LOCK_NAME
from tests.shared.recording import EVERY_STEP, ArrayRecorder, contents, filled, step_and_wait

LOSSES = [0.9, 0.4, 0.6, 0.4, float("nan"), 0.5, 0.3, 0.8, 0.3, 0.7]


def record(folder: Path, losses: list[float], **options: Any) -> SnapshotStore:
    start = options.get("resume_from") or 0
    with ArrayRecorder(folder, EVERY_STEP, **options) as recorder:
        for step in range(start, len(losses)):
            recorder.step(filled(step), {"loss": losses[step]})
    return recorder.store


def kept(store: SnapshotStore) -> list[int]:
    return [snapshot.step for snapshot in store.list()]


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ({"keep_last": 3}, [8, 9, 10]),
        ({"keep_last": 99}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        # Of the two of 0.4 the newer is better.
        ({"keep_best": 3, "metric": "loss"}, [4, 7, 9]),
        ({"keep_best": 4, "metric": "loss"}, [2, 4, 7, 9]),
        ({"keep_best": 2, "metric": "loss", "mode": "max"}, [1, 8]),
        # A metric that is lost is the worst, either way.
        ({"keep_best": 9, "metric": "loss"}, [1, 2, 3, 4, 6, 7, 8, 9, 10]),
        ({"keep_best": 9, "metric": "loss", "mode": "max"}, [1, 2, 3, 4, 6, 7, 8, 9, 10]),
        ({"keep_best": 1, "metric": "loss", "keep_last": 2}, [9, 10]),
        ({"keep_best": 2, "metric": "loss", "keep_last": 1}, [7, 9, 10]),
    ],
)
@pytest.mark.parametrize("background", [True, False])
def test_the_last_and_the_best_are_kept(
    tmp_path: Path, options: dict[str, Any], steps: list[int], background: bool
) -> None:
    store = record(tmp_path, LOSSES, background=background, **options)
    assert kept(store) == steps
    assert store.verify() == len(steps) == len(list(tmp_path.iterdir()))


def test_what_is_kept_is_what_sorting_says(tmp_path: Path) -> None:
    draws = random.Random(3)
    for run in range(20):
        losses = [draws.choice([0.1, 0.2, 0.3, -0.5, math.inf, -math.inf]) for _ in range(9)]
        last, best = draws.choice([None, 1, 3]), draws.randint(1, 4)
        mode = draws.choice(["min", "max"])
        store = record(
            tmp_path / str(run), losses, keep_last=last, keep_best=best, metric="loss", mode=mode
        )
        sign = 1 if mode == "min" else -1
        order = sorted((sign * loss, -step) for step, loss in enumerate(losses, 1))
        wanted = {-step for _, step in order[:best]} | set(range(10 - (last or 0), 10))
        assert kept(store) == sorted(wanted)


@pytest.mark.parametrize(
    "options",
    [
        {"keep_last": 2},
        {"keep_best": 3, "metric": "loss"},
        {"keep_best": 2, "metric": "loss", "mode": "max"},
        {"keep_best": 2, "metric": "loss", "keep_last": 2},
    ],
)
def test_a_run_killed_anywhere_and_resumed_from_anywhere_before_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # much is written, and no power is cut
    record(tmp_path / "whole", LOSSES, **options)
    whole = contents(tmp_path / "whole")
    for resumed, killed in itertools.combinations_with_replacement(range(len(LOSSES) + 1), 2):
        folder = tmp_path / f"{killed}-{resumed}"
        record(folder, LOSSES[:killed], **options)
        record(folder, LOSSES, resume_from=resumed, **options)
        assert contents(folder) == whole, (killed, resumed)


def test_until_its_next_snapshot_a_resumed_run_has_what_was_there(tmp_path: Path) -> None:
    options: dict[str, Any] = {"keep_best": 2, "metric": "loss"}
    losses = [0.5, 0.6, 0.1, 0.2, 0.3]
    assert kept(record(tmp_path, losses[:4], **options)) == [3, 4]
    # Those of steps 1 and 2 were displaced by later ones, which the run will make again.
    assert kept(record(tmp_path, losses[:2], resume_from=2, **options)) == [3, 4]
    assert kept(record(tmp_path, losses[:3], resume_from=2, **options)) == [3]
    assert kept(record(tmp_path, losses, resume_from=2, **options)) == [3, 4]


def test_what_a_kill_left_over_is_deleted_with_the_next(tmp_path: Path) -> None:
    record(tmp_path, LOSSES[:5])
    assert kept(record(tmp_path, LOSSES[:5], resume_from=5, keep_last=2)) == [1, 2, 3, 4, 5]
    assert kept(record(tmp_path, LOSSES[:5], resume_from=4, keep_last=2)) == [4, 5]


def test_nothing_is_deleted_before_the_newer_one_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_sync, real_unlink = os.fsync, Path.unlink
    calls: list[str] = []

    def fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        calls.append("sync folder" if name == tmp_path else "sync file")
        real_sync(descriptor)

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name != LOCK_NAME:
            calls.append(f"delete {path.name[:10]}")
        real_unlink(path, missing_ok)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "unlink", unlink)
    record(tmp_path, LOSSES[:2], keep_last=1)
    written = ["sync file", "sync folder"]
    assert calls == [*written, *written, "delete cycle-0000", "sync folder"]


def test_a_newer_one_that_cannot_be_written_costs_no_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = record(tmp_path, LOSSES[:2], keep_last=2)

    def fsync(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ca.SnapshotError, match="Input/output error"):
        record(tmp_path, LOSSES[:3], resume_from=2, keep_last=2)
    assert kept(store) == [1, 2]


def test_one_that_cannot_be_deleted_is_said_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP, keep_last=1) as recorder:
        recorder.step(filled(1))
        recorder.wait()
        with monkeypatch.context() as patch:

            def unlink(_: Path, **__: object) -> None:
                raise PermissionError(1, "Operation not permitted")

            patch.setattr(Path, "unlink", unlink)
            with pytest.raises(ca.SnapshotError, match=r"could not be deleted: Operation not"):
                step_and_wait(recorder, filled(2))
        assert kept(recorder.store) == [1, 2]
        assert recorder.statistics.durable == 2
        recorder.step(filled(3))
    assert kept(recorder.store) == [3]


@pytest.mark.parametrize("metrics", [None, {}, {"lost": 1}, {"loss": "low"}, {"loss": True}])
def test_a_missing_metric_is_refused_where_it_is_missing(tmp_path: Path, metrics: Any) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP, keep_best=1, metric="loss") as recorder:
        with pytest.raises(
            ca.SnapshotError, match=r"`metrics` must hold a number named 'loss', by which keep_bes"
        ):
            recorder.step(filled(1), metrics)
        recorder.step(filled(2), {"loss": 1})
    assert kept(recorder.store) == [2]


def test_earlier_snapshots_without_the_metric_are_named_on_resuming(tmp_path: Path) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP) as recorder:
        recorder.step(filled(1))
    with pytest.raises(ca.SnapshotError, match=r"snapshot \S+cycle-0000\S+ must hold .* 'loss'"):
        ArrayRecorder(tmp_path, EVERY_STEP, keep_best=1, metric="loss", resume_from=1)
    assert kept(recorder.store) == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_last": 0}, r"`keep_last` must be a positive integer.*keep_last=0"),
        ({"keep_best": -1, "metric": "loss"}, r"`keep_best` must be a positive integer"),
        ({"keep_best": 2}, r"go together.*metric=None"),
        ({"metric": "loss"}, r"go together.*keep_best=None"),
        ({"mode": "best"}, r"`mode` must be 'min' or 'max'.*'best'"),
    ],
)
def test_arguments_that_cannot_be_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ca.SnapshotError, match=message):
        ArrayRecorder(tmp_path, EVERY_STEP, **options)


def test_snapshots_are_deleted_by_the_store_that_has_them(tmp_path: Path) -> None:
    store = record(tmp_path / "run", LOSSES[:4])
    other = record(tmp_path / "other", LOSSES[:1])
    first, second, *_ = store.list()
    with pytest.raises(ca.SnapshotError, match=r"must be of folder \S+run\. Received: \S+other"):
        store.delete(first, *other.list())
    assert kept(store) == [1, 2, 3, 4]
    store.delete(first, second)
    store.delete(first)
    store.delete()
    assert kept(store) == [3, 4]


def test_many_read_while_one_writes(tmp_path: Path) -> None:
    done = threading.Event()
    problems: list[str] = []
    looks = [0] * 4

    def read(reader: int) -> None:
        store = SnapshotStore(tmp_path)
        while not done.is_set():
            for snapshot in store.list():
                looks[reader] += 1
                try:
                    value = snapshot.load()["w"]
                    if set(value.tolist()) != {float(snapshot.cycle)}:
                        problems.append(f"{snapshot}: {value[0]}")
                except ca.SnapshotError as error:
                    if snapshot.path.exists():  # it was not deleted meanwhile
                        problems.append(str(error))

    readers = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    for reader in readers:
        reader.start()
    with ArrayRecorder(tmp_path, EVERY_STEP, keep_last=3) as recorder:
        for step in range(60):
            recorder.step(filled(step, 5000))
    done.set()
    for reader in readers:
        reader.join(30)
    assert problems == []
    assert min(looks) > 10
    assert kept(recorder.store) == [58, 59, 60]


def test_a_run_that_is_to_have_other_cycles_is_refused_in_words(tmp_path: Path) -> None:
    short = ca.CyclicCosine(0.1, total_steps=60, num_cycles=6)
    with ArrayRecorder(tmp_path, short) as recorder:
        for _ in range(20):
            recorder.step(filled(1))
    longer = ca.CyclicCosine(0.1, total_steps=120, num_cycles=12)  # of as many steps each
    ArrayRecorder(tmp_path, longer, resume_from=20).close(unfinished=True)
    other = ca.CyclicCosine(0.1, total_steps=60, num_cycles=5)
    with pytest.raises(
        ca.SnapshotError,
        match=r"schedule it began with, or with one that has the same cycles up to there\. "
        r"Received: another, for the number of cycles is 6 in snapshot .*, 5 in the schedule given",
    ):
        ArrayRecorder(tmp_path, other, resume_from=20)
