"""One recorder at a time writes to a folder; readers are not asked."""

from __future__ import annotations

import errno
import gc
import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.snapshots import SnapshotStore
from cosanneal.snapshots.lock import LOCK_NAME, FolderLock
from tests.shared.recording import EVERY_STEP, ArrayRecorder, filled, step_and_wait

posix = pytest.mark.skipif(sys.platform == "win32", reason="fork and fcntl are POSIX'")

HOLDER = """
import sys
import threading
from pathlib import Path
from cosanneal.snapshots.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def test_a_second_recorder_of_another_process_is_refused_until_the_first_is_killed(
    tmp_path: Path,
) -> None:
    with holder(tmp_path) as child:
        with pytest.raises(ca.SnapshotError, match=rf"process {child.pid} on \S+ is writing to;"):
            ArrayRecorder(tmp_path, EVERY_STEP)
        assert SnapshotStore(tmp_path).list() == []
        child.kill()
        child.wait()
        assert (tmp_path / LOCK_NAME).exists()  # what the killed one left does not lock
        with ArrayRecorder(tmp_path, EVERY_STEP) as recorder:
            recorder.step(filled(1))
    assert [path.name for path in tmp_path.iterdir()] == ["cycle-0000-step-0000000001.safetensors"]


def test_a_second_recorder_of_this_process_is_refused(tmp_path: Path) -> None:
    first = ArrayRecorder(tmp_path / "run", EVERY_STEP).__enter__()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    for name in ("run", "link"):
        with pytest.raises(ca.SnapshotError, match=r"another recorder of this process is writing"):
            ArrayRecorder(tmp_path / name, EVERY_STEP)
        # The refusal must not have cost the first its lock.
        script = HOLDER.replace("print", "sys.exit('taken') #")
        other = [sys.executable, "-c", script, str(tmp_path / "run")]
        done = subprocess.run(other, capture_output=True, text=True, check=False)
        assert f"process {os.getpid()} on" in done.stderr
        assert "taken" not in done.stderr.splitlines()
    with ArrayRecorder(tmp_path / "other", EVERY_STEP):
        first.step(filled(1))
    first.close()
    with ArrayRecorder(tmp_path / "run", EVERY_STEP, resume_from=1) as second:
        first.close()  # closed already: not the second's lock
        with pytest.raises(ca.SnapshotError, match=r"another recorder of this process"):
            FolderLock(tmp_path / "run")
        second.step(filled(2))
    assert [snapshot.step for snapshot in second.store.list()] == [1, 2]


def test_a_recorder_that_could_not_be_made_or_was_dropped_holds_no_lock(tmp_path: Path) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP) as recorder:
        recorder.step(filled(1))
    with pytest.raises(ca.SnapshotError, match=r"schedule it began with"):
        ArrayRecorder(tmp_path, ca.CyclicCosine(0.1, cycle_steps=2), resume_from=1)
    dropped = ArrayRecorder(tmp_path, EVERY_STEP, resume_from=1)
    del dropped
    gc.collect()
    ArrayRecorder(tmp_path, EVERY_STEP, resume_from=1).close()


@posix
def test_a_child_process_neither_has_nor_ends_its_parents_lock(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    child = os.fork()
    if not child:  # pragma: no cover
        try:
            FolderLock(tmp_path)
        except ca.SnapshotError as error:
            os._exit(0 if f"process {os.getppid()} on" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pytest.raises(ca.SnapshotError, match=r"another recorder of this process"):
        FolderLock(tmp_path)
    lock.release()
    lock.release()
    FolderLock(tmp_path).release()


@posix
def test_a_child_that_outlives_a_killed_run_does_not_keep_the_lock(tmp_path: Path) -> None:
    script = HOLDER.replace(
        "print(", "import os, time\nif not os.fork(): time.sleep(60)\nelse: print("
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        child.kill()
        child.wait()
        try:
            FolderLock(tmp_path).release()
        finally:
            os.kill(int(children[0]), 9)


def test_a_folder_that_was_replaced_is_another(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    old = FolderLock(folder)
    folder.rename(tmp_path / "moved")
    new = FolderLock(folder)
    old.release()
    assert (folder / LOCK_NAME).exists()  # which is not the old one's to remove
    with pytest.raises(ca.SnapshotError, match=r"another recorder of this process"):
        FolderLock(folder)
    shutil.rmtree(folder)
    new.release()


@posix
def test_a_lock_file_that_its_holder_removes_meanwhile_is_not_taken_for_the_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    real, calls = fcntl.flock, []

    def flock(descriptor: int, *rest: Any) -> None:
        calls.append(descriptor)
        if len(calls) == 1:  # the former holder is done between our open and our lock
            (tmp_path / LOCK_NAME).unlink()
        real(descriptor, *rest)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = FolderLock(tmp_path)
    assert len(calls) == 2
    assert (tmp_path / LOCK_NAME).exists()
    lock.release()


@posix
def test_a_folder_that_is_replaced_while_it_is_locked_is_locked_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    folder = tmp_path / "run"
    folder.mkdir()
    real, calls = fcntl.flock, []

    def flock(descriptor: int, *rest: Any) -> None:
        calls.append(descriptor)
        if len(calls) == 1:  # between our open and our lock
            folder.rename(tmp_path / "moved")
            folder.mkdir()
        real(descriptor, *rest)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = FolderLock(folder)
    monkeypatch.undo()
    with pytest.raises(ca.SnapshotError, match=r"another recorder of this process"):
        FolderLock(folder)
    lock.release()
    assert list(folder.iterdir()) == []


@posix
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO])
def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    import fcntl

    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    if code == errno.EIO:
        with pytest.raises(ca.SnapshotError, match=r"written to\. Received: Input/output error"):
            FolderLock(tmp_path)
        return
    with caplog.at_level(logging.WARNING), ArrayRecorder(tmp_path, EVERY_STEP) as recorder:
        recorder.step(filled(1))
    assert "on a file system without locks" in caplog.text
    assert recorder.store.verify() == 1


@posix
@pytest.mark.parametrize("kind", ["symbolic", "hard", "dangling", "device"])
def test_a_lock_file_that_is_another_file_is_refused_and_left(tmp_path: Path, kind: str) -> None:
    folder, foreign = tmp_path / "run", tmp_path / "thesis.tex"
    folder.mkdir()
    foreign.write_text("All of it.")
    path = folder / LOCK_NAME
    if kind == "hard":
        path.hardlink_to(foreign)
    else:
        target = {"symbolic": foreign, "dangling": tmp_path / "none", "device": Path("/dev/zero")}
        path.symlink_to(target[kind])
    with pytest.raises(ca.SnapshotError, match=rf"a {kind if kind == 'hard' else 'symbolic'} link"):
        ArrayRecorder(folder, EVERY_STEP)
    assert foreign.read_text() == "All of it."
    assert not (tmp_path / "none").exists()
    path.unlink()
    ArrayRecorder(folder, EVERY_STEP).close()


def test_a_folder_or_a_lock_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(ca.SnapshotError, match=r"can be written to\. Received: File name too long"):
        ArrayRecorder(tmp_path / ("n" * 300), EVERY_STEP)
    (tmp_path / LOCK_NAME).mkdir()
    with pytest.raises(ca.SnapshotError, match=r"file \.cosanneal\.lock that is there; delete"):
        ArrayRecorder(tmp_path, EVERY_STEP)


def test_a_copy_of_the_folder_does_not_end_its_lock(tmp_path: Path) -> None:
    """Reading the file and closing it ends a POSIX record lock of the reading process."""
    folder = tmp_path / "run"
    with ArrayRecorder(folder, EVERY_STEP) as recorder:
        recorder.step(filled(1))
        recorder.wait()
        shutil.copytree(folder, tmp_path / "copy")
        with (folder / LOCK_NAME).open("rb"):
            pass
        script = HOLDER.replace("print", "sys.exit('taken') #")
        other = [sys.executable, "-c", script, str(folder)]
        done = subprocess.run(other, capture_output=True, text=True, check=False)
        assert f"process {os.getpid()} on" in done.stderr
        assert "taken" not in done.stderr.splitlines()
    # What was copied locks nothing.
    with ArrayRecorder(tmp_path / "copy", EVERY_STEP, resume_from=1) as recorder:
        recorder.step(filled(2))


def test_who_is_refused_changes_nothing(tmp_path: Path) -> None:
    with holder(tmp_path) as child:
        before = (tmp_path / LOCK_NAME).read_bytes()
        with pytest.raises(ca.SnapshotError, match=rf"process {child.pid} on"):
            FolderLock(tmp_path)
        assert (tmp_path / LOCK_NAME).read_bytes() == before
        child.kill()
        child.wait()


def test_the_lock_file_is_no_snapshot_and_goes_with_the_recorder(tmp_path: Path) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP) as recorder:
        recorder.step(filled(1))
        recorder.wait()
        assert (tmp_path / LOCK_NAME).exists()
        assert [snapshot.step for snapshot in recorder.store.list()] == [1]
        assert SnapshotStore(tmp_path).verify() == 1
    assert not (tmp_path / LOCK_NAME).exists()


def test_the_collector_may_end_a_dropped_recorder_while_another_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in whatever thread allocates, and so within the taking of a lock."""
    dropped = FolderLock(tmp_path / "a")
    real = os.open

    def collected(*arguments: Any) -> int:
        dropped.release()
        return real(*arguments)

    monkeypatch.setattr(os, "open", collected)
    beginning = threading.Thread(target=lambda: FolderLock(tmp_path / "b").release(), daemon=True)
    beginning.start()
    beginning.join(30)
    assert not beginning.is_alive()
    monkeypatch.undo()
    FolderLock(tmp_path / "a").release()


def test_a_folder_that_became_a_file_hides_no_failure(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    recorder = ArrayRecorder(folder, EVERY_STEP)
    recorder.step(filled(1))
    recorder.wait()
    shutil.rmtree(folder)
    folder.write_text("")
    with pytest.raises(ca.SnapshotError, match=r"cycle-0001\S+ could not be written"):
        step_and_wait(recorder, filled(2))
    recorder.close()


@posix
def test_a_forked_child_is_refused_at_once(tmp_path: Path) -> None:
    """Also where a thread of its parent was in the middle of a step, which never ends here."""
    with ArrayRecorder(tmp_path, EVERY_STEP) as recorder:
        with recorder._one_at_a_time:
            # With the lock held by a thread that is not in the child.
            child = os.fork()
            if not child:  # pragma: no cover
                answer: list[bool] = []

                def step() -> None:
                    try:
                        recorder.step(filled(1))
                    except ca.SnapshotError as error:
                        answer.append("was forked" in str(error))

                thread = threading.Thread(target=step, daemon=True)
                thread.start()
                thread.join(20)
                os._exit(0 if answer == [True] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
