"""The report page: one HTML file that needs nothing else, and its figures beside it.

Its template is page.html; what it says is in words.py and tables.py.
"""

from __future__ import annotations

import io
import os
import re
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..core.atomic import replacing
from ..core.errors import CosannealError, MissingExtraError
from ..core.paths import local_path
from ..core.version import __version__
from ..ensemble.results import check_results
from .figures import NAMES, draw_results
from .lead import found, lead
from .regression import regression_paragraphs, regression_tables
from .style import BLUE, COLOURS, GREEN, GREY, VERMILION, Drawn, save_figure
from .tables import Table, tables_of
from .words import figures_note, missing, of_first, paragraphs, seeds_of

try:
    import matplotlib
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup, escape
except ModuleNotFoundError as _error:
    if _error.name not in ("jinja2", "markupsafe"):
        raise
    raise MissingExtraError.for_extra(
        "plot", package=_error.name, needed_by="Writing a report"
    ) from _error

# A colour of the page in the light scheme and in the dark one. What the figures
# are drawn in is light's; in the page each stands for the scheme's own.
_COLOURS: Final = {
    "paper": ("#ffffff", "#16181c"),
    "ink": ("#000000", "#e6e6e6"),
    "soft": ("#555555", "#a9adb3"),
    "line": ("#dddddd", "#3a3e45"),
    "shade": ("#f3f4f6", "#22262c"),
    "mark": ("#fff3d6", "#3a3017"),
    "blue": (BLUE, "#5db7f0"),
    "vermilion": (VERMILION, "#ff9147"),
    "green": (GREEN, "#35cf9f"),
    "grey": (GREY, "#a0a4aa"),
    "pink": (COLOURS[3], "#e3a6ca"),
    "orange": (COLOURS[4], "#f2b63c"),
    "sky": (COLOURS[5], "#8ccdf5"),
}

# matplotlib has settings that only all threads can have together.
_SETTINGS: Final = threading.Lock()


def write_report(results: Mapping[str, Any], path: str | os.PathLike[str]) -> list[Path]:
    """Write a page that shows all that a results document tells, and its figures beside it.

    The page is one HTML file: it needs no network, no script and no other file,
    follows the reader's light or dark scheme, and can be read on a phone. The
    figures are also written as PNG and SVG, into the folder `NAME_files` beside
    `NAME.html`; those of an earlier report that this one does not have are
    removed from it. Every file is written whole or not at all, the page last.

    Args:
        results: the document, as `cosanneal.ensemble.results` describes it.
        path: the page; it must end in .html.

    Returns:
        The page, and then the figures.

    Raises:
        EnsembleError: no such document; the path of the bad field is named.
        CosannealError: a document without any part, another suffix, or a file
            that cannot be written.

    Example:
        >>> import tempfile
        >>> from cosanneal.ensemble import analyze
        >>> members = [[[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.7, 0.3]]]
        >>> results = {"format": "cosanneal.results", "version": 1, "title": "Two members"}
        >>> page = Path(tempfile.mkdtemp()) / "report.html"
        >>> written = write_report({**results, "analysis": analyze(members, [0, 1])}, page)
        >>> [file.name for file in written][:2]
        ['report.html', 'members.png']
    """
    path = check_page(path)
    results = check_results(results)
    seeds = seeds_of(results)
    first = of_first(lead(results), f"The first of {seeds} seeds", seeds)
    texts = [first, *regression_paragraphs(results), *paragraphs(results)]
    tables = [*tables_of(results), *regression_tables(results)]
    drawn = list(draw_results(results))
    if not tables and not drawn and not any(texts):
        raise CosannealError(
            "A results document must have something to report, such as the part 'analysis'. "
            f"Received: {', '.join(results)}"
        )
    return render(
        path,
        title=results["title"],
        lead=texts,
        found=found(results),
        tables=tables,
        drawn=drawn,
        note=figures_note({each.name: each.title for each in drawn}, seeds),
        missing=missing(results),
    )


