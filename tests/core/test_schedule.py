"""Laws that hold for every schedule, over random ones."""

from __future__ import annotations

import copy
import json
import operator
import pickle
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cosanneal as ca
from tests.shared.oracle import FINITE_KINDS, KINDS, Oracle, arguments

T = TypeVar("T")

SHORT = 240  # steps: few enough to look at every one


class DrawnPicker:
    """Choices of hypothesis, which shrinks them."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def one_of(self, values: Sequence[T]) -> T:
        return self._draw(st.sampled_from(values))


@st.composite
def all_arguments(
    draw: st.DrawFn, *, largest: int = SHORT, kinds: Sequence[str] = KINDS
) -> dict[str, Any]:
    return arguments(DrawnPicker(draw), draw(st.sampled_from(kinds)), largest=largest, cycles=12)


def short_schedules(kinds: Sequence[str] = KINDS) -> st.SearchStrategy[ca.Schedule]:
    return all_arguments(kinds=kinds).map(lambda given: ca.CyclicCosine(**given))


def long_schedules() -> st.SearchStrategy[ca.Schedule]:
    return all_arguments(largest=2**62).map(lambda given: ca.CyclicCosine(**given))


def _end(schedule: ca.Schedule) -> int:
    """How many steps to look at: all, or the first few hundred of an endless schedule."""
    return 2 * SHORT if schedule.total_steps is None else schedule.total_steps


steps = st.integers(0, 2**62)


@given(short_schedules())
def test_cycles_tile_the_steps(schedule: ca.Schedule) -> None:
    at = 0
    for index, cycle in enumerate(schedule.cycles()):
        assert (cycle.index, cycle.start) == (index, at)
        assert cycle.stop > cycle.start
        assert cycle.length == cycle.stop - cycle.start
        assert cycle.last_step == cycle.stop - 1
        at = cycle.stop
        if at >= _end(schedule):
            break
    assert at >= _end(schedule)
    if schedule.total_steps is not None:
        assert at == schedule.total_steps
        assert index + 1 == schedule.num_cycles


@given(all_arguments(largest=2**62), st.integers(0, 40))
def test_boundaries_are_those_of_the_definition(arguments: dict[str, Any], i: int) -> None:
    schedule, plan = ca.CyclicCosine(**arguments), Oracle(**arguments)
    if plan.num_cycles is not None:
        i %= plan.num_cycles
    cycle = schedule.cycles()[i]
    assert (cycle.index, cycle.start, cycle.stop) == (i, plan.start(i), plan.start(i + 1))
    assert cycle.min_lr == arguments.get("min_lr", 0.0)


@given(short_schedules())
def test_rate_falls_within_an_annealing(schedule: ca.Schedule) -> None:
    for segment in schedule.segments(0, _end(schedule)):
        if segment.curve == "linear":  # a warmup
            continue
        assert segment.stop is not None
        rates = schedule.rates(segment.start, segment.stop)
        assert all(now >= then for now, then in pairwise(rates))


@given(long_schedules(), st.lists(steps, min_size=2, max_size=30), steps)
def test_rate_falls_within_a_long_annealing(
    schedule: ca.Schedule, offsets: list[int], step: int
) -> None:
    if schedule.total_steps is not None:
        step %= schedule.total_steps
    cycle = schedule.cycle_at(step)
    annealing = list(schedule.segments(cycle.start, cycle.stop))[-1]
    start, span = annealing.start, cycle.stop - annealing.start
    rates = [
        schedule.rate(start + offset) for offset in sorted({offset % span for offset in offsets})
    ]
    assert rates == sorted(rates, reverse=True)


@given(long_schedules(), steps)
def test_cycle_at_contains_its_step(schedule: ca.Schedule, step: int) -> None:
    if schedule.total_steps is not None:
        step %= schedule.total_steps
    cycle = schedule.cycle_at(step)
    assert cycle.start <= step < cycle.stop
    assert cycle == schedule.cycle_at(cycle.start) == schedule.cycle_at(cycle.stop - 1)
    assert cycle == schedule.cycles()[cycle.index]
    if cycle.start:
        before = schedule.cycle_at(cycle.start - 1)
        assert (before.index, before.stop) == (cycle.index - 1, cycle.start)


@given(short_schedules(), st.lists(st.integers(0, 30), max_size=60))
def test_ends_agree_under_any_pattern_of_steps(schedule: ca.Schedule, jumps: list[int]) -> None:
    at = 0
    crossed: list[ca.Cycle] = []
    for jump in jumps:
        crossed += schedule.cycles_completed(at, at + jump)
        at += jump
    ends = [cycle.last_step for cycle in crossed]
    assert ends == [step for step in range(at) if schedule.is_cycle_end(step)]
    assert ends == schedule.cycle_ends(at)
    assert [cycle.index for cycle in crossed] == list(range(len(crossed)))
    assert tuple(crossed) == schedule.cycles_completed(0, at)


@given(short_schedules(FINITE_KINDS))
def test_a_finite_schedule_ends_with_its_last_cycle(schedule: ca.Schedule) -> None:
    total = schedule.total_steps
    assert total is not None
    assert schedule.cycle_ends() == schedule.cycle_ends(total) == schedule.cycle_ends(total + 99)
    assert schedule.cycle_ends(total - 1) == schedule.cycle_ends()[:-1]
    assert len(schedule.cycle_ends()) == schedule.num_cycles
    assert schedule.cycles_completed(total, total + 10**9) == ()
    assert not any(schedule.is_cycle_end(step) for step in range(total, total + 5))


@given(short_schedules())
def test_segments_tile_the_steps_and_give_its_rates(schedule: ca.Schedule) -> None:
    end = _end(schedule)
    at = 0
    for segment in schedule.segments(0, end):
        assert segment.start == at
        assert segment.stop is not None
        assert segment.stop > at
        rates = [segment.rate(step) for step in range(at, segment.stop)]
        assert rates == schedule.rates(at, segment.stop)
        at = segment.stop
    assert at >= end


@given(short_schedules(), st.integers(0, 2 * SHORT), st.integers(0, SHORT))
def test_segments_of_a_window_cover_just_the_window(
    schedule: ca.Schedule, start: int, length: int
) -> None:
    found = list(schedule.segments(start, start + length))
    ruled = [
        sum(row.start <= step and (row.stop is None or step < row.stop) for row in found)
        for step in range(start, start + length)
    ]
    assert ruled == [1] * length
    for row in found:  # and none beside it
        assert row.start < start + length
        assert row.stop is None or row.stop > start


@given(short_schedules(FINITE_KINDS), st.integers(0, 2**70))
def test_last_segment_of_a_finite_schedule_holds_the_floor(
    schedule: ca.Schedule, beyond: int
) -> None:
    total = schedule.total_steps
    assert total is not None
    *_, before = schedule.segments(0, total)
    assert before.stop == total
    *_, last = schedule.segments()
    assert [last] == list(schedule.segments(total + beyond))
    assert (last.start, last.stop) == (total, None)
    assert last.rate(total + beyond) == schedule.rate(total + beyond)


@given(long_schedules(), st.lists(steps, max_size=20))
def test_json_round_trip(schedule: ca.Schedule, at: list[int]) -> None:
    text = json.dumps(schedule.to_dict(), allow_nan=False)
    again = ca.Schedule.from_dict(json.loads(text))
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert json.dumps(again.to_dict()) == text
    assert [again.rate(step) for step in at] == [schedule.rate(step) for step in at]


@given(long_schedules(), st.lists(steps, max_size=20))
def test_pickle_and_copy_round_trips(schedule: ca.Schedule, at: list[int]) -> None:
    rates = [schedule.rate(step) for step in at]  # with its caches warm
    copies = [copy.copy(schedule), copy.deepcopy(schedule)]
    copies += [pickle.loads(pickle.dumps(schedule, p)) for p in (2, 5)]  # noqa: S301 - our own
    for again in copies:
        assert again == schedule
        assert hash(again) == hash(schedule)
        assert again.total_steps == schedule.total_steps
        assert [again.rate(step) for step in at] == rates


@given(short_schedules(), st.integers(0, SHORT), st.integers(0, SHORT))
def test_rates_are_the_rate_of_each_step(schedule: ca.Schedule, start: int, length: int) -> None:
    window = range(start, start + length)
    assert schedule.rates(start, start + length) == [schedule.rate(step) for step in window]
    if schedule.total_steps is not None:
        assert schedule.rates() == [schedule(step) for step in range(schedule.total_steps)]


@given(long_schedules(), st.lists(steps, min_size=1, max_size=20), st.randoms())
def test_a_rate_does_not_depend_on_what_was_asked_before(
    schedule: ca.Schedule, at: list[int], random: Any
) -> None:
    first = {step: schedule.rate(step) for step in at}
    random.shuffle(at)
    assert {step: schedule.rate(step) for step in at} == first
    fresh = ca.Schedule(schedule.rules)
    assert {step: fresh.rate(step) for step in at} == first


@given(
    short_schedules(FINITE_KINDS),
    st.one_of(st.none(), st.integers(-15, 15)),
    st.one_of(st.none(), st.integers(-15, 15)),
    st.one_of(st.none(), st.integers(-3, 3).filter(bool)),
)
def test_cycles_of_a_finite_schedule_are_a_sequence(
    schedule: ca.Schedule, start: int | None, stop: int | None, stride: int | None
) -> None:
    cycles, plain = schedule.cycles(), list(schedule.cycles())
    assert len(cycles) == len(plain)
    assert [cycles[i] for i in range(len(plain))] == plain
    assert [cycles[i] for i in range(-len(plain), 0)] == plain
    assert list(cycles[start:stop:stride]) == plain[start:stop:stride]
    assert list(reversed(cycles)) == plain[::-1]
    assert plain[-1] in cycles
    for beyond in (len(plain), -len(plain) - 1):
        with pytest.raises(IndexError, match=f"no cycle {beyond}"):
            cycles[beyond]


@given(
    short_schedules(("endless", "endless growing")),
    st.integers(0, 15),
    st.integers(0, 15),
    st.integers(-3, 3).filter(bool),
)
def test_cycles_of_an_endless_schedule_are_a_sequence(
    schedule: ca.Schedule, start: int, stop: int, stride: int
) -> None:
    cycles = schedule.cycles()
    plain = [cycles[i] for i in range(16)]
    assert list(cycles[start:stop:stride]) == plain[start:stop:stride]
    assert [cycle for cycle, _ in zip(cycles, range(16), strict=False)] == plain
    with pytest.raises(TypeError, match="without end"):
        len(cycles)
    with pytest.raises(IndexError, match="no cycle -1"):
        cycles[-1]
    for unbounded in (slice(None), slice(3, None), slice(0, -1), slice(-2, 5)):
        with pytest.raises(IndexError, match="endless"):
            cycles[unbounded]


@given(all_arguments(), all_arguments())
def test_schedules_compare_by_content(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = ca.CyclicCosine(**one), ca.CyclicCosine(**other)
    assert first == ca.CyclicCosine(**one)
    if first == second:
        assert first.rates(0, SHORT) == second.rates(0, SHORT)
        assert hash(first) == hash(second)


def test_a_schedule_cannot_be_changed() -> None:
    schedule = ca.CyclicCosine(0.1, cycle_steps=7)
    with pytest.raises(AttributeError):
        schedule.rules = ()  # type: ignore[misc]


def test_schedules_that_differ_are_not_equal() -> None:
    schedule = ca.CyclicCosine(0.1, cycle_steps=7)
    assert schedule != ca.CyclicCosine(0.1, cycle_steps=8)
    assert schedule != ca.CyclicCosine(0.1, cycle_steps=7, endpoint=True)
    assert schedule != ca.CyclicCosine(0.1, cycle_steps=7, min_lr=0.01)


def test_repr_says_what_it_is() -> None:
    finite = ca.CyclicCosine(0.2, total_steps=100, num_cycles=4, min_lr=0.01)
    assert repr(finite) == (
        "<Schedule: 4 cycles, 100 steps, first cycle 25 steps from 0.2 to 0.01>"
    )
    endless = ca.CyclicCosine(0.2, cycle_steps=7)
    assert repr(endless) == "<Schedule: endless, first cycle 7 steps from 0.2 to 0>"
    one = ca.CyclicCosine(0.2, total_steps=1, num_cycles=1)
    assert repr(one) == "<Schedule: 1 cycle, 1 step, first cycle 1 step from 0.2 to 0>"
    assert repr(finite.cycles()) == f"<cycles of {finite!r}>"


def test_a_schedule_is_no_rate_but_equal_and_hashed_as_before() -> None:
    schedule, same = (ca.CyclicCosine(0.2, total_steps=6, num_cycles=2) for _ in range(2))
    assert schedule == same
    assert hash(schedule) == hash(same)
    for compare in (operator.lt, operator.le, operator.gt, operator.ge):
        for pair in ((schedule, 0.0), (0.0, schedule), (schedule, same)):
            with pytest.raises(TypeError, match=r"must not be compared.*CyclicCosineLR\(opt"):
                compare(*pair)
    assert schedule(step=3) == schedule.rate(3)
    with pytest.raises(ca.ScheduleError, match=r"Received: no step; where an optimizer is"):
        schedule()
    for number in (1.5, "1", True):  # no optimizer gave these
        with pytest.raises(ca.ScheduleError, match=r"Received: step=[^;]*$"):
            schedule(number)  # type: ignore[arg-type]
