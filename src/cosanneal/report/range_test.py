"""The figure of a range test: the loss against the rate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import SupportsFloat

from matplotlib.figure import Figure

from ..core.range_test import checked_losses, smoothed_losses, suggest_max_lr
from .style import BLUE, GREY, SNAPSHOT, tidy


def plot_range_test(rates: Iterable[SupportsFloat], losses: Iterable[SupportsFloat]) -> Figure:
    """The losses of a range test against the rate, smoothed too, and the suggested peak.

    Args:
        rates: the rate of each update, rising, as `cosanneal.range_test` has them.
        losses: the loss of each update, as `cosanneal.suggest_max_lr` takes them.

    Returns:
        A figure with one pair of axes, for `save_figure` or to be worked on.

    Raises:
        ScheduleError: what `suggest_max_lr` refuses.

    Example:
        >>> import cosanneal as ca
        >>> from cosanneal.report import plot_range_test
        >>> rates = ca.range_test(1e-4, 10.0, total_steps=100).rates(0, 100)
        >>> losses = [1 / (1 + 100 * rate) + rate**2 for rate in rates]
        >>> plot_range_test(rates, losses).axes[0].get_xscale()
        'log'

    Source: the plot that L. N. Smith reads the rate off (arXiv:1506.01186, figure 3).
    """
    x, y = checked_losses(rates, losses)
    suggested = suggest_max_lr(x, y)
    places, smooth = smoothed_losses(x, y)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(x, y, color=GREY, marker=".", linewidth=0.8, label="loss of each update")
    axes.plot([x[i] for i in places], smooth, color=BLUE, linewidth=1.8, label="smoothed")
    height = smooth[min(range(len(places)), key=lambda i: abs(x[places[i]] - suggested))]
    axes.plot([suggested], [height], **SNAPSHOT, label=f"suggested peak {suggested:.2g}")
    axes.set_xscale("log")
    # A loss that runs away at last would flatten what is to be seen.
    low, high = min(*y, *smooth), max(smooth)
    margin = 0.15 * (high - low)
    axes.set_ylim(low - margin, high + 2 * margin)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    tidy(axes)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure
