"""What the mean of members' weights is built of: moments of batches, barriers, known scores."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosanneal.ensemble import Interpolation, greedy_soup
from cosanneal.ensemble.predict.batches import Batches
from cosanneal.ensemble.weights.moments import Moments


@given(st.lists(st.lists(st.integers(-1000, 1000), min_size=1, max_size=9), min_size=1, max_size=6))
def test_moments_of_batches_are_those_of_all_numbers(batches: list[list[int]]) -> None:
    exact, rounded = Moments(), Moments()
    for batch in batches:
        own = Fraction(sum(batch), len(batch))
        variance = sum((value - own) ** 2 for value in batch) / len(batch)
        exact.update(len(batch), own, variance)
        rounded.update(len(batch), np.mean(batch), np.var(batch))
    numbers = [Fraction(value) for batch in batches for value in batch]
    mean = sum(numbers) / len(numbers)
    squares = sum((value - mean) ** 2 for value in numbers)
    for moments in (exact, rounded):
        assert moments.count == len(numbers)
        assert float(moments.mean) == pytest.approx(float(mean), rel=1e-12, abs=1e-9)
        assert float(moments.variance()) == pytest.approx(
            float(squares / len(numbers)), rel=1e-12, abs=1e-9
        )
        if len(numbers) > 1:
            assert float(moments.variance(correction=1)) == pytest.approx(
                float(squares / (len(numbers) - 1)), rel=1e-12, abs=1e-9
            )


def test_the_barrier_is_the_rise_above_the_line_between_the_ends() -> None:
    found = Interpolation.of((0.0, 0.25, 0.5, 1.0), (1.0, 2.0, 2.5, 3.0))
    assert found.barrier == 0.5  # 2 above 1.5, and 2.5 above 2
    assert Interpolation.of((0.0, 1.0), (1.0, 3.0)).barrier == 0
    assert Interpolation.of((0.0, 0.5, 1.0), (1.0, 0.5, 3.0)).barrier == 0
    assert Interpolation.of((0.0, 0.5, 1.0), (1.0, math.inf, 3.0)).barrier == math.inf


def test_a_soup_of_members_whose_scores_are_known_asks_for_none_of_them() -> None:
    members = [{"w": np.array(x)} for x in (0.5, 9.0, -0.25)]
    asked: list[float] = []

    def score(weights: dict[str, Any]) -> float:
        asked.append(float(weights["w"]))
        return abs(asked[-1])

    expected = greedy_soup(members, score)
    assert len(asked) == 5
    asked.clear()
    found = greedy_soup(members, score, alone=[0.5, 9, 0.25])
    assert found.members == expected.members
    assert asked == [0.125, pytest.approx(9.25 / 3)]


@pytest.mark.parametrize(("samples", "size", "expected"), [(21, 10, [7, 7, 7]), (3, 2, [1, 2])])
def test_training_data_are_cut_evenly(samples: int, size: int, expected: list[int]) -> None:
    def sizes(training: bool) -> list[int]:
        batches = Batches(
            np.arange(samples),
            batch_size=size,
            arrays=np.ndarray,
            convert=np.asarray,
            training=training,
        )
        parts = [batch for (batch,) in batches]
        assert np.concatenate(parts).tolist() == list(range(samples))
        return [len(part) for part in parts]

    assert sizes(True) == expected
    assert sizes(False) == [size] * (samples // size) + [samples % size]
