"""CyclicCosine: the cyclic cosine schedule of SGDR and of Snapshot Ensembles."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from fractions import Fraction
from typing import cast

from .errors import (
    ScheduleError,
    check_decay,
    check_factor,
    check_flag,
    check_growth,
    check_rate,
    check_steps,
    shown,
)
from .rules import CycleRule, Level, Phase, join, log2, shortened
from .schedule import Schedule


def CyclicCosine(  # noqa: N802 - the name of the schedule, as the field writes it
    max_lr: float | Sequence[float],
    *,
    total_steps: int | None = None,
    cycle_steps: int | Sequence[int] | None = None,
    num_cycles: int | None = None,
    min_lr: float = 0.0,
    cycle_mult: float | Fraction = 1,
    cycle_decay: float = 1.0,
    warmup_steps: int = 0,
    warmup_lr: float = 0.0,
    restart_warmup_steps: int = 0,
    endpoint: bool = False,
) -> Schedule:
    """Cosine annealing in cycles, each from a peak down to a floor.

    In cycle `i`, which anneals from step `a` up to, not including, step `b`:

        rate(step) = min_lr + (max_lr * cycle_decay**i - min_lr) * sin(pi * r / 2) ** 2
        r = (b - step) / (b - a)

    Give either the whole budget, `total_steps` and `num_cycles`, or the cycles'
    length, `cycle_steps`. The budget is cut without remainder: cycle `i` starts
    at step `floor(total_steps * i / num_cycles)`, so that lengths differ by at
    most one step (at `cycle_mult=1`), their sum is `total_steps`, and the run
    ends at the bottom of a whole cycle.

    Args:
        max_lr: the peak of the first cycle; or a list with each cycle's own, whose length
            is then the number of cycles.
        total_steps: the budget in optimizer steps, warmups included.
        cycle_steps: the first cycle's length in optimizer steps, its warmup
            included; or a list with the length of each. Without `num_cycles`
            the cycles of a single length have no end.
        num_cycles: the number of cycles. One of a single step has a single rate, its peak (with
            `endpoint` its floor): of as many cycles as steps, none anneals.
        min_lr: the floor of every cycle, and the rate after the last.
        cycle_mult: the factor from one cycle's length to the next: an int or a
            Fraction, or a float, which means the decimal it is written as
            (1.1 is 11/10). Boundaries that fall between two steps are rounded
            down; no rounding accumulates.
        cycle_decay: the factor from one cycle's peak to the next, in (0, 1].
            The floor stays.
        warmup_steps: so many of the first cycle's steps lead from `warmup_lr`
            up to its peak on a straight line: step `s` uses
            `warmup_lr + (max_lr - warmup_lr) * s / warmup_steps`.
        warmup_lr: the rate of step 0 when there is a warmup.
        restart_warmup_steps: so many of each later cycle's steps lead from the
            floor up to its peak on a straight line.
        endpoint: False, the papers' convention: the last step of a cycle stands
            one step above the floor. True: it uses the floor exactly; a cycle
            with one step to anneal has then no step at its peak.

    Returns:
        A Schedule; after the last cycle its rate holds `min_lr`.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = CyclicCosine(0.1, total_steps=100, num_cycles=3)
        >>> [(cycle.start, cycle.stop) for cycle in schedule.cycles()]
        [(0, 33), (33, 66), (66, 100)]
        >>> CyclicCosine(0.1, cycle_steps=10, cycle_mult=2).cycle_at(2**62).index
        58

    Source: Loshchilov and Hutter, "SGDR" (2017), Eq. 5; Huang et al., "Snapshot
    Ensembles: Train 1, get M for free" (2017), Eq. 2.
    """
    peaks = _peaks(max_lr)
    min_lr = check_rate("min_lr", min_lr)
    warmup_lr = check_rate("warmup_lr", warmup_lr)
    warmup_steps = check_steps("warmup_steps", warmup_steps)
    restart_warmup_steps = check_steps("restart_warmup_steps", restart_warmup_steps)
    endpoint = check_flag("endpoint", endpoint)
    mult = check_factor("cycle_mult", cycle_mult)
    decay = check_decay("cycle_decay", cycle_decay)
    if warmup_lr > peaks[0]:
        raise ScheduleError(
            "Argument `warmup_lr` must not exceed `max_lr`, to which the warmup leads. "
            f"Received: warmup_lr={warmup_lr}, max_lr={peaks[0]}"
        )
    if num_cycles is not None:
        num_cycles = check_steps("num_cycles", num_cycles, minimum=1)
    if _is_list(max_lr):
        num_cycles = _count_of_peaks(peaks, num_cycles, decay)
    check_growth("Argument `cycle_mult`", mult, num_cycles)

    if (total_steps is None) == (cycle_steps is None):
        raise ScheduleError(
            "Give exactly one of the arguments `total_steps` (with `num_cycles`) and "
            f"`cycle_steps`. Received: total_steps={shown(total_steps)}, "
            f"cycle_steps={shown(cycle_steps)}"
        )
    lengths: Fraction | list[int]
    if total_steps is not None:
        if num_cycles is None:
            raise ScheduleError(
                "Argument `num_cycles` must be given with `total_steps`: into how many cycles the "
                "budget is cut. Received: num_cycles=None"
            )
        total_steps = check_steps("total_steps", total_steps, minimum=1)
        lengths = _first_length(total_steps, num_cycles, mult)
    elif _is_list(cycle_steps):
        lengths = [
            check_steps(f"cycle_steps[{i}]", length, minimum=1)
            for i, length in enumerate(cast(Iterable[int], cycle_steps))
        ]
        _check_list(lengths, num_cycles, mult, peaks if _is_list(max_lr) else None)
        num_cycles = len(lengths)
    else:
        lengths = Fraction(check_steps("cycle_steps", cycle_steps, minimum=1))
        if num_cycles is None and mult < 1:
            raise ScheduleError(
                "Argument `cycle_mult` must be at least 1 for cycles without end. "
                f"Received: cycle_mult={shown(cycle_mult)}; "
                "give `num_cycles` for cycles that shrink"
            )
    _check_peaks(peaks, min_lr, decay, num_cycles)

    floor = Level(min_lr)

    def phases(max_lr: float, steps: int, lowest: float) -> tuple[Phase, ...]:
        peak = Level(max_lr, decay=decay)
        annealing = Phase(steps=None, first=peak, last=floor, endpoint=endpoint)
        if not steps:
            return (annealing,)
        return (Phase(steps=steps, first=Level(lowest), last=peak, curve="linear"), annealing)

    first = phases(peaks[0], warmup_steps, warmup_lr)
    # Those of the cycles after the first: of each its own, or of all the same.
    later = [phases(peak, restart_warmup_steps, min_lr) for peak in peaks[1:] or peaks]
    try:
        return Schedule(_rules(lengths, num_cycles, mult, first, later))
    except ScheduleError as error:
        received = f"total_steps={total_steps}" if total_steps else f"cycle_steps={cycle_steps}"
        raise ScheduleError(
            f"{error}. The arguments were {received}, num_cycles={num_cycles}, "
            f"cycle_mult={shortened(mult)}, warmup_steps={warmup_steps}, "
            f"restart_warmup_steps={restart_warmup_steps}"
        ) from None


def _rules(
    lengths: Fraction | list[int],
    count: int | None,
    growth: Fraction,
    first: tuple[Phase, ...],
    later: Sequence[tuple[Phase, ...]],
) -> tuple[CycleRule, ...]:
    """The first cycle's rule, and those of the later ones where they differ by more than growth."""
    if isinstance(lengths, list) or len(later) > 1:
        rules: list[CycleRule] = []
        for i in range(count or 0):
            length = lengths[i] if isinstance(lengths, list) else lengths * growth**i
            phases = later[min(i, len(later)) - 1] if i else first
            join(rules, CycleRule(count=1, length=length, phases=phases))
        return tuple(rules)
    if first == later[0] or count == 1:
        return (CycleRule(count=count, length=lengths, growth=growth, phases=first),)
    rest = None if count is None else count - 1
    return (
        CycleRule(count=1, length=lengths, phases=first),
        CycleRule(count=rest, length=lengths * growth, growth=growth, phases=later[0]),
    )


