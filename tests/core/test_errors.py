"""Bad input is a ScheduleError that says which argument, what it must be and what came."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.core.errors import (
    MAX_STEPS,
    check_factor,
    check_flag,
    check_rate,
    check_steps,
    human_size,
)

NAN, INF = float("nan"), float("inf")


class Index:
    """An integer as numpy and torch have them: not an int, but with __index__."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value

    def __repr__(self) -> str:
        return f"Index({self.value})"


class ArrayOfNoDimensions(Index):
    """One that has __iter__ too, and refuses to iterate: a zero-dimensional array or tensor."""

    def __iter__(self) -> Any:
        raise TypeError("iteration over a 0-d array")


def message(**given: Any) -> str:
    """The error that CyclicCosine raises, in a sensible schedule but for `given`."""
    arguments: dict[str, Any] = {"max_lr": 0.1, "cycle_steps": 10} | given
    with pytest.raises(ca.ScheduleError) as caught:
        ca.CyclicCosine(**{k: v for k, v in arguments.items() if v is not ...})
    return str(caught.value)


def test_errors_are_also_the_builtin_ones() -> None:
    assert issubclass(ca.ScheduleError, ca.CosannealError)
    assert issubclass(ca.ScheduleError, ValueError)
    assert issubclass(ca.SnapshotError, ca.CosannealError)
    assert issubclass(ca.MissingExtraError, ImportError)
    assert issubclass(ca.MissingExtraError, ca.CosannealError)


def test_a_missing_extra_names_the_command_that_installs_it() -> None:
    error = ca.MissingExtraError.for_extra("tf", package="keras", needed_by="the Keras adapter")
    assert error.name == "keras"
    assert str(error) == (
        "the Keras adapter needs the package 'keras', which is not installed. "
        "Install it with: python -m pip install 'cosanneal[tf]'"
    )


NO_STEPS: list[Any] = [-1, True, False, "10", b"10", 10.0, 1.5, NAN, INF, [[]], {}, object]


NO_RATES: list[Any] = [-0.1, -1, NAN, INF, -INF, True, False, "0.1", None, [0.1], 1j, object]


NO_FACTORS: list[Any] = [0, 0.0, -1, -1.5, Fraction(-1, 2), NAN, INF, True, "2", None, [2], 2j]


@pytest.mark.parametrize("value", [0, *NO_STEPS])
@pytest.mark.parametrize("name", ["total_steps", "num_cycles", "cycle_steps"])
def test_a_number_of_steps_or_cycles(name: str, value: Any) -> None:
    given: dict[str, Any] = {"total_steps": 100, "num_cycles": 5, "cycle_steps": ...}
    if name == "cycle_steps":
        given = {}
        if isinstance(value, list | dict):
            value = [10, value]
            name = "cycle_steps[1]"
    text = message(**given | {name.partition("[")[0]: value})
    what = value if "[" not in name else value[1]
    unit = "positive integer"
    assert text.startswith(f"Argument `{name}` must be a {unit} (optimizer steps). "), text
    assert text.endswith(f"Received: {name}={what!r}"), text


@pytest.mark.parametrize("value", [None, *NO_STEPS])
@pytest.mark.parametrize("name", ["warmup_steps", "restart_warmup_steps"])
def test_a_number_of_warmup_steps(name: str, value: Any) -> None:
    assert message(**{name: value}) == (
        f"Argument `{name}` must be an integer of at least 0 (optimizer steps). "
        f"Received: {name}={value!r}"
    )


@pytest.mark.parametrize("value", NO_RATES)
@pytest.mark.parametrize("name", ["max_lr", "min_lr", "warmup_lr"])
def test_a_rate(name: str, value: Any) -> None:
    given = {name: value}
    if name == "max_lr" and isinstance(value, list):  # one for each cycle
        name, given = "max_lr[1]", {name: [0.1, value]}
    assert message(**given) == (
        f"Argument `{name}` must be a finite number of at least 0. Received: {name}={value!r}"
    )


