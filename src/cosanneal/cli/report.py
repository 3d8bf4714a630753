"""`cosanneal report`: what a folder of snapshots, or a results document, tells, as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.documents import read_document
from ..core.errors import CosannealError, EnsembleError, plural, shown
from ..core.paths import kind_of, local_path, url_of
from .console import needs_package, output_console, outside, print_note


def report(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="A folder of snapshots, here or at a URL, or a results document such as the "
            "demo's results.json, or what evaluate --json prints; of several, a page that sets "
            "them side by side.",
            metavar="FOLDER|RESULTS.JSON...",
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
    one that was made among other snapshots is left out, and said to be. Of several
    sources it shows what differs: the schedules, what was chosen, and the scores.
    """
    named = _named(sources)
    check_page(out)
    found = {name: _read(source) for name, source in named.items()}
    if len(found) > 1:
        from ..report import write_comparison

        written = write_comparison(found, out, title=title)
    else:
        (results,) = found.values()
        if title is not None:
            results["title"] = title
        from ..report import write_report

        written = write_report(results, out)
    output_console().print(outside(_wrote(written)), soft_wrap=True)


def _named(sources: Sequence[str]) -> dict[str, str]:
    """The sources by their names, which are as they were given, without a slash at the end."""
    named = {each.rstrip("/") or each: each for each in sources}
    if len(named) < len(sources):
        raise CosannealError(
            f"Argument FOLDER|RESULTS.JSON must name each source once. Received: {shown(sources)}"
        )
    return named


def _read(source: str) -> dict[str, Any]:
    """The document of a source."""
    with needs_package("Reading snapshots"):
        from ..ensemble import read_results
    url = url_of(source)
    if url is not None:
        if url.endswith((".json", ".safetensors")):
            raise CosannealError(
                "Argument FOLDER|RESULTS.JSON must be a local file, or the URL of a folder of "
                f"snapshots. Received: {source}, the URL of a file; copy the file here first"
            )
        return _of_folder(url)
    path = local_path(source)
    kind = kind_of(path)
    if kind is None:
        raise CosannealError(
            "Argument FOLDER|RESULTS.JSON must be a folder of snapshots or a results document. "
            f"Received: {source}, which does not exist"
        )
    if kind == "folder":
        return _of_folder(path)
    found = read_document(path, error=EnsembleError)
    # What evaluate --json prints is the part of a document that it has.
    if isinstance(found, dict) and "format" not in found and {"members", "samples"} <= {*found}:
        from ..ensemble.results import check_results

        try:
            return check_results(document_of(found))
        except (EnsembleError, TypeError) as error:
            raise CosannealError(f"{path} could not be read: {error}") from error
    return read_results(path)


def document_of(analysis: Mapping[str, Any]) -> dict[str, Any]:
    """The results document of what `cosanneal evaluate` found."""
    from ..ensemble.results import FORMAT, VERSION

    title = "Predictions"
    if isinstance(analysis["samples"], int) and isinstance(analysis["members"], list):
        samples = plural(analysis["samples"], "sample", ",")
        title = f"{plural(len(analysis['members']), 'member')} on {samples}"
    part = "regression" if "outputs" in analysis else "analysis"
    parts = {part: {**analysis}}
    if "uncertainty" in analysis:
        parts["uncertainty"] = parts[part].pop("uncertainty")
    return {"format": FORMAT, "version": VERSION, "title": title, **parts}


def _of_folder(folder: str | Path) -> dict[str, Any]:
    """What a folder says of its run; without its choice, and a note, where that cannot be taken."""
    from ..ensemble import folder_results
    from ..ensemble.results import check_results

    try:
        return check_results(folder_results(folder))
    except EnsembleError as error:
        print_note(f"Note: The page is without the choice that was saved in the folder. {error}")
        return folder_results(folder, choice=False)


def check_page(page: Path | None) -> None:
    """Refuse a page that could not be written, before anything is read or computed for it.

    Raises:
        CosannealError: it has another suffix.
        MissingExtraError: matplotlib or Jinja2 is not installed.
    """
    if page is not None:
        from ..report.page import check_page

        check_page(page)


def write_page(results: Mapping[str, Any], page: Path) -> str:
    """Write the page; returns what to say of it."""
    from ..report import write_report

    return _wrote(write_report(results, page))


def _wrote(files: Sequence[Path]) -> str:
    """What to say of a page and its figures."""
    page, *figures = files
    wrote = f"Wrote {page}"
    if figures:
        wrote += (
            f", and {plural(len(figures) // 2, 'figure')} as PNG and SVG in {figures[0].parent}"
        )
    return wrote
