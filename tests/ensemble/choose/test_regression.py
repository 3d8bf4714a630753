"""Choosing an ensemble of a regression: beside plain searches, scipy, and known best ones."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import minimize

import cosanneal as ca
from cosanneal.ensemble import (
    Choice,
    GaussianPool,
    crps,
    fit_regression,
    fit_spread,
    fit_variance_scale,
    gaussian_nll,
    mae,
    mse,
    pinball_loss,
)


def drawn(members: int = 4, *shape: int, seed: int = 0) -> tuple[Any, Any, Any]:
    """Means of differing worth, their variances (too small ones), and targets."""
    random = np.random.default_rng(seed)
    shape = shape or (1200,)
    y = 3 * random.normal(size=shape)
    sizes = random.uniform(0.3, 2, (members, *(1 for _ in shape)))
    m = y + sizes * random.normal(size=(members, *shape))
    return m, 0.5 * sizes**2 * random.uniform(0.5, 2, m.shape), y


def mixture(m: Any, v: Any, w: Any) -> tuple[Any, Any]:
    w = np.asarray(w) / np.sum(w)
    mean = np.tensordot(w, m, 1)
    return mean, np.tensordot(w, v + (m - mean) ** 2, 1)


def pairs(m: Any, v: Any) -> list[Any]:
    return list(zip(m, v, strict=True))


@pytest.mark.parametrize("metric", ["mse", "mae", "gaussian_nll", "crps"])
@pytest.mark.parametrize("shape", [(1200,), (600, 2)])
def test_the_last_m_of_values(metric: Any, shape: Any) -> None:
    m, _, y = drawn(4, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        choice = fit_regression(m, y, metric=metric)
    scores = []
    for last in range(1, 5):
        mean, between = mixture(m[-last:], 0 * m[-last:], [1] * last)
        scale, noise = fit_spread(mean, between, y)
        total = scale * between + noise
        found: dict[str, Any] = {
            "mse": lambda mean=mean, _=total: mse(mean, y),
            "mae": lambda mean=mean, _=total: mae(mean, y),
            "gaussian_nll": lambda mean=mean, v=total: gaussian_nll(mean, v, y),
            "crps": lambda mean=mean, v=total: crps(mean, v, y),
        }
        scores.append((found[metric](), scale, noise))
        row = next(each for each in choice.candidates if each.name.startswith(f"last {last}"))
        assert row.scores[metric] == pytest.approx(scores[-1][0], rel=1e-10)
        assert {"mse", "mae", "gaussian_nll", metric} == row.scores.keys()
    best = min(range(4), key=lambda i: scores[i][0])
    assert choice.weights == (0.0,) * (3 - best) + (1 / (best + 1),) * (best + 1)
    assert choice.variance_scale == pytest.approx(scores[best][1], rel=1e-4)
    assert choice.noise == pytest.approx(scores[best][2], rel=1e-4)
    assert (choice.outputs, choice.metric, choice.samples) == ("values", metric, shape[0])
    assert choice.candidates[-1].scores[metric] == pytest.approx(min(scores)[0], rel=1e-10)
    np.testing.assert_allclose(choice.apply(m), m[-best - 1 :].mean(0), rtol=1e-12)
    assert len(choice.candidates) == 4


def test_the_last_m_of_pairs_with_their_scale() -> None:
    m, v, y = drawn()
    choice = fit_regression(pairs(m, v), y, outputs="gaussian")
    scaled = []
    for last in range(1, 5):
        mean, variance = mixture(m[-last:], v[-last:], [1] * last)
        raw = next(each for each in choice.candidates if each.name == f"last {last}")
        assert raw.scores["gaussian_nll"] == pytest.approx(gaussian_nll(mean, variance, y))
        scale = fit_variance_scale(mean, variance, y)
        scaled.append((gaussian_nll(mean, scale * variance, y), scale))
    best = min(range(4), key=lambda i: scaled[i][0])
    assert choice.weights == (0.0,) * (3 - best) + (1 / (best + 1),) * (best + 1)
    assert choice.variance_scale == pytest.approx(scaled[best][1], rel=1e-10)
    assert choice.candidates[-1].scores["gaussian_nll"] == pytest.approx(scaled[best][0])
    assert choice.noise is None
    mean, variance = mixture(m[-best - 1 :], v[-best - 1 :], [1] * (best + 1))
    for given in (
        pairs(m, v),
        np.stack([m, v], 1),
        [{"mean": a, "variance": b} for a, b in pairs(m, v)],
    ):
        found = choice.apply(given)
        found = tuple(found.values()) if isinstance(found, dict) else found
        np.testing.assert_allclose(found[0], mean, rtol=1e-12)
        np.testing.assert_allclose(found[1], choice.variance_scale * variance, rtol=1e-12)
    plain = fit_regression(pairs(m, v), y, outputs="gaussian", variance=False)
    assert plain.variance_scale == 1
    assert len(plain.candidates) == 4


def test_the_weights_of_least_mse_are_those_of_scipy() -> None:
    m, v, y = drawn(5)
    for given in ({}, {"sample_weight": np.random.default_rng(1).uniform(0, 2, 1200)}):
        choice = fit_regression(m, y, select="weights", **given)  # type: ignore[arg-type]
        exact = minimize(
            lambda w, given=given: mse(np.tensordot(w, m, 1), y, **given),
            np.full(5, 0.2),
            method="SLSQP",
            bounds=[(0, 1)] * 5,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-14},
        )
        assert choice.candidates[-1].scores["mse"] <= exact.fun + 1e-10
        np.testing.assert_allclose(choice.weights, exact.x, atol=2e-4)
        assert choice.gap is not None
        assert 0 <= choice.gap < 1e-10
    of_pairs = fit_regression(pairs(m, v), y, outputs="gaussian", select="weights", metric="mse")
    assert of_pairs.weights == pytest.approx(fit_regression(m, y, select="weights").weights)


def test_the_weights_of_pairs_are_the_mixtures_of_greatest_likelihood() -> None:
    m, v, y = drawn(4)
    v = 2 * v
    choice = fit_regression(pairs(m, v), y, outputs="gaussian", select="weights")
    densities = stats.norm.pdf(y, m, np.sqrt(v)).T

    def loss(w: Any) -> float:
        return float(-np.mean(np.log(np.maximum(densities @ w, 1e-300))))

    exact = minimize(
        loss,
        np.full(4, 0.25),
        method="SLSQP",
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14},
    )
    assert loss(choice.weights) <= exact.fun + 1e-9
    assert choice.gap is not None
    assert 0 <= choice.gap < 1e-9


def naive_greedy(score: Any, members: int, steps: int) -> tuple[Any, Any]:
    """Every mean formed anew: the best prefix of the order, then the best next one."""

    def of(picked: list[int]) -> float:
        return float(score(np.bincount(picked, minlength=members)))

    alone = [of([i]) for i in range(members)]
    order = sorted(range(members), key=lambda i: (alone[i], -i))
    prefixes = [of(order[: n + 1]) for n in range(members)]
    picked = order[: prefixes.index(min(prefixes)) + 1]
    path = [of(picked[: n + 1]) for n in range(len(picked))]
    for _ in range(steps):
        tried = [of([*picked, i]) for i in range(members)]
        picked.append(max(i for i in range(members) if tried[i] <= min(tried) + 1e-13))
        path.append(min(tried))
    size = next(i for i in range(len(path)) if path[i] <= min(path) + 1e-13) + 1
    counts = np.bincount(picked[:size], minlength=members)
    return counts / counts.sum(), min(path)


@pytest.mark.parametrize("metric", ["mse", "mae", "gaussian_nll"])
@pytest.mark.parametrize("outputs", ["values", "gaussian"])
def test_greedy_is_the_search_that_tries_every_member(metric: Any, outputs: Any) -> None:
    m, v, y = drawn(4, 300)

    def score(counts: Any) -> float:
        mean, variance = mixture(m, v if outputs == "gaussian" else 0 * v, counts)
        if metric != "gaussian_nll":
            return mse(mean, y) if metric == "mse" else mae(mean, y)
        if outputs == "values":
            scale, noise = fit_spread(mean, variance, y)
            return gaussian_nll(mean, scale * variance + noise, y)
        return gaussian_nll(mean, fit_variance_scale(mean, variance, y) * variance, y)

    weights, least = naive_greedy(score, 4, 6)
    members = pairs(m, v) if outputs == "gaussian" else m
    with pytest.warns(UserWarning, match=r"300 validation samples, fewer than 1000"):
        found = fit_regression(members, y, outputs=outputs, select="greedy", metric=metric, steps=6)
    assert found.weights == tuple(weights)
    assert found.candidates[-1].scores[metric] == pytest.approx(least, rel=1e-9)
    with pytest.warns(UserWarning, match="fewer"):
        bagged = fit_regression(members, y, outputs=outputs, select="greedy", metric=metric, bags=3)
    assert sum(bagged.weights) == pytest.approx(1)


def test_quantiles_are_averaged_and_chosen_by_their_pinball_loss() -> None:
    m, _, y = drawn(3)
    levels = (0.1, 0.5, 0.9)
    q = m[..., None] + np.array([-1.3, 0, 1.3])
    for select in ("last", "greedy"):
        choice = fit_regression(q, y, quantiles=levels, select=select)
        loss = pinball_loss(choice.apply(q), y, levels)
        assert choice.candidates[-1].scores == {"pinball": pytest.approx(loss)}
        assert (choice.metric, choice.quantiles, choice.noise) == ("pinball", levels, None)
    best = min(pinball_loss(q[-n:].mean(0), y, levels) for n in (1, 2, 3))
    assert min(each.scores["pinball"] for each in choice.candidates[:3]) == pytest.approx(best)


@pytest.mark.parametrize("select", ["last", "greedy"])
def test_a_score_of_ones_own(select: Any) -> None:
    m, v, y = drawn(4, 1200)

    def worst(prediction: Any, targets: Any) -> float:
        return float(np.max(np.abs(prediction - targets)))

    choice = fit_regression(m, y, metric=worst, select=select, steps=3)
    assert choice.metric == "worst"
    assert choice.candidates[-1].scores["worst"] == pytest.approx(worst(choice.apply(m), y))
    low, high = choice.interval
    assert low <= high

    def nll(prediction: Any, targets: Any) -> float:
        mean, variance = prediction
        assert mean.shape == variance.shape == targets.shape
        return gaussian_nll(mean, variance, targets)

    by_name = fit_regression(pairs(m, v), y, outputs="gaussian", select=select, steps=3)
    by_function = fit_regression(
        pairs(m, v), y, outputs="gaussian", metric=nll, select=select, steps=3
    )
    assert by_name.weights == by_function.weights


def test_masked_targets_do_not_count() -> None:
    m, v, y = drawn(3, 800, 2)
    holes = np.random.default_rng(1).random((800, 2)) < 0.4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        choice = fit_regression(
            pairs(np.where(holes, np.nan, m), v),
            np.where(holes, np.nan, y),
            outputs="gaussian",
            mask=~holes,
        )
    n = round(sum(1 for w in choice.weights if w))
    mean, variance = mixture(m[-n:], v[-n:], [1] * n)
    assert choice.variance_scale == pytest.approx(
        fit_variance_scale(mean, variance, y, mask=~holes)
    )
    assert choice.samples == (~holes).any(1).sum()


def test_the_predictive_variance_is_calibrated_on_the_data() -> None:
    m, _, y = drawn(4)
    choice = fit_regression(m, y)
    pool = GaussianPool[Any]()
    for each, weight in zip(torch.tensor(m), choice.weights, strict=True):
        pool.update((each, torch.zeros(1200)), weight)
    mean, variance = choice.moments(pool)
    assert variance.dtype == torch.float64
    found = gaussian_nll(mean, variance, y)
    assert found == pytest.approx(choice.candidates[-1].scores["gaussian_nll"], rel=1e-12)
    away = np.mean((np.asarray(mean) - y) ** 2 / np.asarray(variance))
    assert away == pytest.approx(1, abs=0.05)


def test_each_targets_noise_is_added_to_it() -> None:
    m, _, y = drawn(3, 1200, 2)
    m[..., 1], y[:, 1] = 50 * m[..., 1], 50 * y[:, 1]
    choice = fit_regression(m, y)
    assert choice.noise is not None
    for more in ((), (1,)):  # also of outputs with an axis more
        pool = GaussianPool[Any]()
        for each, weight in zip(m, choice.weights, strict=True):
            pool.update((each.reshape(1200, 2, *more), np.zeros((1200, 2, *more))), weight)
        _, variance = choice.moments(pool)
        _, between = pool.moments
        noise = (variance - choice.variance_scale * between).reshape(1200, 2)
        np.testing.assert_allclose(noise, np.tile(choice.noise, (1200, 1)), rtol=1e-9)


def test_a_choice_is_saved_and_loaded(tmp_path: Path) -> None:
    m, v, y = drawn(3, 1200, 2)
    q = np.stack([m - 1, m], -1)
    for choice in (
        fit_regression(m, y, select="weights"),
        fit_regression(pairs(m, v), y, outputs="gaussian"),
        fit_regression(q, y, quantiles=[0.2, 0.5]),
    ):
        choice.save(tmp_path / "choice.json")
        assert Choice.load(tmp_path / "choice.json") == choice


M, V, Y = drawn(2, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(outputs="logits"), r"in 'outputs': must be one of 'probabilities'"),
        (
            lambda d: d.update(variance_scale=-1),
            r"in 'variance_scale': must be a finite number of at least 0",
        ),
        (lambda d: d.update(noise=[-1]), r"in 'noise': must be null or a list of finite numbers"),
        (lambda d: d.update(noise=[]), r"in 'noise': must be null or a list"),
        (lambda d: d.update(quantiles=[0.5, 1]), r"in 'quantiles': .* below 1"),
        (lambda d: d.pop("quantiles"), r"in 'quantiles': the field is missing"),
        (lambda d: d.update(metric="crps"), r"a dict that has 'crps'"),
    ],
)
def test_a_description_that_cannot_be_is_refused(change: Any, message: str) -> None:
    with pytest.warns(UserWarning, match="fewer"):
        data = fit_regression(M, Y).to_dict()
    change(data)
    with pytest.raises(ca.EnsembleError, match=message):
        Choice.from_dict(data)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_regression([], Y), r"at least one member.*Received: 0 members"),
        (lambda: fit_regression([M[0], M[1][:3]], Y), r"all of one shape. .*of shapes"),
        (lambda: fit_regression(M, Y[:3]), r"must have one shape. Received: \(5,\) and \(3,\)"),
        (lambda: fit_regression(M, np.full(5, np.nan)), r"missing out by mask="),
        (lambda: fit_regression(M * np.nan, Y), r"`predictions` must be finite"),
        (lambda: fit_regression(pairs(M, V), Y), r"outputs='values'. Received: a tuple; of pairs"),
        (lambda: fit_regression(M, Y, outputs="gaussian"), r"a pair of means and variances"),
        (
            lambda: fit_regression(pairs(M, -V), Y, outputs="gaussian"),
            r"at least 0. Received: .* from member 0; if the model gives log",
        ),
        (lambda: fit_regression(M, Y, outputs="logits"), r"`outputs` must be 'values' or 'gaus"),  # type: ignore[arg-type]
        (lambda: fit_regression(M, Y, select="best"), r"`select` must be 'last'.*'best'"),  # type: ignore[arg-type]
        (lambda: fit_regression(M, Y, metric="rmse"), r"`metric` must be one of 'mse'.*'rmse'"),  # type: ignore[arg-type]
        (lambda: fit_regression(M, Y, metric="pinball"), r"`quantiles` must be given for it"),
        (lambda: fit_regression(M, Y, metric="mse", quantiles=[0.5]), r"'pinball' for quantiles"),
        (
            lambda: fit_regression(pairs(M, V), Y, outputs="gaussian", quantiles=[0.5]),
            r"`quantiles` must be left out for outputs='gaussian'",
        ),
        (
            lambda: fit_regression(M, Y, metric="gaussian_nll", variance=False),
            r"`variance` must be True for metric='gaussian_nll' of values",
        ),
        (
            lambda: fit_regression(M, Y, metric="mae", select="weights"),
            r"must be 'mse' for select='weights'.*'mae'; give select='greedy'",
        ),
        (
            lambda: fit_regression(
                pairs(M, V), Y, outputs="gaussian", metric="crps", select="weights"
            ),
            r"must be 'mse' or 'gaussian_nll' for select='weights'",
        ),
        (
            lambda: fit_regression(M, Y, metric=lambda p, t: 1.0, select="weights"),  # noqa: ARG005
            r"must be 'mse' for select='weights'",
        ),
        (
            lambda: fit_regression(M, Y, metric=lambda p, t: np.nan),  # noqa: ARG005
            r"`metric` must return a finite number. Received: nan",
        ),
        (
            lambda: fit_regression(M, Y, metric=lambda p, t: "1"),  # type: ignore[arg-type, return-value] # noqa: ARG005
            r"`metric` must return a finite number. Received: '1'",
        ),
        (
            lambda: fit_regression(M, Y, metric=lambda p, t: 1.0, mask=Y > 0),  # noqa: ARG005
            r"`sample_weight` and `mask` must be left out for a metric that is a function",
        ),
        (lambda: fit_regression(M, Y, names=["a"]), r"`names` must have a name for each of 2"),
        (lambda: fit_regression(M, Y, select="greedy", steps=-1), r"`steps` must be"),
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ca.EnsembleError, match=message):
        call()


@pytest.mark.parametrize("metric", ["mse", "mae", "gaussian_nll", "own"])
def test_the_interval_is_by_samples_where_each_has_several_targets(metric: str) -> None:
    """A sample whose target comes three times says no more than once."""
    m, v, y = drawn(3, 60)
    m[0] += 4 * np.random.default_rng(5).normal(size=60)  # which is left out
    counts = np.full(60, 3)
    counts[::7] = 0  # and some have none
    rows = np.repeat(np.arange(60), counts)

    def own(prediction: Any, targets: Any) -> float:
        return float(np.median(abs(prediction[0] - targets)))

    given: Any = own if metric == "own" else metric
    options: dict[str, Any] = {"outputs": "gaussian", "metric": given, "seed": 3}
    with pytest.warns(UserWarning, match="on 51 validation samples"):
        found = fit_regression(pairs(m[:, rows], v[:, rows]), y[rows], counts=counts, **options)
    once = np.flatnonzero(counts)
    with pytest.warns(UserWarning, match="on 51 validation samples"):
        expected = fit_regression(pairs(m[:, once], v[:, once]), y[once], **options)
    with pytest.warns(UserWarning, match="on 153 validation samples"):
        narrow = fit_regression(pairs(m[:, rows], v[:, rows]), y[rows], **options)
    assert found.weights == expected.weights == narrow.weights
    assert found.weights[0] == 0
    assert (found.samples, expected.samples) == (51, 51)
    if metric != "own":  # whose draws are others
        assert found.interval == pytest.approx(expected.interval, rel=1e-9)
    width = np.diff(found.interval)[0]
    assert width == pytest.approx(np.diff(expected.interval)[0], rel=0.35)
    assert width > 1.3 * np.diff(narrow.interval)[0]


def test_counts_that_do_not_fit_are_refused() -> None:
    m, _, y = drawn(2, 6)
    with pytest.raises(ca.EnsembleError, match=r"`counts` must sum to 6.*a sum of 5"):
        fit_regression(m, y, counts=[2, 3])
