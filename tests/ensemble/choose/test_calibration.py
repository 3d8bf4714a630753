"""The temperature, beside scipy's search and 50 digits, and where data are degenerate."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

import cosanneal as ca
from cosanneal.ensemble import (
    apply_temperature,
    calibrated_log_loss,
    error_rate,
    fit_temperature,
    log_loss,
)


def drawn(truth: float, classes: int = 4, samples: int = 400, seed: int = 0) -> tuple[Any, Any]:
    """Predictions that are calibrated at the temperature `truth`."""
    random = np.random.default_rng(seed)
    z = random.normal(size=(samples, classes)) * 2
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    labels = np.array([random.choice(classes, p=row) for row in p])
    sharp = np.exp(z * truth) / np.exp(z * truth).sum(1, keepdims=True)
    return sharp, labels


@pytest.mark.parametrize("truth", [0.25, 1.0, 3.0])
def test_the_temperature_is_where_scipy_finds_the_least_log_loss(truth: float) -> None:
    p, y = drawn(truth)

    def loss(log_t: float) -> float:
        powers = p ** (1 / math.exp(log_t))
        return -float(np.mean(np.log((powers / powers.sum(1, keepdims=True))[range(len(y)), y])))

    theirs = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-10})
    ours = fit_temperature(p, y)
    # Near the minimum a loss is flat: the search by values knows half of the digits.
    assert ours == pytest.approx(math.exp(theirs.x), rel=1e-6)
    assert loss(math.log(ours)) <= theirs.fun + 1e-15
    assert ours == pytest.approx(truth, rel=0.25)
    assert log_loss(apply_temperature(p, ours), y) == pytest.approx(theirs.fun, abs=1e-12)


def test_the_slope_at_the_temperature_is_zero_in_50_digits() -> None:
    p, y = drawn(2.0, samples=60)
    beta = mpmath.mpf(1) / fit_temperature(p, y)
    with mpmath.workdps(50):
        logs = [[mpmath.log(mpmath.mpf(float(x))) for x in row] for row in p]

        def loss(at: Any) -> Any:
            return mpmath.fsum(
                mpmath.log(mpmath.fsum(mpmath.exp(at * x) for x in row)) - at * row[label]
                for row, label in zip(logs, y, strict=True)
            )

        slope, curvature = mpmath.diff(loss, beta), mpmath.diff(loss, beta, 2)
    assert abs(slope / curvature) < 1e-13 * beta


def test_of_two_classes_the_answer_is_known() -> None:
    # Right in 3 of 4 at confidence 0.9: 0.9**b / (0.9**b + 0.1**b) = 3 / 4.
    assert fit_temperature([[0.9, 0.1]] * 4, [0, 0, 0, 1]) == pytest.approx(
        math.log(9) / math.log(3), rel=1e-14
    )
    assert fit_temperature([0.1] * 4, [0, 0, 0, 1]) == pytest.approx(2, rel=1e-14)


def test_all_right_says_nothing_about_confidence() -> None:
    assert fit_temperature([[0.9, 0.1], [0.2, 0.8]], [0, 1]) == 1.0
    assert fit_temperature([[0.6, 0.4]], [0]) == 1.0
    assert fit_temperature([[0.5, 0.5]] * 3, [0, 1, 1]) == 1.0


def test_all_wrong_gives_the_bound() -> None:
    assert fit_temperature([[0.9, 0.1], [0.2, 0.8]], [1, 0]) == 100.0
    assert fit_temperature([[0.6, 0.4]], [1]) == 100.0


def test_one_slip_of_many_sure_but_hardly_distinct_ones_gives_the_other_bound() -> None:
    p = [[0.5 + 1e-9, 0.5 - 1e-9]] * 1000
    assert fit_temperature(p, [0] * 999 + [1]) == 0.01


def test_zero_probabilities_leave_it_finite() -> None:
    p = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
    temperature = fit_temperature(p, [0, 0, 1, 1])
    # Sure by 126 bits and right in 3 of 4: 2**(-126 / T) = 1 / 3.
    assert temperature == pytest.approx(126 / math.log2(3), rel=1e-12)
    warm = apply_temperature(p, temperature)
    assert warm.dtype == np.float32
    np.testing.assert_allclose(warm[:, 0], [0.75, 0.75, 0.75, 0.25], rtol=1e-6)


@given(
    st.lists(st.lists(st.floats(1e-6, 1), min_size=3, max_size=3), min_size=1, max_size=8),
    st.floats(0.05, 20),
)
def test_a_temperature_keeps_the_order_and_its_inverse_undoes_it(
    rows: list[list[float]], temperature: float
) -> None:
    p = np.array(rows)
    p /= p.sum(1, keepdims=True)
    warm = apply_temperature(p, temperature)
    np.testing.assert_allclose(warm.sum(1), 1, rtol=1e-14)
    for before, after in zip(p, warm, strict=True):
        for i in range(3):
            for j in range(3):
                assert not (before[i] > before[j] and after[i] < after[j])
    if warm.min() > 1e-30:
        np.testing.assert_allclose(apply_temperature(warm, 1 / temperature), p, rtol=1e-10)
    assert apply_temperature(p, 1.0).tolist() == p.tolist()


@given(st.integers(0, 10_000))
def test_no_temperature_has_a_lower_log_loss(seed: int) -> None:
    p, y = drawn(1.5, samples=20, seed=seed)
    best = fit_temperature(p, y)
    if best == 1.0 and error_rate(p, y) == 0:
        return
    least = log_loss(apply_temperature(p, best), y)
    for other in (0.01, 0.3 * best, 0.999 * best, 1.0, 1.001 * best, 4 * best, 100.0):
        assert log_loss(apply_temperature(p, other), y) >= least - 1e-12


def test_dense_outputs_outcomes_and_tensors_take_a_temperature() -> None:
    p, y = drawn(2.0, samples=60)
    flat = fit_temperature(p, y)
    dense, labels = np.moveaxis(p.reshape(10, 6, 4), -1, 1), y.reshape(10, 6)
    assert fit_temperature(dense, labels, class_axis=1) == pytest.approx(flat, rel=1e-12)
    warm = apply_temperature(torch.tensor(dense), flat, class_axis=1)
    assert isinstance(warm, torch.Tensor)
    expected = np.moveaxis(apply_temperature(p, flat).reshape(10, 6, 4), -1, 1)
    np.testing.assert_allclose(warm.numpy(), expected, rtol=1e-13)
    outcomes = p[:, :2]
    truth = (np.random.default_rng(0).random(outcomes.shape) < outcomes).astype(int)
    two = np.stack([1 - outcomes, outcomes], -1)
    by_class = fit_temperature(two, truth)
    assert fit_temperature(outcomes, truth, class_axis=None) == pytest.approx(by_class, rel=1e-9)
    np.testing.assert_allclose(
        apply_temperature(outcomes, 3.0, class_axis=None),
        apply_temperature(two, 3.0)[..., 1],
        rtol=1e-12,
    )


def test_the_calibrated_log_loss_forgets_a_wrong_temperature() -> None:
    p, y = drawn(1.0, samples=1000)
    sharp = apply_temperature(p, 0.3)
    plain = calibrated_log_loss(p, y)
    assert calibrated_log_loss(sharp, y) == pytest.approx(plain, abs=1e-9)
    assert log_loss(sharp, y) > plain + 0.1
    # On data of its own it costs a little more than the temperature that fits best.
    assert log_loss(apply_temperature(p, fit_temperature(p, y)), y) < plain
    assert plain < log_loss(p, y) + 0.01
    assert calibrated_log_loss(p, y, seed=1) != plain


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: apply_temperature([0.5], 0.0), r"`temperature` must be a finite positive"),
        (lambda: apply_temperature([0.5], math.inf), r"temperature=inf"),
        (lambda: apply_temperature([0.5], "1"), r"temperature='1'"),  # type: ignore[arg-type]
        (lambda: fit_temperature([[0.5, 0.5]], [2]), r"`labels` must be integers from 0 to 1"),
        (lambda: calibrated_log_loss([[0.5, 0.5]], [1]), r"at least two samples"),
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ca.EnsembleError, match=message):
        call()
