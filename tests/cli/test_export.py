"""`cosanneal export` of torch's snapshots, called as a user would."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from torch import nn

from cosanneal.adapters.torch import SnapshotEnsemble
from cosanneal.core.errors import EnsembleError
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
def other():
    return {}
def untraceable():
    class Model(torch.nn.Sequential):
        def forward(self, x):
            return super().forward(x) * (1 if float(x.sum()) > 0 else 2)
    return Model(torch.nn.Linear(4, 3))
"""


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
    model = nn.Sequential(nn.Linear(4, 3))
    with torch.no_grad():
        next(model.parameters()).mul_(3)
    return model


def samples(count: int = 9) -> Any:
    return np.random.default_rng(1).normal(size=(count, 4)).astype("f4")


def arguments(**given: Any) -> list[Any]:
    options = {"model": "their_model:build", "format": "pt2", "out": "e.pt2", "shape": "4"} | given
    return [
        "run",
        *(
            each
            for name, value in options.items()
            if value is not None
            for each in (f"--{name.replace('_', '-')}", value)
        ),
    ]


def mean_of(x: Any, seeds: Any = range(3)) -> Any:
    """The mean of the members' probabilities, computed another way."""
    total = 0
    for seed in seeds:
        w, b = (each.detach().double().numpy() for each in member(seed).parameters())
        z = x.astype("f8") @ w.T + b
        total = total + np.exp(z) / np.exp(z).sum(1, keepdims=True)
    return total / len(seeds)


def test_the_file_gives_what_the_members_give() -> None:
    np.save("x.npy", samples())
    result = call(*arguments(shape=None, input="x.npy"))
    assert result.exit_code == 0, result.stderr
    first, second, third = result.stdout.splitlines()
    assert first == "The mean of 3 members; no choice was saved"
    assert re.fullmatch(r"Wrote e\.pt2: pt2, [0-9.]+ kB, in [0-9.]+ s", second)
    said = re.fullmatch(
        r"It differs from the ensemble by at most (\S+) on 9 samples \(limit 1e-05\)", third
    )
    assert said is not None
    assert float(said[1]) < 1e-6
    assert max(map(len, (first, second, third))) <= 80
    loaded = torch.export.load("e.pt2").module()
    for count in (1, 5):
        x = samples(count)
        np.testing.assert_allclose(loaded(torch.from_numpy(x)), mean_of(x), rtol=0, atol=1e-6)
    assert not [*Path().glob(".*")]


def test_a_choice_is_taken_from_the_folder_or_a_file() -> None:
    x = np.random.default_rng(2).normal(size=(1200, 4)).astype("f4")
    ensemble = SnapshotEnsemble(member(0), "run", outputs="logits", class_axis=-1)
    choice = ensemble.fit(x, mean_of(x).argmax(1), select="weights")
    ensemble.save()
    Path("run/ensemble.json").rename("mine.json")
    result = call(*arguments(choice="mine.json"))
    assert result.exit_code == 0, result.stderr
    assert f"temperature {choice.temperature:.3g}, chosen in mine.json" in result.stdout
    x = samples(5)
    shipped = torch.export.load("e.pt2").module()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(shipped, ensemble.predict(x), rtol=0, atol=1e-6)
    assert abs(shipped - mean_of(x)).max() > 1e-3
    Path("mine.json").rename("run/ensemble.json")
    assert "chosen in run/ensemble.json" in call(*arguments(out="own.pt2")).stdout


@pytest.mark.parametrize(
    ("given", "seeds"),
    [
        (["--without", "1"], (0, 2)),
        (["--without", "2", "--last", "1"], (1,)),
        (["--without", "0", "--without", "cycle-0002-step-0000000003"], (1,)),
    ],
)
def test_a_snapshot_is_left_out_before_the_newest_are_counted(
    given: list[str], seeds: tuple[int, ...]
) -> None:
    result = call(*arguments(), *given)
    assert result.exit_code == 0, result.stderr
    x = samples(5)
    shipped = torch.export.load("e.pt2").module()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(shipped, mean_of(x, seeds), rtol=0, atol=1e-6)
    assert abs(shipped - mean_of(x)).max() > 1e-3


