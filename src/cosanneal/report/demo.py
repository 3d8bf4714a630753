"""The demonstration's figures: what its runs gave, and the study of the number of cycles."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .style import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    SNAPSHOT,
    VERMILION,
    Drawn,
    draw_curve,
    legend_below,
    mark_snapshots,
    new_panels,
    smoothed,
    tidy,
    whole_steps,
)
from .words import plural

# In the order of drawing: the cyclic run, which matters most, lies on top.
_RUNS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "single": ("single model", {"color": GREY, "linestyle": "--", "linewidth": 1.2}),
    "cosine": ("one cosine", {"color": GREEN, "linestyle": "-.", "linewidth": 1.2}),
    "cyclic": ("cyclic cosine and its ensemble", {"color": BLUE, "linewidth": 1.8}),
}

# Beside the ensembles of the last snapshots, in the order of their places.
_ENSEMBLES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "fitted": ("fitted", {"color": VERMILION, "marker": "*", "markersize": 11}),
    "short": ("SingleCycle", {"color": COLOURS[3], "marker": "D", "markersize": 6}),
    "nocycle": ("NoCycle", {"color": GREY, "marker": "^", "markersize": 7}),
}


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

    Example:
        >>> scores = {"test_error": 0.05, "test_nll": 0.2}
        >>> names = ("single", "cosine", "nocycle", "short", "fitted")
        >>> seed = {**dict.fromkeys(names, scores), "ensemble": [{"members": 1, **scores}]}
        >>> curve = {"rate": [0.2, 0.1], "loss": [1.0, 0.5]}
        >>> curves = {"single": curve, "cosine": curve, "cyclic": {**curve, "cycle_ends": [1]}}
        >>> len(plot_demo({"curves": curves, "seeds": [seed]}).axes)
        4
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
    marks = [
        Line2D([], [], label=label, linestyle="none", **style)
        for label, style in _ENSEMBLES.values()
    ]
    snapshot = Line2D([], [], label="snapshot", **SNAPSHOT)
    # Above the panels, where it hides nothing.
    figure.legend(
        handles=[*lines, snapshot, *marks], loc="outside upper center", ncols=4, frameon=False
    )
    return figure


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
        values = [scale * seed[model][score] for seed in seeds]
        _draw_spreads(axes, [place], [values], style | {"linestyle": "none"})
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


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the latter is 0 for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def draw_study(study: Mapping[str, Any]) -> Drawn:
    """The scores against the number of cycles that the budget is cut into."""
    figure, panels = new_panels(2.1, 2.2, legend=0.6)
    cycles = [row["cycles"] for row in study["rows"]]
    styles: dict[str, tuple[str, dict[str, Any]]] = {
        "last": ("last snapshot alone", {"color": GREY, "linestyle": "--", "marker": "o"}),
        "all": ("mean of all", {"color": BLUE, "linestyle": "-", "marker": "s"}),
        "best": ("last m by validation", {"color": VERMILION, "linestyle": "-.", "marker": "^"}),
    }
    handles = {}
    for axes, name, scale in zip(panels, ("test_error", "test_nll"), (100, 1), strict=True):
        for i, (key, (label, style)) in enumerate(styles.items()):
            spreads = [row[key][name] for row in study["rows"]]
            handles[label] = axes.errorbar(
                [at + 0.06 * (i - 1) for at in range(len(cycles))],
                [scale * each["mean"] for each in spreads],
                yerr=[scale * (each["std"] or 0) for each in spreads],
                label=label,
                markersize=5,
                linewidth=1.6,
                elinewidth=1,
                capsize=3,
                **style,
            )
        axes.set_title("test error (%)" if name == "test_error" else "test log-loss")
        axes.set_xticks(range(len(cycles)), [str(each) for each in cycles])
        tidy(axes)
    panels[0].tick_params(labelbottom=False)
    panels[-1].set_xlabel("cycles in the same budget")
    legend_below(figure, list(handles.values()))
    over = f"mean ± s.d. of {study['seeds']} seeds" if study["seeds"] > 1 else "one seed"
    return Drawn(
        name="study",
        title="One budget, more or fewer cycles",
        alt=f"Test error and log-loss against the number of cycles, {cycles[0]} to {cycles[-1]}.",
        caption=f"The same budget of {plural(study['updates'], 'update')} cut into more and more "
        f"cycles, and what the snapshots give; {over}. “Last m by validation” is "
        "the mean of as many of the last snapshots as are best on validation data; on the test "
        "data another number may be better.",
        figure=figure,
    )
