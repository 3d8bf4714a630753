"""A schedule extended: what stays is the same bit for bit, and what comes after fills the rest."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cosanneal as ca
from cosanneal import presets
from tests.shared.arguments import ARGUMENTS
from tests.shared.oracle import KINDS, Oracle, RandomPicker, Worst, arguments, curve_at, decimal
from tests.shared.plain import plain

SIX: dict[str, Any] = {"max_lr": 0.2, "total_steps": 600, "num_cycles": 6}


def bounds(schedule: ca.Schedule) -> list[tuple[int, int]]:
    return [(cycle.start, cycle.stop) for cycle in schedule.cycles()]


def lengths_after(given: dict[str, Any], kept: int, count: int) -> list[Fraction]:
    """The exact lengths of the cycles that would follow, from the arguments' definition."""
    plan = Oracle(**given)
    steps: Any = given.get("cycle_steps")
    mult = Fraction(str(given.get("cycle_mult", 1)))
    if isinstance(steps, list):
        listed = [Fraction(each) for each in steps]
        return (listed[kept:] + [listed[-1]] * count)[:count]
    if "total_steps" in given:
        cycles = plan.num_cycles or 0
        first = given["total_steps"] / sum((mult**i for i in range(cycles)), Fraction(0))
    else:
        first = Fraction(steps)
    return [first * mult**i for i in range(kept, kept + count)]


def boundary_of(given: dict[str, Any], kept: int) -> Fraction:
    """The exact boundary at which a cycle begins."""
    if isinstance(given.get("cycle_steps"), list):
        return Fraction(sum(given["cycle_steps"][:kept]))
    return sum(lengths_after(given, 0, kept), Fraction(0))


@pytest.mark.parametrize("kind", KINDS)
def test_what_stays_is_the_same_and_the_rest_is_cut_exactly(kind: str) -> None:
    pick = RandomPicker(f"extended {kind}")
    worst, looked = Worst(), 0
    for _ in range(60):
        given = arguments(pick, kind, largest=4000, cycles=9)
        # Warmups are looked at below: here they may be longer than what is left.
        given.pop("warmup_steps", None)
        given.pop("restart_warmup_steps", None)
        given.pop("warmup_lr", None)
        given["min_lr"] = 0.0
        schedule, plan = ca.CyclicCosine(**given), Oracle(**given)
        count = plan.num_cycles or 5
        kept, new = pick.integer(1, count), pick.integer(1, 6)
        at, lengths = plan.start(kept), lengths_after(given, kept, new)
        begin = boundary_of(given, kept)
        least = math.ceil(sum(lengths) / min(lengths)) + 1
        total = at + least + pick.integer(0, 3000)
        longer = schedule.extended(at=at, num_cycles=new, total_steps=total)
        assert list(longer.segments(0, at)) == list(schedule.segments(0, at))
        assert longer.rates(0, at) == schedule.rates(0, at)
        assert longer.cycles()[:kept] == schedule.cycles()[:kept]
        assert (longer.total_steps, longer.num_cycles) == (total, kept + new)
        scale = (total - begin) / sum(lengths)
        ends = [begin + scale * sum(lengths[:i]) for i in range(new + 1)]
        stops = [math.floor(end) for end in ends]
        assert bounds(longer)[kept:] == list(pairwise(stops))
        for i, (start, stop) in enumerate(pairwise(stops), kept):
            cycle = longer.cycles()[i]
            assert cycle.index == i
            steps = stop - start - given["endpoint"]
            for step in {start, stop - 1, pick.integer(start, stop - 1)}:
                if steps == 0:
                    assert longer.rate(step) == 0
                    continue
                exact = curve_at(
                    Fraction(step - start, steps), first=plan.peak(i), last=decimal(0.0)
                )
                if exact:
                    worst.see(longer.rate(step), exact, f"{given}, {step}")
                    looked += 1
        assert ca.Schedule.from_dict(json.loads(json.dumps(longer.to_dict()))) == longer
    assert looked > 200
    assert worst.ulps <= 8, worst


