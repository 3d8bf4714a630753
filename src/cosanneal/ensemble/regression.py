"""What members of a regression are worth, alone and together, as a part of a results document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..core.errors import EnsembleError, shown
from .arrays import SMALLEST
from .choose.choice import Choice, names_of
from .choose.intervals import prediction_interval
from .choose.moments import HeldOutRegression, Regression
from .choose.regression import regression_evidence
from .findings import found_of
from .score.evidence import bootstrap_interval, compare_scores
from .score.quantiles import quantile_coverage, quantile_crossing
from .score.regression import (
    RegressionMetric,
    interval_coverage,
    mean_interval_width,
    regression_calibration_error,
)

Floats = NDArray[np.float64]

# Of the intervals whose coverage is told.
LEVELS: Final = (0.9, 0.95)


def analyze_regression(
    predictions: Sequence[Any] | Any,
    targets: Any,
    *,
    outputs: Regression = "values",
    quantiles: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
    choice: Choice | None = None,
    sample_weight: Any = None,
    mask: Any = None,
    counts: Any = None,
    levels: Sequence[float] = LEVELS,
    seed: int = 0,
    baseline: Any = None,
) -> dict[str, Any]:
    """What members are worth, alone and together, as the part `regression` of a results document.

    Args:
        predictions: the members' outputs, oldest first, as `fit_regression` takes them.
        targets: the truth, of data that no member was trained on and nothing was chosen by.
        outputs: "values", or "gaussian" for pairs of means and variances.
        quantiles: where the values along the last axis are quantiles, which they are.
        names: of the members; by default those of the choice, or "0", "1", ...
        choice: what `fit_regression` chose among these members, on other data.
        sample_weight: how much each target counts, as in `cosanneal.ensemble.score.regression`.
        mask: True where a target counts.
        counts: how many places along the first axis each sample has, as in `fit_regression`.
        levels: of the intervals whose coverage is told.
        seed: of the intervals of the comparisons.
        baseline: another model's outputs for the same data, as a member's are.

    Returns:
        Plain data for JSON: `samples`, their number; `outputs`, `quantiles` and `levels`;
        `members`, the scores of each with its `name`; `ensembles`, those of the mean of the
        `last` 2, 3, ...; `choice` and `chosen`, its scores (both null without one); and
        `comparisons`, in each score the paired difference of the best prediction (the chosen
        one, or the mean of all) to the last member, and `comparisons_with_mean` that of the
        chosen one to the mean of all; of pairs and a choice that has scaled their variance
        `last_calibrated` and `comparisons_with_last_calibrated`, the last member alone with a
        scale of its own; the `findings`, and with a baseline
        `baseline` and `comparisons_with_baseline`, all as in `analyze`. Scores are
        `rmse` and `mae`; with a predictive variance also `gaussian_nll`, `calibration` (as
        `regression_calibration_error`), and for each level `coverage` and `width` of the
        normal intervals; of quantiles `pinball`,
        `coverage` of each quantile, and `crossing`. Values have a predictive variance by a
        choice alone, which has fitted it.

    Raises:
        EnsembleError: no members, arrays that do not fit, or a choice that was made among
            others.

    Example:
        >>> members = [[0.0, 1.0, 2.0], [0.5, 1.0, 3.0]]
        >>> found = analyze_regression(members, [0.0, 1.0, 3.0], names=["first", "second"])
        >>> [(row["name"], round(row["rmse"], 3)) for row in found["members"]]
        [('first', 0.577), ('second', 0.289)]

    Source: Lakshminarayanan et al., "Deep Ensembles" (2017), section 3.2, for the scores.
    """
    metric: RegressionMetric = "mse" if quantiles is None else "pinball"
    if choice is not None and choice.metric == "mae":
        metric = "mae"
    elif outputs == "gaussian" and (choice is None or choice.metric != "mse"):
        metric = "gaussian_nll"
    held_out = HeldOutRegression(
        predictions,
        targets,
        outputs=outputs,
        metric=metric,
        quantiles=None if quantiles is None else tuple(quantiles),
        sample_weight=sample_weight,
        mask=mask,
        counts=counts,
    )
    count = len(held_out)
    names = names_of(count, choice.members if names is None and choice is not None else names)
    of_this = (tuple(names), outputs, held_out.quantiles)
    if choice is not None and of_this != (choice.members, choice.outputs, choice.quantiles):
        raise EnsembleError(
            "Argument `choice` must have been made among these members, with the same outputs and "
            f"quantiles. Received: one among {shown(list(choice.members))} with outputs="
            f"{choice.outputs!r}, for {shown(list(names))} with outputs={outputs!r}"
        )
    table = _Scores(held_out, tuple(levels))
    alone = [held_out.moments([float(i == j) for j in range(count)]) for i in range(count)]
    lasts = list(held_out.last_moments())
    everyone = held_out.plain(*lasts[-1])
    last, best = held_out.plain(*alone[-1]), everyone
    chosen = None
    if choice is not None:
        moments = held_out.moments(choice.weights)
        best = held_out.chosen(*moments, choice.variance_scale, choice.noise)
        chosen = table.of(best)
    own = None
    if choice is not None and choice.last_alone is not None:
        own = held_out.chosen(*alone[-1], choice.last_alone.variance_scale, None)
    several = count > 1
    other = None if baseline is None else held_out.of_other(baseline, fit=False).prediction
    return {
        "samples": held_out.targets.counted,
        "outputs": outputs,
        "quantiles": None if held_out.quantiles is None else list(held_out.quantiles),
        "levels": list(table.levels),
        "members": [
            {"name": name, **table.of(held_out.plain(*each))}
            for name, each in zip(names, alone, strict=True)
        ],
        "ensembles": [
            {"last": m, **table.of(held_out.plain(*each))}
            for m, each in enumerate(lasts, start=1)
            if m > 1
        ],
        "choice": None if choice is None else choice.to_dict(),
        "chosen": chosen,
        "comparisons": table.compared(best, last, seed) if several or choice else [],
        "comparisons_with_mean": (
            table.compared(best, everyone, seed) if several and choice else []
        ),
        **table.beside(best, {"last_calibrated": own, "baseline": other}, seed),
        "findings": found_of(
            regression_evidence(
                *(held_out, names, "sample"),
                table.interval(metric, best, everyone, seed) if several and choice else None,
            ),
            choice,
        ),
    }


class _Scores:
    """The scores of predictions for the targets that count.

    Args:
        held_out: whose.
        levels: of the intervals.
    """

    def __init__(self, held_out: HeldOutRegression, levels: tuple[float, ...]) -> None:
        self._held_out, self.levels = held_out, levels
        # The numbers that count, as arrays of one axis.
        self._y = held_out.targets.values
        self._weights = held_out.targets.weights

    def of(self, prediction: tuple[Floats, ...]) -> dict[str, Any]:
        """Those that a prediction can have."""
        mean, *more = prediction
        score = self._held_out.score
        given: dict[str, Any] = {"sample_weight": self._weights}
        levels = self._held_out.quantiles
        if levels is not None:
            found: dict[str, Any] = {
                "pinball": score("pinball", prediction),
                "coverage": quantile_coverage(mean, self._y, levels, **given),
            }
            if len(levels) > 1:
                found["crossing"] = quantile_crossing(mean)
            return found
        found = {"rmse": math.sqrt(score("mse", prediction)), "mae": score("mae", prediction)}
        if more:
            variance = np.maximum(more[0], SMALLEST)
            ends = [prediction_interval(mean, variance, level=level) for level in self.levels]
            found |= {
                "gaussian_nll": score("gaussian_nll", prediction),
                "calibration": regression_calibration_error(mean, variance, self._y, **given),
                "coverage": [interval_coverage(*each, self._y, **given) for each in ends],
                "width": [mean_interval_width(*each, **given) for each in ends],
            }
        return found

    def compared(
        self, first: tuple[Floats, ...], than: tuple[Floats, ...], seed: int
    ) -> list[dict[str, Any]]:
        """The paired difference of two predictions in each score that both have."""
        names = ["pinball"] if self._held_out.quantiles is not None else ["mse", "mae"]
        if len(first) == len(than) == 2:
            names.append("gaussian_nll")
        rows, y = [], self._held_out.targets
        for name in names:
            both = [y.per_sample(self._held_out.rows(name, each)) for each in (first, than)]
            found = compare_scores(*both, seed=seed)
            rows.append({"metric": name, **asdict(found), "interval": list(found.interval)})
        return rows

    def beside(
        self, best: tuple[Floats, ...], others: dict[str, tuple[Floats, ...] | None], seed: int
    ) -> dict[str, Any]:
        """The scores of others that there are, and how the best prediction stands beside them."""
        found: dict[str, Any] = {}
        for name, other in others.items():
            if other is not None:
                found[name] = self.of(other)
                found[f"comparisons_with_{name}"] = self.compared(best, other, seed)
        return found

    def interval(
        self, name: str, first: tuple[Floats, ...], than: tuple[Floats, ...], seed: int
    ) -> tuple[float, float]:
        """The 95 % interval of the difference of two predictions' scores."""
        y = self._held_out.targets
        both = [y.per_sample(self._held_out.rows(name, each)) for each in (first, than)]
        return bootstrap_interval(both[0] - both[1], seed=seed)
