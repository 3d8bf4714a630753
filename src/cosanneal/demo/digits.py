"""The digits of scikit-learn: 1,797 real scans of 8 x 8 pixels, which come with the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..core.errors import MissingExtraError

try:
    from sklearn.datasets import load_digits
except ModuleNotFoundError as _error:
    if _error.name != "sklearn":
        raise
    raise MissingExtraError.for_extra(
        "demo", package="scikit-learn", needed_by="the demonstration"
    ) from _error

CLASSES: Final = 10
TRAIN: Final = 150
VALIDATION: Final = 500  # and the other 1,147 to test


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One part of a split.

    Args:
        x: scans, float32 of shape (samples, 8, 8), from 0 to 1.
        y: digits, int64 of shape (samples,).
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Three parts that share no scan."""

    train: Part
    validation: Part
    test: Part


def split_digits(seed: int) -> Split:
    """All scans in three parts, drawn anew for each seed.

    Args:
        seed: decides which scan goes where.
    """
    digits: Any = load_digits()
    x = (digits.images / 16.0).astype(np.float32)
    y = digits.target.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(y))
    train, validation, test = np.split(order, [TRAIN, TRAIN + VALIDATION])
    return Split(*(Part(x[part], y[part]) for part in (train, validation, test)))


def batch_order(seed: int, samples: int, batch_size: int, updates: int) -> NDArray[np.intp]:
    """Which scans each update sees: shape (updates, batch_size), a fresh order every epoch.

    What is left of an epoch, being less than a batch, is passed over.
    """
    generator = np.random.default_rng([seed, 1])
    each = samples // batch_size
    epochs = -(-updates // each)
    rows = [
        generator.permutation(samples)[: each * batch_size].reshape(each, batch_size)
        for _ in range(epochs)
    ]
    return np.concatenate(rows)[:updates]
