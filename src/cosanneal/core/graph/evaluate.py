"""How a table is evaluated in a graph, written once, as the half cosine is in `curve.py`.

It is handed the operations of its framework, and knows none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from ..curve import half_cosine
from .table import Ends, RowLookup, Table

# The smallest normal number of 32 bits, whose logarithm stands for that of 0.
_TINY: Final = 2.0**-126


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
    step = _folded(table.lookup, step, ops)
    row: dict[str, Any] = dict(table.fixed)
    if table.rows is not None:
        integers, floats = ops.row(table.rows, row_number(table.lookup, step, ops))
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


def is_cycle_end(ends: Ends[Any], step: Any, ops: Operations) -> Any:
    """Whether update `step`, in [0, ends.limit], is the last of its cycle; see `evaluate`."""
    step = _folded(ends.lookup, step, ops)
    return ops.take(ends.lasts, row_number(ends.lookup, step, ops)) == step


def _folded(lookup: RowLookup[Any], step: Any, ops: Operations) -> Any:
    """The step in the first of the cycles that repeat, or where it is."""
    if lookup.repeats is None:
        return step
    start, stop, period = lookup.repeats
    again = ops.remainder(step - start if start else step, period)
    if start:
        again = ops.select(step >= start, again + start, step)
    return again if stop is None else ops.select(step < stop, again, step)


def row_number(lookup: RowLookup[Any], step: Any, ops: Operations) -> Any:
    """The number of the row that rules a folded step."""
    if lookup.halvings is not None:
        if lookup.firsts is None:
            i = ops.minimum(step, 0)  # 0, as the framework has it
        else:
            stretch = ops.minimum(ops.quotient(step, lookup.width), lookup.size - 1)
            i = ops.take(lookup.firsts, stretch)
        for bit in reversed(range(lookup.halvings)):
            half = 1 << bit
            later = ops.take(lookup.ends, i + (half - 1) if bit else i) < step
            i = ops.select(later, i + half, i)
        return i
    if lookup.fences is None:
        return ops.before(lookup.ends, step)
    block = ops.before(lookup.fences, step)
    return block * lookup.size + ops.before(ops.take(lookup.ends, block), step)


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
