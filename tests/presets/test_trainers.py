"""Lengths that are multiplied in place, and what is held after the last one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosanneal import ScheduleError, presets
from tests.shared.arguments import first_cycles


def multiplied(length: int, mult: float) -> Iterator[int]:
    while length:
        yield length
        length = int(length * mult)


@given(st.integers(2, 10**6), st.sampled_from([1.15, 1.4, 1.001, 1.5, 2.0, 0.7, 0.999, 1.0]))
def test_lengths_multiplied_in_place(length: int, mult: float) -> None:
    """Composer's and Ignite's rounding, against the loop that they run."""
    expected = list(itertools.islice(multiplied(length, mult), 50))
    for schedule in (
        presets.composer_warm_restarts(0.1, length, mult),
        presets.ignite_cosine(0.1, 0.0, length, mult),
    ):
        assert [c.length for c in first_cycles(schedule, 50)] == expected


def test_a_product_of_floats_decides_a_length() -> None:
    """int(100 * 1.15) is 114, int(5 * 1.4) is 7: neither decimal nor binary fraction alone."""
    cycles = presets.composer_warm_restarts(0.1, 100, 1.15).cycles()
    assert cycles[1].length == 114 != math.floor(100 * Fraction("1.15"))
    cycles = presets.composer_warm_restarts(0.1, 5, 1.4).cycles()
    assert cycles[1].length == 7 != math.floor(5 * Fraction(1.4))


@given(st.integers(2, 60), st.integers(1, 20), st.sampled_from([1.0, 2, 1.5, 1.15, 0.7]))
def test_ignites_warmup_is_multiplied_too(size: int, warmup: int, mult: float) -> None:
    schedule = presets.ignite_cosine(0.1, 0.01, size, mult, warmup_duration=warmup)
    expected, rest = [size], warmup
    while len(expected) < 6 and (size := int(size * mult)):
        expected.append(rest + size)
        rest = int(rest * mult)
    assert [c.length for c in first_cycles(schedule, 6)] == expected


def test_a_length_that_no_longer_grows_has_no_end_of_cycles() -> None:
    """int(5 * 1.1) is 5: equal cycles from there on."""
    schedule = presets.composer_warm_restarts(0.1, 5, 1.1)
    assert schedule.cycle_at(2**62).index == 2**62 // 5
    assert schedule.rate(5 * 10**18) == 0.1


def test_mmengine_holds_the_last_rate_and_not_the_floor() -> None:
    schedule = presets.mmengine_cosine_restart(1.0, [4, 4, 4], [1, 1, 1], eta_min=0.0)
    assert schedule.cycle_ends() == [3, 7, 11]
    assert schedule.rate(12) == schedule.rate(11) == schedule.rate(7) > 0.1
    assert presets.mmengine_cosine_restart(1.0, [1], [0.5], eta_min=0.0).rates(0, 3) == [0.5] * 3


@pytest.mark.parametrize("mult", [1e19, 1e308])
def test_a_second_cycle_longer_than_any_run_is_refused(mult: float) -> None:
    for make in (presets.composer_warm_restarts, partial(presets.ignite_cosine, 0.1)):
        with pytest.raises(ScheduleError, match=r"at most 2\*\*63 steps long"):
            make(0.1, 100, mult)
