"""`Schedule.rates` as an array beside `Schedule.rate`, step for step."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

import cosanneal as ca
from cosanneal import presets

SCHEDULES = {
    "equal": ca.CyclicCosine(0.2, total_steps=90_000, num_cycles=3, min_lr=1e-3),
    "two lengths": ca.CyclicCosine(0.2, total_steps=1000, num_cycles=7),
    "short": ca.CyclicCosine(0.2, cycle_steps=3),
    "single steps": ca.CyclicCosine(0.2, cycle_steps=1),
    "growing": ca.CyclicCosine(0.2, cycle_steps=30, cycle_mult=1.5, warmup_steps=7),
    "decaying": ca.CyclicCosine(0.2, cycle_steps=40, cycle_decay=0.9, restart_warmup_steps=9),
    "first warmup": ca.CyclicCosine(0.2, total_steps=50_001, num_cycles=500, warmup_steps=50),
    "endpoint": ca.CyclicCosine(0.3, total_steps=1001, num_cycles=20, endpoint=True),
    "listed": ca.CyclicCosine(0.3, cycle_steps=[5, 5, 5, 9, 9, 20_000]),
    "real-valued": presets.sgdr(0.1, Fraction(1000, 3)),
    "rising": presets.torch_cosine_annealing(0.1, 600, 0.003),
    "k_decay": presets.timm_cosine(0.1, 500, lr_min=1e-4, cycle_limit=4, k_decay=1.5),
    "rounded": presets.composer_warm_restarts(0.1, 29, 1.15),
    "too long for floats": ca.CyclicCosine(0.1, total_steps=2**62, num_cycles=3),
}
RANGES = [(0, 25_000), (1, 2), (17, 17), (40, 1000), (777, 9000), (89_990, 110_000)]


@pytest.mark.parametrize("name", SCHEDULES)
def test_an_array_holds_the_rates_of_its_steps(name: str) -> None:
    schedule = SCHEDULES[name]
    far = [(2**61 + 5, 2**61 + 1500)] if name != "decaying" else []
    for start, stop in RANGES + far:
        rates = schedule.rates(start, stop, xp=np)
        expected = np.array(schedule.rates(start, stop), dtype=np.float64)
        assert (rates.dtype, rates.shape) == (np.float64, (stop - start,))
        # A sine one ulp off makes a square two ulp off, and a product and a sum of that.
        np.testing.assert_array_max_ulp(rates, expected, maxulp=4)
        for cycle in schedule.cycles_completed(max(start - 1, 0), min(stop, start + 3000)):
            if cycle.start >= start:
                assert rates[cycle.start - start] == schedule.rate(cycle.start)


def test_the_end_of_a_finite_schedule_is_its_default_and_its_floor_is_held() -> None:
    schedule = ca.CyclicCosine(0.2, total_steps=100, num_cycles=3, min_lr=0.01)
    assert schedule.rates(xp=np).shape == (100,)
    np.testing.assert_array_equal(schedule.rates(95, 200, xp=np)[5:], np.full(100, 0.01))
    np.testing.assert_array_equal(schedule.rates(500, 502, xp=np), [0.01, 0.01])


def test_bad_ranges_are_refused_as_for_a_list() -> None:
    with pytest.raises(ca.ScheduleError, match="must not lie before"):
        SCHEDULES["short"].rates(5, 4, xp=np)
    with pytest.raises(ca.ScheduleError, match="has no end"):
        SCHEDULES["short"].rates(xp=np)


@pytest.mark.parametrize("name", ["too long for floats", "growing", "short", "k_decay"])
def test_beside_the_array_only_a_small_buffer_is_held(name: str) -> None:
    steps = 100_000 if name in ("too long for floats", "k_decay") else 3_000_000
    tracemalloc.start()
    try:
        rates = SCHEDULES[name].rates(0, steps, xp=np)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rates.nbytes <= peak < rates.nbytes + 2**20
