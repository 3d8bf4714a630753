"""The parts of an ensemble's uncertainty, beside 50 digits, and their laws."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import cosanneal as ca
from cosanneal.ensemble import Choice, UncertaintyPool, fit, pool, uncertainty
from cosanneal.ensemble.arrays import as_numpy

EPS = 2.0**-52
FIELDS = ("entropy", "expected_entropy", "mutual_information", "variation_ratio")


def exact(p: NDArray[Any], w: list[float]) -> dict[str, list[float]]:
    """The definitions for probabilities of shape (members, samples, classes), in 50 digits."""
    found: dict[str, list[float]] = {name: [] for name in FIELDS}
    with mpmath.workdps(50):
        weights = [mpmath.mpf(each) / mpmath.fsum(w) for each in w]

        def entropy(row: list[Any]) -> Any:
            return -mpmath.fsum(x * mpmath.log(x) for x in row if x)

        for i in range(p.shape[1]):
            rows = [[mpmath.mpf(float(x)) for x in member[i]] for member in p]
            mean = [
                mpmath.fsum(u * x for u, x in zip(weights, column, strict=True))
                for column in zip(*rows, strict=True)
            ]
            expected = mpmath.fsum(u * entropy(r) for u, r in zip(weights, rows, strict=True))
            votes = [mpmath.mpf(0)] * len(mean)
            for u, row in zip(weights, rows, strict=True):
                top = [k for k, x in enumerate(row) if x == max(row)]
                for k in top:
                    votes[k] += u / len(top)
            found["entropy"].append(float(entropy(mean)))
            found["expected_entropy"].append(float(expected))
            found["mutual_information"].append(float(entropy(mean) - expected))
            found["variation_ratio"].append(float(1 - max(votes)))
    return found


def pooled(p: Any, w: Any = None, **options: Any) -> UncertaintyPool[Any]:
    found = UncertaintyPool[Any](**options)
    for member, weight in zip(p, [1.0] * len(p) if w is None else w, strict=True):
        found.update(member, weight)
    return found


@pytest.mark.parametrize("spread", [5.0, 1.0, 1e-3, 1e-6])
def test_the_parts_are_those_of_50_digits(spread: float) -> None:
    random = np.random.default_rng(0)
    base = random.normal(size=(30, 4))
    z = base + spread * random.normal(size=(5, 30, 4))
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    p[:, 0], p[:, 1, :] = [1, 0, 0, 0], np.eye(4)[np.arange(5) % 4]
    w = [1, 2, 0.5, 1, 3]
    found, expected = pooled(p, w).result(), exact(p, w)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(found, name), expected[name], rtol=0, atol=8 * EPS)
    np.testing.assert_allclose(found.probabilities, pool(p, weights=w), rtol=0, atol=0)
    # Also where members hardly differ, and a difference of the entropies has no digit left.
    # What is left is how the probabilities themselves are rounded, to 1e-16 of 1e-6.
    rtol = 64 * EPS / min(spread, 1)
    theirs = np.array(expected["mutual_information"])
    # 50 digits take the rows as they are, whose sums are 1 but for rounding; so do we.
    np.testing.assert_allclose(found.mutual_information, theirs, rtol=rtol, atol=1e-300)
    assert found.mutual_information[0] == found.entropy[0] == found.variation_ratio[0] == 0


def test_outcomes_have_the_entropy_of_two_classes() -> None:
    random = np.random.default_rng(1)
    p = random.random((4, 6, 3))
    p[:, 0, 0], p[:, 1, 1], p[:, 2, 2] = 0, 1, 0.5
    found = pooled(p, class_axis=None).result()
    both = pooled(np.stack([1 - p, p], axis=-1).reshape(4, 18, 2)).result()
    for name in FIELDS:
        theirs = getattr(both, name).reshape(6, 3)
        np.testing.assert_allclose(getattr(found, name), theirs, rtol=1e-14, atol=4 * EPS)
    np.testing.assert_array_equal(found.probabilities, pool(p, class_axis=None))
    flat = pooled(p[..., 0]).result()  # an array of one axis holds outcomes
    np.testing.assert_array_equal(flat.entropy, found.entropy[:, 0])


@pytest.mark.parametrize("axis", [1, 2, -1, -3])
def test_classes_lie_along_any_axis(axis: int) -> None:
    p = np.random.default_rng(2).dirichlet(np.ones(3), size=(4, 5, 6, 7))
    moved = np.moveaxis(p, -1, axis if axis < 0 else axis + 1)
    found = pooled(moved, class_axis=axis).result()
    plain = pooled(p.reshape(4, -1, 3)).result()
    assert found.probabilities.shape == moved.shape[1:]
    for name in FIELDS:
        assert getattr(found, name).shape == (5, 6, 7)
        theirs = getattr(plain, name).reshape(5, 6, 7)
        np.testing.assert_allclose(getattr(found, name), theirs, rtol=1e-12, atol=4 * EPS)


@pytest.mark.parametrize("class_axis", [-1, None])
def test_logits_and_stacked_members_give_the_same(class_axis: int | None) -> None:
    z = np.random.default_rng(3).normal(size=(4, 9, 5)) * 20
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    if class_axis is None:
        p = 1 / (1 + np.exp(-z))
    plain = pooled(p, [1, 0, 2, 1], class_axis=class_axis).result()
    of_logits = UncertaintyPool[Any](inputs="logits", class_axis=class_axis)
    of_logits.update_stacked(z, [1, 0, 2, 1])
    for name in ("probabilities", *FIELDS):
        found = getattr(of_logits.result(), name)
        np.testing.assert_allclose(found, getattr(plain, name), rtol=1e-9, atol=4 * EPS)


@given(
    st.lists(
        st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3).filter(
            lambda row: sum(row) > 0
        ),
        min_size=1,
        max_size=6,
    ),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_what_members_know_together_is_split_into_two_parts_of_at_least_0(
    rows: list[list[float]], random: Any, outcomes: bool
) -> None:
    p = np.array(rows)[:, None]
    axis = None if outcomes else -1
    if not outcomes:
        p /= p.sum(-1, keepdims=True)
    found = pooled(p, class_axis=axis).result()
    assert (found.mutual_information >= 0).all()
    assert (found.expected_entropy >= 0).all()
    parts = found.expected_entropy + found.mutual_information
    np.testing.assert_allclose(parts, found.entropy, rtol=0, atol=64 * EPS)
    assert (found.variation_ratio >= 0).all()
    if len(p) == 1:
        assert (found.mutual_information == 0).all()
    order = random.sample(range(len(p)), len(p))
    other = pooled(p[order], class_axis=axis).result()
    for name in FIELDS:
        np.testing.assert_allclose(
            getattr(other, name), getattr(found, name), rtol=1e-9, atol=64 * EPS
        )


def test_arrays_stay_of_their_kind_and_place() -> None:
    p = np.random.default_rng(4).dirichlet(np.ones(3), size=(3, 8))
    plain = pooled(p).result()
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)):
        members = torch.tensor(p, dtype=dtype)
        found = pooled(members).result()
        for name in ("probabilities", *FIELDS):
            value = getattr(found, name)
            assert (value.dtype, value.device) == (dtype, members.device)
            theirs = getattr(plain, name)
            np.testing.assert_allclose(as_numpy(value), theirs, rtol=0, atol=tolerance)


def test_what_cannot_be_is_refused() -> None:
    found = UncertaintyPool[Any]()
    with pytest.raises(ca.EnsembleError, match="member with a positive weight"):
        found.result()
    found.update(np.full((4, 2), 0.5))
    with pytest.raises(ca.EnsembleError, match=r"one shape. Received: \(4, 3\) after \(4, 2\)"):
        found.update(np.full((4, 3), 0.3))
    with pytest.raises(ca.EnsembleError, match="weight must be a finite number"):
        found.update(np.full((4, 2), 0.5), -1.0)
    with pytest.raises(ca.EnsembleError, match="at least two classes along the class axis 1"):
        UncertaintyPool[Any](class_axis=1).update(np.full((4, 1, 3), 0.3))
    with pytest.raises(ca.EnsembleError, match="`inputs` must be 'probabilities' or 'logits'"):
        UncertaintyPool[Any](inputs="log-probabilities")  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.result().probabilities, np.full((4, 2), 0.5))


def test_one_member_is_in_memory_at_a_time() -> None:
    alive: list[weakref.ref[NDArray[np.float64]]] = []

    def members() -> Iterator[NDArray[np.float64]]:
        for seed in range(6):
            member = np.random.default_rng(seed).dirichlet(np.ones(4), size=50)
            alive.append(weakref.ref(member))
            yield member
            del member
            held.append(sum(each() is not None for each in alive))

    held: list[int] = []
    found = uncertainty(members())
    assert max(held) == 1  # which the loop over them still names
    np.testing.assert_allclose(found.probabilities, pool(members()), rtol=1e-15)


def test_a_members_weight_counts() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(3), size=(3, 20))
    weighted = uncertainty(p.tolist(), [2, 1, 0])  # lists are taken too
    repeated = uncertainty([p[0], p[0], p[1]])
    alone = uncertainty([p[0]])
    for name in ("entropy", "expected_entropy", "mutual_information", "variation_ratio"):
        found = getattr(weighted, name)
        np.testing.assert_allclose(found, getattr(repeated, name), rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(alone.entropy, alone.expected_entropy)
    assert not alone.mutual_information.any()


@pytest.mark.filterwarnings("ignore:The ensemble was chosen")
def test_a_choices_weights_are_taken() -> None:
    random = np.random.default_rng(1)
    y = random.integers(3, size=200)
    z = 2 * np.eye(3)[y] + random.normal(size=(4, 200, 3))
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    choice = fit(p, y, select="weights")
    assert isinstance(choice, Choice)
    found = uncertainty(p, choice.weights)
    mean = np.tensordot(choice.weights, p, 1)
    np.testing.assert_allclose(found.probabilities, mean, rtol=1e-12)


def test_arguments_of_the_function_that_do_not_fit_are_refused() -> None:
    p = np.full((2, 4, 2), 0.5)
    with pytest.raises(ca.EnsembleError, match=r"a weight for each member\. Received: 3 weights"):
        uncertainty(p, [1, 1, 1])
    with pytest.raises(ca.EnsembleError, match=r"member with a positive weight\. Received: none"):
        uncertainty([])
    with pytest.raises(ca.EnsembleError, match="at least two classes along the class axis"):
        uncertainty(p[..., :1])
