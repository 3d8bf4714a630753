"""The paper's questions, beside numpy, plain loops and cases with a known answer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import cosanneal as ca
from cosanneal.ensemble import (
    calibrated_log_loss,
    correlation,
    deep_ensemble_equivalent,
    disagreement,
    error_rate,
    interpolate,
    log_loss,
    scores_by_cycles,
)
from cosanneal.ensemble.score.analysis import _reached


def independent(
    members: int, samples: int = 600, noise: float = 2.0, seed: int = 0
) -> tuple[NDArray[Any], NDArray[Any]]:
    random = np.random.default_rng(seed)
    y = random.integers(3, size=samples)
    z = 2 * np.eye(3)[y] + noise * random.normal(size=(members, samples, 3))
    p = np.exp(z)
    return p / p.sum(-1, keepdims=True), y


def test_correlation_is_numpys() -> None:
    p, _ = independent(4)
    np.testing.assert_allclose(correlation(p), np.corrcoef(p.reshape(4, -1)), rtol=0, atol=1e-13)
    tensors = [torch.tensor(member) for member in p]
    np.testing.assert_array_equal(correlation(tensors), correlation(p))


def test_a_member_that_does_not_vary_has_no_correlation() -> None:
    p, _ = independent(2, samples=5)
    found = correlation([*p, np.full((5, 3), 1 / 3)])
    assert np.isnan(found[2]).all()
    assert np.isnan(found[:, 2]).all()
    assert not np.isnan(found[:2, :2]).any()


def test_disagreement_is_a_loops() -> None:
    p, _ = independent(3, samples=50)
    found = disagreement(p)
    for i in range(3):
        for j in range(3):
            differ = [a.argmax() != b.argmax() for a, b in zip(p[i], p[j], strict=True)]
            assert found[i, j] == sum(differ) / 50
    dense = np.moveaxis(p.reshape(3, 10, 5, 3), -1, 2)
    np.testing.assert_array_equal(disagreement(dense, class_axis=1), found)
    outcomes = np.array([[0.9, 0.2], [0.4, 0.3]])
    assert disagreement(outcomes, class_axis=None).tolist() == [[0.0, 0.5], [0.5, 0.0]]


def test_the_barrier_of_a_double_well_is_its_height() -> None:
    def loss(weights: dict[str, Any]) -> float:
        x = float(weights["x"][0])
        return (x**2 - 1) ** 2 + 0.25 * x

    first, second = {"x": np.array([-1.0])}, {"x": np.array([1.0])}
    found = interpolate(loss, first, second)
    assert found.shares == tuple(i / 10 for i in range(11))
    for share, value in zip(found.shares, found.losses, strict=True):
        x = -1 + 2 * share
        assert value == pytest.approx((x**2 - 1) ** 2 + 0.25 * x, abs=1e-15)
    # The line between the ends is the tilt 0.25 x: over it stands (x**2 - 1)**2.
    assert found.barrier == pytest.approx(1, abs=1e-15)
    back = interpolate(loss, second, first)
    assert back.barrier == pytest.approx(1, abs=1e-15)
    assert back.losses == pytest.approx(found.losses[::-1], abs=1e-15)
    beyond = interpolate(loss, first, second, shares=[-0.5, 0, 0.25, 1, 1.5])
    assert beyond.barrier == pytest.approx((0.25 - 1) ** 2, abs=1e-15)


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_a_convex_loss_has_no_barrier(a: float, b: float) -> None:
    found = interpolate(lambda w: float(w["x"] ** 2), {"x": np.array(a)}, {"x": np.array(b)})
    assert 0 <= found.barrier <= 1e-13


def test_the_number_of_cycles_is_tabulated() -> None:
    runs = {5: independent(5)[0], 1: independent(1)[0], 2: independent(2)[0]}
    y = independent(1)[1]
    for seed in (5, 2):
        assert (independent(seed)[1] == y).all()
    rows = scores_by_cycles(runs, y)
    assert [row["cycles"] for row in rows] == [1, 2, 5]
    for row in rows:
        p = runs[row["cycles"]]
        losses = [log_loss(p[-m:].mean(0), y) for m in range(1, len(p) + 1)]
        assert row["all"]["log_loss"] == pytest.approx(losses[-1], rel=1e-12)
        assert row["last"]["error"] == pytest.approx(error_rate(p[-1], y), abs=1e-15)
        assert row["best"]["log_loss"] == pytest.approx(min(losses), rel=1e-12)
        assert row["m"] == losses.index(min(losses)) + 1


def test_an_ensemble_of_independent_models_is_worth_as_many() -> None:
    p, y = independent(9, samples=1000)
    others, ours = p[:6], p[6:]
    for size in (1, 2, 3):
        found = deep_ensemble_equivalent(ours[:size].mean(0), others, y)
        assert found.models == pytest.approx(size, abs=0.4)
        assert found.log_loss == calibrated_log_loss(ours[:size].mean(0), y)
        assert len(found.curve) == 6
        assert (np.diff(found.curve) < 0).all()
    everything = deep_ensemble_equivalent(p.mean(0), others[:3], y)
    assert everything.models == math.inf
    nothing = deep_ensemble_equivalent(np.full((1000, 3), 1 / 3), others[:3], y)
    assert nothing.models == 1.0


def test_the_equivalent_does_not_ask_how_sure_the_ensemble_says_it_is() -> None:
    p, y = independent(6)
    sharp = p[4:].mean(0) ** 3
    sharp /= sharp.sum(-1, keepdims=True)
    plain = deep_ensemble_equivalent(p[4:].mean(0), p[:4], y).models
    assert deep_ensemble_equivalent(sharp, p[:4], y).models == pytest.approx(plain, abs=1e-6)


def test_between_two_whole_numbers_the_curve_is_linear() -> None:
    curve = [1.0, 0.6, 0.5, 0.5, 0.4]
    expected = {1.5: 1.0, 1.0: 1.0, 0.8: 1.5, 0.6: 2.0, 0.575: 2.25, 0.5: 3.0, 0.45: 4.5, 0.4: 5.0}
    for loss, models in expected.items():
        assert _reached(curve, loss) == pytest.approx(models, abs=1e-12)
    assert _reached(curve, 0.39) == math.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: correlation([]), r"at least one member.*Received: 0 members"),
        (
            lambda: disagreement([[[0.5, 0.5]], [[1.0]]]),
            r"2 members of shapes \[\(1, 1\), ",
        ),
        (lambda: scores_by_cycles({}, [0]), r"`runs` must have at least one run"),
        (lambda: deep_ensemble_equivalent([[0.5, 0.5]], [], [0]), r"at least one member"),
        (
            lambda: interpolate(lambda _: 0.0, {}, {}, shares=[0.5, 1]),
            r"`shares` must hold 0 and 1.*\[0.5, 1.0\]",
        ),
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ca.EnsembleError, match=message):
        call()
