"""Conformal sets: their guarantee over a thousand draws, their scores by loops, their file."""

from __future__ import annotations

import copy
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import betabinom, kstest

import cosanneal as ca
from cosanneal.ensemble import ConformalPredictor, set_coverage, set_size

VARIANTS: list[dict[str, Any]] = [
    {"method": "lac"},
    {"method": "aps"},
    {"method": "aps", "randomized": True},
    {"method": "raps", "penalty": 0.1, "rank": 1},
    {"method": "raps", "penalty": 0.1, "rank": 1, "randomized": True},
    {"method": "raps", "randomized": True},
]


def drawn(samples: int, seed: int = 0, classes: int = 5) -> tuple[NDArray[Any], NDArray[Any]]:
    """Probabilities that are too sure, and labels."""
    random = np.random.default_rng(seed)
    y = random.integers(classes, size=samples)
    z = 3 * np.eye(classes)[y] + 2 * random.normal(size=(samples, classes))
    p = np.exp(1.5 * z)
    return p / p.sum(-1, keepdims=True), y


def loop_score(p: Any, label: int, u: float, predictor: ConformalPredictor) -> float:
    """The score of one class, as the papers write it."""
    if predictor.method == "lac":
        return float(1 - p[label])
    order = sorted(range(len(p)), key=lambda k: -p[k])
    rank = order.index(label) + 1
    mass = math.fsum(p[k] for k in order[:rank]) - u * p[label]
    return float(mass + predictor.penalty * max(rank - predictor.rank, 0))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_guarantee_holds_over_a_thousand_draws(variant: dict[str, Any]) -> None:
    """Given one calibration the coverage is a Beta variable, and their number a Beta-binomial."""
    draws, n, m, alpha = 1000, 99, 60, 0.1
    covered = []
    for seed in range(draws):
        p, y = drawn(n + m, seed)
        found = ConformalPredictor.fit(p[:n], y[:n], alpha, seed=seed, **variant)
        covered.append(round(m * set_coverage(found.predict(p[n:]), y[n:])))
    n = found.labels  # of RAPS that tunes itself, what is left
    assert n == (80 if variant == VARIANTS[-1] else 99)
    k = math.ceil((n + 1) * (1 - Fraction("0.1")))
    law = betabinom(m, k, n + 1 - k)
    mean = np.mean(covered) / m
    spread = law.std() / m / math.sqrt(draws)
    assert mean >= 1 - alpha - 4 * spread
    if variant["method"] == "lac" or variant.get("randomized"):
        # No scores tie: the law is exact. Of what is whole, the steps of its distribution count.
        assert abs(mean - k / (n + 1)) < 4 * spread
        jittered = np.array(covered) + np.random.default_rng(0).random(draws)
        theirs = law.rvs(100_000, random_state=1) + np.random.default_rng(2).random(100_000)
        assert kstest(jittered, theirs).pvalue > 1e-3
    else:
        assert mean > k / (n + 1) + 4 * spread  # more than was asked for


@pytest.mark.parametrize("variant", VARIANTS[:5], ids=str)
def test_scores_and_sets_are_those_of_the_papers(variant: dict[str, Any]) -> None:
    p, y = drawn(60)
    found = ConformalPredictor.fit(p, y, 0.2, seed=3, **variant)
    draws = np.random.default_rng(3).random(60)
    expected = [loop_score(*each, found) for each in zip(p, y, draws, strict=True)]
    assert found.threshold == pytest.approx(sorted(expected)[math.ceil(61 * 0.8) - 1], abs=1e-12)
    q, _ = drawn(200, seed=1)
    sets = found.predict(q)
    fresh = np.random.default_rng([3, 1]).random(200)
    for row, u, members in zip(q, fresh, sets, strict=True):
        order = sorted(range(5), key=lambda k: -row[k])
        if found.method == "lac" or found.randomized:
            wanted = {k for k in range(5) if loop_score(row, k, u, found) <= found.threshold}
        else:  # up to the class at which the sum crosses the threshold, and with it
            below = [k for k in order if loop_score(row, k, 0, found) <= found.threshold]
            wanted = {*order[: len(below) + 1]}
        assert {*np.flatnonzero(members)} == wanted
    if not found.randomized and found.method != "lac":
        assert sets.any(axis=1).all()  # never empty
        larger = ConformalPredictor.fit(p, y, 0.2, seed=3, **variant | {"randomized": True})
        assert not (larger.predict(q) & ~sets).any()


