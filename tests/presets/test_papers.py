"""The schedules of the papers beside loops of Fractions."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from cosanneal import presets
from tests.shared.arguments import first_cycles


@given(
    st.fractions(1, 50, max_denominator=12),
    st.sampled_from([Fraction(1), Fraction(3, 2), Fraction(11, 10), Fraction(2)]),
)
def test_real_valued_cycles_begin_at_the_first_step_at_or_after(
    length: Fraction, growth: Fraction
) -> None:
    """Against a loop of Fractions, and the clock of every step with it."""
    schedule = presets.sgdr(1.0, length, growth)
    begin = Fraction(0)
    for cycle in first_cycles(schedule, 8):
        assert cycle.start == math.ceil(begin)
        for step in range(cycle.start, cycle.stop):
            share = (step - begin) / length
            assert 0 <= share < 1
            # cos(pi x) = 1 - 2 sin²(pi x / 2) is another formula than the one under test.
            expected = 1 - math.sin(math.pi * float(share) / 2) ** 2
            assert math.isclose(schedule.rate(step), expected, rel_tol=0, abs_tol=8e-16)
        begin, length = begin + length, length * growth