@pytest.mark.parametrize("value", NO_FACTORS)
def test_a_factor(value: Any) -> None:
    assert message(cycle_mult=value) == (
        "Argument `cycle_mult` must be a positive number (int, Fraction or float). "
        f"Received: cycle_mult={value if isinstance(value, Fraction) else repr(value)}"
    )


@pytest.mark.parametrize("value", [0, 1, None, "yes", 0.0, []])
def test_a_flag(value: Any) -> None:
    assert message(endpoint=value) == (
        f"Argument `endpoint` must be True or False. Received: endpoint={value!r}"
    )


@pytest.mark.parametrize("value", [0, 0.0, 1.0000001, 2, 100])
def test_cycle_decay_lies_above_0_and_up_to_1(value: Any) -> None:
    assert message(cycle_decay=value) == (
        f"Argument `cycle_decay` must be a number in (0, 1]. Received: cycle_decay={value!r}"
    )


@pytest.mark.parametrize("value", NO_RATES)
def test_cycle_decay_is_a_number(value: Any) -> None:
    text = message(cycle_decay=value)
    assert text.startswith("Argument `cycle_decay` must ")
    assert "(0, 1]" in text
    assert text.endswith(f"Received: cycle_decay={value!r}")


@pytest.mark.parametrize("name", ["total_steps", "cycle_steps", "num_cycles", "warmup_steps"])
def test_a_number_of_steps_is_at_most_2_to_the_63(name: str) -> None:
    given: dict[str, Any] = {"total_steps": 100, "num_cycles": 5, "cycle_steps": ...}
    if name == "cycle_steps":
        given = {}
    assert message(**given | {name: 2**63 + 1}) == (
        f"Argument `{name}` must be at most 2**63 (optimizer steps). Received: {name}={2**63 + 1}"
    )
    assert MAX_STEPS == 2**63


def test_largest_schedules_are_accepted() -> None:
    assert ca.CyclicCosine(0.1, total_steps=2**63, num_cycles=3).total_steps == 2**63
    assert ca.CyclicCosine(0.1, cycle_steps=2**63).rate(2**63) == 0.1
    each = ca.CyclicCosine(0.1, cycle_steps=1, num_cycles=2**63)
    assert (each.total_steps, each.num_cycles) == (2**63, 2**63)
    assert each.rate(2**63 - 1) == 0.1


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"cycle_steps": 10, "num_cycles": 2**63}, ("num_cycles", "cycle_steps")),
        ({"cycle_steps": 2**62, "num_cycles": 10}, ("num_cycles", "cycle_steps")),
        ({"cycle_steps": 10, "num_cycles": 1000, "cycle_mult": 2}, ("num_cycles", "cycle_mult")),
        ({"cycle_steps": [2**63, 1]}, ("cycle_steps",)),
        ({"cycle_steps": 10, "num_cycles": 10, "cycle_mult": 0.5}, ("num_cycles", "cycle_mult")),
        ({"cycle_steps": 10, "num_cycles": 999, "cycle_mult": 0.5}, ("num_cycles", "cycle_mult")),
    ],
)
def test_a_run_that_is_too_long_or_shrinks_away_names_the_arguments(
    given: dict[str, Any], names: tuple[str, ...]
) -> None:
    text = message(**given)
    assert all(name in text for name in names), text
    assert "Received: " in text
    assert "rules[" not in text  # which the caller never wrote


def test_numbers_without_bounds_do_not_escape_as_another_error() -> None:
    # Too large for a float; beyond what Python writes in decimal.
    for huge in (10**400, 10**5000):
        for name in ("max_lr", "cycle_steps", "num_cycles", "warmup_steps"):
            given: dict[str, Any] = {"max_lr": 0.1, "cycle_steps": 10, name: huge}
            with pytest.raises(ca.ScheduleError):
                ca.CyclicCosine(**given)
        for mult in (huge, Fraction(1, huge)):
            with pytest.raises(ca.ScheduleError):
                ca.CyclicCosine(0.1, cycle_steps=10, num_cycles=3, cycle_mult=mult)
            with pytest.raises(ca.ScheduleError):
                ca.CyclicCosine(0.1, total_steps=100, num_cycles=3, cycle_mult=mult)
        with pytest.raises(ca.ScheduleError):
            ca.CyclicCosine(0.1, cycle_steps=10).rate(-huge)
        with pytest.raises(ca.ScheduleError):
            ca.CyclicCosine(0.1, cycle_steps=10, num_cycles=1).cycle_at(huge)


