"""The figure of a study on a user's own task: the scores against the cost of predicting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .style import BLUE, GREEN, GREY, Drawn, legend_below, new_panels, tidy


def draw_costs(rows: Sequence[Mapping[str, Any]]) -> Drawn:
    """Error and log-loss against the number of cycles, beside one cosine.

    Args:
        rows: for each number of `cycles` and `way` ("fitted", "mean", "last")
            `seeds`, and for `error` and `log_loss` the `mean` and the `interval`
            of the `difference` to one cosine, as `cosanneal.study.summarize` gives them.
    """
    figure, panels = new_panels(2.1, 2.2, legend=0.6)
    cosine = next(row for row in rows if row["cycles"] == 1)
    cycles = sorted({row["cycles"] for row in rows} - {1})
    styles: dict[str, tuple[str, dict[str, Any]]] = {
        "fitted": ("fitted ensemble", {"color": BLUE, "linestyle": "-", "marker": "s"}),
        "mean": ("plain mean", {"color": GREEN, "linestyle": "-.", "marker": "^"}),
        "last": ("last snapshot, temperature", {"color": GREY, "linestyle": ":", "marker": "o"}),
    }
    handles: list[Any] = []
    for axes, name, scale in zip(panels, ("error", "log_loss"), (100, 1), strict=True):
        line = axes.axhline(scale * cosine[name]["mean"], color="#000000", linestyle="--")
        drawn: list[Any] = [line]
        for i, (way, (_, style)) in enumerate(styles.items()):
            own = [row for row in rows if row["way"] == way and row["cycles"] > 1]
            intervals = [row[name]["interval"] for row in own]
            half = [0 if each is None else scale * (each[1] - each[0]) / 2 for each in intervals]
            drawn.append(
                axes.errorbar(
                    [cycles.index(row["cycles"]) + 0.07 * (i - 1) for row in own],
                    [scale * row[name]["mean"] for row in own],
                    # Of the other ways they would hide those of the one that is judged.
                    yerr=half if way == "fitted" and any(half) else None,
                    markersize=5,
                    linewidth=1.6,
                    elinewidth=1,
                    capsize=3,
                    **style,
                )
            )
        axes.set_title("test error (%)" if name == "error" else "test log-loss")
        axes.set_xticks(range(len(cycles)), [str(each) for each in cycles])
        axes.set_xlim(-0.4, len(cycles) - 0.6)
        tidy(axes)
        handles = drawn
    for handle, label in zip(
        handles, ("one cosine, temperature", *(label for label, _ in styles.values())), strict=True
    ):
        handle.set_label(label)
    panels[0].tick_params(labelbottom=False)
    panels[-1].set_xlabel("cycles in the same budget")
    legend_below(figure, handles)
    over = (
        "The bars are the 95 % interval of the difference to one cosine, seed by seed: where a bar "
        "reaches the dashed line, the difference may be chance."
        if cosine["seeds"] > 1
        else "One seed: no interval."
    )
    return Drawn(
        name="study",
        title="What the same budget gives",
        alt=f"Test error and log-loss against the number of cycles, {cycles[0]} to {cycles[-1]}, "
        "beside one cosine.",
        caption=f"The same budget as one cosine and as cycles. {over}",
        figure=figure,
    )
