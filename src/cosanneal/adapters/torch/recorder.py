"""The recorder of torch modules: how their state is captured, and what counts the updates."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor, nn

from ...core.errors import ScheduleError, SnapshotError
from ...core.schedule import Schedule
from ...snapshots.capture import EachStep, HostBuffers
from ...snapshots.file import Layout, TensorBytes, check_tensor
from ...snapshots.recorder import Metrics, Recorder, RecorderOptions
from ...snapshots.store import SnapshotStore
from .scheduler import CyclicCosineLR
from .state import dtype_name, is_shard, plain_name, unwrapped


class SnapshotRecorder(Recorder):
    """Records the model's weights and buffers at the end of every cycle.

    The weights are copied when the cycle ends, and written in the background:
    see `cosanneal.snapshots.recorder.Recorder`. From a CUDA device the copy goes to
    pinned memory on a stream of its own, and only the device waits for it.

    Names are those of the plain model: what torch.compile, DataParallel and
    DistributedDataParallel put before them is taken off.

    Args:
        folder: the folder of the snapshots; made if it is not there.
        model: the model. Its whole state is recorded: parameters and buffers.
        schedule: the schedule; or the CyclicCosineLR, whose step is then
            followed, so that resuming the scheduler resumes the recorder.
        options: `resume_from` (not needed where the scheduler's state is
            loaded), `overwrite`, `background`, `max_pending`, `on_error`, `keep_last`,
            `keep_best`, `metric` and `mode`, as Recorder has them.

    Raises:
        SnapshotError: the folder cannot be written to, or another recorder is
            writing to it; it holds snapshots, and the run is not resumed; or it
            was written under another schedule.

    Example:
        >>> import tempfile, torch
        >>> import cosanneal as ca
        >>> model = torch.nn.Linear(2, 1)
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> with SnapshotRecorder(tempfile.mkdtemp(), model, schedule) as recorder:
        ...     [recorder.step() for _ in range(6)]
        [False, False, True, False, False, True]
        >>> [snapshot.step for snapshot in recorder.store.list()]
        [3, 6]
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | SnapshotStore,
        model: nn.Module,
        schedule: Schedule | CyclicCosineLR,
        **options: Unpack[RecorderOptions],
    ) -> None:
        capture = ModuleCapture(model)
        if not isinstance(schedule, CyclicCosineLR):
            super().__init__(folder, schedule, capture, EachStep(), **options)
            return
        clock = SchedulerClock(schedule)
        done, given = clock.start(), options.get("resume_from")
        if done and given is not None and given != done:
            raise SnapshotError(
                "Argument `resume_from` must be the scheduler's step. "
                f"Received: resume_from={given}, and a scheduler that has done {done}; leave "
                "resume_from out"
            )
        if given is None and schedule.loads:
            options["resume_from"] = done
        super().__init__(folder, clock.schedule(), capture, clock, **options)

    def step(self, metrics: Metrics = None) -> bool:
        """Note that an update was done; call it after `optimizer.step()` and `scheduler.step()`.

        Args:
            metrics: the user's own numbers for the snapshot: a dict, or a
                function that returns one and is called only if a cycle ended.

        Returns:
            Whether a cycle ended and its snapshot was taken.

        Raises:
            SnapshotError: the weights or the metrics cannot be recorded; an
                earlier snapshot could not be written; or the recorder is closed.
        """
        return self.look(metrics)


class ModuleCapture:
    """The state of a module: parameters and buffers, by the plain model's names.

    Raises:
        SnapshotError: no module, or a state that cannot be recorded; with the tensor's name.
    """

    framework = "torch"
    version = str(torch.__version__)

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise SnapshotError(
                f"Argument `model` must be a torch.nn.Module. Received: {type(model).__name__}"
            )
        self._model = model
        # Now, and not at the end of the first cycle.
        for name, value in self.tensors().items():
            check_tensor(name, dtype_name(value.dtype))

    def tensors(self) -> dict[str, Tensor]:
        """The tensors as they are."""
        state = unwrapped(self._model).state_dict(keep_vars=True)
        return {plain_name(name): _dense(name, value) for name, value in state.items()}

    def layout(self) -> Layout:
        """Their shapes and dtypes."""
        return {
            name: (tuple(value.shape), dtype_name(value.dtype))
            for name, value in self.tensors().items()
        }

    def buffers(self) -> HostBuffers:
        """Held tensors, pinned where they are for those of CUDA devices."""
        return _PinnedBuffers()


class SchedulerClock:
    """Follows a scheduler's step, so that resuming the scheduler resumes the recorder."""

    def __init__(self, scheduler: CyclicCosineLR) -> None:
        self._scheduler = scheduler
        self._loads = scheduler.loads

    def schedule(self) -> Schedule:
        """The schedule whose cycles are followed.

        Raises:
            ScheduleError: parameter groups whose schedules have other cycles.
        """
        first = self._scheduler.schedules[0]
        layouts = [
            [(rule.count, rule.length, rule.growth, rule.rounding) for rule in each.rules]
            for each in self._scheduler.schedules
        ]
        if any(layout != layouts[0] for layout in layouts):
            raise ScheduleError(
                "The parameter groups' schedules must have the same cycles for a recorder to "
                "follow the scheduler. Received: schedules that differ; give the recorder the one "
                "to follow"
            )
        return first

    def start(self) -> int:
        """The updates that the scheduler has done."""
        return self.now(0)

    def loaded(self) -> int | None:
        """The step of a state that was loaded into the scheduler."""
        if self._loads == self._scheduler.loads:
            return None
        self._loads = self._scheduler.loads
        return self._scheduler.loaded_step

    def now(self, updates: int) -> int:  # noqa: ARG002
        """The updates that the scheduler has done."""
        return max(math.floor(self._scheduler.last_epoch), 0)


class _PinnedBuffers(HostBuffers):
    """Held tensors; pinned ones, filled by a stream of their own, for those on CUDA devices."""

    def __init__(self) -> None:
        super().__init__()
        # By name, with the bytes and whether they are pinned.
        self._tensors: dict[str, tuple[Tensor, TensorBytes, bool]] = {}
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        self._events: list[torch.cuda.Event] = []

    @torch.inference_mode(mode=False)  # whose tensors nobody could fill again outside of it
    def copy(self, weights: Mapping[str, Tensor]) -> dict[str, TensorBytes]:
        for name in self._tensors.keys() - weights.keys():
            del self._tensors[name]
        on_device: dict[torch.device, list[str]] = {}
        for name, value in weights.items():
            held = self._fitting(name, value)
            if value.is_cuda:
                on_device.setdefault(value.device, []).append(name)
            else:
                held.copy_(value)
        for device, names in on_device.items():
            self._copy_from(device, {name: weights[name] for name in names})
        return {name: data for name, (_, data, _) in self._tensors.items()}

    def arrive(self) -> None:
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
    if is_shard(value):
        raise SnapshotError(
            "The model's tensors must be whole in this process. Received: "
            f"{name!r}, a shard; record a model that is not sharded, or gather its state first"
        )
    if value.layout != torch.strided or value.is_quantized:
        raise SnapshotError(
            f"The model's tensors must be dense. Received: {name!r} of layout {value.layout}"
        )
    return value.detach()