def _peaks(max_lr: float | Sequence[float]) -> list[float]:
    """The peaks that are given: one, or each cycle's."""
    if not _is_list(max_lr):
        return [check_rate("max_lr", max_lr)]
    peaks = [check_rate(f"max_lr[{i}]", x) for i, x in enumerate(cast(Sequence[float], max_lr))]
    if not peaks:
        raise ScheduleError(
            "Argument `max_lr` must name the peak of at least one cycle. Received: max_lr=[]"
        )
    return peaks


def _count_of_peaks(peaks: list[float], num_cycles: int | None, decay: float) -> int:
    """The number of cycles that a list of peaks is for."""
    if num_cycles is not None and num_cycles != len(peaks):
        raise ScheduleError(
            "Argument `num_cycles` must be the length of the list `max_lr`, or be left out. "
            f"Received: num_cycles={num_cycles}, and {len(peaks)} peaks"
        )
    if decay != 1:
        raise ScheduleError(
            "Argument `cycle_decay` must be left out where `max_lr` lists every cycle's peak. "
            f"Received: cycle_decay={decay}"
        )
    return len(peaks)


def _is_list(value: object) -> bool:
    """Whether `value` lists numbers in an order; a zero-dimensional array is one number."""
    if getattr(value, "ndim", 1) == 0:
        return False
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        unordered = (str, bytes, Set, Mapping)
        return isinstance(value, Iterable) and not isinstance(value, unordered)
    return False


