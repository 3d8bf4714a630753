"""What the report says of the numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cosanneal.ensemble import analyze, fit
from cosanneal.report.words import OOD_SCORES
from tests.shared.documents import analysis_of, bare, members_of, uncertainty_of, whole
from tests.shared.reading import Page, page_of


def test_the_page_says_what_the_numbers_say(document: dict[str, Any], reported: Path) -> None:
    page = Page(reported.read_text(encoding="utf-8"))
    lead = page.text_of("p")[0]
    analysis = document["analysis"]
    choice, chosen = analysis["choice"], analysis["chosen"]
    used = [member["weight"] for member in choice["members"] if member["weight"]]
    assert f"the mean of the last {len(used)} was chosen" in lead
    assert "1,200 validation samples" in lead
    assert (
        f"error is {100 * chosen['error']:.2f} % and its log-loss {chosen['log_loss']:.4f}" in lead
    )
    rows = analysis["comparisons_with_last_calibrated"]
    (loss,) = (row for row in rows if row["metric"] == "log_loss")
    assert "than the last snapshot alone with its own temperature (" in lead
    assert f"a log-loss {-loss['difference']:.4f} lower" in lead
    assert "than the plain mean of all 5 members (" in lead
    assert f"takes {len(used)} passes of the model" in lead
    assert len(re.findall(r"\.(?: |$)", lead)) == 3
    assert "come from the validation data alone" in page.text_of("p")[1]
    compared = [row for row in page.rows if row[0] == "The plain mean of all"]
    for row, found in zip(compared, analysis["comparisons_with_mean"], strict=True):
        scale, digits = (100, 2) if found["metric"] == "error" else (1, 4)
        low, high = (f"{scale * end:+.{digits}f}" for end in found["interval"])
        wanted = [f"{scale * found['difference']:+.{digits}f}", f"{low} to {high}"]
        assert [cell.replace("\N{MINUS SIGN}", "-") for cell in row[2:4]] == wanted
    for i, member in enumerate(analysis["members"]):
        (row,) = (row for row in page.rows if row[0] == str(i + 1))
        weight = choice["members"][i]["weight"]
        assert row[1:] == [
            member["name"],
            f"{weight:.3f}" if weight else "0",
            f"{member['log_loss']:.4f}",
            f"{100 * member['error']:.2f}",
            f"{member['brier']:.4f}",
            f"{100 * member['ece']:.2f}",
        ]
    (row,) = (row for row in page.rows if row[1].startswith("Chosen: "))
    assert row[3] == f"{chosen['log_loss']:.4f}"
    best = choice["candidates"][-1]["scores"]
    considered = page.rows[[row[0] for row in page.rows].index("Candidate") + 1]
    assert considered[1:4] == [
        f"{choice['temperature']:.4g}",
        f"{100 * best['error']:.2f}",
        f"{best['log_loss']:.4f}",
    ]
    assert ["Chosen", "1.90 ± 0.20", "0.0570 ± 0.0100"] in page.rows
    assert ["Mean of the weights", "6.00", "0.1800", "0.0900", "2.00"] in page.rows
    assert "What is not here" not in page.text_of("h2")


@pytest.mark.parametrize("seeds", [1, 5])
def test_what_is_of_the_first_seed_is_said_to_be(tmp_path: Path, seeds: int) -> None:
    results = whole(3)
    results["comparison"] |= {"seeds": seeds, "note": "m was 2 with every seed."}
    del results["study"]
    page = page_of(results, tmp_path)
    several = seeds > 1
    lead, run, sure, average, compared = page.text_of("p")[:5]
    assert lead.startswith("The first of 5 seeds: of 3 members" if several else "Of 3 members")
    assert run.startswith("The first seed: the run of 600 updates" if several else "The run of")
    assert sure.startswith("The first seed: where the" if several else "Where the prediction")
    assert average.startswith("The first seed: the mean of the weights" if several else "The mean")
    assert compared.startswith("Over 5 seeds" if several else "Over 1 seed, ")
    captions = page.text_of("figcaption")
    assert len(captions) == 8 + 7
    assert sum(each.startswith("The first seed. ") for each in captions[:8]) == (
        7 if several else 0
    )
    assert captions[7].endswith("the best of each column is bold. m was 2 with every seed.")
    assert ("All of the first seed." in page.text_of("p")) == several
    results["study"] = whole(3)["study"]
    notes = page_of(results, tmp_path).text_of("p")
    told = "All of the first seed, but for “One budget, more or fewer cycles”."
    assert (told in notes) == several


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    p, y = members_of(3, 500)
    page = page_of(bare(analysis=analyze(p, y)), tmp_path)
    assert "among which nothing was chosen." in page.text_of("p")[0]
    assert "What is not here" in page.text_of("h2")
    code = page.text_of("code")
    assert "--validation-predictions" in code
    assert "cosanneal report FOLDER" in code
    assert not any("cosanneal evaluate --predictions" in each for each in code)


def comparison(metric: str, difference: float, low: float, high: float) -> dict[str, Any]:
    return {
        "metric": metric,
        "difference": difference,
        "interval": [low, high],
        "level": 0.95,
        "p_value": 0.1,
    }


@pytest.mark.parametrize(
    ("error", "loss", "said"),
    [
        (
            (-0.02, -0.03, -0.01),
            (0.1, 0.05, 0.15),
            "worse than the last snapshot alone (2.00 percentage points fewer errors, a log-loss "
            "0.1000 higher)",
        ),
        (
            (0.01, -0.01, 0.03),
            (-0.1, -0.3, 0.1),
            "better than the last snapshot alone (1.00 percentage points more errors, a log-loss "
            "0.1000 lower, which may be chance)",
        ),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), "the same as the last snapshot alone"),
        (
            (0.0, -0.01, 0.02),
            (0.0, -0.1, 0.3),
            "as good as the last snapshot alone (as many errors, the same log-loss)",
        ),
    ],
)
def test_a_difference_is_put_into_words(tmp_path: Path, error: Any, loss: Any, said: str) -> None:
    part = analysis_of(3)
    rows = [comparison("error", *error), comparison("log_loss", *loss)]
    part["comparisons_with_last_calibrated"] = rows
    lead = page_of(bare(analysis=part), tmp_path).text_of("p")[0]
    own = said.replace("snapshot alone", "snapshot alone with its own temperature")
    assert f": {own} and " in lead
    # A choice that kept none of the last one is beside it as it is.
    del part["comparisons_with_last_calibrated"], part["last_calibrated"]
    part["comparisons"] = rows
    lead = page_of(bare(analysis=part), tmp_path).text_of("p")[0]
    assert f": {said} and " in lead


def test_a_choice_worse_than_the_plain_mean_is_said_to_be(tmp_path: Path) -> None:
    part = analysis_of(3)
    rows = [comparison("error", 0.0, 0.0, 0.0), comparison("log_loss", 0.25, 0.125, 0.375)]
    part["comparisons_with_mean"] = rows
    lead = page_of(bare(analysis=part), tmp_path).text_of("p")[0]
    assert " and worse than the plain mean of all 3 members (as many errors, a log-loss " in lead
    part["choice"]["metric"] = "error"  # by which it is as good
    lead = page_of(bare(analysis=part), tmp_path).text_of("p")[0]
    assert " and as good as the plain mean of all 3 members (" in lead


@pytest.mark.parametrize("used", [1, 2])
def test_what_a_prediction_costs_is_said(tmp_path: Path, used: int) -> None:
    part = analysis_of(3)
    for i, member in enumerate(part["choice"]["members"]):
        member["weight"] = 1 / used if i < used else 0.0
    lead = page_of(bare(choice=part["choice"]), tmp_path).text_of("p")[0]
    told = "it takes one pass of the model" if used == 1 else "it takes 2 passes of the model"
    assert told in lead.split(". ")[-1]
    assert ("the weights of 2 snapshots have to be kept" in lead) == (used == 2)


def test_what_was_found_is_listed(tmp_path: Path) -> None:
    part = analysis_of(3) | {"findings": []}
    assert "What was found" not in page_of(bare(analysis=part), tmp_path).text_of("h2")
    part["findings"] = [{"name": "few-samples", "text": "Few <samples>."}]
    page = page_of(bare(analysis=part), tmp_path)
    assert "What was found" in page.text_of("h2")
    assert page.text_of("li") == ["Few <samples>."]
    # Of a folder, what its choice says.
    choice = part["choice"] | {"findings": [{"name": "members-alike", "text": "Alike."}]}
    assert page_of(bare(choice=choice), tmp_path).text_of("li") == ["Alike."]


def test_a_refused_average_is_told(tmp_path: Path) -> None:
    part = {"members": ["a", "b"], "refused": "a barrier of 3.2 lies between.", "barrier": 3.2}
    page = page_of(bare(average=part), tmp_path)
    assert page.text_of("p")[0] == (
        "The weights of 2 members were not averaged: a barrier of 3.2 lies between."
    )
    assert not (tmp_path / "report_files").exists()


def averaged(mean: tuple[float, float], *alone: tuple[float, float], **more: Any) -> dict[str, Any]:
    """The last 2 members' weights averaged; error and log-loss of the mean and of each member."""
    part = analysis_of(len(alone))
    for row, (error, loss) in zip(part["members"], alone, strict=True):
        row |= {"error": error, "log_loss": loss}
    names = [row["name"] for row in part["members"]]
    average = {"members": names[-2:], "refused": None, "error": mean[0], "log_loss": mean[1]}
    return bare(analysis=part, average=average | more)


