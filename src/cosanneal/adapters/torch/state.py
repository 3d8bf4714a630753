"""The state of a module: by the plain model's names, and out of what wraps it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from .zero import module_within


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, out of what wraps it to compile it or to train it in parallel."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif (trained := module_within(model)) is not None:
            model = trained
        else:
            return model


def plain_name(name: str) -> str:
    """The name without what torch.compile puts before the tensors of a module inside."""
    if "_orig_mod" not in name:  # as with nearly all, of what may be thousands
        return name
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype's name, as a snapshot has it."""
    return str(dtype).removeprefix("torch.")


def is_shard(value: Tensor) -> bool:
    """Whether a tensor is a part of one that others have too: torch's DTensor, DeepSpeed's ZeRO."""
    return hasattr(value, "device_mesh") or hasattr(value, "ds_id")


def eager(model: nn.Module) -> AbstractContextManager[object] | None:
    """Run compiled parts of a model as they are written, since as compiled they tell nobody.

    None where there are some, and torch (before 2.6) has no way.
    """
    if not any(hasattr(module, "_orig_mod") for module in model.modules()):
        return nullcontext()
    set_stance = getattr(torch.compiler, "set_stance", None)
    return (
        None
        if set_stance is None
        else cast(AbstractContextManager[object], set_stance("force_eager"))
    )
