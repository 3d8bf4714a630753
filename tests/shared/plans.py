"""Schedules whose exact rates the decimal oracle has, for the frameworks that trace graphs."""

from __future__ import annotations

import functools
import random
from fractions import Fraction
from typing import Any

import numpy as np

import cosanneal as ca
from tests.shared.oracle import Oracle

INT32 = 2**31 - 1
ULPS = 8

# Arguments of CyclicCosine, for which the decimal oracle has the exact rates.
PLANS: dict[str, dict[str, Any]] = {
    "budget": {"total_steps": 100, "num_cycles": 3},
    "equal": {"cycle_steps": 40, "num_cycles": 5, "min_lr": 1e-3},
    "endless": {"cycle_steps": 1000},
    "endless, warmed": {"cycle_steps": 50, "warmup_steps": 20, "restart_warmup_steps": 5},
    "growing": {"cycle_steps": 7, "num_cycles": 6, "cycle_mult": 1.5},
    "endless growing": {"cycle_steps": 10, "cycle_mult": 2, "min_lr": 1e-4},
    "slowly growing": {"cycle_steps": 100, "cycle_mult": Fraction(101, 97)},
    "shrinking": {"total_steps": 500, "num_cycles": 4, "cycle_mult": 0.5},
    "decaying": {"total_steps": 300, "num_cycles": 4, "cycle_decay": 0.7, "min_lr": 1e-3},
    "warmed": {
        "total_steps": 301,
        "num_cycles": 4,
        "warmup_steps": 30,
        "warmup_lr": 0.01,
        "restart_warmup_steps": 7,
        "min_lr": 2e-3,
    },
    "list": {"cycle_steps": [3, 9, 9, 1, 9, 40], "endpoint": True, "warmup_steps": 1},
    "endpoint": {"total_steps": 64, "num_cycles": 7, "endpoint": True},
    "one long cycle": {"total_steps": INT32, "num_cycles": 1},
    "longer than int32": {"cycle_steps": 2**31 + 77},
    "far longer": {"cycle_steps": 2**40, "warmup_steps": 2**33},
    "odd and long": {
        "total_steps": 2_000_000_011,
        "num_cycles": 3,
        "warmup_steps": 600_000_007,
        "restart_warmup_steps": 30_000_001,
    },
}


@functools.cache
def plan(kind: str) -> tuple[ca.Schedule, Oracle]:
    given = {"max_lr": 0.1, **PLANS[kind]}
    return ca.CyclicCosine(**given), Oracle(**given)


def steps_of(schedule: ca.Schedule, limit: int, *, some: int = 200) -> list[int]:
    """Every step of small schedules; boundaries, last steps, powers of two and random ones."""
    draw = random.Random(repr(schedule))
    end = min(limit, schedule.total_steps or limit)
    steps = {*range(min(end + 3, 350)), 2**24 - 1, 2**24, 2**24 + 1, limit}
    for _ in range(some):
        step = draw.randint(0, end - 1) if draw.random() < 0.5 else int(end ** draw.random()) - 1
        cycle = schedule.cycle_at(step)
        steps |= {step, cycle.start - 1, cycle.start, cycle.start + 1, cycle.stop - 2}
        steps |= {cycle.stop - 1, cycle.stop, cycle.stop + 1}
    return sorted(step for step in steps if 0 <= step <= limit)


def peaks_of(kind: str, limit: int) -> dict[int, float]:
    """The first steps of a plan's cycles, and the peaks; none where no cycle starts at its peak."""
    given = PLANS[kind]
    if "endpoint" in given or {"warmup_steps", "restart_warmup_steps"} & {*given}:
        return {}
    schedule, _ = plan(kind)
    cycles = schedule.cycles()[: schedule.num_cycles or 30]
    return {cycle.start: cycle.max_lr for cycle in cycles if cycle.start <= limit}


def assert_close(
    got: Any, exact: list[float], steps: list[int], kind: str, *, ulps: float = ULPS
) -> None:
    """Within 8 ulp of the exact rates, which are rounded to float64."""
    got = np.asarray(got)
    wanted = np.array(exact)
    ulp = np.spacing(wanted.astype(got.dtype)).astype(np.float64)
    off = np.abs(got.astype(np.float64) - wanted) / ulp
    worst = int(np.argmax(off))
    assert off[worst] <= ulps, f"{kind}: {off[worst]:.2f} ulp at step {steps[worst]}"