@pytest.mark.parametrize(
    ("mean", "alone", "said"),
    [
        ((0.03, 0.1), [(0.01, 0.01), (0.04, 0.2), (0.05, 0.3)], ""),
        ((0.06, 0.4), [(0.07, 0.5), (0.04, 0.2), (0.05, 0.3)], "Each of them alone is better."),
        (
            (0.045, 0.4),
            [(0.01, 0.01), (0.04, 0.2), (0.05, 0.3)],
            "The best of them alone has a lower error (4.00 %) and a lower log-loss (0.2000). The "
            "last member alone has a lower log-loss (0.3000).",
        ),
        (
            (0.045, 0.2),
            [(0.01, 0.01), (0.05, 0.2), (0.04, 0.3)],
            "The last member alone has a lower error (4.00 %).",
        ),
        ((0.04, 0.1), [(0.01, 0.01), (0.04, 0.2), (0.04, 0.1)], ""),
    ],
)
def test_a_mean_that_is_worse_than_its_members_is_said_to_be(
    tmp_path: Path, mean: Any, alone: Any, said: str
) -> None:
    lead = page_of(averaged(mean, *alone), tmp_path).text_of("p")[2]
    has = f"has an error of {100 * mean[0]:.2f} % and a log-loss of {mean[1]:.4f}."
    assert lead.partition(has)[2].strip() == said


