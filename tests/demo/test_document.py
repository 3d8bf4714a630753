"""What the document of the results holds, and says in words."""

from __future__ import annotations

import json
import statistics
from typing import Any

import numpy as np
import pytest

from cosanneal.demo.document import compare, document
from cosanneal.demo.experiment import Outcome
from cosanneal.ensemble.results import check_results


def test_the_document_holds_what_a_report_draws(outcome: Outcome) -> None:
    found = document(outcome)
    run = found["run"]
    assert len(run["rate"]) == len(run["loss"]) == outcome.results["config"]["updates"]
    assert run["cycle_ends"] == [5, 11, 17]
    assert [path["first"] for path in found["interpolations"]] == [*outcome.first.choice.members][
        :2
    ]
    for path in found["interpolations"]:
        assert path["shares"][0] == 0
        assert path["shares"][-1] == 1
        assert path["barrier"] >= 0
    first = outcome.results["seeds"][0]
    assert found["average"]["error"] == first["averaged"]["test_error"]
    for score in (found["average"], found["average"]["ensemble"]):
        assert {"error", "log_loss", "brier", "ece"} <= score.keys()
    assert found["average"]["members"] == [
        *outcome.first.choice.members[-first["averaged"]["members"] :]
    ]
    # The mean of two lies half way, so its own rise is that of the path there, or of all of them.
    average, last = found["average"], first["averaged"]["members"]
    y, members = outcome.first.split.validation.y, outcome.first.members.validation[-last:]
    alone = statistics.fmean(float(-np.log(p[np.arange(len(y)), y]).mean()) for p in members)
    rises = [(first["averaged"]["validation_nll"] - alone, alone / 10)]
    for path in found["interpolations"][-(last - 1) :]:
        rises.append((path["barrier"], (path["losses"][0] + path["losses"][-1]) / 20))
    barrier, allowed = max(rises, key=lambda each: each[0] - each[1])
    assert average["barrier"] == pytest.approx(barrier, rel=1e-4)
    assert average["allowed"] == pytest.approx(allowed, rel=1e-4)
    assert average["picked_on"] == len(y)
    rows = found["comparison"]["rows"]
    assert found["comparison"]["seeds"] == 2
    assert rows[2]["model"] == "One cosine cycle"
    both = [seed["averaged"]["members"] for seed in outcome.results["seeds"]]
    told = f"{both[0]} with every seed" if both[0] == both[1] else f"{both[0]} and {both[1]}, seed"
    assert f"Averaged weights: m = {told}" in found["comparison"]["note"]
    assert [row["cycles"] for row in found["study"]["rows"]] == [1, 2, 3]
    assert found["demo"]["seeds"] == outcome.results["seeds"]
    chosen = found["analysis"]["chosen"]
    assert chosen["error"] == pytest.approx(first["fitted"]["test_error"])
    assert chosen["log_loss"] == pytest.approx(first["fitted"]["test_nll"], rel=1e-5)
    assert check_results(json.loads(json.dumps(found, allow_nan=False))) is not None


def scored(error: float, nll: float) -> dict[str, float]:
    return {"test_error": error, "test_nll": nll}


def test_the_words_follow_the_numbers() -> None:
    interval = {
        "test_error": {"interval": (0.001, 0.02)},
        "test_nll": {"interval": (-0.1, 0.1)},
    }
    seed: dict[str, Any] = {
        "single": scored(0.04, 0.2),
        "cosine": scored(0.02, 0.1),
        "short": scored(0.03, 0.1),
        "ensemble": [scored(0.03, 0.1)],
        "fitted": scored(0.03, 0.1),
        "paired": interval,
    }
    rows: list[dict[str, Any]] = [
        {
            "model": name,
            "short": name,
            "key": key,
            **{score: {"mean": value, "std": None} for score, value in scores.items()},
        }
        for name, key, scores in (
            ("Single", "single", seed["single"]),
            ("One cosine", "cosine", seed["cosine"]),
            ("Short", "short", seed["short"]),
            ("Alone", 1, seed["short"]),
            ("Fitted", "fitted", seed["fitted"]),
        )
    ]
    better, worse_, _, same, paired, spread = compare({"seeds": [seed]}, rows)
    assert better == (
        "The fitted ensemble scores better here than Single: 25 % less error and 50 % less "
        "log-loss."
    )
    assert worse_ == (
        "The fitted ensemble scores worse here than One cosine: 50 % more error and the same "
        "log-loss."
    )
    assert "scores no different here than Alone: the same error and the same log-loss" in same
    assert "more errors on 1 and more log-loss on 0 of 1 seed" in paired
    assert spread == "One seed tells nothing of the spread: another may say the opposite."
    wins, loses, _, ties, paired = compare({"seeds": [seed, seed]}, rows)
    said = "The fitted ensemble wins over Single: 25 % less error and 50 % less log-loss; its error"
    assert wins.startswith(said)
    said = "The fitted ensemble LOSES to One cosine: 50 % more error and the same log-loss; its"
    assert loses.startswith(said)
    assert "ties with Alone: the same error and the same log-loss" in ties
    assert "more errors on 2 and more log-loss on 0 of 2 seeds" in paired
    worse = {**seed, "fitted": scored(0.05, 0.3)}
    wins, *_ = compare({"seeds": [seed, worse, seed]}, rows)
    assert wins.endswith("log-loss; its error is lower on 2 and higher on 1 of 3 seeds.")


@pytest.mark.parametrize(
    ("fitted", "said"),
    [
        ((0.102, 0.97), "is neither better nor worse than Other: 2 % more error and 3 % less log"),
        ((0.098, 1.03), "is neither better nor worse than Other: 2 % less error and 3 % more log"),
        ((0.098, 0.97), "wins over Other: 2 % less error and 3 % less log-loss"),
        ((0.102, 1.03), "LOSES to Other: 2 % more error and 3 % more log-loss"),
        ((0.1, 1.03), "LOSES to Other: the same error and 3 % more log-loss"),
        ((0.1, 0.97), "wins over Other: the same error and 3 % less log-loss"),
        # The verdict goes with its words.
        ((0.098, 1.001), "wins over Other: 2 % less error and about the same log-loss"),
        ((0.0999, 1.001), "ties with Other: about the same error and about the same log-loss"),
    ],
)
def test_a_verdict_is_of_both_scores(fitted: tuple[float, float], said: str) -> None:
    other = scored(0.1, 1.0)
    seed: dict[str, Any] = {
        **dict.fromkeys(("single", "cosine", "short"), other),
        "ensemble": [other],
        "fitted": scored(*fitted),
        "paired": {name: {"interval": (0, 0)} for name in other},
    }
    rows = [
        {
            "short": "Other",
            "key": key,
            **{name: {"mean": value, "std": None} for name, value in scores.items()},
        }
        for key in ("single", "cosine", "short", 1, "fitted")
        for scores in [seed["fitted"] if key == "fitted" else other]
    ]
    first, *_ = compare({"seeds": [seed, seed]}, rows)
    assert said in first
