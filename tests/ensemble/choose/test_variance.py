"""The scale and the noise of a variance, beside scipy's search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar

import cosanneal as ca
from cosanneal.ensemble import fit_spread, fit_variance_scale, gaussian_nll


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


@pytest.mark.parametrize("seed", range(5))
def test_the_spread_is_where_scipy_finds_the_least_nll(seed: int) -> None:
    m, v, y = drawn(seed, 150)
    if seed == 3:  # members that differ more than they err
        v = 50 * v
    if seed == 4:  # and that say nothing of where they err
        y = m + np.random.default_rng(8).normal(size=150)
    w = np.random.default_rng(9).uniform(0, 1, 150)
    for given in ({}, {"sample_weight": w}):

        def loss(logs: Any, given: Any = given, v: Any = v, y: Any = y) -> float:
            return gaussian_nll(m, np.exp(logs[0]) * v + np.exp(logs[1]), y, **given)

        tries = [
            minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-13})
            for start in ((0, 0), (-5, 0), (0, -5), (-10, 1))
        ]
        scale, noise = fit_spread(m, v, y, **given)
        found = gaussian_nll(m, scale * v + noise[0], y, **given)
        assert found <= min(each.fun for each in tries) + 1e-9
        assert scale >= 0
        # The scores are calibrated on average, where neither is at its bound.
        if scale > 0 and noise[0] > 0 and not given:
            assert np.mean((y - m) ** 2 / (scale * v + noise[0])) == pytest.approx(1, abs=1e-5)
    scale, noise = fit_spread(m, 0 * v, y)
    assert scale == 1
    assert noise[0] == pytest.approx(np.mean((y - m) ** 2), rel=1e-14)


def test_each_target_has_its_own_noise_in_its_own_unit() -> None:
    m, v, y = drawn(5, 400, 3)
    unit = np.array([1.0, 1e4, 1e-3])
    mask = np.random.default_rng(1).random((400, 3)) < 0.7
    found = fit_spread(m, v, np.where(mask, y, np.nan), mask=mask)
    scaled = fit_spread(unit * m, unit**2 * v, np.where(mask, unit * y, np.nan), mask=mask)
    assert scaled[0] == pytest.approx(found[0], rel=1e-6)
    np.testing.assert_allclose(scaled[1], unit**2 * found[1], rtol=1e-6)

    def loss(logs: Any) -> float:
        return gaussian_nll(m, np.exp(logs[0]) * v + np.exp(logs[1:]), y, mask=mask)

    exact = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-9})
    here = gaussian_nll(m, found[0] * v + np.array(found[1]), y, mask=mask)
    assert here <= exact.fun + 1e-9


def test_what_the_data_do_not_say() -> None:
    y = np.arange(5.0)
    assert fit_variance_scale(y, np.ones(5), y) == 1
    assert fit_spread(y, np.ones(5), y) == (1.0, (0.0,))
    with pytest.raises(ca.EnsembleError, match=r"`variances` must be positive"):
        fit_variance_scale(y, np.zeros(5), y)
    with pytest.raises(ca.EnsembleError, match=r"`variances` must be at least 0. Received: one of"):
        fit_spread(y, -np.ones(5), y)
    with pytest.raises(ca.EnsembleError, match=r"`variances` and `targets` must have one shape"):
        fit_spread(y, np.ones(4), y)
