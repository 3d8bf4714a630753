"""The scores of regressions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import root_mean_squared_error

import cosanneal as ca
from cosanneal.ensemble import (
    coverage,
    gaussian_nll,
    rmse,
)

EXACT = 1e-12


def test_regression_metrics_agree_with_scikit_learn_and_torch() -> None:
    random = np.random.default_rng(5)
    m, v, y = random.normal(size=300), random.uniform(0.2, 3, 300), random.normal(size=300)
    assert rmse(m, y) == pytest.approx(root_mean_squared_error(y, m), abs=EXACT)
    loss = torch.nn.GaussianNLLLoss(full=True, eps=1e-12)
    expected = float(loss(torch.tensor(m), torch.tensor(y), torch.tensor(v)))
    assert gaussian_nll(m, v, y) == pytest.approx(expected, abs=EXACT)
    normal = torch.distributions.Normal(torch.tensor(m), torch.tensor(v).sqrt())
    for level in (0.5, 0.9, 0.95):
        below = normal.cdf(torch.tensor(y))
        inside = ((below >= (1 - level) / 2) & (below <= (1 + level) / 2)).double().mean()
        assert coverage(m, v, y, level=level) == pytest.approx(float(inside), abs=EXACT)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rmse(["a"], [1.0]), r"must be arrays of numbers"),
        (lambda: rmse([1.0], [1.0, 2.0]), r"one shape.*\(1,\), \(2,\)"),
        (lambda: gaussian_nll([1.0], [0.0], [1.0]), r"`variances` must be positive"),
        (lambda: coverage([1.0], [1.0], [1.0], level=95), r"`level` must be a number between 0"),
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ca.EnsembleError, match=message):
        call()
