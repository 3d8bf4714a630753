"""What averaged params predict in JAX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder
from tests.shared.averaged import check_averaged


def normalized(x: Any, mean: Any, var: Any, params: Any) -> Any:
    h = (x - mean) / jnp.sqrt(var + 1e-5)
    return h @ params["w"] + params["b"]


def apply(params: Any, x: Any) -> Any:
    return normalized(x, params["mean"], params["var"], params)


def statistics_fn(params: Any, x: Any) -> Any:
    mean, var = x.mean(0), x.var(0)
    moved = {"mean": 0.9 * params["mean"] + 0.1 * mean, "var": 0.9 * params["var"] + 0.1 * var}
    return {**params, **moved}


def test_they_predict_at_their_temperature_with_statistics_of_a_sample(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    # Sorted, so that the first samples are unlike the others.
    x = np.sort(random.normal(size=(3000, 4)).astype(np.float32), axis=0)
    y = random.integers(3, size=3000)

    def member(seed: int) -> dict[str, Any]:
        drawn = np.random.default_rng(seed)
        return {
            "w": jnp.asarray(np.eye(4, 3) + 0.1 * drawn.normal(size=(4, 3)), jnp.float32),
            "b": jnp.zeros(3),
            "mean": jnp.full(4, float(seed)),
            "var": jnp.ones(4),
        }

    with SnapshotRecorder(tmp_path, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for seed in range(2):
            recorder.step(member(seed))
    ensemble = SnapshotEnsemble(
        jax.jit(apply),
        tmp_path,
        like=member(0),
        statistics_fn=jax.jit(statistics_fn),
        outputs="logits",
    )
    shuffled = random.permutation(3000)[:200]
    given = jnp.asarray(x[shuffled]), jnp.asarray(y[shuffled])
    found = check_averaged(ensemble, apply, *given, train_data=jnp.asarray(x))
    assert isinstance(found.predict(given[0]), jax.Array)
    assert (found.samples, found.seed) == (2048, 0)
    # Of 2048 of 3000: the standard error of the mean is 0.012.
    np.testing.assert_allclose(found.weights["mean"], x.mean(0), atol=0.06)
    by_numpy = ensemble.average_weights(train_data=x, barrier=float("inf"))
    np.testing.assert_allclose(by_numpy.weights["mean"], found.weights["mean"], rtol=1e-5)


@pytest.mark.skipif(not hasattr(jax.sharding, "AxisType"), reason="this jax has no explicit axes")
def test_samples_with_explicit_axes_stay_where_they_are(tmp_path: Path) -> None:
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x = jax.device_put(np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32), spread)

    def member(seed: int) -> dict[str, Any]:
        return {
            "w": jnp.eye(2),
            "b": jnp.zeros(2),
            "mean": jnp.full(2, float(seed)),
            "var": jnp.ones(2),
        }

    with SnapshotRecorder(tmp_path, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for seed in range(2):
            recorder.step(member(seed))
    with jax.set_mesh(mesh):
        ensemble = SnapshotEnsemble(apply, tmp_path, like=member(0), statistics_fn=statistics_fn)
        found = ensemble.average_weights(train_data=x, samples=400, barrier=float("inf"))
    assert found.samples == 400
    np.testing.assert_allclose(found.weights["mean"], np.asarray(x).mean(0), atol=0.2)
