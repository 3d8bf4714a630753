"""Who may write to a folder at a URL."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.snapshots import SnapshotStore, lease, storage
from cosanneal.snapshots.lease import LEASE_NAME
from cosanneal.snapshots.storage import ATTEMPTS
from tests.shared.faulty import FaultyFileSystem, fail
from tests.shared.recording import EVERY_STEP, ArrayRecorder, filled

GONE = r"must have one recorder at a time\. Received: "


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.2)
    yield
    assert not [each for each in threading.enumerate() if each.name == "cosanneal-lease"]


def elsewhere(url: str, tmp_path: Path) -> SnapshotStore:
    """The store as another machine has it, whose locks are not these."""
    return SnapshotStore(url, cache=tmp_path / "elsewhere")


def leased(tmp_path: Path, **changes: Any) -> Path:
    """The lease of a recorder somewhere else."""
    file = tmp_path / "store/run" / LEASE_NAME
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {"process": 17, "host": "far-away", "token": "t", "renewed": time.time(), **changes}
    file.write_text(json.dumps(document))
    return file


def stopped() -> None:
    """Wait until no thread renews a lease any more."""
    for each in threading.enumerate():
        if each.name == "cosanneal-lease":
            each.join(10)


def test_a_second_recorder_is_refused_while_the_first_lives(url: str, tmp_path: Path) -> None:
    with ArrayRecorder(url, EVERY_STEP) as recorder:
        recorder.step(filled(1))
        # Once it is seen renewed; else it would be taken over.
        with pytest.raises(
            ca.SnapshotError, match=rf"{GONE}.*process {os.getpid()} on {socket.gethostname()} is"
        ):
            ArrayRecorder(elsewhere(url, tmp_path), EVERY_STEP, resume_from=1)
        time.sleep(1.2)  # the first, which has nothing to write, keeps it
        recorder.step(filled(2))
        recorder.wait()
    assert not (tmp_path / "store/run" / LEASE_NAME).exists()
    with ArrayRecorder(elsewhere(url, tmp_path), EVERY_STEP, resume_from=2) as recorder:
        recorder.step(filled(3))
    assert [each.step for each in SnapshotStore(url).list()] == [1, 2, 3]
    stopped()


def test_readers_need_no_lease(url: str, tmp_path: Path) -> None:
    with ArrayRecorder(url, EVERY_STEP) as recorder:
        recorder.step(filled(1))
        recorder.wait()
        assert elsewhere(url, tmp_path).verify() == 1
    stopped()


def test_one_that_nobody_renews_is_taken_over(url: str, tmp_path: Path) -> None:
    file = leased(tmp_path)
    began = time.monotonic()
    with ArrayRecorder(url, EVERY_STEP) as recorder:
        assert time.monotonic() - began >= 0.9
        assert json.loads(file.read_text())["process"] == os.getpid()
        recorder.step(filled(1))
    stopped()


@pytest.mark.parametrize("how", ["old", "gone"])
def test_one_that_is_over_is_taken_at_once(url: str, tmp_path: Path, how: str) -> None:
    if how == "old":
        leased(tmp_path, renewed=time.time() - 1.5)
    else:
        child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
        leased(tmp_path, process=int(child.stdout), host=socket.gethostname())
    began = time.monotonic()
    with ArrayRecorder(url, EVERY_STEP) as recorder:
        assert time.monotonic() - began < 0.8
        recorder.step(filled(1))
    stopped()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b'{"process": "x"}', b"x" * 9999])
def test_what_is_no_lease_counts_as_one_until_it_is_not_renewed(
    url: str, tmp_path: Path, content: bytes
) -> None:
    leased(tmp_path).write_bytes(content)
    began = time.monotonic()
    with ArrayRecorder(url, EVERY_STEP) as recorder:
        assert time.monotonic() - began >= 0.9
        recorder.step(filled(1))
    stopped()


def test_one_that_lost_its_lease_writes_and_deletes_nothing_more(url: str, tmp_path: Path) -> None:
    """As after a machine that stood still."""
    recorder = ArrayRecorder(url, EVERY_STEP, keep_last=1)
    recorder.step(filled(1))
    recorder.wait()
    file = leased(tmp_path)
    recorder.step(filled(2))
    with pytest.raises(ca.SnapshotError, match=rf"{GONE}process 17 on far-away, which took it"):
        recorder.close()
    assert [each.step for each in SnapshotStore(url).list()] == [1]
    assert json.loads(file.read_text())["process"] == 17  # it is not the recorder's to delete
    stopped()


def test_one_that_was_deleted_by_hand_is_made_again(url: str, tmp_path: Path) -> None:
    file = tmp_path / "store/run" / LEASE_NAME
    with ArrayRecorder(url, EVERY_STEP) as recorder:
        file.unlink()
        recorder.step(filled(1))
        recorder.wait()
        assert file.exists()
    assert not file.exists()
    stopped()


def test_two_that_begin_at_once_do_not_both_write(url: str, tmp_path: Path) -> None:
    """Of the first, the lease is made between the other's look and its writing."""

    def first(real: Any, *arguments: Any, **options: Any) -> Any:
        leased(tmp_path)
        return real(*arguments, **options)

    (tmp_path / "store/run").mkdir(parents=True)
    FaultyFileSystem.faults["pipe_file"] = [first]
    with pytest.raises(ca.SnapshotError, match=rf"{GONE}one that process 17 on far-away"):
        ArrayRecorder(url, EVERY_STEP)
    stopped()


