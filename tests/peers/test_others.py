"""timm, Transformers, Ignite, Composer, MMEngine and fastai."""

from __future__ import annotations

import itertools
import math
import random
import warnings
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cosanneal import presets

from .peers import (
    U32,
    U64,
    Comparison,
    bare,
    cosine_error,
    functions_of,
    optimizer,
    rate_of,
)

SETS = range(24)


def floors(draw: random.Random) -> tuple[float, float]:
    peak = 10 ** draw.uniform(-4, 1)
    return peak, draw.choice([0.0, 1e-8, peak * draw.random() * 0.1])


@pytest.fixture(scope="module")
def timm() -> Any:
    return bare("timm.scheduler.cosine_lr")


@pytest.mark.parametrize("case", range(60))
def test_timm(case: int, timm: Any) -> None:
    """timm.scheduler.cosine_lr, from its file: timm itself needs torchvision."""
    draw = random.Random(f"timm {case}")
    peak, floor = floors(draw)
    t_initial = draw.choice([draw.randint(2, 80), draw.randint(20, 300) / 10])
    cycle_mul = draw.choice([1.0, 1.0, 2.0, 1.5, 1.1, 0.8])
    decay = draw.choice([1.0, 0.8])
    limit = draw.randint(1, 4)
    k = draw.choice([1.0, 1.0, 2.0, 0.5, 1.7])
    warmup = draw.choice([0, draw.randint(1, int(t_initial) - 1)])
    prefix = draw.choice([True, False])
    start = draw.choice([0.0, peak * draw.random(), peak * 1.5])
    ours = presets.timm_cosine(
        peak,
        t_initial,
        floor,
        cycle_mul,
        decay,
        limit,
        warmup,
        start,
        prefix,
        k_decay=k,
    )
    updater = optimizer(peak)
    theirs = timm.CosineLRScheduler(
        updater,
        t_initial,
        lr_min=floor,
        cycle_mul=cycle_mul,
        cycle_decay=decay,
        cycle_limit=limit,
        warmup_t=warmup,
        warmup_lr_init=start,
        warmup_prefix=prefix,
        k_decay=k,
    )
    end = ours.total_steps
    assert end is not None
    stop = end + 2 * ours.cycles()[limit - 1].length
    if cycle_mul < 1:  # timm's logarithm does not exist beyond the limit of its cycles
        stop = min(stop, (warmup if prefix else 0) + int(t_initial / (1 - cycle_mul)) - 1)
    values = [rate_of(updater)]
    for step in range(1, stop):
        theirs.step(step)
        values.append(rate_of(updater))

    def bound(step: int) -> float:
        if step < warmup:
            return 6 * U64 * max(peak, start)
        i = ours.cycle_at(step).index if step < end else limit - 1
        cycle = ours.cycles()[i]
        # The clock is what remains of the time that has passed, whose sum and
        # powers carry i + 1 roundings each; a k below 1 makes more of an error
        # at the clock's beginning (t**k has the slope k t**(k-1), and t is at
        # least as far from 0 as the clock's own error or a grid of tenths).
        before = cycle.start / cycle.length + 1
        steep = max(1.0, k, k * (10 * cycle.length) ** (1 - k))
        angle = 4 + before * (3 * i + 6) * steep
        return cosine_error(peak, peak, angle=angle, roundings=6 + i)

    clock_start = warmup if prefix else 0
    exact = [Fraction(clock_start)]
    for i in range(limit):
        exact.append(exact[-1] + Fraction(str(t_initial)) * Fraction(str(cycle_mul)) ** i)

    def late(step: int) -> float | None:
        """At an exact restart the index found may be that of the cycle before."""
        return floor if step in exact[1:] and cycle_mul != 1 else None

    Comparison(ours)(values, bound, defect=late)


@pytest.mark.parametrize("case", range(72))
def test_hf_cosine(case: int) -> None:
    from transformers import optimization

    draw = random.Random(f"hf cosine {case}")
    peak = 10 ** draw.uniform(-4, 1)
    warmup = draw.choice([0, draw.randint(1, 40)])
    total = draw.choice([warmup, warmup + draw.randint(1, 200)]) or 1
    waves = draw.choice([0.5, 0.5, 1, 2.5, 0.3, 0.1])
    if waves * 2 > total - warmup:
        waves = 0.5
    rate = (None, 0.0, draw.random())[case % 3]
    end = warmup + 3 * max(1, total - warmup)
    if rate is None:
        ours = presets.hf_cosine(peak, warmup, total, waves)
        theirs = optimization.get_cosine_schedule_with_warmup(
            optimizer(peak), warmup, total, num_cycles=waves
        )
        height = peak
    else:
        given: dict[str, Any] = {"min_lr": peak * rate} if case % 2 else {"min_lr_rate": rate}
        ours = presets.hf_cosine_with_min_lr(peak, warmup, total, waves, **given)
        theirs = optimization.get_cosine_with_min_lr_schedule_with_warmup(
            optimizer(peak), warmup, total, num_cycles=waves, **given
        )
        height = peak * (1 - rate)
    values = [peak * float(theirs.lr_lambdas[0](step)) for step in range(end)]

    def bound(step: int) -> float:
        # The angle, rounded four times, is as many times pi as half waves have
        # passed; num_cycles, read as the decimal it is written as, once more.
        angle = 5.4 * max(1, 2 * waves * (step - warmup) / max(1, total - warmup))
        return cosine_error(height, peak, angle=angle, roundings=6)

    Comparison(ours)(values, bound)


