"""The training thread copies; the files are made behind its back, and no error is lost."""

from __future__ import annotations

import atexit
import errno
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cosanneal as ca
from cosanneal.snapshots import SnapshotStore
from cosanneal.snapshots.capture import HostBuffers
from tests.shared.gates import Gate
from tests.shared.recording import EVERY_STEP, ArrayRecorder, contents, filled


class Disk:
    """Fails every fsync while it is full, once it may say so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self.says_so = threading.Event()
        real = os.fsync

        def fsync(descriptor: int) -> None:
            if self.full:
                assert self.says_so.wait(30)
                raise OSError(errno.ENOSPC, "No space left on device")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def writer_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("cosanneal")]


def threads_that_stay() -> list[threading.Thread]:
    """The writers' threads but for those that have done their work and are about to end."""
    for thread in writer_threads():
        thread.join(30)
    return writer_threads()


def test_step_returns_before_the_file_is_there_and_the_file_has_the_weights_of_then(
    tmp_path: Path, gate: Gate
) -> None:
    weights = filled(1)
    metrics = {"loss": [0.5]}
    with ArrayRecorder(tmp_path, EVERY_STEP) as recorder:
        gate.close()
        assert recorder.step(weights, metrics) is True
        weights["w"] += 1
        metrics["loss"].append(0.0)
        assert gate.reached.wait(10)
        assert not [*tmp_path.glob("*.safetensors")]
        assert (recorder.statistics.taken, recorder.statistics.pending) == (1, 1)
        gate.open.set()
        recorder.wait()
        assert (recorder.statistics.durable, recorder.statistics.pending) == (1, 0)
        (snapshot,) = recorder.store.list()
        assert np.array_equal(snapshot.load()["w"], np.full(1000, 1, np.float32))
        assert snapshot.metadata["metrics"] == {"loss": [0.5]}
    assert threads_that_stay() == []


@pytest.mark.parametrize("pending", [1, 2, 3])
def test_the_next_capture_waits_when_enough_are_in_flight(
    tmp_path: Path, gate: Gate, pending: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = threading.Event()
    with ArrayRecorder(tmp_path, EVERY_STEP, max_pending=pending) as recorder:
        gate.close()
        for value in range(pending):
            recorder.step(filled(value))
        assert recorder.statistics.pending == pending  # while none can become durable
        before = recorder.statistics.waited_seconds
        real = recorder._writer.free_buffers

        def free_buffers() -> HostBuffers:
            waiting.set()
            return real()

        monkeypatch.setattr(recorder._writer, "free_buffers", free_buffers)
        one_more = threading.Thread(target=recorder.step, args=(filled(pending),))
        one_more.start()
        assert waiting.wait(30)
        one_more.join(0.2)
        assert one_more.is_alive()
        gate.open.set()
        one_more.join(30)
        assert not one_more.is_alive()
    statistics = recorder.statistics
    assert before + 0.2 <= statistics.waited_seconds <= statistics.held_seconds
    assert statistics.durable == statistics.taken == pending + 1
    assert statistics.data_bytes == 4000 * (pending + 1)
    values = [snapshot.load()["w"][0] for snapshot in recorder.store.list()]
    assert values == list(range(pending + 1))


@pytest.mark.parametrize(("background", "pending"), [(True, 1), (False, 1), (True, 2)])
def test_the_extra_memory_is_one_copy_for_each_in_flight(
    tmp_path: Path, background: bool, pending: int
) -> None:
    weights = {name: np.ones(1 << 20, np.float32) for name in "abcd"}
    tracemalloc.start()
    try:
        with ArrayRecorder(
            tmp_path, EVERY_STEP, background=background, max_pending=pending
        ) as recorder:
            for _ in range(6):
                recorder.step(weights)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 16 << 20 <= peak < (pending * 16 + 1) << 20


def test_an_error_in_the_background_is_raised_by_the_next_call_once(
    tmp_path: Path, disk: Disk
) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP) as recorder:
        recorder.step(filled(1))
        recorder.wait()
        disk.full = True
        assert recorder.step(filled(2)) is True  # nothing is known yet
        disk.says_so.set()
        recorder._writer.wait()
        disk.full = False
        message = r"cycle-0001-step-0000000002\S+ could not be written: No space left.*free space"
        with pytest.raises(ca.SnapshotError, match=message):
            recorder.step(filled(3))
        # That call did its own work first; nothing is left to say.
        assert recorder.updates == 3
        recorder.wait()
        recorder.step(filled(4))
    assert [snapshot.step for snapshot in recorder.store.list()] == [1, 3, 4]
    assert recorder.store.verify() == 3
    assert len(list(tmp_path.iterdir())) == 3
    statistics = recorder.statistics
    assert (statistics.taken, statistics.durable, statistics.failed) == (4, 3, 1)


