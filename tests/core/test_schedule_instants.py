"""The rate of an instant between two steps."""

from __future__ import annotations

import math
from typing import Any

import pytest

import cosanneal as ca

# SequentialLR of older releases of torch steps to an epoch, and warns of it itself.
pytestmark = pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")


@pytest.mark.parametrize("time", [0, 2, 3.5, 9.25, 20, 20.5, 1e9])
def test_an_instant_of_a_schedule(time: float) -> None:
    schedule = ca.CyclicCosine(0.1, total_steps=20, num_cycles=4, min_lr=0.02)
    within = math.fmod(time, 5) / 5
    expected = 0.02 if time >= 20 else 0.02 + 0.08 * (1 + math.cos(math.pi * within)) / 2
    assert schedule.rate_at(time) == pytest.approx(expected, rel=1e-14)


def test_an_instant_between_real_valued_cycles() -> None:
    schedule = ca.presets.keras_cosine_decay_restarts(1.0, 2.5, t_mul=1.0)
    for time in (2.25, 2.49, 2.5, 2.51, 2.75, 4.9, 5.0, 7.45, 7.5, 7.6):
        x = math.fmod(time, 2.5) / 2.5
        expected = (1 + math.cos(math.pi * x)) / 2
        assert schedule.rate_at(time) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("time", [-0.5, float("nan"), float("inf"), True, "3", None])
def test_an_instant_that_cannot_be(time: Any) -> None:
    with pytest.raises(ca.ScheduleError, match=r"`time` must be a finite number of at least 0"):
        ca.CyclicCosine(0.1, cycle_steps=5).rate_at(time)
