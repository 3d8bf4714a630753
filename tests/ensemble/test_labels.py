"""Labels in every form that people have them, held against scikit-learn, torch and torchmetrics."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as tm
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score
from sklearn.metrics import log_loss as sklearn_log_loss

import cosanneal as ca
from cosanneal.ensemble import (
    HeldOut,
    LabelOptions,
    adaptive_calibration_error,
    analyze,
    auroc,
    balanced_error_rate,
    bootstrap_interval,
    brier_score,
    calibrated_log_loss,
    calibration_error,
    compare_scores,
    error_rate,
    fit,
    fit_temperature,
    log_loss,
    macro_f1,
    mean_iou,
    reliability,
    sample_scores,
    sample_weights,
    select_greedy,
    select_last,
    select_weights,
    top_k_error,
)
from cosanneal.ensemble.labels import as_labels

EXACT = 1e-12
SCORES: list[Any] = [
    *(error_rate, log_loss, brier_score, calibration_error, adaptive_calibration_error),
    *(balanced_error_rate, macro_f1, mean_iou, auroc, fit_temperature),
]


def drawn(samples: int = 300, classes: int = 4, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.ones(classes), size=samples)
    y = np.where(random.random(samples) < 0.6, p.argmax(1), random.integers(classes, size=samples))
    return p, y


def tokens(seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sequences of 7 tokens at most, padded with -100: classes along the last axis."""
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.ones(3), size=(40, 7))
    y = np.where(random.random((40, 7)) < 0.6, p.argmax(-1), random.integers(3, size=(40, 7)))
    lengths = random.integers(0, 8, size=40)
    return p, np.where(np.arange(7) < lengths[:, None], y, -100)


def test_class_numbers_in_every_form_give_the_same_scores() -> None:
    p, y = drawn()
    onehot = np.eye(4)[y]
    names = np.array(["ant", "bee", "cat", "dog"])
    tuples = [("a", 1), ("b", 2), ("c", 3), ("d", 4)]
    forms: list[tuple[Any, LabelOptions]] = [
        (y.astype(np.uint8), {}),
        (y.astype(np.float32), {}),
        (y[:, None], {}),
        (y[:, None].astype(float), {}),
        (y.tolist(), {}),
        (torch.tensor(y), {}),
        (torch.tensor(y, dtype=torch.bfloat16), {}),
        (onehot, {}),
        (onehot.astype(bool), {}),
        (torch.tensor(onehot, dtype=torch.float16), {}),
        (names[y], {"classes": names.tolist()}),
        (names[y].tolist(), {"classes": list(names)}),  # of numpy's scalars
        (names[y].astype(object), {"classes": names.tolist()}),
        (names[y][:, None], {"classes": names.tolist()}),
        ([name.encode() for name in names[y]], {"classes": names.tolist()}),
        ([tuples[i] for i in y], {"classes": tuples}),
        (10 * y + 5, {"classes": [5, 15, 25, 35]}),
        (torch.tensor(10 * y + 5), {"classes": [5, 15, 25, 35]}),
        (10.0 * y + 5, {"classes": [5, 15, 25, 35]}),
        ([None if i == 0 else i for i in y.tolist()], {"classes": [None, 1, 2, 3]}),
    ]
    for score in SCORES:
        expected = score(p, y)
        for labels, options in forms:
            assert score(p, labels, **options) == expected, (score, labels)
    # tuples as numpy makes them of a list
    pairs = np.array([(0, 1), (0, 2), (1, 1), (1, 2)])
    classes = [tuple(pair) for pair in pairs.tolist()]
    assert log_loss(p, pairs[y], classes=classes) == log_loss(p, y)


