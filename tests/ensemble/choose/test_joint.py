"""Weights and a temperature, found together, beside a grid and scipy's own search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

import cosanneal as ca
from cosanneal.ensemble import HeldOut, log_loss, select_greedy, select_weights
from cosanneal.ensemble.choose import held_out as held_out_module


def drawn(
    samples: int = 300, members: int = 3, classes: int = 4, seed: int = 0, sure: float = 2.0
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Members that know different things, each too sure (or not enough), and labels."""
    random = np.random.default_rng(seed)
    y = random.integers(classes, size=samples)
    strength = np.linspace(0.5, 1.5, members)[:, None, None]
    z = sure * (strength * np.eye(classes)[y] + random.normal(size=(members, samples, classes)))
    p = np.exp(z)
    return p / p.sum(-1, keepdims=True), y


def plain(w: NDArray[Any], p: NDArray[Any], y: NDArray[Any], beta: float) -> float:
    """The log-loss of a mean of members at the temperature 1 / beta, as it is written."""
    powers = np.tensordot(w / w.sum(), p, 1) ** beta
    return log_loss(powers / powers.sum(-1, keepdims=True), y)


def calibrated(w: NDArray[Any], p: NDArray[Any], y: NDArray[Any]) -> float:
    """That at the best temperature, by Brent's search."""
    found = minimize_scalar(
        lambda beta: plain(w, p, y, beta),
        bounds=(0.02, 20),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(found.fun)


@pytest.mark.parametrize("sure", [0.7, 2.0])
def test_weights_with_their_temperature_are_the_least_of_a_grid_and_of_scipy(sure: float) -> None:
    p, y = drawn(sure=sure)
    found = select_weights(HeldOut(p, y), calibrated=True)
    assert found.score == pytest.approx(calibrated(np.array(found.weights), p, y), abs=1e-9)
    assert found.score == pytest.approx(
        plain(np.array(found.weights), p, y, 1 / found.temperature), abs=1e-12
    )
    assert all(a > b for a, b in zip(found.path, found.path[1:], strict=False))
    shares = np.linspace(0, 1, 21)
    grid = [
        calibrated(np.array([a, b, 1 - a - b]), p, y) for a in shares for b in shares if a + b <= 1
    ]
    assert found.score <= min(grid) < found.score + 3e-3
    other = minimize(
        lambda v: plain(np.abs(v[:3]) + 1e-12, p, y, abs(v[3])),
        [1 / 3, 1 / 3, 1 / 3, 1.0],
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000, "maxfev": 4000},
    )
    assert found.score == pytest.approx(other.fun, abs=1e-7)
    # The weights of the least plain log-loss are others, and worse with their temperature.
    raw = select_weights(HeldOut(p, y))
    assert found.score < calibrated(np.array(raw.weights), p, y) - 1e-6


def test_weights_with_a_temperature_are_never_worse_than_what_the_search_begins_with() -> None:
    for seed in range(5):
        p, y = drawn(samples=60, members=4, seed=seed)
        found = select_weights(HeldOut(p, y), calibrated=True)
        raw = np.array(select_weights(HeldOut(p, y)).weights)
        lasts = [np.r_[np.zeros(4 - m), np.ones(m) / m] for m in range(1, 5)]
        for start in (raw, *np.eye(4), *lasts):
            assert found.score <= calibrated(start, p, y) + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_greedy_with_a_temperature_picks_what_an_exact_search_picks(seed: int) -> None:
    p, y = drawn(samples=200, members=4, seed=seed)
    p[seed % 4] = p[seed % 4] ** 0.3  # one is far less sure than the others
    p /= p.sum(-1, keepdims=True)
    found = select_greedy(HeldOut(p, y), steps=6, initial=1, calibrated=True)
    counts = np.eye(4)[int(np.argmin([calibrated(w, p, y) for w in np.eye(4)]))]
    path = [calibrated(counts, p, y)]
    for _ in range(6):
        tried = [calibrated(counts + one, p, y) for one in np.eye(4)]
        counts = counts + np.eye(4)[int(np.argmin(tried))]
        path.append(min(tried))
    # Of two that are nearly equal the second order may tell another than the exact search.
    np.testing.assert_allclose(found.path, path, atol=1e-3 if seed == 2 else 1e-8)
    assert found.score == pytest.approx(min(path), abs=1e-8)
    assert found.score == min(found.path)
    raw = select_greedy(HeldOut(p, y), steps=6, initial=1)
    assert found.score < calibrated(np.array(raw.weights), p, y) - 1e-6


