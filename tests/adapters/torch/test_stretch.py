"""The short way of CyclicCosineLR's step beside torch's own, whatever is done between steps."""

from __future__ import annotations

import copy
import io
import pickle
import random
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, SequentialLR

import cosanneal as ca
from cosanneal import presets
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotRecorder

# Releases of torch that set the rates within `step` itself have no short way, and the same rates.
SHORT = hasattr(LRScheduler, "_update_lr")

# Rates are looked at far beyond the last cycle, and between updates that are none.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The schedule is over:UserWarning",
    "ignore:The scheduler moved:UserWarning",
    "ignore:The optimizer did:UserWarning",
)

SCHEDULES = {
    "equal": ca.CyclicCosine(0.2, total_steps=2000, num_cycles=3, min_lr=1e-3),
    "short": ca.CyclicCosine(0.2, cycle_steps=7),
    "growing": ca.CyclicCosine(0.2, cycle_steps=300, cycle_mult=1.5, warmup_steps=20),
    "decaying": ca.CyclicCosine(0.2, cycle_steps=400, cycle_decay=0.9, restart_warmup_steps=270),
    "endpoint": ca.CyclicCosine(0.3, total_steps=1001, num_cycles=2, endpoint=True),
    "real-valued": presets.sgdr(0.1, Fraction(1000, 3)),
    "rising": presets.torch_cosine_annealing(0.1, 600, 0.003),
    "k_decay": presets.timm_cosine(0.1, 500, lr_min=1e-4, cycle_limit=4, k_decay=1.5),
    "rounded": presets.composer_warm_restarts(0.1, 290, 1.15),
}


class TorchsWay(CyclicCosineLR):
    """One that overrides get_lr, and so never takes the short way."""

    def get_lr(self) -> list[float | Tensor]:
        return super().get_lr()


def adamw(*rates: float | Tensor) -> Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in rates]
    return AdamW(groups, lr=0.1)


def rates(optimizer: Optimizer) -> list[Any]:
    return [group["lr"] for group in optimizer.param_groups]


def same(first: list[Any], second: list[Any]) -> bool:
    """Equal to the last bit, and of the same kinds."""
    return len(first) == len(second) and all(
        type(a) is type(b) and (torch.equal(a, b) if isinstance(a, Tensor) else a == b)
        for a, b in zip(first, second, strict=True)
    )


@pytest.fixture
def torchs_updates(monkeypatch: pytest.MonkeyPatch) -> list[LRScheduler]:
    """Who took torch's own way, at each time; none where there is no other."""
    taken: list[LRScheduler] = []
    if not SHORT:
        return taken
    own = LRScheduler._update_lr

    def update(self: LRScheduler, epoch: int | None = None) -> None:
        taken.append(self)
        own(self, epoch)

    monkeypatch.setattr(LRScheduler, "_update_lr", update)
    return taken


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("ratios", [[1.0], [1.0, 1.0, 1.0], [1.0, 0.1, 0.3, 1.0]])
def test_the_short_way_gives_the_rates_of_the_schedule_bit_for_bit(
    name: str, ratios: list[float], torchs_updates: list[LRScheduler]
) -> None:
    schedule = SCHEDULES[name]
    optimizer = adamw(*ratios)
    scheduler = CyclicCosineLR(optimizer, schedule)
    for step in range(2500):
        assert rates(optimizer) == [schedule.rate(step) * ratio for ratio in ratios]
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr() == rates(optimizer)
    assert scheduler._step_count == 2501
    assert len(torchs_updates) < 20


def test_the_other_way_is_torchs(torchs_updates: list[LRScheduler]) -> None:
    optimizer = adamw(0.1)
    scheduler = TorchsWay(optimizer, SCHEDULES["equal"])
    for _ in range(600):
        optimizer.step()
        scheduler.step()
    assert len(torchs_updates) == (601 if SHORT else 0)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