@pytest.mark.parametrize(
    ("barrier", "refused", "told"),
    [
        (0.171, "a barrier of 0.171 lies between them, where 0.0177 is allowed", "0.171"),
        (None, "a barrier that is not finite lies between them, where 0.0177 is allowed", "not f"),
        (0.0176, None, "0.0176"),
    ],
)
def test_a_mean_that_would_be_refused_is_said_to_be(
    tmp_path: Path, barrier: float | None, refused: str | None, told: str
) -> None:
    more = {"barrier": barrier, "allowed": 0.0177, "picked_on": 500}
    page = page_of(averaged((0.1, 0.1), (0.2, 0.2), (0.2, 0.2), (0.2, 0.2), **more), tmp_path)
    lead, captions = page.text_of("p")[2], " ".join(page.text_of("figcaption"))
    assert ("By default they would not be averaged" in lead) == bool(refused)
    assert refused is None or refused in lead
    assert "Their number was picked on 500 validation samples." in captions
    assert f"The highest barrier between them is {told}" in captions
    assert "by default 0.0177 is allowed" in captions


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [("A", 0.02, 0.1), ("B", 0.03, 0.2)],
            "“A” has the least mean test error (2.00 %) and log-loss (0.1000).",
        ),
        (
            [("A", 0.02, 0.2), ("B", 0.03, 0.1)],
            "“A” has the least mean test error (2.00 %) and “B” has the least mean test log-loss "
            "(0.1000).",
        ),
        # Of those with the least error, the one with the least log-loss too.
        (
            [("A", 0.02, 0.2), ("B", 0.02, 0.1)],
            "“B” has the least mean test error (2.00 %) and log-loss (0.1000).",
        ),
    ],
)
def test_the_best_in_both_scores_is_named_once(tmp_path: Path, rows: Any, said: str) -> None:
    part = {
        "seeds": 3,
        "rows": [
            {
                "model": model,
                "test_error": {"mean": error, "std": None},
                "test_nll": {"mean": nll, "std": None},
            }
            for model, error, nll in rows
        ],
    }
    assert page_of(bare(comparison=part), tmp_path).text_of("p")[0] == f"Over 3 seeds, {said}"


