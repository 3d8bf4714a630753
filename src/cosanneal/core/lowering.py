"""A schedule as a small table of plain numbers, for frameworks that trace a graph.

Inside a graph there are no Fractions and no integers beyond 32 or 64 bits. So
each segment becomes a row of machine integers and floats, made so that nothing
cancels when a step meets it: a clock counts from its segment's low end, in
whole steps from an integer `anchor`, and what the anchor leaves out is added as
a float of the same sign.

How such a table is evaluated is written here once, as the half cosine is in
`curve.py`: it is handed the arrays and the operations of its framework.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from .curve import half_cosine
from .errors import ScheduleError
from .rules import CycleRule
from .schedule import Schedule
from .segment import Segment

MAX_ROWS: Final = 2**15

# Comparisons one after the other, each of which costs seven operations of the
# graph; as many do the cycles cost that repeat.
_HALVINGS: Final = 3
# Up to so many rows a step is compared with all at once, and not block by block.
_COMPARED_ROWS: Final = 64

# The smallest normal number of 32 bits, whose logarithm stands for that of 0.
_TINY: Final = 2.0**-126

A = TypeVar("A")
T = TypeVar("T", int, float)


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
    repeats = _repeats(schedule, limit)
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


def _repeats(
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
        if rule.count != 1 and rule.growth == 1 and (not rates or _is_level(rule)):
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


def _is_level(rule: CycleRule) -> bool:
    levels = [level for phase in rule.phases for level in (phase.first, phase.last)]
    return all(level.decay == 1 for level in levels)


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


class Operations(Protocol):
    """What `evaluate` needs of a framework, beside `+`, `-`, `*`, `&`, `>`, `>=`, `<` and `==`.

    Numbers are the framework's, in the index dtype or the float dtype of the
    table, and may meet Python's, which take the dtype of the other.
    """

    def before(self, ends: Any, step: Any) -> Any:
        """How many of the ascending integers `ends`, a constant or a row of one, are < step."""

    def take(self, constant: Any, i: Any) -> Any:
        """Entry number `i` of a constant of integers: one, or a row where it has two dimensions."""

    def row(self, rows: Any, i: Any) -> tuple[Sequence[Any], Sequence[Any]]:
        """The integers and the floats of row number `i` of what `Table.of` had made of them."""

    def real(self, integer: Any) -> Any:
        """An integer as a float."""

    def remainder(self, dividend: Any, divisor: int) -> Any:
        """Of a division of integers; what it is for a negative dividend is not used."""

    def quotient(self, dividend: Any, divisor: int) -> Any:
        """Of a division of integers that are not negative, rounded down."""

    def select(self, condition: Any, yes: Any, no: Any) -> Any:
        """`yes` where the condition holds, else `no`; one of them may be a number of Python's."""

    def minimum(self, a: Any, b: Any) -> Any:
        """The smaller of two numbers."""

    def maximum(self, a: Any, b: Any) -> Any:
        """The larger of two numbers."""

    def sin(self, x: Any) -> Any:
        """The sine."""

    def power(self, base: Any, exponent: Any) -> Any:
        """A float of at least 0 to a positive power."""

    def exp(self, x: Any) -> Any:
        """The exponential."""

    def log(self, x: Any) -> Any:
        """The natural logarithm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup(Generic[A]):
    """Which row rules a step, found among the rows' last steps.

    Where every stretch of `width` steps meets few rows, a step's stretch has
    the first of them, and `halvings` comparisons find which it is. Rows of very
    different lengths stand in blocks instead: a step is compared with the last
    of each block, and then with all of one block.

    Args:
        repeats: as in `Lowered`.
        ends: the last step of each row, and the limit to fill up; in blocks, a
            row for each.
        width: the length of a stretch.
        firsts: the first row of each stretch, the last of which has no end;
            None where there is but one.
        halvings: see above; None where rows stand in blocks.
        size: the number of stretches, or the length of a block.
        fences: the last step of each block; None where there is but one.
    """

    repeats: tuple[int, int | None, int] | None
    ends: A
    width: int = 1
    firsts: A | None = None
    halvings: int | None = None
    size: int
    fences: A | None = None

    @classmethod
    def of(
        cls,
        ends: Sequence[int],
        *,
        repeats: tuple[int, int | None, int] | None,
        limit: int,
        constant: Callable[[Any], A],
    ) -> Lookup[A]:
        """The lookup of rows of which the last ends at the limit."""
        most = _HALVINGS if repeats is None else _HALVINGS - 1
        firsts, width, halvings = _stretches(ends, most)
        if halvings <= most:
            filled = [*ends, *[limit] * (2**halvings - 1)]
            return cls(
                repeats=repeats,
                ends=constant(filled),
                width=width,
                firsts=constant(firsts) if len(firsts) > 1 else None,
                halvings=halvings,
                size=len(firsts),
            )
        if len(ends) <= _COMPARED_ROWS:
            return cls(repeats=repeats, ends=constant(list(ends)), size=len(ends))
        size = 1 << (len(ends).bit_length() + 1) // 2
        filled = [*ends, *[limit] * (-len(ends) % size)]
        blocks = [filled[start : start + size] for start in range(0, len(filled), size)]
        fences = constant([block[-1] for block in blocks])
        return cls(repeats=repeats, ends=constant(blocks), fences=fences, size=size)

    def folded(self, step: Any, ops: Operations) -> Any:
        """The step in the first of the cycles that repeat, or where it is."""
        if self.repeats is None:
            return step
        start, stop, period = self.repeats
        again = ops.remainder(step - start if start else step, period)
        if start:
            again = ops.select(step >= start, again + start, step)
        return again if stop is None else ops.select(step < stop, again, step)

    def row(self, step: Any, ops: Operations) -> Any:
        """The number of the row that rules a folded step."""
        if self.halvings is not None:
            if self.firsts is None:
                i = ops.minimum(step, 0)  # 0, as the framework has it
            else:
                stretch = ops.minimum(ops.quotient(step, self.width), self.size - 1)
                i = ops.take(self.firsts, stretch)
            for bit in reversed(range(self.halvings)):
                half = 1 << bit
                later = ops.take(self.ends, i + (half - 1) if bit else i) < step
                i = ops.select(later, i + half, i)
            return i
        if self.fences is None:
            return ops.before(self.ends, step)
        block = ops.before(self.fences, step)
        return block * self.size + ops.before(ops.take(self.ends, block), step)


def _stretches(ends: Sequence[int], most: int) -> tuple[list[int], int, int]:
    """The first row of each stretch, their width, and the halvings that the worst one needs.

    Narrower stretches need fewer; they are tried until one is enough, or in
    larger numbers until `most` are.
    """
    rows = len(ends)
    begun = ends[-2] + 1 if rows > 1 else 0  # by then every row has begun
    for count in (1, rows, 2 * rows, 4 * rows):
        width = max(-(-begun // count), 1)
        starts = range(0, begun + 1, width)
        firsts = [bisect_left(ends, start) for start in starts]
        lasts = [bisect_left(ends, start - 1) for start in starts[1:]] + [rows - 1]
        worst = max(last - first for first, last in zip(firsts, lasts, strict=True))
        halvings = worst.bit_length()
        if halvings <= (1 if count < 2 * rows else most):
            break
    return firsts, width, halvings


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Generic[A]):
    """A lowered schedule as constants of one precision, which `evaluate` evaluates.

    Args:
        limit: the largest step.
        halves: the bits of the lower half of an integer; the others are the upper one.
        lookup: finds a step's row.
        fixed: the numbers that all rows share, by name.
        integers: the names of the other integers of a row, in their order.
        floats: the names of its other floats.
        rows: the rows of these, as the framework keeps them; None where there are none.
    """

    limit: int
    halves: int
    lookup: Lookup[A]
    fixed: Mapping[str, int | float]
    integers: tuple[str, ...]
    floats: tuple[str, ...]
    rows: Any

    @classmethod
    def of(
        cls,
        schedule: Schedule,
        *,
        wide: bool,
        constant: Callable[[Any], A],
        rows: Callable[[list[tuple[int, ...]], list[tuple[float, ...]]], Any],
    ) -> Table[A]:
        """The table of a schedule.

        Args:
            schedule: the schedule.
            wide: for integers and floats of 64 bits, up to step 2**62; or of 32
                bits, up to step 2**31 - 1.
            constant: makes a constant of a list of integers, or of lists of them.
            rows: makes what `Operations.row` is given, of the integers of each
                row and the floats of each.

        Raises:
            ScheduleError: as `lower` does; or rates beyond the floats' range.
        """
        limit = 2**62 if wide else 2**31 - 1
        lowered = lower(schedule, limit)
        given = dict(zip(Row._fields, zip(*lowered.rows, strict=True), strict=True))
        integers: dict[str, Sequence[int]] = {
            name: given[name] for name in ("anchor", "direction", "top", "cosine", "span")
        }
        code = "d" if wide else "f"
        floats: dict[str, list[float]] = {}
        for name, column in _floats(given, 20 if wide else 5).items():
            floats[name] = array(code, column).tolist()
            if not all(map(math.isfinite, floats[name])):
                raise ScheduleError(
                    "The rates of the schedule must be in the range of "
                    f"{'float64' if wide else 'float32'}. Received: a peak of "
                    f"{max(given['high'])}; choose smaller rates, or 64 bits"
                )
        for name in ("exponent", "k"):
            column = list(given[name])
            floats[name] = array(code, column).tolist()
            rest = [each - rounded for each, rounded in zip(column, floats[name], strict=True)]
            floats[f"{name} rest"] = array(code, rest).tolist()
        if {*floats["exponent"], *floats["k"]} == {1.0}:
            del integers["span"], floats["beyond"]
        columns: dict[str, Sequence[int | float]] = {**integers, **floats}
        fixed = {name: column[0] for name, column in columns.items() if len(set(column)) == 1}
        varying = [name for name in integers if name not in fixed]
        wavering = [name for name in floats if name not in fixed]
        ends = [*(start - 1 for start in given["start"][1:]), limit]
        return cls(
            limit=limit,
            halves=2 ** (33 if wide else 12) - 1,
            lookup=Lookup.of(ends, repeats=lowered.repeats, limit=limit, constant=constant),
            fixed=fixed,
            integers=tuple(varying),
            floats=tuple(wavering),
            rows=rows(
                _transposed([integers[name] for name in varying], len(ends)),
                _transposed([floats[name] for name in wavering], len(ends)),
            )
            if varying or wavering
            else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends(Generic[A]):
    """The last steps of a schedule's cycles as constants, which `is_cycle_end` looks up.

    Args:
        limit: the largest step.
        lookup: finds the first of them that is not before a step.
        lasts: these steps; -1 for the rest after them.
    """

    limit: int
    lookup: Lookup[A]
    lasts: A

    @classmethod
    def of(cls, schedule: Schedule, *, wide: bool, constant: Callable[[Any], A]) -> Ends[A]:
        """The ends of the cycles of a schedule; arguments as in `Table.of`.

        Raises:
            ScheduleError: there are more than `MAX_ROWS`, but for equal cycles.
        """
        limit = 2**62 if wide else 2**31 - 1
        repeats = _repeats(schedule, limit, rates=False)
        if repeats is None:
            ends = _last_steps(schedule, 0, limit + 1)
        else:
            start, stop, period = repeats
            after = () if stop is None else _last_steps(schedule, stop, limit + 1)
            ends = chain(_last_steps(schedule, 0, start + period), after)
        lasts = list(islice(ends, MAX_ROWS + 1))
        if len(lasts) > MAX_ROWS:
            raise ScheduleError(
                f"The schedule must have at most {MAX_ROWS} cycles of different lengths for a "
                f"graph, up to step {limit}. Received: {schedule!r}, which has more"
            )
        return cls(
            limit=limit,
            lookup=Lookup.of([*lasts, limit], repeats=repeats, limit=limit, constant=constant),
            lasts=constant([*lasts, -1]),
        )


def _last_steps(schedule: Schedule, start: int, stop: int) -> Iterator[int]:
    """The last steps, before `stop`, of the cycles from the one that begins at `start`."""
    total = schedule.total_steps
    while start < (stop if total is None else min(stop, total)):
        end = schedule.cycle_at(start).stop
        if end <= stop:
            yield end - 1
        start = end


def is_cycle_end(ends: Ends[Any], step: Any, ops: Operations) -> Any:
    """Whether update `step`, in [0, ends.limit], is the last of its cycle; see `evaluate`."""
    step = ends.lookup.folded(step, ops)
    return ops.take(ends.lasts, ends.lookup.row(step, ops)) == step


def evaluate(table: Table[Any], step: Any, ops: Operations) -> Any:
    """The rate at a step in [0, table.limit], by the operations of a framework.

    `low + (high - low) * w`, `w` the half cosine of the share, or the share
    itself; see `Row`.

    Args:
        table: the schedule.
        step: an integer in the index dtype.
        ops: the framework.

    Returns:
        A float: within 8 ulp of the exact rate, where `ops.sin` is within one.
        An exponent multiplies the error of what it is put to, and `k` takes a
        logarithm and an exponential: within 12 ulp there, times the exponent
        where that is more than 1.
    """
    step = table.lookup.folded(step, ops)
    row: dict[str, Any] = dict(table.fixed)
    if table.rows is not None:
        integers, floats = ops.row(table.rows, table.lookup.row(step, ops))
        row |= zip(table.integers, integers, strict=True)
        row |= zip(table.floats, floats, strict=True)
    passed = (step - row["anchor"]) * row["direction"]
    share = _share(passed, row["offset"], row, table.halves, ops)
    if table.fixed.get("k") == table.fixed.get("exponent") == 1.0:
        weight = _curve(share, table, row, ops)
    else:
        left = row["span"] - ops.maximum(passed, 0)
        left = _share(left, row["beyond"], row, table.halves, ops)
        weight = _powered(share, left, table, row, ops)
    # The height may have been rounded up; a rate never exceeds its peak.
    rate = ops.minimum(row["low"] + row["height"] * weight, row["high"])
    return ops.select(passed > row["top"], row["high"], rate)


def _share(count: Any, offset: Any, row: Mapping[str, Any], halves: int, ops: Operations) -> Any:
    """`count / length + offset`, or 0, to little more than one rounding.

    The reciprocal's coarse part has so few bits that its products with either
    half of the bits of `count` are exact, and the fine part's rounding is far
    below.
    """
    small = ops.real(count & halves)
    large = ops.real(count & ~halves)
    rest = ops.real(count) * row["fine"]
    if not isinstance(offset, float) or offset:  # a number of Python's where all rows share it
        rest = rest + offset
    return ops.maximum(large * row["coarse"] + (small * row["coarse"] + rest), 0.0)


def _curve(share: Any, table: Table[Any], row: Mapping[str, Any], ops: Operations) -> Any:
    """The half cosine of a share, or the share itself."""
    if "cosine" not in table.fixed:
        return ops.select(row["cosine"] == 1, half_cosine(share, ops.sin), share)
    return half_cosine(share, ops.sin) if row["cosine"] else share


def _powered(
    share: Any, left: Any, table: Table[Any], row: Mapping[str, Any], ops: Operations
) -> Any:
    """The weight of the high rate where there are powers; `weights` of the core, in a graph.

    Args:
        share: how far the clock stands from its low end.
        left: how far it stands from its high end. Neither is exact as `1 - other`.
        table: the schedule.
        row: the row of the step.
        ops: the framework.
    """
    rises = falls = None
    if table.fixed.get("direction") != 1:
        rest = _lacks(left, share, "k", table, row, ops)
        falls = _raised(_curve(rest, table, row, ops), "exponent", table, row, ops)
    if table.fixed.get("direction") != -1:
        rises = _curve(_raised(share, "k", table, row, ops), table, row, ops)
        if table.fixed.get("exponent") != 1.0:
            first = _curve(_lacks(share, left, "k", table, row, ops), table, row, ops)
            rises = _lacks(first, rises, "exponent", table, row, ops)
    if rises is None or falls is None:
        return falls if rises is None else rises
    return ops.select(row["direction"] == 1, rises, falls)


def _raised(
    base: Any, name: str, table: Table[Any], row: Mapping[str, Any], ops: Operations
) -> Any:
    """`base**exponent`."""
    if table.fixed.get(name) == 1.0:
        return base
    power = ops.power(base, row[name])
    if table.fixed.get(f"{name} rest") != 0.0:
        # Near 0, what rounding took off the exponent is worth many roundings.
        power = power * (1.0 + row[f"{name} rest"] * ops.log(ops.maximum(base, _TINY)))
    return power if name in table.fixed else ops.select(row[name] == 1.0, base, power)


def _lacks(
    base: Any, rest: Any, name: str, table: Table[Any], row: Mapping[str, Any], ops: Operations
) -> Any:
    """What `base**exponent` lacks to 1, from `base` and what that lacks to 1."""
    if table.fixed.get(name) == 1.0:
        return rest
    # Where the base is near 1, it says less of the rest than the rest itself:
    # log(1 - rest) is corrected by what the base was rounded by.
    missing = ops.select(rest < 0.5, (1.0 - base) - rest, 0.0)
    z = row[name] * (ops.log(ops.maximum(base, _TINY)) + missing)
    # -expm1(z) to about two roundings; the frameworks' own are off by up to five.
    half = 0.5 * z
    square = half * half
    series: Any = 1.0
    for n in range(9 if table.limit > 2**31 else 4, 0, -1):
        series = 1.0 + square * series * (1 / (2 * n * (2 * n + 1)))
    near = -z * series * ops.exp(half)
    lacks = ops.select(z > -1.0, near, 1.0 - ops.exp(z))
    return lacks if name in table.fixed else ops.select(row[name] == 1.0, rest, lacks)


def _floats(columns: Mapping[str, Sequence[Any]], bits: int) -> dict[str, list[float]]:
    """The columns of floats, which are exact or correctly rounded."""
    lengths, low, high = columns["length"], columns["low"], columns["high"]
    splits = {length: _split(length, bits) for length in set(lengths)}

    def share(name: str) -> list[float]:
        parts = zip(columns[name], lengths, strict=True)
        return [float(part / length) if part else 0.0 for part, length in parts]

    return {
        "offset": share("offset"),
        "coarse": [splits[length][0] for length in lengths],
        "fine": [splits[length][1] for length in lengths],
        "low": list(low),
        "height": [top - bottom for bottom, top in zip(low, high, strict=True)],
        "high": list(high),
        "beyond": share("beyond"),
    }


def _transposed(columns: Sequence[Sequence[T]], rows: int) -> list[tuple[T, ...]]:
    return list(zip(*columns, strict=True)) if columns else [()] * rows


def _split(length: int | Fraction, bits: int) -> tuple[float, float]:
    """The reciprocal of a length as its leading bits and a float of the rest."""
    n, d = length.numerator, length.denominator
    mantissa, exponent = math.frexp(d / n)
    coarse = math.ldexp(math.floor(math.ldexp(mantissa, bits)), exponent - bits)
    a, b = coarse.as_integer_ratio()
    return coarse, (d * b - a * n) / (n * b)  # quotients of integers are rounded correctly
