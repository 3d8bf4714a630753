"""The running mean of anything."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from cosanneal.core.averaging import RunningMean


def test_exact_values_have_an_exact_mean() -> None:
    mean = RunningMean[Fraction]()
    values = [Fraction(k * k, 7) for k in range(1, 30)]
    for value in values:
        mean.update(value, Fraction(1))  # type: ignore[arg-type]
    assert mean.value == sum(values, Fraction(0)) / len(values)


def test_weights_count() -> None:
    mean = RunningMean[float]()
    for value, weight in [(1.0, 1), (4.0, 2), (10.0, 1)]:
        mean.update(value, weight)
    assert mean.value == pytest.approx(19 / 4, rel=1e-15)


def test_nested_values_keep_their_structure_and_are_not_changed() -> None:
    first: dict[str, Any] = {"a": [1.0, 2.0], "b": (3.0, {"c": 4.0})}
    second: dict[str, Any] = {"a": [3.0, 4.0], "b": (5.0, {"c": 6.0})}
    mean = RunningMean[dict[str, Any]]()
    mean.update(first)
    mean.update(second)
    assert mean.value == {"a": [2.0, 3.0], "b": (4.0, {"c": 5.0})}
    assert first == {"a": [1.0, 2.0], "b": (3.0, {"c": 4.0})}


def test_bad_values_are_refused() -> None:
    mean = RunningMean[Any]()
    with pytest.raises(ValueError, match=r"no values is not defined"):
        _ = mean.value
    mean.update({"a": 1.0})
    with pytest.raises(ValueError, match=r"same keys\. Received: \['a'\] and \{'b': 1\.0\}"):
        mean.update({"b": 1.0})
    for weight in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=r"`weight` must be positive"):
            mean.update({"a": 1.0}, weight)
    parts = RunningMean[Any]()
    parts.update([1.0, 2.0])
    with pytest.raises(ValueError, match=r"must have 2 parts"):
        parts.update([1.0])
