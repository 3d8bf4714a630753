"""Keras' and Optax' schedules, computed in float64.

Keras runs on PyTorch here: on JAX its cosine is that of float32, whatever the
type of the numbers (its type promotion knows no 64-bit float).
"""

from __future__ import annotations

import math
import random
from typing import Any

import keras
import numpy as np
import optax
import pytest

from cosanneal import Schedule, presets

from .peers import U32, U64, Comparison, cosine_error, float64

SETS = range(24)


def keras_values(schedule: Any, steps: int) -> list[float]:
    with float64():
        return [float(schedule(step)) for step in range(steps)]


def optax_values(schedule: Any, steps: int) -> list[float]:
    with float64():
        return [float(v) for v in schedule(np.arange(steps, dtype=np.float64))]


@pytest.mark.parametrize("case", SETS)
def test_keras_cosine_decay(case: int) -> None:
    draw = random.Random(f"CosineDecay {case}")
    initial = 10 ** draw.uniform(-4, 1)
    steps = draw.choice([draw.randint(1, 150), draw.randint(10, 900) / 10])
    alpha = draw.choice([0.0, 1.0, draw.random()])
    # Without a target Keras ignores warmup_steps; a warmup may fall, too.
    target = draw.choice([None, initial * 10 ** draw.uniform(-1, 1)])
    warmup = draw.randint(0, 30)
    ours = presets.keras_cosine_decay(initial, steps, alpha, target, warmup)
    peak = initial if target is None else target
    theirs = keras.optimizers.schedules.CosineDecay(
        initial, steps, alpha, warmup_target=target, warmup_steps=warmup
    )
    values = keras_values(theirs, warmup + 3 * int(steps) + 3)
    # The floor is formed as (1 - alpha) * C + alpha, times the peak; the line of
    # the warmup as a difference of rates, a product and a sum.
    near = cosine_error(peak * (1 - alpha), max(peak, initial), angle=3, roundings=5)
    # ops.minimum, which holds the clock at its end, goes through float32: C is
    # then sin²(pi r / 2) with an r of up to a float32 rounding of the end.
    remains = U32 * (warmup + steps) / steps
    held = near + peak * (math.pi / 2 * remains) ** 2
    if target is None:
        warmup = 0
    Comparison(ours)(values, lambda step: near if step < warmup + steps else held)


@pytest.mark.parametrize("case", SETS)
def test_keras_cosine_decay_restarts(case: int) -> None:
    """Real-valued cycles; an exact restart may be missed by the float logarithm."""
    draw = random.Random(f"CosineDecayRestarts {case}")
    initial = 10 ** draw.uniform(-4, 1)
    first = draw.choice([draw.randint(2, 60), draw.randint(20, 300) / 10])
    t_mul = draw.choice([1.0, 2.0, 1.5, 1.3, 3.0])
    m_mul = draw.choice([1.0, 0.9, 0.5])
    alpha = draw.choice([0.0, draw.random()])
    ours = presets.keras_cosine_decay_restarts(initial, first, t_mul, m_mul, alpha)
    theirs = keras.optimizers.schedules.CosineDecayRestarts(initial, first, t_mul, m_mul, alpha)
    stop = ours.cycles()[4].stop
    height = initial * (1 - alpha)
    # Where one cycle ends, and with it what the defect below gives.
    floor = initial * alpha

    def bound(step: int) -> float:
        """The clock is a difference of numbers as large as the time that has passed.

        Counted in cycles of the present length that is `before + 1`, with the
        rounding of the quotients, of the float logarithm's powers (i + 1 each)
        and of t_mul, which is off by up to 1 u and enters i times.
        """
        cycle = ours.cycle_at(step)
        before = cycle.start / cycle.length
        angle = 3 + (before + 1) * (3 * cycle.index + 6)
        return cosine_error(height, initial, angle=angle, roundings=5 + cycle.index)

    def late(step: int) -> float | None:
        """At an exact restart the index found may be that of the cycle before."""
        segment = next(ours.segments(step, step + 1))
        return floor if segment.origin == step > 0 else None

    compare = Comparison(ours)
    compare(keras_values(theirs, stop), bound, defect=late)


