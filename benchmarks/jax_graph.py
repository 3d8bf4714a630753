"""What a schedule costs inside a JAX graph: ours beside Optax' own.

    python -m benchmarks.jax_graph

For 10, 100, 1,000 and 10,000 cycles: the equations of the jaxpr, inner ones
included; the time from the schedule to the compiled function, tracing included;
and the time of one jitted call, beside one of a single decay,
optax.cosine_decay_schedule. The peer with restarts, optax.sgdr_schedule, is
asked for at most 100 cycles, since its graph and its compilation grow with them
(1,000 take tens of thousands of equations). Cycles that are not all alike take a
table with a row for each, which costs more to make and to look up.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

import cosanneal as ca
from benchmarks.harness import Figure, alone, in_turn
from cosanneal.adapters.jax import cyclic_cosine_schedule

COUNTS = (10, 100, 1_000, 10_000)
PEER_LIMIT = 100  # cycles
STEPS = 100  # of each cycle, or nearly
EQUATIONS = 60
COMPILE, CALL = 0.2, 1.2  # seconds, and the ratio of a call to one of a single decay


def equations(jaxpr: Any) -> int:
    """All equations of a jaxpr, inner ones too."""
    count = 0
    for equation in jaxpr.eqns:
        count += 1
        for value in equation.params.values():
            for inner in value if isinstance(value, list | tuple) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                count += equations(inner) if hasattr(inner, "eqns") else 0
    return count


def ours(cycles: int) -> Iterator[tuple[str, Callable[[], optax.Schedule]]]:
    """A name, and what makes the schedule."""
    total = STEPS * cycles
    yield (
        "equal",
        lambda: cyclic_cosine_schedule(ca.CyclicCosine(0.1, total_steps=total, num_cycles=cycles)),
    )
    yield (
        "of two lengths",
        lambda: cyclic_cosine_schedule(
            ca.CyclicCosine(0.1, total_steps=total + 7, num_cycles=cycles)
        ),
    )
    yield (
        "decaying",
        lambda: cyclic_cosine_schedule(
            ca.CyclicCosine(0.1, total_steps=total, num_cycles=cycles, cycle_decay=0.9999)
        ),
    )
    draw = random.Random(0)
    lengths = [draw.randint(1, 2 * STEPS) for _ in range(cycles)]
    yield (
        "cycles of any length",
        lambda: cyclic_cosine_schedule(ca.CyclicCosine(0.1, cycle_steps=lengths)),
    )


def peer(cycles: int) -> optax.Schedule:
    """Optax' restarts."""
    cycle = {"init_value": 0.1, "peak_value": 0.1, "warmup_steps": 0, "decay_steps": STEPS}
    return optax.sgdr_schedule([cycle] * cycles)


def call_time(compiled: Any, *, calls: int = 500) -> float:
    """The time of one call, in microseconds: this process's own, on all threads."""
    step = jnp.array(37)
    start = time.process_time()
    for _ in range(calls):
        value = compiled(step)
    value.block_until_ready()
    return (time.process_time() - start) / calls * 1e6


def prepare(make: Callable[[], optax.Schedule]) -> tuple[int, float, Callable[[], float]]:
    """Equations, seconds to compile, and what times calls."""
    step = jnp.array(37)
    start = time.perf_counter()
    schedule = make()
    compiled = jax.jit(schedule)
    compiled(step).block_until_ready()
    seconds = time.perf_counter() - start
    count = equations(jax.make_jaxpr(schedule)(step).jaxpr)
    return count, seconds, lambda: call_time(compiled)


def measure() -> Iterator[Figure]:
    """Calls first, which matter most; then what they take once."""
    decay = prepare(lambda: optax.cosine_decay_schedule(0.1, STEPS))[2]
    once: list[Figure] = []
    for cycles in COUNTS:
        restarts = prepare(lambda cycles=cycles: peer(cycles)) if cycles <= PEER_LIMIT else None  # type: ignore[misc]
        for name, make in ours(cycles):
            count, seconds, call = prepare(make)
            runs = {"ours": call, "limit": decay}
            runs |= {"optax sgdr": restarts[2]} if restarts else {}
            times = in_turn(runs, repeats=25)
            title = f"{cycles:,} {name}"
            yield Figure(
                name=f"call, {title}",
                unit="µs",
                ours=times.pop("ours"),
                limit=times.pop("limit"),
                peers=times,
                goal=CALL,
            )
            for what, unit, own, other, limit in (
                ("compile", "s", seconds, restarts and restarts[1], COMPILE),
                ("graph", "eqns", float(count), restarts and float(restarts[0]), EQUATIONS),
            ):
                once.append(
                    Figure(
                        name=f"{what}, {title}",
                        unit=unit,
                        ours=[own],
                        peers={} if other is None else {"optax sgdr": [other]},
                        limit=limit,
                        goal=1.0,
                    )
                )
    yield from sorted(once, key=lambda figure: figure.unit, reverse=True)


if __name__ == "__main__":
    sys.exit(alone(measure()))
