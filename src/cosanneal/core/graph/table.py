"""The rows of a schedule as the constants of a graph, in the precision of its framework.

How they are evaluated in the graph stands in `evaluate.py`.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from typing import Any, Final, Generic, TypeVar

from ..errors import ScheduleError
from ..schedule import Schedule
from .rows import MAX_ROWS, Row, longest_run, lower

# Comparisons one after the other, each of which costs seven operations of the
# graph; as many do the cycles cost that repeat.
_HALVINGS: Final = 3
# Up to so many rows a step is compared with all at once, and not block by block.
_COMPARED_ROWS: Final = 64

A = TypeVar("A")
T = TypeVar("T", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLookup(Generic[A]):
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
    ) -> RowLookup[A]:
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
    lookup: RowLookup[A]
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
            lookup=RowLookup.of(ends, repeats=lowered.repeats, limit=limit, constant=constant),
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
    lookup: RowLookup[A]
    lasts: A

    @classmethod
    def of(cls, schedule: Schedule, *, wide: bool, constant: Callable[[Any], A]) -> Ends[A]:
        """The ends of the cycles of a schedule; arguments as in `Table.of`.

        Raises:
            ScheduleError: there are more than `MAX_ROWS`, but for equal cycles.
        """
        limit = 2**62 if wide else 2**31 - 1
        repeats = longest_run(schedule, limit, rates=False)
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
            lookup=RowLookup.of([*lasts, limit], repeats=repeats, limit=limit, constant=constant),
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
