"""What is found of members, as the part `analysis` of a results document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, Unpack, get_args

import numpy as np
from numpy.typing import NDArray

from ..core.errors import EnsembleError, shown
from ..core.keywords import takes_options
from ..snapshots.metadata import without_nan
from .arrays import as_numpy, as_rows
from .choose.baseline import check_baseline
from .choose.budget import Leaving
from .choose.calibration import apply_temperature, tempered
from .choose.choice import Choice, names_of
from .choose.conformal import ConformalPredictor, Method, labels_needed, set_coverage, set_size
from .choose.diagnosis import Evidence, evidence_of, findings_of
from .choose.held_out import HeldOut
from .labels import LabelOptions, Labels, as_labels
from .predict.pooling import Pool, pool
from .predict.uncertainty import uncertainty
from .score.analysis import correlation, disagreement
from .score.evidence import compare_scores
from .score.measures import CUSTOM, measure_of
from .score.metrics import METRICS, checked_rows, row_scores
from .score.ood import ood_detection, ood_scores
from .score.reliability import calibration_error, reliability
from .score.selective import RiskCoverage, risk_coverage

Floats = NDArray[np.float64]

# Of a curve of risks, no more points are kept.
_POINTS = 200


class EvaluateOptions(LabelOptions, total=False):
    """Which labels count, and how scores are counted: what an ensemble's `evaluate` takes.

    Args:
        bins: of the reliability diagrams and of the calibration error; by default 15.
        seed: of the intervals; by default 0.
        baseline: another model's predictions for the same data, to compare with.
    """

    bins: int
    seed: int
    baseline: Any


def scores_of(
    probabilities: Any,
    labels: Any,
    *,
    class_axis: int | None = -1,
    bins: int = 15,
    **options: Unpack[LabelOptions],
) -> dict[str, float]:
    """A score, as a results document has it: `error`, `log_loss`, `brier` and `ece`."""
    rows, y = checked_rows(probabilities, labels, class_axis, options)
    found = {name: y.mean(row_scores(name, rows, y)) for name in ("error", "log_loss", "brier")}
    ece = calibration_error(probabilities, labels, bins=bins, class_axis=class_axis, **options)
    return found | {"ece": ece}


@takes_options(LabelOptions)
def analyze(
    predictions: Sequence[Any] | Any,
    labels: Any,
    *,
    names: Sequence[str] | None = None,
    choice: Choice | None = None,
    class_axis: int | None = -1,
    bins: int = 15,
    seed: int = 0,
    baseline: Any = None,
    **options: Unpack[LabelOptions],
) -> dict[str, Any]:
    """What members are worth, alone and together, as the part `analysis` of a results document.

    Args:
        predictions: the members' probabilities, oldest first: a sequence of
            arrays of one shape (memory-mapped ones are read one at a time), or
            one array with the members along its first axis.
        labels: the true classes, as `cosanneal.ensemble.labels` says, of data
            that no member was trained on and nothing was chosen by.
        names: of the members; by default those of the choice, or "0", "1", ...
        choice: what `fit` chose among these members, on other data.
        class_axis: the axis of the classes in one member's array, or None.
        bins: of the reliability diagrams and of the calibration error.
        seed: of the intervals.
        baseline: another model's probabilities for the same data, as a member's are: what one
            cosine run of the same budget gives, say. They get the temperature that `fit` found
            for its `baseline`, if it was given one.
        options: see `LabelOptions`.

    Returns:
        Plain data for JSON: `samples`, the number of those with a label that
        counts; `members`, the score of each, with its `name`, and in `metrics` the
        one that the choice was made by, where it is another and no user's own;
        `ensembles`, that of the mean of the `last` 2, 3, ...; `choice` and
        `chosen`, its score (both null without one);
        `comparisons`, in each metric the paired difference of the best
        prediction (the chosen one, or the mean of all) to the last member, and
        `comparisons_with_mean` that of the chosen one to the mean of all; of a choice with a
        temperature also `last_calibrated`, the score of the last member at the temperature that
        `fit` found for it alone, and `comparisons_with_last_calibrated`, which say whether the
        ensemble pays, and not what a temperature does for any model; with a baseline its
        score, `baseline`, and `comparisons_with_baseline`, that of the best prediction to it;
        `correlation` and `disagreement` of every two members, over what counts, each
        the same; the
        `reliability` of the best prediction `before` its temperature and, where
        it has one, `after`; of a choice with a budget `passes`: for some `care` each, its own
        among them, the mean number of members (`passes`) and the `error`, as `Budget` has it;
        and the `findings`, each with its `name` and `text`, which
        nobody asked for: those of these data, and of the choice those of other names.
        `findings_of` of `cosanneal.ensemble.choose.diagnosis` has their rules.

    Raises:
        EnsembleError: no members, arrays that do not fit, or a choice that was
            made among others.

    Example:
        >>> members = [[[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.7, 0.3]]]
        >>> found = analyze(members, [0, 1], names=["first", "second"])
        >>> [(row["name"], row["error"]) for row in found["members"]]
        [('first', 0.0), ('second', 0.5)]
        >>> found["ensembles"][0]["last"], found["disagreement"]
        (2, [[0.0, 0.5], [0.5, 0.0]])
    """
    members = list(predictions)
    if not members:
        raise EnsembleError("Argument `predictions` must have at least one member. Received: none")
    if names is None and choice is not None:
        names = choice.members
    names = names_of(len(members), names)
    if choice is not None and (tuple(names), class_axis) != (choice.members, choice.class_axis):
        raise EnsembleError(
            "Argument `choice` must have been made among these members, with the same class_axis. "
            f"Received: one among {shown(list(choice.members))} with class_axis="
            f"{choice.class_axis}, for {shown(list(names))} with class_axis={class_axis}"
        )

    y = as_labels(labels, as_numpy(members[0]).shape, class_axis, **options)
    metric = None if choice is None else choice.metric
    known = metric is None or metric in METRICS or metric.startswith(CUSTOM)
    measures = [] if known or metric is None else [measure_of(metric)]

    def scores(p: Any) -> dict[str, Any]:
        found = scores_of(p, labels, class_axis=class_axis, bins=bins, **options)
        more = {each.name: each.value(y.rows(p), y) for each in measures}
        return found | ({"metrics": more} if more else {})

    def compared(first: Any, second: Any) -> list[dict[str, Any]]:
        rows = []
        for name in METRICS:
            both = [y.per_sample(row_scores(name, y.rows(p), y)) for p in (first, second)]
            found = compare_scores(*both, weights=y.sample_weights(), seed=seed)
            rows.append({"metric": name, **asdict(found), "interval": list(found.interval)})
        return rows

    def diagram(p: Any) -> dict[str, Any]:
        found = reliability(p, labels, bins=bins, class_axis=class_axis, **options)
        return {
            "confidence": found.confidence.tolist(),
            "accuracy": found.accuracy.tolist(),
            "count": found.counts.tolist(),
            "ece": calibration_error(p, labels, bins=bins, class_axis=class_axis, **options),
        }

    rows = [{"name": name, **scores(p)} for name, p in zip(names, members, strict=True)]
    last, ensembles = Pool[Any](class_axis=class_axis), []
    for m, member in enumerate(reversed(members), start=1):
        last.update(member)
        if m > 1:
            ensembles.append({"last": m, **scores(last.value)})
    everyone = best = before = last.value
    if choice is not None:
        best = choice.apply(members)
        before = replace(choice, temperature=1.0).apply(members)
    diagrams = {"before": diagram(before)}
    if choice is not None and choice.temperature != 1:
        diagrams["after"] = diagram(best)
    several = len(members) > 1
    counted, axis = _counted(members, y, class_axis)
    beside: dict[str, Any] = {}
    for name, other in _others(baseline, members, choice, class_axis):
        beside |= {name: scores(other), f"comparisons_with_{name}": compared(best, other)}
    return {
        "samples": y.samples,
        "members": rows,
        "ensembles": ensembles,
        "choice": None if choice is None else choice.to_dict(),
        "chosen": None if choice is None else scores(best),
        "comparisons": compared(best, members[-1]) if several or choice is not None else [],
        "comparisons_with_mean": compared(best, everyone) if several and choice is not None else [],
        **beside,
        "correlation": without_nan(correlation(counted).tolist()),
        "disagreement": disagreement(counted, class_axis=axis).tolist(),
        "reliability": diagrams,
        **_passes(members, choice, y, options.get("counts")),
        "findings": _found(
            HeldOut(members, labels, class_axis=class_axis, **options),
            *(names, choice, (best, everyone) if several else None, seed),
        ),
    }


def _passes(
    members: Sequence[Any], choice: Choice | None, y: Labels, counts: Any
) -> dict[str, list[dict[str, float]]]:
    """The error against the passes, where the choice has a budget."""
    if choice is None or choice.budget is None:
        return {}
    leaving = Leaving(members, choice.weights, y, counts, order=choice.budget.order)
    cares = sorted({*(i / 10 for i in range(11)), choice.care})
    rows = [(care, *leaving.at(care)) for care in cares]
    return {"passes": [dict(zip(("care", "passes", "error"), row, strict=True)) for row in rows]}


def _counted(
    members: Sequence[Any], y: Labels, class_axis: int | None
) -> tuple[Sequence[Any], int | None]:
    """What counts of the members' arrays, and the axis of the classes there."""
    if y.kept is None:
        return members, class_axis
    parts = (y.rows(member) for member in members)
    if y.class_axis is None:
        return [part[:, 1] for part in parts], None
    return [*parts], -1


