"""`cosanneal evaluate`, called as a user would, beside the library's own functions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cosanneal.ensemble import (
    Choice,
    analyze,
    analyze_uncertainty,
    brier_score,
    calibration_error,
    compare_scores,
    error_rate,
    fit,
    log_loss,
    pool,
    sample_scores,
)
from cosanneal.snapshots.metadata import without_nan
from tests.shared.calling import Command

EVALUATE = Command("evaluate")
call, json_of, error_of = EVALUATE.call, EVALUATE.json_of, EVALUATE.error_of

Data = dict[str, tuple[NDArray[Any], NDArray[Any]]]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    """Twelve members' predictions in files, for validation and for test samples."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    found: Data = {}
    for part, samples in (("val", 1200), ("test", 400)):
        y = random.integers(3, size=samples)
        noise = np.linspace(4, 2, 12)[:, None, None]
        p = np.exp(2 * np.eye(3)[y] + noise * random.normal(size=(12, samples, 3)))
        p /= p.sum(-1, keepdims=True)
        found[part] = p, y
        Path(part).mkdir()
        np.save(f"{part}/y.npy", y)
        for i, member in enumerate(p):
            np.save(f"{part}/m{i}.npy", member)
    return found


TEST = ("--predictions", "test/m*.npy", "--labels", "test/y.npy")
VALIDATION = ("--validation-predictions", "val/m*.npy", "--validation-labels", "val/y.npy")


def scores(p: NDArray[Any], y: NDArray[Any]) -> dict[str, float]:
    return {
        "error": error_rate(p, y),
        "log_loss": log_loss(p, y),
        "brier": brier_score(p, y),
        "ece": calibration_error(p, y),
    }


def test_members_and_ensembles_are_scored_in_order(data: Data) -> None:
    p, y = data["test"]
    document = json_of(*TEST)
    assert document["samples"] == 400
    assert [row["name"] for row in document["members"]] == [f"m{i}" for i in range(12)]
    for row, member in zip(document["members"], p, strict=True):
        assert {name: row[name] for name in ("error", "log_loss", "brier", "ece")} == scores(
            member, y
        )
    assert [row["last"] for row in document["ensembles"]] == list(range(2, 13))
    for row in document["ensembles"]:
        expected = scores(p[-row["last"] :].mean(0), y)
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    assert document["choice"] is None
    assert document["chosen"] is None
    for row in document["comparisons"]:
        both = [sample_scores(row["metric"], each, y) for each in (pool(p), p[-1])]
        found = compare_scores(*both)
        assert row["difference"] == pytest.approx(found.difference, rel=1e-9)
        assert row["interval"] == pytest.approx(found.interval, rel=1e-9)
        assert row["p_value"] == pytest.approx(found.p_value, rel=1e-9)


@pytest.mark.parametrize("select", ["last", "greedy", "weights"])
def test_the_choice_is_made_on_the_validation_data_alone(data: Data, select: Any) -> None:
    p, y = data["test"]
    document = json_of(*TEST, *VALIDATION, "--select", select, "--save", "choice.json")
    names = [f"m{i}" for i in range(12)]
    expected = fit(*data["val"], select=select, names=names)
    assert document["choice"] == expected.to_dict()
    assert Choice.load("choice.json") == expected
    shown = analyze(p, y, choice=expected)
    shown["uncertainty"] = analyze_uncertainty(p, y, choice=expected, held_out=data["val"])
    for row, name in zip(shown["members"], names, strict=True):
        row["file"] = str(Path("test") / f"{name}.npy")
    assert document == shown
    assert document["chosen"] == pytest.approx(scores(expected.apply(p), y), rel=1e-12)
    np.save("poisoned.npy", (y + 1) % 3)
    poisoned = json_of(*TEST[:2], "--labels", "poisoned.npy", *VALIDATION, "--select", select)
    assert poisoned["choice"] == document["choice"]
    assert poisoned["chosen"]["error"] > document["chosen"]["error"]


