"""One temperature for a pooled prediction: from held-out data, by a convex search."""

from __future__ import annotations

import math
from typing import Any, Final, Unpack

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, shown
from ...core.keywords import takes_options
from ..arrays import (
    check_count,
    log_odds,
    logarithm,
    narrow,
    probabilities_of,
    widen,
)
from ..labels import LabelOptions, Labels
from ..score.metrics import checked_rows, row_scores

# Beyond these a prediction is all but one class, or all but uniform.
TEMPERATURES: Final = (0.01, 100.0)


@takes_options(LabelOptions)
def fit_temperature(
    probabilities: Any,
    labels: Any,
    *,
    class_axis: int | None = -1,
    **options: Unpack[LabelOptions],
) -> float:
    """The temperature of the least log-loss: `argmin_T -mean(log softmax(log(p) / T)[y])`.

    The log-loss is convex in `1 / T`; its minimum is found by Newton's method
    within a bracket, to about the last digits. It has none where every label
    has the highest probability: such data do not say how sure a prediction may
    be, and the result is 1. The result is within 0.01 and 100 otherwise.

    Args:
        probabilities: the pooled prediction for held-out data, of shape
            (samples, classes), or as `cosanneal.ensemble.score.metrics` says.
        labels: the true classes, integers of shape (samples,), or as said there.
        class_axis: the axis of the classes, or None.
        options: see `LabelOptions`.

    Raises:
        EnsembleError: as for `log_loss`.

    Example:
        >>> p = [[0.9, 0.1]] * 4
        >>> round(fit_temperature(p, [0, 0, 0, 1]), 3)  # right three times of four
        2.0

    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017), section
    4.2; Rahaman & Thiery (2021) for scaling after the averaging.
    """
    return row_temperature(*checked_rows(probabilities, labels, class_axis, options))


def row_temperature(rows: NDArray[np.float64], y: Labels, start: float = 1.0) -> float:
    """The temperature for rows of probabilities.

    Args:
        rows: the probabilities of the labels that count.
        y: these.
        start: where the search begins; the result depends on it by rounding alone.
    """
    return best_temperature(rows, y, start)[0]


def best_temperature(
    rows: NDArray[np.float64], y: Labels, start: float = 1.0
) -> tuple[float, float]:
    """The temperature for rows of probabilities, and their log-loss at it; see there."""
    logs = logarithm(rows)
    logs -= logs.max(axis=1, keepdims=True)
    own = y.expected(logs)
    beta = _inverse(logs, own, y, 1 / start) if own.any() else 1.0
    return 1 / beta, y.mean(np.log(np.exp(beta * logs).sum(axis=1)) - beta * own)


def _inverse(logs: NDArray[np.float64], own: NDArray[np.float64], y: Labels, beta: float) -> float:
    """The `1 / T` of the least log-loss, by Newton's method within a bracket.

    Args:
        logs: of the probabilities, less the greatest of each row.
        own: those of the labels.
        y: the labels.
        beta: where to begin.
    """
    ones = np.ones(logs.shape[1])  # a product with it is faster than a sum along a short axis

    def derivatives(beta: float) -> tuple[float, float]:
        """Of the mean log-loss in beta, 1 / T."""
        p = np.exp(beta * logs)
        p /= (p @ ones)[:, None]
        mean = np.einsum("ij,ij->i", p, logs)
        away = logs - mean[:, None]
        away *= away
        return y.mean(mean - own), y.mean(np.einsum("ij,ij->i", p, away))

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    inside, before = False, math.inf
    for _ in range(200):
        slope, curvature = derivatives(beta)
        if slope < 0:
            low = beta
        else:
            high = beta
        step = -slope / curvature if curvature > 0 else math.inf
        # Near the minimum the slope is rounding, and the steps fall no further.
        if abs(step) <= 4e-16 * beta or before <= abs(step) <= 1e-12 * beta:
            break
        before = abs(step)
        if not low < beta + step < high and not inside:
            # It may lie at an end; looked at once, and only where a step leads there.
            inside = True
            if derivatives(low)[0] >= 0:
                return low
            if derivatives(high)[0] <= 0:
                return high
        beta = beta + step if low < beta + step < high else (low + high) / 2
    return beta