def test_outcomes_in_every_form_give_the_same_scores() -> None:
    random = np.random.default_rng(1)
    p = random.random(200)
    y = (random.random(200) < p).astype(int)
    forms: list[tuple[Any, Any, LabelOptions]] = [
        (p, y.astype(bool), {}),
        (p, y.astype(np.float32), {}),
        (p, y[:, None], {}),
        (p[:, None], y, {}),
        (p[:, None], y[:, None].astype(float), {}),
        (p[:, None], torch.tensor(y), {}),
        (p, np.array(["no", "yes"])[y], {"classes": ["no", "yes"]}),
        (p, y.astype(bool).tolist(), {"classes": [False, True]}),
    ]
    for score in SCORES:
        expected = score(p, y, class_axis=None)
        for predicted, labels, options in forms:
            assert score(predicted, labels, class_axis=None, **options) == expected


def test_soft_labels_are_scored_as_torch_does_and_by_hand() -> None:
    random = np.random.default_rng(2)
    p, _ = drawn(100)
    t = random.dirichlet(np.full(4, 0.3), size=100)
    logits, targets = torch.tensor(np.log(p)), torch.tensor(t)
    theirs = torch.nn.functional.cross_entropy(logits, targets)
    assert log_loss(p, t) == pytest.approx(float(theirs), abs=EXACT)
    assert brier_score(p, t) == pytest.approx(((p - t) ** 2).sum(1).mean(), abs=EXACT)
    for score in (error_rate, calibration_error, macro_f1, auroc, balanced_error_rate):
        assert score(p, t) == score(p, t.argmax(1))
    # Of outcomes, as a BCE loss has it.
    q, s = random.random(100), random.random(100)
    bce = torch.nn.functional.binary_cross_entropy(torch.tensor(q), torch.tensor(s))
    assert log_loss(q, s) == pytest.approx(float(bce), abs=EXACT)
    assert brier_score(q, s) == pytest.approx(2 * ((q - s) ** 2).mean(), abs=EXACT)
    assert error_rate(q, s) == np.mean((q > 0.5) != (s > 0.5))
    # Dense, with the classes in the middle.
    dense = np.moveaxis(p.reshape(10, 10, 4), -1, 1)
    soft = np.moveaxis(t.reshape(10, 10, 4), -1, 1)
    assert log_loss(dense, soft, class_axis=1) == pytest.approx(log_loss(p, t), abs=EXACT)
    # A temperature by a grid.
    grid = np.linspace(0.2, 8, 20001)[:, None]
    best = np.inf
    logs = np.log(p)
    for temperature in (found := fit_temperature(p, t)), *grid[::200, 0]:
        scaled = logs / temperature
        loss = (np.log(np.exp(scaled).sum(1)) - (t * scaled).sum(1)).mean()
        best = min(best, loss)
        if temperature == found:
            ours = loss
    assert ours == pytest.approx(best, abs=1e-12)


