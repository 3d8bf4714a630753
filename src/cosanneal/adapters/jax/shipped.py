"""An ensemble as one pure function of its members' params."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from ...core.errors import EnsembleError, shown
from ...ensemble.combined import Combination

# The others have too few bits to compute in, and are scaled by who uses them.
_HELD: Final = ("bfloat16", "float16", "float32", "float64")


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


class _Wide(_Arrays):
    """The same, with predictions as they were pooled."""

    def narrow(self, wide: jax.Array, like: Any) -> jax.Array:  # noqa: ARG002
        """What was made of arrays, as it is."""
        return wide


ARRAYS: Final = _Arrays()
_WIDE: Final = _Wide()


def checked_dtype(dtype: Any) -> np.dtype[Any]:
    """The dtype in which members are held.

    Raises:
        EnsembleError: it has no fractions, too few bits, or JAX would make another of it.
    """
    found: np.dtype[Any] | None
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if dtype is None or found is None or found.name not in _HELD:
        raise EnsembleError(
            f"Argument `dtype` must be {', '.join(_HELD[:-1])} or {_HELD[-1]}, or None for the "
            f"params' own. Received: dtype={shown(dtype)}"
        )
    if jax.dtypes.canonicalize_dtype(found) != found:
        raise EnsembleError(
            "Argument `dtype` must be one that JAX has switched on. Received: "
            f"dtype={shown(dtype)}; set jax_enable_x64, or give float32"
        )
    return found


def in_dtype(tree: Any, dtype: np.dtype[Any]) -> Any:
    """A pytree with its arrays of floats in a dtype, and all else as it is."""

    def cast(leaf: Any) -> Any:
        real = ARRAYS.is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, dtype) if real else leaf

    return jax.tree.map(cast, tree)


def function_of(
    apply_fn: Callable[..., Any],
    combination: Combination,
    *,
    stacked: bool,
    dtype: np.dtype[Any] | None = None,
) -> Callable[..., Any]:
    """The function of the members' params, and of what `apply_fn` takes, that predicts.

    Args:
        apply_fn: the function of one member's.
        combination: what is made of what it returns.
        stacked: whether the params have the members along a first axis; else they are a list.
        dtype: in which the params are; floats of the input are taken in it, and predictions
            left in the one in which they were pooled.
    """
    operations = ARRAYS if dtype is None else _WIDE

    def picked(params: Any, x: tuple[Any, ...]) -> Any:
        return jax.tree.map(jnp.asarray, combination.pick(apply_fn(params, *x), ARRAYS.is_array))

    def predict(params: Any, *x: Any) -> Any:
        if dtype is not None:
            x = in_dtype(x, dtype)
        if stacked:
            every = combination.unstacked(jax.vmap(lambda each: picked(each, x))(params))
        else:
            every = [picked(each, x) for each in params]
        return combination.combine(every, operations)

    return predict
