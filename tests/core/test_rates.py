"""The rate of a step is its segment's, by whichever way; and for many threads at once."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from fractions import Fraction

import pytest

import cosanneal as ca
from cosanneal.core.rules import CycleRule, Level, Phase, Rounding
from tests.shared.oracle import RandomPicker, size

ONE = (Phase(steps=None, first=Level(0.1), last=Level(0.001)),)
TWO = (Phase(steps=3, first=Level(0.001), last=Level(0.1), curve="linear"), *ONE)
LATE = (*TWO[:1], replace(ONE[0], lead=Fraction(1, 2), k=1.5))
FADING = (*TWO[:1], replace(ONE[0], first=Level(0.1, decay=0.9)))


# Each of the ways in which a rate is looked up, and both sides of what parts them.
@pytest.mark.parametrize("phases", [ONE, TWO, LATE, FADING])
@pytest.mark.parametrize("length", [12, Fraction(1000, 7)])
@pytest.mark.parametrize("growth", [Fraction(1), Fraction(3, 2)])
@pytest.mark.parametrize("rounding", ["boundaries", "none", "lengths"])
def test_a_rate_is_that_of_its_segment(
    phases: tuple[Phase, ...], length: int | Fraction, growth: Fraction, rounding: Rounding
) -> None:
    if rounding == "lengths":
        length = math.ceil(length)
    first = CycleRule(count=1, length=5, rounding=rounding, phases=ONE)
    rule = CycleRule(count=None, length=length, growth=growth, rounding=rounding, phases=phases)
    pick = RandomPicker(f"{length} {growth} {rounding}")
    for rules in ((rule,), (first, rule)):
        schedule = ca.Schedule(rules)
        for step in [*range(600), *(size(pick, 0, 2**62) for _ in range(200))]:
            (segment,) = schedule.segments(step, step + 1)
            assert schedule.rate(step) == segment.rate(step)


def test_threads_get_the_answers_of_one() -> None:
    pick = RandomPicker("threads")
    asked = [[pick.integer(0, 2 ** pick.integer(1, 62)) for _ in range(100)] for _ in range(8)]
    for given in (
        {"cycle_mult": 1.01},
        {"cycle_mult": 1.001, "cycle_decay": 0.999, "restart_warmup_steps": 3},
        {"cycle_mult": 1.5, "endpoint": True},
        {"cycle_decay": 0.99},
        {},
    ):
        alone = ca.CyclicCosine(0.1, cycle_steps=10, **given)  # type: ignore[arg-type]
        expected = [[(alone.rate(s), alone.cycle_at(s).index) for s in steps] for steps in asked]
        for _ in range(2):
            shared = ca.CyclicCosine(0.1, cycle_steps=10, **given)  # type: ignore[arg-type]
            assert _ask_at_once(shared, asked) == expected


def _ask_at_once(
    schedule: ca.Schedule, asked: list[list[int]]
) -> list[list[tuple[float, int]] | None]:
    answers: list[list[tuple[float, int]] | None] = [None] * len(asked)
    gate = threading.Barrier(len(asked))

    def ask(number: int) -> None:
        gate.wait()
        answers[number] = [
            (schedule.rate(step), schedule.cycle_at(step).index) for step in asked[number]
        ]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
