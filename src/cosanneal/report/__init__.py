"""Figures of schedules and results, and the report page; importing this imports matplotlib.

It comes with `cosanneal[plot]`.
"""

from .plots import plot_demo as plot_demo
from .plots import plot_schedule as plot_schedule
from .plots import plot_schedules as plot_schedules
from .plots import save_figure as save_figure

# After the plots, which say how to install matplotlib and numpy where they are missing.
from .page import write_report as write_report  # isort: skip

__all__ = ["plot_demo", "plot_schedule", "plot_schedules", "save_figure", "write_report"]
