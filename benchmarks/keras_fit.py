"""What the schedule and the recorder cost in `fit`, beside a constant rate and Keras' own restarts.

    KERAS_BACKEND=tensorflow python benchmarks/keras_fit.py

The same net is trained, in one process and in turn, at a constant rate, with
CosineDecayRestarts, with CyclicCosineSchedule, with the recorder as well, and
with the recorder that sets the rate itself. Each figure is the median over the
rounds of an epoch's milliseconds by its updates, and its ratio to the constant
rate the median of the rounds' own ratios. No snapshot falls into an epoch that
is measured: writing one costs what the disk costs, once a cycle. At most 3 % is
allowed to the schedule with the recorder; the exit status says whether it held.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from typing import Any

import keras
import numpy as np
from keras import layers

import cosanneal as ca
from cosanneal.adapters.keras import CyclicCosineSchedule, SnapshotRecorder

UPDATES = 300  # of an epoch
LIMIT = 1.03


def net(rate: Any, width: int) -> Any:
    """A net of three layers, compiled."""
    model = keras.Sequential(
        [
            keras.Input((128,)),
            *(layers.Dense(width, activation="relu"), layers.Dense(width, activation="relu")),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss)
    return model


def main() -> int:
    """Print the table; 1 if the limit is exceeded."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--width", type=int, default=256, help="of the net's layers")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64 * UPDATES, 128)).astype(np.float32)
    y = rng.integers(10, size=len(x))
    total = UPDATES * (given.rounds + 1)
    schedule = ca.CyclicCosine(1e-3, total_steps=2 * total, num_cycles=2)
    restarts = keras.optimizers.schedules.CosineDecayRestarts(1e-3, total)
    recorded = "schedule and recorder"
    runs: dict[str, tuple[Any, list[Any]]] = {}
    ours = CyclicCosineSchedule(schedule)
    folders = [tempfile.mkdtemp() for _ in range(2)]
    for name, rate, callbacks in (
        ("constant rate", 1e-3, []),
        ("CosineDecayRestarts", restarts, []),
        ("schedule", ours, []),
        (recorded, ours, [SnapshotRecorder(folders[0], schedule)]),
        ("recorder with set_lr", 1e-3, [SnapshotRecorder(folders[1], schedule, set_lr=True)]),
    ):
        runs[name] = net(rate, given.width), callbacks
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_number in range(given.rounds + 1):
        for name, (model, callbacks) in runs.items():
            start = time.perf_counter()
            model.fit(x, y, batch_size=64, callbacks=callbacks, shuffle=False, verbose=0)
            if round_number:  # the first compiles
                times[name].append((time.perf_counter() - start) / UPDATES * 1e3)
    print(f"Keras {keras.__version__} on {keras.backend.backend()}, width {given.width}")
    ratios = {}
    for name, taken in times.items():
        each = [a / b for a, b in zip(taken, times["constant rate"], strict=True)]
        ratios[name] = statistics.median(each)
        print(f"{name:<24} {statistics.median(taken):8.3f} ms an update {ratios[name]:8.3f}")
    return int(ratios[recorded] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
