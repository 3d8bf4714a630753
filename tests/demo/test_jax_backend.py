"""The demonstration in JAX: what its model and its training function do."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from cosanneal.demo import Backend
from cosanneal.demo.digits import TRAIN, split_digits
from cosanneal.demo.experiment import Config, Outcome
from cosanneal.demo.jax_backend import build_params
from cosanneal.snapshots import SnapshotStore
from tests.shared import backends


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return backends.run(Backend.JAX, tmp_path_factory.mktemp("demo"))


def test_the_weights_come_from_the_seed_alone() -> None:
    backends.check_weights(lambda seed: jax.tree.leaves(build_params(seed)))


def test_the_curves_are_those_of_the_runs(results: Outcome) -> None:
    backends.check_curves(results)


def test_the_results_agree_with_each_other_and_repeat(results: Outcome, tmp_path: Path) -> None:
    backends.check_scores(results, backends.run(Backend.JAX, tmp_path))


def test_the_averages_are_batch_norms(tmp_path: Path) -> None:
    """After one update, a tenth of the way from 0 and 1 to the first batch's mean and variance."""
    config = Config(epochs=1, batch_size=TRAIN, num_cycles=1)
    backends.run(Backend.JAX, tmp_path, config)
    (snapshot,) = SnapshotStore(tmp_path / "snapshots" / "seed-0" / "cyclic").list()
    found = snapshot.load()
    x = split_digits(0).train.x.astype(np.float64)
    kernel = np.asarray(build_params(0)["weights"]["convolution0"]["kernel"], np.float64)[:, :, 0]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    outputs = np.einsum("nhwij,ijc->nhwc", windows, kernel).reshape(-1, kernel.shape[-1])
    np.testing.assert_allclose(
        found["averages.convolution0.mean"], 0.1 * outputs.mean(0), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        found["averages.convolution0.variance"], 0.9 + 0.1 * outputs.var(0, ddof=1), rtol=1e-4
    )


def test_the_command_writes_and_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backends.check_command(Backend.JAX, tmp_path, monkeypatch)
