"""Another model beside a choice, such as what one cosine run of the same budget gives."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from ...core.errors import EnsembleError, plural
from ...core.records import Reader
from ..arrays import as_numpy
from ..score.evidence import mean_and_error
from ..score.measures import Measure, title_of
from ..score.metrics import is_mean, row_scores
from ..score.normal import normal_quantile
from .calibration import row_temperature, tempered
from .diagnosis import Finding, Floats, shown_score
from .held_out import HeldOut


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """Another model's predictions, compared with the choice on the data of the choice.

    No ensemble predicts with another model's weights: it is told, and never chosen. The choice
    was made on these data and the other model was not, which favours the choice.

    Args:
        score: the other model's, by the metric of the choice.
        difference: the choice's score less that, paired sample by sample; below 0 the choice
            is better.
        error: the standard error of the difference; of a metric that is no mean over samples,
            the bootstrap's.
        interval: its 95 % interval, the paired bootstrap's.
        temperature: the other model's own, fitted on these data as that of the choice was.
        variance_scale: likewise, by what the variance of a regression's pairs is multiplied.
    """

    score: float
    difference: float
    error: float
    interval: tuple[float, float]
    temperature: float = 1.0
    variance_scale: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain data."""
        return asdict(self) | {"interval": list(self.interval)}

    def finding(self, metric: str, title: str, samples: int) -> tuple[Finding, ...]:
        """What is to be said where the choice is not better by more than one standard error.

        Args:
            metric: the name of the metric.
            title: what a sentence calls it.
            samples: how many validation samples there were.
        """
        if self.difference < -self.error:
            return ()
        score, own, error = (
            shown_score(metric, each)
            for each in (self.score, self.score + self.difference, self.error)
        )
        apart = shown_score(metric, self.difference, "+")
        low, high = (shown_score(metric, end, "+") for end in self.interval)
        verdict = "the baseline is better"
        if self.difference <= self.error:
            verdict = f"within one standard error, {error}, the baseline is as good"
        return (
            Finding(
                name="baseline-not-beaten",
                text=f"The baseline has a {title} of {score}, the choice one of {own}, on "
                f"{plural(samples, 'validation sample', ',')} that had a part in the choice. The "
                f"difference is {apart} (95 % interval {low} to {high}): {verdict}. One model "
                "costs one pass. Ship the baseline, unless other data tell otherwise.",
            ),
        )


def baseline_rows(held_out: HeldOut, baseline: Any) -> Floats:
    """Another model's probabilities, one row for each label that counts.

    Raises:
        EnsembleError: they are not of the members' shape, or no probabilities.
    """
    array = as_numpy(baseline)
    check_baseline(array.shape, held_out.shape)
    try:
        return held_out.labels.rows(array)
    except EnsembleError as error:
        raise EnsembleError(f"Argument `baseline`: {error}") from error


def check_baseline(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Refuse a baseline of another shape than a member's predictions."""
    if shape != wanted:
        raise EnsembleError(
            "Argument `baseline` must be one model's predictions for the same samples, of the "
            f"shape of a member's, {wanted}. Received: shape {shape}"
        )


def beside_baseline(
    held_out: HeldOut,
    chosen: Floats,
    other: Floats,
    measure: Measure,
    *,
    temperature: bool,
    seed: int,
) -> Baseline:
    """The choice beside another model.

    Args:
        held_out: the data of the choice.
        chosen: the rows of the choice.
        other: the other model's, as `baseline_rows` gives them.
        measure: the metric of the choice.
        temperature: whether the other model gets a temperature too.
        seed: of the interval.
    """
    y = held_out.labels
    heat = row_temperature(other, y) if temperature else 1.0
    other = tempered(other, heat, -1)
    interval = measure.interval(chosen, other, y, seed)
    if is_mean(measure.name):
        scores = [row_scores(measure.name, rows, y) for rows in (chosen, other)]
        difference, error = mean_and_error(y.per_sample(scores[0] - scores[1]), y.sample_weights())
    else:
        difference = measure.value(chosen, y) - measure.value(other, y)
        error = (interval[1] - interval[0]) / (2 * normal_quantile(0.975))
    return Baseline(
        score=measure.value(other, y),
        difference=difference,
        error=error,
        interval=interval,
        temperature=heat,
    )


def read_baseline(reader: Reader) -> Baseline:
    """The comparison of a record, with every field checked.

    Raises:
        EnsembleError: a bad field, whose path is named.
    """
    names = ("score", "difference", "error", "temperature", "variance_scale")
    reader.only(*names, "interval")
    found = {name: reader.number(name) for name in names}
    for name, value in found.items():
        if not math.isfinite(value):
            raise reader.error(name, "a finite number")
    for name in ("error", "variance_scale"):
        if found[name] < 0:
            raise reader.error(name, "a finite number of at least 0")
    if found["temperature"] <= 0:
        raise reader.error("temperature", "a finite positive number")
    interval = reader.numbers("interval")
    if len(interval) != 2 or not -math.inf < interval[0] <= interval[1] < math.inf:
        raise reader.error("interval", "two finite numbers, the lower one first")
    return Baseline(interval=(interval[0], interval[1]), **found)


def baseline_finding(baseline: Baseline | None, metric: str, samples: int) -> tuple[Finding, ...]:
    """What is to be said of a baseline beside a choice of classes; nothing of none."""
    return () if baseline is None else baseline.finding(metric, title_of(metric), samples)
