"""CyclicCosineLR in the company of torch's optimizers and schedulers."""

from __future__ import annotations

import copy
import io
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
    LambdaLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
)

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR

# SequentialLR of older releases of torch steps to an epoch, and warns of it itself.
pytestmark = pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")

SCHEDULE = ca.CyclicCosine(0.2, total_steps=50, num_cycles=3, min_lr=0.001, warmup_steps=4)


def parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(3))


def sgd(*rates: float | Tensor) -> Optimizer:
    return SGD([{"params": [parameter()], "lr": rate} for rate in rates], lr=0.1)


def rates(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def update(optimizer: Optimizer, scheduler: LRScheduler, times: int = 1) -> None:
    for _ in range(times):
        optimizer.step()
        scheduler.step()


@pytest.mark.filterwarnings("ignore:The schedule is over:UserWarning")
def test_rates_are_those_of_the_schedule_bit_for_bit() -> None:
    optimizer = sgd(0.7)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    for step in range(60):
        assert rates(optimizer) == [SCHEDULE.rate(step)] == scheduler.get_last_lr()
        update(optimizer, scheduler)


def test_it_is_a_scheduler_of_torch() -> None:
    scheduler = CyclicCosineLR(sgd(0.1), SCHEDULE)
    assert isinstance(scheduler, LRScheduler)
    # accelerate stops stepping a scheduler that has this attribute.
    assert not hasattr(scheduler, "total_steps")


@pytest.mark.filterwarnings("ignore:The schedule is over:UserWarning")
def test_groups_keep_their_ratio_to_the_highest() -> None:
    optimizer = sgd(0.01, 0.04, 0.04)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    for step in range(55):
        rate = SCHEDULE.rate(step)
        assert rates(optimizer) == [rate * 0.25, rate, rate]
        update(optimizer, scheduler)


def test_a_list_gives_each_group_a_schedule_of_its_own() -> None:
    other = ca.CyclicCosine(0.05, cycle_steps=7)
    optimizer = sgd(0.3, 0.9)
    scheduler = CyclicCosineLR(optimizer, [SCHEDULE, other])
    for step in range(20):
        assert rates(optimizer) == [SCHEDULE.rate(step), other.rate(step)]
        update(optimizer, scheduler)


def test_a_group_added_later_joins_at_its_ratio() -> None:
    optimizer = sgd(0.1)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    update(optimizer, scheduler, 6)
    optimizer.add_param_group({"params": [parameter()], "initial_lr": 0.05})
    update(optimizer, scheduler)
    assert rates(optimizer) == [SCHEDULE.rate(7), SCHEDULE.rate(7) * 0.5]
    assert len(scheduler.get_last_lr()) == 2
    restored_optimizer = sgd(0.1, 0.05)
    restored = CyclicCosineLR(restored_optimizer, SCHEDULE)
    restored.load_state_dict(scheduler.state_dict())
    assert rates(restored_optimizer) == rates(optimizer)


def test_a_group_added_later_to_a_list_needs_its_schedule() -> None:
    optimizer = sgd(0.1)
    scheduler = CyclicCosineLR(optimizer, [SCHEDULE])
    optimizer.add_param_group({"params": [parameter()], "lr": 0.05})
    for step in (optimizer.step, scheduler.step):
        with pytest.raises(ca.ScheduleError, match=r"2 groups and 1 schedules; append"):
            step()
    scheduler.schedules.append(ca.CyclicCosine(0.5, cycle_steps=10))
    scheduler.step()
    assert rates(optimizer)[1] <= 0.5


def test_a_group_may_be_added_after_a_state_without_it_was_loaded() -> None:
    optimizer = sgd(0.1)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    update(optimizer, scheduler, 6)
    grown = sgd(0.1, 0.02)
    restored = CyclicCosineLR(grown, SCHEDULE)
    restored.load_state_dict(scheduler.state_dict())
    assert rates(grown) == pytest.approx([SCHEDULE.rate(6), SCHEDULE.rate(6) * 0.2], rel=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensor_rates_are_filled_in_place(dtype: torch.dtype) -> None:
    rate = torch.tensor(0.1, dtype=dtype)
    optimizer = AdamW([{"params": [parameter()], "lr": rate}], foreach=True, capturable=False)
    held = optimizer.param_groups[0]["lr"]
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    for step in range(20):
        assert optimizer.param_groups[0]["lr"] is held
        assert held.item() == torch.tensor(SCHEDULE.rate(step), dtype=dtype).item()
        assert scheduler.get_last_lr()[0] is not held
        update(optimizer, scheduler)
    restored = torch.tensor(0.1, dtype=dtype)
    fresh = AdamW([{"params": [parameter()], "lr": restored}], foreach=True)
    CyclicCosineLR(fresh, SCHEDULE).load_state_dict(scheduler.state_dict())
    assert fresh.param_groups[0]["lr"].item() == held.item()


def test_adamw_foreach_takes_the_rates() -> None:
    weight = parameter()
    optimizer = AdamW([weight], lr=0.1, foreach=True)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    for step in range(10):
        weight.grad = torch.ones_like(weight)
        assert type(optimizer.param_groups[0]["lr"]) is float
        before = weight.detach().clone()
        update(optimizer, scheduler)
        assert not torch.equal(before, weight) or SCHEDULE.rate(step) == 0


@pytest.mark.filterwarnings("ignore:The schedule is over:UserWarning")
def test_state_survives_a_round_trip_in_mid_cycle_on_a_fresh_optimizer() -> None:
    optimizer = sgd(0.1, 0.02)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    update(optimizer, scheduler, 23)
    file = io.BytesIO()
    torch.save(scheduler.state_dict(), file)
    assert len(file.getvalue()) < 8_000
    file.seek(0)
    state = torch.load(file, weights_only=True)

    fresh = sgd(5.0, 1.0)  # whose rates were never those of the run
    restored = CyclicCosineLR(fresh, SCHEDULE)
    restored.load_state_dict(state)
    assert rates(fresh) == rates(optimizer)
    for _ in range(30):
        update(optimizer, scheduler)
        update(fresh, restored)
        assert rates(fresh) == rates(optimizer)
        assert restored.get_last_lr() == scheduler.get_last_lr()


def test_loading_does_not_change_the_state_dict_given() -> None:
    optimizer = sgd(0.1)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    update(optimizer, scheduler, 5)
    state = scheduler.state_dict()
    kept = copy.deepcopy(state)
    scheduler.load_state_dict(state)
    update(optimizer, scheduler, 3)
    assert state == kept


def test_resuming_by_last_epoch_on_a_fresh_optimizer() -> None:
    optimizer = sgd(0.1)
    CyclicCosineLR(optimizer, SCHEDULE, last_epoch=30)
    # torch's convention: last_epoch is the last update done, the next one comes.
    assert rates(optimizer) == [SCHEDULE.rate(31)]


def test_a_state_of_another_schedule_is_refused_with_the_difference() -> None:
    other = ca.CyclicCosine(0.2, total_steps=51, num_cycles=3, min_lr=0.001, warmup_steps=4)
    optimizer = sgd(0.1)
    trained = CyclicCosineLR(optimizer, other)
    update(optimizer, trained, 9)
    fresh = sgd(0.1)
    scheduler = CyclicCosineLR(fresh, SCHEDULE)
    with pytest.raises(
        ca.ScheduleError, match="the number of steps is 51 in the state, 50 here; to go on"
    ):
        scheduler.load_state_dict(trained.state_dict())
    assert scheduler.last_epoch == 0
    assert rates(fresh) == [SCHEDULE.rate(0)]
    scheduler.load_state_dict(trained.state_dict(), strict=False)
    assert scheduler.last_epoch == 9
    assert rates(fresh) == [SCHEDULE.rate(9)]


def test_states_that_cannot_be_loaded_are_refused() -> None:
    scheduler = CyclicCosineLR(sgd(0.1), SCHEDULE)
    with pytest.raises(ca.ScheduleError, match=r"must be the state of a CyclicCosineLR.*base_lrs"):
        scheduler.load_state_dict({"last_epoch": 3})
    two = CyclicCosineLR(sgd(0.1, 0.2), SCHEDULE)
    with pytest.raises(ca.ScheduleError, match=r"Received: 1 groups, and 2 in the state"):
        scheduler.load_state_dict(two.state_dict())


def test_after_linear_warmup_in_sequential_lr() -> None:
    schedule = ca.CyclicCosine(0.1, cycle_steps=8)
    optimizer = sgd(0.1)
    warmup = LinearLR(optimizer, start_factor=0.1, total_iters=5)
    cyclic = CyclicCosineLR(optimizer, schedule)
    scheduler = SequentialLR(optimizer, [warmup, cyclic], milestones=[5])
    seen = []
    for _ in range(30):
        seen += rates(optimizer)
        update(optimizer, scheduler)
    assert seen[:5] == pytest.approx([0.01 + 0.018 * step for step in range(5)], rel=1e-12)
    assert seen[5:] == [schedule.rate(step) for step in range(25)]


@pytest.mark.parametrize("stop", [2, 5, 9])
def test_sequential_lr_resumes_on_either_side_of_the_milestone(stop: int) -> None:
    def build(rate: float) -> tuple[Optimizer, SequentialLR]:
        optimizer = sgd(rate)
        warmup = LinearLR(optimizer, start_factor=0.1, total_iters=5)
        cyclic = CyclicCosineLR(optimizer, ca.CyclicCosine(0.1, cycle_steps=8))
        return optimizer, SequentialLR(optimizer, [warmup, cyclic], milestones=[5])

    optimizer, scheduler = build(0.1)
    update(optimizer, scheduler, stop)
    fresh, restored = build(0.1)
    fresh.load_state_dict(optimizer.state_dict())
    restored.load_state_dict(scheduler.state_dict())
    for _ in range(20):
        assert rates(fresh) == rates(optimizer)
        update(optimizer, scheduler)
        update(fresh, restored)


def chained(
    schedule: ca.Schedule, others: Callable[[Optimizer], list[LRScheduler]], first: bool
) -> tuple[Optimizer, ChainedScheduler]:
    optimizer = sgd(0.4)
    schedulers = others(optimizer)
    cyclic = CyclicCosineLR(optimizer, schedule, chainable=True)
    order = [cyclic, *schedulers] if first else [*schedulers, cyclic]
    return optimizer, ChainedScheduler(order)


@pytest.mark.parametrize("first", [True, False])
def test_chained_with_a_decay_keeps_both_factors(first: bool) -> None:
    schedule = ca.CyclicCosine(0.4, cycle_steps=10, min_lr=0.01)
    optimizer, scheduler = chained(schedule, lambda opt: [ExponentialLR(opt, 0.9)], first)
    for step in range(35):
        assert rates(optimizer) == pytest.approx([schedule.rate(step) * 0.9**step], rel=1e-12)
        update(optimizer, scheduler)


def test_chained_factors_survive_a_rate_of_zero() -> None:
    schedule = ca.CyclicCosine(0.4, cycle_steps=10, endpoint=True)
    optimizer, scheduler = chained(
        schedule, lambda opt: [ConstantLR(opt, factor=0.5, total_iters=100)], True
    )
    for step in range(35):
        assert rates(optimizer) == pytest.approx([schedule.rate(step) * 0.5], rel=1e-12)
        update(optimizer, scheduler)


def test_chained_alone_gathers_no_rounding() -> None:
    schedule = ca.CyclicCosine(0.4, cycle_steps=10, min_lr=0.003)
    optimizer, scheduler = chained(schedule, lambda _: [], True)
    for step in range(1000):
        assert rates(optimizer) == [schedule.rate(step)]
        update(optimizer, scheduler)


def test_chained_resumes() -> None:
    schedule = ca.CyclicCosine(0.4, cycle_steps=10, min_lr=0.01)

    def decay(optimizer: Optimizer) -> list[LRScheduler]:
        return [ExponentialLR(optimizer, 0.9)]

    optimizer, scheduler = chained(schedule, decay, True)
    update(optimizer, scheduler, 13)
    fresh, restored = chained(schedule, decay, True)
    fresh.load_state_dict(optimizer.state_dict())
    restored.load_state_dict(scheduler.state_dict())
    for _ in range(20):
        assert rates(fresh) == rates(optimizer)
        update(optimizer, scheduler)
        update(fresh, restored)


def test_a_plain_one_in_a_chain_sets_the_rate_whatever_others_did() -> None:
    optimizer = sgd(0.4)
    halving = LambdaLR(optimizer, lambda _: 0.5)
    scheduler = ChainedScheduler([halving, CyclicCosineLR(optimizer, SCHEDULE)])
    for step in range(20):
        assert rates(optimizer) == [SCHEDULE.rate(step)]
        update(optimizer, scheduler)


def test_grad_scaler_that_skips_an_update() -> None:
    weight = parameter()
    optimizer = SGD([weight], lr=0.1)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for step in range(8):
        infinite = float("inf") if step == 3 else 1.0
        scaler.scale((weight * infinite).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        scheduler.step()
        assert rates(optimizer) == [SCHEDULE.rate(step + 1)]


def test_the_order_of_steps_is_watched_as_in_torch() -> None:
    scheduler = CyclicCosineLR(sgd(0.1), SCHEDULE)
    with pytest.warns(UserWarning, match=r"`lr_scheduler.step\(\)` before `optimizer.step\(\)`"):
        scheduler.step()
    with pytest.warns(UserWarning, match="get_last_lr"):
        scheduler.get_lr()


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ca.ScheduleError, match=r"`schedule` must be a cosanneal.Schedule.*0\.1"):
        CyclicCosineLR(sgd(0.1), 0.1)  # type: ignore[arg-type]
    with pytest.raises(ca.ScheduleError, match=r"2 parameter groups\. Received: a list of 1"):
        CyclicCosineLR(sgd(0.1, 0.2), [SCHEDULE])
    with pytest.raises(ca.ScheduleError, match=r"positive rate.*lr=\[0.0, 0.0\]"):
        CyclicCosineLR(sgd(0.0, 0.0), SCHEDULE)
    with pytest.raises(TypeError, match="list is not an Optimizer"):
        CyclicCosineLR([], SCHEDULE)  # type: ignore[arg-type]


def test_absolute_schedules_do_not_care_for_the_optimizers_rates() -> None:
    optimizer = sgd(0.0)
    CyclicCosineLR(optimizer, [SCHEDULE])
    assert rates(optimizer) == [SCHEDULE.rate(0)]


def test_compiled_optimizer_step_takes_new_rates() -> None:
    # With a tensor rate the compiled step reads the value, not a constant.
    def train(compiled: bool) -> Tensor:
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(4))
        optimizer = SGD([weight], lr=torch.tensor(0.1))
        scheduler = CyclicCosineLR(optimizer, SCHEDULE)
        step = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
        for _ in range(12):
            weight.grad = weight.detach() * 0.5
            step()
            scheduler.step()
        return weight.detach()

    with warnings.catch_warnings():
        # torch's own: the compiled step is not the method it patched.
        warnings.filterwarnings("ignore", message="(Seems|Detected)", category=UserWarning)
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="Profiler record", category=UserWarning)
        torch.testing.assert_close(train(True), train(False), rtol=1e-6, atol=0)


def test_setting_the_place_in_the_cycle_says_what_to_do() -> None:
    optimizer = sgd(0.1)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    update(optimizer, scheduler, 3)
    with pytest.raises(ca.ScheduleError, match=r"T_cur=2; .*step\(epoch\).*last_epoch="):
        scheduler.T_cur = 2
    assert scheduler.last_epoch == 3


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_an_optimizer_that_is_given_a_schedule_as_its_rate_says_what_to_do(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"is no rate.* use CyclicCosineLR\(optimizer, schedule\)"):
        kind(torch.nn.Linear(2, 1).parameters(), lr=SCHEDULE)
