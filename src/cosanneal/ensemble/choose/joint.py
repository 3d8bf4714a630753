"""The weights of a mean and its temperature, found together: by the calibrated log-loss.

Of a mean of the members' probabilities `p = sum_m w_m p_m` it is

`f(w) = min_T -mean(log softmax(log(p) / T)[y])`

the log-loss at the mean's own best temperature. A mean is less sure than its members; without
the temperature in the search, members are taken in or left out for what it would have done.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..arrays import SMALLEST
from ..labels import Labels
from .calibration import TEMPERATURES, best_temperature
from .held_out import HeldOut
from .search import Floats, Objective, nonnegative

# What a mean of logarithms is rounded by, where it hardly falls any more.
_ROUNDING: Final = 1e-15

# Rows at a time: what is looked at stays in a processor's cache.
_ROWS: Final = 1 << 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Joint:
    """Weights and their temperature, of a small calibrated log-loss.

    Args:
        weights: on the simplex.
        temperature: the best one of their mean.
        score: the log-loss there.
        path: the score of each iterate.
        slope: how fast the score would fall, in nats, where the share of one member grows at the
            cost of all; for the best such member.
    """

    weights: Floats
    temperature: float
    score: float
    path: tuple[float, ...]
    slope: float


def least_calibrated(
    held_out: HeldOut,
    starts: Iterable[Floats],
    *,
    tolerance: float = 1e-7,
    iterations: int = 100,
) -> Joint:
    """Weights of a least `f(w)` over the simplex, from the best of some starts.

    At the temperature 1 the log-loss is convex in the weights; at another it need not be.
    Each step goes along the least of a quadratic model of `f` over `w >= 0`, whose curvature
    is made positive, by as much as lowers `f` itself: its temperature is found anew at each
    trial, exactly. So no step raises `f`, and the result is not above that of any start. It
    ends where no member's growing share lowers `f` faster than the tolerance (of a convex `f`,
    and always at the temperature 1, that is the gap to the least one), or where rounding hides
    the fall.

    Args:
        held_out: the members' predictions.
        starts: weights, of which the best is gone on from.
        tolerance: in nats.
        iterations: how many models at most; some ten are usual.
    """
    y = held_out.labels
    tried = []
    for weights in starts:
        tried.append((*best_temperature(held_out.pooled(weights), y), weights))
    temperature, value, weights = min(tried, key=lambda each: each[1])
    path = [value]
    slope = np.inf
    for _ in range(iterations):
        gradient, hessian = _derivatives(held_out, weights, 1 / temperature)
        slope = -float(gradient.min())
        if slope <= tolerance:
            break
        step = _step(gradient, hessian, weights)
        falls, size = float(gradient @ step), 1.0
        while size > 1e-6:
            trial = np.maximum(weights + size * step, 0)
            trial /= trial.sum()
            found, reached = best_temperature(held_out.pooled(trial), y, temperature)
            if reached < min(value, value + 0.01 * size * falls + _ROUNDING):
                break
            size /= 2
        else:
            break
        weights, temperature, value = trial, found, reached
        path.append(value)
    return Joint(
        weights=weights,
        temperature=temperature,
        score=value,
        path=tuple(path),
        slope=max(slope, 0.0),
    )


def _step(gradient: Floats, hessian: Floats, weights: Floats) -> Floats:
    """Towards the least of the quadratic model over weights of at least 0 that sum to 1."""
    values, vectors = np.linalg.eigh(hessian)
    top = np.abs(values).max() or 1.0
    values = np.maximum(np.abs(values), 1e-9 * top)
    convex = (vectors * values) @ vectors.T
    # f does not change where all weights grow alike, so the sum is held by a term of its own.
    convex += top
    found = nonnegative(convex, convex @ weights - gradient, weights)
    return np.asarray(found / found.sum() - weights)


def _derivatives(held_out: HeldOut, weights: Floats, beta: float) -> tuple[Floats, Floats]:
    """The gradient and the second derivatives of `f`, at the best `beta = 1 / T` of the weights."""
    members = len(weights)
    gradient, crossed = np.zeros(members), np.zeros(members)
    hessian = np.zeros((members, members))
    curvature = total = 0.0
    for y, stack in held_out.parts():
        mean, logs, p, counts = _at(np.tensordot(weights, stack, 1), y, beta)
        truth = np.zeros_like(p) if y.targets is None else y.targets
        if y.targets is None:
            truth[np.arange(len(y)), y.classes] = 1
        middle = np.einsum("ij,ij->i", p, logs)[:, None]
        flat = stack.reshape(members, -1)

        def along(values: Floats, rows: Floats = flat) -> Floats:
            return np.asarray(rows @ values.reshape(-1))

        over = counts[:, None] / mean
        gradient += along(beta * (p - truth) * over)
        crossed += along((p - truth + beta * p * (logs - middle)) * over)
        curved = (beta * truth + (beta**2 - beta) * p) * over / mean
        hessian += (flat * curved.reshape(-1)) @ flat.T
        shares = np.einsum("aij,ij->ai", stack, p / mean)
        hessian -= beta**2 * ((shares * counts) @ shares.T)
        curvature += float(counts @ np.einsum("ij,ij->i", p, (logs - middle) ** 2))
        total += float(counts.sum())
    gradient, crossed, hessian = gradient / total, crossed / total, hessian / total
    inside = 1 / TEMPERATURES[1] < beta < 1 / TEMPERATURES[0]
    if curvature > 0 and inside:  # the temperature goes along with the weights
        hessian -= np.outer(crossed, crossed) / (curvature / total)
    return gradient, (hessian + hessian.T) / 2


def _at(mean: Floats, y: Labels, beta: float) -> tuple[Floats, Floats, Floats, Floats]:
    """The mean, its logarithm, the probabilities at `beta`, and how much each row counts."""
    mean = np.maximum(mean, SMALLEST)
    logs = np.log(mean)
    p = np.exp(beta * (logs - logs.max(axis=1, keepdims=True)))
    p /= p.sum(axis=1, keepdims=True)
    return mean, logs, p, np.ones(len(y)) if y.weights is None else y.weights


class CalibratedLogLoss(Objective):
    """The calibrated log-loss of means of members, for a greedy search.

    What the mean would score with one member more is told to second order: by one step of
    Newton's from the temperature that it has; alone, and once it was added, exactly.

    Args:
        held_out: the members' predictions.
        members: which of them.
    """

    def __init__(self, held_out: HeldOut, members: NDArray[np.intp]) -> None:
        super().__init__(len(members))
        self._held_out, self._members = held_out, members
        self._beta = 1.0

    def clear(self) -> None:
        """Take all members out; the temperature is 1 again."""
        super().clear()
        self._beta = 1.0

    def score(self) -> float:
        """The calibrated log-loss of the mean, exactly."""
        weights = np.zeros(len(self._held_out))
        weights[self._members] = self.counts / self.counts.sum()
        rows, y = self._held_out.pooled(weights), self._held_out.labels
        temperature, found = best_temperature(rows, y, 1 / self._beta)
        self._beta = 1 / temperature
        return found

    def with_each(self) -> Floats:
        """That of the mean with one member more, for each, to second order."""
        y = self._held_out.labels
        if not self.counts.any():
            rows = (self._held_out.rows(int(i)) for i in self._members)
            return np.array([best_temperature(each, y)[1] for each in rows])
        size, beta = self.counts.sum() + 1, self._beta
        sums, total = np.zeros((3, len(self.counts))), 0.0
        for labels, stack in self._held_out.parts(self._members):
            for start in range(0, len(labels), _ROWS):
                at = slice(start, start + _ROWS)
                some = labels.some(at)
                part = stack[:, at]
                whole = np.tensordot(self.counts, part, 1)
                for i, member in enumerate(part):
                    sums[:, i] += _moments((whole + member) / size, some, beta)
            total += len(labels) if labels.weights is None else float(labels.weights.sum())
        value, slope, curvature = sums / total
        low, high = max(beta / 2, 1 / TEMPERATURES[1]), min(2 * beta, 1 / TEMPERATURES[0])
        step = np.clip(-slope / np.maximum(curvature, 1e-300), low - beta, high - beta)
        return np.asarray(value + slope * step + curvature * step**2 / 2)


def _moments(mean: Floats, y: Labels, beta: float) -> Floats:
    """The sums of the log-loss at `beta`, and of its first and second derivative there."""
    logs = np.log(np.maximum(mean, SMALLEST))
    logs -= logs.max(axis=1, keepdims=True)
    own = y.expected(logs)
    p = np.exp(beta * logs)
    ones = np.ones(p.shape[1])  # a product with it is faster than a sum along a short axis
    sums = p @ ones
    p *= logs
    first = p @ ones / sums
    p *= logs
    second = p @ ones / sums - first**2
    counts = np.ones(len(y)) if y.weights is None else y.weights
    losses = np.log(sums) - beta * own
    return np.array([counts @ losses, counts @ (first - own), counts @ second])
