"""The members of a regression on held-out data: means of them, fitted and scored."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, plural, shown
from ..arrays import SMALLEST, as_numpy, shape_of
from ..predict.gaussian import is_pair, pair_in, pair_of
from ..predict.pooling import ValuePool, negative_variance
from ..score.evidence import bootstrap_interval
from ..score.quantiles import pinball, quantile_rows
from ..score.regression import (
    REGRESSION_METRICS,
    RegressionMetric,
    check_regression_metric,
    row_scores,
)
from ..score.targets import Targets, as_targets
from .baseline import check_baseline
from .search import Objective, Quadratic
from .variance import noise_of, row_scale, row_spread

Floats = NDArray[np.float64]

# A score of the prediction (values, or a tuple of means and variances) and the targets, in
# numpy's float64; lower is better.
Scorer: TypeAlias = Callable[[Any, Any], float]
Regression: TypeAlias = Literal["values", "gaussian"]

# Resamples for the interval of a score that is known of all samples together alone.
_RESAMPLES: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fitted:
    """A mean of members, with the variance that the held-out data give it, and its scores.

    Args:
        prediction: the mean for each number that counts, and its variance, with the scale or
            the noise, where there is one.
        scale: of the variances.
        noise: of the values; None where it was not fitted.
        scores: by name.
    """

    prediction: tuple[Floats, ...]
    scale: float
    noise: Floats | None
    scores: dict[str, float]


class HeldOutRegression:
    """The members' predictions for data that none of them was trained on, and their targets.

    Args:
        predictions: the members' outputs, oldest first; see `fit_regression`.
        targets: the truth.
        outputs: "values" or "gaussian".
        metric: the score's name, or the score.
        variance: whether a variance is fitted, where one can be.
        quantiles: which the values along the last axis are; None where they are none.
        sample_weight: how much each target counts.
        mask: True where a target counts.
        counts: how many places along the first axis each sample has, where it is not one.

    Raises:
        EnsembleError: no members, shapes that differ or do not fit, or numbers that are no
            such outputs.
    """

    def __init__(
        self,
        predictions: Sequence[Any] | Any,
        targets: Any,
        *,
        outputs: Regression,
        metric: RegressionMetric | Scorer,
        variance: bool = True,
        quantiles: tuple[float, ...] | None = None,
        sample_weight: Any = None,
        mask: Any = None,
        counts: Any = None,
    ) -> None:
        self.targets: Targets = as_targets(
            targets, sample_weight=sample_weight, mask=mask, counts=counts
        )
        self.outputs: Regression = outputs
        self.quantiles: tuple[float, ...] | None = quantiles
        self.fits: bool = variance
        self.scorer: Scorer | None = metric if callable(metric) else None
        self.metric: str = name_of(metric)
        self._members: list[tuple[Any, ...]] = []
        for member in predictions:
            if outputs == "values" and isinstance(member, tuple | dict):
                raise EnsembleError(
                    "Argument `predictions` must have one array for each member, for "
                    f"outputs='values'. Received: a {type(member).__name__}; of pairs of means and "
                    "variances give outputs='gaussian'"
                )
            parts = pair_in(member) if outputs == "gaussian" else (member,)
            self._members.append(tuple(map(as_numpy, parts)))
        shapes = {shape_of(part) for parts in self._members for part in parts}
        if len(shapes) != 1:
            raise EnsembleError(
                "Argument `predictions` must have at least one member, and all of one shape. "
                f"Received: {plural(len(self._members), 'member')}"
                + (f" of shapes {sorted(shapes)}" if shapes else "")
            )
        for i in range(len(self)):
            self.numbers(i)  # for their checks

    def __len__(self) -> int:
        return len(self._members)

    def of_other(self, outputs: Any, *, fit: bool = True) -> Fitted:
        """Another model's outputs for the same targets, fitted and scored as a member's.

        Args:
            outputs: the other model's.
            fit: whether the variance is fitted, if it is one that can be.

        Raises:
            EnsembleError: they are not such as a member's.
        """
        pair = self.outputs == "gaussian"
        parts = tuple(map(as_numpy, pair_in(outputs) if pair else (outputs,)))
        for part in parts:
            check_baseline(part.shape, self._members[0][0].shape)
        found = copy.copy(self)
        found._members = [parts]
        try:
            return found.fitted(*found.moments([1.0]), fit=fit)
        except EnsembleError as error:
            raise EnsembleError(f"Argument `baseline`: {error}") from error

    def numbers(self, member: int) -> tuple[Floats, ...]:
        """A member's numbers for the targets that count: values, or means and variances."""
        mean, *more = self._members[member]
        if self.quantiles is not None:
            return (quantile_rows(mean, self.targets, self.quantiles),)
        m = self.targets.numbers(mean, "predictions")
        if not more:
            return (m,)
        v = self.targets.numbers(more[0], "predictions")
        if not (v >= 0).all():
            raise negative_variance(float(v.min()), f"member {member}")
        return m, v

    def last_moments(self) -> Iterator[tuple[Floats, Floats]]:
        """The mean and the variance of the last 1, 2, ... members."""
        pool = ValuePool[Floats]()
        for i in reversed(range(len(self))):
            mean, *more = self.numbers(i)
            pool.update(mean, variances=more[0] if more else None)
            yield pool.mean, pool.variance

    def moments(self, weights: Sequence[float] | Floats) -> tuple[Floats, Floats]:
        """The mean and the variance of the members at some weights."""
        pool = ValuePool[Floats]()
        for i, weight in enumerate(weights):
            if weight:
                mean, *more = self.numbers(i)
                pool.update(mean, float(weight), variances=more[0] if more else None)
        return pool.mean, pool.variance

    def fitted(self, mean: Floats, variance: Floats, *, fit: bool = True) -> Fitted:
        """A mean and a variance of members, with what the data give it, and scored.

        Args:
            mean: for each number.
            variance: likewise.
            fit: whether the variance is fitted, if it is one that can be.
        """
        y, scale, noise = self.targets, 1.0, None
        known: Floats | None = None
        if self.outputs == "gaussian":
            scale = row_scale(mean, variance, y) if fit and self.fits else 1.0
            known = scale * variance
        elif self.quantiles is None and fit and self.fits:
            scale, noise = row_spread(mean, variance, y)
            known = scale * variance + noise_of(noise, y)
        prediction = (mean,) if known is None else (mean, known)
        scores = {name: self.score(name, prediction) for name in self._names(known is not None)}
        return Fitted(prediction=prediction, scale=scale, noise=noise, scores=scores)

    def trial(self, mean: Floats, variance: Floats) -> float:
        """The score to choose by of a mean and a variance; what it does not need is not fitted."""
        pairs = self.scorer is not None and self.outputs == "gaussian"
        if pairs or self.metric in ("gaussian_nll", "crps"):
            return self.fitted(mean, variance).scores[self.metric]
        return self.score(self.metric, (mean,))

    def plain(self, mean: Floats, variance: Floats) -> tuple[Floats, ...]:
        """A mean and a variance as a prediction, of which values have none of their own."""
        return (mean, variance) if self.outputs == "gaussian" else (mean,)

    def chosen(
        self, mean: Floats, variance: Floats, scale: float, noise: tuple[float, ...] | None
    ) -> tuple[Floats, ...]:
        """The prediction with the scale and the noise of a choice."""
        if self.outputs == "gaussian":
            return mean, scale * variance
        if noise is None:
            return (mean,)
        return mean, scale * variance + noise_of(np.array(noise), self.targets)

    def _names(self, with_variance: bool) -> list[str]:
        names = ["pinball"] if self.quantiles is not None else ["mse", "mae"]
        if with_variance:
            names.append("gaussian_nll")
        return [*dict.fromkeys([*names, self.metric])]

    def score(self, name: str, prediction: tuple[Floats, ...]) -> float:
        """A score of a prediction for the targets that count.

        Raises:
            EnsembleError: of the user's own score, that it gives no number.
        """
        if name != self.metric or self.scorer is None:
            return self.targets.mean(self.rows(name, prediction))
        return self._own(prediction, slice(None))

    def rows(self, name: str, prediction: tuple[Floats, ...]) -> Floats:
        """The score of each target that counts."""
        y = self.targets
        if name == "pinball":
            losses = pinball(y.values, prediction[0], self.quantiles or ())
            return np.asarray(losses.mean(axis=-1))
        mean, *more = prediction
        return row_scores(name, (mean, *(np.maximum(v, SMALLEST) for v in more)), y)

    def differences(self, first: Fitted, than: Fitted, seed: int) -> tuple[float, float]:
        """The 95 % interval of the difference of two predictions' scores."""
        if self.scorer is None:
            both = [
                self.targets.per_sample(self.rows(self.metric, each.prediction))
                for each in (first, than)
            ]
            return bootstrap_interval(both[0] - both[1], seed=seed)
        random, drawn = np.random.default_rng(seed), []
        for _ in range(_RESAMPLES):
            at = self.targets.drawn(random)
            drawn.append(self._own(first.prediction, at) - self._own(than.prediction, at))
        low, high = np.quantile(drawn, [0.025, 0.975])
        return float(low), float(high)

    def _own(self, prediction: tuple[Floats, ...], at: Any) -> float:
        """The user's own score of some samples."""
        y, more = self.targets, () if self.quantiles is None else (len(self.quantiles),)
        parts = tuple(each.reshape(*y.shape, *more)[at] for each in prediction)
        given = parts if self.outputs == "gaussian" else parts[0]
        found: Any = cast(Scorer, self.scorer)(given, y.values.reshape(y.shape)[at])
        try:
            score = math.nan if isinstance(found, str) else float(found)
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise EnsembleError(
                f"Function `metric` must return a finite number. Received: {shown(found)}"
            )
        return score

    def products(self, members: NDArray[np.intp]) -> Floats:
        """`mean((f_a - y) (f_b - y))` for every two of some members."""
        y = self.targets
        found = np.zeros((len(members), len(members)))
        for a, first in enumerate(members):
            errors = self.numbers(int(first))[0] - y.values
            for b, second in enumerate(members[: a + 1]):
                others = self.numbers(int(second))[0] - y.values
                found[a, b] = found[b, a] = y.mean(errors * others)
        return found

    def likelihoods(self) -> tuple[Floats, float]:
        """The members' densities at each target, over the greatest; and its mean logarithm."""
        logs = np.stack(
            [-self.rows("gaussian_nll", self.numbers(i)) for i in range(len(self))], axis=1
        )
        tops = logs.max(axis=1)
        return np.exp(logs - tops[:, None]), self.targets.mean(tops)

    def objective(self, members: NDArray[np.intp]) -> Objective:
        """The score of means of some members."""
        return (
            Quadratic(self.products(members)) if self.metric == "mse" else _Moments(self, members)
        )


