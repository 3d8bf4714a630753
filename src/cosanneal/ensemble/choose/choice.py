"""The best ensemble that held-out data can tell: chosen, recorded, applied."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Unpack

import numpy as np
from numpy.typing import NDArray

from ...core.atomic import replacing
from ...core.documents import read_document
from ...core.errors import EnsembleError, plural, shown
from ...core.keywords import takes_options
from ...core.warn import warn
from ..arrays import narrow
from ..labels import LabelOptions
from ..predict.gaussian import GaussianPool, is_pair, pair_in
from ..predict.pooling import Pool, ValuePool
from ..score.measures import AnyMetric, Measure, measure_of, title_of
from .auto import Verdict, choose_way
from .baseline import Baseline, baseline_finding, baseline_rows, beside_baseline
from .budget import Budget, check_budget
from .calibration import row_temperature, tempered
from .diagnosis import Finding, evidence_of, findings_of
from .held_out import HeldOut
from .record import FORMAT, VERSION, Kind, Select, read_choice
from .selection import (
    Selection,
    last_scores,
    last_weights,
    select_greedy,
    select_last,
    select_weights,
)
from .telling import told

# With fewer validation samples than this, a choice is said to be noisy: an
# error rate of 3 % has a standard error of more than half a percent.
FEW_SAMPLES: Final = 1000


class FitOptions(LabelOptions, total=False):
    """How to choose, as `fit` says, and by which labels: what an ensemble's `fit` takes too.

    Of a regression, as `fit_regression` says: `variance` and `quantiles` are of it alone;
    `temperature`, `budget`, and labels' names, are of classes.
    """

    select: Select
    metric: Any
    temperature: bool
    budget: float | None
    variance: bool
    quantiles: Sequence[float]
    steps: int
    bags: int
    seed: int
    baseline: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An ensemble that was considered, and its scores on the validation data.

    Args:
        name: what it is, such as "last 3".
        scores: each by its name: "log_loss", in nats, "brier" and "error", and that
            of the metric of the choice. Not to be changed.
    """

    name: str
    scores: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What `fit` chose, and on what evidence: plain data.

    Args:
        members: the names of the members, oldest first.
        weights: the weight of each; they sum to 1.
        temperature: of the pooled probabilities.
        class_axis: the axis of the classes, or None.
        select: how the weights were chosen, as it was asked for.
        metric: by which score; "custom:" and its name for a function.
        candidates: every ensemble that was considered: the last 1, 2, ...
            members, the selection, and what had a temperature; the choice is
            the last of them.
        samples: how many validation samples there were.
        interval: the 95 % interval of the difference of the choice's score to
            that of the mean of all members; below 0 the choice is better. On
            the data that it was chosen on: new data will show less.
        seed: of the intervals and of the bags.
        gap: by how much at most the log-loss of the weights is above the least
            one, for select="weights".
        digests: of the members' snapshots; None for predictions of any origin.
        outputs: what it is of: "probabilities", or of a regression "values", or "gaussian"
            for pairs of means and variances; the fields after it are of regressions.
        variance_scale: by what the pooled variance is multiplied; of values, that between
            the members in `predict_with_variance`.
        noise: what is added to it of values, for the noise of the targets: one variance for
            all, or one for each; None where none was fitted.
        quantiles: which the values along the last axis are; None where they are none.
        output: of several outputs, the name of the one by which it was chosen, to
            which alone the temperature belongs.
        reason: of select="auto", a sentence: why this candidate, and what the last snapshot
            alone would have had, both cross-validated within the validation data.
        budget: how early samples leave in `predict_classes`, and what that costs; None where
            they leave when their class is certain.
        findings: what the validation data say of the members and the choice that nobody asked
            for, such as cycles that are too short; `findings_of` of
            `cosanneal.ensemble.choose.diagnosis` says by which rules. Empty where there is
            nothing to say.
        baseline: how the choice stands beside the `baseline` that `fit` was given, if any.
        last_alone: how it stands beside the last snapshot alone, at a temperature (or a scale of
            the variance) of its own, fitted on the same data: whether the ensemble pays, and not
            what a temperature does for any model. None where none was fitted.

    `print(choice)` shows what a person wants to know of it, in lines of up to 80 characters.
    """

    members: tuple[str, ...]
    weights: tuple[float, ...]
    temperature: float
    class_axis: int | None
    select: Select
    metric: str
    candidates: tuple[Candidate, ...]
    samples: int
    interval: tuple[float, float]
    seed: int
    gap: float | None = None
    digests: tuple[str, ...] | None = None
    outputs: Kind = "probabilities"
    variance_scale: float = 1.0
    noise: tuple[float, ...] | None = None
    quantiles: tuple[float, ...] | None = None
    output: str | None = None
    reason: str | None = None
    budget: Budget | None = None
    findings: tuple[Finding, ...] = ()
    baseline: Baseline | None = None
    last_alone: Baseline | None = None

    @property
    def care(self) -> float:
        """How sure a class must be before its sample leaves `predict_classes`; 1 for certain."""
        return 1.0 if self.budget is None else self.budget.care

    def __str__(self) -> str:
        return told(self.to_dict())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        # By which IPython, and so a notebook, shows a value: the lines of `print`.
        printer.text("Choice(...)" if cycle else str(self))

    def apply(self, predictions: Iterable[Any]) -> Any:
        """The chosen ensemble's probabilities, or of a regression its values or its pair.

        Args:
            predictions: the probabilities (or the outputs) of every member of `members`,
                in that order; arrays of any framework, one at a time.

        Returns:
            Of the kind, dtype and device of the first.

        Raises:
            EnsembleError: as many predictions as members must come, all of one shape.
        """
        pair = self.outputs == "gaussian"
        pool = GaussianPool[Any]() if pair else Pool[Any](class_axis=self.class_axis)
        count = 0
        for prediction in predictions:
            if count < len(self.weights):
                array = pair and not is_pair(prediction)
                pool.update(pair_in(prediction) if array else prediction, self.weights[count])
            count += 1
        if count != len(self.members):
            raise EnsembleError(
                f"Argument `predictions` must be of the {len(self.members)} members that the "
                f"choice was made among. Received: {count}"
            )
        return self.finish(pool)

    def finish(self, pool: Pool[Any] | GaussianPool[Any]) -> Any:
        """The probabilities of a `pool` at the temperature; of a pair, its variance scaled."""
        if isinstance(pool, GaussianPool):
            mean, variance = pool.moments
            return pool.finished(mean, variance * self.variance_scale)
        return narrow(tempered(pool.wide, self.temperature, self.class_axis), pool.like)

    def moments(self, pool: ValuePool[Any] | GaussianPool[Any]) -> tuple[Any, Any]:
        """The mean of a regression's `pool`, and its variance with the scale or the noise."""
        mean, variance = pool.moments
        variance = variance * self.variance_scale
        if self.noise is not None:
            # One for each target lies along the second axis; an output may have one axis more.
            more = [1] * len(variance.shape[2:]) if len(self.noise) > 1 else []
            noise = np.array(self.noise).reshape(-1, *more)
            as_like = variance.new_tensor if hasattr(variance, "new_tensor") else np.asarray
            variance = variance + as_like(noise)
        return narrow(mean, pool.like), narrow(variance, pool.like)

    def to_dict(self) -> dict[str, Any]:
        """The choice as plain data for JSON."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "members": [
                {
                    "name": name,
                    "weight": weight,
                    "digest": None if self.digests is None else self.digests[i],
                }
                for i, (name, weight) in enumerate(zip(self.members, self.weights, strict=True))
            ],
            "temperature": self.temperature,
            "class_axis": self.class_axis,
            "select": self.select,
            "metric": self.metric,
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "samples": self.samples,
            "interval": list(self.interval),
            "seed": self.seed,
            "gap": self.gap,
            "outputs": self.outputs,
            "variance_scale": self.variance_scale,
            "noise": None if self.noise is None else list(self.noise),
            "quantiles": None if self.quantiles is None else list(self.quantiles),
            "output": self.output,
            **({} if self.reason is None else {"reason": self.reason}),
            **({} if self.budget is None else {"budget": self.budget.to_dict()}),
            "findings": [finding.to_dict() for finding in self.findings],
            **({} if self.baseline is None else {"baseline": self.baseline.to_dict()}),
            **({} if self.last_alone is None else {"last_alone": self.last_alone.to_dict()}),
        }

    @classmethod
    def from_dict(cls, data: object) -> Choice:
        """The choice that `to_dict` described, from its `data`.

        Raises:
            EnsembleError: not such a description, one of an unknown version, or
                one with a bad field, whose path is named.
        """
        fields = read_choice(data)
        candidates = [Candidate(name=name, scores=each) for name, each in fields["candidates"]]
        budget = None if fields["budget"] is None else Budget(**fields["budget"])
        return cls(**fields | {"candidates": tuple(candidates), "budget": budget})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the choice to `path` as JSON, so that the file is all there or as it was.

        Raises:
            EnsembleError: the file cannot be written.
        """
        with replacing(path, error=EnsembleError) as file:
            file.write(json.dumps(self.to_dict(), indent=1).encode() + b"\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Choice:
        """Read a choice that was saved to `path`.

        Raises:
            EnsembleError: the file cannot be read, or holds no choice.
        """
        data = read_document(
            path, error=EnsembleError, advice="; fit the ensemble and save it first"
        )
        try:
            return cls.from_dict(data)
        except EnsembleError as error:
            raise EnsembleError(f"{path}: {error}") from error


@takes_options(LabelOptions)
def fit(
    predictions: Sequence[Any] | Any,
    labels: Any,
    *,
    select: Select = "last",
    metric: AnyMetric = "log_loss",
    temperature: bool = True,
    budget: float | None = None,
    names: Sequence[str] | None = None,
    class_axis: int | None = -1,
    steps: int = 50,
    bags: int = 0,
    seed: int = 0,
    digests: Sequence[str] | None = None,
    baseline: Any = None,
    **options: Unpack[LabelOptions],
) -> Choice:
    """Choose members, weights and a temperature on validation data.

    Nothing else goes into the choice: report it on data that were not given here.

    Args:
        predictions: the members' probabilities for the validation data, oldest
            member first: a sequence of arrays of one shape, or one array with
            the members along its first axis.
        labels: the true classes of the validation data, as `cosanneal.ensemble.labels`
            says.
        select: "last" takes the mean of the last m members, with the m that is
            best with its temperature; "greedy" picks one after the other, with
            replacement; "weights" takes the weights of the least log-loss; "auto" compares
            the last snapshot alone, the best single member, the last m, "greedy" and
            "weights", each with its temperature, by cross-validation within these data, and
            takes the one with the fewest members that is within one standard error of the
            best: `choose_way` of `cosanneal.ensemble.choose.auto` says how. Its searches go by
            log-loss, whatever the metric, by which they are compared.
        metric: by which score to choose: "log_loss", "brier", "error", "top5_error"
            (with any number), "balanced_error", "macro_f1_error", "auroc_error" or
            "mean_iou_error", which are 1 less the score of that name; or a function
            `metric(probabilities, labels) -> float`, the lower the better. It gets
            arrays of numpy: the prediction in the shape of a member's, in float64,
            and the class numbers (soft labels as they are) in theirs. With
            `ignore_index`, `mask` or `sample_weight` it gets only what counts, label
            by label: of shape (labels, classes), or (labels,) of outcomes, and
            (labels,); and where weights differ, `sample_weight=` too.
            select="weights" takes "log_loss" alone.
        temperature: also fit one temperature after pooling, by log-loss.
            (Means are less sure than their members, the more of them the less:
            without it, fewer members may seem better than they are.) "greedy" and "weights"
            search without it, and are calibrated after. They can search with it
            (`select_greedy(..., calibrated=True)`); in the bench of docs/quality.md that was
            no better, and far worse where all of few validation samples can be got right.
        budget: how many members `predict_classes` of an ensemble may run on a sample, on
            average, from 1 on: what is chosen stays, and its samples leave as early as that
            takes. `Choice.budget` has what it costs, as `Budget` says it. By default they leave
            when no member can change their class any more.
        names: of the members; by default "0", "1", ...
        class_axis: the axis of the classes in one member's array; None for
            outcomes (binary, multi-label).
        steps: picks of select="greedy".
        bags: of select="greedy", as in `select_greedy`.
        seed: of the bags and the intervals.
        digests: of the members, to know them again by.
        baseline: another model's probabilities for the same data, as a member's are: what one
            cosine run of the same budget gives, say. The choice says how it stands beside it
            (`choice.baseline`, and a finding where it is not better by more than one standard
            error); members are chosen as without, for an ensemble cannot predict with another
            model's weights. With `temperature`, it gets one too.
        options: see `LabelOptions`.

    Raises:
        EnsembleError: arguments that cannot be, or arrays that do not fit.

    Warns:
        UserWarning: fewer than 1000 validation samples; with the interval that
            says how noisy the choice is.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> y = random.integers(2, size=2000)
        >>> noise = random.random((3, 2000))
        >>> sure = np.where(noise < 0.8, 0.9, 0.2)  # of the label
        >>> members = np.where(y == 1, sure, 1 - sure)
        >>> choice = fit(members, y, select="last")
        >>> choice.weights == (1 / 3, 1 / 3, 1 / 3), round(choice.temperature, 1)
        (True, 0.3)
        >>> choice.apply(members).shape
        (2000,)
        >>> budget = fit(members, y, budget=1.5).budget
        >>> round(budget.passes, 2), round(budget.exact_passes, 2), budget.made_wrong
        (1.35, 2.32, 0)

    Source: Huang et al., "Snapshot Ensembles" (2017), section 4.3 for the last m;
    Caruana et al. (2004); Rahaman & Thiery (2021) for the temperature after pooling.
    """
    measure = measure_of(metric)
    held_out = HeldOut(predictions, labels, class_axis=class_axis, **options)
    budget = None if budget is None else check_budget(budget, len(held_out))
    names = names_of(len(held_out), names)
    other = None if baseline is None else baseline_rows(held_out, baseline)
    how = {"steps": steps, "bags": bags, "seed": seed}
    verdict: Verdict | None = None
    if select == "auto":
        verdict = choose_way(held_out, measure, temperature=temperature, **how)
    if verdict is not None:
        way = verdict.ways[verdict.taken]
        chosen = Selection(weights=way.weights, score=verdict.scores[verdict.taken])
    else:
        chosen = _select(held_out, select, metric, **how)
    candidates = [
        Candidate(name=f"last {m}", scores=scores)
        for m, scores in enumerate(last_scores(held_out, metric), start=1)
    ]
    found, rows = 1.0, held_out.pooled(chosen.weights)
    if verdict is not None:
        found, rows, candidates = _considered(held_out, verdict, measure, temperature)
    elif select != "last":
        candidates.append(Candidate(name=select, scores=held_out.scores_of(rows, measure)))
        if temperature:
            found, rows, candidate = _calibrated(held_out, rows, measure, select)
            candidates.append(candidate)
    elif temperature:
        every = [(last_weights(len(held_out), m), f"last {m}") for m in range(1, len(held_out) + 1)]
        tried = [
            (weights, *_calibrated(held_out, held_out.pooled(weights), measure, name))
            for weights, name in every
        ]
        best = min(tried, key=lambda each: each[-1].scores[measure.name])
        candidates += [each[-1] for each in tried if each is not best]
        weights, found, rows, candidate = best
        candidates.append(candidate)
        chosen = replace(chosen, weights=weights, score=candidate.scores[measure.name])
    everyone = held_out.pooled(last_weights(len(held_out), len(held_out)))
    interval = measure.interval(rows, everyone, held_out.labels, seed)
    evidence = evidence_of(
        *(held_out, names, measure.name),
        data="validation sample",
        temperature=temperature,
        chosen=rows,
        candidates=len(candidates),
        interval=interval,
    )
    stands, alone = _beside(held_out, rows, other, measure, temperature=temperature, seed=seed)
    choice = Choice(
        members=tuple(names),
        weights=chosen.weights,
        temperature=found,
        class_axis=class_axis,
        select=select,
        metric=measure.name,
        candidates=tuple(candidates),
        samples=held_out.samples,
        interval=interval,
        seed=seed,
        gap=chosen.gap,
        digests=None if digests is None else tuple(digests),
        reason=None if verdict is None else verdict.reason,
        budget=None if budget is None else held_out.leaving(chosen.weights).within(budget),
        findings=(
            *findings_of(evidence),
            *baseline_finding(stands, measure.name, held_out.samples),
        ),
        baseline=stands,
        last_alone=alone,
    )
    warn_of_few(choice, title_of(measure.name))
    return choice


def _beside(
    held_out: HeldOut,
    rows: NDArray[Any],
    other: NDArray[Any] | None,
    measure: Measure,
    *,
    temperature: bool,
    seed: int,
) -> list[Baseline | None]:
    """The choice beside another model, and beside the last member at its own temperature."""
    last = held_out.rows(len(held_out) - 1) if temperature else None
    return [
        None
        if each is None
        else beside_baseline(held_out, rows, each, measure, temperature=temperature, seed=seed)
        for each in (other, last)
    ]


def warn_of_few(choice: Choice, title: str) -> None:
    """Say how noisy a choice on few samples is, to the caller of what made it."""
    if choice.samples >= FEW_SAMPLES:
        return
    low, high = choice.interval
    told = (
        f"its {title} there minus that of the mean of all members has a 95 % interval from "
        f"{low:+.4g} to {high:+.4g}"
    )
    if low == high == 0:
        told = "it predicts there as the mean of all members does"
    elif low <= 0 <= high:
        told += "; it does not tell the two apart"
    elif high < 0:
        told += ": there it is better, but by how much is not sure. Judge it on other data"
    else:
        told += ": there it is worse. Take the mean of all members, or choose on more samples"
    warn(
        f"The ensemble was chosen on {plural(choice.samples, 'validation sample')}, fewer than "
        f"{FEW_SAMPLES}: {told}"
    )


def names_of(members: int, names: Sequence[str] | None) -> Sequence[str]:
    """The names of so many members; by default "0", "1", ..."""
    if names is None:
        return [str(i) for i in range(members)]
    if len(names) != members:
        raise EnsembleError(
            f"Argument `names` must have a name for each of {members} members. "
            f"Received: {len(names)}"
        )
    return names


def _calibrated(
    held_out: HeldOut, rows: NDArray[Any], measure: Measure, name: str
) -> tuple[float, NDArray[Any], Candidate]:
    """The temperature of a prediction, the prediction at it, and its scores."""
    found = row_temperature(rows, held_out.labels)
    rows = tempered(rows, found, -1)
    scores = held_out.scores_of(rows, measure)
    return found, rows, Candidate(name=f"{name}, temperature {found:.4g}", scores=scores)


def _considered(
    held_out: HeldOut, verdict: Verdict, measure: Measure, temperature: bool
) -> tuple[float, NDArray[Any], list[Candidate]]:
    """The temperature and the prediction of what was taken, and all candidates, it the last."""
    candidates: list[Candidate] = []
    taken = verdict.ways[verdict.taken]
    rows = held_out.pooled(taken.weights)
    for way in (*(each for each in verdict.ways if each is not taken), taken):
        rows = tempered(held_out.pooled(way.weights), way.temperature, -1)
        name = f"{way.name}, temperature {way.temperature:.4g}" if temperature else way.name
        candidates.append(Candidate(name=name, scores=held_out.scores_of(rows, measure)))
    return taken.temperature, rows, candidates


def _select(
    held_out: HeldOut, select: Select, metric: AnyMetric, *, steps: int, bags: int, seed: int
) -> Selection:
    if select == "last":
        return select_last(held_out, metric)
    if select == "greedy":
        return select_greedy(held_out, metric, steps=steps, bags=bags, seed=seed)
    if select != "weights":
        raise EnsembleError(
            "Argument `select` must be 'auto', 'last', 'greedy' or 'weights'. "
            f"Received: select={shown(select)}"
        )
    if metric != "log_loss":
        raise EnsembleError(
            "Argument `metric` must be 'log_loss' for select='weights', which finds the least one. "
            f"Received: metric={shown(metric)}"
        )
    return select_weights(held_out)
