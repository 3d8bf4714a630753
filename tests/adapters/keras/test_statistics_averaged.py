"""What the averaged weights of a Keras model predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

import cosanneal as ca
from cosanneal.adapters.keras import SnapshotEnsemble, SnapshotRecorder
from tests.shared.averaged import check_averaged


def build() -> Any:
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(8), layers.BatchNormalization(), layers.Dense(3)]
    )


def test_they_predict_at_their_temperature_with_statistics_of_a_sample(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    x = random.normal(size=(3000, 4)).astype("float32")
    y = np.argmax(x[:, :3] + 2 * random.normal(size=(3000, 3)), axis=1)
    model, schedule = build(), ca.CyclicCosine(0.1, total_steps=2, num_cycles=2)
    first, norm, last = model.layers
    first.set_weights([np.eye(4, 8), np.zeros(8)])  # so that it knows something from the start
    last.set_weights([np.eye(8, 3), np.zeros(3)])
    assert norm.trainable
    model.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(True))
    recorder = SnapshotRecorder(tmp_path, schedule)
    model.fit(x, y, batch_size=1500, verbose=0, callbacks=[recorder])
    other = build()

    def logits(weights: Any, x: Any) -> Any:
        other.set_weights(weights)
        return other.predict_on_batch(x)

    ensemble = SnapshotEnsemble(model, tmp_path, outputs="logits")
    found = check_averaged(ensemble, logits, x[:200], y[:200], train_data=x)
    assert (found.samples, found.seed) == (2048, 0)
    tensors = keras.ops.convert_to_tensor(x)
    again = ensemble.average_weights(train_data=tensors, barrier=float("inf"))
    for ours, theirs in zip(again.weights, found.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 30

        def __getitem__(self, i: int) -> Any:
            return x[100 * i : 100 * i + 100], y[100 * i : 100 * i + 100]

    batched = ensemble.average_weights(train_data=Batches(), samples=250, barrier=float("inf"))
    assert (batched.samples, batched.seed) == (300, 0)
