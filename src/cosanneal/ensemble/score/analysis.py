"""The paper's own questions, on arrays: what more members, and more cycles, are worth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError
from ...core.keywords import takes_options
from ..arrays import as_floats, as_numpy, as_rows
from ..choose.calibration import calibrated_log_loss
from ..choose.held_out import HeldOut
from ..choose.selection import last_scores
from ..labels import LabelOptions

Floats = NDArray[np.float64]

# Subsets of independent runs whose mean score is taken, of each size.
_SUBSETS = 20

# Numbers of all members at a time: 32 MiB.
_NUMBERS = 1 << 22


def correlation(predictions: Sequence[Any] | Any) -> Floats:
    """The correlation of every two members' outputs, over all samples and classes.

    Pearson's, of the softmax outputs as the paper has it. Where it is low the
    members differ, and their mean has something to gain.

    Args:
        predictions: a sequence of the members' arrays, of one shape.

    Returns:
        Shape (members, members); NaN for a member whose outputs are all equal.

    Raises:
        EnsembleError: no members, or shapes that differ.

    Example:
        >>> members = [[[0.9, 0.1], [0.2, 0.8]], [[0.7, 0.3], [0.4, 0.6]]]
        >>> correlation(members).round(3).tolist()
        [[1.0, 0.984], [0.984, 1.0]]

    Source: Huang et al., "Snapshot Ensembles" (2017), section 4.4.
    """
    members = _members(predictions)
    means = np.empty((len(members), 1))
    varies = np.empty((len(members), 1), bool)
    for i, member in enumerate(members):
        flat = as_floats(member)
        # What does not vary has no correlation, whatever its mean is rounded to.
        means[i], varies[i] = flat.mean(), np.ptp(flat) > 0
    products = np.zeros((len(members), len(members)))
    # Some samples of all members at a time, so that they need not fit into memory.
    at_once = max(_NUMBERS * len(members[0]) // max(members[0].size * len(members), 1), 1)
    for start in range(0, len(members[0]), at_once):
        part = np.stack([as_floats(member[start : start + at_once]).ravel() for member in members])
        part = np.where(varies, part - means, 0.0)
        products += part @ part.T
    norms = np.sqrt(products.diagonal())
    with np.errstate(invalid="ignore"):
        found = products / np.outer(norms, norms)
    return np.asarray(np.clip(found, -1, 1))


def disagreement(predictions: Sequence[Any] | Any, *, class_axis: int | None = -1) -> Floats:
    """The share of labels on which every two members differ: `mean(argmax p_a != argmax p_b)`.

    Args:
        predictions: a sequence of the members' probabilities, of one shape.
        class_axis: the axis of the classes, or None.

    Returns:
        Shape (members, members).

    Raises:
        EnsembleError: no members, shapes that differ, or no probabilities.

    Example:
        >>> disagreement([[[0.9, 0.1], [0.2, 0.8]], [[0.7, 0.3], [0.6, 0.4]]]).tolist()
        [[0.0, 0.5], [0.5, 0.0]]

    Source: Fort et al., "Deep Ensembles: A Loss Landscape Perspective" (2019), section 4.
    """
    chosen = [as_rows(each, class_axis).argmax(axis=1) for each in _members(predictions)]
    return np.array([[np.mean(first != second) for second in chosen] for first in chosen])


@takes_options(LabelOptions)
def scores_by_cycles(
    runs: Mapping[int, Sequence[Any] | Any],
    labels: Any,
    *,
    class_axis: int | None = -1,
    **options: Unpack[LabelOptions],
) -> list[dict[str, Any]]:
    """What one budget gives when it is cut into few cycles, or into many.

    Args:
        runs: for each number of cycles the members' probabilities of the run
            with so many, oldest first.
        labels: the true classes, of data that the runs were not trained on.
        class_axis: the axis of the classes in one member's array, or None.
        options: see `LabelOptions`.

    Returns:
        A row for each run, by the number of cycles: `cycles`, and the scores of
        the `last` member, of `all` members' mean, and of the last `m` with the
        least log-loss, the `best`, each with `log_loss`, `brier` and `error`.

    Raises:
        EnsembleError: no runs, or as for `HeldOut`.

    Example:
        >>> runs = {1: [[[0.8, 0.2]]], 2: [[[0.9, 0.1]], [[0.7, 0.3]]]}
        >>> rows = scores_by_cycles(runs, [0])
        >>> [(row["cycles"], round(row["all"]["log_loss"], 3), row["m"]) for row in rows]
        [(1, 0.223, 1), (2, 0.223, 2)]

    Source: Huang et al., "Snapshot Ensembles" (2017), section 4.3, on the number of cycles.
    """
    if not runs:
        raise EnsembleError("Argument `runs` must have at least one run. Received: none")
    rows: list[dict[str, Any]] = []
    for cycles in sorted(runs):
        scores = last_scores(HeldOut(runs[cycles], labels, class_axis=class_axis, **options))
        losses = [score["log_loss"] for score in scores]
        m = losses.index(min(losses)) + 1
        rows.append(
            {"cycles": cycles, "m": m, "last": scores[0], "all": scores[-1], "best": scores[m - 1]}
        )
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivalent:
    """How many independent models an ensemble is worth.

    Args:
        models: their number, between two whole ones by interpolation; 1 also
            for an ensemble that is no better than one, and infinity for one
            that is better than all of the independent models together.
        log_loss: the ensemble's calibrated log-loss.
        curve: that of 1, 2, ... independent models.
    """

    models: float
    log_loss: float
    curve: tuple[float, ...]


@takes_options(LabelOptions)
def deep_ensemble_equivalent(
    prediction: Any,
    independent: Sequence[Any] | Any,
    labels: Any,
    *,
    class_axis: int | None = -1,
    splits: int = 5,
    seed: int = 0,
    **options: Unpack[LabelOptions],
) -> Equivalent:
    """The number of independently trained models whose ensemble has the same log-loss.

    `min {l >= 1 : DE(l) <= loss}`

    with the calibrated log-loss of the prediction and that of the mean of `l`
    independent models, on average over subsets of them (all, or 20 at random),
    and linear between two whole `l`.

    Args:
        prediction: the ensemble's pooled probabilities.
        independent: the probabilities of each of some models that were trained
            apart, from other random weights.
        labels: the true classes, of data that none was trained or chosen on.
        class_axis: the axis of the classes, or None.
        splits: how many cuts of the data for a calibrated log-loss.
        seed: of the cuts and the subsets.
        options: see `LabelOptions`.

    Raises:
        EnsembleError: no independent models, or arrays that do not fit.

    Example:
        >>> random = np.random.default_rng(0)
        >>> y = random.integers(2, size=400)
        >>> z = 2 * y - 1 + 2 * random.normal(size=(4, 400))
        >>> members = 1 / (1 + np.exp(-z))
        >>> found = deep_ensemble_equivalent(members[:2].mean(0), members, y)
        >>> 1 < found.models < 3
        True

    Source: Ashukha et al., "Pitfalls of In-Domain Uncertainty Estimation and
    Ensembling in Deep Learning" (2020), section 4.
    """
    members = _members(independent)

    def loss(p: Any) -> float:
        return calibrated_log_loss(
            p, labels, class_axis=class_axis, splits=splits, seed=seed, **options
        )

    random = np.random.default_rng(seed)
    curve: list[float] = []
    for size in range(1, len(members) + 1):
        if math.comb(len(members), size) <= _SUBSETS:
            subsets = list(itertools.combinations(range(len(members)), size))
        else:
            subsets = [
                tuple(random.choice(len(members), size, replace=False)) for _ in range(_SUBSETS)
            ]
        means = (sum(as_floats(members[i]) for i in subset) / size for subset in subsets)
        curve.append(math.fsum(loss(mean) for mean in means) / len(subsets))
    found = loss(prediction)
    return Equivalent(models=_reached(curve, found), log_loss=found, curve=tuple(curve))


def _reached(curve: Sequence[float], loss: float) -> float:
    """Where a curve over 1, 2, ..., linear in between, first comes down to a loss."""
    for i, value in enumerate(curve):
        if value <= loss:
            above = curve[i - 1] if i else value
            return i + 1 - (loss - value) / (above - value) if above > value else float(i + 1)
    return math.inf


def _members(predictions: Sequence[Any] | Any) -> list[NDArray[Any]]:
    members = [as_numpy(member) for member in predictions]
    shapes = {member.shape for member in members}
    if len(shapes) != 1:
        raise EnsembleError(
            "There must be at least one member, and all of one shape. "
            f"Received: {len(members)} members" + (f" of shapes {sorted(shapes)}" if shapes else "")
        )
    return members
