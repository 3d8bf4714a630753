"""Mixtures of means and variances, beside Fractions, draws, and torch's own kinds."""

from __future__ import annotations

import math
from collections import OrderedDict, namedtuple
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import cosanneal as ca
from cosanneal.ensemble import GaussianPool, ValuePool
from cosanneal.ensemble.predict.gaussian import pair_in

EPS = 2.0**-53

Pair = namedtuple("Pair", "mean variance")


@given(
    st.lists(
        st.tuples(
            st.floats(-1e6, 1e6, width=32),
            st.floats(0, 1e3, width=32),
            st.floats(0.125, 8, width=32),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_the_law_of_total_variance_holds_to_rounding(
    members: list[tuple[float, float, float]],
) -> None:
    pool = GaussianPool[NDArray[Any]]()
    for mean, variance, weight in members:
        pool.update((np.array([mean]), np.array([variance])), weight)
    exact = [tuple(map(Fraction, member)) for member in members]
    total = sum(w for _, _, w in exact)
    m = sum(w * m for m, _, w in exact) / total
    noise = sum(w * v for _, v, w in exact) / total
    spread = sum(w * (each - m) ** 2 for each, _, w in exact) / total
    largest = max(abs(mean) for mean, _, _ in members)
    assert pool.mean[0] == pytest.approx(float(m), rel=0, abs=16 * EPS * largest + 1e-300)
    assert pool.aleatoric[0] == pytest.approx(float(noise), rel=32 * EPS, abs=1e-300)
    bound = 64 * EPS * (float(spread) + largest * math.sqrt(float(spread))) + 1e-300
    assert pool.epistemic[0] == pytest.approx(float(spread), rel=0, abs=bound)
    both = float(noise + spread)
    assert pool.variance[0] == pytest.approx(both, rel=32 * EPS, abs=bound)


def test_the_moments_are_those_of_draws_from_the_mixture() -> None:
    random = np.random.default_rng(0)
    m, v, w = np.array([-3.0, 1.0, 2.0]), np.array([0.5, 4.0, 1.0]), np.array([1.0, 2.0, 5.0])
    pool = GaussianPool[NDArray[Any]]()
    for mean, variance, weight in zip(m, v, w, strict=True):
        pool.update((np.array([mean]), np.array([variance])), weight)
    k = random.choice(3, size=400_000, p=w / w.sum())
    x = random.normal(m[k], np.sqrt(v[k]))
    assert pool.mean[0] == pytest.approx(x.mean(), abs=5 * x.std() / math.sqrt(len(x)))
    error = math.sqrt(float(((x - x.mean()) ** 4).mean()) / len(x))
    assert pool.variance[0] == pytest.approx(x.var(), abs=5 * error)


def forms() -> list[Any]:
    m, v = np.ones((2, 3), np.float32), np.full((2, 3), 2.0, np.float32)
    return [(m, v), [m, v], {"mean": m, "variance": v}, Pair(m, v)]


@pytest.mark.parametrize("i", range(4))
def test_the_result_has_the_form_kind_and_dtype_of_the_first(i: int) -> None:
    first = forms()[i]
    pool = GaussianPool[Any]()
    pool.update(first)
    pool.update((np.full((2, 3), 3.0), np.full((2, 3), 4.0)), 3)
    value = pool.value
    assert type(value) is type(first)
    mean, variance = value.values() if isinstance(value, dict) else value
    assert mean.dtype == variance.dtype == np.float32
    # By hand: mean 1/4 + 9/4; variance (2 + 3 * 4)/4 + (2.25 + 3 * 0.25)/4.
    assert (mean == 2.5).all()
    assert (variance == 3.5 + 0.75).all()
    assert [each.tolist() for each in pool.moments] == [mean.tolist(), variance.tolist()]
    if isinstance(value, dict):
        assert list(value) == ["mean", "variance"]
    # What came in is as it was.
    assert all((each == 1).all() for each in pair_in(first)[:1])


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_stacked_members_count_as_one_by_one(kind: Any) -> None:
    random = np.random.default_rng(1)
    m, v, w = random.normal(size=(4, 5)), random.random((4, 5)), [1.0, 0.0, 2.0, 0.5]
    one, stacked = GaussianPool[Any](), GaussianPool[Any]()
    for mean, variance, weight in zip(m, v, w, strict=True):
        one.update((kind(mean), kind(variance)), weight)
    stacked.update_stacked((kind(m), kind(v)), w)
    for a, b in zip(one.value, stacked.value, strict=True):
        assert a.dtype == b.dtype
        assert a.tolist() == b.tolist()
    assert type(one.mean) is type(kind(m))


def test_values_alone_have_no_noise() -> None:
    values = ValuePool[NDArray[Any]]()
    for each in (1.0, 3.0):
        values.update(np.array([each]))
    assert values.aleatoric.tolist() == [0.0]
    assert values.epistemic.tolist() == values.variance.tolist() == [1.0]


def test_a_pair_may_lie_along_an_arrays_first_axis() -> None:
    mean, variance = pair_in(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert (mean.tolist(), variance.tolist()) == ([1, 2], [3, 4])
    mean, variance = pair_in(OrderedDict(variance=1, mean=2))
    assert (mean, variance) == (2, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.update(np.ones(3)), r"a pair of means and variances.*Received: ndarray"),
        (lambda p: p.update((np.ones(3),)), r"Received: tuple of 1"),
        (lambda p: p.update({"mean": 1, "std": 2}), r"Received: dict with 'mean', 'std'"),
        (lambda p: p.update((np.ones(3), -np.ones(3))), r"at least 0. Received: -1; if the model"),
        (
            lambda p: p.update((np.ones(3), np.ones(2))),
            r"one shape. Received: \(2,\) beside \(3,\)",
        ),
        (lambda p: p.update((np.ones(3), np.ones(3)), -1), r"weight must be a finite"),
        (lambda p: p.value, r"must have a member"),
        (lambda p: p.epistemic, r"must have a member"),
        (lambda _: pair_in(np.ones(3)), r"Received: ndarray"),
    ],
)
def test_what_is_no_pair_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ca.EnsembleError, match=message):
        call(GaussianPool[Any]())
