"""What the evaluation of a schedule's table needs of JAX."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from ...core.errors import ScheduleError
from ...core.graph.steps import known_steps, unknown_floats


class Operations(NamedTuple):
    """What `evaluate` needs of jax, in the dtypes of the day."""

    wide: bool
    index: Any
    float: Any

    @classmethod
    def now(cls) -> Operations:
        """Those for the default precision, which may be another at the next call."""
        wide = bool(jnp.result_type(float) == np.float64)
        return cls(wide, *((np.int64, np.float64) if wide else (np.int32, np.float32)))

    def step(self, value: Any, limit: int) -> jax.Array:
        """The step in the index dtype, in [0, limit]."""
        if not isinstance(value, jax.Array) and hasattr(value, "__jax_array__"):
            # A variable of Keras on JAX, or of Flax.
            value = value.__jax_array__()
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating):
            if isinstance(value, jax.core.Tracer):
                raise unknown_floats(f"an array of {value.dtype}")
            value = np.asarray(value).astype(np.float64)
        if not isinstance(value, jax.Array):  # as tracers are
            remedy = "" if self.wide else "; enable x64 for larger ones"
            return jnp.asarray(known_steps(value, limit, remedy=remedy, xp=np), self.index)
        if not jnp.issubdtype(value.dtype, jnp.integer):
            raise ScheduleError(
                "Argument `step` must be an integer (optimizer steps, counted from 0). "
                f"Received: an array of {value.dtype}"
            )
        if jnp.iinfo(value.dtype).max > limit:
            value = lax.min(value, lax.full_like(value, limit))
        value = value.astype(self.index)
        return lax.max(value, lax.full_like(value, 0))

    def before(self, ends: Any, step: jax.Array) -> jax.Array:
        return jnp.sum(jnp.asarray(ends) < step, dtype=self.index)

    def take(self, constant: Any, i: Any) -> jax.Array:
        # Unsigned, an index needs no look at negative ones.
        i = lax.convert_element_type(i, np.uint32)
        start = [i] + [np.uint32(0)] * (constant.ndim - 1)
        row = lax.dynamic_slice(jnp.asarray(constant), start, (1, *constant.shape[1:]))
        return lax.squeeze(row, (0,))

    def packed(
        self, integers: list[tuple[int, ...]], floats: list[tuple[float, ...]]
    ) -> tuple[NDArray[Any], int]:
        """The rows in one array, for one constant is quicker than two; and how many integers."""
        count = len(integers[0])
        bits = np.array(floats, self.float).view(self.index)
        return np.concatenate([np.array(integers, self.index), bits], axis=1), count

    def row(
        self, rows: tuple[NDArray[Any], int], i: jax.Array
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        row, count = self.take(rows[0], i), rows[1]
        floats = lax.bitcast_convert_type(row[count:], self.float)
        return list(jnp.unstack(row[:count])), list(jnp.unstack(floats))

    def real(self, integer: jax.Array) -> jax.Array:
        return integer.astype(self.float)

    def remainder(self, dividend: jax.Array, divisor: int) -> jax.Array:
        return lax.rem(dividend, lax.full_like(dividend, divisor))

    def quotient(self, dividend: jax.Array, divisor: int) -> jax.Array:
        return lax.div(dividend, lax.full_like(dividend, divisor))

    def select(self, condition: jax.Array, yes: Any, no: Any) -> jax.Array:
        return lax.select(condition, *_alike(yes, no))

    def minimum(self, a: Any, b: Any) -> jax.Array:
        return lax.min(*_alike(a, b))

    def maximum(self, a: Any, b: Any) -> jax.Array:
        return lax.max(*_alike(a, b))

    def sin(self, x: jax.Array) -> jax.Array:
        return lax.sin(x)

    def power(self, base: jax.Array, exponent: Any) -> jax.Array:
        return lax.pow(*_alike(base, exponent))

    def exp(self, x: jax.Array) -> jax.Array:
        return lax.exp(x)

    def log(self, x: jax.Array) -> jax.Array:
        return lax.log(x)


def _alike(a: Any, b: Any) -> tuple[jax.Array, jax.Array]:
    """Two arrays, of which one may have come as a number of Python's."""
    if not isinstance(a, jax.Array):
        return lax.full_like(b, a), b
    return a, b if isinstance(b, jax.Array) else lax.full_like(a, b)
