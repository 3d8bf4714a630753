"""How good predicted probabilities are, on arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.errors import EnsembleError


def error_rate(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """The share of samples whose most probable class is not the label.

    Args:
        probabilities: shape (samples, classes).
        labels: the true classes, integers of shape (samples,).

    Raises:
        EnsembleError: shapes that do not fit, labels that are no classes, no samples.

    Example:
        >>> error_rate([[0.9, 0.1], [0.3, 0.7]], [0, 0])
        0.5
    """
    p, y = _checked(probabilities, labels)
    return float(np.mean(p.argmax(axis=1) != y))


def log_loss(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """The mean negative log-likelihood of the labels, in nats: `-mean(log(p[i, y[i]]))`.

    A probability that underflowed to 0 counts as the smallest normal number of
    its dtype, so that one sample cannot make the mean infinite.

    Args:
        probabilities: shape (samples, classes).
        labels: the true classes, integers of shape (samples,).

    Raises:
        EnsembleError: shapes that do not fit, labels that are no classes, no samples.

    Example:
        >>> round(log_loss([[0.5, 0.5], [0.25, 0.75]], [0, 1]), 4)
        0.4904
    """
    p, y = _checked(probabilities, labels)
    likelihoods = p[np.arange(len(y)), y]
    tiny = np.finfo(p.dtype).tiny
    return float(-np.mean(np.log(np.maximum(likelihoods, tiny).astype(np.float64))))


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    p, y = np.asarray(probabilities), np.asarray(labels)
    if p.dtype.kind != "f":
        p = p.astype(np.float64)
    if p.ndim != 2 or y.shape != p.shape[:1] or len(y) == 0:
        raise EnsembleError(
            "Arguments `probabilities` and `labels` must have shapes (samples, classes) and "
            f"(samples,), with at least one sample. Received: {p.shape} and {y.shape}"
        )
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= p.shape[1]:
        raise EnsembleError(
            f"Argument `labels` must be integers from 0 to {p.shape[1] - 1}, one of the classes. "
            f"Received: dtype {y.dtype}, from {y.min()} to {y.max()}"
        )
    if not np.isfinite(p).all():
        raise EnsembleError("Argument `probabilities` must be finite. Received: NaN or infinity")
    return p, y
