"""The demonstration in Keras: what its model and its training function do."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosanneal.demo import Backend
from cosanneal.demo.experiment import Outcome
from cosanneal.demo.keras_backend import build_model
from tests.shared import backends

# What Keras itself does that numpy deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return backends.run(Backend.KERAS, tmp_path_factory.mktemp("demo"))


def test_the_weights_come_from_the_seed_alone() -> None:
    backends.check_weights(lambda seed: build_model(seed, 0.0).get_weights())


def test_the_curves_are_those_of_the_runs(results: Outcome) -> None:
    backends.check_curves(results)


def test_the_results_agree_with_each_other_and_repeat(results: Outcome, tmp_path: Path) -> None:
    backends.check_scores(results, backends.run(Backend.KERAS, tmp_path))


def test_the_command_writes_and_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backends.check_command(Backend.KERAS, tmp_path, monkeypatch)
