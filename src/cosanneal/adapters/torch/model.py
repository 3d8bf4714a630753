"""A torch module as an ensemble takes it: members are loaded into copies of its structure.

The user's own module is only looked at. A copy takes no memory for the weights: it
has tensors without data, in whose place a member's are put.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from ...core.errors import EnsembleError
from ...ensemble.model import Batch, free_host_memory
from ...ensemble.predict.batches import Batches
from ...snapshots.file import Layout
from .state import (
    bare_copy,
    drop_state,
    dtype_name,
    is_shard,
    may_derive,
    plain_name,
    put_state,
    unwrapped,
)
from .statistics import estimate, moving_layers

_CPU: Final = torch.device("cpu")


class MemberWeights(dict[str, Tensor]):
    """A member's tensors by the plain model's names, and the copy of the model that has them."""

    __slots__ = ("__weakref__", "copied")

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors)
        self.copied: nn.Module | None = None

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return next((each.device for each in self.values()), _CPU)


class _Tensor(NamedTuple):
    """What is to be known of a tensor of the model's state."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


class TorchModel:
    """A module that members can be loaded into; see `cosanneal.ensemble.Model`.

    Args:
        model: the module, whose tensors and place the members must fit; or a
            function that builds one, for a module that cannot be copied.

    Raises:
        EnsembleError: neither, or a module that cannot be copied.
    """

    framework = "pt"

    def __init__(self, model: nn.Module | Callable[[], nn.Module]) -> None:
        if not callable(model):
            raise EnsembleError(
                "Argument `model` must be a torch.nn.Module, or a function that builds one. "
                f"Received: {type(model).__name__}"
            )
        self.model = model
        # Two threads may have the same member to run.
        self._lock = threading.RLock()
        self._built: dict[str, _Tensor] = {}
        self._renew()

    def layout(self) -> Layout:
        return {name: (each.shape, dtype_name(each.dtype)) for name, each in self._state().items()}

    def place(self) -> object:
        return tuple((each.device, each.dtype) for each in self._state().values())

    def load(self, tensors: Mapping[str, Tensor]) -> MemberWeights:
        with self._lock:
            if self.place() != self._place:
                self._renew()  # for what is no state, but lies where the model was
        own = self._state()
        return MemberWeights({name: value.to(own[name].device) for name, value in tensors.items()})

    @contextmanager
    def running(self) -> Iterator[Callable[[MemberWeights, Batch], Tensor]]:
        with self._lock, torch.no_grad():
            yield self._run

    def stack(self, members: Sequence[Callable[[], MemberWeights]]) -> Callable[[Batch], Tensor]:
        copied = self._copied()
        derives = any(map(may_derive, copied.modules()))
        stacked: dict[str, Tensor] = {}
        for i, load in enumerate(members):
            put_state(copied, load())
            # As they stand in the copy, where a layer may have merged some into others.
            for name, value in copied.state_dict().items():
                if name not in stacked:
                    stacked[name] = value.new_empty((len(members), *value.shape))
                stacked[name][i].copy_(value)
        drop_state(copied)
        device = self._device()
        compared = not derives

        def one(weights: dict[str, Tensor], *batch: Tensor) -> Tensor:
            # Tied tensors stand in a snapshot under each of their names.
            output = torch.func.functional_call(copied, weights, batch, tie_weights=False)
            return _one_tensor(output)

        def run(batch: Batch) -> Tensor:
            nonlocal compared
            if derives:  # what was kept of the call before is forgotten
                copied.train().eval()
            every = torch.func.vmap(one, in_dims=(0, *(None for _ in batch)))
            outputs: Tensor = every(stacked, *(each.to(device) for each in batch))
            if not compared:
                _compare(outputs[0], self._run(members[0](), batch))
                compared = True
            return outputs

        return run

    def batches(
        self, x: Any, batch_size: int | None, *, training: bool = False, name: str = "x"
    ) -> Batches:
        return Batches(
            x,
            batch_size=batch_size,
            arrays=Tensor,
            convert=torch.as_tensor,
            training=training,
            name=name,
        )

    def join(self, outputs: Sequence[Tensor]) -> Tensor:
        return outputs[0] if len(outputs) == 1 else torch.cat(list(outputs))

    def wait(self, outputs: object) -> None:  # noqa: ARG002
        device = self._device()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()

    def free_memory(self) -> int | None:
        device = self._device()
        if device.type == "cuda":
            return torch.cuda.mem_get_info(device)[0]
        return free_host_memory() if device.type == "cpu" else None

    def running_statistics(self, members: Sequence[Callable[[], MemberWeights]]) -> list[str]:
        return moving_layers(self._pattern, members)

    def estimate(
        self, weights: MemberWeights, layers: Sequence[str], batches: Batches
    ) -> MemberWeights:
        with self.running() as run:
            found = estimate(
                self._having(weights), weights, layers, batches, lambda batch: run(weights, batch)
            )
        return MemberWeights(found)

    def same_randomness(self) -> AbstractContextManager[object]:
        return torch.random.fork_rng(devices=[])  # a pass over a DataLoader draws a seed

    def export(self, weights: MemberWeights) -> dict[str, Tensor]:
        names = {plain_name(name): name for name in self._pattern.state_dict(keep_vars=True)}
        return {names[plain]: value for plain, value in weights.items()}

    def _run(self, weights: MemberWeights, batch: Batch) -> Tensor:
        copied, device = self._having(weights), weights.device
        return _one_tensor(copied(*(each.to(device) for each in batch)))

    def _having(self, weights: MemberWeights) -> nn.Module:
        """A copy of the model that has the weights, for as long as there are any of them."""
        if weights.copied is None:
            copied = self._spare.pop() if self._spare else self._copied()
            put_state(copied, weights)
            weights.copied = copied
            weakref.finalize(weights, _give_back, copied, self._spare).atexit = False
        return weights.copied

    def _renew(self) -> None:
        """Make the pattern of all copies, of the model as it is now."""
        if isinstance(self.model, nn.Module):
            for name, value in unwrapped(self.model).state_dict(keep_vars=True).items():
                if isinstance(value, Tensor) and (value.is_meta or is_shard(value)):
                    what = "without data" if value.is_meta else "a shard"
                    raise EnsembleError(
                        "The model's tensors must be whole in this process, so that members' have "
                        f"a place. Received: {name!r}, {what}; give a model that has its weights, "
                        "or a function that builds one"
                    )
            self._pattern = bare_copy(unwrapped(self.model))
        else:
            self._pattern = self._copied()
        # A new list, for what comes back of the old copies is of no use any more.
        self._spare: list[nn.Module] = []
        self._place = self.place()

    def _copied(self) -> nn.Module:
        """A copy without a member."""
        if isinstance(self.model, nn.Module):
            return copy.deepcopy(self._pattern)
        built = self.model()
        if not isinstance(built, nn.Module):
            raise EnsembleError(
                "Argument `model` must be a torch.nn.Module, or a function that builds one. "
                f"Received: a function that returns a {type(built).__name__}"
            )
        built = unwrapped(built)
        self._built = self._built or _state_of(built)
        drop_state(built)
        return built

    def _state(self) -> dict[str, _Tensor]:
        """The tensors of the model's state, by the plain model's names, as they are now."""
        return (
            _state_of(unwrapped(self.model)) if isinstance(self.model, nn.Module) else self._built
        )

    def _device(self) -> torch.device:
        return next((each.device for each in self._state().values()), _CPU)


def _state_of(module: nn.Module) -> dict[str, _Tensor]:
    return {
        plain_name(name): _Tensor(tuple(value.shape), value.dtype, value.device)
        for name, value in module.state_dict(keep_vars=True).items()
        if isinstance(value, Tensor)  # extra state, which no snapshot holds
    }


def _give_back(copied: nn.Module, spare: list[nn.Module]) -> None:
    drop_state(copied)
    spare.append(copied)


def _one_tensor(output: Any) -> Tensor:
    if not isinstance(output, Tensor):
        raise EnsembleError(
            "The model must return one tensor. Received: "
            f"{type(output).__name__}; wrap the model so that it returns the tensor to average"
        )
    return output


def _compare(stacked: Tensor, alone: Tensor) -> None:
    """Refuse a member's output that is another when it is run with others."""
    away = (stacked.double() - alone.double()).abs().max() if stacked.numel() else 0.0
    if not away <= 1e-3 * alone.double().abs().max().clamp(min=1e-6):
        raise EnsembleError(
            "The model must keep nothing that it makes of its weights, for mode='stacked'. "
            "Received: other outputs of a member when it is run with others; give mode='resident'"
        )
