"""A study's training in place of a real one, which other processes import: numbers from a seed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from cosanneal.core.schedule import Schedule
from cosanneal.study import Run


def train(schedule: Schedule, folder: Path, seed: int) -> Run:
    """Members that are right three times of four, and the better the more there are."""
    assert not list(folder.iterdir())
    (folder / "trained").touch()
    cycles = len(schedule.cycle_ends())
    random = np.random.default_rng(1000 * seed + cycles)
    y = random.integers(3, size=300)
    logits = 1.2 * np.eye(3)[y] + random.normal(size=(cycles, 300, 3))
    p = np.exp(logits)
    p /= p.sum(axis=-1, keepdims=True)
    return Run(validation=(p[:, :150], y[:150]), test=(p[:, 150:], y[150:]))


def slow(schedule: Schedule, folder: Path, seed: int) -> Run:
    """The same, but that runs of seed 1 wait while a file says so."""
    while seed == 1 and (folder.parent / "wait").exists():
        time.sleep(0.02)
    return train(schedule, folder, seed)


def dying(schedule: Schedule, folder: Path, seed: int) -> Run:
    """The same, but that one run's process ends."""
    if (len(schedule.cycle_ends()), seed) == (2, 0):
        os._exit(9)
    return train(schedule, folder, seed)
