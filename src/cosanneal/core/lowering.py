"""A schedule as a small table of plain numbers, for frameworks that trace a graph.

Inside a graph there are no Fractions and no integers beyond 32 or 64 bits. So
each segment becomes a row of machine integers and floats, made so that nothing
cancels when a step meets it: a clock counts from its segment's low end, in
whole steps from an integer `anchor`, and what the anchor leaves out is added as
a float of the same sign.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from typing import Final

from .errors import ScheduleError
from .schedule import Schedule
from .table import CycleRule, Segment

MAX_ROWS: Final = 2**15


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One segment: `low + (high - low) * w`, where `w` rises with the clock's share.

    With `passed = direction * (step - anchor)`, an integer, the share is
    `max(passed + offset, 0) / length`, and the rate `high` where `passed > top`.

    Args:
        start: the first step that the row rules.
        anchor: the step from which the clock counts, in [0, limit].
        direction: 1 where the rate rises with the step, -1 where it falls.
        top: the largest `passed` whose rate is not yet `high`.
        offset: how far the clock stands at the anchor, at least 0.
        length: the clock's length in optimizer steps.
        low: the rate at the low end.
        high: the rate at the high end.
        cosine: whether `w` is the half cosine of the share; else it is the share.
    """

    start: int
    anchor: int
    direction: int
    top: int
    offset: int | Fraction
    length: int | Fraction
    low: float
    high: float
    cosine: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """The rows of a schedule for the steps in [0, limit], and where they repeat.

    Args:
        rows: by their starts, the first of which is 0.
        repeats: (start, stop, period) where cycles come again: a step in
            [start, stop) is `start + (step - start) % period`. `stop` is None
            where no step within the limit lies beyond it.
    """

    rows: tuple[Row, ...]
    repeats: tuple[int, int | None, int] | None


def lower(schedule: Schedule, limit: int) -> Lowered:
    """The table of a schedule for every step from 0 to `limit`, the largest there is.

    Raises:
        ScheduleError: it would take more than `MAX_ROWS` rows, or has a curve
            that graphs do not know.

    Example:
        >>> from cosanneal import CyclicCosine
        >>> lowered = lower(CyclicCosine(0.1, total_steps=10_000, num_cycles=1000), 2**31 - 1)
        >>> lowered.repeats, [row.start for row in lowered.rows]
        ((0, 10000, 10), [0, 10000])
    """
    repeats = _repeats(schedule, limit)
    if repeats is None:
        segments: Iterator[Segment] = schedule.segments(0, limit + 1)
    else:
        start, stop, period = repeats
        after = () if stop is None else schedule.segments(stop, limit + 1)
        segments = chain(
            schedule.segments(0, start), schedule.segments(start, start + period), after
        )
    rows = tuple(_row(segment, limit) for segment in islice(segments, MAX_ROWS + 1))
    if len(rows) > MAX_ROWS:
        raise ScheduleError(
            f"The schedule must be a table of at most {MAX_ROWS} rows to be lowered into a graph, "
            f"up to step {limit}. Received: {schedule!r}, which takes more; give fewer cycles, "
            "cycles of equal length without decay, a larger growth, or num_cycles for an end"
        )
    return Lowered(rows=rows, repeats=repeats)


def _repeats(schedule: Schedule, limit: int) -> tuple[int, int | None, int] | None:
    """Of the runs of cycles that come again after a whole number of steps, the longest."""
    cycles = schedule.cycles()
    longest: tuple[int, int | None, int] | None = None
    saved, index = 0, 0
    for rule in schedule.rules:
        start = cycles[index].start
        if start > limit:
            break
        if _is_alike(rule):
            # Cycles of p/q steps stand anew at whole steps after q of them.
            length = Fraction(rule.length)
            within = (limit - start) // length + 1
            count = within if rule.count is None else min(rule.count, within)
            if count - length.denominator > saved:
                saved = count - length.denominator
                stop = None if rule.count is None else cycles[index + rule.count - 1].stop
                stop = None if stop is None or stop > limit else stop
                longest = (start, stop, length.numerator)
        index += rule.count or 0
    return longest


def _is_alike(rule: CycleRule) -> bool:
    levels = [level for phase in rule.phases for level in (phase.first, phase.last)]
    return rule.growth == 1 and all(level.decay == 1 for level in levels)


def _row(segment: Segment, limit: int) -> Row:
    if segment.curve != "constant" and not segment.exponent == segment.k == 1:
        raise ScheduleError(
            "A schedule must have exponent=1 and k=1 to be lowered into a graph. Received: "
            f"exponent={segment.exponent}, k={segment.k} in the segment from step {segment.start}; "
            "evaluate such a schedule by schedule.rate(step), outside of the graph"
        )
    low, high = sorted((segment.first, segment.last))
    rising = segment.first < segment.last
    origin, length = segment.origin, segment.length
    end = origin + length
    if rising:
        end = origin
    # The nearest whole step at which the clock is not before its low end.
    anchor = max(math.ceil(end), 0) if rising else min(math.floor(end), limit)
    if segment.curve == "constant" or low == high or not 0 <= anchor <= limit:
        # Held throughout; a clock that begins beyond the last step, or ended
        # before the first, stands at its low end.
        low = high = segment.last if segment.curve == "constant" else low
        rising, anchor, end, length = True, 0, 0, 1
    offset: int | Fraction = anchor - end if rising else end - anchor
    return Row(
        start=segment.start,
        anchor=anchor,
        direction=1 if rising else -1,
        top=min(math.ceil(length - offset) - 1, limit),
        offset=offset,
        length=length,
        low=low,
        high=high,
        cosine=segment.curve == "cosine",
    )
