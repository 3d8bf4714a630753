"""CyclicCosine: peaks, floors and boundaries exactly; every rate within 8 ulp of the exact one."""

from __future__ import annotations

from typing import Any

import pytest

import cosanneal as ca
from tests.shared.oracle import (
    FINITE_KINDS,
    KINDS,
    Oracle,
    RandomPicker,
    Worst,
    arguments,
    decimal,
    size,
    steps_worth_a_look,
    ulps,
)

SCHEDULES = 150  # of each kind


def _some_cycles(pick: RandomPicker, plan: Oracle) -> set[int]:
    last = plan.cycle_of(2**62) if plan.num_cycles is None else plan.num_cycles - 1
    return {0, min(1, last), last, size(pick, 0, last)}


def _single_step(plan: Oracle, i: int) -> bool:
    """Whether the cycle's annealing is one step, which endpoint=True gives to the floor."""
    return plan.endpoint and plan.start(i + 1) - plan.start(i) - plan.warmup_of(i) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_rate_at_every_restart_is_exactly_the_peak(kind: str) -> None:
    pick = RandomPicker(f"peak {kind}")
    restarts = 0
    for _ in range(SCHEDULES):
        given = arguments(pick, kind)
        schedule, plan = ca.CyclicCosine(**given), Oracle(**given)
        for i in _some_cycles(pick, plan):
            if _single_step(plan, i):
                continue
            peak = schedule.cycles()[i].max_lr
            assert schedule.rate(plan.start(i) + plan.warmup_of(i)) == peak, (given, i)
            if "cycle_decay" not in given:
                assert peak == given["max_lr"]
            restarts += 1
    assert restarts > SCHEDULES


@pytest.mark.parametrize("kind", KINDS)
def test_last_step_is_exactly_the_floor_with_endpoint_and_above_it_without(kind: str) -> None:
    pick = RandomPicker(f"floor {kind}")
    for _ in range(SCHEDULES):
        given = arguments(pick, kind)
        floor = given.get("min_lr", 0.0)
        given["endpoint"] = True
        plan, to_the_floor = Oracle(**given), ca.CyclicCosine(**given)
        above_it = ca.CyclicCosine(**given | {"endpoint": False})
        for i in _some_cycles(pick, plan):
            last = plan.start(i + 1) - 1
            assert to_the_floor.rate(last) == floor, (given, i)
            assert above_it.rate(last) >= floor, (given, i)
    short = ca.CyclicCosine(0.1, cycle_steps=10, min_lr=0.05)
    assert short.rate(9) > 0.05


@pytest.mark.parametrize("kind", FINITE_KINDS)
def test_rate_after_a_finite_schedule_is_exactly_the_floor(kind: str) -> None:
    pick = RandomPicker(f"after {kind}")
    for _ in range(SCHEDULES):
        given = arguments(pick, kind)
        schedule, total = ca.CyclicCosine(**given), Oracle(**given).total_steps
        assert total is not None
        assert schedule.total_steps == total
        for beyond in (0, 1, pick.integer(0, 2**62), 10**30):
            assert schedule.rate(total + beyond) == given.get("min_lr", 0.0), given


@pytest.mark.parametrize("kind", KINDS)
def test_rate_stays_between_floor_and_peak(kind: str) -> None:
    pick = RandomPicker(f"range {kind}")
    for _ in range(SCHEDULES):
        given = arguments(pick, kind)
        schedule, plan = ca.CyclicCosine(**given), Oracle(**given)
        floor = given.get("min_lr", 0.0)
        for i in _some_cycles(pick, plan):
            start, stop, peak = plan.start(i), plan.start(i + 1), schedule.cycles()[i].max_lr
            for step in {start, stop - 1, *(pick.integer(start, stop - 1) for _ in range(8))}:
                rate = schedule.rate(step)
                in_warmup = i == 0 and step < start + plan.warmup_of(0)
                lowest = given["warmup_lr"] if in_warmup else floor
                assert lowest <= rate <= peak, (given, step)


def test_rate_at_step_0_is_the_warmup_rate_and_rises_on_a_line() -> None:
    schedule = ca.CyclicCosine(1.0, cycle_steps=20, warmup_steps=8, warmup_lr=0.5)
    assert schedule.rates(0, 9) == [0.5 + i / 16 for i in range(9)]


def test_restart_warmup_rises_from_the_floor_in_later_cycles_only() -> None:
    schedule = ca.CyclicCosine(
        1.0, cycle_steps=20, num_cycles=2, min_lr=0.5, cycle_decay=0.75, restart_warmup_steps=4
    )
    assert schedule.rate(0) == 1.0
    assert schedule.rates(20, 25) == [0.5, 0.5625, 0.625, 0.6875, 0.75]


