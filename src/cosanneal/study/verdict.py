"""What a study's runs say: means over the seeds, paired differences, and whether it pays."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..core.errors import StudyError, plural
from .document import WAYS

LEVEL: Final = 0.95


def summarize(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each number of cycles and each way to predict, from the runs.

    One cosine is the run of one cycle with a temperature of its own. A
    difference is paired: of each seed the row's score minus that seed's cosine.

    Args:
        results: the document, as `read_study` gives it.

    Returns:
        For one cycle a row with the way "fitted", for others one for each of
        "fitted", "mean" and "last": `cycles`, `way`, `seeds` (how many have
        both runs), `passes` (the mean), `validation_nll`, and for `error` and
        `log_loss` their `mean`, and of the `difference` to one cosine the mean,
        the standard `stderr` over the seeds, and the `interval` at 95 % by
        Student's t: `d -+ t(n - 1) s / sqrt(n)`; None for one seed.

    Raises:
        StudyError: no seed has both one cosine and cycles.

    Example: see `run`.

    Source: Student, "The Probable Error of a Mean" (1908).
    """
    by_cycles: dict[int, dict[int, Mapping[str, Any]]] = {}
    for run in results["runs"]:
        by_cycles.setdefault(run["cycles"], {})[run["seed"]] = run
    cosine = by_cycles.get(1, {})
    rows: list[dict[str, Any]] = []
    for cycles in sorted(by_cycles):
        pairs = [(run, cosine[seed]) for seed, run in by_cycles[cycles].items() if seed in cosine]
        for way in (WAYS[::-1] if cycles > 1 else ("fitted",)) if pairs else ():
            rows.append(
                {
                    "cycles": cycles,
                    "way": way,
                    "seeds": len(pairs),
                    "passes": statistics.fmean(run[way]["passes"] for run, _ in pairs),
                    "validation_nll": statistics.fmean(run["validation_nll"] for run, _ in pairs),
                    **{
                        score: {
                            "mean": statistics.fmean(run[way][score] for run, _ in pairs),
                            **_difference(
                                [run[way][score] - one["fitted"][score] for run, one in pairs]
                            ),
                        }
                        for score in ("error", "log_loss")
                    },
                }
            )
    if not any(row["cycles"] > 1 for row in rows):
        raise StudyError(
            "A study must have a seed with both a run of one cycle and one of several to compare. "
            f"Received: {plural(len(results['runs']), 'run')} done and "
            f"{len(results['failed'])} failed; run it again"
        )
    return rows


def picked(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The fitted ensemble of the number of cycles that is best on the validation data."""
    several = [row for row in rows if row["cycles"] > 1 and row["way"] == "fitted"]
    return min(several, key=lambda row: float(row["validation_nll"]))


def pays(row: Mapping[str, Any]) -> bool | None:
    """Whether the interval of the log-loss' difference is below 0 (True), above (False), or open.

    Example:
        >>> pays({"log_loss": {"interval": [-0.3, -0.1]}}), pays({"log_loss": {"interval": None}})
        (True, None)
    """
    interval = row["log_loss"]["interval"]
    if interval is None or interval[0] <= 0 <= interval[1]:
        return None
    return bool(interval[1] < 0)


def sentences(results: Mapping[str, Any]) -> list[str]:
    """In plain words: whether it pays, by which rule, and what it costs.

    Args:
        results: the document, as `read_study` gives it.

    Raises:
        StudyError: as `summarize`.

    Example: see `run`.
    """
    rows = summarize(results)
    best = picked(rows)
    loss, error = best["log_loss"], best["error"]
    cycles, answer = plural(best["cycles"], "cycle"), pays(best)
    begin = {
        True: "It pays here.",
        False: "It does not pay here.",
        None: "It is not shown that it pays here.",
    }[answer]
    base = loss["mean"] - loss["difference"]
    change = _change(loss["difference"], 4)
    if change is None:
        beside = "the same to 4 digits as"
    elif base > 0:
        beside = f"{change} ({100 * abs(loss['difference']) / base:.1f} %) than"
    else:
        beside = f"{change} than"
    errors = _change(100 * error["difference"], 2, " percentage points")
    told = (
        f"{begin} Best on the validation data are {cycles}. With these, the fitted ensemble's "
        f"log-loss on the test data is {beside} that of one cosine of the same budget with its own "
        f"temperature, and its error is {errors or 'the same to 2 digits'}."
    )
    if loss["interval"] is None:
        rule = (
            "There is one seed only, so that nothing says how much of that is chance: there is no "
            "interval, and no answer. Take three seeds or more."
        )
    else:
        low, high = loss["interval"]
        rule = (
            f"The rule: the mean difference in log-loss over {plural(best['seeds'], 'seed')}, "
            f"{loss['difference']:+.4f} with a standard error of {loss['stderr']:.4f}, has a 95 % "
            f"interval (Student's t) from {low:+.4f} to {high:+.4f}; it pays where all of it is "
            "below 0, and does not where all of it is above."
        )
        if answer is None:
            rule += " More seeds may tell."
    passes = f"{best['passes']:.1f}".removesuffix(".0")
    cost = (
        f"The training costs the same. A prediction takes {passes} forward "
        f"{'pass' if passes == '1' else 'passes'} in place of one."
    )
    found = [f"{told} {cost}", rule]
    if results["failed"]:
        names = [
            f"{plural(run['cycles'], 'cycle')}, seed {run['seed']}" for run in results["failed"]
        ]
        found.append(
            f"{plural(len(names), 'run')} failed and {'is' if len(names) == 1 else 'are'} left "
            f"out: {'; '.join(names)}."
        )
    return found


def _change(value: float, digits: int, unit: str = "") -> str | None:
    """By how much it is lower or higher; None where so many digits show no difference."""
    text = f"{abs(value):.{digits}f}"
    if not float(text):
        return None
    return f"{text}{unit} {'lower' if value < 0 else 'higher'}"


def _difference(values: Sequence[float]) -> dict[str, Any]:
    mean, count = statistics.fmean(values), len(values)
    if count == 1:
        return {"difference": mean, "stderr": None, "interval": None}
    stderr = statistics.stdev(values) / math.sqrt(count)
    wide = student(count - 1, LEVEL) * stderr
    return {"difference": mean, "stderr": stderr, "interval": [mean - wide, mean + wide]}


def student(degrees: int, level: float) -> float:
    """The t that a Student's variable of so many degrees stays within, with a probability.

    Found by bisection of `P(|T| < t)`, which for whole degrees is a finite sum.

    Args:
        degrees: of freedom, at least 1.
        level: the probability, within 0 and 1.

    Example:
        >>> round(student(2, 0.95), 4)
        4.3027

    Source: Abramowitz & Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.
    """

    def within(angle: float) -> float:
        sine, cosine = math.sin(angle), math.cos(angle)
        odd = degrees % 2
        term, total = (cosine if odd else 1.0), 0.0
        for k in range(2 + odd, degrees + 1, 2):
            total += term
            term *= cosine * cosine * (k - 1) / k
        return 2 / math.pi * (angle + sine * total) if odd else sine * total

    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        if within(middle) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)