@pytest.mark.parametrize("ratios", [[1.0, 1.0], [1.0, 0.1, 0.3]])
def test_tensor_rates_are_filled_in_place_by_one_update(
    dtype: torch.dtype, ratios: list[float], torchs_updates: list[LRScheduler]
) -> None:
    schedule = SCHEDULES["equal"]
    optimizer = adamw(*(torch.tensor(ratio, dtype=dtype) for ratio in ratios))
    exact = [float(rate) / float(max(rates(optimizer))) for rate in rates(optimizer)]
    held = rates(optimizer)
    scheduler = CyclicCosineLR(optimizer, schedule)
    for step in range(700):
        expected = [torch.tensor(schedule.rate(step) * ratio, dtype=dtype) for ratio in exact]
        assert all(a is b for a, b in zip(rates(optimizer), held, strict=True))
        assert same(rates(optimizer), expected)
        last = scheduler.get_last_lr()
        assert same(last, expected)
        assert all(a is not b for a, b in zip(last, held, strict=True))
        optimizer.step()
        scheduler.step()
        assert same(last, expected)
    assert len(torchs_updates) < 10


def test_one_tensor_that_all_groups_share_is_filled() -> None:
    shared = torch.tensor(0.1)
    optimizer = adamw(shared, shared)
    scheduler = CyclicCosineLR(optimizer, SCHEDULES["equal"])
    for step in range(300):
        assert shared.item() == torch.tensor(SCHEDULES["equal"].rate(step)).item()
        optimizer.step()
        scheduler.step()


Pair = tuple[Optimizer, CyclicCosineLR]


def update(pair: Pair, draw: random.Random) -> Pair:
    optimizer, scheduler = pair
    for _ in range(draw.choice([1, 2, 3, 300])):
        optimizer.step()
        scheduler.step()
    return pair


def jump(pair: Pair, draw: random.Random) -> Pair:
    pair[1].step(draw.choice([0, 3, 255, 800, 10.5]))  # type: ignore[arg-type]
    return pair


def land(pair: Pair, draw: random.Random) -> Pair:
    # As SequentialLR does it.
    step = draw.choice([0, 40])
    pair[1]._update_lr(step) if SHORT else pair[1].step(step)
    return pair


def initial(pair: Pair, draw: random.Random) -> Pair:
    pair[1].last_epoch -= draw.choice([1, 2]) if pair[1].last_epoch > 2 else 0
    pair[1]._initial_step()
    return pair


def poke_step(pair: Pair, draw: random.Random) -> Pair:
    pair[1].last_epoch = draw.choice([0, 17, 900, 7.0])  # type: ignore[assignment]
    return pair


def set_rate(pair: Pair, draw: random.Random) -> Pair:
    group = draw.choice(pair[0].param_groups)
    value = draw.choice([0.5, 1, "tensor", "equal"])
    if value == "equal":  # to what stands there, but a tensor
        value = torch.tensor(float(group["lr"]), dtype=torch.float64)
    group["lr"] = torch.tensor(0.25) if value == "tensor" else value
    return pair


def all_tensors(pair: Pair, draw: random.Random) -> Pair:
    dtype = draw.choice([torch.float32, torch.float64])
    for group in pair[0].param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), dtype=dtype)
    return pair


def all_floats(pair: Pair, _: random.Random) -> Pair:
    for group in pair[0].param_groups:
        group["lr"] = float(group["lr"])
    return pair


def add_group(pair: Pair, draw: random.Random) -> Pair:
    optimizer = pair[0]
    if len(optimizer.param_groups) < 6:
        rate = draw.choice([0.05, "shared"])
        rate = optimizer.param_groups[0]["lr"] if rate == "shared" else rate
        group = {"params": [torch.nn.Parameter(torch.ones(1))], "lr": rate}
        optimizer.add_param_group(group | draw.choice([{}, {"initial_lr": 0.04}]))
    return pair


def replace_groups(pair: Pair, draw: random.Random) -> Pair:
    optimizer = pair[0]
    state = copy.deepcopy(optimizer.state_dict())
    if draw.random() < 0.5:
        state["param_groups"][0]["lr"] = 0.125
    optimizer.load_state_dict(state)
    return pair


def base_rates(pair: Pair, draw: random.Random) -> Pair:
    bases = pair[1].base_lrs
    if draw.random() < 0.5:
        bases[draw.randrange(len(bases))] = 0.07
    else:
        pair[1].base_lrs = [float(base) * 0.5 for base in bases]
    return pair


def other_schedule(pair: Pair, draw: random.Random) -> Pair:
    pair[1].schedules[0] = SCHEDULES[draw.choice([*SCHEDULES])]
    return pair


