"""The oracle itself, against values that are known."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest

from tests.shared.oracle import PI, Oracle, Worst, cos_pi, curve_at, decimal, exactly, ulps

PI_TO_100 = (
    "3.14159265358979323846264338327950288419716939937510"
    "5820974944592307816406286208998628034825342117067"
)
TINY = Decimal(10) ** -96


def test_pi_has_the_known_digits() -> None:
    assert abs(PI - Decimal(PI_TO_100)) < Decimal(10) ** -98


@pytest.mark.parametrize(
    ("x", "square", "sign"),
    [
        (Fraction(0), Fraction(1), 1),
        (Fraction(1, 6), Fraction(3, 4), 1),
        (Fraction(1, 4), Fraction(1, 2), 1),
        (Fraction(1, 3), Fraction(1, 4), 1),
        (Fraction(1, 2), Fraction(0), 0),
        (Fraction(2, 3), Fraction(1, 4), -1),
        (Fraction(5, 6), Fraction(3, 4), -1),
        (Fraction(1), Fraction(1), -1),
    ],
)
def test_cosine_has_the_known_values(x: Fraction, square: Fraction, sign: int) -> None:
    with exactly():
        known = sign * decimal(square).sqrt()
        assert abs(cos_pi(decimal(x)) - known) < TINY


def test_cosine_of_a_fifth_is_half_the_golden_ratio() -> None:
    with exactly():
        assert abs(cos_pi(decimal(Fraction(1, 5))) - (1 + Decimal(5).sqrt()) / 4) < TINY


def test_cosine_keeps_forty_digits_of_the_smallest_weight_there_is() -> None:
    # (1 + cos(pi * (1 - e))) / 2 is (pi * e / 2) ** 2 but for terms of e**4.
    share = Fraction(1, 2**63)
    with exactly():
        weight = (1 + cos_pi(decimal(1 - share))) / 2
        expected = (PI * decimal(share) / 2) ** 2
        assert abs(weight - expected) < expected * Decimal(10) ** -36


def test_curve_holds_its_ends() -> None:
    high, low = Decimal(3), Decimal(1)
    assert [curve_at(Fraction(x), first=high, last=low) for x in (-1, 0, 1, 2)] == [3, 3, 1, 1]


def test_curve_with_powers() -> None:
    high, low, half = Decimal(1), Decimal(0), Fraction(1, 2)
    with exactly():
        squared = curve_at(half, first=high, last=low, exponent=2.0)
        assert abs(squared - Decimal("0.25")) < TINY
        late = curve_at(half, first=high, last=low, curve="linear", k=3.0)
        assert abs(late - Decimal("0.875")) < TINY


def test_boundaries_of_the_oracle() -> None:
    assert [Oracle(1.0, total_steps=10, num_cycles=3).start(i) for i in range(4)] == [0, 3, 6, 10]
    # 1 + 2 + 4 parts of 700/3 / 7 steps each.
    budget = Oracle(1.0, total_steps=233, num_cycles=3, cycle_mult=2)
    assert [budget.start(i) for i in range(4)] == [0, 33, 99, 233]
    # 10, 11, 12.1, 13.31
    growing = Oracle(1.0, cycle_steps=10, cycle_mult=1.1)
    assert [growing.start(i) for i in range(5)] == [0, 10, 21, 33, 46]
    assert [growing.cycle_of(step) for step in (0, 9, 10, 20, 21, 32, 33)] == [0, 0, 1, 1, 2, 2, 3]
    listed = Oracle(1.0, cycle_steps=[5, 1, 4])
    assert [listed.cycle_of(step) for step in (0, 4, 5, 6, 9)] == [0, 0, 1, 2, 2]
    assert listed.total_steps == 10


def test_rates_of_the_oracle() -> None:
    plan = Oracle(
        1.0,
        cycle_steps=[6, 6],
        min_lr=0.5,
        cycle_decay=0.75,
        warmup_steps=2,
        restart_warmup_steps=4,
    )
    rates = [float(plan.rate(step)) for step in range(13)]
    assert rates == pytest.approx(
        # 1/2 + (1/2) (1 + cos(pi j/4)) / 2, then a peak of 3/4 and two steps to anneal
        [
            *(0, 0.5, 1, 0.9267766952966369, 0.75, 0.5732233047033631),
            *(0.5, 0.5625, 0.625, 0.6875, 0.75, 0.625, 0.5),
        ],
        rel=1e-15,
        abs=0,
    )
    ends = Oracle(1.0, cycle_steps=[5, 1], endpoint=True)
    assert [float(ends.rate(step)) for step in (0, 2, 4, 5)] == [1, 0.5, 0, 0]


def test_ulps_measures_ulps() -> None:
    assert ulps(1.0 + 2**-52, Decimal(1)) == 1.0
    assert ulps(0.75, decimal(0.5)) == 2**51
    assert ulps(0.0, Decimal(0)) == 0.0
    worst = Worst()
    worst.see(1.0, Decimal(1), "exact")
    worst.see(1.0 + 2**-51, Decimal(1), "off by two")
    worst.see(1.0 - 2**-52, Decimal(1), "off by one")
    assert (worst.ulps, worst.count) == (2.0, 3)
    assert "off by two" in worst.where


def test_worst_does_not_overlook_a_nan() -> None:
    worst = Worst()
    worst.see(float("nan"), Decimal(1), "nan")
    assert "nan" in worst.where