def test_both_or_neither_of_budget_and_length() -> None:
    for total, cycle in ((None, None), (100, 10)):
        assert message(total_steps=total, cycle_steps=cycle, num_cycles=3) == (
            "Give exactly one of the arguments `total_steps` (with `num_cycles`) and "
            f"`cycle_steps`. Received: total_steps={total}, cycle_steps={cycle}"
        )


def test_a_budget_needs_a_number_of_cycles() -> None:
    text = message(total_steps=100, cycle_steps=...)
    assert text.startswith("Argument `num_cycles` must be given with `total_steps`")
    assert text.endswith("Received: num_cycles=None")


@pytest.mark.parametrize(
    ("total", "count", "mult"),
    [(5, 6, 1), (1, 2, 1), (6, 3, 2), (20, 10, 2), (20, 10, 0.5), (20, 10**12, 2), (20, 9, 1.5)],
)
def test_more_cycles_than_steps(total: int, count: int, mult: float) -> None:
    text = message(total_steps=total, cycle_steps=..., num_cycles=count, cycle_mult=mult)
    assert text.startswith("Argument `num_cycles` must leave every cycle at least one step. ")
    assert f"Received: num_cycles={count}, total_steps={total}, cycle_mult=" in text
    assert "fewer cycles" in text


def test_the_number_of_steps_that_it_says_would_do_does() -> None:
    text = message(total_steps=20, cycle_steps=..., num_cycles=5, cycle_mult=2)
    found = re.search(r"give at least (\d+) steps", text)
    assert found is not None, text
    enough = int(found[1])
    ca.CyclicCosine(0.1, total_steps=enough, num_cycles=5, cycle_mult=2)
    message(total_steps=enough - 1, cycle_steps=..., num_cycles=5, cycle_mult=2)


@pytest.mark.parametrize(
    ("given", "cycle"),
    [
        ({"max_lr": 0.1, "min_lr": 0.2}, 0),
        ({"max_lr": 0.1, "min_lr": 0.2, "num_cycles": 3}, 0),
        ({"max_lr": 1.0, "min_lr": 0.3, "cycle_decay": 0.5}, 2),
        ({"max_lr": 1.0, "min_lr": 0.3, "cycle_decay": 0.5, "num_cycles": 3}, 2),
        ({"max_lr": 1.0, "min_lr": 0.01, "cycle_decay": 0.9, "num_cycles": 100}, 44),
        ({"max_lr": 1.0, "min_lr": 1e-300, "cycle_decay": 0.5}, 997),
    ],
)
def test_a_floor_above_a_peak_names_the_first_such_cycle(given: dict[str, Any], cycle: int) -> None:
    text = message(**given)
    assert text.startswith("Argument `min_lr` must not exceed the peak of any cycle. Received: ")
    assert f"min_lr={given['min_lr']}, and cycle {cycle} would peak at " in text
    # The cycle before it would have been all right.
    if cycle:
        ca.CyclicCosine(**given | {"cycle_steps": 10, "num_cycles": cycle})


def test_a_floor_that_meets_the_last_peak_is_accepted() -> None:
    schedule = ca.CyclicCosine(1.0, cycle_steps=10, num_cycles=3, cycle_decay=0.5, min_lr=0.25)
    assert set(schedule.rates(20, 30)) == {0.25}


def test_a_warmup_that_starts_above_the_peak() -> None:
    assert message(warmup_lr=0.2, warmup_steps=3) == (
        "Argument `warmup_lr` must not exceed `max_lr`, to which the warmup leads. "
        "Received: warmup_lr=0.2, max_lr=0.1"
    )


