"""`cosanneal evaluate --regression`, beside the library's own functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosanneal.ensemble import Choice, analyze_regression, fit_regression
from tests.shared.calling import Command

EVALUATE = Command("evaluate")
call, json_of, error_of = EVALUATE.call, EVALUATE.json_of, EVALUATE.error_of


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Three members' values, pairs and quantiles in files, for validation and for test data."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for part, samples in (("val", 1200), ("test", 300)):
        y = random.normal(size=samples)
        sizes = np.array([0.9, 0.6, 0.3])[:, None]
        m = y + sizes * random.normal(size=(3, samples))
        pairs = np.stack([m, np.broadcast_to(0.5 * sizes**2, m.shape)], 1)
        quantiles = m[..., None] + np.array([-0.5, 0, 0.5])
        found[part] = {"y": y, "v": m, "p": pairs, "q": quantiles}
        Path(part).mkdir()
        for name, array in found[part].items():
            for i, member in enumerate(array if name != "y" else ()):
                np.save(f"{part}/{name}{i}.npy", member)
        np.save(f"{part}/y.npy", y)
    return found


def arguments(kind: str, *, validation: bool = True) -> list[str]:
    test = ["--regression", "--predictions", f"test/{kind}*.npy", "--labels", "test/y.npy"]
    held_out = ["--validation-predictions", f"val/{kind}*.npy", "--validation-labels", "val/y.npy"]
    return test + (held_out if validation else [])


@pytest.mark.parametrize(
    ("kind", "given", "options"),
    [
        ("v", {}, []),
        ("v", {"select": "weights"}, ["--select", "weights"]),
        ("p", {"outputs": "gaussian"}, []),
        ("p", {"outputs": "gaussian", "metric": "crps"}, ["--metric", "crps"]),
        ("p", {"outputs": "gaussian", "variance": False}, ["--no-temperature"]),
        ("q", {"quantiles": [0.1, 0.5, 0.9]}, ["--quantiles", "0.1,0.5,0.9"]),
    ],
)
def test_the_document_is_that_of_the_library(
    data: dict[str, Any], kind: str, given: dict[str, Any], options: list[str]
) -> None:
    names = [f"{kind}{i}" for i in range(3)]
    val, test = data["val"], data["test"]
    choice = fit_regression(val[kind], val["y"], names=names, **given)
    same = {name: given[name] for name in ("outputs", "quantiles") if name in given}
    expected = analyze_regression(test[kind], test["y"], choice=choice, **same)
    document = json_of(*arguments(kind), *options)
    for row, name in zip(document["members"], names, strict=True):
        assert row.pop("file") == f"test/{name}.npy"
    assert document == expected
    alone = json_of(*arguments(kind, validation=False), *(o for o in options if kind == "q"))
    assert alone["choice"] is None
    assert alone["ensembles"] == expected["ensembles"]


@pytest.mark.parametrize("kind", ["v", "p"])
def test_the_table_the_choice_and_the_page(data: dict[str, Any], kind: str) -> None:  # noqa: ARG001
    result = call(*arguments(kind), "--save", "choice.json", "--report", "page.html")
    assert result.exit_code == 0
    document = json_of(*arguments(kind))
    text = result.stdout
    assert "300 samples, 3 members." in text
    assert f"{document['chosen']['rmse']:.4g}" in text
    assert f"{100 * document['chosen']['coverage'][0]:.2f}" in text
    assert "Chosen by" in text
    assert "Variance: " in text
    assert "The choice minus the last member" in text
    choice = Choice.load("choice.json")
    assert choice.to_dict() == document["choice"]
    page = Path("page.html").read_text()
    assert "Members of the regression" in page
    assert "What was considered" in page
    assert f"{100 * document['chosen']['coverage'][0]:.2f}" in page
    again = json_of(*arguments(kind, validation=False), "--choice", "choice.json")
    assert again["chosen"] == document["chosen"]


def test_quantiles_and_one_member_are_shown(data: dict[str, Any]) -> None:  # noqa: ARG001
    result = call(*arguments("q", validation=False), "--quantiles", "0.1,0.5,0.9")
    assert "Pinball" in result.stdout
    assert "Nothing was chosen" in result.stdout
    one = ["--regression", "--predictions", "test/p0.npy", "--labels", "test/y.npy"]
    assert "300 samples, 1 member." in call(*one).stdout


def test_what_does_not_fit_is_refused(data: dict[str, Any]) -> None:  # noqa: ARG001
    plain = arguments("v", validation=False)
    assert "without --logits, --class-axis, --outcomes, " in error_of(*plain, "--logits")
    assert "--ignore-index, " in error_of(*plain, "--ignore-index", "3")
    assert "--quantiles must be given with --regression" in error_of(
        *plain[1:], "--quantiles", "0.5"
    )
    assert "increasing numbers between 0 and 1" in error_of(*plain, "--quantiles", "0.9,0.1")
    assert "Received: 'a'" in error_of(*plain, "--quantiles", "a")
    message = error_of(*arguments("q", validation=False))
    assert message.startswith("test/q0.npy must be of shape (300,) for the targets in test/y.npy, ")
    assert message.endswith("or (2, 300) with variances after the means. Received: shape (300, 3)")
    mixed = error_of(*plain, "--predictions", "test/p0.npy")
    assert mixed.startswith("The members' files must all hold variances, or none.")
    same = error_of(
        *plain, "--validation-predictions", "test/v*.npy", *("--validation-labels", "test/y.npy")
    )
    assert "reported on the data that it was made on" in same
    others = ["--validation-predictions", "val/v0.npy", "--validation-labels", "val/y.npy"]
    assert "must match the same members" in error_of(*plain, *others)
    unlike = ["--validation-predictions", "val/p*.npy", "--validation-labels", "val/y.npy"]
    assert "3 files of 'values' and 3 of 'gaussian'" in error_of(*plain, *unlike)
    call(*arguments("p"), "--save", "choice.json")
    refused = error_of(*plain, "--choice", "choice.json")
    assert refused.startswith("Option --choice must be a choice among the members")
    weights = error_of(*arguments("v"), "--select", "weights", "--metric", "mae")
    assert "for --select=weights" in weights


def test_what_was_found_is_shown(data: dict[str, Any]) -> None:
    np.save("test/v0.npy", 9 * data["test"]["v"][0])
    found = json_of(*arguments("v", validation=False))["findings"]
    assert "early-members-worse" in [finding["name"] for finding in found]
    text = " ".join(call(*arguments("v", validation=False)).stdout.split())
    assert all(f"- {finding['text']}" in text for finding in found)


@pytest.mark.parametrize("kind", ["v", "p"])
def test_another_model_is_compared_with(data: dict[str, Any], kind: str) -> None:
    np.save("other.npy", data["test"][kind][1])
    np.save("before.npy", data["val"][kind][1])
    outputs: Any = "values" if kind == "v" else "gaussian"
    names = [f"{kind}{i}" for i in range(3)]
    given: dict[str, Any] = {"names": names, "outputs": outputs}
    val, test = data["val"], data["test"]
    choice = fit_regression([*val[kind]], val["y"], baseline=val[kind][1], **given)
    expected = analyze_regression(
        [*test[kind]], test["y"], choice=choice, baseline=test[kind][1], **given
    )
    options = ("--baseline", "other.npy", "--validation-baseline", "before.npy")
    document = json_of(*arguments(kind), *options)
    for part in ("baseline", "comparisons_with_baseline", "choice", "findings"):
        assert document[part] == expected[part]
    shown = call(*arguments(kind), *options).stdout
    assert "The choice minus the baseline, with the 95 % interval:" in shown
    np.save("other.npy", data["test"]["p" if kind == "v" else "v"][1])
    assert "The baseline's file must hold variances" in error_of(
        *arguments(kind), "--baseline", "other.npy"
    )
