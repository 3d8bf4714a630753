"""Uncertainty, what is made of it, and conformal sets, beside torch-uncertainty and MAPIE."""

from __future__ import annotations

from typing import Any

import mapie.conformity_scores.sets.aps
import mapie.metrics.classification as theirs
import numpy as np
import pytest
import torch
from mapie.classification import SplitConformalClassifier
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from cosanneal.ensemble import (
    ConformalPredictor,
    energy,
    fpr95,
    ood_scores,
    risk_coverage,
    set_coverage,
    set_size,
    uncertainty,
)

from .peers import bare

CLASSIFICATION = "torch_uncertainty.metrics.classification"


def drawn(samples: int, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Five members' probabilities for classes, and labels."""
    random = np.random.default_rng(seed)
    y = random.integers(6, size=samples)
    z = 2 * np.eye(6)[y] + random.normal(size=(5, samples, 6)) + random.normal(size=(samples, 6))
    p = np.exp(1.5 * z)
    return p / p.sum(-1, keepdims=True), y


@pytest.mark.filterwarnings("ignore:Metric `VariationRatio` will save")
def test_torch_uncertainty_splits_the_entropy_alike() -> None:
    p, _ = drawn(400)
    found = uncertainty(p)
    by_sample = torch.tensor(p).transpose(0, 1)
    information = bare(f"{CLASSIFICATION}.mutual_information").MutualInformation(reduction="none")
    information.update(by_sample)
    np.testing.assert_allclose(found.mutual_information, information.compute(), atol=1e-14)
    entropy = torch.special.entr(by_sample).sum(-1)
    np.testing.assert_allclose(found.expected_entropy, entropy.mean(1), rtol=1e-13)
    ratio = bare(f"{CLASSIFICATION}.variation_ratio").VariationRatio(False, reduction="none")
    ratio.update(torch.tensor(p))  # which it takes with the members first
    # It counts who votes against the mean's class, also where another has most votes.
    mean = p.mean(0).argmax(-1)
    votes = np.stack([(p.argmax(-1) == k).sum(0) for k in range(6)], axis=-1)
    same = votes[np.arange(400), mean] == votes.max(-1)
    assert 0.9 < same.mean() < 1
    # Nobody's own probabilities tie, so that its vote is for one class.
    np.testing.assert_allclose(found.variation_ratio[same], ratio.compute()[same], atol=1e-6)
    assert (found.variation_ratio[~same] < ratio.compute().numpy()[~same]).all()


def test_torch_uncertainty_has_the_same_risks() -> None:
    p, y = drawn(500)
    mean = p.mean(0)
    found = risk_coverage(mean, y)
    peer = bare(f"{CLASSIFICATION}.risk_coverage")
    values = {}
    for name, arguments in (
        ("AURC", ()),
        ("AUGRC", ()),
        ("CovAtxRisk", (0.05,)),
        ("RiskAtxCov", (0.8,)),
    ):
        metric = getattr(peer, name)(*arguments)
        metric.update(torch.tensor(mean), torch.tensor(y))
        values[name] = float(metric.compute())
    ours = (found.aurc, found.augrc, found.coverage_at_risk(0.05), found.risk_at_coverage(0.8))
    assert ours == pytest.approx(tuple(values.values()), abs=1e-6)  # theirs are in float32
    assert 0 < found.coverage_at_risk(0.05) < 1
    # Of what ties, theirs takes some order, by which the area may be anything.
    metric = peer.AURC()
    same, labels = np.tile([0.6, 0.4], (50, 1)), np.repeat([0, 1], 25)
    metric.update(torch.tensor(same), torch.tensor(labels))
    assert abs(float(metric.compute()) - 0.5) > 0.1
    assert risk_coverage(same, labels).aurc == pytest.approx(0.5, abs=1e-12)


@pytest.mark.filterwarnings("ignore:Metric `FPR95` will save")
def test_torch_uncertainty_tells_what_is_out_of_distribution_alike() -> None:
    stand_in: dict[str, object] = {"MutualInformation": object, "VariationRatio": object}
    peer = bare("torch_uncertainty.ood_criteria", torch_uncertainty__metrics=stand_in)
    p, _ = drawn(300)
    found = ood_scores(uncertainty(p))
    msp = peer.MaxSoftmaxCriterion()(torch.tensor(p.mean(0)))
    np.testing.assert_allclose(found["max_probability"], msp, rtol=1e-14)
    entropy = peer.EntropyCriterion()(torch.tensor(p).transpose(0, 1))
    np.testing.assert_allclose(found["expected_entropy"], entropy, rtol=1e-13)
    logits = np.random.default_rng(1).normal(size=(5, 300, 6))
    theirs = peer.EnergyCriterion()(torch.tensor(logits).transpose(0, 1))
    np.testing.assert_allclose(energy(logits.mean(0)), theirs, rtol=1e-13)
    fpr = bare(f"{CLASSIFICATION}.fpr")
    for digits in (0, 1, 12):
        scores = np.round(np.random.default_rng(digits).normal(size=300), digits)
        labels = np.random.default_rng(9).integers(2, size=300)
        metric = fpr.FPR95(pos_label=1)
        metric.update(torch.tensor(scores), torch.tensor(labels))
        assert fpr95(scores, labels) == pytest.approx(float(metric.compute()), abs=1e-6)


class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Probabilities as a model of scikit-learn's, whose input they are."""

    def __init__(self) -> None:
        self.classes_ = np.arange(6)

    def fit(self, *_: object) -> Given:
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict_proba(self, x: NDArray[Any]) -> NDArray[Any]:
        return x

    def predict(self, x: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(x.argmax(1))


class Draws:
    """The numbers that ours draws, in the place of MAPIE's own."""

    def __init__(self, draws: list[NDArray[Any]]) -> None:
        self.draws = draws

    def uniform(self, size: Any) -> NDArray[Any]:
        return self.draws.pop(0).reshape(size)


@pytest.mark.parametrize("alpha", [0.3, 0.1, 0.05])
@pytest.mark.parametrize(("method", "randomized"), [("lac", False), ("aps", False), ("aps", True)])
def test_mapie_finds_the_same_sets(
    method: Any, randomized: bool, alpha: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, y = drawn(200)
    test, truth = drawn(500, seed=1)
    ours = ConformalPredictor.fit(p[0], y, alpha, method=method, randomized=randomized)
    sets = ours.predict(test[0])
    draws = [np.random.default_rng(0).random(200), np.random.default_rng([0, 1]).random(500)]
    monkeypatch.setattr(
        mapie.conformity_scores.sets.aps, "check_random_state", lambda _: Draws(draws)
    )
    peer = SplitConformalClassifier(Given(), 1 - alpha, conformity_score=method)
    peer.conformalize(p[0], y)
    last = "randomized" if randomized else True
    _, found = peer.predict_set(test[0], {"include_last_label": last})
    np.testing.assert_array_equal(sets, found[:, :, 0])
    assert len(draws) == (2 if method == "lac" else 0 if randomized else 1)
    coverage = theirs.classification_coverage_score(truth, sets)
    assert set_coverage(sets, truth) == pytest.approx(float(np.squeeze(coverage)), abs=1e-12)
    width = theirs.classification_mean_width_score(sets[:, :, None])
    assert set_size(sets) == pytest.approx(float(width[0]), abs=1e-12)


@pytest.mark.parametrize(("rank", "penalty"), [(1, 0.1), (2, 0.02), (0, 0.3)])
def test_raps_has_torch_uncertaintys_scores(rank: int, penalty: float) -> None:
    """MAPIE's takes no penalty and no rank, and tunes with the penalty in the rank's place."""
    module: type = torch.nn.Module
    stand_in: dict[str, object] = {"TemperatureScaler": module, "PostProcessing": module}
    peer = bare(
        "torch_uncertainty.post_processing.conformal.raps",
        torch_uncertainty__post_processing=stand_in,
    ).ConformalClsRAPS
    p, y = drawn(100)
    ours = ConformalPredictor.fit(p[0], y, method="raps", penalty=penalty, rank=rank)
    made = peer.__new__(peer)
    torch.nn.Module.__init__(made)
    made.randomized, made.penalty, made.regularization_rank = False, penalty, rank
    scores = made._calculate_all_labels(torch.tensor(p[0]))
    np.testing.assert_allclose(ours.scores(p[0], np.zeros(100)), scores, rtol=1e-6)
