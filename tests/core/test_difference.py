"""Where two schedules differ is said in a person's words."""

from __future__ import annotations

from typing import Any

import pytest

import cosanneal as ca
from cosanneal.core.difference import agree, difference

BASE: dict[str, Any] = {"max_lr": 0.1, "total_steps": 600, "num_cycles": 6}

CASES: list[tuple[dict[str, Any], str]] = [
    ({"total_steps": 1200, "num_cycles": 12}, "the number of cycles is 6 there, 12 here"),
    ({"total_steps": 1200}, "the number of steps is 600 there, 1200 here"),
    ({"cycle_mult": 2}, "the length of the first cycle is 100 steps there, 9 steps here"),
    ({"max_lr": 0.2}, "the peak of the first cycle is 0.1 there, 0.2 here"),
    (
        {"max_lr": 0.1 + 1e-9},
        "the peak of the first cycle is 0.1 there, 0.100000001 here",
    ),
    ({"min_lr": 0.01}, "the floor of the first cycle is 0 there, 0.01 here"),
    ({"cycle_decay": 0.5}, "the peak of cycle 1, counted from 0, is 0.1 there, 0.05 here"),
    ({"endpoint": True}, "the rate of step 50 is 0.05 there, 0.0492067 here"),
]


@pytest.mark.parametrize(("changes", "said"), CASES)
def test_the_difference_is_said_of_cycles_and_rates(changes: dict[str, Any], said: str) -> None:
    base, other = ca.CyclicCosine(**BASE), ca.CyclicCosine(**BASE | changes)
    assert difference(base.to_dict(), other, there="there", here="here") == said
    assert difference(base.to_dict(), base, there="there") is None
    assert difference(other.to_dict(), other, there="there") is None


def test_a_warmup_and_an_end_are_said() -> None:
    base = ca.CyclicCosine(**BASE, warmup_steps=10)
    longer = ca.CyclicCosine(**BASE, warmup_steps=20)
    higher = ca.CyclicCosine(**BASE, warmup_steps=10, warmup_lr=0.01)
    endless = ca.CyclicCosine(0.1, cycle_steps=100)

    def said(a: ca.Schedule, b: ca.Schedule) -> str | None:
        return difference(a.to_dict(), b, there="there", here="here")

    assert said(base, longer) == "the warmup of the first cycle is 10 steps there, 20 steps here"
    listed = ca.CyclicCosine(0.1, cycle_steps=[100] * 6)
    ten = ca.CyclicCosine(0.1, cycle_steps=[100] * 6, warmup_steps=10)
    twenty = ca.CyclicCosine(0.1, cycle_steps=[100] * 6, warmup_steps=20)
    assert said(ten, twenty) == "the warmup of the first cycle is 10 steps there, 20 steps here"
    assert said(listed, ten) == "the warmup of the first cycle is 0 steps there, 10 steps here"
    assert said(base, higher) == "the rate of step 0 is 0 there, 0.01 here"
    assert said(listed, endless) == "the number of cycles is 6 there, without end here"


def test_what_no_number_tells_apart_is_said_of_the_table() -> None:
    base = ca.CyclicCosine(**BASE)
    description = base.to_dict()
    description["rules"][0]["length"] = "x"
    said = difference(description, base, there="there", here="here")
    assert said == "rules[0].length is x there, 100 here"
    assert difference(3, base, there="there", here="here") is not None


def test_schedules_without_end_are_compared_too() -> None:
    base = ca.CyclicCosine(0.1, cycle_steps=10, cycle_mult=2)
    other = ca.CyclicCosine(0.1, cycle_steps=10, cycle_mult=3)
    said = difference(base.to_dict(), other, there="there", here="here")
    assert said == "the length of cycle 1, counted from 0, is 20 steps there, 30 steps here"
    # What differs only after all cycles that are looked at is said of the table.
    listed = [10] * 100
    late = ca.CyclicCosine(0.1, cycle_steps=[*listed, 7, 13])
    later = ca.CyclicCosine(0.1, cycle_steps=[*listed, 13, 7])
    said = difference(late.to_dict(), later, there="there", here="here")
    assert said == "rules[1].length is 7 there, 13 here"


SIX = ca.CyclicCosine(**BASE)
AGREE: list[tuple[ca.Schedule, ca.Schedule, int]] = [
    # As far as the two agree: up to and with that step's update.
    (SIX, SIX.extended(num_cycles=2), 600),
    (SIX, SIX.extended(at=300, total_steps=450), 300),
    (SIX, SIX.extended(at=300, num_cycles=1), 400),
    (SIX, ca.CyclicCosine(0.1, total_steps=1200, num_cycles=12), 600),
    (SIX, ca.CyclicCosine(0.1, cycle_steps=100), 600),
    (SIX, ca.CyclicCosine(0.1, cycle_steps=[100, 100, 50]), 200),
    (SIX, ca.CyclicCosine(0.1, cycle_steps=100, cycle_mult=2), 100),
    (SIX, ca.CyclicCosine(0.1, cycle_steps=100, cycle_decay=0.5, num_cycles=6), 100),
    (SIX, ca.CyclicCosine(0.1, cycle_steps=100, restart_warmup_steps=5), 100),
    (SIX, ca.CyclicCosine(0.1, cycle_steps=100, min_lr=0.01), 0),
    (SIX, ca.CyclicCosine(0.2, cycle_steps=100), 0),
    (SIX, ca.CyclicCosine(0.1, cycle_steps=100, warmup_steps=5), 0),
    (SIX, ca.CyclicCosine(0.1, cycle_steps=101), 0),
    # Cut into fractions of a step, or listed: the same boundaries by other rules.
    (
        ca.CyclicCosine(0.1, total_steps=100, num_cycles=3),
        ca.CyclicCosine(0.1, cycle_steps=[33, 33, 34, 5]),
        100,
    ),
]


@pytest.mark.parametrize(("first", "second", "until"), AGREE)
def test_a_run_may_go_on_as_far_as_every_cycle_begun_is_the_same(
    first: ca.Schedule, second: ca.Schedule, until: int
) -> None:
    for a, b in ((first, second), (second, first)):
        # Row by row, and with no rule looked at.
        assert a.rates(0, until) == b.rates(0, until)
        for done in {0, min(1, until), until // 2, until}:
            assert agree(a, b, done), done
            if done:
                assert difference(a.to_dict(), b, there="there", done=done) is None
        for done in (until + 1, until + 50, 10**6):
            assert not agree(a, b, done), done
            assert difference(a.to_dict(), b, there="there", done=done) is not None
        # Of a run that has not begun, nothing was done by which it would be known.
        assert difference(a.to_dict(), b, there="there", done=0) is not None


def test_a_schedule_agrees_with_itself_for_ever_and_past_its_end() -> None:
    endless = ca.CyclicCosine(0.1, cycle_steps=1, cycle_mult=1.5)
    assert agree(endless, endless, 10**30)
    assert agree(SIX, ca.CyclicCosine(**BASE), 10**30)
    listed = ca.CyclicCosine(0.1, cycle_steps=[100] * 6)
    assert agree(SIX, listed, 10**30)
    assert not agree(SIX, SIX.extended(num_cycles=1), 601)


def test_comparing_does_not_go_on_for_ever() -> None:
    # The same cycles by rules that cannot be compared, of one step each.
    ones = ca.CyclicCosine(0.1, cycle_steps=1)
    nearly = ca.CyclicCosine(0.1, total_steps=2**62 + 1, num_cycles=2**62)
    assert agree(ones, nearly, 1000)
    assert not agree(ones, nearly, 2**61)