def test_what_is_left_out_has_no_part_in_any_score() -> None:
    p, y = tokens()
    counted = y != -100
    flat, labels = p[counted], y[counted]
    for score in SCORES:
        expected = score(flat, labels)
        assert score(p, y, ignore_index=-100) == pytest.approx(expected, abs=EXACT)
        assert score(p, np.where(counted, y, 77), mask=counted) == pytest.approx(expected)
        assert score(p, y, mask=counted.astype(np.int64)) == pytest.approx(expected, abs=EXACT)
        assert score(p, y, sample_weight=counted * 3.0) == pytest.approx(expected, abs=EXACT)
        assert score(p, np.where(counted, y, 255).astype(np.uint8), ignore_index=255) == (
            pytest.approx(expected, abs=EXACT)
        )
        # What is left out is not looked at.
        broken = np.where(counted[..., None], p, np.nan)
        assert score(broken, y, ignore_index=-100) == pytest.approx(expected, abs=EXACT)
        # Flat, with the lengths.
        sizes = counted.sum(1)
        assert score(flat, labels, counts=sizes) == pytest.approx(expected, abs=EXACT)
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(np.log(p)).movedim(-1, 1), torch.tensor(y), ignore_index=-100
    )
    assert log_loss(p, y, ignore_index=-100) == pytest.approx(float(theirs), abs=EXACT)
    theirs = tm.multiclass_accuracy(
        torch.tensor(p).movedim(-1, 1), torch.tensor(y), 3, average="micro", ignore_index=-100
    )
    assert error_rate(p, y, ignore_index=-100) == pytest.approx(1 - float(theirs), abs=1e-6)
    # A class may be left out too, as torch has it.
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(np.log(flat)), torch.tensor(labels), ignore_index=0
    )
    assert log_loss(flat, labels, ignore_index=0) == pytest.approx(float(theirs), abs=EXACT)
    # By name: of texts, of outcomes, and of tuples.
    named = np.where(counted, y, 3)
    texts = np.array(["O", "B", "I", "pad"])[named]
    found = log_loss(p, texts, classes=["O", "B", "I"], mask=counted)
    assert found == pytest.approx(log_loss(flat, labels), abs=EXACT)
    mixed = [["OBI"[i] if i >= 0 else -100 for i in row] for row in y.tolist()]
    found = log_loss(p, mixed, classes=["O", "B", "I"], ignore_index=-100)
    assert found == pytest.approx(log_loss(flat, labels), abs=EXACT)
    outcomes = np.array([[0, 1, -1], [1, -1, -1]])
    q = np.array([[0.2, 0.7, 0.5], [0.9, 0.5, 0.5]])
    found = log_loss(q, outcomes, class_axis=None, ignore_index=-1)
    assert found == pytest.approx(-(math.log(0.8) + math.log(0.7) + math.log(0.9)) / 3)
    soft = np.where(outcomes < 0, np.nan, 0.5)
    found = log_loss(q, soft, class_axis=None, mask=outcomes >= 0)
    assert math.isfinite(found)


def test_weights_are_those_of_scikit_learn() -> None:
    p, y = drawn()
    random = np.random.default_rng(3)
    w = random.exponential(size=300)
    found = log_loss(p, y, sample_weight=w)
    expected = sklearn_log_loss(y, p, labels=range(4), sample_weight=w)
    assert found == pytest.approx(expected, abs=EXACT)
    expected = 1 - accuracy_score(y, p.argmax(1), sample_weight=w)
    assert error_rate(p, y, sample_weight=w) == pytest.approx(expected, abs=EXACT)
    expected = np.average(((p - np.eye(4)[y]) ** 2).sum(1), weights=w)
    assert brier_score(p, y, sample_weight=w) == pytest.approx(expected, abs=EXACT)
    # Whole weights are repetitions, for every score.
    counts = random.integers(0, 4, size=300)
    for score in SCORES:
        expected = score(np.repeat(p, counts, 0), np.repeat(y, counts))
        found = score(p, y, sample_weight=counts)
        assert found == pytest.approx(expected, abs=1e-9), score
        assert score(p, y, sample_weight=5.0 * counts) == pytest.approx(expected, abs=1e-9)
    for norm, binning in (("l1", "mass"), ("max", "width"), ("l2", "width")):
        options: dict[str, Any] = {"norm": norm, "binning": binning, "bins": 7}
        expected = calibration_error(np.repeat(p, counts, 0), np.repeat(y, counts), **options)
        found = calibration_error(p, y, sample_weight=counts, **options)
        assert found == pytest.approx(expected, abs=1e-9)
    # One for each sample counts for each of its labels.
    q, labels = tokens()
    each = random.exponential(size=40)
    spread = np.broadcast_to(each[:, None], (40, 7))
    for score in SCORES:
        by_label = score(q, labels, ignore_index=-100, sample_weight=spread)
        assert score(q, labels, ignore_index=-100, sample_weight=each) == by_label