def chain(pair: Pair, _: random.Random) -> Pair:
    pair[1].chainable = not pair[1].chainable
    return pair


def reload(pair: Pair, _: random.Random) -> Pair:
    pair[1].load_state_dict(copy.deepcopy(pair[1].state_dict()), strict=False)
    return pair


def take_over(pair: Pair, draw: random.Random) -> Pair:
    """The state on a fresh optimizer of other rates, and a fresh scheduler of the same kind."""
    old = pair[1]
    fresh = adamw(*(draw.choice([0.3, 0.9]) for _ in pair[0].param_groups))
    scheduler = type(old)(fresh, old.schedules[0], chainable=old.chainable)
    scheduler.load_state_dict(old.state_dict())
    return fresh, scheduler


def copied(pair: Pair, draw: random.Random) -> Pair:
    if draw.random() < 0.5:
        scheduler = copy.deepcopy(pair[1])
    else:
        scheduler = pickle.loads(pickle.dumps(pair[1]))  # noqa: S301
    return scheduler.optimizer, scheduler


def saved(pair: Pair, _: random.Random) -> Pair:
    file = io.BytesIO()
    torch.save(pair[1].state_dict(), file)
    file.seek(0)
    pair[1].load_state_dict(torch.load(file, weights_only=True), strict=False)
    return pair


def spoil(pair: Pair, _: random.Random) -> Pair:
    pair[1].get_last_lr()[0] = 99.0
    return pair


OPERATIONS: list[Callable[[Pair, random.Random], Pair]] = [
    jump,
    land,
    initial,
    poke_step,
    set_rate,
    all_tensors,
    all_floats,
    add_group,
    replace_groups,
    base_rates,
    other_schedule,
    chain,
    reload,
    take_over,
    copied,
    saved,
    spoil,
]


@pytest.mark.filterwarnings(
    "ignore:(The epoch parameter|Seems like|Detected call|A parameter):UserWarning"
)
@pytest.mark.parametrize("seed", range(60))
def test_whatever_else_is_done_both_ways_agree_bit_for_bit(seed: int) -> None:
    draw = random.Random(seed)
    initial_rates = draw.choice([[0.1], [0.1, 0.1], [0.1, 0.02, 0.1]])
    schedule = SCHEDULES[draw.choice([*SCHEDULES])]
    short, long = adamw(*initial_rates), adamw(*initial_rates)
    pairs: list[Pair] = [
        (short, CyclicCosineLR(short, schedule)),
        (long, TorchsWay(long, schedule)),
    ]
    done = []
    for _ in range(40):
        operation = draw.choice([update, draw.choice(OPERATIONS)])
        choices = draw.random()
        done.append(operation.__name__)
        held = [[id(rate) for rate in rates(pair[0])] for pair in pairs]
        pairs = [operation(pair, random.Random(choices)) for pair in pairs]
        (short, ours), (long, theirs) = pairs
        assert same(rates(short), rates(long)), done
        assert same(ours.get_last_lr(), theirs.get_last_lr()), done
        assert ours._step_count == theirs._step_count, done
        assert (ours.last_epoch, type(ours.last_epoch)) == (
            theirs.last_epoch,
            type(theirs.last_epoch),
        )
        assert ours.state_dict() == theirs.state_dict(), done
        for before, pair in zip(held, pairs, strict=True):
            if operation is update:  # tensors stay the tensors they were
                now = [id(rate) for rate in rates(pair[0]) if isinstance(rate, Tensor)]
                assert set(now) <= set(before), done


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.skipif(not SHORT, reason="torch sets the rates within its step")
@pytest.mark.parametrize("followed", [False, True])
def test_in_mid_run_the_schedule_is_not_asked_step_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, followed: bool
) -> None:
    optimizer = SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    scheduler = CyclicCosineLR(optimizer, ca.CyclicCosine(0.2, cycle_steps=5000))
    model = torch.nn.Linear(1, 1)
    recorders = [SnapshotRecorder(tmp_path, model, scheduler)] if followed else []
    asked: list[int] = []
    rate = ca.Schedule.rate

    def counted(self: ca.Schedule, step: int) -> float:
        asked.append(step)
        return rate(self, step)

    for step in range(6000):
        if step == 600:
            monkeypatch.setattr(ca.Schedule, "rate", counted)
        optimizer.step()
        scheduler.step()
        if scheduler.last_epoch == 5000:
            for recorder in recorders:
                recorder.flush()  # while a snapshot is written, each step looks how it goes
    assert len(asked) < 300  # the end of a cycle, and the first stretch after it
    for recorder in recorders:
        recorder.close()


