"""Selective prediction, on arrays: what errors are left where the least sure are not predicted.

Shapes and labels are as in `cosanneal.ensemble.score.metrics`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, shown
from ..arrays import as_floats
from .metrics import checked_rows, row_scores

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class RiskCoverage:
    """The risk of the k surest predictions, for every k of n.

    `coverage[k - 1] = k / n`, `risk[k - 1] = sum of the k surest's losses / k`

    Of predictions that are as sure as each other, any may come first: the risk
    is its mean over all their orders, and so depends on no order.

    Args:
        coverage: the share that is predicted, of shape (n,), increasing.
        risk: their mean loss, such as the error rate; of shape (n,).

    Source: El-Yaniv & Wiener, "On the Foundations of Noise-free Selective
    Classification" (2010), section 2; Geifman & El-Yaniv, "Selective
    Classification for Deep Neural Networks" (2017).
    """

    coverage: Floats
    risk: Floats

    @classmethod
    def of(cls, losses: Any, uncertainty: Any) -> RiskCoverage:
        """The curve of any losses, such as the squared errors of a regression.

        Args:
            losses: one of at least 0 for each prediction, of any shape.
            uncertainty: how unsure each is, such as its variance; of the same shape.

        Raises:
            EnsembleError: shapes that differ, no numbers, or such as cannot be.

        Example:
            >>> RiskCoverage.of([0.0, 4.0, 2.0], [0.1, 0.9, 0.1]).risk.tolist()
            [1.0, 1.0, 2.0]
        """
        loss, doubt = as_floats(losses), as_floats(uncertainty)
        if loss.shape != doubt.shape or not loss.size:
            raise EnsembleError(
                "Arguments `losses` and `uncertainty` must have one shape, with at least one "
                f"number. Received: {loss.shape} and {doubt.shape}"
            )
        for name, found, low in (("losses", loss, 0.0), ("uncertainty", doubt, -math.inf)):
            if not (np.isfinite(found).all() and found.min() >= low):
                least = " and at least 0" if low == 0 else ""
                raise EnsembleError(
                    f"Argument `{name}` must be finite{least}. Received: from {found.min():.6g} to "
                    f"{found.max():.6g}"
                )
        order = np.argsort(doubt, axis=None, kind="stable")
        loss, doubt = loss.reshape(-1)[order], doubt.reshape(-1)[order]
        n = len(loss)
        first = np.flatnonzero(np.r_[True, doubt[1:] != doubt[:-1]])  # of each group that ties
        size = np.diff(np.r_[first, n])
        own = np.add.reduceat(loss, first)
        before = np.r_[0.0, np.cumsum(own)[:-1]]
        k = np.arange(1, n + 1)
        within = k - np.repeat(first, size)
        # Of whole numbers, as errors are, one division rounds once.
        sums = np.repeat(before * size, size) + np.repeat(own, size) * within
        return cls(k / n, sums / (np.repeat(size, size) * k))

    @property
    def aurc(self) -> float:
        """The area under the curve: the mean risk over coverages, by the trapezoidal rule.

        Divided by `1 - 1 / n`, the length on which the curve is; of one
        prediction, its risk.

        Source: torch-uncertainty's AURC.
        """
        return _area(self.risk)

    @property
    def augrc(self) -> float:
        """The area under `risk * coverage`: the chance of an error that is not held back.

        Source: Traub et al., "Overcoming Common Flaws in the Evaluation of Selective
        Classification Systems" (2024), section 3; torch-uncertainty's AUGRC.
        """
        return _area(self.risk * self.coverage)

    def coverage_at_risk(self, risk: float) -> float:
        """The greatest coverage whose risk is at most `risk`; 0 where none is.

        (torch-uncertainty's CovAtxRisk, which has NaN in the place of 0.)

        Raises:
            EnsembleError: `risk` is no finite number of at least 0.
        """
        if isinstance(risk, bool) or not isinstance(risk, int | float) or not 0 <= risk < math.inf:
            raise EnsembleError(
                "Argument `risk` must be a finite number of at least 0. "
                f"Received: risk={shown(risk)}"
            )
        allowed = np.flatnonzero(self.risk <= risk)
        return float(self.coverage[allowed[-1]]) if len(allowed) else 0.0

    def risk_at_coverage(self, coverage: float) -> float:
        """The risk of the `ceil(n * coverage)` surest.

        A float means the decimal that it is written as: 0.55 of 100 are 55.
        (torch-uncertainty's RiskAtxCov.)

        Raises:
            EnsembleError: `coverage` is not above 0 and at most 1.
        """
        number = isinstance(coverage, int | float) and not isinstance(coverage, bool)
        if not number or not 0 < coverage <= 1:
            raise EnsembleError(
                "Argument `coverage` must be a number above 0 and at most 1. "
                f"Received: coverage={shown(coverage)}"
            )
        count = math.ceil(Fraction(repr(float(coverage))) * len(self.risk))
        return float(self.risk[count - 1])


def risk_coverage(
    probabilities: Any, labels: Any, *, uncertainty: Any = None, class_axis: int | None = -1
) -> RiskCoverage:
    """The error rate of the surest predictions, for every share of them.

    Args:
        probabilities: shape (samples, classes), or as `cosanneal.ensemble.metrics` says.
        labels: the true classes, integers of shape (samples,).
        uncertainty: how unsure each label's prediction is, such as the
            `mutual_information` of `uncertainty`, of the labels' shape; by default
            the one of the highest probability is the surest.
        class_axis: the axis of the classes, or None.

    Raises:
        EnsembleError: as for `error_rate`, or an uncertainty of another shape.

    Example:
        >>> p = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5]]
        >>> found = risk_coverage(p, [0, 1, 1, 0])
        >>> found.risk.round(3).tolist(), found.coverage_at_risk(0.1)
        ([0.0, 0.0, 0.333, 0.25], 0.5)

    Source: as `RiskCoverage`.
    """
    rows, y = checked_rows(probabilities, labels, class_axis)
    errors = row_scores("error", rows, y)
    if uncertainty is None:
        return RiskCoverage.of(errors, -rows.max(axis=1))
    doubt = as_floats(uncertainty)
    if doubt.size != len(rows):
        raise EnsembleError(
            "Argument `uncertainty` must have a number for each label. Received: shape "
            f"{doubt.shape} for {len(rows)} labels"
        )
    return RiskCoverage.of(errors, doubt.reshape(-1))


def aurc(
    probabilities: Any, labels: Any, *, uncertainty: Any = None, class_axis: int | None = -1
) -> float:
    """The area under the risk-coverage curve; the lower the better.

    `mean over coverages of (error rate of that share of the surest)`, as
    `RiskCoverage.aurc` says. Arguments, errors and source as `risk_coverage`.

    Example:
        >>> round(aurc([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1]), 4)
        0.0833
    """
    found = risk_coverage(probabilities, labels, uncertainty=uncertainty, class_axis=class_axis)
    return found.aurc


def augrc(
    probabilities: Any, labels: Any, *, uncertainty: Any = None, class_axis: int | None = -1
) -> float:
    """The area under the generalized risk-coverage curve; the lower the better.

    `mean over coverages of (coverage * error rate of that share)`, as
    `RiskCoverage.augrc` says. Arguments and errors as `risk_coverage`.

    Example:
        >>> round(augrc([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1]), 4)
        0.0833
    """
    found = risk_coverage(probabilities, labels, uncertainty=uncertainty, class_axis=class_axis)
    return found.augrc


def coverage_at_risk(
    probabilities: Any,
    labels: Any,
    risk: float,
    *,
    uncertainty: Any = None,
    class_axis: int | None = -1,
) -> float:
    """The greatest share of the surest predictions whose error rate is at most `risk`.

    As `RiskCoverage.coverage_at_risk` says. Other arguments and errors as `risk_coverage`.

    Example:
        >>> round(coverage_at_risk([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1], 0.1), 4)
        0.6667
    """
    found = risk_coverage(probabilities, labels, uncertainty=uncertainty, class_axis=class_axis)
    return found.coverage_at_risk(risk)


def risk_at_coverage(
    probabilities: Any,
    labels: Any,
    coverage: float,
    *,
    uncertainty: Any = None,
    class_axis: int | None = -1,
) -> float:
    """The error rate of the share `coverage` of the surest predictions.

    As `RiskCoverage.risk_at_coverage` says. Other arguments and errors as `risk_coverage`.

    Example:
        >>> risk_at_coverage([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1], 0.6)
        0.0
    """
    found = risk_coverage(probabilities, labels, uncertainty=uncertainty, class_axis=class_axis)
    return found.risk_at_coverage(coverage)


def _area(values: Floats) -> float:
    """The mean of values at even distances, by the trapezoidal rule."""
    return float(((values[1:] + values[:-1]) / 2).mean()) if len(values) > 1 else float(values[0])
