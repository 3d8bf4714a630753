"""Another model beside a choice: the paired numbers, what is said of them, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cosanneal as ca
from cosanneal.core.errors import EnsembleError
from cosanneal.ensemble import (
    Baseline,
    Choice,
    SnapshotEnsemble,
    analyze,
    analyze_regression,
    apply_temperature,
    fit,
    fit_regression,
    fit_temperature,
    sample_scores,
)
from cosanneal.report import write_report
from cosanneal.report.lead import lead
from cosanneal.report.regression import regression_paragraphs
from tests.ensemble.test_members import record
from tests.ensemble.test_model import LinearModel, data
from tests.shared.documents import bare

pytestmark = pytest.mark.filterwarnings("ignore:The ensemble was chosen on")


def drawn(other: float, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Three members, another model with so much noise, and labels of three classes."""
    random = np.random.default_rng(seed)
    y = random.integers(3, size=500)
    noise = np.array([2.0, 2.0, 2.0, other])[:, None, None]
    p = np.exp(2 * np.eye(3)[y] + noise * random.normal(size=(4, 500, 3)))
    p /= p.sum(-1, keepdims=True)
    return p[:3], p[3], y


def names(choice: Choice) -> list[str]:
    return [finding.name for finding in choice.findings]


@pytest.mark.parametrize("metric", ["log_loss", "error"])
def test_the_difference_is_that_of_both_at_their_own_temperatures(metric: str) -> None:
    members, other, y = drawn(0.5)
    found = fit(members, y, metric=metric, baseline=other)
    stands = found.baseline
    assert stands is not None
    assert stands.temperature == pytest.approx(fit_temperature(other, y), rel=1e-6)
    scores = [
        sample_scores(metric, p, y)
        for p in (found.apply(members), apply_temperature(other, stands.temperature))
    ]
    away = scores[0] - scores[1]
    assert stands.score == pytest.approx(scores[1].mean(), rel=1e-9)
    assert stands.difference == pytest.approx(away.mean(), rel=1e-9)
    error = away.std(ddof=1) / math.sqrt(len(y))
    assert stands.error == pytest.approx(error, rel=1e-9)
    reach = 1.96 * error
    assert stands.interval == pytest.approx((away.mean() - reach, away.mean() + reach), abs=error)
    plain = fit(members, y, metric=metric, baseline=other, temperature=False).baseline
    assert plain is not None
    assert plain.temperature == 1
    assert plain.score == pytest.approx(sample_scores(metric, other, y).mean(), rel=1e-9)


def test_a_baseline_changes_no_choice() -> None:
    members, other, y = drawn(0.5)
    with_it, without = (fit(members, y, select="auto", baseline=b) for b in (other, None))
    assert without.baseline is None
    for field in ("weights", "temperature", "candidates", "interval", "reason"):
        assert getattr(with_it, field) == getattr(without, field)


def test_a_better_baseline_one_as_good_and_a_worse_one_are_told_apart() -> None:
    members, better, y = drawn(0.5)
    choice = fit(members, y, baseline=better)
    assert names(choice) == ["baseline-not-beaten"]
    assert "the baseline is better. One model costs one pass." in choice.findings[0].text
    assert "worse than the baseline: +" in str(choice)
    alike = fit(members, y, baseline=fit(members, y, temperature=False).apply(members))
    assert names(alike) == ["baseline-not-beaten"]
    assert "within one standard error" in alike.findings[0].text
    assert "the baseline is as good" in alike.findings[0].text
    assert names(fit(members, y, baseline=drawn(4.0)[1])) == []


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (-0.11, None),
        (-0.09, "as good"),
        (0.09, "as good"),
        (0.11, "better"),
    ],
)
def test_one_standard_error_tells_them_apart(difference: float, said: str | None) -> None:
    stands = Baseline(score=0.5, difference=difference, error=0.1, interval=(-1.0, 1.0))
    found = stands.finding("log_loss", "log-loss", 1200)
    assert len(found) == (said is not None)
    for each in found:
        assert f"the baseline is {said}." in each.text
        assert f"has a log-loss of 0.5, the choice one of {0.5 + difference:.4g}" in each.text
        assert "on 1,200 validation samples" in each.text


def test_a_metric_that_is_no_mean_has_an_error_of_its_interval() -> None:
    members, other, y = drawn(0.5)
    stands = fit(members, y, metric="balanced_error", baseline=other).baseline
    assert stands is not None
    mean = fit(members, y, metric="error", baseline=other).baseline
    assert mean is not None
    # Of classes of nearly one size, the mean over classes is nearly that over samples.
    assert stands.error == pytest.approx(mean.error, rel=0.1)
    assert stands.difference == pytest.approx(mean.difference, rel=0.1)


