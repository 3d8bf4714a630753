"""The exact table behind a schedule: its segments, and the rules that make them.

The table of an endless schedule, or of one with a million cycles, is not
written out. It is kept as a few rules (`CycleRule`), each standing for a run of
consecutive cycles, from which a cycle's `Segment`s are made when a step asks.
Boundaries are integers or Fractions, and a step is found by integer arithmetic
and bisection; floats appear only when a rate is finally evaluated.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from fractions import Fraction
from typing import Literal, NamedTuple, TypeAlias, get_args

from .curve import CURVES, CurveName, evaluator
from .errors import MAX_STEPS, ScheduleError, check_growth, shown

Rounding = Literal["boundaries", "lengths", "none"]
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)

# A growing rule remembers this many boundaries, as far as steps have asked for
# them; cycles beyond are found by bisection over computed ones. A factor of
# 1.0001 reaches 2**62 within them.
_REMEMBERED_BOUNDARIES = 2**20
# Bits of the fraction of a power of the growth, in fixed point.
_BITS = 320
# Cycles whose segments are kept per schedule before the memory is emptied.
_REMEMBERED_CYCLES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One row of the table: a curve between two rates, over an exact clock.

    The rate at `step` is `last + (first - last) * w`, where `w` falls from 1 to
    0 while the clock runs from `origin` to `origin + length`:
    `w = sin(pi * r / 2) ** 2` on a cosine, `w = r` on a line, with
    `r = (origin + length - step) / length` formed exactly. Outside its clock a
    segment holds the rate of the nearer end.

    Args:
        start: the first step that the segment rules.
        stop: the first step that it no longer rules; None where it has no end.
        origin: the clock's zero, in optimizer steps. It may lie before `start`.
        length: the clock's length in optimizer steps.
        first: the rate at the clock's first instant.
        last: the rate at the clock's last instant.
        curve: "cosine", "linear" or "constant" (which is `last` throughout).
        exponent: the power to which the weight `w` is raised.
        k: the power to which the share that has passed, `1 - r`, is raised.
    """

    start: int
    stop: int | None
    origin: int | Fraction
    length: int | Fraction
    first: float
    last: float
    curve: CurveName = "cosine"
    exponent: float = 1.0
    k: float = 1.0

    def rate(self, step: int | Fraction) -> float:
        """The rate at a step or an instant, which is not checked against the bounds."""
        return self.evaluator()(step)

    def evaluator(self) -> Callable[[int | Fraction], float]:
        """`rate` as a function prepared for many steps."""
        # The same clock in whole ticks, so many to a step, needs integers only:
        # int / int is correctly rounded, whatever its size.
        ticks = math.lcm(self.origin.denominator, self.length.denominator)
        return evaluator(
            ticks=ticks,
            origin=int(self.origin * ticks),
            length=int(self.length * ticks),
            first=self.first,
            last=self.last,
            curve=self.curve,
            exponent=self.exponent,
            k=self.k,
        )


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


# The rates of one cycle: its segments' evaluators, each up to where it stops.
_Row: TypeAlias = Callable[[int], float]