def _first_length(total_steps: int, num_cycles: int, mult: Fraction) -> Fraction:
    """The exact length that makes `num_cycles` cycles, growing by `mult`, fill the budget."""
    # The longest cycle must fit and the shortest have a step, so their ratio
    # mult**(num_cycles - 1) is at most total_steps. A rough test with a wide
    # margin keeps the exact power below from growing without bound.
    spread = abs(log2(mult)) * (num_cycles - 1)
    if num_cycles > total_steps or spread > math.log2(total_steps) + 1:
        raise ScheduleError(
            "Argument `num_cycles` must leave every cycle at least one step. "
            f"Received: num_cycles={num_cycles}, total_steps={total_steps}, "
            f"cycle_mult={shortened(mult)}; "
            "give more steps or fewer cycles"
        )
    if mult == 1:
        return Fraction(total_steps, num_cycles)
    length = total_steps * (mult - 1) / (mult**num_cycles - 1)
    shortest = length if mult > 1 else length * mult ** (num_cycles - 1)
    if shortest < 1:
        raise ScheduleError(
            "Argument `num_cycles` must leave every cycle at least one step. "
            f"Received: num_cycles={num_cycles}, total_steps={total_steps}, "
            f"cycle_mult={shortened(mult)}; the shortest would be {float(shortest):.3g} steps "
            f"long, so give at least {math.ceil(total_steps / shortest)} steps or fewer cycles"
        )
    return length


def _check_list(
    lengths: list[int], num_cycles: int | None, mult: Fraction, peaks: list[float] | None
) -> None:
    if not lengths:
        raise ScheduleError(
            "Argument `cycle_steps` must name at least one cycle. Received: cycle_steps=[]"
        )
    if peaks is not None and len(peaks) != len(lengths):
        raise ScheduleError(
            "Arguments `max_lr` and `cycle_steps` must list as many cycles. "
            f"Received: {len(peaks)} peaks and {len(lengths)} lengths"
        )
    if num_cycles is not None and num_cycles != len(lengths):
        raise ScheduleError(
            "Argument `num_cycles` must be the length of the list `cycle_steps`, or be left out. "
            f"Received: num_cycles={num_cycles}, and {len(lengths)} cycles"
        )
    if mult != 1:
        raise ScheduleError(
            "Argument `cycle_mult` must be left out where `cycle_steps` lists every cycle. "
            f"Received: cycle_mult={shortened(mult)}"
        )


def _check_peaks(peaks: list[float], min_lr: float, decay: float, num_cycles: int | None) -> None:
    """No cycle may peak below the floor; the error names the first that would."""
    for i, each in enumerate(peaks):
        if each < min_lr and len(peaks) > 1:
            raise ScheduleError(
                "Argument `min_lr` must not exceed the peak of any cycle. "
                f"Received: min_lr={min_lr}, and max_lr[{i}]={each}"
            )
    max_lr = peaks[0]
    peak = Level(max_lr, decay=decay)
    if peak.at(0) >= min_lr and (decay == 1 or min_lr == 0):
        return
    if num_cycles is not None and peak.at(num_cycles - 1) >= min_lr:
        return
    # Peaks only fall, so the first too low is found by bisection.
    low, high = -1, 0
    while peak.at(high) >= min_lr:
        low, high = high, 2 * high + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if peak.at(middle) >= min_lr else (low, middle)
    remedy = "" if num_cycles or high == 0 else "; give `num_cycles` to end before it"
    raise ScheduleError(
        "Argument `min_lr` must not exceed the peak of any cycle. "
        f"Received: min_lr={min_lr}, and cycle {high} would peak at {peak.at(high):g} "
        f"(max_lr={max_lr}, cycle_decay={decay}){remedy}"
    )
