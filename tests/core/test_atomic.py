"""Files and folders that a power cut leaves whole."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cosanneal.core.atomic import make_folder


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
