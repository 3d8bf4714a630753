"""The report's tables, as rows of texts; page.html draws them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Final

from ..core.errors import shown
from ..ensemble.results import SCORES
from ..ensemble.score.measures import title_of
from .words import (
    MINUS,
    OOD_SCORES,
    barrier,
    choice_of,
    last_title,
    listed,
    member_title,
    number,
    plural,
    regression_choice_of,
    row_of,
    scale_of,
    score,
    seeds_of,
    spread,
    what_was_chosen,
)

# What a prediction is compared with.
COMPARED: Final = (
    *("comparisons", "comparisons_with_last_calibrated"),
    *("comparisons_with_mean", "comparisons_with_baseline"),
)

_HEADINGS: Final = {"error": "Error, %", "log_loss": "Log-loss", "brier": "Brier", "ece": "ECE, %"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A table's row; `best` are the cells that are the best of their columns."""

    cells: Sequence[str]
    chosen: bool = False
    best: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table; `texts` are the columns that hold words, of which the first names the row."""

    title: str
    caption: str
    columns: Sequence[str]
    texts: Sequence[str]
    groups: Sequence[Sequence[Row]]


def tables_of(results: Mapping[str, Any]) -> Iterator[Table]:
    """The tables that a results document has the rows for; the comparison is of all seeds."""
    first = "The first seed. " if seeds_of(results) > 1 else ""
    for table in _tables_of_a_seed(results):
        yield replace(table, caption=first + table.caption)
    if (results.get("comparison") or {}).get("rows"):
        yield _comparison_table(results["comparison"])


def _tables_of_a_seed(results: Mapping[str, Any]) -> Iterator[Table]:
    analysis, choice = results.get("analysis"), choice_of(results)
    if "snapshots" in results:
        yield _snapshot_table(results["snapshots"], choice or regression_choice_of(results))
    if analysis:
        yield _member_table(analysis, choice)
        if any(analysis.get(name) for name in COMPARED):
            yield compared_table(analysis, choice, _HEADINGS, _signed)
    elif choice and "snapshots" not in results:
        yield Table(
            title="Members",
            caption="The members, oldest first, and the weight of each in the chosen ensemble.",
            columns=("#", "Member", "Weight"),
            texts=("Member",),
            groups=[
                [
                    Row(
                        cells=(str(i), member_title(member["name"]), _weight(member["weight"])),
                        chosen=member["weight"] > 0,
                    )
                    for i, member in enumerate(choice["members"], start=1)
                ]
            ],
        )
    if choice:
        yield _candidate_table(choice)
    if "uncertainty" in results:
        yield from _uncertainty_tables(results["uncertainty"])
    if analysis and "passes" in analysis:
        yield _passes_table(analysis)
    if "average" in results and results["average"]["refused"] is None:
        yield _average_table(results["average"])


def _weight(weight: float | None) -> str:
    return "" if weight is None else f"{weight:.3f}" if weight else "0"


def heading(name: str) -> str:
    """What a column of scores is called, with its unit."""
    title = title_of(name)
    percent = ", %" if scale_of(name)[0] == 100 else ""
    return _HEADINGS.get(name) or f"{title[:1].upper()}{title[1:]}{percent}"


def _member_table(analysis: Mapping[str, Any], choice: Mapping[str, Any] | None) -> Table:
    weights = [member["weight"] for member in choice["members"]] if choice else []
    more = [*analysis["members"][0].get("metrics", ())]

    def cells(name: str, number: str = "", weight: float | None = None) -> list[str]:
        return [number, name, *([_weight(weight)] if choice else [])]

    groups: list[list[tuple[list[str], Mapping[str, Any], bool]]] = [
        [
            (cells(member_title(member["name"]), str(i), weight), member, bool(weight))
            for i, (member, weight) in enumerate(zip_longest(analysis["members"], weights), 1)
        ],
        [(cells(f"Mean of the last {row['last']}"), row, False) for row in analysis["ensembles"]],
    ]
    if choice:
        name = f"Chosen: {what_was_chosen(choice)}"
        if choice["temperature"] != 1:
            name += f", temperature {choice['temperature']:.3g}"
        groups.insert(0, [(cells(name), analysis["chosen"], True)])
    if "last_calibrated" in analysis:
        groups.append([(cells(last_title(analysis)), analysis["last_calibrated"], False)])
    if "baseline" in analysis:
        groups.append([(cells("Baseline"), analysis["baseline"], False)])
    # The one by which it was chosen stands first, where a phone shows it.
    own = choice["metric"] if choice else None
    names = sorted([*SCORES, *more], key=lambda name: name != own)
    return Table(
        title="Members",
        caption=f"Scores on {plural(analysis['samples'], 'sample')}; the best of each column is "
        "bold."
        + (" Marked: what was chosen, with the weight of each member in it." if choice else ""),
        columns=["#", "Member or ensemble", *(["Weight"] if choice else []), *map(heading, names)],
        texts=("Member or ensemble",),
        groups=scored(groups, names),
    )


def scored(
    groups: Sequence[Sequence[tuple[Sequence[str], Mapping[str, Any], bool]]],
    names: Sequence[str] = SCORES,
) -> list[list[Row]]:
    """Rows of some cells and then the scores, of which the best are told."""
    groups = [
        [(cells, {**row, **row.get("metrics", {})}, chosen) for cells, row, chosen in group]
        for group in groups
    ]
    every = [scores for group in groups for _, scores, _ in group]
    least = {
        name: min((row[name] for row in every if name in row), default=math.nan) for name in names
    }
    return [
        [
            Row(
                cells=[*cells, *(score(name, scores) for name in names)],
                chosen=chosen,
                best=frozenset(
                    len(cells) + i
                    for i, name in enumerate(names)
                    # As they are shown: one of two like numbers in bold would be a riddle.
                    if len(every) > 1
                    and name in scores
                    and score(name, scores) == score(name, least)
                ),
            )
            for cells, scores, chosen in group
        ]
        for group in groups
    ]


def compared_table(
    part: Mapping[str, Any],
    choice: Mapping[str, Any] | None,
    titles: Mapping[str, str],
    signed: Callable[[str, float], str],
) -> Table:
    """How far the prediction is from the last member and from the plain mean, and how sure.

    Args:
        part: what `analyze` or `analyze_regression` returned.
        choice: what was chosen.
        titles: of the scores.
        signed: a difference of a score, with its sign.
    """
    who = "the choice" if choice else "the plain mean of all"
    groups = [
        [
            Row(
                cells=[
                    other,
                    titles[row["metric"]],
                    signed(row["metric"], row["difference"]),
                    " to ".join(signed(row["metric"], end) for end in row["interval"]),
                    f"{row['p_value']:.2g}",
                ]
            )
            for row in part.get(field, ())
        ]
        for other, field in (
            ("The last member alone", "comparisons"),
            (last_title(part), "comparisons_with_last_calibrated"),
            ("The plain mean of all", "comparisons_with_mean"),
            ("The baseline", "comparisons_with_baseline"),
        )
    ]
    level = 100 * next(row["level"] for name in COMPARED for row in part.get(name, ()))
    return Table(
        title="How much better or worse",
        caption=f"The score of {who} minus that of the other, on the same "
        f"{plural(part['samples'], 'sample')}: below 0 it is better. The interval is that of the "
        "paired bootstrap; p is how often chance alone gives so great a difference.",
        columns=["Compared with", "Score", "Difference", f"{level:.3g} % interval", "p"],
        texts=("Compared with",),
        groups=groups,
    )


def _signed(name: str, value: float) -> str:
    """A difference of a score, in the unit of its heading."""
    return ("+" if value > 0 else "") + number(value, *scale_of(name))


def _candidate_table(choice: Mapping[str, Any]) -> Table:
    candidates = choice["candidates"]
    metric = choice["metric"]
    samples = plural(choice["samples"], "validation sample")
    known = [*_HEADINGS, *(name for name in candidates[-1]["scores"] if name not in _HEADINGS)]
    names = [name for name in known if all(name in each["scores"] for each in candidates)]
    searched = {
        "auto": "The ways of choosing were compared by cross-validation within these data.",
        "last": "Each number m of the last members was tried, and the best one taken.",
        "greedy": "Members were added one after the other, with replacement, while it helped.",
        "weights": "The weights are those of the least log-loss"
        + (f", which they miss by {choice['gap']:.1g} at most." if choice["gap"] else "."),
    }
    return Table(
        title="What was considered",
        caption=f"Why this one: its {title_of(metric)} on {samples}, "
        f"the data of the choice. {searched[choice['select']]} "
        f"Less that of the plain mean of all it is {_signed(metric, choice['interval'][0])} to "
        f"{_signed(metric, choice['interval'][1])} there (95 % interval); below 0 it is better. "
        "The best of each column is bold.",
        columns=["Candidate", "Temperature", *map(heading, names)],
        texts=("Candidate",),
        groups=scored(
            [
                [
                    (
                        [name[:1].upper() + name[1:], heat or "none"],
                        each["scores"],
                        each is candidates[-1],
                    )
                    for each in (candidates[-1], *candidates[:-1])
                    for name, _, heat in [each["name"].partition(", temperature ")]
                ]
            ],
            names,
        ),
    )


def _snapshot_table(
    snapshots: Sequence[Mapping[str, Any]], choice: Mapping[str, Any] | None
) -> Table:
    weights = {member["name"]: member["weight"] for member in choice["members"]} if choice else {}
    others = any(each["name"] not in weights for each in snapshots)
    metrics = list(dict.fromkeys(name for each in snapshots for name in each["metrics"]))
    return Table(
        title="Snapshots",
        caption="The snapshots of the folder, oldest first, with the rate of the update before "
        "each and the metrics that were handed to the recorder."
        + (" Marked: those that were chosen, with their weights." if choice else "")
        + (" Those without a weight were no members." if choice and others else ""),
        columns=[
            *("#", "Snapshot", "Cycle", "Step", "Rate"),
            *(["Weight"] if choice else []),
            *metrics,
        ],
        texts=("Snapshot",),
        groups=[
            [
                Row(
                    cells=[
                        str(i),
                        member_title(each["name"]),
                        str(each["cycle"]),
                        f"{each['step']:,}",
                        _cell(each["rate"]),
                        # Those that were no members were not dropped by the choice.
                        *([_weight(weights.get(each["name"]))] if choice else []),
                        *(_cell(each["metrics"].get(name, "")) for name in metrics),
                    ],
                    chosen=weights.get(each["name"], 0) > 0,
                )
                for i, each in enumerate(snapshots, start=1)
            ]
        ],
    )


def _cell(value: object) -> str:
    """What a user put there, short."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", MINUS)
    text = value if isinstance(value, str) else shown(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _uncertainty_tables(part: Mapping[str, Any]) -> Iterator[Table]:
    """How sure the prediction is; the sets of classes; and what is told from elsewhere."""
    rows = part["selective"]["rows"]
    yield Table(
        title="How sure it is",
        caption=f"On {plural(part['samples'], 'sample')}"
        + (
            ", of the prediction of all that are reported and of the last member alone."
            if len(rows) > 1
            else "."
        ),
        columns=["Measure", *["Prediction", "Last member"][: len(rows)], "What it says"],
        texts=("Measure", "What it says"),
        groups=[[Row(cells=cells) for cells in _measures(part)]],
    )
    if conformal := part.get("conformal"):
        alpha = conformal[0]["alpha"]
        yield Table(
            title="Sets of classes",
            caption="Sets that hold the true class in as many cases as promised, whatever the "
            f"model: calibrated on {plural(conformal[0]['labels'], 'label')} of other data. The "
            "ensemble was chosen on these too, which takes a little from the promise. The "
            "smaller the sets, the more they say.",
            columns=["Method", "Promised, %", "Held it, %", "Mean size"],
            texts=("Method",),
            groups=[
                [
                    Row(
                        cells=[
                            row["method"].upper(),
                            number(1 - alpha, 100, 1),
                            number(row["coverage"], 100),
                            number(row["size"]),
                        ]
                    )
                    for row in conformal
                ]
            ],
        )
    if ood := part.get("ood"):
        names = ("auroc", "aupr", "fpr95")
        best = [max(row["auroc"] for row in ood["rows"]), max(row["aupr"] for row in ood["rows"])]
        best.append(min(row["fpr95"] for row in ood["rows"]))
        yield Table(
            title="Out of distribution",
            caption="How well data from out of distribution "
            f"({plural(ood['samples'], 'sample')}) are told from those that are reported, by how "
            "unsure the prediction is. The areas are best at 100 %, and the false alarms, where 95 "
            "% are found, at 0. The best of each column is bold.",
            columns=["Told by the", "AUROC, %", "AUPR, %", "False alarms, %"],
            texts=("Told by the",),
            groups=[
                [
                    Row(
                        cells=[
                            OOD_SCORES.get(row["score"], row["score"]),
                            *(number(row[name], 100) for name in names),
                        ],
                        best=frozenset(
                            i
                            for i, name in enumerate(names, 1)
                            if number(row[name], 100) == number(best[i - 1], 100)
                        ),
                    )
                    for row in ood["rows"]
                ]
            ],
        )


def _measures(part: Mapping[str, Any]) -> Iterator[list[str]]:
    """The rows of what is known of the uncertainty, with what they say in plain words."""
    selective = part["selective"]
    rows = selective["rows"]
    last = [""] * (len(rows) - 1)
    if part["members"] > 1:
        yield [
            "Entropy, nats",
            number(part["entropy"], digits=4),
            *last,
            "How unsure it is on average; 0 is sure.",
        ]
        yield [
            "Expected entropy, nats",
            number(part["expected_entropy"], digits=4),
            *last,
            "The part that each member has by itself: noise in the data.",
        ]
        yield [
            "Mutual information, nats",
            number(part["mutual_information"], digits=4),
            *last,
            "The part by which the members differ: what the data leave open.",
        ]
        yield [
            "Variation ratio, %",
            number(part["variation_ratio"], 100),
            *last,
            "The share of members that vote against the class of the most votes.",
        ]
    told = (
        ("AURC, %", "aurc", "The mean error rate over all shares of the surest; 0 is best."),
        (
            f"Coverage at {100 * selective['risk']:.3g} % error, %",
            "coverage_at_risk",
            "How many can be predicted with at most so many errors.",
        ),
        (
            f"Error at {100 * selective['coverage']:.3g} % coverage, %",
            "risk_at_coverage",
            "What is wrong among the surest so many.",
        ),
    )
    for title, name, says in told:
        yield [title, *(number(row[name], 100) for row in rows), says]


def _passes_table(analysis: Mapping[str, Any]) -> Table:
    """The error against the passes, for several degrees of care."""
    rows = analysis["passes"]
    own = row_of(rows, analysis["choice"]["budget"])
    return Table(
        title="Fewer members a sample",
        caption="The error of classes whose samples leave early, on "
        f"{plural(analysis['samples'], 'sample')}: with a care of 0 after one member, with 1 when "
        "no other member can change the class. Marked: the budget that was chosen.",
        columns=("Care", "Members a sample", "Error, %"),
        texts=("Care",),
        groups=[
            [
                Row(
                    cells=(f"{row['care']:.2f}", number(row["passes"]), score("error", row)),
                    chosen=row is own,
                )
                for row in rows
            ]
        ],
    )


def _average_table(average: Mapping[str, Any]) -> Table:
    rows = [(["Mean of the weights"], average, False)]
    if average.get("ensemble"):
        rows.append((["Ensemble of the same members"], average["ensemble"], False))
    names = [member_title(name) for name in average["members"]]
    caption = f"One model whose weights are the mean of {listed(names)}, beside the ensemble of "
    caption += "their predictions."
    if "picked_on" in average:
        samples = plural(average["picked_on"], "validation sample")
        caption += f" Their number was picked on {samples}."
    if "allowed" in average:
        caption += (
            f" The highest barrier between them is {barrier(average['barrier'])}; by default "
        )
        caption += f"{average['allowed']:.3g} is allowed."
    elif average.get("barrier") is not None:
        caption += f" The highest barrier between them is {barrier(average['barrier'])}."
    return Table(
        title="Averaged weights",
        caption=caption,
        columns=["Model", *_HEADINGS.values()],
        texts=("Model",),
        groups=scored([rows]),
    )


def _comparison_table(comparison: Mapping[str, Any]) -> Table:
    rows, seeds = comparison["rows"], comparison["seeds"]
    columns = (("test_error", "Test error, %", 100, 2), ("test_nll", "Test log-loss", 1, 4))
    least = {name: min(row[name]["mean"] for row in rows) for name, *_ in columns}
    return Table(
        title=comparison.get("title", "Models compared"),
        caption=(f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "One seed")
        + "; the best of each column is bold."
        + (f" {comparison['note']}" if comparison.get("note") else ""),
        columns=["Model", *(heading for _, heading, _, _ in columns)],
        texts=("Model",),
        groups=[
            [
                Row(
                    cells=[
                        row["model"],
                        *(spread(row[name], scale, digits) for name, _, scale, digits in columns),
                    ],
                    best=frozenset(
                        i
                        for i, (name, _, *shown_as) in enumerate(columns, start=1)
                        if number(row[name]["mean"], *shown_as) == number(least[name], *shown_as)
                    ),
                )
                for row in rows
            ]
        ],
    )