def test_reliability_says_what_its_bins_weigh() -> None:
    w = [1.0, 3.0, 1.0, 1.0]
    found = reliability([0.2, 0.3, 0.8, 0.9], [0, 1, 1, 1], bins=2, sample_weight=w)
    assert found.counts.tolist() == [2, 2]
    assert found.weights.tolist() == [4, 2]
    np.testing.assert_allclose(found.accuracy, [0.75, 1])
    np.testing.assert_allclose(found.confidence, [(0.2 + 0.9) / 4, 0.85])
    # Debiased: 4**2 / (1 + 9) equal ones vary as much.
    found_error = calibration_error(
        [0.2, 0.3], [0, 1], bins=1, norm="l2", debiased=True, sample_weight=[1, 3]
    )
    gap, noise = 0.75 - 1.1 / 4, 0.75 * 0.25 / max(1.6 - 1, 1)
    assert found_error == pytest.approx(math.sqrt(gap**2 - noise))


def test_samples_and_their_weights_make_the_metric() -> None:
    p, y = tokens()
    w = np.random.default_rng(5).exponential(size=(40, 7))
    options: LabelOptions = {"ignore_index": -100, "sample_weight": w}
    present = (y != -100).any(1)
    for metric in ("error", "log_loss", "brier", "top2_error"):
        scores = sample_scores(metric, p, y, **options)
        weights = sample_weights(p, y, **options)
        assert scores.shape == weights.shape == (present.sum(),)
        total = {"error": error_rate, "log_loss": log_loss, "brier": brier_score}.get(metric)
        expected = total(p, y, **options) if total else top_k_error(p, y, k=2, **options)
        assert np.average(scores, weights=weights) == pytest.approx(expected, abs=EXACT)
        # Each is that of the sample alone.
        i = int(np.flatnonzero(present)[3])
        alone: LabelOptions = {"ignore_index": -100, "sample_weight": w[i : i + 1]}
        if total:
            assert scores[3] == pytest.approx(total(p[i : i + 1], y[i : i + 1], **alone))
    np.testing.assert_allclose(
        sample_weights(p, y, **options), np.where(y == -100, 0, w).sum(1)[present]
    )
    assert sample_weights(*drawn(5)).tolist() == [1.0] * 5


def test_intervals_are_of_the_ratio() -> None:
    random = np.random.default_rng(6)
    scores, weights = random.random(30), random.integers(1, 9, size=30).astype(float)
    found = bootstrap_interval(scores, weights=weights, resamples=400, seed=2)
    draws = np.random.default_rng(2).integers(30, size=(400, 30))
    ratios = [float(weights[at] @ scores[at] / weights[at].sum()) for at in draws]
    assert found == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])), abs=1e-12)
    even = bootstrap_interval(scores, weights=np.full(30, 2.5), seed=2)
    assert even == pytest.approx(bootstrap_interval(scores, seed=2), abs=1e-12)
    other = random.random(30)
    compared = compare_scores(scores, other, weights=weights, seed=2)
    assert compared.difference == pytest.approx(np.average(scores - other, weights=weights))
    # By every sign, for a few.
    d = weights[:8] * (scores - other)[:8]
    signs = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1).T
    expected = np.mean(np.abs(signs @ d) >= abs(d.sum()) - 1e-12)
    few = compare_scores(scores[:8], other[:8], weights=weights[:8])
    assert few.p_value == pytest.approx(expected)
    for bad in ([1.0] * 29, [0.0] * 30, [math.nan] * 30):
        with pytest.raises(ca.EnsembleError, match=r"`weights` must have one finite positive"):
            bootstrap_interval(scores, weights=bad)


