"""Whether the probabilities of classes are as often right as they say, on arrays.

Shapes and labels are as in `cosanneal.ensemble.score.metrics`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, Unpack, get_args

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, shown
from ...core.keywords import takes_options
from ..arrays import check_count
from ..labels import LabelOptions
from .metrics import checked_rows

Binning: TypeAlias = Literal["width", "mass"]
Norm: TypeAlias = Literal["l1", "l2", "max"]


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """The bins of a reliability diagram; empty ones are left out.

    Args:
        counts: how many predictions are in each bin.
        confidence: their mean confidence.
        accuracy: the share of them that came true.
        weights: how much they count in all; without `sample_weight`, their number.
            The mean and the share are weighted by it.
        squares: the sum of the squares of their weights; without, their number.
    """

    counts: NDArray[np.intp]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    weights: NDArray[np.float64]
    squares: NDArray[np.float64]


@takes_options(LabelOptions)
def reliability(
    probabilities: Any,
    labels: Any,
    *,
    bins: int = 15,
    binning: Binning = "width",
    class_axis: int | None = -1,
    **options: Unpack[LabelOptions],
) -> Reliability:
    """How often predictions of about one confidence come true.

    Of classes, the confidence is that of the most probable one; of an outcome,
    it is the outcome's own probability.

    Args:
        probabilities: shape (samples, classes), or as the module says.
        labels: the true classes, integers of shape (samples,), or as the module says.
        bins: the number of bins.
        binning: "width" cuts [0, 1] into equal parts, each with its upper end;
            "mass" the sorted predictions into equal counts (or sums of weights),
            where equal confidences stay together.
        class_axis: the axis of the classes, or None.
        options: see `LabelOptions`.

    Raises:
        EnsembleError: no positive number of bins; otherwise as for `error_rate`.

    Example:
        >>> found = reliability([0.2, 0.3, 0.8, 0.9], [0, 1, 1, 1], bins=2)
        >>> found.confidence.round(2).tolist(), found.accuracy.tolist()
        ([0.25, 0.85], [0.5, 1.0])

    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017), section 2;
    Nguyen & O'Connor (2015) for bins of equal mass.
    """
    rows, y = checked_rows(probabilities, labels, class_axis, options)
    if y.class_axis is None:
        return _binned(rows[:, 1], y.classes == 1, y.weights, bins, binning)
    top = rows.argmax(axis=1)
    return _binned(rows[np.arange(len(rows)), top], top == y.classes, y.weights, bins, binning)


@takes_options(LabelOptions)
def calibration_error(
    probabilities: Any,
    labels: Any,
    *,
    bins: int = 15,
    binning: Binning = "width",
    norm: Norm = "l1",
    debiased: bool = False,
    class_axis: int | None = -1,
    **options: Unpack[LabelOptions],
) -> float:
    """How far confidence is from accuracy: by default the expected calibration error (ECE).

    Over the bins of `reliability`, with shares `n_b / n` of the predictions (of
    their weights, where they have some):

    - "l1": `sum(n_b / n * |accuracy_b - confidence_b|)`, the ECE;
    - "l2": `sqrt(sum(n_b / n * (accuracy_b - confidence_b)**2))`;
    - "max": `max(|accuracy_b - confidence_b|)`.

    The accuracy of few samples is off by chance, and adds to each of them. For
    "l2", `debiased` subtracts what it adds on average, `accuracy_b * (1 -
    accuracy_b) / (n_b - 1)` in each bin; a negative remainder counts as 0. Of
    weighted ones, `n_b` is there the number of equal ones that vary as much,
    `sum(w)**2 / sum(w**2)`.

    Args:
        probabilities: shape (samples, classes), or as the module says.
        labels: the true classes, integers of shape (samples,), or as the module says.
        bins: the number of bins.
        binning: of equal "width" or of equal "mass", as in `reliability`.
        norm: "l1", "l2" or "max".
        debiased: for norm="l2".
        class_axis: the axis of the classes, or None.
        options: see `LabelOptions`.

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
    found = reliability(
        probabilities, labels, bins=bins, binning=binning, class_axis=class_axis, **options
    )
    gaps = np.abs(found.accuracy - found.confidence)
    shares = found.weights / found.weights.sum()
    if norm == "l1":
        return float(shares @ gaps)
    if norm == "max":
        return float(gaps.max())
    squares = gaps**2
    if debiased:
        # One prediction alone has no variance to subtract.
        numbers = found.weights**2 / found.squares
        spread = found.accuracy * (1 - found.accuracy)
        squares = squares - spread / np.maximum(numbers - 1, 1)
    return math.sqrt(max(float(shares @ squares), 0.0))


@takes_options(LabelOptions)
def adaptive_calibration_error(
    probabilities: Any,
    labels: Any,
    *,
    bins: int = 15,
    class_axis: int | None = -1,
    **options: Unpack[LabelOptions],
) -> float:
    """The calibration error of all classes, in bins of equal mass (ACE).

    `1 / (K R) sum_k sum_r |accuracy(r, k) - confidence(r, k)|`

    over the `K` classes, and for each over `R` bins of equally many predictions.

    Args:
        probabilities: shape (samples, classes), or as the module says.
        labels: the true classes, integers of shape (samples,), or as the module says.
        bins: the number of bins, `R`.
        class_axis: the axis of the classes, or None: then `K` is 1.
        options: see `LabelOptions`.

    Raises:
        EnsembleError: as for `reliability`.

    Example:
        >>> p = [[0.8, 0.2], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9]]
        >>> round(adaptive_calibration_error(p, [0, 1, 1, 1], bins=2), 3)
        0.2

    Source: Nixon et al., "Measuring Calibration in Deep Learning" (2019), section 4.2.
    """
    rows, y = checked_rows(probabilities, labels, class_axis, options)
    errors = []
    for k in [1] if y.class_axis is None else range(rows.shape[1]):
        found = _binned(rows[:, k], y.classes == k, y.weights, bins, "mass")
        errors.append(np.abs(found.accuracy - found.confidence).mean())
    return float(np.mean(errors))


def _binned(
    confidence: NDArray[np.float64],
    correct: NDArray[np.bool_],
    weights: NDArray[np.float64] | None,
    bins: int,
    binning: str,
) -> Reliability:
    bins = check_count("bins", bins)
    if binning == "width":
        edges = np.linspace(0, 1, bins + 1)
        at = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    elif binning == "mass":
        # Ranks from 0; equal confidences have the rank of the first of them.
        if weights is None:
            ranks = np.searchsorted(np.sort(confidence), confidence, side="left")
            at = ranks * bins // len(confidence)
        else:
            order = np.argsort(confidence)
            ranks = np.searchsorted(confidence[order], confidence, side="left")
            before = np.concatenate([[0.0], np.cumsum(weights[order])])
            at = np.minimum((before[ranks] * bins / before[-1]).astype(np.intp), bins - 1)
    else:
        raise EnsembleError(
            f"Argument `binning` must be 'width' or 'mass'. Received: binning={shown(binning)}"
        )
    counts = np.bincount(at, minlength=bins)
    used = counts > 0
    own = np.ones(len(at)) if weights is None else weights
    sums, squares = (
        np.asarray(np.bincount(at, each, minlength=bins)[used], np.float64)
        for each in (own, own**2)
    )
    return Reliability(
        counts=counts[used],
        confidence=np.bincount(at, own * confidence, minlength=bins)[used] / sums,
        accuracy=np.bincount(at, own * correct, minlength=bins)[used] / sums,
        weights=sums,
        squares=squares,
    )
