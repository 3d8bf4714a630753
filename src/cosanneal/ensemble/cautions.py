"""What a user of a choice is warned of, when it is used for what it cannot tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from ..core.errors import plural
from ..core.warn import warn
from .choose.choice import Choice

# Scores of the same samples, in batches of another size, differ by rounding.
_ROUNDING: Final = 1e-6


def warn_of_known_data(choice: Choice | None, found: Mapping[str, Any]) -> None:
    """Say so where data are judged that a choice was made on: they have its very scores.

    So many samples, and each score that both have, to 1e-6 of it; but for errors, which turn
    where two classes are as probable but for rounding. Scores that are all 0 say nothing, as of
    two sets that are all predicted for certain.

    Args:
        choice: what was chosen, or None.
        found: what `analyze` or `analyze_regression` says of the data.
    """
    if choice is None or found["samples"] != choice.samples or not choice.candidates:
        return
    noted, scores = choice.candidates[-1].scores, dict(found["chosen"])
    if "rmse" in scores:
        scores["mse"] = scores["rmse"] ** 2
    shared = [name for name in noted if name != "error" and isinstance(scores.get(name), float)]
    alike = all(math.isclose(noted[name], scores[name], rel_tol=_ROUNDING) for name in shared)
    if alike and any(noted[name] for name in shared):
        samples = plural(choice.samples, "sample", ",")
        warn(
            f"The {samples} to judge on seem to be those that the ensemble was chosen on: their "
            "scores are the very same. The choice looks better there than it is. Judge on other "
            "data, which neither training nor fit had"
        )


def warn_of_one(choice: Choice) -> None:
    """Say that the members' disagreement is that of one member, where one alone was chosen.

    Args:
        choice: what was chosen.
    """
    if len(choice.members) > 1 and sum(weight > 0 for weight in choice.weights) == 1:
        warn(
            f"One of {len(choice.members)} members was chosen, and one member does not differ "
            "from itself: mutual information, variation ratio and the variance between members "
            "are 0, which says nothing of how far the members agree. Make an ensemble without "
            "fit for that, as by SnapshotEnsemble(..., last=3)"
        )
