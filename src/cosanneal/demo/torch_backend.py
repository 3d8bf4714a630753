"""The demonstration's model and training function in PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder
from ..core.schedule import Schedule
from .digits import CLASSES, Part, Split
from .experiment import SLOPE, Config, Progress, Trained

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


def train(
    split: Split,
    order: NDArray[np.intp],
    *,
    seed: int,
    config: Config,
    schedule: Schedule,
    folder: Path,
    progress: Progress,
) -> Trained:
    """Train the model once.

    Args:
        split: the data, of which only the training scans are looked at.
        order: which scans each update sees, shape (updates, batch size).
        seed: of the model's first weights.
        config: what the runs have in common.
        schedule: the rates, of as many updates.
        folder: where to record a snapshot at the end of each cycle.
        progress: called after every update.
    """
    model = build_model(seed)
    groups: list[dict[str, Any]] = [
        {
            "params": [weight for weight in model.parameters() if weight.ndim > 1],
            "weight_decay": config.weight_decay,
        },
        {"params": [weight for weight in model.parameters() if weight.ndim == 1]},
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=config.momentum)
    scheduler = CyclicCosineLR(optimizer, schedule)
    x, y = _inputs(split.train), torch.from_numpy(split.train.y)
    rates: list[float] = []
    losses: list[float] = []
    with _one_thread(), SnapshotRecorder(folder, model, scheduler, resume_from=0) as recorder:
        for rows in torch.from_numpy(order):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            recorder.step()
            losses.append(loss.item())
            progress()

    def predict(weights: Mapping[str, Tensor], part: Part) -> Tensor:
        own = build_model(seed)
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
