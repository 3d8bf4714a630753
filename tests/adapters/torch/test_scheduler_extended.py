"""A state goes on under a schedule that was extended from its own."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR
from tests.adapters.torch.test_scheduler import rates, sgd, update

OLD = ca.CyclicCosine(0.2, total_steps=30, num_cycles=3, cycle_decay=0.9)
LONGER = OLD.extended(num_cycles=2, total_steps=44)
FASTER = OLD.extended(at=20, total_steps=26, max_lr=0.3)


def stopped(schedule: Any, steps: int, *groups: float, **options: Any) -> tuple[Any, Any]:
    """The states of an optimizer and of its scheduler, as a file has them."""
    optimizer = sgd(*groups)
    scheduler = CyclicCosineLR(optimizer, schedule, **options)
    update(optimizer, scheduler, steps)
    file = io.BytesIO()
    torch.save([optimizer.state_dict(), scheduler.state_dict()], file)
    file.seek(0)
    return tuple(torch.load(file, weights_only=True))


# At its end, in a cycle that stays, at the cut, and where a list has several.
GOES_ON = [(LONGER, 30), (LONGER, 17), (LONGER, 20), (FASTER, 20), (FASTER, 3), (FASTER, 19)]


@pytest.mark.parametrize("chainable", [False, True])
@pytest.mark.parametrize("scheduler_last", [False, True])
@pytest.mark.parametrize(("new", "steps"), GOES_ON)
def test_it_goes_on_as_one_that_had_the_new_schedule_all_along(
    new: ca.Schedule, steps: int, scheduler_last: bool, chainable: bool
) -> None:
    states = stopped(OLD, steps, 0.1, 0.02, chainable=chainable)
    optimizer, whole = sgd(5.0, 1.0), sgd(0.1, 0.02)
    scheduler = CyclicCosineLR(optimizer, new, chainable=chainable)
    all_along = CyclicCosineLR(whole, new, chainable=chainable)
    update(whole, all_along, steps)
    parts: list[tuple[Any, Any]] = list(zip((optimizer, scheduler), states, strict=True))
    for part, state in parts if scheduler_last else reversed(parts):
        part.load_state_dict(state)
    assert rates(optimizer)[0] == new.rate(steps)
    for step in range(steps, new.total_steps or 0):
        assert rates(optimizer) == rates(whole), step
        assert scheduler.get_last_lr() == all_along.get_last_lr()
        update(optimizer, scheduler)
        update(whole, all_along)


def test_a_prepared_optimizer_is_told_of_its_state_too() -> None:
    optimizer_state, state = stopped(OLD, 30, 0.1)
    Accelerator(cpu=True)  # which the prepared optimizer asks where it is
    optimizer = sgd(5.0)
    prepared = AcceleratedOptimizer(optimizer)
    scheduler = CyclicCosineLR(prepared, LONGER)
    scheduler.load_state_dict(state)
    prepared.load_state_dict(optimizer_state)  # at the floor of the schedule that was over
    assert rates(optimizer)[0] == LONGER.rate(30) > OLD.rate(30)


@pytest.mark.filterwarnings("ignore:The schedule is over:UserWarning")
@pytest.mark.parametrize(
    ("new", "steps"),
    [(LONGER, 31), (FASTER, 21), (FASTER, 30), (ca.CyclicCosine(0.2, cycle_steps=10), 11)],
)
def test_a_step_beyond_what_the_two_have_in_common_is_refused(new: Any, steps: int) -> None:
    optimizer_state, state = stopped(OLD, steps, 0.1)
    optimizer = sgd(0.1)
    scheduler = CyclicCosineLR(optimizer, new)
    message = rf"same cycles up to the state's step, {steps}\. Received: another, for .*extended\("
    with pytest.raises(ca.ScheduleError, match=message):
        scheduler.load_state_dict(state)
    assert (scheduler.last_epoch, rates(optimizer)) == (0, [new.rate(0)])
    scheduler.load_state_dict(state, strict=False)
    optimizer.load_state_dict(optimizer_state)
    assert rates(optimizer) == [new.rate(steps)]


def test_each_group_of_a_list_may_have_its_own_extended() -> None:
    other = ca.CyclicCosine(0.05, total_steps=30, num_cycles=3)
    _, state = stopped([OLD, other], 30, 0.1, 0.1)
    optimizer = sgd(0.1, 0.1)
    longer = other.extended(num_cycles=2, total_steps=44)
    CyclicCosineLR(optimizer, [LONGER, longer]).load_state_dict(state)
    assert rates(optimizer) == [LONGER.rate(30), longer.rate(30)]
    wrong = ca.CyclicCosine(0.06, total_steps=60, num_cycles=6)
    scheduler = CyclicCosineLR(sgd(0.1, 0.1), [LONGER, wrong])
    with pytest.raises(ca.ScheduleError, match="in the schedule of group 1, the number of cycles"):
        scheduler.load_state_dict(state)


def test_a_later_load_of_the_optimizer_alone_is_the_users() -> None:
    optimizer_state, state = stopped(OLD, 30, 0.1)
    optimizer = sgd(0.1)
    scheduler = CyclicCosineLR(optimizer, LONGER)
    optimizer.load_state_dict(optimizer_state)  # before any state of the scheduler's
    assert rates(optimizer) == [OLD.rate(30)]
    scheduler.load_state_dict(state)
    update(optimizer, scheduler)
    optimizer.load_state_dict(optimizer_state)
    assert rates(optimizer) == [OLD.rate(30)]
    # Under SequentialLR, another scheduler may have the word: it keeps it.
    scheduler.load_state_dict({**state, "in_charge": False})
    optimizer.load_state_dict(optimizer_state)
    assert rates(optimizer) == [OLD.rate(30)]
