"""Searches for the weights of a mean, whatever its score: greedy ones, and convex ones."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError
from ...core.warn import warn
from ..arrays import check_count, check_share

Floats = NDArray[np.float64]

# What a mean of logarithms is rounded by, where it hardly falls any more.
_ROUNDING: Final = 1e-15

# By this factor at most a row's mixture falls in a step.
_FALL: Final = 0.01


class Objective(ABC):
    """The score of the mean of the members added so far, among some of the members."""

    def __init__(self, members: int) -> None:
        self.counts: Floats = np.zeros(members)

    def add(self, member: int) -> None:
        """Add a member to the mean."""
        self.counts[member] += 1

    def clear(self) -> None:
        """Take all members out."""
        self.counts[:] = 0

    @abstractmethod
    def score(self) -> float:
        """The score of the mean."""

    @abstractmethod
    def with_each(self) -> Floats:
        """What the score would be with one member more, for each."""


class Quadratic(Objective):
    """A score that is a quadratic form of the weights: `w' P w`, such as a mean squared error."""

    def __init__(self, products: Floats) -> None:
        super().__init__(len(products))
        self.products = products

    def score(self) -> float:
        """`w' P w` of the mean."""
        shares = self.counts / self.counts.sum()
        return float(shares @ self.products @ shares)

    def with_each(self) -> Floats:
        """That of the mean with one member more, for each."""
        size = self.counts.sum() + 1
        crossed = self.products @ self.counts
        sums = self.counts @ crossed + 2 * crossed + self.products.diagonal()
        return np.asarray(sums / size**2)


def greedy(
    objective: Callable[[NDArray[np.intp]], Objective],
    members: int,
    *,
    steps: int,
    initial: int | None,
    bags: int,
    bag_fraction: float,
    seed: int,
) -> tuple[Floats, tuple[float, ...]]:
    """The weights of the best mean that is passed by adding one member after the other.

    Args:
        objective: makes the score of the means of some of the members.
        members: how many there are.
        steps: as in `select_greedy`, and so the rest.
        initial: with how many of the best to start.
        bags: how many random parts of the members are searched in.
        bag_fraction: the share of the members in each.
        seed: of the parts.

    Returns:
        The weights, and the score after each pick (none with bags).

    Raises:
        EnsembleError: a number that cannot be.
    """
    steps = check_count("steps", steps, minimum=0)
    initial = None if initial is None else check_count("initial", initial, minimum=0)
    bags = check_count("bags", bags, minimum=0)
    if initial is not None and initial + steps == 0:
        raise EnsembleError("There must be a member to pick. Received: initial=0, steps=0")
    if not bags:
        return _pick(objective(np.arange(members)), steps, initial)
    size = max(round(check_share("bag_fraction", bag_fraction) * members), 1)
    random = np.random.default_rng(seed)
    mean = np.zeros(members)
    for _ in range(bags):
        part = np.sort(random.choice(members, size=size, replace=False))
        weights, _ = _pick(objective(part), steps, initial)
        mean[part] += weights / bags
    return mean / mean.sum(), ()


def _pick(
    objective: Objective, steps: int, initial: int | None
) -> tuple[Floats, tuple[float, ...]]:
    """The weights of the best mean on the way, and the scores of the way."""
    alone = objective.with_each()
    # Of equal ones the later first.
    order = np.lexsort((-np.arange(len(alone)), alone))
    path: list[float] = []
    picked: list[int] = []

    def add(member: int) -> None:
        objective.add(member)
        picked.append(member)
        path.append(objective.score())

    if initial is None:
        for member in order:
            add(int(member))
        initial = path.index(min(path)) + 1
        objective.clear()
        picked.clear()
        path.clear()
    for member in order[:initial]:
        add(int(member))
    for _ in range(steps):
        scores = objective.with_each()
        add(len(scores) - 1 - int(scores[::-1].argmin()))
    counts = np.bincount(picked[: path.index(min(path)) + 1], minlength=len(alone))
    return counts / counts.sum(), tuple(path)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """Weights that make a convex score least.

    Args:
        weights: on the simplex.
        score: there.
        gap: by how much at most it is above the least one there is.
        path: the score of each iterate.
    """

    weights: Floats
    score: float
    gap: float
    path: tuple[float, ...] = ()


def least_log_loss(
    likelihoods: Floats,
    rows_weights: Floats | None = None,
    *,
    tolerance: float = 1e-10,
    iterations: int = 200,
) -> Found:
    """`min_w -mean(log(likelihoods @ w))` over the simplex, as `select_weights` says.

    Args:
        likelihoods: one row for each label or target, one column for each member; with a
            positive one in each row.
        rows_weights: how much each row counts in the mean; by default all the same.
        tolerance: the gap to reach.
        iterations: how many models at most.

    Warns:
        RuntimeWarning: the gap was not reached.
    """
    # Of one row's likelihoods only the ratios count for the weights.
    tops = likelihoods.max(axis=1, keepdims=True)
    ratios = likelihoods / tops
    samples, members = ratios.shape
    shares = np.full(samples, 1 / samples)
    if rows_weights is not None:
        shares = rows_weights / rows_weights.sum()
    offset = -float(shares @ np.log(tops[:, 0]))

    def loss(weights: Floats) -> float:
        """The log-loss, made minimal at sum(w) = 1 for any w >= 0 by `sum(w) - 1`."""
        return float(weights.sum() - 1 - shares @ np.log(ratios @ weights))

    weights = np.full(members, 1 / members)
    value, path, gap = loss(weights), [], math.inf
    # The least loss is between the best value and the greatest of the bounds.
    best, least = (value, math.inf, weights), -math.inf
    for _ in range(iterations):
        mixed = ratios @ weights
        scaled = ratios / mixed[:, None]
        gains = shares @ scaled  # weights @ gains is 1
        path.append(value + offset)
        found = float(gains.max()) - 1
        least = max(least, value - found)
        if value < best[0] - _ROUNDING or (value <= best[0] + _ROUNDING and found < best[1]):
            best = value, found, weights
        gap = min(best[1], best[0] - least)
        if gap <= tolerance:
            break
        hessian = scaled.T @ (shares[:, None] * scaled)
        # Of one scale: a member that a row cannot do without is curved far beyond the others.
        scale = np.sqrt(np.diagonal(hessian))
        scale[scale == 0] = 1
        hessian /= np.outer(scale, scale)
        hessian.flat[:: members + 1] += 1e-12  # equal members make it singular
        linear = hessian @ (weights * scale) + (gains - 1) / scale
        step = nonnegative(hessian, linear, weights * scale) / scale - weights
        slope, size = float((1 - gains) @ step), 1.0
        # No row's mixture falls by more than that: far from a logarithm's 0 the model still holds.
        while size > 1e-10:
            trial = np.maximum(weights + size * step, 0)
            enough = value + 0.01 * size * slope + _ROUNDING
            if (ratios @ trial >= _FALL * mixed).all() and loss(trial) <= enough:
                break
            size /= 2
        else:
            break
        weights = trial / trial.sum()
        value = loss(weights)
    if gap > tolerance:
        warn(
            f"The weights' log-loss may be {gap:.2g} nats above the least, and not "
            f"{tolerance:.2g}, after {len(path)} iterations",
            RuntimeWarning,
        )
    return Found(weights=best[2], score=best[0] + offset, gap=max(gap, 0.0), path=tuple(path))


def least_quadratic(products: Floats) -> Found:
    """`min_w w' P w` over the simplex, for a `P` of no negative eigenvalue: a quadratic program.

    Without the sum's constraint, the least `p' P p / 2 - sum(p)` over `p >= 0` is a multiple
    of it: the active set that finds that one is exact. The gap is `2 (w' P w - min(P w))`.

    Args:
        products: `P`, such as the mean products of every two members' errors.

    Source: Lawson & Hanson, "Solving Least Squares Problems" (1974), chapter 23; Jaggi,
    "Revisiting Frank-Wolfe" (2013), for the gap.
    """
    members = len(products)
    scale = float(np.trace(products)) / members
    weights = np.full(members, 1 / members)
    if scale > 0:
        scaled = products / scale
        # Equal members make it singular, and so does a sum that errs nowhere.
        ridge = scaled + 1e-12 * np.eye(members)
        found = nonnegative(ridge, np.ones(members), weights)
        weights = found / found.sum()
    along = products @ weights
    score = float(weights @ along)
    return Found(weights=weights, score=score, gap=max(2 * (score - float(along.min())), 0.0))


def nonnegative(hessian: Floats, linear: Floats, start: Floats) -> Floats:
    """`argmin_p p' H p / 2 - c' p` over `p >= 0`, by Lawson and Hanson's active set (1974)."""
    p = start.copy()
    free = p > 0
    for _ in range(10 * len(p)):
        while True:
            target = np.zeros_like(p)
            target[free] = np.linalg.solve(hessian[np.ix_(free, free)], linear[free])
            blocked = free & (target <= 0)
            if not blocked.any():
                break
            # As far as the first that would be negative, which is held at 0 from then on.
            share = (p[blocked] / (p[blocked] - target[blocked])).min()
            p += share * (target - p)
            free &= p > 1e-15 * p.max()
            p[~free] = 0
        p = target
        gradient = linear - hessian @ p
        gradient[free] = 0
        if gradient.max() <= 1e-14 * np.abs(linear).max():
            break
        free[gradient.argmax()] = True
    return p
