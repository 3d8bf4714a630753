"""Scores that count every class the same, held against scikit-learn and torchmetrics."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as tm
from numpy.typing import NDArray
from sklearn.metrics import (
    balanced_accuracy_score,
    f1_score,
    jaccard_score,
    roc_auc_score,
    top_k_accuracy_score,
)

import cosanneal as ca
from cosanneal.ensemble import auroc, balanced_error_rate, macro_f1, mean_iou, top_k_error
from cosanneal.ensemble.labels import as_labels
from cosanneal.ensemble.score.by_class import BY_CLASS, by_class, resampled_by_class

EXACT = 1e-12


def drawn(
    samples: int = 400, classes: int = 5, seed: int = 0
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Probabilities with ties, labels of which some classes are rare, and weights."""
    random = np.random.default_rng(seed)
    p = np.round(random.dirichlet(np.ones(classes), size=samples), 2)
    p /= p.sum(1, keepdims=True)
    rare = random.choice(
        classes, size=samples, p=np.arange(1, classes + 1) * 2 / classes / (classes + 1)
    )
    y = np.where(random.random(samples) < 0.4, p.argmax(1), rare)
    return p, y, random.exponential(size=samples)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_scores_of_classes_are_those_of_scikit_learn(classes: int) -> None:
    p, y, w = drawn(classes=classes)
    top = p.argmax(1)
    for weights in (None, w):
        theirs: dict[Any, float] = {
            balanced_error_rate: 1 - balanced_accuracy_score(y, top, sample_weight=weights),
            macro_f1: f1_score(y, top, average="macro", sample_weight=weights),
            mean_iou: jaccard_score(y, top, average="macro", sample_weight=weights),
            auroc: np.mean(
                [roc_auc_score(y == k, p[:, k], sample_weight=weights) for k in range(classes)]
            ),
        }
        for score, expected in theirs.items():
            assert score(p, y, sample_weight=weights) == pytest.approx(expected, abs=1e-9)
        for k in range(1, classes):
            # Without ties, which scikit-learn orders by the highest class.
            q = p + 1e-6 * np.arange(classes)[::-1]
            q /= q.sum(1, keepdims=True)
            expected = 1 - (
                top_k_accuracy_score(y, q, k=k, labels=range(classes), sample_weight=weights)
                if classes > 2
                else np.average(top == y, weights=weights)
            )
            assert top_k_error(q, y, k=k, sample_weight=weights) == pytest.approx(expected)
    if classes > 2:
        expected = roc_auc_score(y, p, multi_class="ovr", average="macro")
        assert auroc(p, y) == pytest.approx(expected, abs=EXACT)


def test_scores_with_labels_left_out_are_those_of_torchmetrics() -> None:
    p, y, _ = drawn(300, 4)
    dense = np.moveaxis(p.reshape(10, 5, 6, 4), -1, 1)
    labels = y.reshape(10, 5, 6).copy()
    labels[:, :2, 3] = 255
    t, truth = torch.tensor(dense), torch.tensor(labels)
    options: dict[str, Any] = {"class_axis": 1, "ignore_index": 255}
    found = macro_f1(dense, labels, **options)
    theirs = tm.multiclass_f1_score(t, truth, 4, average="macro", ignore_index=255)
    assert found == pytest.approx(float(theirs), abs=1e-6)
    found = mean_iou(dense, labels, **options)
    theirs = tm.multiclass_jaccard_index(t, truth, 4, average="macro", ignore_index=255)
    assert found == pytest.approx(float(theirs), abs=1e-6)
    found = balanced_error_rate(dense, labels, **options)
    theirs = tm.multiclass_accuracy(t, truth, 4, average="macro", ignore_index=255)
    assert found == pytest.approx(1 - float(theirs), abs=1e-6)
    found = auroc(dense, labels, **options)
    theirs = tm.multiclass_auroc(t, truth, 4, average="macro", ignore_index=255)
    assert found == pytest.approx(float(theirs), abs=1e-6)
    found = top_k_error(dense, labels, k=2, **options)
    theirs = tm.multiclass_accuracy(
        torch.tensor(p), truth.reshape(-1), 4, average="micro", top_k=2, ignore_index=255
    )
    assert found == pytest.approx(1 - float(theirs), abs=0.02)  # which orders ties as they come


