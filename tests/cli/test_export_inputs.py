"""`cosanneal export` of torch models with several inputs, called as a user would."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.shared.calling import Command
from tests.shared.torch_members import recorded

call, error_of = Command("export").call, Command("export").error_of

# What torch's exporter itself uses of torch.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec")

BUILD = """
from tests.cli.test_export_inputs import Two, Whole
two, whole = (lambda: Two(0)), (lambda: Whole(0))
"""


class Two(nn.Module):
    """Classes by numbers and by a place, which may be called for by position or by name."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.one, self.names = nn.Linear(4, 3), nn.Embedding(2, 3)

    def forward(self, x: Tensor, name: Tensor) -> Tensor:
        z: Tensor = 3 * self.one(x) + self.names(name).sum(1)
        return z


class Whole(Two):
    """The same, of a dict."""

    def forward(self, batch: Any) -> Tensor:  # type: ignore[override]
        return super().forward(batch["x"], batch["name"])


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("their_inputs.py").write_text(BUILD)
    recorded(Path("run"), [Two(seed) for seed in range(3)])
    yield
    sys.modules.pop("their_inputs", None)


def inputs(samples: int = 5) -> tuple[Any, Any]:
    drawn = np.random.default_rng(1)
    return drawn.normal(size=(samples, 4)).astype("f4"), drawn.integers(2, size=(samples, 2))


def mean_of(x: Any, name: Any) -> Any:
    """The mean of the members' probabilities, computed another way."""
    total = 0
    for seed in range(3):
        w, b, e = (each.detach().double().numpy() for each in Two(seed).parameters())
        z = 3 * (x.astype("f8") @ w.T + b) + np.eye(2)[name].sum(1) @ e
        total = total + np.exp(z) / np.exp(z).sum(1, keepdims=True)
    return total / 3


def arguments(model: str, *given: object) -> list[Any]:
    return ["run", "--model", f"their_inputs:{model}", "--format", "pt2", "-o", "e.pt2", *given]


def compare(*given: object, **named: object) -> None:
    found = torch.export.load("e.pt2").module()(*given, **named).numpy()
    np.testing.assert_allclose(found, mean_of(*inputs()), rtol=0, atol=1e-6)


def test_several_inputs_are_given_in_order_or_by_name() -> None:
    x, name = inputs()
    np.save("x.npy", x)
    np.save("name.npy", name)
    x, name = torch.from_numpy(x), torch.from_numpy(name)
    given = ("--input", "x.npy", "--input", "name.npy")
    result = call(*arguments("two", *given))
    assert result.exit_code == 0, result.stderr
    assert "on 5 samples" in result.stdout
    compare(x, name)
    given = ("--input", "name=name.npy", "--input", "x=x.npy")
    for model in ("two", "whole"):
        result = call(*arguments(model, *given), "--force")
        assert result.exit_code == 0, result.stderr
        if model == "two":
            compare(x=x, name=name)
        else:
            compare({"name": name, "x": x})


@pytest.mark.parametrize(
    "given",
    [
        ("--shape", "4", "--shape", "2", "--input-dtype", "f4", "--input-dtype", "i8"),
        ("--shape", "name=2", "--shape", "x=4", "--input-dtype", "name=int64"),
    ],
)
def test_samples_of_several_inputs_are_drawn(given: tuple[str, ...]) -> None:
    result = call(*arguments("two", *given))
    assert result.exit_code == 0, result.stderr
    assert "on 8 samples" in result.stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--shape", "x=4", "--shape", "2"), "--shape must name all of the inputs, each once, or"),
        (("--shape", "x=4", "--shape", "x=2"), "each once, or none. Received: 'x=4' 'x=2'"),
        (("--shape", "x=4", "--input-dtype", "z=f4"), "name inputs that --shape names. Received"),
        (("--shape", "4", "--shape", "2", *["--input-dtype", "f4"] * 3), "3 of them for 2 inputs"),
        (("--input", "x.npy", "--input", "long.npy"), "same number of samples. Received: 5, 6"),
        (("--shape", "x=4", "--shape", "label=2"), "must have none of the names labels, label, y"),
        (
            ("--shape", "x=4", "--shape", "z=2"),
            "Received: x=, z=, where it takes (x, name); give --input or --shape once for each, as",
        ),
        (("--shape", "4"), "Received: 1 argument, where it takes (x, name); give --input or"),
        (
            ("--shape", "4", "--shape", "2"),
            "of --shape 4 --shape 2. Received: RuntimeError: ",
        ),
        (("--shape", "4", "--shape", "2", "--card"), "--card must be given for a model of one"),
    ],
)
def test_what_cannot_be_is_refused(given: tuple[str, ...], said: str) -> None:
    np.save("x.npy", inputs()[0])
    np.save("long.npy", inputs(6)[1])
    assert said in error_of(*arguments("two", *given))
    assert not Path("e.pt2").exists()
