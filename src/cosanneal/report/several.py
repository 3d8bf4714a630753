"""A page that sets several runs side by side: what each is, and what it is worth."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import CosannealError, shown
from ..core.schedule import Schedule
from ..ensemble.results import SCORES, check_results
from .page import check_page, render
from .rates import draw_rate
from .regression import columns_of
from .style import COLOURS, DASHES, Drawn, draw_curve, legend_below, new_panels, tidy, whole_steps
from .tables import Row, Table, heading, scored
from .words import (
    choice_of,
    last_title,
    listed,
    member_title,
    plural,
    regression_choice_of,
    score,
    what_was_chosen,
)

Runs = Mapping[str, Mapping[str, Any]]


def write_comparison(
    results: Mapping[str, Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
) -> list[Path]:
    """Write a page that sets several results documents side by side, and its figure beside it.

    It shows what each run was and what was chosen of it, the scores of what it predicts beside
    those of its last snapshot alone, and the schedules in one figure. No score is in bold where
    they are of so many different samples: of which data they are, a document does not say, and
    the page says so.

    Args:
        results: the documents by the names of their runs, in the order of the page's rows; as
            `cosanneal.ensemble.results` describes them.
        path: the page; it must end in .html. It and the figure are written as by `write_report`.
        title: its heading; by default how many runs there are.

    Returns:
        The page, and then the figures.

    Raises:
        EnsembleError: no such document.
        CosannealError: fewer than two of them, another suffix, or a file that cannot be written.

    Example:
        >>> import tempfile
        >>> from cosanneal.ensemble import analyze
        >>> members = [[[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.7, 0.3]]]
        >>> results = {"format": "cosanneal.results", "version": 1, "title": "Two members"}
        >>> runs = {name: {**results, "analysis": analyze(members, [0, 1])} for name in "ab"}
        >>> [file.name for file in write_comparison(runs, Path(tempfile.mkdtemp()) / "runs.html")]
        ['runs.html']
    """
    path = check_page(path)
    if len(results) < 2:
        raise CosannealError(
            "Argument `results` must hold at least two documents to be set side by side. "
            f"Received: {shown(list(results))}; write_report makes a page of one"
        )
    runs = {name: check_results(document) for name, document in results.items()}
    return render(
        path,
        title=title or f"{len(runs)} runs side by side",
        lead=[_lead(runs)],
        tables=[*_tables(runs)],
        drawn=[*_drawn(runs)],
    )


def _lead(runs: Runs) -> str:
    """Which is best, as far as that can be told."""
    told = f"{len(runs)} runs side by side: {listed(list(runs))}. "
    rows = {name: _predicted(run["analysis"]) for name, run in runs.items() if run.get("analysis")}
    if not rows:
        if any(run.get("regression") for run in runs.values()):
            return told + "They are compared by their tables."
        return told + (
            "None was scored on data that nothing was chosen by; give what cosanneal evaluate "
            "--json prints for such data."
        )
    samples = {runs[name]["analysis"]["samples"] for name in rows}
    if len(rows) == 1:
        return told + f"Only {next(iter(rows))} was scored on data that nothing was chosen by."
    if len(samples) > 1:
        counts = listed([f"{count:,}" for count in sorted(samples)])
        return told + (
            f"They were scored on different data, of {counts} samples, so that their scores do not "
            "say which is better."
        )
    best = []
    for name, what in (("log_loss", "the least log-loss"), ("error", "the fewest errors")):
        # As they are shown: of two like numbers neither is the better.
        least = score(name, min(rows.values(), key=lambda row: float(row[name])))
        have = [run for run, row in rows.items() if score(name, row) == least]
        unit = " %" if name == "error" else ""
        best.append(f"{listed(have)} {'has' if len(have) == 1 else 'have'} {what} ({least}{unit})")
    few = "" if len(rows) == len(runs) else f"Of {len(rows)} that were scored, "
    return told + (
        f"{few}{listed(best)}, on {plural(samples.pop(), 'sample')} each. That tells them apart "
        "only if the samples are the same, which the documents do not say, and by more than chance "
        "only if it holds for other seeds."
    )


def _predicted(analysis: Mapping[str, Any]) -> Mapping[str, Any]:
    """The scores of what a run predicts: what was chosen, or the mean of all."""
    found: Mapping[str, Any] = (
        analysis["chosen"] or (analysis["ensembles"] or analysis["members"])[-1]
    )
    return found


def _what(part: Mapping[str, Any], choice: Mapping[str, Any] | None) -> str:
    """What it is that a run predicts."""
    if choice is not None:
        told = what_was_chosen(choice)
        if choice["temperature"] != 1:
            told += f", temperature {choice['temperature']:.3g}"
        return told[:1].upper() + told[1:]
    count = len(part["members"])
    return f"The mean of all {count}" if count > 1 else "The only member"


def _tables(runs: Runs) -> Iterator[Table]:
    yield _run_table(runs)
    parts = {name: run["analysis"] for name, run in runs.items() if run.get("analysis")}
    if parts:
        yield _score_table(runs, parts)
    known = {
        name: choice
        for name, run in runs.items()
        if name not in parts and (choice := choice_of(run)) is not None
    }
    if known:
        yield _choice_table(known)
    regressions = {name: run["regression"] for name, run in runs.items() if run.get("regression")}
    if regressions:
        yield _regression_table(runs, regressions)
    said = {name: run["snapshots"][-1] for name, run in runs.items() if run.get("snapshots")}
    metrics = dict.fromkeys(name for each in said.values() for name in each["metrics"])
    if metrics:
        yield _metric_table(said, list(metrics))


def _run_table(runs: Runs) -> Table:
    rows = []
    for name, run in runs.items():
        training, choice = run.get("run") or {}, choice_of(run) or regression_choice_of(run)
        part = run.get("analysis") or run.get("regression") or choice or {}
        members = len(part.get("members", run.get("snapshots", ())))
        updates = training.get("updates", len(training.get("rate") or ()) or None)
        used = members
        if choice is not None:
            used = sum(member["weight"] > 0 for member in choice["members"])
        cells = (
            name,
            "" if updates is None else f"{updates:,}",
            str(len(training["cycle_ends"])) if training else "",
            str(members or ""),
            "" if choice is None else _what(part, choice),
            str(used or ""),
        )
        rows.append(Row(cells=cells))
    return Table(
        title="Runs",
        caption="What each was trained for, and what predicts. A prediction takes so many passes "
        "of the model.",
        columns=("Run", "Updates", "Snapshots", "Members", "Chosen", "Passes"),
        texts=("Run", "Chosen"),
        groups=[rows],
    )


def _score_table(runs: Runs, parts: Runs) -> Table:
    predicted = [
        (
            (name, _what(part, choice_of(runs[name])), f"{part['samples']:,}"),
            _predicted(part),
            False,
        )
        for name, part in parts.items()
    ]
    last = [
        (
            (name, last_title(part), f"{part['samples']:,}"),
            part.get("last_calibrated", part["members"][-1]),
            False,
        )
        for name, part in parts.items()
        if len(part["members"]) > 1
    ]
    groups = scored([each for each in (predicted, last) if each], SCORES)
    alike = len({part["samples"] for part in parts.values()}) == 1
    if not alike:
        groups = [[replace(row, best=frozenset()) for row in group] for group in groups]
    return Table(
        title="Scores",
        caption="On data that nothing was chosen by. "
        + (
            "The best of each column is bold; compare it only where the samples are the same."
            if alike
            else "They are of different data: compare those of one run with each other."
        ),
        columns=("Run", "What predicts", "Samples", *map(heading, SCORES)),
        texts=("Run", "What predicts"),
        groups=groups,
    )


def _choice_table(choices: Runs) -> Table:
    rows = []
    for name, choice in choices.items():
        found = choice["candidates"][-1]["scores"]
        scores = [score(each, found) for each in ("error", "log_loss", "brier")]
        rows.append(Row(cells=(name, _what({}, choice), f"{choice['samples']:,}", *scores)))
    return Table(
        title="Scores where it was chosen",
        caption="On the validation data that each was chosen on: new data will show less of what "
        "it gains.",
        columns=(
            *("Run", "Chosen", "Samples"),
            *map(heading, ("error", "log_loss", "brier")),
        ),
        texts=("Run", "Chosen"),
        groups=[rows],
    )


def _regression_table(runs: Runs, parts: Runs) -> Table:
    columns = {column.title: column for part in parts.values() for column in columns_of(part)}
    rows = []
    for name, part in parts.items():
        own = {column.title: column for column in columns_of(part)}
        row = _predicted(part)
        cells = [own[each].cell(row) if each in own else "" for each in columns]
        what = _what(part, regression_choice_of(runs[name]))
        rows.append(Row(cells=(name, what, f"{part['samples']:,}", *cells)))
    return Table(
        title="Scores of regressions",
        caption="On data that nothing was chosen by; compare them only where the samples are the "
        "same.",
        columns=("Run", "What predicts", "Samples", *columns),
        texts=("Run", "What predicts"),
        groups=[rows],
    )


def _metric_table(said: Runs, names: Sequence[str]) -> Table:
    def cell(value: object) -> str:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return f"{value:.4g}" if number else "" if value is None else str(value)

    return Table(
        title="What was recorded with the last snapshot",
        caption="The metrics that each run gave its newest snapshot.",
        columns=("Run", "Snapshot", "Step", *names),
        texts=("Run", "Snapshot"),
        groups=[
            [
                Row(
                    cells=(
                        *(name, member_title(last["name"]), f"{last['step']:,}"),
                        *(cell(last["metrics"].get(each)) for each in names),
                    )
                )
                for name, last in said.items()
            ]
        ],
    )


def _drawn(runs: Runs) -> Iterator[Drawn]:
    """The schedules of the runs that have one, over each other."""
    trained = {name: run["run"] for name, run in runs.items() if run.get("run")}
    if not trained:
        return
    figure, (axes,) = new_panels(2.6, legend=0.2 + 0.2 * len(trained))
    for i, (name, run) in enumerate(trained.items()):
        style: dict[str, Any] = {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": DASHES[i % len(DASHES)],
            # Earlier ones are broader, so that they show under later ones that lie on them.
            "linewidth": max(3.2 - 0.8 * i, 1.2),
            "label": name.replace("$", r"\$"),
        }
        if run.get("schedule") is not None:
            draw_rate(axes, Schedule.from_dict(run["schedule"]), run["updates"], **style)
        else:
            draw_curve(axes, run["rate"], style)
    axes.set_ylabel("learning rate")
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(whole_steps())
    tidy(axes)
    legend_below(figure, axes.get_legend_handles_labels()[0], columns=1)
    yield Drawn(
        name="schedules",
        title="Schedules",
        alt=f"The learning rates of {len(trained)} runs against the step.",
        caption="The learning rate of each run, of its own updates.",
        figure=figure,
    )
