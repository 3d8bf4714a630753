"""The half cosine, written once for every framework.

A cosine annealing is usually written `(1 + cos(pi * x)) / 2` with `x` the
share of the cycle that has passed. Near a cycle's end that subtracts two
numbers that are almost equal: in float32 the last steps of a long cycle come
out as 0. With `r = 1 - x`, the share that remains, the same value is
`sin(pi * r / 2) ** 2`, which keeps its precision down to the last step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Literal, TypeVar

CurveName = Literal["cosine", "linear", "constant"]
CURVES: tuple[CurveName, ...] = ("cosine", "linear", "constant")

T = TypeVar("T")

HALF_PI = math.pi / 2


def half_cosine(remaining: T, sin: Callable[[T], T]) -> T:
    """`sin(pi * remaining / 2) ** 2`: 1 where all of the cycle remains, 0 where nothing does.

    Args:
        remaining: the share of the cycle that remains, in [0, 1]; a float, or
            an array of any framework.
        sin: the sine for that kind of value.

    Returns:
        A value of the same kind, in [0, 1].

    Example:
        >>> import math
        >>> half_cosine(0.5, math.sin)
        0.4999999999999999

    Source: SGDR (Loshchilov and Hutter, 2017), Eq. 5, by the half-angle identity.
    """
    # Not by `cast`, which is a call: every rate comes through here.
    s = sin(remaining * HALF_PI)  # type: ignore[arg-type, operator]
    return s * s  # type: ignore[no-any-return, operator]


def weights(
    passed: float, remaining: float, *, curve: CurveName, exponent: float = 1.0, k: float = 1.0
) -> tuple[float, float]:
    """The weights of a segment's first and last rate; both, since neither is exact as `1 - other`.

    Args:
        passed: the share of the segment's length that has passed.
        remaining: the share that remains. Both strictly between 0 and 1.
        curve: `"cosine"` or `"linear"`.
        exponent: `p` of `C**p` (optax' cosine_decay_schedule), `C` the weight
            of the segment's first rate.
        k: `k` of `x**k` (timm's k_decay), `x` the share that has passed.
    """
    if k != 1.0:
        passed, remaining = _power(passed, remaining, k)
    first, last = remaining, passed
    if curve == "cosine":
        first, last = half_cosine(remaining, math.sin), half_cosine(passed, math.sin)
    return (first, last) if exponent == 1.0 else _power(first, last, exponent)


def _power(base: float, rest: float, exponent: float) -> tuple[float, float]:
    """`base**exponent` and what it lacks to 1, from `base` and what that lacks to 1."""
    power = base**exponent
    # Where the base is near 1, it says less of the rest than the rest itself.
    return power, -math.expm1(exponent * math.log1p(-rest)) if rest < 0.5 else 1 - power


def evaluator(
    *,
    origin: int,
    length: int,
    first: float,
    last: float,
    ticks: int = 1,
    curve: CurveName = "cosine",
    exponent: float = 1.0,
    k: float = 1.0,
) -> Callable[[int | Fraction], float]:
    """The rate at a step or an instant, for one segment whose clock is given in whole ticks.

    Args:
        origin: the clock's zero, in ticks.
        length: the clock's length, in ticks.
        first: the rate at the clock's first instant, held before it.
        last: the rate at the clock's last instant, held after it.
        ticks: so many ticks to an optimizer step.
        curve: as in `weights`, or "constant", which is `last` throughout.
        exponent: as in `weights`.
        k: as in `weights`.

    Returns:
        A function of the step; exactly `first` and `last` at the clock's ends.
    """
    if curve == "constant":
        return lambda _step: last
    rising = first < last
    low, high = (first, last) if rising else (last, first)
    height = high - low
    plain = curve == "cosine" and exponent == 1.0 and k == 1.0
    # Ticks are counted from the segment's low end, forwards or backwards.
    pace, shift = (ticks, -origin) if rising else (-ticks, origin + length)
    sin = math.sin

    def rate(step: int | Fraction) -> float:
        part = step * pace + shift
        if part <= 0:
            return low
        if part >= length:
            return high
        if plain:
            value = low + height * half_cosine(part / length, sin)
        else:
            passed, remaining = (part, length - part) if rising else (length - part, part)
            of_first, of_last = weights(
                float(passed / length),
                float(remaining / length),
                curve=curve,
                exponent=exponent,
                k=k,
            )
            value = low + height * (of_last if rising else of_first)
        # `height` may have been rounded up; a rate never exceeds its peak.
        return value if value < high else high

    return rate
