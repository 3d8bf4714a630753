"""Whether probabilities are as often right as they say."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cosanneal as ca
from cosanneal.ensemble import (
    adaptive_calibration_error,
    calibration_error,
    reliability,
)

EXACT = 1e-12


def drawn(classes: int, samples: int = 500, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.ones(classes), size=samples)
    y = np.where(random.random(samples) < 0.6, p.argmax(1), random.integers(classes, size=samples))
    return p, y


def loop_debiased(p: NDArray[Any], y: NDArray[Any], bins: int) -> float:
    """Kumar et al. (2019), section 4, with the bins cut by a loop in Fractions."""
    cells: dict[int, list[tuple[Fraction, int]]] = {}
    for row, label in zip(p, y, strict=True):
        best = max(range(len(row)), key=lambda k: row[k])
        confidence = Fraction(float(row[best]))
        at = max(math.ceil(confidence * bins) - 1, 0)
        cells.setdefault(at, []).append((confidence, int(best == label)))
    total = Fraction(0)
    for cell in cells.values():
        n = len(cell)
        gap = sum((c for c, _ in cell), Fraction()) / n - Fraction(sum(hit for _, hit in cell), n)
        accuracy = Fraction(sum(hit for _, hit in cell), n)
        noise = accuracy * (1 - accuracy) / (n - 1) if n > 1 else Fraction(0)
        total += Fraction(n, len(y)) * (gap**2 - noise)
    return math.sqrt(max(total, Fraction(0)))


def test_the_debiased_calibration_error_is_kumars() -> None:
    for seed in range(5):
        p, y = drawn(4, 150, seed)
        ours = calibration_error(p, y, bins=10, norm="l2", debiased=True)
        assert ours == pytest.approx(loop_debiased(p, y, 10), abs=EXACT)


def test_debiasing_takes_away_what_few_samples_add() -> None:
    # Perfectly calibrated: what is left of the plain error is chance.
    random = np.random.default_rng(0)
    plain, debiased = [], []
    for _ in range(200):
        q = random.random(100)
        hits = (random.random(100) < q).astype(int)
        plain.append(calibration_error(q, hits, bins=10, norm="l2") ** 2)
        debiased.append(calibration_error(q, hits, bins=10, norm="l2", debiased=True) ** 2)
    assert np.mean(debiased) < np.mean(plain) / 3


def loop_mass_bins(scores: NDArray[Any], hits: NDArray[Any], bins: int) -> list[tuple[int, float]]:
    """The count and the gap of each bin of equal mass, by sorting and counting."""
    order = sorted(float(score) for score in scores)
    cells: dict[int, list[tuple[float, int]]] = {}
    for score, hit in zip(scores, hits, strict=True):
        at = order.index(float(score)) * bins // len(order)
        cells.setdefault(at, []).append((float(score), int(hit)))
    return [
        (
            len(cell),
            abs(math.fsum(c for c, _ in cell) / len(cell) - sum(h for _, h in cell) / len(cell)),
        )
        for cell in cells.values()
    ]


def test_bins_of_equal_mass_and_the_adaptive_error_are_a_loops() -> None:
    p, y = drawn(3, 200)
    p = np.round(p, 3)
    p[:, 2] = 1 - p[:, 0] - p[:, 1]
    top = p.argmax(1)
    cells = loop_mass_bins(p.max(1), top == y, 15)
    ours = calibration_error(p, y, binning="mass")
    assert ours == pytest.approx(sum(n * gap for n, gap in cells) / 200, abs=EXACT)
    gaps = [np.mean([gap for _, gap in loop_mass_bins(p[:, k], y == k, 15)]) for k in range(3)]
    assert adaptive_calibration_error(p, y) == pytest.approx(np.mean(gaps), abs=EXACT)
    counts = reliability(drawn(3, 200)[0], y, binning="mass", bins=15).counts
    assert counts.sum() == 200
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: calibration_error([0.5], [1], norm="l3"), r"`norm` must be 'l1', 'l2' or 'max'"),  # type: ignore[arg-type]
        (lambda: calibration_error([0.5], [1], debiased=True), r"`debiased`.*give norm='l2'"),
        (lambda: calibration_error([0.5], [1], bins=0), r"`bins` must be a positive.*bins=0"),
        (lambda: calibration_error([0.5], [1], binning="x"), r"`binning` must be"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ca.EnsembleError, match=message):
        call()
