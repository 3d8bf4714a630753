"""What held-out data say of a run and of a choice, unasked: findings, by stated rules."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ...core.errors import plural
from ...core.records import Reader
from ..score.evidence import mean_and_error
from ..score.measures import title_of
from ..score.metrics import is_mean, row_scores
from ..score.normal import normal_quantile
from .belonging import Belonging, belonging_of
from .calibration import best_temperature, tempered
from .held_out import HeldOut

Floats: TypeAlias = NDArray[np.float64]
FindingName: TypeAlias = Literal[
    "labels-doubtful",
    "early-members-worse",
    "members-alike",
    "last-not-best",
    "few-samples",
    "worse-than-mean",
    "baseline-not-beaten",
]

# With fewer samples the mean of their scores is not yet normal, and nothing is told by its error.
LEAST_SAMPLES: Final = 30

# How seldom a finding is to be said of what is not so.
LEVEL: Final = 0.005

# From so many labels at least, or from all, a temperature is fitted here: it moves a score by its
# error's square, and all of many would take longer than the choice.
_FITTED: Final = 2048

# What members take off their own scores when they are averaged, below which they hardly differ.
ALIKE: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What held-out data say of the members or of the choice, unasked.

    Args:
        name: which it is, for programs: "labels-doubtful", "early-members-worse",
            "members-alike", "last-not-best", "few-samples" or "worse-than-mean", of which
            `findings_of` says by which rules; or "baseline-not-beaten", where the choice is not
            better than the `baseline` of `fit` by more than one standard error of their paired
            difference.
        text: what was seen in numbers, what it means, and what to do.
    """

    name: FindingName
    text: str

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, str]:
        """The finding as plain data."""
        return {"name": self.name, "text": self.text}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """Scores of every sample, by which findings are made; the lower the better.

    Args:
        names: of the members, oldest first.
        data: what the samples are called: "validation sample" or "sample".
        metric: the score's name.
        title: what a sentence calls it.
        alone: each member's.
        lasts: those of the mean of the last 1, 2, ... members, so that the last are those of
            the plain mean of all.
        convex_title: what the convex score is called: Brier, squared error, or pinball loss.
        convex: the mean of the members' own convex scores, and those of their mean.
        counts: how much each sample counts; None where all count the same.
        chosen: those of the choice and, of the last member alone, those to compare it with;
            None where nothing was chosen, or not by this score.
        candidates: how many were compared.
        interval: the 95 % interval of the choice's score less that of the plain mean, by what
            it was chosen by; None where nothing was chosen.
        judged: the name of that, and its title.
        belonging: what the labels bear out; None of a regression.
    """

    names: Sequence[str]
    data: str
    metric: str
    title: str
    alone: Sequence[Floats]
    lasts: Sequence[Floats]
    convex_title: str
    convex: tuple[Floats, Floats]
    counts: Floats | None = None
    chosen: tuple[Floats, Floats] | None = None
    candidates: int = 1
    interval: tuple[float, float] | None = None
    judged: tuple[str, str] = ("", "")
    belonging: Belonging | None = None

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self.alone[0])

    @property
    def where(self) -> str:
        """The data, in words."""
        return plural(self.samples, self.data, ",")

    def mean(self, scores: Floats) -> float:
        """The mean of the samples' scores."""
        return mean_and_error(scores, self.counts)[0]

    def paired(self, first: Floats, second: Floats) -> tuple[float, float]:
        """The mean difference of two scores of the same samples, and its standard error."""
        return mean_and_error(first - second, self.counts)

    def number(self, value: float) -> str:
        """A score as a sentence has it: errors in percent."""
        return shown_score(self.metric, value)


def shown_score(metric: str, value: float, sign: str = "") -> str:
    """A score in a sentence: of error rates in percent, of others four digits."""
    return f"{100 * value:{sign}.2f} %" if metric.endswith("error") else f"{value:{sign}.4g}"


