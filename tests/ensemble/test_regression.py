"""What a results document says of a regression: checked field by field, beside the scores."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cosanneal as ca
from cosanneal.ensemble import (
    Choice,
    analyze_regression,
    compare_scores,
    fit_regression,
    gaussian_nll,
    interval_coverage,
    mae,
    mean_interval_width,
    pinball_loss,
    prediction_interval,
    quantile_coverage,
    read_results,
    regression_calibration_error,
    regression_scores,
    rmse,
    write_results,
)
from cosanneal.ensemble.results import check_results

PAGE = {"format": "cosanneal.results", "version": 1, "title": "A regression"}


def drawn(samples: int, seed: int = 0) -> tuple[Any, Any, Any]:
    random = np.random.default_rng(seed)
    y = random.normal(size=(samples, 2))
    sizes = np.array([0.9, 0.6, 0.3])[:, None, None]
    m = y + sizes * random.normal(size=(3, samples, 2))
    return m, 0.5 * sizes**2 * np.ones_like(m), y


def mixture(m: Any, v: Any) -> Any:
    return m.mean(0), v.mean(0) + m.var(0)


def full(mean: Any, variance: Any, y: Any, **given: Any) -> dict[str, Any]:
    ends = [prediction_interval(mean, variance, level=level) for level in (0.9, 0.95)]
    return {
        "rmse": pytest.approx(rmse(mean, y, **given)),
        "mae": pytest.approx(mae(mean, y, **given)),
        "gaussian_nll": pytest.approx(gaussian_nll(mean, variance, y, **given)),
        "calibration": pytest.approx(regression_calibration_error(mean, variance, y, **given)),
        "coverage": pytest.approx([interval_coverage(*each, y, **given) for each in ends]),
        "width": pytest.approx([mean_interval_width(*each, **given) for each in ends]),
    }


@pytest.mark.parametrize("masked", [False, True])
def test_pairs_are_scored_alone_together_and_as_chosen(masked: bool) -> None:
    m, v, y = drawn(1200)
    choice = fit_regression(list(zip(m, v, strict=True)), y, outputs="gaussian")
    m, v, y = drawn(300, 1)
    given = {"mask": np.random.default_rng(2).random(y.shape) < 0.8} if masked else {}
    pairs = list(zip(m, v, strict=True))
    found = analyze_regression(pairs, y, outputs="gaussian", choice=choice, **given)
    for row, pair in zip(found["members"], pairs, strict=True):
        name = row.pop("name")
        assert name in choice.members
        assert row == full(pair[0], pair[1], y, **given)
    assert [row["last"] for row in found["ensembles"]] == [2, 3]
    for row in found["ensembles"]:
        last = row.pop("last")
        mean, variance = mixture(m[-last:], v[-last:])
        assert row == full(mean, variance, y, **given)
    best = choice.apply(pairs)
    assert found["chosen"] == full(best[0], best[1], y, **given)
    assert found["choice"] == choice.to_dict()
    assert [row["metric"] for row in found["comparisons"]] == ["mse", "mae", "gaussian_nll"]
    everyone = mixture(m, v)
    for field, other in (("comparisons", pairs[-1]), ("comparisons_with_mean", everyone)):
        both = [
            regression_scores("gaussian_nll", tuple(each), y, **given) for each in (best, other)
        ]
        expected = compare_scores(*both)
        assert found[field][2]["difference"] == pytest.approx(expected.difference)
        assert found[field][2]["interval"] == pytest.approx(list(expected.interval))


def test_values_have_a_predictive_variance_by_the_choice_alone() -> None:
    m, _, y = drawn(1200)
    choice = fit_regression(m, y)
    m, _, y = drawn(300, 1)
    found = analyze_regression(m, y, choice=choice)
    assert found["members"][0].keys() == {"name", "rmse", "mae"}
    weights = np.array(choice.weights)
    mean = np.tensordot(weights, m, 1)
    between = np.tensordot(weights, (m - mean) ** 2, 1)
    variance = choice.variance_scale * between + np.array(choice.noise)
    assert found["chosen"] == full(mean, variance, y)
    assert [row["metric"] for row in found["comparisons"]] == ["mse", "mae"]
    alone = analyze_regression(m[:1], y)
    assert (alone["ensembles"], alone["comparisons"], alone["chosen"]) == ([], [], None)
    plain = analyze_regression(m, y, choice=fit_regression(*drawn(1200)[::2], variance=False))
    assert plain["chosen"].keys() == {"rmse", "mae"}


def test_quantiles_are_scored() -> None:
    m, _, y = drawn(300)
    levels = [0.2, 0.5]
    q = np.stack([m - 0.3, m], -1)
    found = analyze_regression(q, y, quantiles=levels)
    row = found["members"][1]
    assert row == {
        "name": "1",
        "pinball": pytest.approx(pinball_loss(q[1], y, levels)),
        "coverage": pytest.approx(quantile_coverage(q[1], y, levels)),
        "crossing": 0.0,
    }
    check_results({**PAGE, "regression": found})


def test_the_document_is_written_and_read(tmp_path: Path) -> None:
    m, v, y = drawn(1200)
    pairs = list(zip(m, v, strict=True))
    choice = fit_regression(pairs, y, outputs="gaussian")
    document = {
        **PAGE,
        "regression": analyze_regression(pairs, y, outputs="gaussian", choice=choice),
    }
    write_results(document, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == document


def part(*path: Any) -> Any:
    """What changes a field, at a path within the part."""

    def change(value: Any) -> Any:
        def apply(data: dict[str, Any]) -> None:
            for key in path[:-1]:
                data = data[key]
            data[path[-1]] = value

        return apply

    return change


SPOILS = [
    (part("samples")(0), r"regression.samples': must be an integer of at least 1"),
    (part("outputs")("logits"), r"regression.outputs': must be 'values' or 'gaussian'"),
    (part("levels")([2]), r"regression.levels\[0\]': must be a finite number from 0 to 1"),
    (part("members")([]), r"regression.members': must be a list of at least one member"),
    (part("members", 0, "rmse")(-1), r"members\[0\].rmse': must be a finite number of at least 0"),
    (part("members", 0, "error")(1), r"members\[0\].error': no such field is known"),
    (part("members", 1, "coverage")([0.5]), r"members\[1\].coverage': must be a list of 2 numbers"),
    (part("members", 1, "coverage")([0.5, 2]), r"coverage\[1\]': must be a finite number from 0"),
    (part("members", 0, "pinball")(1), r"rmse': must be there, or 'pinball' where there are qua"),
    (part("ensembles", 0, "last")(3), r"ensembles\[0\].last': must be 2"),
    (part("chosen")(None), r"chosen': must be there where 'choice' is"),
    (part("choice", "members", 0, "name")("x"), r"choice': must be one among the members"),
    (part("choice", "weights")(1), r"choice': .*no such field"),
    (part("comparisons", 0, "metric")("brier"), r"metric': must be one of 'mse'"),
    (part("comparisons", 0, "p_value")(2), r"p_value': must be a finite number from 0 to 1"),
    (part("quantiles")([0.5]), r"rmse': must be there, or 'pinball'"),
]


@pytest.mark.parametrize(("change", "message"), SPOILS)
def test_a_bad_field_is_named(change: Any, message: str) -> None:
    found: dict[str, Any] = copy.deepcopy(_document())
    change(found)
    with pytest.raises(ca.EnsembleError, match=message):
        check_results({**PAGE, "regression": found})


def _document() -> dict[str, Any]:
    m, v, y = drawn(1200)
    pairs = list(zip(m, v, strict=True))
    choice = fit_regression(pairs, y, outputs="gaussian")
    return analyze_regression(pairs, y, outputs="gaussian", choice=choice)


def test_a_choice_among_others_is_refused() -> None:
    m, v, y = drawn(1200)
    pairs = list(zip(m, v, strict=True))
    choice = fit_regression(pairs, y, outputs="gaussian")
    calls: list[Any] = [
        lambda: analyze_regression(m, y, choice=choice),
        lambda: analyze_regression(
            pairs, y, outputs="gaussian", choice=choice, names=["a", "b", "c"]
        ),
    ]
    for call in calls:
        with pytest.raises(ca.EnsembleError, match=r"`choice` must have been made among these"):
            call()
    with pytest.raises(ca.EnsembleError, match=r"`level` must be a number between 0 and 1"):
        analyze_regression(pairs, y, outputs="gaussian", levels=[90])


def test_pairs_are_beside_the_last_with_a_scale_of_its_own() -> None:
    random = np.random.default_rng(0)
    y = random.normal(size=4000)
    member = (y + random.normal(size=4000), np.full(4000, 0.01))  # a variance 100 times too small
    first, second = (
        [tuple(each[part] for each in member)] * 2 for part in (np.s_[:2000], np.s_[2000:])
    )
    choice = fit_regression(first, y[:2000], outputs="gaussian")
    assert choice.last_alone is not None
    assert choice.last_alone.variance_scale == pytest.approx(100, rel=0.1)
    found = analyze_regression(second, y[2000:], outputs="gaussian", choice=choice)
    (own,) = (
        row for row in found["comparisons_with_last_calibrated"] if row["metric"] == "gaussian_nll"
    )
    (raw,) = (row for row in found["comparisons"] if row["metric"] == "gaussian_nll")
    assert own["difference"] == pytest.approx(0, abs=1e-6)
    assert raw["difference"] < -10
    assert Choice.from_dict(choice.to_dict()) == choice
    check_results({**PAGE, "regression": found})
