"""What a greedy search makes least: of each score the cheapest way to try every member."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..score.measures import Measure
from .held_out import HeldOut
from .search import Floats, Objective, Quadratic

# Rows at a time: what is looked at stays in a processor's cache.
_ROWS: Final = 1 << 13

# Likelihoods multiplied before one logarithm is taken: 8 * 126 < 1022 bits.
_FACTORS: Final = 8


class _LogLoss(Objective):
    """A log-loss needs no more of a member than the likelihood of each label."""

    def __init__(self, held_out: HeldOut, members: NDArray[np.intp]) -> None:
        super().__init__(len(members))
        self.rows = len(held_out.likelihoods)
        self.weights, self.total = held_out.weights, float(self.rows)
        if self.weights is not None:
            self.weights = np.append(self.weights, np.zeros(-self.rows % _FACTORS))
            self.total = float(self.weights.sum())
        # Padded with ones, whose logarithm is 0.
        self.likelihoods = np.ones((self.rows + -self.rows % _FACTORS, len(members)))
        self.likelihoods[: self.rows] = held_out.likelihoods[:, members]

    def score(self) -> float:
        mean = self.likelihoods @ (self.counts / self.counts.sum())
        return -float(_log_sums(mean[:, None], self.weights)[0]) / self.total

    def with_each(self) -> Floats:
        size = self.counts.sum() + 1
        total = np.zeros(len(self.counts))
        for start in range(0, len(self.likelihoods), _ROWS):
            at = slice(start, start + _ROWS)
            part = self.likelihoods[at]
            weights = None if self.weights is None else self.weights[at]
            total += _log_sums((part @ self.counts)[:, None] / size + part / size, weights)
        return -total / self.total


def _log_sums(values: Floats, weights: Floats | None) -> Floats:
    """The sums of the logarithms along the first axis; unweighted, one logarithm for 8 values."""
    if weights is not None:
        return np.asarray(weights @ np.log(values))
    products = values.reshape(-1, _FACTORS, values.shape[1]).prod(axis=1)
    return np.asarray(np.log(products).sum(axis=0))


class _Summed(Objective):
    """A score that needs every class of every member: all are in memory, and their sum."""

    def __init__(self, members: list[Floats]) -> None:
        super().__init__(len(members))
        self.members, self.total = members, np.zeros_like(members[0])

    def add(self, member: int) -> None:
        super().add(member)
        self.total += self.members[member]

    def clear(self) -> None:
        super().clear()
        self.total[:] = 0


class _Error(_Summed):
    """The share of errors, with the classes along the first axis."""

    def __init__(self, held_out: HeldOut, members: NDArray[np.intp]) -> None:
        super().__init__([np.ascontiguousarray(held_out.rows(int(i)).T) for i in members])
        self.labels, self.classes = held_out.labels, held_out.labels.classes

    def score(self) -> float:
        return self.labels.mean(self.total.argmax(axis=0) != self.classes)

    def with_each(self) -> Floats:
        wrong = np.zeros(len(self.members))
        for start in range(0, len(self.classes), _ROWS):
            at = slice(start, start + _ROWS)
            total, classes = self.total[:, at], self.classes[at]
            weights = None if self.labels.weights is None else self.labels.weights[at]
            columns = np.arange(len(classes))
            for i, member in enumerate(self.members):
                sums = total + member[:, at]
                top = sums.max(axis=0)
                missed = sums[classes, columns] < top
                highest = sums == top
                if np.count_nonzero(highest) > len(classes):  # the first of several counts
                    missed = highest.argmax(axis=0) != classes
                wrong[i] += np.count_nonzero(missed) if weights is None else weights @ missed
        weights = self.labels.weights
        return wrong / (len(self.classes) if weights is None else weights.sum())


class _Recomputed(_Summed):
    """A score that knows no shorter way than to form every mean and score all of its rows."""

    def __init__(self, held_out: HeldOut, members: NDArray[np.intp], measure: Measure) -> None:
        super().__init__([held_out.rows(int(i)) for i in members])
        self.labels, self.measure = held_out.labels, measure

    def score(self) -> float:
        return self.measure.value(self.total / self.counts.sum(), self.labels)

    def with_each(self) -> Floats:
        size = self.counts.sum() + 1
        means = ((self.total + member) / size for member in self.members)
        return np.array([self.measure.value(mean, self.labels) for mean in means])


def objective_of(held_out: HeldOut, members: NDArray[np.intp], measure: Measure) -> Objective:
    """The objective of a measure, for some of the members."""
    quick = _OBJECTIVES.get(measure.name)
    return quick(held_out, members) if quick else _Recomputed(held_out, members, measure)


_OBJECTIVES: Final[dict[str, Callable[[HeldOut, NDArray[np.intp]], Objective]]] = {
    "log_loss": _LogLoss,
    "brier": lambda held_out, members: Quadratic(held_out.error_products(members)),
    "error": _Error,
}
