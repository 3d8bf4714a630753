"""One training: what a framework's `train` is handed, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..core.schedule import Schedule
from ..ensemble import SnapshotEnsemble
from .digits import Part, Split

Progress: TypeAlias = Callable[[], None]

# Of LeakyReLU, below 0. At a peak of 0.5, networks with ReLU end as guesses;
# with this slope they learn.
SLOPE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Training:
    """What is to be trained once.

    Args:
        split: the data, of which only the training scans are looked at.
        order: which scans each update sees, shape (updates, batch size).
        seed: of the model's first weights.
        momentum: of SGD.
        weight_decay: of SGD, for kernels alone, not for biases and BatchNorm.
        schedule: the rates, of as many updates.
        folder: where to record a snapshot at the end of each cycle.
        progress: called after every update.
    """

    split: Split
    order: NDArray[np.intp]
    seed: int
    momentum: float
    weight_decay: float
    schedule: Schedule
    folder: Path
    progress: Progress


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What one training leaves.

    Args:
        rates: the rate of every update.
        losses: the training loss of every update.
        ensemble: makes the framework's SnapshotEnsemble of a folder.
        inputs: makes the model's input of scans.
        predict: the probabilities of a model with weights, which are in the
            framework's own form, as `average_weights` gives them.
    """

    rates: list[float]
    losses: list[float]
    ensemble: Callable[[Path], SnapshotEnsemble[Any]]
    inputs: Callable[[Part], Any]
    predict: Callable[[Any, Part], Any]


Train: TypeAlias = Callable[[Training], Trained]
