"""Scores that are no mean over labels: each class counts the same, however rare it is.

Shapes and labels are as in `cosanneal.ensemble.score.metrics`. A prediction is the most
probable class, of several the first. With class_axis=None there is one question with the two
answers no and yes where each sample has one number, of shape (samples,) or (samples, 1), and
also at many sites, (samples, 1, height, width) or (samples, height, width, 1). Of shape
(samples, outcomes) each column is a question of its own, and the score is the mean over them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias, Unpack

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError
from ...core.keywords import takes_options
from ..arrays import as_floats, unfolded
from ..labels import LabelOptions, Labels, as_labels
from .metrics import checked_rows

Floats: TypeAlias = NDArray[np.float64]

# A score by how often each sample was drawn: what a bootstrap asks for.
Resampled: TypeAlias = Callable[[Floats], float]


@takes_options(LabelOptions)
def balanced_error_rate(
    probabilities: Any,
    labels: Any,
    *,
    class_axis: int | None = -1,
    **options: Unpack[LabelOptions],
) -> float:
    """The mean over the classes of the share of their labels that were missed.

    `1 - mean_k(hits_k / labels_k)`, 1 less the balanced accuracy, over the classes that the
    labels have.

    Args:
        probabilities: shape (samples, classes), or as the module says.
        labels: the true classes, integers of shape (samples,), or as the module says.
        class_axis: the axis of the classes, or None.
        options: see `LabelOptions`.

    Raises:
        EnsembleError: as for `error_rate`; also outcomes along more than one axis.

    Example:
        >>> balanced_error_rate([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]], [0, 0, 1])
        0.5

    Source: Brodersen et al., "The Balanced Accuracy and Its Posterior Distribution" (2010);
    1 less scikit-learn's `balanced_accuracy_score`.
    """
    return by_class("balanced_error", *checked_rows(probabilities, labels, class_axis, options))


@takes_options(LabelOptions)
def macro_f1(
    probabilities: Any,
    labels: Any,
    *,
    class_axis: int | None = -1,
    **options: Unpack[LabelOptions],
) -> float:
    """The mean over the classes of the F1 score: `mean_k(2 hits_k / (labels_k + predictions_k))`.

    Over the classes that labels or predictions have. Of several outcomes (multi-label) it is
    the mean over them of the F1 score of their happening; of one outcome both answers count.

    Args:
        probabilities: shape (samples, classes), or as the module says.
        labels: the true classes, integers of shape (samples,), or as the module says.
        class_axis: the axis of the classes, or None.
        options: see `LabelOptions`.

    Raises:
        EnsembleError: as for `balanced_error_rate`; also several outcomes of which
            none happens and none is predicted.

    Example:
        >>> round(macro_f1([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], [0, 1, 1]), 4)
        0.6667

    Source: Opitz & Burst, "Macro F1 and Macro F1" (2019), Eq. 1, which scikit-learn's
    `f1_score(average="macro")` has too.
    """
    rows, y = checked_rows(probabilities, labels, class_axis, options)
    return 1 - by_class("macro_f1_error", rows, y)


@takes_options(LabelOptions)
def mean_iou(
    probabilities: Any,
    labels: Any,
    *,
    class_axis: int | None = -1,
    **options: Unpack[LabelOptions],
) -> float:
    """The mean over the classes of the intersection over union, of all labels together.

    `mean_k(hits_k / (labels_k + predictions_k - hits_k))`, over the classes that labels or
    predictions have. Of several outcomes, and of one, as for `macro_f1`.

    Args:
        probabilities: such as (samples, classes, height, width) with class_axis=1.
        labels: the true classes, such as (samples, height, width).
        class_axis: the axis of the classes, or None.
        options: see `LabelOptions`.

    Raises:
        EnsembleError: as for `macro_f1`.

    Example:
        >>> mean_iou([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], [0, 1, 1])
        0.5

    Source: Everingham et al., "The PASCAL Visual Object Classes Challenge" (2015), section
    3.5; scikit-learn's `jaccard_score(average="macro")`.
    """
    rows, y = checked_rows(probabilities, labels, class_axis, options)
    return 1 - by_class("mean_iou_error", rows, y)


@takes_options(LabelOptions)
def auroc(
    probabilities: Any,
    labels: Any,
    *,
    class_axis: int | None = -1,
    **options: Unpack[LabelOptions],
) -> float:
    """The area under the ROC curve: of two classes, or the mean of each class against the rest.

    `P(score of a positive > score of a negative) + P(equal) / 2`

    Of two classes, and of an outcome, that of the second (it happens). Of more classes the
    mean over those that have both labels and others; of several outcomes likewise.

    Args:
        probabilities: shape (samples, classes), or as the module says; also any scores
            that grow with them, such as logits, which need not be between 0 and 1.
        labels: the true classes, integers of shape (samples,), or as the module says.
        class_axis: the axis of the classes, or None.
        options: see `LabelOptions`.

    Raises:
        EnsembleError: shapes that do not fit, scores that are not finite,
            labels of one class only.

    Example:
        >>> auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        0.75

    Source: Hanley & McNeil (1982); the statistic of Mann and Whitney (1947); one against the
    rest as in Provost & Domingos (2001), without their weights by class, which is
    scikit-learn's `roc_auc_score(multi_class="ovr", average="macro")`.
    """
    p = as_floats(probabilities)
    y = as_labels(labels, p.shape, class_axis, **options)
    rows = unfolded(p, class_axis)
    rows = rows if y.kept is None else rows[y.kept]
    if not np.isfinite(rows).all():
        raise EnsembleError("Argument `probabilities` must be finite. Received: NaN or infinity")
    return 1 - by_class("auroc_error", np.stack([rows, rows], 1) if rows.ndim == 1 else rows, y)


def by_class(name: str, rows: Floats, y: Labels) -> float:
    """The score of rows of probabilities, the lower the better.

    Raises:
        EnsembleError: it is not defined for these labels.
    """
    found = _areas(rows, y)(None) if name == "auroc_error" else _tallied(name, rows, y)(None)
    if np.isfinite(found):
        return found
    if name != "auroc_error":
        raise EnsembleError(
            "Argument `labels` must have an outcome that happens, or `probabilities` one that is "
            f"predicted, for a score of them. Received: none in {len(y)} labels"
        )
    positives = int((y.classes == 1).sum())
    counted = f"{positives} positives and {len(y) - positives} negatives"
    if y.class_axis is not None and rows.shape[1] > 2:
        counted = f"class {y.classes[0]} alone"
    elif _questions(y) > 1:
        counted = f"{_questions(y)} outcomes, each with one of them only"
    raise EnsembleError(
        "Argument `labels` must have both classes for the area under the curve. "
        f"Received: {counted}"
    )


def resampled_by_class(name: str, rows: Floats, y: Labels) -> Resampled:
    """The score by how often each sample was drawn; NaN where it is not defined."""
    return _areas(rows, y) if name == "auroc_error" else _tallied(name, rows, y)


def _questions(y: Labels) -> int:
    """How many outcomes of their own there are; 1 for classes."""
    shape = y.shape
    if len(shape) == 2 and y.class_axis is None:
        return shape[1]
    if y.class_axis is not None or len(shape) == 1 or 1 in (shape[1], shape[-1]):
        return 1
    raise EnsembleError(
        "Argument `probabilities` must have one outcome for each sample or site, or have them "
        "along the second of two axes, for a score of each. Received: shape "
        f"{shape} with class_axis=None; give the outcomes one by one, or as (labels, outcomes) "
        "with counts="
    )


def _columns(y: Labels, questions: int) -> NDArray[np.intp]:
    """Which of the outcomes each row is of."""
    return (np.arange(len(y)) if y.kept is None else y.kept) % questions


def _mean(values: Floats) -> float:
    """The mean of those that are defined."""
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.asarray(np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0))


# Of the hits, the labels and the predictions of each class.
_SCORES: Final[dict[str, Callable[[Floats, Floats, Floats], Floats]]] = {
    "balanced_error": lambda hits, labels, _: _ratio(hits, labels),
    "macro_f1_error": lambda hits, labels, predicted: _ratio(2 * hits, labels + predicted),
    "mean_iou_error": lambda hits, labels, predicted: _ratio(hits, labels + predicted - hits),
}

BY_CLASS: Final = (*_SCORES, "auroc_error")


def _tallied(name: str, rows: Floats, y: Labels) -> Callable[[Floats | None], float]:
    """A score of the numbers of hits, labels and predictions of each class."""
    questions, size = _questions(y), rows.shape[1]
    true, found = y.classes, rows.argmax(axis=1)
    if questions > 1:
        column = _columns(y, questions)
        true, found, size = 2 * column + true, 2 * column + found, 2 * questions
    hit = true == found
    weights = np.ones(len(y)) if y.weights is None else y.weights
    every = [(true[hit], weights[hit]), (true, weights), (found, weights)]
    owners: list[NDArray[np.intp]] = []

    def score(drawn: Floats | None) -> float:
        if drawn is None:
            totals = [_sums(codes, counts, size) for codes, counts in every]
        else:
            if not owners:
                owner = y.sample_of_rows()
                for i, of in enumerate((owner[hit], owner, owner)):
                    each, codes, counts = _gathered(of, *every[i], size)
                    every[i] = codes, counts
                    owners.append(each)
            totals = [
                _sums(codes, counts * drawn[owner], size)
                for (codes, counts), owner in zip(every, owners, strict=True)
            ]
        values = _SCORES[name](*totals)
        if questions > 1 and name == "balanced_error":
            values = np.array([_mean(pair) for pair in values.reshape(-1, 2)])
        elif questions > 1:
            values = values[1::2]
        return 1 - _mean(values)

    return score


def _gathered(
    owner: NDArray[np.intp], codes: NDArray[np.intp], weights: Floats, size: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """The weights of each sample and class, summed: of images some classes, and not all pixels."""
    keys, at = np.unique(owner * size + codes, return_inverse=True)
    return keys // size, keys % size, _sums(at, weights, len(keys))


def _sums(codes: NDArray[np.intp], weights: Floats, size: int) -> Floats:
    return np.asarray(np.bincount(codes, weights, size), np.float64)


def _areas(rows: Floats, y: Labels) -> Callable[[Floats | None], float]:
    """1 less the mean area under the curves of the classes."""
    curves = list(_curves(rows, y))
    owner = y.sample_of_rows()
    sorts: list[Callable[[Floats], float]] = []

    def score(drawn: Floats | None) -> float:
        if drawn is None:
            found = [
                _area(p, positive, None if y.weights is None else y.weights[at])
                for p, positive, at in curves
            ]
        else:
            if not sorts:
                weights = np.ones(len(y)) if y.weights is None else y.weights
                sorts.extend(
                    _sorted(p, positive, weights[at], owner[at]) for p, positive, at in curves
                )
            found = [area(drawn) for area in sorts]
        return 1 - _mean(np.array(found))

    return score


def _curves(rows: Floats, y: Labels) -> Iterator[tuple[Floats, NDArray[np.bool_], Any]]:
    """Of each curve the scores, which are positive, and which of the rows these are."""
    questions = _questions(y)
    if questions > 1:
        column = _columns(y, questions)
        for k in range(questions):
            at = np.flatnonzero(column == k)
            yield rows[at, 1], y.classes[at] == 1, at
    else:
        for k in [1] if rows.shape[1] == 2 else range(rows.shape[1]):
            yield rows[:, k], y.classes == k, slice(None)


def _area(scores: Floats, positive: NDArray[np.bool_], weights: Floats | None) -> float:
    order = np.argsort(scores[~positive])
    positives, negatives = scores[positive], scores[~positive][order]
    if not len(positives) or not len(negatives):
        return float("nan")
    below = np.searchsorted(negatives, positives, side="left")
    not_above = np.searchsorted(negatives, positives, side="right")
    if weights is None:
        # Twice the number of pairs in order, in integers: exact.
        return int(below.sum() + not_above.sum()) / (2 * len(positives) * len(negatives))
    sums = np.concatenate([[0.0], np.cumsum(weights[~positive][order])])
    own = weights[positive]
    return float(own @ (sums[below] + sums[not_above]) / (2 * own.sum() * sums[-1]))


def _sorted(
    scores: Floats, positive: NDArray[np.bool_], weights: Floats, owner: NDArray[np.intp]
) -> Callable[[Floats], float]:
    """The area by how often each sample was drawn: sorted once."""
    order = np.argsort(scores)
    scores, positive, weights, owner = scores[order], positive[order], weights[order], owner[order]
    at = np.flatnonzero(positive)
    below = np.searchsorted(scores, scores[at], side="left")
    not_above = np.searchsorted(scores, scores[at], side="right")
    sums = np.zeros(len(scores) + 1)

    def area(drawn: Floats) -> float:
        counts = weights * drawn[owner]
        own = counts[at]
        counts[at] = 0
        np.cumsum(counts, out=sums[1:])
        pairs = own.sum() * sums[-1]
        return float(own @ (sums[below] + sums[not_above]) / (2 * pairs)) if pairs else np.nan

    return area
