"""timm's warmup."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cosanneal import presets


def test_timms_clock_runs_during_its_warmup() -> None:
    runs = presets.timm_cosine(1.0, 100, warmup_t=50)
    assert runs.rate(49) == 0.98
    assert math.isclose(runs.rate(50), 0.5)
    waits = presets.timm_cosine(1.0, 100, warmup_t=50, warmup_prefix=True)
    assert waits.rate(50) == 1.0
    assert (runs.total_steps, waits.total_steps) == (100, 150)


def test_a_limit_that_no_run_reaches_is_none() -> None:
    schedule = presets.timm_cosine(0.1, 5, cycle_mul=3, cycle_limit=99)
    assert (schedule.total_steps, schedule.num_cycles) == (None, None)
    few = presets.timm_cosine(0.1, 5, cycle_mul=3, cycle_limit=30)
    assert few.total_steps == 5 * (3**30 - 1) // 2
    assert schedule.rates(0, 1000) == few.rates(0, 1000)
    for step in (0, 5, 2**31, 5 * (3**30 - 1) // 2 - 1):
        assert schedule.rate(step) == few.rate(step)
    assert schedule.cycle_at(2**63 - 1).index == 38
    most = presets.timm_cosine(0.1, 5, cycle_mul=3, cycle_limit=38)
    assert most.total_steps == 5 * (3**38 - 1) // 2 < 2**63
    assert presets.timm_cosine(0.1, 5, cycle_mul=3, cycle_limit=39).total_steps is None


@pytest.mark.parametrize(
    "arguments",
    [
        {"cycle_mul": 1.5, "cycle_limit": 10**6},
        {"cycle_mul": 1.0, "cycle_limit": 2**62},
        {"cycle_mul": 2, "cycle_limit": 2**63},
        {"cycle_mul": 10**18, "cycle_limit": 4, "t_initial": 5.5},
        {"cycle_mul": 3, "cycle_limit": 99, "cycle_decay": 0.9, "lr_min": 1e-4},
        {"cycle_mul": 3, "cycle_limit": 99, "warmup_t": 3, "warmup_prefix": True, "k_decay": 2.0},
    ],
)
def test_other_limits_that_no_run_reaches(arguments: dict[str, Any]) -> None:
    arguments = {"base_lr": 0.1, "t_initial": 5, **arguments}
    schedule = presets.timm_cosine(**arguments)
    assert schedule.total_steps is None
    few = presets.timm_cosine(**arguments | {"cycle_limit": 2})
    assert schedule.rates(0, 10) == few.rates(0, 10)


def test_a_limit_that_can_be_reached_is_an_end() -> None:
    for mul, limit in ((1.0, 1000), (1.5, 60), (0.9, 5), (3, 1)):
        schedule = presets.timm_cosine(0.1, 5, cycle_mul=mul, cycle_limit=limit)
        assert schedule.num_cycles == limit
        assert schedule.total_steps is not None
        assert schedule.rate(schedule.total_steps) == 0
