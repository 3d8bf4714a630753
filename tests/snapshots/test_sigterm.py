"""SIGTERM in a real process: what was taken is written, and what was to happen happens."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

import cosanneal as ca
from cosanneal.snapshots import SnapshotStore
from tests.shared.recording import EVERY_STEP, ArrayRecorder, filled

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to handle")

# A run whose disk is slow, and that says when a snapshot is on its way.
RUN = """
import os, signal, sys, threading, time
from cosanneal.snapshots import file, store
from tests.shared.recording import EVERY_STEP, ArrayRecorder, filled
folder, before, install, where = sys.argv[1], sys.argv[2], sys.argv[3] == "True", sys.argv[4]
if before == "handler":
    def handler(number, frame):
        print("handler", flush=True)
        raise SystemExit(7)
    signal.signal(signal.SIGTERM, handler)
elif before == "ignored":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
write = store.write_file
def slow(*args):
    time.sleep(0.5)
    write(*args)
store.write_file = slow
recorder = ArrayRecorder(folder, EVERY_STEP, install_sigterm=install)
if where == "taking":
    def tensors(names):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        return filled(1)
    recorder.capture.tensors = tensors
recorder.step(filled(1))
if where == "child":
    child = os.fork()
    if not child:
        print("forked", flush=True)
        time.sleep(60)
        os._exit(0)
    time.sleep(0.3)  # Python forgets a signal that comes while it forks
    os.kill(child, signal.SIGTERM)
    print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    sys.exit(0)
print("taken", flush=True)
if where == "end":
    sys.exit(0)
for _ in range(40):
    time.sleep(0.05)
print("went on", flush=True)
"""


def run(folder: Path, before: str, *, install: bool, where: str = "loop") -> tuple[int, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), before, str(install), where],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout is not None
    said = ""
    if where == "loop":
        said = process.stdout.readline()
        assert said == "taken\n"
        process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    return process.returncode, said + rest


def test_without_it_what_was_taken_is_lost(tmp_path: Path) -> None:
    code, _ = run(tmp_path, "default", install=False)
    assert code == -signal.SIGTERM
    assert SnapshotStore(tmp_path).list() == []


@pytest.mark.parametrize("where", ["loop", "taking"])
def test_what_was_taken_is_written_and_the_process_ends_of_the_signal(
    tmp_path: Path, where: str
) -> None:
    code, said = run(tmp_path, "default", install=True, where=where)
    assert code == -signal.SIGTERM
    assert "went on" not in said
    store = SnapshotStore(tmp_path)
    assert [each.step for each in store.list()] == [1]
    assert store.verify() == 1


def test_a_handler_that_was_there_is_called_afterwards(tmp_path: Path) -> None:
    code, said = run(tmp_path, "handler", install=True)
    assert (code, said) == (7, "taken\nhandler\n")
    assert SnapshotStore(tmp_path).verify() == 1


def test_a_signal_that_was_ignored_still_is(tmp_path: Path) -> None:
    code, said = run(tmp_path, "ignored", install=True)
    assert (code, said) == (0, "taken\nwent on\n")
    assert SnapshotStore(tmp_path).verify() == 1


def test_a_forked_worker_ends_of_it_at_once(tmp_path: Path) -> None:
    code, said = run(tmp_path, "default", install=True, where="child")
    assert (code, said) == (0, f"forked\nchild {-signal.SIGTERM}\n")
    assert SnapshotStore(tmp_path).verify() == 1


def test_what_was_there_before_is_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    first = ArrayRecorder(tmp_path / "a", EVERY_STEP, install_sigterm=True)
    second = ArrayRecorder(tmp_path / "b", EVERY_STEP, install_sigterm=True)
    between = signal.getsignal(signal.SIGTERM)
    assert between != before
    first.close()  # not the last that was put there, whose way on leads through it
    assert signal.getsignal(signal.SIGTERM) == between
    second.close()
    called: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: called.append(number))
    try:
        with ArrayRecorder(tmp_path / "c", EVERY_STEP, install_sigterm=True) as recorder:
            recorder.step(filled(1))
            os.kill(os.getpid(), signal.SIGTERM)
            assert called == [signal.SIGTERM]
            assert [each.step for each in recorder.store.list()] == [1]
            assert recorder.statistics.pending == 0
            recorder.step(filled(2))  # the handler did not end the run, and it goes on
        assert len(recorder.store.list()) == 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_one_that_is_not_closed_leaves_neither_memory_nor_a_handler(tmp_path: Path) -> None:
    """As a notebook's cell that is run again makes one after the other."""
    before = signal.getsignal(signal.SIGTERM)
    held = []
    try:
        for _ in range(3):
            recorder = ArrayRecorder(
                tmp_path, EVERY_STEP, install_sigterm=True, overwrite=True, background=False
            )
            recorder.step(filled(1))
            held.append(weakref.ref(recorder._writer))
        gc.collect()
        assert [writer() is None for writer in held] == [True, True, False]
        recorder.close()
        assert signal.getsignal(signal.SIGTERM) == before
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_interrupt_while_the_interpreter_ends_takes_no_snapshot(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path), "default", "False", "end"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    time.sleep(0.2)  # of the 0.5 seconds that the writing takes
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert SnapshotStore(tmp_path).verify() == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_the_first_process_of_a_container_which_has_no_default_exits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with ArrayRecorder(tmp_path, EVERY_STEP, install_sigterm=True) as recorder:
            recorder.step(filled(1))
            monkeypatch.setattr(os, "kill", lambda *_: None)
            with pytest.raises(SystemExit) as ended:
                signal.raise_signal(signal.SIGTERM)
        assert ended.value.code == 143
        assert recorder.statistics.durable == 1
    finally:
        monkeypatch.undo()
        signal.signal(signal.SIGTERM, before)


def test_it_is_refused_in_another_thread_and_for_what_is_no_flag(tmp_path: Path) -> None:
    found: list[Exception] = []

    def make() -> None:
        try:
            ArrayRecorder(tmp_path, EVERY_STEP, install_sigterm=True)
        except ca.SnapshotError as error:
            found.append(error)

    thread = threading.Thread(target=make, name="trainer")
    thread.start()
    thread.join()
    assert "outside of the main thread" in str(found[0])
    assert "'trainer'" in str(found[0])
    with pytest.raises(ca.ScheduleError, match="install_sigterm"):
        ArrayRecorder(tmp_path, EVERY_STEP, install_sigterm=1)  # type: ignore[arg-type]
    ArrayRecorder(tmp_path, EVERY_STEP).close()
