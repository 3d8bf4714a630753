"""The formulas of pooling, written once for arrays of any framework.

They look at no number and check nothing, so that a graph can be traced through them. The arrays
are wide already: in the dtype in which the sums are to be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from ..arrays import log_odds, log_sigmoid, log_softmax, logarithm, namespace, probabilities_of

Pooling: TypeAlias = Literal["probabilities", "logits", "log-probabilities", "vote"]
Inputs: TypeAlias = Literal["probabilities", "logits", "log-probabilities"]


@dataclass(frozen=True, slots=True)
class Rule:
    """How predictions are pooled, as `Pool` says.

    Args:
        pooling: the rule.
        inputs: what the predictions are.
    """

    pooling: Pooling
    inputs: Inputs

    def part(self, wide: Any, axis: int | None) -> Any:
        """What of a prediction is summed, with its classes along an axis."""
        if self.pooling == "probabilities" and self.inputs == "logits":  # the usual, at once
            return probabilities_of(wide, axis)
        xp = namespace(wide)
        if self.pooling == "vote":
            if axis is not None:
                ones, zeros = xp.ones_like(wide), xp.zeros_like(wide)
                top = xp.where(wide == xp.amax(wide, axis=axis, keepdims=True), ones, zeros)
                return top / xp.sum(top, axis=axis, keepdims=True)
            half = {"probabilities": 0.5, "logits": 0.0, "log-probabilities": -math.log(2)}
            return (xp.sign(wide - half[self.inputs]) + 1) / 2
        if self.pooling == "probabilities":
            return xp.exp(wide) if self.inputs == "log-probabilities" else wide
        if self.pooling == "log-probabilities":
            if self.inputs == "logits":
                return log_sigmoid(wide) if axis is None else log_softmax(wide, axis)
            return wide if self.inputs == "log-probabilities" else logarithm(wide)
        if self.inputs == "logits" or (self.inputs == "log-probabilities" and axis is not None):
            return wide
        if axis is not None:
            return logarithm(wide)
        return log_odds(xp.exp(wide) if self.inputs == "log-probabilities" else wide)

    def add(self, total: Any, part: Any, weight: float) -> Any:
        """The total with one more part: a sum, or of logarithms one beside the greatest so far.

        Args:
            total: what this returned before, which may be written to; None at first.
            part: as `part` makes it.
            weight: what it counts.
        """
        if self.pooling != "log-probabilities":
            if total is None:
                return part * weight
            total += part if weight == 1 else part * weight
            return total
        one = weight * namespace(part).exp(part - _finite(part)), part
        return one if total is None else self.joined(total, one)

    def joined(self, total: Any, other: Any) -> Any:
        """Two totals in one; the first, which may be None, may be written to."""
        if self.pooling != "log-probabilities":
            if total is None:
                return other * 1.0
            total += other
            return total
        if total is None:
            return other
        (before, highest), (more, most) = total, other
        xp = namespace(before)
        top = xp.maximum(highest, most)
        safe = _finite(top)
        return before * xp.exp(highest - safe) + more * xp.exp(most - safe), top

    def finished(self, total: Any, weight: float, axis: int | None) -> Any:
        """The pooled prediction of a total of parts whose weights sum to `weight`."""
        if self.pooling == "log-probabilities":
            total, top = total
            return _log(total) + (_finite(top) - math.log(weight))
        mean = total / weight
        return mean if self.pooling != "logits" else probabilities_of(mean, axis)


class Moments:
    """The mean of values and their variance, one member's after the other; see `ValuePool`.

    Attributes:
        weight: the sum of the weights.
        mean: the mean; None before the first.
        squares: the sum of the weighted squares about it.
        noise: the weighted sum of the variances that came with them.

    Source: West, "Updating Mean and Variance Estimates" (1979).
    """

    def __init__(self) -> None:
        self.weight: float = 0.0
        self.mean: Any = None
        self.squares: Any = None
        self.noise: Any = None

    def add(self, values: Any, variances: Any, weight: float) -> None:
        """Take in one member's values, and its variances, which may be None."""
        self.weight += weight
        if self.mean is None:
            zeros = namespace(values).zeros_like
            self.mean, self.squares, self.noise = zeros(values), zeros(values), zeros(values)
        away = values - self.mean
        self.mean += away * (weight / self.weight)
        self.squares += weight * away * (values - self.mean)
        if variances is not None:
            self.noise += weight * variances

    def merge(self, other: Moments) -> None:
        """Take in all that another one has.

        Source: Chan, Golub & LeVeque, "Updating Formulae" (1979).
        """
        if other.mean is None:
            return
        if self.mean is None:  # they are added to in place
            parts = (other.mean, other.squares, other.noise)
            self.mean, self.squares, self.noise = (each * 1.0 for each in parts)
            self.weight = other.weight
            return
        weight = self.weight + other.weight
        away = other.mean - self.mean
        self.mean += away * (other.weight / weight)
        self.squares += other.squares + away * away * (self.weight * other.weight / weight)
        self.noise += other.noise
        self.weight = weight

    @property
    def variance(self) -> Any:
        """The variance: between the values, and the mean of their own."""
        return (self.squares + self.noise) / self.weight


def _log(total: Any) -> Any:
    """The logarithm, of 0 minus infinity: where no member gives anything."""
    xp = namespace(total)
    if xp is not np:
        return xp.log(total)
    with np.errstate(divide="ignore"):
        return np.log(total)


def _finite(top: Any) -> Any:
    """What is taken off logarithms before they are raised: the greatest, or of log(0) nothing."""
    xp = namespace(top)
    return xp.where(xp.isfinite(top), top, xp.zeros_like(top))
