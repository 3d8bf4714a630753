"""The laws that hold for every preset, as far as they need no peer."""

from __future__ import annotations

import doctest
import importlib
import inspect
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import cosanneal as ca
from cosanneal import Schedule, presets
from tests.shared.arguments import ARGUMENTS, CASES, first_cycles, make


def annealing(schedule: Schedule, cycle: ca.Cycle) -> Iterator[ca.Segment]:
    """The segments of the cycle's annealing, which comes last but for mmengine's last step."""
    for segment in schedule.segments(cycle.start, cycle.stop):
        if segment.first == cycle.max_lr and segment.last == cycle.min_lr:
            yield segment


def test_every_preset_has_its_arguments_here() -> None:
    assert sorted(ARGUMENTS) == sorted(presets.__all__)
    assert ca.presets is presets


@pytest.mark.parametrize("name", presets.__all__)
def test_the_docstring_has_what_it_must(name: str) -> None:
    function = getattr(presets, name)
    text = inspect.getdoc(function) or ""
    assert all(part in text for part in ("Args:", "Raises:", "Example:", "Source:", "rate(t)"[:3]))
    assert all(f"    {arg}: " in text for arg in inspect.signature(function).parameters)


def test_the_examples_run() -> None:
    attempted = 0
    for file in Path(presets.__file__).parent.glob("*.py"):
        results = doctest.testmod(importlib.import_module(f"cosanneal.presets.{file.stem}"))
        assert results.failed == 0
        attempted += results.attempted
    assert attempted >= len(presets.__all__)


@given(CASES)
def test_rates_stay_in_range(case: tuple[str, dict[str, Any]]) -> None:
    schedule = make(case)
    cycles = first_cycles(schedule)
    segments = list(schedule.segments(0, cycles[-1].stop + 3))
    low = min(min(segment.first, segment.last) for segment in segments)
    high = max(max(segment.first, segment.last) for segment in segments)
    assert low >= 0
    assert all(low <= rate <= high for rate in schedule.rates(0, cycles[-1].stop + 3))


@given(CASES)
def test_cycles_tile_the_steps(case: tuple[str, dict[str, Any]]) -> None:
    schedule = make(case)
    cycles = first_cycles(schedule)
    assert cycles[0].start == 0
    assert all(a.stop == b.start and a.length > 0 for a, b in itertools.pairwise(cycles))
    assert [cycle.index for cycle in cycles] == list(range(len(cycles)))
    stop = cycles[-1].stop
    ends = {cycle.last_step for cycle in cycles}
    assert {step for step in range(stop) if schedule.is_cycle_end(step)} == ends
    assert all(schedule.cycle_at(cycle.last_step) == cycle for cycle in cycles)
    segments = list(schedule.segments(0, stop))
    assert segments[0].start == 0
    assert segments[-1].stop == stop
    assert all(a.stop == b.start for a, b in itertools.pairwise(segments))


@given(CASES, st.lists(st.integers(0, 40), max_size=30))
def test_cycles_completed_miss_none(case: tuple[str, dict[str, Any]], strides: list[int]) -> None:
    schedule = make(case)
    marks = list(itertools.accumulate(strides, initial=0))
    found = [c for a, b in itertools.pairwise(marks) for c in schedule.cycles_completed(a, b)]
    assert [c.last_step for c in found] == schedule.cycle_ends(marks[-1])


@given(CASES)
def test_every_restart_is_at_its_peak(case: tuple[str, dict[str, Any]]) -> None:
    """Exactly, where an annealing's clock starts at a whole step of its own."""
    schedule = make(case)
    for cycle in first_cycles(schedule):
        for segment in annealing(schedule, cycle):
            if segment.origin == segment.start:
                assert schedule.rate(segment.start) == segment.first
            last = (segment.stop or 0) - 1
            if segment.origin + segment.length == last:
                assert schedule.rate(last) == segment.last


@given(CASES)
def test_a_cycles_rates_are_greatest_where_its_annealing_starts(
    case: tuple[str, dict[str, Any]],
) -> None:
    """Its maximum is `max_lr`, where the clock starts at a whole step, and else below it."""
    schedule = make(case)
    for cycle in first_cycles(schedule):
        parts = list(annealing(schedule, cycle))
        assume(len(parts) == 1)  # a fall and a rise of the same height are told apart by no level
        rates = schedule.rates(parts[0].start, cycle.stop)
        if parts[0].first < parts[0].last:
            rates.reverse()
        assert max(rates) == rates[0] <= cycle.max_lr
        assert min(rates) >= cycle.min_lr
        if parts[0].origin == parts[0].start and parts[0].first >= parts[0].last:
            assert rates[0] == cycle.max_lr


@given(CASES)
def test_an_annealing_is_monotone(case: tuple[str, dict[str, Any]]) -> None:
    schedule = make(case)
    for cycle in first_cycles(schedule):
        for segment in schedule.segments(cycle.start, cycle.stop):
            rates = schedule.rates(segment.start, segment.stop)
            if segment.first < segment.last:
                rates.reverse()
            assert all(a >= b for a, b in itertools.pairwise(rates))


@given(CASES)
def test_json_round_trip(case: tuple[str, dict[str, Any]]) -> None:
    schedule = make(case)
    again = Schedule.from_dict(json.loads(json.dumps(schedule.to_dict())))
    assert again == schedule
    stop = first_cycles(schedule)[-1].stop + 3
    assert again.rates(0, stop) == schedule.rates(0, stop)


@given(CASES, st.integers(0, 2**62))
def test_a_rate_is_that_of_its_segment(case: tuple[str, dict[str, Any]], step: int) -> None:
    """However it is looked up: the quick paths against the table's own rows."""
    schedule = make(case)
    stop = first_cycles(schedule)[-1].stop + 3
    for at in (step % stop, step):
        segment = next(iter(schedule.segments(at, at + 1)))
        assert schedule.rate(at) == segment.rate(at)


def test_equal_neighbours_share_a_rule() -> None:
    cycle = {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 2, "decay_steps": 9}
    assert len(presets.optax_sgdr([cycle] * 1000).rules) == 1
    assert len(presets.mmengine_cosine_restart(0.1, [9] * 50, [1] * 50, 0.0).rules) == 2
