"""Keras: the schedule, the snapshot recorder and the snapshot ensemble, on any of its backends."""

from ...core.errors import MissingExtraError

# The extra that installs each package, and with it the backend that Keras was told to use.
_EXTRAS = {
    **dict.fromkeys(("keras", "numpy", "safetensors", "filelock", "xxhash", "tensorflow"), "tf"),
    **dict.fromkeys(("jax", "jaxlib"), "jax"),
    "torch": "torch",
}

try:
    from .distillation import distillation_loss as distillation_loss
    from .ensemble import SnapshotEnsemble as SnapshotEnsemble
    from .load import export_weights as export_weights
    from .load import load_snapshot as load_snapshot
    from .perturbation import ShrinkAndPerturb as ShrinkAndPerturb
    from .perturbation import reset_momentum as reset_momentum
    from .perturbation import shrink_and_perturb as shrink_and_perturb
    from .recorder import SnapshotRecorder as SnapshotRecorder
    from .schedule import CyclicCosineSchedule as CyclicCosineSchedule
except ModuleNotFoundError as _error:
    if _error.name not in _EXTRAS:
        raise
    _needed_by = "cosanneal.adapters.keras"
    if _error.name not in ("keras", "numpy", "safetensors", "filelock", "xxhash"):
        _needed_by = f"Keras on {_error.name}, as KERAS_BACKEND or keras.json has it,"
    raise MissingExtraError.for_extra(
        _EXTRAS[_error.name], package=_error.name, needed_by=_needed_by
    ) from _error

__all__ = [
    "CyclicCosineSchedule",
    "ShrinkAndPerturb",
    "SnapshotEnsemble",
    "SnapshotRecorder",
    "distillation_loss",
    "export_weights",
    "load_snapshot",
    "reset_momentum",
    "shrink_and_perturb",
]
