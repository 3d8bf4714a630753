"""What `cosanneal evaluate` prints of predictions of classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..core.errors import plural
from .console import outside, print_findings
from .uncertainty import show_uncertainty

# Of each score its heading, what it is multiplied by, and its digits.
_COLUMNS = {
    "error": ("Error, %", 100, 2),
    "log_loss": ("Log-loss", 1, 4),
    "brier": ("Brier", 1, 4),
    "ece": ("ECE, %", 100, 2),
}


def show_scores(console: Console, document: dict[str, Any]) -> None:
    """Print the scores of classes as a table, and what they say."""
    members, ensembles = document["members"], document["ensembles"]
    # What the choice was made by has a column too.
    more = {name: (name, 1, 4) for name in members[0].get("metrics", ())}
    columns = {**_COLUMNS, **more}
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("Model", overflow="fold")
    for heading, _, _ in columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    others = (document.get("last_calibrated"), document.get("baseline"))
    scored = [*members, *ensembles, document["chosen"], *others]
    scored = [row for row in scored if row]
    scored = [{**row, **row.get("metrics", {})} for row in scored]
    least = {name: min(row[name] for row in scored) for name in columns}

    def add(title: str, row: dict[str, Any], *, end: bool) -> None:
        row = {**row, **row.get("metrics", {})}
        cells = [
            Text(
                f"{row[name] * scale:.{digits}f}", style="bold" if row[name] == least[name] else ""
            )
            for name, (_, scale, digits) in columns.items()
        ]
        table.add_row(outside(title), *cells, end_section=end)

    for i, row in enumerate(members):
        add(row["name"], row, end=i == len(members) - 1)
    for i, row in enumerate(ensembles):
        add(f"Mean of the last {row['last']}", row, end=i == len(ensembles) - 1)
    if document["chosen"]:
        add(_title(document["choice"]), document["chosen"], end=True)
    if "last_calibrated" in document:
        heat = document["choice"]["last_alone"]["temperature"]
        add(f"The last alone, T {heat:.3g}", document["last_calibrated"], end=True)
    if "baseline" in document:
        add("Baseline", document["baseline"], end=True)
    console.print(f"{plural(document['samples'], 'sample')}, {plural(len(members), 'member')}.")
    console.print(table)
    for sentence in _sentences(document):
        console.print(outside(sentence))
    print_findings(console, document["findings"])
    show_uncertainty(console, document["uncertainty"])


def _title(choice: dict[str, Any]) -> str:
    used = [member for member in choice["members"] if member["weight"] > 0]
    names = {
        "auto": f"auto, {len(used)} of {len(choice['members'])}",
        "last": f"the last {len(used)}",
        "greedy": f"greedily, {len(used)} of {len(choice['members'])}",
        "weights": f"weights, {len(used)} of {len(choice['members'])}",
    }
    title = f"Chosen: {names[choice['select']]}"
    return title if choice["temperature"] == 1 else f"{title}, T {choice['temperature']:.3g}"


def _sentences(document: dict[str, Any]) -> list[str]:
    from ..ensemble.score.measures import title_of

    sentences: list[str] = []
    choice = document["choice"]
    if choice:
        used = [member for member in choice["members"] if member["weight"] > 0]
        what = ", ".join(f"{member['name']} {member['weight']:.3f}" for member in used)
        sentences.append(
            f"Chosen by {title_of(choice['metric'])} on "
            f"{plural(choice['samples'], 'other sample')}: {what}."
        )
        if "reason" in choice:
            sentences.append(f"Why: {choice['reason']}")
    elif document["ensembles"]:
        sentences.append(
            "Nothing was chosen: that takes --validation-predictions and --validation-labels."
        )
    if choice and "budget" in choice:
        budget = choice["budget"]
        own, exact = (
            next(row for row in document["passes"] if row["care"] == care)
            for care in (budget["care"], 1.0)
        )
        sentences.append(
            f"With a budget of {budget['asked']:g} members a sample: {own['passes']:.2f} and "
            f"{100 * own['error']:.2f} % errors, beside {exact['passes']:.2f} and "
            f"{100 * exact['error']:.2f} % for exact classes."
        )
    for told, rows in comparisons(document):
        sentences.append(told)
        for row in rows:
            heading, scale, digits = _COLUMNS[row["metric"]]
            difference, low, high = (
                f"{scale * value:+.{digits}f}" for value in (row["difference"], *row["interval"])
            )
            sentences.append(
                f"  {heading:9}{difference:>8}   {low:>8} to {high:>7}   p = {row['p_value']:.2g}"
            )
    return sentences


def comparisons(document: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """What the choice, or the mean of all, is beside: a sentence, and a row for each score."""
    fitted = "variance" if "outputs" in document else "temperature"
    subject = "The choice" if document["choice"] else "The mean of all"
    for field, other in (
        ("comparisons", "the last member"),
        ("comparisons_with_last_calibrated", f"the last member with its own {fitted}"),
        ("comparisons_with_baseline", "the baseline"),
    ):
        if rows := document.get(field):
            yield f"{subject} minus {other}, with the 95 % interval:", rows
