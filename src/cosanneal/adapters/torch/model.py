"""A torch module as an ensemble takes it: members are loaded into a copy of its structure.

The user's own module is only looked at. The copy takes no memory for its weights: it
has a member's, and without one one number for each tensor.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ...core.errors import EnsembleError
from ...ensemble.arrays import as_numpy
from ...ensemble.calls import explained_call
from ...ensemble.model import Batch, Forward, Pick, check_forward, free_host_memory
from ...ensemble.predict.batches import Batches, Whole, map_arrays, samples_of
from ...ensemble.predict.outputs import Reading
from ...ensemble.structure import leaves, map_leaves
from ...snapshots.file import Layout
from ...snapshots.ranks import Ranks
from .capture import ModuleCapture
from .lent import Dealing, LentModel, OwnCapture, is_sharded, unsharded
from .share import share_of
from .state import dtype_name, is_shard, plain_name, unwrapped
from .statistics import estimate, moving_layers
from .working import WorkingCopy, slots_of

_CPU: Final = torch.device("cpu")

# Of so large a share of a batch at most, a batch of its own is made. At three quarters, with the
# copy, it took 0.66 to 0.89 of the time of the whole: measured on one thread with perceptrons of
# 784 numbers, a convolutional network and a transformer of 32 or 256 samples, and a perceptron of
# 64 numbers and 256 samples. At nine tenths it was 0.68 to 1.0, and nothing was gained with a
# single linear layer at any share.
_WORTH: Final = 0.75

_FILES: Final = "average the files, by cosanneal.ensemble.average_snapshots, and load that"


class TorchModel:
    """A module that members can be loaded into; see `cosanneal.ensemble.Model`.

    Attributes:
        copy: the copy that they are loaded into.
        placed: where the model was, as `place` says it, when it was copied.
        ranks: the processes that load and run members together; see `Model`.

    Args:
        model: the module, whose tensors and place the members must fit; or a
            function that builds one, for a module that cannot be copied.
        forward: runs the module on a batch as it comes; by default its arguments are
            taken out of the batch, as `Batches` says.

    A module in shards is none to be copied: members' shards are lent to it, and it has its own
    again after each use; see `LentModel`.

    Raises:
        EnsembleError: neither, or a module that cannot be copied.
    """

    framework = "pt"

    def __init__(
        self, model: nn.Module | Callable[[], nn.Module], forward: Forward[nn.Module] | None = None
    ) -> None:
        if not callable(model):
            raise EnsembleError(
                "Argument `model` must be a torch.nn.Module, or a function that builds one. "
                f"Received: {type(model).__name__}"
            )
        self.forward: Forward[nn.Module] | None = check_forward(forward)
        self.model = model
        # There is one copy, which has a member at a time.
        self._lock = threading.RLock()
        self._present: dict[str, Tensor] | None = None
        self.placed: object = None
        self._source: nn.Module | None = None  # of a function that builds the model
        self._renew()

    def __reduce__(self) -> tuple[Any, ...]:
        return TorchModel, (self.model, self.forward)

    def layout(self) -> Layout:
        state = self._state()
        return {name: (tuple(each.shape), dtype_name(each.dtype)) for name, each in state.items()}

    def same_as(self, other: Any) -> bool:
        same = isinstance(other, TorchModel) and other.model is self.model
        return same and other.forward is self.forward

    def place(self) -> object:
        return tuple((each.device, each.dtype) for each in self._state().values())

    def own(self) -> ModuleCapture:
        if isinstance(self.copy, LentModel):
            return OwnCapture(self.copy)
        if isinstance(self.model, nn.Module):
            return ModuleCapture(self.model)
        if self._source is None:  # the working copy holds members' weights
            with torch.random.fork_rng(devices=[]):
                self._source = self.model()
        return ModuleCapture(self._source)

    def is_array(self, thing: object) -> bool:
        return isinstance(thing, Tensor)

    def output_names(self) -> Sequence[str]:
        return ()

    def says_outputs(self, output: Any = None) -> Reading | None:
        if output is not None:
            return None
        model = self.model if isinstance(self.model, nn.Module) else self.copy.module
        last: Any = unwrapped(model)
        # What runs one module after the other, and does nothing else, ends with its last.
        while isinstance(last, nn.Sequential) and len(last) and not _is_hooked(last):
            if type(last).forward is not nn.Sequential.forward:
                return None
            last = last[-1]
        kind = type(last)
        if _is_hooked(last):
            return None
        if kind in (nn.Softmax, nn.LogSoftmax) and last.dim:  # without one, it depends
            return Reading("probabilities" if kind is nn.Softmax else "logits", last.dim)
        if kind is nn.Softmax2d:
            return Reading("probabilities", -3)
        return Reading("probabilities", None) if kind is nn.Sigmoid else None

    def load(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.place() != self.placed:
            with self._lock:
                self._renew()  # for what is no state, but lies where the model was
        if isinstance(self.copy, LentModel):
            with self._lock:
                return self.copy.load(tensors)
        own = self._state()
        return {name: value.to(own[name].device) for name, value in tensors.items()}

    @contextmanager
    def running(self, pick: Pick) -> Iterator[Callable[[dict[str, Tensor], Batch], Any]]:
        with self._lock, torch.no_grad(), self.copy.in_use():
            try:
                yield lambda weights, batch: self.copy.settled(pick(self._run(weights, batch)))
            finally:
                self._present = None

    def stack(
        self, members: Sequence[Callable[[], dict[str, Tensor]]], pick: Pick
    ) -> Callable[[Batch], Any]:
        working, module = (
            unsharded(self.copy, "mode='stacked'", "give mode='resident'"),
            self.copy.module,
        )
        called = _Called(module, self._call)
        stacked: dict[str, Tensor] = {}
        for i, load in enumerate(members):
            self._put(load())
            # As they stand in the copy, where a layer may have merged some into others.
            for name, value in called.state_dict().items():
                if name not in stacked:
                    stacked[name] = value.new_empty((len(members), *value.shape))
                stacked[name][i].copy_(value)
        compared = False

        def run(batch: Batch) -> Any:
            nonlocal compared
            given = _moved(batch, self._device)  # which forward may write to

            def one(weights: dict[str, Tensor]) -> Any:
                # Tied tensors stand in a snapshot under each of their names.
                output = torch.func.functional_call(called, weights, (given,), tie_weights=False)
                return pick(output)

            if working.derives:  # what was kept of the call before is forgotten
                self._present = None
                module.train()
                module.eval()
            outputs = torch.func.vmap(one)(stacked)
            if not compared and samples_of(batch) != 0:  # of no samples there is nothing to see
                # Which also finds weights that are not reached through the modules.
                alone = pick(self._run(members[0](), batch))
                for each, own in zip(leaves(outputs), leaves(alone), strict=True):
                    _compare(each[0], own)
                compared = True
                working.alike = True
            return outputs

        return run

    def batches(
        self, x: Any, batch_size: int | None, *, training: bool = False, name: str = "x"
    ) -> Batches:
        share = share_of(x, name)
        if share is not None and isinstance(self.copy, LentModel):
            self.copy.check_dealing(name)
            share.ranks = Dealing(share.ranks, self.copy)
        return Batches(
            x,
            batch_size=batch_size,
            arrays=Tensor,
            convert=lambda array: _converted(array, list(self._state().values())),
            training=training,
            name=name,
            whole=self.forward is not None,
            share=share,
            rows=_rows,
            # Of rows dealt out, all processes run as many batches, and so all members.
            linked=share is not None and isinstance(self.copy, LentModel),
        )

    def join(self, outputs: Sequence[Tensor]) -> Tensor:
        return outputs[0] if len(outputs) == 1 else torch.cat(list(outputs))

    def wait(self, outputs: object) -> None:  # noqa: ARG002
        device = self._device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()

    def free_memory(self) -> int | None:
        device = self._device
        if isinstance(self.copy, LentModel):
            return None  # which would be another in each process
        if device.type == "cuda":
            return torch.cuda.mem_get_info(device)[0]
        return free_host_memory() if device.type == "cpu" else None

    def running_statistics(
        self, members: Sequence[Callable[[], dict[str, Tensor]]]
    ) -> Sequence[str]:
        return moving_layers(unsharded(self.copy, "average_weights", _FILES).module, members)

    def estimate(
        self, weights: dict[str, Tensor], layers: Sequence[str], batches: Iterable[Batch]
    ) -> dict[str, Tensor]:
        with self.running(lambda output: output) as run:
            self._put(weights)
            return estimate(
                self.copy.module, weights, layers, batches, lambda batch: run(weights, batch)
            )

    def same_randomness(self) -> AbstractContextManager[object]:
        return torch.random.fork_rng(devices=[])  # a pass over a DataLoader draws a seed

    def export(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        names = unsharded(self.copy, "average_weights", _FILES).names
        return {names[plain]: value for plain, value in weights.items()}

    def _run(self, weights: dict[str, Tensor], batch: Batch) -> Any:
        self._put(weights)
        if isinstance(self.copy, LentModel):
            self.copy.meet(batch)
        batch = _moved(batch, self._device)
        unwatched = self.copy.watched or samples_of(batch) == 0
        alone = isinstance(self.model, nn.Module)  # of one that was built, nothing else is there
        own = None if unwatched else lambda: _others(self._state() if alone else {}, weights)
        return self.copy.run(lambda module: self._call(module, batch), own)

    def _call(self, module: nn.Module, batch: Batch) -> Any:
        if isinstance(batch, Whole):
            return cast(Forward[nn.Module], self.forward)(module, batch.given)
        named = isinstance(batch, Mapping)
        args, kwargs = ((), batch) if named else (batch, {})
        way = "a dict's entries by keyword" if named else "a tuple's entries in order"
        with explained_call(
            module.forward,
            args,
            kwargs,
            title=f"{type(module).__name__}.forward",
            way=way,
            remedy="the ensemble forward=lambda model, batch: model(batch)",
        ):
            return module(*args, **kwargs)

    def _put(self, weights: dict[str, Tensor]) -> None:
        if weights is not self._present or isinstance(self.copy, LentModel):
            self._present = None
            self.copy.put(weights)
            self._present = weights

    def _renew(self) -> None:
        """Make the copy, of the model as it is now."""
        sharded = is_sharded(self.model)
        self.copy: WorkingCopy | LentModel = (
            LentModel(cast(nn.Module, self.model)) if sharded else copied(self.model)
        )
        built = not isinstance(self.model, nn.Module)
        model = self.copy.module if built else unwrapped(cast(nn.Module, self.model))
        state, slots = model.state_dict(keep_vars=True), slots_of(model)
        # By the plain model's names; also what a hook makes, but no extra state, which no
        # snapshot holds. The objects may be others when the model has been trained or moved.
        self._slots = {
            plain_name(name): slots.get(name, ({name: value}, name))
            for name, value in state.items()
            if isinstance(value, Tensor)
        }
        self._present = None
        # They load and run members together, where each has a part of the model.
        self.ranks: Ranks = self.copy.ranks
        self.placed = self.place()
        self._device: torch.device = next((each.device for each in self._state().values()), _CPU)

    def _state(self) -> dict[str, Tensor]:
        """The tensors of the model's state, by the plain model's names, as they are now."""
        if isinstance(self.copy, LentModel):
            return self.copy.tensors
        return {name: held[key] for name, (held, key) in self._slots.items()}


@torch.inference_mode(mode=False)  # whose tensors could not be used outside of it
def copied(model: nn.Module | Callable[[], nn.Module]) -> WorkingCopy:
    """A copy of a model as it is now, which has none of its weights; or what a function builds.

    Raises:
        EnsembleError: there can be none, or weights that are not whole in this process.
    """
    if not isinstance(model, nn.Module):
        made = WorkingCopy.built(model)
        if is_sharded(made.module):
            raise EnsembleError(
                "A function given as `model` must build a model that is not sharded. Received: one "
                "in shards; give the model itself, which has its own weights again after each use"
            )
        return made
    model = unwrapped(model)
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor) and (value.is_meta or is_shard(value)):
            what = "without data" if value.is_meta else "a shard"
            raise EnsembleError(
                "The model's tensors must be whole in this process, so that members' have "
                f"a place. Received: {name!r}, {what}; give a model that has its weights, "
                "or a function that builds one"
            )
    return WorkingCopy.of(model)


def _is_hooked(module: nn.Module) -> bool:
    """Whether a hook may make another output of a module's."""
    return bool(module._forward_hooks) or "forward" in vars(module)


