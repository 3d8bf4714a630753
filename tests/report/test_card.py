"""The folder that is shipped: whole or not there; and its card, as the hub reads it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from cosanneal.core.errors import CosannealError, EnsembleError
from cosanneal.ensemble import Choice, analyze_regression, fit, fit_regression, read_results
from cosanneal.report import Card, write_model_folder
from cosanneal.report.card import card_text
from tests.shared.documents import analysis_of, bare, members_of

NAMES = [str(i) for i in range(5)]


def card(**given: Any) -> Card:
    options = {"format": "onnx", "shape": (4,), "dtype": "float32", "members": NAMES} | given
    return Card(**options)


def exported(path: Path) -> None:
    path.write_bytes(b"12345")


def test_all_of_it_is_there_and_says_the_same(tmp_path: Path) -> None:
    results = bare(analysis=analysis_of(5, select="greedy"))
    said = card(name="mine", task="image-classification", dataset="theirs")

    def export(path: Path) -> tuple[int, float]:
        exported(path)
        return 9, 1e-7

    out = write_model_folder(tmp_path / "out", export, said, results)
    assert out == tmp_path / "out"
    assert {each.name for each in tmp_path.iterdir()} == {"out"}
    assert {each.name for each in out.iterdir()} == {
        *("README.md", "ensemble.onnx", "ensemble.json", "results.json", "report.html"),
        "report_files",
    }
    assert read_results(out / "results.json") == json.loads(json.dumps(results))
    assert Choice.load(out / "ensemble.json").to_dict() == results["analysis"]["choice"]
    found = ModelCard.load(out / "README.md")
    assert found.data.library_name == "cosanneal"
    assert found.data.pipeline_tag == "image-classification"
    assert found.data.tags == ["snapshot-ensemble", "torch", "onnx"]
    assert found.data.model_name == "mine"
    chosen = results["analysis"]["chosen"]
    assert {each.metric_type: each.metric_value for each in found.data.eval_results} == {
        name: chosen[name] for name in ("error", "log_loss", "brier", "ece")
    }
    assert {each.dataset_name for each in found.data.eval_results} == {"theirs"}
    text = found.text
    assert hashlib.sha256(b"12345").hexdigest() in text
    assert "`ensemble.onnx`: 5 B" in text
    assert "run after it was written, on 9 samples: it differs from the ensemble by 1.0e-07" in text
    assert "On 1,000 samples of theirs" in text
    weights = [member["weight"] for member in results["analysis"]["choice"]["members"]]
    rows = re.findall(r"^\| (\d) \| ([0-9.]+) \| not known \|$", text, re.MULTILINE)
    assert rows == [(str(i), f"{weight:.3f}") for i, weight in enumerate(weights)]
    last = results["analysis"]["last_calibrated"]
    assert last["log_loss"] != results["analysis"]["members"][-1]["log_loss"]
    assert "| last snapshot alone with its own temperature |" in text
    assert (
        f"| Log-loss (nats) | {chosen['log_loss']:.4f} | not computed | {last['log_loss']:.4f} |"
    ) in text


def test_what_is_not_known_is_said_to_be() -> None:
    bare_text = card_text(card(), bare(), "5 B", "", None)
    assert "None were measured: no labels were given" in bare_text
    assert "How good it is: no scores were measured." in bare_text
    assert "It was not run after it was written" in bare_text
    assert "other weights, would be better: nothing was chosen" in bare_text
    assert "model-index" not in bare_text
    assert "SHA-256" not in bare_text
    scored = card_text(card(), bare(analysis=analysis_of(5)), "5 B", "", None)
    assert "it was taken on trust" in scored
    assert "of data that were not named" in scored
    assert "Output: probabilities" in scored
    assert "Output: what the ensemble predicts" in bare_text
    assert "no scores were measured" not in scored
    (result,) = yaml.safe_load(scored.split("---")[1])["model-index"][0]["results"]
    assert result["task"] == {"type": "other"}
    assert result["dataset"] == {"name": "not named", "type": "unknown"}
    one = card_text(card(members=["a"]), bare(), "5 B", "", None)
    assert "\n\nOne snapshot of a training run" in one


def test_intervals_stand_beside_their_scores() -> None:
    given = card(intervals={"error": (0.0123, 0.0456), "log_loss": (0.5, 0.75)})
    text = card_text(given, bare(analysis=analysis_of(5)), "5 B", "", None)
    assert "% | 1.23 % to 4.56 % |" in text
    assert "| 0.5000 to 0.7500 |" in text
    assert re.search(r"Brier score \| [0-9.]+ \| not computed", text)


def test_a_regression_has_its_own_scores() -> None:
    random = np.random.default_rng(0)
    y = random.normal(size=2000)
    members = y + random.normal(size=(3, 2000))
    choice = fit_regression(members[:, :1000], y[:1000], names=NAMES[:3])
    part = analyze_regression(members[:, 1000:], y[1000:], choice=choice)
    text = card_text(card(members=NAMES[:3]), bare(regression=part), "5 B", "", None)
    (result,) = yaml.safe_load(text.split("---")[1])["model-index"][0]["results"]
    found = {each["type"]: each["value"] for each in result["metrics"]}
    assert found["rmse"] == part["chosen"]["rmse"]
    assert f"| RMSE | {part['chosen']['rmse']:.4f} |" in text
    assert "probabilities" not in text


@pytest.mark.parametrize(
    "text",
    [
        '"',
        "a: b # c",
        "---\n- x",
        "\\",
        "{}[]&*!|>%@`",
        "yes",
        "1e3",
        "é\U0001f600",
        "\ud800\x00\u2028",
    ],
)
def test_texts_are_read_as_they_are(text: str) -> None:
    given = card(name=text, dataset=text, task=text)
    whole = card_text(given, bare(analysis=analysis_of(2)), "5 B", "", None)
    front = yaml.safe_load(whole.split("\n---\n")[0].removeprefix("---"))
    kept = "".join(each if each.isprintable() else "\ufffd" for each in text)
    (model,) = front["model-index"]
    assert model["name"] == front["pipeline_tag"] == kept
    assert model["results"][0]["dataset"]["name"] == kept
    assert whole.split("\n---\n")[1].count("\n# ") == 1
    whole.encode()


def test_numbers_are_numbers_however_small() -> None:
    analysis = analysis_of(2)
    analysis["chosen"] |= {"error": 1e-7, "log_loss": 3e-05, "brier": 2.5e-9, "ece": 0.0}
    text = card_text(card(), bare(analysis=analysis), "5 B", "", None)
    (result,) = yaml.safe_load(text.split("---")[1])["model-index"][0]["results"]
    assert [each["value"] for each in result["metrics"]] == [1e-7, 3e-05, 2.5e-9, 0.0]


def test_nothing_is_there_if_anything_fails(tmp_path: Path) -> None:
    results = bare(analysis=analysis_of(2))

    def fails(path: Path) -> None:
        exported(path)
        raise EnsembleError("no")

    with pytest.raises(EnsembleError, match=r"^no$"):
        write_model_folder(tmp_path / "out", fails, card(), results)
    with pytest.raises(CosannealError, match=r"must write a file.*nothing is at ensemble.onnx"):
        write_model_folder(tmp_path / "out", lambda _: None, card(), results)
    with pytest.raises(EnsembleError, match="must be a dict whose 'format'"):
        write_model_folder(tmp_path / "out", exported, card(), {})
    assert [*tmp_path.iterdir()] == []
    with pytest.raises(CosannealError, match=r"into a folder that is there.*make that first"):
        write_model_folder(tmp_path / "no" / "out", exported, card(), results)


def test_only_what_was_shipped_before_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, out = bare(analysis=analysis_of(2)), tmp_path / "out"
    write_model_folder(out, exported, card(), results)
    with pytest.raises(CosannealError, match=r"must not be there yet.*overwrite=True"):
        write_model_folder(out, exported, card(), results)
    before = (out / "README.md").read_text()
    write_model_folder(out, exported, card(format="pt2", name="new"), results, overwrite=True)
    assert "# new" in (out / "README.md").read_text() != before
    assert not (out / "ensemble.onnx").exists()
    assert {each.name for each in tmp_path.iterdir()} == {"out"}

    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name == "made":
            raise OSError(28, "No space left on device")
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(CosannealError, match="could not be written: No space left"):
            write_model_folder(out, exported, card(name="newer"), results, overwrite=True)
    assert "# new\n" in (out / "README.md").read_text()
    assert {each.name for each in tmp_path.iterdir()} == {"out"}

    (out / ".git").mkdir()
    with pytest.raises(CosannealError, match=r"hold nothing else.*with '.git' in it"):
        write_model_folder(out, exported, card(), results, overwrite=True)
    others = {"file": None, "empty": (), "theirs": ("README.md",)}
    for name, files in others.items():
        path = tmp_path / name
        if files is None:
            path.write_text("mine")
            continue
        path.mkdir()
        for each in files:
            (path / each).write_text("---\nlibrary_name: other\n---\n")
    (tmp_path / "link").symlink_to(write_model_folder(tmp_path / "real", exported, card(), results))
    for name in (*others, "link"):
        with pytest.raises(CosannealError, match="must be one that was shipped"):
            write_model_folder(tmp_path / name, exported, card(), results, overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_choice_by_itself_is_told(tmp_path: Path) -> None:
    p, y = members_of(5, 1200)
    choice = fit(p, y, select="auto")
    text = card_text(card(), bare(choice=choice.to_dict()), "5 B", "", None)
    assert f"at the temperature {choice.temperature:.4g} that is in it" in text
    assert "chosen on 1,200 held-out samples" in text
    assert choice.reason is not None
    assert choice.reason.split(",")[0].replace("_", r"\_") in text
    out = write_model_folder(tmp_path / "out", exported, card(), bare(choice=choice.to_dict()))
    assert Choice.load(out / "ensemble.json") == choice
