"""Choosing members and weights, beside plain searches, scipy and known best weightings."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

import cosanneal as ca
from cosanneal.ensemble import (
    HeldOut,
    brier_score,
    error_rate,
    last_scores,
    log_loss,
    select_greedy,
    select_last,
    select_weights,
)
from cosanneal.ensemble.score.metrics import METRICS, Metric

SCORE: dict[str, Any] = {"log_loss": log_loss, "brier": brier_score, "error": error_rate}


def drawn(
    members: int = 4, samples: int = 60, classes: int = 3, seed: int = 0
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Members of differing worth, and labels."""
    random = np.random.default_rng(seed)
    y = random.integers(classes, size=samples)
    truth = 1.5 * np.eye(classes)[y]
    z = truth + random.normal(size=(members, samples, classes)) * random.uniform(
        0.5, 2, (members, 1, 1)
    )
    p = np.exp(z)
    return p / p.sum(-1, keepdims=True), y


def mean_of(p: NDArray[Any], picked: tuple[int, ...]) -> NDArray[Any]:
    return np.asarray(p[list(picked)].mean(axis=0))


@pytest.mark.parametrize("metric", METRICS)
def test_the_last_m_are_those_of_the_best_score(metric: Metric) -> None:
    p, y = drawn()
    scores = [SCORE[metric](p[-m:].mean(axis=0), y) for m in range(1, 5)]
    found = select_last(HeldOut(p, y), metric)
    np.testing.assert_allclose(found.path, scores, rtol=1e-12)
    assert found.score == min(found.path)
    m = scores.index(min(scores)) + 1
    assert found.weights == (0.0,) * (4 - m) + (1 / m,) * m
    rows = last_scores(HeldOut(p, y))
    assert [row[metric] for row in rows] == list(found.path)


def test_of_equal_scores_the_fewest_members_are_taken() -> None:
    p, y = drawn(members=1)
    found = select_last(HeldOut(np.repeat(p, 3, axis=0), y), "error")
    assert found.weights == (0.0, 0.0, 1.0)


def naive_greedy(
    p: NDArray[Any], y: NDArray[Any], metric: str, steps: int, initial: int | None
) -> tuple[list[float], float, list[float]]:
    """Caruana's search, every mean formed anew and scored by the public metrics."""
    score = SCORE[metric]
    alone = [score(member, y) for member in p]
    order = sorted(range(len(p)), key=lambda i: (alone[i], -i))
    if initial is None:
        prefixes = [score(mean_of(p, tuple(order[:n])), y) for n in range(1, len(p) + 1)]
        initial = prefixes.index(min(prefixes)) + 1
    picked = order[:initial]
    path = [score(mean_of(p, tuple(picked[: n + 1])), y) for n in range(initial)]
    for _ in range(steps):
        tried = [score(mean_of(p, (*picked, i)), y) for i in range(len(p))]
        best = max(i for i in range(len(p)) if tried[i] <= min(tried) + 1e-13)
        picked.append(best)
        path.append(tried[best])
    size = next(i for i in range(len(path)) if path[i] <= min(path) + 1e-13) + 1
    counts = np.bincount(picked[:size], minlength=len(p))
    return (counts / counts.sum()).tolist(), min(path), path


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("initial", [None, 0, 2])
def test_greedy_is_the_search_that_tries_every_member_at_every_step(
    metric: Metric, initial: int | None
) -> None:
    for seed in range(6):
        p, y = drawn(seed=seed)
        weights, score, path = naive_greedy(p, y, metric, 7, initial)
        found = select_greedy(HeldOut(p, y), metric, steps=7, initial=initial)
        np.testing.assert_allclose(found.path, path, rtol=1e-12)
        assert found.weights == tuple(weights)
        assert found.score == pytest.approx(score, rel=1e-12)
        assert HeldOut(p, y).scores(found.weights)[metric] == pytest.approx(score, rel=1e-12)


@pytest.mark.parametrize("metric", ["log_loss", "brier"])
def test_greedy_finds_the_best_multiset_of_two_members(metric: Metric) -> None:
    # Along one line a convex score has no other minimum to be caught in.
    for seed in range(8):
        p, y = drawn(members=2, seed=seed)
        best = min(
            SCORE[metric](mean_of(p, picked), y)
            for size in range(1, 8)
            for picked in itertools.combinations_with_replacement(range(2), size)
        )
        found = select_greedy(HeldOut(p, y), metric, steps=400, initial=0)
        assert found.score <= best + 1e-6


