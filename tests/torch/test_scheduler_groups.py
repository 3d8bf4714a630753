"""CyclicCosineLR on an optimizer that was trained before, and with groups that come later."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, ConstantLR, ExponentialLR, LRScheduler

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR

# Older releases of torch apply a decay again when they resume.
RESUMES = hasattr(LRScheduler, "_is_initial")

SCHEDULE = ca.CyclicCosine(0.1, cycle_steps=8, min_lr=0.001)
MAKERS: dict[str, Callable[[], Optimizer]] = {
    "one": lambda: optimizer_of(0.1),
    "ratios": lambda: optimizer_of(0.2, 0.05),
    "tensors": lambda: optimizer_of(*(torch.tensor(r, dtype=torch.float64) for r in (0.1, 0.03))),
}


def parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(3))


def optimizer_of(*rates: float | Tensor) -> Optimizer:
    return AdamW([{"params": [parameter()], "lr": rate} for rate in rates], foreach=True)


def rates(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def update(optimizer: Optimizer, scheduler: LRScheduler, times: int = 1) -> None:
    for _ in range(times):
        optimizer.step()
        scheduler.step()


def restored(make: Callable[[], Optimizer], trained: Optimizer) -> Optimizer:
    """A fresh optimizer with the state of a trained one, annealed and initial rates included."""
    fresh = make()
    fresh.load_state_dict(trained.state_dict())
    return fresh


@pytest.mark.parametrize("chainable", [False, True])
@pytest.mark.parametrize("done", [1, 4, 7, 8, 11])
@pytest.mark.parametrize("kind", MAKERS)
def test_last_epoch_goes_on_where_a_restored_optimizer_stands(
    kind: str, done: int, chainable: bool
) -> None:
    make = MAKERS[kind]
    optimizer = make()
    scheduler = CyclicCosineLR(optimizer, SCHEDULE, chainable=chainable)
    update(optimizer, scheduler, done)
    fresh = restored(make, optimizer)
    resumed = CyclicCosineLR(fresh, SCHEDULE, chainable=chainable, last_epoch=done - 1)
    assert resumed.last_epoch == done
    for _ in range(20):
        assert rates(fresh) == pytest.approx(rates(optimizer), rel=1e-14)
        update(optimizer, scheduler)
        update(fresh, resumed)


@pytest.mark.skipif(not RESUMES, reason="this release of torch resumes its own otherwise")
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "other",
    [
        lambda optimizer, last: ConstantLR(optimizer, 0.5, total_iters=15, last_epoch=last),
        lambda optimizer, last: ExponentialLR(optimizer, 0.9, last_epoch=last),
    ],
    ids=["constant", "exponential"],
)
@pytest.mark.parametrize("kind", MAKERS)
def test_last_epoch_keeps_the_factors_of_other_schedulers(
    kind: str, other: Callable[[Optimizer, int], LRScheduler], first: bool
) -> None:
    def chain(optimizer: Optimizer, last: int) -> ChainedScheduler:
        ours: Callable[[], LRScheduler] = lambda: CyclicCosineLR(  # noqa: E731
            optimizer, SCHEDULE, chainable=True, last_epoch=last
        )
        theirs: Callable[[], LRScheduler] = lambda: other(optimizer, last)  # noqa: E731
        return ChainedScheduler([make() for make in ((ours, theirs) if first else (theirs, ours))])

    make = MAKERS[kind]
    optimizer = make()
    scheduler = chain(optimizer, -1)
    update(optimizer, scheduler, 5)
    fresh = restored(make, optimizer)
    resumed = chain(fresh, 4)
    for _ in range(20):
        assert rates(fresh) == pytest.approx(rates(optimizer), rel=1e-14)
        update(optimizer, scheduler)
        update(fresh, resumed)


@pytest.mark.parametrize("given", [False, True])
def test_last_epoch_on_an_optimizer_at_its_initial_rates_has_no_factor(given: bool) -> None:
    fresh = optimizer_of(0.2, 0.1)
    for group in fresh.param_groups if given else ():
        group["initial_lr"] = group["lr"]  # as torch's own schedulers ask for
    CyclicCosineLR(fresh, SCHEDULE, chainable=True, last_epoch=2)
    assert rates(fresh) == [SCHEDULE.rate(3), SCHEDULE.rate(3) / 2]


def test_a_list_of_schedules_resumes_by_last_epoch() -> None:
    schedules = [SCHEDULE, ca.CyclicCosine(0.3, cycle_steps=5)]
    make = MAKERS["ratios"]
    optimizer = make()
    scheduler = CyclicCosineLR(optimizer, schedules, chainable=True)
    update(optimizer, scheduler, 4)
    fresh = restored(make, optimizer)
    CyclicCosineLR(fresh, schedules, chainable=True, last_epoch=3)
    assert rates(fresh) == pytest.approx(rates(optimizer), rel=1e-14)


def test_an_optimizer_without_rates_is_refused_by_name() -> None:
    optimizer = SGD([parameter()], lr=0.1)
    optimizer.param_groups[0]["lr"] = None  # as transformers' Adafactor has it
    for schedule in (SCHEDULE, [SCHEDULE]):
        with pytest.raises(ca.ScheduleError, match=r"lr=None in group 0 of SGD; .*relative_step"):
            CyclicCosineLR(optimizer, schedule)
