"""The schedules of Transformers."""

from __future__ import annotations

import math
from fractions import Fraction

from ..core.errors import ScheduleError, check_factor, check_rate, check_steps
from ..core.rules import CycleRule, Level, Phase
from ..core.schedule import Schedule
from .build import check_floor, check_share, warmed, waves


def hf_cosine(
    base_lr: float,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float | Fraction = 0.5,
) -> Schedule:
    """Transformers' get_cosine_schedule_with_warmup.

        rate(t) = base_lr * C(2 * num_cycles * (t - w) / (num_training_steps - w))

    from step `w = num_warmup_steps` on, and before it a straight line from 0 to
    `base_lr`. 0 is reached when half a wave is over; after it the rate RISES to
    `base_lr` again, and falls again: the waves go on past `num_training_steps`,
    without end. A cycle here ends at the bottom.

    Args:
        base_lr: the optimizer's rate.
        num_warmup_steps: the length of the warmup, in optimizer steps.
        num_training_steps: the length of the whole, in optimizer steps.
        num_cycles: the number of whole waves after the warmup; 0.5 for one fall.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = hf_cosine(0.1, num_warmup_steps=10, num_training_steps=110)
        >>> schedule.rate(5), schedule.rate(110), schedule.rate(210)
        (0.05, 0.0, 0.1)

    Source: `transformers.get_cosine_schedule_with_warmup`.
    """
    base = check_rate("base_lr", base_lr)
    warmup, half = _check_waves(num_warmup_steps, num_training_steps, num_cycles)
    return waves(half, peak=Level(base), floor=Level(0.0), warmup=warmup)


def hf_cosine_with_min_lr(
    base_lr: float,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float | Fraction = 0.5,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
) -> Schedule:
    """Transformers' get_cosine_with_min_lr_schedule_with_warmup.

        rate(t) = base_lr * ((1 - r) * C(2 * num_cycles * (t - w) / (num_training_steps - w)) + r)

    from step `w = num_warmup_steps` on, with `r = min_lr / base_lr` or
    `min_lr_rate`; before it a straight line from 0 (not from the floor) to
    `base_lr`. The waves go on without end, as in `hf_cosine`.

    Args:
        base_lr: the optimizer's rate.
        num_warmup_steps: the length of the warmup, in optimizer steps.
        num_training_steps: the length of the whole, in optimizer steps.
        num_cycles: the number of whole waves after the warmup; 0.5 for one fall.
        min_lr: the floor, as a rate.
        min_lr_rate: the floor, as a share of `base_lr`, in [0, 1]. Exactly one
            of the two must be given.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = hf_cosine_with_min_lr(0.1, 0, 100, min_lr=0.01)
        >>> schedule.rate(0), schedule.rate(100)
        (0.1, 0.01)

    Source: `transformers.optimization.get_cosine_with_min_lr_schedule_with_warmup`.
    """
    base = check_rate("base_lr", base_lr)
    if (min_lr is None) == (min_lr_rate is None):
        raise ScheduleError(
            "Give exactly one of the arguments `min_lr` and `min_lr_rate`. "
            f"Received: min_lr={min_lr!r}, min_lr_rate={min_lr_rate!r}"
        )
    floor = (
        base * check_share("min_lr_rate", min_lr_rate)
        if min_lr is None
        else check_floor("min_lr", min_lr, "base_lr", base)
    )
    warmup, half = _check_waves(num_warmup_steps, num_training_steps, num_cycles)
    return waves(half, peak=Level(base), floor=Level(floor), warmup=warmup)


def hf_hard_restarts(
    base_lr: float, num_warmup_steps: int, num_training_steps: int, num_cycles: int = 1
) -> Schedule:
    """Transformers' get_cosine_with_hard_restarts_schedule_with_warmup.

        rate(t) = base_lr * C(num_cycles * (t - w) / (num_training_steps - w)  mod  1)

    from step `w = num_warmup_steps` on, and before it a straight line from 0 to
    `base_lr`. Lengths are real-valued: a cycle takes over at the first step at
    or after its beginning, and only where that is a whole step does it start at
    `base_lr` itself. From `num_training_steps` on the rate is 0.

    Args:
        base_lr: the optimizer's rate.
        num_warmup_steps: the length of the warmup, in optimizer steps.
        num_training_steps: the length of the whole, in optimizer steps.
        num_cycles: the number of cycles after the warmup, an integer.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = hf_hard_restarts(0.1, 10, 110, num_cycles=3)
        >>> schedule.cycle_ends()
        [43, 76, 109]

    Source: `transformers.get_cosine_with_hard_restarts_schedule_with_warmup`.
    """
    base = check_rate("base_lr", base_lr)
    warmup, steps = _check_training(num_warmup_steps, num_training_steps)
    cycles = check_steps("num_cycles", num_cycles, minimum=1)
    if cycles > steps:
        raise ScheduleError(
            "Argument `num_cycles` must leave every cycle at least one step. "
            f"Received: num_cycles={num_cycles}, and {steps} steps after the warmup"
        )
    length = Fraction(steps, cycles)
    annealing = Phase(steps=None, first=Level(base), last=Level(0.0))
    first = warmed(1, warmup, Level(0.0), length, annealing, rounding="none")
    rest = CycleRule(count=cycles - 1, length=length, rounding="none", phases=(annealing,))
    return Schedule((first, rest) if cycles > 1 else (first,))


def _check_training(num_warmup_steps: int, num_training_steps: int) -> tuple[int, int]:
    """The warmup, and the steps after it: at least one, as in Transformers."""
    warmup = check_steps("num_warmup_steps", num_warmup_steps)
    total = check_steps("num_training_steps", num_training_steps, minimum=1)
    return warmup, max(1, total - warmup)


def _check_waves(
    num_warmup_steps: int, num_training_steps: int, num_cycles: float | Fraction
) -> tuple[int, Fraction]:
    """The warmup, and the length of half a wave."""
    warmup, steps = _check_training(num_warmup_steps, num_training_steps)
    half = steps / (2 * check_factor("num_cycles", num_cycles))
    if half < 1:
        raise ScheduleError(
            "Argument `num_cycles` must leave every fall at least one step. "
            f"Received: num_cycles={num_cycles!r}, and {steps} steps after the warmup, "
            f"which makes a fall {math.floor(half * 1000) / 1000} steps long"
        )
    return warmup, half
