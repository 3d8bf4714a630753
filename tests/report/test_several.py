"""The page that sets several runs side by side."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.core.errors import CosannealError, EnsembleError
from cosanneal.ensemble import analyze, analyze_regression, fit, folder_results
from cosanneal.report import write_comparison
from tests.shared.documents import bare, members_of, record_folder


def analysis(count: int, samples: int = 1000, seed: int = 0) -> Any:
    p, y = members_of(count, 1200 + samples, seed=seed)
    choice = fit(p[:, :1200], y[:1200])
    return analyze(p[:, 1200:], y[1200:], choice=choice)


def text_of(page: Path) -> str:
    """The page's words, a line for each row of a table, with what is bold in stars."""
    html = page.read_text(encoding="utf-8").partition("<body")[2]
    html = re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL)
    html = re.sub(r"\s+", " ", html)
    html = re.sub(r"</?(b|strong)>|(?<=class=\"best\">)", "*", html)
    html = re.sub(r"</t[dh]>", "|", html)
    html = re.sub(r"</(tr|p|h\d|caption)>", "\n", html)
    return unescape(re.sub(r"<[^>]*>", "", html))


def rows_of(text: str, run: str) -> list[list[str]]:
    found = []
    for line in text.splitlines():
        cells = [each.strip() for each in line.split("|")]
        if cells[0].strip("*") == run and len(cells) > 2:
            found.append(cells[:-1])
    return found


def test_scores_of_several_runs_stand_side_by_side(tmp_path: Path) -> None:
    parts = {"few": analysis(2), "many": analysis(5)}
    schedule = ca.CyclicCosine(0.1, total_steps=1000, num_cycles=5)
    run = {"schedule": schedule.to_dict(), "updates": 1000, "loss": None, "cycle_ends": [199, 999]}
    other = {"rate": [0.1, 0.05], "loss": None, "cycle_ends": [1]}
    results = {
        "few": bare(analysis=parts["few"], run=other),
        "many": bare(analysis=parts["many"], run=run),
    }
    files = write_comparison(results, tmp_path / "runs.html")
    assert [each.name for each in files] == ["runs.html", "schedules.png", "schedules.svg"]
    text = text_of(files[0])
    assert "2 runs side by side: few and many." in text
    for name, told, scale in (("log_loss", "least log-loss", 1), ("error", "fewest errors", 100)):
        found = {run: part["chosen"][name] for run, part in parts.items()}
        best = min(found, key=lambda run: found[run])
        shown = f"{scale * found[best]:.{2 if scale > 1 else 4}f}"
        assert f"{best} has the {told} ({shown}" in text
    assert len({len(f"{100 * part['chosen']['error']:.2f}") for part in parts.values()}) == 2
    assert "on 1,000 samples each" in text
    for name, part in parts.items():
        first, chosen, last = rows_of(text, name)
        assert first[1] == ("2" if name == "few" else "1,000")
        assert first[3] == str(len(part["members"]))
        assert f"{part['chosen']['log_loss']:.4f}" in [each.strip("*") for each in chosen]
        assert f"{part['last_calibrated']['log_loss']:.4f}" in [each.strip("*") for each in last]
        assert last[1] == "The last with its own temperature"
    svg = (tmp_path / "runs_files" / "schedules.svg").read_text(encoding="utf-8")
    assert ">few<" in svg
    assert ">many<" in svg


def test_scores_of_other_samples_are_not_compared(tmp_path: Path) -> None:
    results = {"a": bare(analysis=analysis(2)), "b": bare(analysis=analysis(2, 700, seed=1))}
    (page,) = write_comparison(results, tmp_path / "runs.html", title="Mine & others")
    text = text_of(page)
    assert "Mine & others" in text
    assert "scored on different data, of 700 and 1,000 samples" in text
    assert "the least log-loss" not in text
    assert 'class="best"' not in page.read_text(encoding="utf-8")
    same = {"a": results["a"], "b": bare(analysis=analysis(2, seed=1))}
    (page,) = write_comparison(same, tmp_path / "same.html")
    assert 'class="best"' in page.read_text(encoding="utf-8")


def test_folders_show_what_they_have(tmp_path: Path) -> None:
    for name in ("first", "second"):
        record_folder(tmp_path / name)
    results = {name: folder_results(tmp_path / name) for name in ("first", "second")}
    p, y = members_of(2, 1500)
    results["second"]["choice"] = fit(p, y, names=["m0", "m1"]).to_dict()
    page, *_ = write_comparison(results, tmp_path / "runs.html")
    text = text_of(page)
    assert "None was scored on data that nothing was chosen by" in text
    assert "What was recorded with the last snapshot" in text
    assert "Scores where it was chosen" in text
    found = results["second"]["choice"]["candidates"][-1]["scores"]["log_loss"]
    assert f"{found:.4f}" in text


def test_regressions_and_classes_stand_in_tables_of_their_own(tmp_path: Path) -> None:
    values = [[0.1, 1.2, 1.9], [0.0, 1.1, 2.2]]
    part = analyze_regression(values, [0.0, 1.0, 2.0])
    results = {name: bare(regression=part) for name in "ab"} | {"c": bare(analysis=analysis(2))}
    (page,) = write_comparison(results, tmp_path / "runs.html")
    text = text_of(page)
    assert "Only c was scored" in text
    rmse = f"{part['ensembles'][-1]['rmse']:.4g}"
    assert all(rmse in rows_of(text, name)[-1] for name in "ab")


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    one = bare(analysis=analysis(2))
    with pytest.raises(CosannealError, match=r"at least two documents.*write_report makes a page"):
        write_comparison({"a": one}, tmp_path / "runs.html")
    with pytest.raises(CosannealError, match=r"must end in .html"):
        write_comparison({"a": one, "b": one}, tmp_path / "runs.pdf")
    with pytest.raises(EnsembleError, match="format"):
        write_comparison({"a": one, "b": {}}, tmp_path / "runs.html")
