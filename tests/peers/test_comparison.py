"""The comparison itself: it must notice what it is there for."""

from __future__ import annotations

import math

import pytest

from cosanneal import presets

from .peers import Comparison, cosine_error

RATES = [0.05 * (1 + math.cos(math.pi * c / 10)) for c in range(10)]
BOUND = cosine_error(0.1, 0.1, angle=2)


@pytest.mark.parametrize("step", range(10))
def test_a_deviation_beyond_the_bound_fails(step: int) -> None:
    compare = Comparison(presets.sgdr(0.1, 10))
    compare(RATES, BOUND)
    rates = list(RATES)
    rates[step] += 1e-15
    with pytest.raises(AssertionError):
        compare(rates, BOUND)


def test_a_shift_by_one_step_fails() -> None:
    with pytest.raises(AssertionError):
        Comparison(presets.sgdr(0.1, 10))(RATES[1:], BOUND)


def test_a_defect_must_have_the_defects_value() -> None:
    compare = Comparison(presets.sgdr(0.1, 10))
    compare([0.0, *RATES[1:]], BOUND, defect=lambda step: None if step else 0.0)
    assert compare.defects == [0]
    with pytest.raises(AssertionError):
        compare([0.05, *RATES[1:]], BOUND, defect=lambda step: None if step else 0.0)
