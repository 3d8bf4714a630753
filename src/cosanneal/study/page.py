"""The study's page: the answer, a table and a figure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .document import check_study
from .verdict import picked, sentences, summarize

_WAYS: Final = {"fitted": "fitted", "mean": "plain mean", "last": "last alone"}


def row_title(row: Mapping[str, Any]) -> str:
    """What a row of `summarize` is called."""
    if row["cycles"] == 1:
        return "One cosine, temperature"
    return f"{row['cycles']} cycles: {_WAYS[row['way']]}"


def caption(results: Mapping[str, Any], rows: list[dict[str, Any]]) -> str:
    """What the numbers of the table are."""
    seeds = sorted({row["seeds"] for row in rows})
    of = " to ".join(str(each) for each in dict.fromkeys((seeds[0], seeds[-1])))
    word = "seed" if seeds[-1] == 1 else "seeds"
    return (
        f"{results['updates']:,} updates each. Means over {of} {word}; the difference is that of "
        "the log-loss to one cosine with its temperature, seed by seed (fitted ensembles and last "
        "snapshots have one too)"
        + (", with its 95 % interval." if seeds[-1] > 1 else "; one seed has no interval.")
    )


def interval_of(score: Mapping[str, Any], digits: int) -> str:
    """A difference's interval, as text."""
    if score["interval"] is None:
        return "none"
    low, high = (f"{each:+.{digits}f}".replace("-", "\N{MINUS SIGN}") for each in score["interval"])
    return f"{low} to {high}"


def write_page(results: Mapping[str, Any], path: str | os.PathLike[str]) -> list[Path]:
    """Write a page that says whether it pays, with a table and a figure, as `write_report` does.

    Args:
        results: the document, as `read_study` gives it.
        path: the page; it must end in .html.

    Returns:
        The page, and then the figure as PNG and SVG.

    Raises:
        StudyError: no such document, or nothing to compare in it.
        CosannealError: another suffix, or a file that cannot be written.
        MissingExtraError: matplotlib or Jinja2 is not installed.

    Example: see `run`.
    """
    from ..report.page import render
    from ..report.study import draw_costs
    from ..report.tables import Row, Table
    from ..report.words import number

    results = check_study(results)
    rows = summarize(results)
    best = picked(rows)
    least = {name: min(row[name]["mean"] for row in rows) for name in ("error", "log_loss")}
    groups = []
    for cycles in dict.fromkeys(row["cycles"] for row in rows):
        groups.append(
            [
                Row(
                    cells=[
                        row_title(row),
                        number(row["error"]["mean"], 100),
                        number(row["log_loss"]["mean"], digits=4),
                        "" if cycles == 1 else number(row["log_loss"]["difference"], digits=4),
                        "" if cycles == 1 else interval_of(row["log_loss"], 4),
                        number(row["passes"], digits=1),
                    ],
                    chosen=row is best,
                    best=frozenset(
                        i
                        for i, name, digits in ((1, "error", 4), (2, "log_loss", 4))
                        if round(row[name]["mean"], digits) == round(least[name], digits)
                    ),
                )
                for row in rows
                if row["cycles"] == cycles
            ]
        )
    table = Table(
        title="One budget, as one cosine and as cycles",
        caption=f"{caption(results, rows)} Marked is the number of cycles that is best on the "
        "validation data; the best of a column is bold.",
        columns=["Model", "Error, %", "Log-loss", "Difference", "95 % interval", "Forward passes"],
        texts=("Model",),
        groups=groups,
    )
    return render(
        path,
        title=results["title"],
        lead=sentences(results),
        tables=[table],
        drawn=[draw_costs(rows)],
    )