def _others(
    baseline: Any, members: Sequence[Any], choice: Choice | None, class_axis: int | None
) -> Iterator[tuple[str, Any]]:
    """What the best prediction is compared with that is no member as it is, by its name."""
    if choice is not None and choice.last_alone is not None:
        heat = choice.last_alone.temperature
        own = apply_temperature(as_numpy(members[-1]), heat, class_axis=class_axis)
        yield "last_calibrated", own
    if baseline is not None:
        yield "baseline", _other(baseline, members[0], choice, class_axis)


def _other(baseline: Any, member: Any, choice: Choice | None, class_axis: int | None) -> Any:
    """Another model's probabilities, at the temperature that was found for it."""
    found = as_numpy(baseline)
    check_baseline(found.shape, as_numpy(member).shape)
    if choice is None or choice.baseline is None:
        return found
    return tempered(found, choice.baseline.temperature, class_axis)


def found_of(evidence: Evidence, choice: Choice | None) -> list[dict[str, str]]:
    """The findings of some data, and those of a choice that are none of theirs, as plain data."""
    found = findings_of(evidence)
    names = {finding.name for finding in found}
    of_choice = () if choice is None else choice.findings
    others = [finding for finding in of_choice if finding.name not in names]
    return [finding.to_dict() for finding in (*found, *others)]


