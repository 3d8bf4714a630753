"""These tests need JAX, Optax and flax, and for the demonstration what it prints and draws with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.needed import left_out

NEEDED = (
    *("jax", "optax", "flax", "equinox", "numpy", "safetensors"),
    *("typer", "rich", "matplotlib", "sklearn"),
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the folder out where a package is missing, unless it was asked for by name."""
    return left_out("jax", NEEDED, collection_path, config)
