"""How good predicted quantiles are, on arrays.

A model of quantiles returns one number for each of them along the last axis, behind the
targets' axes: (samples, quantiles). An ensemble of such models averages them, quantile by
quantile (outputs="values"): means of numbers in order are in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, shown
from ..arrays import as_floats
from .targets import Targets, as_targets

Floats = NDArray[np.float64]


def pinball_loss(
    values: Any,
    targets: Any,
    quantiles: Sequence[float],
    *,
    sample_weight: Any = None,
    mask: Any = None,
) -> float:
    """The mean pinball loss of quantiles: `mean(max(q (y - f), (q - 1) (y - f)))`.

    Over all targets and quantiles; in the targets' unit. It is least where each value is
    the quantile that it stands for; of the median it is half the absolute error.

    Args:
        values: the predicted quantiles, of the targets' shape and one axis more at the end.
        targets: the truth, of shape (samples,) or (samples, ...).
        quantiles: which they are: numbers between 0 and 1, increasing.
        sample_weight: how much each counts, as in `cosanneal.ensemble.score.regression`.
        mask: True where a target counts.

    Raises:
        EnsembleError: shapes that do not fit, numbers that are not finite where they
            count, or quantiles, weights or a mask that are none.

    Example:
        >>> round(pinball_loss([[1.0, 3.0]], [2.0], [0.1, 0.9]), 3)
        0.1

    Source: Koenker & Bassett, "Regression Quantiles" (1978);
    `sklearn.metrics.mean_pinball_loss`.
    """
    y = as_targets(targets, sample_weight=sample_weight, mask=mask)
    return y.mean(pinball_of(values, y, check_quantiles(quantiles)).mean(axis=-1))


def quantile_coverage(
    values: Any,
    targets: Any,
    quantiles: Sequence[float],
    *,
    sample_weight: Any = None,
    mask: Any = None,
) -> list[float]:
    """The share of targets at or below each predicted quantile; of a calibrated one, the quantile.

    Args and errors as for `pinball_loss`.

    Example:
        >>> quantile_coverage([[1.0, 3.0], [1.0, 3.0]], [0.5, 2.0], [0.25, 0.75])
        [0.5, 1.0]
    """
    y = as_targets(targets, sample_weight=sample_weight, mask=mask)
    rows = quantile_rows(values, y, check_quantiles(quantiles))
    below = np.asarray(y.values[:, None] <= rows, np.float64)
    return [y.mean(column) for column in below.T]


def quantile_crossing(values: Any) -> float:
    """The share of predictions whose quantiles are not in order, along the last axis.

    Args:
        values: the predicted quantiles, of increasing levels along the last axis.

    Raises:
        EnsembleError: fewer than two quantiles, or numbers that are not finite.

    Example:
        >>> quantile_crossing([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]])
        0.5

    Source: Chernozhukov et al., "Quantile and Probability Curves Without Crossing" (2010).
    """
    rows = as_floats(values)
    if rows.ndim < 2 or rows.shape[-1] < 2 or rows.size == 0:
        raise EnsembleError(
            "Argument `values` must have at least two quantiles along the last axis. Received: "
            f"shape {rows.shape}"
        )
    if not np.isfinite(rows).all():
        raise EnsembleError("Argument `values` must be finite. Received: NaN or infinity")
    return float(np.mean((np.diff(rows, axis=-1) < 0).any(axis=-1)))


def check_quantiles(quantiles: Any) -> tuple[float, ...]:
    """`quantiles` as increasing floats between 0 and 1, at least one."""
    try:
        levels = () if isinstance(quantiles, str) else tuple(float(each) for each in quantiles)
    except (TypeError, ValueError):
        levels = ()
    steps = zip((0.0, *levels), (*levels, 1.0), strict=True)
    if not levels or not all(low < high for low, high in steps):
        raise EnsembleError(
            "Argument `quantiles` must be increasing numbers between 0 and 1, one for each value "
            f"along the last axis. Received: quantiles={shown(quantiles)}"
        )
    return levels


def quantile_rows(values: Any, y: Targets, quantiles: tuple[float, ...]) -> Floats:
    """The predicted quantiles for some targets, of shape (numbers, quantiles)."""
    f = as_floats(values)
    if f.ndim == 0 or f.shape[-1] != len(quantiles):
        raise EnsembleError(
            f"Argument `values` must have {len(quantiles)} quantiles along the last axis. "
            f"Received: shape {f.shape}"
        )
    return np.stack([y.numbers(f[..., k]) for k in range(len(quantiles))], axis=-1)


def pinball_of(values: Any, y: Targets, quantiles: tuple[float, ...]) -> Floats:
    """The pinball loss of each quantile of some targets, of shape (numbers, quantiles)."""
    return pinball(y.values, quantile_rows(values, y, quantiles), quantiles)


def pinball(targets: Floats, rows: Floats, quantiles: tuple[float, ...]) -> Floats:
    """The pinball loss of rows of quantiles."""
    away, q = targets[:, None] - rows, np.array(quantiles)
    return np.maximum(q * away, (q - 1) * away)
