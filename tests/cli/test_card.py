"""`cosanneal export --card`, called as a user would."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from torch import nn

from cosanneal.adapters.torch import SnapshotEnsemble
from cosanneal.ensemble import bootstrap_interval, error_rate, log_loss, sample_scores
from tests.shared.calling import Command
from tests.shared.cards import predictions_of
from tests.shared.torch_members import recorded

call, error_of = Command("export").call, Command("export").error_of

# What torch's exporter itself uses of torch.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec")

BUILD = """
import torch
def build():
    return torch.nn.Sequential(torch.nn.Linear(4, 3))
"""
GIVEN = ("run", "--model", "their_model:build", "--format", "pt2", "-o", "out", "--card")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("their_model.py").write_text(BUILD)
    recorded(Path("run"), [member(seed) for seed in range(3)])
    yield
    sys.modules.pop("their_model", None)


def member(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3))


def data(seed: int, count: int = 1200) -> tuple[Any, Any]:
    x = np.random.default_rng(seed).normal(size=(count, 4)).astype("f4")
    return x, (x @ np.arange(12).reshape(4, 3) % 5).argmax(1)


def test_the_folder_has_measured_scores_and_code_that_runs() -> None:
    ensemble = SnapshotEnsemble(member(0), "run", outputs="logits", class_axis=-1)
    x_val, y_val = data(1)
    choice = ensemble.fit(torch.from_numpy(x_val), y_val, select="weights")
    ensemble.save()
    x, y = data(2)
    np.save("x.npy", x)
    np.save("y.npy", y)
    result = call(*GIVEN, "--input", "x.npy", "--labels", "y.npy", "--name", "A", "--dataset", "B")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith("Wrote the folder out, with its README.md\n")
    assert re.search(r"Exported ensemble\.pt2: pt2, [0-9.]+ kB, in [0-9.]+ s", result.stdout)
    found = ModelCard.load("out/README.md")
    p = ensemble.predict(torch.from_numpy(x)).numpy()
    scores = {each.metric_type: each.metric_value for each in found.data.eval_results}
    assert scores["error"] == pytest.approx(error_rate(p, y))
    assert scores["log_loss"] == pytest.approx(log_loss(p, y), rel=1e-6)
    low, high = bootstrap_interval(sample_scores("error", p, y))
    assert f"| {100 * low:.2f} % to {100 * high:.2f} % |" in found.text
    assert "it differs from the ensemble by" in found.text
    assert "on 1,200 samples of B" in found.text.replace("On", "on")
    used = [name for name, weight in zip(choice.members, choice.weights, strict=True) if weight]
    assert [each.removesuffix(".safetensors") for each in used] == re.findall(
        r"^\| (cycle\S+) \| [0-9.]+ \| \d+ \|$", found.text, re.MULTILINE
    )
    given, predictions = predictions_of(Path("out"))
    expected = ensemble.predict(given)
    torch.testing.assert_close(predictions, expected, rtol=0, atol=1e-6)


def test_a_regression_has_its_own_scores_and_intervals() -> None:
    x, _ = data(2, 300)
    y = (x @ np.arange(12).reshape(4, 3) / 9).astype("f4")
    np.save("x.npy", x)
    np.save("y.npy", y)
    options = ("--input", "x.npy", "--labels", "y.npy", "--outputs", "values")
    result = call(*GIVEN, *options)
    assert result.exit_code == 0, result.stderr
    models = [member(seed) for seed in range(3)]
    with torch.no_grad():
        mean = np.mean([model(torch.from_numpy(x)).double().numpy() for model in models], axis=0)
    errors = ((mean - y) ** 2).mean(1)
    found = ModelCard.load("out/README.md")
    scores = {each.metric_type: each.metric_value for each in found.data.eval_results}
    assert scores["rmse"] == pytest.approx(np.sqrt(errors.mean()), rel=1e-5)
    low, high = np.sqrt(bootstrap_interval(errors))
    assert low < scores["rmse"] < high
    assert f"| RMSE | {scores['rmse']:.4f} | {low:.4f} to {high:.4f} |" in found.text
    low, high = bootstrap_interval(abs(mean - y).mean(1))
    assert f"| MAE | {scores['mae']:.4f} | {low:.4f} to {high:.4f} |" in found.text


def test_without_labels_nothing_is_claimed() -> None:
    assert call(*GIVEN, "--shape", "4").exit_code == 0
    text = Path("out/README.md").read_text(encoding="utf-8")
    assert "None were measured" in text
    assert "model-index" not in text
    assert "It is their plain mean" in text
    assert not Path("out/ensemble.json").exists()


def test_what_differs_or_cannot_be_is_not_written() -> None:
    result = call(*GIVEN, "--shape", "4", "--tolerance", "0")
    assert result.exit_code == 1
    assert "nothing was written, or give --tolerance" in result.stderr
    x, y = data(2, 20)
    np.save("x.npy", x)
    np.save("y.npy", y[:9])
    assert "must have shapes" in error_of(*GIVEN, "--input", "x.npy", "--labels", "y.npy")
    assert not Path("out").exists()
    assert not [*Path().glob(".*")]


def test_a_folder_that_is_there_is_replaced_by_force_alone() -> None:
    assert call(*GIVEN, "--shape", "4").exit_code == 0
    said = error_of(*GIVEN, "--shape", "4")
    assert said == (
        f"Option --out must not be there yet. Received: {Path('out')}; choose another name, or "
        "replace it with --force"
    )
    assert call(*GIVEN, "--shape", "4", "--force", "--name", "B").exit_code == 0
    assert "# B" in Path("out/README.md").read_text(encoding="utf-8")
    Path("out/mine").touch()
    assert "with 'mine' in it" in error_of(*GIVEN, "--shape", "4", "--force")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--card", "--labels", "y.npy"), "Option --labels must be given with --input, whose"),
        (("--card", "--dataset", "D"), "Option --dataset must be given with --labels"),
        (("--name", "N"), "Option --name must be given with --card. Received: it alone"),
        (("--task", "T"), "Option --task must be given with --card. Received: it alone"),
    ],
)
def test_options_that_do_not_go_together(options: tuple[str, ...], message: str) -> None:
    assert message in error_of(*GIVEN[:-1], "--shape", "4", *options)