def test_outcomes_are_one_question_or_several() -> None:
    random = np.random.default_rng(3)
    p = np.round(random.random((200, 3)), 2)
    y = (random.random((200, 3)) < p**2).astype(int)
    w = random.exponential(size=200)
    found = p > 0.5
    for weights in (None, w):
        options: dict[str, Any] = {"class_axis": None, "sample_weight": weights}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = f1_score(y, found, average="macro", sample_weight=weights)
            assert macro_f1(p, y, **options) == pytest.approx(expected, abs=EXACT)
            expected = jaccard_score(y, found, average="macro", sample_weight=weights)
            assert mean_iou(p, y, **options) == pytest.approx(expected, abs=EXACT)
            expected = roc_auc_score(y, p, average="macro", sample_weight=weights)
            assert auroc(p, y, **options) == pytest.approx(expected, abs=EXACT)
            each = [
                balanced_accuracy_score(y[:, k], found[:, k], sample_weight=weights)
                for k in range(3)
            ]
            assert balanced_error_rate(p, y, **options) == pytest.approx(1 - np.mean(each))
        # One question, whose two answers count: as the two classes that it has.
        one, two = p[:, 0], np.stack([1 - p[:, 0], p[:, 0]], 1)
        for score in (balanced_error_rate, macro_f1, mean_iou, auroc):
            by_class_of_two = score(two, y[:, 0], sample_weight=weights)
            for form in (one, one[:, None], one.reshape(-1, 1, 1, 1)):
                labels = y[:, 0].reshape(form.shape)
                assert score(form, labels, **options) == pytest.approx(by_class_of_two, abs=EXACT)
    several = torch.tensor(p), torch.tensor(y)
    theirs = tm.multilabel_f1_score(*several, 3, average="macro")
    assert macro_f1(p, y, class_axis=None) == pytest.approx(float(theirs), abs=1e-6)
    theirs = tm.multilabel_auroc(*several, 3, average="macro", ignore_index=-1)
    assert auroc(p, y, class_axis=None) == pytest.approx(float(theirs), abs=1e-6)
    holes = np.where(random.random(y.shape) < 0.2, -1, y)
    theirs = tm.multilabel_auroc(several[0], torch.tensor(holes), 3, ignore_index=-1)
    found_area = auroc(p, holes, class_axis=None, ignore_index=-1)
    assert found_area == pytest.approx(float(theirs), abs=1e-6)


def test_the_area_takes_any_scores_that_grow_with_the_class() -> None:
    random = np.random.default_rng(4)
    z = random.normal(size=(150, 3)).round(1)
    y = random.integers(3, size=150)
    expected = np.mean([roc_auc_score(y == k, z[:, k]) for k in range(3)])
    assert auroc(z, y) == pytest.approx(expected, abs=EXACT)
    binary = (y > 0).astype(int)
    assert auroc(z[:, 0], binary) == pytest.approx(roc_auc_score(binary, z[:, 0]), abs=EXACT)
    assert auroc(z[:, :2], binary) == pytest.approx(roc_auc_score(binary, z[:, 1]), abs=EXACT)


@pytest.mark.parametrize("name", BY_CLASS)
@pytest.mark.parametrize("kind", ["classes", "tokens", "outcomes", "soft"])
def test_a_resample_is_the_score_of_the_samples_repeated(name: str, kind: str) -> None:
    p, y, w = drawn(120, 3)
    options: dict[str, Any] = {"sample_weight": w}
    axis: int | None = -1
    if kind == "tokens":
        p, y = p.reshape(30, 4, 3), np.where(np.arange(120) % 5 == 2, 9, y).reshape(30, 4)
        options = {"sample_weight": w[:30], "ignore_index": 9}
    elif kind == "outcomes":
        axis, y = None, (y[:, None] == np.arange(3)).astype(int)
    elif kind == "soft":
        y = 0.9 * np.eye(3)[y] + 0.1 / 3
    labels = as_labels(y, p.shape, axis, **options)
    rows = labels.rows(p)
    random = np.random.default_rng(1)
    score = resampled_by_class(name, rows, labels)
    assert score(np.ones(labels.samples)) == pytest.approx(by_class(name, rows, labels))
    for _ in range(5):
        at = np.sort(random.integers(len(p), size=len(p)))
        again = {
            each: value[at] if each == "sample_weight" else value for each, value in options.items()
        }
        repeated = as_labels(y[at], p.shape, axis, **again)
        expected = by_class(name, repeated.rows(p[at]), repeated)
        found = score(np.bincount(at, minlength=len(p)).astype(float))
        assert found == pytest.approx(expected, abs=EXACT)


ERRORS: list[tuple[Callable[[], Any], str]] = [
    (lambda: auroc([0.5, 0.4], [1, 1]), r"both classes.*Received: 2 positives and 0 negatives"),
    (lambda: auroc(np.full((2, 3), 1 / 3), [2, 2]), r"both classes.*Received: class 2 alone"),
    (
        lambda: auroc([[0.5, 0.5]] * 2, [[1, 0]] * 2, class_axis=None),
        r"Received: 2 outcomes, each with one of them only",
    ),
    (lambda: auroc([0.5, float("inf")], [1, 0]), r"must be finite"),
    (
        lambda: macro_f1([[0.1, 0.2]], [[0, 0]], class_axis=None),
        r"an outcome that happens, or `probabilities` one that is predicted.*none in 2 labels",
    ),
    (
        lambda: mean_iou(np.zeros((2, 3, 4)), np.zeros((2, 3, 4)), class_axis=None),
        r"one outcome for each sample or site.*\(2, 3, 4\) with class_axis=None; give the outcomes",
    ),
    (lambda: top_k_error([[0.5, 0.5]], [0]), r"top-5 error must be of more than 5 classes.*: 2 cl"),
    (lambda: top_k_error([[0.5, 0.5]], [0], k=0), r"`k` must be a positive integer"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_what_has_no_score_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ca.EnsembleError, match=message):
        call()