LONGER: list[dict[str, Any]] = [
    {"cycle_steps": 10},
    {"cycle_steps": 10, "cycle_mult": 2},
    {"cycle_steps": 100, "cycle_mult": 0.9, "cycle_decay": 0.9},
    {"cycle_steps": 7, "cycle_mult": 1.3, "min_lr": 0.01, "endpoint": True},
    {"cycle_steps": 30, "warmup_steps": 8, "restart_warmup_steps": 3, "cycle_decay": 0.5},
    {"cycle_steps": 30, "warmup_steps": 8},
    {"cycle_steps": 9, "warmup_steps": 2, "restart_warmup_steps": 2, "min_lr": 0.001},
]


@pytest.mark.parametrize("given", LONGER, ids=str)
@pytest.mark.parametrize("have", [2, 5])
@pytest.mark.parametrize("new", [1, 4])
def test_without_an_end_the_cycles_go_on_as_they_would(
    given: dict[str, Any], have: int, new: int
) -> None:
    schedule = ca.CyclicCosine(0.2, num_cycles=have, **given)
    assert schedule.extended(num_cycles=new) == ca.CyclicCosine(0.2, num_cycles=have + new, **given)
    # One without an end, or with a later one, is cut.
    if Fraction(str(given.get("cycle_mult", 1))) >= 1:
        endless = ca.CyclicCosine(0.2, **given)
        assert endless.extended(num_cycles=new, at=schedule.total_steps) == (
            ca.CyclicCosine(0.2, num_cycles=have + new, **given)
        )
    many = ca.CyclicCosine(0.2, num_cycles=12, **given)
    assert many.extended(num_cycles=new, at=schedule.total_steps) == (
        ca.CyclicCosine(0.2, num_cycles=have + new, **given)
    )


def test_the_warmup_of_an_only_cycle_does_not_come_again() -> None:
    one = ca.CyclicCosine(0.2, cycle_steps=30, num_cycles=1, warmup_steps=8, warmup_lr=0.1)
    two = ca.CyclicCosine(0.2, cycle_steps=30, num_cycles=2, warmup_steps=8, warmup_lr=0.1)
    assert one.extended(num_cycles=1) == two
    assert one.extended(num_cycles=1).rate(30) == 0.2


def test_cycles_that_are_left_take_the_rest_of_another_budget() -> None:
    schedule = ca.CyclicCosine(**SIX)
    half = schedule.extended(at=300, total_steps=450)
    assert half.num_cycles == 6
    assert [stop for _, stop in bounds(half)] == [100, 200, 300, 350, 400, 450]
    listed = ca.CyclicCosine(0.1, cycle_steps=[10, 20, 30, 40])
    assert bounds(listed.extended(at=30, total_steps=65))[2:] == [(30, 45), (45, 65)]
    assert bounds(listed.extended(at=30, num_cycles=3))[2:] == [(30, 60), (60, 100), (100, 140)]
    growing = ca.CyclicCosine(0.1, cycle_steps=10, cycle_mult=2, num_cycles=4)
    assert bounds(growing.extended(at=30, total_steps=90))[2:] == [(30, 50), (50, 90)]


def test_a_budget_of_fractions_goes_on_from_its_exact_boundary() -> None:
    thirds = ca.CyclicCosine(0.1, total_steps=100, num_cycles=3)
    assert thirds.extended(at=33, total_steps=100) == thirds
    assert thirds.extended(at=66, num_cycles=1) == thirds
    longer = thirds.extended(at=33, total_steps=200, num_cycles=7)
    b = Fraction(100, 3)
    assert [start for start, _ in bounds(longer)[1:]] == [
        math.floor(b + (200 - b) * j / 7) for j in range(7)
    ]


