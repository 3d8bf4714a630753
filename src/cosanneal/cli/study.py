"""`cosanneal study`: whether cycles pay on a task of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import plural
from .console import needs_package, output_console, outside
from .report import check_page


def study(
    source: Annotated[
        Path,
        typer.Argument(
            help="A study's results document, which cosanneal.study.run writes.",
            metavar="RESULTS.JSON",
            show_default=False,
        ),
    ],
    page: Annotated[
        Path | None,
        typer.Option(
            help="Also write a page to this .html file, with its figure beside it.",
            show_default=False,
        ),
    ] = None,
    title: Annotated[
        str | None,
        typer.Option(help="The page's title; by default the document's.", show_default=False),
    ] = None,
) -> None:
    """Show whether cycles and their ensemble pay on one's own task.

    The same budget as one cosine and as cycles, over several seeds: error and
    log-loss on test data, the difference to one cosine with its own temperature,
    and how many forward passes a prediction takes.
    """
    with needs_package("Reading a study"):
        from ..study.document import read_study
        from ..study.page import caption, interval_of, row_title, write_page
        from ..study.verdict import picked, sentences, summarize
    from rich import box
    from rich.table import Table

    check_page(page)
    results = read_study(source)
    if title is not None:
        results["title"] = title
    rows, console = summarize(results), output_console()
    best = picked(rows)
    table = Table(
        box=box.SIMPLE_HEAD, caption=caption(results, rows), caption_justify="left", padding=(0, 1)
    )
    table.add_column("Model")
    for column in ("Error, %", "Log-loss", "95 % interval", "Passes"):
        table.add_column(column, justify="right", no_wrap=True)
    before = 1
    for row in rows:
        if row["cycles"] != before:
            table.add_section()
        before = row["cycles"]
        table.add_row(
            row_title(row),
            f"{100 * row['error']['mean']:.2f}",
            f"{row['log_loss']['mean']:.4f}",
            "" if before == 1 else interval_of(row["log_loss"], 4),
            f"{row['passes']:.1f}",
            style="bold" if row is best else None,
        )
    console.print(outside(results["title"], "bold"))
    console.print(table)
    for sentence in sentences(results):
        console.print(outside(sentence))
    if page is not None:
        figures = write_page(results, page)[1:]
        wrote = f"Wrote {page}, and {plural(len(figures) // 2, 'figure')} as PNG and SVG in "
        console.print(outside(f"{wrote}{figures[0].parent}"), soft_wrap=True)
