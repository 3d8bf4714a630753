"""A recorder that is made anew takes the folder over from the one before, where it may."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest

import cosanneal as ca
from cosanneal.snapshots import SnapshotStore
from cosanneal.snapshots.lock import LOCK_NAME, FolderLock
from tests.shared.gates import Gate
from tests.shared.recording import EVERY_STEP, ArrayRecorder, contents, filled, step_and_wait


def test_a_cell_that_is_run_again_takes_the_folder_over(tmp_path: Path) -> None:
    first = ArrayRecorder(tmp_path, EVERY_STEP)
    first.step(filled(1))
    second = ArrayRecorder(tmp_path, EVERY_STEP)
    with pytest.raises(
        ca.SnapshotError, match=r"another run\. .* resume_from=0 \(as in a notebook"
    ):
        second.step(filled(1))
    third = ArrayRecorder(tmp_path, EVERY_STEP, resume_from=0)
    for lost in (first, second):
        with pytest.raises(ca.SnapshotError, match="recorder of this process took the folder over"):
            lost.step(filled(2))
        with pytest.raises(ca.SnapshotError, match="took the folder over"), lost:
            pass
        lost.close()
    third.step(filled(3))
    third.close()
    assert [float(each.load()["w"][0]) for each in third.store.list()] == [3]
    assert not (tmp_path / LOCK_NAME).exists()


def test_the_new_one_waits_for_what_the_old_one_took(tmp_path: Path, gate: Gate) -> None:
    first = ArrayRecorder(tmp_path, EVERY_STEP)
    gate.close()
    first.step(filled(1))
    threading.Timer(0.2, gate.open.set).start()
    second = ArrayRecorder(tmp_path, EVERY_STEP, resume_from=1)
    assert [each.step for each in second.store.list()] == [1]
    assert first.statistics.durable == 1
    second.close()


@pytest.mark.parametrize("gone", [False, True])
def test_one_whose_loop_raised_is_kept_by_the_traceback_alone(
    tmp_path: Path, gate: Gate, gone: bool
) -> None:
    def cell() -> None:
        recorder = ArrayRecorder(tmp_path, EVERY_STEP)
        gate.close()
        recorder.step(filled(1))
        recorder.itself = recorder  # type: ignore[attr-defined]
        raise ZeroDivisionError

    try:
        cell()
    except ZeroDivisionError as error:
        kept = error
    if gone:
        del kept
        gc.collect()
    threading.Timer(0.2, gate.open.set).start()
    with ArrayRecorder(tmp_path, EVERY_STEP, resume_from=1) as recorder:
        recorder.step(filled(2))
    assert [each.step for each in recorder.store.list()] == [1, 2]


def test_one_inside_its_block_is_not_disturbed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with ArrayRecorder(tmp_path / "run", EVERY_STEP) as recorder:
        for name in ("run", "link"):
            with pytest.raises(
                ca.SnapshotError, match=r"inside of its `with` block; call its close\(\) first"
            ):
                ArrayRecorder(tmp_path / name, EVERY_STEP)
        recorder.step(filled(1))
    with ArrayRecorder(tmp_path / "link", EVERY_STEP, resume_from=1) as recorder:
        recorder.step(filled(2))


def test_one_of_another_thread_is_not_disturbed(tmp_path: Path) -> None:
    """Also of one that has ended: somebody may step what it made."""
    made: list[ArrayRecorder] = []
    maker = threading.Thread(target=lambda: made.append(ArrayRecorder(tmp_path, EVERY_STEP)))
    maker.start()
    maker.join()
    with pytest.raises(ca.SnapshotError, match=r"made in another thread; call its close\(\) first"):
        ArrayRecorder(tmp_path, EVERY_STEP)
    made[0].step(filled(1))
    made.pop().close()
    with ArrayRecorder(tmp_path, EVERY_STEP, resume_from=1) as recorder:
        recorder.step(filled(2))
    made.clear()


def test_a_step_of_another_thread_is_waited_for(tmp_path: Path, gate: Gate) -> None:
    first = ArrayRecorder(tmp_path, EVERY_STEP, max_pending=1)
    gate.close()
    stepping = threading.Thread(target=lambda: [first.step(filled(i)) for i in range(2)])
    stepping.start()  # whose second step waits for the first one's snapshot
    while first.updates < 2:
        time.sleep(0.001)
    threading.Timer(0.2, gate.open.set).start()
    second = ArrayRecorder(tmp_path, EVERY_STEP, resume_from=2)
    before = contents(tmp_path)
    stepping.join()
    assert contents(tmp_path) == before
    assert [each.step for each in second.store.list()] == [1, 2]
    second.close()


def test_a_folder_that_was_removed_and_made_again_is_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = ArrayRecorder(folder, EVERY_STEP)
    shutil.rmtree(folder)
    with ArrayRecorder(folder, EVERY_STEP) as second:
        with pytest.raises(ca.SnapshotError, match="took the folder over"):
            first.step(filled(1))
        second.step(filled(2))
    assert [float(each.load()["w"][0]) for each in second.store.list()] == [2]


@pytest.mark.skipif(sys.platform == "win32", reason="fork is POSIX'")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning", "ignore:Exception ignored in")
def test_a_child_takes_nothing_over(tmp_path: Path) -> None:
    recorder = ArrayRecorder(tmp_path, EVERY_STEP)
    child = os.fork()
    if not child:  # pragma: no cover
        try:
            ArrayRecorder(tmp_path, EVERY_STEP)
        except ca.SnapshotError as error:
            os._exit(0 if f"process {os.getppid()} on" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    recorder.step(filled(1))
    recorder.close()


@pytest.mark.skipif(sys.platform == "win32", reason="fork is POSIX'")
def test_a_child_neither_lets_others_in_nor_goes_on(tmp_path: Path) -> None:
    recorder = ArrayRecorder(tmp_path, EVERY_STEP)
    child = os.fork()
    if not child:  # pragma: no cover
        try:
            recorder.rest()
            recorder.go_on()
        except ca.SnapshotError as error:
            os._exit(0 if "was forked from it" in str(error) else 2)
        except BaseException:
            os._exit(3)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    recorder.close()


@pytest.mark.skipif(sys.platform == "win32", reason="what is in use cannot be moved there")
def test_another_folder_of_that_name_is_left_alone(tmp_path: Path) -> None:
    """It was moved in mid-run, and another run has its snapshots in its place."""
    with ArrayRecorder(tmp_path / "other", EVERY_STEP) as other:
        for value in (7, 8, 9):
            other.step(filled(value))
    folder = tmp_path / "run"
    with ArrayRecorder(folder, EVERY_STEP, keep_last=1) as recorder:
        step_and_wait(recorder, filled(1))
        folder.rename(tmp_path / "moved")
        other.store.folder.rename(folder)
        before = contents(folder)
        for value in (2, 3):
            with pytest.raises(ca.SnapshotError, match=r"another folder of that name, with 3 snap"):
                step_and_wait(recorder, filled(value))
    assert contents(folder) == before
    assert [each.step for each in SnapshotStore(tmp_path / "moved").list()] == [1]


@pytest.mark.skipif(sys.platform == "win32", reason="what is in use cannot be removed there")
def test_a_lock_file_that_was_removed_is_made_again(tmp_path: Path) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP) as recorder:
        recorder.step(filled(1))
        recorder.wait()
        (tmp_path / LOCK_NAME).unlink()
        step_and_wait(recorder, filled(2))
        with pytest.raises(ca.SnapshotError, match="one recorder at a time"):
            FolderLock(tmp_path)
        (tmp_path / LOCK_NAME).unlink()
        other = FolderLock(tmp_path)
        with pytest.raises(ca.SnapshotError, match="another recorder of this process"):
            step_and_wait(recorder, filled(3))
        other.release()
        step_and_wait(recorder, filled(4))
    assert [each.step for each in recorder.store.list()] == [1, 2, 4]
    assert not (tmp_path / LOCK_NAME).exists()
