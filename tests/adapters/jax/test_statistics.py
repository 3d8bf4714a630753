"""One pytree of params from several members', with flax' BatchNorm estimated anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cosanneal as ca
from cosanneal import ensemble as on_arrays
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder, snapshot_buffer
from cosanneal.core.errors import EnsembleError


class Net(nn.Module):
    """Two layers of BatchNorm, of two momenta, and dropout."""

    momenta: tuple[float, float] = (0.99, 0.9)

    @nn.compact
    def __call__(self, x: Any, *, train: bool, dropout: bool = False) -> Any:
        for momentum in self.momenta:
            x = nn.Dense(4)(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=momentum)(x)
            x = nn.Dropout(0.5, deterministic=not dropout)(nn.relu(x))
        return nn.Dense(2)(x)


def images(samples: int) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    x = random.normal(size=(samples, 3, 3)) + np.linspace(-2, 2, samples)[:, None, None]
    return x.astype(np.float32), (x[:, 0, 0] > 0).astype(int)


def recorded(folder: Path, members: Sequence[Any]) -> None:
    with SnapshotRecorder(folder, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for member in members:
            recorder.step(member)


def variables(seed: int) -> Any:
    return Net().init(jax.random.key(seed), jnp.zeros((2, 3, 3)), train=False)


def statistics_fn(momenta: tuple[float, float]) -> Callable[[Any, Any], Any]:
    def moved(variables: Any, x: Any) -> Any:
        _, updates = Net(momenta).apply(variables, x, train=True, mutable=["batch_stats"])
        return {**variables, **updates}

    return moved


def pooled(x: Any) -> Any:
    """The model: the mean over positions of what the network says."""
    return x.mean(axis=1)


def linen(folder: Path, momenta: tuple[float, float] = (0.99, 0.9), **options: Any) -> Any:
    members = [variables(seed) for seed in range(2)]
    recorded(folder, members)
    return SnapshotEnsemble(
        jax.jit(lambda variables, x: pooled(Net(momenta).apply(variables, x, train=False))),
        folder,
        like=members[0],
        **{"statistics_fn": jax.jit(statistics_fn(momenta)), **options},
    )


class Loader:
    def __init__(self, x: Any, sizes: Sequence[int]) -> None:
        self.parts = np.split(x, np.cumsum(sizes)[:-1])

    def __iter__(self) -> Iterator[Any]:
        return iter(self.parts)


def exact(params: Any, x: Any, sizes: Sequence[int]) -> dict[str, list[Any]]:
    """The moments of what reaches each layer, in float64, by numpy alone."""
    reached: list[list[Any]] = [[], []]
    for part in np.split(np.asarray(x, np.float64), np.cumsum(sizes)[:-1]):
        h = part
        for i in range(2):
            dense, norm = params[f"Dense_{i}"], params[f"BatchNorm_{i}"]
            h = h @ np.asarray(dense["kernel"], np.float64) + np.asarray(dense["bias"])
            reached[i].append(h.reshape(-1, 4))
            h = (h - h.mean((0, 1))) / np.sqrt(h.var((0, 1)) + 1e-5)
            h = np.maximum(h * np.asarray(norm["scale"]) + np.asarray(norm["bias"]), 0)
    every = [np.concatenate(each) for each in reached]
    return {"mean": [e.mean(0) for e in every], "var": [e.var(0) for e in every]}


@pytest.mark.parametrize("momenta", [(0.99, 0.9), (0.0, 0.9997), (1 - 1 / 128, 0.5)])
@pytest.mark.parametrize("sizes", [(60,), (7, 41, 12)])
def test_linens_statistics_are_those_of_the_data_at_any_momentum(
    tmp_path: Path, momenta: tuple[float, float], sizes: tuple[int, ...]
) -> None:
    x, _ = images(60)
    found = linen(tmp_path, momenta).average_weights(train_data=Loader(x, sizes), barrier=math.inf)
    assert found.statistics
    structures: list[Any] = [jax.tree.structure(each) for each in (found.weights, variables(0))]
    assert structures[0] == structures[1]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, variables(0)["params"], variables(1)["params"])
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-6),
        found.weights["params"],
        mean,
    )
    expected = exact(found.weights["params"], x, sizes)
    for i in range(2):
        for name in ("mean", "var"):
            value = found.weights["batch_stats"][f"BatchNorm_{i}"][name]
            assert isinstance(value, jax.Array)
            assert value.dtype == jnp.float32
            np.testing.assert_allclose(value, expected[name][i], rtol=1e-5, atol=1e-6)


def by_name(params: Any) -> dict[str, Any]:
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    return {".".join(key.key for key in path): leaf for path, leaf in paths}


def test_the_mean_of_statistics_would_not_do(tmp_path: Path) -> None:
    x, y = images(60)
    ensemble = linen(tmp_path)
    found = ensemble.average_weights(x, y, train_data=x, barrier=1e9, train_batch_size=25)
    mean = on_arrays.average_weights(by_name(variables(i)) for i in range(2))
    name = "batch_stats.BatchNorm_1.var"
    assert not np.allclose(by_name(found.weights)[name], mean[name], rtol=0.1)
    p = jax.nn.softmax(pooled(Net().apply(found.weights, x, train=False)))
    assert found.scores is not None
    assert found.scores["log_loss"] == pytest.approx(on_arrays.log_loss(p, y), rel=1e-5)
    assert found.ensemble_scores is not None
    assert found.ensemble_scores["log_loss"] == pytest.approx(
        on_arrays.log_loss(ensemble.predict(x), y), rel=1e-5
    )
    assert len(found.barriers) == 1


def test_flax_statistics_without_a_function_are_refused(tmp_path: Path) -> None:
    x, _ = images(20)
    with pytest.raises(EnsembleError, match=r"`statistics_fn`.*'batch_stats.BatchNorm_0.mean'"):
        linen(tmp_path / "linen", statistics_fn=None).average_weights(
            train_data=x, barrier=math.inf
        )
    with pytest.raises(EnsembleError, match=r"`train_data` must be given"):
        linen(tmp_path / "data").average_weights(barrier=math.inf)
    with pytest.raises(EnsembleError, match=r"`statistics_fn` must be a function"):
        linen(tmp_path / "kind", statistics_fn=3)


def test_a_function_that_moves_nothing_or_otherwise_is_refused(tmp_path: Path) -> None:
    x, _ = images(20)

    def still(variables: Any, x: Any) -> Any:  # noqa: ARG001
        return variables

    def random(variables: Any, x: Any) -> Any:
        key = jax.random.key(int(np.random.default_rng().integers(2**31)))
        _, updates = Net().apply(
            variables, x, train=True, dropout=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        return {**variables, **updates}

    def squared(variables: Any, x: Any) -> Any:
        moved = statistics_fn((0.9, 0.9))(variables, x)
        return {**moved, "batch_stats": jax.tree.map(lambda s: s**2, moved["batch_stats"])}

    def other(variables: Any, x: Any) -> Any:
        return statistics_fn((0.9, 0.9))(variables, x)["batch_stats"]

    for i, (function, message) in enumerate(
        [
            (still, "`statistics_fn` must return the params with the running statistics"),
            (random, "`statistics_fn` must move each statistic as momentum"),
            (squared, "`statistics_fn` must move each statistic as momentum"),
            (other, "`statistics_fn` must return params of the structure"),
        ]
    ):
        ensemble = linen(tmp_path / str(i), statistics_fn=function)
        with pytest.raises(EnsembleError, match=message):
            ensemble.average_weights(train_data=x, barrier=math.inf)


def test_a_function_that_donates_the_params_is_refused(tmp_path: Path) -> None:
    donating = jax.jit(statistics_fn((0.9, 0.9)), donate_argnums=0)
    ensemble = linen(tmp_path, statistics_fn=donating)
    with pytest.raises(EnsembleError, match=r"leave the params .* without donate_argnums"):
        ensemble.average_weights(train_data=images(20)[0], barrier=math.inf)


def test_statistics_of_few_bits(tmp_path: Path) -> None:
    """bfloat16 rounds 0.99 so far that `1 - 0.99` would be a sixth too large."""
    norm = nn.BatchNorm(momentum=0.99, param_dtype=jnp.bfloat16, force_float32_reductions=False)
    x, _ = images(60)
    members = [norm.init(jax.random.key(i), x, use_running_average=True) for i in range(2)]
    recorded(tmp_path, members)

    def moved(variables: Any, x: Any) -> Any:
        updates = norm.apply(variables, x, use_running_average=False, mutable=["batch_stats"])[1]
        return {**variables, **updates}

    def apply(variables: Any, x: Any) -> Any:
        return pooled(norm.apply(variables, x, use_running_average=True))

    ensemble = SnapshotEnsemble(apply, tmp_path, like=members[0], statistics_fn=moved)
    found = ensemble.average_weights(train_data=Loader(x, (20, 40)), barrier=math.inf)
    variance = found.weights["batch_stats"]["var"]
    assert variance.dtype == jnp.bfloat16
    exact = x.astype(float).var((0, 1))
    np.testing.assert_allclose(np.asarray(variance, float), exact, rtol=2.0**-6)


class Model(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.97, rngs=rngs)
        self.drop = nnx.Dropout(0.5, deterministic=True, rngs=rngs)
        self.last = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.last(self.drop(self.norm(self.first(x))))


def test_nnx(tmp_path: Path) -> None:
    states: list[Any] = []
    for seed in range(3):
        graph, state = nnx.split(Model(nnx.Rngs(seed)))
        states.append(state)
    recorded(tmp_path, states)

    def apply(state: Any, x: Any) -> Any:
        model = nnx.merge(graph, state)
        model.set_attributes(use_running_average=True, raise_if_not_found=False)
        return pooled(model(x))

    def moved(state: Any, x: Any) -> Any:
        model = nnx.merge(graph, state)
        model.set_attributes(use_running_average=False)
        model(x)
        return nnx.state(model)

    x, y = images(50)
    with pytest.raises(EnsembleError, match=r"`statistics_fn`.*'norm.mean"):
        SnapshotEnsemble(apply, tmp_path, like=states[0]).average_weights(x, y)
    ensemble = SnapshotEnsemble(apply, tmp_path, like=states[0], statistics_fn=moved)
    found = ensemble.average_weights(x, y, train_data=Loader(x, (8, 30, 12)), barrier=1e9)
    model = nnx.merge(graph, found.weights)
    reached = np.asarray(model.first(x), np.float64).reshape(-1, 4)
    np.testing.assert_allclose(model.norm.mean[...], reached.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.norm.var[...], reached.var(0), rtol=1e-5)
    np.testing.assert_allclose(
        model.first.kernel[...],
        np.mean([jax.tree.leaves(state["first"]["kernel"]) for state in states], axis=0)[0],
        rtol=1e-6,
        atol=1e-7,
    )


def test_any_pytree_without_statistics_and_a_buffer(tmp_path: Path) -> None:
    def member(scale: float) -> Any:
        return {"layers": [(jnp.full((3, 2), scale), jnp.zeros(2))], "key": jax.random.key(1)}

    def apply(params: Any, x: Any) -> Any:
        kernel, bias = params["layers"][0]
        return pooled(x @ kernel + bias)

    schedule = ca.CyclicCosine(0.1, cycle_steps=1)
    buffer = snapshot_buffer(schedule, member(0.0), 3)
    for step in range(3):
        buffer = buffer.update(step, member(step + 1.0))
    x, y = images(20)
    held = SnapshotEnsemble(apply, buffer).average_weights(x, y)
    recorded(tmp_path, [member(step + 1.0) for step in range(3)])
    filed = SnapshotEnsemble(apply, tmp_path, like=member(0.0)).average_weights(x, y)
    for found in (held, filed):
        kernel, _ = found.weights["layers"][0]
        assert isinstance(kernel, jax.Array)
        assert kernel.tolist() == [[2.0, 2.0]] * 3
        assert jax.random.key_data(found.weights["key"]).tolist() == [0, 1]
        assert not found.statistics
    assert held.scores == filed.scores


def test_a_mean_that_moves_without_a_variance_is_the_mean_of_the_data(tmp_path: Path) -> None:
    """A layer of one's own: only centered, and a counter beside it."""

    def moved(params: Any, x: Any) -> Any:
        center = 0.9 * params["center"] + 0.1 * x.mean((0, 1))
        return {**params, "center": center, "count": params["count"] + 1}

    def apply(params: Any, x: Any) -> Any:
        return pooled((x - params["center"]) @ params["kernel"])

    members = [
        {"center": jnp.zeros(3), "kernel": jnp.full((3, 2), 1.0 + i), "count": jnp.array(5 + i)}
        for i in range(2)
    ]
    recorded(tmp_path, members)
    x, _ = images(40)
    ensemble = SnapshotEnsemble(apply, tmp_path, like=members[0], statistics_fn=moved)
    found = ensemble.average_weights(train_data=Loader(x, (35, 5)), barrier=math.inf).weights
    np.testing.assert_allclose(found["center"], x.mean((0, 1)), rtol=1e-5, atol=1e-6)
    assert int(found["count"]) == 6