def test_options_reach_the_choice(data: Data) -> None:
    document = json_of(*TEST, *VALIDATION, "--metric", "brier", "--no-temperature", "--seed", 5)
    expected = fit(
        *data["val"],
        metric="brier",
        temperature=False,
        seed=5,
        names=[f"m{i}" for i in range(12)],
    )
    assert document["choice"] == expected.to_dict()


def test_a_budget_is_chosen_and_said(data: Data) -> None:
    document = json_of(*TEST, *VALIDATION, "--select", "weights", "--budget", 1.5)
    names = [f"m{i}" for i in range(12)]
    expected = fit(*data["val"], select="weights", budget=1.5, names=names)
    assert expected.budget is not None
    assert document["choice"] == expected.to_dict()
    (own,) = (row for row in document["passes"] if row["care"] == expected.care)
    exact = document["passes"][-1]
    assert 1.3 < own["passes"] < 1.7 < exact["passes"]
    said = call(*TEST, *VALIDATION, "--select", "weights", "--budget", 1.5, "--report", "a.html")
    assert said.exit_code == 0
    assert (
        f"With a budget of 1.5 members a sample: {own['passes']:.2f} and {100 * own['error']:.2f} "
        f"% errors, beside {exact['passes']:.2f} and {100 * exact['error']:.2f} % for exact "
        "classes."
    ) in " ".join(said.stdout.split())
    assert "For classes alone, a budget of 1.5" in Path("a.html").read_text(encoding="utf-8")
    assert error_of(*TEST, *VALIDATION, "--budget", 0.5) == (
        "Option --budget must be a finite number of at least 1, the mean number of members that "
        "are run on a sample. Received: --budget=0.5"
    )
    for options in ((*TEST, "--budget", 2), (*TEST, *VALIDATION, "--regression", "--budget", 2)):
        assert "Option --budget must be given for classes, with" in error_of(*options)


def test_logits_that_are_probabilities_are_said(data: Data) -> None:
    result = call(*TEST, "--logits", "--json")
    assert result.exit_code == 0
    assert result.stderr == (
        "Note: The outputs are taken for logits, and their softmax for probabilities, though they "
        "lie in [0, 1] and sum to 1 along axis -1 already. If they are probabilities, leave out "
        "--logits.\n"
    )
    assert len(data) == 2


def test_logits_of_more_than_two_axes_need_a_class_axis(data: Data) -> None:
    y = np.random.default_rng(0).integers(3, size=(4, 5, 6))
    np.save("y.npy", y)
    np.save("z.npy", np.random.default_rng(1).normal(size=(4, 3, 5, 6)))
    given = ("--predictions", "z.npy", "--labels", "y.npy", "--logits")
    assert (
        "--class-axis must be given for logits of more than two axes. Received: (4, 3, 5, 6)"
        in (error_of(*given))
    )
    assert json_of(*given, "--class-axis", "1")["samples"] == 4
    assert len(data) == 2


def test_logits_that_are_no_numbers_name_their_file(data: Data) -> None:
    p, _ = data["test"]
    z = np.log(p[0])
    z[3, 1] = np.nan
    np.save("test/m3.npy", z)
    assert "NaN or infinity from test/m3.npy; leave the file out" in error_of(*TEST, "--logits")


def test_logits_dense_outputs_and_outcomes(data: Data) -> None:
    p, y = data["test"]
    Path("other").mkdir()
    for i in range(3):
        np.save(f"other/logits{i}.npy", np.log(p[i]) + 7)
        np.save(f"other/dense{i}.npy", np.moveaxis(p[i].reshape(80, 5, 3), -1, 1))
        np.save(f"other/one{i}.npy", p[i, :, 0])
    np.save("other/y_dense.npy", y.reshape(80, 5))
    np.save("other/y_one.npy", (y == 0).astype(np.int8))
    plain = scores(p[:3].mean(0), y)
    found = json_of("--predictions", "other/logits*.npy", "--labels", "test/y.npy", "--logits")
    last = found["ensembles"][-1]
    assert {name: last[name] for name in plain} == pytest.approx(plain, rel=1e-9)
    found = json_of(
        *("--predictions", "other/dense*.npy", "--labels", "other/y_dense.npy"),
        *("--class-axis", 1),
    )
    last = found["ensembles"][-1]
    assert {name: last[name] for name in plain} == pytest.approx(plain, rel=1e-9)
    found = json_of("--predictions", "other/one*.npy", "--labels", "other/y_one.npy", "--outcomes")
    expected = scores(p[:3, :, 0].mean(0), (y == 0).astype(int))
    last = found["ensembles"][-1]
    assert {name: last[name] for name in expected} == pytest.approx(expected, rel=1e-9)


