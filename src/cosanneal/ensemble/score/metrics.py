"""How good predictions are, on arrays.

Probabilities are those of classes along `class_axis`, with the samples along
the first axis: (samples, classes), or of a dense output such as (samples,
classes, height, width) with class_axis=1. Labels have the same shape without
the class axis. With class_axis=None, and with arrays of one axis, each number
is the probability of an outcome of its own (binary, multi-label), and the
labels are 0 or 1 and of the same shape. `cosanneal.ensemble.labels` says in
which other forms labels may come, and `LabelOptions` which options all scores
take. Means are over all labels that count.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, TypeAlias, Unpack, get_args

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, shown
from ...core.keywords import takes_options
from ..arrays import SMALLEST, as_numpy, check_count
from ..labels import LabelOptions, Labels, as_labels

Metric: TypeAlias = Literal["log_loss", "brier", "error"]

METRICS: Final[tuple[Metric, ...]] = get_args(Metric)

_TOP_K: Final = re.compile(r"top([1-9][0-9]{0,6})_error")


@takes_options(LabelOptions)
def error_rate(
    probabilities: Any,
    labels: Any,
    *,
    class_axis: int | None = -1,
    **options: Unpack[LabelOptions],
) -> float:
    """The share of labels that are not the most probable class.

    Of several most probable classes the first counts; an outcome is predicted
    where its probability is above 1/2.

    Args:
        probabilities: shape (samples, classes), or as the module says.
        labels: the true classes, integers of shape (samples,), or as the module says.
        class_axis: the axis of the classes, or None.
        options: see `LabelOptions`.

    Raises:
        EnsembleError: shapes that do not fit, labels that are no classes, no
            samples, numbers that are no probabilities.

    Example:
        >>> error_rate([[0.9, 0.1], [0.3, 0.7]], [0, 0])
        0.5
    """
    return _mean_score("error", probabilities, labels, class_axis, options)


@takes_options(LabelOptions)
def log_loss(
    probabilities: Any,
    labels: Any,
    *,
    class_axis: int | None = -1,
    **options: Unpack[LabelOptions],
) -> float:
    """The mean negative log-likelihood of the labels, in nats: `-mean(log(p[i, y[i]]))`.

    A probability below 2**-126, such as one that underflowed to 0, counts as
    2**-126, so that one sample cannot make the mean infinite.

    Args:
        probabilities: shape (samples, classes), or as the module says.
        labels: the true classes, integers of shape (samples,), or as the module says.
        class_axis: the axis of the classes, or None.
        options: see `LabelOptions`.

    Raises:
        EnsembleError: as for `error_rate`.

    Example:
        >>> round(log_loss([[0.5, 0.5], [0.25, 0.75]], [0, 1]), 4)
        0.4904
    """
    return _mean_score("log_loss", probabilities, labels, class_axis, options)


@takes_options(LabelOptions)
def brier_score(
    probabilities: Any,
    labels: Any,
    *,
    class_axis: int | None = -1,
    **options: Unpack[LabelOptions],
) -> float:
    """The mean squared distance to the truth: `mean(sum_k (p[i, k] - [y[i] = k])**2)`, 0 to 2.

    Over all classes, as Brier defined it. For an outcome that happens or not,
    it is thus twice the `(p - y)**2` that is also in use.

    Args:
        probabilities: shape (samples, classes), or as the module says.
        labels: the true classes, integers of shape (samples,), or as the module says.
        class_axis: the axis of the classes, or None.
        options: see `LabelOptions`.

    Raises:
        EnsembleError: as for `error_rate`.

    Example:
        >>> round(brier_score([[0.5, 0.5], [0.25, 0.75]], [0, 1]), 4)
        0.3125

    Source: Brier, "Verification of forecasts expressed in terms of probability" (1950).
    """
    return _mean_score("brier", probabilities, labels, class_axis, options)


@takes_options(LabelOptions)
def top_k_error(
    probabilities: Any,
    labels: Any,
    *,
    k: int = 5,
    class_axis: int | None = -1,
    **options: Unpack[LabelOptions],
) -> float:
    """The share of labels that are not among the k most probable classes.

    Of equally probable classes the first ones count, as in `error_rate`.

    Args:
        probabilities: shape (samples, classes), or as the module says.
        labels: the true classes, integers of shape (samples,), or as the module says.
        k: how many classes; fewer than there are.
        class_axis: the axis of the classes.
        options: see `LabelOptions`.

    Raises:
        EnsembleError: as many classes as k or fewer; otherwise as for `error_rate`.

    Example:
        >>> top_k_error([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]], [1, 2], k=2)
        0.5

    Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge"
    (2015), section 4.1; 1 less scikit-learn's `top_k_accuracy_score`.
    """
    k = check_count("k", k)
    return _mean_score(f"top{k}_error", probabilities, labels, class_axis, options)


@takes_options(LabelOptions)
def sample_scores(
    metric: str,
    probabilities: Any,
    labels: Any,
    *,
    class_axis: int | None = -1,
    **options: Unpack[LabelOptions],
) -> NDArray[np.float64]:
    """The score of each sample, whose mean is the metric: for intervals and paired tests.

    Args:
        metric: "log_loss", "brier", "error", or "top5_error" with any number.
        probabilities: shape (samples, classes), or as the module says.
        labels: the true classes, integers of shape (samples,), or as the module says.
        class_axis: the axis of the classes, or None.
        options: see `LabelOptions`.

    Returns:
        Shape (samples,). The labels of one sample (pixels, tokens) are no
        independent samples: their weighted mean is one. A sample without a label
        that counts has none. Where samples have more labels than others, or
        weights, the metric is the mean by `sample_weights`.

    Raises:
        EnsembleError: no such metric; otherwise as for `error_rate`.

    Example:
        >>> sample_scores("error", [[0.9, 0.1], [0.3, 0.7]], [0, 0]).tolist()
        [0.0, 1.0]
    """
    rows, y = checked_rows(probabilities, labels, class_axis, options)
    return y.per_sample(row_scores(check_metric(metric), rows, y))


@takes_options(LabelOptions)
def sample_weights(
    probabilities: Any,
    labels: Any,
    *,
    class_axis: int | None = -1,
    **options: Unpack[LabelOptions],
) -> NDArray[np.float64]:
    """How much each of the `sample_scores` counts in the metric: `sum(w s) / sum(w)`.

    The sum of the weights of a sample's labels that count; without weights their
    number. `bootstrap_interval` and `compare_scores` take it as `weights`.

    Args:
        probabilities: shape (samples, classes), or as the module says.
        labels: the true classes, as the module says.
        class_axis: the axis of the classes, or None.
        options: see `LabelOptions`.

    Raises:
        EnsembleError: as for `error_rate`.

    Example:
        >>> import numpy as np
        >>> p, y = np.full((2, 3, 2), 0.5), [[0, 1, -100], [1, -100, -100]]
        >>> sample_weights(p, y, ignore_index=-100).tolist()
        [2.0, 1.0]
    """
    _, y = checked_rows(probabilities, labels, class_axis, options)
    weights = y.sample_weights()
    return np.full(y.samples, len(y) / y.samples) if weights is None else weights


def is_mean(metric: str) -> bool:
    """Whether it is the name of a metric that is a mean over labels."""
    return metric in METRICS or _TOP_K.fullmatch(metric) is not None


def check_metric(metric: object) -> str:
    """`metric`, which must be the name of one that is a mean over labels."""
    if isinstance(metric, str) and is_mean(metric):
        return metric
    raise EnsembleError(
        f"Argument `metric` must be one of {', '.join(map(repr, METRICS))}, or 'top5_error' with "
        f"any number. Received: metric={shown(metric)}"
    )


def row_scores(metric: str, rows: NDArray[np.float64], y: Labels) -> NDArray[np.float64]:
    """The score of each row of probabilities."""
    if metric == "error":
        return np.asarray(rows.argmax(axis=1) != y.classes, np.float64)
    if match := _TOP_K.fullmatch(metric):
        return _beyond(int(match[1]), rows, y)
    if metric == "log_loss":
        if y.targets is None:
            return -np.log(np.maximum(y.likelihoods(rows), SMALLEST))
        return -y.expected(np.log(np.maximum(rows, SMALLEST)))
    # sum_k p_k**2 - 2 p_y + 1 would cancel where the prediction is good.
    away = rows.copy()
    if y.targets is None:
        away[np.arange(len(rows)), y.classes] -= 1
    else:
        away -= y.targets
    return np.asarray(np.einsum("ij,ij->i", away, away))


def _beyond(k: int, rows: NDArray[np.float64], y: Labels) -> NDArray[np.float64]:
    """1 where k classes come before the label's."""
    if k >= rows.shape[1]:
        raise EnsembleError(
            f"The top-{k} error must be of more than {k} classes, among which labels may be "
            f"missed. Received: {rows.shape[1]} classes; take a smaller k"
        )
    own = y.likelihoods(rows)[:, None]
    before = (rows > own).sum(axis=1)
    before += ((rows == own) & (np.arange(rows.shape[1]) < y.classes[:, None])).sum(axis=1)
    return np.asarray(before >= k, np.float64)


def checked_rows(
    p: Any, labels: Any, class_axis: int | None, options: LabelOptions | None = None
) -> tuple[NDArray[np.float64], Labels]:
    """The rows of probabilities whose labels count, and these."""
    p = as_numpy(p)
    y = as_labels(labels, p.shape, class_axis, **(options or {}))
    return y.rows(p), y


def _mean_score(
    metric: str, p: Any, labels: Any, class_axis: int | None, options: LabelOptions
) -> float:
    rows, y = checked_rows(p, labels, class_axis, options)
    return y.mean(row_scores(metric, rows, y))
