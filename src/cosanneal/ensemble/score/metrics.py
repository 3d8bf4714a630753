"""How good predictions are, on arrays.

Probabilities are those of classes along `class_axis`, with the samples along
the first axis: (samples, classes), or of a dense output such as (samples,
classes, height, width) with class_axis=1. Labels have the same shape without
the class axis. With class_axis=None, and with arrays of one axis, each number
is the probability of an outcome of its own (binary, multi-label), and the
labels are 0 or 1 and of the same shape. Means are over all labels.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, shown
from ..arrays import SMALLEST, Labels, as_floats, as_labels, as_numpy, as_rows

Metric: TypeAlias = Literal["log_loss", "brier", "error"]

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
    rows, y = checked_rows(probabilities, labels, class_axis)
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


def checked_rows(p: Any, labels: Any, class_axis: int | None) -> tuple[NDArray[np.float64], Labels]:
    """Probabilities as rows, and their labels."""
    p = as_numpy(p)
    y = as_labels(labels, p.shape, class_axis)
    return as_rows(p, class_axis), y


def _mean_score(metric: Metric, p: Any, labels: Any, class_axis: int | None) -> float:
    rows, y = checked_rows(p, labels, class_axis)
    return float(row_scores(metric, rows, y).mean())


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
