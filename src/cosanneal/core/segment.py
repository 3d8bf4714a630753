"""One row of a schedule's table: a curve between two rates, over an exact clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from .curve import CurveName, evaluator


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One row of the table: a curve between two rates, over an exact clock.

    The rate at `step` is `last + (first - last) * w`, where `w` falls from 1 to
    0 while the clock runs from `origin` to `origin + length`:
    `w = sin(pi * r / 2) ** 2` on a cosine, `w = r` on a line, with
    `r = (origin + length - step) / length` formed exactly. Outside its clock a
    segment holds the rate of the nearer end.

    Args:
        start: the first step that the segment rules.
        stop: the first step that it no longer rules; None where it has no end.
        origin: the clock's zero, in optimizer steps. It may lie before `start`.
        length: the clock's length in optimizer steps.
        first: the rate at the clock's first instant.
        last: the rate at the clock's last instant.
        curve: "cosine", "linear" or "constant" (which is `last` throughout).
        exponent: the power to which the weight `w` is raised.
        k: the power to which the share that has passed, `1 - r`, is raised.
    """

    start: int
    stop: int | None
    origin: int | Fraction
    length: int | Fraction
    first: float
    last: float
    curve: CurveName = "cosine"
    exponent: float = 1.0
    k: float = 1.0

    def rate(self, step: int | Fraction) -> float:
        """The rate at a step or an instant, which is not checked against the bounds."""
        return self.evaluator()(step)

    def evaluator(self) -> Callable[[int | Fraction], float]:
        """`rate` as a function prepared for many steps."""
        # The same clock in whole ticks, so many to a step, needs integers only:
        # int / int is correctly rounded, whatever its size.
        ticks = math.lcm(self.origin.denominator, self.length.denominator)
        return evaluator(
            ticks=ticks,
            origin=int(self.origin * ticks),
            length=int(self.length * ticks),
            first=self.first,
            last=self.last,
            curve=self.curve,
            exponent=self.exponent,
            k=self.k,
        )