@pytest.mark.parametrize("call", ["wait", "close", "state_dict", "__exit__"])
def test_every_call_says_what_failed(tmp_path: Path, disk: Disk, call: str) -> None:
    recorder = ArrayRecorder(tmp_path, EVERY_STEP)
    disk.full = True
    recorder.step(filled(1))
    disk.says_so.set()
    arguments = (None, None, None) if call == "__exit__" else ()
    with pytest.raises(ca.SnapshotError, match=r"cycle-0000.*No space left"):
        getattr(recorder, call)(*arguments)
    recorder.close()
    recorder.close()
    assert list(tmp_path.iterdir()) == []  # the lock was given back all the same


def test_several_errors_are_all_said(tmp_path: Path, disk: Disk) -> None:
    recorder = ArrayRecorder(tmp_path, EVERY_STEP, max_pending=3)
    disk.full = True
    recorder.step(filled(1))
    recorder.step(filled(2))
    disk.says_so.set()
    with pytest.raises(ca.SnapshotError, match=r"(?s)cycle-0000.*cycle-0001"):
        recorder.wait()
    recorder.close()


def test_with_warn_the_training_goes_on(tmp_path: Path, disk: Disk) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP, on_error="warn") as recorder:
        disk.full = True
        recorder.step(filled(1))
        disk.says_so.set()
        recorder._writer.wait()
        disk.full = False
        with pytest.warns(RuntimeWarning, match=r"cycle-0000\S+ could not be written: No space"):
            assert recorder.step(filled(2)) is True
        recorder.wait()
        # What was recorded wrongly is the loop's own error, here as elsewhere.
        with pytest.raises(ca.SnapshotError, match=r"`metrics` must be a dict of numbers"):
            recorder.step(filled(3), {"model": object()})
        recorder.step(filled(4))
    assert [snapshot.step for snapshot in recorder.store.list()] == [2, 4]


def test_an_exception_of_the_block_is_not_hidden_and_what_was_taken_is_written(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:

    def fail(recorder: ArrayRecorder) -> None:
        with recorder:
            recorder.step(filled(1))
            disk.says_so.set()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail(ArrayRecorder(tmp_path, EVERY_STEP))
    assert SnapshotStore(tmp_path).verify() == 1
    # Else the disk could say so, and the step raise it, before the block's own error.
    disk.says_so.clear()
    disk.full = True
    with pytest.raises(ZeroDivisionError) as caught:
        fail(ArrayRecorder(tmp_path, EVERY_STEP, resume_from=1))
    assert "cycle-0001-step-0000000002" in caught.value.__notes__[0]
    assert "No space left on device" in caplog.text


def test_written_plainly(tmp_path: Path, disk: Disk) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP, background=False) as recorder:
        recorder.step(filled(1))
        assert recorder.statistics.durable == 1
        assert [snapshot.step for snapshot in recorder.store.list()] == [1]
        disk.full = True
        disk.says_so.set()
        with pytest.raises(ca.SnapshotError, match=r"cycle-0001.*No space left"):
            recorder.step(filled(2))
        disk.full = False
        recorder.step(filled(3))
    assert [snapshot.step for snapshot in recorder.store.list()] == [1, 3]


