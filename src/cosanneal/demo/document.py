"""The results: a row for each model, in words, and as the document that a report is drawn from."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any, Final

from ..ensemble import AveragedWeights, analyze, log_loss
from ..ensemble.findings import scores_of
from ..ensemble.results import FORMAT, VERSION
from ..ensemble.weights.barrier import BARRIER
from .experiment import Fitted, Outcome

_SCORES: Final = ("test_error", "test_nll", "validation_error", "validation_nll")


def summarize(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each model: mean and standard deviation of each score over the seeds.

    Args:
        results: the experiment's, as in `Outcome`.

    Returns:
        For each its name in the table, `model`; in a sentence, `short`; among
        a seed's scores, `key`, which for the mean of the last members is their
        number; and the scores' `mean` and `std`.
    """
    seeds: list[dict[str, Any]] = results["seeds"]
    count = results["config"]["num_cycles"]
    models: list[tuple[str, str, Any]] = [
        ("Single (rate / 10 at 50 % and 75 %)", "Single", "single"),
        (f"NoCycle: its {count} snapshots", "the NoCycle snapshots", "nocycle"),
        ("One cosine cycle", "one cosine cycle", "cosine"),
        (
            "One cosine cycle, temperature",
            "one cosine cycle with a temperature",
            "cosine_calibrated",
        ),
        (f"SingleCycle: {count} short runs", f"{count} short runs", "short"),
        ("Cyclic run, last snapshot alone", "the last snapshot alone", 1),
        *(
            (f"Ensemble of the last {members}", f"the ensemble of {members}", members)
            for members in range(2, count + 1)
        ),
        ("Ensemble fitted on validation", "the fitted ensemble", "fitted"),
        ("Averaged weights of the last m", "the averaged weights", "averaged"),
    ]
    return [
        {
            "model": title,
            "short": short,
            "key": key,
            **{name: _spread([_of(seed, key)[name] for seed in seeds]) for name in _SCORES},
        }
        for title, short, key in models
    ]


def summarize_study(results: Mapping[str, Any]) -> dict[str, Any]:
    """The study's scores over the seeds: a row for each number of cycles.

    Returns:
        `updates` and `seeds`, and `rows` with `cycles` and, for the `last`
        snapshot, the mean of `all` and the `best` last m by the validation
        scans, `test_error` and `test_nll`, each with `mean` and `std`.
    """
    studied: list[list[dict[str, Any]]] = results["study"]
    return {
        "updates": results["config"]["updates"],
        "seeds": len(studied),
        "rows": [
            {
                "cycles": rows[0]["cycles"],
                **{
                    name: {score: _spread([row[name][score] for row in rows]) for score in _SHOWN}
                    for name in ("last", "all", "best")
                },
            }
            for rows in zip(*studied, strict=True)
        ],
    }


_SHOWN: Final = _SCORES[:2]

# Where to measure between two snapshots.
_SHARES: Final = tuple(i / 10 for i in range(1, 10))


