"""What ensembles are chosen by: every metric by its name, and a user's own."""

from __future__ import annotations

import functools
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score

import cosanneal as ca
from cosanneal.ensemble import (
    Choice,
    HeldOut,
    analyze,
    apply_temperature,
    auroc,
    balanced_error_rate,
    bootstrap_interval,
    fit,
    macro_f1,
    mean_iou,
    sample_scores,
    select_greedy,
    select_last,
    top_k_error,
    write_results,
)
from cosanneal.ensemble.score.measures import is_metric, measure_of, title_of

NAMED: dict[str, Callable[..., float]] = {
    "balanced_error": balanced_error_rate,
    "macro_f1_error": lambda p, y, **options: 1 - macro_f1(p, y, **options),
    "auroc_error": lambda p, y, **options: 1 - auroc(p, y, **options),
    "mean_iou_error": lambda p, y, **options: 1 - mean_iou(p, y, **options),
    "top2_error": functools.partial(top_k_error, k=2),
}


def members(samples: int = 200, count: int = 5, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Members that get better, and labels of which some classes are rare."""
    random = np.random.default_rng(seed)
    y = random.choice(4, size=samples, p=[0.6, 0.25, 0.1, 0.05])
    noise = np.linspace(5, 2, count)[:, None, None]
    powers = np.exp(3 * np.eye(4)[y] + noise * random.normal(size=(count, samples, 4)))
    return powers / powers.sum(-1, keepdims=True), y


def fitted(*args: Any, **options: Any) -> Choice:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit(*args, **options)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_last_members_are_those_of_the_best_score(name: str, weighted: bool) -> None:
    p, y = members()
    w = np.random.default_rng(1).exponential(size=200) if weighted else None
    score = functools.partial(NAMED[name], sample_weight=w)
    held_out = HeldOut(p, y, sample_weight=w)
    found = select_last(held_out, name)
    expected = [score(p[-m:].mean(0), y) for m in range(1, 6)]
    assert found.path == pytest.approx(expected, abs=1e-12)
    choice = fitted(p, y, metric=name, sample_weight=w)
    for each in choice.candidates:
        m = int(each.name.split(",")[0].removeprefix("last "))
        mean = p[-m:].mean(0)
        if "temperature" in each.name:
            # The scores of classes by their order do not hang on it.
            assert each.scores[name] == pytest.approx(score(mean, y), abs=0.02)
        else:
            assert each.scores[name] == pytest.approx(score(mean, y), abs=1e-12)
    best = choice.candidates[-1]
    assert best.scores[name] == min(each.scores[name] for each in choice.candidates[5:])
    assert best.scores[name] == pytest.approx(score(choice.apply(p), y), abs=1e-12)
    assert choice.metric == name


@pytest.mark.parametrize("name", NAMED)
def test_a_greedy_search_scores_every_mean(name: str) -> None:
    p, y = members(80, 4)
    found = select_greedy(HeldOut(p, y), name, steps=5, initial=1)
    # By hand: every mean, from the best member on; of equal ones the later.
    picked: list[int] = []
    path = []
    for _ in range(6):
        scores = [NAMED[name](p[[*picked, i]].mean(0), y) for i in range(4)]
        best = 3 - int(np.argmin(np.round(scores[::-1], 12)))
        picked.append(best)
        path.append(scores[best])
    assert found.path == pytest.approx(path, abs=1e-12)
    bagged = select_greedy(HeldOut(p, y), name, steps=3, bags=3, seed=1)
    assert bagged.score == pytest.approx(NAMED[name](np.tensordot(bagged.weights, p, 1), y))


def test_an_interval_resamples_samples_with_all_their_labels() -> None:
    random = np.random.default_rng(2)
    p = random.dirichlet(np.ones(3), size=(2, 25, 6))
    y = random.integers(3, size=(25, 6))
    y[random.random((25, 6)) < 0.3] = -100
    held_out = HeldOut(p, y, ignore_index=-100)
    y_counted = held_out.labels
    for name, score in NAMED.items():
        if name == "top2_error":
            continue
        measure = measure_of(name)
        found = measure.interval(held_out.rows(0), held_out.rows(1), y_counted, 3)
        again = np.random.default_rng(3)
        differences = []
        for _ in range(2000):
            at = again.integers(25, size=25)
            first, second = (score(member[at], y[at], ignore_index=-100) for member in p)
            differences.append(first - second)
        assert found == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])), abs=1e-9)
    # A mean over labels has the same by its own way.
    drawn = measure_of("top2_error").interval(held_out.rows(0), held_out.rows(1), y_counted, 3)
    scores = [sample_scores("top2_error", member, y, ignore_index=-100) for member in p]
    weights = (y != -100).sum(1).astype(float)
    assert drawn == pytest.approx(
        bootstrap_interval(scores[0] - scores[1], weights=weights, seed=3), abs=1e-12
    )


def f1_error(p: NDArray[Any], y: NDArray[Any], sample_weight: Any = None) -> float:
    """A user's own: that of scikit-learn."""
    return 1 - float(f1_score(y, p.argmax(-1), average="macro", sample_weight=sample_weight))


def test_a_users_own_metric_chooses_as_the_one_of_that_name() -> None:
    p, y = members()
    w = np.random.default_rng(1).exponential(size=200)
    for select in ("last", "greedy"):
        for weights in (None, w):
            options: dict[str, Any] = {"select": select, "steps": 6, "sample_weight": weights}
            ours = fitted(p, y, metric="macro_f1_error", **options)
            theirs = fitted(p, y, metric=f1_error, **options)
            assert theirs.metric == "custom:f1_error"
            assert theirs.weights == ours.weights
            assert theirs.temperature == ours.temperature
            for mine, each in zip(ours.candidates, theirs.candidates, strict=True):
                assert each.scores["custom:f1_error"] == pytest.approx(
                    mine.scores["macro_f1_error"], abs=1e-9
                )
            assert theirs.interval == pytest.approx(ours.interval, abs=0.02)


def test_a_users_own_metric_gets_the_layout_or_what_counts() -> None:
    random = np.random.default_rng(3)
    p = np.moveaxis(random.dirichlet(np.ones(3), size=(2, 8, 4, 5)), -1, 2)
    y = random.integers(3, size=(8, 4, 5))
    seen: list[tuple[Any, ...]] = []

    def metric(probabilities: Any, labels: Any, **more: Any) -> float:
        seen.append((probabilities, labels, more))
        return float(np.mean(labels))

    fitted(p, y, class_axis=1, metric=metric, temperature=False)
    first = seen[0]
    np.testing.assert_allclose(first[0], p[1])
    np.testing.assert_array_equal(first[1], y)
    assert first[2] == {}
    assert {each[0].shape for each in seen} == {(8, 3, 4, 5)}
    seen.clear()
    y[0, :2], y[3] = 255, 255
    fitted(p, y, class_axis=1, metric=metric, temperature=False, ignore_index=255)
    counted = y != 255
    np.testing.assert_allclose(seen[0][0], np.moveaxis(p[1], 1, -1)[counted])
    np.testing.assert_array_equal(seen[0][1], y[counted])
    seen.clear()
    weights = random.exponential(size=8)
    options: dict[str, Any] = {"ignore_index": 255, "sample_weight": weights}
    fitted(p, y, class_axis=1, metric=metric, temperature=False, **options)
    each = np.broadcast_to(weights[:, None, None], y.shape)[counted]
    np.testing.assert_allclose(seen[0][2]["sample_weight"], each)
    seen.clear()
    outcomes, truth = random.random((2, 9, 3)), random.random((9, 3))
    fitted(outcomes, truth, class_axis=None, metric=metric, temperature=False)
    np.testing.assert_allclose(seen[0][0], outcomes[1])
    np.testing.assert_allclose(seen[0][1], truth)
    seen.clear()
    soft = random.dirichlet(np.ones(3), size=8)
    fitted(p[..., 0, 0], soft, metric=metric, temperature=False)
    np.testing.assert_allclose(seen[0][1], soft)


def test_a_choice_by_any_metric_is_read_back_and_analyzed(tmp_path: Path) -> None:
    p, y = members(400)
    for metric in (*NAMED, f1_error):
        choice = fitted(p[:, :200], y[:200], metric=metric)
        choice.save(tmp_path / "choice.json")
        assert Choice.load(tmp_path / "choice.json") == choice
        found = analyze(p[:, 200:], y[200:], choice=choice)
        write_results(
            {"format": "cosanneal.results", "version": 1, "title": "t", "analysis": found},
            tmp_path / "results.json",
        )
        rows = [*found["members"], *found["ensembles"], found["chosen"]]
        if isinstance(metric, str):
            assert all(row["metrics"].keys() == {metric} for row in rows)
            expected = NAMED[metric](choice.apply(p[:, 200:]), y[200:])
            assert found["chosen"]["metrics"][metric] == pytest.approx(expected, abs=1e-12)
        else:
            assert not any("metrics" in row for row in rows)
    data = json.loads((tmp_path / "results.json").read_text())
    data["analysis"]["chosen"]["metrics"] = {"auc": 0.5}
    with pytest.raises(ca.EnsembleError, match=r"metrics\.auc': must be the score of a metric"):
        write_results(data, tmp_path / "results.json")


def test_the_order_of_classes_alone_is_left_by_a_temperature() -> None:
    p, y = members(100, 1)
    for name in ("balanced_error", "macro_f1_error", "mean_iou_error", "top2_error"):
        assert NAMED[name](p[0], y) == NAMED[name](apply_temperature(p[0], 3.0), y)


def test_names_and_titles() -> None:
    for name in ("log_loss", "top3_error", "top12_error", *NAMED, "custom:<lambda>"):
        assert is_metric(name)
    for no_name in ("auc", "top0_error", "top_error", "custom:", "", None, 3):
        assert not is_metric(no_name)
    assert title_of("top3_error") == "top-3 error"
    assert title_of("custom:dice") == "metric dice"
    assert title_of("macro_f1_error") == "macro F1 error (1 less F1)"


class Odd:
    """A metric that is an object."""

    def __call__(self, p: Any, y: Any) -> Any:
        return np.float32(p.size + y.size)


BAD: list[tuple[Any, dict[str, Any], str]] = [
    (
        "auc",
        {},
        r"`metric` must be one of 'log_loss', .*'auroc_error', 'top5_error' with any n",
    ),
    (3, {}, r"or a function metric\(probabilities, labels\). Received: metric=3"),
    (
        lambda p, y: f"of {p.ndim + y.ndim}",
        {},
        r"must return a finite number, the lower the better. Received: 'of 3' from <",
    ),
    (lambda p, y: math.nan * p.size * y.size, {}, r"must return a finite number.*Received: nan"),
    (lambda p, y: p[y], {}, r"must return a finite number"),
    (Odd(), {"sample_weight": np.arange(1, 41)}, r"must take sample_weight= .*Odd, which does not"),
    ("top4_error", {}, r"top-4 error must be of more than 4 classes"),
]


@pytest.mark.parametrize(("metric", "options", "message"), BAD)
def test_what_is_no_metric_is_refused(metric: Any, options: dict[str, Any], message: str) -> None:
    p, y = members(40, 2)
    for select in ("last", "greedy"):
        with pytest.raises(ca.EnsembleError, match=message):
            fitted(p, y, metric=metric, select=select, **options)
    assert fitted(p, y, metric=Odd()).metric == "custom:Odd"


def test_weights_are_chosen_by_log_loss_alone() -> None:
    p, y = members(40, 2)
    for metric in ("auroc_error", f1_error):
        with pytest.raises(ca.EnsembleError, match=r"must be 'log_loss' for select='weights'"):
            fitted(p, y, metric=metric, select="weights")


def test_a_resample_without_a_score_says_nothing() -> None:
    p = np.random.default_rng(0).random((2, 12))
    y = np.array([1, *[0] * 11])  # of many resamples none has the one that happens
    choice = fitted(p, y, class_axis=None, metric="auroc_error", temperature=False)
    assert np.isfinite(choice.interval).all()

    def strict(q: Any, labels: Any) -> float:
        if len(set(labels.tolist())) < 2:
            raise ValueError("one class only")
        return 1 - auroc(q, labels)

    own = fitted(p, y, class_axis=None, metric=strict, temperature=False)
    assert np.isfinite(own.interval).all()
    assert own.weights == choice.weights