def test_both_ways_write_the_same_bytes(tmp_path: Path) -> None:
    for background in (True, False):
        with ArrayRecorder(tmp_path / str(background), EVERY_STEP, background=background) as r:
            for value in range(4):
                r.step(filled(value), {"value": value})
    assert contents(tmp_path / "True") == contents(tmp_path / "False")


def test_without_a_thread_to_be_had_it_writes_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with ArrayRecorder(tmp_path, EVERY_STEP) as recorder:
        monkeypatch.setattr(threading.Thread, "start", start)
        for value in range(3):
            recorder.step(filled(value))
    assert recorder.store.verify() == recorder.statistics.durable == 3


def test_an_interrupt_in_the_copy_loses_that_snapshot_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP) as recorder:
        recorder.step(filled(1))
        with monkeypatch.context() as patch:
            copyto = np.copyto

            def interrupt(to: Any, source: Any) -> None:
                copyto(to[:500], source[:500])
                raise KeyboardInterrupt

            patch.setattr(np, "copyto", interrupt)
            with pytest.raises(KeyboardInterrupt):
                recorder.step(filled(2))
        recorder.step(filled(3))
    assert [snapshot.load()["w"][-1] for snapshot in recorder.store.list()] == [1, 3]


@pytest.mark.parametrize("background", [True, False])
def test_an_interrupt_in_the_wait_or_the_writing_leaves_the_recorder_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP, background=background) as recorder:
        recorder.step(filled(1))
        main = threading.current_thread()
        with monkeypatch.context() as patch:
            name = "wait_for" if background else "fsync"

            def interrupt(*_: object) -> None:
                if threading.current_thread() is main:
                    raise KeyboardInterrupt

            patch.setattr(threading.Condition if background else os, name, interrupt)
            with pytest.raises(KeyboardInterrupt):
                recorder.step(filled(2))
        recorder.step(filled(3))
    assert [snapshot.step for snapshot in recorder.store.list()] == [1, 3]
    assert len(list(tmp_path.iterdir())) == 2


def test_it_may_be_stepped_and_waited_for_in_any_thread(tmp_path: Path) -> None:
    schedule = ca.CyclicCosine(0.1, cycle_steps=3)
    recorder = ArrayRecorder(tmp_path, schedule)

    def train() -> None:
        for step in range(60):
            recorder.step(filled(step))

    for _ in range(3):
        trainer = threading.Thread(target=train)
        trainer.start()
        while trainer.is_alive():
            recorder.wait()
    refused: list[Exception] = []

    def train_on() -> None:
        try:
            while True:
                recorder.step(filled(1))
        except ca.SnapshotError as error:
            refused.append(error)

    trainer = threading.Thread(target=train_on)
    trainer.start()
    time.sleep(0.05)
    recorder.close()
    trainer.join(30)
    assert "The recorder is closed" in str(refused)
    ends = recorder.updates // 3
    assert ends >= 60
    assert [snapshot.step for snapshot in recorder.store.list()] == [
        3 * (i + 1) for i in range(ends)
    ]
    assert recorder.store.verify() == ends


