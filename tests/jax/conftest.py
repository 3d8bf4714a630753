"""These tests need JAX, Optax and flax, and for the demonstration what it prints and draws with.

`pytest tests/jax` fails where one is missing; a run over all tests leaves the
folder out instead, since only the session `jax` installs them.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

NEEDED = (
    *("jax", "optax", "flax", "equinox", "numpy", "safetensors"),
    *("typer", "rich", "matplotlib", "sklearn"),
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the folder out where a package is missing, unless it was asked for by name."""
    asked = any("jax" in Path(arg.split("::")[0]).parts for arg in config.args)
    missing = [name for name in NEEDED if find_spec(name) is None]
    return True if missing and not asked and collection_path.suffix == ".py" else None
