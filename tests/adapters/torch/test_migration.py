"""From torch's own schedulers to CyclicCosineLR, in mid-run, and what a drop-in needs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    LinearLR,
    LRScheduler,
    SequentialLR,
    StepLR,
)

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, from_torch

# SequentialLR of older releases of torch steps to an epoch, and warns of it itself.
pytestmark = pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")

Make = Callable[[Optimizer], LRScheduler]


def sgd(*rates: float) -> Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return SGD(groups, lr=0.1)


def rates(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def after_warmup(peer: Make, *, milestone: int, total: int) -> Make:
    def make(optimizer: Optimizer) -> LRScheduler:
        warmup = LinearLR(optimizer, start_factor=0.1, end_factor=0.9, total_iters=total)
        return SequentialLR(optimizer, [warmup, peer(optimizer)], milestones=[milestone])

    return make


COSINE: Make = lambda optimizer: CosineAnnealingLR(optimizer, T_max=10, eta_min=0.001)  # noqa: E731

RESTARTS: Make = lambda optimizer: CosineAnnealingWarmRestarts(  # noqa: E731
    optimizer, T_0=4, T_mult=2, eta_min=0.001
)


@pytest.mark.parametrize(
    ("make", "tolerance"),
    [
        # The recursion of torch's gathers rounding; its closed forms lose a few eps of the peak.
        (COSINE, 2e-15),
        (RESTARTS, 1e-16),
        (after_warmup(COSINE, milestone=5, total=5), 2e-15),
        (after_warmup(COSINE, milestone=5, total=3), 2e-15),
        (after_warmup(RESTARTS, milestone=5, total=8), 1e-16),
        (after_warmup(RESTARTS, milestone=5, total=5), 1e-16),
    ],
)
@pytest.mark.parametrize("steps", [0, 1, 4, 5, 9, 23])
def test_the_run_goes_on_along_the_same_curve(make: Make, tolerance: float, steps: int) -> None:
    moved, kept = sgd(0.1, 0.02), sgd(0.1, 0.02)
    peer, other = make(moved), make(kept)
    for _ in range(steps):
        for each in (moved, kept):
            each.step()
        peer.step()
        other.step()
    ours = from_torch(peer)
    assert ours.last_epoch == steps
    for _ in range(60):
        assert rates(moved) == pytest.approx(rates(kept), rel=0, abs=tolerance)
        for each in (moved, kept):
            each.step()
        ours.step()
        other.step()


def test_the_cycles_of_the_peer_are_known_after_the_move() -> None:
    optimizer = sgd(0.1)
    scheduler = from_torch(after_warmup(RESTARTS, milestone=5, total=5)(optimizer))
    assert scheduler.schedules[0].cycle_ends(40) == [8, 16, 32]
    assert from_torch(COSINE(sgd(0.1))).schedules[0].cycle_ends(40) == [9, 29]


def test_a_fraction_of_an_epoch_is_taken_along() -> None:
    optimizer = sgd(0.1)
    peer = CosineAnnealingWarmRestarts(optimizer, T_0=4, T_mult=2)
    optimizer.step()
    peer.step(5.25)
    expected = rates(optimizer)
    ours = from_torch(peer)
    assert ours.last_epoch == 5.25
    assert rates(optimizer) == pytest.approx(expected, rel=1e-14)
    peer.step()
    expected = rates(optimizer)
    ours.step()
    assert rates(optimizer) == pytest.approx(expected, rel=1e-14)


def test_a_restart_that_torch_lost_to_a_float_logarithm_is_not_lost_here() -> None:
    # floor(log(243) / log(3)) is 4 in floats: the fifth restart of T_0=1, T_mult=3.
    optimizer = sgd(0.1)
    peer = CosineAnnealingWarmRestarts(optimizer, T_0=1, T_mult=3)
    boundary = (3**5 - 1) // 2
    optimizer.step()
    peer.step(boundary)
    assert rates(optimizer)[0] < 1e-9
    assert from_torch(peer).get_last_lr() == [0.1]


def test_the_state_of_a_moved_scheduler_resumes() -> None:
    optimizer = sgd(0.1, 0.02)
    peer = after_warmup(RESTARTS, milestone=5, total=8)(optimizer)
    for _ in range(7):
        optimizer.step()
        peer.step()
    ours = from_torch(peer)
    fresh = sgd(0.1, 0.02)
    restored = CyclicCosineLR(fresh, ours.schedules)
    restored.load_state_dict(ours.state_dict())
    assert rates(fresh) == rates(optimizer)


@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: StepLR(optimizer, 3),
        lambda optimizer: SequentialLR(
            optimizer, [ConstantLR(optimizer), COSINE(optimizer)], milestones=[3]
        ),
        lambda optimizer: SequentialLR(
            optimizer, [COSINE(optimizer), COSINE(optimizer), COSINE(optimizer)], milestones=[3, 9]
        ),
    ],
)
def test_other_schedulers_are_refused_by_name(make: Make) -> None:
    with pytest.raises(
        ca.ScheduleError, match=r"`scheduler` must be a CosineAnnealingLR .*Received: \w+"
    ):
        from_torch(make(sgd(0.1)))


def test_step_with_an_epoch_takes_fractions_and_warns_as_torch_does() -> None:
    schedule = ca.CyclicCosine(0.1, cycle_steps=4, cycle_mult=2)
    optimizer = sgd(0.1)
    scheduler = CyclicCosineLR(optimizer, schedule)
    peer_optimizer = sgd(0.1)
    peer = CosineAnnealingWarmRestarts(peer_optimizer, T_0=4, T_mult=2)
    optimizer.step()
    peer_optimizer.step()
    for epoch in (0.0, 0.5, 3.75, 4.0, 4.5, 11.999, 12.0, 27.0, 100.5, 2.25):
        with pytest.warns(UserWarning, match="epoch parameter"):
            scheduler.step(epoch)  # type: ignore[arg-type]
        peer.step(epoch)
        assert rates(optimizer) == pytest.approx(rates(peer_optimizer), rel=1e-12, abs=1e-17)
        assert scheduler.T_cur == pytest.approx(peer.T_cur)
        assert scheduler.T_i == peer.T_i


def test_t_cur_and_t_i_follow_the_cycles() -> None:
    optimizer = sgd(0.1)
    peer_optimizer = sgd(0.1)
    scheduler = CyclicCosineLR(optimizer, ca.CyclicCosine(0.1, cycle_steps=3, cycle_mult=3))
    peer = CosineAnnealingWarmRestarts(peer_optimizer, T_0=3, T_mult=3)
    for _ in range(50):
        assert (scheduler.T_cur, scheduler.T_i) == (peer.T_cur, peer.T_i)
        for each in (optimizer, peer_optimizer):
            each.step()
        scheduler.step()
        peer.step()
    finite = CyclicCosineLR(sgd(0.1), ca.CyclicCosine(0.1, total_steps=10, num_cycles=2))
    finite.last_epoch = 12
    assert (finite.T_cur, finite.T_i) == (7, 5)
