"""Modules of which torch.compile made a method anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder
from tests.shared.modes import MODES


class Block(nn.Module):
    """A layer with a method beside its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def features(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x).tanh()
        return found

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.features(x)


class Blocks(nn.Sequential):
    """Some after the other."""

    def forward(self, x: Tensor) -> Tensor:
        for each in self:
            x = each(x)
        return x


def made(compile_: Any = None) -> Any:
    torch.manual_seed(0)
    model = Blocks(Block(), Block(), nn.Softmax(-1))
    if compile_ is not None:
        compile_(model)
    return model


def forward_of_a_layer(model: Any) -> None:
    model[0].forward = torch.compile(model[0].forward, backend="eager")


def method_of_a_layer(model: Any) -> None:
    model[1].features = torch.compile(model[1].features, backend="eager")


def forward_of_the_model(model: Any) -> None:
    forward_of_a_layer(model)
    model.forward = torch.compile(torch.compile(model.forward, backend="eager"), backend="eager")


def method_of_another(model: Any) -> None:
    model[0].forward = torch.compile(model[1].forward, backend="eager")


def record(folder: Path) -> None:
    model = made()
    with SnapshotRecorder(folder, model, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for _ in range(2):
            with torch.no_grad():
                for each in model.parameters():
                    each.add_(torch.randn_like(each))
            recorder.step()


@pytest.mark.parametrize("how", [forward_of_a_layer, method_of_a_layer, forward_of_the_model])
def test_members_run_in_what_was_compiled(tmp_path: Path, how: Any) -> None:
    record(tmp_path)
    x = torch.randn(5, 3)
    expected = SnapshotEnsemble(made(), tmp_path, outputs="probabilities").predict(x)
    model = made(how)
    with torch.no_grad():
        own = model(x)
    for mode in MODES:
        found = SnapshotEnsemble(model, tmp_path, outputs="probabilities").predict(x, mode=mode)
        torch.testing.assert_close(found, expected)
    assert (expected - own).abs().max() > 1e-3
    with torch.no_grad():
        assert torch.equal(model(x), own)


def test_a_method_of_another_layer_is_that_of_the_copy(tmp_path: Path) -> None:
    record(tmp_path)
    x = torch.randn(5, 3)
    twice = made()
    twice[0].forward = twice[1].forward
    expected = SnapshotEnsemble(twice, tmp_path, outputs="probabilities").predict(x)
    given = made(method_of_another)
    found = SnapshotEnsemble(given, tmp_path, outputs="probabilities").predict(x)
    torch.testing.assert_close(found, expected)
