"""The scale and the noise of a variance, beside scipy's search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import cosanneal as ca
from cosanneal.ensemble import fit_noise, fit_variance_scale, gaussian_nll


def drawn(seed: int, *shape: int) -> Any:
    random = np.random.default_rng(seed)
    m, v = random.normal(size=shape), 10 ** random.uniform(-3, 1, shape)
    return m, v, m + np.sqrt(0.3 + 2 * v) * random.normal(size=shape)


@pytest.mark.parametrize("seed", range(3))
def test_the_scale_is_where_scipy_finds_the_least_nll(seed: int) -> None:
    m, v, y = drawn(seed, 200)
    w = np.random.default_rng(9).uniform(0, 1, 200)
    for given in ({}, {"sample_weight": w}, {"mask": w > 0.3}):

        def loss(log: float, given: Any = given) -> float:
            return gaussian_nll(m, np.exp(log) * v, y, **given)

        exact = minimize_scalar(loss, bounds=(-5, 10), options={"xatol": 1e-9}, method="bounded")
        found = fit_variance_scale(m, v, y, **given)
        assert np.log(found) == pytest.approx(exact.x, abs=1e-6)
        assert loss(np.log(found)) <= exact.fun + 1e-14


@pytest.mark.parametrize("seed", range(4))
def test_the_noise_is_the_least_of_a_dense_look(seed: int) -> None:
    m, v, y = drawn(seed, 100)
    if seed == 3:  # whose two groups have a minimum each
        v = np.where(np.arange(100) < 60, 1e-4, 25.0)
        y = m + np.where(np.arange(100) < 60, 0.01, 5.5)
    found = float(fit_noise(m, y, variances=v))  # type: ignore[arg-type]
    tried = np.concatenate([[0], np.geomspace(1e-8, 1e3, 20_000)])
    losses = [gaussian_nll(m, v + s, y) for s in tried]
    assert gaussian_nll(m, v + found, y) <= min(losses) + 1e-12
    assert fit_noise(m, y) == pytest.approx(np.mean((y - m) ** 2), rel=1e-14)


def test_each_target_has_its_own_noise() -> None:
    m, v, y = drawn(5, 80, 3)
    y[:, 1] = m[:, 1] + 100 * (y - m)[:, 1]
    mask = np.random.default_rng(1).random((80, 3)) < 0.7
    found = fit_noise(m, np.where(mask, y, np.nan), variances=v, mask=mask)
    alone = [fit_noise(m[:, k], y[:, k], variances=v[:, k], mask=mask[:, k]) for k in range(3)]
    assert found == pytest.approx(alone, rel=1e-12)


def test_what_the_data_do_not_say() -> None:
    y = np.arange(5.0)
    assert fit_variance_scale(y, np.ones(5), y) == 1
    assert fit_noise(y, y, variances=np.ones(5)) == 0
    # More disagreement than error: no noise is left.
    assert fit_noise(y, y + 0.1, variances=np.ones(5)) == 0
    with pytest.raises(ca.EnsembleError, match=r"`variances` must be positive"):
        fit_variance_scale(y, np.zeros(5), y)
    with pytest.raises(ca.EnsembleError, match=r"`variances` and `targets` must have one shape"):
        fit_noise(y, y, variances=np.ones(4))
