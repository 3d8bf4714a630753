"""Disks that fill, fail and vanish: the training loop is told once, and nothing earlier is lost."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.snapshots import SnapshotStore
from cosanneal.snapshots.lock import LOCK_NAME
from tests.shared.recording import EVERY_STEP, ArrayRecorder, contents, filled, step_and_wait

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the faults are POSIX'")


class FaultyFile(io.FileIO):
    """A file whose device takes few bytes at a time, and so many in all."""

    room = 10**9
    at_once = 10**9
    code = errno.EIO

    def write(self, data: Any) -> int:
        piece = memoryview(data).cast("B")[: min(self.at_once, FaultyFile.room)]
        if not len(piece) and len(data):
            raise OSError(self.code, os.strerror(self.code))
        FaultyFile.room -= len(piece)
        return super().write(piece) or 0


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> type[FaultyFile]:
    """Every file that is made anew is a faulty one."""
    monkeypatch.setattr(FaultyFile, "room", 10**9)
    real = Path.open

    def opened(path: Path, mode: str = "r", *rest: Any) -> Any:
        if mode == "xb":
            return io.BufferedWriter(FaultyFile(path, "xb"))
        return real(path, mode, *rest)

    monkeypatch.setattr(Path, "open", opened)
    return FaultyFile


def failing(code: int, when: Callable[[Any], bool] = lambda _: True) -> Callable[..., Any]:
    def fail(*arguments: Any, **_: Any) -> Any:
        if when(arguments[0]):
            raise OSError(code, os.strerror(code))
        return real(*arguments)

    real = os.fsync
    return fail


def is_folder(descriptor: int) -> bool:
    return os.path.isdir(f"/proc/self/fd/{descriptor}")  # noqa: PTH112


def goes_wrong(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[pytest.MonkeyPatch], None],
    message: str,
) -> None:
    """Record well, then under the fault, then well again: raising, and warning."""
    for on_error in ("raise", "warn"):
        place = folder / on_error
        with ArrayRecorder(place, EVERY_STEP, on_error=on_error) as recorder:
            recorder.step(filled(1, 9000))
            recorder.wait()
            before = contents(place)
            told: list[str] = []
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                for value in (2, 3):
                    # The error is known within the step already, or by the next.
                    with monkeypatch.context() as patch:
                        if value == 2:
                            fault(patch)
                        try:
                            recorder.step(filled(value, 9000))
                        except ca.SnapshotError as error:
                            told.append(str(error))
                        recorder._writer.wait()
            warned = [str(each.message) for each in caught if each.category is RuntimeWarning]
            assert (len(told), len(warned)) == ((1, 0) if on_error == "raise" else (0, 1))
            name = r"cycle-0001-step-0000000002\.safetensors"
            said = rf"{place}/{name} could not be {message}.*untouched; free space or mend the fol"
            assert re.match(said, (told + warned)[0])
            recorder.wait()  # it was said, and is not said again
            listed = {snapshot.path.name for snapshot in recorder.store.list()}
            after = contents(place)
            assert before.items() <= after.items()
            assert after.keys() == listed | {LOCK_NAME}
            assert recorder.store.verify() == len(listed)
            statistics = recorder.statistics
            assert (statistics.taken, statistics.durable, statistics.failed) == (3, 2, 1)
            recorder.step(filled(4, 9000))
        assert {1, 3, 4} <= {snapshot.step for snapshot in recorder.store.list()}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.ESTALE])
@pytest.mark.parametrize("room", [0, 3, 100, 20_000, 36_000])
def test_a_device_that_takes_no_more(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    faulty: type[FaultyFile],
    code: int,
    room: int,
) -> None:
    def fault(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(faulty, "room", room)
        patch.setattr(faulty, "code", code)

    goes_wrong(tmp_path, monkeypatch, fault, f"written: {os.strerror(code)}")


@pytest.mark.parametrize("at_once", [1, 7, 4096])
def test_short_writes_are_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faulty: type[FaultyFile], at_once: int
) -> None:
    monkeypatch.setattr(faulty, "at_once", at_once)
    with ArrayRecorder(tmp_path / "short", EVERY_STEP) as recorder:
        recorder.step(filled(1, 9000))
    monkeypatch.undo()
    with ArrayRecorder(tmp_path / "whole", EVERY_STEP) as recorder:
        recorder.step(filled(1, 9000))
    assert contents(tmp_path / "short") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("call", "message", "fault"),
    [
        ("open", "written: Read-only file system", errno.EROFS),
        ("replace", "written: Input/output error", errno.EIO),
        ("file's sync", "written: Input/output error", errno.EIO),
        ("folder's sync", "made durable: Input/output error", errno.EIO),
    ],
)
def test_a_call_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, message: str, fault: int
) -> None:
    real = Path.open

    def opened(path: Path, mode: str = "r", *rest: Any) -> Any:
        if mode == "xb":
            raise OSError(fault, os.strerror(fault))
        return real(path, mode, *rest)

    def apply(patch: pytest.MonkeyPatch) -> None:
        if call == "open":
            patch.setattr(Path, "open", opened)
        elif call == "replace":
            patch.setattr(Path, "replace", failing(fault))
        else:
            patch.setattr(
                os, "fsync", failing(fault, lambda fd: is_folder(fd) == ("folder" in call))
            )

    goes_wrong(tmp_path, monkeypatch, apply, message)


def test_a_folder_that_is_deleted_under_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with ArrayRecorder(folder, EVERY_STEP) as recorder:
        recorder.step(filled(1))
        recorder.wait()
        shutil.rmtree(folder)
        with pytest.raises(ca.SnapshotError, match=r"cycle-0001\S+ could not be written: No such"):
            step_and_wait(recorder, filled(2))
        assert recorder.store.list() == []
        folder.mkdir()
        recorder.step(filled(3))
    assert [path.name for path in folder.iterdir()] == ["cycle-0002-step-0000000003.safetensors"]


def test_a_read_only_folder_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def opened(path: Any, flags: int, *rest: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(ca.SnapshotError, match=r"can be written to\. Received: Read-only file"):
        ArrayRecorder(tmp_path, EVERY_STEP)
    monkeypatch.undo()
    # Neither root nor anybody may make files there.
    with pytest.raises(ca.SnapshotError, match=r"Folder /proc/self\S* must be a folder that can"):
        ArrayRecorder("/proc/self/fd", EVERY_STEP)


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.shared.recording import EVERY_STEP, ArrayRecorder, filled
{room}
recorder = ArrayRecorder(sys.argv[2], EVERY_STEP, on_error=sys.argv[3])
said = 0
for step in range(1, 9):
    # Every other snapshot, of 100 kB, is too large for what there is.
    room(step % 2)
    try:
        recorder.step(filled(step, 25_000))
        recorder.wait()
    except Exception as error:
        said += 1
        print(error)
room(True)
recorder.close()
print("said", said)
"""


