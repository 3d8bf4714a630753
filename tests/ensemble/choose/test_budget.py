"""A budget of passes: the care that keeps it, what it costs, and its record."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import cosanneal as ca
from cosanneal.ensemble import Budget, Choice, SnapshotEnsemble, fit, fit_regression
from cosanneal.ensemble.choose.budget import Leaving
from cosanneal.ensemble.labels import as_labels
from cosanneal.ensemble.score.binomial import binomial_upper
from tests.ensemble.test_model import LinearModel, data, drawn
from tests.shared.classes import left_early
from tests.shared.recording import EVERY_STEP, ArrayRecorder

MEMBERS, SAMPLES, CLASSES = 4, 1500, 3


def members(seed: int = 0, shape: tuple[int, ...] = (SAMPLES,)) -> tuple[Any, Any]:
    """Members that each see the truth through noise of their own, and the truth."""
    random = np.random.default_rng(seed)
    y = random.integers(CLASSES, size=shape)
    z = 2 * np.eye(CLASSES)[y] + 1.5 * random.normal(size=(MEMBERS, *shape, CLASSES))
    p = np.exp(z)
    return p / p.sum(-1, keepdims=True), y


def best_first(p: Any, y: Any) -> list[int]:
    """The members by their log-loss."""
    losses = [-np.log(each[np.arange(len(y)), y]).mean() for each in p]
    return [*map(int, np.argsort(losses))]


@pytest.mark.parametrize("budget", [1, 1.1, 1.5, 2.0, 2.5])
@pytest.mark.parametrize("select", ["weights", "last"])
def test_it_is_the_most_careful_that_keeps_the_budget(budget: float, select: Any) -> None:
    p, y = members()
    choice = fit(p, y, select=select, budget=budget)
    found, order = choice.budget, best_first(p, y)
    assert found is not None
    assert found.order == (*order,) != (3, 2, 1, 0)
    assert choice.care == found.care < 1
    classes, passes = left_early(p, choice.weights, found.care, order)
    certain, all_passes = left_early(p, choice.weights, 1 - 1e-12, order)
    assert found.passes == pytest.approx(passes.mean(), abs=1e-12)
    assert found.error == np.mean(classes != y)
    assert found.exact_passes == pytest.approx(all_passes.mean(), abs=1e-12)
    pooled = choice.apply(p).argmax(-1)
    assert (certain == pooled).all()
    assert found.exact_error == np.mean(pooled != y)
    right, by_all = classes == y, pooled == y
    assert (found.made_wrong, found.made_right) == (
        (~right & by_all).sum(),
        (right & ~by_all).sum(),
    )
    assert found.made_wrong > 10 or budget > 2
    # A little more care, in steps of a thousandth, is over the budget before it is by much.
    assert found.passes <= budget < found.exact_passes
    assert budget - found.passes < MEMBERS / SAMPLES  # which one sample can add
    more = next(
        spent.mean()
        for care in np.arange(found.care, 1.001, 0.001)
        if (spent := left_early(p[:, ::5], choice.weights, care, order)[1]).mean() > budget
    )
    assert more < budget + 0.02


def test_what_it_costs_is_bounded_by_those_that_are_made_wrong() -> None:
    p, y = members()
    found = fit(p, y, select="weights", budget=1.2).budget
    assert found is not None
    assert found.increase is not None
    exact = stats.beta.ppf(0.95, found.made_wrong + 1, SAMPLES - found.made_wrong)
    assert found.increase == pytest.approx(exact, rel=1e-12)
    assert found.error - found.exact_error < found.increase < 0.2
    # On other data of the same kind, with the same weights and the same care.
    choice = fit(p, y, select="weights")
    other, truth = members(1, (20000,))
    leaving = Leaving(other, choice.weights, as_labels(truth, other.shape[1:]))
    assert 0 < leaving.at(found.care)[1] - leaving.at(1.0)[1] < found.increase
    assert leaving.at(found.care)[0] == pytest.approx(1.2, abs=0.05)


@pytest.mark.parametrize(
    ("count", "total"), [(0, 1), (0, 100), (3, 100), (50, 1000), (20000, 100000), (999, 1000)]
)
def test_the_bound_is_that_of_the_beta_distribution(count: int, total: int) -> None:
    expected = stats.beta.ppf(0.95, count + 1, total - count)
    assert binomial_upper(count, total) == pytest.approx(expected, rel=1e-11)
    assert binomial_upper(total, total) == 1
    assert binomial_upper(count, total, 0.8) < binomial_upper(count, total)


def test_a_budget_of_all_members_is_the_exact_one() -> None:
    p, y = members()
    for budget in (3.9, 4, 100.0):
        found = fit(p, y, select="weights", budget=budget).budget
        assert found is not None
        assert found.care == 1
        assert (found.passes, found.error) == (found.exact_passes, found.exact_error)
        assert found.passes < 3.9
        assert found.made_wrong == found.made_right == 0
    # What is chosen is what is chosen without one.
    one, other = fit(p, y, budget=1.5), fit(p, y)
    assert other.budget is None
    assert other.care == 1
    assert replace(one, budget=None) == other


def test_equal_votes_all_leave_at_once_or_none() -> None:
    """Members that give 0 or 1, whose leads are few numbers: a budget between two is not spent."""
    random = np.random.default_rng(0)
    y = random.integers(2, size=1200)
    votes = np.where(random.random((3, 1200)) < 0.8, y, 1 - y)
    p = np.eye(2)[votes]
    leaving = Leaving(p, (1 / 3,) * 3, as_labels(y, (1200, 2)))
    for budget, care in ((1.9, 0.25), (2.0, 0.25), (2.5, 1.0)):
        found = leaving.within(budget)
        assert found.care == care
        assert found.passes == (1.0 if care < 1 else 2 + np.mean(votes[2] != votes[1]))


@pytest.mark.filterwarnings("ignore:The ensemble was chosen on")
def test_labels_of_a_sample_leave_together_and_weigh_as_they_do() -> None:
    p, y = members(shape=(400, 3))
    counts = np.random.default_rng(5).random((400, 3)) < 0.7
    counts[7] = False  # a sample of which no label counts leaves too
    weight = np.random.default_rng(6).random((400, 3))
    found = fit(p, y, select="weights", budget=2.0, mask=counts, sample_weight=weight)
    budget, flat = found.budget, p.reshape(MEMBERS, 1200, CLASSES)
    assert budget is not None
    assert budget.care < 1

    def at(care: float) -> tuple[float, float]:
        """Of all three, the one that leaves last: found by how long each lasts for itself."""
        wrong, passes = [], []
        for sample in range(400):
            own = slice(3 * sample, 3 * sample + 3)
            sums, waiting = (
                np.zeros((3, CLASSES)),
                sorted(np.flatnonzero(found.weights), key=lambda i: (found.weights[i], i)),
            )
            while waiting:
                member = waiting.pop()
                sums += found.weights[member] * flat[member, own]
                leads = [row[-1] - row[-2] for row in np.sort(sums)]
                if min(leads) >= care * sum(found.weights[i] for i in waiting):
                    break
            passes.append(sum(each > 0 for each in found.weights) - len(waiting))
            wrong.append(sums.argmax(-1) != y[sample])
        return float(np.mean(passes)), float(np.average(wrong, weights=weight * counts))

    assert (budget.passes, budget.error) == pytest.approx(at(budget.care))
    assert (budget.exact_passes, budget.exact_error) == pytest.approx(at(1 - 1e-12))
    assert budget.increase is None  # where samples count differently
    alike = fit(p, y, select="weights", budget=2.0).budget
    assert alike is not None
    assert alike.increase == binomial_upper(alike.made_wrong, 400)


@pytest.mark.filterwarnings("ignore:The ensemble was chosen on")
def test_samples_of_several_lengths_are_told_by_their_counts() -> None:
    p, y = members(shape=(600,))
    sizes = np.array([1, 2, 0, 3] * 100)
    mask = np.random.default_rng(2).random(600) < 0.8
    found = fit(p, y, select="weights", budget=2.0, counts=sizes, mask=mask).budget
    assert found is not None
    weights = fit(p, y, select="weights", counts=sizes, mask=mask).weights
    for care, passes, error in (
        (found.care, found.passes, found.error),
        (1 - 1e-12, found.exact_passes, found.exact_error),
    ):
        starts = np.concatenate([[0], np.cumsum(sizes)])
        spent, wrong = [], []
        for first, stop in pairwise(starts):
            if first == stop:
                continue
            alone = [left_early(p[:, i : i + 1], weights, care)[1][0] for i in range(first, stop)]
            for had in range(max(alone), MEMBERS + 1):  # all of them at once
                order = sorted(range(MEMBERS), key=lambda i: (-weights[i], -i))[:had]
                sums = sum(weights[i] * p[i, first:stop] for i in order)
                left = 1 - sum(weights[i] for i in order)
                if (np.diff(np.sort(sums)[:, -2:])[:, 0] >= care * left - 1e-12).all():
                    break
            spent.append(had)
            wrong += [*(sums.argmax(-1) != y[first:stop])]
        assert passes == pytest.approx(np.mean(spent))
        assert error == pytest.approx(np.mean(np.array(wrong)[mask]))


def test_outcomes_leave_by_their_distance_from_a_half() -> None:
    random = np.random.default_rng(0)
    y = random.integers(2, size=1500)
    sure = 1 / (1 + np.exp(-(2 * y - 1) - 1.5 * random.normal(size=(MEMBERS, 1500))))
    choice = fit(sure, y, select="weights", budget=1.5, class_axis=None)
    found = choice.budget
    classes, passes = left_early(np.stack([1 - sure, sure], -1), choice.weights, choice.care)
    assert found is not None
    assert (found.passes, found.error) == pytest.approx((passes.mean(), np.mean(classes != y)))


def test_it_is_kept_and_every_field_is_checked(tmp_path: Path) -> None:
    p, y = members()
    choice = fit(p, y, select="weights", budget=1.5)
    choice.save(tmp_path / "choice.json")
    assert Choice.load(tmp_path / "choice.json") == choice
    record = json.loads((tmp_path / "choice.json").read_text())
    assert record["budget"].keys() == set(Budget.__dataclass_fields__)
    assert "budget" not in fit(p, y).to_dict()
    cases: tuple[tuple[str, Any], ...] = (
        *((name, each) for name in ("asked", "passes", "exact_passes") for each in (0.9, "1")),
        *((name, each) for name in ("care", "error", "exact_error") for each in (-0.1, 1.1, None)),
        *((name, each) for name in ("made_wrong", "made_right") for each in (-1, 0.5, None)),
        *(("increase", each) for each in (-0.1, 1.1, "0")),
        ("asked", math.inf),
    )
    cases += tuple(("order", each) for each in ([0, 1, 2], [0, 1, 2, 2], [0, 1, 2, 3.0], "0123"))
    for name, wrong in cases:
        with pytest.raises(ca.EnsembleError, match=rf"budget\.{name}"):
            Choice.from_dict(record | {"budget": record["budget"] | {name: wrong}})
    for other in (None, 3, {"care": 1.0}):
        with pytest.raises(ca.EnsembleError, match="budget"):
            Choice.from_dict(record | {"budget": other})


@pytest.mark.parametrize("budget", [0.99, 0, -1, math.nan, math.inf, "2", True])
def test_a_budget_that_cannot_be_is_refused(budget: Any) -> None:
    with pytest.raises(ca.EnsembleError, match=r"`budget` must be a finite number.*Received: budg"):
        fit(*members(), budget=budget)


def test_where_it_means_nothing_it_is_refused(tmp_path: Path) -> None:
    p, y = members()
    with pytest.raises(ca.EnsembleError, match="`budget` must be left out for one member"):
        fit(p[:1], y, budget=1.5)
    with pytest.raises(TypeError, match="budget"):
        fit_regression(p[..., 0], p[0, :, 0], budget=1.5)  # type: ignore[call-arg]
    with ArrayRecorder(tmp_path, EVERY_STEP) as recorder:
        for seed in range(3):
            recorder.step(drawn(seed))
    x, labels = data()
    wanted: SnapshotEnsemble[Any] = SnapshotEnsemble(LinearModel(), tmp_path, outputs="values")
    with pytest.raises(ca.EnsembleError, match="`budget` must be left out for a regression"):
        wanted.fit(x, wanted.predict(x), budget=1.5)
    for last, budget, message in ((1, 1.5, "for one member"), (3, 0.5, "at least 1")):
        ensemble: SnapshotEnsemble[Any] = SnapshotEnsemble(LinearModel(), tmp_path, last=last)
        with pytest.raises(ca.EnsembleError, match=message):
            ensemble.fit(iter(()), labels, budget=budget)  # before any data are asked for
    structure = {"a": "logits", "b": "logits"}
    several: SnapshotEnsemble[Any] = SnapshotEnsemble(LinearModel(), tmp_path, outputs=structure)
    with pytest.raises(ca.EnsembleError, match=r"left out for several outputs.*for 2 outputs"):
        several.fit(iter(()), labels, output="a", budget=1.5)
    with pytest.warns(UserWarning, match="validation samples"):
        ensemble.fit(x, labels, budget=1.5)
    assert ensemble.choice is not None
    ensemble.choice = replace(ensemble.choice, output="a")
    ensemble.save()
    with pytest.raises(ca.EnsembleError, match=r"no budget for several outputs.*fit the ensem"):
        several.load()


def test_an_ensemble_keeps_it_also_when_it_is_loaded(tmp_path: Path) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP) as recorder:
        for seed in range(4):
            own = drawn(seed)["w"] - drawn(0)["w"]  # which makes them differ
            recorder.step({"w": drawn(0)["w"] + 9 * own, "b": np.zeros(3, np.float32)})
    x, labels = data()
    ensemble: SnapshotEnsemble[Any] = SnapshotEnsemble(LinearModel(), tmp_path)
    with pytest.warns(UserWarning, match="validation samples"):
        choice = ensemble.fit(x, labels, select="last", budget=1.2)
    assert choice.budget is not None
    order = (1, 3, 0, 2)
    ensemble.choice = replace(
        choice, weights=(0.25,) * 4, budget=replace(choice.budget, order=order)
    )
    ensemble.save()
    other: SnapshotEnsemble[Any] = SnapshotEnsemble(LinearModel(), tmp_path)
    assert other.load() == ensemble.choice
    p = np.stack(list(other.member_predictions(x)))
    classes, passes = left_early(p, (0.25,) * 4, choice.care, order)
    exact = other.predict(x).argmax(-1)
    assert (classes != exact).any()
    assert passes.mean() < 2
    assert (other.predict_classes(x) == classes).all()
    assert (other.predict_classes(x, exact=True) == exact).all()
    # This model's batches are run whole, until the last sample of them leaves.
    other.predict_classes(x)
    assert other.passes == passes.max()
