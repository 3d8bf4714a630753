"""timm's warmup."""

from __future__ import annotations

import math

from cosanneal import presets


def test_timms_clock_runs_during_its_warmup() -> None:
    runs = presets.timm_cosine(1.0, 100, warmup_t=50)
    assert runs.rate(49) == 0.98
    assert math.isclose(runs.rate(50), 0.5)
    waits = presets.timm_cosine(1.0, 100, warmup_t=50, warmup_prefix=True)
    assert waits.rate(50) == 1.0
    assert (runs.total_steps, waits.total_steps) == (100, 150)
