"""The pages' code in Keras runs as it is printed, on the backend of the session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import cosanneal as ca
from cosanneal.adapters.keras import CyclicCosineSchedule, SnapshotRecorder
from tests.shared.pages import blocks, pages_of, run_page


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


def test_the_page_on_preemption_starts_over_and_goes_on(tmp_path: Path) -> None:
    """Killed before its first backup and after it; an epoch has 5 updates, and a cycle 4."""
    (block,) = blocks("preemption.md", under="In Keras")
    schedule = ca.CyclicCosine(0.1, total_steps=20, num_cycles=5)
    x = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")

    def train(stop: int | None = None) -> None:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        rate = CyclicCosineSchedule(schedule)
        model.compile(keras.optimizers.SGD(rate, momentum=0.9), "mse")

        class Model:  # the page's `fit`, with a kill and without what is random
            @staticmethod
            def fit(*given: Any, callbacks: list[Any], **options: Any) -> None:
                killing = [Kill(stop), *callbacks]
                model.fit(*given, callbacks=killing, shuffle=False, verbose=0, **options)

        names = {
            **{"Path": Path, "keras": keras, "SnapshotRecorder": SnapshotRecorder},
            **{"schedule": schedule, "model": Model, "x": x, "y": x[:, :3]},
            **{"batch_size": 10, "epochs": 4},
        }
        try:
            block.run(names)
        finally:
            names["recorder"].close()  # as the end of the process does

    def snapshots() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in Path("runs/digits").glob("*.safetensors")}

    train()
    whole = snapshots()
    assert len(whole) == 5
    (tmp_path / "runs").rename(tmp_path / "whole")
    for update, there in ((5, 1), (5, 1), (14, 3)):
        with pytest.raises(KilledError):
            train(update)
        assert len(snapshots()) == there
        assert Path("runs/backup/latest.weights.h5").exists() == (update > 5)
    train()
    assert snapshots() == whole
    train()  # there is nothing left to do
    assert snapshots() == whole


class KilledError(Exception):
    """In the place of a signal."""


class Kill(keras.callbacks.Callback):
    """Ends the process, as it were, after so many updates: before any other callback's end."""

    def __init__(self, update: int | None) -> None:
        super().__init__()
        self.update = update

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        if int(self.model.optimizer.iterations) == self.update:
            raise KilledError


def test_every_page_of_this_session_is_run_here() -> None:
    assert {*pages_of("keras")} == {"index.md", "start/keras.md"}
