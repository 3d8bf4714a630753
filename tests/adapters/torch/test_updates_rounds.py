"""Optimizers that are called with one part of the weights after the other, as ZeRO-3 does."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotRecorder

SCHEDULE = ca.CyclicCosine(0.1, total_steps=12, num_cycles=3)


def in_parts(optimizer: Any, parts: list[list[nn.Parameter]]) -> None:
    """One update, with each group's parts in its place; of all other groups there are none."""
    for group, own in zip(optimizer.param_groups, parts, strict=True):
        for part in own:
            group["params"] = [part]
            optimizer.step()
            group["params"] = []


@pytest.mark.parametrize("parts", [[1, 1], [2, 1], [1, 3]])
def test_the_parts_of_an_update_count_as_one(tmp_path: Path, parts: list[int]) -> None:
    made = [[nn.Parameter(torch.ones(2)) for _ in range(count)] for count in parts]
    optimizer = torch.optim.SGD([{"params": own} for own in made], lr=0.1)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    for group in optimizer.param_groups:
        group["params"] = []
    model = nn.Linear(2, 2)
    with SnapshotRecorder(tmp_path, model, scheduler) as recorder:
        for _ in range(12):
            in_parts(optimizer, made)
            scheduler.step()
    assert [each.step for each in recorder.store.list()] == [4, 8, 12]


def test_a_scheduler_that_is_stepped_too_seldom_is_said_of_parts_too() -> None:
    made = [[nn.Parameter(torch.ones(2))], [nn.Parameter(torch.ones(2))]]
    optimizer = torch.optim.SGD([{"params": own} for own in made], lr=0.1)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(4):
            for _ in range(3):
                in_parts(optimizer, made)
            scheduler.step()
    assert any("moved 1 step in 3 updates" in str(each.message) for each in said)
