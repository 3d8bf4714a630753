"""These tests need Keras on the backend that KERAS_BACKEND names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.shared.needed import left_out

NEEDED = ("keras", os.environ.get("KERAS_BACKEND", "tensorflow"), "numpy", "safetensors")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the folder out where a package is missing, unless it was asked for by name."""
    return left_out("adapters/keras", NEEDED, collection_path, config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let pass what Keras itself does that numpy deprecates."""
    message = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(message))
