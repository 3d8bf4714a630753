"""The scores of regressions, beside scikit-learn, torch and integrals."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from sklearn.metrics import (
    mean_absolute_error,
    mean_pinball_loss,
    mean_squared_error,
    root_mean_squared_error,
)

import cosanneal as ca
from cosanneal.ensemble import (
    crps,
    gaussian_nll,
    interval_coverage,
    mae,
    mean_interval_width,
    mse,
    pinball_loss,
    prediction_interval,
    quantile_coverage,
    quantile_crossing,
    regression_calibration_error,
    regression_scores,
    rmse,
)

EXACT = 1e-12


def drawn(*shape: int, seed: int = 5) -> Any:
    random = np.random.default_rng(seed)
    return random.normal(size=shape), random.uniform(0.2, 3, shape), random.normal(size=shape)


def test_errors_agree_with_scikit_learn() -> None:
    m, _, y = drawn(300)
    weights = np.random.default_rng(1).uniform(0, 2, 300)
    for ours, theirs in (
        (mse, mean_squared_error),
        (rmse, root_mean_squared_error),
        (mae, mean_absolute_error),
    ):
        assert ours(m, y) == pytest.approx(theirs(y, m), abs=EXACT)
        weighted = theirs(y, m, sample_weight=weights)
        assert ours(m, y, sample_weight=weights) == pytest.approx(weighted, abs=EXACT)
    for array in (torch.tensor(m), torch.tensor(m)[:, None], m[:, None], m.tolist()):
        assert mse(array, torch.tensor(y)) == pytest.approx(mean_squared_error(y, m), abs=EXACT)
    # Of several targets the mean is over all, which is scikit-learn's mean of the columns.
    m, _, y = drawn(50, 3)
    assert mse(m, y) == pytest.approx(mean_squared_error(y, m), abs=EXACT)


def test_the_likelihood_agrees_with_torch_and_the_crps_with_its_integral() -> None:
    m, v, y = drawn(40)
    loss = torch.nn.GaussianNLLLoss(full=True, eps=1e-12)
    expected = float(loss(torch.tensor(m), torch.tensor(y), torch.tensor(v)))
    assert gaussian_nll(m, v, y) == pytest.approx(expected, abs=EXACT)

    def integral(mean: float, deviation: float, target: float) -> float:
        cdf = stats.norm(mean, deviation).cdf
        below = quad(lambda x: cdf(x) ** 2, -40, target, epsabs=1e-11, limit=200)[0]
        above = quad(lambda x: (1 - cdf(x)) ** 2, target, 40, epsabs=1e-11, limit=200)[0]
        return float(below + above)

    exact = np.mean([integral(*each) for each in zip(m, np.sqrt(v), y, strict=True)])
    assert crps(m, v, y) == pytest.approx(exact, abs=1e-8)
    # As the variance goes to 0, the absolute error.
    assert crps(m, np.full(40, 1e-24), y) == pytest.approx(mae(m, y), abs=1e-11)


def test_weights_count_as_repetitions_and_a_mask_as_leaving_out() -> None:
    m, v, y = drawn(30, 2)
    times = np.random.default_rng(2).integers(0, 4, 30)
    many = np.repeat(np.arange(30), times)
    holes = np.random.default_rng(3).random((30, 2)) < 0.3
    missing = np.where(holes, np.nan, y)
    scores: list[Any] = [
        lambda m, _, y, **given: mse(m, y, **given),
        lambda m, _, y, **given: mae(m, y, **given),
        gaussian_nll,
        crps,
        regression_calibration_error,
        lambda m, v, y, **given: interval_coverage(
            *prediction_interval(m, v, level=0.7), y, **given
        ),
    ]
    for score in scores:
        assert score(m, v, y, sample_weight=times) == pytest.approx(
            score(m[many], v[many], y[many]), abs=EXACT
        )
        kept = score(m[~holes], v[~holes], y[~holes])
        assert score(m, v, missing, mask=~holes) == pytest.approx(kept, abs=EXACT)
        # What does not count need be no number in a prediction either.
        spoilt = np.where(holes, np.nan, m)
        assert score(spoilt, v, missing, sample_weight=~holes * 1.0) == pytest.approx(kept)
        rows = np.arange(30) % 3 > 0
        assert score(m, v, y, mask=rows) == pytest.approx(score(m[rows], v[rows], y[rows]))


@pytest.mark.parametrize("metric", ["mse", "mae", "gaussian_nll", "crps", "pinball"])
def test_the_mean_of_the_samples_scores_is_the_score(metric: Any) -> None:
    m, v, y = drawn(30, 2)
    q = np.stack([m - 1, m, m + 1], -1)
    levels = [0.1, 0.5, 0.9]
    whole: dict[str, Any] = {
        "mse": (mse, (m,), m),
        "mae": (mae, (m,), m),
        "gaussian_nll": (gaussian_nll, (m, v), (m, v)),
        "crps": (crps, (m, v), (m, v)),
        "pinball": (lambda q, y, **given: pinball_loss(q, y, levels, **given), (q,), q),
    }
    score, arguments, prediction = whole[metric]
    holes = np.random.default_rng(3).random((30, 2)) < 0.4
    weights = np.random.default_rng(4).uniform(0, 2, 30)
    for given in ({}, {"mask": ~holes}, {"sample_weight": weights, "mask": ~holes}):
        found = regression_scores(metric, prediction, y, quantiles=levels, **given)
        assert found.mean() == pytest.approx(score(*arguments, y, **given), abs=EXACT)
        assert len(found) == (30 if not given else (~holes).any(1).sum())
    plain = regression_scores(metric, prediction, y, quantiles=levels)
    alone = [score(*(each[i : i + 1] for each in arguments), y[i : i + 1]) for i in range(30)]
    np.testing.assert_allclose(plain, alone, atol=EXACT)


def test_quantiles_agree_with_scikit_learn() -> None:
    m, v, y = drawn(200)
    levels = (0.05, 0.5, 0.95)
    values = np.stack([m - 2 * v, m, m + v], -1)
    parts = [mean_pinball_loss(y, values[:, k], alpha=q) for k, q in enumerate(levels)]
    assert pinball_loss(values, y, levels) == pytest.approx(np.mean(parts), abs=EXACT)
    weights = v / 2
    parts = [
        mean_pinball_loss(y, values[:, k], sample_weight=weights, alpha=q)
        for k, q in enumerate(levels)
    ]
    found = pinball_loss(values, y, levels, sample_weight=weights)
    assert found == pytest.approx(np.mean(parts), abs=EXACT)
    assert pinball_loss(values[:, 1:2], y, [0.5]) == pytest.approx(mae(m, y) / 2, abs=EXACT)
    assert quantile_coverage(values, y, levels) == [
        pytest.approx(np.mean(y <= values[:, k])) for k in range(3)
    ]
    assert quantile_crossing(values) == 0
    crossed = values.copy()
    crossed[:50, 0] = 99
    assert quantile_crossing(crossed) == 0.25
    # Means of numbers in order are in order.
    assert quantile_crossing((values + 2 * np.sort(np.stack([v, m, y], -1))) / 3) == 0


def test_coverage_and_width_of_intervals() -> None:
    m, v, y = drawn(300)
    for level in (0.5, 0.9, 0.95):
        low, high = prediction_interval(m, v, level=level)
        expected = stats.norm.interval(level, m, np.sqrt(v))
        np.testing.assert_allclose((low, high), expected, rtol=1e-12, atol=1e-12)
        inside = np.mean((expected[0] <= y) & (y <= expected[1]))
        assert interval_coverage(low, high, y) == pytest.approx(inside, abs=EXACT)
        assert mean_interval_width(low, high) == pytest.approx(np.mean(expected[1] - expected[0]))
    assert interval_coverage([-np.inf, 0], [0, np.inf], [1, 1]) == 0.5
    assert mean_interval_width([-np.inf, 0], [0, 1]) == np.inf


def test_the_calibration_error_is_nothing_at_the_truth_alone() -> None:
    n = 999
    # Targets at the very quantiles: the share below each is exact.
    y = stats.norm.ppf((np.arange(n) + 0.5) / n)
    assert regression_calibration_error(np.zeros(n), np.ones(n), y) < 1 / n
    found = regression_calibration_error(np.zeros(n), np.full(n, 4.0), y, bins=10)
    # By Fractions of the counts.
    below = stats.norm.cdf(y / 2)
    gaps = [abs(Fraction(int((below <= k / 10).sum()), n) - Fraction(k, 10)) for k in range(1, 10)]
    assert found == pytest.approx(float(sum(gaps) / 9), abs=EXACT)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rmse(["a"], [1.0]), r"must be arrays of numbers"),
        (lambda: rmse([1.0], [1.0, 2.0]), r"one shape.*\(1,\) and \(2,\)"),
        (lambda: mse(np.ones((3, 2)), np.ones(3)), r"one shape. Received: \(3, 2\) and \(3,\)"),
        (lambda: mse(np.ones((3, 1, 1)), np.ones(3)), r"Received: \(3, 1, 1\) and \(3,\)"),
        (lambda: mse(np.ones(3), np.ones((3, 2))), r"Received: \(3,\) and \(3, 2\)"),
        (lambda: mse([], []), r"at least one. Received: shape \(0,\)"),
        (lambda: mse(1.0, 1.0), r"samples along the first axis.*Received: shape \(\)"),
        (lambda: mse([np.nan], [1.0]), r"`values` must be finite. Received: NaN"),
        (lambda: mse([1.0], [np.nan]), r"`targets` must be finite.*missing out by mask="),
        (lambda: mse([1.0], [1.0], mask=[1]), r"`mask` must be booleans.*dtype int"),
        (lambda: mse([1.0], [1.0], mask=[False]), r"a target that counts. Received: none"),
        (lambda: mse([1.0], [1.0], mask=[True, True]), r"`mask` must be of shape \(1,\).*\(2,\)"),
        (lambda: mse([1.0], [1.0], sample_weight=[-1]), r"`sample_weight` must be finite.*-1"),
        (lambda: mse([1.0], [1.0], sample_weight=[np.inf]), r"`sample_weight`.*NaN or infinity"),
        (lambda: gaussian_nll([1.0], [0.0], [1.0]), r"`variances` must be positive.*noise"),
        (lambda: gaussian_nll([1.0], [-1.0], [1.0]), r"Received: one of -1; of log-variances"),
        (lambda: interval_coverage([1.0], [0.0], [1.0]), r"`lower` must not be above `upper`"),
        (lambda: interval_coverage([np.nan], [0.0], [1.0]), r"`lower` must be a number.*NaN"),
        (lambda: regression_calibration_error([1.0], [1.0], [1.0], bins=1), r"`bins` must be"),
        (lambda: regression_scores("nll", [1.0], [1.0]), r"`metric` must be one of 'mse'"),  # type: ignore[arg-type]
        (lambda: regression_scores("crps", [1.0], [1.0]), r"tuple of means and.*Received: list"),
        (lambda: pinball_loss([[1.0]], [1.0], [0.9, 0.1]), r"`quantiles` must be increasing"),
        (lambda: pinball_loss([[1.0]], [1.0], "0.5"), r"`quantiles` must be .*'0.5'"),  # type: ignore[arg-type]
        (lambda: pinball_loss([[1.0]], [1.0], [0.0, 0.5]), r"`quantiles` must be"),
        (lambda: pinball_loss([[1.0]], [1.0], [0.1, 0.5]), r"2 quantiles along the last axis"),
        (lambda: quantile_crossing([[1.0]]), r"two quantiles.*shape \(1, 1\)"),
        (lambda: quantile_crossing([[1.0, np.nan]]), r"must be finite"),
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ca.EnsembleError, match=message):
        call()
