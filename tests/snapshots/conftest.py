"""A disk that a test holds back."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

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
