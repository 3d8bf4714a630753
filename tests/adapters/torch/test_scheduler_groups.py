"""CyclicCosineLR on an optimizer that was trained before, and with groups that come later."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
)

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


def late(optimizer: Optimizer, **options: object) -> None:
    optimizer.add_param_group({"params": [parameter()], **options})


def updates_of(optimizer: Optimizer) -> list[list[float]]:
    """The rates that its updates are done with."""
    seen: list[list[float]] = []
    optimizer.register_step_post_hook(lambda optimizer, *_: seen.append(rates(optimizer)))
    return seen


@pytest.mark.parametrize("chainable", [False, True])
@pytest.mark.parametrize("done", [0, 3, 300])
def test_a_late_group_is_right_at_the_very_next_update(done: int, chainable: bool) -> None:
    optimizer = SGD([parameter()], lr=1.0)
    seen = updates_of(optimizer)
    schedule = ca.CyclicCosine(1.0, cycle_steps=37, min_lr=0.001)
    scheduler = CyclicCosineLR(optimizer, schedule, chainable=chainable)
    update(optimizer, scheduler, done)
    late(optimizer)  # at the optimizer's own rate
    late(optimizer, initial_lr=0.25)
    late(optimizer, lr=optimizer.param_groups[0]["lr"])
    update(optimizer, scheduler, 300)
    for step in range(done, done + 300):
        rate = schedule.rate(step)
        assert seen[step] == [rate, rate, rate * 0.25, rate]


def test_a_late_group_of_a_higher_rate_leaves_the_others_as_they_are() -> None:
    optimizer = optimizer_of(0.1, 0.05)
    seen = updates_of(optimizer)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    update(optimizer, scheduler, 2)
    late(optimizer, initial_lr=0.2)
    update(optimizer, scheduler, 2)
    late(optimizer)
    update(optimizer, scheduler)
    rate = SCHEDULE.rate(4)
    assert seen[4] == [rate, rate * 0.5, rate * 2, rate]


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_as_lightning_unfreezes_a_backbone(share: float) -> None:
    # BackboneFinetuning, when an epoch starts: the current rate, times a ratio.
    optimizer = SGD([parameter()], lr=0.1)
    seen = updates_of(optimizer)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    update(optimizer, scheduler, 7)
    current = optimizer.param_groups[0]["lr"]
    optimizer.add_param_group({"params": [parameter()], "lr": current * share})
    if share == 1.0:
        optimizer.step()
    else:
        with pytest.warns(UserWarning, match=r"lr=0\.00047\d+, .* to 0\.0047\d+, .*initial_lr"):
            optimizer.step()
    scheduler.step()
    update(optimizer, scheduler, 20)
    for step in range(7, 28):
        assert seen[step] == [SCHEDULE.rate(step)] * 2


def test_a_late_group_takes_its_ratio_also_where_it_is_given_after_it_was_added() -> None:
    optimizer = SGD([parameter()], lr=0.1)
    seen = updates_of(optimizer)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    update(optimizer, scheduler, 3)
    late(optimizer, lr=0.005)
    optimizer.param_groups[1]["initial_lr"] = 0.01
    optimizer.step()
    assert seen[3] == [SCHEDULE.rate(3), SCHEDULE.rate(3) * (0.01 / 0.1)]


def test_a_late_group_is_told_to_no_warning_of_its_optimizers_own_rate() -> None:
    optimizer = SGD([parameter()], lr=0.1)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    update(optimizer, scheduler, 3)
    late(optimizer)
    scheduler.step()  # without an update: it joins here
    assert rates(optimizer) == [SCHEDULE.rate(4)] * 2


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
def test_a_late_group_during_the_warmup_of_another_scheduler() -> None:
    optimizer = SGD([parameter()], lr=0.1)
    seen = updates_of(optimizer)
    warmup = LinearLR(optimizer, start_factor=0.1, total_iters=5)
    cyclic = CyclicCosineLR(optimizer, SCHEDULE)
    scheduler = SequentialLR(optimizer, [warmup, cyclic], milestones=[5])
    update(optimizer, scheduler, 2)
    late(optimizer)
    late(optimizer, initial_lr=0.02)
    update(optimizer, scheduler, 20)
    for step in range(2, 22):
        rate = 0.01 + 0.018 * step if step < 5 else SCHEDULE.rate(step - 5)
        assert seen[step] == pytest.approx([rate, rate, rate * 0.2], rel=1e-14)


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
def test_a_late_group_under_two_schedules_in_turn() -> None:
    optimizer = SGD([parameter()], lr=0.1)
    seen = updates_of(optimizer)
    parts = [
        CyclicCosineLR(optimizer, each) for each in (SCHEDULE, ca.CyclicCosine(0.3, cycle_steps=9))
    ]
    scheduler = SequentialLR(optimizer, [*parts], milestones=[6])
    update(optimizer, scheduler, 2)
    late(optimizer)
    update(optimizer, scheduler, 10)
    for step in range(2, 12):
        rate = (
            parts[0].schedules[0].rate(step) if step < 6 else parts[1].schedules[0].rate(step - 6)
        )
        assert seen[step] == [rate, rate]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("schedule", "other", "factor"),
    [
        (SCHEDULE, lambda optimizer: ExponentialLR(optimizer, 0.9), lambda step: 0.9**step),
        (  # which ends its cycles at 0
            ca.CyclicCosine(0.1, cycle_steps=8, endpoint=True),
            lambda optimizer: ConstantLR(optimizer, 0.5, total_iters=99),
            lambda _: 0.5,
        ),
    ],
    ids=["exponential", "constant"],
)
def test_a_late_group_takes_over_the_factors_of_other_schedulers(
    schedule: ca.Schedule,
    other: Callable[[Optimizer], LRScheduler],
    factor: Callable[[int], float],
    first: bool,
) -> None:
    optimizer = SGD([parameter()], lr=0.1)
    seen = updates_of(optimizer)
    parts = [CyclicCosineLR(optimizer, schedule, chainable=True), other(optimizer)]
    scheduler = ChainedScheduler(parts if first else parts[::-1])
    for step in range(30):
        if step in (3, 7):
            late(optimizer, initial_lr=0.05)
        update(optimizer, scheduler)
        ratios = [1.0, 0.5, 0.5][: 1 + (step >= 3) + (step >= 7)]
        rate = schedule.rate(step) * factor(step)
        assert seen[step] == pytest.approx([rate * ratio for ratio in ratios], rel=1e-12)


def test_a_late_group_without_a_schedule_in_the_list_is_refused_before_the_update() -> None:
    optimizer = SGD([parameter()], lr=0.1)
    scheduler = CyclicCosineLR(optimizer, [SCHEDULE])
    update(optimizer, scheduler, 3)
    late(optimizer)
    for _ in range(2):
        with pytest.raises(ca.ScheduleError, match=r"2 groups and 1 schedules; append"):
            optimizer.step()
    with pytest.raises(ca.ScheduleError, match=r"2 groups and 1 schedules; append"):
        scheduler.state_dict()
    other = ca.CyclicCosine(0.5, cycle_steps=10)
    scheduler.schedules.append(other)
    optimizer.step()
    assert rates(optimizer) == [SCHEDULE.rate(3), other.rate(3)]
    scheduler.step()
    assert rates(optimizer) == [SCHEDULE.rate(4), other.rate(4)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_late_group_with_a_tensor_rate(dtype: torch.dtype) -> None:
    optimizer = AdamW([parameter()], lr=torch.tensor(0.1, dtype=dtype), foreach=False)
    seen = updates_of(optimizer)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    update(optimizer, scheduler, 3)
    late(optimizer)  # which shares the tensor of the first group
    late(optimizer, initial_lr=0.25 * float(torch.tensor(0.1, dtype=dtype)))
    late(optimizer, lr=torch.tensor(0.02, dtype=dtype), initial_lr=torch.tensor(0.1, dtype=dtype))
    optimizer.step()
    held = [group["lr"] for group in optimizer.param_groups]
    assert len({id(each) for each in held}) == 4
    scheduler.step()
    update(optimizer, scheduler, 300)
    assert all(
        group["lr"] is each for group, each in zip(optimizer.param_groups, held, strict=True)
    )
    for step in range(3, 304):
        rate = SCHEDULE.rate(step)
        assert seen[step] == torch.tensor([rate, rate, rate * 0.25, rate], dtype=dtype).tolist()


@pytest.mark.parametrize("chainable", [False, True])
@pytest.mark.parametrize("joined", [False, True], ids=["before the update", "after it"])
def test_a_state_with_a_late_group_goes_on_in_an_optimizer_with_it(
    joined: bool, chainable: bool
) -> None:
    optimizer = SGD([parameter()], lr=0.1)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE, chainable=chainable)
    update(optimizer, scheduler, 5)
    late(optimizer, initial_lr=0.03)
    late(optimizer)
    if joined:
        update(optimizer, scheduler)
    for count in (1, 3):  # the late groups added to the fresh optimizer too, or made with it
        fresh = SGD([{"params": [parameter()]} for _ in range(count)], lr=0.1)
        restored = CyclicCosineLR(fresh, SCHEDULE, chainable=chainable)
        for _ in range(3 - count):
            late(fresh)
        fresh.load_state_dict(optimizer.state_dict())
        restored.load_state_dict(scheduler.state_dict())
        for _ in range(20):
            fresh.step()
            optimizer.step()
            assert rates(fresh) == rates(optimizer)
            restored.step()
            scheduler.step()
        assert rates(fresh)[1:] == [rates(fresh)[0] * (0.03 / 0.1), rates(fresh)[0]]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])  # noqa: S301
def test_copies_take_in_late_groups_too(
    copied: Callable[[Any], Any],
) -> None:
    optimizer = SGD([parameter()], lr=0.1)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    update(optimizer, scheduler, 3)
    for swapped in (False, True):
        pair = (scheduler, optimizer) if swapped else (optimizer, scheduler)
        other, its = copied(pair)[::-1] if swapped else copied(pair)
        assert its.optimizer is other
        late(other)
        update(other, its)
        assert rates(other) == [SCHEDULE.rate(4)] * 2
    assert rates(optimizer) == [SCHEDULE.rate(3)]
    alone = copied((optimizer, scheduler))[0]
    late(alone, lr=0.7)
    alone.step()  # a scheduler that is gone sets nothing
    assert rates(alone)[1] == 0.7


def test_a_scheduler_that_is_gone_leaves_late_groups_alone() -> None:
    optimizer = SGD([parameter()], lr=0.1)
    CyclicCosineLR(optimizer, SCHEDULE)
    late(optimizer, lr=0.7)
    optimizer.step()
    assert rates(optimizer)[1] == 0.7


def test_an_optimizer_that_has_no_hooks_takes_in_a_late_group_at_the_next_step() -> None:
    class Wrapper(Optimizer):  # as that of accelerate, and others' of their own making
        def __init__(self, inner: Optimizer, hooks: object) -> None:
            self.inner = inner
            if hooks is not None:
                self._optimizer_step_pre_hooks = hooks  # type: ignore[assignment]

        @property
        def param_groups(self) -> list[dict[str, object]]:  # type: ignore[override]
            return self.inner.param_groups

        def step(self, closure: object = None) -> None:  # type: ignore[override]
            del closure
            self.inner.step()

    without: list[object] = [None, {}]
    for hooks in without:
        inner = SGD([parameter()], lr=0.1)
        wrapper = Wrapper(inner, hooks)
        scheduler = CyclicCosineLR(wrapper, SCHEDULE)
        late(inner)
        wrapper.step()
        scheduler.step()
        assert rates(inner) == [SCHEDULE.rate(1)] * 2


def test_a_late_group_under_a_compiled_step() -> None:
    optimizer = SGD([parameter()], lr=torch.tensor(0.1))
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    torch._dynamo.reset()
    step = torch.compile(optimizer.step, backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of many kinds
        for number in range(4):
            if number == 2:
                late(optimizer, lr=torch.tensor(0.1))
            weights = [group["params"][0] for group in optimizer.param_groups]
            for weight in weights:
                weight.grad = torch.ones_like(weight)
            before = [weight.detach().clone() for weight in weights]
            step()
            for weight, was in zip(weights, before, strict=True):
                moved = (was - weight.detach())[0].item()
                assert moved == pytest.approx(SCHEDULE.rate(number), rel=1e-4)
            scheduler.step()


@pytest.mark.parametrize("step", ["optimizer", "scheduler"])
def test_a_group_that_was_taken_out_is_refused_in_words(step: str) -> None:
    optimizer = optimizer_of(0.05, 0.1)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    optimizer.step()
    scheduler.step()
    del optimizer.param_groups[1]
    with pytest.raises(ca.ScheduleError, match=r"must keep.*Received: 1 group.* 2 before"):
        (optimizer if step == "optimizer" else scheduler).step()
