"""The schedules and the steps that every framework must agree on, and their exact rates."""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import cosanneal as ca
from tests.shared.oracle import curve_at, decimal

INT32 = 2**31 - 1

_P = ca.presets

SCHEDULES: dict[str, ca.Schedule] = {
    "budget": ca.CyclicCosine(0.1, total_steps=100, num_cycles=3),
    "equal": ca.CyclicCosine(0.1, cycle_steps=40, num_cycles=5, min_lr=1e-3),
    "a thousand": ca.CyclicCosine(0.2, total_steps=123_457, num_cycles=1000),
    "endless": ca.CyclicCosine(0.1, cycle_steps=1000),
    "endless, warmed": ca.CyclicCosine(
        0.1, cycle_steps=50, warmup_steps=20, restart_warmup_steps=5
    ),
    "growing": ca.CyclicCosine(0.1, cycle_steps=7, num_cycles=6, cycle_mult=1.5),
    "endless growing": ca.CyclicCosine(0.1, cycle_steps=10, cycle_mult=2, min_lr=1e-4),
    "slowly growing": ca.CyclicCosine(0.1, cycle_steps=100, cycle_mult=Fraction(101, 97)),
    "shrinking": ca.CyclicCosine(0.1, total_steps=500, num_cycles=4, cycle_mult=0.5),
    "decaying": ca.CyclicCosine(
        0.1, total_steps=300, num_cycles=4, cycle_decay=0.7, min_lr=1e-3, restart_warmup_steps=4
    ),
    "warmed": ca.CyclicCosine(
        0.1,
        total_steps=301,
        num_cycles=4,
        warmup_steps=30,
        warmup_lr=0.01,
        restart_warmup_steps=7,
        min_lr=2e-3,
    ),
    "list": ca.CyclicCosine(0.1, cycle_steps=[3, 9, 9, 1, 9, 40], endpoint=True, warmup_steps=1),
    "peaks": ca.CyclicCosine([0.2, 0.1, 0.3], total_steps=200, min_lr=1e-3, cycle_mult=2),
    "endpoint": ca.CyclicCosine(0.1, total_steps=64, num_cycles=7, endpoint=True),
    "one-step cycles": ca.CyclicCosine(0.1, total_steps=9, num_cycles=9),
    "range test": ca.range_test(1e-5, 10.0, total_steps=173),
    "one long cycle": ca.CyclicCosine(0.1, total_steps=INT32, num_cycles=1),
    "longer than int32": ca.CyclicCosine(3e-4, cycle_steps=2**31 + 77),
    "odd and long": ca.CyclicCosine(
        0.1,
        total_steps=2_000_000_011,
        num_cycles=3,
        warmup_steps=600_000_007,
        restart_warmup_steps=30_000_001,
    ),
    "snapshot_ensembles": _P.snapshot_ensembles(T=500, M=7, alpha_0=0.2),
    "snapshot_ensembles_lua": _P.snapshot_ensembles_lua(10, 3, 11, 0.2),
    "sgdr": _P.sgdr(0.05, 10, 2, 1e-4),
    "sgdr, fractional": _P.sgdr(0.1, Fraction(355, 113)),
    "keras_contrib_snapshot": _P.keras_contrib_snapshot(20, 5),
    "torch_cosine_annealing": _P.torch_cosine_annealing(0.1, 13, 0.01),
    "torch_warm_restarts": _P.torch_warm_restarts(0.1, 10, 3, 1e-3),
    "torch_one_cycle": _P.torch_one_cycle(0.1, 200),
    "keras_cosine_decay": _P.keras_cosine_decay(0.01, 90, 0.1, warmup_target=0.1, warmup_steps=10),
    "keras_cosine_decay_restarts": _P.keras_cosine_decay_restarts(0.1, 10, 1.5, 0.9, 0.01),
    "optax_cosine_decay": _P.optax_cosine_decay(0.1, 100, 0.1, exponent=2.0),
    "optax_warmup_cosine_decay": _P.optax_warmup_cosine_decay(0.01, 0.1, 10, 60, 0.002),
    "optax_sgdr": _P.optax_sgdr(
        [
            {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 5, "decay_steps": 50},
            {"init_value": 0.0, "peak_value": 0.05, "warmup_steps": 0, "decay_steps": 70},
        ]
    ),
    "timm_cosine": _P.timm_cosine(0.1, 50, 1e-3, cycle_decay=0.5, cycle_limit=3, warmup_t=5),
    "timm_cosine, k": _P.timm_cosine(0.1, 50, 1e-3, cycle_limit=2, k_decay=1.5),
    "hf_cosine": _P.hf_cosine(0.1, 10, 110),
    "hf_cosine_with_min_lr": _P.hf_cosine_with_min_lr(0.1, 10, 110, min_lr=0.01),
    "hf_hard_restarts": _P.hf_hard_restarts(0.1, 100, 2200, 22),
    "ignite_cosine": _P.ignite_cosine(0.1, 0.01, 20, 1.5, 0.9, 0.9, warmup_duration=3),
    "fastai_sgdr": _P.fastai_sgdr(0.1, 4, 2, 2, 9),
    "composer_warm_restarts": _P.composer_warm_restarts(0.1, 20, 1.5, 0.01),
    "torchensemble_snapshot": _P.torchensemble_snapshot(0.1, 4, 20, 6),
    "mmengine_cosine_restart": _P.mmengine_cosine_restart(
        0.1, [10, 30, 25], [1.0, 0.5, 0.25], eta_min=1e-3
    ),
}