def test_total_budget_is_tiled_exactly() -> None:
    for total in range(1, 61):
        for count in range(1, total + 1):
            schedule = ca.CyclicCosine(0.1, total_steps=total, num_cycles=count)
            cycles = list(schedule.cycles())
            assert len(cycles) == len(schedule.cycles()) == schedule.num_cycles == count
            assert [cycle.index for cycle in cycles] == list(range(count))
            assert [0, *(cycle.stop for cycle in cycles)] == [
                *(cycle.start for cycle in cycles),
                total,
            ]
            lengths = [cycle.length for cycle in cycles]
            assert sum(lengths) == total
            assert max(lengths) - min(lengths) <= 1
            assert min(lengths) >= 1
            assert schedule.cycle_ends() == [cycle.last_step for cycle in cycles]
            assert schedule.cycle_ends()[-1] == total - 1


@pytest.mark.parametrize("mult", [1.1, 1.5, 2, 0.9, 0.5])
def test_growing_budget_is_tiled_exactly(mult: float) -> None:
    for total in range(64, 1000, 37):
        for count in range(1, 6):
            given: dict[str, Any] = {
                "total_steps": total,
                "num_cycles": count,
                "cycle_mult": mult,
            }
            cycles = list(ca.CyclicCosine(0.1, **given).cycles())
            plan = Oracle(0.1, **given)
            starts = [plan.start(i) for i in range(count + 1)]
            assert [cycle.start for cycle in cycles] == starts[:-1]
            assert [cycle.stop for cycle in cycles] == starts[1:]
            assert starts[-1] == total


