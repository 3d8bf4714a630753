"""Means of weights, beside torch's averaged models and plain searches."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import cosanneal as ca
from cosanneal.ensemble import (
    average_weights,
    exponential_weights,
    greedy_soup,
    interpolate_weights,
    lawa,
)


def models(count: int) -> list[nn.Sequential]:
    found = []
    for seed in range(count):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        for _ in range(seed + 1):
            model(torch.randn(8, 3))
        found.append(model)
    return found


def test_the_mean_is_that_of_torchs_averaged_model() -> None:
    members = models(4)
    averaged = AveragedModel(members[0], use_buffers=True)
    for member in members:
        averaged.update_parameters(member)
    found = average_weights(dict(member.state_dict()) for member in members)
    assert isinstance(found["0.weight"], torch.Tensor)
    for name, value in averaged.module.state_dict().items():
        assert found[name].dtype == value.dtype
        if value.is_floating_point():
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7)
    # A counter has no mean: it is the newest member's.
    assert int(found["1.num_batches_tracked"]) == 4


@pytest.mark.parametrize("decay", [0.5, 0.9, 1.0])
def test_exponential_weights_are_torchs_moving_average(decay: float) -> None:
    members = models(5)
    averaged = AveragedModel(members[0], multi_avg_fn=get_ema_multi_avg_fn(decay))
    for member in members:
        averaged.update_parameters(member)
    weights = exponential_weights(5, decay)
    assert sum(weights) == pytest.approx(1, abs=1e-15)
    found = average_weights([dict(each.state_dict()) for each in members], weights=weights)
    for name, value in averaged.module.named_parameters():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-5, atol=1e-6)


def test_the_latest_windows_slide() -> None:
    members = [{"w": np.array([float(i) ** 2])} for i in range(6)]
    found = [float(mean["w"][0]) for mean in lawa(iter(members), 3)]
    squares = [Fraction(i * i) for i in range(6)]
    expected = [sum(squares[max(i - 2, 0) : i + 1]) / min(i + 1, 3) for i in range(6)]
    assert found == pytest.approx([float(value) for value in expected], rel=1e-15)


@given(
    st.lists(
        st.tuples(st.floats(-8, 8, width=16), st.floats(0.125, 8, width=16)), min_size=1, max_size=6
    ),
    st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_the_weighted_mean_is_rounded_once(members: list[tuple[float, float]], dtype: Any) -> None:
    found = average_weights(
        [{"w": np.array([x], dtype)} for x, _ in members], weights=[w for _, w in members]
    )["w"]
    total = sum(Fraction(w) for _, w in members)
    exact = float(sum(Fraction(x) * Fraction(w) for x, w in members) / total)
    assert found.dtype == dtype
    unit = float(np.finfo(dtype).eps) / 2 + 12 * 2.0**-52
    assert abs(float(found[0]) - exact) <= unit * 8
    same = average_weights([{"w": np.array([0.1], dtype)}] * 3, weights=[0.1, 0.3, 0.7])
    assert same["w"].tolist() == np.array([0.1], dtype).tolist()


def test_complex_numbers_flags_and_members_of_no_weight() -> None:
    members = [
        {"z": np.array([1 + 2j], np.complex64), "on": np.array([True])},
        {"z": np.array([3 + 4j], np.complex64), "on": np.array([False])},
        {"z": np.array([100 + 0j], np.complex64), "on": np.array([True])},
    ]
    found = average_weights(members, weights=[1, 1, 0])
    assert found["z"].tolist() == [2 + 3j]
    assert found["z"].dtype == np.complex64
    assert found["on"].tolist() == [True]  # the newest member's


@pytest.mark.parametrize("convert", [np.array, torch.tensor])
def test_infinities_stay_and_opposite_ones_have_no_mean(convert: Any) -> None:
    """As in the mask of an attention, which is the same in all members."""
    inf = np.inf
    first, second, third = (
        {"mask": convert(values)}
        for values in (
            [-inf, inf, 1.0, inf, 2.0, 1e38],
            [-inf, 2.0, -inf, -inf, 4.0, 1e38],
            [-inf, inf, 1.0, inf, 6.0, 1e38],
        )
    )
    found = np.asarray(average_weights([first, second, third])["mask"])
    np.testing.assert_allclose(found, [-inf, inf, -inf, np.nan, 4.0, 1e38], rtol=1e-7)
    for share in (0.25, 0.5, 1.5):
        way = np.asarray(interpolate_weights(first, second, share)["mask"])
        sign = 1.0 if share < 1 else -1.0
        opposite = np.nan if share < 1 else -inf
        expected = [-inf, sign * inf, -inf, opposite, 2 + 2 * share, 1e38]
        np.testing.assert_allclose(way, expected, rtol=1e-7)
    same = average_weights([first, first])["mask"]
    np.testing.assert_array_equal(np.asarray(same), np.asarray(first["mask"]))


def test_interpolation_goes_from_one_to_the_other() -> None:
    first, second = (dict(model.state_dict()) for model in models(2))
    for share in (0.0, 0.25, 0.5, 1.0, 1.5):
        found = interpolate_weights(first, second, share)
        for name, value in found.items():
            assert value.dtype == first[name].dtype
            if value.is_floating_point():
                expected = first[name].double() * (1 - share) + second[name].double() * share
                torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7)
        assert int(found["1.num_batches_tracked"]) == (1 if share < 0.5 else 2)
    for share, end in ((0.0, first), (1.0, second)):
        for name, value in interpolate_weights(first, second, share).items():
            assert torch.equal(value, end[name])


def test_the_soup_is_wortsmans_recipe() -> None:
    random = np.random.default_rng(0)
    members = [{"w": random.normal(size=6)} for _ in range(7)]
    target = random.normal(size=6) * 0.3
    calls: list[int] = []

    def score(weights: dict[str, Any]) -> float:
        calls.append(1)
        return float(((weights["w"] - target) ** 2).sum())

    found = greedy_soup(members, score)
    assert len(calls) == 7 + 6
    w = np.stack([member["w"] for member in members])
    order = sorted(range(7), key=lambda i: ((w[i] - target) ** 2).sum())
    soup = [order[0]]
    for i in order[1:]:
        tried = ((w[[*soup, i]].mean(0) - target) ** 2).sum()
        if tried <= ((w[soup].mean(0) - target) ** 2).sum():
            soup.append(i)
    assert found.members == tuple(soup)
    assert 1 < len(soup) < 7
    np.testing.assert_allclose(found.weights["w"], w[soup].mean(0), rtol=0, atol=1e-15)
    assert found.score == pytest.approx(((w[soup].mean(0) - target) ** 2).sum(), rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: average_weights([]), r"a member with a positive weight. Received: none"),
        (lambda: average_weights([{"w": np.ones(1)}], weights=[0]), r"a positive weight"),
        (lambda: average_weights([{"w": np.ones(1)}], weights=[1, 2]), r"2 weights for 1 members"),
        (
            lambda: average_weights([{"w": np.ones(1)}, {"v": np.ones(1)}]),
            r"same tensors. Received: 'w' in one of them only",
        ),
        (
            lambda: interpolate_weights({"w": np.ones(2)}, {"w": np.ones(3)}, 0.5),
            r"same shapes. Received: 'w' of \(2,\) and of \(3,\)",
        ),
        (lambda: greedy_soup([], lambda _: 0.0), r"`members` must have at least one"),
        (lambda: exponential_weights(0, 0.5), r"`members` must be a positive integer"),
        (lambda: exponential_weights(3, 1.5), r"`decay` must be a number in \(0, 1\]"),
        (lambda: list(lawa([{}], 0)), r"`window` must be a positive integer"),
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ca.EnsembleError, match=message):
        call()


def test_a_soup_of_members_whose_scores_are_known_asks_for_none_of_them() -> None:
    members = [{"w": np.array(x)} for x in (0.5, 9.0, -0.25)]
    asked: list[float] = []

    def score(weights: dict[str, Any]) -> float:
        asked.append(float(weights["w"]))
        return abs(asked[-1])

    expected = greedy_soup(members, score)
    assert len(asked) == 5
    asked.clear()
    found = greedy_soup(members, score, alone=[0.5, 9, 0.25])
    assert found.members == expected.members
    assert asked == [0.125, pytest.approx(9.25 / 3)]
