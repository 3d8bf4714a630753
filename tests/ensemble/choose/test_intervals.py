"""Intervals beside scipy, Monte Carlo and the exact law of their coverage."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize, stats

import cosanneal as ca
from cosanneal.ensemble import (
    fit_conformal_interval,
    interval_coverage,
    mixture_interval,
    prediction_interval,
)


def test_normal_intervals_are_of_the_means_kind() -> None:
    m, v = torch.tensor([1.0, 2.0]), torch.tensor([4.0, 0.0])
    low, high = prediction_interval(m, v, level=0.8)
    assert low.dtype == high.dtype == torch.float32
    exact = stats.norm.interval(0.8, 1, 2)
    torch.testing.assert_close(low, torch.tensor([exact[0], 2], dtype=torch.float32))
    torch.testing.assert_close(high, torch.tensor([exact[1], 2], dtype=torch.float32))


@pytest.mark.parametrize("level", [0.5, 0.9, 0.999])
def test_a_mixtures_interval_is_where_scipy_finds_its_quantiles(level: float) -> None:
    random = np.random.default_rng(0)
    m, s = random.normal(size=(4, 30)) * 5, 10 ** random.uniform(-4, 1, (4, 30))
    w = np.array([1.0, 0.0, 3.0, 0.5])
    ends = mixture_interval(m, s**2, level=level, weights=w.tolist())
    for i in range(30):
        for end, p in zip(ends, ((1 - level) / 2, (1 + level) / 2), strict=True):

            def away(x: float, i: int = i, p: float = p) -> float:
                return float(w @ stats.norm.cdf(x, m[:, i], s[:, i]) / w.sum() - p)

            exact = optimize.brentq(away, -1e3, 1e3, xtol=1e-13, rtol=1e-14)
            # Where hardly any density lies, rounding of p moves the quantile.
            density = float(w @ stats.norm.pdf(exact, m[:, i], s[:, i]) / w.sum())
            assert end[i] == pytest.approx(exact, abs=1e-11 + 4e-16 / max(density, 1e-12))


def test_a_mixtures_interval_holds_its_share_of_the_mixture() -> None:
    random = np.random.default_rng(1)
    m, v = np.array([[-4.0], [0.0], [3.0]]), np.array([[0.1], [1.0], [2.0]])
    (low,), (high,) = mixture_interval(m, v, level=0.8)
    k = random.integers(3, size=200_000)
    x = random.normal(m[k, 0], np.sqrt(v[k, 0]))
    error = 5 * math.sqrt(0.1 * 0.9 / len(x))
    assert np.mean(x < low) == pytest.approx(0.1, abs=error)
    assert np.mean(x > high) == pytest.approx(0.1, abs=error)
    # One member alone: the normal's.
    one = mixture_interval(m[:1], v[:1], level=0.8)
    np.testing.assert_allclose(one, prediction_interval(m[0], v[0], level=0.8), rtol=1e-13)


def heavy(random: Any, *shape: int) -> tuple[Any, Any, Any]:
    """Targets of heavy tails and an unlike spread, and a poor prediction of them."""
    x = random.uniform(0, 3, shape)
    y = x**2 + (0.2 + x) * random.standard_t(3, shape)
    return 2 * x, (0.1 + x) ** 2, y


@pytest.mark.parametrize("normalized", [False, True])
def test_conformal_coverage_follows_its_exact_law(normalized: bool) -> None:
    n, level, tests, draws = 59, 0.8, 40, 3000
    k = math.ceil(60 * level)
    random = np.random.default_rng(2)
    counts = np.zeros(draws, int)
    for i in range(draws):
        m, v, y = heavy(random, n)
        found = fit_conformal_interval(m, y, level=level, variances=v if normalized else None)
        m, v, y = heavy(random, tests)
        ends = found.interval(m, v if normalized else None)
        counts[i] = round(interval_coverage(*ends, y) * tests)
    # Of tests that are covered: beta-binomial, by the Beta(k, n + 1 - k) of the coverage.
    law = stats.betabinom(tests, k, n + 1 - k)
    assert law.mean() / tests == pytest.approx(level, abs=1e-12)
    edges = [law.ppf(p) for p in np.linspace(0.1, 0.9, 9)]
    observed = [np.mean(counts <= edge) for edge in edges]
    expected = [law.cdf(edge) for edge in edges]
    np.testing.assert_allclose(observed, expected, atol=4.5 * 0.5 / math.sqrt(draws))
    assert counts.mean() / tests == pytest.approx(
        level, abs=5 * law.std() / tests / math.sqrt(draws)
    )


def test_the_width_is_the_rank_of_the_scores_and_each_target_has_its_own() -> None:
    random = np.random.default_rng(3)
    m, v, y = heavy(random, 19, 2)
    found = fit_conformal_interval(m, y, level=0.9)
    assert found.quantile.tolist() == np.sort(np.abs(y - m), axis=0)[17].tolist()
    assert (found.samples, found.normalized, found.level) == (19, False, 0.9)
    scaled = fit_conformal_interval(m, y, level=0.9, variances=v)
    np.testing.assert_allclose(scaled.quantile, np.sort(np.abs(y - m) / np.sqrt(v), axis=0)[17])
    low, high = scaled.interval(torch.tensor(m), torch.tensor(v))
    np.testing.assert_allclose(high - low, 2 * scaled.quantile * np.sqrt(v))
    # Of a target that is missing here and there, those that are there.
    holes = np.zeros((19, 2), bool)
    holes[:5, 1] = True
    masked = fit_conformal_interval(m, np.where(holes, np.nan, y), level=0.7, mask=~holes)
    assert masked.quantile[1] == np.sort(np.abs(y - m)[5:, 1])[math.ceil(15 * 0.7) - 1]
    assert masked.samples == 14
    # 0.7 * 10 is 7, and not the next float.
    assert fit_conformal_interval(m[:9], y[:9], level=0.7).samples == 9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: prediction_interval([1.0], [1.0], level=95), r"`level` must be a number between"),
        (lambda: prediction_interval([1.0], [1.0, 1.0]), r"one shape. Received: \(1,\) and \(2,\)"),
        (lambda: prediction_interval([1.0], [-1.0]), r"at least 0. Received: one of -1; of log"),
        (lambda: mixture_interval([[1.0]], [[0.0]]), r"`variances` must be positive"),
        (
            lambda: mixture_interval([[1.0]], [[1.0]], weights=[0]),
            r"a finite weight of at least 0 for each of 1",
        ),
        (lambda: mixture_interval([[1.0]], [[1.0]], weights=[1, 1]), r"Received: \[1, 1\]"),
        (
            lambda: fit_conformal_interval(np.zeros(8), np.zeros(8), level=0.9),
            r"at least 9 samples of each target for a level of 0.9. Received: 8",
        ),
        (
            lambda: fit_conformal_interval(np.zeros(9), np.zeros(9)).interval(np.zeros(3), [1.0]),
            r"`variances` must be given where.*Received: some",
        ),
        (
            lambda: fit_conformal_interval(np.zeros(9), np.zeros(9)).interval(np.zeros((3, 2))),
            r"must have \(\) targets for each sample.*\(3, 2\)",
        ),
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ca.EnsembleError, match=message):
        call()