@pytest.mark.parametrize("metric", METRICS)
def test_greedy_is_never_worse_than_its_start_and_no_better_than_the_best_multiset(
    metric: Metric,
) -> None:
    p, y = drawn(members=3, samples=40)
    steps = 4
    least = min(
        SCORE[metric](mean_of(p, picked), y)
        for size in range(1, steps + 1)
        for picked in itertools.combinations_with_replacement(range(3), size)
    )
    found = select_greedy(HeldOut(p, y), metric, steps=steps, initial=0)
    alone = min(SCORE[metric](member, y) for member in p)
    assert least - 1e-13 <= found.score <= alone + 1e-13


def test_bags_are_the_mean_of_searches_among_parts() -> None:
    p, y = drawn(members=6)
    found = select_greedy(HeldOut(p, y), steps=5, bags=8, bag_fraction=0.5, seed=3)
    random = np.random.default_rng(3)
    expected = np.zeros(6)
    for _ in range(8):
        part = np.sort(random.choice(6, size=3, replace=False))
        weights, _, _ = naive_greedy(p[part], y, "log_loss", 5, None)
        expected[part] += np.array(weights) / 8
    np.testing.assert_allclose(found.weights, expected, rtol=1e-12)
    assert found.score == pytest.approx(log_loss(np.einsum("m,msk->sk", expected, p), y), rel=1e-12)
    assert select_greedy(HeldOut(p, y), steps=5, bags=8, seed=4).weights != found.weights


def known_best(members: int, samples: int, seed: int) -> tuple[NDArray[Any], NDArray[Any], Any]:
    """Likelihoods at which a known weighting, some of it 0, is exactly the best one.

    At the best `w`, the mean of `L[:, m] / (L w)` is 1 where `w` is positive
    and less where it is 0. So the columns of random ratios are scaled to that.
    """
    random = np.random.default_rng(seed)
    w = random.dirichlet(np.ones(members))
    w[: members // 3] = 0
    w /= w.sum()
    ratios = random.uniform(0.05, 2, size=(samples, members))
    # Rows such that ratios @ w is 1, then columns such that their mean is 1: alternately.
    for _ in range(3000):
        ratios /= (ratios @ w)[:, None]
        ratios /= ratios.mean(axis=0)
    ratios /= (ratios @ w)[:, None]
    ratios[:, w == 0] *= random.uniform(0.6, 0.95, size=(w == 0).sum())
    return ratios, w, float(np.abs(ratios[:, w > 0].mean(axis=0) - 1).max())


@pytest.mark.parametrize("members", [3, 8, 20])
def test_the_weights_reach_a_known_optimum_and_the_gap_says_so(members: int) -> None:
    ratios, w, slack = known_best(members, 400, seed=members)
    assert slack < 1e-12  # the known weighting is the best one to this gap
    random = np.random.default_rng(1)
    mixture = random.uniform(0.02, 0.3, size=400)
    likelihoods = ratios * (mixture / ratios.max(axis=1))[:, None]
    # Three classes: the label's, and the rest in two parts.
    rest = (1 - likelihoods) / 2
    p = np.stack([likelihoods, rest, rest], axis=-1).transpose(1, 0, 2)
    y = np.zeros(400, int)
    held_out = HeldOut(p, y)
    found = select_weights(held_out)
    optimum = log_loss(np.einsum("m,msk->sk", w, p), y)
    assert abs(found.score - optimum) < 1e-10
    assert found.gap is not None
    assert found.gap <= 1e-10
    np.testing.assert_allclose(found.weights, w, atol=1e-4)
    assert all(weight == 0 for weight, best in zip(found.weights, w, strict=True) if best == 0)
    assert held_out.scores(found.weights)["log_loss"] == pytest.approx(found.score, rel=1e-12)


def test_the_gap_bounds_the_distance_to_the_optimum_all_along() -> None:
    p, y = drawn(members=10, samples=300)
    held_out = HeldOut(p, y)
    best = select_weights(held_out, tolerance=1e-13).score
    for iterations in range(1, 8):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = select_weights(held_out, iterations=iterations)
        assert found.gap is not None
        assert -1e-13 <= found.score - best <= found.gap
        assert bool(caught) == (found.gap > 1e-10)
        if caught:
            assert issubclass(caught[0].category, RuntimeWarning)
            assert "above the least" in str(caught[0].message)
    steps = np.diff(select_weights(held_out).path)
    assert (steps <= 4e-15).all()


def test_the_weights_agree_with_scipys_search() -> None:
    for seed in range(4):
        p, y = drawn(members=5, samples=200, seed=seed)
        likelihoods = p[:, range(200), y].T

        def loss(w: NDArray[Any], likelihoods: NDArray[Any] = likelihoods) -> float:
            return -float(np.log(likelihoods @ w).mean())

        theirs = minimize(
            loss,
            np.full(5, 0.2),
            method="SLSQP",
            bounds=[(0, 1)] * 5,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-15, "maxiter": 1000},
        )
        ours = select_weights(HeldOut(p, y))
        assert sum(ours.weights) == pytest.approx(1, abs=1e-14)
        assert min(ours.weights) >= 0
        assert ours.score <= theirs.fun + 1e-12
        assert ours.score == pytest.approx(theirs.fun, abs=1e-8)


