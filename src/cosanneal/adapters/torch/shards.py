"""Tensors that several processes have a part of each: torch's DTensors, and those of ZeRO-3."""

from __future__ import annotations

import sys

import torch.distributed as dist
from torch import Tensor, nn

from ...core.errors import SnapshotError
from .zero import can_be_joined, is_parted, joined


def can_be_gathered(value: Tensor) -> bool:
    """Whether a tensor is such a one, and its processes are there."""
    return can_be_joined(value) or (hasattr(value, "full_tensor") and dist.is_initialized())


def is_cut(value: object) -> bool:
    """Whether a tensor is a DTensor."""
    return hasattr(value, "placements")


def refuse_flat(model: nn.Module) -> None:
    """Refuse the first version of FSDP, whose very names take all processes to be told.

    Raises:
        SnapshotError: a module is wrapped by it.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")  # of one that is wrapped, it is there
    if fsdp is None:
        return
    for name, module in model.named_modules():
        if isinstance(module, fsdp.FullyShardedDataParallel):
            raise SnapshotError(
                "A model in shards must be one of fully_shard (FSDP2), or of DTensors. Received: "
                f"{name or 'the model'!r}, a FullyShardedDataParallel; shard the model by "
                "torch.distributed.fsdp.fully_shard"
            )


def local_part(value: Tensor) -> Tensor:
    """The part of this process; of other tensors, the tensor."""
    own = value.to_local() if hasattr(value, "to_local") else value
    found: Tensor = getattr(own, "ds_tensor", own)
    return found


def whole(value: Tensor, *, writes: bool) -> Tensor:
    """A tensor with all of its parts, in the host's memory; all of its processes must ask.

    Args:
        value: the tensor; one that no other process has a part of comes back as it is.
        writes: whether this process wants it; if not, an empty one comes back.
    """
    if is_parted(value):
        return joined(value, writes=writes)
    if not hasattr(value, "full_tensor"):
        return value
    gathered: Tensor = value.full_tensor()
    return gathered.cpu() if writes else gathered.new_empty(0)
