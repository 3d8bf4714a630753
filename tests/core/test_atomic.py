"""Files and folders that a power cut leaves whole."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import cosanneal as ca
from cosanneal.core.atomic import arriving, make_folder, replacing


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be synced there")
def test_each_folder_above_one_that_is_made_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    folder = tmp_path / "runs/2026/digits"
    make_folder(folder)
    assert folder.is_dir()
    assert synced == [str(each) for each in (tmp_path, tmp_path / "runs", tmp_path / "runs/2026")]
    synced.clear()
    make_folder(folder)
    assert synced == []


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe has no place in a folder there")
@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_not_replaced(tmp_path: Path, linked: bool) -> None:
    """Nor a device, such as /dev/null, nor the link /dev/stdout to one, which root could."""
    path = pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    if linked:
        path = tmp_path / "link"
        path.symlink_to(pipe)
    there = sorted(tmp_path.iterdir())
    with (
        pytest.raises(ca.CosannealError, match=rf"{path} could not be written: it is a device, a"),
        replacing(path) as file,
    ):
        file.write(b"x")
    assert sorted(tmp_path.iterdir()) == there
    assert pipe.is_fifo()
    assert path.is_symlink() == linked


def test_what_a_writer_makes_of_a_path_arrives_whole(tmp_path: Path) -> None:
    with arriving(tmp_path / "file") as path:
        path.write_text("new")
        assert path.name == "file"
        assert not (tmp_path / "file").exists()
    with arriving(tmp_path / "folder") as path:
        (path / "inner").mkdir(parents=True)
        (path / "inner" / "part").write_text("whole")
    assert (tmp_path / "file").read_text() == "new"
    assert (tmp_path / "folder" / "inner" / "part").read_text() == "whole"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]


def test_what_fails_on_its_way_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("old")
    with pytest.raises(ZeroDivisionError), arriving(tmp_path / "file") as path:
        path.write_text(str(1 / 0))
    for name in ("folder", "none/file"):
        with (
            pytest.raises(ca.CosannealError, match=f"{name} could not be written"),
            arriving(tmp_path / name) as path,
        ):
            path.write_text("new")
    assert (tmp_path / "file").read_text() == "old"
    assert (tmp_path / "folder" / "mine").read_text() == "old"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]