@pytest.mark.parametrize("select", ["last", "greedy", "weights"])
@pytest.mark.parametrize("metric", ["log_loss", "brier", "error"])
def test_choices_see_what_counts_alone(select: Any, metric: str) -> None:
    if select == "weights" and metric != "log_loss":
        return
    random = np.random.default_rng(7)
    p = random.dirichlet(np.ones(3), size=(5, 60, 4))
    y = random.integers(3, size=(60, 4))
    y[random.random((60, 4)) < 0.3] = 255
    counts = np.where(y == 255, 0, random.integers(1, 4, size=(60, 4)))
    plain = p.reshape(5, 240, 3)[:, np.repeat(np.arange(240), counts.reshape(-1))]
    labels = np.repeat(y.reshape(-1), counts.reshape(-1))
    options: dict[str, Any] = {"select": select, "metric": metric, "steps": 12}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fit(p, y, **options, ignore_index=255, sample_weight=counts)
        expected = fit(plain, labels, **options)
        moved = fit(
            np.moveaxis(p, -1, 2),
            y,
            **options,
            class_axis=1,
            ignore_index=255,
            sample_weight=counts,
        )
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-7)
    assert found.temperature == pytest.approx(expected.temperature, rel=1e-7)
    assert moved.weights == pytest.approx(found.weights)
    for ours, theirs in zip(found.candidates, expected.candidates, strict=True):
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-7)
    assert found.samples == (y != 255).any(1).sum()


def test_soft_labels_choose_as_their_terms_do() -> None:
    random = np.random.default_rng(8)
    p = random.dirichlet(np.ones(3), size=(4, 50))
    t = random.dirichlet(np.ones(3), size=50)
    t[:10] = np.eye(3)[random.integers(3, size=10)]
    held_out = HeldOut(p, t)
    # Each soft label is three labels that count by its shares.
    repeated, labels = np.repeat(p, 3, axis=1), np.tile(np.arange(3), 50)
    shares = t.reshape(-1)
    terms = HeldOut(repeated, labels, sample_weight=shares)
    searches: tuple[Callable[[HeldOut], Any], ...] = (
        select_weights,
        lambda each: select_greedy(each, "log_loss", steps=9),
        select_last,
    )
    for search in searches:
        ours, theirs = search(held_out), search(terms)
        np.testing.assert_allclose(ours.weights, theirs.weights, atol=1e-9)
        assert ours.score == pytest.approx(theirs.score, abs=1e-9)
    found = select_greedy(held_out, "brier", steps=9)
    assert found.score == pytest.approx(brier_score(held_out_mean(p, found.weights), t))
    assert found.score == pytest.approx(min(found.path))


def held_out_mean(p: NDArray[Any], weights: Any) -> NDArray[Any]:
    return np.asarray(np.einsum("m,mnk->nk", weights, p))


def test_the_calibrated_log_loss_is_of_what_counts() -> None:
    p, y = tokens()
    loss = calibrated_log_loss(p, y, ignore_index=-100)
    best = log_loss(p, y, ignore_index=-100)
    temperature = fit_temperature(p, y, ignore_index=-100)
    assert temperature != 1
    assert abs(loss - best) < 0.2
    # All labels of one class are as their most probable ones: an equal half each.
    same = np.tile(p[:1], (6, 1, 1))
    labels = np.tile(np.where(y[:1] == -100, 0, y[:1]), (6, 1))
    labels[:, 5:] = -100
    found = calibrated_log_loss(same, labels, ignore_index=-100)
    scaled = same[:1, :5] ** (1 / fit_temperature(same[:1, :5], labels[:1, :5]))
    expected = log_loss(scaled / scaled.sum(-1, keepdims=True), labels[:1, :5])
    assert found == pytest.approx(expected, abs=1e-9)