def steps_of(name: str, limit: int, *, some: int = 20) -> list[int]:
    """Boundaries and their neighbours, powers of two, the ends, and random steps."""
    schedule = SCHEDULES[name]
    draw = random.Random(name)
    end = min(limit, schedule.total_steps or limit)
    steps = {0, 1, 2, end - 1, end, end + 1, limit - 1, limit}
    steps |= {2**power + by for power in (24, 31, 53, 62) for by in (-1, 0, 1)}
    first = [cycle.stop for cycle in schedule.cycles()[: min(schedule.num_cycles or 8, 8)]]
    for step in [*(stop - 1 for stop in first), *(_any(draw, end) for _ in range(some))]:
        cycle = schedule.cycle_at(min(step, end - 1))
        inside = [
            segment.start for segment in schedule.segments(cycle.start, min(cycle.stop, limit))
        ]
        for boundary in {*inside, cycle.start, cycle.stop}:
            steps |= {boundary - 2, boundary - 1, boundary, boundary + 1}
        steps.add(step)
    return sorted(step for step in steps if 0 <= step <= limit)


def _any(draw: random.Random, end: int) -> int:
    """A step of any order of magnitude."""
    return draw.randint(0, end - 1) if draw.random() < 0.5 else int(end ** draw.random()) - 1


def exact_rate(schedule: ca.Schedule, step: int) -> Decimal:
    """The true value of the schedule's table at a step, in decimal arithmetic."""
    (segment,) = schedule.segments(step, step + 1)
    passed = (Fraction(step) - segment.origin) / segment.length
    return curve_at(
        passed,
        first=decimal(segment.first),
        last=decimal(segment.last),
        curve=segment.curve,
        exponent=segment.exponent,
        k=segment.k,
    )


def restarts(schedule: ca.Schedule, steps: list[int]) -> Iterator[tuple[int, float]]:
    """Of the steps, those at which an annealing from a cycle's peak begins, and the peak."""
    for step in steps:
        (segment,) = schedule.segments(step, step + 1)
        falls = segment.curve == "cosine" and segment.first > segment.last
        if falls and segment.start == segment.origin == step:
            yield step, segment.first


def finite() -> dict[str, Any]:
    """The schedules that a recorder can be driven through whole."""
    return {
        name: schedule
        for name, schedule in SCHEDULES.items()
        if schedule.total_steps is not None and schedule.total_steps <= 1000
    }
