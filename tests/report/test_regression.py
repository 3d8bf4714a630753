"""The page of a regression: its tables and sentences, and of a folder with a choice of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosanneal.ensemble import analyze_regression, fit_regression, folder_results
from cosanneal.report import write_report
from cosanneal.report.regression import regression_paragraphs, regression_tables
from cosanneal.report.words import missing
from cosanneal.snapshots.store import SnapshotStore
from tests.shared.documents import record_folder

PAGE = {"format": "cosanneal.results", "version": 1, "title": "A regression"}


def told(document: dict[str, Any]) -> str:
    return " ".join(regression_paragraphs(document))


def drawn(samples: int, seed: int = 0, members: int = 3) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    y = random.normal(size=samples)
    sizes = np.linspace(0.9, 0.3, members)[:, None]
    m = y + sizes * random.normal(size=(members, samples))
    return list(zip(m, 0.5 * sizes**2 * np.ones_like(m), strict=True)), y


def chosen(outputs: str = "gaussian", **given: Any) -> dict[str, Any]:
    pairs, y = drawn(1200)
    held_out = pairs if outputs == "gaussian" else [pair[0] for pair in pairs]
    choice = fit_regression(held_out, y, outputs=outputs, **given)  # type: ignore[arg-type]
    pairs, y = drawn(300, 1)
    tested = pairs if outputs == "gaussian" else [pair[0] for pair in pairs]
    found = analyze_regression(tested, y, outputs=outputs, choice=choice)  # type: ignore[arg-type]
    return {**PAGE, "regression": found}


@pytest.mark.parametrize("outputs", ["gaussian", "values"])
def test_the_tables_hold_the_numbers(outputs: str) -> None:
    document = chosen(outputs)
    part = document["regression"]
    members, compared, considered = regression_tables(document)
    told = [row.cells for group in compared.groups for row in group]
    beside = ["The last member alone", "The plain mean of all"]
    if outputs == "gaussian":  # of which a choice scales the variance
        beside.insert(1, "The last with its own variance")
    each = len(told) // len(beside)
    assert [row[0] for row in told] == [other for other in beside for _ in range(each)]
    assert told[0][2].replace("\u2212", "-") == f"{part['comparisons'][0]['difference']:+.4g}"
    first, *_ = members.groups[0]
    assert first.chosen
    assert members.columns[:3] == ["#", "Member or ensemble", "Weight"]
    titles = [*members.columns]
    for title, value in (
        ("RMSE", f"{part['chosen']['rmse']:.4g}"),
        ("Gaussian NLL", f"{part['chosen']['gaussian_nll']:.4g}".replace("-", "\u2212")),
        ("Coverage at 90 %, %", f"{100 * part['chosen']['coverage'][0]:.2f}"),
        ("Coverage at 95 %, %", f"{100 * part['chosen']['coverage'][1]:.2f}"),
        ("Calibration error, %", f"{100 * part['chosen']['calibration']:.2f}"),
    ):
        assert first.cells[titles.index(title)] == value
    # Values have no likelihood without a choice.
    told = [row.cells[titles.index("Gaussian NLL")] for row in members.groups[1]]
    assert all(bool(cell) == (outputs == "gaussian") for cell in told)
    # The least RMSE of all is told to be the best.
    rows = [row for group in members.groups for row in group]
    best = [row for row in rows if titles.index("RMSE") in row.best]
    scored = [part["chosen"], *part["members"], *part["ensembles"]]
    scored += [part["last_calibrated"]] if outputs == "gaussian" else []
    assert len(best) == sum(each["rmse"] == min(s["rmse"] for s in scored) for each in scored)
    assert considered.title == "What was considered"
    assert considered.groups[0][0].chosen
    assert len(considered.groups[0]) == len(part["choice"]["candidates"])


def test_the_sentences_say_what_was_chosen_and_what_it_is_worth() -> None:
    document = chosen(select="weights")
    text = told(document)
    best = document["regression"]["chosen"]
    assert "with the weights of the least negative log-likelihood was chosen" in text
    assert "variance scale" in text
    assert f"its RMSE is {best['rmse']:.4g}" in text
    assert f"{100 * best['coverage'][0]:.1f} % of targets in its intervals at 90 %" in text
    assert (
        "than the last snapshot alone with its own variance (a Gaussian negative log-likelihood "
        in text
    )
    assert "the plain mean of all 3 members" in text
    values = chosen("values", select="greedy")
    assert "found greedily was chosen, for the least mean squared error" in (told(values))
    pairs, y = drawn(300)
    alone = {**PAGE, "regression": analyze_regression(pairs[:1], y, outputs="gaussian")}
    assert "its RMSE is" in told(alone)
    assert "one member of the regression only, and nothing was chosen." in told(alone)
    quantiles = analyze_regression([y[:, None]] * 2, y, quantiles=[0.5])
    text = told({**PAGE, "regression": quantiles})
    assert "the plain mean of all 2 members" in text
    assert "its pinball loss is 0: the same as the last snapshot alone." in text
    table, _ = regression_tables({**PAGE, "regression": quantiles})
    assert "Below the quantile 50 %, %" in table.columns


def test_the_page_has_them_and_misses_no_analysis(tmp_path: Path) -> None:
    document = chosen()
    write_report(document, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "Members of the regression" in page
    assert "A regression" in page
    assert "test/*.npy" not in missing(document)
    assert "a choice of members" not in missing(document)


def test_a_folder_with_a_choice_of_a_regression(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    record_folder(folder)
    snapshots = SnapshotStore(folder).list()
    pairs, y = drawn(1200, members=len(snapshots))
    choice = fit_regression(
        pairs,
        y,
        outputs="gaussian",
        names=[each.path.name for each in snapshots],
        digests=[each.metadata["digest"] for each in snapshots],
    )
    choice.save(folder / "ensemble.json")
    results = folder_results(folder)
    write_report(results, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "No ensemble was chosen among them yet." not in page
    assert "members of the regression" in page
    assert "What was considered" in page
    assert "with their weights" in page