@pytest.mark.parametrize("case", range(40))
def test_hf_hard_restarts(case: int) -> None:
    from transformers import optimization

    draw = random.Random(f"hf restarts {case}")
    peak = 10 ** draw.uniform(-4, 1)
    warmup = draw.choice([0, draw.randint(1, 40)])
    length = draw.randint(1, 500)
    cycles = draw.choice([1, draw.randint(1, min(length, 30))])
    ours = presets.hf_hard_restarts(peak, warmup, warmup + length, cycles)
    theirs = optimization.get_cosine_with_hard_restarts_schedule_with_warmup(
        optimizer(peak), warmup, warmup + length, num_cycles=cycles
    )
    stop = warmup + length + 2 * math.ceil(length / cycles)
    values = [peak * float(theirs.lr_lambdas[0](step)) for step in range(stop)]
    # N * p is rounded twice before the whole part is taken off: N roundings of
    # what remains.
    bound = cosine_error(peak, peak, angle=2 + 2 * cycles, roundings=4)

    def late(step: int) -> float | None:
        """At an exact restart N * p may be rounded to just below the integer."""
        return 0.0 if (step - warmup) * cycles % length == 0 and step > warmup else None

    Comparison(ours)(values, bound, defect=late)


@pytest.fixture(scope="module")
def ignite() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ignite.handlers import param_scheduler
    return param_scheduler


@pytest.mark.parametrize("case", range(40))
def test_ignite(case: int, ignite: Any) -> None:
    draw = random.Random(f"ignite {case}")
    start, end = 10 ** draw.uniform(-4, 1), draw.choice([0.0, 10 ** draw.uniform(-4, 1)])
    size = draw.randint(2, 60)
    given: dict[str, Any] = {
        "start_value": start,
        "end_value": end,
        "cycle_size": size,
        "cycle_mult": draw.choice([1.0, 2, 1.5, 1.15, 1.4, 0.7]),
        "start_value_mult": draw.choice([1.0, 0.8, 1.1]),
        "end_value_mult": draw.choice([1.0, 0.9]),
        "warmup_duration": draw.choice([0, draw.randint(1, 20)]),
    }
    ours = presets.ignite_cosine(**given)
    # Ignite refuses nothing, but fails at the first cycle of no events.
    stop = ours.cycles()[5].stop if ours.total_steps is None else ours.total_steps
    pairs = ignite.CosineAnnealingScheduler.simulate_values(
        num_events=stop, param_name="lr", **given
    )
    top = max(ours.rates(0, stop))
    # Start and end values are multiplied in place, a rounding for each cycle;
    # ours come from powers: an ulp for the power and two roundings more.
    bound = cosine_error(top, top, angle=2, roundings=6 + 12)
    Comparison(ours)([float(value) for _, value in pairs], bound)


@pytest.fixture(scope="module")
def composer() -> SimpleNamespace:
    """Composer's own time and scheduler files; of its State, only what they read."""
    strings = bare("composer.utils.string_enum")
    time = bare("composer.core.time", composer__utils={"StringEnum": strings.StringEnum})
    core = {"State": object, "Time": time.Time, "TimeUnit": time.TimeUnit}
    schedulers = bare("composer.optim.scheduler", composer__core=core)
    return SimpleNamespace(time=time, schedulers=schedulers)


