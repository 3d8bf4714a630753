"""The schedule as a function of the step, for Optax and for any traced code."""

from __future__ import annotations

from typing import Any, cast

import jax
import numpy as np
import optax
from numpy.typing import NDArray

from ...core.graph import Table, evaluate
from ...core.schedule import Schedule, check_schedule
from .operations import Operations


def cyclic_cosine_schedule(schedule: Schedule) -> optax.Schedule:
    """The schedule as a pure function of the step, for Optax and for any traced code.

    `rate(step) = low + (high - low) * sin(pi * share / 2) ** 2`

    `share` is the part of the annealing between the step and its low end,
    counted in integers, over its length. The schedule is lowered once into small
    constant arrays; the graph has one lookup and one sine, however many cycles
    there are. It works under `jit`, `vmap`, `lax.scan` and `grad` (which it
    passes no gradient), and computes in the default precision: within 8 ulp of
    the exact rate in float32, and in float64 where x64 is enabled, with the
    peak itself at every restart. (Where a preset takes powers, as optax'
    `exponent` and timm's `k_decay`, within 12 ulp, times the exponent where that
    is more than 1.)

    Args:
        schedule: the schedule. Graphs hold it up to step 2**31 - 1, or 2**62
            where x64 is enabled.

    Returns:
        A function of the step: an integer of Python's, numpy's or jax's, or an
        array of integers, whose elements it maps; a float where its value is
        known and an integer; or a variable that is a jax array, as Keras' on
        JAX and Flax's. Floats inside a graph are refused, for float32 holds no
        step beyond 2**24 exactly; Optax itself counts in int32. Rates are
        arrays of jax's default float dtype. Negative steps count as step 0, for
        `optax.join_schedules` evaluates a part before its beginning too, and
        an array's steps beyond the last as the last, for inside a graph nothing
        can be raised. A number beyond the last is a ScheduleError.

    Raises:
        ScheduleError: no schedule; one that would need a table of more than
            32,768 rows; or one whose rates are beyond the range of the float
            dtype.

    Example:
        >>> import jax, optax
        >>> import cosanneal as ca
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> rate = cyclic_cosine_schedule(schedule)
        >>> tx = optax.sgd(rate, momentum=0.9)
        >>> [round(float(jax.jit(rate)(step)), 6) for step in range(7)]
        [0.2, 0.15, 0.05, 0.2, 0.15, 0.05, 0.0]

    Source: Loshchilov and Hutter, "SGDR" (2017), Eq. 5.
    """
    schedule = check_schedule(schedule)
    # By the precision, for x64 may be switched on or off between two calls.
    tables: dict[bool, Table[NDArray[Any]]] = {}

    def table() -> tuple[Table[NDArray[Any]], Operations]:
        ops = Operations.now()
        if ops.wide not in tables:
            tables[ops.wide] = Table.of(
                schedule,
                wide=ops.wide,
                constant=lambda values: np.array(values, ops.index),
                rows=ops.packed,
            )
        return tables[ops.wide], ops

    def rate(step: Any) -> jax.Array:
        constants, ops = table()
        steps = ops.step(step, constants.limit)
        if not steps.ndim:
            return cast(jax.Array, evaluate(constants, steps, ops))
        each = jax.vmap(lambda step: evaluate(constants, step, ops))
        return cast(jax.Array, each(steps.ravel()).reshape(steps.shape))

    table()  # what cannot be lowered is said here, and not inside of a graph
    return cast(optax.Schedule, rate)