def _found(
    held_out: HeldOut,
    names: Sequence[str],
    choice: Choice | None,
    pair: tuple[Any, Any] | None,
    seed: int,
) -> list[dict[str, str]]:
    """What is found of members, and of a choice beside their plain mean, which are the pair."""
    metric = "log_loss" if choice is None else choice.metric
    if metric.startswith(CUSTOM):  # of which the function is not known
        metric = "log_loss"
    interval, y = None, held_out.labels
    if choice is not None and pair is not None:
        first, second = map(y.rows, pair)
        interval = measure_of(metric).interval(first, second, y, seed)
    return found_of(evidence_of(held_out, names, metric, data="sample", interval=interval), choice)


@takes_options(LabelOptions)
def analyze_uncertainty(
    predictions: Sequence[Any] | Any,
    labels: Any,
    *,
    choice: Choice | None = None,
    class_axis: int | None = -1,
    held_out: tuple[Any, Any] | tuple[Any, Any, LabelOptions] | None = None,
    ood: Sequence[Any] | Any | None = None,
    risk: float = 0.05,
    coverage: float = 0.8,
    alpha: float = 0.1,
    seed: int = 0,
    **options: Unpack[LabelOptions],
) -> dict[str, Any]:
    """How sure members are together, as the part `uncertainty` of a results document.

    Args:
        predictions: the members' probabilities, as `analyze` takes them.
        labels: the true classes.
        choice: what `fit` chose among these members; by default all count the same.
        class_axis: the axis of the classes in one member's array, or None.
        held_out: the same members' probabilities for other data, their labels, and where
            not all count, a dict of `LabelOptions`: to calibrate conformal sets on.
            They promise what they say where these had no part in the choice either.
        ood: the same members' probabilities for data from out of distribution.
        risk: the coverage at this error rate is told.
        coverage: the error rate at this coverage is told.
        alpha: the share of conformal sets that may miss.
        seed: of the sets' draws.
        options: which labels count, see `LabelOptions`; each of them the same here.

    Returns:
        Plain data for JSON: the number of `samples` and `members`; the means of
        `entropy`, `expected_entropy`, `mutual_information` and `variation_ratio` over all
        labels; `selective`, with the curve and the scores of the `prediction` and,
        of several members, of the `last` one; `conformal` with `held_out`, a row for each
        method that has labels enough; and `ood`, a row for each score.

    Raises:
        EnsembleError: arrays or arguments that do not fit.

    Example:
        >>> members = [[[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.7, 0.3]]]
        >>> found = analyze_uncertainty(members, [0, 1])
        >>> round(found["mutual_information"], 3), found["selective"]["rows"][0]["aurc"]
        (0.055, 0.25)
    """
    ours = as_labels(labels, as_numpy(predictions[0]).shape, class_axis, **options)
    members, labels = _Rows(predictions, class_axis, ours.kept), ours.classes
    given, class_axis = class_axis, None if ours.class_axis is None else -1
    if choice is not None:
        choice = replace(choice, class_axis=class_axis)
    weights = None if choice is None else choice.weights

    def pooled(of: Sequence[Any]) -> Any:
        return pool(of, class_axis=class_axis) if choice is None else choice.apply(of)

    def scores(of: Sequence[Any], p: Any) -> dict[str, Any]:
        found = uncertainty(of, weights, class_axis=class_axis)
        return ood_scores(replace(found, probabilities=p), class_axis=class_axis)

    best = pooled(members)
    inside = scores(members, best)
    names = ("entropy", "expected_entropy", "mutual_information", "variation_ratio")
    rows = [("prediction", best), ("last", members[-1])][: len(members)]
    results: dict[str, Any] = {
        "samples": ours.samples,
        "members": len(members),
        **{name: float(inside[name].mean()) for name in names},
        "selective": {
            "risk": risk,
            "coverage": coverage,
            "rows": [
                {
                    "model": name,
                    **_selective(risk_coverage(p, labels, class_axis=class_axis), risk, coverage),
                }
                for name, p in rows
            ],
        },
    }
    if held_out is not None:
        which = held_out[2] if len(held_out) > 2 else LabelOptions()
        known = as_labels(held_out[1], as_numpy(held_out[0][0]).shape, given, **which)
        calibration = pooled(_Rows(held_out[0], given, known.kept))
        results["conformal"] = [
            {"method": method, "labels": made.labels, "alpha": alpha, **_sets(made, best, labels)}
            for method in get_args(Method)
            if len(known) >= labels_needed(alpha, method)
            for made in [
                ConformalPredictor.fit(
                    *(calibration, known.classes, alpha),
                    method=method,
                    class_axis=class_axis,
                    seed=seed,
                )
            ]
        ]
    if ood is not None:
        strange = _Rows(ood, given)
        outside = scores(strange, pooled(strange))
        results["ood"] = {
            "samples": len(as_numpy(ood[0])),
            "rows": [
                {"score": name, **ood_detection(inside[name], outside[name])} for name in inside
            ],
        }
    return results


