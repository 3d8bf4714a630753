"""Shrinking and perturbing torch models at a restart, and forgetting the momentum."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import cosanneal as ca
from cosanneal.adapters.torch import (
    CyclicCosineLR,
    SnapshotRecorder,
    load_snapshot,
    reset_momentum,
    shrink_and_perturb,
)
from cosanneal.core.errors import ScheduleError

SCHEDULE = ca.CyclicCosine(0.2, total_steps=9, num_cycles=3)
RESTARTS = {cycle.start: cycle.index for cycle in SCHEDULE.cycles()[1:]}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def seeded(seed: int, build: Callable[[], nn.Module] = net) -> nn.Module:
    torch.manual_seed(seed)
    return build()


def state_of(model: nn.Module) -> dict[str, Any]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("shrink", "perturb"), [(0.5, 0.5), (0.8, 0.1), (1.0, 0.0), (0.0, 1.0)])
def test_trained_parameters_are_mixed_and_all_else_stays(shrink: float, perturb: float) -> None:
    model, fresh = seeded(1), seeded(2)
    model(torch.randn(8, 3))  # moves the running statistics and their count
    frozen = model.get_parameter("3.bias").requires_grad_(False)
    assert isinstance(frozen, nn.Parameter)
    before, other = state_of(model), state_of(fresh)
    shrink_and_perturb(model, fresh, shrink=shrink, perturb=perturb)
    mixed = {"0.weight", "0.bias", "1.weight", "1.bias", "3.weight"}
    for name, value in model.state_dict().items():
        old, new = before[name].double().numpy(), other[name].double().numpy()
        expected = shrink * old + perturb * new if name in mixed else old
        np.testing.assert_allclose(value.double().numpy(), expected, rtol=1e-6, atol=1e-7)
    assert same(state_of(fresh), other)


def test_tied_weights_are_mixed_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(3, 3), nn.Linear(3, 3)
            self.other.weight = self.one.weight

    model, fresh = seeded(1, Tied), seeded(2, Tied)
    before = state_of(model)["one.weight"]
    shrink_and_perturb(model, fresh)
    expected = 0.8 * before + 0.2 * state_of(fresh)["one.weight"]
    torch.testing.assert_close(state_of(model)["one.weight"], expected)
    assert model.get_parameter("other.weight") is model.get_parameter("one.weight")


def test_fresh_weights_come_from_the_seed_and_the_cycle_and_from_nothing_else() -> None:
    def drawn(**given: int) -> dict[str, Any]:
        model = net()  # moves the random state, which must not count
        shrink_and_perturb(model, net, shrink=0.0, perturb=1.0, **given)
        return state_of(model)

    first = drawn(cycle=1)
    assert same(first, drawn(cycle=1, seed=0))
    others = [drawn(cycle=2), drawn(cycle=1, seed=1), drawn(cycle=2, seed=1)]
    weights = [each["0.weight"] for each in (first, *others)]
    assert len({tuple(each.flatten().tolist()) for each in weights}) == 4


def test_the_random_numbers_of_the_run_go_on_as_if_nothing_had_happened() -> None:
    def build() -> nn.Module:
        made = net()
        with torch.no_grad():
            made.get_parameter("0.bias").copy_(torch.tensor(np.random.rand(4)))
            made.get_parameter("3.bias").fill_(random.random())
        return made

    def numbers() -> list[float]:
        return [float(torch.rand(())), np.random.rand(), random.random()]

    model = net()
    for each in (torch.manual_seed, np.random.seed, random.seed):
        each(5)
    expected = numbers()
    for each in (torch.manual_seed, np.random.seed, random.seed):
        each(5)
    shrink_and_perturb(model, build, cycle=1)
    first = state_of(model)
    assert numbers() == expected
    # numpy's and Python's numbers are of the seed, too.
    again = net()
    again.load_state_dict(first)
    shrink_and_perturb(again, build, cycle=1)
    numbers()
    shrink_and_perturb(model, build, cycle=1)
    assert same(state_of(model), state_of(again))


class Run:
    """A run with a restart of everything, that can be saved and loaded."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.model = net()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.2, momentum=0.9)
        self.scheduler = CyclicCosineLR(self.optimizer, SCHEDULE)
        self.recorder = SnapshotRecorder(folder, self.model, self.scheduler)
        self.before: dict[int, dict[str, Any]] = {}

    def go(self, start: int, stop: int) -> None:
        for step in range(start, stop):
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            self.optimizer.zero_grad()
            self.model(x).square().mean().backward()
            self.optimizer.step()
            self.scheduler.step()
            self.before[step + 1] = state_of(self.model)
            if step + 1 in RESTARTS:
                shrink_and_perturb(self.model, net, cycle=RESTARTS[step + 1])
                reset_momentum(self.optimizer)


