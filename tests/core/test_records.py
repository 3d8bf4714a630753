"""Schedules as plain data: what is refused, and with which path."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.core.rules import CycleRule, Level, Phase

SCHEDULE = ca.CyclicCosine(
    0.1, total_steps=100, num_cycles=3, min_lr=0.01, warmup_steps=4, cycle_decay=0.5
)


def described() -> dict[str, Any]:
    """A description to spoil: two rules, the first with a warmup and an annealing."""
    return copy.deepcopy(SCHEDULE.to_dict())


def message(spoil: Callable[[dict[str, Any]], object]) -> str:
    data = described()
    spoil(data)
    with pytest.raises(ca.ScheduleError) as caught:
        ca.Schedule.from_dict(data)
    return str(caught.value)


def _field(data: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """The dict that holds the field at a path such as `rules[0].phases[1].steps`, and its name."""
    *way, name = path.replace("[", ".").replace("]", "").split(".")
    at: Any = data
    for part in way:
        at = at[int(part)] if part.isdigit() else at[part]
    return at, name


FIELDS = (
    *("rules[1].count", "rules[1].length", "rules[1].growth", "rules[0].rounding"),
    *("rules[0].phases", "rules[0].phases[1].steps", "rules[0].phases[0].first"),
    *("rules[0].phases[1].last", "rules[0].phases[0].curve", "rules[0].phases[0].exponent"),
    *("rules[0].phases[1].k", "rules[1].phases[0].endpoint", "rules[0].phases[1].whole_cycle"),
    *("rules[0].phases[1].first.value", "rules[0].phases[1].first.decay"),
    "rules[0].phases[1].last.base",
)


def test_description_is_plain_and_complete() -> None:
    assert described() == {
        "format": "cosanneal.schedule",
        "version": 1,
        "rules": [
            {
                "count": 1,
                "length": "100/3",
                "growth": 1,
                "rounding": "boundaries",
                "phases": [
                    {
                        "steps": 4,
                        "first": {"value": 0.0, "decay": 1.0, "base": 0.0},
                        "last": {"value": 0.1, "decay": 0.5, "base": 0.0},
                        "curve": "linear",
                        "exponent": 1.0,
                        "k": 1.0,
                        "endpoint": False,
                        "whole_cycle": False,
                        "lead": 0,
                    },
                    annealing := {
                        "steps": None,
                        "first": {"value": 0.1, "decay": 0.5, "base": 0.0},
                        "last": {"value": 0.01, "decay": 1.0, "base": 0.0},
                        "curve": "cosine",
                        "exponent": 1.0,
                        "k": 1.0,
                        "endpoint": False,
                        "whole_cycle": False,
                        "lead": 0,
                    },
                ],
            },
            {
                "count": 2,
                "length": "100/3",
                "growth": 1,
                "rounding": "boundaries",
                "phases": [annealing],
            },
        ],
    }
    assert ca.Schedule.from_dict(described()) == SCHEDULE


@pytest.mark.parametrize("data", [None, [], "cosanneal.schedule", 1, {}, {"version": 1}])
def test_what_is_no_description(data: Any) -> None:
    with pytest.raises(ca.ScheduleError) as caught:
        ca.Schedule.from_dict(data)
    assert str(caught.value) == (
        "A schedule's description must be a dict whose 'format' is 'cosanneal.schedule', as "
        f"Schedule.to_dict() gives it. Received: {data!r}"
    )


def test_another_format() -> None:
    text = message(lambda data: data.update(format="cosanneal.snapshot"))
    assert "must be a dict whose 'format' is 'cosanneal.schedule'" in text
    assert "Received: {'format': 'cosanneal.snapshot'" in text
    assert len(text) < 300


@pytest.mark.parametrize("version", [0, 2, 1000, "1", None, True, [1], 1.5])
def test_another_version_is_refused(version: Any) -> None:
    assert message(lambda data: data.update(version=version)) == (
        "A schedule's description must have version 1, the one this cosanneal reads. "
        f"Received: version={version!r}; a newer cosanneal may read it"
    )


def test_no_version_is_refused() -> None:
    assert "Received: version=None" in message(lambda data: data.pop("version"))


@pytest.mark.parametrize("path", ["rules", *FIELDS])
def test_a_missing_field_names_its_path(path: str) -> None:
    def drop(data: dict[str, Any]) -> None:
        holder, name = _field(data, path)
        del holder[name]

    assert message(drop) == f"in '{path}': the field is missing"


@pytest.mark.parametrize(
    "path", ["note", "rules[1].note", "rules[0].phases[1].note", "rules[0].phases[1].first.note"]
)
def test_an_unknown_field_names_its_path(path: str) -> None:
    def add(data: dict[str, Any]) -> None:
        holder, name = _field(data, path)
        holder[name] = 1

    assert message(add) == f"in '{path}': no such field is known"


EXACT = "an integer or a fraction 'p/q'"
WRONG: dict[str, tuple[str, tuple[Any, ...]]] = {
    "count": ("an integer or null", (True, "3", 3.0, [])),
    "length": (EXACT, (None, True, 10.0, "", "ten", "1/0", "1/2/3", "1.5", "1/x", "/", [10])),
    "growth": (EXACT, (None, True, 1.5, "one", "1/0")),
    "rounding": ("one of 'boundaries', 'lengths', 'none'", (None, 0, True, "up")),
    "phases": ("a list", (None, {}, "phases", 1)),
    "steps": (EXACT, (True, 1.5, "x", [])),
    "exponent": ("a number", (None, True, "1.0", [1.0])),
    "k": ("a number", (None, False, "1")),
    "endpoint": ("true or false", (None, 0, "no")),
    "whole_cycle": ("true or false", (None, 1, "no")),
    "value": ("a number", (None, True, "0.1", {})),
    "decay": ("a number", (None, True, "0.1")),
    "base": ("a number", (None, True, "0.1")),
    "rules": ("a list", (None, {}, "rules", 7)),
}


@pytest.mark.parametrize("path", ["rules", *FIELDS])
def test_a_wrong_type_names_its_path_and_what_came(path: str) -> None:
    name = path.rpartition(".")[2]
    if name in ("first", "last", "curve"):
        what, values = {
            "curve": ("one of 'cosine', 'linear', 'constant'", ("step", None, 3, ["cosine"])),
        }.get(name, ("a dict", (None, 0.1, [], "0.1")))
    else:
        what, values = WRONG[name]
    for value in values:

        def put(data: dict[str, Any], value: Any = value) -> None:
            holder, name = _field(data, path)
            holder[name] = value

        assert message(put) == f"in '{path}': must be {what}. Received: {value!r}"


@pytest.mark.parametrize("value", [None, 1, "rule", []])
def test_a_rule_or_a_phase_is_a_dict(value: Any) -> None:
    def put_rule(data: dict[str, Any]) -> None:
        data["rules"][1] = value

    def put_phase(data: dict[str, Any]) -> None:
        data["rules"][0]["phases"][1] = value

    assert message(put_rule) == f"in 'rules[1]': must be a dict. Received: {value!r}"
    assert message(put_phase) == f"in 'rules[0].phases[1]': must be a dict. Received: {value!r}"


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        ("rules[1].count", 0, "must be at least 1"),
        ("rules[1].count", None, None),
        ("rules[0].count", None, "only the last rule may have no end"),
        ("rules[1].length", "-3/2", "must be an int or a Fraction of at least 1"),
        ("rules[1].growth", 0, "must be a positive int or Fraction"),
        ("rules[0].phases[1].first.value", float("nan"), "must be finite"),
        ("rules[0].phases[0].last.decay", float("inf"), "must be finite"),
        ("rules[0].phases[1].k", 0, "must be a finite positive number"),
        ("rules[0].phases[0].steps", 0, "must be positive"),
        ("rules[1].phases", [], "exactly one phase must have steps=None"),
    ],
)
def test_a_value_that_cannot_be_names_its_path(path: str, value: Any, what: str | None) -> None:
    def put(data: dict[str, Any]) -> None:
        holder, name = _field(data, path)
        holder[name] = value

    if what is None:  # this one can be
        data = described()
        put(data)
        assert ca.Schedule.from_dict(data).total_steps is None
    else:
        assert message(put).startswith(f"in '{path}': {what}")


@pytest.mark.parametrize(
    "huge",
    [
        pytest.param(10**400, id="no float holds it"),
        pytest.param(10**5000, id="not written in decimal"),
        pytest.param(-(10**5000), id="negative"),
    ],
)
@pytest.mark.parametrize(
    "path",
    [
        *("version", "rules", "rules[0].phases", "rules[1].phases[0].curve"),
        *("rules[0].phases[1].first.value", "rules[0].phases[1].k", "rules[1].phases[0].exponent"),
        *("rules[1].count", "rules[0].count", "rules[1].length", "rules[0].phases[0].steps"),
        *("rules[1].growth", "rules[0].rounding"),
    ],
)
def test_hostile_numbers_are_schedule_errors_too(path: str, huge: int) -> None:
    def put(data: dict[str, Any]) -> None:
        holder, name = _field(data, path)
        holder[name] = huge

    assert "must" in message(put)


@pytest.mark.parametrize("digits", [10, 300, 309, 1000, 4_299, 4_301, 6_000])
def test_huge_fractions_round_trip(digits: int) -> None:
    # Python refuses to read or write integers of more than 4300 decimal digits.
    almost = Fraction(10**digits + 1, 10**digits)
    phase = Phase(steps=None, first=Level(0.1), last=Level(0.0))
    warmup = Phase(steps=almost, first=Level(0.0), last=Level(0.1), curve="linear")
    rule = CycleRule(count=None, length=100 * almost, rounding="none", phases=(warmup, phase))
    schedule = ca.Schedule((rule,))
    again = ca.Schedule.from_dict(json.loads(json.dumps(schedule.to_dict())))
    assert again == schedule
    for step in (0, 1, 2, 99, 101, 102):
        assert again.rate(step) == schedule.rate(step)


def test_short_fractions_are_readable() -> None:
    rules = ca.CyclicCosine(0.1, cycle_steps=10, cycle_mult=1.1).to_dict()["rules"]
    assert (rules[0]["growth"], rules[0]["length"]) == ("11/10", 10)


def test_floats_survive_to_the_last_bit() -> None:
    for rate in (0.1, 1 / 3, 5e-324, 1.7976931348623157e308, 2.0**-1022):
        schedule = ca.CyclicCosine(rate, cycle_steps=10, cycle_decay=0.9999999999999999)
        again = ca.Schedule.from_dict(json.loads(json.dumps(schedule.to_dict())))
        assert again == schedule
        assert again.rate(0) == rate


def test_reading_does_not_change_the_description() -> None:
    data = described()
    ca.Schedule.from_dict(data)
    assert data == described()
