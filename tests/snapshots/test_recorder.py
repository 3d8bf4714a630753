"""What a recorder promises of its folder, its state and its options."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import cosanneal as ca
from tests.shared.gates import Gate
from tests.shared.recording import EVERY_STEP, ArrayRecorder, contents, filled


def test_nothing_depends_on_the_clock_of_the_wall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ArrayRecorder(tmp_path / "steady", EVERY_STEP, keep_last=3) as recorder:
        for value in range(5):
            recorder.step(filled(value))
    now = time.time()
    jumps = iter(range(10_000))
    monkeypatch.setattr(time, "time", lambda: now - 3600.0 * next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * (now - 3600.0 * next(jumps))))
    with ArrayRecorder(tmp_path / "jumping", EVERY_STEP, keep_last=3) as recorder:
        for value in range(5):
            recorder.step(filled(value))
            # As a clock set back leaves the files: the newest looks oldest.
            recorder.wait()
            path = recorder.store.list()[-1].path
            os.utime(path, (now - 3600 * (value + 1),) * 2)
    assert contents(tmp_path / "steady") == contents(tmp_path / "jumping")
    assert 0 < recorder.statistics.held_seconds < 60
    assert 0 < recorder.statistics.writing_seconds < 60


def test_a_state_is_given_when_what_it_speaks_of_is_durable(tmp_path: Path, gate: Gate) -> None:
    recorder = ArrayRecorder(tmp_path, EVERY_STEP)
    gate.close()
    recorder.step(filled(1))
    threading.Timer(0.2, gate.open.set).start()
    assert recorder.state_dict() == {"updates": 1, "position": 1}
    assert [snapshot.step for snapshot in recorder.store.list()] == [1]
    recorder.close()


def test_a_snapshot_that_was_not_durable_at_the_checkpoint_is_missed_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    schedule = ca.CyclicCosine(0.1, cycle_steps=5)
    finite = ca.CyclicCosine(0.1, total_steps=20, num_cycles=4)
    for each, updates, missed in [
        (schedule, 4, None),
        (schedule, 5, 0),
        (schedule, 14, 1),
        (finite, 20, 3),
        (finite, 99, 3),
    ]:
        folder = tmp_path / f"{updates}{each is finite}"
        caplog.clear()
        ArrayRecorder(folder, each, resume_from=updates).close()
        said = f"Resuming at step {updates} without the snapshot of cycle {missed}"
        assert (said in caplog.text) == (missed is not None)
    caplog.clear()
    with ArrayRecorder(tmp_path / "whole", schedule) as recorder:
        for step in range(12):
            recorder.step(filled(step))
    with caplog.at_level(logging.WARNING):
        ArrayRecorder(tmp_path / "whole", schedule, resume_from=12).close()
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_pending": 0}, r"`max_pending` must be a positive integer.*max_pending=0"),
        ({"max_pending": True}, r"`max_pending` must be a positive integer"),
        ({"on_error": "ignore"}, r"`on_error` must be 'raise' or 'warn'.*'ignore'"),
    ],
)
def test_options_that_cannot_be_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ca.SnapshotError, match=message):
        ArrayRecorder(tmp_path / "never", EVERY_STEP, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_closed_recorder_removes_nothing(tmp_path: Path) -> None:
    closed = ArrayRecorder(tmp_path, EVERY_STEP)
    closed.step(filled(1))
    closed.close()
    with ArrayRecorder(tmp_path, EVERY_STEP, resume_from=1) as recorder:
        recorder.step(filled(2))
        recorder.wait()
        with pytest.raises(ca.SnapshotError, match="recorder is closed"):
            closed.load_state_dict({"updates": 1})
        with pytest.raises(ca.SnapshotError, match="recorder is closed"):
            closed.resume(1)
        assert [snapshot.step for snapshot in recorder.store.list()] == [1, 2]


def test_what_is_refused_removes_nothing(tmp_path: Path) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP) as recorder:
        for value in range(5):
            recorder.step(filled(value))
    # They are another schedule's, also where none would be kept.
    other = ca.CyclicCosine(0.2, cycle_steps=1)
    with pytest.raises(ca.SnapshotError, match="another folder"):
        ArrayRecorder(tmp_path, other, resume_from=2)
    for file in sorted(tmp_path.glob("*.safetensors"))[:2]:
        file.unlink()
    with pytest.raises(ca.SnapshotError, match="another folder"):
        ArrayRecorder(tmp_path, other, resume_from=2)
    with pytest.raises(ca.SnapshotError, match="loss"):
        ArrayRecorder(tmp_path, EVERY_STEP, keep_best=1, metric="loss", resume_from=3)
    assert [snapshot.step for snapshot in recorder.store.list()] == [3, 4, 5]


def test_an_option_that_there_is_not_is_refused(tmp_path: Path) -> None:
    wrong: dict[str, Any] = {"keep_lats": 3}
    with pytest.raises(TypeError, match=r"^ArrayRecorder has no option 'keep_lats'; .*keep_last"):
        ArrayRecorder(tmp_path, EVERY_STEP, **wrong)


def test_metrics_that_are_none_are_refused_at_the_first_step(tmp_path: Path) -> None:
    tens = ca.CyclicCosine(0.1, cycle_steps=10)
    recorder = ArrayRecorder(tmp_path / "a", tens)
    with pytest.raises(ca.SnapshotError, match=r"`metrics` must be a dict of numbers.*object"):
        recorder.step(filled(1), {"loss": object()})
    recorder = ArrayRecorder(tmp_path / "b", tens, keep_best=1, metric="loss")
    with pytest.raises(ca.SnapshotError, match=r"must hold a number named 'loss'.*{'los': 1}"):
        recorder.step(filled(1), {"los": 1})


def test_weights_that_nobody_trains_are_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ArrayRecorder(tmp_path, ca.CyclicCosine(0.1, cycle_steps=2)) as recorder:
        for step in range(8):
            recorder.step(filled(step))
            recorder.wait()
            assert not [each for each in caplog.records if "to the last bit" in each.message]
        for _ in range(4):
            recorder.step(filled(7))
    (said,) = [each.message for each in caplog.records if "to the last bit" in each.message]
    assert said.startswith("The weights at update 10 are those at update 8, to the last bit")


@pytest.mark.parametrize(
    ("steps", "text"),
    [(0, "closed before its first update"), (4, "at update 4 of 6, after 2 of 3 cycles"), (6, "")],
)
def test_a_run_that_is_closed_before_its_end_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, steps: int, text: str
) -> None:
    with ArrayRecorder(tmp_path, ca.CyclicCosine(0.1, total_steps=6, num_cycles=3)) as recorder:
        for step in range(steps):
            recorder.step(filled(step))
    assert text in caplog.text
    assert bool(text) == bool(caplog.text)


def test_a_run_that_an_error_ended_is_not_logged_as_broken_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    schedule = ca.CyclicCosine(0.1, total_steps=6, num_cycles=3)
    with pytest.raises(KeyError), ArrayRecorder(tmp_path, schedule):
        raise KeyError
    assert caplog.text == ""
