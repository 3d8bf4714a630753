"""A recorder of numpy arrays, and a run that needs no framework."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import cosanneal as ca
from cosanneal.snapshots.recorder import BaseRecorder, Metrics

EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)


class ArrayRecorder(BaseRecorder):
    framework = "numpy"
    framework_version = np.__version__
    weights: Mapping[str, Any]

    def step(self, weights: Mapping[str, Any], metrics: Metrics = None) -> bool:
        self.weights = weights
        return self._advance(self.updates + 1, metrics)

    def _weights(self) -> Mapping[str, Any]:
        return self.weights


def step_and_wait(recorder: ArrayRecorder, weights: Mapping[str, Any]) -> None:
    """Take a snapshot and wait for it; either may say that it could not be written."""
    recorder.step(weights)
    recorder.wait()


def filled(value: float, size: int = 1000) -> dict[str, Any]:
    return {"w": np.full(size, value, np.float32)}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
