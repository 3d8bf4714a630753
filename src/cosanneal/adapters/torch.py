"""PyTorch: the scheduler, the snapshot recorder and the snapshot ensemble."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Unpack, cast

from ..core.errors import EnsembleError, MissingExtraError, ScheduleError, SnapshotError
from ..core.records import first_difference
from ..core.rules import Level, Phase, preceded
from ..core.schedule import Cycle, Schedule
from ..presets import torch_cosine_annealing, torch_warm_restarts

try:
    import torch
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import (
        CosineAnnealingLR,
        CosineAnnealingWarmRestarts,
        LinearLR,
        LRScheduler,
        SequentialLR,
    )

    from ..ensemble.arrays import narrow, widen
    from ..ensemble.averaged import Layers, Moments
    from ..ensemble.base import BaseEnsemble, Outputs, free_host_memory, lock_of
    from ..ensemble.batches import Batches
    from ..ensemble.pooling import Pooling
    from ..snapshots.file import TensorBytes, check_tensor
    from ..snapshots.recorder import BaseRecorder, Metrics, RecorderOptions, check_schedule
    from ..snapshots.store import Snapshot, SnapshotStore
    from ..snapshots.writer import HostBuffers
except ModuleNotFoundError as error:
    if error.name not in ("torch", "numpy", "safetensors"):
        raise
    raise MissingExtraError.for_extra(
        "torch", package=error.name, needed_by="cosanneal.adapters.torch"
    ) from error

# Older releases of torch do all within `step`, and note as the last rates the groups' very tensors.
_HANDS_OVER_TENSORS = not hasattr(LRScheduler, "_update_lr")

# So many steps pay for the look-up of the curve that rules them.
_SHORT_STRETCH = 256

_CPU = torch.device("cpu")
_STATISTICS = ("running_mean", "running_var")

__all__ = ["CyclicCosineLR", "SnapshotEnsemble", "SnapshotRecorder", "from_torch"]


class CyclicCosineLR(LRScheduler):
    """Sets each parameter group's rate from a schedule; step it after every optimizer step.

    `group["lr"] = schedule.rate(t) * initial_lr / max(initial_lr of all groups)`

    where `t` (`last_epoch`) counts the calls of `step()`. The group with the
    highest initial rate follows the schedule itself, to the last bit, and the
    others keep their ratio to it: the schedule's `max_lr` says what it says, and
    the optimizer's `lr` is only the ratio. With a list of schedules, one for
    each group, each group follows its own.

    A group added later joins at the next `step()`, with the ratio of its own
    `lr` to the highest initial rate the optimizer had when the scheduler was
    made. (With a list, append its schedule to `schedules`.)

    Args:
        optimizer: the optimizer. Rates that are tensors are filled in place.
        schedule: the schedule, or one for each parameter group.
        chainable: multiply the group's current rate by the ratio of two
            successive rates of the schedule, in place of setting it: for use
            under ChainedScheduler, so that factors of other schedulers stay.
            A factor survives a rate of 0.
        last_epoch: the number of the last update done, to go on from there on
            an optimizer at its initial rates; -1 starts. To resume from a
            checkpoint, `load_state_dict` is all that is needed.

    Raises:
        ScheduleError: no schedule, a list whose length is not the number of
            groups, or no group with a positive rate.

    Example:
        >>> import torch
        >>> import cosanneal as ca
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> scheduler = CyclicCosineLR(optimizer, schedule)
        >>> rates = []
        >>> for _ in range(4):
        ...     rates.append(optimizer.param_groups[0]["lr"])
        ...     optimizer.step()
        ...     scheduler.step()
        >>> [round(rate, 9) for rate in rates]
        [0.2, 0.15, 0.05, 0.2]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: Schedule | Sequence[Schedule],
        *,
        chainable: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        groups = optimizer.param_groups
        self.schedules: list[Schedule]
        # Whether every group follows the one schedule at its ratio.
        self._shared = not isinstance(schedule, list | tuple)
        if self._shared:
            self.schedules = [check_schedule(schedule)]
        else:
            self.schedules = [check_schedule(each) for each in cast(Sequence[Schedule], schedule)]
            if len(self.schedules) != len(groups):
                raise ScheduleError(
                    "Argument `schedule` must be one schedule, or a list with one for each of the "
                    f"optimizer's {len(groups)} parameter groups. Received: a list of "
                    f"{len(self.schedules)}"
                )
        initial = [float(group.get("initial_lr", group["lr"])) for group in groups]
        self._reference = max(initial)
        if self._shared and not self._reference > 0:
            raise ScheduleError(
                "The optimizer must have a parameter group with a positive rate, since a group's "
                f"rate is its ratio to the highest. Received: lr={initial}"
            )
        if last_epoch >= 0:
            for group in groups:  # torch asks for these, and would refuse a fresh optimizer
                group.setdefault("initial_lr", _copied(group["lr"]))
        self.chainable = chainable
        self._factors = [1.0] * len(groups)  # what other schedulers multiplied each rate by
        self._own: list[float] = []  # the rates of our own making, before those factors
        # How often a state was loaded, and at which step: a recorder that
        # follows the scheduler must not take the jump for a training run.
        self._loads = 0
        self._loaded_step = 0
        self._stretch: _Stretch | None = None
        self._last: list[float | Tensor] | None = None
        super().__init__(optimizer, last_epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        # What torch's `step` leaves to this method, and older releases do within `step`. Where
        # nothing changed since the last update but the step, the rates are all there is to do.
        stretch, step = self._stretch, self.last_epoch + 1
        if (
            stretch is not None
            and epoch is None
            and stretch.start <= step < stretch.stop
            and type(step) is int
            and self.schedules[0] is stretch.schedule
            and self.base_lrs == stretch.base_lrs
            and not self.chainable
            and stretch.fill(self.optimizer.param_groups, stretch.evaluate(step))
        ):
            self.last_epoch = step
            self._last = None
            return
        super()._update_lr(epoch)
        self._stretch = self._next_stretch()

    def _next_stretch(self) -> _Stretch | None:
        groups = self.optimizer.param_groups
        tensors = [group["lr"] for group in groups if isinstance(group["lr"], Tensor)]
        if (
            self.chainable
            or not self._shared
            or type(self).get_lr is not CyclicCosineLR.get_lr
            or not isinstance(self.last_epoch, int)
            or (tensors and not _fit_to_fill(tensors, len(groups)))
        ):
            return None
        return _Stretch(
            self.schedules[0],
            self.last_epoch + 1,
            base_lrs=list(self.base_lrs),
            ratios=self._ratios(),
            rates=self._own,
            tensors=tensors,
            # The look-up pays for itself where such a stretch lasted before.
            follow=self._stretch is not None and self._stretch.stop == self.last_epoch,
        )

    @property
    def _last_lr(self) -> list[float | Tensor]:
        # On a stretch they are made when asked for, since few ask at every step.
        if self._last is None and self._stretch is not None:
            self._own = self._stretch.rates
            self._last = self._stretch.copies()
        return cast(list[float | Tensor], self._last)

    @_last_lr.setter
    def _last_lr(self, rates: list[float | Tensor]) -> None:
        self._last = [_copied(rate) for rate in rates] if _HANDS_OVER_TENSORS else rates

    def __getstate__(self) -> dict[str, Any]:
        last = self._last_lr
        return {**self.__dict__, "_last": last, "_stretch": None}

    def get_lr(self) -> list[float | Tensor]:
        """The rates for `last_epoch`; for the rates in force, see `get_last_lr`."""
        if not self._get_lr_called_within_step:
            warnings.warn(
                "To get the last learning rate computed by the scheduler, please use "
                "`get_last_lr()`.",
                UserWarning,
                stacklevel=2,
            )
        self._adopt_groups()
        if self.chainable:
            self._note_factors()
        self._own = self._rates()
        if not self.chainable:
            return list(self._own)
        return [rate * factor for rate, factor in zip(self._own, self._factors, strict=True)]

    def _get_closed_form_lr(self) -> list[float | Tensor]:
        # torch calls this, and not get_lr, where a step is jumped to.
        self._adopt_groups()
        self._own = self._rates()
        self._factors = [1.0] * len(self._own)
        return list(self._own)

    @property
    def T_cur(self) -> float:  # noqa: N802 - the name in torch's warm restarts
        """The steps since the last restart (of the first schedule); they count on after its end."""
        return self.last_epoch - self._cycle().start

    @property
    def T_i(self) -> int:  # noqa: N802 - the name in torch's warm restarts
        """The length of the current cycle (of the first schedule), in steps."""
        return self._cycle().length

    def _cycle(self) -> Cycle:
        schedule = self.schedules[0]
        step = max(math.floor(self.last_epoch), 0)
        if schedule.total_steps is not None:
            step = min(step, schedule.total_steps - 1)
        return schedule.cycle_at(step)

    def _rates(self) -> list[float]:
        # An int, but for torch's deprecated `step(epoch)`, which takes fractions.
        step = self.last_epoch
        rates = [
            schedule.rate(step) if isinstance(step, int) else schedule.rate_at(step)
            for schedule in self.schedules
        ]
        return _scaled(rates[0], self._ratios()) if self._shared else rates

    def _ratios(self) -> list[float]:
        # A ratio of 1 leaves the schedule's own rate, bit for bit.
        return [float(base) / self._reference for base in self.base_lrs]

    def _adopt_groups(self) -> None:
        groups = self.optimizer.param_groups
        for group in groups[len(self.base_lrs) :]:
            self.base_lrs.append(_copied(group.setdefault("initial_lr", _copied(group["lr"]))))
            self._factors.append(1.0)
        if not self._shared and len(self.schedules) != len(groups):
            raise ScheduleError(
                "The scheduler must have a schedule for each parameter group. Received: "
                f"{len(groups)} groups and {len(self.schedules)} schedules; append the new "
                "group's to scheduler.schedules"
            )

    def _note_factors(self) -> None:
        """Find out by what others multiplied each rate since we last set it."""
        for i, group in enumerate(self.optimizer.param_groups):
            now = float(group["lr"])
            # Older releases of torch do not say when the step is the initial one.
            if getattr(self, "_is_initial", False) or i >= len(self._own):
                before = float(self.base_lrs[i])
            elif now == float(self._last_lr[i]):
                continue  # nobody did; and so no rounding gathers
            else:
                before = self._own[i]
            if before > 0:  # at a rate of 0 a factor leaves no trace
                self._factors[i] = now / before

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data (numbers, strings, lists, dicts), which `weights_only` loads."""
        last = [float(rate) for rate in self._last_lr]
        now = [float(group["lr"]) for group in self.optimizer.param_groups[: len(last)]]
        return {
            "schedules": [schedule.to_dict() for schedule in self.schedules],
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
            "base_lrs": [float(rate) for rate in self.base_lrs],
            "_last_lr": last,
            "chainable": self.chainable,
            "reference": self._reference,
            "factors": list(self._factors),
            "own": list(self._own),
            # Under SequentialLR another scheduler may have the word at present.
            "in_charge": now == last,
        }

    def load_state_dict(self, state_dict: dict[str, Any], *, strict: bool = True) -> None:
        """Go on from a state, on this or on a fresh optimizer; the rates are set at once.

        Args:
            state_dict: what `state_dict` returned.
            strict: False takes over the step from a run under another
                schedule; this scheduler's own schedule stays.

        Raises:
            ScheduleError: not a state of this class; one of another schedule
                (the difference is named); more parameter groups than there are.
        """
        missing = sorted(_STATE - state_dict.keys())
        if missing:
            raise ScheduleError(
                "Argument `state_dict` must be the state of a CyclicCosineLR. Received: a dict "
                f"without {missing}"
            )
        ours = [schedule.to_dict() for schedule in self.schedules]
        difference = first_difference(state_dict["schedules"], ours, "schedules")
        if strict and difference is not None:
            path, theirs, mine = difference
            raise ScheduleError(
                "The state must be of the same schedule as this scheduler's. Received: "
                f"{path} = {theirs} in the state, {mine} here; to go on under this schedule "
                "from the state's step, give strict=False"
            )
        groups = self.optimizer.param_groups
        if len(state_dict["base_lrs"]) > len(groups):
            raise ScheduleError(
                "The optimizer must have as many parameter groups as the state's. Received: "
                f"{len(groups)} groups, and {len(state_dict['base_lrs'])} in the state; add the "
                "others with add_param_group first"
            )
        known = len(state_dict["base_lrs"])
        self.base_lrs = [*state_dict["base_lrs"], *self.base_lrs[known:]]
        self._factors = [*state_dict["factors"], *self._factors[known:]]
        self._reference = state_dict["reference"]
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict["_step_count"]
        self._own = list(state_dict["own"])
        self._last_lr = list(state_dict["_last_lr"])
        self._stretch = None  # it was made for other ratios
        self._loads += 1
        self._loaded_step = max(math.floor(self.last_epoch), 0)
        if state_dict["in_charge"]:
            self._apply()

    def _apply(self) -> None:
        """Set the groups' rates to those of `last_epoch`."""
        self._adopt_groups()
        self._own = self._rates()
        for group, rate, factor in zip(
            self.optimizer.param_groups, self._own, self._factors, strict=True
        ):
            _fill(group, rate * factor if self.chainable else rate)
        self._last_lr = [_copied(group["lr"]) for group in self.optimizer.param_groups]


class _Stretch:
    """Updates at which nothing changes but the rate of the one schedule of all groups.

    Args:
        schedule: the schedule.
        start: the first step.
        follow: whether to follow the schedule's curve to its end. The first stretch
            asks the schedule at every step, since there may not be a second.
        base_lrs: the groups' initial rates, of which the ratios were made.
        ratios: each group's ratio to the schedule's rate.
        rates: the groups' rates: the very objects that they hold.
        tensors: what the groups hold in place of floats, where they do.
    """

    __slots__ = (
        "_rates",
        "alike",
        "base_lrs",
        "evaluate",
        "rate",
        "ratios",
        "schedule",
        "start",
        "stop",
        "tensors",
    )

    def __init__(
        self,
        schedule: Schedule,
        start: int,
        *,
        follow: bool,
        base_lrs: list[float | Tensor],
        ratios: list[float],
        rates: list[float],
        tensors: list[Tensor],
    ) -> None:
        self.schedule = schedule
        self.base_lrs = base_lrs
        self.ratios = ratios
        self.alike = ratios.count(ratios[0]) == len(ratios)
        self.rate, self._rates = rates[0], rates
        self.tensors = tensors
        self.start = start
        self.stop: float = start + _SHORT_STRETCH
        self.evaluate: Callable[[int], float] = schedule.rate
        if follow:
            segment = next(schedule.segments(start))
            stop = math.inf if segment.stop is None else segment.stop
            if stop > self.stop:
                self.stop, self.evaluate = stop, segment.evaluator()

    @property
    def rates(self) -> list[float]:
        """The groups' rates: the very objects that they hold, where they hold floats."""
        return [self.rate] * len(self.ratios) if self.alike else self._rates

    def fill(self, groups: list[dict[str, Any]], rate: float) -> bool:
        """Set all rates; False, and perhaps some set, where they are not those set before."""
        # A group that holds the very object that was put there was left alone, and there is
        # no need to look at what it holds.
        if len(groups) != len(self.ratios):
            return False
        if self.tensors:
            return self._fill_tensors(groups, rate)
        if self.alike:
            was, now = self.rate, rate * self.ratios[0]
            for group in groups:
                if group["lr"] is not was:
                    return False
                group["lr"] = now
            self.rate = now
            return True
        rates = [rate * ratio for ratio in self.ratios]
        for group, was, now in zip(groups, self._rates, rates, strict=True):
            if group["lr"] is not was:
                return False
            group["lr"] = now
        self._rates = rates
        return True

    def _fill_tensors(self, groups: list[dict[str, Any]], rate: float) -> bool:
        tensors = self.tensors
        if any(group["lr"] is not held for group, held in zip(groups, tensors, strict=True)):
            return False
        self._rates = _scaled(rate, self.ratios)
        self.rate = self._rates[0]
        device = tensors[0].device
        if device.type == "cpu" and not self.alike:
            for tensor, each in zip(tensors, self._rates, strict=True):
                tensor.fill_(each)  # in less time than making one tensor of the rates takes
            return True
        # Through float64, so that each tensor rounds the rate but once, to its own dtype.
        if self.alike:
            source = torch.full((), self.rate, dtype=torch.float64, device=device)
            sources = [source] * len(tensors)
        else:
            sources = list(torch.tensor(self._rates, dtype=torch.float64, device=device).unbind())
        torch._foreach_copy_(tensors, sources)
        return True

    def copies(self) -> list[float | Tensor]:
        """The rates, as floats or tensors as the groups hold them, that no group holds."""
        if not self.tensors:
            return list(self.rates)
        return [
            torch.full_like(tensor, rate)
            for tensor, rate in zip(self.tensors, self.rates, strict=True)
        ]


def _fit_to_fill(tensors: list[Tensor], groups: int) -> bool:
    """Whether one update can fill all groups' rates: plain tensors of one device, none shared."""
    return (
        len({id(tensor) for tensor in tensors}) == groups
        and len({tensor.device for tensor in tensors}) == 1
        and all(type(tensor) is Tensor for tensor in tensors)
        and tensors[0].device.type != "mps"  # which has no float64
    )


def _scaled(rate: float, ratios: list[float]) -> list[float]:
    """The rate at each ratio; where these are all alike it is one object, not as many."""
    if ratios.count(ratios[0]) == len(ratios):
        return [rate * ratios[0]] * len(ratios)
    return [rate * ratio for ratio in ratios]


def from_torch(scheduler: LRScheduler) -> CyclicCosineLR:
    """The CyclicCosineLR that goes on where a scheduler of torch's stands.

    In mid-run, with each parameter group on the curve it had: put it in the
    other's place, and drop the other. It takes CosineAnnealingLR and
    CosineAnnealingWarmRestarts, also behind a LinearLR warmup in SequentialLR.

    Args:
        scheduler: the live scheduler. It is left as it is; its optimizer's
            rates are set to the exact ones of the same step.

    Raises:
        ScheduleError: a scheduler of another kind, or one whose floor lies
            above a group's rate.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        >>> peer = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=4)
        >>> for _ in range(6):
        ...     optimizer.step()
        ...     peer.step()
        >>> scheduler = from_torch(peer)
        >>> scheduler.last_epoch, [round(rate, 9) for rate in scheduler.get_last_lr()]
        (6, [0.05])
    """
    warmup, milestone, annealing = _parts(scheduler)
    position = scheduler.last_epoch
    if isinstance(annealing, CosineAnnealingWarmRestarts) and position >= milestone:
        # `step(epoch)` leaves the fraction here, and only the whole step there.
        position += annealing.T_cur % 1
    schedules: list[Schedule] = []
    for base in annealing.base_lrs:
        schedule = _peer_schedule(annealing, float(base))
        if warmup is not None:
            phases = _linear_phases(warmup, float(base), milestone)
            schedule = Schedule(preceded(schedule.rules, phases))
        schedules.append(schedule)
    ours = CyclicCosineLR(scheduler.optimizer, schedules)
    ours.last_epoch = position
    ours._step_count = getattr(annealing, "_step_count", 1)
    ours._apply()
    return ours


def _parts(scheduler: LRScheduler) -> tuple[LinearLR | None, int, LRScheduler]:
    """The warmup, the step at which it ends, and the annealing."""
    parts, milestones = [scheduler], [0]
    if isinstance(scheduler, SequentialLR):
        parts, milestones = scheduler._schedulers, scheduler._milestones
    warmup = parts[0] if len(parts) == 2 and isinstance(parts[0], LinearLR) else None
    known = isinstance(parts[-1], CosineAnnealingLR | CosineAnnealingWarmRestarts)
    if not known or (warmup is None) == (len(parts) == 2) or len(parts) > 2:
        kinds = ", ".join(type(part).__name__ for part in parts)
        raise ScheduleError(
            "Argument `scheduler` must be a CosineAnnealingLR or a CosineAnnealingWarmRestarts of "
            f"torch's, alone or after a LinearLR in SequentialLR. Received: {kinds}"
        )
    return warmup, milestones[0], parts[-1]


def _peer_schedule(peer: LRScheduler, base: float) -> Schedule:
    if isinstance(peer, CosineAnnealingWarmRestarts):
        return torch_warm_restarts(base, peer.T_0, peer.T_mult, peer.eta_min)
    if not isinstance(peer, CosineAnnealingLR):
        raise TypeError(type(peer).__name__)
    return torch_cosine_annealing(base, peer.T_max, peer.eta_min)


def _linear_phases(warmup: LinearLR, base: float, steps: int) -> tuple[Phase, ...]:
    """The warmup up to the milestone: a line, and its end held where it is over before."""
    total = warmup.total_iters
    low, high = base * warmup.start_factor, base * warmup.end_factor
    line = min(steps, total)
    end = Level(low + (high - low) * line / total if total else low)
    phases: list[Phase] = []
    if line:
        phases.append(Phase(steps=line, first=Level(low), last=end, curve="linear"))
    if steps > line:
        phases.append(Phase(steps=steps - line, first=end, last=end, curve="constant"))
    return tuple(phases)


_STATE = {
    "schedules",
    "last_epoch",
    "_step_count",
    "base_lrs",
    "_last_lr",
    "chainable",
    "reference",
    "factors",
    "own",
    "in_charge",
}


class _Buffers(HostBuffers):
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
            dtype = str(value.dtype).removeprefix("torch.")
            check_tensor(name, dtype)
            self._tensors.pop(name, None)
            held = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
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


class SnapshotRecorder(BaseRecorder):
    """Records the model's weights and buffers at the end of every cycle.

    The weights are copied when the cycle ends, and written in the background:
    see `BaseRecorder`. From a CUDA device the copy goes to pinned memory on a
    stream of its own, and only the device waits for it before it goes on.

    Names are those of the plain model: what torch.compile, DataParallel and
    DistributedDataParallel put before them is taken off.

    Args:
        folder: the folder of the snapshots; made if it is not there.
        model: the model. Its whole state is recorded: parameters and buffers.
        schedule: the schedule; or the CyclicCosineLR, whose step is then
            followed, so that resuming the scheduler resumes the recorder.
        options: `resume_from` (not needed where the scheduler's state is
            loaded), `background`, `max_pending`, `on_error`, `keep_last`,
            `keep_best`, `metric` and `mode`, as BaseRecorder has them.

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

    framework = "torch"
    framework_version = str(torch.__version__)
    _buffers = _Buffers

    def __init__(
        self,
        folder: str | os.PathLike[str] | SnapshotStore,
        model: nn.Module,
        schedule: Schedule | CyclicCosineLR,
        **options: Unpack[RecorderOptions],
    ) -> None:
        if not isinstance(model, nn.Module):
            raise SnapshotError(
                f"Argument `model` must be a torch.nn.Module. Received: {type(model).__name__}"
            )
        self.model = model
        self._scheduler: CyclicCosineLR | None = None
        self._loads = 0
        done = 0
        if isinstance(schedule, CyclicCosineLR):
            self._scheduler = schedule
            self._loads = schedule._loads
            done = max(math.floor(schedule.last_epoch), 0)
            schedule = _followed(schedule)
        given = options.get("resume_from")
        if done and given is not None and given != done:
            raise SnapshotError(
                "Argument `resume_from` must be the scheduler's step. "
                f"Received: resume_from={given}, and a scheduler that has done {done}; leave "
                "resume_from out"
            )
        if options.get("resume_from") is None and self._loads:
            options["resume_from"] = done
        super().__init__(folder, check_schedule(schedule), **options)
        if options.get("resume_from") is None:
            self._updates = done

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
        if self._scheduler is None:
            return self._advance(self._updates + 1, metrics)
        if self._loads != self._scheduler._loads:
            # The scheduler's state was loaded: it did not train its way here.
            self._loads = self._scheduler._loads
            self.resume(self._scheduler._loaded_step)
        return self._advance(max(math.floor(self._scheduler.last_epoch), 0), metrics)

    def _weights(self) -> dict[str, Tensor]:
        state = _unwrapped(self.model).state_dict()
        return {_plain_name(name): _dense(name, value) for name, value in state.items()}


class SnapshotEnsemble(BaseEnsemble[Tensor]):
    """One prediction from the last snapshots: by default the mean of their probabilities.

    The model is only borrowed: it comes back with its own weights, mode,
    device and hooks. It predicts in evaluation mode and without gradients.

    Args:
        model: a model of the kind that was recorded, on the device to use.
        folder: the folder of the snapshots.
        last: how many of the newest to use; by default all.
        outputs: what the model returns: "logits" (a softmax over the class axis
            makes probabilities of them), "probabilities", or "values" of a
            regression.
        class_axis: the axis of the classes; None where each number is an
            outcome of its own (binary, multi-label), and a sigmoid makes its
            probability of its logit.
        pooling: "probabilities" (their mean), "logits" (their mean, which is
            the geometric mean of probabilities), "log-probabilities" (the
            logarithm of the mean probabilities) or "vote".

    Raises:
        EnsembleError: an argument that cannot be, or fewer snapshots than asked for.

    Example:
        >>> import tempfile, torch
        >>> import cosanneal as ca
        >>> model = torch.nn.Linear(2, 3)
        >>> folder = tempfile.mkdtemp()
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> with SnapshotRecorder(folder, model, schedule) as recorder:
        ...     for _ in range(6):
        ...         _ = recorder.step()
        >>> ensemble = SnapshotEnsemble(model, folder, last=2)
        >>> ensemble.predict(torch.zeros(5, 2)).shape
        torch.Size([5, 3])
        >>> found = ensemble.average_weights(torch.zeros(5, 2), torch.arange(5) % 3)
        >>> model.load_state_dict(found.weights)
        <All keys matched successfully>

    Source: Huang et al., "Snapshot Ensembles" (2017), section 3.
    """

    def __init__(
        self,
        model: nn.Module,
        folder: str | os.PathLike[str] | SnapshotStore,
        *,
        last: int | None = None,
        outputs: Outputs = "logits",
        class_axis: int | None = -1,
        pooling: Pooling = "probabilities",
    ) -> None:
        super().__init__(folder, last=last, outputs=outputs, class_axis=class_axis, pooling=pooling)
        self.model = model

    def _batches(
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

    def _load(self, snapshot: Snapshot) -> dict[str, Tensor]:
        """The member's tensors, where the model has its own, and by its names."""
        own = _unwrapped(self.model).state_dict(keep_vars=True)
        names = {_plain_name(name): name for name in own}
        layout = _layout({plain: own[name] for plain, name in names.items()})
        loaded = self._tensors(snapshot, layout, framework="pt")
        return {names[plain]: value.to(own[names[plain]].device) for plain, value in loaded.items()}

    @contextmanager
    def _borrowed(self) -> Iterator[Callable[[dict[str, Tensor], tuple[Tensor, ...]], Tensor]]:
        # What wraps the model would compile anew for each member, or talk to other processes.
        model = _unwrapped(self.model)
        with lock_of(model), _evaluating(model), torch.no_grad():
            slots = _slots(model)
            own = {name: held[key] for name, (held, key) in slots.items()}
            # What modules make of their tensors, and remake when they see that these changed.
            made = [(vars(module), _made(module)) for module in model.modules()]
            device, present = self._device(), None

            def run(weights: dict[str, Tensor], batch: tuple[Tensor, ...]) -> Tensor:
                nonlocal present
                if weights is not present:
                    unknown = sorted(weights.keys() - slots.keys())
                    if unknown:
                        raise EnsembleError(
                            "The model must hold the tensors of its state under their names. "
                            f"Received: {unknown[0]!r} in the state, which no module holds"
                        )
                    for name, value in weights.items():
                        held, key = slots[name]
                        held[key] = value
                    present = weights
                return self._prediction(model(*(each.to(device) for each in batch)))

            try:
                yield run
            finally:
                for name, (held, key) in slots.items():
                    held[key] = own[name]
                for attributes, values in made:
                    attributes.update(values)

    def _same_randomness(self) -> AbstractContextManager[object]:
        return torch.random.fork_rng(devices=[])  # a pass over a DataLoader draws a seed

    def _running_statistics(self, members: Sequence[Snapshot]) -> Layers:
        layers = _normalizations(_unwrapped(self.model))
        first, *others = (self._load(member) for member in members)
        moving = {
            prefix
            for prefix in layers
            for other in others
            for name in _STATISTICS
            if not torch.equal(first[prefix + name], other[prefix + name])
        }
        return [
            (f"{prefix}{type(layer).__name__}", prefix)
            for prefix, layer in layers.items()
            if prefix in moving
        ]

    def _reestimated(
        self, weights: dict[str, Tensor], layers: Layers, batches: Batches
    ) -> dict[str, Tensor]:
        known = _normalizations(_unwrapped(self.model))
        # A layer that stands in several places has moments of all of them.
        found = {known[prefix]: _Statistics(known[prefix]) for _, prefix in layers}
        bare: dict[str, Any] = dict(weights)
        for _, prefix in layers:
            # Without its own a layer goes by its batch's, in evaluation mode too.
            bare[f"{prefix}running_mean"] = bare[f"{prefix}running_var"] = None
        with ExitStack() as stack:
            run = stack.enter_context(self._borrowed())
            stack.enter_context(_uncompiled(_unwrapped(self.model)))
            for layer, statistics in found.items():
                hook = layer.register_forward_pre_hook(statistics.look, with_kwargs=True)
                stack.callback(hook.remove)
                if isinstance(layer, nn.modules.instancenorm._InstanceNorm):
                    # It looks here, and not at what it has.
                    stack.callback(setattr, layer, "track_running_stats", True)
                    layer.track_running_stats = False
            for batch in batches:
                run(bare, batch)
        estimated = dict(weights)
        for _, prefix in layers:
            values = found[known[prefix]].values()
            for name, value in zip(_STATISTICS, values, strict=False):
                estimated[prefix + name] = narrow(value, weights[prefix + name])
        return estimated

    def _stack(self, snapshots: Sequence[Snapshot]) -> Callable[[tuple[Tensor, ...]], Tensor]:
        stacked: dict[str, Tensor] = {}
        for i, snapshot in enumerate(snapshots):
            for name, value in self._load(snapshot).items():
                if name not in stacked:
                    stacked[name] = value.new_empty((len(snapshots), *value.shape))
                stacked[name][i].copy_(value)
        model, device = _unwrapped(self.model), self._device()

        def one(weights: dict[str, Tensor], *batch: Tensor) -> Tensor:
            # Tied tensors stand in a snapshot under each of their names.
            output = torch.func.functional_call(model, weights, batch, tie_weights=False)
            return self._prediction(output)

        def run(batch: tuple[Tensor, ...]) -> Tensor:
            every = torch.func.vmap(one, in_dims=(0, *(None for _ in batch)))
            return every(stacked, *(each.to(device) for each in batch))

        return run

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        return parts[0] if len(parts) == 1 else torch.cat(list(parts))

    def _device(self) -> torch.device:
        state = _unwrapped(self.model).state_dict(keep_vars=True).values()
        return next((each.device for each in state if isinstance(each, Tensor)), _CPU)

    def _where(self) -> object:
        state = _unwrapped(self.model).state_dict(keep_vars=True)
        return tuple(
            (each.device, each.dtype) for each in state.values() if isinstance(each, Tensor)
        )

    def _free_memory(self) -> int | None:
        device = self._device()
        if device.type == "cuda":
            return torch.cuda.mem_get_info(device)[0]
        return free_host_memory() if device.type == "cpu" else None

    def _wait_for(self, predictions: object) -> None:  # noqa: ARG002
        device = self._device()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()

    def _prediction(self, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise EnsembleError(
                "The model must return one tensor. Received: "
                f"{type(output).__name__}; wrap the model so that it returns the tensor to average"
            )
        return self._checked(output, tuple(output.shape))

    def _probabilities(self, logits: Tensor) -> Tensor:
        if self.class_axis is None:
            return logits.sigmoid()
        return logits.softmax(self.class_axis)


def _followed(scheduler: CyclicCosineLR) -> Schedule:
    """The schedule whose cycles a recorder follows."""
    first = scheduler.schedules[0]
    layouts = [
        [(rule.count, rule.length, rule.growth, rule.rounding) for rule in each.rules]
        for each in scheduler.schedules
    ]
    if any(layout != layouts[0] for layout in layouts):
        raise ScheduleError(
            "The parameter groups' schedules must have the same cycles for a recorder to follow "
            "the scheduler. Received: schedules that differ; give the recorder the one to follow"
        )
    return first


def _copied(rate: float | Tensor) -> float | Tensor:
    return rate.clone() if isinstance(rate, Tensor) else rate


def _fill(group: dict[str, Any], rate: float) -> None:
    """Set a group's rate; one that is a tensor is filled in place, as captured graphs need."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


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
    if value.layout != torch.strided or value.is_quantized:
        raise SnapshotError(
            f"The model's tensors must be dense. Received: {name!r} of layout {value.layout}"
        )
    return value


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, out of what wraps it to compile it or to train it in parallel."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def _slots(model: nn.Module) -> dict[str, tuple[dict[str, Tensor | None], str]]:
    """Where each tensor of the model's state is held, by its name: the dict and the key in it."""
    slots: dict[str, tuple[dict[str, Tensor | None], str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        prefix = f"{name}." if name else ""
        for held in (module._parameters, module._buffers):
            slots.update(
                {prefix + key: (cast(dict[str, Tensor | None], held), key) for key in held}
            )
    return slots


def _made(module: nn.Module) -> dict[str, Any]:
    """The tensors, and lists of them, that a module keeps as plain attributes.

    As torch's older weight_norm and spectral_norm keep the weight, and LSTM its weights.
    """
    return {
        name: [*value] if isinstance(value, list) else value
        for name, value in vars(module).items()
        if isinstance(value, Tensor)
        or (isinstance(value, list) and any(isinstance(each, Tensor) for each in value))
    }


def _normalizations(model: nn.Module) -> dict[str, nn.Module]:
    """The layers with running statistics, by what the names of their tensors begin with.

    A layer that stands in several places is there under each of its names.
    """
    return {
        f"{name}." if name else "": module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.modules.batchnorm._NormBase)
        and module._buffers.get("running_mean") is not None
    }


class _Statistics:
    """The running statistics that a layer would have of the inputs it has seen.

    A layer of BatchNorm has the mean and the variance over all samples and
    positions; one of InstanceNorm the mean, over the samples, of each sample's own.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._instances = isinstance(layer, nn.modules.instancenorm._InstanceNorm)
        # Of each channel's numbers; of each sample's mean, and of its variance.
        self._moments, self._means, self._variances = Moments(), Moments(), Moments()
        self._axes = getattr(layer, "_get_no_batch_dim", lambda: None)()

    def look(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG002
        """Take in what a layer is given."""
        x = args[0] if args else kwargs["input"]
        if self._instances and x.ndim == self._axes:
            x = x[None]  # one sample alone
        count = x.numel() // x.shape[1] if x.numel() else 0
        if self._instances and math.prod(x.shape[2:]) < 2:
            raise EnsembleError(
                "Argument `train_data` must give samples of at least two positions, for a layer "
                f"of InstanceNorm to normalize by. Received: an input of shape {tuple(x.shape)}"
            )
        if count < 2:
            raise EnsembleError(
                "Argument `train_data` must give batches of at least two samples, for a layer to "
                f"normalize by. Received: an input of shape {tuple(x.shape)}; give another "
                "train_batch_size, or a loader with drop_last=True"
            )
        x = widen(x)
        if self._instances:
            variances, means = torch.var_mean(x, [*range(2, x.ndim)], correction=1)
            self._means.update(len(x), means.mean(0), 0.0)
            self._variances.update(len(x), variances.mean(0), 0.0)
        else:
            axes = [axis for axis in range(x.ndim) if axis != 1]
            variance, mean = torch.var_mean(x, axes, correction=0)
            self._moments.update(count, mean, variance)

    def values(self) -> tuple[Tensor, ...]:
        """The mean and the variance; none where nothing was seen."""
        if self._instances:
            return (self._means.mean, self._variances.mean) if self._means.count else ()
        if not self._moments.count:
            return ()
        return self._moments.mean, self._moments.variance(correction=1)


def _uncompiled(model: nn.Module) -> AbstractContextManager[object]:
    """Run compiled parts of a model as they are written, since the compiled ones know no hooks."""
    set_stance = getattr(torch.compiler, "set_stance", None)  # of torch 2.6
    if set_stance is not None:
        return cast(AbstractContextManager[object], set_stance("force_eager"))
    if any(hasattr(module, "_orig_mod") for module in model.modules()):
        raise EnsembleError(
            "A model with compiled parts must be run by torch 2.6 or newer for its statistics to "
            f"be estimated. Received: torch {torch.__version__}; give the ensemble the model "
            "without torch.compile"
        )
    return nullcontext()


def _plain_name(name: str) -> str:
    """The name without what torch.compile puts before the tensors of a module inside."""
    if "_orig_mod" not in name:  # as with nearly all, of what may be thousands
        return name
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _layout(state: Mapping[str, object]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {
        name: (tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for name, value in state.items()
        if isinstance(value, Tensor)  # extra state, which no snapshot holds
    }


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each module has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        # Not by `eval()`, for which a module may do more than that, such as
        # changing its weights, and which the way back would not undo.
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training
