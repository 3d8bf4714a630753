"""The loss between two members' weights."""

from __future__ import annotations

import math

from cosanneal.ensemble import Interpolation


def test_the_barrier_is_the_rise_above_the_line_between_the_ends() -> None:
    found = Interpolation.of((0.0, 0.25, 0.5, 1.0), (1.0, 2.0, 2.5, 3.0))
    assert found.barrier == 0.5  # 2 above 1.5, and 2.5 above 2
    assert Interpolation.of((0.0, 1.0), (1.0, 3.0)).barrier == 0
    assert Interpolation.of((0.0, 0.5, 1.0), (1.0, 0.5, 3.0)).barrier == 0
    assert Interpolation.of((0.0, 0.5, 1.0), (1.0, math.inf, 3.0)).barrier == math.inf