@pytest.mark.parametrize("case", SETS)
def test_composer(case: int, composer: SimpleNamespace) -> None:
    draw = random.Random(f"composer {case}")
    peak = 10 ** draw.uniform(-4, 1)
    t_0 = draw.randint(1, 60)
    t_mult = draw.choice([1.0, 2.0, 1.5, 1.15, 1.4, 0.7])
    alpha = draw.choice([0.0, 1.0, draw.random()])
    ours = presets.composer_warm_restarts(peak, t_0, t_mult, alpha)
    theirs = composer.schedulers.CosineAnnealingWarmRestartsScheduler(f"{t_0}ba", t_mult, alpha)
    time = composer.time

    def at(step: int) -> Any:
        timestamp = SimpleNamespace(get=lambda unit: time.Time(step, unit))
        return SimpleNamespace(timestamp=timestamp, max_duration=time.Time(10**6, "ba"))

    stop = ours.total_steps or ours.cycles()[6].stop
    values = [peak * theirs(at(step)) for step in range(stop)]
    Comparison(ours)(values, cosine_error(peak * (1 - alpha), peak, angle=2, roundings=4))
    if ours.total_steps is not None:
        with pytest.raises(ValueError, match="decayed to 0"):
            theirs(at(stop))


@pytest.fixture(scope="module")
def mmengine() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmengine.optim import scheduler
    return scheduler


@pytest.mark.parametrize("case", SETS)
def test_mmengine(case: int, mmengine: Any) -> None:
    """Its recursion drifts from the closed form by 4 u of the peak a step, and no more.

    The factors (1 + cos) are the same floats in numerator and next denominator;
    what remains are 3 roundings of the height and 1 of the rate, which the fall
    then shrinks.
    """
    draw = random.Random(f"mmengine {case}")
    base = 10 ** draw.uniform(-4, 1)
    periods = [draw.randint(1, 60) for _ in range(draw.randint(1, 4))]
    periods += draw.choice([[], [periods[-1]] * 2])
    weights = [draw.choice([1.0, 0.5, 1.2]) for _ in periods]
    weights[-2:] = [weights[-1]] * len(weights[-2:])
    low = draw.choice([0.0, 0.4 * draw.random()])
    given = {"eta_min": base * low} if case % 2 else {"eta_min_ratio": low}
    ours = presets.mmengine_cosine_restart(base, periods, weights, **given)
    assert ours.total_steps == sum(periods)
    updater = optimizer(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = mmengine.CosineRestartLR(
            updater, periods=periods, restart_weights=weights, **given
        )
        values = [rate_of(updater)]
        for _ in range(sum(periods) + 2 * periods[-1]):
            scheduler.step()
            values.append(rate_of(updater))
    top = base * max(weights)
    bound = cosine_error(top, top, angle=2) + 4 * U64 * top * max(periods)
    Comparison(ours)(values, bound)


@pytest.fixture(scope="module")
def fastai() -> dict[str, Any]:
    """The functions behind fit_sgdr, from fastai's file: fastai itself needs much more."""
    from fastcore.foundation import L

    names = ("sched_cos", "SchedCos", "combine_scheds")
    annealer = bare_annealer()
    return functions_of(
        "fastai",
        "callback/schedule.py",
        names,
        L=L,
        math=math,
        torch=torch,
        tensor=torch.tensor,
        _Annealer=annealer,
    )


def bare_annealer() -> Callable[..., Any]:
    """What fastai's class _Annealer does: it holds a function's first two arguments."""
    return lambda f, start, end: lambda position: f(start, end, position)


@pytest.mark.parametrize("case", range(48))
def test_fastai(case: int, fastai: dict[str, Any]) -> None:
    draw = random.Random(f"fastai {case}")
    lr = 10 ** draw.uniform(-4, 1)
    cycle_mult = draw.choice([2, 2, 3])
    n_cycles, cycle_len, batches = draw.randint(1, 4), draw.randint(1, 3), draw.randint(1, 12)
    ours = presets.fastai_sgdr(lr, n_cycles, cycle_len, cycle_mult, batches)
    # As fit_sgdr puts them together.
    n_epoch = cycle_len * (cycle_mult**n_cycles - 1) // (cycle_mult - 1)
    shares = [cycle_len * cycle_mult**i / n_epoch for i in range(n_cycles)]
    cosines = [fastai["SchedCos"](lr, 0) for _ in range(n_cycles)]
    schedule = fastai["combine_scheds"](shares, cosines)
    values = []
    for epoch in range(n_epoch):
        position = epoch / n_epoch
        for _ in range(batches):
            values.append(float(schedule(position)))
            position += 1 / (batches * n_epoch)
    assert len(values) == ours.total_steps
    ends = list(itertools.accumulate(shares))

    def bound(step: int) -> float:
        # float32 positions in [0, 1], summed and subtracted (6 roundings),
        # relative to the cycle's share of the run.
        share = ours.cycle_at(step).length / len(values)
        return cosine_error(lr, lr, angle=1 + 6 / share, u=U32)

    def off_by_one(step: int) -> float | None:
        """A float32 position may fall on the wrong side of a restart."""
        return 0.0 if ours.cycle_at(step).start == step > 0 else None

    assert ends[-1] == pytest.approx(1)
    Comparison(ours)(values, bound, defect=off_by_one)
