"""The moments of batches are those of all their numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
