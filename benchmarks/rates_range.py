"""The rates of ten million steps as an array, beside numpy's own cosine over the same range.

    python -m benchmarks.rates_range

numpy's is the expression that is usually written, for a single cosine. The limit
is the speed of memory: filling an array of that size with one number.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

import cosanneal as ca
from benchmarks.harness import Figure, alone, in_turn
from cosanneal import presets

STEPS = 10_000_000
GOAL = 1.5


def schedules() -> Iterator[tuple[str, ca.Schedule]]:
    """A name and a schedule."""
    yield "1 cycle", ca.CyclicCosine(0.1, cycle_steps=STEPS)
    yield "5 cycles", ca.CyclicCosine(0.1, total_steps=STEPS, num_cycles=5)
    yield "7 cycles of two lengths", ca.CyclicCosine(0.1, total_steps=STEPS, num_cycles=7)
    yield "1,000 cycles that decay", ca.CyclicCosine(0.1, cycle_steps=10_000, cycle_decay=0.999)
    yield "cycles of 100 steps", ca.CyclicCosine(0.1, cycle_steps=100)
    yield "cycles of 1000/3 steps", presets.sgdr(0.1, Fraction(1000, 3))
    yield "growing cycles", ca.CyclicCosine(0.1, cycle_steps=1000, cycle_mult=2)


def cosine() -> np.ndarray:
    """One cosine, as it is usually written."""
    steps = np.arange(STEPS)
    return 0.05 * (1 + np.cos(np.pi * steps / STEPS))


def measure() -> Iterator[Figure]:
    """Ten million rates."""
    for name, schedule in schedules():
        runs = {
            "ours": lambda schedule=schedule: schedule.rates(0, STEPS, xp=np),  # type: ignore[misc]
            "numpy": cosine,
            "limit": lambda: np.full(STEPS, 0.1),
        }
        times = in_turn(runs, repeats=7, per=1e-3)
        yield Figure(
            name=name,
            unit="ms",
            ours=times["ours"],
            peers={"numpy's cosine": times["numpy"]},
            limit=times["limit"],
            goal=GOAL,
            beside="peer",
        )


if __name__ == "__main__":
    sys.exit(alone(measure()))
