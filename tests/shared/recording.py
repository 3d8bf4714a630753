"""A recorder of numpy arrays, and a run that needs no framework."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Unpack

import numpy as np

import cosanneal as ca
from cosanneal.snapshots.capture import EachStep, HostBuffers
from cosanneal.snapshots.file import Layout
from cosanneal.snapshots.options import Metrics, RecorderOptions
from cosanneal.snapshots.recorder import Recorder

EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)


class ArrayCapture:
    framework = "numpy"
    version = np.__version__
    weights: Mapping[str, Any] | None = None

    def tensors(
        self, names: Collection[str] | None = None, *, cut: Callable[[Any], Any] | None = None
    ) -> Mapping[str, Any]:
        assert self.weights is not None
        found = {
            name: np.asarray(value)
            for name, value in self.weights.items()
            if names is None or name in names
        }
        return found if cut is None else {name: cut(value) for name, value in found.items()}

    def chosen(self, which: Any) -> Collection[str]:
        """What trains has a name that says so."""
        assert self.weights is not None
        if which == "trainable":
            return [name for name in self.weights if name.startswith("train")]
        return [name for name in self.weights if which(name)]

    def stamps(self, names: Collection[str]) -> Mapping[str, object]:  # noqa: ARG002
        return {}

    def layout(self) -> Layout | None:
        if self.weights is None:
            return None
        arrays = {name: np.asarray(value) for name, value in self.weights.items()}
        return {name: (array.shape, array.dtype.name) for name, array in arrays.items()}

    def buffers(self) -> HostBuffers:
        return HostBuffers()


class ArrayRecorder(Recorder):
    def __init__(
        self, folder: Any, schedule: ca.Schedule, **options: Unpack[RecorderOptions]
    ) -> None:
        self.capture = ArrayCapture()
        super().__init__(folder, schedule, self.capture, EachStep(), **options)

    def step(self, weights: Any, metrics: Metrics = None) -> bool:
        self.capture.weights = weights
        return self.look(metrics)


def step_and_wait(recorder: ArrayRecorder, weights: Mapping[str, Any]) -> None:
    """Take a snapshot and wait for it; either may say that it could not be written."""
    recorder.step(weights)
    recorder.wait()


def filled(value: float, size: int = 1000) -> dict[str, Any]:
    return {"w": np.full(size, value, np.float32)}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
