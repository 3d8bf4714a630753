"""select="auto": the folds and the rule, beside a plain loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cosanneal as ca
from cosanneal.ensemble import (
    Choice,
    HeldOut,
    apply_temperature,
    fit,
    fit_regression,
    fit_temperature,
    sample_scores,
    select_greedy,
    select_weights,
)
from cosanneal.ensemble.choose.auto import FOLDS, folds_of, ways_on
from cosanneal.ensemble.labels import as_labels

pytestmark = pytest.mark.filterwarnings("ignore:The ensemble was chosen on")


def drawn(
    samples: int = 400, noise: tuple[float, ...] = (2.0, 1.5, 1.5), seed: int = 0
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Members with so much noise each, and labels of three classes."""
    random = np.random.default_rng(seed)
    y = random.integers(3, size=samples)
    each = np.array(noise)[:, None, None]
    z = 2 * np.eye(3)[y] + each * random.normal(size=(len(noise), samples, 3))
    p = np.exp(z)
    return p / p.sum(-1, keepdims=True), y


def by_hand(p: NDArray[Any], y: NDArray[Any], metric: str) -> tuple[list[str], NDArray[Any]]:
    """The score of each sample by what every way chose on the other folds: (ways, samples)."""
    members, folds = len(p), folds_of(as_labels(y, p[0].shape), 0)
    names = ["last 1", "single", *(f"last {m}" for m in range(2, members + 1)), "greedy", "weights"]
    scores = np.empty((len(names), len(y)))
    for fold in range(FOLDS):
        train, test = folds != fold, folds == fold
        held_out = HeldOut(p[:, train], y[train])

        def loss(w: NDArray[Any], train: NDArray[Any] = train) -> float:
            mean = np.tensordot(w, p[:, train], 1)
            at = apply_temperature(mean, fit_temperature(mean, y[train]))
            return float(sample_scores("log_loss", at, y[train]).mean())

        weights = {f"last {m}": np.r_[np.zeros(members - m), np.ones(m) / m] for m in range(1, 4)}
        weights["single"] = min(np.eye(members), key=loss)
        weights["greedy"] = np.array(select_greedy(held_out).weights)
        weights["weights"] = np.array(select_weights(held_out).weights)
        for i, name in enumerate(names):
            heat = fit_temperature(np.tensordot(weights[name], p[:, train], 1), y[train])
            at = apply_temperature(np.tensordot(weights[name], p[:, test], 1), heat)
            scores[i, test] = sample_scores(metric, at, y[test])
    return names, scores


@pytest.mark.parametrize("metric", ["log_loss", "error"])
@pytest.mark.parametrize("noise", [(2.0, 1.5, 1.5), (3.0, 3.0, 0.8), (0.8, 3.0, 3.0)])
def test_the_cheapest_within_one_standard_error_is_taken(
    noise: tuple[float, ...], metric: str
) -> None:
    p, y = drawn(noise=noise)
    choice = fit(p, y, select="auto", metric=metric)
    names, scores = by_hand(p, y, metric)
    best = scores.mean(1).argmin()
    away = scores - scores[best]
    alike = away.mean(1) <= away.std(1, ddof=1) / np.sqrt(len(y))
    ways = ways_on(HeldOut(p, y), temperature=True, steps=50, bags=0, seed=0)
    assert [way.name for way in ways] == names
    costs = [np.count_nonzero(way.weights) for way in ways]
    taken = min(np.flatnonzero(alike), key=lambda i: (costs[i], i))
    assert choice.weights == ways[taken].weights
    assert choice.temperature == pytest.approx(ways[taken].temperature)
    assert choice.candidates[-1].name.startswith(names[taken])
    assert len(choice.candidates) == len(names)
    assert choice.reason is not None
    assert f"{names[taken]} has a cross-validated" in choice.reason
    assert f"the last snapshot alone has {scores[0].mean():.4g}." in choice.reason
    np.testing.assert_allclose(
        choice.apply(p),
        apply_temperature(np.tensordot(choice.weights, p, 1), choice.temperature),
    )


def test_what_is_better_is_found_and_what_is_not_costs_nothing() -> None:
    assert fit(*drawn(noise=(40.0, 40.0, 0.8)), select="auto").weights == (0, 0, 1)
    assert fit(*drawn(noise=(0.8, 40.0, 40.0)), select="auto").weights == (1, 0, 0)
    assert min(fit(*drawn(noise=(1.5, 1.5, 1.5)), select="auto").weights) > 0.2
    p, y = drawn(noise=(1.0,))
    same = fit(np.repeat(p, 3, axis=0), y, select="auto")
    assert same.weights == (0, 0, 1)


def test_folds_have_every_class_alike_and_no_sample_twice() -> None:
    y = np.repeat([0, 1, 2], [50, 7, 3])
    folds = folds_of(as_labels(y, (60, 3)), 0)
    assert np.bincount(folds).tolist() == [12] * 5
    assert all(np.bincount(folds[y == k], minlength=5).max() <= 10 for k in range(3))
    assert sorted(np.bincount(folds[y == 1], minlength=5)) == [1, 1, 1, 2, 2]
    np.testing.assert_array_equal(folds, folds_of(as_labels(y, (60, 3)), 0))
    assert (folds != folds_of(as_labels(y, (60, 3)), 1)).any()
    assert sorted(folds_of(as_labels(y[:3], (3, 3)), 0)) == [0, 1, 2]


@pytest.mark.parametrize("samples", [1, 2, 4, 12])
def test_tiny_data_and_one_member_work(samples: int) -> None:
    p, y = drawn(samples=samples)
    for metric in ("log_loss", "auroc_error") if samples > 4 else ("log_loss",):
        choice = fit(p, y, select="auto", metric=metric)
        assert sum(choice.weights) == pytest.approx(1)
    only = fit(p[:1], y, select="auto")
    assert list(only.weights) == [1]
    assert only.reason == "The last snapshot alone: there is one member."
    if samples == 1:
        assert choice.reason == "The last snapshot alone: one sample compares nothing."


def test_other_metrics_and_labels_and_no_temperature() -> None:
    p, y = drawn(noise=(40.0, 0.8, 40.0))
    for metric in ("brier", "balanced_error", lambda p, y: np.mean(p[..., 0] * y)):
        choice = fit(p, y, select="auto", metric=metric)
        assert choice.metric in choice.candidates[-1].scores
    assert fit(p, y, select="auto", metric="auroc_error").weights == (0, 1, 0)
    dense = fit(p.reshape(3, 100, 4, 3), y.reshape(100, 4), select="auto", ignore_index=2)
    assert list(dense.weights) == [0, 1, 0]
    weighted = fit(p, y, select="auto", sample_weight=np.arange(400) % 3)
    assert list(weighted.weights) == [0, 1, 0]
    assert fit(p, y, select="auto", temperature=False).temperature == 1


def test_the_reason_is_kept(tmp_path: Path) -> None:
    choice = fit(*drawn(), select="auto")
    choice.save(tmp_path / "choice.json")
    assert Choice.load(tmp_path / "choice.json") == choice
    data = choice.to_dict()
    with pytest.raises(ca.EnsembleError, match=r"in 'reason': must be a string"):
        Choice.from_dict(data | {"reason": 3})
    assert "reason" not in fit(*drawn(), select="last").to_dict()


def test_a_regression_has_no_auto() -> None:
    with pytest.raises(ca.EnsembleError, match=r"must be 'last', 'greedy' or 'weights'.*'auto'"):
        fit_regression(np.zeros((2, 5)), np.zeros(5), select="auto")
