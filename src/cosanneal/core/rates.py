"""The rates of one rule: at a step, and of a range of steps as an array."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from .curve import evaluator, half_cosine
from .lookup import Lookup
from .segment import Segment

# The rates of one cycle: its segments' evaluators, each up to where it stops.
_Row: TypeAlias = Callable[[int], float]

# Cycles whose rows are kept for each rule before the memory is emptied.
_REMEMBERED_CYCLES = 1024
# So many rates are computed at a time: what that takes stays in a processor's cache.
_CHUNK = 2**13
# Integers up to here are floats, and the quotient of two of them is rounded but once.
_EXACT = 2**53


def rate_of(lookup: Lookup) -> Callable[[int], float]:
    """The rate at a step of the lookup's rule, by the quickest way that is exact."""
    rule = lookup.rule
    if rule.alike and (rule.rounding == "none" or lookup.ticks == 1):
        return _repeating(lookup)
    if rule.alike:
        return _turning(lookup)
    # Whether a cycle's parts follow from its boundaries, each with a clock of its own.
    plain = rule.rounding == "boundaries" and all(
        not (phase.endpoint or phase.lead or phase.whole_cycle)
        and (phase.steps is None or phase.steps.denominator == 1)
        for phase in rule.phases
    )
    return _direct(lookup) if plain else _kept(lookup)


def _repeating(lookup: Lookup) -> Callable[[int], float]:
    """Cycles that repeat to the tick: one row for all, since a remainder takes a step there."""
    ticks = origin = length = 0
    row: _Row | None = None

    def rate(step: int) -> float:
        nonlocal ticks, origin, length, row
        if row is None:
            # Made when asked for, since a list of cycles has a rule for each. The
            # row is set last, by which another thread sees that all is there.
            parts = list(lookup.parts(0, 0, lookup.rule.length))
            exact = [value for part in parts for value in (part.stop, part.origin, part.length)]
            ticks = math.lcm(lookup.ticks, *(value.denominator for value in exact))
            origin, length = int(lookup.origin * ticks), int(lookup.rule.length * ticks)
            row = _row(part.times(ticks).segment(lookup.index, 0) for part in parts)
        return row((step * ticks - origin) % length)

    return rate


def _turning(lookup: Lookup) -> Callable[[int], float]:
    """Equal cycles, rounded to whole steps, have two lengths by turns: a row for each of these."""
    ticks, origin, length = lookup.ticks, lookup.origin_ticks, lookup.length_ticks
    latest = ticks - 1 - origin
    rows: dict[int, _Row] = {}

    def rate(step: int) -> float:
        begin = origin + (step * ticks + latest) // length * length
        start = begin // ticks
        span = (begin + length) // ticks - start
        row = rows.get(span)
        if row is None:
            row = rows[span] = _row(lookup.segments(0, 0, span))
        return row(step - start)

    return rate


def _direct(lookup: Lookup) -> Callable[[int], float]:
    """Plain cycles that differ: there may be millions, and a row for each costs thrice a rate."""
    parts = [
        (phase, None if phase.steps is None else int(phase.steps)) for phase in lookup.rule.phases
    ]
    fixed = int(lookup.fixed)

    def rate(step: int) -> float:
        i, start, stop = lookup.cycle(step)
        index, rest = lookup.index + i, stop - start - fixed
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


def _kept(lookup: Lookup) -> Callable[[int], float]:
    """All other cycles that differ: a row, dear to make, for each as far as there is room."""
    rows: dict[int, _Row] = {}

    def rate(step: int) -> float:
        i = lookup.find(step)
        row = rows.get(i)
        if row is None:
            if len(rows) >= _REMEMBERED_CYCLES:
                rows.clear()
            segments = lookup.segments(i, lookup.boundary(i), lookup.boundary(i + 1))
            row = rows[i] = _row(segments)
        return row(step)

    return rate


