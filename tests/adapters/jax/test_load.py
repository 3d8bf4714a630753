"""A snapshot as params, and params as a file that others open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.flax
from flax import nnx

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder, export_weights, load_snapshot
from tests.shared.jax_runs import EVERY_STEP, apply, data, recorded, small_net


def check_equal(tree: Any, other: Any) -> None:
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_params_are_as_they_were(tmp_path: Path) -> None:
    params = small_net(1)
    (snapshot,) = recorded(tmp_path, params).list()
    for like in (small_net(2), jax.eval_shape(small_net)):
        for given in (snapshot, snapshot.path, str(snapshot.path)):
            check_equal(load_snapshot(like, given), params)
    like = small_net(2)
    load_snapshot(like, snapshot)
    check_equal(like, small_net(2))


def test_they_have_the_kinds_and_devices_of_like(tmp_path: Path) -> None:
    params = {"key": jax.random.key(3), "n": np.arange(3), "w": jnp.ones(3, jnp.bfloat16), "c": 4}
    (snapshot,) = recorded(tmp_path, params).list()
    like = {
        "key": jax.random.key(0),
        "n": np.zeros(3, int),
        "w": jnp.zeros(3, jnp.bfloat16),
        "c": 0,
    }
    found = load_snapshot(like, snapshot)
    assert isinstance(found["n"], np.ndarray)
    assert found["w"].sharding == like["w"].sharding
    assert found["w"].dtype == jnp.bfloat16
    assert int(found["c"]) == 4
    assert jax.random.uniform(found["key"]) == jax.random.uniform(params["key"])


def test_a_module_of_nnx_is_loaded(tmp_path: Path) -> None:
    def build(seed: int) -> Any:
        return nnx.Linear(4, 3, rngs=nnx.Rngs(seed))

    model, other = build(0), build(1)
    (snapshot,) = recorded(tmp_path, nnx.state(model)).list()
    nnx.update(other, load_snapshot(nnx.state(other), snapshot))
    x, _ = data(5)
    np.testing.assert_array_equal(model(x), other(x))


def test_a_part_is_loaded_where_the_rest_is_the_same(tmp_path: Path) -> None:
    params = {**small_net(1), "out": small_net(2)["out"]}
    with SnapshotRecorder(tmp_path, EVERY_STEP, which=lambda name: "out" in name) as recorder:
        recorder.step(params)
    (snapshot,) = recorder.store.list()
    check_equal(load_snapshot(small_net(1), snapshot), params)
    with pytest.raises(ca.SnapshotError, match=r"part, and `like` must .*tensor 'hidden.kernel'"):
        load_snapshot(small_net(2), snapshot)
    with pytest.raises(
        ca.SnapshotError, match=r"must have data\. Received: 'hidden.bias', a shape"
    ):
        load_snapshot(jax.eval_shape(small_net), snapshot)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"hidden": small_net()["hidden"]}, r"its tensor 'out.bias' is not in `like`"),
        ({**small_net(), "more": jnp.zeros(2)}, r"`like`'s tensor 'more' is not in it"),
        (jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), small_net()), r"`like`'s bfloat16"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, like: Any, message: str) -> None:
    (snapshot,) = recorded(tmp_path, small_net()).list()
    with pytest.raises(ca.SnapshotError, match=rf"must fit `like`: .*{message}"):
        load_snapshot(like, snapshot)


def test_others_open_an_export(tmp_path: Path) -> None:
    params = small_net(1)
    (snapshot,) = recorded(tmp_path / "runs", params).list()
    x, y = data()
    ensemble = SnapshotEnsemble(apply, tmp_path / "runs", like=params)
    found = ensemble.average_weights(x, y)
    for i, weights in enumerate((snapshot, snapshot.path, params, found)):
        path = tmp_path / f"{i}.safetensors"
        export_weights(weights, path)
        opened = safetensors.flax.load_file(path)
        assert set(opened) == {"hidden.bias", "hidden.kernel", "out.bias", "out.kernel"}
        np.testing.assert_array_equal(opened["out.kernel"], params["out"]["kernel"])
    with pytest.raises(ca.SnapshotError, match=r"must not be there yet"):
        export_weights(params, path)
    export_weights(params, path, overwrite=True)
    with pytest.raises(
        ca.SnapshotError, match=r"`format` must be 'safetensors'\. .*'torch'; those"
    ):
        export_weights(params, tmp_path / "x", format="torch")  # type: ignore[arg-type]
