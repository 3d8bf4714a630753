"""Pytrees of every kind come back as they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder
from tests.shared.jax_runs import EVERY_STEP, apply, data, first, recorded, small_net


class Pair(NamedTuple):
    left: Any
    right: Any


@partial(
    jax.tree_util.register_dataclass, data_fields=("weight", "parts"), meta_fields=()
)  # which older releases of JAX do not find out themselves
@dataclass
class Block:
    weight: Any
    parts: Any


def every_kind() -> Any:
    values = jnp.array([-1.5, 0.0, 3.14159, 7e-3])
    block = Block(
        weight=values.astype(jnp.bfloat16),
        parts=[values.astype(jnp.float8_e4m3fn), values.astype(jnp.float8_e5m2), None],
    )
    return {
        "block": block,
        "pair": Pair(left=values.astype(jnp.float16), right=(jnp.arange(3), jnp.array([True]))),
        3: {"complex": values.astype(jnp.complex64), "empty": jnp.zeros((0, 3))},
        **{7: np.array([1.0, np.pi]), 9: jnp.array(2.5)},
        10: jax.random.key(3),
        11: 0.5,
        12: np.arange(6).reshape(2, 3).T,
    }


def bits(leaf: Any) -> bytes:
    if jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)).tobytes()


def test_arrays_of_every_kind_come_back_as_they_were(tmp_path: Path) -> None:
    params = first(every_kind())
    (snapshot,) = recorded(tmp_path, params).list()
    names = set(snapshot.load())
    assert {"block.weight", "block.parts.0", "pair.left", "pair.right.1", "3.empty", "9"} <= names
    ensemble = SnapshotEnsemble(apply, tmp_path, like=params)
    back = ensemble.params(snapshot)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    assert isinstance(back["block"], Block)
    assert isinstance(back["pair"], Pair)
    for old, new in zip(jax.tree.leaves(params), jax.tree.leaves(back), strict=True):
        assert bits(old) == bits(new)
        if hasattr(old, "dtype"):
            assert (old.dtype, old.shape, type(old)) == (new.dtype, new.shape, type(new))
    assert snapshot.layout()["block.parts.0"] == ((4,), "float8_e4m3fn")


def test_like_may_be_the_shapes_of_keys(tmp_path: Path) -> None:
    params = {"key": jax.random.key(3, impl="rbg"), "keys": jax.random.split(jax.random.key(1), 2)}
    (snapshot,) = recorded(tmp_path, params).list()
    like = jax.eval_shape(lambda: params)
    back = SnapshotEnsemble(apply, tmp_path, like=like).params(snapshot)
    for name, key in params.items():
        assert back[name].dtype == key.dtype
        assert bits(back[name]) == bits(key)


def test_like_may_be_shapes_alone_or_donated(tmp_path: Path) -> None:
    params = small_net()
    recorded(tmp_path, params)
    x, _ = data(5)
    expected = jax.nn.softmax(apply(params, x))
    for like in (jax.eval_shape(small_net), params):
        ensemble = SnapshotEnsemble(apply, tmp_path, like=like)
        if like is params:
            jax.tree.map(lambda leaf: leaf.delete(), params)
        np.testing.assert_allclose(ensemble.predict(x), expected, rtol=1e-6)


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.BatchNorm(use_running_average=True)(linen.Dense(8)(x))
        return linen.Dense(3)(x)


def test_flax_linen_variables(tmp_path: Path) -> None:
    x, _ = data(6)
    variables = Linen().init(jax.random.key(0), x)
    (snapshot,) = recorded(tmp_path, variables).list()
    assert "batch_stats.BatchNorm_0.mean" in snapshot.load()
    ensemble = SnapshotEnsemble(jax.jit(Linen().apply), tmp_path, like=variables)
    expected = jax.nn.softmax(Linen().apply(variables, x))
    np.testing.assert_allclose(ensemble.predict(x), expected, rtol=1e-5)


def test_flax_nnx_state(tmp_path: Path) -> None:
    x, _ = data(6)
    model = nnx.Sequential(nnx.Linear(4, 8, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(1)))
    graph, state = nnx.split(model)
    recorded(tmp_path, state)

    def predict(state: Any, x: Any) -> Any:
        merged = nnx.merge(graph, state)
        merged.eval()
        return merged(x)

    ensemble = SnapshotEnsemble(predict, tmp_path, like=state)
    np.testing.assert_allclose(ensemble.predict(x), jax.nn.softmax(predict(state, x)), rtol=1e-6)


class Classifier(equinox.Module):
    layers: list[Any]
    activation: Callable[[Any], Any]

    def __init__(self, key: Any) -> None:
        first, second = jax.random.split(key)
        self.layers = [equinox.nn.Linear(4, 8, key=first), equinox.nn.Linear(8, 3, key=second)]
        self.activation = jax.nn.relu

    def __call__(self, x: Any) -> Any:
        return self.layers[1](self.activation(self.layers[0](x)))


def test_equinox_modules(tmp_path: Path) -> None:
    x, _ = data(6)
    model = Classifier(jax.random.key(0))
    with pytest.raises(ca.SnapshotError, match=r"'activation', .*equinox\.filter"):
        recorded(tmp_path, model)
    params, static = equinox.partition(model, equinox.is_array)
    (snapshot,) = recorded(tmp_path, params).list()
    assert snapshot.load()["layers.0.weight"].shape == (8, 4)

    @jax.jit
    def predict(params: Any, x: Any) -> Any:
        return jax.vmap(equinox.combine(params, static))(x)

    like = equinox.filter(Classifier(jax.random.key(1)), equinox.is_array)
    ensemble = SnapshotEnsemble(predict, tmp_path, like=like)
    assert isinstance(ensemble.params(snapshot), Classifier)
    np.testing.assert_allclose(ensemble.predict(x), jax.nn.softmax(jax.vmap(model)(x)), rtol=1e-6)


def test_an_nnx_state_that_changes_its_batch_statistics(tmp_path: Path) -> None:
    """Each snapshot has the statistics of its own update."""
    model = nnx.BatchNorm(4, momentum=0.5, rngs=nnx.Rngs(0))
    x, _ = data(6)
    means = []
    with SnapshotRecorder(tmp_path, EVERY_STEP) as recorder:
        for _ in range(3):
            model(x)
            state = nnx.state(model)
            recorder.step(state)
            means.append(np.asarray(model.mean[...]))
    loaded = [snapshot.load() for snapshot in recorder.store.list()]
    (name,) = (name for name in loaded[0] if "mean" in name)
    assert [np.array_equal(each[name], mean) for each, mean in zip(loaded, means, strict=True)] == [
        True
    ] * 3
    assert not np.array_equal(means[0], means[2])
