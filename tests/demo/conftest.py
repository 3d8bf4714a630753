"""The experiment, small, with two seeds and a study."""

from __future__ import annotations

from typing import Any

import pytest

from cosanneal.demo import Backend
from cosanneal.demo.experiment import Outcome
from tests.demo.backends import STUDY, run


@pytest.fixture(scope="session")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run(Backend.TORCH, tmp_path_factory.mktemp("demo"), seeds=2, study=STUDY)


@pytest.fixture
def results(outcome: Outcome) -> dict[str, Any]:
    return outcome.results