def test_a_folder_at_a_url_is_exported_as_a_local_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSANNEAL_CACHE", str(tmp_path / "cache"))
    url = "memory://test-export/run"
    try:
        recorded(url, [member(seed) for seed in range(3)])
        result = call(url, *arguments(without="0")[1:])
        assert result.exit_code == 0, result.stderr
        loaded = torch.export.load("e.pt2").module()
        x = samples()
        wanted = mean_of(x, (1, 2))
        np.testing.assert_allclose(loaded(torch.from_numpy(x)), wanted, rtol=0, atol=1e-6)
        ensemble = SnapshotEnsemble(member(0), url, outputs="logits", class_axis=-1)
        many = np.random.default_rng(2).normal(size=(1200, 4)).astype("f4")
        ensemble.fit(many, mean_of(many).argmax(1))
        for act in (ensemble.save, ensemble.load):
            with pytest.raises(EnsembleError, match=r"a local file.*give a local path, and"):
                act(f"{url}/ensemble.json")
        ensemble.save("mine.json")
        result = call(url, *arguments(choice="mine.json", out="mine.pt2")[1:])
        assert result.exit_code == 0, result.stderr
        ensemble.save()  # beside the snapshots at the URL
        result = call(url, *arguments(out="beside.pt2")[1:])
        assert result.exit_code == 0, result.stderr
        assert f"chosen in {url}/ensemble.json" in " ".join(result.stdout.split())
        loaded = torch.export.load("mine.pt2").module()
        np.testing.assert_allclose(
            loaded(torch.from_numpy(x)), ensemble.predict(x), rtol=0, atol=1e-6
        )
        none = error_of("memory://test-export/none", *arguments(out="none.pt2")[1:])
        assert "must hold at least one snapshot" in none
    finally:
        fsspec.filesystem("memory").rm("/test-export", recursive=True)


def test_a_folder_of_runs_is_refused_with_their_names() -> None:
    assert error_of(".", *arguments()[1:]) == (
        "Folder . must hold at least one snapshot. Received: none; give a run in it, such as run"
    )


def test_what_cannot_be_left_out_is_said() -> None:
    assert error_of(*arguments(), "--without", "7").startswith(
        "Option --without must name snapshots of folder run. Received: cycle 7, of which there is "
        "none; the newest are "
    )
    assert "must name a snapshot once" in error_of(*arguments(), *["--without", "1"] * 2)
    every = [each for cycle in "012" for each in ("--without", cycle)]
    assert error_of(*arguments(), *every) == (
        "Folder run must hold at least one snapshot beside those of --without. Received: 0"
    )
    assert error_of(*arguments(last=3), "--without", "1") == (
        "Folder run must hold the 3 snapshots of --last beside those of --without. Received: 2"
    )
    ensemble = SnapshotEnsemble(member(0), "run", outputs="logits", class_axis=-1)
    x = np.random.default_rng(2).normal(size=(1200, 4)).astype("f4")
    ensemble.fit(x, mean_of(x).argmax(1), select="weights")
    ensemble.save()
    assert error_of(*arguments(), "--without", "1").endswith(
        "must hold the snapshots that the choice in run/ensemble.json was made among. Received: no "
        "cycle-0001-step-0000000002.safetensors beside those of --without; fit the ensemble again"
    )
    assert not Path("e.pt2").exists()


def test_a_file_that_is_off_is_said_and_stays() -> None:
    result = call(*arguments(tolerance=0))
    assert result.exit_code == 1
    assert "e.pt2 must differ from the ensemble by at most 0. Received: " in result.stderr
    assert Path("e.pt2").is_file()


@pytest.mark.parametrize(("dtype", "limit"), [("bfloat16", "0.03125"), ("float16", "0.00390625")])
def test_members_are_held_in_a_dtype(dtype: str, limit: str) -> None:
    result = call(*arguments(dtype=dtype))
    assert result.exit_code == 0, result.stderr
    assert f"(limit {float(limit):g})" in result.stdout
    program = torch.export.load("e.pt2")
    held = {each.dtype for each in program.state_dict.values() if each.dtype != torch.float64}
    assert held == {getattr(torch, dtype)}
    x = samples()
    found = program.module()(torch.from_numpy(x)).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, mean_of(x), rtol=0, atol=float(limit))
    assert abs(found - mean_of(x)).max() > 1e-5
    assert call(*arguments(dtype=dtype, tolerance=1e-5), "--force").exit_code == 1
    result = call(*arguments(dtype=dtype, out="card"), "--card")
    assert result.exit_code == 0, result.stderr
    card = Path("card/README.md").read_text(encoding="utf-8")
    assert f"weights were rounded to {dtype}" in card
    given, predictions = predictions_of(Path("card"))
    np.testing.assert_allclose(predictions, mean_of(given.numpy()), rtol=0, atol=float(limit))


