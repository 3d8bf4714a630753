"""Rates and ends of cycles by a graph's operations, within their bounds of the exact ones."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.core.curve import CurveName
from cosanneal.core.graph import Ends, evaluate, is_cycle_end
from cosanneal.core.rules import CycleRule, Level, Phase, Rounding
from tests.shared.oracle import (
    KINDS,
    Oracle,
    RandomPicker,
    Worst,
    arguments,
    curve_at,
    decimal,
    exactly,
    size,
    steps_worth_a_look,
)
from tests.shared.plain import INT32, Plain, plain


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_evaluation_is_within_8_ulp(kind: str, *, wide: bool) -> None:
    pick = RandomPicker(f"evaluate {kind}")
    seen = 0
    while seen < 500:
        given = arguments(pick, kind, largest=pick.one_of((10**3, 10**7, 2**40)))
        given["max_lr"], given["min_lr"] = 0.1, pick.one_of((0.0, 1e-5))
        given.pop("warmup_lr", None)
        # Endless cycles take few rows only if nothing decays.
        decay = given.pop("cycle_decay", 1.0)
        given["cycle_decay"] = 1.0 if kind == "endless" or given["min_lr"] else decay
        plan = Oracle(**given)
        table = plain(ca.CyclicCosine(**given), wide=wide)
        for step in steps_worth_a_look(pick, plan):
            if step <= table.limit:
                seen += 1
                got, exact = evaluate(table, step, Plain()), plan.rate(step)
                with exactly():
                    # Constants are rounded to 24 bits where the table is not wide.
                    limit = Decimal(8 if wide else 4) * exact / 2 ** (53 if wide else 23)
                    assert abs(Decimal(got) - exact) <= limit, (given, step, got, exact)


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("curve", ["cosine", "linear"])
@pytest.mark.parametrize(
    ("exponent", "k"),
    [
        (0.5, 1.0),
        (1.5, 1.0),
        (2.0, 1.0),
        (10.0, 1.0),
        (1.0, 0.5),
        (1.0, 1.7),
        (1.0, 3.0),
        (3.0, 0.7),
    ],
)
def test_powers_are_within_their_bound(
    curve: CurveName, exponent: float, k: float, *, rising: bool
) -> None:
    pick = RandomPicker(f"{curve} {exponent} {k} {rising}")
    worst = Worst()
    for length in (97, 12_345, 10**6 + 7, 2**31 - 1, 2**40):
        schedule = one_curve(length, curve=curve, exponent=exponent, k=k, rising=rising)
        table = plain(schedule, wide=True)
        steps = {1, 2, length // 2, length - 2, length - 1}
        steps |= {pick.integer(1, length - 1) for _ in range(40)}
        steps |= {length - size(pick, 1, length - 1) for _ in range(20)}
        for step in steps | {size(pick, 1, length - 1) for _ in range(20)}:
            exact = curve_at(
                Fraction(step, length),
                first=decimal(0.0 if rising else 0.1),
                last=decimal(0.1 if rising else 0.0),
                curve=curve,
                exponent=exponent,
                k=k,
            )
            worst.see(evaluate(table, step, Plain()), exact, f"step {step} of {length}")
        assert evaluate(table, 0, Plain()) == (0.0 if rising else 0.1)
        assert evaluate(table, length, Plain()) == (0.1 if rising else 0.0)
    assert worst.ulps <= 12 * max(exponent, 1.0), worst


def one_curve(length: int, *, rising: bool = False, **curve: Any) -> ca.Schedule:
    first, last = (0.0, 0.1) if rising else (0.1, 0.0)
    phase = Phase(steps=None, first=Level(first), last=Level(last), **curve)
    return ca.Schedule((CycleRule(count=1, length=length, phases=(phase,)),))


@pytest.mark.parametrize(
    "schedule",
    [
        ca.presets.timm_cosine(0.1, 50, warmup_t=5, k_decay=1.5, lr_min=1e-3),
        ca.presets.timm_cosine(
            0.1, 50, warmup_t=5, warmup_prefix=True, k_decay=0.5, cycle_limit=3, cycle_decay=0.5
        ),
        ca.presets.optax_warmup_cosine_decay(0.01, 0.1, 10, 60, 0.002, exponent=1.7),
    ],
    ids=repr,
)
def test_powers_beside_a_warmup_and_a_floor(schedule: ca.Schedule) -> None:
    table = plain(schedule, wide=True)
    assert "direction" not in table.fixed
    for step in range(200):
        # Of which the rate itself may take a part.
        assert evaluate(table, step, Plain()) == pytest.approx(
            schedule.rate(step), rel=2 * 12 * 2**-52, abs=0
        )


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_of_cycles_are_the_oracles(kind: str, *, wide: bool) -> None:
    pick = RandomPicker(f"ends {kind}")
    seen = [0, 0]
    while sum(seen) < 600:
        given = arguments(pick, kind, largest=pick.one_of((10**2, 10**7, 2**40)))
        plan = Oracle(**given)
        ends = Ends[list[Any]].of(ca.CyclicCosine(**given), wide=wide, constant=list)
        for step in steps_worth_a_look(pick, plan):
            if step <= ends.limit:
                i = plan.cycle_of(step) if step < (plan.total_steps or math.inf) else None
                wanted = i is not None and plan.start(i + 1) == step + 1
                assert is_cycle_end(ends, step, Plain()) == wanted, (given, step)
                seen[wanted] += 1
    assert min(seen) > 100


@pytest.mark.parametrize("length", [Fraction(1000, 3), Fraction(7, 2), Fraction(355, 113)])
@pytest.mark.parametrize("rounding", ["none", "boundaries"])
def test_the_ends_of_cycles_of_fractional_length(length: Fraction, rounding: Rounding) -> None:
    phase = Phase(steps=None, first=Level(0.1, decay=0.9), last=Level(0.0))
    rule = CycleRule(count=None, length=length, rounding=rounding, phases=(phase,))
    ends = Ends[list[Any]].of(ca.Schedule((rule,)), wide=False, constant=list)
    assert len(ends.lasts) == length.denominator + 1
    boundary = math.floor if rounding == "boundaries" else math.ceil
    wanted = {boundary(i * length) - 1 for i in range(1, 400)}
    for step in range(boundary(399 * length)):
        assert is_cycle_end(ends, step, Plain()) == (step in wanted)


def test_the_last_step_of_a_graph_ends_a_cycle_only_where_one_ends() -> None:
    for total, wanted in ((INT32, False), (INT32 + 1, True), (INT32 + 2, False)):
        schedule = ca.CyclicCosine(0.1, total_steps=total, num_cycles=1)
        ends = Ends[list[Any]].of(schedule, wide=False, constant=list)
        assert is_cycle_end(ends, INT32, Plain()) == wanted
        assert is_cycle_end(ends, INT32 - 1, Plain()) == (total == INT32)
