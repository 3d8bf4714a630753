"""Which members to take, and at what weight: chosen on held-out data.

Every choice is one of the weights `w` of the mean `sum(w p)` of the members'
probabilities, on the simplex: `w >= 0`, `sum(w) = 1`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError
from ..arrays import SMALLEST, as_labels, as_numpy, as_rows
from ..score.metrics import METRICS, Metric, check_metric, row_scores
from .search import Objective, Quadratic, greedy, least_log_loss

Floats = NDArray[np.float64]

# Rows at a time: what is looked at stays in a processor's cache.
_ROWS: Final = 1 << 13

# Numbers of all members at a time: 32 MiB.
_NUMBERS: Final = 1 << 22

# Likelihoods multiplied before one logarithm is taken: 8 * 126 < 1022 bits.
_FACTORS: Final = 8


class HeldOut:
    """The members' predictions for data that none of them was trained on, and its labels.

    Args:
        predictions: the members' probabilities, oldest first: a sequence of
            arrays of one shape (memory-mapped ones are read when needed), or
            one array with the members along its first axis.
        labels: the true classes, as `cosanneal.ensemble.metrics` says.
        class_axis: the axis of the classes in one member's array, or None.
        counts: how many labels each sample has, where that differs.

    Raises:
        EnsembleError: no members, shapes that differ or do not fit, labels that
            are no classes, numbers that are no probabilities.

    Example:
        >>> members = [[[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.7, 0.3]]]
        >>> held_out = HeldOut(members, [0, 1])
        >>> len(held_out), held_out.scores([0.5, 0.5])["error"]
        (2, 0.5)
    """

    def __init__(
        self,
        predictions: Sequence[Any] | Any,
        labels: Any,
        *,
        class_axis: int | None = -1,
        counts: Any = None,
    ) -> None:
        self._members = [as_numpy(member) for member in predictions]
        shapes = {member.shape for member in self._members}
        if len(shapes) != 1:
            raise EnsembleError(
                "Argument `predictions` must have at least one member, and all of one shape. "
                f"Received: {len(self._members)} members"
                + (f" of shapes {sorted(shapes)}" if shapes else "")
            )
        self.shape = shapes.pop()
        self.class_axis = class_axis
        self.labels = as_labels(labels, self.shape, class_axis)
        if counts is not None:
            self.labels = self.labels.counted(counts)
        # One row for each label, one column for each member. A mean of so many
        # numbers of at least 2**-126 is at least that too.
        self.likelihoods: Floats = np.empty((len(self.labels.classes), len(self)))
        for i in range(len(self)):
            rows = self.rows(i)
            self.likelihoods[:, i] = np.maximum(self.labels.likelihoods(rows), SMALLEST)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return self.labels.samples

    def rows(self, member: int, samples: slice = slice(None)) -> Floats:
        """A member's probabilities for some of its first axis, one row for each label."""
        return as_rows(self._members[member][samples], self.class_axis)

    def error_products(self, members: NDArray[np.intp]) -> Floats:
        """`mean(sum_k (p_a - y)_k (p_b - y)_k)` for every two of some members."""
        products = np.zeros((len(members), len(members)))
        length = self.shape[0]
        numbers = math.prod(self.shape) // length * len(members)
        at_once = max(_NUMBERS // numbers, 1)
        classes = self.labels.classes.reshape(length, -1)
        for start in range(0, length, at_once):
            at = slice(start, start + at_once)
            errors = np.stack([self.rows(int(member), at) for member in members])
            labels = classes[at].reshape(-1)
            errors[:, np.arange(len(labels)), labels] -= 1
            flat = errors.reshape(len(members), -1)
            products += flat @ flat.T
        return products / len(self.labels.classes)

    def pooled(self, weights: Sequence[float] | Floats) -> Floats:
        """`sum(w p)`, one row for each label."""
        total: Floats | None = None
        for i, weight in enumerate(weights):
            if weight:
                part = weight * self.rows(i)
                total = part if total is None else np.add(total, part, out=total)
        if total is None or len(weights) != len(self):
            raise EnsembleError(
                f"Argument `weights` must have a weight for each of {len(self)} members, and one "
                f"above 0. Received: {list(weights)}"
            )
        return total

    def scores(self, weights: Sequence[float] | Floats) -> dict[str, float]:
        """The log-loss, the Brier score and the error of `pooled(weights)`."""
        return self.scores_of(self.pooled(weights))

    def scores_of(self, rows: Floats) -> dict[str, float]:
        """The log-loss, the Brier score and the error of rows of probabilities."""
        return {name: float(row_scores(name, rows, self.labels).mean()) for name in METRICS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Weights for the members, and what they score on the held-out data.

    Args:
        weights: one for each member; they sum to 1.
        score: the score that was made least.
        path: that score after each step of the search.
        gap: for a convex search, by how much at most the score is above the
            least one there is.
    """

    weights: tuple[float, ...]
    score: float
    path: tuple[float, ...] = ()
    gap: float | None = None


def last_scores(held_out: HeldOut) -> list[dict[str, float]]:
    """The scores of the mean of the last 1, 2, ... members, in the paper's order.

    Example:
        >>> members = [[[0.1, 0.9]], [[0.6, 0.4]], [[0.8, 0.2]]]
        >>> [round(row["log_loss"], 3) for row in last_scores(HeldOut(members, [0]))]
        [0.223, 0.357, 0.693]

    Source: Huang et al., "Snapshot Ensembles" (2017), section 4.3.
    """
    scores = []
    total = np.zeros_like(held_out.rows(0))
    for m in range(1, len(held_out) + 1):
        total += held_out.rows(len(held_out) - m)
        scores.append(held_out.scores_of(total / m))
    return scores


def last_weights(members: int, last: int) -> tuple[float, ...]:
    """The weights of the mean of the last so many of the members."""
    return (0.0,) * (members - last) + (1 / last,) * last


def select_last(held_out: HeldOut, metric: Metric = "log_loss") -> Selection:
    """The mean of the last m members, with the m of the best score; of equals the least m.

    Args:
        held_out: the members' predictions.
        metric: what to make least: "log_loss", "brier" or "error".

    Returns:
        The selection; its path has the score of each m from 1.

    Raises:
        EnsembleError: no such metric.

    Example:
        >>> members = [[[0.1, 0.9]], [[0.9, 0.1]], [[0.8, 0.2]]]
        >>> select_last(HeldOut(members, [0])).weights
        (0.0, 0.5, 0.5)
    """
    path = tuple(row[check_metric(metric)] for row in last_scores(held_out))
    best = path.index(min(path))
    return Selection(weights=last_weights(len(held_out), best + 1), score=path[best], path=path)


def select_greedy(
    held_out: HeldOut,
    metric: Metric = "log_loss",
    *,
    steps: int = 50,
    initial: int | None = None,
    bags: int = 0,
    bag_fraction: float = 0.5,
    seed: int = 0,
) -> Selection:
    """Members picked one after the other, with replacement, each for the best score of the mean.

    It starts with the `initial` best members by their own score, then adds
    `steps` times the member with which the mean scores best, and returns the
    best mean that it passed. Of equal members the later one is picked. With
    `bags`, it does so among each of so many random parts of the members, and
    takes the mean of what they return, which is less prone to fit the noise.

    Args:
        held_out: the members' predictions.
        metric: what to make least: "log_loss", "brier" or "error", which alone
            needs all predictions in memory, in float64.
        steps: how many picks.
        initial: with how many to start; by default as many as score best.
        bags: how many random parts; 0 picks among all members, once.
        bag_fraction: the share of the members in each part.
        seed: of the parts.

    Returns:
        The selection; its path has the score after each pick (not with bags).

    Raises:
        EnsembleError: no such metric, or a number that cannot be.

    Example:
        >>> members = [[[0.9, 0.1], [0.8, 0.2]], [[0.2, 0.8], [0.3, 0.7]]]
        >>> [round(w, 3) for w in select_greedy(HeldOut(members, [0, 1]), steps=7).weights]
        [0.556, 0.444]

    Source: Caruana et al., "Ensemble Selection from Libraries of Models" (2004),
    section 2; the bags are those of section 2.3.
    """
    metric = check_metric(metric)
    weights, path = greedy(
        lambda members: _OBJECTIVES[metric](held_out, members),
        len(held_out),
        steps=steps,
        initial=initial,
        bags=bags,
        bag_fraction=bag_fraction,
        seed=seed,
    )
    score = min(path) if path else held_out.scores(weights)[metric]
    return Selection(weights=tuple(weights.tolist()), score=score, path=path)


class _LogLoss(Objective):
    """A log-loss needs no more of a member than the likelihood of each label."""

    def __init__(self, held_out: HeldOut, members: NDArray[np.intp]) -> None:
        super().__init__(len(members))
        self.rows = len(held_out.likelihoods)
        # Padded with ones, whose logarithm is 0.
        self.likelihoods = np.ones((self.rows + -self.rows % _FACTORS, len(members)))
        self.likelihoods[: self.rows] = held_out.likelihoods[:, members]

    def score(self) -> float:
        mean = self.likelihoods @ (self.counts / self.counts.sum())
        return -float(_log_sums(mean[:, None])[0]) / self.rows

    def with_each(self) -> Floats:
        size = self.counts.sum() + 1
        total = np.zeros(len(self.counts))
        for start in range(0, len(self.likelihoods), _ROWS):
            part = self.likelihoods[start : start + _ROWS]
            total += _log_sums((part @ self.counts)[:, None] / size + part / size)
        return -total / self.rows


def _log_sums(values: Floats) -> Floats:
    """The sums of the logarithms along the first axis, with a logarithm for each 8 values."""
    products = values.reshape(-1, _FACTORS, values.shape[1]).prod(axis=1)
    return np.asarray(np.log(products).sum(axis=0))


class _Error(Objective):
    """Errors need every class of every member, in memory: classes along the first axis."""

    def __init__(self, held_out: HeldOut, members: NDArray[np.intp]) -> None:
        super().__init__(len(members))
        self.classes = held_out.labels.classes
        self.members = [np.ascontiguousarray(held_out.rows(int(i)).T) for i in members]
        self.total = np.zeros_like(self.members[0])

    def add(self, member: int) -> None:
        super().add(member)
        self.total += self.members[member]

    def clear(self) -> None:
        super().clear()
        self.total[:] = 0

    def score(self) -> float:
        return float(np.mean(self.total.argmax(axis=0) != self.classes))

    def with_each(self) -> Floats:
        wrong = np.zeros(len(self.members))
        for start in range(0, len(self.classes), _ROWS):
            at = slice(start, start + _ROWS)
            total, classes = self.total[:, at], self.classes[at]
            columns = np.arange(len(classes))
            for i, member in enumerate(self.members):
                sums = total + member[:, at]
                top = sums.max(axis=0)
                missed = sums[classes, columns] < top
                highest = sums == top
                if np.count_nonzero(highest) > len(classes):  # the first of several counts
                    missed = highest.argmax(axis=0) != classes
                wrong[i] += np.count_nonzero(missed)
        return wrong / len(self.classes)


_OBJECTIVES: Final[dict[Metric, Callable[[HeldOut, NDArray[np.intp]], Objective]]] = {
    "log_loss": _LogLoss,
    "brier": lambda held_out, members: Quadratic(held_out.error_products(members)),
    "error": _Error,
}


def select_weights(
    held_out: HeldOut, *, tolerance: float = 1e-10, iterations: int = 200
) -> Selection:
    """The weights of the least log-loss: `min_w -mean(log(sum_m w_m p_m[y]))` over the simplex.

    The log-loss is convex in `w`, and `max_m mean(p_m[y] / sum_m w_m p_m[y]) - 1`
    is by how much it can at most be above the least one: the duality gap. The
    search, by quadratic models whose minimum over `w >= 0` is exact, ends when
    the gap is below the tolerance. Members that do not help get weight 0.

    Args:
        held_out: the members' predictions.
        tolerance: the gap to reach, in nats.
        iterations: how many models at most; some ten are usual.

    Returns:
        The selection, with its gap; its path has the log-loss of each iterate.

    Warns:
        RuntimeWarning: the gap was not reached.

    Example:
        >>> members = [[[0.9, 0.1], [0.8, 0.2]], [[0.2, 0.8], [0.3, 0.7]]]
        >>> found = select_weights(HeldOut(members, [0, 1]))
        >>> [round(w, 4) for w in found.weights], found.gap < 1e-10
        ([0.5571, 0.4429], True)

    Source: Kim et al., "A Fast Algorithm for Maximum Likelihood Estimation of
    Mixture Proportions Using Sequential Quadratic Programming" (2020); the gap
    is that of Lindsay, "The Geometry of Mixture Likelihoods" (1983).
    """
    found = least_log_loss(held_out.likelihoods, tolerance=tolerance, iterations=iterations)
    return Selection(
        weights=tuple(found.weights.tolist()), score=found.score, path=found.path, gap=found.gap
    )
