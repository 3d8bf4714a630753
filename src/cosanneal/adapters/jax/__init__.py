"""JAX and Optax: the schedule, the snapshot recorder and the snapshot ensemble."""

from ...core.errors import MissingExtraError

try:
    from .buffer import SnapshotBuffer as SnapshotBuffer
    from .buffer import snapshot_buffer as snapshot_buffer
    from .distillation import distillation_loss as distillation_loss
    from .ensemble import SnapshotEnsemble as SnapshotEnsemble
    from .load import export_weights as export_weights
    from .load import load_snapshot as load_snapshot
    from .perturbation import reset_momentum as reset_momentum
    from .perturbation import shrink_and_perturb as shrink_and_perturb
    from .recorder import SnapshotRecorder as SnapshotRecorder
    from .schedule import cyclic_cosine_schedule as cyclic_cosine_schedule
except ModuleNotFoundError as _error:
    if _error.name not in ("jax", "jaxlib", "numpy", "optax", "safetensors", "filelock", "xxhash"):
        raise
    raise MissingExtraError.for_extra(
        "jax", package=_error.name, needed_by="cosanneal.adapters.jax"
    ) from _error

__all__ = [
    "SnapshotBuffer",
    "SnapshotEnsemble",
    "SnapshotRecorder",
    "cyclic_cosine_schedule",
    "distillation_loss",
    "export_weights",
    "load_snapshot",
    "reset_momentum",
    "shrink_and_perturb",
    "snapshot_buffer",
]
