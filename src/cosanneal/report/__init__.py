"""Figures of schedules and of results; importing this package imports matplotlib.

It comes with `cosanneal[plot]`.
"""

from .plots import plot_demo as plot_demo
from .plots import plot_schedule as plot_schedule
from .plots import plot_schedules as plot_schedules
from .plots import save_figure as save_figure

__all__ = ["plot_demo", "plot_schedule", "plot_schedules", "save_figure"]
