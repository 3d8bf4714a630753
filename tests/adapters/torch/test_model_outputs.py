"""What the outputs of torch modules are, found out or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotEnsemble
from cosanneal.adapters.torch.model import TorchModel
from cosanneal.ensemble.predict.outputs import Reading
from tests.shared.modes import MODES
from tests.shared.torch_members import recorded


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1))
    model[1].register_forward_hook(lambda _, __, output: 2 * output)
    return model


class Other(nn.Sequential):
    def forward(self, x: Any) -> Any:
        return 2 * self[1](self[0](x))


SAID: dict[str, tuple[Callable[[], nn.Module], Reading | None]] = {
    "softmax": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1)),
        Reading("probabilities", -1),
    ),
    "softmax(1)": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)),
        Reading("probabilities", 1),
    ),
    "log-softmax": (lambda: nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1)), Reading("logits", 1)),
    "sigmoid": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Sigmoid()),
        Reading("probabilities", None),
    ),
    "2d": (lambda: nn.Sequential(nn.Conv2d(2, 3, 1), nn.Softmax2d()), Reading("probabilities", -3)),
    "nested": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.ReLU(), nn.Softmax(-1))),
        Reading("probabilities", -1),
    ),
    "no axis": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Softmax()), None),
    "linear": (lambda: nn.Sequential(nn.Linear(4, 3)), None),
    "hooked": (hooked, None),
    "forward": (lambda: Other(nn.Linear(4, 3), nn.Softmax(-1)), None),
    "empty": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Sequential()), None),
}


@pytest.mark.parametrize("name", SAID)
def test_what_a_module_says(name: str) -> None:
    make, expected = SAID[name]
    assert TorchModel(make()).says_outputs() == expected
    assert TorchModel(make).says_outputs() == (expected if name != "hooked" else None)


class Ending(nn.Module):
    """A linear map, and a function of it."""

    def __init__(self, seed: int, function: Callable[[Tensor], Tensor], classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.linear, self.function = nn.Linear(4, classes), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(3 * self.linear(x))


def of_probabilities(z: Tensor) -> Tensor:
    return z.softmax(-1)


def of_outcomes(z: Tensor) -> Tensor:
    return z.sigmoid()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_probabilities_are_taken_as_they_are(tmp_path: Path, mode: Any, dtype: Any) -> None:
    models = [Ending(seed, of_probabilities).to(dtype) for seed in range(2)]
    recorded(tmp_path, models)
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.no_grad():
        expected = torch.stack([model(x) for model in models]).double().mean(0)
    found = SnapshotEnsemble(models[0], tmp_path).predict(x, mode=mode)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("mode", MODES)
def test_a_segmentation_is_refused_without_a_class_axis_and_right_with_one(
    tmp_path: Path, mode: Any
) -> None:
    torch.manual_seed(0)
    models = [nn.Conv2d(2, 3, 3, padding=1) for _ in range(2)]
    recorded(tmp_path, models)
    x = torch.randn(5, 2, 6, 7)
    y = torch.randint(3, (5, 6, 7))
    ensemble = SnapshotEnsemble(models[0], tmp_path)
    message = (
        r'shape \(5, 3, 6, 7\).*outputs="logits", class_axis=1 for.*, or '
        r'outputs="logits", class_axis=-1 for'
    )
    calls: list[Callable[[SnapshotEnsemble], object]] = [
        lambda each: each.predict(x, mode=mode),
        lambda each: next(each.member_predictions(x)),
        lambda each: each.fit(x, y),
        lambda each: each.average_weights(x, y),
    ]
    for call in calls:
        with pytest.raises(ca.EnsembleError, match=message):
            call(ensemble)
    with torch.no_grad():
        expected = torch.stack([model(x).double().softmax(1) for model in models]).mean(0)
    right = SnapshotEnsemble(models[0], tmp_path, class_axis=1)
    torch.testing.assert_close(right.predict(x, mode=mode), expected.float())
    with pytest.warns(UserWarning, match="validation samples"):
        right.fit(x, y)
    right.save()
    # The choice knows the axis.
    again = SnapshotEnsemble(models[0], tmp_path)
    again.load()
    torch.testing.assert_close(again.predict(x, mode=mode), right.predict(x))


@pytest.mark.parametrize(
    ("classes", "function", "readings"),
    [
        (1, lambda z: z, ['outputs="logits", class_axis=None', 'outputs="values"']),
        (1, lambda z: z[:, 0], ['outputs="logits", class_axis=None', 'outputs="values"']),
        (1, of_outcomes, ['outputs="probabilities", class_axis=None', 'outputs="logits"']),
        (3, of_outcomes, ['outputs="probabilities", class_axis=None', 'outputs="logits", class_']),
    ],
)
def test_what_could_be_several_things_is_refused(
    tmp_path: Path, classes: int, function: Callable[[Tensor], Tensor], readings: list[str]
) -> None:
    model = Ending(0, function, classes)
    recorded(tmp_path, [model])
    ensemble = SnapshotEnsemble(model, tmp_path)
    with pytest.raises(ca.EnsembleError) as caught:
        ensemble.predict(torch.randn(40, 4))
    assert all(reading in str(caught.value) for reading in readings)
    # Nothing is settled by what has no samples, either.
    assert len(ensemble.predict(torch.randn(0, 4))) == 0
    told = SnapshotEnsemble(model, tmp_path, outputs="values").predict(x := torch.randn(9, 4))
    torch.testing.assert_close(told, model(x).detach())


def test_weights_are_averaged_unmeasured_without_knowing_what_outputs_are(tmp_path: Path) -> None:
    models = [Ending(0, of_outcomes), Ending(1, of_outcomes)]
    recorded(tmp_path, models)
    found = SnapshotEnsemble(models[0], tmp_path).average_weights(barrier=float("inf"))
    mean = (models[0].linear.bias + models[1].linear.bias) / 2
    torch.testing.assert_close(found.weights["linear.bias"], mean.detach())


@pytest.mark.parametrize("mode", MODES)
def test_a_member_whose_prediction_is_not_finite_is_named(tmp_path: Path, mode: Any) -> None:
    models = [Ending(0, lambda z: z), Ending(1, lambda z: z)]
    with torch.no_grad():
        models[1].linear.weight.fill_(3e38)  # finite, but nothing that it makes is
    recorded(tmp_path, models)
    ensemble = SnapshotEnsemble(models[0], tmp_path)
    x, y = torch.ones(40, 4), torch.arange(40) % 3
    for call in (lambda: ensemble.predict(x, mode=mode), lambda: ensemble.fit(x, y)):
        with pytest.raises(ca.EnsembleError, match=r"finite\. Received: .* from \S+cycle-0001"):
            call()
