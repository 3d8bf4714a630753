"""How good the predictions of a regression are, on arrays."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError
from ..arrays import as_floats, check_share


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
