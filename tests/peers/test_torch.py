"""PyTorch's own schedulers, and Ensemble-PyTorch's."""

from __future__ import annotations

import logging
import math
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    LRScheduler,
    OneCycleLR,
)

from cosanneal import presets

from .peers import U32, U64, Comparison, cosine_error, optimizer, rate_of

SETS = range(24)


@contextmanager
def quiet() -> Iterator[None]:
    """Without PyTorch's warnings about step(epoch) and the order of calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def stepped(
    lr: float, make: Callable[[torch.optim.Optimizer], LRScheduler], steps: int
) -> list[float]:
    """The rates that `steps` updates use, step() after each."""
    updater = optimizer(lr)
    with quiet():
        scheduler = make(updater)
        rates = [rate_of(updater)]
        for _ in range(steps - 1):
            scheduler.step()
            rates.append(rate_of(updater))
    return rates


def asked(
    lr: float, make: Callable[[torch.optim.Optimizer], LRScheduler], steps: int
) -> list[float]:
    """The rates that step(epoch) sets, for every epoch."""
    updater = optimizer(lr)
    rates = []
    with quiet():
        scheduler = make(updater)
        for step in range(steps):
            scheduler.step(step)
            rates.append(rate_of(updater))
    return rates


def floors(draw: random.Random) -> tuple[float, float]:
    peak = 10 ** draw.uniform(-4, 1)
    return peak, draw.choice([0.0, 1e-10, peak * draw.random()])


@pytest.mark.parametrize("case", SETS)
def test_cosine_annealing_closed_form(case: int) -> None:
    draw = random.Random(f"CosineAnnealingLR {case}")
    peak, floor = floors(draw)
    t_max: Any = draw.choice([draw.randint(1, 120), draw.randint(10, 900) / 10])
    compare = Comparison(presets.torch_cosine_annealing(peak, t_max, floor))
    values = asked(peak, lambda o: CosineAnnealingLR(o, t_max, floor), math.ceil(6 * t_max) + 1)
    # The angle, up to 6 pi past the end, is rounded twice, and a T_max that is
    # no binary fraction once more; pi itself is off by 0.4 u of it.
    compare(values, cosine_error(peak - floor, peak, angle=6 * 3.4))


@pytest.mark.parametrize("case", SETS)
def test_cosine_annealing_recursion(case: int) -> None:
    """What step() computes drifts from the closed form, by rounding alone.

    On a fall the factors (1 + cos) are the same floats in numerator and next
    denominator and cancel, and each step adds 3 u of its height and 1 u of its
    rate, which the fall then shrinks: at most 4 u of the peak a step. A rise
    begins with a height of h = A sin²(pi / 2T), computed as A (1 - cos) / 2,
    which is off by 4 u of A, while the factor of the next step is off by as
    much of its own; the rise multiplies what is off by up to 1 / sin²(pi / 2T).
    """
    draw = random.Random(f"CosineAnnealingLR step {case}")
    peak, floor = floors(draw)
    t_max = draw.randint(2, 60)
    steps = 5 * t_max
    compare = Comparison(presets.torch_cosine_annealing(peak, t_max, floor))
    lift = 1 / math.sin(math.pi / 2 / t_max) ** 2

    def bound(step: int) -> float:
        bottoms = (step + t_max - 1) // (2 * t_max)
        drift = 4 * step * U64 * peak
        rise = bottoms * lift * U64 * (24 * (peak - floor) + 4 * t_max * floor)
        return cosine_error(peak - floor, peak, angle=6 * 3.4) + drift + rise

    compare(stepped(peak, lambda o: CosineAnnealingLR(o, t_max, floor), steps), bound)


@pytest.mark.parametrize("case", SETS)
def test_warm_restarts(case: int) -> None:
    draw = random.Random(f"CosineAnnealingWarmRestarts {case}")
    peak, floor = floors(draw)
    t_0, t_mult = draw.randint(1, 40), draw.choice([1, 1, 2, 3])
    schedule = presets.torch_warm_restarts(peak, t_0, t_mult, floor)
    steps = schedule.cycles()[4].stop
    bound = cosine_error(peak - floor, peak, angle=2)
    compare = Comparison(schedule)
    compare(
        stepped(peak, lambda o: CosineAnnealingWarmRestarts(o, t_0, t_mult, floor), steps), bound
    )

    def late(step: int) -> float | None:
        """At an exact restart the float logarithm may fall short of the cycle's number."""
        return floor if t_mult > 1 and schedule.cycle_at(step).start == step else None

    compare(
        asked(peak, lambda o: CosineAnnealingWarmRestarts(o, t_0, t_mult, floor), steps),
        bound,
        defect=late,
    )


@pytest.mark.parametrize("case", SETS)
def test_one_cycle(case: int) -> None:
    draw = random.Random(f"OneCycleLR {case}")
    peak = 10 ** draw.uniform(-4, 1)
    steps = draw.randint(2, 200)
    share = draw.choice([0.3, 0.0, 0.25, draw.random() * 0.99])
    while share * steps == 1:  # PyTorch divides 0 by 0
        steps += 1
    div, final = draw.choice([25.0, 4.0]), draw.choice([1e4, 10.0])
    schedule = presets.torch_one_cycle(peak, steps, share, div, final)
    values = stepped(
        peak,
        lambda o: OneCycleLR(
            o,
            peak,
            total_steps=steps,
            pct_start=share,
            div_factor=div,
            final_div_factor=final,
            cycle_momentum=False,
        ),
        steps,
    )
    # The clock's ends are off by a rounding of up to `steps`, relative to the
    # length of the shorter of its two parts, or to one step where that is less.
    top = share * steps - 1
    clock = 2 * steps / min(abs(top), steps - 1 - top)
    compare = Comparison(schedule)
    compare(values, cosine_error(peak, peak, angle=4 + 2 * clock, roundings=6))
    assert schedule.rate(steps - 1) == schedule.rate(steps) == peak / div / final


def test_one_cycle_past_its_end_rises_once_and_refuses() -> None:
    updater = optimizer(0.1)
    schedule = presets.torch_one_cycle(0.1, 10)
    with quiet():
        scheduler = OneCycleLR(updater, 0.1, total_steps=10, cycle_momentum=False)
        for _ in range(10):
            scheduler.step()
        assert rate_of(updater) > 2 * schedule.rate(10) == 2 * schedule.rate(9)
        with pytest.raises(ValueError, match="Tried to step 11 times"):
            scheduler.step()


@pytest.mark.parametrize("case", SETS)
def test_torchensemble(case: int) -> None:
    import torchensemble

    draw = random.Random(f"torchensemble {case}")
    lr = 10 ** draw.uniform(-4, 1)
    estimators, each, batches = draw.randint(1, 6), draw.randint(1, 5), draw.randint(1, 12)
    epochs = estimators * each
    model = torchensemble.SnapshotEnsembleClassifier(
        estimator=torch.nn.Linear, n_estimators=estimators, estimator_args={}
    )
    model.logger = logging.getLogger("torchensemble")
    model._validate_parameters(None, epochs, 1)
    steps = (epochs + 2 * each) * batches
    values = stepped(lr, lambda o: model._set_scheduler(o, epochs * batches), steps)
    # float32: the angle is rounded once, and the product with the rate as well.
    bound = cosine_error(lr, lr, angle=1, u=U32, roundings=2)
    Comparison(presets.torchensemble_snapshot(lr, estimators, epochs, batches))(values, bound)
