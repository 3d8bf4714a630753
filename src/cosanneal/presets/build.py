"""What the presets share: the forms of their schedules, and the checks of their arguments."""

from __future__ import annotations

from fractions import Fraction

from ..core.errors import ScheduleError, check_factor, check_rate, check_steps
from ..core.rules import CycleRule, Level, Phase, Rounding
from ..core.schedule import Schedule

ZERO = Level(0.0)
_ONE = Fraction(1)


def endless(
    length: int | Fraction,
    *,
    peak: Level,
    floor: Level = ZERO,
    growth: Fraction = _ONE,
    rounding: Rounding = "boundaries",
) -> Schedule:
    """Cycles without end, all of one annealing."""
    annealing = Phase(steps=None, first=peak, last=floor)
    rule = CycleRule(
        count=None, length=length, growth=growth, rounding=rounding, phases=(annealing,)
    )
    return Schedule((rule,))


def warmed(
    count: int | None,
    warmup: int,
    initial: Level,
    length: int | Fraction,
    annealing: Phase,
    *,
    rounding: Rounding = "boundaries",
) -> CycleRule:
    """Cycles of a straight line from `initial`, if it has steps, and an annealing of `length`."""
    rise = Phase(steps=warmup, first=initial, last=annealing.first, curve="linear")
    phases = (rise, annealing) if warmup else (annealing,)
    return CycleRule(count=count, length=warmup + length, rounding=rounding, phases=phases)


def waves(half: Fraction, *, peak: Level, floor: Level, warmup: int = 0) -> Schedule:
    """A fall, after a warmup from 0, then rises and falls without end, each `half` long."""
    fall = Phase(steps=None, first=peak, last=floor)
    rise = Phase(steps=half, first=floor, last=peak)
    first = warmed(1, warmup, Level(0.0), half, fall, rounding="none")
    rest = CycleRule(count=None, length=2 * half, rounding="none", phases=(rise, fall))
    return Schedule((first, rest))


def check_cut(name: str, total: int, parts_name: str, parts: int) -> tuple[int, int]:
    """A budget and the number of cycles into which it is cut."""
    total = check_steps(name, total, minimum=1)
    parts = check_steps(parts_name, parts, minimum=1)
    if parts > total:
        raise ScheduleError(
            f"Argument `{parts_name}` must not exceed `{name}`: a cycle must have a step. "
            f"Received: {parts_name}={parts}, {name}={total}"
        )
    return total, parts


def check_length(name: str, value: float | Fraction, *, why: str = "") -> Fraction:
    """A real-valued length of at least one step, or a factor from one to the next."""
    length = check_factor(name, value)
    if length < 1:
        raise ScheduleError(
            f"Argument `{name}` must be at least 1{why}. Received: {name}={value!r}"
        )
    return length


def check_growth(name: str, value: float | Fraction) -> Fraction:
    """The factor from one cycle's length to the next, for cycles without end."""
    return check_length(name, value, why=": cycles without end cannot shrink")


def check_floor(name: str, floor: float, peak_name: str, peak: float) -> float:
    """A rate that does not exceed the peak."""
    floor = check_rate(name, floor)
    if floor > peak:
        raise ScheduleError(
            f"Argument `{name}` must give a floor that is not above the peak, `{peak_name}`. "
            f"Received: a floor of {floor} under a peak of {peak}"
        )
    return floor


def check_share(name: str, value: float | None) -> float:
    """A number in [0, 1]."""
    share = check_rate(name, value)
    if share > 1:
        raise ScheduleError(f"Argument `{name}` must lie in [0, 1]. Received: {name}={value!r}")
    return share


def check_power(name: str, value: float) -> float:
    """A positive number."""
    power = check_rate(name, value)
    if not power:
        raise ScheduleError(f"Argument `{name}` must be positive. Received: {name}={value!r}")
    return power
