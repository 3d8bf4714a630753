"""select="auto": which way of choosing, by cross-validation within the validation data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, plural
from ..labels import Labels
from ..score.evidence import mean_and_error
from ..score.measures import Measure, title_of
from ..score.metrics import is_mean, row_scores
from .calibration import best_temperature, tempered
from .held_out import HeldOut
from .selection import last_weights, select_greedy, select_weights

Floats: TypeAlias = NDArray[np.float64]

# Parts of the validation data, of which each is scored by what the others chose.
FOLDS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Way:
    """A way of choosing, and what it chose on all validation data.

    Args:
        name: such as "last 3".
        weights: of the members.
        temperature: of their mean.
    """

    name: str
    weights: tuple[float, ...]
    temperature: float

    @property
    def members(self) -> int:
        """How many members a prediction takes."""
        return sum(weight > 0 for weight in self.weights)


def folds_of(y: Labels, seed: int) -> NDArray[np.intp]:
    """The fold of each sample: at random, and of one label each by turns within its class."""
    order = np.random.default_rng(seed).permutation(y.samples)
    if len(y) == y.samples and y.starts is None:
        order = order[np.argsort(y.classes[order], kind="stable")]
    folds = np.empty(y.samples, np.intp)
    folds[order] = np.arange(y.samples) % min(FOLDS, y.samples)
    return folds


def ways_on(held_out: HeldOut, *, temperature: bool, steps: int, bags: int, seed: int) -> list[Way]:
    """What every way chooses on some data: the cheaper ones first."""
    members, y = len(held_out), held_out.labels

    def way(name: str, weights: Sequence[float]) -> tuple[Way, float]:
        heat, loss = best_temperature(rows := held_out.pooled(weights), y)
        if not temperature:
            heat, loss = 1.0, y.mean(row_scores("log_loss", rows, y))
        return Way(name=name, weights=tuple(weights), temperature=heat), loss

    last = way("last 1", last_weights(members, 1))[0]
    if members == 1:
        return [last]
    alone = [way("single", row.tolist()) for row in np.eye(members)[::-1]]
    lasts = [way(f"last {m}", last_weights(members, m))[0] for m in range(2, members + 1)]
    greedy = select_greedy(held_out, steps=steps, bags=bags, seed=seed)
    convex = select_weights(held_out)
    return [
        last,
        min(alone, key=lambda each: each[1])[0],
        *lasts,
        way("greedy", greedy.weights)[0],
        way("weights", convex.weights)[0],
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdict:
    """What was taken, and why.

    Args:
        ways: all of them, on all validation data.
        taken: which.
        scores: the cross-validated score of each.
        reason: a sentence.
    """

    ways: list[Way]
    taken: int
    scores: list[float]
    reason: str


def choose_way(
    held_out: HeldOut, measure: Measure, *, temperature: bool, steps: int, bags: int, seed: int
) -> Verdict:
    """The way of the best score, or a cheaper one that is not told from it.

    The validation samples are cut into 5 folds (into single samples, where there are fewer). Of
    each fold the score is that of what each way chose on the others, its temperature included.
    The way of the least score is the best; taken is that of the fewest members whose score is
    above it by at most one standard error of the difference, paired by samples. Of a metric
    that is a mean over samples the error is that of the mean of their differences; of another
    one, which is taken of all samples together, it is the jackknife's, with a fold left out at
    a time.

    Args:
        held_out: the members' predictions.
        measure: by which score.
        temperature: whether each has one.
        steps: of the greedy search, and so the next two; `seed` is of the folds too.
        bags: see there.
        seed: see there.

    Source: Breiman, Friedman, Olshen & Stone, "Classification and Regression Trees" (1984),
    section 3.4.3, for the rule; Efron & Tibshirani (1993), chapter 11, for the jackknife.
    """
    ways = ways_on(held_out, temperature=temperature, steps=steps, bags=bags, seed=seed)
    y = held_out.labels
    if len(ways) == 1 or y.samples == 1:
        few = "there is one member" if len(ways) == 1 else "one sample compares nothing"
        score = _score(held_out, ways[0], measure)
        return Verdict(
            ways=ways[:1], taken=0, scores=[score], reason=f"The last snapshot alone: {few}."
        )
    folds = folds_of(y, seed)
    rows_fold = folds[y.sample_of_rows()]
    out = [np.empty(0)] * len(ways)
    for fold in range(folds.max() + 1):
        train = held_out.of(np.flatnonzero(folds != fold))
        test = held_out.of(np.flatnonzero(folds == fold))
        found = ways_on(train, temperature=temperature, steps=steps, bags=bags, seed=seed)
        for i, each in enumerate(found):
            p = tempered(test.pooled(each.weights), each.temperature, -1)
            part = row_scores(measure.name, p, test.labels) if is_mean(measure.name) else p
            if not len(out[i]):
                out[i] = np.empty((len(y), *part.shape[1:]))
            out[i][rows_fold == fold] = part
    if is_mean(measure.name):
        scores = [y.mean(each) for each in out]
        errors = [_paired(out[i], out[int(np.argmin(scores))], y) for i in range(len(out))]
    else:
        scores = [measure.value(each, y) for each in out]
        best = out[int(np.argmin(scores))]
        errors = [_jackknife(each, best, y, folds, measure) for each in out]
    least = min(scores)
    alike = [i for i, score in enumerate(scores) if score - least <= errors[i]]
    taken = min(alike, key=lambda i: (ways[i].members, i))
    return Verdict(
        ways=ways, taken=taken, scores=scores, reason=_reason(ways, taken, scores, errors, measure)
    )


def _score(held_out: HeldOut, way: Way, measure: Measure) -> float:
    return measure.value(
        tempered(held_out.pooled(way.weights), way.temperature, -1), held_out.labels
    )


def _paired(first: Floats, second: Floats, y: Labels) -> float:
    """The standard error of the mean difference, over samples."""
    return mean_and_error(y.per_sample(first - second), y.sample_weights())[1]


def _jackknife(
    first: Floats, second: Floats, y: Labels, folds: NDArray[np.intp], measure: Measure
) -> float:
    """The standard error of the difference of two scores, with a fold left out at a time."""
    if first is second:
        return 0.0
    found = []
    for fold in range(folds.max() + 1):
        samples = np.flatnonzero(folds != fold)
        rows, labels = y.rows_of(samples), y.of(samples)
        try:
            found.append(measure.value(first[rows], labels) - measure.value(second[rows], labels))
        except EnsembleError:  # such as one class only
            continue
    values = np.array([each for each in found if math.isfinite(each)])
    if len(values) < 2:
        return math.inf
    return math.sqrt((len(values) - 1) * float(values.var()))


def _reason(
    ways: list[Way],
    taken: int,
    scores: list[float],
    errors: list[float],
    measure: Measure,
) -> str:
    """Why this one, and what the last snapshot alone would have had."""
    title, best = title_of(measure.name), int(np.argmin(scores))
    told = f"{ways[taken].name} has a cross-validated {title} of {scores[taken]:.4g}"
    if taken == best:
        told += ", the least of all, and no cheaper one is within its standard error"
    else:
        told += (
            f", {scores[taken] - scores[best]:.2g} above the least, that of {ways[best].name}, "
            f"within one standard error ({errors[taken]:.2g}) of the difference, with "
            f"{plural(ways[taken].members, 'member')} in place of {ways[best].members}"
        )
    return f"{told}; the last snapshot alone has {scores[0]:.4g}."
