"""Intervals in which the targets of a regression lie with a given probability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, shown
from ..arrays import as_floats, as_numpy, check_share, namespace, narrow, shape_of, widen
from ..score.normal import normal_cdf, normal_density, normal_quantile
from ..score.regression import normals
from ..score.targets import Targets, as_targets

Floats = NDArray[np.float64]

# Newton's steps to a quantile of a mixture, of which some ten are usual; then it is halves.
_STEPS: Final = 200


def prediction_interval(means: Any, variances: Any, *, level: float = 0.9) -> tuple[Any, Any]:
    """The central interval of normal distributions: `m - z s` to `m + z s`, `s = sqrt(v)`.

    `z` is the quantile of `(1 + level) / 2` of the standard normal distribution. It holds
    the share `level` of targets if they are as the prediction says; `interval_coverage`
    tells on held-out data whether they are, `fit_conformal_interval` makes it so.

    Args:
        means: the predicted means, of any shape and framework.
        variances: the predicted variances, of that shape; at least 0.
        level: the probability of the interval, between 0 and 1.

    Returns:
        The lower and the upper ends, of the kind, dtype and device of `means`.

    Raises:
        EnsembleError: a level that is none, shapes that differ, or a negative variance.

    Example:
        >>> low, high = prediction_interval(np.array([1.0]), np.array([4.0]), level=0.95)
        >>> low.round(2).tolist(), high.round(2).tolist()
        ([-2.92], [4.92])
    """
    z = normal_quantile((1 + check_share("level", level)) / 2)
    m, s = widen(means), _deviations(means, variances)
    return narrow(m - z * s, means), narrow(m + z * s, means)


def mixture_interval(
    means: Any, variances: Any, *, level: float = 0.9, weights: Sequence[float] | None = None
) -> tuple[Floats, Floats]:
    """The central interval of the mixture of the members' normal distributions, by its quantiles.

    From `q((1 - level) / 2)` to `q((1 + level) / 2)`, where `sum(w F((q(p) - m) / s)) = p`
    with the standard normal's `F`. Unlike the normal of the same mean and variance, it is
    exact where members disagree by more than their own standard deviations.

    Args:
        means: the members' means, with the members along the first axis.
        variances: their variances, of the same shape; positive.
        level: the probability of the interval, between 0 and 1.
        weights: of the members; by default all the same.

    Returns:
        The lower and the upper ends, in numpy's float64, to rounding.

    Raises:
        EnsembleError: as `prediction_interval`; no members, or weights that do not fit.

    Example:
        >>> low, high = mixture_interval([[-5.0], [5.0]], [[1.0], [1.0]], level=0.9)
        >>> low.round(2).tolist(), high.round(2).tolist()
        ([-6.28], [6.28])
    """
    share = check_share("level", level)
    y = as_targets(as_floats(means))  # for its checks of shapes and numbers
    m, v = (each.reshape(y.shape) for each in normals(means, variances, y))
    w = np.ones(len(m)) if weights is None else as_floats(weights)
    if w.shape != (len(m),) or not (np.isfinite(w).all() and (w >= 0).all() and w.any()):
        raise EnsembleError(
            f"Argument `weights` must have a finite weight of at least 0 for each of {len(m)} "
            f"members, and one above 0. Received: {shown(weights)}"
        )
    w /= w.sum()
    used = w > 0
    ends = [
        _mixture_quantile(m[used], np.sqrt(v[used]), w[used], p)
        for p in ((1 - share) / 2, (1 + share) / 2)
    ]
    return ends[0], ends[1]


def _mixture_quantile(m: Floats, s: Floats, w: Floats, p: float) -> Floats:
    """By Newton's steps, which must stay between what is known to be below and above."""
    each = m + normal_quantile(p) * s
    low, high = each.min(axis=0), each.max(axis=0)
    x = np.tensordot(w, each, 1)
    for _ in range(_STEPS):
        z = (x - m) / s
        away = np.tensordot(w, normal_cdf(z), 1) - p
        low, high = np.where(away < 0, x, low), np.where(away > 0, x, high)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            step = away / np.tensordot(w, normal_density(z) / s, 1)
        found = np.where(away == 0, x, x - step)
        found = np.where((found > low) & (found < high), found, (low + high) / 2)
        found = np.where(away == 0, x, found)
        if (np.abs(found - x) <= 4e-16 * np.maximum(np.abs(x), np.sqrt((s * s).min(axis=0)))).all():
            return np.asarray(found)
        x = found
    return np.asarray(x)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConformalInterval:
    """Intervals that hold a share of new targets, whatever their distribution.

    Args:
        level: that share.
        quantile: by what an interval goes beyond the prediction on either side: in the
            targets' unit, or where it is `normalized` in predicted standard deviations. One
            for each target of a sample: of shape (), or that of one sample's targets.
        normalized: whether the width follows the predicted standard deviation.
        samples: on how many it was fitted; of several targets, the fewest that count.
    """

    level: float
    quantile: Floats
    normalized: bool
    samples: int

    def interval(self, means: Any, variances: Any = None) -> tuple[Any, Any]:
        """The lower and the upper ends for predictions: `m - q s` and `m + q s`.

        Args:
            means: the predicted means, of any framework.
            variances: the predicted variances, where the interval is normalized.

        Returns:
            Of the kind, dtype and device of `means`.

        Raises:
            EnsembleError: variances are missing, or not asked for; or shapes that differ.
        """
        if (variances is not None) != self.normalized:
            raise EnsembleError(
                "Argument `variances` must be given where the interval was fitted with some, and "
                f"only there. Received: {'none' if variances is None else 'some'}"
            )
        m = widen(means)
        if tuple(m.shape[1:]) not in (self.quantile.shape, (*self.quantile.shape, 1)):
            raise EnsembleError(
                f"Argument `means` must have {self.quantile.shape} targets for each sample, as the "
                f"data of the fit had. Received: shape {tuple(m.shape)}"
            )
        q = self.quantile.reshape(m.shape[1:])
        away = m.new_tensor(q) if hasattr(m, "new_tensor") else q
        if self.normalized:
            away = away * _deviations(means, variances)
        return narrow(m - away, means), narrow(m + away, means)