@pytest.mark.parametrize(
    ("given", "cycle", "length"),
    [
        ({"warmup_steps": 10}, 0, 10),
        ({"warmup_steps": 11}, 0, 10),
        ({"restart_warmup_steps": 10}, 1, 10),
        ({"cycle_steps": [20, 20, 4], "restart_warmup_steps": 4}, 2, 4),
        ({"cycle_steps": ..., "total_steps": 100, "num_cycles": 10, "warmup_steps": 10}, 0, 10),
        ({"num_cycles": 3, "cycle_mult": 0.5, "restart_warmup_steps": 4}, 2, 2),
    ],
)
def test_a_warmup_that_leaves_no_step_to_anneal(
    given: dict[str, Any], cycle: int, length: int
) -> None:
    text = message(**given)
    warmup = given.get("warmup_steps") or given["restart_warmup_steps"]
    assert f"cycle {cycle} must have at least {warmup + 1} steps ({warmup} of warmup" in text
    assert re.search(rf"Received: a cycle of {length}\b", text), text
    for name in ("warmup_steps", "restart_warmup_steps"):
        assert f"{name}={given.get(name, 0)}" in text


def test_a_list_of_lengths() -> None:
    assert message(cycle_steps=[]) == (
        "Argument `cycle_steps` must name at least one cycle. Received: cycle_steps=[]"
    )
    assert message(cycle_steps=[10, 20], num_cycles=3) == (
        "Argument `num_cycles` must be the length of the list `cycle_steps`, or be left out. "
        "Received: num_cycles=3, and 2 cycles"
    )
    assert message(cycle_steps=[10, 20], cycle_mult=2) == (
        "Argument `cycle_mult` must be left out where `cycle_steps` lists every cycle. "
        "Received: cycle_mult=2"
    )
    assert message(cycle_steps=[10, 0, 5]).endswith("Received: cycle_steps[1]=0")
    assert ca.CyclicCosine(0.1, cycle_steps=(10, 20), num_cycles=2).total_steps == 30


@pytest.mark.parametrize("unordered", [{10, 20}, frozenset({10, 20}), {10: 1, 20: 2}])
def test_a_list_of_lengths_has_an_order(unordered: Any) -> None:
    assert "`cycle_steps` must" in message(cycle_steps=unordered)


def test_endless_cycles_cannot_shrink() -> None:
    assert message(cycle_mult=0.5) == (
        "Argument `cycle_mult` must be at least 1 for cycles without end. "
        "Received: cycle_mult=0.5; give `num_cycles` for cycles that shrink"
    )


def test_integers_of_other_kinds_count_as_integers() -> None:
    plain = ca.CyclicCosine(0.1, total_steps=100, num_cycles=3, warmup_steps=2)
    given: dict[str, Any] = {"total_steps": Index(100), "num_cycles": Index(3)}
    assert ca.CyclicCosine(0.1, **given, warmup_steps=Index(2)) == plain  # type: ignore[arg-type]
    lengths: Any = [Index(10), 20]
    assert ca.CyclicCosine(0.1, cycle_steps=lengths) == ca.CyclicCosine(0.1, cycle_steps=[10, 20])
    step: Any = Index(40)
    assert plain.rate(step) == plain.rate(40)
    assert plain.cycle_at(step) == plain.cycle_at(40)
    assert plain.is_cycle_end(Index(32))  # type: ignore[arg-type]
    assert plain.cycles()[Index(1)] == plain.cycles()[1]  # type: ignore[call-overload]


def test_an_integer_that_looks_iterable_counts_as_an_integer() -> None:
    ten: Any = ArrayOfNoDimensions(10)
    assert ca.CyclicCosine(0.1, cycle_steps=ten) == ca.CyclicCosine(0.1, cycle_steps=10)


def test_integers_and_fractions_go_where_rates_go() -> None:
    schedule = ca.CyclicCosine(1, cycle_steps=2, min_lr=Fraction(1, 2))  # type: ignore[arg-type]
    assert schedule.rates(0, 2) == [1.0, 0.75]
    assert all(type(rate) is float for rate in schedule.rates(0, 2))


FINITE = ca.CyclicCosine(0.1, cycle_steps=10, num_cycles=2)


ENDLESS = ca.CyclicCosine(0.1, cycle_steps=10)


