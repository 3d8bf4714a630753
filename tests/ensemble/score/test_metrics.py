"""Metrics on arrays, beside scikit-learn, torchmetrics, torch and plain loops."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as tm
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss
from torchmetrics.functional.classification.calibration_error import _ce_compute

import cosanneal as ca
from cosanneal.ensemble import (
    auroc,
    brier_score,
    calibration_error,
    error_rate,
    log_loss,
    reliability,
    sample_scores,
)

EXACT = 1e-12
# From scikit-learn 1.7 on.
BRIER_OF_CLASSES = "labels" in inspect.signature(brier_score_loss).parameters


def drawn(classes: int, samples: int = 500, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.ones(classes), size=samples)
    y = np.where(random.random(samples) < 0.6, p.argmax(1), random.integers(classes, size=samples))
    return p, y


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_metrics_agree_with_scikit_learn(dtype: Any) -> None:
    for classes in (2, 3, 10):
        p, y = drawn(classes)
        p = p.astype(dtype)
        p64 = p.astype(np.float64)
        assert error_rate(p, y) == pytest.approx(1 - accuracy_score(y, p.argmax(1)), abs=EXACT)
        if dtype == np.float64:
            expected = sklearn_log_loss(y, p64, labels=range(classes))
            assert log_loss(p, y) == pytest.approx(expected, abs=EXACT)
            if BRIER_OF_CLASSES:
                expected = brier_score_loss(y, p64, labels=range(classes), scale_by_half=False)
                assert brier_score(p, y) == pytest.approx(expected, abs=EXACT)
        else:  # whose sums scikit-learn would make 1
            nats = [-math.log(row[label]) for row, label in zip(p64, y, strict=True)]
            assert log_loss(p, y) == pytest.approx(math.fsum(nats) / len(nats), abs=EXACT)


def test_binary_metrics_agree_with_scikit_learn_and_torchmetrics() -> None:
    random = np.random.default_rng(3)
    p = np.round(random.random(400), 2)  # with ties
    y = (random.random(400) < p).astype(int)
    assert auroc(p, y) == pytest.approx(roc_auc_score(y, p), abs=EXACT)
    assert auroc(np.stack([1 - p, p], 1), y) == auroc(p, y)
    theirs = tm.binary_auroc(torch.tensor(p), torch.tensor(y))
    assert auroc(p, y) == pytest.approx(float(theirs), abs=1e-6)  # in float32
    assert brier_score(p, y) / 2 == pytest.approx(brier_score_loss(y, p), abs=EXACT)
    # At 0 and 1 scikit-learn counts a little less, and we 2**-126.
    inside = (p > 0) & (p < 1)
    expected = sklearn_log_loss(y[inside], p[inside])
    assert log_loss(p[inside], y[inside]) == pytest.approx(expected, abs=EXACT)
    assert error_rate(p, y) == pytest.approx(np.mean((p > 0.5) != y), abs=EXACT)
    q = random.random(400)
    hits = (random.random(400) < q).astype(int)
    found = reliability(q, hits, bins=10)
    accuracy, confidence = calibration_curve(hits, q, n_bins=10)
    np.testing.assert_allclose(found.accuracy, accuracy, rtol=0, atol=EXACT)
    np.testing.assert_allclose(found.confidence, confidence, rtol=0, atol=EXACT)
    for norm in ("l1", "l2", "max"):
        theirs = tm.binary_calibration_error(torch.tensor(q), torch.tensor(hits), 15, norm)
        assert calibration_error(q, hits, norm=norm) == pytest.approx(float(theirs), abs=EXACT)


def test_multi_class_metrics_agree_with_torchmetrics() -> None:
    p, y = drawn(5, 800)
    t, labels = torch.tensor(p), torch.tensor(y)
    confidence, top = t.max(1)
    for norm in ("l1", "l2", "max"):
        for bins in (1, 7, 15):
            # The public function rounds to float32 first.
            rounded = tm.multiclass_calibration_error(t, labels, 5, bins, norm)
            exact = _ce_compute(confidence, (top == labels).double(), bins, norm)
            ours = calibration_error(p, y, bins=bins, norm=norm)
            assert ours == pytest.approx(float(exact), abs=EXACT)
            assert ours == pytest.approx(float(rounded), abs=1e-6)


@given(st.permutations(range(12)))
def test_the_order_of_the_samples_does_not_matter(order: list[int]) -> None:
    q = np.array([0.1, 0.1, 0.2, 0.5, 0.5, 0.5, 0.6, 0.7, 0.7, 0.9, 0.9, 1.0])
    hits = np.array([0, 1, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1])
    for binning in ("width", "mass"):
        expected = calibration_error(q, hits, bins=5, binning=binning)
        found = calibration_error(q[order], hits[order], bins=5, binning=binning)
        assert found == pytest.approx(expected, abs=EXACT)
    assert auroc(q[order], hits[order]) == auroc(q, hits)


def test_dense_outputs_and_outcomes_are_scored_label_by_label() -> None:
    random = np.random.default_rng(1)
    dense = np.moveaxis(random.dirichlet(np.ones(3), size=(4, 5, 6)), -1, 1)
    y = random.integers(3, size=(4, 5, 6))
    flat, labels = np.moveaxis(dense, 1, -1).reshape(-1, 3), y.reshape(-1)
    several = random.random((40, 3))
    outcomes = (random.random((40, 3)) < several).astype(int)
    for metric in (error_rate, log_loss, brier_score, calibration_error):
        whole = metric(dense, y, class_axis=1)
        assert whole == pytest.approx(metric(flat, labels), abs=EXACT)
        one = metric(several, outcomes, class_axis=None)
        assert one == pytest.approx(metric(several.ravel(), outcomes.ravel()), abs=EXACT)
    by_sample = sample_scores("brier", dense, y, class_axis=1)
    assert by_sample.shape == (4,)
    for found, image, truth in zip(by_sample, dense, y, strict=True):
        expected = brier_score(image[None], truth[None], class_axis=1)
        assert found == pytest.approx(expected, abs=EXACT)


def test_a_likelihood_that_underflowed_stays_finite() -> None:
    for dtype in (np.float32, np.float64):
        wrong = log_loss(np.array([[1.0, 0.0]], dtype), [1])
        assert wrong == pytest.approx(126 * math.log(2), abs=EXACT)
    assert log_loss([1.0], [0]) == pytest.approx(126 * math.log(2), abs=EXACT)


@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        (
            [[0.5, 0.5]],
            [0, 1],
            r"shapes \(samples, classes\) and \(samples,\).*\(1, 2\) and \(2,\)",
        ),
        (np.zeros((0, 2)), np.zeros(0, int), r"at least one sample"),
        ([[0.5, 0.5]], [[0, 1, 0]], r"and \(1, 3\); class numbers have shape \(1,\), and one-hot"),
        ([[0.5, 0.5]], [[1, 1]], r"sum to 1 along the class axis -1 .* sums from 2 to 2.*\(multi-"),
        ([0.5, 0.5], [0], r"Received: \(2,\) and \(1,\)"),
        ([[0.5, 0.5]], [2], r"`labels` must be integers from 0 to 1.*from 2 to 2"),
        ([[0.5, 0.5]], [-1], r"from -1 to -1"),
        (
            [[0.5, 0.5]],
            [0.5],
            r"integers from 0 to 1.*dtype float64, and 0.5; class numbers are wh",
        ),
        ([[0.5, 0.5]], [math.nan], r"Received: dtype float64, and nan"),
        (
            [[0.5, 0.5]],
            ["0"],
            r"from 0 to 1, one of the classes. Received: dtype <U1; name them by classes=",
        ),
        (
            [0.5, 0.5],
            ["0", "1"],
            r"from 0 to 1, one of the classes. Received: dtype <U1; name them by classes=",
        ),
        ([[0.5, 0.5]], np.zeros(1, "i4,i4"), r"Received: dtype \[\('f0', '<i4'\)"),
        ([[float("nan"), 0.5]], [0], r"must be finite"),
        ([[2.0, -1.0]], [0], r"between 0 and 1. Received: from -1 to 2; make probabilities of log"),
        ([[0.9, 0.9]], [0], r"must sum to 1 .*from 1.8 to 1.8.*class_axis=None"),
        ([["a", "b"]], [0], r"must be arrays of numbers. Received: dtype <U1"),
        (np.zeros((2, 2), "f4,f4"), [0, 1], r"must be arrays of numbers"),
        ([[0.5, 0.5], [1.0]], [0, 1], r"must be arrays of numbers"),
    ],
)
def test_bad_arrays_are_refused(p: Any, y: Any, message: str) -> None:
    for metric in (error_rate, log_loss, brier_score, calibration_error):
        with pytest.raises(ca.EnsembleError, match=message):
            metric(p, y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample_scores("auc", [0.5], [1]), r"`metric` must be one of 'log_loss'"),
        (lambda: auroc([0.5, 0.4], [1, 1]), r"both classes.*2 positives and 0 negatives"),
        (lambda: auroc([0.5, float("inf")], [1, 0]), r"must be finite"),
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ca.EnsembleError, match=message):
        call()
