"""The loss of a distillation in Keras: its value, its gradient, its edges, and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray

from cosanneal.adapters.keras import distillation_loss
from cosanneal.core.errors import EnsembleError
from tests.shared.compiling import BACKEND, ways
from tests.shared.distilled import case, exact, refused, slopes


def narrow(**kind: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    logits, q, labels = case(**kind)
    return logits.astype("float32"), q.astype("float32"), labels.astype("int32")


def slope(function: Callable[[Any], Any], logits: NDArray[Any]) -> NDArray[Any]:
    """The gradient by the logits, in the backend's own way."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        x = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = function(x)
        return np.asarray(tape.gradient(loss, x))
    if BACKEND == "jax":
        import jax

        return np.asarray(jax.grad(function)(logits))
    import torch

    x = torch.tensor(logits, requires_grad=True)
    function(x).backward()
    assert x.grad is not None
    return x.grad.numpy()


@pytest.mark.parametrize("temperature", [0.5, 4.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 7)])
def test_it_is_the_one_of_float64(temperature: float, alpha: float, shape: tuple[int, ...]) -> None:
    options = {"temperature": temperature, "alpha": alpha}
    expected = exact(*case(shape=shape), **options)
    found = distillation_loss(*narrow(shape=shape), **options)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert float(found) == pytest.approx(expected, rel=1e-5, abs=1e-6 * temperature**2)
    if BACKEND != "jax":
        wide = distillation_loss(*case(shape=shape), **options)
        assert keras.backend.standardize_dtype(wide.dtype) == "float64"
        assert float(wide) == pytest.approx(expected, rel=1e-12)


def test_without_labels_it_is_the_divergence_alone() -> None:
    logits, q, _ = narrow()
    for alpha in (0.0, 0.5):
        found = distillation_loss(logits, q, temperature=3.0, alpha=alpha)
        assert float(found) == pytest.approx(exact(logits, q, None, temperature=3.0), rel=1e-5)


def test_the_gradient_is_that_of_differences() -> None:
    logits, q, labels = narrow(zeros=True)
    options = {"temperature": 2.5, "alpha": 0.7}
    expected = slopes(logits, q, labels, **options)
    found = slope(lambda z: distillation_loss(z, q, labels, **options), logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert np.abs(expected).max() > 0.01


def test_the_probabilities_are_constants() -> None:
    logits, _, _ = narrow()
    # By what the probabilities come from, beside a part whose gradient is 0.
    onto = slope(lambda z: distillation_loss(-logits, ops.softmax(z)) + 0.0 * ops.sum(z), logits)
    assert not onto.any()


def test_a_class_without_probability_adds_nothing() -> None:
    given = narrow(zeros=True)
    assert (given[1] == 0).any()
    found = distillation_loss(*given, temperature=2.0)
    assert float(found) == pytest.approx(exact(*given, temperature=2.0), rel=1e-5)
    # Nor does a class that the student leaves out by -inf.
    logits = np.array([[0.0, 1.0, -np.inf]], "float32")
    q = np.array([[0.5, 0.5, 0.0]], "float32")
    loss = float(distillation_loss(logits, q))
    assert loss == pytest.approx(float(distillation_loss(logits[:, :2], q[:, :2])), rel=1e-6)
    assert np.isfinite(slope(lambda z: distillation_loss(z, q), logits)).all()


@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e3])
def test_huge_logits_overflow_nothing(temperature: float) -> None:
    big = float(np.finfo(np.float32).max)
    logits = np.array([[big, -big, -big]], "float32")
    q, labels = np.array([[1.0, 0.0, 0.0]], "float32"), np.array([0], "int32")

    def loss(z: Any) -> Any:
        return distillation_loss(z, q, labels, temperature=temperature)

    assert float(loss(logits)) == 0
    assert np.isfinite(slope(loss, logits)).all()
    half = distillation_loss(ops.cast(logits, "bfloat16"), q)
    assert keras.backend.standardize_dtype(half.dtype) == "bfloat16"


def test_compiled_it_is_the_same() -> None:
    logits, q, labels = narrow()
    expected = exact(logits, q, labels, temperature=2.0)
    for function in ways(lambda z: distillation_loss(z, q, labels, temperature=2.0)).values():
        assert float(function(ops.convert_to_tensor(logits))) == pytest.approx(expected, rel=1e-5)


def test_mapped_it_is_the_same() -> None:
    logits, q, _ = (ops.convert_to_tensor(each) for each in narrow())
    each = ops.vectorized_map(lambda row: distillation_loss(row[0], row[1]), (logits, q))
    assert each.shape == (6,)
    np.testing.assert_allclose(float(ops.mean(each)), exact(logits, q, None), rtol=1e-5)


def test_a_batch_of_unknown_size_is_taken() -> None:
    if BACKEND != "tensorflow":
        pytest.skip("sizes that are not known yet are TensorFlow's")
    import tensorflow as tf

    logits, q, labels = narrow()
    rows = tf.TensorSpec((None, 7))
    signature = [rows, rows, tf.TensorSpec((None,), tf.int32)]
    compiled = tf.function(distillation_loss, input_signature=signature)
    assert float(compiled(logits, q, labels)) == pytest.approx(exact(logits, q, labels), rel=1e-5)


@pytest.mark.parametrize(("name", "message"), refused())
def test_what_cannot_be_is_refused(name: str, message: str) -> None:
    arrays, options = refused()[name, message]
    with pytest.raises(EnsembleError, match=message):
        distillation_loss(*arrays, **options)


def test_a_label_that_is_no_class_makes_it_nan() -> None:
    logits, q, labels = narrow()
    for wrong in (-100, -1, 7):
        labels[0] = wrong
        assert np.isnan(float(distillation_loss(logits, q, labels)))
        assert np.isfinite(float(distillation_loss(logits, q, labels, alpha=1.0)))


def test_an_infinite_part_that_does_not_count_is_left_out() -> None:
    logits, q = np.array([[0.0, 1.0, -np.inf]], "float32"), np.full((1, 3), 1 / 3, "float32")
    labels = np.array([1], "int32")
    assert float(distillation_loss(logits, q, labels)) == np.inf
    found = float(distillation_loss(logits, q, labels, alpha=0.0))
    assert found == pytest.approx(np.log1p(np.exp(-1.0)), rel=1e-6)
