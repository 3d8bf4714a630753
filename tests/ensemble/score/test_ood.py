"""Telling what is out of distribution, beside scikit-learn, torchmetrics and loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as tm
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

import cosanneal as ca
from cosanneal.ensemble import aupr, auroc, energy, fpr95, ood_detection, ood_scores, uncertainty


def drawn(digits: int) -> tuple[NDArray[Any], NDArray[Any]]:
    random = np.random.default_rng(digits)
    y = random.integers(2, size=500)
    return np.round(random.normal(size=500) + y, digits), y


@pytest.mark.parametrize("digits", [0, 1, 12])
def test_the_areas_are_those_of_scikit_learn_and_torchmetrics(digits: int) -> None:
    scores, y = drawn(digits)
    assert aupr(scores, y) == pytest.approx(average_precision_score(y, scores), abs=1e-12)
    # Which takes numbers outside [0, 1] for logits.
    unit = (scores - scores.min()) / np.ptp(scores)
    theirs = float(tm.binary_average_precision(torch.tensor(unit), torch.tensor(y)))
    assert aupr(scores, y) == pytest.approx(theirs, abs=1e-6)
    found = ood_detection(scores[y == 0], scores[y == 1])
    expected = {
        "auroc": pytest.approx(roc_auc_score(y, scores), abs=1e-12),
        "aupr": pytest.approx(average_precision_score(y, scores), abs=1e-12),
        "fpr95": fpr95(scores, y),
    }
    assert found == expected


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(-4, 4)), min_size=2, max_size=60).filter(
        lambda pairs: len({label for label, _ in pairs}) == 2
    )
)
def test_fpr95_is_that_of_the_highest_threshold_with_enough_recall(
    pairs: list[tuple[int, int]],
) -> None:
    y, scores = (np.array(each) for each in zip(*pairs, strict=True))
    enough = [t for t in sorted(set(scores)) if 100 * (scores[y == 1] >= t).sum() >= 95 * y.sum()]
    assert fpr95(scores, y) == np.mean(scores[y == 0] >= enough[-1])


def test_the_scores_are_higher_where_less_is_known() -> None:
    random = np.random.default_rng(0)
    sure = random.dirichlet(np.full(5, 0.1), size=(1, 200))
    inside = np.broadcast_to(sure, (4, 200, 5))
    outside = random.dirichlet(np.full(5, 0.5), size=(4, 200))
    first, second = (ood_scores(uncertainty(p)) for p in (inside, outside))
    assert set(first) == {
        *("max_probability", "entropy", "expected_entropy", "mutual_information"),
        "variation_ratio",
    }
    for name in first:
        assert first[name].shape == (200,)
        assert ood_detection(first[name], second[name])["auroc"] > 0.6, name
    np.testing.assert_array_equal(first["max_probability"], -inside.mean(0).max(-1))
    detected = ood_detection(first["mutual_information"], second["mutual_information"])
    assert detected == {"auroc": 1.0, "aupr": 1.0, "fpr95": 0.0}


def test_dense_outputs_and_outcomes() -> None:
    p = np.random.default_rng(1).dirichlet(np.ones(3), size=(4, 6, 5))
    dense = ood_scores(uncertainty(np.moveaxis(p, -1, 2), class_axis=1), class_axis=1)
    plain = ood_scores(uncertainty(p))
    for name, found in dense.items():
        np.testing.assert_allclose(found, plain[name], rtol=1e-12, atol=1e-15)
    outcomes = ood_scores(uncertainty(p[..., 0], class_axis=None), class_axis=None)
    mean = p[..., 0].mean(0)
    np.testing.assert_allclose(outcomes["max_probability"], -np.maximum(mean, 1 - mean), rtol=1e-15)


def test_the_energy_of_logits() -> None:
    z = np.random.default_rng(2).normal(size=(7, 4, 3)) * 300  # whose exponentials overflow
    found = energy(z, class_axis=1)
    theirs = -torch.tensor(z).logsumexp(1)
    np.testing.assert_allclose(found, theirs.numpy(), rtol=1e-14)
    np.testing.assert_allclose(
        energy(torch.tensor(z), class_axis=1, temperature=2.5),
        2.5 * energy(z / 2.5, class_axis=1),
        rtol=1e-14,
    )


def test_what_cannot_be_is_refused() -> None:
    refused: Any
    for call in (aupr, fpr95):
        with pytest.raises(ca.EnsembleError, match=r"both classes. Received: 2 positives and 0"):
            call([0.1, 0.2], [1, 1])
        with pytest.raises(ca.EnsembleError, match="`scores` must be finite"):
            call([0.1, np.nan], [0, 1])
        with pytest.raises(ca.EnsembleError, match="must have one shape"):
            call([0.1, 0.2], [1, 0, 1])
    with pytest.raises(ca.EnsembleError, match="`outside` must have at least one score"):
        ood_detection([0.1], [])
    for refused in (0, -1.0, np.inf, True, "1"):
        with pytest.raises(ca.EnsembleError, match="`temperature` must be a finite positive"):
            energy([[1.0, 2.0]], temperature=refused)
    with pytest.raises(ca.EnsembleError, match=r"classes along axis 2. Received: shape \(1, 2\)"):
        energy([[1.0, 2.0]], class_axis=2)
    assert auroc([0.1, 0.9], [0, 1]) == 1