@given(st.integers(1, 300), st.integers(1, 99))
def test_the_threshold_is_the_exact_order_statistic(n: int, percent: int) -> None:
    alpha, wanted = percent / 100, Fraction(percent, 100)
    p = np.linspace(0.99, 0.01, n)  # whose scores go up
    rows, y = np.stack([p, 1 - p], 1), np.zeros(n, int)
    k = math.ceil((n + 1) * (1 - wanted))
    if k > n:
        least = min(m for m in range(1, 200) if math.ceil((m + 1) * (1 - wanted)) <= m)
        with pytest.raises(ca.EnsembleError, match=f"at least {least} labels for alpha={alpha:g}"):
            ConformalPredictor.fit(rows, y, alpha)
        return
    assert ConformalPredictor.fit(rows, y, alpha).threshold == 1 - p[k - 1]


def test_raps_is_tuned_on_a_fifth_and_calibrated_on_the_rest() -> None:
    p, y = drawn(2000, classes=30)
    test, truth = drawn(2000, seed=1, classes=30)
    found = ConformalPredictor.fit(p, y, method="raps", randomized=True)
    assert found.labels == 1600
    assert found.penalty in (0.001, 0.01, 0.1, 0.2, 0.5)
    part = np.random.default_rng(0).permutation(2000)[:400]
    ranks = [sorted(-p[i]).index(-p[i, y[i]]) + 1 for i in part]
    assert found.rank == sorted(ranks)[math.ceil(401 * 0.9) - 1]
    sizes = {
        method: set_size(ConformalPredictor.fit(p, y, method=method, randomized=True).predict(test))
        for method in ("aps", "raps")
    }
    assert sizes["raps"] < sizes["aps"] - 0.3
    assert set_coverage(found.predict(test), truth) == pytest.approx(0.9, abs=0.03)
    half = ConformalPredictor.fit(p, y, method="raps", penalty=0.3)
    assert (half.penalty, half.rank, half.labels) == (0.3, found.rank, 1600)
    with pytest.raises(ca.EnsembleError, match=r"at least 45 labels .*: 40 \(8 of them to tune on"):
        ConformalPredictor.fit(p[:40], y[:40], method="raps")


@pytest.mark.parametrize("variant", VARIANTS[:5], ids=str)
def test_dense_outputs_and_outcomes(variant: dict[str, Any]) -> None:
    p, y = drawn(120)
    plain = ConformalPredictor.fit(p, y, **variant)
    sets = plain.predict(p)
    dense = np.moveaxis(p.reshape(20, 6, 5), -1, 1)
    found = ConformalPredictor.fit(dense, y.reshape(20, 6), class_axis=1, **variant)
    assert found.threshold == plain.threshold
    of_dense = found.predict(dense)
    assert of_dense.shape == dense.shape
    np.testing.assert_array_equal(np.moveaxis(of_dense, 1, -1).reshape(-1, 5), sets)
    labels = y.reshape(20, 6)
    assert set_coverage(of_dense, labels, class_axis=1) == set_coverage(sets, y)
    assert set_size(of_dense, class_axis=1) == set_size(sets) == sets.sum() / 120
    happened, q = (y == 0).astype(int), p[:, 0]
    both = ConformalPredictor.fit(np.stack([1 - q, q], 1), happened, **variant)
    outcomes = ConformalPredictor.fit(
        q.reshape(40, 3), happened.reshape(40, 3), class_axis=None, **variant
    )
    of_outcomes = outcomes.predict(q.reshape(40, 3))
    assert of_outcomes.shape == (40, 3, 2)
    theirs = both.predict(np.stack([1 - q, q], 1))
    np.testing.assert_array_equal(of_outcomes.reshape(-1, 2), theirs)
    share = set_coverage(of_outcomes, happened.reshape(40, 3), class_axis=None)
    assert share == set_coverage(theirs, happened)


def test_equal_probabilities_are_in_or_out_together() -> None:
    found = ConformalPredictor.fit([[0.5, 0.3, 0.2]] * 30, [0] * 28 + [1, 2], 0.1)
    assert found.predict([[0.4, 0.3, 0.3], [0.5, 0.5, 0.0]]).tolist() == [
        [False, False, False],  # its surest class is less so than nine of ten were of theirs
        [True, True, False],
    ]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_saved_and_loaded_it_is_the_same(variant: dict[str, Any], tmp_path: Path) -> None:
    p, y = drawn(200)
    found = ConformalPredictor.fit(p, y, class_axis=1, seed=5, **variant)
    found.save(tmp_path / "sets.json")
    again = ConformalPredictor.load(tmp_path / "sets.json")
    assert again == found
    np.testing.assert_array_equal(again.predict(p), found.predict(p))
    assert json.loads((tmp_path / "sets.json").read_text()) == found.to_dict()


