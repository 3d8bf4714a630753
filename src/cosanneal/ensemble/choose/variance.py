"""The variance of a pooled regression from held-out data: its scale, or the noise it lacks."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError
from ..arrays import SMALLEST
from ..score.regression import normals
from ..score.targets import Targets, as_targets
from .search import nonnegative

Floats = NDArray[np.float64]

# Fisher's steps; some ten are usual.
_STEPS: Final = 100


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


def fit_spread(
    means: Any, variances: Any, targets: Any, *, sample_weight: Any = None, mask: Any = None
) -> tuple[float, tuple[float, ...]]:
    """What makes a predictive variance of that between members that give values only.

    `argmin_{c, s >= 0} mean(log(c v + s) / 2 + (y - m)**2 / (2 (c v + s)))`

    The variance `v` between the members leaves the noise of the targets out, `s`; and the
    mean of members that err each by itself is better than they differ, or worse where they
    err alike: `c`. Of one member `v` is 0, and `s` its mean squared error.

    Args:
        means: the pooled values for held-out data, of the targets' shape.
        variances: the variances between the members, of that shape; at least 0.
        targets: the truth.
        sample_weight: how much each counts, as in `cosanneal.ensemble.score.regression`.
        mask: True where a target counts.

    Returns:
        The scale `c`, and the noise `s` in the targets' unit squared: one, or of targets of
        shape (samples, targets) one for each.

    Raises:
        EnsembleError: as for `mse`, or a negative variance.

    Example:
        >>> fit_spread([0.0, 0.0], [0.0, 0.0], [1.0, 3.0])
        (1.0, (5.0,))
        >>> scale, noise = fit_spread(np.zeros(4), [0, 0, 1, 1], [1, -1, 2, -2])
        >>> round(scale, 6), round(noise[0], 6)
        (3.0, 1.0)

    Source: Gneiting et al., "Calibrated Probabilistic Forecasting Using Ensemble Model Output
    Statistics and Minimum CRPS Estimation" (2005), section 2.a, for the form; found as a gamma
    model with identity link, by Fisher's scoring: McCullagh & Nelder, "Generalized Linear
    Models" (1989), chapter 8.
    """
    y = as_targets(targets, sample_weight=sample_weight, mask=mask)
    m, v = y.numbers(means, "means"), y.numbers(variances, "variances")
    if not (v >= 0).all():
        raise EnsembleError(
            f"Argument `variances` must be at least 0. Received: one of {v.min():.6g}"
        )
    scale, noise = row_spread(m, v, y)
    return scale, tuple(noise.tolist())


def row_scale(m: Floats, v: Floats, y: Targets) -> float:
    """The scale of variances, for the numbers of some targets."""
    found = y.mean((y.values - m) ** 2 / np.maximum(v, SMALLEST))
    return found if 0 < found < math.inf else 1.0


def noise_of(noise: Floats, y: Targets) -> Floats | float:
    """The noise of each number of some targets."""
    if len(noise) == 1:
        return float(noise[0])
    return np.asarray(noise[y.columns()])


def row_spread(m: Floats, v: Floats, y: Targets) -> tuple[float, Floats]:
    """The scale and the noise for the numbers of some targets, as `fit_spread` says.

    Each target's numbers are taken in units of its own mean squared error.
    """
    squares = (y.values - m) ** 2
    weights = np.ones_like(m) if y.weights is None else y.weights
    several = len(y.shape) == 2
    column = y.columns() if several else np.zeros(len(m), np.intp)
    count = y.shape[1] if several else 1
    sums = np.bincount(column, weights * squares, minlength=count)
    totals = np.bincount(column, weights, minlength=count)
    units = np.divide(sums, totals, out=np.zeros(count), where=totals > 0)
    met = units[column] > 0  # of a target that is always met nothing is known
    if not (v[met] > 0).any():
        return 1.0, units
    column, shares = column[met], weights[met] / weights[met].sum()
    r, b = squares[met] / units[column], v[met] / units[column]
    middle = float(shares @ b)
    b /= middle

    def loss(theta: Floats) -> float:
        total = np.maximum(theta[0] * b + theta[1:][column], SMALLEST)
        return float(shares @ (np.log(total) + r / total))

    theta = np.concatenate([[0.0], np.where(units > 0, 1.0, 0.0)])
    least = loss(theta)
    for _ in range(_STEPS):
        total = np.maximum(theta[0] * b + theta[1:][column], SMALLEST)
        w = shares / total**2
        hessian = np.diag([float(w @ b**2), *np.bincount(column, w, minlength=count)])
        hessian[0, 1:] = hessian[1:, 0] = np.bincount(column, w * b, minlength=count)
        linear = np.array([float(w @ (b * r)), *np.bincount(column, w * r, minlength=count)])
        hessian[np.diag_indices(count + 1)] += 1e-13 * np.trace(hessian)
        step = nonnegative(hessian, linear, np.maximum(theta, 1e-9)) - theta
        size = 1.0
        while size > 1e-8 and not loss(theta + size * step) < least:
            size /= 2
        if size <= 1e-8:
            break
        theta = np.maximum(theta + size * step, 0)
        before, least = least, loss(theta)
        if before - least <= 1e-14:
            break
    return float(theta[0]) / middle, theta[1:] * units