def test_an_analysis_is_of_what_counts() -> None:
    p, y = tokens()
    other, _ = tokens(1)
    counted = y != -100
    found = analyze([p, other], y, ignore_index=-100)
    flat = analyze([p[counted], other[counted]], y[counted])
    assert found["samples"] == int(counted.any(1).sum())
    for name in ("error", "log_loss", "brier", "ece"):
        assert found["members"][0][name] == pytest.approx(flat["members"][0][name])
        assert found["ensembles"][0][name] == pytest.approx(flat["ensembles"][0][name])
    np.testing.assert_allclose(found["correlation"], flat["correlation"], atol=1e-12)
    np.testing.assert_allclose(found["disagreement"], flat["disagreement"], atol=1e-12)
    for row, theirs in zip(found["comparisons"], flat["comparisons"], strict=True):
        assert row["difference"] == pytest.approx(theirs["difference"], abs=1e-12)
        assert row["interval"][0] <= row["difference"] <= row["interval"][1]
    outcomes = np.random.default_rng(1).random((2, 50))
    labels = np.where(np.arange(50) < 30, np.arange(50) % 2, -1)
    found = analyze(outcomes, labels, class_axis=None, ignore_index=-1)
    flat = analyze(outcomes[:, :30], labels[:30], class_axis=None)
    assert found == flat


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9), st.integers(0, 2**31))
def test_flat_rows_with_counts_are_the_samples(counts: list[int], seed: int) -> None:
    if not sum(counts):
        return
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.ones(3), size=sum(counts))
    y = random.integers(3, size=sum(counts))
    labels = as_labels(y, p.shape, counts=counts)
    assert labels.samples == sum(count > 0 for count in counts)
    scores = sample_scores("brier", p, y, counts=counts)
    ends = np.cumsum(counts)
    expected = [
        brier_score(p[end - count : end], y[end - count : end])
        for count, end in zip(counts, ends, strict=True)
        if count
    ]
    np.testing.assert_allclose(scores, expected, atol=EXACT)
    # Samples drawn again, in any order, are theirs.
    at = random.integers(labels.samples, size=5)
    again = labels.of(at)
    rows = labels.rows_of(at)
    assert again.classes.tolist() == y[rows].tolist()
    np.testing.assert_allclose(
        again.per_sample((p[rows] ** 2).sum(1)), labels.per_sample((p**2).sum(1))[at], atol=EXACT
    )


