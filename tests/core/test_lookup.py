"""Where cycles begin, however far out and however their lengths grow and are rounded."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import pytest

import cosanneal as ca
from cosanneal import Schedule
from cosanneal.core.lookup import Lookup
from cosanneal.core.rules import CycleRule, Level, Phase, Rounding
from tests.shared.oracle import Oracle, Worst, curve_at, decimal

ANNEALING = (Phase(steps=None, first=Level(0.1), last=Level(0.0)),)


def _boundaries(steps: int, mult: Fraction, i: int) -> tuple[int, int, int]:
    """Where cycles `i`, `i + 1` and `i + 2` begin: steps * (mult**i - 1) / (mult - 1)."""
    p, q = mult.numerator, mult.denominator
    p_i, q_i = p**i, q**i
    starts = []
    for _ in range(3):
        starts.append(steps * (p_i - q_i) * q // ((p - q) * q_i))
        p_i, q_i = p_i * p, q_i * q
    return starts[0], starts[1], starts[2]


def _check(schedule: ca.Schedule, i: int, starts: tuple[int, int, int], worst: Worst) -> None:
    start, stop, after = starts
    cycle = schedule.cycles()[i]
    assert (cycle.index, cycle.start, cycle.stop) == (i, start, stop)
    for step in (start, (start + stop) // 2, stop - 1):
        assert schedule.cycle_at(step) == cycle
        if stop > 2**100:  # more than the oracle has digits for
            continue
        exact = curve_at(
            Fraction(step - start, stop - start), first=decimal(0.1), last=decimal(0.0)
        )
        worst.see(schedule.rate(step), exact, f"rate({step})")
    if start:
        assert schedule.cycle_at(start - 1).index == i - 1
        assert schedule.is_cycle_end(start - 1)
    assert schedule.is_cycle_end(stop - 1)
    assert schedule.is_cycle_end(stop) == (after == stop + 1)
    assert schedule.cycle_at(stop).stop == after
    assert schedule.rate(start) == 0.1


@pytest.mark.parametrize(
    ("mult", "steps", "indices"),
    [
        # Beyond 2**62: cycles 3,900, 355,000 and 380,000 or so.
        (1.01, 10, (0, 1, 2, 100, 292, 293, 294, 3_600, 3_900, 4_400, 8_191, 8_192, 8_193, 20_000)),
        (1.0001, 100, (0, 1, 146, 147, 8_190, 8_191, 8_192, 30_000, 340_000)),
        (Fraction(10001, 10000), 7, (0, 1, 146, 147, 8_191, 8_192, 8_193, 100_000)),
        (Fraction(99_999, 99_998), 10**9, (0, 1, 8_191, 8_192, 8_193, 60_001)),
        (Fraction(3, 2), 1, (0, 1, 5, 1_023, 1_024, 1_025, 9_000)),
        (1.5, 2**62, (0, 1, 5, 61, 62, 63, 1_025)),
    ],
)
def test_boundaries_and_rates_agree_with_the_closed_form(
    mult: float | Fraction, steps: int, indices: tuple[int, ...]
) -> None:
    exact = Fraction(str(mult))
    worst = Worst()
    for order in (indices, indices[::-1]):  # with its memory cold, and warm
        schedule = ca.CyclicCosine(0.1, cycle_steps=steps, cycle_mult=mult)
        furthest = 0
        for i in order:
            starts = _boundaries(steps, exact, i)
            _check(schedule, i, starts, worst)
            furthest = max(furthest, starts[1])
        if i > 10**5 or mult == 1.01:
            assert furthest > 2**62
    assert worst.ulps <= 8, worst


@pytest.mark.parametrize("mult", [1.01, 1.0001])
def test_steps_about_2_to_the_62_are_found(mult: float) -> None:
    schedule = ca.CyclicCosine(0.1, cycle_steps=10**4, cycle_mult=mult)
    step = 2**62 + 12_345
    i = schedule.cycle_at(step).index
    start, stop, _ = _boundaries(10**4, Fraction(str(mult)), i)
    assert start <= step < stop
    assert (schedule.cycle_at(step).start, schedule.cycle_at(step).stop) == (start, stop)


@pytest.mark.parametrize("i", [2_049, 8_191, 8_192, 8_193])
@pytest.mark.parametrize("mult", [2, 3])
def test_boundaries_that_are_integers_everywhere(mult: int, i: int) -> None:
    # An enclosure never tells an integer from its neighbours: these need the exact power.
    schedule = ca.CyclicCosine(0.1, cycle_steps=5, cycle_mult=mult)
    start = 5 * (mult**i - 1) // (mult - 1)
    cycle = schedule.cycles()[i]
    assert (cycle.start, cycle.stop) == (start, start + 5 * mult**i)
    assert schedule.cycle_at(start).index == i
    assert schedule.cycle_at(start - 1).index == i - 1


@pytest.mark.parametrize("rounding", ["boundaries", "none"])
@pytest.mark.parametrize("off", [Fraction(0), Fraction(1, 10**200), Fraction(-1, 10**200)])
def test_boundaries_that_are_integers_or_almost(off: Fraction, *, rounding: Rounding) -> None:
    # The boundary of cycle i is 2 * (3**i - 2**i) for a first length of 2**i; `off` moves it
    # to one side of that integer by less than any fixed number of digits would show.
    i = 1_200
    growth = Fraction(3, 2)
    whole = 2 * (3**i - 2**i)
    length = 2**i * (1 + off / whole)
    rule = CycleRule(count=None, length=length, growth=growth, rounding=rounding, phases=ANNEALING)
    exact = length * 2 * (growth**i - 1)
    assert exact - whole == off
    down = exact.numerator // exact.denominator
    up = -(-exact.numerator // exact.denominator)
    expected = down if rounding == "boundaries" else up
    schedule = ca.Schedule((rule,))
    assert schedule.cycles()[i].start == expected
    assert schedule.cycle_at(expected).index == i
    assert schedule.cycle_at(expected - 1).index == i - 1


@pytest.mark.parametrize("origin", [Fraction(0), Fraction(22, 7), Fraction(10**9, 3)])
@pytest.mark.parametrize("rounding", ["boundaries", "none"])
@pytest.mark.parametrize(
    ("growth", "length"),
    [
        (Fraction(1001, 1000), Fraction(1000, 7)),
        (Fraction(5, 4), 12),
        (Fraction(999, 1000), 10**9),
        (Fraction(99, 100), Fraction(10**30, 3)),
    ],
)
def test_enclosed_boundaries_are_the_exact_ones_rounded(
    growth: Fraction, length: Fraction | int, origin: Fraction, *, rounding: Rounding
) -> None:
    rule = CycleRule(count=None, length=length, growth=growth, rounding=rounding, phases=ANNEALING)
    lookup = Lookup(rule, origin=origin, index=0)
    for i in (1, 204, 205, 206, 512, 700, 1_025, 3_000, 6_000):
        power = growth**i
        exact = origin + length * (power - 1) / (growth - 1)
        whole = exact.numerator // exact.denominator
        if rounding == "none" and exact.denominator != 1:
            whole += 1
        assert lookup.boundary(i) == whole


def test_growth_by_oracle_over_a_hundred_cycles() -> None:
    plan = Oracle(0.1, cycle_steps=1000, cycle_mult=1.001)
    schedule = ca.CyclicCosine(0.1, cycle_steps=1000, cycle_mult=1.001)
    assert [cycle.start for cycle in schedule.cycles()[:150]] == [plan.start(i) for i in range(150)]


PHASE = Phase(steps=None, first=Level(1.0), last=Level(0.0))


RULE: dict[str, Any] = {"count": None, "length": 10, "phases": (PHASE,)}


def test_a_count_of_lengths_that_stall_is_no_number_of_steps_too_many() -> None:
    """Growing by 1.1 for 1,000 cycles would pass 2**63 steps; int(5 * 1.1) stays 5."""
    rule = {**RULE, "length": 5, "count": 1000, "growth": Fraction(11, 10), "rounding": "lengths"}
    assert Schedule((CycleRule(**rule),)).total_steps == 5000


@pytest.mark.parametrize("rounding", ["boundaries", "none", "lengths"])
@pytest.mark.parametrize("length", [1, 2, 7, 100])
@pytest.mark.parametrize("growth", [Fraction(1), Fraction(1.15), Fraction(1.4), Fraction(2)])
def test_starts_against_a_loop(rounding: Any, length: int, growth: Fraction) -> None:
    rule = CycleRule(**{**RULE, "length": length, "growth": growth, "rounding": rounding})
    schedule = Schedule((rule,))
    begin, exact = Fraction(0), Fraction(length)
    for cycle in schedule.cycles()[:12]:
        assert cycle.start == (math.ceil(begin) if rounding == "none" else math.floor(begin))
        begin += exact
        exact = Fraction(int(exact * float(growth))) if rounding == "lengths" else exact * growth
    assert Schedule.from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule


@pytest.mark.parametrize(
    ("length", "growth", "cycles"),
    [
        (10, Fraction(11, 10), 400),
        (1000, 1 + Fraction(1, 10_000), 3_000),
        (10**9, Fraction(999_999, 10**6), 1_500),
        (Fraction(1000, 3), Fraction(3, 2), 90),
        (7, Fraction(2), 60),
    ],
)
@pytest.mark.parametrize("rounding", ["boundaries", "none"])
def test_boundaries_are_exact_however_far(
    length: Fraction, growth: Fraction, cycles: int, rounding: Any
) -> None:
    """Against the sum of Fractions, or its closed form; asked for in leaps and from the start."""
    rule = CycleRule(
        **{**RULE, "length": length, "growth": growth, "count": cycles, "rounding": rounding}
    )
    walked, leapt = Schedule((rule,)), Schedule((rule,))
    for i in [*range(0, cycles, max(1, cycles // 40)), cycles - 1]:
        exact = length * (growth**i - 1) / (growth - 1)
        start = math.ceil(exact) if rounding == "none" else math.floor(exact)
        for schedule in (walked, leapt):
            assert schedule.cycle_at(start).index == i
            assert not start or schedule.cycle_at(start - 1).index == i - 1
            assert schedule.rate(start) == next(schedule.segments(start, start + 1)).rate(start)
        leapt = Schedule((rule,))
