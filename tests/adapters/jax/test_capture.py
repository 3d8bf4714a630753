"""A part of a pytree of params, chosen by the leaves' names; the rest comes from `like`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder, snapshot_buffer
from tests.shared.jax_runs import EVERY_STEP, apply, data, small_net
from tests.shared.modes import MODES


def out(name: str) -> bool:
    return name.startswith("out.")


def members(count: int = 3) -> list[Any]:
    """Of one hidden layer, with other heads."""
    params = small_net()
    return [{**params, "out": small_net(seed)["out"]} for seed in range(1, count + 1)]


def record(folder: Path, every: list[Any], **options: Any) -> Any:
    with SnapshotRecorder(folder, EVERY_STEP, **options) as recorder:
        for params in every:
            recorder.step(params)
    return recorder.store


def test_a_part_predicts_and_is_averaged_as_the_whole(tmp_path: Path) -> None:
    every = members()
    store = record(tmp_path / "parts", every, which=out)
    record(tmp_path / "whole", every)
    assert list(store.list()[0].load()) == ["out.bias", "out.kernel"]
    assert set(store.list()[0].metadata["rest"]) == {"hidden.bias", "hidden.kernel"}
    x, y = data()
    ensemble, whole = (
        SnapshotEnsemble(apply, tmp_path / each, like=small_net()) for each in ("parts", "whole")
    )
    for mode in MODES:
        np.testing.assert_allclose(
            # How XLA sums depends on where arrays lie, too.
            ensemble.predict(x, mode=mode),
            whole.predict(x, mode=mode),
            rtol=1e-5,
        )
    found, expected = (each.average_weights(x, y, barrier=100) for each in (ensemble, whole))
    jax.tree.map(np.testing.assert_array_equal, found.weights, expected.weights)
    jax.tree.map(np.testing.assert_array_equal, ensemble.params(store.list()[1]), every[1])


def test_the_rest_that_moves_and_another_one_are_refused(tmp_path: Path) -> None:
    with SnapshotRecorder(tmp_path, EVERY_STEP, which=out) as recorder:
        recorder.step(small_net())
        # As jit returns it: another array with the same numbers.
        recorder.step(
            jax.jit(lambda params: jax.tree.map(lambda leaf: leaf + 0, params))(small_net())
        )
        moved = small_net()
        moved["hidden"]["kernel"] = moved["hidden"]["kernel"] * 1.001
        with pytest.raises(ca.SnapshotError, match=r"tensor 'hidden.kernel', which is another"):
            recorder.step(moved)
    x, _ = data()
    with pytest.raises(ca.EnsembleError, match=r"another tensor 'hidden.kernel'"):
        SnapshotEnsemble(apply, tmp_path, like=moved).predict(x)
    with pytest.raises(ca.EnsembleError, match=r"`like` must be params with their data.*'hidden.b"):
        SnapshotEnsemble(apply, tmp_path, like=jax.eval_shape(small_net))
    like = small_net()
    ensemble = SnapshotEnsemble(apply, tmp_path, like=like)
    jax.tree.map(lambda leaf: leaf.delete(), like)
    with pytest.raises(ca.SnapshotError, match=r"'hidden.bias', whose buffer was deleted"):
        ensemble.predict(x)


def test_trainable_is_refused_with_what_to_give(tmp_path: Path) -> None:
    recorder = SnapshotRecorder(tmp_path, ca.CyclicCosine(0.1, cycle_steps=9), which="trainable")
    with pytest.raises(
        ca.SnapshotError,
        match=r"or a function of a tensor's name.*which='trainable'; give .*such as 'hidden.bias'",
    ):
        recorder.step(small_net())


def test_a_buffer_is_recorded_in_part(tmp_path: Path) -> None:
    buffer = snapshot_buffer(EVERY_STEP, small_net(), 3)
    for i, params in enumerate(members()):
        buffer = buffer.update(i, params)
    recorder = SnapshotRecorder(tmp_path, EVERY_STEP, which=out)
    assert recorder.record(buffer) == 3
    assert recorder.record(buffer) == 0
    assert list(recorder.store.list()[-1].load()) == ["out.bias", "out.kernel"]


def test_keys_and_shards_may_be_left_out(tmp_path: Path) -> None:
    params = {"key": jax.random.key(3), "count": 4, "w": jnp.ones(3), "n": np.arange(3)}

    def predict(params: Any, x: Any) -> Any:
        noise = jax.random.normal(params["key"], (3,))
        return x * params["w"] + noise + params["count"] + params["n"]

    record(tmp_path, [params, {**params, "w": 2 * jnp.ones(3)}], which=lambda name: name == "w")
    x = np.ones((5, 3), np.float32)
    ensemble = SnapshotEnsemble(predict, tmp_path, like=params, outputs="values", last=1)
    np.testing.assert_allclose(
        ensemble.predict(x), predict({**params, "w": 2 * jnp.ones(3)}, x), rtol=1e-6
    )


def test_lora_of_nnx_is_chosen_by_name(tmp_path: Path) -> None:
    def build(seed: int = 0) -> Any:
        return nnx.LoRALinear(4, 3, lora_rank=2, rngs=nnx.Rngs(seed))

    graph, params = nnx.split(build())
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    assert len(names) == 4
    other = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + 1 if "lora" in str(path) else leaf, params
    )
    store = record(tmp_path, [params, other], which=lambda name: "lora" in name)
    assert len(store.list()[-1].load()) == 2
    x, _ = data(5)
    ensemble = SnapshotEnsemble(
        lambda params, x: nnx.merge(graph, params)(x), tmp_path, like=params, outputs="values"
    )
    expected = (nnx.merge(graph, params)(x) + nnx.merge(graph, other)(x)) / 2
    np.testing.assert_allclose(ensemble.predict(x), expected, rtol=1e-5)