def test_several_patterns_keep_their_order_and_one_member_is_enough(data: Data) -> None:
    document = json_of("--predictions", "test/m5.npy", *TEST)
    assert [row["name"] for row in document["members"]][:2] == ["test/m5.npy", "test/m0.npy"]
    one = json_of("--predictions", "test/m5.npy", "--labels", "test/y.npy")
    assert one["ensembles"] == one["comparisons"] == []
    assert data["test"][1].shape == (400,)


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("option", ["--predictions", "--validation-predictions"])
def test_a_pattern_that_the_shell_matched_is_refused_with_what_to_do(option: str) -> None:
    files = [str(path) for path in sorted(Path("test").glob("m*.npy"))]
    found = error_of(*TEST, *VALIDATION, option, *files)
    assert found == (
        "Options --predictions and --validation-predictions must each be followed by one pattern. "
        "Received: 'test/m1.npy' and 10 more after it; quote a pattern, as in 'test/*.npy', so "
        "that the shell hands it on as it is"
    )
    assert "Received: 'test/m1.npy'; quote" in error_of(*TEST, *VALIDATION, option, *files[:2])


def test_a_file_is_found_by_a_name_that_looks_like_a_pattern(data: Data) -> None:
    p, _ = data["test"]
    # As patterns, the first would match the second, and the third nothing.
    for i, name in enumerate(("[m]", "m", "[!]a*?")):
        np.save(f"{name}.npy", p[i])
    options = ("--predictions", "[m].npy", "--predictions", "[!]a*?.npy", *TEST[2:])
    members = json_of(*options)["members"]
    assert [row["name"] for row in members] == ["[m]", "[!]a*?"]
    assert [row["file"] for row in json_of("--predictions", "[[]m].npy", *TEST[2:])["members"]] == [
        "[m].npy"
    ]


