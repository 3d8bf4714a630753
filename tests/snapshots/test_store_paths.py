"""A folder is what it was when it was given, and a local one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.snapshots import SnapshotStore
from tests.shared.recording import EVERY_STEP, ArrayRecorder, filled


def test_a_recorder_and_its_store_stay_where_they_were_after_a_chdir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another run's folder has the same name there."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "b")
    with ArrayRecorder("run", EVERY_STEP) as other:
        for value in range(5):
            other.step(filled(value))
    monkeypatch.chdir(tmp_path / "a")
    with ArrayRecorder("run", EVERY_STEP, keep_last=2) as recorder:
        recorder.step(filled(1))
        monkeypatch.chdir(tmp_path / "b")
        for value in range(3):
            recorder.step(filled(value))
    assert recorder.store.folder == tmp_path / "a/run"
    assert repr(recorder.store) == f"SnapshotStore({str(tmp_path / 'a/run')!r})"
    assert [each.path.parent for each in recorder.store.list()] == [tmp_path / "a/run"] * 2
    assert [each.step for each in other.store.list()] == [1, 2, 3, 4, 5]
    assert other.store.verify() == 5


def test_a_folder_may_be_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with ArrayRecorder("~/runs", EVERY_STEP) as recorder:
        recorder.step(filled(1))
    assert recorder.store.folder == tmp_path / "runs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("nowhere://bucket/run", "must be of a file system that fsspec reaches"),
        (Path("gs://bucket/run"), "a URL, which is taken .*as a str"),
        ("", "an empty string"),
        (b"run", "bytes"),
        (None, "must be a str or a pathlib.Path. Received: None"),
    ],
)
def test_what_is_no_folder_is_refused_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ca.SnapshotError, match=message):
        SnapshotStore(folder)
    with pytest.raises(ca.SnapshotError, match=message):
        ArrayRecorder(folder, EVERY_STEP)
    assert list(tmp_path.iterdir()) == []


def test_a_leftover_that_cannot_be_deleted_is_named(tmp_path: Path) -> None:
    leftover = tmp_path / ".cycle-0000-step-0000000010.safetensors.0a.tmp"
    leftover.mkdir()
    with pytest.raises(ca.SnapshotError, match=rf"{leftover}, which cannot be deleted: "):
        SnapshotStore(tmp_path).prepare()
