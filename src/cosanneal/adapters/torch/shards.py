"""Tensors that several processes have a part of each: torch's DTensors."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def can_be_gathered(value: Tensor) -> bool:
    """Whether a tensor is such a one, and its processes are there."""
    return hasattr(value, "full_tensor") and dist.is_initialized()


def local_part(value: Tensor) -> Tensor:
    """The part of this process; of other tensors, the tensor."""
    found: Tensor = value.to_local() if hasattr(value, "to_local") else value
    return found


def whole(value: Tensor, *, writes: bool) -> Tensor:
    """A tensor with all of its parts, in the host's memory; all of its processes must ask.

    Args:
        value: the tensor; one that is no DTensor comes back as it is.
        writes: whether this process wants it; if not, an empty one comes back.
    """
    if not hasattr(value, "full_tensor"):
        return value
    gathered: Tensor = value.full_tensor()
    return gathered.cpu() if writes else gathered.new_empty(0)
