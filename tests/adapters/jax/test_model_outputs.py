"""What the outputs of functions of params are, found out or refused; and members not finite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder, snapshot_buffer
from cosanneal.ensemble.predict.found import FoundOutputs
from tests.shared.jax_runs import EVERY_STEP
from tests.shared.modes import MODES


def recorded(folder: Path, classes: int = 3, dtype: Any = jnp.float32) -> list[Any]:
    """Two members of one linear map."""
    members = []
    with SnapshotRecorder(folder, EVERY_STEP) as recorder:
        for seed in range(2):
            members.append({"w": 3 * jax.random.normal(jax.random.key(seed), (4, classes), dtype)})
            recorder.step(members[-1])
    return members


def inputs(*shape: int, dtype: Any = jnp.float32) -> Any:
    return jax.random.normal(jax.random.key(7), shape, dtype)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_what_is_certain_is_found(dtype: Any) -> None:
    def found(output: Any) -> tuple[str, int | None]:
        finder = FoundOutputs("auto", "auto", "probabilities", None)
        finder.look(output, ["a member"])
        return finder.spec.outputs, finder.spec.class_axis

    for count in (2, 10, 1000):
        logits = 3 * inputs(64, count, dtype=dtype)
        assert found(logits) == ("logits", -1)
        assert found(jax.nn.softmax(logits, axis=-1)) == ("probabilities", -1)
        assert found(jax.nn.log_softmax(logits, axis=-1)) == ("logits", -1)
    assert found(jax.nn.softmax(inputs(6, 3, 8, 9, dtype=dtype), axis=1)) == ("probabilities", 1)
    with pytest.raises(ca.EnsembleError, match="could be several things"):
        found(jax.nn.sigmoid(inputs(64, 3, dtype=dtype)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_probabilities_are_taken_as_they_are(tmp_path: Path, mode: Any, dtype: Any) -> None:
    members, x = recorded(tmp_path, dtype=dtype), inputs(40, 4, dtype=dtype)

    def apply(params: Any, x: Any) -> Any:
        return jax.nn.softmax(x @ params["w"])

    expected = np.mean([np.asarray(apply(each, x), np.float64) for each in members], axis=0)
    found = SnapshotEnsemble(apply, tmp_path, members[0]).predict(x, mode=mode)
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=0, atol=4 * eps)


@pytest.mark.parametrize("mode", MODES)
def test_a_segmentation_is_refused_without_a_class_axis_and_right_with_one(
    tmp_path: Path, mode: Any
) -> None:
    members, x = recorded(tmp_path), inputs(5, 6, 7, 4)

    def apply(params: Any, x: Any) -> Any:
        return x @ params["w"]

    message = (
        r'shape \(5, 6, 7, 3\).*outputs="logits", class_axis=1 for.*, or '
        r'outputs="logits", class_axis=-1 for'
    )
    with pytest.raises(ca.EnsembleError, match=message):
        SnapshotEnsemble(apply, tmp_path, members[0]).predict(x, mode=mode)
    expected = sum(jax.nn.softmax(apply(each, x)) for each in members) / 2
    right = SnapshotEnsemble(apply, tmp_path, members[0], class_axis=-1)
    np.testing.assert_allclose(right.predict(x, mode=mode), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("classes", "function", "readings"),
    [
        (1, lambda z: z, ['outputs="logits", class_axis=None', 'outputs="values"']),
        (1, jax.nn.sigmoid, ['outputs="probabilities", class_axis=None', 'outputs="logits"']),
        (3, jax.nn.sigmoid, ['outputs="probabilities", class_axis=None', 'outputs="logits", cla']),
    ],
)
def test_what_could_be_several_things_is_refused(
    tmp_path: Path, classes: int, function: Callable[[Any], Any], readings: list[str]
) -> None:
    members, x = recorded(tmp_path, classes), inputs(40, 4)

    def apply(params: Any, x: Any) -> Any:
        return function(x @ params["w"])

    with pytest.raises(ca.EnsembleError) as caught:
        SnapshotEnsemble(apply, tmp_path, members[0]).predict(x)
    assert all(reading in str(caught.value) for reading in readings)
    mean, variance = SnapshotEnsemble(apply, tmp_path, members[0]).predict_with_variance(x)
    expected = np.stack([apply(each, x) for each in members])
    np.testing.assert_allclose(mean, expected.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, expected.var(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_a_buffers_member_that_is_not_finite_is_refused_and_left_out_when_told(
    dtype: str, value: float
) -> None:
    schedule = ca.CyclicCosine(0.1, cycle_steps=1)
    params = {
        "mask": jnp.array([[0.0, -jnp.inf], [0.0, 0.0]]),
        "n": jnp.array(3),
        "w": jnp.ones((4, 3), dtype),
    }
    buffer = snapshot_buffer(schedule, params, num_members=3)
    for step in range(3):
        w = jnp.where(step == 1, jnp.asarray(value, dtype), params["w"])
        buffer = buffer.update(step, {**params, "w": w})

    def apply(params: Any, x: Any) -> Any:
        return x @ params["w"].astype("float32")

    x = inputs(40, 4)
    broken = SnapshotEnsemble(apply, buffer, outputs="logits", class_axis=-1)
    for mode in MODES:
        with pytest.raises(ca.EnsembleError, match=r"finite.*step-2 with a NaN or.*tensor 'w'"):
            broken.predict(x, mode=mode)
    for members in ([0, 2], ["step-1", "step-3"], lambda each: each.step != 2):
        whole = SnapshotEnsemble(apply, buffer, members=members, outputs="logits", class_axis=-1)
        assert [each.step for each in whole.members] == [1, 3]
        np.testing.assert_allclose(whole.predict(x), np.full((40, 3), 1 / 3), rtol=1e-6)
