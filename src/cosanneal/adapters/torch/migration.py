"""From a live scheduler of torch's to ours, in mid-run."""

from __future__ import annotations

from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    LinearLR,
    LRScheduler,
    SequentialLR,
)

from ...core.errors import ScheduleError
from ...core.rules import Level, Phase, preceded
from ...core.schedule import Schedule
from ...presets import torch_cosine_annealing, torch_warm_restarts
from .scheduler import CyclicCosineLR


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
    ours.stand_at(position, step_count=getattr(annealing, "_step_count", 1))
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
