"""Pooling of JAX arrays."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cosanneal.ensemble import error_rate, pool
from tests.shared.kinds import check_kind


def test_arrays_of_jax_come_back_as_they_came() -> None:
    check_kind(
        lambda values, dtype: jnp.asarray(values, dtype),
        lambda array: np.asarray(array).astype(np.float64),
        dtypes=("float32", "float16", "bfloat16"),
        same_place=lambda a, b: (
            isinstance(a, jax.Array) and (a.dtype, a.sharding) == (b.dtype, b.sharding)
        ),
    )


def test_integers_become_floats_and_metrics_take_arrays_of_jax() -> None:
    whole = pool([jnp.array([[1, 0]]), jnp.array([[0, 1]])])
    assert isinstance(whole, jax.Array)
    assert whole.tolist() == [[0.5, 0.5]]
    assert error_rate(jnp.array([[0.25, 0.75]]), jnp.array([1])) == 0