def test_peaks_and_warmups_of_the_new_cycles() -> None:
    schedule = ca.CyclicCosine(0.2, cycle_steps=10, num_cycles=3, cycle_decay=0.7, min_lr=0.01)
    higher = schedule.extended(num_cycles=3, max_lr=0.3, restart_warmup_steps=4)
    peaks = [cycle.max_lr for cycle in higher.cycles()]
    assert peaks[:3] == [cycle.max_lr for cycle in schedule.cycles()]
    assert peaks[3] == 0.3
    assert peaks[4:] == pytest.approx([0.3 * 0.7, 0.3 * 0.49], rel=1e-15)
    assert higher.rates(30, 35) == pytest.approx([0.01, 0.0825, 0.155, 0.2275, 0.3], rel=1e-15)
    assert higher.rate(34) == 0.3
    assert higher.rate(60) == 0.01
    plain = ca.CyclicCosine(0.2, cycle_steps=10, num_cycles=3, warmup_steps=2)
    higher = plain.extended(num_cycles=2, max_lr=0.4)
    assert [cycle.max_lr for cycle in higher.cycles()] == [0.2, 0.2, 0.2, 0.4, 0.4]
    warmed = ca.CyclicCosine(0.2, cycle_steps=10, num_cycles=3, restart_warmup_steps=3)
    assert warmed.extended(num_cycles=1, restart_warmup_steps=0).rate(30) == 0.2
    assert warmed.extended(num_cycles=1).rate(30) == 0.0
    flat = ca.CyclicCosine(0.2, cycle_steps=10, num_cycles=2, min_lr=0.2)
    again = flat.extended(num_cycles=1, max_lr=0.5)
    assert (again.rate(20), again.rate(30)) == (0.5, 0.2)


@pytest.mark.parametrize("name", sorted(presets.__all__))
@given(data=st.data())
def test_every_preset_can_be_extended(name: str, data: st.DataObject) -> None:
    schedule = getattr(presets, name)(**data.draw(ARGUMENTS[name]))
    count = schedule.num_cycles
    kept = data.draw(st.integers(1, min(count or 4, 6)))
    at = schedule.cycles()[kept - 1].stop
    if at > 10**5:
        return
    try:
        longer = schedule.extended(at=at, num_cycles=2)
    except ca.ScheduleError as error:  # it shrinks to nothing
        assert "step" in str(error)  # noqa: PT017
        return
    assert list(longer.segments(0, at)) == list(schedule.segments(0, at))
    assert longer.num_cycles == kept + 2
    assert longer.cycles()[:kept] == schedule.cycles()[:kept]
    if count is None or kept + 2 <= count:
        assert longer.cycles()[:] == schedule.cycles()[: kept + 2]
        end = longer.total_steps
        assert list(longer.segments(0, end)) == list(schedule.segments(0, end))
    total = longer.total_steps + 50
    cut = schedule.extended(at=at, num_cycles=2, total_steps=total)
    assert (cut.total_steps, cut.num_cycles) == (total, kept + 2)
    assert list(cut.segments(0, at)) == list(schedule.segments(0, at))


def test_other_peaks_of_lengths_that_are_rounded_in_place() -> None:
    schedule = presets.ignite_cosine(0.1, 0.02, 10, 1.5, 0.9, 0.8, warmup_duration=4)
    at = schedule.cycles()[1].stop
    higher = schedule.extended(at=at, num_cycles=3, max_lr=0.5)
    assert [each.length for each in higher.cycles()] == [
        each.length for each in schedule.cycles()[:5]
    ]
    assert higher.cycles()[2].max_lr == 0.5
    ratios = [
        b.max_lr / a.max_lr
        for a, b in zip(schedule.cycles()[2:5], higher.cycles()[2:], strict=True)
    ]
    assert ratios == pytest.approx([ratios[0]] * 3, rel=1e-14)
    assert [each.min_lr for each in higher.cycles()] == [
        each.min_lr for each in schedule.cycles()[:5]
    ]


def test_an_extended_schedule_is_lowered_into_a_graph() -> None:
    from cosanneal.core.graph import evaluate
    from tests.shared.plain import Plain

    schedule = ca.CyclicCosine(0.2, cycle_steps=7, cycle_mult=1.3, cycle_decay=0.9, num_cycles=4)
    longer = schedule.extended(num_cycles=3, total_steps=200, max_lr=0.3, restart_warmup_steps=2)
    table = plain(longer, wide=True)
    for step in range(210):
        assert evaluate(table, step, Plain()) == pytest.approx(longer.rate(step), rel=1e-13)


