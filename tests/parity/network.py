"""One small network, written once as arrays; every framework loads the same numbers."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FEATURES: Final = 16
HIDDEN: Final = 12
CLASSES: Final = 5
MEMBERS: Final = 4

CONFORMAL: Final[tuple[dict[str, Any], ...]] = (
    {"method": "lac"},
    {"method": "aps", "randomized": True},
    {"method": "raps"},
)

# Kernels of shape (inputs, outputs), by the layer's name.
Weights = dict[str, dict[str, NDArray[np.float32]]]


def members() -> list[Weights]:
    """The weights at the end of each cycle."""
    return [_weights(np.random.default_rng(member)) for member in range(MEMBERS)]


def inputs() -> NDArray[np.float32]:
    """What the ensemble predicts, shape (samples, features)."""
    return np.random.default_rng(99).normal(size=(1200, FEATURES)).astype(np.float32)


def labels() -> NDArray[np.int64]:
    """Classes for them, which two of the members know best; one in five is anyone's guess."""
    found = expected()[[1, 3]].mean(axis=0).argmax(axis=1)
    generator = np.random.default_rng(98)
    guessed = generator.random(len(found)) < 0.2
    return np.where(guessed, generator.integers(CLASSES, size=len(found)), found)


def expected() -> NDArray[np.float64]:
    """The members' probabilities in float64, shape (members, samples, classes)."""
    x = inputs().astype(np.float64)
    found = []
    for weights in members():
        hidden = np.maximum(x @ weights["hidden"]["kernel"] + weights["hidden"]["bias"], 0)
        logits = hidden @ weights["head"]["kernel"] + weights["head"]["bias"]
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        found.append(raised / raised.sum(axis=1, keepdims=True))
    return np.array(found)


def demonstration() -> Weights:
    """The kernels that the demonstration's model begins with, (height, width, inputs, outputs)."""
    shapes: dict[str, tuple[int, ...]] = {
        "convolution0": (3, 3, 1, 8),
        "convolution1": (3, 3, 8, 16),
        "hidden": (64, 32),
        "last": (32, 10),
    }
    generator = np.random.default_rng(97)
    return {
        name: {"kernel": (generator.normal(size=shape) / np.prod(shape[:-1]) ** 0.5).astype("f4")}
        for name, shape in shapes.items()
    }


def _weights(generator: Any) -> Weights:
    shapes = {"hidden": (FEATURES, HIDDEN), "head": (HIDDEN, CLASSES)}
    return {
        name: {
            # Scaled as networks are at the start, so that rounding stays far below 1e-6.
            "kernel": (generator.normal(size=shape) / shape[0] ** 0.5).astype(np.float32),
            "bias": generator.normal(size=shape[1]).astype(np.float32),
        }
        for name, shape in shapes.items()
    }
