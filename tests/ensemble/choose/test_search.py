"""Convex searches on the simplex, beside scipy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from cosanneal.ensemble.choose.search import least_log_loss, least_quadratic


def on_simplex(loss: Any, members: int) -> Any:
    """The best of several starts of another algorithm."""
    random = np.random.default_rng(0)
    starts = [np.full(members, 1 / members), *random.dirichlet(np.ones(members), 4)]
    return min(
        (
            minimize(
                loss,
                start,
                method="SLSQP",
                bounds=[(0, 1)] * members,
                constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
                options={"ftol": 1e-15, "maxiter": 500},
            )
            for start in starts
        ),
        key=lambda each: each.fun,
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_quadratic_program_is_exact(seed: int) -> None:
    random = np.random.default_rng(seed)
    common = random.normal(size=(300, 1))
    errors = common + random.uniform(0.2, 2, 6) * random.normal(size=(300, 6)) * 10.0**-seed
    products = errors.T @ errors / 300
    found = least_quadratic(products)
    exact = on_simplex(lambda w: w @ products @ w * 1e3, 6)
    assert found.score <= exact.fun / 1e3 + 1e-12
    assert found.gap <= 1e-11
    assert found.weights.min() >= 0
    assert found.weights.sum() == pytest.approx(1, abs=1e-12)


def test_degenerate_products() -> None:
    one = least_quadratic(np.array([[2.0]]))
    assert (one.weights.tolist(), one.score, one.gap) == ([1.0], 2.0, 0.0)
    same = least_quadratic(np.full((3, 3), 2.0))  # the same member three times
    assert same.score == pytest.approx(2)
    assert same.weights.sum() == pytest.approx(1)
    perfect = least_quadratic(np.diag([1.0, 0.0]))
    np.testing.assert_allclose(perfect.weights, [0, 1], atol=1e-11)
    nothing = least_quadratic(np.zeros((2, 2)))
    assert (nothing.weights.tolist(), nothing.score) == ([0.5, 0.5], 0.0)


def test_weights_of_rows_count_as_repetitions() -> None:
    random = np.random.default_rng(3)
    likelihoods, times = random.random((50, 4)) ** 2, random.integers(1, 5, 50)
    weighted = least_log_loss(likelihoods, times.astype(float))
    repeated = least_log_loss(np.repeat(likelihoods, times, axis=0))
    assert weighted.score == pytest.approx(repeated.score, abs=1e-10)
    np.testing.assert_allclose(weighted.weights, repeated.weights, atol=1e-4)


@pytest.mark.parametrize("least", [1e-6, 1e-15, 1e-30, 2.0**-126])
def test_a_member_that_one_row_cannot_do_without_is_not_lost(least: float) -> None:
    # A step of full length would leave the row to nearly nothing, from where no step leads back.
    likelihoods = np.tile([0.3, 0.5, 0.9], (200, 1))
    likelihoods[7] = [0.8, 1e-3 * least, least]
    found = least_log_loss(likelihoods)
    assert found.gap is not None
    assert found.gap <= 1e-10
    # Of two members the least is where the two sides of the derivative are equal, by bisection.
    low, high = 0.0, 1.0
    for _ in range(200):
        w = (low + high) / 2
        falls = 199 * (0.3 - 0.9) / (0.9 + w * (0.3 - 0.9))
        rises = (0.8 - least) / (least + w * (0.8 - least))
        low, high = (w, high) if falls + rises > 0 else (low, w)
    assert found.weights[0] == pytest.approx(low, rel=1e-6)
    assert found.score == pytest.approx(-np.log(likelihoods @ [low, 0, 1 - low]).mean(), abs=1e-10)
