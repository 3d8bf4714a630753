"""What one rate costs: ours beside the peers' own closed forms.

    python -m benchmarks.core_rate

Over random steps, the same for all of a line. `first` is what the first call of
all takes, which counts growing cycles out as far as its step. Peers that are
not installed are left out.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
import pathlib
import random
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import cosanneal as ca
from benchmarks.harness import Figure, alone, in_turn, optional, say_left_out
from cosanneal import Schedule, presets

EQUAL_LIMIT, GROWING_LIMIT = 1.0, 2.5  # microseconds
CALLS = 2_000
COUNTS = (10, 1_000, 100_000, 1_000_000)


def growth_for(cycles: int, length: int, total: int) -> Fraction:
    """The dyadic factor by which so many cycles fill so many steps, nearly."""
    low, high = 0.0, 64.0
    for _ in range(80):
        middle = (low + high) / 2
        power = cycles * math.log1p(middle)
        size = power + math.log(length / middle) if middle else math.log(length * cycles)
        low, high = (low, middle) if size > math.log(total) else (middle, high)
    return 1 + Fraction(low).limit_denominator(2**20)


def ours() -> Iterator[tuple[str, Schedule, int, float]]:
    """A name, a schedule, the step below which it is asked, and the limit."""
    for cycles in COUNTS:
        total = 2**62
        equal = ca.CyclicCosine(0.1, total_steps=total, num_cycles=cycles, min_lr=1e-4)
        yield f"equal cycles, {cycles:,}", equal, total, EQUAL_LIMIT
    yield "equal cycles, endless", ca.CyclicCosine(0.1, cycle_steps=1000), 2**62, EQUAL_LIMIT
    third = presets.sgdr(0.1, Fraction(1000, 3))
    yield "equal cycles of 1000/3 steps", third, 2**62, EQUAL_LIMIT
    wave = presets.torch_cosine_annealing(0.1, 1000)
    yield "falls and rises", wave, 2**62, EQUAL_LIMIT
    for cycles in COUNTS:
        growth = growth_for(cycles, 1000, 2**62)
        schedule = ca.CyclicCosine(0.1, cycle_steps=1000, cycle_mult=growth)
        yield f"growing cycles, {cycles:,}", schedule, 2**62, GROWING_LIMIT
    in_place = presets.composer_warm_restarts(0.1, 1000, 1.15)
    yield "growing, rounded in place", in_place, 2**62, GROWING_LIMIT


def peers(*, growing: bool) -> Iterator[tuple[str, Callable[[int], Any], int]]:
    """A name, a closed form as it is installed, and the step below which it is asked."""
    mult = 2 if growing else 1
    lr_scheduler = optional("torch.optim.lr_scheduler")
    if lr_scheduler:
        import torch

        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        scheduler = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 1000, mult)
        yield "torch WarmRestarts.step(epoch)", scheduler.step, 2**40
        timm = timm_cosine()
        if timm:
            scheduler = timm(optimizer, 1000, cycle_mul=float(mult), cycle_limit=10**9)
            yield "timm _get_lr", scheduler._get_lr, 2**40
    keras = optional("keras")
    if keras:
        restarts = keras.optimizers.schedules.CosineDecayRestarts(0.1, 1000, t_mul=float(mult))
        yield "keras CosineDecayRestarts, eager", restarts, 2**24
    if growing:
        return
    optimization = optional("transformers.optimization")
    if optimization and lr_scheduler:
        schedule = optimization.get_cosine_with_hard_restarts_schedule_with_warmup(
            optimizer, 0, 2**40, num_cycles=1000
        )
        yield "transformers' hard restarts", schedule.lr_lambdas[0], 2**40
    optax = optional("optax")
    if optax:
        yield "optax, one decay, not jitted", optax.cosine_decay_schedule(0.1, 10**6), 10**6


@functools.cache
def timm_cosine() -> Any:
    """The scheduler of timm from its file: the whole of timm needs torchvision."""
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        say_left_out("timm", "timm")
        return None
    for name in ("timm", "timm.scheduler"):
        package = types.ModuleType(name)
        package.__path__ = [str(pathlib.Path(spec.origin).parent.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    return importlib.import_module("timm.scheduler.cosine_lr").CosineLRScheduler


def asked(rate: Callable[[int], Any], below: int, calls: int) -> Callable[[], float]:
    """Microseconds of one call, over random steps of every size below `below`."""
    draw = random.Random(below)
    steps = [draw.randrange(below) for _ in range(calls)]

    def run() -> float:
        start = time.thread_time()
        for step in steps:
            rate(step)
        return (time.thread_time() - start) / calls * 1e6

    return run


def measure() -> Iterator[Figure]:
    """One rate."""
    warnings.simplefilter("ignore")
    compared = set()
    firsts = []
    for name, schedule, below, limit in ours():
        start = time.perf_counter()
        schedule.rate(below - 1)
        firsts.append((name, (time.perf_counter() - start) * 1e3))
        runs = {"ours": asked(schedule.rate, below, CALLS)}
        growing = "growing" in name
        if growing not in compared:  # the peers' cost does not depend on the number of cycles
            compared.add(growing)
            for peer, rate, end in peers(growing=growing):
                runs[peer] = asked(rate, end, CALLS // 20)
        times = in_turn(runs, repeats=9)
        yield Figure(
            name=name,
            unit="µs",
            ours=times.pop("ours"),
            peers=times,
            limit=limit,
            goal=1.0,
        )
    name, first = max(firsts, key=lambda each: each[1])
    yield Figure(name=f"first of {name}", unit="ms", ours=[first])


if __name__ == "__main__":
    sys.exit(alone(measure()))