def render(
    path: str | os.PathLike[str],
    *,
    title: str,
    lead: Sequence[str],
    tables: Sequence[Table],
    drawn: Sequence[Drawn],
    found: Sequence[str] = (),
    note: str = "",
    missing: str = "",
) -> list[Path]:
    """Write a page of paragraphs, tables and figures, and the figures beside it.

    Args:
        path: the page; it must end in .html.
        title: its heading.
        lead: its first paragraphs; empty ones are left out.
        tables: what stands below them.
        drawn: the figures.
        found: what was found unasked, as a list before the tables.
        note: what is said of all figures.
        missing: what the page could also show; what stands in backquotes is code.

    Returns:
        The page, and then the figures.

    Raises:
        CosannealError: another suffix, or a file that cannot be written.
    """
    path = check_page(path)
    folder = path.with_name(f"{path.stem}_files")
    svgs = {each.name: _svg(each) for each in drawn}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    page = environment.get_template("page.html").render(
        title=title,
        lead=lead,
        found=found,
        tables=tables,
        figures=[
            {
                "name": each.name,
                "title": each.title,
                "caption": each.caption,
                "svg": _inline(svgs[each.name], each),
            }
            for each in drawn
        ],
        note=note,
        # With what stands in backquotes as code.
        missing=Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(missing)))),  # noqa: S704
        colours=_COLOURS,
        folder=folder.name,
        version=__version__,
    )
    files = [folder / f"{each.name}.{kind}" for each in drawn for kind in ("png", "svg")]
    try:
        if drawn:
            folder.mkdir(exist_ok=True)
        known = [folder / f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")]
        for file in known if folder.is_dir() else ():
            if file not in files:
                file.unlink(missing_ok=True)
    except OSError as error:
        raise CosannealError(
            f"{folder} could not be made ready for figures: {error.strerror or error}"
        ) from error
    for each in drawn:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            save_figure(each.figure, folder / f"{each.name}.png")
        with replacing(folder / f"{each.name}.svg") as svg:
            svg.write(svgs[each.name].encode())
    with replacing(path) as html:
        html.write(page.encode(errors="replace"))
    return [path, *files]


def check_page(path: str | os.PathLike[str]) -> Path:
    """The page's path, which must end as one.

    Raises:
        CosannealError: another suffix, or no local path.
    """
    path = local_path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise CosannealError(f"A report's file must end in .html. Received: {str(path)!r}")
    return path


def _svg(drawn: Drawn) -> str:
    """The figure as SVG, in which text is text, the same for the same figure."""
    buffer = io.BytesIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": drawn.name}
    with _SETTINGS, matplotlib.rc_context(settings), warnings.catch_warnings():
        # A browser has glyphs that matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        drawn.figure.savefig(
            buffer, format="svg", dpi=200, metadata={"Date": None, "Title": drawn.title}
        )
    return buffer.getvalue().decode()


def _inline(svg: str, drawn: Drawn) -> Markup:
    """The SVG as a part of the page, in the colours of its scheme."""
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"<title>.*?</title>", "", svg, count=1, flags=re.DOTALL)
    head, _, rest = svg.partition(">")
    head = re.sub(r' (width|height|version|xmlns)="[^"]*"', "", head)
    # Names of parts are the figure's own; in the page they need the figure's name before them.
    by_hex = {light.lower(): f"var(--{name})" for name, (light, _) in _COLOURS.items()}

    def adapt(tag: re.Match[str]) -> str:
        text = re.sub(r'( id="|url\(#|xlink:href="#)', rf"\g<1>{drawn.name}-", tag[0])
        return re.sub(r"#[0-9a-f]{6}\b", lambda found: by_hex.get(found[0], found[0]), text)

    rest = re.sub(r"<[^>]*>", adapt, rest)  # within tags: what stands between is text
    # What matplotlib wrote has every text of a user's escaped.
    opened = Markup('{} role="img" aria-label="{}">').format(Markup(head), drawn.alt)  # noqa: S704
    return opened + Markup(rest)  # noqa: S704