@pytest.mark.usefixtures("data")
def test_the_table_reads_well_in_80_columns() -> None:
    result = call(*TEST, *VALIDATION)
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "400 samples, 12 members."
    document = json_of(*TEST, *VALIDATION)
    for row in document["members"]:
        # Not one that goes on with the weights of the choice.
        (line,) = (line for line in lines if line.startswith(f"  {row['name']} "))
        assert line.split()[1:] == [
            f"{100 * row['error']:.2f}",
            f"{row['log_loss']:.4f}",
            f"{row['brier']:.4f}",
            f"{100 * row['ece']:.2f}",
        ]
    assert any(re.match(r"  Mean of the last 12 ", line) for line in lines)
    (chosen,) = (line for line in lines if line.startswith("  Chosen: the last "))
    assert f"{document['chosen']['log_loss']:.4f}" in chosen
    assert any(line.startswith("The choice minus the last member") for line in lines)
    assert "Chosen by log-loss on 1200 other samples: " in result.stdout
    bare = call(*TEST)
    assert "Nothing was chosen" in bare.stdout
    assert "The mean of all minus the last member" in bare.stdout


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_help_breaks_no_choice(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    words = re.findall(r"[\w-]+", call("--help").stdout)
    assert {"HOW", "last", "greedy", "weights", "SCORE", "log_loss", "brier", "error"} <= {*words}


def test_labels_count_as_the_options_say(data: Data) -> None:
    (held_out, truth), (p, y) = data["val"], data["test"]
    random = np.random.default_rng(1)
    names = np.array(["ant", "bee", "cat"])
    masks = {"val": random.random(1200) < 0.9, "test": random.random(400) < 0.8}
    weights = {"val": random.exponential(size=1200), "test": random.exponential(size=400)}
    for part, labels in (("val", truth), ("test", y)):
        np.save(f"{part}/names.npy", names[labels])
        np.save(f"{part}/keep.npy", masks[part])
        np.save(f"{part}/w.npy", weights[part])
    Path("classes.txt").write_text("ant\nbee\ncat\n")
    Path("classes.json").write_text('["ant", "bee", "cat"]')
    given = (
        *("--predictions", "test/m*.npy", "--labels", "test/names.npy"),
        *("--validation-predictions", "val/m*.npy", "--validation-labels", "val/names.npy"),
        *("--mask", "test/keep.npy", "--sample-weight", "test/w.npy"),
        *("--validation-mask", "val/keep.npy", "--validation-sample-weight", "val/w.npy"),
    )
    choice = fit(
        held_out,
        truth,
        names=[f"m{i}" for i in range(12)],
        metric="macro_f1_error",
        mask=masks["val"],
        sample_weight=weights["val"],
    )
    options: dict[str, Any] = {"mask": masks["test"], "sample_weight": weights["test"]}
    expected = analyze(p, y, choice=choice, **options)
    for file in ("classes.txt", "classes.json"):
        document = json_of(*given, "--classes", file, "--metric", "macro_f1_error")
        for row in document["members"]:
            row.pop("file")
        sure = document.pop("uncertainty")
    assert sure["samples"] == expected["samples"]
    assert document == without_nan(expected)
    result = call(*given, "--classes", "classes.txt", "--metric", "macro_f1_error")
    assert result.exit_code == 0
    assert "macro_f1_error" in result.stdout
    assert f"{expected['chosen']['metrics']['macro_f1_error']:.4f}" in result.stdout
    assert "Chosen by macro F1 error (1 less F1) on" in result.stdout.replace("\n", " ")
    np.save("test/y.npy", np.where(masks["test"], y, 255))
    ignored = json_of(*TEST, "--ignore-index", 255)
    assert ignored["members"][0]["error"] == error_rate(p[0], y, mask=masks["test"])
    numbers = Path("numbers.txt")
    numbers.write_text("0\n1\n2\n")
    assert json_of(*TEST, "--ignore-index", 255, "--classes", numbers) == ignored


def test_what_labels_cannot_be_is_said_in_options(data: Data) -> None:
    y = data["test"][1]
    np.save("short.npy", np.ones(7))
    np.save("names.npy", np.array(["ant", "bee", "owl"])[y])
    Path("classes.txt").write_text("ant\nbee\ncat\n")
    Path("classes.json").write_text('{"ant": 0}')
    Path("broken.json").write_text("[")
    np.save("holes.npy", np.where(y, y, -1))
    cases: list[tuple[tuple[str, ...], str]] = [
        (("--sample-weight", "short.npy"), r"Option --sample-weight must be of the labels' shape"),
        (("--mask", "short.npy"), r"Option --mask must be of the labels' shape \(400,\)"),
        (("--mask", "none.npy"), r"none.npy could not be read"),
        (("--validation-mask", "short.npy"), r"--validation-mask must be given with --validation-"),
        (("--labels", "names.npy"), r"The labels must be .*; name them by --classes, in the order"),
        (("--labels", "holes.npy"), r"leave labels out by --ignore-index=-1, if it means"),
        (
            ("--labels", "names.npy", "--classes", "classes.txt"),
            r"The labels must be among those of --classes. Received: 'owl' at labels\[\d+\]",
        ),
        (("--classes", "classes.json"), r"classes.json must be a list of texts or integers"),
        (("--classes", "broken.json"), r"broken.json could not be read as a list of names"),
        (("--classes", "none.txt"), r"none.txt could not be read"),
        (("--classes", "test/y.npy"), r"test/y.npy could not be read as a list of names"),
    ]
    for given, message in cases:
        assert re.search(message, error_of(*TEST, *given)), given
    message = (
        r"^Option --metric must be one of .*'top5_error' with any number. Received: --metric=auc$"
    )
    assert re.search(message, error_of(*TEST, *VALIDATION, "--metric", "auc"))


def test_another_model_is_compared_with(data: Data, tmp_path: Path) -> None:
    (p, y), (held_out, truth) = data["test"], data["val"]
    np.save("other.npy", p[11])
    np.save("before.npy", held_out[11])
    for i in range(10, 12):  # of which the other model is none
        Path(f"test/m{i}.npy").unlink()
        Path(f"val/m{i}.npy").unlink()
    names = [f"m{i}" for i in range(10)]
    choice = fit(held_out[:10], truth, names=names, baseline=held_out[11])
    expected = analyze(p[:10], y, choice=choice, baseline=p[11])
    given = ("--baseline", "other.npy", "--validation-baseline", "before.npy")
    document = json_of(*TEST, *VALIDATION, *given)
    for part in ("baseline", "comparisons_with_baseline", "choice", "findings"):
        assert document[part] == expected[part]
    shown = call(*TEST, *VALIDATION, *given, "--report", "page.html").stdout
    assert re.search(r"^ +Baseline +", shown, re.MULTILINE)
    (row,) = (row for row in expected["comparisons_with_baseline"] if row["metric"] == "log_loss")
    told = shown[shown.index("The choice minus the baseline, with the 95 % interval:") :]
    assert f"Log-loss {row['difference']:+8.4f}" in told
    assert ">The baseline</th>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    without = json_of(*TEST, "--baseline", "other.npy")
    assert (
        without["comparisons_with_baseline"]
        == analyze(p[:10], y, baseline=p[11])["comparisons_with_baseline"]
    )


def test_a_baseline_that_does_not_fit_is_refused(data: Data) -> None:
    np.save("few.npy", data["test"][0][0][:7])
    np.save("logits.npy", 9 * data["test"][0][0])
    assert re.search(
        r"^Option --baseline must be .* a member's, \(400, 3\)\. Received: \(7, 3\) in few\.npy$",
        error_of(*TEST, "--baseline", "few.npy"),
    )
    assert "Option --validation-baseline must be one model's" in error_of(
        *TEST, *VALIDATION, "--validation-baseline", "few.npy"
    )
    assert error_of(*TEST, "--baseline", "logits.npy").startswith("logits.npy: ")
    assert "--validation-baseline must be given with --validation-predictions" in error_of(
        *TEST, "--validation-baseline", "few.npy"
    )


def test_what_was_found_is_shown_within_the_terminal(data: Data) -> None:
    random = np.random.default_rng(1)
    for part, (p, _) in data.items():
        for i in range(6):  # which know nothing, and are sure of it
            p[i] = random.dirichlet(np.full(3, 0.1), size=p.shape[1])
            np.save(f"{part}/m{i}.npy", p[i])
    (p, y), (held_out, truth) = data["test"], data["val"]
    names = [f"m{i}" for i in range(12)]
    choice = fit(held_out, truth, names=names)
    found = analyze(p, y, choice=choice)["findings"]
    assert "early-members-worse" in [finding["name"] for finding in found]
    assert json_of(*TEST, *VALIDATION)["findings"] == found
    shown = call(*TEST, *VALIDATION).stdout
    assert "\nFound:\n" in shown
    assert max(map(len, shown.splitlines())) <= 80
    text = " ".join(shown.split())
    assert all(f"- {finding['text']}" in text for finding in found)
    # A choice that was saved says again what it was found on.
    choice.save("choice.json")
    assert json_of(*TEST, "--choice", "choice.json")["findings"] == found


@pytest.mark.usefixtures("data")
def test_nothing_is_found_where_there_is_nothing_to_say() -> None:
    for i in range(6):  # members of nearly one quality are left
        Path(f"test/m{i}.npy").unlink()
    assert json_of(*TEST)["findings"] == []
    assert "Found:" not in call(*TEST).stdout


def test_few_validation_samples_give_a_note(data: Data) -> None:
    p, y = data["val"]
    for i, member in enumerate(p):
        np.save(f"val/m{i}.npy", member[:100])
    np.save("val/y.npy", y[:100])
    result = call(*TEST, *VALIDATION)
    assert result.exit_code == 0
    assert result.stderr.startswith("Note: The ensemble was chosen on 100 validation samples")
    assert result.stderr.count("\n") == 1


def test_one_sample_is_written_as_one(data: Data) -> None:
    p, y = data["test"]
    for i in range(2):
        Path(f"one{i}").mkdir()
        np.save(f"one{i}/m.npy", p[0, i : i + 1])
        np.save(f"one{i}/y.npy", y[i : i + 1])
    result = call(
        *("--predictions", "one0/m.npy", "--labels", "one0/y.npy", "--no-temperature"),
        *("--validation-predictions", "one1/m.npy", "--validation-labels", "one1/y.npy"),
        *("--report", "page.html"),
    )
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("1 sample, 1 member.\n")
    assert "Chosen by log-loss on 1 other sample: m 1.000." in result.stdout
    assert "Note: The ensemble was chosen on 1 validation sample, fewer than 1000" in result.stderr
    assert "<h1>1 member on 1 sample</h1>" in Path("page.html").read_text(encoding="utf-8")


def test_bad_files_are_refused_by_name(data: Data) -> None:
    p, y = data["test"]
    np.save("short.npy", p[0, :7])
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez("archive.npz", p=p)
    Path("text.npy").write_text("no array")
    Path("empty.npy").touch()
    Path("zip.npy").write_bytes(b"PK\x03\x04")
    written = Path("test/m0.npy").read_bytes()
    Path("cut.npy").write_bytes(written[:-1])
    large = written.replace(b"(400, 3), }".ljust(32), f"({10**20 - 1}, 3), }}".ljust(32).encode())
    assert len(large) == len(written)
    assert large != written
    Path("large.npy").write_bytes(large)
    np.save("logits.npy", np.log(p[0]))
    np.save("sums.npy", p[0] / 2)
    np.save("flat.npy", p[0, :, :1])
    np.save("floats.npy", y + 0.5)
    labels = ("--labels", "test/y.npy")
    for pattern, message in {
        "none*.npy": r"Option --predictions must match .* 'none\*.npy', which matches none from ",
        "objects.npy": r"objects.npy could not be read as a .npy file of numbers: .*Python objects",
        "cut.npy": r"cut.npy could not be read as a .npy file of numbers: ",
        "large.npy": r"large.npy could not be read as a .npy file of numbers: ",
        "text.npy": r"text.npy must be a .npy file of numbers. Received: another kind of file; "
        r"save the array with numpy.save$",
        "empty.npy": r"empty.npy must be a .npy file of numbers. Received: an empty file; save",
        "archive.npz": r"archive.npz must be a .npy file of one array. Received: a .npz archive, "
        "of several; save the one that is meant, with numpy.save",
        "zip.npy": r"zip.npy must be a .npy file of one array. Received: a .npz archive",
        "test": r"^test could not be read: it is no regular file; give the array's own file$",
        "logits.npy": r"logits.npy: The probabilities must be between 0 and 1. Received: from "
        r"-[0-9.]+ to -?[0-9.e-]+; if they are logits, give --logits$",
        "sums.npy": r"sums.npy: The probabilities must sum to 1 along the class axis -1. Received: "
        r"sums from .*; for outcomes that each happen or not \(multi-label\) give --outcomes$",
        "short.npy": r"y.npy, for short.npy: Probabilities and labels must have shapes .*Received: "
        r"\(7, 3\) and \(400,\)",
    }.items():
        assert re.search(message, error_of("--predictions", pattern, *labels))
    found = error_of(*TEST, "--predictions", "short.npy")
    assert re.search(
        r"one shape. Received: \(7, 3\) in short.npy, after \(400, 3\) in test/m0", found
    )
    for name in ("flat.npy", "test/y.npy"):
        found = error_of("--predictions", name, *labels, "--logits")
        assert f"{name}: Logits must have at least two classes along the class axis -1" in found
        assert found.endswith(
            "); for numbers that each stand for an outcome of their own (binary, "
            "multi-label) give --outcomes"
        )
    assert "floats.npy, for test/m0.npy: The labels must be integers" in error_of(
        *TEST[:2], "--labels", "floats.npy"
    )
    assert error_of(*TEST, "--outcomes").startswith(
        "test/y.npy, for test/m0.npy: Probabilities and labels must have one shape, with at least "
    )
    missing = error_of(*TEST[:2], "--labels", "none.npy")
    assert missing == "none.npy could not be read: No such file or directory"
    np.save("names.npy", y.astype(str))
    assert "names.npy, for test/m0.npy: The labels must be integers" in error_of(
        *TEST[:2], "--labels", "names.npy"
    )


@pytest.mark.usefixtures("data")
def test_options_that_do_not_fit_are_refused() -> None:
    for arguments in (VALIDATION[:2], VALIDATION[2:]):
        assert error_of(*TEST, *arguments, "--save", "x.json") == (
            "Options --validation-predictions and --validation-labels must be given together. "
            f"Received: {arguments[0]} alone"
        )
    assert error_of(*TEST, "--save", "x.json") == (
        "Option --save must be given with --validation-predictions and --validation-labels, on "
        "which the choice is made. Received: neither of them"
    )
    found = error_of(*TEST, "--validation-predictions", "val/m1.npy", *VALIDATION[2:])
    assert "must match the same members. Received: 12 files and 1" in found
    same = [option.replace("val/", "test/") for option in VALIDATION]
    assert re.search(
        r"must not be those that are reported.*test/m\d+.npy as both", error_of(*TEST, *same)
    )
    assert error_of(*TEST, *VALIDATION, "--select", "weights", "--metric", "error") == (
        "Option --metric must be log_loss for --select=weights, which finds the least one. "
        "Received: --metric=error"
    )
    assert "could not be written" in error_of(*TEST, *VALIDATION, "--save", "missing/x.json")


@pytest.mark.parametrize("option", ["--predictions", "--labels", "--save", "--report"])
@pytest.mark.usefixtures("data")
def test_a_url_is_no_file(option: str) -> None:
    there = sorted(Path().iterdir())
    said = error_of(*TEST, *VALIDATION, option, "s3://bucket/x.html")
    assert "a URL, which is taken for folders of snapshots alone" in said
    assert sorted(Path().iterdir()) == there


@pytest.mark.parametrize("of_snapshots", [False, True])
def test_a_choice_that_was_saved_is_scored_on_other_data(data: Data, of_snapshots: bool) -> None:
    made = json_of(*TEST, *VALIDATION, "--select", "weights", "--save", "choice.json")
    if of_snapshots:  # as SnapshotEnsemble.save writes it, whose predictions were put into files
        text = Path("choice.json").read_text()
        Path("choice.json").write_text(re.sub(r'"(m\d+)"', r'"\1.safetensors"', text))
    again = json_of(*TEST, "--choice", "choice.json")
    assert again["chosen"] == made["chosen"]
    weights = [[each["weight"] for each in one["choice"]["members"]] for one in (made, again)]
    assert weights[0] == weights[1]
    p, y = data["val"]
    known = ("--predictions", "val/m*.npy", "--labels", "val/y.npy", "--choice", "choice.json")
    result = call(*known, "--json")
    assert "seem to be those that the ensemble was chosen on" in " ".join(result.stderr.split())
    other = json.loads(result.stdout)
    wanted = scores(Choice.load("choice.json").apply(p), y)
    assert other["chosen"] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.usefixtures("data")
def test_a_choice_among_others_is_refused() -> None:
    json_of(*TEST, *VALIDATION, "--save", "choice.json")
    chosen = ("--choice", "choice.json")
    assert "without validation data" in error_of(*TEST, *VALIDATION, *chosen)
    few = ("--predictions", "test/m1.npy", "--labels", "test/y.npy")
    said = error_of(*few, *chosen)
    assert "one among ('m0', 'm1', 'm2'" in said
    assert said.endswith("for ('m1',)")
    said = error_of(*TEST, *chosen, "--class-axis", "1")
    assert "made with --class-axis -1; give that here too" in said
    assert "none.json could not be read" in error_of(*TEST, "--choice", "none.json")