WRONG: list[tuple[str, Any, str]] = [
    ("format", "other", "must be a dict whose 'format' is 'cosanneal.conformal'"),
    ("version", 2, "must have version 1"),
    ("method", "lax", r"in 'method': must be one of 'lac', 'aps', 'raps'. Received: 'lax'"),
    ("alpha", 1.0, "in 'alpha': must be a number between 0 and 1"),
    ("alpha", "0.1", "in 'alpha': must be a number"),
    ("threshold", -0.1, "in 'threshold': must be a finite number of at least 0"),
    ("threshold", math.inf, "in 'threshold': must be a finite number of at least 0"),
    ("penalty", math.nan, "in 'penalty': must be a finite number of at least 0"),
    ("labels", 0, "in 'labels': must be an integer of at least 1"),
    ("classes", 1, "in 'classes': must be an integer of at least 2"),
    ("classes", True, "in 'classes': must be an integer or null"),
    ("rank", None, "in 'rank': must be an integer of at least 0"),
    ("seed", -1, "in 'seed': must be an integer of at least 0"),
    ("class_axis", 64, "in 'class_axis': must be null or an axis"),
    ("randomized", 1, "in 'randomized': must be true or false"),
    ("method", "lac", "in 'randomized': must be false for the method 'lac'"),
    ("method", "aps", "in 'penalty': must be 0 for another method than 'raps'"),
    ("more", 1, "in 'more': no such field is known"),
]


@pytest.mark.parametrize(("field", "value", "message"), WRONG)
def test_what_is_no_description_is_refused_by_its_field(
    field: str, value: Any, message: str, tmp_path: Path
) -> None:
    options = VARIANTS[4]
    data = copy.deepcopy(ConformalPredictor.fit(*drawn(50), **options).to_dict())
    data[field] = value
    with pytest.raises(ca.EnsembleError, match=message):
        ConformalPredictor.from_dict(data)
    del data[field]
    if field != "more":
        with pytest.raises(ca.EnsembleError, match=f"{field}"):
            ConformalPredictor.from_dict(data)
    with pytest.raises(ca.EnsembleError, match=r"no.json could not be read: .*fit it and save it"):
        ConformalPredictor.load(tmp_path / "no.json")


def test_arguments_that_cannot_be_are_refused() -> None:
    p, y = drawn(50)
    refused: Any
    for refused in (0, 1.0, -0.1, True, "0.1"):
        with pytest.raises(ca.EnsembleError, match="`alpha` must be a number between 0 and 1"):
            ConformalPredictor.fit(p, y, refused)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"method": "top"}, "`method` must be 'lac', 'aps' or 'raps'. Received: method='top'"),
        ({"randomized": True}, "`randomized` must be False for method='lac'"),
        ({"method": "aps", "randomized": 1}, "`randomized` must be True or False"),
        ({"penalty": 0.1}, "`penalty` must be left out for method='lac'; it is one of 'raps'"),
        ({"method": "aps", "rank": 1}, "`rank` must be left out for method='aps'"),
        ({"method": "raps", "rank": -1}, "`rank` must be an integer of at least 0"),
        ({"method": "raps", "penalty": -1.0}, "`penalty` must be a finite number of at least 0"),
        ({"seed": -1}, "`seed` must be an integer of at least 0"),
    ]
    for options, message in bad:
        with pytest.raises(ca.EnsembleError, match=message):
            ConformalPredictor.fit(p, y, **options)
    found = ConformalPredictor.fit(p, y)
    with pytest.raises(ca.EnsembleError, match=r"of the 5 classes that were calibrated.*: 4"):
        found.predict(np.full((3, 4), 0.25))
    with pytest.raises(ca.EnsembleError, match="must sum to 1"):
        found.predict(p / 2)
    for sets in (p, np.ones(3, bool)):
        with pytest.raises(ca.EnsembleError, match="`sets` must be true or false for each class"):
            set_size(sets)
    with pytest.raises(ca.EnsembleError, match="`labels` must be integers from 0 to 4"):
        set_coverage(found.predict(p), y + 1)
