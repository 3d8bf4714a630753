"""A small file beside the snapshots: whole or as it was, here and at a URL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.core.documents import MAX_BYTES, read_document
from cosanneal.snapshots import SnapshotStore, storage
from cosanneal.snapshots.storage import ATTEMPTS
from tests.shared.faulty import FaultyFileSystem, fail, flip, lose, tear
from tests.shared.recording import EVERY_STEP, ArrayRecorder, filled

FAULTS = FaultyFileSystem.faults
# Longer than what `tear` takes off.
OLD, NEW = ('{"old": "' + "x" * 200 + '"}').encode(), ('{"new": "' + "y" * 300 + '"}').encode()


def write(folder: Any, data: bytes) -> None:
    """As from another machine each time."""
    with SnapshotStore(folder).beside("some.json").writing(ca.EnsembleError) as file:
        file.write_bytes(data)


def read(folder: Any) -> Any:
    with SnapshotStore(folder).beside("some.json").reading(ca.EnsembleError) as file:
        return read_document(file, error=ca.EnsembleError, advice="; write it first")


def test_what_is_written_is_read_here_and_there(url: str, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    for folder, place in ((tmp_path / "here", tmp_path / "here"), (url, tmp_path / "store/run")):
        beside = SnapshotStore(folder).beside("some.json")
        assert str(beside) == f"{folder}/some.json"
        assert not beside.exists()
        with pytest.raises(ca.EnsembleError, match=rf"^{folder}/some.json could.*write it first$"):
            read(folder)
        for data in (OLD, NEW):
            write(folder, data)
            assert beside.exists()
            assert len(next(iter(read(folder).values()))) in (200, 300)
            assert (place / "some.json").read_bytes() == data
        assert [each.name for each in place.iterdir()] == ["some.json"]
        assert SnapshotStore(folder).list() == []


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("method", "fault"),
    [("put_file", fail), ("put_file", tear), ("put_file", flip), ("mv", fail), ("mv", lose)],
)
def test_what_fails_is_tried_again_and_then_said(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, fault: Any, whole: bool
) -> None:
    if whole and method == "mv":
        pytest.skip("nothing is moved there")
    monkeypatch.setattr(storage, "WHOLE", {"faulty"} if whole else set())
    (tmp_path / "store/run").mkdir(parents=True)
    write(url, OLD)
    FAULTS[method] = [fault] * ATTEMPTS
    with pytest.raises(
        ca.EnsembleError, match=r"some.json could not be put there.*times\)\. Mend the store, and"
    ):
        write(url, NEW)
    if fault is not lose and (not whole or fault is fail):
        assert read(url).keys() == {"old"}
    FAULTS[method] = [fault] * (ATTEMPTS - 1)
    write(url, NEW)
    assert read(url).keys() == {"new"}
    assert [each.name for each in (tmp_path / "store/run").iterdir()] == ["some.json"]


def test_what_cannot_be_read_is_said_with_its_url(url: str, tmp_path: Path) -> None:
    write(url, b"{")
    with pytest.raises(ca.EnsembleError, match=rf"^{url}/some.json could not be read: it is no"):
        read(url)
    with (tmp_path / "store/run/some.json").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ca.EnsembleError, match=rf"^{url}/some.json could not.*at most {MAX_BYTES}"):
        read(url)
    FAULTS["cat_file"] = [fail] * ATTEMPTS
    with pytest.raises(ca.EnsembleError, match=rf"^{url}/some.json could not be read: Connection"):
        read(url)


def test_what_an_interrupted_write_left_is_cleared_away(url: str, tmp_path: Path) -> None:
    there = tmp_path / "store/run"
    there.mkdir(parents=True)
    (there / ".some.json.0123abcd.tmp").write_bytes(b"{")
    write(url, OLD)
    with ArrayRecorder(url, EVERY_STEP) as recorder:
        recorder.step(filled(1))
    assert not list(there.glob("*.tmp")) + list(there.glob(".*.tmp"))
    assert read(url).keys() == {"old"}
