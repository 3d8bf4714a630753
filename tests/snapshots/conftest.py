"""A disk that a test holds back, and a store that fails as it is told to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosanneal.snapshots import storage
from tests.shared.faulty import FaultyFileSystem, register
from tests.shared.gates import Gate


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate, real = Gate(), os.fsync

    def fsync(descriptor: int) -> None:
        gate.reached.set()
        assert gate.open.wait(30)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    yield gate
    gate.open.set()


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder of a store that does as it is told; its files are in tmp_path / "store" / "run"."""
    register()
    FaultyFileSystem.reset()
    monkeypatch.setenv("COSANNEAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(storage, "PAUSE", 0.0)
    yield f"faulty://{tmp_path}/store/run"
    FaultyFileSystem.reset()
