"""The demonstration's model and training function in PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder
from ..core.schedule import Schedule
from .digits import CLASSES, Part, Split
from .experiment import Config, Predictions, Progress, Trained

# After cosanneal's adapter, which says how to install torch where it is missing.
import torch  # isort: skip
from torch import Tensor, nn  # isort: skip
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR  # isort: skip


def build_model(seed: int) -> nn.Module:
    """A small convolutional network with BatchNorm, its weights drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            *(_block(1, 16), nn.MaxPool2d(2)),
            *(_block(16, 32), nn.MaxPool2d(2)),
            nn.Flatten(),
            nn.Linear(32 * 2 * 2, CLASSES),
        )


def train(
    split: Split,
    order: NDArray[np.intp],
    *,
    seed: int,
    config: Config,
    max_lr: float,
    schedule: Schedule | None,
    folder: Path | None,
    progress: Progress,
) -> Trained:
    """Train the model once.

    Args:
        split: the data.
        order: which scans each update sees, shape (updates, batch size).
        seed: of the model's first weights.
        config: what the runs have in common.
        max_lr: the highest rate.
        schedule: the schedule; None for the paper's Single, whose rate is
            divided by 10 after half and after three quarters of the updates.
        folder: where to record a snapshot at the end of each cycle; None for none.
        progress: called after every update.
    """
    model = build_model(seed)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=max_lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    scheduler: LRScheduler
    recorder = None
    if schedule is None:
        milestones = [len(order) // 2, len(order) * 3 // 4]
        scheduler = MultiStepLR(optimizer, milestones, gamma=0.1)
    else:
        scheduler = CyclicCosineLR(optimizer, schedule)
        if folder is not None:
            recorder = SnapshotRecorder(folder, model, scheduler, resume_from=0)

    x, y = _inputs(split.train), torch.from_numpy(split.train.y)
    rates: list[float] = []
    losses: list[float] = []
    with _one_thread():
        for rows in torch.from_numpy(order):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            if recorder is not None:
                recorder.step()
            losses.append(loss.item())
            progress()

    ensembles: list[Predictions] = []
    if recorder is not None:
        recorder.close()
        for last in range(1, len(recorder.store.list()) + 1):
            ensemble = SnapshotEnsemble(model, recorder.store, last=last)
            ensembles.append(
                Predictions(
                    validation=ensemble.predict(_inputs(split.validation)).numpy(),
                    test=ensemble.predict(_inputs(split.test)).numpy(),
                )
            )
    model.eval()
    with torch.no_grad():
        final = Predictions(
            validation=model(_inputs(split.validation)).softmax(1).numpy(),
            test=model(_inputs(split.test)).softmax(1).numpy(),
        )
    return Trained(rates=rates, losses=losses, final=final, ensembles=ensembles)


def _block(inputs: int, outputs: int) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


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