def test_a_step_before_the_curve_that_is_followed_is_looked_up() -> None:
    schedule = SCHEDULES["equal"]
    optimizer = adamw(0.1)
    scheduler = CyclicCosineLR(optimizer, schedule)
    for times, back in ((1200, 699), (1200, 5), (0, 10.5), (0, 267.5)):
        optimizer.step()
        for _ in range(times):
            scheduler.step()
        scheduler.last_epoch = back  # type: ignore[assignment]
        scheduler.step()
        assert rates(optimizer) == [schedule.rate_at(back + 1)]


def test_a_state_of_other_ratios_is_followed_by_tensors() -> None:
    # The second group was added later, and the first remained the reference.
    grown = adamw(0.1)
    scheduler = CyclicCosineLR(grown, SCHEDULES["equal"])
    grown.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "initial_lr": 0.2})
    grown.step()
    scheduler.step()
    optimizer = adamw(*(torch.tensor(rate, dtype=torch.float64) for rate in (0.1, 0.2)))
    restored = CyclicCosineLR(optimizer, SCHEDULES["equal"])
    restored.load_state_dict(scheduler.state_dict())
    for step in range(1, 10):
        rate = SCHEDULES["equal"].rate(step)
        assert [float(rate) for rate in rates(optimizer)] == [rate, rate * 2]
        optimizer.step()
        restored.step()


@pytest.mark.skipif(not SHORT, reason="this release of torch names the line of its own call")
def test_a_warning_names_the_line_of_the_caller() -> None:
    scheduler = CyclicCosineLR(adamw(0.1), SCHEDULES["equal"])
    with pytest.warns(UserWarning, match="before") as caught:
        scheduler.step()
    assert caught[0].filename == __file__


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")  # SequentialLR, once
def test_other_schedulers_and_hooks_see_every_step() -> None:
    optimizer = adamw(0.2)
    first = LambdaLR(optimizer, lambda step: 0.5 + 0.1 * step)
    cyclic = CyclicCosineLR(optimizer, SCHEDULES["equal"])
    scheduler = SequentialLR(optimizer, [first, cyclic], milestones=[4])
    seen: list[float] = []
    optimizer.register_step_pre_hook(
        lambda optimizer, *_: seen.append(optimizer.param_groups[0]["lr"])
    )
    for _ in range(400):
        optimizer.step()
        scheduler.step()
        assert scheduler.get_last_lr() == rates(optimizer)
    assert seen[:4] == pytest.approx([0.2 * (0.5 + 0.1 * step) for step in range(4)], rel=1e-15)
    assert seen[4:] == [SCHEDULES["equal"].rate(step) for step in range(396)]


@pytest.mark.parametrize("both", [False, True], ids=["the optimizer's", "both"])
def test_compiled_steps_are_not_compiled_again_over_three_cycles(both: bool) -> None:
    schedule = ca.CyclicCosine(0.2, cycle_steps=300)
    weight = torch.nn.Parameter(torch.randn(4))
    optimizer = SGD([{"params": [weight], "lr": torch.tensor(0.1)}])
    scheduler = CyclicCosineLR(optimizer, schedule)
    graphs = 0

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        nonlocal graphs
        graphs += 1
        return graph.forward

    torch._dynamo.reset()

    def update() -> None:
        optimizer.step()
        scheduler.step()

    step = torch.compile(update if both else optimizer.step, backend=count)
    with warnings.catch_warnings():
        # torch's own: the compiled step is not the method it patched.
        warnings.filterwarnings("ignore", message="(Seems|Detected)", category=UserWarning)
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="Profiler record", category=UserWarning)
        for number in range(900):
            weight.grad = weight.detach() * 0.5
            before = weight.detach().clone()
            step()
            expected = before - before * 0.5 * torch.tensor(schedule.rate(number))
            torch.testing.assert_close(weight.detach(), expected, rtol=1e-6, atol=0)
            if not both:
                scheduler.step()
            if number == 2:
                warm = graphs
    assert warm > 0
    assert graphs == warm
