"""The report's first paragraph: what it is, how much better or worse, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..ensemble.score.measures import title_of
from .words import (
    beside_last,
    choice_of,
    listed,
    number,
    plural,
    regression_choice_of,
    score,
    what_was_chosen,
)


def lead(results: Mapping[str, Any]) -> str:
    """Three sentences of classes, or nothing where there are neither scores nor a choice.

    Args:
        results: a results document.
    """
    analysis, choice = results.get("analysis"), choice_of(results)
    if analysis:
        return " ".join(_of_scores(analysis, choice))
    return " ".join(_of_choice(choice)) if choice else ""


def found(results: Mapping[str, Any]) -> list[str]:
    """What was found unasked: of the data that are reported, and of the choice."""
    part = results.get("analysis") or results.get("regression")
    if part is None:
        part = choice_of(results) or regression_choice_of(results) or {}
    return [finding["text"] for finding in part.get("findings", ())]


def cost(choice: Mapping[str, Any] | None, members: int) -> str:
    """What a prediction takes.

    Args:
        choice: what was chosen; None for the mean of all.
        members: how many there are.
    """
    used = members
    if choice is not None:
        used = sum(member["weight"] > 0 for member in choice["members"])
    if used == 1:
        return "For each prediction it takes one pass of the model, as any snapshot alone does."
    return (
        f"For each prediction it takes {used} passes of the model, where one snapshot takes 1, "
        f"and the weights of {used} snapshots have to be kept."
    )


def beside(
    other: str, rows: Sequence[Mapping[str, Any]], judged: str, details: Sequence[str]
) -> str:
    """How a prediction stands beside another.

    Args:
        other: what it is compared with.
        rows: the comparisons, of each score one.
        judged: the score by which it is better or worse.
        details: the differences, in words.
    """
    if all(row["interval"][0] == row["interval"][1] == row["difference"] == 0 for row in rows):
        return f"the same as {other}"
    (row,) = (row for row in rows if row["metric"] == judged)
    value, (low, high) = row["difference"], row["interval"]
    word = "better than" if value < 0 else "worse than" if value > 0 else "as good as"
    chance = ", which may be chance" if low <= 0 <= high and value else ""
    return f"{word} {other} ({', '.join(details)}{chance})"


def _of_scores(analysis: Mapping[str, Any], choice: Mapping[str, Any] | None) -> Iterator[str]:
    members = len(analysis["members"])
    if choice:
        yield _chosen(choice)
    elif members > 1:
        yield f"This is the plain mean of all {members} members, among which nothing was chosen."
    else:
        yield "There is one member only, and nothing was chosen."
    best = analysis["chosen"] or (analysis["ensembles"] or analysis["members"])[-1]
    samples = plural(analysis["samples"], "other sample" if choice else "sample")
    has = f"its error is {score('error', best)} % and its log-loss {score('log_loss', best)}"
    stands = [
        beside(other, rows, _judged(choice), _differences(rows))
        for other, field in (
            beside_last(analysis),
            (f"the plain mean of all {members} members", "comparisons_with_mean"),
            ("the baseline", "comparisons_with_baseline"),
        )
        for rows in [analysis.get(field, ())]
        if {"error", "log_loss"} <= {row["metric"] for row in rows}
        if members > 1 or field == "comparisons_with_baseline"
    ]
    yield f"On {samples}, {has}{': ' if stands else ''}{listed(stands)}."
    yield cost(choice, members)


def _of_choice(choice: Mapping[str, Any]) -> Iterator[str]:
    yield _chosen(choice)
    best = choice["candidates"][-1]["scores"]
    low, high = choice["interval"]
    title = title_of(choice["metric"])
    than = f"its {title} is not told from that of the plain mean of all"
    if high < 0 or low > 0:
        than = (
            f"its {title} is {'lower' if high < 0 else 'higher'} than that of the plain mean of all"
        )
    if low == high == 0:
        than = f"its {title} is that of the plain mean of all"
    than = f", and {than}" if len(choice["members"]) > 1 else ""
    yield (
        f"There, on the data that it was chosen on, its error is {score('error', best)} % and its "
        f"log-loss {score('log_loss', best)}{than}; new data will show less of what it gains."
    )
    yield cost(choice, len(choice["members"]))


def _chosen(choice: Mapping[str, Any]) -> str:
    """What was chosen, by what, and on what."""
    heat, count = choice["temperature"], len(choice["members"])
    samples = plural(choice["samples"], "validation sample")
    at = f"a temperature of {heat:.3g}"
    if count == 1:
        what = f"{at} was fitted to it" if heat != 1 else "it was looked at"
        return f"There is one member only, and {what} on {samples}."
    least = "" if "reason" in choice else "the least "
    return (
        f"Of {count} members, {what_was_chosen(choice)} was chosen, for {least}"
        f"{title_of(choice['metric'])} on {samples}, "
        + (f"at {at}." if heat != 1 else "without a temperature.")
    )


def _judged(choice: Mapping[str, Any] | None) -> str:
    """By which score it is better or worse: that of the choice, if it was compared by it."""
    known = choice is not None and choice["metric"] in ("error", "log_loss", "brier")
    return choice["metric"] if choice is not None and known else "log_loss"


def _differences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """By how much errors are fewer or more, and the log-loss lower or higher."""
    by = {row["metric"]: row["difference"] for row in rows}
    error, loss = by["error"], by["log_loss"]
    told = [
        f"{number(abs(error), 100)} percentage points {'more' if error > 0 else 'fewer'} errors"
    ]
    if error == 0:
        told = ["as many errors"]
    told.append(f"a log-loss {number(abs(loss), digits=4)} {'higher' if loss > 0 else 'lower'}")
    if loss == 0:
        told[-1] = "the same log-loss"
    return told
