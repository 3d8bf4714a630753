"""The safer `select="auto"` that the bench tried: its temperature by a grid, its rule by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.quality import choosing


def test_the_temperature_of_few_samples_is_drawn_to_1_as_a_grid_finds_it() -> None:
    random = np.random.default_rng(0)
    p = random.dirichlet([0.3, 0.3, 0.3], size=20)
    y = np.where(random.random(20) < 0.9, p.argmax(1), (p.argmax(1) + 1) % 3)

    def objective(heat: float) -> float:
        q = p ** (1 / heat)
        logs = np.log(q / q.sum(1, keepdims=True))
        return float(-logs[np.arange(20), y].sum() - 10 * (p * logs).sum(1).mean())

    grid = np.exp(np.linspace(-3, 3, 6001))
    expected = grid[np.argmin([objective(heat) for heat in grid])]
    assert abs(math.log(expected)) > 0.05
    assert choosing.drawn_to_1(p, y, 10) == pytest.approx(expected, rel=2e-3)
    assert choosing.drawn_to_1(p, p.argmax(1), 10) == 1
    # Of characters as of samples: the same rows, five to a text.
    text = choosing.drawn_to_1(p.reshape(4, 5, 3), y.reshape(4, 5), 2)
    assert text == pytest.approx(expected, rel=2e-3)


def test_the_last_stands_unless_another_is_better_by_its_standard_errors() -> None:
    gain = np.array([0.3, -0.1, 0.2, 0.0])  # 0.1, of a standard error of 0.0913
    found = np.array([np.ones(4), np.ones(4) - gain, np.ones(4) * 1.1])
    assert choosing.standing(found, 1.0) == 1
    assert choosing.standing(found, 1.1) == 0
    assert choosing.standing(found[[0, 2]], 0.0) == 0