def test_the_snapshot_is_of_the_weights_before_they_shrink(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.go(0, 9)
    run.recorder.close()
    snapshots = run.recorder.store.list()
    assert [each.step for each in snapshots] == [3, 6, 9]
    for each in snapshots:
        recorded = net()
        load_snapshot(recorded, each)
        assert same(state_of(recorded), run.before[each.step])
    assert same(state_of(run.model), run.before[9])  # the last cycle's weights stay


def test_a_recorder_that_is_stepped_has_them_before_they_shrink_too(tmp_path: Path) -> None:
    model = seeded(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with SnapshotRecorder(tmp_path, model, SCHEDULE) as recorder:
        for _ in range(3):
            model(torch.ones(4, 3)).sum().backward()
            optimizer.step()
            recorder.step()
        before = state_of(model)
        shrink_and_perturb(model, net, cycle=RESTARTS[3])
    recorded = net()
    load_snapshot(recorded, recorder.store.list()[0])
    assert same(state_of(recorded), before)
    assert not same(state_of(model), before)


@pytest.mark.filterwarnings("ignore:The run ended at update:UserWarning")
@pytest.mark.parametrize("saved", [3, 5, 6])
def test_a_run_resumed_at_or_after_a_restart_is_the_run_that_was_not_stopped(
    tmp_path: Path, saved: int
) -> None:
    whole = Run(tmp_path / "whole")
    whole.go(0, 9)
    broken = Run(tmp_path / "broken")
    broken.go(0, saved)
    broken.recorder.close()
    torch.save(
        [each.state_dict() for each in (broken.model, broken.optimizer, broken.scheduler)],
        tmp_path / "checkpoint.pt",
    )
    resumed = Run.__new__(Run)
    torch.manual_seed(99)
    resumed.model, resumed.before = net(), {}
    resumed.optimizer = torch.optim.SGD(resumed.model.parameters(), lr=0.2, momentum=0.9)
    resumed.scheduler = CyclicCosineLR(resumed.optimizer, SCHEDULE)
    parts: tuple[Any, ...] = (resumed.model, resumed.optimizer, resumed.scheduler)
    for part, state in zip(parts, torch.load(tmp_path / "checkpoint.pt"), strict=True):
        part.load_state_dict(state)
    resumed.recorder = SnapshotRecorder(tmp_path / "broken", resumed.model, resumed.scheduler)
    resumed.go(saved, 9)
    for run in (whole, resumed):
        run.recorder.close()
    assert same(state_of(whole.model), state_of(resumed.model))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fresh": net}, r"`cycle` must be .*at least 1.*cycle=None; call it at the starts"),
        ({"fresh": net, "cycle": 0}, r"`cycle` must be .*at least 1.*cycle=0;"),
        ({"fresh": net, "cycle": -1}, r"`cycle` must be a positive integer.*cycle=-1"),
        ({"fresh": net, "cycle": 1, "seed": 0.5}, r"`seed` must be an integer.*seed=0\.5"),
        ({"fresh": net, "cycle": 1, "shrink": 1.5}, r"`shrink` must be .*0 to 1.*shrink=1\.5"),
        ({"fresh": net, "cycle": 1, "perturb": "x"}, r"`perturb` must be .*perturb='x'"),
        ({"fresh": 3, "cycle": 1}, r"`fresh` must be a torch.nn.Module, or.*Received: 3"),
        ({"fresh": dict, "cycle": 1}, r"`fresh` must be .*a function that returns \{\}"),
        ({"fresh": nn.Linear(3, 4)}, r"for '0\.weight' of shape \(4, 3\) none"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    model = seeded(0)
    before = state_of(model)
    with pytest.raises(ScheduleError, match=message):
        shrink_and_perturb(model, **given)
    assert same(state_of(model), before)


def test_another_shape_and_the_model_itself_are_refused() -> None:
    model = nn.Linear(3, 4)
    with pytest.raises(ScheduleError, match=r"'weight' of shape \(4, 3\) one of shape \(4, 2\)"):
        shrink_and_perturb(model, nn.Linear(2, 4))
    with pytest.raises(ScheduleError, match="without data"):
        shrink_and_perturb(model, nn.Linear(3, 4, device="meta"))
    with pytest.raises(ScheduleError, match="the model's own parameters"):
        shrink_and_perturb(model, lambda: model, cycle=1)


def test_weights_of_which_others_have_the_rest_are_refused() -> None:
    model = seeded(0)
    weight: Any = model.get_parameter("3.weight")
    weight.device_mesh = object()  # as DTensors have it
    before = state_of(model)
    with pytest.raises(ScheduleError, match=r"whole in this process.*a part of '3\.weight'"):
        shrink_and_perturb(model, net, cycle=1)
    assert same(state_of(model), before)


def test_a_wrapped_model_has_the_names_of_the_plain_one() -> None:
    model, plain = seeded(1), seeded(1)
    shrink_and_perturb(nn.DataParallel(model), net, cycle=1)
    shrink_and_perturb(plain, lambda: nn.DataParallel(net()), cycle=1)
    assert same(state_of(model), state_of(plain))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.5}),
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        (torch.optim.AdamW, {"amsgrad": True}),
        (torch.optim.NAdam, {}),
        (torch.optim.RMSprop, {"momentum": 0.5, "centered": True}),
        (torch.optim.Adagrad, {"initial_accumulator_value": 0.1, "lr_decay": 0.5}),
    ],
)
def test_the_next_update_is_that_of_a_new_optimizer(kind: Any, options: dict[str, Any]) -> None:
    def update(optimizer: Any, weight: nn.Parameter, slope: float) -> None:
        weight.grad = torch.full_like(weight, slope)
        optimizer.step()

    weight = nn.Parameter(torch.ones(3))
    optimizer = kind([weight], lr=0.1, **options)
    for slope in (1.0, -2.0, 0.5):
        update(optimizer, weight, slope)
    optimizer.param_groups[0]["lr"] = 0.05  # as a scheduler sets it
    other = nn.Parameter(weight.detach().clone())
    gone_on = nn.Parameter(weight.detach().clone())
    straight = kind([gone_on], lr=0.05, **options)
    straight.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    reset_momentum(optimizer)
    new = kind([other], lr=0.05, **options)
    for slope in (0.3, 0.7):
        update(optimizer, weight, slope)
        update(new, other, slope)
        update(straight, gone_on, slope)
    torch.testing.assert_close(weight, other, rtol=0, atol=0)
    assert not torch.allclose(weight, gone_on, rtol=1e-4)


def test_what_wraps_an_optimizer_has_its_momentum_forgotten() -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    wrapper: Any = type("Wrapper", (), {})()
    wrapper.optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    wrapper.optimizer.step()
    assert wrapper.optimizer.state
    reset_momentum(wrapper)
    assert not wrapper.optimizer.state


def test_what_is_no_optimizer_is_refused() -> None:
    wrong: Any = nn.Linear(1, 1)
    with pytest.raises(ScheduleError, match=r"`optimizer` must be a torch\.optim\.Optimizer"):
        reset_momentum(wrong)