@pytest.mark.parametrize("value", [1.5, 1.0, True, False, "1", None, NAN, [1]])
def test_a_step_is_an_integer(value: Any) -> None:
    expected = (
        "Argument `{}` must be an integer (optimizer steps, counted from 0). "
        f"Received: {{}}={value!r}"
    )
    for name, call in (
        ("step", FINITE.rate),
        ("step", FINITE),
        ("step", FINITE.cycle_at),
        ("step", FINITE.is_cycle_end),
        ("start", FINITE.rates),
        ("start", lambda value: list(FINITE.segments(value))),
        ("before", lambda value: FINITE.cycles_completed(value, 3)),
        ("after", lambda value: FINITE.cycles_completed(0, value)),
    ):
        with pytest.raises(ca.ScheduleError) as caught:
            call(value)
        if value is None and call is FINITE:
            assert "Received: no step; where an optimizer is to follow it" in str(caught.value)
        else:
            assert str(caught.value) == expected.format(name, name)
    if value is not None:
        for until in (
            lambda value: FINITE.rates(0, value),
            lambda value: list(FINITE.segments(0, value)),
            FINITE.cycle_ends,
        ):
            with pytest.raises(ca.ScheduleError) as caught:
                until(value)
            assert str(caught.value) == expected.format("stop", "stop")


@pytest.mark.parametrize("schedule", [FINITE, ENDLESS])
def test_a_step_is_not_negative(schedule: ca.Schedule) -> None:
    for name, call in (
        ("step", schedule.rate),
        ("step", schedule.cycle_at),
        ("step", schedule.is_cycle_end),
        ("stop", schedule.cycle_ends),
        ("start", lambda step: schedule.rates(step, 5)),
        ("stop", lambda step: schedule.rates(0, step)),
        ("before", lambda step: schedule.cycles_completed(step, 3)),
    ):
        with pytest.raises(ca.ScheduleError) as caught:
            call(-1)
        assert str(caught.value) == (
            f"Argument `{name}` must not be negative: steps count from 0. Received: {name}=-1"
        )


def test_segments_checks_its_arguments_when_called() -> None:
    with pytest.raises(ca.ScheduleError, match=r"Argument `start` must not be negative"):
        ENDLESS.segments(-1)


@pytest.mark.parametrize("step", [20, 21, 2**70])
def test_cycle_at_past_the_end(step: int) -> None:
    with pytest.raises(ca.ScheduleError) as caught:
        FINITE.cycle_at(step)
    assert str(caught.value) == (
        f"Argument `step` must lie in a cycle. Received: step={step}, and the schedule "
        "ended after step 19; from there on the rate holds its floor"
    )
    assert FINITE.cycle_at(19).index == 1


def test_looking_backwards() -> None:
    with pytest.raises(ca.ScheduleError) as caught:
        FINITE.cycles_completed(5, 3)
    assert str(caught.value) == (
        "Argument `after` must not be smaller than `before`. Received: before=5, after=3"
    )
    with pytest.raises(ca.ScheduleError) as caught:
        FINITE.rates(5, 3)
    assert str(caught.value) == (
        "Argument `stop` must not lie before `start`. Received: start=5, stop=3"
    )


def test_all_of_an_endless_schedule() -> None:
    for call in (ENDLESS.rates, ENDLESS.cycle_ends, lambda: ENDLESS.rates(5)):
        with pytest.raises(ca.ScheduleError) as caught:
            call()
        assert str(caught.value) == (
            "Argument `stop` must be given, since this schedule has no end. Received: stop=None"
        )


def test_checks_hand_back_what_they_checked() -> None:
    assert check_steps("n", Index(3)) == 3
    assert check_rate("r", 3) == 3.0
    assert check_factor("f", 1.1) == Fraction(11, 10)
    assert check_factor("f", 1e-5) == Fraction(1, 10**5)
    assert check_factor("f", Fraction(22, 7)) == Fraction(22, 7)
    assert check_flag("b", True) is True


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.5, "1 kB"),
        (4119, "4.12 kB"),
        (999499, "999 kB"),
        (999500, "1 MB"),
        (31400000000.0, "31.4 GB"),
        (1.2345e16, "1.234e+04 TB"),
    ],
)
def test_sizes_are_told_to_three_digits(size: float, said: str) -> None:
    assert human_size(size) == said
