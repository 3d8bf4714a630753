"""What a schedule costs inside a JAX graph: ours beside Optax' own, in one run.

    python benchmarks/jax_graph.py

For 10, 100, 1,000 and 10,000 cycles: the equations of the jaxpr, inner ones
included; the time from the schedule to the compiled function, tracing included;
and the time of one jitted call, the least of several repeats that take turns
with the measure of one call, optax.cosine_decay_schedule. The peer with
restarts, optax.sgdr_schedule, is asked for at most 100 cycles, since its graph
and its compilation grow with them (1,000 take tens of thousands of equations).
Cycles that are not all alike take a table with a row for each, which costs more
to make and to look up. A limit is exceeded where the last column says so, and
the exit status with it.
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
        "equal cycles",
        lambda: cyclic_cosine_schedule(ca.CyclicCosine(0.1, total_steps=total, num_cycles=cycles)),
    )
    yield (
        "cycles of two lengths",
        lambda: cyclic_cosine_schedule(
            ca.CyclicCosine(0.1, total_steps=total + 7, num_cycles=cycles)
        ),
    )
    yield (
        "cycles that decay",
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
    """The time of one call, in microseconds."""
    step = jnp.array(37)
    start = time.perf_counter()
    for _ in range(calls):
        value = compiled(step)
    value.block_until_ready()
    return (time.perf_counter() - start) / calls * 1e6


def measure(make: Callable[[], optax.Schedule], *, repeats: int = 15) -> tuple[Any, ...]:
    """Equations, seconds to compile, microseconds of a call, and its ratio to one decay."""
    step = jnp.array(37)
    decay = jax.jit(optax.cosine_decay_schedule(0.1, STEPS))
    decay(step).block_until_ready()
    start = time.perf_counter()
    schedule = make()
    compiled = jax.jit(schedule)
    compiled(step).block_until_ready()
    seconds = time.perf_counter() - start
    pairs = [(call_time(compiled), call_time(decay)) for _ in range(repeats)]
    call, base = (min(times) for times in zip(*pairs, strict=True))
    return equations(jax.make_jaxpr(schedule)(step).jaxpr), seconds, call, call / base


def main() -> int:
    """Print the table; 1 if a limit is exceeded."""
    line = "{:<28} {:>7} {:>10} {:>11} {:>9} {:>6}  {}"
    print(f"jax {jax.__version__}, optax {optax.__version__}, {jax.devices()[0].platform}")
    print(line.format("schedule", "cycles", "equations", "compile, s", "call, us", "ratio", ""))

    def show(name: str, cycles: int, make: Callable[[], optax.Schedule]) -> bool:
        count, seconds, call, ratio = measure(make)
        over = ""
        if not name.startswith("optax"):
            over += " equations" if count > EQUATIONS else ""
            over += " compile" if seconds > COMPILE else ""
            over += " call" if ratio > CALL else ""
        row = (name, f"{cycles:,}", f"{count:,}", f"{seconds:.3f}", f"{call:.2f}", f"{ratio:.2f}")
        print(line.format(*row, f"over its limit:{over}" if over else ""))
        return bool(over)

    show("optax.cosine_decay_schedule", 1, lambda: optax.cosine_decay_schedule(0.1, STEPS))
    failed = False
    for cycles in COUNTS:
        for name, make in ours(cycles):
            failed |= show(name, cycles, make)
        if cycles <= PEER_LIMIT:
            show("optax.sgdr_schedule", cycles, lambda cycles=cycles: peer(cycles))  # type: ignore[misc]
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