@pytest.mark.parametrize("warmup", range(1, 8))
def test_every_cycle_of_a_budget_keeps_a_step_to_anneal_or_is_refused(warmup: int) -> None:
    accepted = 0
    for total in range(8, 61):
        for count in range(2, total // warmup + 1):
            try:
                schedule = ca.CyclicCosine(
                    0.1, total_steps=total, num_cycles=count, restart_warmup_steps=warmup
                )
            except ca.ScheduleError:
                continue
            accepted += 1
            shortest = min(cycle.length for cycle in list(schedule.cycles())[1:])
            assert shortest > warmup, f"total_steps={total}, num_cycles={count}"
    assert accepted > 20


@pytest.mark.parametrize("warmup", range(1, 8))
def test_warmups_that_leave_a_step_to_anneal_are_accepted(warmup: int) -> None:
    for total in range(8, 61):
        for count in range(1, total // (warmup + 1) + 1):
            ca.CyclicCosine(
                0.1,
                total_steps=total,
                num_cycles=count,
                warmup_steps=warmup,
                restart_warmup_steps=warmup,
            )


def test_cycle_of_single_steps() -> None:
    assert ca.CyclicCosine(0.1, cycle_steps=1).rates(0, 3) == [0.1, 0.1, 0.1]
    assert ca.CyclicCosine(0.1, cycle_steps=1, endpoint=True).rates(0, 3) == [0.0, 0.0, 0.0]


def test_floor_equal_to_the_peak_is_a_constant() -> None:
    assert set(ca.CyclicCosine(0.1, cycle_steps=7, min_lr=0.1).rates(0, 30)) == {0.1}


def test_schedule_is_its_rate() -> None:
    schedule = ca.CyclicCosine(0.1, cycle_steps=7)
    assert [schedule(step) for step in range(20)] == schedule.rates(0, 20)


def test_rounding_the_height_up_does_not_lift_a_rate_above_the_peak() -> None:
    pick = RandomPicker("height")
    lifted = 0
    while lifted < 50:
        peak = pick.integer(1, 10**9) / 10**9
        floor = peak * pick.integer(1, 10**9) / 10**9
        if floor + (peak - floor) <= peak:
            continue
        lifted += 1
        # So long that the weight of the second step is 1 in float64.
        schedule = ca.CyclicCosine(peak, cycle_steps=10**9, min_lr=floor)
        assert schedule.rate(1) == schedule.rate(0) == peak


COMPARED = 400  # of each kind


CYCLES = 3  # of each schedule


COMPARISONS = 15_000  # at least, of each kind: more than 100,000 in all


# Worst seen: 5.45 ulp ("endless growing", with a decayed peak); 4.5 to 5.2 for
# the other kinds. Half of it is pi/2 and the quotient rounded, doubled by the
# square of the sine.
LIMIT = 8.0


@pytest.mark.parametrize("kind", KINDS)
def test_rate_is_within_8_ulp_of_the_exact_value(kind: str) -> None:
    pick = RandomPicker(kind)
    worst = Worst()
    for _ in range(COMPARED):
        given = arguments(pick, kind)
        schedule, plan = ca.CyclicCosine(**given), Oracle(**given)
        for _ in range(CYCLES):
            for step in steps_worth_a_look(pick, plan):
                where = f"rate({step}) of CyclicCosine(**{given})"
                worst.see(schedule.rate(step), plan.rate(step), where)
    assert worst.count >= COMPARISONS
    assert worst.ulps <= LIMIT, worst


def test_random_arguments_leave_nothing_out() -> None:
    seen: dict[str, set[bool]] = {}
    furthest = 0
    for kind in KINDS:
        pick = RandomPicker(kind)
        for _ in range(COMPARED):
            given = arguments(pick, kind)
            for name, value in given.items():
                seen.setdefault(name, set()).add(bool(value))
            plan = Oracle(**given)
            furthest = max([furthest, *steps_worth_a_look(pick, plan)])
    assert set(seen) == {
        *("max_lr", "total_steps", "cycle_steps", "num_cycles", "min_lr", "cycle_mult"),
        *("cycle_decay", "warmup_steps", "warmup_lr", "restart_warmup_steps", "endpoint"),
    }
    for name in ("min_lr", "warmup_steps", "warmup_lr", "restart_warmup_steps", "endpoint"):
        assert seen[name] == {False, True}, name
    assert furthest >= 2**61


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("endpoint", [False, True])
@pytest.mark.parametrize("steps", [4, 5, 6, 100, 4001])
def test_every_step_of_short_runs(steps: int, *, endpoint: bool, warmup: int) -> None:
    given: dict[str, Any] = {
        "max_lr": 0.1,
        "cycle_steps": [steps, steps + 1, steps],
        "min_lr": 0.003,
        "cycle_decay": 0.7,
        "warmup_steps": warmup,
        "restart_warmup_steps": warmup,
        "endpoint": endpoint,
    }
    schedule, plan = ca.CyclicCosine(**given), Oracle(**given)
    worst = Worst()
    for step in range(3 * steps + 4):
        worst.see(schedule.rate(step), plan.rate(step), f"rate({step}) of {given}")
    assert worst.ulps <= LIMIT, worst


@pytest.mark.parametrize("length", [10**6, 2**53 + 1, 2**62])
def test_last_steps_of_a_long_cycle_do_not_cancel(length: int) -> None:
    # Where 1 + cos gives 0 in float64, from about 1e8 steps on.
    given: dict[str, Any] = {"max_lr": 0.1, "total_steps": length, "num_cycles": 1}
    schedule, plan = ca.CyclicCosine(**given), Oracle(**given)
    worst = Worst()
    for left in (1, 2, 3, 10, 1000):
        rate = schedule.rate(length - left)
        assert rate > 0
        worst.see(rate, plan.rate(length - left), f"{left} steps before the end of {length}")
    assert worst.ulps <= LIMIT, worst


def test_budget_in_trillions_of_cycles() -> None:
    # Boundaries floor(T * i / M) of a budget that no float holds.
    total, cycles = 2**62 - 1, 10**12 + 39
    schedule = ca.CyclicCosine(0.3, total_steps=total, num_cycles=cycles, min_lr=1e-4)
    pick = RandomPicker("trillions")
    worst = Worst()
    for _ in range(2000):
        i = pick.integer(0, cycles - 1)
        start, stop = total * i // cycles, total * (i + 1) // cycles
        cycle = schedule.cycle_at(pick.integer(start, stop - 1))
        assert (cycle.index, cycle.start, cycle.stop) == (i, start, stop)
        plan = Oracle(0.3, cycle_steps=[stop - start], min_lr=1e-4)
        for step in (start, start + 1, stop - 1, pick.integer(start, stop - 1)):
            worst.see(schedule.rate(step), plan.rate(step - start), f"rate({step})")
    assert worst.ulps <= LIMIT, worst


def test_decayed_peaks_are_within_2_ulp() -> None:
    # A power and a product, each rounded: 1 ulp and a half.
    for decay in (0.9, 1 / 3, 0.999_999):
        schedule = ca.CyclicCosine(0.1, cycle_steps=10, cycle_decay=decay)
        plan = Oracle(0.1, cycle_steps=10, cycle_decay=decay)
        for i in (0, 1, 2, 7, 100, 640):
            assert ulps(schedule.cycles()[i].max_lr, plan.peak(i)) <= 2
        assert schedule.cycles()[0].max_lr == 0.1


def test_a_float_factor_means_the_decimal_it_is_written_as() -> None:
    # 1.1 holds a little more than 11/10, which in 10**17 steps makes some.
    by_float = ca.CyclicCosine(0.1, cycle_steps=10**17, num_cycles=3, cycle_mult=1.1)
    assert by_float.cycles()[2].start == 21 * 10**16
    binary = 10**17 + 10**17 * decimal(1.1)
    assert int(binary) != 21 * 10**16