def compare(results: Mapping[str, Any], summary: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the numbers say, in words: the fitted ensemble beside others.

    One seed has no spread, so that it says what is better here, and not what wins.
    """
    seeds: list[dict[str, Any]] = results["seeds"]
    rows = {row["key"]: row for row in summary}
    of_seeds = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    ours = rows["fitted"]
    sentences: list[str] = []
    for key in ("single", "cosine", "short", 1):
        other = rows[key]
        means = [(ours[score]["mean"], other[score]["mean"]) for score in _SHOWN]
        error, loss = (_change(*each) for each in means)
        verdict = _verdict(*(_direction(*each) for each in means), seeds=len(seeds))
        told = f"{verdict} {other['short']}: {error} error and {loss} log-loss"
        if len(seeds) > 1:
            pairs = [(seed["fitted"]["test_error"], _of(seed, key)["test_error"]) for seed in seeds]
            told += (
                f"; its error is lower on {sum(a < b for a, b in pairs)} and higher on "
                f"{sum(a > b for a, b in pairs)} of {of_seeds}"
            )
        sentences.append(f"The fitted ensemble {told}.")
    worse = {
        score: sum(seed["paired"][score]["interval"][0] > 0 for seed in seeds) for score in _SHOWN
    }
    sentences.append(
        "Beside the last snapshot, scan by scan, the 95 % interval shows more errors on "
        f"{worse['test_error']} and more log-loss on {worse['test_nll']} of {of_seeds}."
    )
    if len(seeds) == 1:
        sentences.append("One seed tells nothing of the spread: another may say the opposite.")
    return sentences


def document(outcome: Outcome) -> dict[str, Any]:
    """The results document, plain data for JSON.

    Returns:
        As `cosanneal.ensemble.results` has it: `run`, `analysis`,
        `interpolations` and `average` are the first seed's; `comparison`, and
        `study` where there is one, are of all seeds; `demo` has the
        experiment's own results and their `summary`.
    """
    results, first = outcome.results, outcome.first
    summary = summarize(results)
    cyclic = results["curves"]["cyclic"]
    last, averaged = first.averaged
    y, mean = first.split.test.y, _mean_of_all(first)
    found: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "title": "The demonstration: a snapshot ensemble on scikit-learn's digits",
        "run": {name: cyclic[name] for name in ("rate", "loss", "cycle_ends")},
        "analysis": analyze(first.members.test, y, choice=first.choice),
        "interpolations": [
            {"first": start, "second": end, **asdict(path), "statistics": mean.statistics}
            for (start, end), path in zip(
                pairwise(first.choice.members), mean.barriers, strict=True
            )
        ],
        "average": {
            "members": list(first.choice.members[-last:]),
            "refused": None,
            **(_barrier(first, mean) if last > 1 else {}),
            # With one or two snapshots there is no other number.
            **({"picked_on": len(first.split.validation)} if len(mean.members) > 2 else {}),
            **scores_of(averaged.test, y),
            "ensemble": scores_of(first.members.last(last).test, y),
        },
        "comparison": {
            "seeds": len(results["seeds"]),
            "title": "Every run with the same budget",
            "note": _averaged_note([seed["averaged"]["members"] for seed in results["seeds"]]),
            "rows": [{name: row[name] for name in ("model", *_SHOWN)} for row in summary],
        },
        "demo": {**results, "summary": summary},
    }
    if "study" in results:
        found["study"] = summarize_study(results)
    return found


def _averaged_note(members: Sequence[int]) -> str:
    """How many snapshots' weights were averaged, seed by seed."""
    *others, last = map(str, members)
    if not others:
        told = last
    elif len(set(members)) == 1:
        told = f"{last} with every seed"
    else:
        told = f"{', '.join(others)} and {last}, seed by seed"
    return f"Averaged weights: m = {told}, the number that is best on the validation scans."


def _barrier(first: Fitted, mean: AveragedWeights) -> dict[str, float]:
    """The `barrier` between the averaged snapshots, and what is `allowed`, where it is highest.

    As `average_weights` judges it: on the way from each to the next, and of their mean.
    """
    last, averaged = first.averaged
    y = first.split.validation.y
    alone = statistics.fmean(log_loss(p, y) for p in first.members.validation[-last:])
    rises = [(max(log_loss(averaged.validation, y) - alone, 0.0), alone)]
    for path in mean.barriers[len(mean.barriers) - (last - 1) :]:
        rises.append((path.barrier, (path.losses[0] + path.losses[-1]) / 2))
    barrier, ends = max(rises, key=lambda each: each[0] - BARRIER * each[1])
    return {"barrier": barrier, "allowed": BARRIER * ends}


def _mean_of_all(first: Fitted) -> AveragedWeights:
    """The mean of all snapshots' weights, with the loss between neighbours on the validation scans.

    On the way the running statistics are estimated anew: with a mean of them,
    which no layer's input has, every barrier would look some times as high.
    """
    split, inputs = first.split, first.trained.inputs
    with warnings.catch_warnings():
        # Barriers are what is looked for.
        warnings.filterwarnings("ignore", "The weights were averaged across", UserWarning)
        return first.trained.ensemble(first.folder).average_weights(
            inputs(split.validation),
            split.validation.y,
            train_data=inputs(split.train),
            barrier=math.inf,
            shares=_SHARES,
        )


def _of(seed: Mapping[str, Any], key: str | int) -> Mapping[str, float]:
    """The scores of a model, by its name, or of the ensemble of so many members."""
    scores: Mapping[str, float] = seed[key] if isinstance(key, str) else seed["ensemble"][key - 1]
    return scores


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": deviation}


def _verdict(*directions: int, seeds: int) -> str:
    """What scores that are lower (-1), the same or higher say together: one where they agree."""
    lower, higher = min(directions) < 0, max(directions) > 0
    if lower and higher:
        return "is neither better nor worse than"
    if seeds == 1:
        word = "better" if lower else "worse" if higher else "no different"
        return f"scores {word} here than"
    return "wins over" if lower else "LOSES to" if higher else "ties with"


def _direction(ours: float, theirs: float) -> int:
    """Whether ours is lower (-1) or higher (1), or, to half a percent, the same."""
    if abs(ours - theirs) < 0.005 * theirs or ours == theirs:
        return 0
    return -1 if ours < theirs else 1


def _change(ours: float, theirs: float) -> str:
    direction = _direction(ours, theirs)
    if direction == 0:
        return "the same" if ours == theirs else "about the same"
    word = "less" if direction < 0 else "more"
    return f"{100 * abs(ours / theirs - 1):.0f} % {word}" if theirs else word
