"""Figures: of a schedule, and of the demo's results.

Every function makes a matplotlib `Figure` of its own and touches neither
pyplot's state nor a window system: figures can be made in threads, on servers
and inside other programs.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Final

from ..core.atomic import replacing
from ..core.errors import CosannealError, MissingExtraError, ScheduleError, check_steps
from ..core.schedule import Cycle, Schedule

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator
except ModuleNotFoundError as error:
    # Only the package itself missing: a part of it missing is a broken install.
    if error.name not in ("matplotlib", "numpy"):
        raise
    raise MissingExtraError.for_extra(
        "plot", package=error.name, needed_by="Drawing a figure"
    ) from error

# Okabe and Ito's palette, which stays apart under every kind of colour blindness.
# Lines differ in their dashes as well.
BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"

# For several schedules, of that palette again, in combinations that do not soon recur.
COLOURS: Final = (BLUE, VERMILION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: Final = ("-", "--", "-.", ":", (0, (8, 2, 1, 2, 1, 2)))

_SUFFIXES: Final = ("png", "svg", "pdf")
_DOTS_PER_INCH = 200  # a figure 9 inches wide has twice the 900 pixels that a README shows

_MOST_POINTS = 3000  # evenly spaced ones; boundaries come on top
_MOST_LINED = 500  # more cycles than this are drawn as a band
MOST_RESTARTS = 60  # more restarts than this are not marked one by one
_MOST_DOTTED = 60  # up to so many steps, each has a dot


def plot_schedule(schedule: Schedule, *, stop: int | None = None) -> Figure:
    """The rate against the step, with every restart and every snapshot marked.

    A long schedule is sampled: at every boundary of its table, and evenly
    between them. With more cycles than a picture can tell apart, it shows the
    band between their floors and peaks.

    Args:
        schedule: the schedule.
        stop: the steps `0 <= step < stop` are drawn; by default all of them.

    Returns:
        A figure with one pair of axes, for `save_figure` or to be worked on.

    Raises:
        ScheduleError: no `stop` for a schedule without end, or a bad one.

    Example:
        >>> import cosanneal as ca
        >>> from cosanneal.report import plot_schedule
        >>> figure = plot_schedule(ca.CyclicCosine(0.1, total_steps=100, num_cycles=4))
        >>> figure.axes[0].get_ylabel()
        'learning rate'
    """
    if stop is None:
        stop = schedule.total_steps
        if stop is None:
            raise ScheduleError(
                "Argument `stop` must be given, since this schedule has no end. Received: stop=None"
            )
    stop = check_steps("stop", stop, minimum=1)
    count = _count_cycles(schedule, stop)
    figure, axes = _new_figure(height=3.6)
    label = "rate"
    if count > _MOST_LINED:
        label = f"{count} cycles between floor and peak, each with a snapshot at its end"
    levels = draw_rate(axes, schedule, stop, label=label, color=BLUE, linewidth=1.8)
    if count <= _MOST_LINED:
        _mark_cycles(axes, schedule, stop, count)
    _finish(axes, stop, *levels)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def plot_schedules(schedules: Mapping[str, Schedule], *, stop: int) -> Figure:
    """The rates of several schedules against the step, one over the other.

    Each is drawn as `plot_schedule` draws it, without the marks of its cycles,
    in colours and dashes of its own. Earlier ones are broader, so that they
    show under later ones that lie on them.

    Args:
        schedules: the schedules by their names in the legend.
        stop: the steps `0 <= step < stop` are drawn.

    Returns:
        A figure with one pair of axes and the legend above them.

    Raises:
        ScheduleError: no schedule, or a bad `stop`.

    Example:
        >>> import cosanneal as ca
        >>> from cosanneal.report.plots import plot_schedules
        >>> equal = ca.CyclicCosine(0.1, total_steps=100, num_cycles=4)
        >>> growing = ca.CyclicCosine(0.1, total_steps=100, num_cycles=4, cycle_mult=2)
        >>> figure = plot_schedules({"equal": equal, "growing": growing}, stop=100)
        >>> [line.get_label() for line in figure.axes[0].lines]
        ['equal', 'growing']
    """
    if not schedules:
        raise ScheduleError(
            "Argument `schedules` must hold at least one schedule. Received: schedules={}"
        )
    stop = check_steps("stop", stop, minimum=1)
    figure, axes = _new_figure(height=3.4 + 0.2 * len(schedules))
    peaks, floors = [], []
    for i, (name, schedule) in enumerate(schedules.items()):
        style = {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": DASHES[i % len(DASHES)],
            "linewidth": max(3.2 - 0.8 * i, 1.4),
        }
        peak, floor = draw_rate(axes, schedule, stop, label=name, **style)
        peaks.append(peak)
        floors.append(floor)
    _finish(axes, stop, max(peaks), min(floors))
    handles = {h.get_label(): h for h in axes.get_legend_handles_labels()[0]}
    # One below the other, since names may be long.
    figure.legend(
        handles=[handles[name] for name in schedules if name in handles],
        loc="outside upper left",
        frameon=False,
        handlelength=4,
    )
    return figure


def plot_demo(results: Mapping[str, Any]) -> Figure:
    """The demo's figure: the rates, the training losses, and what the ensemble gained.

    Args:
        results: plain data, as the demo writes it:

            - `curves`: of the first seed, for each of `single`, `cosine` and
              `cyclic`, `rate` and `loss`: a number for every step. `cyclic` has
              also `cycle_ends`: the steps after whose updates snapshots were
              taken.
            - `seeds`: a list with, for each seed, the `test_error`, a share
              from 0 to 1, and the `test_nll` of `single`, `cosine`, `nocycle`,
              `short` and `fitted`, and `ensemble`: a list of `members`, the
              number of the last snapshots used, with the same two scores.

            What else it holds is not looked at.

    Returns:
        A figure of four panels: rate and loss against the step, and test error
        and log-loss against the number of members, as mean and standard
        deviation over the seeds.
    """
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1.45, 1))
    rates = figure.add_subplot(grid[0, 0])
    losses = figure.add_subplot(grid[1, 0], sharex=rates)
    errors = figure.add_subplot(grid[0, 1])
    log_losses = figure.add_subplot(grid[1, 1], sharex=errors)

    _draw_rates(rates, results["curves"])
    _draw_losses(losses, results["curves"])
    seeds = results["seeds"]
    over = f"mean ± s.d. of {len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    _draw_scores(errors, seeds, "test_error", scale=100)
    errors.set_title(f"test error (%), {over}")
    errors.tick_params(labelbottom=False)
    _draw_scores(log_losses, seeds, "test_nll", scale=1)
    log_losses.set_title("test log-loss")
    log_losses.set_xlabel("members: the last m snapshots")
    for axes in (rates, losses, errors, log_losses):
        tidy(axes)
    lines = [Line2D([], [], label=label, **style) for label, style in _RUNS.values()]
    marks = [Line2D([], [], label=label, **style) for label, style in _ENSEMBLES.values()]
    snapshot = Line2D([], [], label="snapshot", **SNAPSHOT)
    # Above the panels, where it hides nothing.
    figure.legend(
        handles=[*lines, snapshot, *marks], loc="outside upper center", ncols=4, frameon=False
    )
    return figure


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
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _SUFFIXES:
        known = ", ".join(f".{suffix}" for suffix in _SUFFIXES)
        raise CosannealError(f"A figure's file must end in one of {known}. Received: {str(path)!r}")
    with replacing(path) as file:
        figure.savefig(file, format=kind, dpi=_DOTS_PER_INCH)


def _count_cycles(schedule: Schedule, stop: int) -> int:
    """The number of cycles that begin before `stop`."""
    total = schedule.total_steps
    return schedule.cycle_at((stop if total is None else min(stop, total)) - 1).index + 1


def _new_figure(*, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, height), layout="constrained")
    return figure, figure.add_subplot()


def _finish(axes: Axes, stop: int, peak: float, floor: float) -> None:
    _label_levels(axes, peak, floor)
    axes.set_xlabel("step (optimizer updates)")
    axes.set_ylabel("learning rate")
    axes.xaxis.set_major_locator(whole_steps())
    if stop <= 2:  # one or two steps, seen with the empty places beside them
        axes.set_xlim(-1, stop)
    tidy(axes)


def draw_rate(
    axes: Axes, schedule: Schedule, stop: int, *, label: str, **style: Any
) -> tuple[float, float]:
    """Draw a line, or a band for very many cycles; returns the highest peak and lowest floor."""
    count = _count_cycles(schedule, stop)
    if count > _MOST_LINED:
        return _draw_band(axes, schedule, stop, count, label=label, color=style["color"])
    if count > MOST_RESTARTS:
        style["linewidth"] = 0.8
    steps = _sampled(schedule, stop)
    axes.plot(
        [float(step) for step in steps],
        [schedule.rate(step) for step in steps],
        marker="." if stop <= _MOST_DOTTED else "",
        label=label,
        **style,
    )
    return _extremes(schedule.cycles()[:count])


def _mark_cycles(axes: Axes, schedule: Schedule, stop: int, count: int) -> None:
    """Mark the restarts and the snapshots."""
    cycles = schedule.cycles()[:count]
    restarts = [float(cycle.start) for cycle in cycles[1:]]
    if 0 < len(restarts) <= MOST_RESTARTS:
        axes.vlines(
            restarts,
            0,
            1,
            transform=axes.get_xaxis_transform(),
            colors=GREY,
            linestyles=":",
            linewidth=1,
            label="restart",
        )
    ends = [cycle.last_step for cycle in cycles if cycle.stop <= stop]
    if ends:
        style = SNAPSHOT | {"markersize": 7 if count <= MOST_RESTARTS else 3}
        axes.plot(
            [float(step) for step in ends],
            [schedule.rate(step) for step in ends],
            label="snapshot, after the step",
            **style,
        )


def _draw_band(
    axes: Axes, schedule: Schedule, stop: int, count: int, *, label: str, color: str
) -> tuple[float, float]:
    """Draw floors and peaks only; returns the highest peak and the lowest floor."""
    numbers = sorted({(count - 1) * i // (_MOST_LINED - 1) for i in range(_MOST_LINED)})
    cycles = [schedule.cycles()[number] for number in numbers]
    edges = [(cycle.start, cycle.min_lr, cycle.max_lr) for cycle in cycles]
    edges.append((min(cycles[-1].stop, stop), cycles[-1].min_lr, cycles[-1].max_lr))
    starts, floors, peaks = zip(*edges, strict=True)
    axes.fill_between(
        [float(start) for start in starts],
        floors,
        peaks,
        color=color,
        alpha=0.35,
        linewidth=0,
        label=label,
    )
    total = schedule.total_steps
    if total is not None and stop > total:
        after = schedule.rate(total)
        axes.plot([float(total), float(stop - 1)], [after, after], color=color, label="rate after")
    return _extremes(cycles)


def _extremes(cycles: Sequence[Cycle]) -> tuple[float, float]:
    return max(cycle.max_lr for cycle in cycles), min(cycle.min_lr for cycle in cycles)


def _sampled(schedule: Schedule, stop: int) -> list[int]:
    """Some of the steps before `stop`: all boundaries, and so many evenly between them."""
    if stop <= _MOST_POINTS:
        return list(range(stop))
    steps = {(stop - 1) * i // (_MOST_POINTS - 1) for i in range(_MOST_POINTS)}
    for segment in schedule.segments(0, stop):
        steps.add(segment.start)
        if segment.stop is not None and segment.stop <= stop:
            steps.add(segment.stop - 1)
    return sorted(steps)


def _label_levels(axes: Axes, peak: float, floor: float) -> None:
    """Write peak and floor on the right of the axes, each at its height."""
    levels = [("peak", peak, "bottom"), ("floor", floor, "top")]
    if peak == floor:
        levels = [("rate", peak, "center")]
    # Also a level that no step drawn reaches belongs into the picture.
    axes.update_datalim([(0.0, floor), (0.0, peak)])
    axes.autoscale_view()
    low, high = axes.get_ylim()
    far_apart = peak - floor > (high - low) / 8
    for name, level, side in levels:
        axes.annotate(
            f"{name} {level:.6g}",
            xy=(0.99, level),
            xycoords=axes.get_yaxis_transform(),
            xytext=(12, 0),
            textcoords="offset points",
            verticalalignment="center" if far_apart else side,
            # On an axis made logarithmic later, a floor of 0 has no place.
            annotation_clip=True,
        )


SNAPSHOT: Final[dict[str, Any]] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 7,
    "markerfacecolor": VERMILION,
    "markeredgecolor": "white",
    "markeredgewidth": 0.8,
    "zorder": 4,
}

# In the order of drawing: the cyclic run, which matters most, lies on top.
_RUNS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "single": ("single model", {"color": GREY, "linestyle": "--", "linewidth": 1.2}),
    "cosine": ("one cosine", {"color": GREEN, "linestyle": "-.", "linewidth": 1.2}),
    "cyclic": ("cyclic cosine and its ensemble", {"color": BLUE, "linewidth": 1.8}),
}


# Beside the ensembles of the last snapshots, in the order of their places.
_ENSEMBLES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "fitted": (
        "fitted",
        {"color": VERMILION, "linestyle": "none", "marker": "*", "markersize": 11},
    ),
    "short": (
        "SingleCycle",
        {"color": "#CC79A7", "linestyle": "none", "marker": "D", "markersize": 6},
    ),
    "nocycle": (
        "NoCycle",
        {"color": GREY, "linestyle": "none", "marker": "^", "markersize": 7},
    ),
}


def _draw_rates(axes: Axes, curves: Mapping[str, Any]) -> None:
    for run, (_, style) in _RUNS.items():
        draw_curve(axes, curves[run]["rate"], style)
    mark_snapshots(axes, curves["cyclic"]["cycle_ends"], curves["cyclic"]["rate"])
    axes.set_ylim(bottom=0)
    axes.set_title("learning rate")
    axes.tick_params(labelbottom=False)


def _draw_losses(axes: Axes, curves: Mapping[str, Any]) -> None:
    lowest, highest = math.inf, 0.0
    for run, (_, style) in _RUNS.items():
        loss = smoothed(curves[run]["loss"], curves[run].get("cycle_ends", ()))
        draw_curve(axes, loss, style)
        if run == "cyclic":
            mark_snapshots(axes, curves[run]["cycle_ends"], loss)
        finite = [value for value in loss if math.isfinite(value)]
        lowest, highest = min(lowest, *finite, math.inf), max(highest, *finite, 0.0)
    if 20 * lowest < highest and lowest > 0:
        axes.set_yscale("log")
    axes.set_title("training loss, one seed, smoothed")
    axes.set_xlabel("step (optimizer updates)")
    axes.xaxis.set_major_locator(whole_steps())


def _draw_scores(
    axes: Axes, seeds: Sequence[Mapping[str, Any]], score: str, *, scale: float
) -> None:
    for run in ("single", "cosine"):
        _, style = _RUNS[run]
        mean, spread = _mean_and_spread([scale * seed[run][score] for seed in seeds])
        axes.axhspan(mean - spread, mean + spread, color=style["color"], alpha=0.13, linewidth=0)
        axes.axhline(mean, **style)
    by_members: dict[int, list[float]] = {}
    for seed in seeds:
        for row in seed["ensemble"]:
            by_members.setdefault(row["members"], []).append(scale * row[score])
    members = sorted(by_members)
    _draw_spreads(
        axes,
        members,
        [by_members[m] for m in members],
        {"color": BLUE, "linewidth": 1.8, "marker": "s", "markersize": 6},
    )
    places = [members[-1] + 1 + i for i in range(len(_ENSEMBLES))]
    for place, (model, (_, style)) in zip(places, _ENSEMBLES.items(), strict=True):
        _draw_spreads(axes, [place], [[scale * seed[model][score] for seed in seeds]], style)
    # The others stand beside the axis of members, and are no number of them.
    axes.axvline(members[-1] + 0.5, color="#DDDDDD", linewidth=0.8)
    axes.set_xticks(members)
    axes.margins(x=0.05)


def _draw_spreads(
    axes: Axes, places: Sequence[int], values: Sequence[Sequence[float]], style: Mapping[str, Any]
) -> None:
    """Means with the standard deviations as bars, where there are several values."""
    summary = [_mean_and_spread(each) for each in values]
    axes.errorbar(
        places,
        [mean for mean, _ in summary],
        yerr=[spread for _, spread in summary] if len(values[0]) > 1 else None,
        capsize=4,
        elinewidth=1.2,
        **style,
    )


def draw_curve(axes: Axes, values: Sequence[float], style: Mapping[str, Any]) -> None:
    """Draw a value for each step, thinned where they are very many."""
    stride = -(-len(values) // _MOST_POINTS)
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


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the latter is 0 for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def whole_steps() -> MaxNLocator:
    """Ticks at whole numbers."""
    return MaxNLocator(nbins=8, integer=True, steps=[1, 2, 2.5, 5, 10], min_n_ticks=1)


def tidy(axes: Axes) -> None:
    """The look that all panels have in common."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.title.set_fontsize(11)