def run(tmp_path: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own, with a slow disk."""
    head = f"""
    import os, sys, threading, time
    sys.path.insert(0, {str(Path(__file__).parents[2])!r})
    from tests.shared.recording import EVERY_STEP, ArrayRecorder, filled
    real = os.fsync
    def slow(descriptor):
        time.sleep(0.2)
        real(descriptor)
    os.fsync = slow
    folder = {str(tmp_path)!r}
    """
    script = textwrap.dedent(head) + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("recorder.step(filled(1)); recorder.step(filled(2))", 0),
        ("recorder.step(filled(1)); recorder.step(filled(2)); sys.exit(3)", 3),
        ("recorder.step(filled(1)); recorder.step(filled(2)); raise ValueError", 1),
        ("recorder.step(filled(1)); recorder.step(filled(2)); del recorder", 0),
        ("recorder.loop = recorder; [recorder.step(filled(i)) for i in (1, 2)]; del recorder", 0),
        # From a thread that is not waited for, and from one that has ended.
        (
            "t = threading.Thread(target=lambda: [recorder.step(filled(i)) for i in (1, 2)], "
            "daemon=True); t.start(); t.join()",
            0,
        ),
        (
            "t = threading.Thread(target=recorder.step, args=[filled(1)]); t.start(); t.join(); "
            "recorder.step(filled(2))",
            0,
        ),
        # Where no thread would be waited for any more.
        (
            "import atexit; recorder.step(filled(1)); atexit.register(recorder.step, filled(2))",
            0,
        ),
    ],
)
def test_an_interpreter_that_ends_writes_what_was_taken(
    tmp_path: Path, code: str, status: int
) -> None:
    done = run(tmp_path, f"recorder = ArrayRecorder(folder, EVERY_STEP, max_pending=2)\n{code}")
    assert done.returncode == status, done.stderr
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "cycle-0000-step-0000000001.safetensors",
        "cycle-0001-step-0000000002.safetensors",
    ]
    assert SnapshotStore(tmp_path).verify() == 2


@pytest.mark.parametrize("end", ["", "del recorder"])
def test_an_error_after_the_last_call_is_said_at_the_end(tmp_path: Path, end: str) -> None:
    done = run(
        tmp_path,
        f"""
        recorder = ArrayRecorder(folder, EVERY_STEP)
        def full(descriptor):
            time.sleep(0.2)
            raise OSError(28, "No space left on device")
        os.fsync = full
        recorder.step(filled(1))
        {end}
        """,
    )
    assert "cycle-0000-step-0000000001.safetensors could not be written: No space" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_recorder_dropped_in_mid_write_and_collected_by_the_writer_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    dropped = threading.Event()

    def fsync(descriptor: int) -> None:
        assert dropped.wait(30)
        gc.collect()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    recorder = ArrayRecorder(tmp_path, EVERY_STEP)
    recorder.loop = recorder  # type: ignore[attr-defined]
    recorder.step(filled(1))
    gc.disable()
    try:
        del recorder
        dropped.set()
        for thread in writer_threads():
            thread.join(30)
    finally:
        gc.enable()
    assert writer_threads() == []
    with ArrayRecorder(tmp_path, EVERY_STEP, resume_from=1) as again:
        assert again.store.verify() == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_child_leaves_the_recorder_to_its_parent(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        recorder = ArrayRecorder(folder, EVERY_STEP)
        with recorder:
            recorder.step(filled(1))
            child = os.fork()  # while the writer is at work
            if not child:
                recorder.wait()
                for call in (lambda: recorder.step(filled(2)), lambda: recorder.resume(0)):
                    try:
                        call()
                    except Exception as error:
                        print(error)
                sys.exit(7)  # through the end of the block, and of the interpreter
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            assert os.path.exists(f"{folder}/.cosanneal.lock")
            recorder.step(filled(3))
        """,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("was forked from it. Record in the process that made it") == 2
    assert sorted(SnapshotStore(tmp_path).list(), key=lambda s: s.step)[-1].load()["w"][0] == 3
    assert SnapshotStore(tmp_path).verify() == 2


def test_held_memory_is_used_again_and_follows_the_weights() -> None:
    buffers = HostBuffers()
    fortran = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    kinds: dict[str, Any] = {
        "list": [1.0, 2.0],
        "scalar": np.float32(2.5),
        "strided": np.arange(10)[::2],
        "fortran": fortran,
        "swapped": np.arange(3, dtype=">f4"),
        "none": np.zeros((0, 3), np.float16),
        "flag": np.array([True, False]),
    }
    first = buffers.copy(kinds)
    buffers.arrive()
    for name, value in kinds.items():
        wanted = np.asarray(value)
        wanted = np.ascontiguousarray(wanted, wanted.dtype.newbyteorder("="))
        assert bytes(first[name].data) == wanted.tobytes()
        assert (first[name].shape, first[name].dtype) == (np.shape(value), wanted.dtype.name)
    again = buffers.copy({**kinds, "strided": np.arange(5) * 2, "scalar": np.float64(1.5)})
    assert again["strided"].data is first["strided"].data
    assert again["scalar"].dtype == "float64"
    assert buffers.copy({"list": [3.0, 4.0]}).keys() == {"list"}
    for value, dtype in [("text", "str128"), (object(), "object"), (1j, "complex128")]:
        with pytest.raises(ca.SnapshotError, match=rf"'x' must have a dtype .*: {dtype}"):
            buffers.copy({"x": value})


def test_no_thread_and_no_handler_outlives_a_closed_recorder(tmp_path: Path) -> None:
    before = atexit._ncallbacks()
    for i in range(20):
        with ArrayRecorder(tmp_path / str(i), EVERY_STEP) as recorder:
            recorder.step(filled(1))
        assert not recorder._finalizer.alive
    assert threads_that_stay() == []
    assert atexit._ncallbacks() - before <= 1


def test_an_interrupt_while_the_thread_begins_leaves_one_thread(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a loaded machine it may begin after the next step took it for dead."""
    begin = threading.Event()
    real_run, real_start = threading.Thread.run, threading.Thread.start
    real_is_alive = threading.Thread.is_alive
    started: list[threading.Thread] = []

    def run(self: threading.Thread) -> None:
        if self is started[0]:
            assert begin.wait(30)
        real_run(self)

    def start(self: threading.Thread) -> None:
        started.append(self)
        real_start(self)
        if len(started) == 1:
            raise KeyboardInterrupt

    def is_alive(self: threading.Thread) -> bool:
        return self not in started[:1] and real_is_alive(self)

    recorder = ArrayRecorder(tmp_path, EVERY_STEP, max_pending=3)
    gate.close()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "run", run)
        patch.setattr(threading.Thread, "start", start)
        patch.setattr(threading.Thread, "is_alive", is_alive)
        with pytest.raises(KeyboardInterrupt):
            recorder.step(filled(1))
        recorder.step(filled(2))
        assert gate.reached.wait(30)  # the second thread is writing
        begin.set()
        started[0].join(30)
    assert not started[0].is_alive()
    gate.open.set()
    for value in range(3, 9):
        recorder.step(filled(value))
    recorder.close()
    assert threads_that_stay() == []
    statistics = recorder.statistics
    assert (statistics.taken, statistics.durable, statistics.failed) == (8, 8, 0)
    assert [each.load()["w"][0] for each in recorder.store.list()] == [*range(1, 9)]


# What a snapshot goes through.
STEPS = ("_take", "_hand_over", "submit", "_do", "write")


@pytest.mark.parametrize("background", [False, True])
def test_an_interrupt_at_any_line_leaves_nothing_pending(tmp_path: Path, background: bool) -> None:
    place, interrupted = 0, True
    while interrupted:
        place += 1
        interrupted, left = False, place

        def trace(frame: Any, event: str, _: Any) -> Any:
            nonlocal left, interrupted
            if Path(frame.f_code.co_filename).name not in ("recorder.py", "writer.py", "job.py"):
                return None
            if event == "line" and frame.f_code.co_name in STEPS:
                left -= 1
                if left == 0:
                    interrupted = True
                    raise KeyboardInterrupt
            return trace

        folder = tmp_path / str(place)
        with ArrayRecorder(folder, EVERY_STEP, background=background) as recorder:
            recorder.step(filled(1))
            recorder.wait()
            before = sys.gettrace()
            sys.settrace(trace)
            try:
                recorder.step(filled(2))
            except KeyboardInterrupt:
                assert interrupted
            finally:
                sys.settrace(before)
            recorder.wait()
            assert recorder.statistics.pending == 0
            recorder.step(filled(3))
            recorder.wait()
            found = recorder.statistics
            assert found.pending == 0
            assert found.taken == found.durable + found.failed
            # What may be lost is said to be; what is there is not always known to be.
            assert found.durable <= len(recorder.store.list()) <= found.taken
    assert place > 15