class Layout:
    """Where the cycles of one rule begin: the exact lookup."""

    __slots__ = (
        "_denominator",
        "_known",
        "_ladder",
        "_length",
        "_origin",
        "_power",
        "_recent",
        "_rows",
        "annealing",
        "fixed",
        "index",
        "origin",
        "period",
        "rate",
        "rule",
    )

    def __init__(self, rule: CycleRule, *, origin: Fraction, index: int) -> None:
        self.rule = rule
        self.origin = origin
        self.index = index  # the number, in the whole schedule, of the rule's first cycle
        self.annealing = next(phase for phase in rule.phases if phase.steps is None)
        fixed = [Fraction(phase.steps) for phase in rule.phases if phase.steps is not None]
        self.fixed = sum(fixed, Fraction(0))
        self._ladder = (
            _Ladder(rule, start=math.floor(origin))
            if rule.rounding == "lengths" and rule.growth != 1
            else None
        )
        # Origin and first length over a common denominator: integers.
        self._denominator = math.lcm(origin.denominator, rule.length.denominator)
        self._origin = int(origin * self._denominator)
        self._length = int(rule.length * self._denominator)
        # Caches only: boundaries of growing cycles, prepared rows, the cycle last asked for.
        self._known: list[int] = []
        self._power: tuple[int, int] = (0, 1 << _BITS)  # n and a lower bound of growth**n
        self._rows: dict[int, _Row] = {}
        self._recent: tuple[int, int, _Row] | None = None

        levels = [level for phase in rule.phases for level in (phase.first, phase.last)]
        alike = rule.growth == 1 and all(level.decay == 1.0 for level in levels)
        # After so many steps the rates come again: cycles of p/q steps after p, for q of them.
        self.period = Fraction(rule.length).numerator if alike else None
        # The rate at a step of this rule, by the quickest lookup that is exact.
        self.rate: Callable[[int], float]
        if alike and rule.rounding == "none":
            self.rate = self._ticking()
        elif alike and self._denominator == 1:
            self.rate = self._rate_periodic
        elif alike:
            self.rate = self._turning()
        elif self._is_plain():
            self.rate = self._direct()
        else:
            self.rate = self._rate_single

    def _rate_periodic(self, step: int) -> float:
        """Cycles of equal whole length: every step is one of the first cycle."""
        row = self._rows.get(0)
        if row is None:
            row = self._rows[0] = self._row(0, 0, self._length)
        step = (step - self._origin) % self._length
        return row(step)

    def _turning(self) -> Callable[[int], float]:
        """The rate at a step of cycles of two neighbouring lengths, by turns: a row for each."""
        denominator, origin, length = self._denominator, self._origin, self._length
        latest = denominator - 1 - origin
        rows: dict[int, _Row] = {}

        def rate(step: int) -> float:
            begin = origin + (step * denominator + latest) // length * length
            start = begin // denominator
            span = (begin + length) // denominator - start
            row = rows.get(span)
            if row is None:
                row = rows[span] = self._row(0, 0, span)
            return row(step - start)

        return rate

    def _ticking(self) -> Callable[[int], float]:
        """The rate at a step of cycles of equal real-valued length: one row for all, in ticks."""
        rule = self.rule
        parts = list(self._parts(0, Fraction(0), Fraction(rule.length)))
        exact = [value for part in parts for value in (part.stop, part.origin, part.length)]
        ticks = math.lcm(self._denominator, *(value.denominator for value in exact))
        origin, length = int(self.origin * ticks), int(rule.length * ticks)
        row = _joined(
            [
                (
                    int(part.stop * ticks),
                    evaluator(
                        ticks=1,
                        origin=int(part.origin * ticks),
                        length=int(part.length * ticks),
                        first=part.phase.first.at(self.index),
                        last=part.phase.last.at(self.index),
                        curve=part.curve,
                        exponent=part.phase.exponent,
                        k=part.phase.k,
                    ),
                )
                for part in parts
            ]
        )

        def rate(step: int) -> float:
            return row((step * ticks - origin) % length)

        return rate

    def _is_plain(self) -> bool:
        """Whether a cycle's parts follow from its boundaries, each with a clock of its own."""
        return self.rule.rounding == "boundaries" and all(
            not (phase.endpoint or phase.lead or phase.whole_cycle)
            and (phase.steps is None or phase.steps.denominator == 1)
            for phase in self.rule.phases
        )

    def _direct(self) -> Callable[[int], float]:
        """The rate at a step of plain cycles that differ: no row for each, they may be many."""
        parts = [
            (phase, None if phase.steps is None else int(phase.steps)) for phase in self.rule.phases
        ]
        fixed = int(self.fixed)

        def rate(step: int) -> float:
            known = self._known
            if known and step < known[-1]:
                i = bisect_right(known, step) - 1
                start, stop = known[i], known[i + 1]
            else:
                i = self.find(step)
                start, stop = self.boundary(i), self.boundary(i + 1)
            index, rest = self.index + i, stop - start - fixed
            for phase, steps in parts:
                length = rest if steps is None else steps
                if step < start + length:
                    return evaluator(
                        origin=start,
                        length=length,
                        first=phase.first.at(index),
                        last=phase.last.at(index),
                        curve=phase.curve,
                        exponent=phase.exponent,
                        k=phase.k,
                    )(step)
                start += length
            raise AssertionError(f"step {step} lies in no phase of its cycle")

        return rate

    def _rate_single(self, step: int) -> float:
        """Cycles that differ: a row for each."""
        recent = self._recent
        if recent is not None and recent[0] <= step < recent[1]:
            return recent[2](step)
        i = self.find(step)
        row = self._rows.get(i)
        if row is None:
            row = self._row(i, self.boundary(i), self.boundary(i + 1))
            if len(self._rows) >= _REMEMBERED_CYCLES:
                self._rows = {}
            self._rows[i] = row
        if len(self._known) == _REMEMBERED_BOUNDARIES:
            # Only here is finding dear enough to remember its last answer.
            self._recent = (self.boundary(i), self.boundary(i + 1), row)
        return row(step)

    def _row(self, i: int, start: int, stop: int) -> _Row:
        segments = self.segments(i, start, stop)
        return _joined([(segment.stop or 0, segment.evaluator()) for segment in segments])

    def exact(self, i: int) -> Fraction:
        """The exact boundary at which cycle `i` of the rule begins."""
        rule = self.rule
        if self._ladder is not None:
            return Fraction(self._ladder.boundary(i))
        if rule.growth == 1:
            return self.origin + i * Fraction(rule.length)
        return self.origin + rule.length / (rule.growth - 1) * (rule.growth**i - 1)

    def annealing_length(self, i: int) -> Fraction:
        """The exact length of the annealing of cycle `i` of the rule."""
        if self._ladder is not None:
            return Fraction(self._ladder.parts(i)[self.rule.phases.index(self.annealing)])
        return self.rule.length * self.rule.growth**i - self.fixed

    def boundary(self, i: int) -> int:
        """The first step of cycle `i` of the rule."""
        if self._ladder is not None:
            return self._ladder.boundary(i)
        known = self._known
        if i < len(known):
            return known[i]
        down, growth = self.rule.rounding != "none", self.rule.growth
        if growth == 1:
            ticks = self._origin + i * self._length
            return ticks // self._denominator if down else -(-ticks // self._denominator)
        if i * growth.denominator.bit_length() > 2048:
            # The exact power would have thousands of digits, and all we need
            # is its whole part: enclose it, and fall back on the exact one
            # only where the enclosure holds an integer.
            low, high = self._enclosed(i)
            if low == high:
                return low if down else low + 1
        exact = self.exact(i)
        return math.floor(exact) if down else math.ceil(exact)

    def _enclosed(self, i: int, bits: int = _BITS) -> tuple[int, int]:
        """Whole parts of a lower and an upper bound of `exact(i)`, which is no integer if equal."""
        p, q = self.rule.growth.numerator, self.rule.growth.denominator
        low = high = 1 << bits  # growth**n in fixed point, for the n in i's leading bits
        for bit in bin(i)[2:]:
            low, high = low * low >> bits, -(-high * high >> bits)
            if bit == "1":
                low, high = low * p // q, -(-high * p // q)
        return self._whole(low, high, bits)

    def _whole(self, low: int, high: int, bits: int) -> tuple[int, int]:
        """Whole parts that enclose a boundary, from bounds of its power of the growth.

        If they are equal, the boundary is no integer.
        """
        # exact = (origin + length * (growth**i - 1) * q / (p - q)) / denominator
        p, q = self.rule.growth.numerator, self.rule.growth.denominator
        divisor = self._denominator * (p - q)
        fixed = (self._origin * (p - q) - self._length * q) << bits
        ends = [(fixed + self._length * q * power) // divisor for power in (low, high)]
        # Widened by a unit on each side, for these divisions' rounding.
        return (min(ends) - 1) >> bits, (max(ends) + 2) >> bits

    def find(self, step: int) -> int:
        """The cycle of the rule to which `step` belongs, were the rule endless."""
        rule = self.rule
        if self._ladder is not None:
            return self._ladder.find(step)
        if rule.growth == 1:
            # The last cycle whose boundary, rounded, is not after the step.
            latest = self._denominator - 1 if rule.rounding != "none" else 0
            return (step * self._denominator + latest - self._origin) // self._length
        known = self._known
        if not known or known[-1] <= step:
            known = self._extend(step)
        if known[-1] > step:
            return bisect_right(known, step) - 1
        low, high = len(known) - 1, 2 * len(known)
        while self.boundary(high) <= step:
            low, high = high, 2 * high
        return bisect_right(range(low, high), step, key=self.boundary) + low - 1

    def _extend(self, step: int) -> list[int]:
        known = self._known
        while (not known or known[-1] <= step) and len(known) < _REMEMBERED_BOUNDARIES:
            # A new list each time, and longer by half: readers in other
            # threads go on with the one they hold.
            longer = min(len(known) + len(known) // 2 + 8, _REMEMBERED_BOUNDARIES)
            known = known + self._boundaries(len(known), longer)
            self._known = known
        return known

    def _boundaries(self, start: int, stop: int) -> list[int]:
        """Consecutive boundaries: each power from the one before, where that settles it."""
        p, q = self.rule.growth.numerator, self.rule.growth.denominator
        down = self.rule.rounding != "none"
        n, power = self._power
        if n != start:  # another thread was quicker, or slower
            return [self.boundary(i) for i in range(start, stop)]
        found = []
        for i in range(start, stop):
            # Each product was rounded down by less than a unit, and the units
            # have grown with the power: below i * (growth**i + 1) in all.
            low, high = self._whole(power, power + (power >> (_BITS - 40)) + i + 1, _BITS)
            found.append((low if down else low + 1) if low == high else self.boundary(i))
            power = power * p // q
        self._power = (stop, power)
        return found

    def segments(self, i: int, start: int, stop: int) -> tuple[Segment, ...]:
        """The segments of cycle `i`, from step `start` (0 for a template) up to `stop`."""
        begin: int | Fraction = start
        length: int | Fraction = stop - start
        if self.rule.rounding == "none":
            begin, length = self.exact(i), self.rule.length * self.rule.growth**i
        index = self.index + i
        row: list[Segment] = []
        takes_over = start
        for part in self._parts(i, begin, length):
            hands_over = math.ceil(part.stop)
            if hands_over > takes_over:
                row.append(
                    Segment(
                        start=takes_over,
                        stop=hands_over,
                        origin=_plain(part.origin),
                        length=_plain(part.length),
                        first=part.phase.first.at(index),
                        last=part.phase.last.at(index),
                        curve=part.curve,
                        exponent=part.phase.exponent,
                        k=part.phase.k,
                    )
                )
            takes_over = hands_over
        return tuple(row)

    def _parts(self, i: int, begin: int | Fraction, length: int | Fraction) -> Iterator[_Part]:
        """The parts of cycle `i`, were it to run from `begin`, `length` steps long."""
        steps = [phase.steps for phase in self.rule.phases]
        if self._ladder is not None:
            steps = list(self._ladder.parts(i))
        rest = length - sum(part for part in steps if part is not None)
        at = begin
        for phase, part in zip(self.rule.phases, steps, strict=True):
            stop = at + (rest if part is None else part)
            zero, end = (begin, begin + length) if phase.whole_cycle else (at, stop)
            zero -= phase.lead
            curve = phase.curve
            if phase.endpoint:
                end -= 1
                if end <= zero:  # a single step: the last instant is all it has
                    zero, end, curve = at, at + 1, "constant"
            yield _Part(phase=phase, stop=stop, origin=zero, length=end - zero, curve=curve)
            at = stop


class _Part(NamedTuple):
    """One phase of one cycle: where it ends, and its clock."""

    phase: Phase
    stop: int | Fraction
    origin: int | Fraction
    length: int | Fraction
    curve: CurveName


class _Ladder:
    """Cycles whose every part is multiplied in place and rounded down: no closed form.

    They are counted out, as far as they were asked for. A factor that is not
    too near 1 reaches 2**62 steps, or a length that it no longer changes,
    within some ten thousand cycles.
    """

    __slots__ = ("_growth", "_known")

    def __init__(self, rule: CycleRule, *, start: int) -> None:
        self._growth = float(rule.growth)
        fixed = sum(phase.steps or 0 for phase in rule.phases)
        first = tuple(
            int(rule.length - fixed if phase.steps is None else phase.steps)
            for phase in rule.phases
        )
        # The first step of each known cycle, and the lengths of its parts.
        self._known: tuple[list[int], list[tuple[int, ...]]] = ([start], [first])

    def parts(self, i: int) -> tuple[int, ...]:
        """The lengths of the parts of cycle `i`."""
        lengths = self._reach(index=i)[1]
        return lengths[min(i, len(lengths) - 1)]

    def boundary(self, i: int) -> int:
        """The first step of cycle `i`."""
        starts, lengths = self._reach(index=i)
        known = min(i, len(starts) - 1)
        return starts[known] + (i - known) * sum(lengths[known])

    def find(self, step: int) -> int:
        """The cycle to which `step` belongs."""
        starts, lengths = self._reach(step=step)
        known = bisect_right(starts, step) - 1
        return known + (step - starts[known]) // sum(lengths[known])

    def _reach(self, *, index: int = 0, step: int = 0) -> tuple[list[int], list[tuple[int, ...]]]:
        """The known cycles, up to `index` and beyond `step`, or until they no longer change."""
        starts, lengths = self._known
        steady = False
        while not steady and (len(starts) <= index or starts[-1] <= step):
            # New lists, longer by half: readers in other threads go on with
            # the ones they hold.
            starts, lengths = starts[:], lengths[:]
            for _ in range(len(starts) // 2 + 8):
                grown = tuple(int(part * self._growth) for part in lengths[-1])
                steady = grown == lengths[-1]
                if steady:
                    break
                starts.append(starts[-1] + sum(lengths[-1]))
                lengths.append(grown)
            self._known = starts, lengths
        return starts, lengths


def _joined(parts: Sequence[tuple[int, Callable[[int], float]]]) -> _Row:
    """One function of evaluators and where each stops; the last one rules to the end."""
    if len(parts) == 1:
        return parts[0][1]

    def rate(step: int) -> float:
        for stop, evaluate in parts:
            if step < stop:
                return evaluate(step)
        return parts[-1][1](step)

    return rate


def _plain(value: int | Fraction) -> int | Fraction:
    return value if isinstance(value, int) or value.denominator != 1 else value.numerator


def preceded(rules: Sequence[CycleRule], phases: tuple[Phase, ...]) -> tuple[CycleRule, ...]:
    """The same cycles, the first of them preceded by phases of fixed length: a warmup."""
    first = rules[0]
    warmup = sum(
        (Fraction(phase.steps) for phase in phases if phase.steps is not None), Fraction(0)
    )
    begin = replace(
        first, count=1, length=_plain(first.length + warmup), phases=(*phases, *first.phases)
    )
    count = None if first.count is None else first.count - 1
    if count == 0:
        return (begin, *rules[1:])
    later = replace(first, count=count, length=_plain(first.length * first.growth))
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


def check_cycles(layout: Layout, number: int) -> None:
    """Every cycle must have rates that can be, its fixed phases, and a step to anneal."""
    rule = layout.rule
    if rule.count is not None:
        _check_end(layout)
    _check_levels(layout, number)
    shortest = 0 if rule.growth >= 1 or rule.count is None else rule.count - 1
    if rule.rounding != "boundaries":
        # An annealing at least one step long holds a step wherever it begins.
        annealing = layout.annealing_length(shortest)
        if annealing < 1:
            raise ScheduleError(
                f"cycle {layout.index + shortest} must have at least one step to anneal. "
                f"Received: an annealing of {float(annealing):.3g} steps; {_MORE}"
            )
        return
    need = math.ceil(layout.fixed) + 1
    i = _first_short(layout, need, shortest)
    if i is not None:
        raise ScheduleError(
            f"cycle {layout.index + i} must have at least {shown(need)} "
            f"step{'s' if need > 1 else ''} ({_needs(layout.fixed)}). "
            f"Received: a cycle of {layout.boundary(i + 1) - layout.boundary(i)}; {_MORE}"
        )


_MORE = "give more steps, fewer cycles or a shorter warmup"


def _needs(fixed: Fraction) -> str:
    return f"{shown(fixed)} of warmup and 1 to anneal" if fixed else "none may be empty"


def _first_short(layout: Layout, need: int, shortest: int) -> int | None:
    """The first cycle found, from the short end, that spans fewer than `need` steps."""
    rule = layout.rule
    count = math.inf if rule.count is None else rule.count
    if rule.growth == 1:
        # Every cycle spans the whole part of the length, or one step more; the
        # first to span no more is where the boundaries' fractions, which fall
        # by 1 - fraction from cycle to cycle, have come down to that.
        whole, fraction = divmod(Fraction(rule.length), 1)
        first = math.floor(layout.origin % 1 / (1 - fraction)) if fraction else 0
        return first if whole < need and first < count else None
    # A cycle of exact length x spans at least floor(x) steps, so only those
    # shorter than `need` can be too short.
    i, length = shortest, rule.length * rule.growth**shortest
    step = 1 if rule.growth > 1 else -1
    while length < need and 0 <= i < count:
        if layout.boundary(i + 1) - layout.boundary(i) < need:
            return i
        length, i = length * rule.growth**step, i + step
    return None


def _check_levels(layout: Layout, number: int) -> None:
    """No rate may be negative or infinite in the first or the last cycle, nor drift there."""
    rule = layout.rule
    last = layout.index if rule.count is None else layout.index + rule.count - 1
    for place, phase in enumerate(rule.phases):
        for name, level in (("first", phase.first), ("last", phase.last)):
            drifts = rule.count is None and level.decay > 1 and level.value < 0
            if drifts or min(level.at(layout.index), level.at(last)) < 0 or level.base < 0:
                raise ScheduleError(
                    f"in 'rules[{number}].phases[{place}].{name}': "
                    "a rate must not be negative in any cycle. "
                    f"Received: {level}"
                )


def _check_end(layout: Layout) -> None:
    rule, count = layout.rule, layout.rule.count or 0
    # Bounds the size before the exact power is computed; not a lookup, so a
    # float logarithm with a wide margin will do.
    log2_ratio = (min(count, MAX_STEPS) - 1) * log2(rule.growth)
    if count > MAX_STEPS:  # and no cycle is empty
        too_short, too_long = False, True
    elif rule.rounding == "lengths" and rule.growth != 1:
        # Slower than the power; counted out only as far as steps go.
        too_short = False
        too_long = rule.growth > 1 and layout.find(MAX_STEPS) < count
    else:
        too_short, too_long = log2_ratio < -64, log2_ratio > 64
    if too_short:
        raise ScheduleError(
            f"cycle {layout.index + count - 1} must have at least 1 step (none may be empty). "
            f"Received: {count} cycles from {shortened(rule.length)} steps, shrinking by "
            f"{shortened(rule.growth)}; {_MORE}"
        )
    if too_long or layout.exact(count) > MAX_STEPS:
        growing = "" if rule.growth == 1 else f", growing by {shortened(rule.growth)}"
        raise ScheduleError(
            "A schedule that ends must do so within 2**63 steps. Received: "
            f"{shortened(count)} cycle{'s' if count > 1 else ''} of {shortened(rule.length)} "
            f"steps{growing}; for cycles without end, give no number of cycles"
        )


def log2(factor: Fraction) -> float:
    """The binary logarithm, of factors beyond a float's range too; nearly, for bounds only."""
    return math.log2(factor.numerator) - math.log2(factor.denominator)


def shortened(number: int | Fraction) -> str:
    """A positive number for a message, which should not hold hundreds of digits."""
    number = Fraction(number)
    short = max(number.numerator.bit_length(), number.denominator.bit_length()) <= 64
    return str(number) if short else f"about 2**{log2(number):.6g}"
