"""A small Keras model, its training and the snapshots of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

import cosanneal as ca
from cosanneal.adapters.keras import CyclicCosineSchedule, SnapshotRecorder
from cosanneal.snapshots import SnapshotStore

SCHEDULE = ca.CyclicCosine(0.1, total_steps=20, num_cycles=4)


def small_net(seed: int = 0, *, rate: Any = None, **compiled: Any) -> Any:
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Dense(3),
        ]
    )
    rate = CyclicCosineSchedule(SCHEDULE) if rate is None else rate
    optimizer = rate if isinstance(rate, keras.Optimizer) else keras.optimizers.SGD(rate, 0.9)
    model.compile(
        optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), **compiled
    )
    return model


def data(samples: int = 40) -> tuple[Any, Any]:
    x = np.random.default_rng(7).normal(size=(samples, 4)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)


def fit(model: Any, *callbacks: Any, updates: int = 20, **given: Any) -> Any:
    """Five updates an epoch."""
    x, y = data()
    return model.fit(
        x,
        y,
        batch_size=8,
        epochs=given.pop("epochs", updates // 5),
        callbacks=[*callbacks],
        shuffle=False,
        verbose=0,
        **given,
    )


def steps(store: SnapshotStore) -> list[tuple[int, int]]:
    return [(snapshot.cycle, snapshot.step) for snapshot in store.list()]


# In the order of model.get_weights().
NAMES = [
    "dense/kernel",
    "dense/bias",
    "batch_normalization/gamma",
    "batch_normalization/beta",
    "batch_normalization/moving_mean",
    "batch_normalization/moving_variance",
    "dense_1/kernel",
    "dense_1/bias",
]


def trained(folder: Path | str) -> Any:
    model = small_net()
    fit(model, SnapshotRecorder(folder, SCHEDULE))
    return model


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def wider() -> Any:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(9), layers.Dense(3)])
    model.compile(
        keras.optimizers.SGD(CyclicCosineSchedule(SCHEDULE)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def record_once(folder: Path, model: Any) -> SnapshotStore:
    """The model as it is, after an update that did nothing."""
    schedule = ca.CyclicCosine(0.1, cycle_steps=1)
    model.compile(keras.optimizers.SGD(0.0), lambda _, y_pred: keras.ops.sum(y_pred))
    recorder = SnapshotRecorder(folder, schedule, resume_from=0)
    recorder.set_model(model)
    recorder.on_train_begin()
    recorder.on_train_batch_begin(0)
    model.optimizer.iterations.assign(1)
    recorder.on_train_end()
    return recorder.store
