"""What the report says of a regression: its tables, and its sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

from ..ensemble.score.regression import REGRESSION_TITLES
from .lead import beside, cost
from .tables import COMPARED, Row, Table, compared_table
from .words import (
    MINUS,
    beside_last,
    last_title,
    listed,
    member_title,
    plural,
    regression_choice_of,
    what_was_chosen,
)

_LEAST: Final = {
    "rmse": "RMSE",
    "mae": "MAE",
    "gaussian_nll": "Gaussian NLL",
    "pinball": "Pinball loss",
    "mse": "MSE",
    "crps": "CRPS",
}
_SHARES: Final = ("coverage", "calibration", "crossing")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of scores.

    Args:
        title: its heading.
        name: of the score.
        place: which of several numbers it is, of a coverage.
    """

    title: str
    name: str
    place: int | None = None

    def cell(self, row: Mapping[str, Any]) -> str:
        """The score of a row; nothing where it has none."""
        if self.name not in row:
            return ""
        value = row[self.name]
        if self.place is not None:
            value = value[self.place]
        return f"{100 * value:.2f}" if self.name in _SHARES else shown_number(value)


def regression_tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """The tables of a regression that a results document has the rows for."""
    part, choice = results.get("regression"), regression_choice_of(results)
    if part:
        yield _member_table(part, choice)
        if any(part.get(name) for name in COMPARED):
            yield compared_table(part, choice, _LEAST, lambda _, value: _signed(value))
    if choice:
        yield _candidate_table(choice)


def regression_paragraphs(results: Mapping[str, Any]) -> list[str]:
    """What the numbers of a regression say: what it is, what it is worth and costs; and more."""
    part, choice = results.get("regression"), regression_choice_of(results)
    if not part and not choice:
        return []
    return [" ".join(_sentences(part, choice)), " ".join(_spread(part, choice))]


def shown_number(value: float) -> str:
    """Four digits of a number."""
    return f"{value:.4g}".replace("-", MINUS)


def _signed(value: float) -> str:
    """Four digits of a difference, with its sign."""
    return f"{value:+.4g}".replace("-", MINUS)


def columns_of(part: Mapping[str, Any]) -> list[Column]:
    """The columns of the scores that a regression's rows have."""
    rows = [*part["members"], *part["ensembles"], *([part["chosen"]] if part["chosen"] else [])]
    levels = part["levels"] if part["quantiles"] is None else part["quantiles"]
    what = "Coverage at" if part["quantiles"] is None else "Below the quantile"
    found = [
        *(Column(title, name) for name, title in _LEAST.items()),
        *(Column(f"{what} {100 * p:.4g} %, %", "coverage", i) for i, p in enumerate(levels)),
        Column("Calibration error, %", "calibration"),
        Column("Crossing, %", "crossing"),
    ]
    return [each for each in found if any(each.name in row for row in rows)]


def _member_table(part: Mapping[str, Any], choice: Mapping[str, Any] | None) -> Table:
    columns = columns_of(part)
    weights = [member["weight"] for member in choice["members"]] if choice else []

    def weight(value: float | None) -> list[str]:
        return [] if not choice else ["" if value is None else f"{value:.3f}" if value else "0"]

    groups: list[list[tuple[list[str], Mapping[str, Any], bool]]] = [
        [
            ([str(i), member_title(member["name"]), *weight(each)], member, bool(each))
            for i, (member, each) in enumerate(zip_longest(part["members"], weights), 1)
        ],
        [
            (["", f"Mean of the last {row['last']}", *weight(None)], row, False)
            for row in part["ensembles"]
        ],
    ]
    if choice:
        name = f"Chosen: {what_was_chosen(choice)}{_fitted(choice)}"
        groups.insert(0, [(["", name, *weight(None)], part["chosen"], True)])
    if "last_calibrated" in part:
        groups.append([(["", last_title(part), *weight(None)], part["last_calibrated"], False)])
    if "baseline" in part:
        groups.append([(["", "Baseline", *weight(None)], part["baseline"], False)])
    caption = f"Scores on {plural(part['samples'], 'sample')}; the best of each column is bold."
    if choice:
        caption += " Marked: what was chosen, with the weight of each member in it."
    if any(each.title.startswith("Coverage") for each in columns):
        caption += " Coverage is the share of targets in the central interval of the normal."
    return Table(
        title="Members of the regression",
        caption=caption,
        columns=[
            "#",
            "Member or ensemble",
            *(["Weight"] if choice else []),
            *(each.title for each in columns),
        ],
        texts=("Member or ensemble",),
        groups=_rows(groups, columns),
    )


