"""What of a schedule becomes a constant, and which row rules a step."""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.core.graph import Ends
from cosanneal.core.graph.evaluate import row_number
from cosanneal.core.graph.rows import MAX_ROWS, lower
from cosanneal.core.graph.table import RowLookup
from tests.shared.oracle import RandomPicker
from tests.shared.plain import INT32, Plain, plain


@pytest.mark.parametrize(
    ("schedule", "rows"),
    [
        (ca.CyclicCosine(0.1, total_steps=1000, num_cycles=10), 1),
        (ca.CyclicCosine(0.1, cycle_steps=10), 1),
        (ca.CyclicCosine(0.1, cycle_steps=10, endpoint=True), 1),
        (ca.CyclicCosine(0.1, cycle_steps=10, restart_warmup_steps=2), 3),
        (ca.CyclicCosine(0.1, total_steps=1003, num_cycles=10), 10),
        (ca.presets.optax_cosine_decay(0.1, 100, exponent=2.0), 1),
    ],
)
def test_what_the_rows_share_is_looked_up_nowhere(schedule: ca.Schedule, rows: int) -> None:
    assert len(lower(schedule, INT32).rows) == rows
    table = plain(schedule, wide=False)
    assert (table.rows is None) == (rows == 1)
    assert "low" in table.fixed


@pytest.mark.parametrize("kind", ["alike", "growing", "mixed", "one", "two", "long tail"])
@pytest.mark.parametrize("number", [3, 10, 60, 70, 1000])
def test_the_lookup_finds_the_row(kind: str, number: int) -> None:
    pick = RandomPicker(f"{kind} {number}")
    ends = [-1]
    for i in range(number):
        length = {
            "alike": pick.integer(99, 101),
            "growing": int(1.5 ** min(i, 30)),
            "mixed": pick.one_of((1, 7, 100, 10_000)),
            "one": 1,
            "two": 20 if i % 2 else 80,
            "long tail": 1 if i < number - 2 else 10**8,
        }[kind]
        ends.append(ends[-1] + length)
    ends = [*ends[1:-1], INT32]
    lookup = RowLookup[list[Any]].of(ends, repeats=None, limit=INT32, constant=list)
    steps = {0, INT32, *(end + shift for end in ends[:-1] for shift in (-1, 0, 1, 2))}
    steps |= {pick.integer(0, ends[-2] + 100) for _ in range(100)}
    for step in steps - {-1}:
        assert row_number(lookup, step, Plain()) == bisect_left(ends, step)
    if kind in ("alike", "one", "two"):
        assert lookup.halvings in (0, 1)
    elif number >= 70:
        assert lookup.halvings is None
        assert (lookup.fences is None) == (len(ends) <= 64)


def test_more_ends_of_cycles_than_a_graph_holds_are_refused() -> None:
    growing = ca.CyclicCosine(0.1, cycle_steps=1000, cycle_mult=Fraction(10_001, 10_000))
    with pytest.raises(ca.ScheduleError, match=rf"at most {MAX_ROWS} cycles of different"):
        Ends.of(growing, wide=True, constant=list)
    decaying = ca.CyclicCosine(0.1, cycle_steps=10, cycle_decay=0.999)
    assert Ends.of(decaying, wide=True, constant=list).lasts == [9, -1]
