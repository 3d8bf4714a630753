"""The demonstration's model and training function in PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder
from .digits import CLASSES, Part
from .training import SLOPE, Trained, Training

# After cosanneal's adapter, which says how to install torch where it is missing.
import torch  # isort: skip
from torch import Tensor, nn  # isort: skip


def build_model(seed: int) -> nn.Module:
    """A small convolutional network with BatchNorm, its weights drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            *_block(_convolution(1, 8), nn.BatchNorm2d(8)),
            nn.MaxPool2d(2),
            *_block(_convolution(8, 16), nn.BatchNorm2d(16)),
            nn.MaxPool2d(2),
            nn.Flatten(),
            *_block(nn.Linear(16 * 2 * 2, 32, bias=False), nn.BatchNorm1d(32)),
            nn.Linear(32, CLASSES),
        )


def train(task: Training) -> Trained:
    """Train the model once."""
    model = build_model(task.seed)
    groups: list[dict[str, Any]] = [
        {
            "params": [weight for weight in model.parameters() if weight.ndim > 1],
            "weight_decay": task.weight_decay,
        },
        {"params": [weight for weight in model.parameters() if weight.ndim == 1]},
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=task.momentum)
    scheduler = CyclicCosineLR(optimizer, task.schedule)
    part = task.split.train
    x, y = _inputs(part), torch.from_numpy(part.y)
    rates: list[float] = []
    losses: list[float] = []
    with _one_thread(), SnapshotRecorder(task.folder, model, scheduler, overwrite=True):
        for rows in torch.from_numpy(task.order):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
            task.progress()

    def predict(weights: Mapping[str, Tensor], part: Part) -> Tensor:
        own = build_model(task.seed)
        own.load_state_dict(weights)
        own.eval()
        with torch.no_grad():
            probabilities: Tensor = own(_inputs(part)).softmax(1)
        return probabilities

    return Trained(
        rates=rates,
        losses=losses,
        ensemble=lambda folder: SnapshotEnsemble(model, folder),
        inputs=_inputs,
        predict=predict,
    )


def _block(layer: nn.Module, normalization: nn.Module) -> list[nn.Module]:
    return [layer, normalization, nn.LeakyReLU(SLOPE)]


def _convolution(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def _inputs(part: Part) -> Tensor:
    return torch.from_numpy(part.x)[:, None]


@contextmanager
def _one_thread() -> Iterator[None]:
    # In so small a network threads wait for each other longer than they work.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
