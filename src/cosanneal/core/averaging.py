"""Running means of anything with + - *, and of nested dicts, lists and tuples of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


class RunningMean(Generic[T]):
    """The weighted mean of the values seen so far, in the memory of one.

    `mean += (value - mean) * weight / total_weight`

    It computes in the values' own precision: hand it float64 (or Fractions) for
    a mean that depends on the order of the values by no more than rounding.

    Example:
        >>> mean = RunningMean()
        >>> for value in (1.0, 2.0, 6.0):
        ...     mean.update(value)
        >>> mean.value
        3.0
    """

    __slots__ = ("_mean", "_weight")

    def __init__(self) -> None:
        self._mean: T | None = None
        self._weight: float = 0

    def update(self, value: T, weight: float = 1) -> None:
        """Take in one value. The value is not changed, and may be kept until the next."""
        if not weight > 0:
            raise ValueError(f"Argument `weight` must be positive. Received: weight={weight!r}")
        self._weight += weight
        if self._mean is None:
            self._mean = value
            return
        share = weight / self._weight
        self._mean = _combine(lambda mean, new: mean + (new - mean) * share, self._mean, value)

    @property
    def value(self) -> T:
        """The mean.

        Raises:
            ValueError: nothing was seen yet.
        """
        if self._mean is None:
            raise ValueError("The mean of no values is not defined; call update first")
        return self._mean


def _combine(combine: Callable[[Any, Any], Any], mean: T, new: T) -> T:
    """`combine` applied to the leaves of two values of the same structure."""
    result: Any
    if isinstance(mean, Mapping):
        if not isinstance(new, Mapping) or mean.keys() != new.keys():
            raise ValueError(
                f"The values must have the same keys. Received: {list(mean)} and {new!r}"
            )
        result = {key: _combine(combine, mean[key], new[key]) for key in mean}
    elif isinstance(mean, list | tuple):
        if not isinstance(new, list | tuple) or len(mean) != len(new):
            raise ValueError(f"The values must have {len(mean)} parts. Received: {new!r}")
        parts = [_combine(combine, a, b) for a, b in zip(mean, new, strict=True)]
        result = parts if isinstance(mean, list) else tuple(parts)
    else:
        result = combine(mean, new)
    return cast(T, result)
