"""A schedule as a few rows of plain numbers, exactly, for frameworks that trace a graph.

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
from itertools import chain
from typing import Final, NamedTuple

from ..errors import ScheduleError
from ..schedule import Schedule
from ..segment import Segment

MAX_ROWS: Final = 2**15


class Row(NamedTuple):
    """One segment: `low + (high - low) * w`, where `w` rises with the clock's share.

    With `passed = direction * (step - anchor)`, an integer, the share is
    `max(passed + offset, 0) / length`, and the rate `high` where `passed > top`.
    What is left of the clock, `length - offset - passed`, is `span - passed +
    beyond`, which powers of the share's complement need.

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
        exponent: as in `Segment`.
        k: as in `Segment`.
        span: an integer, at most the limit.
        beyond: at least 0.
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
    exponent: float
    k: float
    span: int
    beyond: int | Fraction


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
        ScheduleError: it would take more than `MAX_ROWS` rows.

    Example:
        >>> from cosanneal import CyclicCosine
        >>> lowered = lower(CyclicCosine(0.1, total_steps=10_000, num_cycles=1000), 2**31 - 1)
        >>> lowered.repeats, [row.start for row in lowered.rows]
        ((0, 10000, 10), [0])
    """
    repeats = longest_run(schedule, limit)
    if repeats is None:
        segments: Iterator[Segment] = schedule.segments(0, limit + 1)
    else:
        start, stop, period = repeats
        after = () if stop is None else schedule.segments(stop, limit + 1)
        segments = chain(
            schedule.segments(0, start), schedule.segments(start, start + period), after
        )
    rows: list[Row] = []
    for segment in segments:
        if rows and _holds(rows[-1], segment):
            continue
        rows.append(_row(segment, limit))
        if len(rows) > MAX_ROWS:
            break
    if len(rows) > MAX_ROWS:
        raise ScheduleError(
            f"The schedule must be a table of at most {MAX_ROWS} rows to be lowered into a graph, "
            f"up to step {limit}. Received: {schedule!r}, which takes more; give fewer cycles, "
            "cycles of equal length without decay, a larger growth, or num_cycles for an end"
        )
    return Lowered(rows=tuple(rows), repeats=repeats)


def _holds(row: Row, segment: Segment) -> bool:
    """Whether a segment only goes on with the rate that the row before it has come to."""
    passed = row.direction * (segment.start - row.anchor)
    come = row.high if passed > row.top else row.low
    over = passed > row.top if row.direction == 1 else passed + row.offset <= 0
    return segment.curve == "constant" and over and segment.last == come


def longest_run(
    schedule: Schedule, limit: int, *, rates: bool = True
) -> tuple[int, int | None, int] | None:
    """Of the runs of cycles that come again after a whole number of steps, the longest.

    Args:
        schedule: the schedule.
        limit: the largest step.
        rates: whether the rates must come again too, or the lengths alone.
    """
    cycles = schedule.cycles()
    longest: tuple[int, int | None, int] | None = None
    saved, index = 0, 0
    for rule in schedule.rules:
        if rule.count != 1 and (rule.alike if rates else rule.growth == 1):
            start = cycles[index].start
            if start > limit:
                break
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


def _row(segment: Segment, limit: int) -> Row:
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
    span = min(math.floor(length - offset), limit)
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
        exponent=segment.exponent if low < high else 1.0,
        k=segment.k if low < high else 1.0,
        span=span,
        beyond=length - offset - span,
    )
