"""The scheduler of timm."""

from __future__ import annotations

import math
from fractions import Fraction

from ..core.errors import (
    MAX_STEPS,
    ScheduleError,
    check_factor,
    check_flag,
    check_rate,
    check_steps,
)
from ..core.rules import CycleRule, Level, Phase, log2
from ..core.schedule import Schedule
from .build import check_floor, check_length, check_power, check_share, warmed


def timm_cosine(
    base_lr: float,
    t_initial: float | Fraction,
    lr_min: float = 0.0,
    cycle_mul: float | Fraction = 1.0,
    cycle_decay: float = 1.0,
    cycle_limit: int = 1,
    warmup_t: int = 0,
    warmup_lr_init: float = 0.0,
    warmup_prefix: bool = False,
    t_in_epochs: bool = True,
    noise_range_t: object = None,
    noise_pct: float = 0.67,
    noise_std: float = 1.0,
    noise_seed: int = 42,
    k_decay: float = 1.0,
) -> Schedule:
    """The CosineLRScheduler of timm, but for its noise.

        rate(t) = lr_min + (base_lr * cycle_decay**i - lr_min) * C(c**k_decay / L**k_decay)
        L = t_initial * cycle_mul**i

    The first `warmup_t` steps follow a straight line from `warmup_lr_init` to
    `base_lr` instead. With `warmup_prefix` the first cycle's clock starts after
    them; without, it runs during the warmup, from which the rate then falls to
    where the cosine has come meanwhile. The peak decays, the floor does not.
    Lengths are real-valued. After `cycle_limit` cycles the rate holds `lr_min`.

    Args:
        base_lr: the optimizer's rate.
        t_initial: the length of the first cycle, in the unit that the caller
            counts: epochs for timm's `step`, updates for its `step_update`.
        lr_min: the rate to which every cycle falls.
        cycle_mul: the factor from one cycle's length to the next.
        cycle_decay: the factor from one cycle's peak to the next, in (0, 1].
        cycle_limit: the number of cycles. Where so many do not end within 2**63
            steps, to which no framework counts, they have no end: the schedule's
            `total_steps` is None, and the rate does not come to hold `lr_min`.
        warmup_t: the length of the warmup, in the same unit; without
            `warmup_prefix` less than `t_initial`.
        warmup_lr_init: the rate at which the warmup starts.
        warmup_prefix: whether the warmup comes before the first cycle.
        t_in_epochs: no effect on the curve: which of timm's two methods moves it.
        noise_range_t: must be None: noise is not reproduced.
        noise_pct: no effect without noise.
        noise_std: no effect without noise.
        noise_seed: no effect without noise.
        k_decay: the power of the clock.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = timm_cosine(0.1, 100, warmup_t=5, warmup_lr_init=1e-4, cycle_limit=2)
        >>> schedule.rate(0), schedule.rate(100), schedule.rate(200)
        (0.0001, 0.1, 0.0)

    Source: `timm.scheduler.CosineLRScheduler`.
    """
    if noise_range_t is not None:
        raise ScheduleError(
            "Argument `noise_range_t` must be None: a schedule is a function of the step alone, "
            f"without noise. Received: noise_range_t={noise_range_t!r}; leave the noise out"
        )
    check_flag("t_in_epochs", t_in_epochs)
    check_rate("noise_pct", noise_pct)
    check_rate("noise_std", noise_std)
    check_steps("noise_seed", noise_seed)
    base = check_rate("base_lr", base_lr)
    initial = check_rate("warmup_lr_init", warmup_lr_init)
    floor = check_floor("lr_min", lr_min, "base_lr", base)
    length = check_length("t_initial", t_initial)
    mult = check_factor("cycle_mul", cycle_mul)
    limit = check_steps("cycle_limit", cycle_limit, minimum=1)
    warmup = check_steps("warmup_t", warmup_t)
    prefix = check_flag("warmup_prefix", warmup_prefix)
    decay = check_share("cycle_decay", cycle_decay)
    k = check_power("k_decay", k_decay)
    peak = Level(base, decay=decay)
    reached = _cycles_within_steps(length, mult)
    last = int(min(limit - 1, reached))
    if peak.at(last) < floor or not decay:
        raise ScheduleError(
            "Argument `cycle_decay` must leave every cycle a peak above `lr_min`. "
            f"Received: cycle_decay={cycle_decay}, lr_min={lr_min}, and cycle {last} would "
            f"peak at {peak.at(last):g}; give fewer cycles (`cycle_limit`)"
        )
    if not prefix and warmup >= length:
        raise ScheduleError(
            "Argument `warmup_t` must be smaller than `t_initial`, whose clock runs during the "
            f"warmup. Received: warmup_t={warmup_t}, t_initial={t_initial}; "
            "give warmup_prefix=True for a clock that starts after it"
        )
    annealing = Phase(steps=None, first=peak, last=Level(floor), k=k, whole_cycle=not prefix)
    first = warmed(
        1, warmup, Level(initial), length - (0 if prefix else warmup), annealing, rounding="none"
    )
    count = None if limit > reached else limit - 1
    rest = CycleRule(
        count=count, length=length * mult, growth=mult, rounding="none", phases=(annealing,)
    )
    try:
        return Schedule((first, rest) if limit > 1 else (first,))
    except ScheduleError as error:
        raise ScheduleError(
            f"{error}, with t_initial={t_initial}, cycle_mul={cycle_mul}, cycle_limit={cycle_limit}"
        ) from None


def _cycles_within_steps(length: int | Fraction, mult: Fraction) -> float:
    """How many cycles the counters of steps, which end at 2**63, have room for; nearly."""
    if mult <= 1:
        return float(MAX_STEPS / length) if mult == 1 else math.inf
    return log2(1 + (mult - 1) * MAX_STEPS / length) / log2(mult)