P = np.full((3, 2), 0.5)
SITES = np.full((2, 3, 2), 0.5)
MULTI = np.full((3, 4), 0.5)
ERRORS: list[tuple[Any, Any, dict[str, Any], str]] = [
    (
        P,
        [0, 1, 7],
        {},
        r"integers from 0 to 1.*from 0 to 7; leave labels out by ignore_index=7, if it means",
    ),
    (P, [0, 1, -1], {}, r"from -1 to 1; leave labels out by ignore_index=-1, if it means"),
    (P, [1, 2, 1], {}, r"from 1 to 2; classes are counted from 0: give labels - 1$"),
    (P, [-1, 1, -1], {}, r"from -1 to 1; give 0 in place of -1: \(labels \+ 1\) // 2$"),
    (P, [3, 5, 0], {}, r"predictions have 2 classes; name the labels' own by classes=\[\.\.\.\]$"),
    (P, [2, 2, 2], {}, r"predictions have 2 classes; name the labels' own by classes="),
    (
        P,
        [0, 1, 0],
        {"ignore_index": 1.5},
        r"`ignore_index` must be an integer, such as -100.*=1\.5",
    ),
    (P, [0, 1, 0], {"ignore_index": True}, r"`ignore_index` must be an integer"),
    (P, np.eye(2)[[0, 1, 0]], {"ignore_index": 0}, r"must be left out for one-hot and soft.*mask="),
    (P, [-1, -1, -1], {"ignore_index": -1}, r"at least one label that counts. Received: none of 3"),
    (P, [0, 1, 0], {"mask": [False] * 3}, r"none of 3; look at ignore_index=, mask="),
    (P, [0, 1, 0], {"sample_weight": [0.0] * 3}, r"none of 3"),
    (P, [0, 1, 0], {"mask": [1, 2, 0]}, r"`mask` must be boolean.*other than 0 and 1"),
    (P, [0, 1, 0], {"mask": [1.0, 0.0, 0.0]}, r"`mask` must be boolean.*dtype float64$"),
    (P, [0, 1, 0], {"mask": [True]}, r"`mask` must be of the labels' shape \(3,\).*shape \(1,\)"),
    (P, [0, 1, 0], {"sample_weight": [[1.0]] * 2}, r"`sample_weight` must be of the labels' shape"),
    (P, [0, 1, 0], {"sample_weight": [1, -1, 1]}, r"finite and at least 0. Received: from -1 to 1"),
    (P, [0, 1, 0], {"sample_weight": [1, math.nan, 1]}, r"must be finite and at least 0"),
    (P, [0, 1, 0], {"sample_weight": ["a"] * 3}, r"must be numbers. Received: dtype <U1"),
    (P, ["a", "b", "x"], {"classes": ["a", "b"]}, r"among `classes`. Received: 'x' at labels\[2\]"),
    (
        SITES,
        [["a", "b", "a"], ["b", "c", "d"]],
        {"classes": ["a", "b"]},
        r"Received: 'c' at labels\[1, 1\], for classes=\['a', 'b'\]",
    ),
    (
        SITES,
        [["a", "b", "a"], ["b", "c", "d"]],
        {"classes": ["a", "b"], "mask": [[1, 1, 1], [1, 0, 1]]},
        r"Received: 'd' at labels\[1, 2\]",
    ),
    (P, [[], 1, 0], {"classes": [0, 1]}, r"among `classes`. Received: \[\] at labels\[0\]"),
    (SITES, [["a"], ["a", "b"]], {"classes": ["a", "b"]}, r"lists of one length, 2 deep"),
    (P, [0, 1, 0], {"classes": [0, 1, 2]}, r"list of the 2 classes, in the order.*\[0, 1, 2\]"),
    (P, ["a", "b", "a"], {"classes": "ab"}, r"must be a list of the 2 classes.*'ab'"),
    (P, [0, 1, 0], {"classes": [0, 0]}, r"must have each class once. Received: 0 twice"),
    (P, [0, 1, 0], {"classes": [[0], [1]]}, r"must be of a hashable kind.*\[0\]"),
    (P, [0, 1, 0], {"counts": [1, 1]}, r"`counts` must sum to 3.*a sum of 2"),
    (P, [0, 1, 0], {"counts": [4, -1]}, r"integers of at least 0, one for each sample"),
    (P, [0, 1, 0], {"counts": [1.5, 1.5]}, r"`counts` must be integers"),
    (P, [0.5, 0.5, 1], {}, r"and 0.5; class numbers are whole, soft labels have .* \(3, 2\)"),
    (P, [0, math.inf, 1], {}, r"dtype float64, and inf"),
    (P, [[0.5, 0.6]] * 3, {}, r"sum to 1 along.*sums from 1\.1 to 1\.1; where several outcomes"),
    (P, [[1.5, -0.5]] * 3, {}, r"at least 0 and sum to 1 .*from -0\.5 to 1\.5"),
    (P, [["a", "b"]] * 3, {}, r"must be numbers where it has the probabilities' shape"),
    (P, [[0, 1, 0]], {}, r"Received: \(3, 2\) and \(1, 3\)$"),
    (P[:, :1], [0, 1, 0], {}, r"at least two classes along the class axis -1.*class_axis=None"),
    (
        MULTI,
        [0, 1, 0],
        {"class_axis": None},
        r"one shape.*\(3,\); for one class of several .* give",
    ),
    (P, [[0.5, 1.5]] * 3, {"class_axis": None}, r"0 or 1, or between them.*from 0\.5 to 1\.5"),
    (P, [[0.5, math.nan]] * 3, {"class_axis": None}, r"0 or 1, or between them the probability"),
    (P, [[0, 2]] * 3, {"class_axis": None}, r"integers from 0 to 1.*from 0 to 2"),
]


@pytest.mark.parametrize(("p", "y", "options", "message"), ERRORS)
def test_what_is_no_label_is_refused_with_what_to_do(
    p: Any, y: Any, options: dict[str, Any], message: str
) -> None:
    for score in (log_loss, error_rate, macro_f1):
        with pytest.raises(ca.EnsembleError, match=message):
            score(p, y, **options)