def _candidate_table(choice: Mapping[str, Any]) -> Table:
    candidates = choice["candidates"]
    names = list(dict.fromkeys(name for each in candidates for name in each["scores"]))
    columns = [Column(_LEAST.get(name, name), name) for name in names]
    told = REGRESSION_TITLES.get(choice["metric"], choice["metric"])
    return Table(
        title="What was considered",
        caption=f"Why this one: its {told} on {plural(choice['samples'], 'validation sample')}, "
        "the data of the choice. Less that of the plain mean of all it is "
        f"{_signed(choice['interval'][0])} to {_signed(choice['interval'][1])} there (95 % "
        "interval); below 0 it is better. The best of each column is bold.",
        columns=["Candidate", *(each.title for each in columns)],
        texts=("Candidate",),
        groups=_rows(
            [
                [
                    (
                        [each["name"][:1].upper() + each["name"][1:]],
                        each["scores"],
                        each is candidates[-1],
                    )
                    for each in (candidates[-1], *candidates[:-1])
                ]
            ],
            columns,
        ),
    )


def _rows(
    groups: Sequence[Sequence[tuple[list[str], Mapping[str, Any], bool]]],
    columns: Sequence[Column],
) -> list[list[Row]]:
    """Rows of some cells and then the scores, of which the best are told."""
    every = [scores for group in groups for _, scores, _ in group]
    least = {
        each.name: min(row[each.name] for row in every if each.name in row)
        for each in columns
        if each.place is None
    }
    return [
        [
            Row(
                cells=[*cells, *(each.cell(scores) for each in columns)],
                chosen=chosen,
                best=frozenset(
                    len(cells) + i
                    for i, each in enumerate(columns)
                    if len(every) > 1
                    and each.name in least
                    and each.name in scores
                    and each.cell(scores) == each.cell(least)
                ),
            )
            for cells, scores, chosen in group
        ]
        for group in groups
    ]


def _fitted(choice: Mapping[str, Any]) -> str:
    """What was fitted of the variance, in words."""
    if choice["noise"] is not None:
        noise = ", ".join(shown_number(each) for each in choice["noise"][:4])
        more = ", …" if len(choice["noise"]) > 4 else ""
        scale = (
            f"variance scale {choice['variance_scale']:.3g}, " if choice["variance_scale"] else ""
        )
        return f", {scale}noise {noise}{more}"
    if choice["variance_scale"] != 1:
        return f", variance scale {choice['variance_scale']:.3g}"
    return ""


def _sentences(part: Mapping[str, Any] | None, choice: Mapping[str, Any] | None) -> Iterator[str]:
    count = len((choice or part or {})["members"])
    if choice:
        told = REGRESSION_TITLES.get(choice["metric"], choice["metric"])
        samples = plural(choice["samples"], "validation sample")
        yield (
            f"Of {count} members of the regression, {what_was_chosen(choice)} was chosen, for the "
            f"least {told} on {samples}."
            if count > 1
            else f"There is one member of the regression only, looked at on {samples}."
        )
    elif count > 1:
        yield f"This is the plain mean of all {count} members, among which nothing was chosen."
    else:
        yield "There is one member of the regression only, and nothing was chosen."
    if part:
        best = part["chosen"] or (part["ensembles"] or part["members"])[-1]
        name = "rmse" if "rmse" in best else "pinball"
        samples = plural(part["samples"], "other sample" if choice else "sample")
        what = "RMSE" if name == "rmse" else "pinball loss"
        stands = [
            beside(other, rows, judged, _differences(rows, judged))
            for other, field in (
                beside_last(part),
                (f"the plain mean of all {count} members", "comparisons_with_mean"),
                ("the baseline", "comparisons_with_baseline"),
            )
            for rows in [part.get(field)]
            if rows and (count > 1 or field == "comparisons_with_baseline")
            for judged in [_judged(choice, rows)]
        ]
        told = f": {listed(stands)}" if stands else ""
        yield f"On {samples}, its {what} is {shown_number(best[name])}{told}."
    yield cost(choice, count)


def _judged(choice: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]]) -> str:
    """By which score it is better or worse: that of the choice, if it was compared by it."""
    known: list[str] = [row["metric"] for row in rows]
    own = choice["metric"] if choice else ""
    return own if own in known else known[0]


def _differences(rows: Sequence[Mapping[str, Any]], judged: str) -> list[str]:
    """By how much the score is lower or higher."""
    (row,) = (row for row in rows if row["metric"] == judged)
    title, value = REGRESSION_TITLES[judged], row["difference"]
    if value == 0:
        return [f"the same {title}"]
    return [f"a {title} {shown_number(abs(value))} {'higher' if value > 0 else 'lower'}"]


def _spread(part: Mapping[str, Any] | None, choice: Mapping[str, Any] | None) -> Iterator[str]:
    """What was fitted of its predictive variance, and what that is worth."""
    if choice and _fitted(choice):
        yield f"Its variance was fitted: {_fitted(choice).removeprefix(', ')}."
    if not part:
        return
    best = part["chosen"] or (part["ensembles"] or part["members"])[-1]
    if "gaussian_nll" in best:
        shares = ", ".join(
            f"{100 * share:.1f} % of targets in its intervals at {100 * level:.4g} %"
            for level, share in zip(part["levels"], best["coverage"], strict=True)
        )
        yield f"It has a Gaussian NLL of {shown_number(best['gaussian_nll'])}, and {shares}."
