"""The rows that graphs are made of say what the schedule says, exactly."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.core.curve import CurveName
from cosanneal.core.lowering import (
    MAX_ROWS,
    Ends,
    Lookup,
    Lowered,
    Table,
    evaluate,
    is_cycle_end,
    lower,
)
from cosanneal.core.rules import CycleRule, Level, Phase, Rounding
from tests.core.oracle import (
    KINDS,
    Oracle,
    RandomPicker,
    Worst,
    arguments,
    curve_at,
    decimal,
    exactly,
    size,
    steps_worth_a_look,
    ulps,
)

INT32 = 2**31 - 1


def by_rows(lowered: Lowered, step: int, limit: int) -> Decimal:
    """The rate by the rows, with the oracle's curve, in exact arithmetic."""
    if lowered.repeats is not None:
        start, stop, period = lowered.repeats
        if start <= step and (stop is None or step < stop):
            step = start + (step - start) % period
    row = [row for row in lowered.rows if row.start <= step][-1]
    for machine_integer in (row.start, row.anchor, row.top):
        assert 0 <= machine_integer <= limit or machine_integer == row.top == -1
    assert row.offset >= 0  # or it would cancel
    assert row.beyond >= 0
    assert row.offset + row.span + row.beyond == row.length
    passed = row.direction * (step - row.anchor)
    assert abs(passed) <= limit
    low, high = decimal(row.low), decimal(row.high)
    if passed > row.top:
        return high
    share = Fraction(max(passed + row.offset, 0)) / row.length
    assert share < 1
    return curve_at(share, first=low, last=high, curve="cosine" if row.cosine else "linear")


@pytest.mark.parametrize("limit", [INT32, 2**62])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_say_what_the_schedule_says(kind: str, limit: int) -> None:
    pick = RandomPicker(f"lowering {kind}")
    seen = 0
    for _ in range(60):
        given = arguments(pick, kind, largest=pick.one_of((10**3, 10**7, 2**40)))
        given["max_lr"], given["min_lr"] = 0.1, pick.one_of((0.0, 1e-5))
        given.pop("warmup_lr", None)
        given.pop("cycle_decay", None)
        schedule, plan = ca.CyclicCosine(**given), Oracle(**given)
        lowered = lower(schedule, limit)
        for step in steps_worth_a_look(pick, plan):
            if step <= limit:
                seen += 1
                with exactly():
                    difference = abs(by_rows(lowered, step, limit) - plan.rate(step))
                    assert difference <= decimal(1e-30), (given, step)
    assert seen > 200


@pytest.mark.parametrize("rounding", ["none", "boundaries"])
@pytest.mark.parametrize("length", [Fraction(1000, 3), Fraction(7, 2), Fraction(355, 113)])
def test_cycles_of_fractional_length_repeat(length: Fraction, rounding: str) -> None:
    schedule = ca.presets.sgdr(0.1, length)
    if rounding == "boundaries":
        data = schedule.to_dict()
        for rule in data["rules"]:
            rule["rounding"] = "boundaries"
        schedule = ca.Schedule.from_dict(data)
    lowered = lower(schedule, INT32)
    assert lowered.repeats is not None
    assert len(lowered.rows) == length.denominator
    for step in [*range(1200), 10**9 + 7, INT32]:
        exact = by_rows(lowered, step, INT32)
        assert ulps(schedule.rate(step), exact) <= 8


def test_the_longest_run_of_equal_cycles_is_folded() -> None:
    schedule = ca.CyclicCosine(0.1, cycle_steps=[7] * 5 + [11] * 900 + [3] * 20, warmup_steps=2)
    lowered = lower(schedule, INT32)
    assert lowered.repeats == (35, 35 + 9900, 11)
    assert len(lowered.rows) == 6 + 1 + 20  # and no other for the floor after them
    endless = ca.CyclicCosine(0.1, cycle_steps=10, warmup_steps=4, restart_warmup_steps=2)
    assert lower(endless, INT32).repeats == (10, None, 10)


def test_what_takes_too_many_rows_is_refused() -> None:
    decaying = ca.CyclicCosine(0.1, cycle_steps=10, cycle_decay=0.999)
    with pytest.raises(ca.ScheduleError, match=rf"at most {MAX_ROWS} rows.*num_cycles for an end"):
        lower(decaying, INT32)
    assert len(lower(ca.CyclicCosine(0.1, cycle_steps=10, cycle_mult=1.1), 2**62).rows) < 500