def _row(segments: Iterable[Segment]) -> _Row:
    """The rates of a cycle of these segments."""
    row = [(segment.stop or 0, segment.evaluator()) for segment in segments]
    if len(row) == 1:
        return row[0][1]

    def rate(step: int) -> float:
        for stop, evaluate in row:
            if step < stop:
                return evaluate(step)
        raise AssertionError(f"step {step} lies in no segment of its cycle")

    return rate


def fill(out: Any, segment: Segment, start: int, xp: Any) -> None:
    """Set `out` to the segment's rates from step `start` on: those of `Segment.rate`.

    To the last bit, if the namespace's sine of an array is math's of each number.

    Args:
        out: a writable array of float64.
        segment: the segment.
        start: the step of the array's first rate.
        xp: the array's namespace: numpy.
    """
    stop = start + len(out)
    # The steps between the ends of the clock, where the nearer end is not held.
    begin = min(max(math.floor(segment.origin) + 1, start), stop)
    end = min(max(math.ceil(segment.origin + segment.length), begin), stop)
    if segment.curve == "constant":
        begin = end = start
    out[: begin - start] = segment.first
    out[end - start :] = segment.last
    inner = out[begin - start : end - start]
    ticks = math.lcm(segment.origin.denominator, segment.length.denominator)
    length = int(segment.length * ticks)
    if segment.exponent != 1 or segment.k != 1 or length + _CHUNK * ticks > _EXACT:
        evaluate = segment.evaluator()
        for at in range(0, len(inner), _CHUNK):
            chunk = inner[at : at + _CHUNK]
            chunk[:] = [evaluate(begin + at + i) for i in range(len(chunk))]
        return
    rising = segment.first < segment.last
    low, high = (segment.first, segment.last) if rising else (segment.last, segment.first)
    pace = ticks if rising else -ticks
    passed = int((begin - segment.origin) * ticks)
    part = passed if rising else length - passed
    ramp = xp.arange(min(_CHUNK, len(inner)), dtype=xp.float64) * pace
    for at in range(0, len(inner), _CHUNK):
        chunk = inner[at : at + _CHUNK]
        share = (ramp[: len(chunk)] + (part + at * pace)) / length
        weight = half_cosine(share, xp.sin) if segment.curve == "cosine" else share
        # Rounding may have carried it above the peak.
        xp.minimum(low + (high - low) * weight, high, out=chunk)


def fill_range(
    out: Any,
    lookups: Sequence[Lookup],
    ends: Sequence[int],
    start: int,
    segments: Callable[[int, int], Iterable[Segment]],
    xp: Any,
) -> None:
    """Set `out` to the rates of the steps from `start` on, as far as there are cycles.

    Args:
        out: a writable array of float64.
        lookups: of the schedule's rules.
        ends: the step at which each rule's cycles end.
        start: the step of the array's first rate.
        segments: the schedule's rows between two steps.
        xp: the array's namespace: numpy.
    """
    stop = start + len(out)
    for lookup, rule_end in zip(lookups, ends, strict=True):
        begin, end = max(lookup.boundary(0), start), min(rule_end, stop)
        if begin >= end:
            continue
        # After so many steps the rates come again: cycles of p/q steps after p, for q of them.
        period = lookup.rule.length.numerator if lookup.rule.alike else end - begin
        once = min(end, begin + period)
        for segment in segments(begin, once):
            first = max(segment.start, begin)
            last = once if segment.stop is None else min(segment.stop, once)
            fill(out[first - start : last - start], segment, first, xp)
        repeat(out[begin - start : end - start], once - begin)


def repeat(out: Any, period: int) -> None:
    """Set `out` to its first `period` values, again and again."""
    done = block = period
    while done < len(out):
        more = min(block, len(out) - done)
        out[done : done + more] = out[:more]
        done += more
        if block < _CHUNK:  # what is copied again and again should stay in the cache
            block = done
