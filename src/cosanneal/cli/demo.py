"""`cosanneal demo`: a snapshot ensemble on real data, beside what else the budget could buy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..demo import Backend
from .console import output_console

if TYPE_CHECKING:
    from rich.progress import Progress


def demo(
    seeds: Annotated[
        int,
        typer.Option(min=1, help="How many seeds: each changes the split, weights and order."),
    ] = 5,
    backend: Annotated[
        Backend,
        typer.Option(help="The framework that trains."),
    ] = Backend.TORCH,
    out: Annotated[
        Path,
        typer.Option(help="The folder for results.json, figure.png and the snapshots."),
    ] = Path("cosanneal-demo"),
) -> None:
    """Train on real scans of digits and compare three ways to spend one budget.

    The paper's Single (the rate divided by 10 at 50 % and 75 %), one cosine
    cycle, and a cyclic run whose last snapshots form an ensemble; each of them
    for every seed, with the same number of updates. Nothing is downloaded, and
    nothing is tuned on the test scans.
    """
    # Imported here, so that other commands need neither a framework nor matplotlib.
    from ..demo.digits import TRAIN
    from ..demo.experiment import (
        Config,
        compare,
        count_updates,
        plan_runs,
        run_experiment,
        training_function,
        write_results,
    )
    from ..report.plots import plot_demo, save_figure

    train = training_function(backend)
    console = output_console()
    config = Config()
    updates = count_updates(config, TRAIN)
    runs = plan_runs(config, updates)
    console.print(
        f"{seeds} seed{'s' if seeds > 1 else ''} x {len(runs)} runs of {updates} updates, "
        f"in {escape(str(out))}"
    )
    with _progress() as bar:
        task = bar.add_task("starting", total=seeds * len(runs) * updates)

        def begin(seed: int, title: str) -> Any:
            bar.update(task, description=f"seed {seed + 1} of {seeds}: {title}")
            return lambda: bar.advance(task)

        results = run_experiment(
            train, backend=backend.value, seeds=seeds, out=out, config=config, progress=begin
        )
    write_results(results, out / "results.json")
    save_figure(plot_demo(results), out / "figure.png")

    samples = results["config"]["samples"]
    console.print(
        f"\nOn {samples['test']} test scans; {samples['train']} to train, "
        f"{samples['validation']} to validate."
    )
    _print_table(console, results["summary"], seeds)
    for sentence in compare(results):
        console.print(sentence)
    written = " and ".join(escape(str(out / name)) for name in ("results.json", "figure.png"))
    console.print(f"\nWritten: {written}", soft_wrap=True)


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
    spread = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    table = Table(box=box.SIMPLE_HEAD, caption=spread, caption_justify="left")
    table.add_column("Model")
    table.add_column("Test error, %", justify="right")
    table.add_column("Test log-loss", justify="right")
    best = {name: min(row[name]["mean"] for row in summary) for name in ("test_error", "test_nll")}
    for row in summary:
        table.add_row(
            row["model"],
            _cell(row["test_error"], best["test_error"], scale=100, digits=2),
            _cell(row["test_nll"], best["test_nll"], scale=1, digits=4),
        )
    console.print(table)


def _cell(score: dict[str, Any], best: float, *, scale: float, digits: int) -> str:
    text = f"{score['mean'] * scale:.{digits}f}"
    if score["std"] is not None:
        text += f" ± {score['std'] * scale:.{digits}f}"
    return f"[bold]{text}[/bold]" if score["mean"] == best else text
