"""These tests need JAX, Optax, flax, Equinox and Haiku."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shared.needed import left_out

NEEDED = ("jax", "optax", "flax", "equinox", "haiku", "numpy", "safetensors")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the folder out where a package is missing, unless it was asked for by name."""
    return left_out("adapters/jax", NEEDED, collection_path, config)