@pytest.mark.parametrize("kind", ["weights", "ignored", "soft", "pixels", "outcomes"])
def test_the_searches_know_every_kind_of_labels(kind: str) -> None:
    p, y = drawn(samples=120)
    random = np.random.default_rng(1)
    given: dict[str, Any] = {}
    labels: Any = y
    plain_p, plain_y = p, y
    if kind == "weights":
        given["sample_weight"] = random.integers(0, 3, size=120)
        at = np.repeat(np.arange(120), given["sample_weight"])
        plain_p, plain_y = p[:, at], y[at]
    elif kind == "ignored":
        labels = np.where(np.arange(120) % 3 == 0, -1, y)
        given["ignore_index"] = -1
        plain_p, plain_y = p[:, labels >= 0], y[labels >= 0]
    elif kind == "soft":  # two halves of a label are two labels of half the weight
        other = random.integers(4, size=120)
        labels = (np.eye(4)[y] + np.eye(4)[other]) / 2
        plain_p, plain_y = np.concatenate([p, p], axis=1), np.concatenate([y, other])
    elif kind == "pixels":
        p = np.moveaxis(p.reshape(3, 30, 2, 2, 4), -1, 2)
        labels, given["class_axis"] = y.reshape(30, 2, 2), 1
    else:
        labels, given["class_axis"] = y % 2, None
        p = p[..., 1] + p[..., 3]
        plain_p, plain_y = np.stack([1 - p, p], axis=-1), y % 2
    searches: tuple[Any, ...] = (select_weights, select_greedy)
    for select in searches:
        found = select(HeldOut(p, labels, **given), calibrated=True)
        expected = select(HeldOut(plain_p, plain_y), calibrated=True)
        np.testing.assert_allclose(found.weights, expected.weights, atol=1e-5)
        assert found.score == pytest.approx(expected.score, abs=1e-9)
        assert found.temperature == pytest.approx(expected.temperature, rel=1e-5)


def test_parts_of_the_rows_give_what_all_at_once_give(monkeypatch: pytest.MonkeyPatch) -> None:
    p, y = drawn(samples=100)
    mask = np.arange(100) % 7 != 2
    whole = HeldOut(p, y, mask=mask)
    searches: tuple[Any, ...] = (select_weights, select_greedy)
    expected = [select(whole, calibrated=True) for select in searches]
    monkeypatch.setattr(held_out_module, "_NUMBERS", 90)
    assert len(list(HeldOut(p, y, mask=mask).parts())) > 10
    some = HeldOut(p, y, mask=mask).of(np.arange(0, 80, 2))
    assert sum(len(labels) for labels, _ in some.parts()) == 40
    for select, wanted in zip(searches, expected, strict=True):
        found = select(HeldOut(p, y, mask=mask), calibrated=True)
        np.testing.assert_allclose(found.weights, wanted.weights, atol=1e-7)
        assert found.score == pytest.approx(wanted.score, abs=1e-12)


def test_a_part_of_the_samples_is_as_if_there_were_no_others() -> None:
    p, y = drawn(samples=90)
    soft = (np.eye(4)[y] + np.eye(4)[y[::-1]]) / 2
    at = np.arange(1, 90, 3)
    for labels in (y, soft):
        some, alone = HeldOut(p, labels).of(at), HeldOut(p[:, at], labels[at])
        np.testing.assert_array_equal(some.likelihoods, alone.likelihoods)
        assert some.scores([0.2, 0.3, 0.5]) == pytest.approx(alone.scores([0.2, 0.3, 0.5]))
        assert some.samples == 30


def test_only_the_log_loss_is_calibrated() -> None:
    with pytest.raises(ca.EnsembleError, match=r"must be 'log_loss' for calibrated=True.*'brier'"):
        select_greedy(HeldOut(*drawn()), "brier", calibrated=True)