class Plain:
    """Python's own numbers as a framework, which bounds every index."""

    def before(self, ends: list[int], step: int) -> int:
        return sum(end < step for end in ends)

    def take(self, constant: list[Any], i: int) -> Any:
        assert 0 <= i < len(constant)
        return constant[i]

    def row(
        self, rows: tuple[list[tuple[int, ...]], list[tuple[float, ...]]], i: int
    ) -> tuple[Sequence[int], Sequence[float]]:
        integers, floats = rows
        return self.take(integers, i), self.take(floats, i)

    def real(self, integer: int) -> float:
        assert isinstance(integer, int)
        return float(integer)

    def remainder(self, dividend: int, divisor: int) -> int:
        return dividend % divisor if dividend >= 0 else -1

    def quotient(self, dividend: int, divisor: int) -> int:
        assert dividend >= 0
        return dividend // divisor

    def select(self, condition: bool, yes: float, no: float) -> float:
        return yes if condition else no

    def minimum(self, a: float, b: float) -> float:
        return min(a, b)

    def maximum(self, a: float, b: float) -> float:
        return max(a, b)

    def sin(self, x: float) -> float:
        return math.sin(x)

    def power(self, base: float, exponent: float) -> float:
        return math.pow(base, exponent)

    def exp(self, x: float) -> float:
        return math.exp(x)

    def log(self, x: float) -> float:
        return math.log(x)