def findings_of(evidence: Evidence) -> tuple[Finding, ...]:
    """What the samples' scores say, by these rules, each paired sample by sample.

    With `z` the normal quantile of 1 less 0.005, 2.58, and the standard error that of the mean
    of the samples' differences:

    - labels-doubtful: said first, and then alone, for the others would say nothing. With what
      `Belonging` (choose/belonging.py) calls borne out and claimed, of the plain mean of all:
      what is borne out is not above 0 by more than 1.64 standard errors, and is less than a fifth
      of what is claimed, by more than `z` standard errors. So it is said where the members are
      sure of classes with which the labels have nothing to do, as of labels in another order or
      numbered otherwise; and not of members that are unsure because the task is hard.
    - early-members-worse: for a number m below all M, the members before the last m have a
      worse mean score than the last m, and the plain mean of all is worse than that of the last
      m, both by more standard errors than the normal quantile of `1 - 0.005 / (M - 1)`, for the
      M - 1 numbers that are tried. (Early members that are worse alone, and help all the same,
      are no finding.) Told is the m by which the mean of all is the most worse.
    - members-alike: what averaging takes off the members' mean score is less than 2 % of it, by
      more than `z` standard errors of `(members' score - mean's score) - 0.02 members' score`.
      The score is a convex one, Brier, squared error or pinball loss, for which it is the
      members' ambiguity, and never below 0.
    - last-not-best: the last member is worse than an earlier one by more standard errors than
      the normal quantile of `1 - 0.005 / (M - 1)`, for the M - 1 members that are tried.
    - few-samples: the choice is better than the last member alone by no more than
      `s sqrt(2 ln K)`, where `s` is the standard error of that difference and K the number of
      candidates: so much the best of K candidates would seem better on average, at most, if
      none were. (A search counts as one candidate, so that it is the least luck there is.)
      With fewer than 30 samples it is said whenever candidates were compared, and nothing else
      is.
    - worse-than-mean: the 95 % interval (the paired bootstrap's) of the choice's score less that
      of the plain mean of all members is above 0, by what the choice was made by.

    All but members-alike and worse-than-mean go by the metric of the choice if that is a mean
    over samples, and else by log-loss (of a regression the squared error, or of pairs the
    Gaussian negative log-likelihood); few-samples is left out then. Where the choice has a
    temperature (or a variance was fitted), members and means are scored at one of their own;
    of more than 4,096 labels it is fitted on every second, third, ... label.

    How often they are said where there is nothing to say: of 300 draws of 5 members of one
    quality, whose errors are independent, on 400 samples, last-not-best was said in 1 by
    `fit` and in 2 by `fit_regression`, and the others never; nor was any by `analyze` on other
    samples, in 100 of them. Of 300 draws in which the members share nearly all of their errors,
    so that averaging gains nothing, members-alike was said in all, few-samples in 216, and
    last-not-best in 2. By its level, early-members-worse and last-not-best are each said in at
    most 0.5 % where all members are the same.

    Of 300 draws of labels that belong to the samples, labels-doubtful was said in none where
    members are right in 85 to 100 % of 2 classes or 51 to 98 % of 10, and in none or 1 where they
    are little better than chance; of members that are very sure all the same, and right in 14 % of
    10 classes, in 67 (50 samples), 53 (200) and none (1,000). Of labels rolled by one row, where
    members are sure and right in 98 to 100 %, it was said in 50 (2 classes, 50 samples), 194 (200)
    and 288 (1,000), of 10 classes in 272, 296 and 287; of labels numbered one too high in all.

    Args:
        evidence: the scores.

    Source: Krogh & Vedelsby, "Neural Network Ensembles, Cross Validation, and Active Learning"
    (1995), for the ambiguity; Boucheron, Lugosi & Massart, "Concentration Inequalities" (2013),
    section 2.5, for the greatest of K normal numbers; Dunn, "Multiple Comparisons Among Means"
    (1961), for the M - 1 members.
    """
    if evidence.samples < LEAST_SAMPLES:
        return tuple(_few_at_all(evidence))
    if evidence.belonging is not None and evidence.belonging.doubtful:
        return (_doubtful(evidence, evidence.belonging),)
    found: list[Finding] = []
    if len(evidence.names) > 1:
        found += [*_early(evidence), *_alike(evidence), *_last(evidence)]
    return (*found, *_luck(evidence), *_worse(evidence))


def findings_from(reader: Reader, name: str) -> tuple[Finding, ...]:
    """The findings of a record, which must be such.

    Raises:
        EnsembleError: they are none; the path of the bad field is named.
    """
    found = []
    for each in reader.items(name):
        each.only("name", "text")
        if each.text("name") not in get_args(FindingName):
            raise each.error("name", f"one of {', '.join(map(repr, get_args(FindingName)))}")
        found.append(Finding(name=cast(FindingName, each.text("name")), text=each.text("text")))
    return tuple(found)


