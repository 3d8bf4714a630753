"""The figure of what a budget of passes costs in error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .style import BLUE, GREY, VERMILION, Drawn, legend_below, new_panels, tidy
from .words import number, plural, row_of, score


def draw_passes(analysis: Mapping[str, Any]) -> Drawn:
    """The error against the mean number of members that samples have.

    Args:
        analysis: the part of a results document, which has `passes`.
    """
    rows = analysis["passes"]
    own = row_of(rows, analysis["choice"]["budget"])
    figure, (axes,) = new_panels(2.5, legend=0.35)
    passes, errors = ([row[name] for row in rows] for name in ("passes", "error"))
    percent = [100 * each for each in errors]
    curve = axes.plot(passes, percent, color=BLUE, linewidth=1.6, marker="s", markersize=4)[0]
    curve.set_label("leaving early")
    exact = axes.axhline(percent[-1], color=GREY, linestyle=":", linewidth=1.2)
    exact.set_label("exact classes")
    at = axes.plot(own["passes"], 100 * own["error"], color=VERMILION, marker="o", markersize=8)[0]
    at.set_linestyle("none")
    at.set_label("the budget")
    axes.set_title("error (%)")
    axes.set_xlabel("members a sample, on average")
    tidy(axes)
    legend_below(figure, [curve, exact, at], columns=3)
    samples = plural(analysis["samples"], "sample")
    return Drawn(
        name="passes",
        title="Error against members a sample",
        alt=f"The error from {number(percent[0])} % at {number(passes[0])} members a sample to "
        f"{number(percent[-1])} % at {number(passes[-1])}; at the budget {score('error', own)} % "
        f"at {number(own['passes'])}.",
        caption=f"What classes lose where samples leave early, on {samples}. Every point is a "
        "care: the share of the weight still to come by which the leading class must be ahead. The "
        "round one is the budget that was chosen on other data.",
        figure=figure,
    )
