"""The steps whose values are known where a schedule is put into a graph: numbers and arrays.

Arrays are numpy's, which is handed in, since the core imports no package.
"""

from __future__ import annotations

import operator
from typing import Any

from ..errors import ScheduleError, shown


def known_steps(value: Any, limit: int, *, remedy: str, xp: Any) -> Any:
    """Known steps in [0, limit]; those of an array as they would be in a graph.

    Args:
        value: an integer or a float that is one, of Python's or numpy's, or an
            array of such. A negative step counts as step 0, for Optax's
            `join_schedules` evaluates a part before its beginning too.
        limit: the largest step of a graph, which a number is refused beyond,
            and an array's element counts as.
        remedy: what makes larger ones possible; or "".
        xp: numpy.

    Returns:
        An int, or an array of int64.

    Raises:
        ScheduleError: no integer, or one beyond the limit.
    """
    if isinstance(value, xp.ndarray) and value.ndim:
        if value.dtype.kind == "f" and (xp.isfinite(value) & (value == xp.floor(value))).all():
            value = xp.clip(value.astype(xp.float64), 0.0, float(limit))
        elif value.dtype.kind == "u":
            value = xp.minimum(value.astype(xp.uint64), xp.uint64(limit))
        elif value.dtype.kind != "i":
            raise _no_integer(value)
        return xp.clip(value.astype(xp.int64), 0, limit)
    number = value.item() if isinstance(value, xp.ndarray | xp.generic) else value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool):
        raise _no_integer(value)
    try:
        step = operator.index(number)
    except TypeError as error:
        raise _no_integer(value) from error
    if step > limit:
        raise ScheduleError(
            f"Argument `step` must be at most {limit}, the largest step of a graph. "
            f"Received: step={shown(value)}{remedy}"
        )
    return max(step, 0)


def unknown_floats(what: str) -> ScheduleError:
    """The error for floats in a graph, which may have lost the step that they were made of."""
    return ScheduleError(
        "Argument `step` must be an integer inside of a graph (optimizer steps, counted from 0). "
        f"Received: {what}, whose values are not known there; give the integer itself, for "
        "float32 holds none beyond 2**24 exactly"
    )


def _no_integer(value: object) -> ScheduleError:
    return ScheduleError(
        "Argument `step` must be an integer (optimizer steps, counted from 0), or a float that is "
        f"one. Received: step={shown(value)}"
    )
