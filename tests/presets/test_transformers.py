"""Transformers' restarts and waves."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import assume, given
from hypothesis import strategies as st

from cosanneal import presets


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 30))
def test_hf_restarts_are_where_the_fraction_says(steps: int, cycles: int, warmup: int) -> None:
    assume(cycles <= steps)
    schedule = presets.hf_hard_restarts(0.1, warmup, warmup + steps, cycles)
    expected = [math.ceil(Fraction(i * steps, cycles)) + warmup - 1 for i in range(1, cycles + 1)]
    assert schedule.cycle_ends() == expected
    for i in range(cycles):
        if i * steps % cycles == 0:
            assert schedule.rate(warmup + i * steps // cycles) == 0.1


def test_a_waves_last_step_is_one_above_the_floor() -> None:
    schedule = presets.hf_cosine(0.1, 10, 110)
    assert schedule.rate(109) == schedule.rate(111) > schedule.rate(110) == 0
