"""An ensemble as one pure function of its members' params."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from ...ensemble.combined import Combination


class _Arrays:
    """Arrays of JAX where a prediction is made of them; see `Operations`."""

    def is_array(self, thing: object) -> bool:
        """Whether something is an array, or stands for one in a trace."""
        return isinstance(thing, jax.Array | np.ndarray)

    def widen(self, array: Any) -> jax.Array:
        """An array in its own dtype, but at least float32; integers in the widest float."""
        array = jnp.asarray(array)
        if not jnp.issubdtype(array.dtype, jnp.inexact):
            return array.astype(jax.dtypes.canonicalize_dtype(np.float64))
        return array.astype(jnp.promote_types(array.dtype, jnp.float32))

    def narrow(self, wide: jax.Array, like: Any) -> jax.Array:
        """What was made of such, in the dtype of a member's array, if that has fractions."""
        return wide.astype(like.dtype) if jnp.issubdtype(like.dtype, jnp.inexact) else wide


ARRAYS: Final = _Arrays()


def function_of(
    apply_fn: Callable[..., Any], combination: Combination, *, stacked: bool
) -> Callable[..., Any]:
    """The function of the members' params, and of what `apply_fn` takes, that predicts.

    Args:
        apply_fn: the function of one member's.
        combination: what is made of what it returns.
        stacked: whether the params have the members along a first axis; else they are a list.
    """

    def picked(params: Any, x: tuple[Any, ...]) -> Any:
        return jax.tree.map(jnp.asarray, combination.pick(apply_fn(params, *x), ARRAYS.is_array))

    def predict(params: Any, *x: Any) -> Any:
        if stacked:
            every = combination.unstacked(jax.vmap(lambda each: picked(each, x))(params))
        else:
            every = [picked(each, x) for each in params]
        return combination.combine(every, ARRAYS)

    return predict