@pytest.mark.parametrize("case", SETS)
def test_optax_cosine_decay(case: int) -> None:
    draw = random.Random(f"cosine_decay {case}")
    initial = 10 ** draw.uniform(-4, 1)
    steps = draw.randint(1, 300)
    alpha = draw.choice([0.0, 1.0, draw.random()])
    exponent = draw.choice([1.0, 2.0, 0.5, 3.5])
    ours = presets.optax_cosine_decay(initial, steps, alpha, exponent)
    with float64():
        values = optax_values(
            optax.cosine_decay_schedule(initial, steps, alpha, exponent), 3 * steps + 3
        )
    Comparison(ours)(values, power_error(ours, initial * (1 - alpha), initial, exponent))


def power_error(ours: Schedule, height: float, peak: float, exponent: float) -> Any:
    """How far `peak * ((1 - alpha) * C**p + alpha)` can be off.

    An error d of C becomes at most `p * (C + d)**(p - 1) * d` for p >= 1, and
    below it is largest where C is least: at most d**p. The power itself has a
    relative error of a few u.
    """
    c = cosine_error(1.0, 0.0, angle=2)
    factor = c**exponent if exponent < 1 else exponent * c

    def bound(step: int) -> float:
        if exponent >= 1:
            return height * (factor + 4 * U64) + 6 * U64 * peak
        # C from our value, by which its own error is weighed.
        segment = next(ours.segments(step, step + 1))
        share = (ours.rate(step) - segment.last) / height if height else 0.0
        weight = max(share, 0.0) ** (1 / exponent)
        slope = exponent * max(weight - c, 0.0) ** (exponent - 1) * c if weight > 2 * c else factor
        return height * (min(slope, factor) + 4 * U64) + 6 * U64 * peak

    return bound


def draw_cycle(draw: random.Random) -> dict[str, Any]:
    warmup = draw.randint(0, 40)
    peak = 10 ** draw.uniform(-4, 1)
    return {
        "init_value": draw.choice([0.0, peak * 2 * draw.random()]),
        "peak_value": peak,
        "warmup_steps": warmup,
        "decay_steps": warmup + draw.randint(1, 150),
        "end_value": draw.choice([0.0, peak * draw.random()]),
        "exponent": draw.choice([1.0, 2.0]),
    }


def cycle_error(cycle: dict[str, Any]) -> float:
    """A share of the peak is formed and multiplied again; the line's ends are rates."""
    peak = max(cycle["peak_value"], cycle["init_value"])
    height = cycle["peak_value"] - cycle["end_value"]
    return float(cosine_error(height, peak, angle=2, roundings=10) * cycle["exponent"])


@pytest.mark.parametrize("case", SETS)
def test_optax_warmup_cosine_decay(case: int) -> None:
    cycle = draw_cycle(random.Random(f"warmup_cosine_decay {case}"))
    ours = presets.optax_warmup_cosine_decay(**cycle)
    with float64():
        values = optax_values(optax.warmup_cosine_decay_schedule(**cycle), 3 * cycle["decay_steps"])
    Comparison(ours)(values, cycle_error(cycle))


@pytest.mark.parametrize("case", SETS)
def test_optax_sgdr(case: int) -> None:
    draw = random.Random(f"sgdr {case}")
    cycles = [draw_cycle(draw) for _ in range(draw.randint(1, 5))]
    cycles += draw.choice([[], cycles[-1:] * 2])
    ours = presets.optax_sgdr(cycles)
    end = sum(cycle["decay_steps"] for cycle in cycles)
    assert ours.total_steps == end
    with float64():
        values = optax_values(optax.sgdr_schedule(cycles), 2 * end)
    Comparison(ours)(values, max(map(cycle_error, cycles)))
