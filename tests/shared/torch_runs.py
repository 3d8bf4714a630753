"""A small torch model, its training and the snapshots of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotRecorder
from cosanneal.snapshots import SnapshotStore

SCHEDULE = ca.CyclicCosine(0.1, total_steps=20, num_cycles=4)


def small_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)
    )


def data(samples: int = 48) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(samples, 4, generator=generator)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def clone(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


class Training:
    """A run with everything that a checkpoint must carry."""

    def __init__(
        self, folder: Path | str, *, lr: float = 1.0, schedule: ca.Schedule = SCHEDULE
    ) -> None:
        self.model = small_net()
        groups: list[dict[str, Any]] = [
            {"params": [*self.model[0].parameters()], "lr": lr / 4},
            {"params": [*self.model[1:].parameters()]},
        ]
        self.optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9)
        self.scheduler = CyclicCosineLR(self.optimizer, schedule)
        self.recorder = SnapshotRecorder(
            folder, self.model, self.scheduler, metrics=lambda: {"seen": self.scheduler.last_epoch}
        )
        self.x, self.y = data()

    def update(self) -> None:
        rows = torch.randint(len(self.x), (16,))
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.model(self.x[rows]), self.y[rows]).backward()
        self.optimizer.step()
        self.scheduler.step()

    def save(self, path: Path) -> None:
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "rng": torch.get_rng_state(),
            },
            path,
        )

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        torch.set_rng_state(state["rng"])


def record_once(folder: Path, model: nn.Module) -> SnapshotStore:
    with SnapshotRecorder(folder, model, ca.CyclicCosine(0.1, cycle_steps=1), resume_from=0) as r:
        r.step()
    return r.store


def trained(folder: Path | str) -> nn.Sequential:
    run = Training(folder)
    for _ in range(20):
        run.update()
    run.recorder.close()
    return run.model
