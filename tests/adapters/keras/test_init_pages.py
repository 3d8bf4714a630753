"""The pages' code in Keras runs as it is printed, on the backend of the session."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tests.shared.pages import pages_of, run_page


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_first_page_gives_an_ensemble_that_is_better_than_chance() -> None:
    names = run_page("start/keras.md")
    assert len(names["ensemble"]) == 4
    assert np.mean(names["probabilities"].argmax(1) == names["y"][names["test"]]) > 0.75


def test_the_index() -> None:
    x = np.random.default_rng(0).normal(size=(45, 4)).astype("float32")
    given = {
        "keras": keras,
        "model": keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]),
        **{"x_train": x, "y_train": np.arange(45) % 3, "x_test": x[:7]},
        **{"epochs": 5, "batch_size": 10},
    }
    names = run_page("index.md", given, under="Keras")
    np.testing.assert_allclose(names["probabilities"].sum(1), np.ones(7), rtol=1e-6)


def test_every_page_of_this_session_is_run_here() -> None:
    assert {*pages_of("keras")} == {"index.md", "start/keras.md"}
