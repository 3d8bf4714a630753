"""Cyclic cosine annealing and snapshot ensembles: train one model, get M.

Importing cosanneal imports no third-party package, and of its own what is asked
for. Each framework has its adapter, imported by name: `cosanneal.adapters.torch`.
"""

from .core.version import __version__ as __version__

# typing's own would cost more than all else here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    __all__: list[str]

    from . import presets as presets
    from .core.cyclic import CyclicCosine as CyclicCosine
    from .core.errors import CosannealError as CosannealError
    from .core.errors import EnsembleError as EnsembleError
    from .core.errors import MissingExtraError as MissingExtraError
    from .core.errors import ScheduleError as ScheduleError
    from .core.errors import SnapshotError as SnapshotError
    from .core.errors import StudyError as StudyError
    from .core.range_test import range_test as range_test
    from .core.range_test import suggest_max_lr as suggest_max_lr
    from .core.recommend import Recommendation as Recommendation
    from .core.recommend import recommend as recommend
    from .core.schedule import Cycle as Cycle
    from .core.schedule import Schedule as Schedule
    from .core.segment import Segment as Segment
else:
    _HOMES = {
        "CosannealError": "core.errors",
        "Cycle": "core.schedule",
        "CyclicCosine": "core.cyclic",
        "EnsembleError": "core.errors",
        "MissingExtraError": "core.errors",
        "Recommendation": "core.recommend",
        "Schedule": "core.schedule",
        "ScheduleError": "core.errors",
        "Segment": "core.segment",
        "SnapshotError": "core.errors",
        "StudyError": "core.errors",
        "presets": "presets",
        "range_test": "core.range_test",
        "suggest_max_lr": "core.range_test",
        "recommend": "core.recommend",
    }

    __all__ = sorted([*_HOMES, "__version__"])

    def __getattr__(name):
        from importlib import import_module

        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f".{_HOMES[name]}", __name__)
        value = globals()[name] = getattr(module, name, module)
        return value

    def __dir__():
        return sorted({*globals(), *_HOMES})


del TYPE_CHECKING
