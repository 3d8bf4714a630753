"""The experiment, small, with two seeds and a study.

The tests in JAX and in Keras need those, and are left out where they are missing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cosanneal.demo import Backend
from cosanneal.demo.experiment import Outcome
from tests.shared.backends import STUDY, run
from tests.shared.needed import left_out

NEEDED = {
    "test_jax_backend.py": ("jax", "optax"),
    "test_keras_backend.py": ("keras", os.environ.get("KERAS_BACKEND", "tensorflow")),
}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the file of a framework that is missing, unless it was asked for by name."""
    name = collection_path.name
    return left_out(f"demo/{name}", NEEDED.get(name, ()), collection_path, config)


@pytest.fixture(scope="session")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run(Backend.TORCH, tmp_path_factory.mktemp("demo"), seeds=2, study=STUDY)


@pytest.fixture
def results(outcome: Outcome) -> dict[str, Any]:
    return outcome.results
