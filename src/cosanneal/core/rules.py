"""What a schedule is made of, rules for runs of cycles, and whether they can be.

Each rule by itself: whether every one of its cycles can be, where it begins, is
looked at in `lookup.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from fractions import Fraction
from typing import Literal, get_args

from .curve import CURVES, CurveName
from .errors import ScheduleError, check_growth, shown

Rounding = Literal["boundaries", "lengths", "none"]
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)


@dataclass(frozen=True, slots=True)
class Level:
    """A rate that may change from cycle to cycle: `base + value * decay**index`.

    `index` is the cycle's number in the whole schedule.
    """

    value: float
    _: KW_ONLY
    decay: float = 1.0
    base: float = 0.0

    def at(self, index: int) -> float:
        """The rate in cycle number `index`."""
        if self.decay == 1.0:
            rate = self.base + self.value
        else:
            try:
                power = self.decay**index
            except OverflowError:  # also where the index itself is beyond a float
                power = 0.0 if self.decay < 1 else math.inf
            rate = self.base + self.value * power if self.value else self.base
        if not math.isfinite(rate):
            raise ScheduleError(f"The rate of cycle {index} is beyond the range of floats: {self}")
        return rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One part of every cycle of a rule: a warmup, an annealing, a rest.

    Args:
        steps: its length in optimizer steps; None, in exactly one phase of a
            rule, for what the others leave: that phase is the annealing.
        first: the rate at its first instant.
        last: the rate at its last instant.
        curve, exponent, k: as in `Segment`.
        endpoint: whether its last step stands at the last instant itself
            (`length - 1` steps from first to last), and not one step before it.
        whole_cycle: whether its clock runs over the whole cycle, also while
            other phases rule.
        lead: so many optimizer steps before its beginning its clock has its
            zero: a phase that is joined on its way.
    """

    steps: int | Fraction | None
    first: Level
    last: Level
    curve: CurveName = "cosine"
    exponent: float = 1.0
    k: float = 1.0
    endpoint: bool = False
    whole_cycle: bool = False
    lead: int | Fraction = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleRule:
    """A run of consecutive cycles that are alike, or grow by an exact factor.

    Unless lengths are rounded, the boundaries of its cycles stand at `origin +
    length * (growth**i - 1) / (growth - 1)`, `origin` being where the rule
    before ends (or 0).

    Args:
        count: how many cycles; None, in the last rule only, for no end.
        length: the exact length of the first one, in optimizer steps.
        growth: the exact factor from one cycle's length to the next.
        rounding: what becomes of lengths that are no whole number of steps.
            "boundaries": every boundary is rounded down to a whole step, and
            the cycle's clock with it, so that each cycle starts exactly at its
            peak and no rounding accumulates. "none": clocks keep the
            real-valued boundaries, and a cycle takes over at the first step at
            or after its own. "lengths": every part of a cycle, its fixed phases
            too, is `int(n * growth)` steps long, `n` its length in the cycle
            before and the product that of two floats: the rounding of the
            peers that multiply a cycle's length in place.
        phases: the parts of each cycle, in order.
    """

    count: int | None
    length: int | Fraction
    growth: Fraction = Fraction(1)
    rounding: Rounding = "boundaries"
    phases: tuple[Phase, ...]

    @property
    def alike(self) -> bool:
        """Whether all its cycles have the same exact length and the same rates."""
        levels = [level for phase in self.phases for level in (phase.first, phase.last)]
        return self.growth == 1 and all(level.decay == 1.0 for level in levels)


def reduced(value: int | Fraction) -> int | Fraction:
    """An int where the value is whole."""
    return value if isinstance(value, int) or value.denominator != 1 else value.numerator


def join(rules: list[CycleRule], rule: CycleRule) -> None:
    """Append a rule of equal cycles, with an end, to which the cycles before it may belong."""
    if rules and (rules[-1].length, rules[-1].phases) == (rule.length, rule.phases):
        rule = replace(rule, count=(rules.pop().count or 0) + (rule.count or 0))
    rules.append(rule)


def preceded(rules: Sequence[CycleRule], phases: tuple[Phase, ...]) -> tuple[CycleRule, ...]:
    """The same cycles, the first of them preceded by phases of fixed length: a warmup."""
    first = rules[0]
    warmup = sum(
        (Fraction(phase.steps) for phase in phases if phase.steps is not None), Fraction(0)
    )
    begin = replace(
        first, count=1, length=reduced(first.length + warmup), phases=(*phases, *first.phases)
    )
    count = None if first.count is None else first.count - 1
    if count == 0:
        return (begin, *rules[1:])
    later = replace(first, count=count, length=reduced(first.length * first.growth))
    return (begin, later, *rules[1:])


