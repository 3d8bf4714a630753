"""What a step of the scheduler costs: ours beside torch's and timm's, and a bare loop.

    python -m benchmarks.torch_step

The limit is a loop without any scheduler, which computes one sine and assigns
each group's rate: times its ratio, where the groups' rates differ. For rates
that are tensors there is no such limit; there ours is one update for all groups.

The goal is half of the best peer at every size: a bare loop is below what a
scheduler can do, and says what its duties cost. With one group, those are the
calls (torch's step, the update, the curve, the half cosine) and the look whether
all is as it was. With many, each group's rate is looked at before it is set, since
a tensor that somebody put there must be filled in place, and a look takes nearly
as long as setting does. One look at all groups by `map`, `sum` or a comparison of
lists takes longer than one each within the loop; without any, 1,000 groups would
take 1.0 times the limit.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts, LambdaLR

import cosanneal as ca
from benchmarks.core_rate import timm_cosine
from benchmarks.harness import Figure, alone, in_turn
from cosanneal.adapters.torch import CyclicCosineLR

COUNTS = (1, 10, 100, 1_000)
LENGTH = 20_000
GOAL = 0.5


def optimizer_of(groups: int, *, alike: bool, tensors: bool = False) -> Optimizer:
    """An optimizer of so many groups, which has done an update."""
    rates = [0.1 if alike else 0.1 * (1 + i / groups) for i in range(groups)]
    optimizer = SGD(
        [
            {
                "params": [torch.nn.Parameter(torch.zeros(1))],
                "lr": torch.tensor(rate) if tensors else rate,
            }
            for rate in rates
        ],
        lr=0.1,
    )
    optimizer.step()
    return optimizer


def ours(optimizer: Optimizer) -> Callable[[], None]:
    """A step of ours."""
    schedule = ca.CyclicCosine(0.1, cycle_steps=LENGTH)
    scheduler = CyclicCosineLR(optimizer, schedule)
    for _ in range(600):  # as in mid-run
        optimizer.step()
        scheduler.step()
    return scheduler.step


def peers(make: Callable[[], Optimizer]) -> Iterator[tuple[str, Callable[[], object]]]:
    """A step of each peer."""
    yield "torch CosineAnnealingLR", CosineAnnealingLR(make(), LENGTH).step
    yield "torch WarmRestarts", CosineAnnealingWarmRestarts(make(), LENGTH).step
    yield (
        "torch LambdaLR",
        LambdaLR(make(), lambda step: (1 + math.cos(math.pi * (step % LENGTH) / LENGTH)) / 2).step,
    )
    timm = timm_cosine()
    if timm is not None:
        scheduler = timm(make(), LENGTH, cycle_limit=10**9, t_in_epochs=False)
        step = iter(range(10**12))
        yield "timm CosineLRScheduler", lambda: scheduler.step_update(next(step))


def bare(optimizer: Optimizer, calls: int, *, alike: bool) -> Callable[[], None]:
    """So many steps without a scheduler."""
    groups = optimizer.param_groups
    ratios = [group["lr"] / 0.1 for group in groups]

    def same() -> None:
        sin, half_pi, high = math.sin, math.pi / 2, 0.1
        for step in range(calls):
            wave = sin((LENGTH - step % LENGTH) / LENGTH * half_pi)
            rate = high * (wave * wave)
            for group in groups:
                group["lr"] = rate

    def each() -> None:
        sin, half_pi, high = math.sin, math.pi / 2, 0.1
        for step in range(calls):
            wave = sin((LENGTH - step % LENGTH) / LENGTH * half_pi)
            rate = high * (wave * wave)
            for group, ratio in zip(groups, ratios, strict=True):
                group["lr"] = rate * ratio

    return same if alike else each


def often(step: Callable[[], object], calls: int) -> Callable[[], None]:
    """So many calls of it."""

    def run() -> None:
        for _ in range(calls):
            step()

    return run


def measure() -> Iterator[Figure]:
    """A step, by the number of groups."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for alike in (True, False):
        for groups in COUNTS[0 if alike else 1 :]:
            calls = max(2_000 // groups, 10)
            make = partial(optimizer_of, groups, alike=alike)
            runs = {"ours": often(ours(make()), calls), "limit": bare(make(), calls, alike=alike)}
            runs |= {name: often(step, calls) for name, step in peers(make)}
            times = in_turn(runs, repeats=25, per=calls * 1e-6)
            yield Figure(
                name=f"{groups:,} group{'s' * (groups > 1)}, {'one rate' if alike else 'ratios'}",
                unit="µs",
                ours=times.pop("ours"),
                limit=times.pop("limit"),
                peers=times,
                goal=GOAL,
                beside="peer",
            )
    for alike in (True, False):
        make = partial(optimizer_of, 100, alike=alike, tensors=True)
        runs = {"ours": often(ours(make()), 10)}
        runs |= {name: often(step, 10) for name, step in peers(make) if "timm" not in name}
        times = in_turn(runs, repeats=15, per=10 * 1e-6)
        yield Figure(
            name=f"100 tensors, {'one rate' if alike else 'ratios'}",
            unit="µs",
            ours=times.pop("ours"),
            peers=times,
            goal=GOAL,
            beside="peer",
        )


if __name__ == "__main__":
    sys.exit(alone(measure()))