def _others(state: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's own tensors but those that some weights share."""
    return {
        name: each
        for name, each in state.items()
        if name not in weights or weights[name].data_ptr() != each.data_ptr()
    }


class _Called(nn.Module):
    """A function of a module and a batch as a module, whose tensors torch.func exchanges."""

    def __init__(self, module: nn.Module, call: Callable[[nn.Module, Any], Any]) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self, batch: Any) -> Any:
        """What the function gives."""
        return self.call(self.module, batch)


def _rows(batch: Batch, places: NDArray[np.intp]) -> Batch | None:
    """Some samples of a batch as one of its own, where these are few enough for it."""
    for each in leaves(batch):
        if not isinstance(each, Tensor) or each.layout != torch.strided or each.is_nested:
            return None
        if len(places) > _WORTH * len(each):
            return None
    at = torch.from_numpy(places)
    return map_arrays(lambda each: each.index_select(0, at.to(each.device)), batch)


def _moved(batch: Batch, device: torch.device) -> Batch:
    """A batch with its tensors, and all else that can be moved, on a device."""

    def moved(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return leaf.to(device)
        if not callable(getattr(leaf, "to", None)):
            return leaf
        # Some are moved in place, such as a graph, and the loader may hold it.
        own: Any = leaf if _is_packed(leaf) else copy.copy(leaf)
        return own.to(device)

    if type(batch) is tuple:  # of several arguments, most of which are tensors
        return tuple(
            each.to(device) if isinstance(each, Tensor) else map_leaves(moved, each, _is_packed)
            for each in batch
        )
    return map_leaves(moved, batch, _is_packed)


def _converted(array: Any, like: Sequence[Tensor]) -> Any:
    """An array of another kind as a tensor: floats in the dtype of the first such one of `like`.

    numpy makes float64 of what has no dtype of its own; tensors have the one that
    their owner gave them.
    """
    values = as_numpy(array)
    if values.dtype.kind == "V" and values.dtype.isbuiltin == 2:  # of ml_dtypes
        values = values.astype(np.float32)
    if values.dtype.kind not in "biufc":
        return array
    # Of one that must not be written to, torch would warn.
    tensor = torch.from_numpy(values if values.flags.writeable else values.copy())
    if not tensor.is_floating_point():
        return tensor
    return tensor.to(next((each.dtype for each in like if each.is_floating_point()), None))


def _is_packed(node: Any) -> bool:
    """Whether it is packed sequences, a named tuple that knows what to move of itself."""
    return isinstance(node, PackedSequence)


def _compare(stacked: Tensor, alone: Tensor) -> None:
    """Refuse a member's output that is another when it is run with others."""
    if not stacked.numel():
        return
    away = (stacked.double() - alone.double()).abs().max()
    # In half precision, rounding alone makes a difference.
    share = max(1e-3, 8 * torch.finfo(alone.dtype).eps if alone.is_floating_point() else 0.0)
    if not away <= share * alone.double().abs().max().clamp(min=1e-6):
        raise EnsembleError(
            "The model must keep nothing that it makes of its weights, for mode='stacked'. "
            "Received: other outputs of a member when it is run with others; give mode='resident'"
        )
