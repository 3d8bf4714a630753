"""CyclicCosine with a peak for each cycle: beside schedules of one cycle each."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

import cosanneal as ca
from cosanneal import CyclicCosine, ScheduleError

PEAKS = [0.2, 0.1, 0.3, 0.1]
LENGTHS: list[dict[str, Any]] = [
    {"total_steps": 103},
    {"total_steps": 103, "num_cycles": 4},
    {"total_steps": 300, "cycle_mult": 2},
    {"total_steps": 300, "cycle_mult": 0.5},
    {"cycle_steps": 25},
    {"cycle_steps": 7, "cycle_mult": 1.5},
    {"cycle_steps": [10, 30, 30, 5]},
]


@pytest.mark.parametrize("endpoint", [False, True])
@pytest.mark.parametrize("given", LENGTHS)
def test_each_cycle_is_what_it_is_alone(given: dict[str, Any], endpoint: bool) -> None:
    schedule = CyclicCosine(PEAKS, min_lr=0.01, endpoint=endpoint, **given)
    equal = CyclicCosine(0.2, **{"num_cycles": 4} | given)
    bounds = [(cycle.start, cycle.stop) for cycle in equal.cycles()]
    assert [(cycle.start, cycle.stop) for cycle in schedule.cycles()] == bounds
    assert [cycle.max_lr for cycle in schedule.cycles()] == PEAKS
    for peak, (start, stop) in zip(PEAKS, bounds, strict=True):
        alone = CyclicCosine(peak, cycle_steps=[stop - start], min_lr=0.01, endpoint=endpoint)
        assert schedule.rates(start, stop) == alone.rates(0, stop - start)
    assert schedule.rate(bounds[-1][1] + 5) == 0.01


@pytest.mark.parametrize("given", LENGTHS)
def test_warmups_lead_to_each_cycles_own_peak(given: dict[str, Any]) -> None:
    schedule = CyclicCosine(
        PEAKS, min_lr=0.02, warmup_steps=4, warmup_lr=0.04, restart_warmup_steps=3, **given
    )
    for i, cycle in enumerate(schedule.cycles()):
        steps, lowest = (3, Fraction("0.02")) if i else (4, Fraction("0.04"))
        for step in range(steps + 1):
            exact = lowest + (Fraction(repr(PEAKS[i])) - lowest) * step / steps
            assert schedule.rate(cycle.start + step) == pytest.approx(float(exact), rel=1e-15)


@pytest.mark.parametrize("given", LENGTHS)
def test_equal_peaks_are_the_one_peak(given: dict[str, Any]) -> None:
    schedule = CyclicCosine([0.2] * 4, **given)
    equal = CyclicCosine(0.2, **{"num_cycles": 4} | given)
    assert equal.total_steps == schedule.total_steps
    assert schedule.rates(0, 150) == equal.rates(0, 150)
    if "cycle_mult" not in given:
        assert schedule == equal


def test_a_list_of_one_and_other_kinds_of_lists() -> None:
    assert CyclicCosine([0.2], total_steps=9) == CyclicCosine(0.2, total_steps=9, num_cycles=1)
    expected = CyclicCosine(PEAKS, total_steps=100)
    assert CyclicCosine(tuple(PEAKS), total_steps=100) == expected
    assert CyclicCosine([0, 0.1], total_steps=100).cycles()[0].max_lr == 0
    assert ca.Schedule.from_dict(expected.to_dict()) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_lr": []}, r"`max_lr` must name the peak of at least one cycle"),
        ({"max_lr": [0.1, "x"]}, r"`max_lr\[1\]` must be a finite number"),
        ({"max_lr": [0.1, -1]}, r"`max_lr\[1\]` must be a finite number"),
        ({"max_lr": {0.1, 0.2}}, r"`max_lr` must be a finite number"),
        ({"max_lr": "0.1"}, r"`max_lr` must be a finite number"),
        ({"num_cycles": 3}, "`max_lr`, or be left out. Received: num_cycles=3, and 4 peaks"),
        ({"cycle_decay": 0.5}, "`cycle_decay` must be left out .* cycle_decay=0.5"),
        ({"min_lr": 0.15}, r"`min_lr` must not exceed .* min_lr=0.15, and max_lr\[1\]=0.1"),
        ({"warmup_steps": 3, "warmup_lr": 0.25}, "`warmup_lr` must not exceed .* max_lr=0.2"),
        (
            {"total_steps": None, "cycle_steps": [1, 2, 3]},
            "must list as many cycles. Received: 4 peaks and 3 lengths",
        ),
        ({"total_steps": 3}, "`num_cycles` must leave every cycle at least one step"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"max_lr": PEAKS, "total_steps": 100}
    with pytest.raises(ScheduleError, match=message):
        CyclicCosine(**(arguments | given))
