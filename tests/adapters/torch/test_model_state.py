"""A torch model is run with its members' state, and what it is itself stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotEnsemble
from tests.shared.torch_runs import clone, data, record_once, trained


class Corners(nn.Module):
    """State of every kind that a snapshot must hold."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embed = nn.Linear(4, 4, bias=False)
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.embed.weight
        self.strided = nn.Parameter(torch.randn(6, 4).t())
        self.halved = nn.Parameter(torch.randn(3).half())
        self.brain = nn.Parameter(torch.randn(3).bfloat16())
        for name, value in {
            "float8": torch.randn(5).to(torch.float8_e4m3fn),
            "rotated": torch.randn(2, dtype=torch.complex64),
            "conjugate": torch.randn(2, dtype=torch.complex64).conj(),
            "scalar": torch.tensor(3),
            "flags": torch.tensor([True, False]),
            "nothing": torch.zeros(0, 3),
            "wide": torch.randn(2, dtype=torch.float64),
        }.items():
            self.register_buffer(name, value)
        self.register_buffer("fleeting", torch.ones(2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.tied(self.embed(x)) @ self.strided
        return out


def test_state_of_every_kind_comes_back_as_it_was(tmp_path: Path) -> None:
    model = Corners()
    (snapshot,) = record_once(tmp_path, model).list()
    loaded = snapshot.load(framework="pt")
    state = model.state_dict()
    assert loaded.keys() == state.keys()
    for name, value in state.items():
        assert loaded[name].dtype == value.dtype
        assert loaded[name].shape == value.shape
        assert torch.equal(loaded[name].view(-1).view(torch.uint8), _bytes(value)), name


def _bytes(value: Tensor) -> Tensor:
    return value.resolve_conj().contiguous().view(-1).view(torch.uint8)


def test_tied_weights_predict_as_the_model_does(tmp_path: Path) -> None:
    model = Corners()
    record_once(tmp_path, model)
    x = torch.randn(5, 4)
    with torch.no_grad():
        expected = model(x).softmax(-1)
        model.embed.weight.mul_(3)
    # The strided weight is loaded contiguous, and multiplies in another order.
    torch.testing.assert_close(SnapshotEnsemble(model, tmp_path).predict(x), expected)


def test_the_model_comes_back_as_it_was(tmp_path: Path) -> None:
    model = trained(tmp_path)
    x, _ = data()
    model.train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    before = clone(model)
    identities = [id(value) for value in model.parameters()]
    calls: list[int] = []
    hook = model.register_forward_hook(lambda *_: calls.append(1))
    rng = torch.get_rng_state()
    ensemble = SnapshotEnsemble(model, tmp_path)
    predictions = ensemble.member_predictions(x)
    first = next(predictions)
    assert [module.training for module in model.modules()] == modes  # also between two members
    predictions.close()  # type: ignore[attr-defined]
    ensemble.predict(x)
    assert not first.requires_grad
    assert [module.training for module in model.modules()] == modes
    assert [id(value) for value in model.parameters()] == identities
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len(calls) == 5
    assert len(model._forward_hooks) == 1
    assert torch.equal(rng, torch.get_rng_state())
    hook.remove()


def test_a_model_that_fails_comes_back_too(tmp_path: Path) -> None:
    model = trained(tmp_path)
    model.train()
    with pytest.raises(RuntimeError):
        SnapshotEnsemble(model, tmp_path).predict(torch.zeros(3, 5))
    assert all(module.training for module in model.modules())


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(2, 3), nn.Linear(5, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        out: Tensor = self.left(a) + self.right(b)
        return out


def test_models_of_several_inputs_and_of_none(tmp_path: Path) -> None:
    model = TwoInputs()
    record_once(tmp_path, model)
    ensemble = SnapshotEnsemble(model, tmp_path)
    a, b = torch.randn(7, 2), torch.randn(7, 5)
    expected = model(a, b).softmax(-1).detach()
    torch.testing.assert_close(ensemble.predict((a, b), batch_size=3), expected)
    assert ensemble.predict((a[:0], b[:0])).shape == (0, 3)
    with pytest.raises(ca.EnsembleError, match=r"same number of samples.*\[7, 6\]"):
        ensemble.predict((a, b[:6]))
    with pytest.raises(ca.EnsembleError, match=r"`x` must be an array.*list"):
        ensemble.predict([a, b])
