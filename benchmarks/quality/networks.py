"""Plain networks, several runs of one at once.

Runs lie along an axis of their own, and no number goes from one to another: the loss is the sum
of theirs, and the optimizers work number by number, so that each learns what it would learn alone.
Inputs are of shape (samples, runs, ...), outputs too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .tasks import Task


def uniform(seeds: Sequence[int], layer: int, shape: tuple[int, ...], fan_in: int) -> nn.Parameter:
    """Initial weights as torch's own layers have them, `U(-1, 1) / sqrt(fan_in)`, for each run."""
    parts = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(1000 * seed + layer)
        parts.append(torch.rand(shape, generator=generator) * 2 - 1)
    return nn.Parameter(torch.stack(parts) / fan_in**0.5)


class Linear(nn.Module):
    """A layer for each run: (samples, runs, inputs) to (samples, runs, outputs)."""

    def __init__(self, seeds: Sequence[int], layer: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = uniform(seeds, 2 * layer, (inputs, outputs), inputs)
        self.bias = uniform(seeds, 2 * layer + 1, (1, outputs), inputs)

    def forward(self, x: Tensor) -> Tensor:
        """One product for each run."""
        return torch.baddbmm(self.bias, x.transpose(0, 1), self.weight).transpose(0, 1)


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, seeds: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        pairs = pairwise(widths)
        self.layers = nn.ModuleList([Linear(seeds, i, *pair) for i, pair in enumerate(pairs)])

    def forward(self, x: Tensor) -> Tensor:
        """The layers in turn."""
        for i, layer in enumerate(self.layers):
            x = layer(torch.relu(x) if i else x)
        return x


class CNN(nn.Module):
    """Two convolutions of 3 x 3, each with ReLU and a pooling to half the size, and a layer."""

    def __init__(self, seeds: Sequence[int], channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.runs = len(seeds)
        kernels, before = [], 1
        for i, width in enumerate(channels):
            weight = uniform(seeds, 2 * i, (width, before, 3, 3), 9 * before)
            kernels.append(nn.Parameter(weight.detach().flatten(0, 1)))
            before = width
        self.kernels = nn.ParameterList(kernels)
        self.last = Linear(seeds, len(channels), before * (8 >> len(channels)) ** 2, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of each image."""
        x = x.reshape(len(x), self.runs, 8, 8)
        for kernel in self.kernels:
            x = torch.conv2d(x, kernel, padding=1, groups=self.runs)
            x = torch.max_pool2d(torch.relu(x), 2)
        logits: Tensor = self.last(x.reshape(len(x), self.runs, -1))
        return logits


class GRU(nn.Module):
    """A gated recurrent unit over characters: (samples, runs, time) to (..., time, classes)."""

    def __init__(self, seeds: Sequence[int], hidden: int, classes: int) -> None:
        super().__init__()
        self.hidden, self.classes = hidden, classes
        table = uniform(seeds, 0, (classes, 3 * hidden), hidden)
        self.table = nn.Parameter(table.detach().flatten(0, 1))
        self.weight = uniform(seeds, 1, (hidden, 3 * hidden), hidden)
        self.bias = uniform(seeds, 2, (1, 3 * hidden), hidden)
        self.last = Linear(seeds, 3, hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of the character after each."""
        samples, runs, time = x.shape
        shifted = x + torch.arange(runs)[:, None] * self.classes
        given = nn.functional.embedding(shifted, self.table).permute(2, 1, 0, 3)
        h = given.new_zeros(runs, samples, self.hidden)
        states = []
        for now in given:
            own = torch.baddbmm(self.bias, h, self.weight)
            opened = torch.sigmoid(now[..., : -self.hidden] + own[..., : -self.hidden])
            update, reset = opened.chunk(2, dim=-1)
            new = torch.tanh(now[..., -self.hidden :] + reset * own[..., -self.hidden :])
            h = new + update * (h - new)
            states.append(h)
        every = torch.stack(states, dim=1).flatten(1, 2)  # (runs, time x samples, hidden)
        logits: Tensor = self.last(every.transpose(0, 1))
        return logits.reshape(time, samples, runs, -1).permute(1, 2, 0, 3)


def network_of(task: Task, seeds: Sequence[int], inputs: int, classes: int) -> nn.Module:
    """The task's network, with initial weights for each of the seeds."""
    if task.network == "cnn":
        return CNN(seeds, task.hidden, classes)
    if task.network == "gru":
        return GRU(seeds, task.hidden[0], classes)
    return MLP(seeds, (inputs, *task.hidden, classes or 1))
