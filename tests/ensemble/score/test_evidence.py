"""Intervals and paired tests, beside scipy and the true distribution."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest
from scipy import stats

import cosanneal as ca
from cosanneal.ensemble import bootstrap_interval, compare_scores


def test_the_interval_of_a_share_is_the_binomials() -> None:
    # Resampling n scores of which k are 1 draws binomial counts of k / n.
    scores = np.repeat([1.0, 0.0], [30, 170])
    low, high = bootstrap_interval(scores, resamples=20_000, level=0.9)
    expected = stats.binom.ppf([0.05, 0.95], 200, 0.15) / 200
    assert abs(low - expected[0]) <= 1 / 200
    assert abs(high - expected[1]) <= 1 / 200


def test_the_interval_agrees_with_scipy() -> None:
    scores = np.random.default_rng(2).exponential(size=300)
    theirs = stats.bootstrap(
        (scores,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(4)
    ).confidence_interval
    ours = bootstrap_interval(scores, resamples=20_000)
    spread = scores.std() / np.sqrt(300)
    # The quantile of so many draws has a standard error of about 0.02 spreads.
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.1 * spread)


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    scores = np.random.default_rng(2).normal(size=50)
    assert bootstrap_interval(scores, seed=3) == bootstrap_interval(scores, seed=3)
    assert bootstrap_interval(scores, seed=3) != bootstrap_interval(scores, seed=4)


def test_the_interval_of_equal_scores_is_the_score() -> None:
    assert bootstrap_interval([1e9 / 3] * 7) == (1e9 / 3, 1e9 / 3)


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (9, 3), (3, 9), (60, 41), (5, 5)])
def test_for_errors_the_test_is_mcnemars(better: int, worse: int) -> None:
    first = np.repeat([0, 1, 0, 1], [better, worse, 20, 7])
    second = np.repeat([1, 0, 0, 1], [better, worse, 20, 7])
    expected = 1.0
    if better + worse:
        expected = stats.binomtest(better, better + worse, 0.5).pvalue
    found = compare_scores(first, second)
    assert found.p_value == pytest.approx(expected, rel=1e-12)
    assert found.difference == pytest.approx((worse - better) / len(first), abs=1e-15)


def test_mcnemars_test_of_many_samples_is_scipys() -> None:
    first, second = np.zeros(100_000), np.zeros(100_000)
    first[:40_000], second[40_000:80_700] = 1, 1
    expected = stats.binomtest(40_000, 80_700, 0.5).pvalue
    assert compare_scores(first, second, resamples=2).p_value == pytest.approx(expected, rel=1e-8)


def test_few_differences_get_every_sign() -> None:
    d = np.array([0.5, -0.25, 1.0, 0.125, -0.0625, 2.0, 0.75])
    means = [
        abs(sum(s * x for s, x in zip(signs, d, strict=True)))
        for signs in itertools.product((1, -1), repeat=7)
    ]
    expected = sum(mean >= abs(d.sum()) for mean in means) / 2**7
    assert compare_scores(d, np.zeros(7)).p_value == expected


def test_many_differences_agree_with_scipys_permutation_test() -> None:
    random = np.random.default_rng(8)
    first, second = random.exponential(size=80), random.exponential(size=80) + 0.1
    theirs = stats.permutation_test(
        (first, second),
        lambda a, b: np.mean(a - b),
        permutation_type="samples",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).pvalue
    ours = compare_scores(first, second, resamples=20_000)
    assert 0.005 < theirs < 0.5
    # Six standard errors of the difference of two such shares.
    assert abs(ours.p_value - theirs) < 6 * np.sqrt(2 * theirs / 20_000)
    assert ours.interval[0] < ours.difference < ours.interval[1]


def test_without_a_difference_small_p_values_are_as_rare_as_they_say() -> None:
    random = np.random.default_rng(11)
    values = [
        compare_scores(random.normal(size=30), np.zeros(30), resamples=199, seed=i).p_value
        for i in range(400)
    ]
    for level in (0.05, 0.2, 0.5):
        share = np.mean([value <= level for value in values])
        assert abs(share - level) < 4 * np.sqrt(level * (1 - level) / 400)


def test_memory_does_not_grow_with_the_resamples() -> None:
    scores = np.random.default_rng(0).normal(size=20_000)
    tracemalloc.start()
    compare_scores(scores, np.zeros(20_000), resamples=1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6  # 1000 resamples of 20,000 float64 would be 160 MB each of index and value


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([]), r"`scores` must have one finite score"),
        (lambda: bootstrap_interval([[1.0]]), r"shape \(1, 1\)"),
        (lambda: bootstrap_interval([float("nan")]), r"NaN"),
        (lambda: bootstrap_interval([1.0], level=1.0), r"`level` must be a number between 0 and 1"),
        (lambda: bootstrap_interval([1.0], resamples=0), r"`resamples` must be a positive"),
        (lambda: compare_scores([1.0], [1.0, 2.0]), r"same samples. Received: 1 and 2 scores"),
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ca.EnsembleError, match=message):
        call()
