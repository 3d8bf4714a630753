"""What one rate costs: ours beside the peers' own closed forms, in one run.

    python benchmarks/core_rate.py [--quick]

Each line is the median of several repeats over the same random steps, after one
pass that is not counted; the column `first` is what the first call of all took,
which counts growing cycles out as far as its step. Peers that are not installed
are left out. A limit is exceeded where the last column says so, and the exit
status with it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import math
import pathlib
import random
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import cosanneal as ca
from cosanneal import Schedule, presets

EQUAL_LIMIT, GROWING_LIMIT = 1.0, 2.5  # microseconds
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
        yield f"growing cycles, {cycles:,} below 2**62", schedule, 2**62, GROWING_LIMIT
    in_place = presets.composer_warm_restarts(0.1, 1000, 1.15)
    yield "growing cycles, rounded in place", in_place, 2**62, GROWING_LIMIT


def peers() -> Iterator[tuple[str, Callable[[int], Any], int]]:
    """A name, a closed form as it is installed, and the step below which it is asked."""
    lr_scheduler = _optional("torch.optim.lr_scheduler")
    if lr_scheduler:
        import torch

        for mult in (1, 2):
            optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
            scheduler = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 1000, mult)
            yield f"torch WarmRestarts.step(epoch), T_mult={mult}", scheduler.step, 2**40
        cosine = lr_scheduler.CosineAnnealingLR(optimizer, 1000)

        def closed_form(step: int) -> Any:
            cosine.last_epoch = step
            return cosine._get_closed_form_lr()

        yield "torch CosineAnnealingLR's closed form", closed_form, 2**40
        timm = _timm()
        if timm:
            for mul in (1.0, 2.0):
                scheduler = timm.CosineLRScheduler(
                    optimizer, 1000, cycle_mul=mul, cycle_limit=10**9
                )
                yield f"timm _get_lr, cycle_mul={mul:g}", scheduler._get_lr, 2**40
    optimization = _optional("transformers.optimization")
    if optimization:
        schedule = optimization.get_cosine_with_hard_restarts_schedule_with_warmup(
            optimizer, 0, 2**40, num_cycles=1000
        )
        yield "transformers' hard restarts", schedule.lr_lambdas[0], 2**40
    optax = _optional("optax")
    if optax:
        yield (
            "optax cosine_decay_schedule, not jitted",
            optax.cosine_decay_schedule(0.1, 10**6),
            10**6,
        )
    keras = _optional("keras")
    if keras:
        restarts = keras.optimizers.schedules.CosineDecayRestarts(0.1, 1000)
        yield "keras CosineDecayRestarts, eager", restarts, 2**24


def _optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _timm() -> Any:
    """The scheduler of timm from its file: the whole of timm needs torchvision."""
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        return None
    for name in ("timm", "timm.scheduler"):
        package = types.ModuleType(name)
        package.__path__ = [str(pathlib.Path(spec.origin).parent.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    return importlib.import_module("timm.scheduler.cosine_lr")


def microseconds(rate: Callable[[int], Any], below: int, *, calls: int, repeats: int) -> float:
    """The median cost of one call, over random steps of every size below `below`."""
    draw = random.Random(below)
    steps = [draw.randrange(below) for _ in range(calls)]
    times = []
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        for step in steps:
            rate(step)
        if repeat:
            times.append(time.perf_counter() - start)
    return statistics.median(times) / calls * 1e6


def main() -> int:
    """Print the table; 1 where a limit is exceeded."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer calls")
    quick = parser.parse_args().quick
    calls, repeats = (2_000, 3) if quick else (20_000, 7)
    warnings.simplefilter("ignore")
    line = "{:<44} {:>10} {:>8} {:>12}  {}"
    print(line.format("one rate", "µs", "ratio", "first, ms", ""))
    reference, failed = None, False
    for name, schedule, below, limit in ours():
        start = time.perf_counter()
        schedule.rate(below - 1)
        first = f"{(time.perf_counter() - start) * 1e3:.2f}"
        cost = microseconds(schedule.rate, below, calls=calls, repeats=repeats)
        reference = reference or cost
        verdict = "" if cost <= limit else f"above the limit of {limit} µs"
        failed |= bool(verdict)
        print(
            line.format(name, f"{cost:.2f}", f"{cost / reference:.1f}", first, verdict), flush=True
        )
    for name, rate, below in peers():
        cost = microseconds(rate, below, calls=calls // 20, repeats=repeats)
        print(
            line.format(name, f"{cost:.2f}", f"{cost / (reference or cost):.1f}", "", ""),
            flush=True,
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
