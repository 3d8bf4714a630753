"""Pooling, beside exact fractions and 50 digits, and its laws."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, get_args

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import cosanneal as ca
from cosanneal.ensemble import GaussianPool, Pool, ValuePool, pool
from cosanneal.ensemble.predict.pooling import Inputs, Pooling
from tests.shared.kinds import check_kind

EPS = 2.0**-52


def seen(pool: Any, classes: int) -> Any:
    pool.update(np.ones((1, classes)))
    return pool


def softmax(z: NDArray[Any]) -> NDArray[Any]:
    powers = np.exp(z - z.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def exact_pool(z: NDArray[Any], w: list[float], pooling: str) -> list[list[Any]]:
    """The definition for logits of shape (members, samples, classes), in 50 digits."""
    with mpmath.workdps(50):
        weights = [mpmath.mpf(each) / mpmath.fsum(w) for each in w]
        members = [[[mpmath.mpf(float(x)) for x in row] for row in member] for member in z]
        rows = []
        for i in range(z.shape[1]):
            shares = []
            for member in members:
                powers = [mpmath.exp(x) for x in member[i]]
                shares.append([power / mpmath.fsum(powers) for power in powers])
            if pooling == "logits":
                products = [
                    mpmath.fprod(p[k] ** u for p, u in zip(shares, weights, strict=True))
                    for k in range(z.shape[2])
                ]
                rows.append([product / mpmath.fsum(products) for product in products])
                continue
            mean = [
                mpmath.fsum(p[k] * u for p, u in zip(shares, weights, strict=True))
                for k in range(z.shape[2])
            ]
            rows.append([mpmath.log(x) for x in mean] if pooling.startswith("log-") else mean)
        return rows


@pytest.mark.parametrize("pooling", ["probabilities", "logits", "log-probabilities"])
@pytest.mark.parametrize("inputs", ["probabilities", "logits", "log-probabilities"])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_each_rule_is_its_definition(pooling: Pooling, inputs: Inputs, scale: float) -> None:
    z = np.random.default_rng(1).normal(size=(4, 5, 3)) * scale
    if inputs != "logits" and scale > 1:
        z = np.clip(z, -40, 40)  # whose probabilities are above 2**-126
    w = [1.0, 0.5, 3.0, 0.25]
    given_ = {"logits": z, "probabilities": softmax(z)}
    given_["log-probabilities"] = z - z.max(-1, keepdims=True)
    given_["log-probabilities"] = given_["log-probabilities"] - np.log(
        np.exp(given_["log-probabilities"]).sum(-1, keepdims=True)
    )
    found = pool(given_[inputs], weights=w, pooling=pooling, inputs=inputs)
    expected = np.array(exact_pool(z, w, pooling), float)
    # An error of one rounding in a logit of size s is one of s roundings in its power.
    bound = 8 * EPS * max(np.abs(z).max(), 1)
    np.testing.assert_allclose(found, expected, rtol=bound, atol=bound)


def test_logarithms_reach_further_than_probabilities() -> None:
    logs = np.array([[[0.0, -2000.0]], [[0.0, -2001.0]]])
    found = pool(logs, pooling="log-probabilities", inputs="log-probabilities")
    expected = -2000 + math.log((1 + math.exp(-1)) / 2)
    assert found[0, 1] == pytest.approx(expected, abs=1e-12)
    nothing = np.array([[[0.0, -math.inf]], [[0.0, -1000.0]], [[0.0, -math.inf]]])
    for order in ([0, 1, 2], [1, 0, 2], [0, 2, 1]):
        found = pool(nothing[order], pooling="log-probabilities", inputs="log-probabilities")
        assert found[0, 1] == pytest.approx(-1000 - math.log(3), abs=1e-12)
    none = pool(nothing[[0, 2]], pooling="log-probabilities", inputs="log-probabilities")
    assert none[0, 1] == -math.inf


def test_a_zero_probability_is_a_strong_but_bounded_veto() -> None:
    members = [np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])]
    found = pool(members, pooling="logits")
    assert found[0, 1] == pytest.approx(2.0**-63 / math.sqrt(2) * math.sqrt(2), rel=1e-9)
    masked = [np.array([[1.0, -math.inf]]), np.array([[0.5, -math.inf]])]
    assert pool(masked, pooling="logits", inputs="logits").tolist() == [[1.0, 0.0]]


def test_votes_are_counted_and_ties_split() -> None:
    members = np.array(
        [
            [[0.6, 0.3, 0.1], [0.4, 0.4, 0.2], [0.2, 0.2, 0.6]],
            [[0.2, 0.7, 0.1], [1 / 3, 1 / 3, 1 / 3], [0.1, 0.1, 0.8]],
            [[0.5, 0.4, 0.1], [0.1, 0.8, 0.1], [0.3, 0.4, 0.3]],
        ]
    )
    third, half = Fraction(1, 3), Fraction(1, 2)
    expected = [
        [2 * third, third, Fraction(0)],
        [third * (half + third), third * (half + third + 1), third * third],
        [Fraction(0), third, 2 * third],
    ]
    for found in (
        pool(members, pooling="vote"),
        pool(np.log(members), pooling="vote", inputs="logits"),
    ):
        np.testing.assert_allclose(found, np.array(expected, float), rtol=4 * EPS)
    outcomes = np.array([[0.9, 0.5, 0.1], [0.6, 0.4, 0.5]])
    assert pool(outcomes, pooling="vote").tolist() == [1.0, 0.25, 0.25]
    with np.errstate(divide="ignore"):
        logits = np.log(outcomes / (1 - outcomes))
    assert pool(logits, pooling="vote", inputs="logits").tolist() == [1.0, 0.25, 0.25]


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_an_outcome_is_two_classes(pooling: Pooling) -> None:
    z = np.random.default_rng(2).normal(size=(5, 7, 3)) * 4
    both = np.stack([np.zeros_like(z), z], -1)
    for inputs in get_args(Inputs):
        one, two = z, both
        if inputs == "probabilities":
            one, two = 1 / (1 + np.exp(-z)), softmax(both)
        elif inputs == "log-probabilities":
            one, two = -np.logaddexp(0, -z), np.log(softmax(both))
        expected = pool(two, pooling=pooling, inputs=inputs)[..., 1]
        found = pool(one, pooling=pooling, inputs=inputs, class_axis=None)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
        # An array of one axis has no classes along it.
        flat = [member.ravel() for member in one]
        np.testing.assert_array_equal(pool(flat, pooling=pooling, inputs=inputs), found.ravel())


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_the_class_axis_may_be_any(pooling: Pooling) -> None:
    z = np.random.default_rng(3).normal(size=(4, 2, 5, 6, 3))
    expected = np.moveaxis(pool(z, pooling=pooling, inputs="logits"), -1, 1)
    dense = np.moveaxis(z, -1, 2)
    found = pool(dense, pooling=pooling, inputs="logits", class_axis=1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=4 * EPS)


members_of_floats = st.integers(1, 6).flatmap(
    lambda count: st.tuples(
        st.lists(
            st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=3),
            min_size=count,
            max_size=count,
        ),
        st.lists(st.floats(0.125, 8, width=32), min_size=count, max_size=count),
        st.permutations(range(count)),
    )
)


@given(members_of_floats, st.sampled_from(get_args(Pooling)))
def test_the_order_of_the_members_matters_by_rounding_alone(
    drawn: tuple[list[list[float]], list[float], list[int]], pooling: Pooling
) -> None:
    z, w, order = np.array(drawn[0])[:, None], drawn[1], drawn[2]
    first = pool(z, weights=w, pooling=pooling, inputs="logits")
    other = pool(z[order], weights=[w[i] for i in order], pooling=pooling, inputs="logits")
    # Each of at most six sums of numbers up to 50 rounds once.
    np.testing.assert_allclose(other, first, rtol=0, atol=6 * 50 * EPS)
    if pooling != "log-probabilities":
        assert first.sum() == pytest.approx(1, abs=12 * EPS)


@given(members_of_floats, st.sampled_from(get_args(Pooling)), st.floats(0.25, 4))
def test_only_the_weights_ratios_count_and_a_weight_of_nothing_is_no_member(
    drawn: tuple[list[list[float]], list[float], list[int]], pooling: Pooling, scale: float
) -> None:
    z, w = np.array(drawn[0])[:, None], drawn[1]
    first = pool(z, weights=w, pooling=pooling, inputs="logits")
    scaled = [scale * each for each in w]
    padded = pool(
        [*z, np.full((1, 3), 7.0)], weights=[*scaled, 0], pooling=pooling, inputs="logits"
    )
    np.testing.assert_allclose(padded, first, rtol=0, atol=20 * 50 * EPS)
    twice = pool([*z, *z], weights=[*w, *w], pooling=pooling, inputs="logits")
    np.testing.assert_allclose(twice, first, rtol=0, atol=20 * 50 * EPS)


@given(members_of_floats, st.sampled_from(get_args(Pooling)), st.integers(0, 6))
def test_pools_of_some_members_are_merged_into_that_of_all(
    drawn: tuple[list[list[float]], list[float], list[int]], pooling: Pooling, cut: int
) -> None:
    z, w = np.array(drawn[0])[:, None], drawn[1]
    whole, first, second = (Pool[NDArray[Any]](pooling, inputs="logits") for _ in range(3))
    for i, (member, weight) in enumerate(zip(z, w, strict=True)):
        whole.update(member, weight)
        (first if i < cut else second).update(member, weight)
    sent = pickle.loads(pickle.dumps(second))  # noqa: S301
    first.merge(sent)
    np.testing.assert_allclose(first.value, whole.value, rtol=0, atol=20 * 50 * EPS)
    if second.like is not None:
        before = second.value
        second.merge(first)
        np.testing.assert_array_equal(sent.value, before)  # neither is written to by the other


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=8), st.integers(0, 8))
def test_pools_of_values_are_merged_into_that_of_all(values: list[float], cut: int) -> None:
    whole, first, second = (GaussianPool[NDArray[Any]]() for _ in range(3))
    for i, value in enumerate(values):
        pair = np.array([value]), np.array([abs(value)])
        whole.update(pair, i + 1.0)
        (first if i < cut else second).update(pair, i + 1.0)
    first.merge(second)
    largest = max(map(abs, values))
    np.testing.assert_allclose(first.mean, whole.mean, rtol=0, atol=16 * EPS * largest)
    np.testing.assert_allclose(first.aleatoric, whole.aleatoric, rtol=0, atol=16 * EPS * largest)
    bound = 64 * EPS * (float(whole.epistemic[0]) + largest**2)
    np.testing.assert_allclose(first.epistemic, whole.epistemic, rtol=0, atol=bound)
    assert [each.shape for each in first.value] == [(1,), (1,)]


def test_members_of_no_weight_are_merged_as_none() -> None:
    empty, one = Pool[NDArray[Any]](), Pool[NDArray[Any]]()
    empty.update(np.array([[0.9, 0.1]]), 0.0)
    one.update(np.array([[0.2, 0.8]]))
    one.merge(empty)
    empty.merge(one)
    assert one.value.tolist() == empty.value.tolist() == [[0.2, 0.8]]
    one.merge(Pool())
    assert one.value.tolist() == [[0.2, 0.8]]


@given(
    st.lists(
        st.tuples(st.floats(-1e6, 1e6, width=32), st.floats(0.125, 8, width=32)),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
)
def test_the_variance_is_exact_to_rounding(
    members: list[tuple[float, float]], with_variances: bool
) -> None:
    values = ValuePool[NDArray[Any]]()
    for value, weight in members:
        own = np.array([abs(value)]) if with_variances else None
        values.update(np.array([value]), weight, variances=own)
    total = sum(Fraction(w) for _, w in members)
    mean = sum(Fraction(w) * Fraction(x) for x, w in members) / total
    spread = sum(Fraction(w) * (Fraction(x) - mean) ** 2 for x, w in members) / total
    if with_variances:
        spread += sum(Fraction(w) * abs(Fraction(x)) for x, w in members) / total
    largest = max(abs(x) for x, _ in members)
    assert values.mean[0] == pytest.approx(float(mean), rel=0, abs=16 * EPS * largest + 1e-300)
    bound = 64 * EPS * (float(spread) + largest * math.sqrt(float(spread)))
    assert values.variance[0] == pytest.approx(float(spread), rel=0, abs=bound + 1e-300)


def test_members_may_come_one_at_a_time() -> None:
    seen: list[int] = []

    def members() -> Iterator[NDArray[Any]]:
        for i in range(3):
            seen.append(i)
            yield np.array([[0.25 * i, 1 - 0.25 * i]])

    assert pool(members(), weights=[1, 1, 2]).tolist() == [[0.3125, 0.6875]]
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("pooling", get_args(Pooling))
@pytest.mark.parametrize("inputs", get_args(Inputs))
@pytest.mark.parametrize("class_axis", [1, -1, None])
@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_stacked_members_count_as_one_by_one(
    pooling: Pooling, inputs: Inputs, class_axis: int | None, kind: Any
) -> None:
    z = np.random.default_rng(2).normal(size=(4, 6, 3, 5))
    given_ = {"logits": z, "probabilities": np.exp(z - 5), "log-probabilities": z - 5}
    members = kind(given_[inputs])
    weights = [1.0, 0.0, 2.5, 0.25]
    if pooling != "vote":
        members[1] = math.nan  # what has no weight has no part
    stacked, single = (Pool[Any](pooling, inputs=inputs, class_axis=class_axis) for _ in "ab")
    for each, weight in zip(members, weights, strict=True):
        single.update(each, weight)
    stacked.update_stacked(members[:3], weights[:3])
    stacked.update_stacked(members[3:], weights[3:])
    stacked.update_stacked(members[:1], [0.0])
    assert type(stacked.value) is type(single.value)
    np.testing.assert_allclose(stacked.value, single.value, rtol=1e-13, atol=1e-15)
    with pytest.raises(ca.EnsembleError, match="a weight for each member"):
        stacked.update_stacked(members, [1.0])
    with pytest.raises(ca.EnsembleError, match="must have one shape"):
        stacked.update_stacked(members[:, :2], weights)


def test_the_first_prediction_is_not_kept() -> None:
    first = np.full((2, 2), 0.5)
    held = weakref.ref(first)
    pooled = Pool[Any]()
    pooled.update(first)
    del first
    assert held() is None
    assert pooled.value.tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_arrays_of_torch_come_back_as_they_came() -> None:
    check_kind(
        lambda values, dtype: torch.tensor(values).to(getattr(torch, dtype)),
        lambda tensor: np.asarray(tensor.double().numpy()),
        dtypes=("float64", "float32", "float16", "bfloat16"),
        same_place=lambda a, b: (type(a), a.dtype, a.device) == (type(b), b.dtype, b.device),
    )
    check_kind(
        lambda values, dtype: values.astype(dtype),
        lambda array: np.asarray(array.astype(np.float64)),
        dtypes=("float64", "float32", "float16"),
        same_place=lambda a, b: (type(a), a.dtype) == (type(b), b.dtype),
    )


def test_a_tensor_with_a_gradient_and_integers_can_be_pooled() -> None:
    members = [torch.tensor([[0.5, 0.5]], requires_grad=True), torch.tensor([[1.0, 0.0]])]
    assert pool(members).tolist() == [[0.75, 0.25]]
    whole = pool([torch.tensor([[1, 0]]), torch.tensor([[0, 1]])])
    assert whole.dtype == torch.float64
    assert whole.tolist() == [[0.5, 0.5]]
    assert pool([[[1, 0]], [[0, 1]]]).tolist() == [[0.5, 0.5]]  # type: ignore[attr-defined]


def test_members_in_float64_are_not_written_to() -> None:
    array = np.array([[0.25, 0.75]])
    kinds: list[list[Any]] = [[array, array + 0], [torch.tensor(array), torch.tensor(array)]]
    for members in kinds:
        for pooling in get_args(Pooling):
            pool(members, weights=[3, 4], pooling=pooling)
        values = ValuePool[Any]()
        for member in members:
            values.update(member, 3, variances=member)
        assert [member.tolist() for member in members] == [[[0.25, 0.75]]] * 2


def test_no_framework_is_imported() -> None:
    code = """
        import sys
        import numpy as np
        from cosanneal.ensemble import pool
        assert pool([np.array([[1.0, 0.0]])]).tolist() == [[1.0, 0.0]]
        assert not {"torch", "jax", "tensorflow", "keras"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Pool("mean"), r"`pooling` must be 'probabilities'.*pooling='mean'"),  # type: ignore[arg-type]
        (lambda: Pool(inputs="scores"), r"`inputs` must be .*inputs='scores'"),  # type: ignore[arg-type]
        (lambda: pool([]), r"must have a member with a positive weight. Received: none"),
        (lambda: Pool[Any]().value, r"must have a member"),
        (lambda: ValuePool[Any]().variance, r"must have a member"),
        (lambda: pool([np.ones((2, 2))], weights=[0]), r"must have a member"),
        (lambda: pool([np.ones(2)], weights=[1, 1]), r"Received: 2 weights for 1 members"),
        (lambda: pool([np.ones(2)] * 3, weights=[1, 1]), r"2 weights for more members"),
        (lambda: pool([np.ones(2), np.ones(3)]), r"one shape. Received: \(3,\) after \(2,\)"),
        (lambda: pool([np.ones(2)], weights=[-1.0]), r"at least 0. Received: -1.0"),
        (lambda: pool([np.ones(2)], weights=[math.nan]), r"Received: nan"),
        (lambda: pool([np.ones(2)], weights=["1"]), r"Received: '1'"),  # type: ignore[list-item]
        (
            lambda: pool([np.ones((3, 1))], inputs="logits"),
            r"at least two classes.*axis=None",
        ),
        (lambda: pool([np.ones((3, 2))], pooling="vote", class_axis=2), r"class axis 2"),
        (lambda: pool([np.array(["a"])]), r"must be arrays of numbers. Received: dtype <U1"),
        (
            lambda: ValuePool[Any]().update(np.ones(2), variances=np.ones(3)),
            r"\(3,\) beside \(2,\)",
        ),
        (lambda: Pool[Any]().merge(Pool("vote")), r"same `pooling`.*'probabilities' and .*'vote'"),
        (lambda: Pool[Any]().merge(Pool(class_axis=1)), r"`class_axis`.*=-1 and class_axis=1"),
        (lambda: Pool[Any]().merge(ValuePool()), r"of one kind.*pooling=None"),  # type: ignore[arg-type]
        (lambda: seen(Pool(), 2).merge(seen(Pool(), 3)), r"Received: \(1, 3\) after \(1, 2\)"),
        (
            lambda: seen(ValuePool(), 2).merge(seen(ValuePool(), 3)),
            r"one shape. Received: \(1, 3\) after \(1, 2\)",
        ),
    ],
)
def test_what_cannot_be_pooled_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ca.EnsembleError, match=message):
        call()
