"""Torch models near and far from each other, as the members of an ensemble."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotRecorder


def recorded(folder: Path | str, models: Sequence[nn.Module]) -> nn.Module:
    """The models as the snapshots of one run, and another of their kind."""
    model = copy.deepcopy(models[0])
    with SnapshotRecorder(folder, model, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for each in models:
            model.load_state_dict(each.state_dict())
            recorder.step()
    return copy.deepcopy(models[0])


def network(seed: int) -> nn.Sequential:
    """A network that was trained to tell the sign of a product."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    x, y = signs(400)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def signs(samples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(samples, 2, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] * x[:, 1] > 0).long()


def near(model: nn.Module, seed: int) -> nn.Module:
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model