def test_a_file_that_is_there_is_replaced_by_force_alone() -> None:
    Path("e.pt2").write_text("mine")
    assert error_of(*arguments()).endswith("e.pt2; choose another name, or replace it with --force")
    assert Path("e.pt2").read_text() == "mine"
    assert call(*arguments(), "--force").exit_code == 0
    assert Path("e.pt2").stat().st_size > 1000


def test_a_model_that_cannot_be_exported_leaves_what_was_there() -> None:
    Path("e.pt2").write_text("mine")
    result = call(*arguments(model="their_model:untraceable"), "--force")
    assert result.exit_code == 2
    said = "Error: The model must be one that torch.export takes, to be written as pt2. Received: "
    assert said in result.stderr
    assert Path("e.pt2").read_text() == "mine"
    assert not [*Path().glob(".*")]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"format": "keras", "out": "e.keras"},
            "--format must be onnx or pt2 for snapshots of torch",
        ),
        ({"format": "keras"}, "--out must end in .keras"),
        ({"out": "run"}, "must not be there yet. Received: run"),
        ({"out": "none/e.pt2"}, "--out must lead into a folder that is there"),
        ({"out": "cycle-0001-step-0000000001.safetensors"}, "name of a snapshot"),
        (
            {"shape": None},
            "Either option --input or option --shape must be given. Received: neither",
        ),
        ({"input": "x.npy"}, "must be given. Received: both"),
        ({"shape": "4x0"}, "--shape must be positive numbers with an x between them"),
        ({"shape": None, "input": "text.npy"}, "--input must hold numbers of shape (samples, ...)"),
        ({"input_dtype": "str"}, "--input-dtype must be a dtype of numpy's with numbers"),
        (
            {"shape": None, "input": "text.npy", "input_dtype": "f4"},
            "--input-dtype must be given with",
        ),
        ({"class_axis": "x"}, "--class-axis must be an integer, or none. Received: 'x'"),
        ({"tolerance": "nan"}, "--tolerance must be a finite number"),
        ({"model": "their_model:other"}, "must return a torch.nn.Module for snapshots of torch"),
        ({"choice": "none.json"}, "none.json"),
        (
            {"dtype": "bfloat16", "format": "onnx"},
            "--dtype must be float16 for --format onnx",
        ),
        (
            {"dtype": "float16", "labels": "y.npy"},
            "--labels must be given without --dtype",
        ),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], said: str) -> None:
    np.save("text.npy", np.array(["a"]))
    assert said in error_of(*arguments(**given))
    assert not Path("e.pt2").exists()


def test_folders_without_snapshots_are_refused() -> None:
    Path("empty").mkdir()
    for folder in ("empty", "none"):
        assert "Received: none" in error_of(folder, *arguments()[1:])


def test_outputs_that_stay_open_are_asked_for_as_options() -> None:
    Path("their_model.py").write_text(
        "import torch\ndef build(): return torch.nn.Sequential(torch.nn.Linear(4, 1))"
    )
    recorded(Path("one"), [nn.Sequential(nn.Linear(4, 1))])
    message = error_of("one", *arguments()[1:])
    assert "--outputs" in message
    assert "`outputs`" not in message
    assert call("one", *arguments(outputs="values")[1:]).exit_code == 0


def test_samples_that_the_model_does_not_take_are_an_error_of_one_sentence() -> None:
    error = error_of(*arguments(shape="20"))
    assert "The model must take the samples of --shape 20. Received: RuntimeError: mat1" in error
    assert "of a batch of shape (8, 20); the shape is that of one sample" in error
    assert not Path("e.pt2").exists()
    np.save("x.npy", samples()[:, :3])
    error = error_of(*arguments(shape=None, input="x.npy"))
    assert "must take the samples of --input. Received: RuntimeError" in error
