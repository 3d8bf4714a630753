"""The rows that phases make: fractional clocks, endpoints, leads and rests."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cosanneal as ca
from cosanneal import Schedule
from cosanneal.core.rules import ROUNDINGS, CycleRule, Level, Phase, Rounding
from tests.shared.oracle import Worst, curve_at, decimal, ulps


def _rule(
    *phases: Phase,
    length: int | Fraction,
    count: int | None = None,
    growth: Fraction = Fraction(1),
    rounding: Rounding = "none",
) -> CycleRule:
    return CycleRule(count=count, length=length, growth=growth, rounding=rounding, phases=phases)


HALF = Fraction(1, 2)


PEAK, FLOOR = Level(0.1), Level(0.002)


ANNEALING = Phase(steps=None, first=PEAK, last=FLOOR)


def _boundaries(rules: tuple[CycleRule, ...], steps: int) -> list[tuple[Fraction, Fraction]]:
    """The exact origin and length of each cycle that begins before `steps`."""
    found = []
    at = Fraction(0)
    for rule in rules:
        length, left = Fraction(rule.length), rule.count
        while at < steps and left != 0:
            found.append((at, length))
            at += length
            length *= rule.growth
            left = None if left is None else left - 1
    return found


@pytest.mark.parametrize(
    "rules",
    [
        (_rule(ANNEALING, length=10),),
        (_rule(ANNEALING, length=Fraction(10, 3)),),
        (_rule(ANNEALING, length=Fraction(7, 2), growth=Fraction(3, 2)),),
        (_rule(ANNEALING, length=Fraction(301, 100), growth=Fraction(11, 10), count=30),),
        (_rule(ANNEALING, length=50, growth=Fraction(9, 10), count=20),),
        (_rule(ANNEALING, length=Fraction(5, 2), count=3), _rule(ANNEALING, length=Fraction(9, 4))),
        (_rule(ANNEALING, length=10, count=1), _rule(ANNEALING, length=10)),
        (_rule(ANNEALING, length=4, count=2), _rule(ANNEALING, length=7, count=3)),
        (_rule(ANNEALING, length=Fraction(1)),),
    ],
)
def test_fractional_clocks_keep_the_real_boundaries(rules: tuple[CycleRule, ...]) -> None:
    schedule = ca.Schedule(rules)
    end = 300 if schedule.total_steps is None else schedule.total_steps
    exact_cycles = _boundaries(rules, end)
    worst = Worst()
    seen = []
    for index, (origin, length) in enumerate(exact_cycles):
        start, stop = -(-origin // 1), -(-(origin + length) // 1)
        cycle = schedule.cycle_at(start)
        assert (cycle.index, cycle.start, cycle.stop) == (index, start, stop)
        for step in range(start, stop):
            exact = curve_at(
                (step - origin) / length, first=decimal(PEAK.value), last=decimal(FLOOR.value)
            )
            worst.see(schedule.rate(step), exact, f"rate({step})")
            seen.append(step)
    assert seen[:end] == list(range(end))
    assert worst.ulps <= 8, worst
    if schedule.total_steps is not None:
        origin, length = exact_cycles[-1]
        assert schedule.total_steps == -(-(origin + length) // 1)
        assert schedule.rate(end) == FLOOR.value


@pytest.mark.parametrize(("first", "second"), [("none", "boundaries"), ("boundaries", "none")])
def test_rules_that_round_differently_must_meet_at_a_whole_step(
    first: Rounding, second: Rounding
) -> None:
    # Where the first rule ends between two steps, one rounds down and the other up.
    with pytest.raises(ca.ScheduleError, match=r"rules\[1\]\.rounding.*the rule before"):
        ca.Schedule(
            (
                _rule(ANNEALING, length=Fraction(7, 2), count=1, rounding=first),
                _rule(ANNEALING, length=5, count=2, rounding=second),
            )
        )
    schedule = ca.Schedule(
        (
            _rule(ANNEALING, length=Fraction(7, 2), count=2, rounding=first),
            _rule(ANNEALING, length=5, count=2, rounding=second),
        )
    )
    at = 0
    for cycle in schedule.cycles():
        assert cycle.start == at
        at = cycle.stop
    assert at == schedule.total_steps
    assert [schedule.cycle_at(step).index for step in range(at)] == [
        cycle.index for cycle in schedule.cycles() for _ in range(cycle.length)
    ]


@given(
    st.fractions(1, 50, max_denominator=30),
    st.fractions(Fraction(1), Fraction(3), max_denominator=20),
    st.integers(0, 10**6),
)
def test_fractional_boundaries_round_up(length: Fraction, growth: Fraction, step: int) -> None:
    schedule = ca.Schedule((_rule(ANNEALING, length=length, growth=growth),))
    cycle = schedule.cycle_at(step)
    assert cycle.start <= step < cycle.stop
    if growth == 1:
        exact = cycle.index * length
    else:
        exact = length * (growth**cycle.index - 1) / (growth - 1)
    assert cycle.start == math.ceil(exact)


def test_phases_follow_one_another_on_a_fractional_clock() -> None:
    # 3 1/2 steps of warmup, then 10 - 3 1/2 - 2 of annealing, then 2 of rest.
    warmup = Phase(steps=7 * HALF, first=FLOOR, last=PEAK, curve="linear")
    rest = Phase(steps=2, first=FLOOR, last=FLOOR, curve="constant")
    schedule = ca.Schedule((_rule(warmup, ANNEALING, rest, length=Fraction(31, 3)),))
    high, low = decimal(0.1), decimal(0.002)
    worst = Worst()
    for i in range(12):
        begin, end = i * Fraction(31, 3), (i + 1) * Fraction(31, 3)
        peak, bottom = begin + 7 * HALF, end - 2
        for step in range(math.ceil(begin), math.ceil(end)):
            if step < peak:
                exact = curve_at((step - begin) / (7 * HALF), first=low, last=high, curve="linear")
            elif step < bottom:
                exact = curve_at((step - peak) / (bottom - peak), first=high, last=low)
            else:
                exact = low
            worst.see(schedule.rate(step), exact, f"rate({step})")
    assert worst.count == 124
    assert worst.ulps <= 8, worst


def test_clock_over_the_whole_cycle() -> None:
    # The annealing takes over after the warmup, and stands where it would without it.
    warmup = Phase(steps=6, first=FLOOR, last=PEAK, curve="linear")
    whole = Phase(steps=None, first=PEAK, last=FLOOR, whole_cycle=True)
    for length in (20, Fraction(61, 3)):
        for rounding in ROUNDINGS:
            if rounding == "lengths" and length != 20:
                continue  # which has whole lengths only
            schedule = ca.Schedule((_rule(warmup, whole, length=length, rounding=rounding),))
            plain = ca.Schedule((_rule(ANNEALING, length=length, rounding=rounding),))
            looked = 0
            for step in range(200):
                start = schedule.cycle_at(step).start
                begin = (
                    Fraction(start) if rounding != "none" else (start // length) * Fraction(length)
                )
                if rounding == "none" and start != math.ceil(begin):
                    begin += length
                if step >= begin + 6:
                    assert schedule.rate(step) == plain.rate(step)
                    looked += 1
                else:
                    exact = curve_at(
                        (step - begin) / 6, first=decimal(0.002), last=decimal(0.1), curve="linear"
                    )
                    assert ulps(schedule.rate(step), exact) <= 8
            assert looked > 100


def test_endpoint_of_a_warmup_stands_on_the_peak() -> None:
    warmup = Phase(steps=5, first=Level(0.5), last=Level(1.0), curve="linear", endpoint=True)
    annealing = Phase(steps=None, first=Level(1.0), last=Level(0.0))
    schedule = ca.Schedule((_rule(warmup, annealing, length=12, rounding="boundaries"),))
    assert schedule.rates(0, 6) == [0.5, 0.625, 0.75, 0.875, 1.0, 1.0]


def test_endpoint_over_the_whole_cycle() -> None:
    whole = Phase(steps=None, first=Level(1.0), last=Level(0.0), curve="linear", endpoint=True)
    schedule = ca.Schedule((_rule(whole, length=5, rounding="boundaries"),))
    assert schedule.rates(0, 6) == [1.0, 0.75, 0.5, 0.25, 0.0, 1.0]


def test_rest_before_and_after_the_annealing() -> None:
    hold = Phase(steps=2, first=Level(1.0), last=Level(1.0), curve="constant")
    annealing = Phase(steps=None, first=Level(1.0), last=Level(0.5), curve="linear")
    rest = Phase(steps=1, first=Level(0.25), last=Level(0.25), curve="constant")
    schedule = ca.Schedule(
        (_rule(hold, annealing, rest, length=5, count=2, rounding="boundaries"),)
    )
    assert schedule.rates(0, 12) == [1.0, 1.0, 1.0, 0.75, 0.25] * 2 + [0.25, 0.25]
    assert schedule.cycles()[1] == ca.Cycle(index=1, start=5, stop=10, max_lr=1.0, min_lr=0.5)


PHASE = Phase(steps=None, first=Level(1.0), last=Level(0.0))


RULE: dict[str, Any] = {"count": None, "length": 10, "phases": (PHASE,)}


def test_fixed_phases_grow_with_rounded_lengths() -> None:
    warmup = Phase(steps=3, first=Level(0.0), last=Level(1.0), curve="linear")
    rule = {**RULE, "growth": Fraction(3, 2), "rounding": "lengths", "phases": (warmup, PHASE)}
    schedule = Schedule((CycleRule(**rule),))
    peaks = [step for step in range(60) if schedule.rate(step) == 1.0]
    assert [cycle.start for cycle in schedule.cycles()[:4]] == [0, 10, 24, 45]
    assert peaks == [3, 14, 30, 54]  # after 3, 4, 6 and 9 steps of warmup


def test_a_phase_with_a_lead_is_joined_on_its_way() -> None:
    late = Phase(steps=None, first=Level(1.0), last=Level(0.0), curve="linear", lead=5)
    schedule = Schedule((CycleRule(**{**RULE, "length": 5, "count": 1, "phases": (late,)}),))
    assert schedule.rates() == [0.5, 0.4, 0.3, 0.2, 0.1]
