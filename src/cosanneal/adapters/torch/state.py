"""The state of a module: by the plain model's names, out of what wraps it, and put into copies."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import EnsembleError

_REMEDY = "give the ensemble a function that builds the model, in place of the model"


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, out of what wraps it to compile it or to train it in parallel."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
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


def bare_copy(model: nn.Module) -> nn.Module:
    """A copy of a module's structure, whose state has shapes and dtypes but no data.

    What else a module holds is copied: buffers that are not persistent, caches, hooks.

    Raises:
        EnsembleError: a module that cannot be copied, or a copy of which would
            look at the module's own weights.
    """
    own = dict(_slots(model))
    _refuse_closures(model, [*model.modules(), *(value for _, _, value in own.values())])
    memo: dict[int, Any] = {id(value): _bare(value) for _, _, value in own.values()}
    for module in model.modules():
        for value in vars(module).values():
            # What was computed with gradients, which torch would not copy.
            if isinstance(value, Tensor) and value.grad_fn is not None:
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise EnsembleError(
            f"The model must be one that copy.deepcopy copies. Received: {type(model).__name__}, "
            f"and {type(error).__name__}: {error}; {_REMEDY}"
        ) from error


def put_state(copied: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors, by the plain model's names, into a copy, which is then ready to predict.

    By the module's own means, so that whatever it derives from its weights is
    derived anew: in `train()`, what was merged into other weights is parted and
    caches are emptied; in `eval()`, it is merged again.

    Raises:
        EnsembleError: a name of the state that no module holds.
    """
    copied.train()
    names = {plain_name(name): name for name in copied.state_dict(keep_vars=True)}
    state = {names[plain]: value for plain, value in tensors.items()}
    for prefix, module in copied.named_modules():
        if may_derive(module):  # and write into its weights, which are to stay as they were read
            for name in state:
                if name.startswith(f"{prefix}." if prefix else ""):
                    state[name] = state[name].clone()
    unknown = copied.load_state_dict(state, strict=False, assign=True).unexpected_keys
    if unknown:
        raise EnsembleError(
            "The model must hold the tensors of its state under their names. "
            f"Received: {unknown[0]!r} in the state, which no module holds"
        )
    copied.eval()


def drop_state(copied: nn.Module) -> None:
    """Let go of the tensors in a copy."""
    for _, (module, key, value) in _slots(copied):
        setattr(module, key, _bare(value))


def may_derive(module: nn.Module) -> bool:
    """Whether a module by itself may keep something that it makes of its weights."""
    kind = type(module)
    return (
        kind.train is not nn.Module.train
        or kind.eval is not nn.Module.eval
        or bool(module._load_state_dict_post_hooks)
    )


def _slots(model: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, str, Tensor]]]:
    """Where each tensor of the state is held, by its name: the module, and the name in it."""
    state = model.state_dict(keep_vars=True)
    for prefix, module in model.named_modules(remove_duplicate=False):
        of_module = module.named_parameters(recurse=False, remove_duplicate=False)
        for key, value in (
            *of_module,
            *module.named_buffers(recurse=False, remove_duplicate=False),
        ):
            name = f"{prefix}.{key}" if prefix else key
            if name in state:
                yield name, (module, key, value)


def _bare(value: Tensor) -> Tensor:
    bare = torch.empty_like(value, device="meta")
    if isinstance(value, nn.Parameter):
        return nn.Parameter(bare, requires_grad=value.requires_grad)
    return bare


def _refuse_closures(model: nn.Module, own: list[Any]) -> None:
    """Refuse functions that a copy would share with the model, and that look at the model."""
    known = {id(each) for each in own}
    for name, module in model.named_modules():
        if hasattr(module, "_orig_mod"):  # torch.compile makes its function anew for a copy
            continue
        held = [*vars(module).values(), *module._forward_hooks.values()]
        held += module._forward_pre_hooks.values()
        for value in held:
            inner = value.values() if isinstance(value, dict) else value
            several = isinstance(value, dict | list | tuple)
            for each in inner if several else (value,):
                if isinstance(each, FunctionType) and _looks_at(each, known, set()):
                    raise EnsembleError(
                        "The model must hold no function that looks at the model by another way "
                        "than its arguments, since a copy would look at the model's own weights. "
                        f"Received: {each.__qualname__} in {name or 'the model'!r}; {_REMEDY}"
                    )


def _looks_at(function: FunctionType, known: set[int], seen: set[int]) -> bool:
    seen.add(id(function))
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:  # it is empty yet
            continue
        if id(content) in known:
            return True
        fresh = isinstance(content, FunctionType) and id(content) not in seen
        if fresh and _looks_at(content, known, seen):
            return True
    return False
