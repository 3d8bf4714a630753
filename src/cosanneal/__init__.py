"""Cyclic cosine annealing and snapshot ensembles: train one model, get M.

Importing cosanneal imports no third-party package. Each framework has its
adapter, imported by name: `cosanneal.adapters.torch`.
"""

from .core import presets as presets
from .core.cyclic import CyclicCosine as CyclicCosine
from .core.errors import CosannealError as CosannealError
from .core.errors import EnsembleError as EnsembleError
from .core.errors import MissingExtraError as MissingExtraError
from .core.errors import ScheduleError as ScheduleError
from .core.errors import SnapshotError as SnapshotError
from .core.schedule import Cycle as Cycle
from .core.schedule import Schedule as Schedule
from .core.schedule import Segment as Segment
from .core.version import __version__ as __version__

__all__ = [
    "CosannealError",
    "Cycle",
    "CyclicCosine",
    "EnsembleError",
    "MissingExtraError",
    "Schedule",
    "ScheduleError",
    "Segment",
    "SnapshotError",
    "__version__",
    "presets",
]
