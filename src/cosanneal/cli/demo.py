"""`cosanneal demo`: a snapshot ensemble on real data, beside what else the budget could buy."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from ..core.paths import local_path
from ..demo import Backend
from .console import output_console, outside

if TYPE_CHECKING:
    from rich.progress import Progress


class Study(StrEnum):
    """What can be studied besides."""

    BUDGET = "budget"


def demo(
    seeds: Annotated[
        int, typer.Option(min=1, help="How many seeds: each changes the split, weights and order.")
    ] = 5,
    backend: Annotated[Backend, typer.Option(help="The framework that trains.")] = Backend.TORCH,
    out: Annotated[
        Path, typer.Option(help="The folder for results.json, the figures and the snapshots.")
    ] = Path("cosanneal-demo"),
    study: Annotated[
        Study | None,
        typer.Option(help="Also cut the same budget into 1 to 10 cycles; 2 to 3 times as long."),
    ] = None,
) -> None:
    """Train on real scans of digits and compare what one budget can buy.

    The paper's Single (the rate divided by 10 at 50 % and 75 %) and the
    ensemble of its snapshots, one cosine cycle, several short runs, and a
    cyclic run whose snapshots form an ensemble, chosen and calibrated on
    validation scans; each of them for every seed, with the same number of
    updates. Nothing is downloaded, and nothing is tuned on the test scans.
    """
    # Imported here, so that other commands need neither a framework nor matplotlib.
    from ..demo.digits import TRAIN
    from ..demo.document import compare, document
    from ..demo.experiment import (
        STUDY_CYCLES,
        Config,
        count_updates,
        plan_runs,
        run_experiment,
        training_function,
    )
    from ..ensemble import write_results
    from ..report import plot_demo, save_figure
    from ..report.demo import draw_study

    local_path(out)  # which refuses a URL
    train = training_function(backend)
    console = output_console()
    config = Config()
    updates = count_updates(config, TRAIN)
    cycles = () if study is None else STUDY_CYCLES
    runs = len(plan_runs(config, updates)) + len(set(cycles) - {config.num_cycles})
    console.print(
        outside(
            f"{seeds} seed{'s' if seeds > 1 else ''} x {runs} runs of {updates} updates, in {out}"
        )
    )
    with _progress() as bar:
        task = bar.add_task("starting", total=seeds * runs * updates)

        def begin(seed: int, title: str) -> Any:
            bar.update(task, description=f"seed {seed + 1} of {seeds}: {title}")
            return lambda: bar.advance(task)

        outcome = run_experiment(
            train,
            backend=backend.value,
            seeds=seeds,
            out=out,
            config=config,
            progress=begin,
            study=cycles,
        )
        bar.update(task, description="measuring")
        found = document(outcome)
    results = found["demo"]
    write_results(found, out / "results.json")
    written = ["results.json", "figure.png"]
    save_figure(plot_demo(results), out / "figure.png")
    if "study" in found:
        written.append("study.png")
        save_figure(draw_study(found["study"]).figure, out / "study.png")

    samples = results["config"]["samples"]
    console.print(
        f"\nOn {samples['test']} test scans; {samples['train']} to train, "
        f"{samples['validation']} to validate."
    )
    _print_table(console, results["summary"], seeds)
    for sentence in compare(results, results["summary"]):
        console.print(sentence)
    if "study" in found:
        _print_study(console, found["study"])
    names = [str(out / name) for name in written]
    listed = ", ".join(names[:-1])
    console.print()
    console.print(outside(f"Written: {listed} and {names[-1]}"), soft_wrap=True)


def _progress() -> Progress:
    from rich import progress

    # On stderr, so that what is piped is the table alone.
    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=None),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _print_table(console: Console, summary: list[dict[str, Any]], seeds: int) -> None:
    table = Table(box=box.SIMPLE_HEAD, caption=_caption(seeds), caption_justify="left")
    table.add_column("Model")
    table.add_column("Test error, %", justify="right")
    table.add_column("Test log-loss", justify="right")
    best = {name: min(row[name]["mean"] for row in summary) for name in ("test_error", "test_nll")}
    for row in summary:
        if row["key"] == 1:  # the cyclic run's, after its baselines
            table.add_section()
        table.add_row(
            row["model"],
            _cell(row["test_error"], best["test_error"], scale=100, digits=2),
            _cell(row["test_nll"], best["test_nll"], scale=1, digits=4),
        )
    console.print(table)


def _print_study(console: Console, study: dict[str, Any]) -> None:
    """Two short tables: six columns of means and deviations are more than 80 columns hold."""
    for name, title, scale, digits in (
        ("test_error", "test error, %", 100, 2),
        ("test_nll", "test log-loss", 1, 4),
    ):
        table = Table(
            box=box.SIMPLE_HEAD,
            title=f"{study['updates']} updates cut into cycles: {title}",
            title_justify="left",
            caption=_caption(study["seeds"]),
            caption_justify="left",
        )
        table.add_column("Cycles", justify="right")
        for column in ("Last snapshot", "All", "Last m by validation"):
            table.add_column(column, justify="right")
        ways = ("last", "all", "best")
        best = min(row[way][name]["mean"] for row in study["rows"] for way in ways)
        for row in study["rows"]:
            cells = (_cell(row[way][name], best, scale=scale, digits=digits) for way in ways)
            table.add_row(str(row["cycles"]), *cells)
        console.print(table)


def _caption(seeds: int) -> str:
    return f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"


def _cell(score: dict[str, Any], best: float, *, scale: float, digits: int) -> str:
    text = f"{score['mean'] * scale:.{digits}f}"
    if score["std"] is not None:
        text += f" ± {score['std'] * scale:.{digits}f}"
    alike = f"{score['mean'] * scale:.{digits}f}" == f"{best * scale:.{digits}f}"
    return f"[bold]{text}[/bold]" if alike else text
