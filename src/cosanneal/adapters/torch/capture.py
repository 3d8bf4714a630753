"""How the state of a module is captured: its tensors, and held memory for a copy of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...core.errors import SnapshotError
from ...snapshots.capture import Gathered, HostBuffers, Parts
from ...snapshots.file import Layout, TensorBytes, check_tensor
from ...snapshots.part import chosen_by
from .parts import Parting, kept_alike
from .shards import can_be_gathered, is_cut, local_part, refuse_flat, whole
from .state import dtype_name, is_shard, plain_name, unwrapped
from .zero import is_parted, refuse_parts, shape_of


class ModuleCapture:
    """The state of a module: parameters and buffers, by the plain model's names.

    What is sharded over processes (DTensors, as of FSDP2 and of tensor parallelism; the
    tensors of DeepSpeed's ZeRO-3) is gathered one by one, by all of them at the same time.

    Args:
        model: the module.
        writes: whether what is gathered is for this process; it goes to the host's memory.

    Raises:
        SnapshotError: no module, or a state that cannot be recorded; with the tensor's name.
    """

    framework = "torch"
    version: str = str(torch.__version__)

    def __init__(self, model: nn.Module, *, writes: bool = True) -> None:
        if not isinstance(model, nn.Module):
            raise SnapshotError(
                f"Argument `model` must be a torch.nn.Module. Received: {type(model).__name__}"
            )
        refuse_flat(model)
        refuse_parts(model)
        self._model, self._writes, self._parting = model, writes, Parting()
        # Now, and not at the end of the first cycle.
        for name, (_, dtype) in self.layout().items():
            check_tensor(name, dtype)

    def tensors(
        self, names: Collection[str] | None = None, *, cut: Callable[[Any], Any] | None = None
    ) -> Mapping[str, Tensor]:
        """The tensors as they are, or pieces of them.

        What is sharded is gathered when it is asked for, so that one is in memory at a time.
        """
        found = {
            name: _dense(name, value)
            for name, value in self._state().items()
            if names is None or name in names
        }
        if any(is_cut(value) or is_parted(value) for value in found.values()):
            gathered = Gathered(found, partial(whole, writes=self._writes))
            return gathered if cut is None else {n: cut(value) for n, value in gathered.items()}
        return found if cut is None else {name: cut(value) for name, value in found.items()}

    def chosen(self, which: Literal["trainable"] | Callable[[str], bool]) -> set[str]:
        """What is asked for, with what is tied to it."""
        state = self._state()
        if which == "trainable":
            # A buffer of more axes is hardly a statistic, and may hold frozen weights.
            buffers = {
                name
                for name, value in unwrapped(self._model).named_buffers(remove_duplicate=False)
                if value.ndim <= 1
            }
            chosen = {name for name, value in state.items() if value.requires_grad}
            chosen |= state.keys() & set(map(plain_name, buffers))
        else:
            chosen = chosen_by(which, state)
        tied = {id(state[name]) for name in chosen}
        return {name for name, value in state.items() if id(value) in tied}

    def stamps(self, names: Collection[str]) -> dict[str, object]:
        """What torch counts of the changes in place."""
        return {
            name: (local_part(value).data_ptr(), value._version)
            for name, value in self._state().items()
            if name in names and not value.is_inference()
        }

    def _state(self) -> dict[str, Any]:
        """The state's own objects, by the plain model's names."""
        state = unwrapped(self._model).state_dict(keep_vars=True)
        return {plain_name(name): value for name, value in state.items()}

    def layout(self) -> Layout:
        """Their shapes and dtypes."""
        dense = {name: _dense(name, value) for name, value in self._state().items()}
        return {name: (shape_of(each), dtype_name(each.dtype)) for name, each in dense.items()}

    def parts(self) -> Parts:
        """The parts that the processes hold; see `Parting.parts`."""
        state = {name: _checked(name, value) for name, value in self._state().items()}
        alike = kept_alike(self._model)
        names = {name for name, value in state.items() if id(value) in alike}
        with torch.no_grad():
            return self._parting.parts(state, self.layout(), names)

    def buffers(self) -> HostBuffers:
        """Held tensors, pinned where they are for those of CUDA devices."""
        return PinnedBuffers()


class PinnedBuffers(HostBuffers):
    """Held tensors; pinned ones, filled by a stream of their own, for those on CUDA devices."""

    def __init__(self) -> None:
        super().__init__()
        # By name, with the bytes and whether they are pinned.
        self._tensors: dict[str, tuple[Tensor, TensorBytes, bool]] = {}
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        self._events: list[torch.cuda.Event] = []

    @torch.inference_mode(mode=False)  # whose tensors nobody could fill again outside of it
    def copy(self, weights: Mapping[str, Tensor]) -> dict[str, TensorBytes]:
        """Copy the weights, as of `HostBuffers.copy`; a device's are then under way."""
        for name in self._tensors.keys() - weights.keys():
            del self._tensors[name]
        on_device: dict[torch.device, list[str]] = {}
        for name, value in weights.items():
            held = self._fitting(name, value)
            if value.is_cuda:
                on_device.setdefault(value.device, []).append(name)
            else:
                held.copy_(value)
            del value  # or there would be two while the next one is gathered
        for device, names in on_device.items():
            self._copy_from(device, {name: weights[name] for name in names})
        return {name: data for name, (_, data, _) in self._tensors.items()}

    def arrive(self) -> None:
        """Wait for what devices copy."""
        while self._events:
            self._events.pop().synchronize()

    def _fitting(self, name: str, value: Tensor) -> Tensor:
        """The held tensor for another, made anew if there is none that fits."""
        held, _, pinned = self._tensors.get(name, (None, None, False))
        if (
            held is None
            or (held.shape, held.dtype) != (value.shape, value.dtype)
            or pinned != value.is_cuda
        ):
            dtype = dtype_name(value.dtype)
            check_tensor(name, dtype)
            self._tensors.pop(name, None)
            # On the host, whatever torch.set_default_device says.
            held = torch.empty(
                value.shape, dtype=value.dtype, device="cpu", pin_memory=value.is_cuda
            )
            flat = held.view(-1)
            data = flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")
            described = TensorBytes(dtype, tuple(value.shape), data)
            self._tensors[name] = held, described, value.is_cuda
        return held

    def _copy_from(self, device: torch.device, weights: Mapping[str, Tensor]) -> None:
        """Have a device copy its tensors, without the host waiting.

        On the device, the copy waits for the update that was queued last, and
        the next update for the copy.
        """
        training = torch.cuda.current_stream(device)
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        stream = self._streams[device]
        stream.wait_stream(training)
        with torch.cuda.stream(stream):
            for name, value in weights.items():
                # Its memory must not be given to others before it was read.
                value.record_stream(stream)
                # Conjugated here: after the copy, torch would not wait for it to arrive.
                plain = value.resolve_conj().resolve_neg()
                self._tensors[name][0].copy_(plain, non_blocking=True)
            # A thread that waits for it sleeps, in place of spinning.
            event = torch.cuda.Event(blocking=True)
            event.record(stream)
        training.wait_event(event)
        self._events.append(event)


def _dense(name: str, value: object) -> Tensor:
    """A tensor of the model's state, without what autograd knows of it."""
    found = _checked(name, value)
    return found if is_parted(found) else found.detach()


def _checked(name: str, value: object) -> Tensor:
    """A tensor of the model's state, which must be one that can be copied as bytes."""
    if not isinstance(value, Tensor):
        raise SnapshotError(
            f"The model's state must consist of tensors. Received: {name!r}, a "
            f"{type(value).__name__}; keep extra state out of state_dict(), or make it a buffer"
        )
    if nn.parameter.is_lazy(value):
        raise SnapshotError(
            f"The model must be built before it is recorded. Received: {name!r} is not "
            "initialized; run a batch through the lazy modules first"
        )
    if value.is_meta:
        raise SnapshotError(
            f"The model's tensors must have data. Received: {name!r} on the meta device; load or "
            "initialize the weights first"
        )
    if is_shard(value) and not can_be_gathered(value):
        raise SnapshotError(
            "The model's tensors must be whole in this process. Received: "
            f"{name!r}, a shard; record a model that is not sharded, or gather its state first"
        )
    if value.layout != torch.strided or value.is_quantized:
        raise SnapshotError(
            f"The model's tensors must be dense. Received: {name!r} of layout {value.layout}"
        )
    return value