class _Moments(Objective):
    """A score of means and variances needs all members' numbers, in memory."""

    def __init__(self, held_out: HeldOutRegression, members: NDArray[np.intp]) -> None:
        super().__init__(len(members))
        self._held_out = held_out
        numbers = [held_out.numbers(int(i)) for i in members]
        # From their middle, so that squares cost no digits.
        self._centre = np.mean([each[0] for each in numbers], axis=0)
        self._means = [each[0] - self._centre for each in numbers]
        self._mean = self._square = np.zeros_like(self._centre)
        self._squares = [
            mean**2 + (each[1] if len(each) > 1 else 0.0)
            for mean, each in zip(self._means, numbers, strict=True)
        ]

    def add(self, member: int) -> None:
        super().add(member)
        self._mean = self._mean + self._means[member]
        self._square = self._square + self._squares[member]

    def clear(self) -> None:
        super().clear()
        self._mean, self._square = np.zeros_like(self._centre), np.zeros_like(self._centre)

    def score(self) -> float:
        return self._score(self._mean, self._square, self.counts.sum())

    def with_each(self) -> Floats:
        size = self.counts.sum() + 1
        return np.array(
            [
                self._score(self._mean + mean, self._square + square, size)
                for mean, square in zip(self._means, self._squares, strict=True)
            ]
        )

    def _score(self, mean: Floats, square: Floats, size: float) -> float:
        mean = mean / size
        variance = np.maximum(square / size - mean**2, 0)
        return self._held_out.trial(self._centre + mean, variance)


def check_other(baseline: Any, output: Any) -> None:
    """Refuse another model's outputs of another shape than a member's; of pairs, their means'."""
    if is_pair(output) and not is_pair(baseline):  # an array of both is taken apart later
        return
    shapes = [shape_of(pair_of(each)[0] if is_pair(each) else each) for each in (baseline, output)]
    check_baseline(*shapes)


def name_of(metric: object) -> str:
    """What a score is called in a choice: its name, or that of the function."""
    if not callable(metric):
        return check_regression_metric(metric)
    name = str(getattr(metric, "__name__", type(metric).__name__))
    return f"metric {name}" if name in REGRESSION_METRICS else name