def check_rules(rules: Sequence[CycleRule]) -> None:
    """Each rule by itself: a ScheduleError names the path of the first bad field."""
    if not rules:
        raise ScheduleError("A schedule must have at least one rule. Received: rules=()")
    for number, rule in enumerate(rules):
        path = f"rules[{number}]"
        if rule.count is None and number != len(rules) - 1:
            raise ScheduleError(
                f"in '{path}.count': only the last rule may have no end. Received: None"
            )
        if rule.count is not None and (not isinstance(rule.count, int) or rule.count < 1):
            raise ScheduleError(
                f"in '{path}.count': must be at least 1. Received: {shown(rule.count)}"
            )
        if not isinstance(rule.length, int | Fraction) or rule.length < 1:
            raise ScheduleError(
                f"in '{path}.length': must be an int or a Fraction of at least 1. "
                f"Received: {shown(rule.length)}"
            )
        if not isinstance(rule.growth, int | Fraction) or rule.growth <= 0:
            raise ScheduleError(
                f"in '{path}.growth': must be a positive int or Fraction. "
                f"Received: {shown(rule.growth)}"
            )
        _check_growth(rule, f"{path}.growth")
        if rule.rounding not in ROUNDINGS:
            known = ", ".join(map(repr, ROUNDINGS))
            raise ScheduleError(
                f"in '{path}.rounding': must be one of {known}. Received: {shown(rule.rounding)}"
            )
        if sum(phase.steps is None for phase in rule.phases) != 1:
            raise ScheduleError(
                f"in '{path}.phases': exactly one phase must have steps=None, the annealing. "
                f"Received: {shown([phase.steps for phase in rule.phases])}"
            )
        for place, phase in enumerate(rule.phases):
            _check_phase(phase, f"{path}.phases[{place}]")
        if rule.rounding == "lengths":
            _check_lengths(rule, path)


def _check_growth(rule: CycleRule, path: str) -> None:
    growth = Fraction(rule.growth)
    if growth < 1 and rule.count is None:
        raise ScheduleError(
            f"in '{path}': cycles that shrink must have a count. Received: {shown(growth)}"
        )
    # Where lengths are rounded in place there is no power to compute.
    count = None if rule.rounding == "lengths" else rule.count
    check_growth(f"in '{path}': it", growth, count)


def _check_lengths(rule: CycleRule, path: str) -> None:
    if rule.growth != 1 and 0.999 < float(rule.growth) < 1.001:
        raise ScheduleError(
            f"in '{path}.growth': where lengths are rounded it must be 1, at most 0.999 or at "
            f"least 1.001. Received: {float(rule.growth)!r}"
        )
    lengths = {"length": rule.length}
    for place, phase in enumerate(rule.phases):
        if phase.steps is not None:
            lengths[f"phases[{place}].steps"] = phase.steps
    for name, length in lengths.items():
        if length.denominator != 1:
            raise ScheduleError(
                f"in '{path}.{name}': must be an integer where lengths are rounded. "
                f"Received: {length}"
            )


def _check_phase(phase: Phase, path: str) -> None:
    if phase.curve not in CURVES:
        known = ", ".join(map(repr, CURVES))
        raise ScheduleError(
            f"in '{path}.curve': must be one of {known}. Received: {shown(phase.curve)}"
        )
    if phase.steps is not None and phase.steps <= 0:
        raise ScheduleError(f"in '{path}.steps': must be positive. Received: {shown(phase.steps)}")
    if phase.lead < 0:
        raise ScheduleError(
            f"in '{path}.lead': must not be negative. Received: {shown(phase.lead)}"
        )
    for name in ("exponent", "k"):
        power = getattr(phase, name)
        if not math.isfinite(power) or power <= 0:
            raise ScheduleError(
                f"in '{path}.{name}': must be a finite positive number. Received: {power}"
            )
    for name in ("first", "last"):
        level: Level = getattr(phase, name)
        for part in fields(level):
            if not math.isfinite(getattr(level, part.name)):
                raise ScheduleError(
                    f"in '{path}.{name}.{part.name}': must be finite. "
                    f"Received: {getattr(level, part.name)}"
                )
        if level.decay < 0:
            raise ScheduleError(
                f"in '{path}.{name}.decay': must not be negative. Received: {level.decay}"
            )


def log2(factor: Fraction) -> float:
    """The binary logarithm, of factors beyond a float's range too; nearly, for bounds only."""
    return math.log2(factor.numerator) - math.log2(factor.denominator)


def shortened(number: int | Fraction) -> str:
    """A positive number for a message, which should not hold hundreds of digits."""
    number = Fraction(number)
    short = max(number.numerator.bit_length(), number.denominator.bit_length()) <= 64
    return str(number) if short else f"about 2**{log2(number):.6g}"
