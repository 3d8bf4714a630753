"""PyTorch: the scheduler, the snapshot recorder and the snapshot ensemble."""

from ...core.errors import MissingExtraError

try:
    from .distillation import distillation_loss as distillation_loss
    from .ensemble import SnapshotEnsemble as SnapshotEnsemble
    from .load import export_weights as export_weights
    from .load import load_snapshot as load_snapshot
    from .migration import from_torch as from_torch
    from .perturbation import reset_momentum as reset_momentum
    from .perturbation import shrink_and_perturb as shrink_and_perturb
    from .recorder import SnapshotRecorder as SnapshotRecorder
    from .scheduler import CyclicCosineLR as CyclicCosineLR
except ModuleNotFoundError as _error:
    if _error.name not in ("torch", "numpy", "safetensors", "filelock", "xxhash"):
        raise
    raise MissingExtraError.for_extra(
        "torch", package=_error.name, needed_by="cosanneal.adapters.torch"
    ) from _error

__all__ = [
    "CyclicCosineLR",
    "SnapshotEnsemble",
    "SnapshotRecorder",
    "distillation_loss",
    "export_weights",
    "from_torch",
    "load_snapshot",
    "reset_momentum",
    "shrink_and_perturb",
]
