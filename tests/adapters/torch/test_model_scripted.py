"""Modules of TorchScript, recorded and in ensembles."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit:DeprecationWarning", "ignore::torch.jit.TracerWarning"
)

X = torch.linspace(-1, 1, 12).reshape(6, 2)


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))


def recorded(folder: Path, model: nn.Module) -> Tensor:
    """The probabilities that an ensemble of its snapshots should have."""
    members = []
    with SnapshotRecorder(folder, model, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for _ in range(3):
            with torch.no_grad():
                for value in model.parameters():
                    value.add_(torch.randn_like(value))
            model.train()(X)
            recorder.step()
            plain = build()
            plain.load_state_dict(model.state_dict())
            members.append(plain.eval()(X).detach().double().softmax(1))
    return torch.stack(members).mean(0)


def test_a_scripted_module_is_one_like_any_other(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.jit.script(build())
    expected = recorded(tmp_path, model)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    for given in (model, build(), lambda: torch.jit.script(build())):
        found = SnapshotEnsemble(given, tmp_path).predict(X)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())


def test_a_traced_module_is_recorded_but_predicts_as_what_it_was_traced_from(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    model = torch.jit.trace(build(), X, check_trace=False)
    expected = recorded(tmp_path, model)
    found = SnapshotEnsemble(build(), tmp_path).predict(X)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    for given in (model, nn.Sequential(model), lambda: model):
        with pytest.raises(ca.EnsembleError, match=r"not be one that torch.jit.trace made.*traced"):
            SnapshotEnsemble(given, tmp_path)
