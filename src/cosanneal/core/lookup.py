"""Where a step falls: the exact lookup in the cycles of one rule.

The table of an endless schedule, or of one with a million cycles, is not
written out: a cycle's boundaries, and its segments, are made from its rule when
a step asks. Boundaries are integers or Fractions, and a step is found by integer
arithmetic and bisection. What its rate is stands in `rates.py`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from .curve import CurveName
from .errors import MAX_STEPS, ScheduleError, shown
from .rules import CycleRule, Phase, check_rules, log2, reduced, shortened
from .segment import Segment

# A growing rule remembers this many boundaries, as far as steps have asked for
# them; cycles beyond are found by bisection over computed ones. A factor of
# 1.0001 reaches 2**62 within them.
_REMEMBERED_BOUNDARIES = 2**20
# Bits of the fraction of a power of the growth, in fixed point.
_BITS = 320


class Part(NamedTuple):
    """One phase of one cycle: where it ends, and its clock."""

    phase: Phase
    stop: int | Fraction
    origin: int | Fraction
    length: int | Fraction
    curve: CurveName

    def times(self, ticks: int) -> Part:
        """The same with `ticks`, which make it whole, in place of steps."""
        stop, origin, length = self.stop * ticks, self.origin * ticks, self.length * ticks
        return self._replace(stop=int(stop), origin=int(origin), length=int(length))

    def segment(self, index: int, start: int) -> Segment:
        """The segment from `start` on, in the cycle of this number in the whole schedule."""
        return Segment(
            start=start,
            stop=math.ceil(self.stop),
            origin=reduced(self.origin),
            length=reduced(self.length),
            first=self.phase.first.at(index),
            last=self.phase.last.at(index),
            curve=self.curve,
            exponent=self.phase.exponent,
            k=self.phase.k,
        )


class Lookup:
    """The cycles of one rule: where they begin, and what each is made of.

    Args:
        rule: the rule.
        origin: the exact instant at which its first cycle begins.
        index: the number of that cycle in the whole schedule.
    """

    __slots__ = (
        "_known",
        "_ladder",
        "_power",
        "_recent",
        "annealing",
        "fixed",
        "index",
        "length_ticks",
        "origin",
        "origin_ticks",
        "rule",
        "ticks",
    )

    def __init__(self, rule: CycleRule, *, origin: Fraction, index: int) -> None:
        self.rule: CycleRule = rule
        self.origin: Fraction = origin
        self.index: int = index
        self.annealing: Phase = next(phase for phase in rule.phases if phase.steps is None)
        fixed = [Fraction(phase.steps) for phase in rule.phases if phase.steps is not None]
        self.fixed: Fraction = sum(fixed, Fraction(0))
        self._ladder = (
            _Ladder(rule, start=math.floor(origin))
            if rule.rounding == "lengths" and rule.growth != 1
            else None
        )
        # Origin and first length in whole ticks, so many to a step: integers.
        self.ticks: int = math.lcm(origin.denominator, rule.length.denominator)
        self.origin_ticks: int = int(origin * self.ticks)
        self.length_ticks: int = int(rule.length * self.ticks)
        # Memories only: boundaries of growing cycles, and beyond them the cycle last found.
        self._known: list[int] = []
        self._power: tuple[int, int] = (0, 1 << _BITS)  # n and a lower bound of growth**n
        self._recent: tuple[int, int, int] = (0, 0, 0)

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
            ticks = self.origin_ticks + i * self.length_ticks
            return ticks // self.ticks if down else -(-ticks // self.ticks)
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
        divisor = self.ticks * (p - q)
        fixed = (self.origin_ticks * (p - q) - self.length_ticks * q) << bits
        ends = [(fixed + self.length_ticks * q * power) // divisor for power in (low, high)]
        # Widened by a unit on each side, for these divisions' rounding.
        return (min(ends) - 1) >> bits, (max(ends) + 2) >> bits

    def find(self, step: int) -> int:
        """The cycle of the rule to which `step` belongs, were the rule endless."""
        rule = self.rule
        if self._ladder is not None:
            return self._ladder.find(step)
        if rule.growth == 1:
            # The last cycle whose boundary, rounded, is not after the step.
            latest = self.ticks - 1 if rule.rounding != "none" else 0
            return (step * self.ticks + latest - self.origin_ticks) // self.length_ticks
        known = self._known
        if not known or known[-1] <= step:
            known = self._extend(step)
        if known[-1] > step:
            return bisect_right(known, step) - 1
        # Only here is finding dear enough to remember its last answer.
        i, start, stop = self._recent
        if not start <= step < stop:
            low, high = len(known) - 1, 2 * len(known)
            while self.boundary(high) <= step:
                low, high = high, 2 * high
            i = bisect_right(range(low, high), step, key=self.boundary) + low - 1
            self._recent = i, self.boundary(i), self.boundary(i + 1)
        return i

    def cycle(self, step: int) -> tuple[int, int, int]:
        """The cycle to which `step` belongs, its first step and the one after its last."""
        known = self._known
        if known and step < known[-1]:
            i = bisect_right(known, step) - 1
            return i, known[i], known[i + 1]
        i = self.find(step)
        return i, self.boundary(i), self.boundary(i + 1)

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
        row: list[Segment] = []
        takes_over = start
        for part in self.parts(i, begin, length):
            hands_over = math.ceil(part.stop)
            if hands_over > takes_over:
                row.append(part.segment(self.index + i, takes_over))
            takes_over = hands_over
        return tuple(row)

    def parts(self, i: int, begin: int | Fraction, length: int | Fraction) -> Iterator[Part]:
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
            yield Part(phase=phase, stop=stop, origin=zero, length=end - zero, curve=curve)
            at = stop


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


def lookups(rules: Sequence[CycleRule]) -> tuple[Lookup, ...]:
    """The lookups of a schedule's rules, one after another.

    Raises:
        ScheduleError: a rule, or a cycle, that cannot be.
    """
    check_rules(rules)
    found: list[Lookup] = []
    origin, index = Fraction(0), 0
    for number, rule in enumerate(rules):
        lookup = Lookup(rule, origin=origin, index=index)
        if origin.denominator != 1 and rule.rounding != rules[number - 1].rounding:
            raise ScheduleError(
                f"in 'rules[{number}].rounding': must be that of the rule before, "
                f"{rules[number - 1].rounding!r}, which does not end at a whole step. "
                f"Received: {rule.rounding!r}"
            )
        _check_cycles(lookup, number)
        found.append(lookup)
        if rule.count is not None:
            origin, index = lookup.exact(rule.count), index + rule.count
    return tuple(found)


def _check_cycles(lookup: Lookup, number: int) -> None:
    """Every cycle must have rates that can be, its fixed phases, and a step to anneal."""
    rule = lookup.rule
    if rule.count is not None:
        _check_end(lookup)
    _check_levels(lookup, number)
    shortest = 0 if rule.growth >= 1 or rule.count is None else rule.count - 1
    if rule.rounding != "boundaries":
        # An annealing at least one step long holds a step wherever it begins.
        annealing = lookup.annealing_length(shortest)
        if annealing < 1:
            raise ScheduleError(
                f"cycle {lookup.index + shortest} must have at least one step to anneal. "
                f"Received: an annealing of {float(annealing):.3g} steps; {_MORE}"
            )
        return
    need = math.ceil(lookup.fixed) + 1
    i = _first_short(lookup, need, shortest)
    if i is not None:
        raise ScheduleError(
            f"cycle {lookup.index + i} must have at least {shown(need)} "
            f"step{'s' if need > 1 else ''} ({_needs(lookup.fixed)}). "
            f"Received: a cycle of {lookup.boundary(i + 1) - lookup.boundary(i)}; {_MORE}"
        )


_MORE = "give more steps, fewer cycles or a shorter warmup"


def _needs(fixed: Fraction) -> str:
    return f"{shown(fixed)} of warmup and 1 to anneal" if fixed else "none may be empty"


def _first_short(lookup: Lookup, need: int, shortest: int) -> int | None:
    """The first cycle found, from the short end, that spans fewer than `need` steps."""
    rule = lookup.rule
    count = math.inf if rule.count is None else rule.count
    if rule.growth == 1:
        # Every cycle spans the whole part of the length, or one step more; the
        # first to span no more is where the boundaries' fractions, which fall
        # by 1 - fraction from cycle to cycle, have come down to that.
        whole, fraction = divmod(Fraction(rule.length), 1)
        first = math.floor(lookup.origin % 1 / (1 - fraction)) if fraction else 0
        return first if whole < need and first < count else None
    # A cycle of exact length x spans at least floor(x) steps, so only those
    # shorter than `need` can be too short.
    i, length = shortest, rule.length * rule.growth**shortest
    step = 1 if rule.growth > 1 else -1
    while length < need and 0 <= i < count:
        if lookup.boundary(i + 1) - lookup.boundary(i) < need:
            return i
        length, i = length * rule.growth**step, i + step
    return None


def _check_levels(lookup: Lookup, number: int) -> None:
    """No rate may be negative or infinite in the first or the last cycle, nor drift there."""
    rule = lookup.rule
    last = lookup.index if rule.count is None else lookup.index + rule.count - 1
    for place, phase in enumerate(rule.phases):
        for name, level in (("first", phase.first), ("last", phase.last)):
            drifts = rule.count is None and level.decay > 1 and level.value < 0
            if drifts or min(level.at(lookup.index), level.at(last)) < 0 or level.base < 0:
                raise ScheduleError(
                    f"in 'rules[{number}].phases[{place}].{name}': "
                    "a rate must not be negative in any cycle. "
                    f"Received: {level}"
                )


def _check_end(lookup: Lookup) -> None:
    rule, count = lookup.rule, lookup.rule.count or 0
    # Bounds the size before the exact power is computed; not a lookup, so a
    # float logarithm with a wide margin will do.
    log2_ratio = (min(count, MAX_STEPS) - 1) * log2(rule.growth)
    if count > MAX_STEPS:  # and no cycle is empty
        too_short, too_long = False, True
    elif rule.rounding == "lengths" and rule.growth != 1:
        # Slower than the power; counted out only as far as steps go.
        too_short = False
        too_long = rule.growth > 1 and lookup.find(MAX_STEPS) < count
    else:
        too_short, too_long = log2_ratio < -64, log2_ratio > 64
    if too_short:
        raise ScheduleError(
            f"cycle {lookup.index + count - 1} must have at least 1 step (none may be empty). "
            f"Received: {count} cycles from {shortened(rule.length)} steps, shrinking by "
            f"{shortened(rule.growth)}; {_MORE}"
        )
    if too_long or lookup.exact(count) > MAX_STEPS:
        growing = "" if rule.growth == 1 else f", growing by {shortened(rule.growth)}"
        raise ScheduleError(
            "A schedule that ends must do so within 2**63 steps. Received: "
            f"{shortened(count)} cycle{'s' if count > 1 else ''} of {shortened(rule.length)} "
            f"steps{growing}; for cycles without end, give no number of cycles"
        )
