"""The range test beside the exponential, and the suggested peak on losses that are known."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

import cosanneal as ca
from cosanneal import ScheduleError

LOW, HIGH = 1e-4, 10.0


def losses_of(rates: list[float], *, noise: float = 0.0, seed: int = 0) -> list[float]:
    """A loss that falls about a rate of 0.01, and rises from about 1 on."""
    normal = random.Random(seed).gauss
    return [2 / (1 + 100 * x) + x**2 / 4 + normal(0, noise) for x in rates]


@pytest.mark.parametrize("steps", [20, 21, 100, 1000, 12_345])
@pytest.mark.parametrize("high", [2e-4, 1.0, 1e3])
def test_the_rate_rises_along_the_exponential(steps: int, high: float) -> None:
    rates = list(ca.range_test(LOW, high, total_steps=steps).rates(0, steps))
    assert rates[0] == LOW
    assert rates[-1] == high
    assert all(b > a for a, b in pairwise(rates))
    exact = [LOW * (high / LOW) ** (i / (steps - 1)) for i in range(steps)]
    away = max(abs(rate / x - 1) for rate, x in zip(rates, exact, strict=True))
    assert away < (0.011 if steps > 8 * math.log10(high / LOW) + 1 else 1e-12)


def test_it_is_one_cycle_that_holds_its_last_rate() -> None:
    schedule = ca.range_test(LOW, HIGH, total_steps=50)
    assert (schedule.total_steps, schedule.num_cycles) == (50, 1)
    assert schedule.cycle_ends() == [49]
    assert schedule.rate(1000) == HIGH
    assert ca.Schedule.from_dict(schedule.to_dict()) == schedule


def test_rates_over_nearly_all_floats() -> None:
    rates = ca.range_test(1e-300, 1e300, total_steps=61).rates(0, 61)
    for i, rate in enumerate(rates):
        assert rate == pytest.approx(10.0 ** (10 * i - 300), rel=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "steps", "message"),
    [
        (0.0, 1.0, 100, "`min_lr` must be positive and below `max_lr`"),
        (0.1, 0.1, 100, "`min_lr` must be positive and below `max_lr`"),
        (1.0, 0.1, 100, r"Received: min_lr=1\.0, max_lr=0\.1"),
        (math.nan, 0.1, 100, "`min_lr` must be a finite number"),
        (0.1, math.inf, 100, "`max_lr` must be a finite number"),
        (0.1, 1.0, 19, "`total_steps` must be at least 20: .* Received: total_steps=19"),
        (0.1, 1.0, True, "`total_steps` must be an integer"),
    ],
)
def test_what_cannot_be_is_refused(low: float, high: float, steps: int, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        ca.range_test(low, high, total_steps=steps)


@pytest.mark.parametrize("steps", [20, 60, 200, 2000])
def test_the_suggestion_is_where_nine_tenths_of_the_fall_are_done(steps: int) -> None:
    rates = list(ca.range_test(LOW, HIGH, total_steps=steps).rates(0, steps))
    losses = losses_of(rates)
    # By a quadrature over the logarithm of the rate, in place of the sum over the updates.
    logs = [math.log(LOW) + math.log(HIGH / LOW) * i / 4000 for i in range(4001)]
    truth = [min(2 / (1 + 100 * math.exp(x)) + math.exp(2 * x) / 4, 4.0) for x in logs]

    def smooth(at: float) -> float:
        weights = [math.exp(-((x - at) ** 2) / 2) for x in logs]
        return sum(w * y for w, y in zip(weights, truth, strict=True)) / sum(weights)

    curve = [smooth(x) for x in logs[::20]]
    start = sorted(curve[:20])[10]
    limit = start - 0.9 * (start - min(curve))
    expected = next(math.exp(x) for x, y in zip(logs[::20], curve, strict=True) if y <= limit)
    step = (HIGH / LOW) ** (1 / min(steps - 1, 199))
    assert ca.suggest_max_lr(rates, losses) == pytest.approx(expected, rel=1.3 * step - 1)


def test_noise_moves_it_little() -> None:
    rates = list(ca.range_test(LOW, HIGH, total_steps=150).rates(0, 150))
    exact = ca.suggest_max_lr(rates, losses_of(rates))
    for seed in range(20):
        noisy = ca.suggest_max_lr(rates, losses_of(rates, noise=0.2, seed=seed))
        assert 1 / 2 < noisy / exact < 2


@pytest.mark.parametrize(("scale", "shift"), [(1000.0, 0.0), (1.0, -50.0), (1e-6, 3.0)])
def test_units_of_the_loss_do_not_matter(scale: float, shift: float) -> None:
    rates = list(ca.range_test(LOW, HIGH, total_steps=100).rates(0, 100))
    losses = losses_of(rates, noise=0.05)
    moved = [scale * loss + shift for loss in losses]
    assert ca.suggest_max_lr(rates, moved) == ca.suggest_max_lr(rates, losses)


@pytest.mark.parametrize("end", [math.inf, math.nan, 1e30])
def test_a_run_that_breaks_is_read_up_to_there(end: float) -> None:
    rates = list(ca.range_test(LOW, HIGH, total_steps=100).rates(0, 100))
    losses = losses_of(rates)
    whole = ca.suggest_max_lr(rates, losses)
    broken = [*losses[:90], *[end] * 10]
    assert ca.suggest_max_lr(rates, broken) == pytest.approx(whole, rel=0.2)
    if not math.isfinite(end):  # and where the loop stopped there
        assert ca.suggest_max_lr(rates, [*losses[:90], end]) == ca.suggest_max_lr(rates, broken)


def test_a_smaller_share_is_a_lower_rate() -> None:
    rates = list(ca.range_test(LOW, HIGH, total_steps=100).rates(0, 100))
    found = [ca.suggest_max_lr(rates, losses_of(rates), share=s) for s in (0.2, 0.5, 0.8, 0.95)]
    assert found == sorted(set(found))


@pytest.mark.parametrize("seed", range(10))
def test_a_loss_that_only_rises_or_is_noise_is_refused(seed: int) -> None:
    normal = random.Random(seed).gauss
    rates = list(ca.range_test(LOW, HIGH, total_steps=100).rates(0, 100))
    for losses in ([1 + normal(0, 0.1) for _ in rates], [1 + x for x in rates], [1.0] * 100):
        with pytest.raises(ScheduleError, match="`losses` must fall somewhere"):
            ca.suggest_max_lr(rates, losses)


@pytest.mark.parametrize(
    ("rates", "losses", "message"),
    [
        ([], [], "at least 20 finite entries. Received: 0"),
        ([0.1], [1.0], "at least 20 finite entries. Received: 1"),
        (range(1, 31), [1.0] * 29, "Received: 30 rates and 29 losses"),
        (range(1, 30), [1.0] * 30, "Received: 29 rates and 30 losses"),
        (range(1, 31), [*[1.0] * 10, math.nan, *[1.0] * 19], "Received: 10"),
        ([0.1] * 30, [1.0] * 30, r"rise from update to update\. Received: rates\[1\]=0\.1 after"),
        (range(30), [1.0] * 30, r"must be positive .* rates\[0\]=0"),
        ([*range(1, 30), math.nan], [1.0] * 30, r"rates\[29\]=nan after 29"),
    ],
)
def test_arrays_that_cannot_be_are_refused(
    rates: list[float], losses: list[float], message: str
) -> None:
    with pytest.raises(ScheduleError, match=message):
        ca.suggest_max_lr(rates, losses)


@pytest.mark.parametrize("share", [0, 1, -0.5, 2, "much"])
def test_a_share_that_cannot_be_is_refused(share: float) -> None:
    with pytest.raises(ScheduleError, match="`share` must"):
        ca.suggest_max_lr([], [], share=share)
