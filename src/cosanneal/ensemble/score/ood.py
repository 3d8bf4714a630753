"""What is out of distribution, on arrays: scores of doubt, and how well they tell it.

Out of distribution is the positive class (label 1), and a score is the higher
the more a sample seems so, as in torch-uncertainty.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, shown
from ..arrays import as_floats
from ..labels import as_labels
from .by_class import auroc
from .uncertainty import Uncertainty

Floats = NDArray[np.float64]


def ood_scores(found: Uncertainty[Any], *, class_axis: int | None = -1) -> dict[str, Floats]:
    """The scores of an uncertainty, by which what is out of distribution may be told.

    - `max_probability`: `-max_k p_k`; of an outcome `-max(p, 1 - p)`;
    - `entropy`, `expected_entropy`, `mutual_information` and `variation_ratio`, as they are.

    Args:
        found: what `predict_with_uncertainty` or `uncertainty` found.
        class_axis: the axis of the classes of its probabilities, or None.

    Returns:
        By name, arrays of the entropy's shape.

    Example:
        >>> from cosanneal.ensemble import uncertainty
        >>> found = uncertainty(np.array([[[0.9, 0.1]], [[0.5, 0.5]]]))
        >>> ood_scores(found)["max_probability"].round(3).tolist()
        [-0.7]

    Source: Hendrycks & Gimpel, "A Baseline for Detecting Misclassified and
    Out-of-Distribution Examples in Neural Networks" (2017), section 2, for the first.
    torch-uncertainty's criteria "msp", "mutual_information" and "variation_ratio"; its
    "entropy" is the `expected_entropy`.
    """
    p = as_floats(found.probabilities)
    one = class_axis is None or p.ndim == 1
    sure = np.maximum(p, 1 - p) if one else p.max(axis=class_axis)
    names = ("entropy", "expected_entropy", "mutual_information", "variation_ratio")
    return {"max_probability": -sure, **{name: as_floats(getattr(found, name)) for name in names}}


def energy(logits: Any, *, temperature: float = 1.0, class_axis: int = -1) -> Floats:
    """The free energy of logits: `-T log(sum_k exp(z_k / T))`; high where no class stands out.

    Args:
        logits: of classes along `class_axis`; of an ensemble, the mean of its members'.
        temperature: `T`.
        class_axis: the axis of the classes.

    Raises:
        EnsembleError: logits without such an axis, or a temperature that is none.

    Example:
        >>> energy([[0.0, 0.0], [9.0, 0.0]]).round(3).tolist()
        [-0.693, -9.0]

    Source: Liu et al., "Energy-based Out-of-distribution Detection" (2020), Eq. 4;
    torch-uncertainty's "energy".
    """
    z = as_floats(logits)
    number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not number or not 0 < temperature < np.inf:
        raise EnsembleError(
            "Argument `temperature` must be a finite positive number. "
            f"Received: temperature={shown(temperature)}"
        )
    if not -z.ndim <= class_axis < z.ndim:
        raise EnsembleError(
            f"Argument `logits` must have the classes along axis {class_axis}. "
            f"Received: shape {z.shape}"
        )
    return np.asarray(-temperature * np.logaddexp.reduce(z / temperature, axis=class_axis))


def aupr(scores: Any, labels: Any) -> float:
    """The area under the precision-recall curve: the average precision.

    `sum_n (R_n - R_{n-1}) P_n` over the thresholds, with the precision `P_n` and
    the recall `R_n` of what is at or above the n-th; equal scores have one threshold.

    Args:
        scores: the higher the more a sample seems positive; of any shape.
        labels: 0 or 1, of the same shape.

    Raises:
        EnsembleError: shapes that do not fit, scores that are not finite,
            labels of one class only.

    Example:
        >>> round(aupr([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]), 4)
        0.8333

    Source: Davis & Goadrich (2006); torchmetrics' BinaryAveragePrecision.
    """
    true, false = _counts(scores, labels)
    recall, precision = true / true[-1], true / (true + false)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def fpr95(scores: Any, labels: Any) -> float:
    """The false positive rate at the highest threshold with a true positive rate of 95 %.

    Equal scores are on one side of every threshold. Arguments and errors as `aupr`.

    Example:
        >>> fpr95([0.9, 0.8, 0.7, 0.6, 0.4, 0.2, 0.1], [1, 0, 1, 0, 0, 1, 0])
        0.75

    Source: Hendrycks & Gimpel (2017); torch-uncertainty's FPR95(pos_label=1).
    """
    true, false = _counts(scores, labels)
    enough = np.argmax(20 * true >= 19 * true[-1])  # in whole numbers: exact
    return float(false[enough] / false[-1])


def ood_detection(inside: Any, outside: Any) -> dict[str, float]:
    """How well a score tells samples from out of distribution.

    Args:
        inside: the scores of samples in distribution, of any shape.
        outside: those of samples out of it, the positives.

    Returns:
        `auroc`, `aupr` and `fpr95`.

    Raises:
        EnsembleError: no scores, or such as are not finite.

    Example:
        >>> found = ood_detection([0.1, 0.2, 0.3], [0.25, 0.9])
        >>> {name: round(value, 4) for name, value in found.items()}
        {'auroc': 0.8333, 'aupr': 0.8333, 'fpr95': 0.3333}

    Source: as for `auroc`, `aupr` and `fpr95`.
    """
    parts = [as_floats(inside).reshape(-1), as_floats(outside).reshape(-1)]
    for name, part in zip(("inside", "outside"), parts, strict=True):
        if not len(part):
            raise EnsembleError(f"Argument `{name}` must have at least one score. Received: none")
    scores = np.concatenate(parts)
    labels = np.repeat([0, 1], [len(part) for part in parts])
    return {
        "auroc": auroc(scores, labels),
        "aupr": aupr(scores, labels),
        "fpr95": fpr95(scores, labels),
    }


def _counts(scores: Any, labels: Any) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """How many positives and negatives are at or above each threshold, the highest first."""
    found = as_floats(scores)
    positive = as_labels(labels, found.shape, None).classes == 1
    found = found.reshape(-1)
    if not np.isfinite(found).all():
        raise EnsembleError("Argument `scores` must be finite. Received: NaN or infinity")
    if positive.all() or not positive.any():
        raise EnsembleError(
            "Argument `labels` must have both classes. Received: "
            f"{positive.sum()} positives and {(~positive).sum()} negatives"
        )
    order = np.argsort(-found, kind="stable")
    found, positive = found[order], positive[order]
    last = np.flatnonzero(np.r_[found[1:] != found[:-1], True])
    true = np.cumsum(positive)[last]
    return true, last + 1 - true