def apply_temperature(
    probabilities: Any, temperature: float, *, class_axis: int | None = -1
) -> Any:
    """Probabilities at a temperature: `softmax(log(p) / T)`, so `p**(1 / T)`, normalised.

    Above 1 it makes them less sure and below 1 surer; the order of the classes
    stays. Of outcomes: `sigmoid(log(p / (1 - p)) / T)`. A probability below
    2**-126 counts as that.

    Args:
        probabilities: of any framework, of classes along `class_axis`.
        temperature: positive.
        class_axis: the axis of the classes; None for outcomes, as for an array
            of one axis.

    Returns:
        Of the kind, dtype and device of `probabilities`.

    Raises:
        EnsembleError: a temperature that is none.

    Example:
        >>> import numpy as np
        >>> apply_temperature(np.array([[0.9, 0.1]]), 2.0).round(3).tolist()
        [[0.75, 0.25]]
    """
    wide = widen(probabilities)
    return narrow(tempered(wide, check_temperature(temperature), class_axis), probabilities)


def tempered(wide: Any, temperature: float, class_axis: int | None) -> Any:
    """What `widen` made of probabilities, at a temperature."""
    if temperature == 1:
        return wide
    if class_axis is None or len(wide.shape) == 1:
        return probabilities_of(log_odds(wide) / temperature, None)
    return probabilities_of(logarithm(wide) / temperature, class_axis)


@takes_options(LabelOptions)
def calibrated_log_loss(
    probabilities: Any,
    labels: Any,
    *,
    class_axis: int | None = -1,
    splits: int = 5,
    seed: int = 0,
    **options: Unpack[LabelOptions],
) -> float:
    """The log-loss that a prediction could have at its best temperature, by cross-validation.

    The samples are cut at random into two halves; the temperature that fits
    one is used for the other, and the other way round; the mean over both and
    over `splits` such cuts. So no sample has a part in its own temperature, and
    models compare by what they know, and not by how sure they say they are.

    Args:
        probabilities: shape (samples, classes), or as `cosanneal.ensemble.score.metrics`
            says.
        labels: the true classes, integers of shape (samples,), or as said there.
        class_axis: the axis of the classes, or None.
        splits: how many cuts.
        seed: of the cuts.
        options: see `LabelOptions`.

    Raises:
        EnsembleError: fewer than two samples; otherwise as for `log_loss`.

    Example:
        >>> from cosanneal.ensemble import log_loss
        >>> p = [[0.9, 0.1]] * 40
        >>> y = [0, 0, 0, 1] * 10
        >>> round(calibrated_log_loss(p, y), 2), round(log_loss(p, y), 2)
        (0.6, 0.65)

    Source: Ashukha et al., "Pitfalls of In-Domain Uncertainty Estimation and
    Ensembling in Deep Learning" (2020), section 3.
    """
    rows, y = checked_rows(probabilities, labels, class_axis, options)
    if y.samples < 2:
        raise EnsembleError(
            "There must be at least two samples to fit a temperature on some and try it on "
            "others. Received: 1"
        )
    random = np.random.default_rng(seed)
    losses: list[float] = []
    for _ in range(check_count("splits", splits)):
        order = random.permutation(y.samples)
        halves = [order[: y.samples // 2], order[y.samples // 2 :]]
        tempered_rows = np.empty_like(rows)
        for fitted, tried in (halves, reversed(halves)):
            at = y.rows_of(fitted)
            temperature = row_temperature(rows[at], y.of(fitted))
            at = y.rows_of(tried)
            tempered_rows[at] = tempered(rows[at], temperature, -1)
        losses.append(y.mean(row_scores("log_loss", tempered_rows, y)))
    return math.fsum(losses) / len(losses)


def check_temperature(value: object) -> float:
    """`value` as a finite positive float."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise EnsembleError(
            "Argument `temperature` must be a finite positive number. "
            f"Received: temperature={shown(value)}"
        )
    return float(value)