ENDLESS = {"max_lr": 0.1, "cycle_steps": 10}


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        (ENDLESS, {"num_cycles": 2}, r"`at` must be given, since this schedule has no end"),
        (SIX, {}, r"at least one of the arguments `num_cycles` and `total_steps`.*neither"),
        (SIX, {"total_steps": 900}, r"`num_cycles` must be given.*and none after step 600"),
        (
            ENDLESS,
            {"total_steps": 90, "at": 30},
            r"`num_cycles` must be given.*cycles without end after step 30",
        ),
        (SIX, {"num_cycles": 1, "at": 150}, r"at=150, in cycle 1; near it .* at 100 and 200"),
        (SIX, {"num_cycles": 1, "at": 99}, r"at=99, in cycle 0; near it a cycle ends at 100"),
        (SIX, {"num_cycles": 1, "at": 0}, r"at=0, in cycle 0; near it a cycle ends at 100"),
        (SIX, {"num_cycles": 1, "at": 700}, r"at=700, and the last one ends at 600"),
        (SIX, {"num_cycles": 1, "at": -1}, r"`at` must be an integer of at least 0"),
        (SIX, {"num_cycles": 1, "at": 1.5}, r"`at` must be an integer"),
        (SIX, {"num_cycles": 0}, r"`num_cycles` must be a positive integer"),
        (SIX, {"num_cycles": True}, r"`num_cycles` must be a positive integer"),
        (SIX, {"num_cycles": 2, "total_steps": "9"}, r"`total_steps` must be a positive integer"),
        (
            SIX,
            {"num_cycles": 2, "total_steps": 600},
            r"whole length, counted from step 0.*total_steps=600, for 2 new cycles after step 600",
        ),
        (SIX, {"num_cycles": 3, "total_steps": 602}, r"leave each new cycle a step.*3 new cycles"),
        (SIX, {"num_cycles": 1, "max_lr": -0.1}, r"`max_lr` must be a finite number"),
        (
            {**SIX, "min_lr": 0.1},
            {"num_cycles": 1, "max_lr": 0.05},
            r"`max_lr` must not lie below the floor.*max_lr=0\.05, for cycle 6 from 0\.2 to 0\.1",
        ),
        (
            {**SIX, "max_lr": 0.0},
            {"num_cycles": 1, "max_lr": 0.05},
            r"`max_lr` must .*replace a peak that is above it.*from 0 to 0",
        ),
        (SIX, {"num_cycles": 1, "restart_warmup_steps": -1}, r"`restart_warmup_steps` must be"),
        (
            SIX,
            {"num_cycles": 1, "restart_warmup_steps": 100},
            r"cycle 6 must have at least 101 steps.*arguments were num_cycles=1, .*at=600",
        ),
        (
            {"max_lr": 0.1, "cycle_steps": 64, "cycle_mult": 0.5, "num_cycles": 7},
            {"num_cycles": 1},
            r"cycle 7 must have at least 1 step",
        ),
        (
            {"max_lr": 0.1, "cycle_steps": 10, "cycle_mult": 2, "num_cycles": 2},
            {"num_cycles": 200, "total_steps": 10**6},
            r"`num_cycles` must leave every cycle at least one step",
        ),
        (
            {"max_lr": 0.1, "cycle_steps": 10, "cycle_mult": 2, "num_cycles": 2},
            {"num_cycles": 20, "total_steps": 1000},
            r"must be .* of at least 1.*arguments were num_cycles=20, total_steps=1000",
        ),
        (
            {"max_lr": 0.1, "cycle_steps": 10, "cycle_mult": 2, "num_cycles": 2},
            {"num_cycles": 100},
            r"must do so within 2\*\*63 steps",
        ),
    ],
)
def test_what_cannot_be_is_said(
    schedule: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ca.ScheduleError, match=message):
        ca.CyclicCosine(**schedule).extended(**options)
