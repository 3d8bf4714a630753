"""What all figures have in common: colours and dashes, marks and axes, and how one is written.

Every function that makes a matplotlib `Figure` makes one of its own and touches
neither pyplot's state nor a window system: figures can be made in threads, on
servers and inside other programs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Final

from ..core.atomic import replacing
from ..core.errors import CosannealError, MissingExtraError
from ..core.paths import local_path

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ModuleNotFoundError as _error:
    # Only the package itself missing: a part of it missing is a broken install.
    if _error.name not in ("matplotlib", "numpy"):
        raise
    raise MissingExtraError.for_extra(
        "plot", package=_error.name, needed_by="Drawing a figure"
    ) from _error

# Okabe and Ito's palette, which stays apart under every kind of colour blindness.
# Lines differ in their dashes as well.
BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"

# For several schedules, of that palette again, in combinations that do not soon recur.
COLOURS: Final = (BLUE, VERMILION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: Final = ("-", "--", "-.", ":", (0, (8, 2, 1, 2, 1, 2)))

SNAPSHOT: Final[dict[str, Any]] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 7,
    "markerfacecolor": VERMILION,
    "markeredgecolor": "white",
    "markeredgewidth": 0.8,
    "zorder": 4,
}

_SUFFIXES: Final = ("png", "svg", "pdf")
_DOTS_PER_INCH = 200  # a figure 9 inches wide has twice the 900 pixels that a README shows

WIDTH: Final = 4.7  # of a report's figures, in inches: at 390 pixels, 10 points are 11 pixels
MOST_POINTS = 3000  # evenly spaced ones; boundaries come on top
MOST_RESTARTS = 60  # more restarts than this are not marked one by one


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure to `path`, whole or not at all.

    It is written to a temporary file in the same folder, which then takes the
    place of `path` in one move: nobody ever reads half a picture, and an
    earlier one stays if writing fails.

    Args:
        figure: the figure.
        path: its suffix, .png, .svg or .pdf, decides the format.

    Raises:
        CosannealError: another suffix; or the folder is missing, full or not to
            be written to.

    Example:
        >>> import pathlib, tempfile
        >>> import cosanneal as ca
        >>> from cosanneal.report import plot_schedule, save_figure
        >>> path = pathlib.Path(tempfile.mkdtemp(), "plan.png")
        >>> figure = plot_schedule(ca.CyclicCosine(0.1, total_steps=20, num_cycles=2))
        >>> save_figure(figure, path)
        >>> path.is_file()
        True
    """
    path = local_path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _SUFFIXES:
        known = ", ".join(f".{suffix}" for suffix in _SUFFIXES)
        raise CosannealError(f"A figure's file must end in one of {known}. Received: {str(path)!r}")
    with replacing(path) as file:
        figure.savefig(file, format=kind, dpi=_DOTS_PER_INCH)


def draw_curve(axes: Axes, values: Sequence[float], style: Mapping[str, Any]) -> None:
    """Draw a value for each step, thinned where they are very many."""
    stride = -(-len(values) // MOST_POINTS)
    axes.plot(range(0, len(values), stride), values[::stride], **style)


def mark_snapshots(axes: Axes, ends: Sequence[int], values: Sequence[float]) -> None:
    """Mark the values of some steps, after which snapshots were taken."""
    axes.plot(ends, [values[step] for step in ends], clip_on=False, **SNAPSHOT)


def smoothed(values: Sequence[float], ends: Sequence[int] = ()) -> list[float]:
    """The mean over a window around each value, of a hundredth of their number.

    No window reaches over one of `ends`, the last steps of the cycles: what
    follows a restart must not raise the loss at the snapshot before it. Values
    that are not finite are left out, so that one does not spoil the others.
    """
    half = len(values) // 200
    finite = [math.isfinite(value) for value in values]
    kept = (value if good else 0.0 for value, good in zip(values, finite, strict=True))
    sums, counts = [0.0, *accumulate(kept)], [0, *accumulate(map(int, finite))]
    edges = sorted({0, *(end + 1 for end in ends if end < len(values)), len(values)})
    smooth: list[float] = []
    for begin, finish in pairwise(edges):
        for i in range(begin, finish):
            first, after = max(i - half, begin), min(i + half + 1, finish)
            number = counts[after] - counts[first]
            smooth.append((sums[after] - sums[first]) / number if number else math.nan)
    return smooth


def whole_steps() -> MaxNLocator:
    """Ticks at whole numbers."""
    return MaxNLocator(nbins=8, integer=True, steps=[1, 2, 2.5, 5, 10], min_n_ticks=1)


def tidy(axes: Axes) -> None:
    """The look that all panels have in common."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.title.set_fontsize(11)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """A figure of a report.

    Args:
        name: of its files.
        title: its heading.
        alt: what it shows, for those who do not see it.
        caption: what is to be seen, and how it was computed.
        figure: the figure itself.
    """

    name: str
    title: str
    alt: str
    caption: str
    figure: Figure


def new_panels(*heights: float, legend: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Panels one below the other, each of so many inches."""
    figure = Figure(figsize=(WIDTH, sum(heights) + legend), layout="constrained")
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    return figure, [figure.add_subplot(grid[i]) for i in range(len(heights))]


def legend_below(figure: Figure, handles: Sequence[Any], *, columns: int = 2) -> None:
    """A legend below the panels, where it hides nothing."""
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(columns, len(handles)),
        frameon=False,
        fontsize=9,
        handlelength=2.6,
        columnspacing=1.4,
    )
