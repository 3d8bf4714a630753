"""What the schedule and the recorder cost in `fit`, beside a constant rate and Keras' own restarts.

    KERAS_BACKEND=tensorflow python -m benchmarks.keras_fit [--rounds 15] [--width 256]

Of each update of an epoch of 300. The same net is trained at a constant rate, which
is the limit, with CosineDecayRestarts, with CyclicCosineSchedule, with the recorder
as well, and with the recorder that sets the rate itself. No snapshot falls into an
epoch that is measured: writing one costs what the disk costs, once a cycle. The
schedule with the recorder may take 1.03 times the constant rate.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

import cosanneal as ca
from benchmarks.harness import Figure, alone, in_turn
from cosanneal.adapters.keras import CyclicCosineSchedule, SnapshotRecorder

UPDATES = 300  # of an epoch
GOAL = 1.03


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


def measure(rounds: int = 15, width: int = 256) -> Iterator[Figure]:
    """An update of `fit`, on the backend that Keras was told to use."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64 * UPDATES, 128)).astype(np.float32)
    y = rng.integers(10, size=len(x))
    cycle = UPDATES * (rounds + 2)  # ends after the last round
    schedule = ca.CyclicCosine(1e-3, total_steps=2 * cycle, num_cycles=2)
    ours = CyclicCosineSchedule(schedule)
    restarts = keras.optimizers.schedules.CosineDecayRestarts(1e-3, cycle)
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: functools.partial(
                net(rate, width).fit,
                *(x, y),
                batch_size=64,
                callbacks=callbacks,
                shuffle=False,
                verbose=0,
            )
            for name, rate, callbacks in (
                ("constant rate", 1e-3, []),
                ("CosineDecayRestarts", restarts, []),
                ("schedule", ours, []),
                ("schedule and recorder", ours, [SnapshotRecorder(Path(folder, "a"), schedule)]),
                (
                    "recorder with set_lr",
                    1e-3,
                    [SnapshotRecorder(Path(folder, "b"), schedule, set_lr=True)],
                ),
            )
        }
        # The first round, which compiles, is not counted.
        times = in_turn(runs, repeats=rounds, per=UPDATES * 1e-3, clock=time.perf_counter)
    limit, peer = times.pop("constant rate"), times.pop("CosineDecayRestarts")
    for name, taken in times.items():
        yield Figure(
            name=f"{name}, {keras.backend.backend()}",
            unit="ms",
            ours=taken,
            peers={"CosineDecayRestarts": peer},
            limit=limit,
            goal=GOAL if name == "schedule and recorder" else None,
        )


def main() -> int:
    """Print the table; 1 if the goal is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--width", type=int, default=256, help="of the net's layers")
    given = parser.parse_args()
    return alone(measure(given.rounds, given.width))


if __name__ == "__main__":
    sys.exit(main())