def fit_conformal_interval(
    means: Any, targets: Any, *, level: float = 0.9, variances: Any = None, mask: Any = None
) -> ConformalInterval:
    """Intervals from the residuals of held-out data, which hold at least a share of new targets.

    Split conformal prediction: with the scores `|y - m|`, or `|y - m| / s` where variances are
    given, of `n` held-out samples, the interval is `m - q s` to `m + q s`, where `q` is the
    `ceil((n + 1) level)`-th smallest score. If the new samples come from where these came
    from (in any order), it holds their target with a probability from `level` to `level
    + 1 / (n + 1)`, whatever the model; over other held-out data, the probability that one fit
    gives is distributed as Beta(k, n + 1 - k), `k = ceil((n + 1) level)`. Of several targets,
    each has an interval and this guarantee of its own.

    Args:
        means: the predicted means for held-out data, on which no member was trained and
            nothing else was fitted: of the targets' shape.
        targets: the truth.
        level: the share to hold, between 0 and 1.
        variances: the predicted variances, of the same shape, positive; then the width
            follows the predicted standard deviation.
        mask: True where a target counts, as in `cosanneal.ensemble.score.regression`.

    Raises:
        EnsembleError: a level that is none; too few samples for it; otherwise as for
            `gaussian_nll`.

    Example:
        >>> random = np.random.default_rng(0)
        >>> y = random.normal(size=2000)
        >>> found = fit_conformal_interval(np.zeros(1000), y[:1000], level=0.9)
        >>> low, high = found.interval(np.zeros(1000))
        >>> bool(abs(np.mean((low <= y[1000:]) & (y[1000:] <= high)) - 0.9) < 0.03)
        True

    Source: Lei et al., "Distribution-Free Predictive Inference for Regression" (2018),
    Theorem 2.2 and section 5.2; Vovk, "Conditional Validity of Inductive Conformal Predictors"
    (2012), for the distribution; MAPIE's `SplitConformalRegressor`.
    """
    share = check_share("level", level)
    y = as_targets(targets, mask=mask)
    if variances is None:
        scores = np.abs(y.values - y.numbers(means, "means"))
    else:
        m, v = normals(means, variances, y)
        scores = np.abs(y.values - m) / np.sqrt(v)
    columns = _by_target(scores, y)
    fewest = min(len(column) for column in columns)
    # Rounded, for 0.7 * 10 must not be above 7.
    ranks = [math.ceil(round((len(column) + 1) * share, 9)) for column in columns]
    if any(rank > len(column) for rank, column in zip(ranks, columns, strict=True)):
        raise EnsembleError(
            f"There must be at least {math.ceil(round(share / (1 - share), 9))} samples of each "
            f"target for a level of {share:g}. Received: {fewest}"
        )
    quantile = np.array(
        [np.partition(each, k - 1)[k - 1] for each, k in zip(columns, ranks, strict=True)]
    )
    return ConformalInterval(
        level=share,
        quantile=quantile.reshape(y.shape[1:]),
        normalized=variances is not None,
        samples=fewest,
    )


def _deviations(means: Any, variances: Any) -> Any:
    """The roots of variances, as `widen` makes them."""
    m, v = shape_of(means), widen(variances)
    if m != tuple(v.shape):
        raise EnsembleError(
            "Arguments `means` and `variances` must have one shape. Received: "
            f"{m} and {tuple(v.shape)}"
        )
    if not (v >= 0).all():
        raise EnsembleError(
            f"Argument `variances` must be at least 0. Received: one of {float(v.min()):.6g}; of "
            "log-variances, give their exp"
        )
    return namespace(v).sqrt(v)


def _by_target(scores: Floats, y: Targets) -> list[Floats]:
    """The scores of each target of a sample."""
    if y.kept is None:
        return list(scores.reshape(y.samples, -1).T)
    spread = np.full(y.shape, np.nan)
    spread[as_numpy(y.kept)] = scores
    return [column[~np.isnan(column)] for column in spread.reshape(y.samples, -1).T]
