"""How good the predictions of a regression are, on arrays.

Predictions and targets have one shape, with the samples along the first axis: (samples,),
or of several targets (samples, ...); an axis of length 1 at the end may be left out of
one of them. `sample_weight` says how much each sample (or each target) counts, `mask` where
a target counts at all: both of shape (samples,), or of the targets' shape. Means are over all
targets that count. What does not count may be NaN. Quantiles are in
`cosanneal.ensemble.score.quantiles`.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, shown
from ..arrays import check_count, shape_of
from .normal import normal_cdf, normal_density
from .quantiles import check_quantiles, pinball_of
from .targets import Targets, as_targets

Floats = NDArray[np.float64]

RegressionMetric: TypeAlias = Literal["mse", "mae", "gaussian_nll", "crps", "pinball"]

REGRESSION_METRICS: Final[tuple[RegressionMetric, ...]] = get_args(RegressionMetric)

# What a sentence calls them.
REGRESSION_TITLES: Final[dict[str, str]] = {
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "gaussian_nll": "Gaussian negative log-likelihood",
    "crps": "CRPS",
    "pinball": "pinball loss",
}


def mse(values: Any, targets: Any, *, sample_weight: Any = None, mask: Any = None) -> float:
    """The mean squared error of a regression: `mean((f - y)**2)`, in the targets' unit squared.

    Args:
        values: the predictions, of the targets' shape.
        targets: the truth.
        sample_weight: how much each counts, as the module says.
        mask: True where a target counts, as the module says.

    Raises:
        EnsembleError: shapes that do not fit, numbers that are not finite where they
            count, weights or a mask that are none.

    Example:
        >>> mse([1.0, 2.0], [1.0, 4.0]), mse([1.0, 2.0], [1.0, 4.0], sample_weight=[3, 1])
        (2.0, 1.0)
    """
    y = as_targets(targets, sample_weight=sample_weight, mask=mask)
    return y.mean(row_scores("mse", (y.numbers(values),), y))


def rmse(values: Any, targets: Any, *, sample_weight: Any = None, mask: Any = None) -> float:
    """The root of the mean squared error: `sqrt(mean((f - y)**2))`, in the targets' unit.

    Args and errors as for `mse`; of several targets, the root of the mean over all.

    Example:
        >>> round(rmse([1.0, 2.0], [1.0, 4.0]), 4)
        1.4142
    """
    return math.sqrt(mse(values, targets, sample_weight=sample_weight, mask=mask))


def mae(values: Any, targets: Any, *, sample_weight: Any = None, mask: Any = None) -> float:
    """The mean absolute error of a regression: `mean(|f - y|)`, in the targets' unit.

    Args and errors as for `mse`.

    Example:
        >>> mae([1.0, 2.0], [1.0, 4.0])
        1.0
    """
    y = as_targets(targets, sample_weight=sample_weight, mask=mask)
    return y.mean(row_scores("mae", (y.numbers(values),), y))


def gaussian_nll(
    means: Any, variances: Any, targets: Any, *, sample_weight: Any = None, mask: Any = None
) -> float:
    """The mean negative log-likelihood of targets under normal distributions, in nats.

    `mean(log(2 pi v) / 2 + (y - m)**2 / (2 v))`

    Args:
        means: the predicted means, of the targets' shape.
        variances: the predicted variances, of that shape; positive.
        targets: the truth.
        sample_weight: how much each counts, as the module says.
        mask: True where a target counts, as the module says.

    Raises:
        EnsembleError: as for `mse`, or a variance that is not positive.

    Example:
        >>> round(gaussian_nll([0.0, 0.0], [1.0, 1.0], [0.0, 1.0]), 4)
        1.1689

    Source: Lakshminarayanan et al., "Deep Ensembles" (2017), Eq. 1.
    """
    y = as_targets(targets, sample_weight=sample_weight, mask=mask)
    return y.mean(row_scores("gaussian_nll", normals(means, variances, y), y))


def crps(
    means: Any, variances: Any, targets: Any, *, sample_weight: Any = None, mask: Any = None
) -> float:
    """The mean continuous ranked probability score of normal distributions; in the targets' unit.

    `mean(s (z (2 F(z) - 1) + 2 f(z) - 1 / sqrt(pi)))`, with `s = sqrt(v)`, `z = (y - m) / s`
    and the standard normal's `F` and `f`: the integral of `(F((x - m) / s) - [x >= y])**2`.

    Without a variance it is the absolute error. Args and errors as for `gaussian_nll`.

    Example:
        >>> round(crps([0.0], [1.0], [0.0]), 4)
        0.2337

    Source: Gneiting & Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation"
    (2007), Eq. 21.
    """
    y = as_targets(targets, sample_weight=sample_weight, mask=mask)
    return y.mean(row_scores("crps", normals(means, variances, y), y))


def regression_scores(
    metric: RegressionMetric,
    prediction: Any,
    targets: Any,
    *,
    quantiles: Any = None,
    sample_weight: Any = None,
    mask: Any = None,
) -> Floats:
    """The score of each sample, whose mean is the metric: for intervals and paired tests.

    Args:
        metric: "mse", "mae", "gaussian_nll", "crps" or "pinball".
        prediction: values; for "gaussian_nll" and "crps" a tuple of means and variances; for
            "pinball" quantiles along the last axis.
        targets: the truth.
        quantiles: of "pinball": which they are, as in `pinball_loss`.
        sample_weight: how much each counts, as the module says.
        mask: True where a target counts, as the module says.

    Returns:
        Shape (samples,), less the samples of which no target counts. The targets of one
        sample are no independent samples: their mean is one score. With weights, or where a
        mask leaves some samples more targets than others, each is scaled by its share.

    Raises:
        EnsembleError: no such metric; otherwise as for the metric.

    Example:
        >>> regression_scores("mae", [[1.0, 2.0], [3.0, 4.0]], [[1.0, 3.0], [3.0, 4.0]]).tolist()
        [0.5, 0.0]
    """
    check_regression_metric(metric)
    y = as_targets(targets, sample_weight=sample_weight, mask=mask)
    if metric == "pinball":
        return y.per_sample(pinball_of(prediction, y, check_quantiles(quantiles)).mean(axis=-1))
    if metric not in ("gaussian_nll", "crps"):
        return y.per_sample(row_scores(metric, (y.numbers(prediction),), y))
    if not isinstance(prediction, tuple) or len(prediction) != 2:
        raise EnsembleError(
            f"Argument `prediction` must be a tuple of means and variances for metric={metric!r}. "
            f"Received: {type(prediction).__name__}"
        )
    return y.per_sample(row_scores(metric, normals(*prediction, y), y))


def interval_coverage(
    lower: Any, upper: Any, targets: Any, *, sample_weight: Any = None, mask: Any = None
) -> float:
    """The share of targets within their interval: `mean(lower <= y <= upper)`.

    Of intervals at a level, a calibrated prediction covers that share.

    Args:
        lower: the lower ends, of the targets' shape; minus infinity where there is none.
        upper: the upper ends, of that shape; infinity where there is none.
        targets: the truth.
        sample_weight: how much each counts, as the module says.
        mask: True where a target counts, as the module says.

    Raises:
        EnsembleError: as for `mse`; or an interval whose lower end is above its upper.

    Example:
        >>> from cosanneal.ensemble import prediction_interval
        >>> low, high = prediction_interval(np.zeros(2), np.ones(2), level=0.95)
        >>> interval_coverage(low, high, [1.0, 3.0])
        0.5

    Source: `mapie.metrics.regression.regression_coverage_score`.
    """
    y = as_targets(targets, sample_weight=sample_weight, mask=mask)
    low, high = _interval(lower, upper, y)
    return y.mean(np.asarray((low <= y.values) & (y.values <= high), np.float64))


def mean_interval_width(
    lower: Any, upper: Any, *, sample_weight: Any = None, mask: Any = None
) -> float:
    """The mean width of intervals, `mean(upper - lower)`, in the targets' unit.

    Of two that cover as much, the narrower ones say more. Args and errors as for
    `interval_coverage`; infinite where one has no end.

    Example:
        >>> mean_interval_width([0.0, 1.0], [1.0, 4.0])
        2.0

    Source: `mapie.metrics.regression.regression_mean_width_score`.
    """
    y = as_targets(np.zeros(shape_of(lower)), sample_weight=sample_weight, mask=mask)
    low, high = _interval(lower, upper, y)
    return y.mean(high - low)


def regression_calibration_error(
    means: Any,
    variances: Any,
    targets: Any,
    *,
    bins: int = 20,
    sample_weight: Any = None,
    mask: Any = None,
) -> float:
    """How far the shares of targets below the predicted quantiles are from what they should be.

    `mean_k |share(F((y - m) / s) <= k / bins) - k / bins|` over `k = 1 ... bins - 1`

    with the standard normal's `F`: 0 for a prediction whose every quantile has the share
    of targets below it that it says. The share of few samples is off by chance.

    Args:
        means: the predicted means, of the targets' shape.
        variances: the predicted variances, of that shape; positive.
        targets: the truth.
        bins: into how many parts [0, 1] is cut, at least 2.
        sample_weight: how much each counts, as the module says.
        mask: True where a target counts, as the module says.

    Raises:
        EnsembleError: as for `gaussian_nll`, or a number of bins that is none.

    Example:
        >>> round(regression_calibration_error(np.zeros(3), np.ones(3), [-0.7, 0.0, 0.7]), 3)
        0.095

    Source: Kuleshov et al., "Accurate Uncertainties for Deep Learning Using Calibrated
    Regression" (2018), section 3.3, with the absolute value for the square.
    """
    bins = check_count("bins", bins, minimum=2)
    y = as_targets(targets, sample_weight=sample_weight, mask=mask)
    m, v = normals(means, variances, y)
    below = normal_cdf((y.values - m) / np.sqrt(v))
    levels = np.arange(1, bins) / bins
    return float(np.mean([abs(y.mean(np.asarray(below <= p, float)) - p) for p in levels]))


def check_regression_metric(metric: object) -> RegressionMetric:
    """`metric`, which must be the name of one of a regression."""
    for known in REGRESSION_METRICS:
        if metric == known:
            return known
    raise EnsembleError(
        f"Argument `metric` must be one of {', '.join(map(repr, REGRESSION_METRICS))}. "
        f"Received: metric={shown(metric)}"
    )


def normals(means: Any, variances: Any, y: Targets) -> tuple[Floats, Floats]:
    """The means and the variances for some targets; the variances must be positive."""
    m, v = y.numbers(means, "means"), y.numbers(variances, "variances")
    if not (v > 0).all():
        raise EnsembleError(
            f"Argument `variances` must be positive. Received: one of {v.min():.6g}; "
            + (
                "add the variance of the noise to that between the members"
                if v.min() == 0
                else "of log-variances, give their exp"
            )
        )
    return m, v


def row_scores(metric: str, prediction: tuple[Floats, ...], y: Targets) -> Floats:
    """The score of each target under values, or means and variances, that are for them."""
    away = y.values - prediction[0]
    if metric == "mse":
        return away**2
    if metric == "mae":
        return np.abs(away)
    v = prediction[1]
    if metric == "gaussian_nll":
        return np.asarray(np.log(2 * np.pi * v) / 2 + away**2 / (2 * v))
    s = np.sqrt(v)
    z = away / s
    spread = z * (2 * normal_cdf(z) - 1) + 2 * normal_density(z) - 1 / math.sqrt(math.pi)
    return np.asarray(s * spread)


def _interval(lower: Any, upper: Any, y: Targets) -> tuple[Floats, Floats]:
    ends = y.numbers(lower, "lower", ends=True), y.numbers(upper, "upper", ends=True)
    if not (ends[0] <= ends[1]).all():
        raise EnsembleError(
            "Argument `lower` must not be above `upper`. Received: intervals that end before they "
            "begin; of quantiles, sort them"
        )
    return ends
