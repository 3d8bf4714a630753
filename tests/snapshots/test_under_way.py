"""Who lists a folder sees what this process has taken, also what is still being written."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.snapshots.capture import HostBuffers
from cosanneal.snapshots.sources import Sources
from cosanneal.snapshots.store import Snapshot, SnapshotStore
from cosanneal.snapshots.writer import Writer
from tests.shared.faulty import FaultyFileSystem
from tests.shared.gates import Gate
from tests.shared.recording import EVERY_STEP, ArrayRecorder, filled


def let_go(gate: Gate, after: float = 0.2) -> None:
    """Let the disk go on, a while after somebody has begun to wait."""
    assert gate.reached.wait(30)
    threading.Timer(after, gate.open.set).start()


def steps(found: list[Snapshot]) -> list[int]:
    return [each.step for each in found]


def test_a_folder_is_listed_when_what_was_taken_is_there(tmp_path: Path, gate: Gate) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "run")
    for value, name in enumerate(("run", "link"), 1):
        recorder = ArrayRecorder(tmp_path / "run", EVERY_STEP, resume_from=value - 1)
        gate.close()
        recorder.step(filled(value))
        let_go(gate)
        assert steps(Sources(tmp_path / name).list()) == [*range(1, value + 1)]
        recorder.close()


def test_all_that_wait_to_be_written_are_waited_for(tmp_path: Path, gate: Gate) -> None:
    recorder = ArrayRecorder(tmp_path, EVERY_STEP, max_pending=3)
    gate.close()
    for value in range(3):
        recorder.step(filled(value))
    let_go(gate)
    assert steps(SnapshotStore(tmp_path).list()) == [1, 2, 3]
    recorder.close()


def test_a_recorder_that_is_gone_is_waited_for(tmp_path: Path, gate: Gate) -> None:
    recorder = ArrayRecorder(tmp_path, EVERY_STEP)
    gate.close()
    recorder.step(filled(1))
    del recorder
    let_go(gate)
    assert steps(SnapshotStore(tmp_path).list()) == [1]


def test_another_folder_is_not_waited_for(tmp_path: Path, gate: Gate) -> None:
    recorder = ArrayRecorder(tmp_path / "run", EVERY_STEP)
    gate.close()
    recorder.step(filled(1))
    assert gate.reached.wait(30)
    assert SnapshotStore(tmp_path).list() == []  # or the gate would stop this for ever
    assert SnapshotStore(tmp_path / "other").list() == []
    gate.open.set()
    recorder.close()


def test_what_could_not_be_written_is_the_recorders_to_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:  # noqa: ARG001
        time.sleep(0.1)
        raise OSError("no disk")

    recorder = ArrayRecorder(tmp_path, EVERY_STEP)
    monkeypatch.setattr(os, "fsync", fail)
    recorder.step(filled(1))
    assert SnapshotStore(tmp_path).list() == []
    assert recorder.statistics.failed == 1
    with pytest.raises(ca.SnapshotError, match="no disk"):
        recorder.close()


@pytest.mark.parametrize("background", [True, False])
def test_on_durable_may_list_itself_and_wait_for_a_thread_that_does(
    tmp_path: Path, background: bool
) -> None:
    seen: list[list[int]] = []

    def durable(snapshot: Snapshot) -> None:  # noqa: ARG001
        seen.append(steps(SnapshotStore(tmp_path).list()))
        other = threading.Thread(target=lambda: seen.append(steps(SnapshotStore(tmp_path).list())))
        other.start()
        other.join(20)
        assert not other.is_alive()

    recorder = ArrayRecorder(tmp_path, EVERY_STEP, on_durable=durable, background=background)
    recorder.step(filled(1))
    recorder.close()
    assert seen == [[1], [1]]


def test_a_slow_on_durable_does_not_hide_what_waits_behind_it(tmp_path: Path) -> None:
    told, go_on = threading.Event(), threading.Event()

    def durable(snapshot: Snapshot) -> None:
        if snapshot.step == 1:
            told.set()
            assert go_on.wait(30)

    recorder = ArrayRecorder(tmp_path, EVERY_STEP, on_durable=durable, max_pending=2)
    recorder.step(filled(1))
    assert told.wait(30)
    assert steps(SnapshotStore(tmp_path).list()) == [1]
    recorder.step(filled(2))
    threading.Timer(0.2, go_on.set).start()
    assert steps(SnapshotStore(tmp_path).list()) == [1, 2]
    recorder.close()


def test_a_forked_child_waits_for_nothing_of_its_parents(tmp_path: Path, gate: Gate) -> None:
    recorder = ArrayRecorder(tmp_path, EVERY_STEP)
    gate.close()
    recorder.step(filled(1))
    assert gate.reached.wait(30)
    child = os.fork()
    if not child:
        try:
            os._exit(len(SnapshotStore(tmp_path).list()))
        finally:
            os._exit(99)
    deadline, ended = time.monotonic() + 20, (0, 0)
    while not ended[0] and time.monotonic() < deadline:
        time.sleep(0.01)
        ended = os.waitpid(child, os.WNOHANG)
    if not ended[0]:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert ended == (child, 0)
    gate.open.set()
    recorder.close()


def test_a_folder_at_a_url_is_waited_for_whatever_the_copies_are(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FaultyFileSystem.put_file

    def slow(self: Any, *args: Any, **kwargs: Any) -> Any:
        time.sleep(0.3)
        return real(self, *args, **kwargs)

    recorder = ArrayRecorder(url, EVERY_STEP)
    monkeypatch.setattr(FaultyFileSystem, "put_file", slow)
    recorder.step(filled(1))
    assert steps(SnapshotStore(f"{url}/", cache=tmp_path / "other").list()) == [1]
    recorder.close()


def test_what_is_taken_meanwhile_is_not_waited_for() -> None:
    go_on, over = threading.Event(), threading.Event()

    def job() -> None:
        assert go_on.wait(30)
        time.sleep(0.01)
        if not over.is_set():
            writer.submit(HostBuffers(), job)  # there is always one in flight

    writer = Writer([], background=True, failed=print)
    writer.submit(HostBuffers(), job)
    waiting = threading.Thread(target=writer.settle)
    waiting.start()
    go_on.set()
    waiting.join(20)
    over.set()
    assert not waiting.is_alive()
    writer.wait()
