"""The half cosine, the line and their powers, within their derived errors."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

import cosanneal as ca
from cosanneal.core.curve import CurveName, evaluator, half_cosine
from cosanneal.core.rules import CycleRule, Level, Phase
from tests.shared.oracle import RandomPicker, Worst, cos_pi, curve_at, decimal, exactly, size, ulps

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
