"""Keras' warmup and growing peaks."""

from __future__ import annotations

import pytest

from cosanneal import ScheduleError, presets


def test_keras_ignores_warmup_steps_without_a_target() -> None:
    assert presets.keras_cosine_decay(0.1, 50, warmup_steps=9) == presets.keras_cosine_decay(
        0.1, 50
    )


def test_peaks_without_bound_fail_only_where_no_float_is() -> None:
    schedule = presets.keras_cosine_decay_restarts(0.1, 10, t_mul=1.0, m_mul=2.0)
    assert schedule.rate(50) == 0.1 * 2**5
    with pytest.raises(ScheduleError, match="cycle 100000 is beyond the range of floats"):
        schedule.rate(10**6)
