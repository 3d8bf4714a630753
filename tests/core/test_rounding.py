"""How a rule's lengths are rounded, and where its clocks begin."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import pytest

from cosanneal import Schedule, ScheduleError
from cosanneal.core.rules import CycleRule, Level, Phase

PHASE = Phase(steps=None, first=Level(1.0), last=Level(0.0))
RULE: dict[str, Any] = {"count": None, "length": 10, "phases": (PHASE,)}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([{"rounding": "up"}], r"in 'rules\[0\].rounding': must be one of 'boundaries'"),
        ([{"rounding": "lengths", "length": Fraction(21, 2)}], r"\.length': must be an integer"),
        ([{"rounding": "lengths", "growth": Fraction(10001, 10000)}], r"\.growth': where lengths"),
        (
            [{"rounding": "lengths", "growth": Fraction(1, 2), "count": 9}],
            "cycle 8 must have at least one step",
        ),
        (
            [{"rounding": "lengths", "growth": Fraction(2), "count": 99}],
            "must do so within",
        ),
        ([{"rounding": "none", "length": Fraction(1, 2)}], "int or a Fraction of at least 1"),
        (
            [{"rounding": "none", "length": Fraction(21, 2), "count": 1}, {}],
            r"in 'rules\[1\].rounding': must be that of the rule before, 'none'",
        ),
        (
            [{"phases": (Phase(steps=None, first=Level(1.0), last=Level(0.0), lead=-1),)}],
            r"phases\[0\].lead': must not be negative",
        ),
        (
            [
                {
                    "rounding": "lengths",
                    "phases": (
                        Phase(steps=Fraction(1, 2), first=Level(0.0), last=Level(1.0)),
                        PHASE,
                    ),
                }
            ],
            r"phases\[0\].steps': must be an integer",
        ),
    ],
)
def test_a_rule_that_cannot_be_is_named(rules: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        Schedule(tuple(CycleRule(**{**RULE, **rule}) for rule in rules))


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