def evidence_of(
    held_out: HeldOut,
    names: Sequence[str],
    metric: str,
    *,
    data: str,
    temperature: bool = False,
    chosen: Floats | None = None,
    candidates: int = 1,
    interval: tuple[float, float] | None = None,
) -> Evidence:
    """The scores of members that give probabilities.

    Args:
        held_out: their predictions and the labels.
        names: of the members.
        metric: the name of that of the choice.
        data: what the samples are called.
        temperature: whether each member and each mean has a temperature of its own, as the
            choice has: members that are too sure, and means that are less sure than they, are
            no finding where that is mended.
        chosen: the rows of the choice.
        candidates: how many were compared.
        interval: of the choice's score less that of the plain mean.
    """
    y, members = held_out.labels, len(held_out)
    by = metric if is_mean(metric) else "log_loss"

    def scores(rows: Floats, name: str = by) -> Floats:
        return y.per_sample(row_scores(name, rows, y))

    some = slice(None, None, max(len(y) // _FITTED, 1))
    known = y.some(some)

    def calibrated(rows: Floats) -> Floats:
        if temperature and by in ("log_loss", "brier"):  # the others go by the order alone
            rows = tempered(rows, best_temperature(rows[some], known)[0], -1)
        return scores(rows)

    alone: list[Floats] = []
    lasts: list[Floats] = []
    brier = np.zeros(y.samples)
    total = np.zeros_like(held_out.rows(0))
    for m, i in enumerate(reversed(range(members)), start=1):
        rows = held_out.rows(i)
        total += rows
        alone.insert(0, calibrated(rows))
        lasts.append(calibrated(total / m) if m > 1 else alone[0])
        brier += scores(rows, "brier") / members
    compared = None if chosen is None or by != metric else (scores(chosen), alone[-1])
    return Evidence(
        names=names,
        data=data,
        metric=by,
        title=title_of(by),
        alone=alone,
        lasts=lasts,
        convex_title="Brier score",
        convex=(brier, scores(total / members, "brier")),
        counts=y.sample_weights(),
        chosen=compared,
        candidates=candidates,
        interval=interval,
        judged=(metric, title_of(metric)),
        belonging=belonging_of(total / members, y, chosen),
    )


def _doubtful(evidence: Evidence, found: Belonging) -> Finding:
    who = "plain mean of all members" if evidence.interval is None else "choice"
    return Finding(
        name="labels-doubtful",
        text=f"Do labels and samples belong together? On {evidence.where} the {who} has a log-loss "
        f"of {found.loss:.4g}; to give the labels' class frequencies every time has "
        f"{found.frequencies:.4g}. Yet the members are sure of their classes: the labels have "
        "nothing to do with them. Check that samples and labels come in one order (a loader that "
        "shuffles, a row that is missing), and that classes are numbered as in training. If both "
        "are right, the members have learned nothing that holds on these data.",
    )


def _early(evidence: Evidence) -> Iterator[Finding]:
    members = len(evidence.names)
    z = normal_quantile(1 - LEVEL / (members - 1))
    everyone, worst = evidence.lasts[-1], (0.0, 0.0, 0)
    for late in range(1, members):
        halves = [np.mean(part, axis=0) for part in _cut(evidence.alone, late)]
        apart, error = evidence.paired(*halves)
        cost, cost_error = evidence.paired(everyone, evidence.lasts[late - 1])
        if apart > z * error and cost > z * cost_error:
            worst = max(worst, (cost, cost_error, late))
    cost, error, late = worst
    if not late:
        return
    number, title, early = evidence.number, evidence.title, members - late
    first, second = (
        number(evidence.mean(np.mean(part, axis=0))) for part in _cut(evidence.alone, late)
    )
    who = f"The first {early} of {members} members have a mean {title}"
    if early == 1:
        who = f"The first of {members} members has a {title}"
    rest = "the last one" if late == 1 else f"the last {late}"
    yield Finding(
        name="early-members-worse",
        text=f"{who} of {first}, {rest} of {second}; with the early ones the plain mean has "
        f"{number(evidence.mean(everyone))}, without them "
        f"{number(evidence.mean(evidence.lasts[late - 1]))}: worse by "
        f"{_between(evidence, cost, error)}, on {evidence.where}. The first cycles are too short "
        f"for good members. Use fewer cycles in the same budget, or leave them out by last={late}.",
    )


def _cut(members: Sequence[Floats], late: int) -> tuple[Sequence[Floats], Sequence[Floats]]:
    """The members before the last so many, and these."""
    return members[:-late], members[-late:]


def _alike(evidence: Evidence) -> Iterator[Finding]:
    alone, together = evidence.convex
    spare, error = mean_and_error(alone - together - ALIKE * alone, evidence.counts)
    if not spare < -normal_quantile(1 - LEVEL) * error:
        return
    least, whole = evidence.paired(alone, together)[0], evidence.mean(alone)
    yield Finding(
        name="members-alike",
        text=f"Averaging all {len(evidence.names)} members takes "
        f"{100 * max(least, 0.0) / whole:.2g} % off their mean {evidence.convex_title}, on "
        f"{evidence.where}: they hardly differ, and an ensemble of them gains next to nothing. "
        "The restarts are too low to part them: raise max_lr, or use fewer and longer cycles. "
        "(Where one member is as good as the data allow, it is enough.)",
    )


def _last(evidence: Evidence) -> Iterator[Finding]:
    others = len(evidence.names) - 1
    z = normal_quantile(1 - LEVEL / others)
    last = evidence.alone[-1]
    compared = [evidence.paired(last, each) for each in evidence.alone[:-1]]
    i = max(range(others), key=lambda i: compared[i][0])
    worse, error = compared[i]
    if not worse > z * error:
        return
    number, name = evidence.number, evidence.names[i].removesuffix(".safetensors")
    yield Finding(
        name="last-not-best",
        text=f"The last member has a {evidence.title} of {number(evidence.mean(last))}, an "
        f"earlier one, {name}, of {number(evidence.mean(evidence.alone[i]))}: the last is worse by "
        f"{_between(evidence, worse, error)}, on {evidence.where}. To train on has made the "
        "model worse, as where it overfits. Do not take the last snapshot alone: "
        "select='greedy' can choose an earlier one. Or train shorter, or with more regularization.",
    )


def _luck(evidence: Evidence) -> Iterator[Finding]:
    if evidence.chosen is None or evidence.candidates < 2:
        return
    chosen, last = evidence.chosen
    gain, error = evidence.paired(last, chosen)
    luck = error * math.sqrt(2 * math.log(evidence.candidates))
    if error == 0 or gain > luck:
        return
    number = evidence.number
    seen = f"better than the last member alone by {number(gain)}"
    if gain <= 0:
        seen = "no better than the last member alone"
    more = "on more"
    needed = evidence.samples * (luck / gain) ** 2 if gain > 0 else math.inf
    if needed < 100 * evidence.samples:
        digits = 10 ** max(math.floor(math.log10(needed)) - 1, 0)
        more = f"on some {math.ceil(needed / digits) * digits:,}"
    yield Finding(
        name="few-samples",
        text=f"By {evidence.title} the choice is {seen}. If all {evidence.candidates} candidates "
        f"were as good as that one, luck alone would have the best of them seem better by "
        f"{number(luck)}. "
        f"{evidence.where} are too few for so many candidates. Choose {more}, or among fewer "
        "candidates.",
    )


def _few_at_all(evidence: Evidence) -> Iterator[Finding]:
    if evidence.interval is not None and evidence.candidates > 1:
        yield Finding(
            name="few-samples",
            text=f"{evidence.candidates} candidates were compared on {evidence.where}, fewer than "
            f"{LEAST_SAMPLES}: which is the best is luck, and how sure it is cannot be told. "
            "Choose on more, or take the plain mean of all, which needs no choice.",
        )


def _worse(evidence: Evidence) -> Iterator[Finding]:
    if evidence.interval is None or not evidence.interval[0] > 0:
        return
    metric, title = evidence.judged
    low, high = (shown_score(metric, value) for value in evidence.interval)
    yield Finding(
        name="worse-than-mean",
        text=f"The choice's {title} is higher than that of the plain mean of all "
        f"members, by {low} to {high} (95 % interval), on {evidence.where}. To choose has cost "
        "more than it gave. Take the plain mean of all, or choose on more validation samples.",
    )


def _between(evidence: Evidence, value: float, error: float) -> str:
    """A difference and its 95 % interval."""
    reach = normal_quantile(0.975) * error
    low, high = (evidence.number(end) for end in (value - reach, value + reach))
    return f"{evidence.number(value)} (95 % interval {low} to {high})"
