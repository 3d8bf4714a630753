"""The loss of a distillation in JAX: its value, its gradient, its edges, and traced."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cosanneal.adapters.jax import distillation_loss
from cosanneal.core.errors import EnsembleError
from tests.shared.distilled import case, exact, refused, slopes
from tests.shared.wide import enable_x64


@pytest.mark.parametrize("temperature", [0.5, 4.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 7)])
def test_it_is_the_one_of_float64(temperature: float, alpha: float, shape: tuple[int, ...]) -> None:
    given = case(shape=shape)
    options = {"temperature": temperature, "alpha": alpha}
    expected = exact(*given, **options)
    narrow = distillation_loss(*given, **options)
    assert narrow.dtype == jnp.float32
    assert float(narrow) == pytest.approx(expected, rel=1e-5, abs=1e-6 * temperature**2)
    with enable_x64(True):
        found = distillation_loss(*given, **options)
        assert found.dtype == jnp.float64
        assert float(found) == pytest.approx(expected, rel=1e-12)


def test_without_labels_it_is_the_divergence_alone() -> None:
    logits, q, _ = case()
    for alpha in (0.0, 0.5):
        found = distillation_loss(logits, q, temperature=3.0, alpha=alpha)
        assert float(found) == pytest.approx(exact(logits, q, None, temperature=3.0), rel=1e-5)


def test_the_gradient_is_that_of_differences_and_by_the_logits_alone() -> None:
    logits, q, labels = case(zeros=True)
    options = {"temperature": 2.5, "alpha": 0.7}
    expected = slopes(logits, q, labels, **options)
    assert np.abs(expected).max() > 0.01
    with enable_x64(True), jax.debug_nans(True):
        loss = jax.grad(lambda z, p: distillation_loss(z, p, labels, **options), argnums=(0, 1))
        by_logits, by_probabilities = loss(logits, q)
        np.testing.assert_allclose(by_logits, expected, rtol=0, atol=1e-8)
        assert not by_probabilities.any()


def test_a_class_without_probability_adds_nothing() -> None:
    given = case(zeros=True)
    assert (given[1] == 0).any()
    found = distillation_loss(*given, temperature=2.0)
    assert float(found) == pytest.approx(exact(*given, temperature=2.0), rel=1e-5)
    # Nor does a class that the student leaves out by -inf.
    logits, q = jnp.array([[0.0, 1.0, -jnp.inf]]), jnp.array([[0.5, 0.5, 0.0]])
    loss, slope = jax.value_and_grad(distillation_loss)(logits, q)
    np.testing.assert_allclose(loss, distillation_loss(logits[:, :2], q[:, :2]), rtol=1e-6)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e3])
def test_huge_logits_overflow_nothing(dtype: Any, temperature: float) -> None:
    big = float(jnp.finfo(dtype).max)
    logits, q = jnp.array([[big, -big, -big]], dtype), jnp.array([[1.0, 0.0, 0.0]])
    loss, slope = jax.value_and_grad(
        lambda z: distillation_loss(z, q, jnp.array([0]), temperature=temperature)
    )(logits)
    assert loss.dtype == dtype
    assert slope.dtype == dtype
    assert loss == 0
    assert jnp.isfinite(slope).all()


def test_compiled_and_mapped_it_is_the_same() -> None:
    given = tuple(map(jnp.asarray, case()))
    expected = distillation_loss(*given, temperature=2.0)
    compiled = jax.jit(distillation_loss, static_argnames="temperature")(*given, temperature=2.0)
    np.testing.assert_allclose(compiled, expected, rtol=1e-6)
    each = jax.vmap(lambda *row: distillation_loss(*row, temperature=2.0))(*given)
    assert each.shape == (6,)
    np.testing.assert_allclose(each.mean(), expected, rtol=1e-6)


@pytest.mark.parametrize(("name", "message"), refused())
def test_what_cannot_be_is_refused(name: str, message: str) -> None:
    arrays, options = refused()[name, message]
    with pytest.raises(EnsembleError, match=message):
        distillation_loss(*arrays, **options)


def test_a_traced_temperature_is_refused() -> None:
    given = case()
    with pytest.raises(EnsembleError, match=r"Received: temperature="):
        jax.jit(lambda t: distillation_loss(*given, temperature=t))(2.0)


def test_a_label_that_is_no_class_makes_it_nan() -> None:
    logits, q, labels = case()
    for wrong in (-100, -1, 7):
        labels[0] = wrong
        assert np.isnan(distillation_loss(logits, q, labels))
        assert np.isfinite(distillation_loss(logits, q, labels, alpha=1.0))


def test_an_infinite_part_that_does_not_count_is_left_out() -> None:
    logits, q = np.array([[0.0, 1.0, -np.inf]]), np.full((1, 3), 1 / 3)
    labels = np.array([1])
    assert np.isposinf(distillation_loss(logits, q, labels))
    found = float(distillation_loss(logits, q, labels, alpha=0.0))
    assert found == pytest.approx(np.log1p(np.exp(-1.0)), rel=1e-6)
