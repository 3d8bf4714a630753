"""Figures of schedules and results, and the report page; importing this imports matplotlib.

It comes with `cosanneal[plot]`.
"""

# First, since it says how to install matplotlib and numpy where they are missing.
from .style import save_figure as save_figure  # isort: skip
from .card import Card as Card
from .demo import plot_demo as plot_demo
from .folder import write_model_folder as write_model_folder
from .page import write_report as write_report
from .range_test import plot_range_test as plot_range_test
from .rates import plot_schedule as plot_schedule
from .rates import plot_schedules as plot_schedules
from .several import write_comparison as write_comparison