def test_a_store_that_is_down_refuses_the_recorder_and_frees_the_folder(url: str) -> None:
    FaultyFileSystem.faults["cat_file"] = [fail] * ATTEMPTS
    with pytest.raises(ca.SnapshotError, match=rf"{LEASE_NAME} could not be read"):
        ArrayRecorder(url, EVERY_STEP)
    with ArrayRecorder(url, EVERY_STEP) as recorder:
        recorder.step(filled(1))
    stopped()


def test_a_renewal_that_fails_is_logged_and_tried_again(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ArrayRecorder(url, EVERY_STEP) as recorder:
        before = (tmp_path / "store/run" / LEASE_NAME).read_text()
        FaultyFileSystem.faults["pipe_file"] = [fail] * ATTEMPTS
        for _ in range(100):
            time.sleep(0.05)
            if (tmp_path / "store/run" / LEASE_NAME).read_text() != before:
                break
        assert "could not be renewed" in caplog.text
        assert (tmp_path / "store/run" / LEASE_NAME).read_text() != before
        recorder.step(filled(1))
    stopped()


def test_others_may_write_while_a_recorder_rests(url: str, tmp_path: Path) -> None:
    recorder = ArrayRecorder(url, EVERY_STEP)
    recorder.step(filled(1))
    recorder.rest()
    recorder.go_on()  # where nobody wrote
    recorder.rest()
    with ArrayRecorder(elsewhere(url, tmp_path), EVERY_STEP, resume_from=1) as other:
        other.step(filled(2))
    with pytest.raises(ca.SnapshotError, match=r"must hold the 1 snapshots .*Received: 2, or"):
        recorder.go_on()
    recorder.close()
    stopped()


def test_a_lease_that_is_read_while_it_is_written_is_read_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ArrayRecorder(url, EVERY_STEP) as recorder:
        recorder.step(filled(1))
        recorder.wait()
        read, torn = storage.Remote.read, [b"", b'{"process": 1']

        def sometimes(remote: storage.Remote, name: str, start: int, stop: int) -> bytes:
            whole = read(remote, name, start, stop)
            return torn.pop() if name == LEASE_NAME and torn else whole

        monkeypatch.setattr(storage.Remote, "read", sometimes)
        with pytest.raises(ca.SnapshotError, match=rf"{GONE}.*process {os.getpid()} on"):
            ArrayRecorder(elsewhere(url, tmp_path), EVERY_STEP, resume_from=1)
        assert not torn
    stopped()
