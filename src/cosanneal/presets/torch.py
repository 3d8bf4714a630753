"""The schedulers of PyTorch, which is not imported: `torch` is this file's name only."""

from __future__ import annotations

from fractions import Fraction

from ..core.errors import ScheduleError, check_factor, check_rate, check_steps
from ..core.rules import CycleRule, Level, Phase
from ..core.schedule import Schedule
from .build import check_floor, check_length, check_power, endless, waves


def torch_cosine_annealing(
    base_lr: float, T_max: float | Fraction, eta_min: float = 0.0
) -> Schedule:
    """PyTorch's CosineAnnealingLR.

        rate(t) = eta_min + (base_lr - eta_min) * C(t / T_max)

    `eta_min` is reached at step `T_max`; past it the rate rises again, to
    `base_lr` at step `2 * T_max`, and so on without end. A cycle here ends at
    the bottom, and the rise belongs to the next. PyTorch computes the curve by
    a recursion; this is the closed form that the recursion stands for.

    Args:
        base_lr: the optimizer's rate.
        T_max: the length of the fall, in calls of `step`; a float is taken
            as well, as PyTorch takes it.
        eta_min: the lowest rate.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = torch_cosine_annealing(base_lr=0.1, T_max=10)
        >>> schedule.rate(10), schedule.rate(20), schedule.cycle_ends(40)
        (0.0, 0.1, [9, 29])

    Source: `torch.optim.lr_scheduler.CosineAnnealingLR`.
    """
    peak = check_rate("base_lr", base_lr)
    floor = check_floor("eta_min", eta_min, "base_lr", peak)
    return waves(check_length("T_max", T_max), peak=Level(peak), floor=Level(floor))


def torch_warm_restarts(
    base_lr: float, T_0: int, T_mult: int = 1, eta_min: float = 0.0
) -> Schedule:
    """PyTorch's CosineAnnealingWarmRestarts.

        rate(t) = eta_min + (base_lr - eta_min) * C(c / T_i),  T_i = T_0 * T_mult**i

    The last step of a cycle stands one step above `eta_min`; there is no end.

    Args:
        base_lr: the optimizer's rate.
        T_0: the length of the first cycle, in calls of `step`.
        T_mult: the factor from one cycle's length to the next, an integer.
        eta_min: the lowest rate.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> torch_warm_restarts(base_lr=0.1, T_0=10, T_mult=3).rate(10 + 30 + 90)
        0.1

    Source: `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`.
    """
    peak = check_rate("base_lr", base_lr)
    floor = check_floor("eta_min", eta_min, "base_lr", peak)
    return endless(
        check_steps("T_0", T_0, minimum=1),
        growth=Fraction(check_steps("T_mult", T_mult, minimum=1)),
        peak=Level(peak),
        floor=Level(floor),
    )


def torch_one_cycle(
    max_lr: float,
    total_steps: int,
    pct_start: float | Fraction = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    """PyTorch's OneCycleLR with its cosine strategy and two phases.

        up:    initial + (max_lr - initial) * (1 - C(t / u)),  0 <= t <= u
        down:  low + (max_lr - low) * C((t - u) / (total_steps - 1 - u)),  t > u

    with `u = pct_start * total_steps - 1`, which need be no integer, `initial =
    max_lr / div_factor` and `low = initial / final_div_factor`. The last step,
    `total_steps - 1`, is exactly `low`, and `low` is held past it. (PyTorch
    allows one step more, at which its rate rises a little, and refuses others.)

    Args:
        max_lr: the rate at the top.
        total_steps: the length of the cycle, in optimizer steps.
        pct_start: the share of the steps that rise, in [0, 1).
        div_factor: from the top to the initial rate.
        final_div_factor: from the initial rate to the last.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = torch_one_cycle(max_lr=1.0, total_steps=10, div_factor=4.0)
        >>> schedule.rate(0), schedule.rate(2), schedule.rate(9)
        (0.25, 1.0, 2.5e-05)

    Source: `torch.optim.lr_scheduler.OneCycleLR`.
    """
    peak = check_rate("max_lr", max_lr)
    steps = check_steps("total_steps", total_steps, minimum=1)
    share = check_factor("pct_start", pct_start) if pct_start else Fraction(0)
    if share >= 1:
        raise ScheduleError(
            "Argument `pct_start` must lie in [0, 1): some of the steps must fall. "
            f"Received: pct_start={pct_start!r}"
        )
    initial = peak / check_power("div_factor", div_factor)
    floor = initial / check_power("final_div_factor", final_div_factor)
    check_floor("final_div_factor", floor, "max_lr", peak)
    top = share * steps - 1
    annealing = Phase(
        steps=None, first=Level(peak), last=Level(floor), endpoint=True, lead=max(-top, Fraction(0))
    )
    rise = Phase(steps=top, first=Level(initial), last=Level(peak))
    phases = (rise, annealing) if top > 0 else (annealing,)
    return Schedule((CycleRule(count=1, length=steps, phases=phases),))
