"""Rules that can be and cannot be; the levels of their cycles; how they are joined."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

import cosanneal as ca
from cosanneal import Schedule, ScheduleError
from cosanneal.core.rules import CycleRule, Level, Phase, Rounding, join, preceded
from tests.shared.oracle import Worst, curve_at, decimal, exactly, ulps

NAN, INF = float("nan"), float("inf")


PHASE = Phase(steps=None, first=Level(0.1), last=Level(0.0))


def _phase(**changes: Any) -> Phase:
    given = {"steps": None, "first": Level(0.1), "last": Level(0.0)} | changes
    return Phase(**given)


def _rule(
    *phases: Phase,
    length: int | Fraction,
    count: int | None = None,
    growth: Fraction = Fraction(1),
    rounding: Rounding = "none",
) -> CycleRule:
    return CycleRule(count=count, length=length, growth=growth, rounding=rounding, phases=phases)


RULE: dict[str, Any] = {"count": None, "length": 10, "phases": (PHASE,)}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"count": 0}, "in 'rules[0].count': must be at least 1. Received: 0"),
        (
            {"length": 0},
            "in 'rules[0].length': must be an int or a Fraction of at least 1. Received: 0",
        ),
        (
            {"length": Fraction(1, 2)},
            "in 'rules[0].length': must be an int or a Fraction of at least 1. Received: 1/2",
        ),
        (
            {"growth": Fraction(0)},
            "in 'rules[0].growth': must be a positive int or Fraction. Received: 0",
        ),
        (
            {"growth": Fraction(1, 2)},
            "in 'rules[0].growth': cycles that shrink must have a count. Received: 1/2",
        ),
        (
            {"phases": ()},
            "in 'rules[0].phases': exactly one phase must have steps=None, the annealing. "
            "Received: []",
        ),
        (
            {"phases": (PHASE, PHASE)},
            "in 'rules[0].phases': exactly one phase must have steps=None, the annealing. "
            "Received: [None, None]",
        ),
        (
            {"phases": (PHASE, _phase(steps=0))},
            "in 'rules[0].phases[1].steps': must be positive. Received: 0",
        ),
        (
            {"phases": (_phase(curve="step"),)},
            "in 'rules[0].phases[0].curve': must be one of 'cosine', 'linear', 'constant'. "
            "Received: 'step'",
        ),
        *(
            (
                {"phases": (_phase(**{name: value}),)},
                f"in 'rules[0].phases[0].{name}': must be a finite positive number. "
                f"Received: {value}",
            )
            for name in ("exponent", "k")
            for value in (0.0, -1.0, NAN, INF)
        ),
        *(
            (
                {"phases": (_phase(last=Level(**{"value": 0.0, part: value})),)},
                f"in 'rules[0].phases[0].last.{part}': must be finite. Received: {value}",
            )
            for part in ("value", "decay", "base")
            for value in (NAN, INF)
        ),
        *(
            (
                {"phases": (_phase(first=level),)},
                "in 'rules[0].phases[0].first': a rate must not be negative in any cycle. "
                f"Received: {level}",
            )
            for level in (Level(-0.1), Level(0.1, base=-0.05), Level(-0.1, decay=2.0, base=0.2))
        ),
    ],
)
def test_a_bad_rule_names_the_path_of_its_field(changes: dict[str, Any], text: str) -> None:
    given: dict[str, Any] = {"count": None, "length": 10, "phases": (PHASE,)} | changes
    with pytest.raises(ca.ScheduleError) as caught:
        ca.Schedule((CycleRule(**given),))
    assert str(caught.value) == text


def test_only_the_last_rule_may_be_endless() -> None:
    endless = CycleRule(count=None, length=10, phases=(PHASE,))
    with pytest.raises(ca.ScheduleError) as caught:
        ca.Schedule((endless, endless))
    assert str(caught.value) == (
        "in 'rules[0].count': only the last rule may have no end. Received: None"
    )
    with pytest.raises(ca.ScheduleError, match="at least one rule"):
        ca.Schedule(())


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


def test_level_decays_from_cycle_to_cycle_towards_its_base() -> None:
    level = Level(0.3, decay=0.9, base=0.01)
    annealing = Phase(steps=None, first=level, last=Level(0.0, base=0.001))
    schedule = ca.Schedule((_rule(annealing, length=10, count=3), _rule(annealing, length=7)))
    worst = Worst()
    for index in range(60):
        with exactly():
            exact = decimal(0.01) + decimal(0.3) * decimal(0.9) ** index
        assert ulps(level.at(index), exact) <= 3
        cycle = schedule.cycles()[index]
        assert (cycle.max_lr, cycle.min_lr) == (level.at(index), 0.001)
        assert schedule.rate(cycle.start) == cycle.max_lr
        for step in range(cycle.start, cycle.stop):
            passed = Fraction(step - cycle.start, cycle.length)
            expected = curve_at(passed, first=exact, last=decimal(0.001))
            worst.see(schedule.rate(step), expected, f"rate({step})")
    assert worst.ulps <= 8, worst


def test_level_without_decay_is_constant() -> None:
    assert Level(0.3, base=0.25).at(0) == Level(0.3, base=0.25).at(10**30) == 0.55


def test_rate_far_out_of_a_decaying_schedule() -> None:
    # Steps have no upper bound, and so cycles have none.
    schedule = ca.CyclicCosine(0.1, cycle_steps=1, cycle_decay=0.9)
    assert schedule.rate(10**300) == 0.0
    assert schedule.rate(10**400) == 0.0


def test_rates_never_turn_negative_or_infinite() -> None:
    for level in (Level(-0.05, decay=2.0, base=0.1), Level(1.7e308, base=1.7e308)):
        phase = Phase(steps=None, first=level, last=Level(0.0))
        with pytest.raises(ca.ScheduleError, match=r"negative in any|beyond the range of floats"):
            ca.Schedule((_rule(phase, length=10),))


def test_rates_that_grow_without_end_are_refused_where_they_leave_the_floats() -> None:
    phase = Phase(steps=None, first=Level(0.1, decay=2.0), last=Level(0.0))
    endless = ca.Schedule((_rule(phase, length=10),))
    assert endless.rate(10_000) == 0.1 * 2.0**1000
    with pytest.raises(ca.ScheduleError, match=r"rate of cycle 2000 is beyond the range"):
        endless.rate(20_000)
    with pytest.raises(ca.ScheduleError, match=r"rate of cycle 1999 is beyond the range"):
        ca.Schedule((_rule(phase, length=10, count=2_000),))


def test_equal_neighbours_become_one_rule() -> None:
    rules: list[CycleRule] = []
    for length in (9, 9, 9, 5, 9):
        join(rules, CycleRule(count=2, length=length, phases=(PHASE,)))
    join(rules, CycleRule(count=1, length=9, phases=(_phase(k=2.0),)))
    assert [(rule.count, rule.length) for rule in rules] == [(6, 9), (2, 5), (2, 9), (1, 9)]


@pytest.mark.parametrize("count", [None, 1, 4])
def test_a_warmup_precedes_the_first_cycle_only(count: int | None) -> None:
    rule = CycleRule(count=count, length=10, growth=Fraction(3, 2), phases=(PHASE,))
    warmup = _phase(steps=Fraction(5), first=Level(0.0), last=Level(0.1), curve="linear")
    plain, warmed = ca.Schedule((rule,)), ca.Schedule(preceded((rule,), (warmup,)))
    assert warmed.rates(5, 60) == plain.rates(0, 55)
    assert warmed.rates(0, 5) == [pytest.approx(0.02 * step) for step in range(5)]
    assert warmed.num_cycles == count


def test_cycles_are_alike_where_neither_lengths_nor_rates_change() -> None:
    assert CycleRule(count=None, length=Fraction(7, 2), phases=(PHASE,)).alike
    assert not CycleRule(count=None, length=7, growth=Fraction(2), phases=(PHASE,)).alike
    decaying = _phase(last=Level(0.0, decay=0.5))
    assert not CycleRule(count=None, length=7, phases=(decaying,)).alike