@pytest.mark.parametrize("outputs", ["values", "gaussian"])
def test_a_regression_is_compared_too(outputs: Any) -> None:
    random = np.random.default_rng(0)
    y = random.normal(size=500)
    m = y + np.array([1.0, 1.0, 0.2])[:, None] * random.normal(size=(3, 500))
    every: list[Any] = [*m]
    if outputs == "gaussian":
        every = [(each, np.full(500, 0.5)) for each in m]
    choice = fit_regression(every[:2], y, outputs=outputs, metric="mse", baseline=every[2])
    stands = choice.baseline
    assert stands is not None
    away = (m[:2].mean(0) - y) ** 2 - (m[2] - y) ** 2
    assert stands.difference == pytest.approx(away.mean(), rel=1e-9)
    assert stands.error == pytest.approx(away.std(ddof=1) / math.sqrt(500), rel=1e-9)
    assert names(choice)[-1] == "baseline-not-beaten"
    part = analyze_regression(every[:2], y, outputs=outputs, choice=choice, baseline=every[2])
    assert part["baseline"]["rmse"] == pytest.approx(math.sqrt(((m[2] - y) ** 2).mean()), rel=1e-9)
    (row,) = (row for row in part["comparisons_with_baseline"] if row["metric"] == "mse")
    assert row["difference"] == pytest.approx(away.mean(), rel=1e-9)
    text = regression_paragraphs(bare(regression=part))[0]
    assert "worse than the baseline (a mean squared error " in text


def test_other_data_show_the_baseline_in_numbers_and_on_the_page(tmp_path: Path) -> None:
    members, other, y = drawn(0.5)
    choice = fit(members, y, baseline=other)
    members, other, y = drawn(0.5, seed=1)
    found = analyze(members, y, choice=choice, baseline=other)
    assert choice.baseline is not None
    at = apply_temperature(other, choice.baseline.temperature)
    rows = {row["metric"]: row for row in found["comparisons_with_baseline"]}
    away = sample_scores("brier", choice.apply(members), y) - sample_scores("brier", at, y)
    assert rows["brier"]["difference"] == pytest.approx(away.mean(), rel=1e-9)
    loss = sample_scores("log_loss", at, y).mean()
    assert found["baseline"]["log_loss"] == pytest.approx(loss, rel=1e-9)
    results = bare(analysis=found)
    assert " and worse than the baseline (" in lead(results)
    write_report(results, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count(">The baseline</th>") == 3
    assert ">Baseline</th>" in page
    # One member, and nothing chosen, is compared too.
    alone = analyze(members[:1], y, baseline=other)
    assert alone["comparisons"] == []
    assert "worse than the baseline (" in lead(bare(analysis=alone))


def test_a_comparison_stays_in_the_record(tmp_path: Path) -> None:
    members, other, y = drawn(0.5)
    choice = fit(members, y, baseline=other)
    choice.save(tmp_path / "choice.json")
    assert Choice.load(tmp_path / "choice.json") == choice
    record = choice.to_dict()
    for field, value in (
        *(("error", -1.0), ("temperature", 0.0), ("score", math.nan), ("interval", [1.0, 0.0])),
        ("other", 1.0),
    ):
        broken = record | {"baseline": record["baseline"] | {field: value}}
        with pytest.raises(EnsembleError, match=rf"in 'baseline.{field}'"):
            Choice.from_dict(broken)


def test_what_is_no_baseline_is_refused() -> None:
    members, other, y = drawn(0.5)
    shape = (
        r"`baseline` must be .* of the shape of a member's, \(500, 3\)\. Received: shape \(9, 3\)"
    )
    for call in (fit, analyze):
        with pytest.raises(EnsembleError, match=shape):
            call(members, y, baseline=other[:9])
    with pytest.raises(EnsembleError, match=r"^Argument `baseline`: .*between 0 and 1"):
        fit(members, y, baseline=3 * other)
    values = y.astype(float)
    for judge in (fit_regression, analyze_regression):
        with pytest.raises(EnsembleError, match=r"`baseline` must be .*Received: shape \(9,\)"):
            judge([values, values], values, baseline=values[:9])
    with pytest.raises(EnsembleError, match=r"^Argument `baseline`: "):
        fit_regression([values, values], values, baseline=values * np.nan)


def test_an_ensemble_takes_one_and_refuses_another_shape_after_one_member(tmp_path: Path) -> None:
    record(tmp_path)
    x, y = data()
    loaded: list[object] = []

    class Counting(LinearModel):
        def load(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
            loaded.append(tensors)
            return super().load(tensors)

    ensemble = SnapshotEnsemble(Counting(), tmp_path)
    other = next(iter(ensemble.member_predictions(x)))
    choice = ensemble.fit(x, y, baseline=other)
    assert choice.baseline is not None
    with pytest.warns(UserWarning, match="seem to be those that the ensemble was chosen on"):
        found = ensemble.evaluate(x, y, baseline=other)
    assert found["baseline"]["error"] == pytest.approx(found["members"][0]["error"])
    for call in (ensemble.fit, ensemble.evaluate):
        loaded.clear()
        with pytest.raises(ca.EnsembleError, match="`baseline` must be one model's predictions"):
            call(x, y, baseline=other[:2])
        assert len(loaded) == 1
