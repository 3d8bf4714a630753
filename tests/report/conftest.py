"""A document with every part, and its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cosanneal.report import write_report
from tests.shared.documents import whole


@pytest.fixture(scope="session")
def document() -> dict[str, Any]:
    return whole(budget=1.5)


@pytest.fixture(scope="session")
def reported(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "all.html"
    write_report(document, path)
    return path
