"""How good predictions are, on arrays.

Probabilities are those of classes along `class_axis`, with the samples along
the first axis: (samples, classes), or of a dense output such as (samples,
classes, height, width) with class_axis=1. Labels have the same shape without
the class axis. With class_axis=None, and with arrays of one axis, each number
is the probability of an outcome of its own (binary, multi-label), and the
labels are 0 or 1 and of the same shape. Means are over all labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, shown
from ..arrays import SMALLEST, Labels, as_floats, as_labels, as_numpy, as_rows, check_count

Metric: TypeAlias = Literal["log_loss", "brier", "error"]
Binning: TypeAlias = Literal["width", "mass"]
Norm: TypeAlias = Literal["l1", "l2", "max"]

METRICS: Final[tuple[Metric, ...]] = get_args(Metric)

# What a sentence calls them.
TITLES: Final[dict[Metric, str]] = {
    "log_loss": "log-loss",
    "brier": "Brier score",
    "error": "error rate",
}


def error_rate(probabilities: Any, labels: Any, *, class_axis: int | None = -1) -> float:
    """The share of labels that are not the most probable class.

    Of several most probable classes the first counts; an outcome is predicted
    where its probability is above 1/2.

    Args:
        probabilities: shape (samples, classes), or as the module says.
        labels: the true classes, integers of shape (samples,).
        class_axis: the axis of the classes, or None.

    Raises:
        EnsembleError: shapes that do not fit, labels that are no classes, no
            samples, numbers that are no probabilities.

    Example:
        >>> error_rate([[0.9, 0.1], [0.3, 0.7]], [0, 0])
        0.5
    """
    return _mean_score("error", probabilities, labels, class_axis)


def log_loss(probabilities: Any, labels: Any, *, class_axis: int | None = -1) -> float:
    """The mean negative log-likelihood of the labels, in nats: `-mean(log(p[i, y[i]]))`.

    A probability below 2**-126, such as one that underflowed to 0, counts as
    2**-126, so that one sample cannot make the mean infinite.

    Args:
        probabilities: shape (samples, classes), or as the module says.
        labels: the true classes, integers of shape (samples,).
        class_axis: the axis of the classes, or None.

    Raises:
        EnsembleError: as for `error_rate`.

    Example:
        >>> round(log_loss([[0.5, 0.5], [0.25, 0.75]], [0, 1]), 4)
        0.4904
    """
    return _mean_score("log_loss", probabilities, labels, class_axis)


def brier_score(probabilities: Any, labels: Any, *, class_axis: int | None = -1) -> float:
    """The mean squared distance to the truth: `mean(sum_k (p[i, k] - [y[i] = k])**2)`, 0 to 2.

    Over all classes, as Brier defined it. For an outcome that happens or not,
    it is thus twice the `(p - y)**2` that is also in use.

    Args:
        probabilities: shape (samples, classes), or as the module says.
        labels: the true classes, integers of shape (samples,).
        class_axis: the axis of the classes, or None.

    Raises:
        EnsembleError: as for `error_rate`.

    Example:
        >>> round(brier_score([[0.5, 0.5], [0.25, 0.75]], [0, 1]), 4)
        0.3125

    Source: Brier, "Verification of forecasts expressed in terms of probability" (1950).
    """
    return _mean_score("brier", probabilities, labels, class_axis)


def sample_scores(
    metric: Metric, probabilities: Any, labels: Any, *, class_axis: int | None = -1
) -> NDArray[np.float64]:
    """The score of each sample, whose mean is the metric: for intervals and paired tests.

    Args:
        metric: "log_loss", "brier" or "error".
        probabilities: shape (samples, classes), or as the module says.
        labels: the true classes, integers of shape (samples,).
        class_axis: the axis of the classes, or None.

    Returns:
        Shape (samples,). The labels of one sample (pixels, tokens) are no
        independent samples: their mean is one.

    Raises:
        EnsembleError: no such metric; otherwise as for `error_rate`.

    Example:
        >>> sample_scores("error", [[0.9, 0.1], [0.3, 0.7]], [0, 0]).tolist()
        [0.0, 1.0]
    """
    rows, y = _checked(probabilities, labels, class_axis)
    return y.per_sample(row_scores(check_metric(metric), rows, y))


def check_metric(metric: object) -> Metric:
    """`metric`, which must be the name of one."""
    for known in METRICS:
        if metric == known:
            return known
    raise EnsembleError(
        f"Argument `metric` must be one of {', '.join(map(repr, METRICS))}. "
        f"Received: metric={shown(metric)}"
    )


def row_scores(metric: Metric, rows: NDArray[np.float64], y: Labels) -> NDArray[np.float64]:
    """The score of each row of probabilities."""
    if metric == "error":
        return np.asarray(rows.argmax(axis=1) != y.classes, np.float64)
    likelihoods = y.likelihoods(rows)
    if metric == "log_loss":
        return -np.log(np.maximum(likelihoods, SMALLEST))
    # sum_k p_k**2 - 2 p_y + 1 would cancel where the prediction is good.
    away = rows.copy()
    away[np.arange(len(rows)), y.classes] -= 1
    return np.asarray(np.einsum("ij,ij->i", away, away))


def _checked(p: Any, labels: Any, class_axis: int | None) -> tuple[NDArray[np.float64], Labels]:
    p = as_numpy(p)
    y = as_labels(labels, p.shape, class_axis)
    return as_rows(p, class_axis), y


def _mean_score(metric: Metric, p: Any, labels: Any, class_axis: int | None) -> float:
    rows, y = _checked(p, labels, class_axis)
    return float(row_scores(metric, rows, y).mean())


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """The bins of a reliability diagram; empty ones are left out.

    Args:
        counts: how many predictions are in each bin.
        confidence: their mean confidence.
        accuracy: the share of them that came true.
    """

    counts: NDArray[np.intp]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def reliability(
    probabilities: Any,
    labels: Any,
    *,
    bins: int = 15,
    binning: Binning = "width",
    class_axis: int | None = -1,
) -> Reliability:
    """How often predictions of about one confidence come true.

    Of classes, the confidence is that of the most probable one; of an outcome,
    it is the outcome's own probability.

    Args:
        probabilities: shape (samples, classes), or as the module says.
        labels: the true classes, integers of shape (samples,).
        bins: the number of bins.
        binning: "width" cuts [0, 1] into equal parts, each with its upper end;
            "mass" the sorted predictions into equal counts, where equal
            confidences stay together.
        class_axis: the axis of the classes, or None.

    Raises:
        EnsembleError: no positive number of bins; otherwise as for `error_rate`.

    Example:
        >>> found = reliability([0.2, 0.3, 0.8, 0.9], [0, 1, 1, 1], bins=2)
        >>> found.confidence.round(2).tolist(), found.accuracy.tolist()
        ([0.25, 0.85], [0.5, 1.0])

    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017), section 2;
    Nguyen & O'Connor (2015) for bins of equal mass.
    """
    rows, y = _checked(probabilities, labels, class_axis)
    if class_axis is None or as_numpy(probabilities).ndim == 1:
        return _binned(rows[:, 1], y.classes == 1, bins, binning)
    top = rows.argmax(axis=1)
    return _binned(rows[np.arange(len(rows)), top], top == y.classes, bins, binning)


def calibration_error(
    probabilities: Any,
    labels: Any,
    *,
    bins: int = 15,
    binning: Binning = "width",
    norm: Norm = "l1",
    debiased: bool = False,
    class_axis: int | None = -1,
) -> float:
    """How far confidence is from accuracy: by default the expected calibration error (ECE).

    Over the bins of `reliability`, with shares `n_b / n` of the predictions:

    - "l1": `sum(n_b / n * |accuracy_b - confidence_b|)`, the ECE;
    - "l2": `sqrt(sum(n_b / n * (accuracy_b - confidence_b)**2))`;
    - "max": `max(|accuracy_b - confidence_b|)`.

    The accuracy of few samples is off by chance, and adds to each of them. For
    "l2", `debiased` subtracts what it adds on average, `accuracy_b * (1 -
    accuracy_b) / (n_b - 1)` in each bin; a negative remainder counts as 0.

    Args:
        probabilities: shape (samples, classes), or as the module says.
        labels: the true classes, integers of shape (samples,).
        bins: the number of bins.
        binning: of equal "width" or of equal "mass", as in `reliability`.
        norm: "l1", "l2" or "max".
        debiased: for norm="l2".
        class_axis: the axis of the classes, or None.

    Raises:
        EnsembleError: a norm that is not known, or that has no debiased form;
            otherwise as for `reliability`.

    Example:
        >>> round(calibration_error([0.2, 0.3, 0.8, 0.9], [0, 1, 1, 1], bins=2), 3)
        0.2

    Source: Naeini et al. (2015); Guo et al. (2017), Eq. 3 and 5; Kumar et al.,
    "Verified Uncertainty Calibration" (2019), section 4, for the debiased one.
    """
    if norm not in get_args(Norm):
        raise EnsembleError(
            f"Argument `norm` must be 'l1', 'l2' or 'max'. Received: norm={shown(norm)}"
        )
    if debiased and norm != "l2":
        raise EnsembleError(
            "Argument `debiased` must be False for a norm without a debiased form. "
            f"Received: debiased=True, norm={norm!r}; give norm='l2'"
        )
    found = reliability(probabilities, labels, bins=bins, binning=binning, class_axis=class_axis)
    gaps = np.abs(found.accuracy - found.confidence)
    shares = found.counts / found.counts.sum()
    if norm == "l1":
        return float(shares @ gaps)
    if norm == "max":
        return float(gaps.max())
    squares = gaps**2
    if debiased:
        # One prediction alone has no variance to subtract.
        noise = found.accuracy * (1 - found.accuracy) / np.maximum(found.counts - 1, 1)
        squares = squares - noise
    return math.sqrt(max(float(shares @ squares), 0.0))


def adaptive_calibration_error(
    probabilities: Any, labels: Any, *, bins: int = 15, class_axis: int | None = -1
) -> float:
    """The calibration error of all classes, in bins of equal mass (ACE).

    `1 / (K R) sum_k sum_r |accuracy(r, k) - confidence(r, k)|`

    over the `K` classes, and for each over `R` bins of equally many predictions.

    Args:
        probabilities: shape (samples, classes), or as the module says.
        labels: the true classes, integers of shape (samples,).
        bins: the number of bins, `R`.
        class_axis: the axis of the classes, or None: then `K` is 1.

    Raises:
        EnsembleError: as for `reliability`.

    Example:
        >>> p = [[0.8, 0.2], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9]]
        >>> round(adaptive_calibration_error(p, [0, 1, 1, 1], bins=2), 3)
        0.2

    Source: Nixon et al., "Measuring Calibration in Deep Learning" (2019), section 4.2.
    """
    rows, y = _checked(probabilities, labels, class_axis)
    one = class_axis is None or as_numpy(probabilities).ndim == 1
    errors = []
    for k in [1] if one else range(rows.shape[1]):
        found = _binned(rows[:, k], y.classes == k, bins, "mass")
        errors.append(np.abs(found.accuracy - found.confidence).mean())
    return float(np.mean(errors))


def _binned(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int, binning: str
) -> Reliability:
    bins = check_count("bins", bins)
    if binning == "width":
        edges = np.linspace(0, 1, bins + 1)
        at = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    elif binning == "mass":
        # Ranks from 0; equal confidences have the rank of the first of them.
        ranks = np.searchsorted(np.sort(confidence), confidence, side="left")
        at = ranks * bins // len(confidence)
    else:
        raise EnsembleError(
            f"Argument `binning` must be 'width' or 'mass'. Received: binning={shown(binning)}"
        )
    counts = np.bincount(at, minlength=bins)
    used = counts > 0
    counts = counts[used]
    return Reliability(
        counts=counts,
        confidence=np.bincount(at, confidence, minlength=bins)[used] / counts,
        accuracy=np.bincount(at, correct, minlength=bins)[used] / counts,
    )


def auroc(probabilities: Any, labels: Any) -> float:
    """The area under the ROC curve of a binary prediction.

    `P(score of a positive > score of a negative) + P(equal) / 2`

    Args:
        probabilities: of the positive class, or any score that grows with it,
            of shape (samples,); or of both classes, of shape (samples, 2).
        labels: 0 or 1, of shape (samples,).

    Raises:
        EnsembleError: shapes that do not fit, scores that are not finite,
            labels of one class only.

    Example:
        >>> auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        0.75

    Source: Hanley & McNeil (1982); the statistic of Mann and Whitney (1947).
    """
    scores = as_floats(probabilities)
    if scores.ndim == 2 and scores.shape[1] == 2:
        scores = scores[:, 1]
    classes = as_labels(labels, scores.shape, None).classes
    scores = scores.reshape(-1)
    if not np.isfinite(scores).all():
        raise EnsembleError("Argument `probabilities` must be finite. Received: NaN or infinity")
    positives, negatives = np.sort(scores[classes == 1]), np.sort(scores[classes == 0])
    if not len(positives) or not len(negatives):
        raise EnsembleError(
            "Argument `labels` must have both classes for the area under the curve. Received: "
            f"{len(positives)} positives and {len(negatives)} negatives"
        )
    # Twice the number of pairs in order, in integers: exact.
    below = np.searchsorted(negatives, positives, side="left")
    not_above = np.searchsorted(negatives, positives, side="right")
    return int(below.sum() + not_above.sum()) / (2 * len(positives) * len(negatives))


def rmse(values: Any, targets: Any) -> float:
    """The root of the mean squared error of a regression: `sqrt(mean((f - y)**2))`.

    Args:
        values: the predictions, of any shape.
        targets: the truth, of the same shape.

    Raises:
        EnsembleError: shapes that differ, or numbers that are not finite.

    Example:
        >>> round(rmse([1.0, 2.0], [1.0, 4.0]), 4)
        1.4142
    """
    f, y = _finite(("values", values), ("targets", targets))
    return math.sqrt(float(np.mean((f - y) ** 2)))


def gaussian_nll(means: Any, variances: Any, targets: Any) -> float:
    """The mean negative log-likelihood of targets under normal distributions, in nats.

    `mean(log(2 pi v) / 2 + (y - m)**2 / (2 v))`

    Args:
        means: the predicted means, of any shape.
        variances: the predicted variances, of the same shape; positive.
        targets: the truth, of the same shape.

    Raises:
        EnsembleError: shapes that differ, numbers that are not finite, or a
            variance that is not positive.

    Example:
        >>> round(gaussian_nll([0.0, 0.0], [1.0, 1.0], [0.0, 1.0]), 4)
        1.1689

    Source: Lakshminarayanan et al., "Deep Ensembles" (2017), Eq. 1.
    """
    m, v, y = _normals(means, variances, targets)
    return float(np.mean(np.log(2 * np.pi * v) / 2 + (y - m) ** 2 / (2 * v)))


def coverage(means: Any, variances: Any, targets: Any, *, level: float = 0.95) -> float:
    """The share of targets within the central interval of `level` of a normal distribution.

    `mean(|y - m| <= z sqrt(v))` with `z` the quantile of `(1 + level) / 2`. A
    calibrated prediction covers the share `level`.

    Args:
        means: the predicted means, of any shape.
        variances: the predicted variances, of the same shape; positive.
        targets: the truth, of the same shape.
        level: the probability of the interval, between 0 and 1.

    Raises:
        EnsembleError: a level that is none; otherwise as for `gaussian_nll`.

    Example:
        >>> coverage([0.0, 0.0], [1.0, 1.0], [1.0, 3.0], level=0.95)
        0.5
    """
    m, v, y = _normals(means, variances, targets)
    z = NormalDist().inv_cdf((1 + check_share("level", level)) / 2)
    return float(np.mean(np.abs(y - m) <= z * np.sqrt(v)))


def check_share(name: str, value: object) -> float:
    """`value` as a float strictly between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise EnsembleError(
            f"Argument `{name}` must be a number between 0 and 1. Received: {name}={shown(value)}"
        )
    return float(value)


def _finite(*named: tuple[str, Any]) -> list[NDArray[np.float64]]:
    """Arrays of one shape, in float64."""
    arrays = [as_floats(value) for _, value in named]
    names = ", ".join(f"`{name}`" for name, _ in named)
    if len({array.shape for array in arrays}) > 1 or arrays[0].size == 0:
        raise EnsembleError(
            f"Arguments {names} must have one shape, with at least one number. Received: "
            + ", ".join(str(array.shape) for array in arrays)
        )
    if not all(np.isfinite(array).all() for array in arrays):
        raise EnsembleError(f"Arguments {names} must be finite. Received: NaN or infinity")
    return arrays


def _normals(means: Any, variances: Any, targets: Any) -> list[NDArray[np.float64]]:
    arrays = _finite(("means", means), ("variances", variances), ("targets", targets))
    if not (arrays[1] > 0).all():
        raise EnsembleError(
            f"Argument `variances` must be positive. Received: one of {arrays[1].min():.6g}; add "
            "the variance of the noise to that between the members"
        )
    return arrays
