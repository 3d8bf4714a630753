"""The tables of a report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cosanneal.ensemble import fit
from tests.shared.documents import analysis_of, bare, members_of, uncertainty_of, whole
from tests.shared.reading import page_of


def test_the_best_of_a_column_is_bold_and_the_chosen_is_marked(reported: Path) -> None:
    text = reported.read_text(encoding="utf-8")
    bold = [float(each) for each in re.findall(r'<td class="best">([0-9.]+)</td>', text)]
    assert bold
    chosen = text.count('<tr class="chosen">')
    analysis = whole()["analysis"]
    used = sum(member["weight"] > 0 for member in analysis["choice"]["members"])
    assert chosen == used + 3  # the ensemble of them, the candidate, and the budget
    assert f"{analysis['chosen']['log_loss']:.4f}" in [f"{each:.4f}" for each in bold]


def test_scores_that_are_alike_as_shown_are_all_bold_and_the_choices_metric_is_first(
    tmp_path: Path,
) -> None:
    analysis = analysis_of(3, select="greedy")
    least = min(row["log_loss"] for row in (*analysis["members"], *analysis["ensembles"]))
    for row, more in zip(analysis["members"], (0.0, 1e-7, 1e-3), strict=True):
        row["log_loss"] = least - 0.1 + more
    page = page_of(bare(analysis=analysis), tmp_path)
    assert [name.split(",")[0] for name in page.rows[0][2:5]] == ["Weight", "Log-loss", "Error"]
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count(f'<td class="best">{least - 0.1:.4f}</td>') == 2
    assert f'<td class="best">{least - 0.099:.4f}</td>' not in text


@pytest.mark.parametrize(("count", "select"), [(1, "last"), (2, "greedy"), (40, "weights")])
def test_few_and_many_members(tmp_path: Path, count: int, select: str) -> None:
    page = page_of(bare(analysis=analysis_of(count, select=select)), tmp_path)
    figures = {each["id"] for each in page.all_of("figure") if "id" in each}
    several = {"members", "correlation", "disagreement"} if count > 1 else set()
    assert figures == {"reliability"} | several
    assert (tmp_path / "report.html").stat().st_size < 400_000
    assert ("There is one member only" in page.text_of("p")[0]) == (count == 1)


def test_snapshots_that_were_never_members_have_no_weight(tmp_path: Path) -> None:
    p, y = members_of(3, 1000)
    names = [f"cycle-{i}.safetensors" for i in range(5)]
    choice = fit(p, y, names=names[2:], select="greedy").to_dict()
    choice["members"][0]["weight"], choice["members"][1]["weight"] = 0.0, 0.5
    choice["members"][2]["weight"] = 0.5
    snapshots = [
        {"name": name, "cycle": i, "step": 10 * i + 10, "rate": 0.1, "metrics": {}}
        for i, name in enumerate(names)
    ]
    page = page_of(bare(snapshots=snapshots, choice=choice), tmp_path)
    at = page.rows[0].index("Weight")
    assert [row[at] for row in page.rows[1:6]] == ["", "", "0", "0.500", "0.500"]
    assert "Those without a weight were no members." in page.text_of("figcaption")[0]


def test_a_files_suffix_is_no_part_of_a_members_name(tmp_path: Path) -> None:
    names = [f"cycle-{i}.safetensors" for i in range(3)]
    results = whole(3, names=names)
    alone = bare(choice=results["analysis"]["choice"])
    results["interpolations"][0]["first"] = "another.safetensors"
    for each in (results, alone):
        page = page_of(each, tmp_path)
        assert [row[1] for row in page.rows if row[0] in {"1", "2", "3"}] == [
            "cycle-0",
            "cycle-1",
            "cycle-2",
        ]
        assert not [text for _, text in page.texts if ".safetensors" in text]


def test_the_uncertainty_has_its_tables(tmp_path: Path) -> None:
    part = uncertainty_of(3)
    rows = {row[0]: row[1:] for row in page_of(bare(uncertainty=part), tmp_path).rows}
    assert rows["Entropy, nats"][:2] == [f"{part['entropy']:.4f}", ""]
    assert rows["Mutual information, nats"][0] == f"{part['mutual_information']:.4f}"
    curves = part["selective"]["rows"]
    for title, name in (
        ("AURC, %", "aurc"),
        ("Coverage at 5 % error, %", "coverage_at_risk"),
        ("Error at 80 % coverage, %", "risk_at_coverage"),
    ):
        assert rows[title][:2] == [f"{100 * row[name]:.2f}" for row in curves]
    for row in part["conformal"]:
        shares = ["90.0", f"{100 * row['coverage']:.2f}", f"{row['size']:.2f}"]
        assert rows[row["method"].upper()] == shares
    row = part["ood"]["rows"][0]
    shares = [f"{100 * row[name]:.2f}" for name in ("auroc", "aupr", "fpr95")]
    assert rows["highest probability"] == shares
    page = page_of(bare(uncertainty=uncertainty_of(1, outside=False)), tmp_path)
    assert page.text_of("h2")[:2] == ["How sure it is", "Sets of classes"]
    assert page.rows[0] == ["Measure", "Prediction", "What it says"]
    assert "Out of distribution" not in page.text_of("h2")
