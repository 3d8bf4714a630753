"""DeepSpeed: the module that an engine trains, and the tensors that ZeRO-3 has parted."""

from __future__ import annotations

import sys
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from ...core.errors import SnapshotError


def module_within(model: nn.Module) -> nn.Module | None:
    """The module within an engine of DeepSpeed's; None where the model is none."""
    kind = getattr(sys.modules.get("deepspeed"), "DeepSpeedEngine", None)
    if kind is None or not isinstance(model, kind):
        return None
    found: nn.Module = model.module
    return found


def refuse_parts(model: nn.Module) -> None:
    """Refuse an engine whose processes have modules that differ, each a plain one to look at.

    Raises:
        SnapshotError: one with stages, with experts or with layers cut in parts.
    """
    if module_within(model) is None:
        return
    engine: Any = model
    what = (
        "a pipeline's engine, which has the layers of one stage"
        if engine.pipeline_parallelism
        else "an engine with experts, of which each process may have its own"
        if engine.has_moe_layers
        else "an engine with tensor parallelism, which has a part of each layer"
        if max(engine.autotp_size(), engine.mp_world_size) > 1
        else None
    )
    if what is not None:
        raise SnapshotError(
            "An engine of DeepSpeed must train the whole model in every process, or part it by "
            f"ZeRO alone (stages 1 to 3). Received: {what}; record a model that is trained so, or "
            "gather the weights into a plain module and record that"
        )


def refuse_uncounted(model: nn.Module, schedule: object) -> None:
    """Refuse an engine where no scheduler counts its updates: its optimizer has other tensors.

    Raises:
        SnapshotError: the model is an engine.
    """
    if module_within(model) is not None:
        raise SnapshotError(
            "Argument `schedule` must be the CyclicCosineLR of the engine's optimizer, which alone "
            f"tells of its updates. Received: {type(schedule).__name__}; give deepspeed.initialize "
            "lr_scheduler=lambda optimizer: CyclicCosineLR(optimizer, schedule), and the recorder "
            "engine.lr_scheduler"
        )


def is_parted(value: object) -> bool:
    """Whether a tensor is one of ZeRO-3's, which is empty here but while it is used."""
    return hasattr(value, "ds_id")


def can_be_joined(value: Tensor) -> bool:
    """Whether one of ZeRO-3's can be gathered: by its DeepSpeed, with its processes."""
    known = hasattr(value, "ds_shape") and hasattr(value, "ds_status")
    return known and "deepspeed" in sys.modules and dist.is_initialized()


def shape_of(value: Tensor) -> tuple[int, ...]:
    """The shape that a tensor has as a whole."""
    return tuple(getattr(value, "ds_shape", value.shape))


def joined(value: Any, *, writes: bool) -> Tensor:
    """One of ZeRO-3's as a whole; all of its processes must ask.

    Args:
        value: the tensor.
        writes: whether this process wants it; if not, an empty one comes back.

    Raises:
        SnapshotError: DeepSpeed did not gather it.
    """
    # Small ones stay whole in every process, and would be parted by the context's end.
    if value.ds_status.name == "AVAILABLE":
        return _checked(value)
    deepspeed: Any = sys.modules["deepspeed"]
    with deepspeed.zero.GatheredParameters([value]):
        found = _checked(value)
        kept: Tensor = found.to("cpu", copy=True) if writes else found.new_empty(0)
    return kept


def _checked(value: Tensor) -> Tensor:
    if tuple(value.shape) != shape_of(value):
        raise SnapshotError(
            "A tensor of ZeRO-3 must be whole once it is gathered. Received: one of shape "
            f"{tuple(value.shape)} in place of {shape_of(value)}; step the scheduler where no "
            "pass of the engine is under way"
        )
    return value.detach()