def test_one_is_no_plural(tmp_path: Path) -> None:
    analysis = analyze([[[0.9, 0.1]], [[0.8, 0.2]]], [0])
    with pytest.warns(UserWarning, match="chosen on 1"):
        choice = fit([[[0.9, 0.1]], [[0.8, 0.2]]], [0], temperature=False)
    parts = [
        bare(analysis=analysis, interpolations=whole(2)["interpolations"]),
        bare(
            choice=choice.to_dict(),
            run={"rate": [0.1], "loss": None, "cycle_ends": [0]},
            study=whole(2)["study"] | {"updates": 1},
        ),
        bare(analysis=analyze([[[0.9, 0.1]], [[0.8, 0.2]]], [0], choice=choice)),
        bare(
            snapshots=[
                {
                    "name": "a",
                    "cycle": 0,
                    "step": 1,
                    "rate": 0.1,
                    "metrics": {f"metric {i}": 1.0 for i in range(7)},
                }
            ]
        ),
    ]
    for results in parts:
        page = page_of(results, tmp_path)
        texts = [text for tag, text in page.texts if tag in ("p", "figcaption", "td", "th")]
        texts += [each["aria-label"] or "" for each in page.all_of("svg") if "aria-label" in each]
        assert not re.search(
            r"(?<![0-9.,])1 (validation samples|samples|snapshots|updates|pairs|more stand)\b",
            " ".join(texts),
        )


def test_how_sure_the_prediction_is_is_said(tmp_path: Path) -> None:
    part = uncertainty_of(3)
    lead, *_ = page_of(bare(uncertainty=part), tmp_path).text_of("p")
    row = part["selective"]["rows"][0]
    share = 100 * part["mutual_information"] / part["entropy"]
    sets = part["conformal"][0]
    best = max(part["ood"]["rows"], key=lambda each: each["auroc"])
    assert lead == (
        "Where the prediction is the surest, of 80 % of all, "
        f"{100 * row['risk_at_coverage']:.2f} % are wrong; an error rate of at most 5 % can be "
        f"kept for {100 * row['coverage_at_risk']:.2f} % of all. {share:.0f} % of its entropy "
        "comes from members that differ; the rest each of them has by itself. Sets of classes "
        "that promise to hold the true one in 90 % of all cases held it in "
        f"{100 * sets['coverage']:.2f} %, with {sets['size']:.2f} classes on average. 300 samples "
        f"from out of distribution are told best by the {OOD_SCORES[best['score']]}, with an AUROC "
        f"of {100 * best['auroc']:.2f} %."
    )
    alone = uncertainty_of(1, outside=False)
    lead, *_ = page_of(bare(uncertainty=alone), tmp_path).text_of("p")
    assert "members that differ" not in lead
    assert "out of distribution" not in lead
    missing = page_of(bare(analysis=analysis_of(2)), tmp_path).text_of("code")
    assert "cosanneal.ensemble.analyze_uncertainty" in missing