def plain(schedule: ca.Schedule, *, wide: bool) -> Table[list[Any]]:
    return Table.of(schedule, wide=wide, constant=list, rows=lambda *rows: rows)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_evaluation_is_within_8_ulp(kind: str, *, wide: bool) -> None:
    pick = RandomPicker(f"evaluate {kind}")
    seen = 0
    while seen < 500:
        given = arguments(pick, kind, largest=pick.one_of((10**3, 10**7, 2**40)))
        given["max_lr"], given["min_lr"] = 0.1, pick.one_of((0.0, 1e-5))
        given.pop("warmup_lr", None)
        # Endless cycles take few rows only if nothing decays.
        decay = given.pop("cycle_decay", 1.0)
        given["cycle_decay"] = 1.0 if kind == "endless" or given["min_lr"] else decay
        plan = Oracle(**given)
        table = plain(ca.CyclicCosine(**given), wide=wide)
        for step in steps_worth_a_look(pick, plan):
            if step <= table.limit:
                seen += 1
                got, exact = evaluate(table, step, Plain()), plan.rate(step)
                with exactly():
                    # Constants are rounded to 24 bits where the table is not wide.
                    limit = Decimal(8 if wide else 4) * exact / 2 ** (53 if wide else 23)
                    assert abs(Decimal(got) - exact) <= limit, (given, step, got, exact)


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("curve", ["cosine", "linear"])
@pytest.mark.parametrize(
    ("exponent", "k"),
    [
        (0.5, 1.0),
        (1.5, 1.0),
        (2.0, 1.0),
        (10.0, 1.0),
        (1.0, 0.5),
        (1.0, 1.7),
        (1.0, 3.0),
        (3.0, 0.7),
    ],
)
def test_powers_are_within_their_bound(
    curve: CurveName, exponent: float, k: float, *, rising: bool
) -> None:
    pick = RandomPicker(f"{curve} {exponent} {k} {rising}")
    worst = Worst()
    for length in (97, 12_345, 10**6 + 7, 2**31 - 1, 2**40):
        schedule = one_curve(length, curve=curve, exponent=exponent, k=k, rising=rising)
        table = plain(schedule, wide=True)
        steps = {1, 2, length // 2, length - 2, length - 1}
        steps |= {pick.integer(1, length - 1) for _ in range(40)}
        steps |= {length - size(pick, 1, length - 1) for _ in range(20)}
        for step in steps | {size(pick, 1, length - 1) for _ in range(20)}:
            exact = curve_at(
                Fraction(step, length),
                first=decimal(0.0 if rising else 0.1),
                last=decimal(0.1 if rising else 0.0),
                curve=curve,
                exponent=exponent,
                k=k,
            )
            worst.see(evaluate(table, step, Plain()), exact, f"step {step} of {length}")
        assert evaluate(table, 0, Plain()) == (0.0 if rising else 0.1)
        assert evaluate(table, length, Plain()) == (0.1 if rising else 0.0)
    assert worst.ulps <= 12 * max(exponent, 1.0), worst


def one_curve(length: int, *, rising: bool = False, **curve: Any) -> ca.Schedule:
    first, last = (0.0, 0.1) if rising else (0.1, 0.0)
    phase = Phase(steps=None, first=Level(first), last=Level(last), **curve)
    return ca.Schedule((CycleRule(count=1, length=length, phases=(phase,)),))


@pytest.mark.parametrize(
    "schedule",
    [
        ca.presets.timm_cosine(0.1, 50, warmup_t=5, k_decay=1.5, lr_min=1e-3),
        ca.presets.timm_cosine(
            0.1, 50, warmup_t=5, warmup_prefix=True, k_decay=0.5, cycle_limit=3, cycle_decay=0.5
        ),
        ca.presets.optax_warmup_cosine_decay(0.01, 0.1, 10, 60, 0.002, exponent=1.7),
    ],
    ids=repr,
)
def test_powers_beside_a_warmup_and_a_floor(schedule: ca.Schedule) -> None:
    table = plain(schedule, wide=True)
    assert "direction" not in table.fixed
    for step in range(200):
        # Of which the rate itself may take a part.
        assert evaluate(table, step, Plain()) == pytest.approx(
            schedule.rate(step), rel=2 * 12 * 2**-52, abs=0
        )


@pytest.mark.parametrize(
    ("schedule", "rows"),
    [
        (ca.CyclicCosine(0.1, total_steps=1000, num_cycles=10), 1),
        (ca.CyclicCosine(0.1, cycle_steps=10), 1),
        (ca.CyclicCosine(0.1, cycle_steps=10, endpoint=True), 1),
        (ca.CyclicCosine(0.1, cycle_steps=10, restart_warmup_steps=2), 3),
        (ca.CyclicCosine(0.1, total_steps=1003, num_cycles=10), 10),
        (ca.presets.optax_cosine_decay(0.1, 100, exponent=2.0), 1),
    ],
)
def test_what_the_rows_share_is_looked_up_nowhere(schedule: ca.Schedule, rows: int) -> None:
    assert len(lower(schedule, INT32).rows) == rows
    table = plain(schedule, wide=False)
    assert (table.rows is None) == (rows == 1)
    assert "low" in table.fixed


@pytest.mark.parametrize("kind", ["alike", "growing", "mixed", "one", "two", "long tail"])
@pytest.mark.parametrize("number", [3, 10, 60, 70, 1000])
def test_the_lookup_finds_the_row(kind: str, number: int) -> None:
    pick = RandomPicker(f"{kind} {number}")
    ends = [-1]
    for i in range(number):
        length = {
            "alike": pick.integer(99, 101),
            "growing": int(1.5 ** min(i, 30)),
            "mixed": pick.one_of((1, 7, 100, 10_000)),
            "one": 1,
            "two": 20 if i % 2 else 80,
            "long tail": 1 if i < number - 2 else 10**8,
        }[kind]
        ends.append(ends[-1] + length)
    ends = [*ends[1:-1], INT32]
    lookup = Lookup[list[Any]].of(ends, repeats=None, limit=INT32, constant=list)
    steps = {0, INT32, *(end + shift for end in ends[:-1] for shift in (-1, 0, 1, 2))}
    steps |= {pick.integer(0, ends[-2] + 100) for _ in range(100)}
    for step in steps - {-1}:
        assert lookup.row(step, Plain()) == bisect_left(ends, step)
    if kind in ("alike", "one", "two"):
        assert lookup.halvings in (0, 1)
    elif number >= 70:
        assert lookup.halvings is None
        assert (lookup.fences is None) == (len(ends) <= 64)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_of_cycles_are_the_oracles(kind: str, *, wide: bool) -> None:
    pick = RandomPicker(f"ends {kind}")
    seen = [0, 0]
    while sum(seen) < 600:
        given = arguments(pick, kind, largest=pick.one_of((10**2, 10**7, 2**40)))
        plan = Oracle(**given)
        ends = Ends[list[Any]].of(ca.CyclicCosine(**given), wide=wide, constant=list)
        for step in steps_worth_a_look(pick, plan):
            if step <= ends.limit:
                i = plan.cycle_of(step) if step < (plan.total_steps or math.inf) else None
                wanted = i is not None and plan.start(i + 1) == step + 1
                assert is_cycle_end(ends, step, Plain()) == wanted, (given, step)
                seen[wanted] += 1
    assert min(seen) > 100


@pytest.mark.parametrize("length", [Fraction(1000, 3), Fraction(7, 2), Fraction(355, 113)])
@pytest.mark.parametrize("rounding", ["none", "boundaries"])
def test_the_ends_of_cycles_of_fractional_length(length: Fraction, rounding: Rounding) -> None:
    phase = Phase(steps=None, first=Level(0.1, decay=0.9), last=Level(0.0))
    rule = CycleRule(count=None, length=length, rounding=rounding, phases=(phase,))
    ends = Ends[list[Any]].of(ca.Schedule((rule,)), wide=False, constant=list)
    assert len(ends.lasts) == length.denominator + 1
    boundary = math.floor if rounding == "boundaries" else math.ceil
    wanted = {boundary(i * length) - 1 for i in range(1, 400)}
    for step in range(boundary(399 * length)):
        assert is_cycle_end(ends, step, Plain()) == (step in wanted)


def test_the_last_step_of_a_graph_ends_a_cycle_only_where_one_ends() -> None:
    for total, wanted in ((INT32, False), (INT32 + 1, True), (INT32 + 2, False)):
        schedule = ca.CyclicCosine(0.1, total_steps=total, num_cycles=1)
        ends = Ends[list[Any]].of(schedule, wide=False, constant=list)
        assert is_cycle_end(ends, INT32, Plain()) == wanted
        assert is_cycle_end(ends, INT32 - 1, Plain()) == (total == INT32)


def test_more_ends_of_cycles_than_a_graph_holds_are_refused() -> None:
    growing = ca.CyclicCosine(0.1, cycle_steps=1000, cycle_mult=Fraction(10_001, 10_000))
    with pytest.raises(ca.ScheduleError, match=rf"at most {MAX_ROWS} cycles of different"):
        Ends.of(growing, wide=True, constant=list)
    decaying = ca.CyclicCosine(0.1, cycle_steps=10, cycle_decay=0.999)
    assert Ends.of(decaying, wide=True, constant=list).lasts == [9, -1]