def recorded_under(folder: Path, room: str, on_error: str) -> subprocess.CompletedProcess[str]:
    here = str(Path(__file__).parents[2])
    return subprocess.run(
        [
            sys.executable,
            "-c",
            CHILD.format(room=textwrap.dedent(room)),
            here,
            str(folder),
            on_error,
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def check_what_was_recorded(
    folder: Path, done: subprocess.CompletedProcess[str], on_error: str, reason: str
) -> None:
    assert done.returncode == 0, done.stderr
    said = done.stdout if on_error == "raise" else done.stderr
    assert done.stdout.endswith(f"said {4 if on_error == 'raise' else 0}\n")
    for cycle in (1, 3, 5, 7):
        assert said.count(f"cycle-{cycle:04d}-step-{cycle + 1:010d}.safetensors could") == 1
    assert said.count(f"could not be written: {reason}") == 4
    store = SnapshotStore(folder)
    assert [snapshot.step for snapshot in store.list()] == [1, 3, 5, 7]
    assert store.verify() == 4 == len(list(folder.iterdir()))


@pytest.mark.parametrize("on_error", ["raise", "warn"])
def test_a_limit_on_the_size_of_files(tmp_path: Path, on_error: str) -> None:
    room = """
        import resource
        def room(enough):
            soft = resource.RLIM_INFINITY if enough else 50_000
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))
    """
    done = recorded_under(tmp_path, room, on_error)
    check_what_was_recorded(tmp_path, done, on_error, "File too large")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        unmount = ["umount", str(disk)]
        subprocess.run(unmount, check=True)


@pytest.mark.parametrize("on_error", ["raise", "warn"])
def test_a_full_disk(small_disk: Path, on_error: str) -> None:
    room = """
        import os, pathlib
        ballast = pathlib.Path(sys.argv[2]).with_name("ballast")
        def room(enough):
            ballast.unlink(missing_ok=True)
            if not enough:
                disk = os.statvfs(ballast.parent)
                ballast.write_bytes(bytes(disk.f_bavail * disk.f_frsize - 50_000))
    """
    done = recorded_under(small_disk / "run", room, on_error)
    check_what_was_recorded(small_disk / "run", done, on_error, "No space left on device")
