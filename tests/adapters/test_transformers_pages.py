"""The pages' code for transformers runs as it is printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shared.pages import run_page


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_transformers() -> None:
    names = run_page("start/transformers.md")
    assert len(names["ensemble"]) == 4
    assert names["found"]["chosen"]["error"] < 0.3
