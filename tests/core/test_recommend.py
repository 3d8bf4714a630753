"""Which cycles are recommended: what the bench supports, and what its numbers say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.core.errors import ScheduleError
from cosanneal.core.recommend import TURNED

BENCH = Path(__file__).parents[2] / "benchmarks" / "quality"


def lengths(found: ca.Recommendation) -> list[int]:
    return [cycle.length for cycle in found.schedule.cycles()]


@pytest.mark.parametrize("best_step", [1, 600])
def test_a_run_that_turned_early_gets_four_doubling_cycles(best_step: int) -> None:
    found = ca.recommend(0.2, total_steps=1500, best_step=best_step)
    assert lengths(found) == [100, 200, 400, 800]
    assert found.pays is True
    assert found.schedule.rate(0) == found.schedule.rate(100) == 0.2
    assert f"best after {best_step} of 1500 updates" in found.reason


@pytest.mark.parametrize("best_step", [601, 1500])
def test_a_run_that_used_its_budget_gets_one_cosine(best_step: int) -> None:
    found = ca.recommend(0.2, total_steps=1500, best_step=best_step)
    assert lengths(found) == [1500]
    assert found.pays is False
    assert "study" in found.reason


def test_what_is_not_known_is_said() -> None:
    found = ca.recommend(0.2, total_steps=100)
    assert lengths(found) == [6, 14, 26, 54]
    assert found.pays is None
    assert "best_step" in found.reason


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"total_steps": 0}, r"`total_steps` must be a positive integer.*total_steps=0"),
        ({"total_steps": 10, "best_step": 0}, r"`best_step` must be a positive.*best_step=0"),
        ({"total_steps": 10, "best_step": 11}, r"`best_step` must be at most.*best_step=11"),
        ({"total_steps": 3}, r"Received: .*total_steps=3|total_steps=3"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        ca.recommend(0.2, **given)


def test_the_numbers_that_are_told_are_those_of_the_bench() -> None:
    tasks = json.loads((BENCH / "results.json").read_text(encoding="utf-8"))["tasks"]
    turning = json.loads((BENCH / "turning.json").read_text(encoding="utf-8"))
    told = ca.recommend.__doc__ or ""

    def mean(schedule: str, turned: bool) -> tuple[str, list[dict[str, float]]]:
        found = []
        for name, each in turning.items():
            if (each["best"] <= TURNED) is turned:
                scores = tasks[name]["budgets"]["long"]["methods"][f"{schedule}/fit last"]
                found.append(next(iter(scores.values()))["to_cosine"])
        ratios = [each["ratio"] for each in found]
        return f"{math.prod(ratios) ** (1 / len(ratios)):.2f}", found

    def won_and_lost(found: list[dict[str, float]]) -> tuple[int, int]:
        won = sum(each["ratio"] + 2 * each["error"] < 1 for each in found)
        return won, sum(each["ratio"] - 2 * each["error"] > 1 for each in found)

    early, of_early = mean("doubling4", True)
    late, of_late = mean("doubling4", False)
    assert (early, len(of_early), won_and_lost(of_early)) == ("0.94", 7, (4, 0))
    assert (late, len(of_late), won_and_lost(of_late)) == ("1.01", 5, (2, 0))
    assert f"{min(each['ratio'] for each in of_late):.2f}" == "0.96"
    assert [mean("cyclic5", each)[0] for each in (True, False)] == ["0.96", "0.94"]
    assert mean("cyclic3", True)[0] == "0.97"
    for number in ("0.94 times the loss", "0.96, three 0.97", "had 1.01 (two", "had 0.94 there"):
        assert number in " ".join(told.split())
    # The nearest tasks on either side of the line.
    shares = sorted(each["best"] for each in turning.values())
    assert [shares[6], shares[7]] == [0.35, 0.45]
    worst = {
        schedule: max(
            next(iter(each["budgets"]["short"]["methods"][f"{schedule}/fit last"].values()))[
                "to_cosine"
            ]["ratio"]
            for each in tasks.values()
        )
        for schedule in ("doubling4", "cyclic5")
    }
    assert {name: f"{each:.2f}" for name, each in worst.items()} == {
        "doubling4": "1.25",
        "cyclic5": "1.44",
    }
