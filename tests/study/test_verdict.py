"""What a study's runs say, and its document, page and command."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cosanneal.core.errors import StudyError
from cosanneal.study import read_study, sentences, summarize, write_page, write_study
from cosanneal.study.verdict import student
from tests.shared.calling import Command


def made(losses: dict[int, list[float]]) -> dict[str, Any]:
    """A document whose fitted ensembles have these log-losses, seed by seed."""

    def score(loss: float, passes: int) -> dict[str, Any]:
        return {"error": loss / 10, "log_loss": loss, "passes": passes}

    return {
        **{"format": "cosanneal.study", "version": 1, "title": "A task", "cosanneal": "0"},
        **{"updates": 1200, "select": "last", "failed": []},
        "runs": [
            {
                **{"cycles": cycles, "seed": seed, "seconds": 1.5, "members": cycles},
                **{"samples": {"validation": 10, "test": 10}, "validation_nll": loss},
                "last": score(loss + 0.1, 1),
                "mean": score(loss + 0.2, cycles),
                "fitted": score(loss, cycles),
            }
            for cycles, found in losses.items()
            for seed, loss in enumerate(found)
        ],
    }


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 30, 101])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_students_t_is_scipys(degrees: int, level: float) -> None:
    assert student(degrees, level) == pytest.approx(stats.t.ppf((1 + level) / 2, degrees), rel=1e-9)


def test_the_interval_is_that_of_the_paired_differences() -> None:
    cosine, cycles = [0.5, 0.7, 0.6], [0.45, 0.61, 0.54]
    row = next(each for each in summarize(made({1: cosine, 3: cycles})) if each["cycles"] == 3)
    paired = np.subtract(cycles, cosine)
    low, high = stats.t.interval(0.95, 2, paired.mean(), stats.sem(paired))
    assert row["log_loss"]["interval"] == pytest.approx([low, high], rel=1e-9)
    assert row["log_loss"]["stderr"] == pytest.approx(stats.sem(paired), rel=1e-12)


@pytest.mark.parametrize(
    ("cycles", "begins"),
    [
        ([0.4, 0.51, 0.6], "It pays here. "),
        ([0.6, 0.71, 0.8], "It does not pay here. "),
        ([0.4, 0.71, 0.6], "It is not shown that it pays here. "),
    ],
)
def test_the_sentence_follows_the_interval(cycles: list[float], begins: str) -> None:
    told = sentences(made({1: [0.5, 0.6, 0.7], 3: cycles}))
    assert told[0].startswith(begins)
    assert "Best on the validation data are 3 cycles. With these, the fitted" in told[0]
    assert "takes 3 forward passes in place of one" in told[0]
    assert "interval (Student's t) from" in told[1]


def test_the_number_of_cycles_is_chosen_on_the_validation_data() -> None:
    results = made({1: [0.5, 0.6], 2: [0.4, 0.5], 3: [0.3, 0.4]})
    for run in results["runs"]:
        run["validation_nll"] = 0.1 if run["cycles"] == 2 else 0.2
    assert "are 2 cycles." in sentences(results)[0]


def test_what_is_the_same_to_all_digits_is_said_to_be() -> None:
    told = sentences(made({1: [0.5, 0.6, 0.7], 3: [0.50001, 0.59999, 0.7]}))
    assert "is the same to 4 digits as that of one cosine" in told[0]
    assert "its error is the same to 2 digits." in told[0]


def test_one_seed_has_no_interval_and_no_answer() -> None:
    results = made({1: [0.5], 2: [0.1]})
    assert [row["log_loss"]["interval"] for row in summarize(results)] == [None] * 4
    told = sentences(results)
    assert told[0].startswith("It is not shown that it pays")
    assert told[1].startswith("There is one seed only")


def test_without_a_pair_there_is_nothing_to_say() -> None:
    with pytest.raises(StudyError, match="both a run of one cycle and one of several"):
        summarize(made({1: [], 2: [0.1]}))


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (["runs", 0, "fitted", "error"], 1.5, r"runs\[0\].fitted.error"),
        (["runs", 0, "fitted", "log_loss"], None, r"runs\[0\].fitted.log_loss"),
        (["runs", 1, "last", "passes"], 7, r"runs\[1\].last.passes"),
        (["runs", 1, "members"], 5, r"runs\[1\].members"),
        (["runs", 0, "samples", "test"], 0, r"runs\[0\].samples.test"),
        (["runs", 0, "seed"], -1, r"runs\[0\].seed"),
        (["updates"], 0, "updates"),
        (["select"], "best", "select"),
        (["title"], 3, "title"),
        (["failed"], [{"cycles": 1, "seed": 0, "error": "x"}], "runs"),
    ],
)
def test_a_bad_field_is_named(path: list[Any], value: Any, field: str, tmp_path: Path) -> None:
    results = made({1: [0.5], 2: [0.1]})
    write_study(results, tmp_path / "results.json")
    assert read_study(tmp_path / "results.json") == results
    part: Any = (bad := copy.deepcopy(results))
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    (tmp_path / "bad.json").write_text(json.dumps(bad))
    with pytest.raises(StudyError, match=f"bad.json: in '{field}': must be"):
        read_study(tmp_path / "bad.json")


def test_the_command_fits_80_columns_and_writes_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    results = made({1: [0.5, 0.6, 0.7], 3: [0.4, 0.51, 0.6], 10: [0.6, 0.6, 0.9]})
    write_study(results, "results.json")
    text = Command("study").text_of("results.json", "--page", "page.html", "--title", "<b>Mine")
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert (
        " ".join(text.split()).count("It pays here. Best on the validation data are 3 cycles.") == 1
    )
    (row,) = [line for line in text.splitlines() if "10 cycles: last alone" in line]
    assert row.split()[4:6] == ["8.00", "0.8000"]
    assert row.split()[-1] == "1.0"
    page = Path("page.html").read_text()
    assert "<h1>&lt;b&gt;Mine</h1>" in page
    assert "It pays here. Best on the validation data are 3 cycles." in page
    assert sorted(file.name for file in Path("page_files").iterdir()) == ["study.png", "study.svg"]


def test_a_page_of_one_seed(tmp_path: Path) -> None:
    files = write_page(made({1: [0.5], 2: [0.1]}), tmp_path / "page.html")
    assert [file.name for file in files] == ["page.html", "study.png", "study.svg"]
    assert "one seed has no interval" in files[0].read_text()
