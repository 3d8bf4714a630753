"""The steps whose values are known where a schedule is put into a graph: numbers and arrays."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ScheduleError, shown


def known_steps(value: Any, limit: int, *, remedy: str) -> int | NDArray[np.int64]:
    """Known steps in [0, limit]; those of an array as they would be in a graph.

    Args:
        value: an integer or a float that is one, of Python's or numpy's, or an
            array of such. A negative step counts as step 0, for Optax's
            `join_schedules` evaluates a part before its beginning too.
        limit: the largest step of a graph, which a number is refused beyond,
            and an array's element counts as.
        remedy: what makes larger ones possible; or "".

    Raises:
        ScheduleError: no integer, or one beyond the limit.
    """
    if isinstance(value, np.ndarray) and value.ndim:
        if value.dtype.kind == "f" and (np.isfinite(value) & (value == np.floor(value))).all():
            value = np.clip(value.astype(np.float64), 0.0, float(limit))
        elif value.dtype.kind == "u":
            value = np.minimum(value.astype(np.uint64), np.uint64(limit))
        elif value.dtype.kind != "i":
            raise _no_integer(value)
        return np.clip(value.astype(np.int64), 0, limit)
    number = value.item() if isinstance(value, np.ndarray | np.generic) else value
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
