"""`cosanneal report`: what a folder of snapshots, or a results document, tells, as a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.errors import CosannealError, EnsembleError, plural
from ..core.paths import kind_of, local_path
from .console import needs_package, output_console, outside, print_note


def report(
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder of snapshots, or a results document such as the demo's results.json.",
            metavar="FOLDER|RESULTS.JSON",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The page to write, an .html file.")
    ] = Path("report.html"),
    title: Annotated[
        str | None,
        typer.Option(help="The page's title; by default the document's.", show_default=False),
    ] = None,
) -> None:
    """Write a page of figures and tables: what was chosen, why, and what it is worth.

    One HTML file that needs nothing else, for light and dark and for a phone;
    and its figures as PNG and SVG, in the folder NAME_files beside it. Of a
    folder it shows the schedule, the metrics and the choice that was saved there;
    one that was made among other snapshots is left out, and said to be.
    """
    with needs_package("Reading snapshots"):
        from ..ensemble import read_results
    path = local_path(source)
    kind = kind_of(path)
    if kind is None:
        raise CosannealError(
            "Argument FOLDER|RESULTS.JSON must be a folder of snapshots or a results document. "
            f"Received: {source}, which does not exist"
        )
    results = _of_folder(path) if kind == "folder" else read_results(source)
    if title is not None:
        results["title"] = title
    output_console().print(outside(write_page(results, out)), soft_wrap=True)


def _of_folder(folder: Path) -> dict[str, Any]:
    """What a folder says of its run; without its choice, and a note, where that cannot be taken."""
    from ..ensemble import folder_results
    from ..ensemble.results import check_results

    try:
        return check_results(folder_results(folder))
    except EnsembleError as error:
        print_note(f"Note: The page is without the choice that was saved in the folder. {error}")
        return folder_results(folder, choice=False)


def write_page(results: Mapping[str, Any], page: Path) -> str:
    """Write the page; returns what to say of it."""
    from ..report import write_report

    figures = write_report(results, page)[1:]
    wrote = f"Wrote {page}"
    if figures:
        wrote += (
            f", and {plural(len(figures) // 2, 'figure')} as PNG and SVG in {figures[0].parent}"
        )
    return wrote
