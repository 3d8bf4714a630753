"""An ensemble as one function of its members' params gives what it predicts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder
from cosanneal.core.errors import EnsembleError
from cosanneal.ensemble.predict.pooling import Pooling
from tests.shared.wide import enable_x64

POOLINGS: tuple[Pooling, ...] = ("probabilities", "logits", "log-probabilities", "vote")


def params(seed: int, dtype: Any = np.float32) -> Any:
    generator = np.random.default_rng(seed)
    return {
        "kernel": jnp.asarray(generator.normal(size=(4, 3)), dtype),
        "bias": jnp.asarray(generator.normal(size=3), dtype),
    }


def apply_fn(params: Any, x: Any) -> Any:
    return x @ params["kernel"] + params["bias"]


def recorded(folder: Path, members: list[Any]) -> Any:
    with SnapshotRecorder(folder, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for each in members:
            recorder.step(each)
    return members[0]


def inputs(samples: int = 9, dtype: Any = np.float32) -> Any:
    return jnp.asarray(np.random.default_rng(9).normal(size=(samples, 4)), dtype)


def assert_alike(found: Any, wanted: Any, tolerance: float = 1e-6) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("axis", [-1, None])
def test_it_gives_what_the_ensemble_predicts(
    tmp_path: Path, axis: int | None, pooling: Pooling, stacked: bool
) -> None:
    like, x = recorded(tmp_path, [params(seed) for seed in range(3)]), inputs()
    ensemble = SnapshotEnsemble(
        apply_fn, tmp_path, like=like, outputs="logits", class_axis=axis, pooling=pooling
    )
    function, members = ensemble.as_function(stacked=stacked)
    predicted = ensemble.predict(x)
    z = np.stack([np.asarray(apply_fn(params(seed), x), np.float64) for seed in range(3)])
    p = 1 / (1 + np.exp(-z)) if axis is None else np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    if pooling in ("probabilities", "log-probabilities"):
        mean = p.mean(0) if pooling == "probabilities" else np.log(p.mean(0))
        np.testing.assert_allclose(predicted, mean, rtol=1e-6, atol=1e-6)
    assert np.abs(p[0] - p[1]).max() > 0.1
    assert_alike(function(members, x), predicted)
    assert_alike(jax.jit(function)(members, x), predicted)
    leaf = members["bias"] if stacked else members[0]["bias"]
    assert leaf.shape == ((3, 3) if stacked else (3,))
    assert stacked or len(members) == 3


@pytest.mark.parametrize("stacked", [False, True])
def test_it_is_exported_for_batches_of_any_size(tmp_path: Path, stacked: bool) -> None:
    like, x = recorded(tmp_path, [params(seed) for seed in range(3)]), inputs()
    ensemble = SnapshotEnsemble(apply_fn, tmp_path, like=like, outputs="logits", class_axis=-1)
    predicted = ensemble.predict(x)
    function, members = ensemble.as_function(stacked=stacked)
    (size,) = export.symbolic_shape("batch")
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), members)
    exported = export.export(jax.jit(function))(
        shapes, jax.ShapeDtypeStruct((size, 4), jnp.float32)
    )
    loaded = export.deserialize(exported.serialize())
    for samples in (1, 5, 9):
        assert_alike(loaded.call(members, x[:samples]), predicted[:samples])


@pytest.mark.parametrize("stacked", [False, True])
def test_in_64_bits_it_is_off_by_a_few_ulp(tmp_path: Path, stacked: bool) -> None:
    with enable_x64(True):
        like = recorded(tmp_path, [params(seed, np.float64) for seed in range(3)])
        x = inputs(dtype=np.float64)
        ensemble = SnapshotEnsemble(apply_fn, tmp_path, like=like, outputs="logits", class_axis=-1)
        function, members = ensemble.as_function(stacked=stacked)
        found = function(members, x)
        assert found.dtype == jnp.float64
        assert_alike(found, ensemble.predict(x), 1e-14)


def test_half_precision_is_pooled_in_more(tmp_path: Path) -> None:
    like = recorded(tmp_path, [params(seed, jnp.bfloat16) for seed in range(3)])
    x = inputs(dtype=jnp.bfloat16)
    ensemble = SnapshotEnsemble(apply_fn, tmp_path, like=like, outputs="logits", class_axis=-1)
    function, members = ensemble.as_function()
    found, predicted = function(members, x), ensemble.predict(x)
    assert found.dtype == predicted.dtype == jnp.bfloat16
    # Rounded once, at the end: to the same, or where that lies between two, to its neighbour.
    assert (found == predicted).mean() > 0.9
    assert_alike(found.astype(jnp.float32), predicted.astype(jnp.float32), 2.0**-8)


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, "float16"])
def test_a_dtype_is_that_of_the_members_alone(tmp_path: Path, dtype: Any, stacked: bool) -> None:
    like, x = recorded(tmp_path, [params(seed) for seed in range(3)]), inputs()
    ensemble = SnapshotEnsemble(apply_fn, tmp_path, like=like, outputs="logits", class_axis=-1)
    ensemble.predict(x)
    own = ensemble.as_function(stacked=stacked)[1]
    function, members = ensemble.as_function(stacked=stacked, dtype=dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(members)} == {np.dtype(dtype)}
    sizes = [sum(leaf.nbytes for leaf in jax.tree.leaves(each)) for each in (own, members)]
    assert sizes[0] == 2 * sizes[1]
    rounded = [
        {key: jnp.asarray(value, dtype) for key, value in params(i).items()} for i in (0, 1, 2)
    ]
    # The members' own rounding, and none after it.
    z = np.stack([np.asarray(apply_fn(each, x.astype(dtype)), np.float64) for each in rounded])
    wanted = (np.exp(z) / np.exp(z).sum(-1, keepdims=True)).mean(0)
    found = function(members, x)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    assert np.abs(found - found.astype(dtype).astype(jnp.float32)).max() > 1e-5
    (size,) = export.symbolic_shape("batch")
    shape = jax.ShapeDtypeStruct((size, 4), jnp.float32)
    exported = export.export(jax.jit(lambda batch: function(members, batch)))(shape)
    loaded = export.deserialize(exported.serialize())
    for samples in (1, 9):  # in a graph XLA may leave out a rounding between two operations
        away = np.abs(loaded.call(x[:samples]) - wanted[:samples]).max()
        assert away < 2 * float(jnp.finfo(dtype).eps)


def test_a_dtype_in_which_no_members_are_held_is_refused(tmp_path: Path) -> None:
    like = recorded(tmp_path, [params(0)])
    ensemble = SnapshotEnsemble(apply_fn, tmp_path, like=like, outputs="logits", class_axis=-1)
    ensemble.predict(inputs())
    for dtype in (np.int32, "float8_e4m3fn", "bf16", 3.0):
        with pytest.raises(EnsembleError, match="`dtype` must be bfloat16, float16, float32 or"):
            ensemble.as_function(dtype=dtype)
    with pytest.raises(EnsembleError, match="set jax_enable_x64, or give float32"):
        ensemble.as_function(dtype="float64")


@pytest.mark.parametrize("stacked", [False, True])
def test_structures_and_pairs_are_those_of_the_ensemble(tmp_path: Path, stacked: bool) -> None:
    def several(params: Any, batch: Any) -> Any:
        z = apply_fn(params, batch["x"]) * batch["scale"][:, None]
        pair = {"mean": z, "variance": jax.nn.softplus(z)}
        return {"class": z, "unused": batch, "box": [z[:, 0], pair]}

    like = recorded(tmp_path, [params(seed) for seed in range(3)])
    batch = {"x": inputs(), "scale": jnp.arange(9.0)}
    ensemble = SnapshotEnsemble(
        several,
        tmp_path,
        like=like,
        outputs={"class": "logits", "box": ["values", None]},
        class_axis={"class": -1},
    )
    function, members = ensemble.as_function(stacked=stacked)
    assert_alike(jax.jit(function)(members, batch), ensemble.predict(batch))
    pairs = SnapshotEnsemble(
        lambda params, batch: several(params, batch)["box"][1],
        tmp_path,
        like=like,
        outputs="gaussian",
    )
    function, members = pairs.as_function(stacked=stacked)
    assert_alike(jax.jit(function)(members, batch), pairs.predict(batch))


@pytest.mark.filterwarnings("ignore:The ensemble was chosen on:UserWarning")
@pytest.mark.parametrize("stacked", [False, True])
def test_it_has_the_members_weights_and_temperature_that_were_chosen(
    tmp_path: Path, stacked: bool
) -> None:
    like, x = recorded(tmp_path, [params(seed) for seed in range(4)]), inputs(100)
    ensemble = SnapshotEnsemble(apply_fn, tmp_path, like=like, outputs="logits", class_axis=-1)
    # Which the last two know, but for every other.
    y = np.array((apply_fn(params(2), x) + apply_fn(params(3), x)).argmax(-1))
    y[::2] = 0
    choice = ensemble.fit(x, y, select="last")
    counted = sum(weight > 0 for weight in choice.weights)
    assert 0 < counted < 4
    assert abs(choice.temperature - 1) > 0.05
    function, members = ensemble.as_function(stacked=stacked)
    assert (len(members["bias"]) if stacked else len(members)) == counted
    assert_alike(jax.jit(function)(members, x), ensemble.predict(x))


def test_nothing_is_shipped_before_it_is_known_what_it_gives(tmp_path: Path) -> None:
    like, x = recorded(tmp_path, [params(seed) for seed in range(2)]), inputs()
    ensemble = SnapshotEnsemble(apply_fn, tmp_path, like=like)
    with pytest.raises(EnsembleError, match=re.escape("Received: one that has run none; call")):
        ensemble.as_function()
    predicted = ensemble.predict(x)
    function, members = ensemble.as_function()
    assert_alike(function(members, x), predicted)
