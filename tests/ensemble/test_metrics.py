"""Metrics on arrays, beside scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score
from sklearn.metrics import log_loss as sklearn_log_loss

import cosanneal as ca
from cosanneal.ensemble import error_rate, log_loss


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_metrics_agree_with_scikit_learn(dtype: Any) -> None:
    random = np.random.default_rng(0)
    for classes in (2, 3, 10):
        p = random.dirichlet(np.ones(classes), size=500).astype(dtype)
        y = random.integers(classes, size=500)
        assert error_rate(p, y) == pytest.approx(1 - accuracy_score(y, p.argmax(1)), abs=1e-12)
        p64 = p.astype(np.float64)
        expected = sklearn_log_loss(y, p64 / p64.sum(1, keepdims=True), labels=range(classes))
        assert log_loss(p, y) == pytest.approx(expected, rel=1e-6)


def test_a_likelihood_that_underflowed_stays_finite() -> None:
    assert log_loss(np.array([[1.0, 0.0]], np.float32), [1]) == pytest.approx(87.3365, abs=1e-3)


@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        (
            [[0.5, 0.5]],
            [0, 1],
            r"shapes \(samples, classes\) and \(samples,\).*\(1, 2\) and \(2,\)",
        ),
        (np.zeros((0, 2)), np.zeros(0, int), r"at least one sample"),
        ([0.5, 0.5], [0, 1], r"Received: \(2,\) and \(2,\)"),
        ([[0.5, 0.5]], [2], r"`labels` must be integers from 0 to 1.*from 2 to 2"),
        ([[0.5, 0.5]], [-1], r"from -1 to -1"),
        ([[0.5, 0.5]], [0.0], r"dtype float64"),
        ([[float("nan"), 0.5]], [0], r"must be finite"),
    ],
)
def test_bad_arrays_are_refused(p: Any, y: Any, message: str) -> None:
    for metric in (error_rate, log_loss):
        with pytest.raises(ca.EnsembleError, match=message):
            metric(p, y)
