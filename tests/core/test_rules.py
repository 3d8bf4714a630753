"""Schedules built from rules: powers, rising curves, fractional clocks, rests, levels."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cosanneal as ca
from cosanneal.core.curve import CurveName, evaluator, half_cosine
from cosanneal.core.rules import ROUNDINGS, CycleRule, Level, Phase, Rounding
from tests.core.oracle import RandomPicker, Worst, cos_pi, curve_at, decimal, exactly, size, ulps

# In units u = 2**-53, half an ulp at most: a quotient (1), pi/2 and the product
# with it (1.4), a sine (2: no libm is off by more than an ulp), all doubled by
# the square (1). In ulp it is the same number where the result is just below a
# power of two. A rate adds a height, a product and a sum. Worst seen: 4.1 for a
# falling cosine, 2.7 for a rising one, 7.1 with k, 7 with an exponent up to 3 and
# 31 with an exponent of 10, all well within.
HALF_COSINE = 2 * (1.4 + 2) + 1
RATE = HALF_COSINE + 2 * 1 + 3


def _powered(exponent: float, k: float) -> float:
    """How many ulp a rate may be off that takes powers.

    `1 - x**k` by logarithm and exponential, each within 2 u of an argument
    whose error grows by at most 1: 6 u before the half cosine doubles it. The
    exponent multiplies whatever came, and is a power itself.
    """
    share = 6.0 if k != 1 else 1.0
    weight = 2 * (share + 1.4 + 2) + 1
    if exponent != 1:
        weight = weight * max(exponent, 1.0) + 4
    return weight + 3


def test_half_cosine_is_within_its_derived_error() -> None:
    pick = RandomPicker("half cosine")
    worst = Worst()
    for _ in range(20_000):
        remaining = pick.integer(1, 2**53) / 2 ** pick.integer(53, 120)
        with exactly():
            exact = (1 + cos_pi(1 - decimal(remaining))) / 2
        worst.see(half_cosine(remaining, math.sin), exact, f"half_cosine({remaining!r})")
    assert worst.ulps <= HALF_COSINE, worst  # 3.5 seen
    assert half_cosine(0.0, math.sin) == 0.0
    assert half_cosine(1.0, math.sin) == 1.0


def test_half_cosine_uses_the_sine_it_is_given() -> None:
    seen = []

    def sin(angle: Fraction) -> Fraction:
        seen.append(angle)
        return Fraction(1, 2)

    assert half_cosine(Fraction(1), sin) == Fraction(1, 4)
    assert seen == [math.pi / 2]


def _evaluate_and_compare(
    curve: CurveName, exponent: float, k: float, *, rising: bool, longest: int
) -> Worst:
    """Random segments of up to `longest` ticks, at random steps within them."""
    pick = RandomPicker(f"{curve} {exponent} {k} {rising}")
    worst = Worst()
    for _ in range(500):
        ticks = pick.one_of((1, 1, 2, 3, 7, 1000))
        length = size(pick, 2, longest)
        origin = size(pick, 0, 2**60) * pick.one_of((-1, 1))
        low = pick.one_of((0.0, 1e-5, 0.01))
        first, last = (low, 0.1) if rising else (0.1, low)
        rate = evaluator(
            ticks=ticks,
            origin=origin,
            length=length,
            first=first,
            last=last,
            curve=curve,
            exponent=exponent,
            k=k,
        )
        done = pick.one_of((size(pick, 1, length), length - size(pick, 0, length - 1)))
        step = (origin + done) // ticks
        passed = Fraction(step * ticks - origin, length)
        exact = curve_at(
            passed,
            first=decimal(first),
            last=decimal(last),
            curve=curve,
            exponent=exponent,
            k=k,
        )
        worst.see(
            rate(step),
            exact,
            f"step {step}, {ticks=}, {origin=}, {length=}, {first=}, {last=}",
        )
    return worst


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("curve", ["cosine", "linear"])
def test_curves_without_powers(curve: CurveName, *, rising: bool) -> None:
    worst = _evaluate_and_compare(curve, 1.0, 1.0, rising=rising, longest=2**60)
    assert worst.ulps <= RATE, worst


@pytest.mark.parametrize("exponent", [1.0, 1.5, 2.0, 3.0, 10.0])
@pytest.mark.parametrize("k", [1.0, 1.5, 2.0, 3.7])
@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("curve", ["cosine", "linear"])
def test_curves_with_powers(curve: CurveName, k: float, exponent: float, *, rising: bool) -> None:
    worst = _evaluate_and_compare(curve, exponent, k, rising=rising, longest=2**30)
    assert worst.ulps <= _powered(exponent, k), worst


@pytest.mark.parametrize(("exponent", "k"), [(0.5, 1.0), (0.9, 1.0), (1.0, 0.5), (0.5, 0.8)])
@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("curve", ["cosine", "linear"])
def test_curves_with_powers_below_1(
    curve: CurveName, k: float, exponent: float, *, rising: bool
) -> None:
    worst = _evaluate_and_compare(curve, exponent, k, rising=rising, longest=2**30)
    assert worst.ulps <= _powered(exponent, k), worst


@pytest.mark.parametrize("k", [0.5, 1.5, 3.0])
@pytest.mark.parametrize("length", [1000, 2**53, 2**60, 2**62])
def test_beginning_of_a_long_segment_with_k(length: int, k: float) -> None:
    # The share that remains rounds to 1 long before the step is 0.
    phase = Phase(steps=None, first=Level(0.1), last=Level(0.0), k=k)
    schedule = ca.Schedule((CycleRule(count=None, length=length, phases=(phase,)),))
    for step in (0, 1, 2, 100):
        passed = Fraction(step, length)
        exact = curve_at(passed, first=decimal(0.1), last=decimal(0.0), k=k)
        assert ulps(schedule.rate(step), exact) <= _powered(1.0, k)


@pytest.mark.parametrize("curve", ["cosine", "linear", "constant"])
@pytest.mark.parametrize(("first", "last"), [(0.1, 0.003), (0.003, 0.1), (0.1, 0.1)])
def test_evaluator_is_exact_at_its_ends_and_holds_them(
    curve: CurveName, first: float, last: float
) -> None:
    for exponent, k in ((1.0, 1.0), (0.5, 1.0), (1.0, 2.0), (3.0, 0.7)):
        rate = evaluator(
            ticks=2,
            origin=7,
            length=20,
            first=first,
            last=last,
            curve=curve,
            exponent=exponent,
            k=k,
        )
        beginning = last if curve == "constant" else first
        assert [rate(step) for step in (-(10**30), 0, 3)] == [beginning] * 3
        assert [rate(step) for step in (14, 15, 10**30)] == [last] * 3
        between = [rate(step) for step in range(4, 14)]
        assert all(min(first, last) <= value <= max(first, last) for value in between)
        if first != last and curve != "constant":
            assert len(set(between)) == len(between)


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
                    assert ulps(schedule.rate(step), exact) <= RATE
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
