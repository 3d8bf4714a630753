"""The variance of a pooled regression from held-out data: its scale, or the noise it lacks."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..arrays import SMALLEST
from ..score.regression import normals
from ..score.targets import Targets, as_targets

Floats = NDArray[np.float64]

# Variances from this share of the mean square on are tried, before the best is refined.
_LEAST: Final = 1e-6
_TRIED: Final = 17


def fit_variance_scale(
    means: Any, variances: Any, targets: Any, *, sample_weight: Any = None, mask: Any = None
) -> float:
    """The factor of the variances of the least Gaussian negative log-likelihood.

    `argmin_c mean(log(c v) / 2 + (y - m)**2 / (2 c v)) = mean((y - m)**2 / v)`

    Above 1 the prediction was too sure. Where every mean is the target itself, the data do
    not say how sure a prediction may be, and the result is 1.

    Args:
        means: the pooled means for held-out data, of the targets' shape.
        variances: the pooled variances, of that shape; positive.
        targets: the truth.
        sample_weight: how much each counts, as in `cosanneal.ensemble.score.regression`.
        mask: True where a target counts.

    Raises:
        EnsembleError: as for `gaussian_nll`.

    Example:
        >>> fit_variance_scale([0.0, 0.0], [1.0, 2.0], [2.0, 2.0])
        3.0

    Source: Laves et al., "Well-Calibrated Regression Uncertainty in Medical Imaging" (2020),
    Eq. 8.
    """
    y = as_targets(targets, sample_weight=sample_weight, mask=mask)
    return row_scale(*normals(means, variances, y), y)


def fit_noise(
    means: Any,
    targets: Any,
    *,
    variances: Any = None,
    sample_weight: Any = None,
    mask: Any = None,
) -> float | list[float]:
    """The variance of the noise in the targets that a prediction of values leaves out.

    `argmin_{s >= 0} mean(log(v + s) / 2 + (y - m)**2 / (2 (v + s)))`

    beside the variance `v` between the members. Without that it is the mean squared error;
    with it, less, so that the two together are the variance to predict with. Of several
    targets, of shape (samples, targets), each has its own.

    Args:
        means: the pooled values for held-out data, of the targets' shape.
        targets: the truth.
        variances: the variances between the members, of that shape; by default 0.
        sample_weight: how much each counts, as in `cosanneal.ensemble.score.regression`.
        mask: True where a target counts.

    Returns:
        One variance, or of targets of two axes one for each; in their unit squared.

    Raises:
        EnsembleError: as for `mse`.

    Example:
        >>> fit_noise([0.0, 0.0], [1.0, 3.0])
        5.0
        >>> round(fit_noise([0.0, 0.0], [1.0, 3.0], variances=[1.0, 1.0]), 6)
        4.0
    """
    y = as_targets(targets, sample_weight=sample_weight, mask=mask)
    m = y.numbers(means, "means")
    v = np.zeros_like(m) if variances is None else y.numbers(variances, "variances")
    found = row_noise(m, v, y)
    return found.tolist() if len(y.shape) == 2 else float(found[0])


def row_scale(m: Floats, v: Floats, y: Targets) -> float:
    """The scale of variances, for the numbers of some targets."""
    found = y.mean((y.values - m) ** 2 / np.maximum(v, SMALLEST))
    return found if 0 < found < math.inf else 1.0


def row_noise(m: Floats, v: Floats, y: Targets) -> Floats:
    """The noise for the numbers of some targets: one, or of targets of two axes one for each."""
    squares = (y.values - m) ** 2
    weights = np.ones_like(m) if y.weights is None else y.weights
    if len(y.shape) != 2:
        return np.array([_least(squares, v, weights)])
    column = y.columns()
    return np.array(
        [
            _least(squares[column == k], v[column == k], weights[column == k])
            for k in range(y.shape[1])
        ]
    )


def noise_of(noise: Floats, y: Targets) -> Floats | float:
    """The noise of each number of some targets."""
    if len(noise) == 1:
        return float(noise[0])
    return np.asarray(noise[y.columns()])


def _least(squares: Floats, v: Floats, weights: Floats) -> float:
    """The `s` of the least `mean(log(v + s) + squares / (v + s))`."""
    if not len(squares) or not squares.max() > 0:
        return 0.0  # a target that never counts, or that is always met
    shares = weights / weights.sum()
    mean = float(shares @ squares)
    if not v.any():
        return mean

    def loss(s: float) -> float:
        total = np.maximum(v + s, SMALLEST)
        return float(shares @ (np.log(total) + squares / total))

    # It may have several minima: the lowest of some is refined. Above the greatest square it grows.
    most = float(squares.max())
    tried = [0.0, *np.geomspace(_LEAST * mean, most, _TRIED).tolist()]
    best = int(np.argmin([loss(s) for s in tried]))
    low, high = tried[max(best - 1, 0)], tried[min(best + 1, len(tried) - 1)]
    s, before = tried[best], math.inf
    for _ in range(100):
        total = np.maximum(v + s, SMALLEST)
        slope = float(shares @ ((total - squares) / total**2))
        curvature = float(shares @ ((2 * squares - total) / total**3))
        low, high = (s, high) if slope < 0 else (low, s)
        step = -slope / curvature if curvature > 0 else math.inf
        if abs(step) <= 4e-16 * s or before <= abs(step) <= 1e-12 * s or high <= low:
            break
        before = abs(step)
        s = s + step if low < s + step < high else (low + high) / 2
    return float(s if loss(s) <= loss(tried[best]) else tried[best])
