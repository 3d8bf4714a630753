"""What a report says of a budget of passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosanneal.ensemble import fit
from cosanneal.report.tables import tables_of
from cosanneal.report.words import paragraphs
from tests.shared.classes import left_early
from tests.shared.documents import analysis_of, bare, members_of
from tests.shared.reading import draw, drawn, line, page_of, values


def test_the_curve_is_that_of_a_plain_loop() -> None:
    analysis = analysis_of(4, select="weights", budget=1.7)
    p, y = (each[..., 1200:, :] if each.ndim > 1 else each[1200:] for each in members_of(4, 2200))
    weights = [member["weight"] for member in analysis["choice"]["members"]]
    cares = [row["care"] for row in analysis["passes"]]
    own = analysis["choice"]["budget"]["care"]
    assert cares == sorted({*(i / 10 for i in range(11)), own})
    for row in analysis["passes"]:
        order = analysis["choice"]["budget"]["order"]
        classes, passes = left_early(p, weights, min(row["care"], 1 - 1e-12), order)
        assert row["passes"] == pytest.approx(passes.mean())
        assert row["error"] == (classes != y).mean()
    assert analysis["passes"][-1]["error"] == analysis["chosen"]["error"]
    figure = drawn(bare(analysis=analysis))["passes"]
    draw(figure)
    (axes,) = figure.axes
    curve = line(axes, "leaving early")
    assert values(curve.get_xdata()) == [row["passes"] for row in analysis["passes"]]
    assert values(curve.get_ydata()) == [100 * row["error"] for row in analysis["passes"]]
    (chosen,) = (row for row in analysis["passes"] if row["care"] == own)
    marked = line(axes, "the budget")
    assert values(marked.get_xdata()) == [chosen["passes"]]
    assert values(marked.get_ydata()) == [100 * chosen["error"]]


def test_the_page_says_what_it_costs(tmp_path: Path) -> None:
    analysis = analysis_of(4, select="weights", budget=1.7)
    page = page_of(bare(analysis=analysis), tmp_path)
    budget = analysis["choice"]["budget"]
    (row,) = (row for row in analysis["passes"] if row["care"] == budget["care"])
    (said,) = (text for text in page.text_of("p") if text.startswith("For classes alone"))
    for told in (
        "a budget of 1.7 members a sample",
        f"takes {budget['passes']:.2f}, with an error of {100 * budget['error']:.2f} %; exact "
        f"classes take {budget['exact_passes']:.2f}, with {100 * budget['exact_error']:.2f} %.",
        f"By no more than {100 * budget['increase']:.2f} percentage points",
        f"here it takes {row['passes']:.2f}, with {100 * row['error']:.2f} %, beside",
    ):
        assert told in said
    cells = [f"{row['care']:.2f}", f"{row['passes']:.2f}", f"{100 * row['error']:.2f}"]
    assert cells in page.rows
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    table = text.split("Fewer members a sample")[-1].split("</table>")[0]
    (marked,) = table.split('<tr class="chosen">')[1:]
    assert f">{cells[0]}<" in marked.split("</tr>")[0]


def test_a_choice_alone_says_it_of_its_own_data_and_none_says_nothing(tmp_path: Path) -> None:
    p, y = members_of(3, 1200)
    choice = fit(p, y, select="weights", budget=1.2)
    document = bare(choice=choice.to_dict())
    told = paragraphs(document)[-1]
    assert choice.budget is not None
    assert f"validation data it takes {choice.budget.passes:.2f}, with an error of" in told
    assert "reported here" not in told
    assert "Fewer members a sample" not in [each.title for each in tables_of(document)]
    page = page_of(document, tmp_path)
    assert any(text.startswith("For classes alone") for text in page.text_of("p"))
    weighted = fit(p, y, budget=1.2, sample_weight=1 + y % 2).to_dict()
    assert "confidence" not in paragraphs(bare(choice=weighted))[-1]
    assert paragraphs(bare(analysis=analysis_of(3)))[-1] == ""
    assert "passes" not in analysis_of(3)