def test_hard_cases_of_weights_end_with_a_certified_gap() -> None:
    p, y = drawn(members=3, samples=50)
    twins = np.concatenate([p, p, p[:1]])  # equal members
    one = HeldOut(p, y)
    found = select_weights(HeldOut(twins, y))
    assert found.gap is not None
    assert found.gap <= 1e-10
    assert found.score == pytest.approx(select_weights(one).score, abs=1e-10)
    assert select_weights(HeldOut(p[:1], y)).weights == (1.0,)

    right, wrong = np.eye(3)[y], np.eye(3)[(y + 1) % 3]
    perfect = select_weights(HeldOut([wrong, right, p[0]], y))
    assert perfect.weights == pytest.approx((0, 1, 0), abs=1e-9)
    assert perfect.score == pytest.approx(0, abs=1e-9)
    hopeless = select_weights(HeldOut([wrong, wrong], y))
    assert hopeless.gap == pytest.approx(0, abs=1e-12)
    # Each knows one half and is sure of the wrong class on the other.
    half = np.arange(50) < 25
    pair = [np.where(half[:, None], right, wrong), np.where(half[:, None], wrong, right)]
    assert select_weights(HeldOut(pair, y)).weights == pytest.approx((0.5, 0.5), abs=1e-9)
    single = select_weights(HeldOut(p[:, :1], y[:1]))
    assert single.weights[int(p[:, 0, y[0]].argmax())] == pytest.approx(1, abs=1e-9)


def test_many_members_and_samples_of_zero_likelihood_have_a_small_gap() -> None:
    random = np.random.default_rng(5)
    p = random.dirichlet(np.full(4, 0.05), size=(40, 300))  # with many zeros to rounding
    y = random.integers(4, size=300)
    found = select_weights(HeldOut(p.astype(np.float32), y))
    assert found.gap is not None
    assert found.gap <= 1e-10


def test_dense_outputs_and_outcomes_are_chosen_by_their_labels() -> None:
    p, y = drawn(members=3, samples=40)
    flat = select_weights(HeldOut(p, y))
    dense = np.moveaxis(p.reshape(3, 8, 5, 3), -1, 2)
    found = select_weights(HeldOut(dense, y.reshape(8, 5), class_axis=1))
    assert found.weights == pytest.approx(flat.weights, abs=1e-6)
    for metric in METRICS:
        one = select_greedy(HeldOut(p, y), metric)
        other = select_greedy(HeldOut(dense, y.reshape(8, 5), class_axis=1), metric)
        assert other.weights == one.weights
    outcomes, truth = p[..., :2], (y[:, None] == [0, 1]).astype(int)
    two = np.stack([1 - outcomes, outcomes], -1).reshape(3, -1, 2)
    for metric in METRICS:
        ours = select_greedy(HeldOut(outcomes, truth, class_axis=None), metric)
        assert ours.weights == select_greedy(HeldOut(two, truth.ravel()), metric).weights


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _, y: HeldOut([], y), r"at least one member.*Received: 0 members"),
        (lambda p, y: HeldOut([p[0], p[1, :5]], y), r"one shape.*\(5, 3\), \(60, 3\)"),
        (lambda p, y: HeldOut(p, y[:5]), r"\(60, 3\) and \(5,\)"),
        (lambda p, y: HeldOut(p - 1, y), r"between 0 and 1"),
        (lambda p, y: HeldOut(p, y).scores([1.0]), r"weight for each of 4 members"),
        (lambda p, y: HeldOut(p, y).scores([0.0] * 4), r"one above 0"),
        (lambda p, y: select_last(HeldOut(p, y), "auc"), r"`metric` must be"),
        (lambda p, y: select_greedy(HeldOut(p, y), "auc"), r"`metric` must be"),
        (lambda p, y: select_greedy(HeldOut(p, y), steps=0, initial=0), r"a member to pick"),
        (lambda p, y: select_greedy(HeldOut(p, y), bags=1, bag_fraction=2), r"`bag_fraction`"),
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    p, y = drawn()
    with pytest.raises(ca.EnsembleError, match=message):
        call(p, y)
