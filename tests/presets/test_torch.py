"""PyTorch's waves turn where they must."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from cosanneal import presets
from tests.shared.arguments import LENGTHS


@given(LENGTHS, st.integers(0, 6))
def test_waves_turn_at_their_ends(t_max: float, wave: int) -> None:
    half = t_max if isinstance(t_max, int | Fraction) else Fraction(repr(t_max))
    schedule = presets.torch_cosine_annealing(0.1, t_max, eta_min=0.01)
    turn = wave * half
    if turn.denominator == 1:
        assert schedule.rate(int(turn)) == (0.01 if wave % 2 else 0.1)
    # A cycle ends at the bottom, where the snapshot is good.
    ends = schedule.cycle_ends(math.ceil(7 * half))
    assert ends == [math.ceil((2 * i + 1) * half) - 1 for i in range(4)]