class _Rows(Sequence[Floats]):
    """Members' probabilities label by label: rows of classes; of outcomes one number each.

    Each member is read when it is asked for.

    Args:
        members: their probabilities.
        class_axis: the axis of the classes, or None.
        kept: which of all rows count; by default all.
    """

    def __init__(
        self, members: Any, class_axis: int | None, kept: NDArray[np.intp] | None = None
    ) -> None:
        self._members, self._axis, self._kept = list(members), class_axis, kept

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, i: Any) -> Any:
        member = as_numpy(self._members[i])
        rows = as_rows(member, self._axis, self._kept)
        return rows[:, 1] if self._axis is None or member.ndim == 1 else rows


def _selective(found: RiskCoverage, risk: float, coverage: float) -> dict[str, Any]:
    """The scores of a curve, and some of its points."""
    n = len(found.risk)
    some = np.unique(np.linspace(1, n, min(n, _POINTS)).round().astype(int)) - 1
    return {
        "aurc": found.aurc,
        "augrc": found.augrc,
        "coverage_at_risk": found.coverage_at_risk(risk),
        "risk_at_coverage": found.risk_at_coverage(coverage),
        "coverages": found.coverage[some].tolist(),
        "risks": found.risk[some].tolist(),
    }


def _sets(made: ConformalPredictor, p: Any, labels: Any) -> dict[str, float]:
    """What sets are worth on labels that they were not calibrated on."""
    sets, axis = made.predict(p), made.class_axis
    return {
        "coverage": set_coverage(sets, labels, class_axis=axis),
        "size": set_size(sets, class_axis=axis),
    }
