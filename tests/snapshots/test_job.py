"""What is called when a file is there."""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.snapshots.capture import EachStep
from cosanneal.snapshots.ranks import Ranks
from cosanneal.snapshots.recorder import Recorder
from cosanneal.snapshots.store import Snapshot, SnapshotStore
from tests.shared.gates import Gate
from tests.shared.ranks import together
from tests.shared.recording import (
    EVERY_STEP,
    ArrayCapture,
    ArrayRecorder,
    contents,
    filled,
    step_and_wait,
)


def test_it_is_called_with_each_file_that_is_there_in_turn_in_the_thread_that_writes(
    tmp_path: Path, gate: Gate
) -> None:
    seen: list[tuple[int, int, str]] = []

    def durable(snapshot: Snapshot) -> None:
        snapshot.verify()
        # Nothing was removed for it yet, and it counts.
        assert len(recorder.store.list()) <= 2
        assert recorder.statistics.durable == snapshot.step
        seen.append((snapshot.step, len(recorder.store.list()), threading.current_thread().name))

    recorder = ArrayRecorder(tmp_path, EVERY_STEP, on_durable=durable, keep_last=1, max_pending=3)
    gate.close()
    for value in range(3):
        recorder.step(filled(value))
    assert seen == []
    gate.open.set()
    recorder.close()
    name = "cosanneal-writer"
    assert seen == [(1, 1, name), (2, 2, name), (3, 2, name)]
    assert recorder.statistics.durable == 3


def test_it_is_called_before_wait_returns_and_at_once_without_a_background(tmp_path: Path) -> None:
    seen: list[int] = []
    with ArrayRecorder(
        tmp_path, EVERY_STEP, background=False, on_durable=lambda s: seen.append(s.step)
    ) as recorder:
        recorder.step(filled(1))
        assert seen == [1]
        # What a resumed run finds, it is not called with again.
    with ArrayRecorder(
        tmp_path, EVERY_STEP, resume_from=1, on_durable=lambda s: seen.append(s.step)
    ) as recorder:
        step_and_wait(recorder, filled(2))
        assert seen == [1, 2]


def test_a_mirror_is_one_line(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    backup.mkdir()
    with ArrayRecorder(
        tmp_path / "run",
        EVERY_STEP,
        keep_last=1,
        on_durable=lambda s: shutil.copy(s.path, backup),
    ) as recorder:
        for value in range(3):
            recorder.step(filled(value))
    assert [one.step for one in SnapshotStore(backup).list()] == [1, 2, 3]
    name = "cycle-0002-step-0000000003.safetensors"
    assert contents(tmp_path / "run") == {name: (backup / name).read_bytes()}


@pytest.mark.parametrize("background", [True, False])
def test_an_error_in_it_is_raised_as_the_backgrounds_and_loses_nothing(
    tmp_path: Path, *, background: bool
) -> None:
    def durable(snapshot: Snapshot) -> None:
        if snapshot.step == 2:
            raise ConnectionError("no such host")
        if snapshot.step == 3:
            sys.exit(7)

    recorder = ArrayRecorder(
        tmp_path, EVERY_STEP, keep_last=1, background=background, on_durable=durable
    )
    step_and_wait(recorder, filled(1))
    said = r"`on_durable` must take.*ConnectionError: no such host, .*step-0000000002.*stays"
    with pytest.raises(ca.SnapshotError, match=said) as caught:
        step_and_wait(recorder, filled(2))
    assert isinstance(caught.value.__cause__, ConnectionError)
    recorder.wait()  # it is said once
    assert [one.step for one in recorder.store.list()] == [1, 2]
    with pytest.raises(ca.SnapshotError, match="SystemExit: 7"):
        step_and_wait(recorder, filled(3))
    assert recorder.store.verify() == 3
    assert (recorder.statistics.durable, recorder.statistics.failed) == (3, 0)
    step_and_wait(recorder, filled(4))
    recorder.close()
    assert [one.step for one in recorder.store.list()] == [4]


def test_an_error_in_it_is_warned_of_where_that_is_asked_for(tmp_path: Path) -> None:
    def durable(_: Snapshot) -> None:
        raise ValueError("full")

    recorder = ArrayRecorder(tmp_path, EVERY_STEP, on_error="warn", on_durable=durable)
    with pytest.warns(RuntimeWarning, match="ValueError: full"):
        step_and_wait(recorder, filled(1))
    recorder.close()


def test_a_call_that_waits_for_its_own_thread_is_refused(tmp_path: Path) -> None:
    def durable(_: Snapshot) -> None:
        recorder.wait()

    recorder = ArrayRecorder(tmp_path, EVERY_STEP, on_durable=durable)
    with pytest.raises(ca.SnapshotError, match=r"must not be waited for.*thread that writes"):
        step_and_wait(recorder, filled(1))
    recorder.close()


def test_of_several_processes_it_is_called_in_that_of_rank_0_alone(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def do(ranks: Ranks, rank: int) -> int:
        capture = ArrayCapture()
        capture.weights = filled(1)
        recorder = Recorder(
            *(tmp_path, EVERY_STEP, capture, EachStep()),
            ranks=ranks,
            on_durable=lambda s: seen.append((rank, s.step)),
        )
        recorder.look()
        recorder.close()
        return recorder.statistics.taken

    assert together(do) == [1, 1, 1]
    assert seen == [(0, 1)]


def test_what_cannot_be_called_is_refused_before_there_is_a_folder(tmp_path: Path) -> None:
    wrong: Any = "/backup"
    with pytest.raises(ca.SnapshotError, match=r"`on_durable` must be a function.*'/backup'"):
        ArrayRecorder(tmp_path / "never", EVERY_STEP, on_durable=wrong)
    assert list(tmp_path.iterdir()) == []
