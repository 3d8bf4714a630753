"""The pages that are written from what the benchmarks measured."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from benchmarks import performance
from benchmarks.harness import RESULTS, Figure

RESULTS_NOW: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))


def test_the_first_page_is_what_the_results_say() -> None:
    page = (performance.DOCS / "performance.md").read_text(encoding="utf-8")
    assert page == performance.first_page(RESULTS_NOW)
    assert page.count("\n| ") == 1 + 10  # a head, and ten figures


def test_every_benchmark_is_among_the_tables() -> None:
    page = (performance.DOCS / "performance-tables.md").read_text(encoding="utf-8")
    rows = sum(len(each["figures"]) for each in RESULTS_NOW.values())
    assert page.count("\n| ") == rows + len(RESULTS_NOW)
    for name in RESULTS_NOW:
        assert f"\n## {name}\n" in page


def test_an_answer_has_the_medians_and_the_ratio() -> None:
    figure = Figure(
        name="f", unit="ms", ours=[2.0, 4.0, 3.0], limit=[1, 2, 3], peers={"p": [8, 8, 8]}
    )
    results = {"b": {"figures": [figure.summary()]}}
    answer = performance.Answer(
        "?", "b", "f", "{ours}, {ratio}", "{limit}, {best}: {peer}, {peer_ratio}"
    )
    assert answer.line(results) == "| ? | 3 ms, 2.00 | 2 ms, p: 8 ms, 0.38 |"


def test_missed_goals_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(performance, "ANSWERS", ())
    figures = [
        Figure(name="good", unit="s", ours=[1.0], limit=1.0, goal=1.0),
        Figure(name="bad", unit="s", ours=[3.0], limit=1.0, goal=2.5),
        Figure(name="worse", unit="s", ours=[3.0], peers={"p": [1.5]}, goal=1.5, beside="peer"),
        Figure(name="free", unit="s", ours=[9.0], limit=1.0),
    ]
    summaries = [each.summary() for each in figures]
    machine = {"processor": "Abacus", "cores": "7"}
    page = performance.first_page({"gpu_b": {"machine": machine, "figures": summaries}})
    assert "7 cores of Abacus" in page
    assert "GPU" not in page
    assert page.endswith(
        "Of 3 goals that we set ourselves, 2 are not met:\n\n"
        "- bad (gpu_b): 3.00 times the limit; the goal is 2.5\n"
        "- worse (gpu_b): 2.00 times the peer; the goal is 1.5\n"
    )
