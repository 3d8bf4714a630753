"""The rows that graphs are made of say what the schedule says, exactly."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest

import cosanneal as ca
from cosanneal.core.graph.rows import MAX_ROWS, Lowered, lower
from tests.shared.oracle import (
    KINDS,
    Oracle,
    RandomPicker,
    arguments,
    curve_at,
    decimal,
    exactly,
    steps_worth_a_look,
    ulps,
)
from tests.shared.plain import INT32


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
