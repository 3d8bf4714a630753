"""Fewer members than decide a class: how early samples may leave, and what it costs in error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, shown
from ..arrays import as_numpy, two_greatest
from ..labels import Labels, checked_counts
from ..score.binomial import binomial_upper
from ..score.metrics import row_scores

Floats: TypeAlias = NDArray[np.float64]

# Of the bound of what leaving early costs.
LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How early samples leave, so that they have few members on average; and what that costs.

    The members come by falling weight, of equal ones the one with the lowest log-loss on those
    data first: a sample that leaves early is decided by the first ones alone. With the sum `S_k`
    of `w p_k` over those that a sample has had, and the sum `L` of the weights that are left, it
    leaves where, for its leading class i and every other k,

    `S_i - S_k >= care L`,

    of an outcome where `|2 S - W| >= care L`, with the sum `W` of the weights it has had; and a
    sample with several labels where all of them do. With care = 0 one member is all; at care = 1
    no class that leads could be overtaken, and the rule of exact classes is used. Whatever is
    between them can change classes: `error` says how often that was wrong.

    All numbers are of the data of the choice. The care was found by the passes alone, and not by
    the labels; members and weights were, so that other data will show a little more error.

    Args:
        asked: the mean number of members a sample was to have at most.
        care: the greatest at which they had no more, from 0 to 1.
        passes: the mean number that they had.
        error: the share of labels that were wrong then.
        exact_passes: the mean number that exact classes take.
        exact_error: their error.
        made_wrong: how many samples had more wrong labels than by exact classes.
        made_right: how many had fewer.
        order: the places of all members among themselves, the one with the lowest log-loss first.
        increase: what `error - exact_error` is not above, with 95 % confidence: the exact
            one-sided upper bound (Clopper & Pearson, 1934) of the share of samples that are made
            wrong, which is not less than the difference. None where samples count differently.

    Example: see `cosanneal.ensemble.fit`.
    """

    asked: float
    care: float
    passes: float
    error: float
    exact_passes: float
    exact_error: float
    made_wrong: int
    made_right: int
    order: tuple[int, ...]
    increase: float | None

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data, for JSON."""
        return asdict(self) | {"order": [*self.order]}


def check_budget(budget: object, members: int) -> float:
    """A mean number of members for each sample, which must be one that can be kept.

    Args:
        budget: the number.
        members: how many there are.

    Raises:
        EnsembleError: no number of at least 1, or there is one member alone.
    """
    number = isinstance(budget, int | float | np.integer | np.floating)
    if not number or isinstance(budget, bool) or not 1 <= budget < math.inf:  # type: ignore[operator]
        raise EnsembleError(
            "Argument `budget` must be a finite number of at least 1, the mean number of members "
            f"that are run on a sample. Received: budget={shown(budget)}"
        )
    if members == 1:
        raise EnsembleError(
            "Argument `budget` must be left out for one member, which is run on every sample. "
            f"Received: budget={shown(budget)}"
        )
    return float(budget)  # type: ignore[arg-type]


def running_order(weights: Sequence[float], order: Sequence[int] | None = None) -> list[int]:
    """The members that count, by falling weight.

    Args:
        weights: of the members.
        order: in which those of one weight come; by default the last first.

    Example:
        >>> running_order([0.25, 0.0, 0.25, 0.5])
        [3, 2, 0]
        >>> running_order([0.25, 0.0, 0.25, 0.5], order=[1, 0, 2, 3])
        [3, 0, 2]
    """
    members = reversed(range(len(weights))) if order is None else order
    return sorted((i for i in members if weights[i] > 0), key=lambda i: -weights[i])


class Leaving:
    """When samples can leave, and what is wrong with those that do.

    Args:
        predictions: the members' probabilities, as `HeldOut` takes them.
        weights: of the members.
        labels: the truth.
        counts: how many places along the first axis each sample has, where it is not one.
        order: in which members of one weight come, as `running_order` takes it.

    Example:
        >>> from cosanneal.ensemble.labels import as_labels
        >>> p = np.array([[[0.9, 0.1], [0.6, 0.4]], [[0.8, 0.2], [0.1, 0.9]]])
        >>> leaving = Leaving(p[::-1], [0.5, 0.5], as_labels([0, 1], (2, 2)))
        >>> leaving.at(1.0), leaving.at(0.5)
        ((2.0, 0.0), (1.5, 0.0))
        >>> leaving.at(0.0)  # (passes, error)
        (1.0, 0.5)
    """

    def __init__(
        self,
        predictions: Sequence[Any] | Any,
        weights: Sequence[float],
        labels: Labels,
        counts: Any = None,
        *,
        order: Sequence[int] | None = None,
    ) -> None:
        self._order = (*(reversed(range(len(weights))) if order is None else order),)
        order = running_order(weights, self._order)
        self._labels = labels
        ratios, errors = [], []
        total: Any = None
        for place, i in enumerate(order, start=1):
            part = weights[i] * as_numpy(predictions[i]).astype(np.float64)
            total = part if total is None else total + part
            seen = math.fsum(weights[j] for j in order[:place])
            left = math.fsum(weights[j] for j in order[place:])
            if left:
                lead = _leads(total, seen, labels.class_axis)
                ratios.append(_least(lead, counts) / left)
            rows = labels.rows(total / seen)
            errors.append(labels.per_sample(row_scores("error", rows, labels)))
        self._errors: Floats = np.array(errors)
        # A sample that could have left before has left.
        samples = ratios[0].size if ratios else labels.samples
        self._ratios: Floats = np.maximum.accumulate(np.array(ratios).reshape(-1, samples), axis=0)
        self._counted = _with_labels(labels, samples, counts)

    def at(self, care: float) -> tuple[float, float]:
        """The mean number of members that samples have, and the error then.

        Args:
            care: from 0 to 1, as in `Budget`.
        """
        passes = self._passes(care)
        errors = self._errors_at(care)
        return float(passes.mean()), self._mean(errors)

    def care_for(self, budget: float) -> float:
        """The greatest care at which samples have so many members on average, or fewer.

        Any in a gap does the same; it is the middle of the gap, which rounding cannot reach.
        """
        samples = self._ratios.shape[1]
        most = math.floor((budget - 1) * samples + 1e-9)
        found = np.sort(self._ratios, axis=None)
        if most >= np.searchsorted(found, 1.0, side="right"):
            return 1.0
        next_one = float(found[most])  # with more care than this, one more than may would go on
        below = found[: np.searchsorted(found, next_one, side="left")]
        return (max(float(below[-1]), 0.0) + next_one) / 2 if below.size else next_one / 2

    def within(self, budget: float) -> Budget:
        """The most careful way within a budget, and what it costs."""
        care = self.care_for(budget)
        (passes, error), (exact_passes, exact_error) = self.at(care), self.at(1.0)
        change = self._errors_at(care) - self._errors_at(1.0)
        made_wrong = int((change > 0).sum())
        alike = self._labels.sample_weights() is None
        return Budget(
            asked=budget,
            care=care,
            passes=passes,
            error=error,
            exact_passes=exact_passes,
            exact_error=exact_error,
            made_wrong=made_wrong,
            made_right=int((change < 0).sum()),
            order=self._order,
            increase=binomial_upper(made_wrong, change.size, LEVEL) if alike else None,
        )

    def _passes(self, care: float) -> NDArray[np.intp]:
        # At 1 a class that could still be caught up with, in a tie, is not decided.
        goes_on = self._ratios <= care if care == 1 else self._ratios < care
        return np.asarray(1 + goes_on.sum(axis=0))

    def _errors_at(self, care: float) -> Floats:
        had = self._passes(care)[self._counted] - 1
        return np.asarray(self._errors[had, np.arange(had.size)])

    def _mean(self, errors: Floats) -> float:
        weights = self._labels.sample_weights()
        return float(errors.mean() if weights is None else weights @ errors / weights.sum())


def _leads(total: NDArray[Any], seen: float, class_axis: int | None) -> NDArray[Any]:
    """By how much each label's leading class leads."""
    if class_axis is None:
        return np.asarray(abs(2 * total - seen))
    first, second = two_greatest(np.moveaxis(total, class_axis, -1))
    return np.asarray(first - second)


def _least(lead: NDArray[Any], counts: Any) -> Floats:
    """The least lead of each sample's labels."""
    rows = np.asarray(lead.reshape(len(lead), -1).min(axis=1))
    if counts is None:
        return rows
    sizes = checked_counts(counts, len(rows))
    starts = np.cumsum(sizes) - sizes
    return np.asarray(np.minimum.reduceat(rows, starts[sizes > 0]))


def _with_labels(labels: Labels, samples: int, counts: Any) -> NDArray[np.intp]:
    """Which of the samples have labels that count."""
    if labels.kept is None or labels.samples == samples:
        return np.arange(samples)
    if counts is None:
        places = np.arange(labels.shape[0])
    else:
        sizes = checked_counts(counts, labels.shape[0])
        places = np.repeat(np.arange(samples), sizes[sizes > 0])
    return np.unique(places[labels.kept // labels.sites])
