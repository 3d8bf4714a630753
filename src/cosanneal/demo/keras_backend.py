"""The demonstration's model and training function in Keras, on any of its backends."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..adapters.keras import CyclicCosineSchedule, SnapshotEnsemble, SnapshotRecorder
from .digits import CLASSES, Part
from .training import SLOPE, Progress, Trained, Training

# After cosanneal's adapter, which says how to install Keras where it is missing.
import keras  # isort: skip
from keras import layers, ops  # isort: skip


def build_model(seed: int, weight_decay: float) -> keras.Model:
    """A small convolutional network with BatchNorm, its weights drawn from the seed."""
    # Keras' own weight decay leaves the momentum out; a penalty does as the other backends do.
    decay = keras.regularizers.L2(weight_decay / 2)
    seeds = iter(range(4 * seed, 4 * seed + 4))

    def kernel() -> dict[str, Any]:
        # Uniform within 1 / sqrt(inputs), as torch draws them.
        drawn = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=next(seeds))
        return {"kernel_initializer": drawn, "kernel_regularizer": decay}

    def block(layer: Any) -> list[Any]:
        normalization = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
        return [layer, normalization, layers.LeakyReLU(negative_slope=SLOPE)]

    def convolution(outputs: int) -> Any:
        return layers.Conv2D(outputs, 3, padding="same", use_bias=False, **kernel())

    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            *block(convolution(8)),
            layers.MaxPooling2D(),
            *block(convolution(16)),
            layers.MaxPooling2D(),
            layers.Flatten(),
            *block(layers.Dense(32, use_bias=False, **kernel())),
            layers.Dense(CLASSES, **kernel()),
        ]
    )


def train(task: Training) -> Trained:
    """Train the model once."""
    rate = CyclicCosineSchedule(task.schedule)
    model = build_model(task.seed, task.weight_decay)
    model.compile(
        keras.optimizers.SGD(rate, task.momentum),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[_LastLoss()],
    )
    watch = _Watch(task.progress)
    with SnapshotRecorder(task.folder, task.schedule, overwrite=True) as recorder:
        batches = _Batches(task.split.train, task.order)
        model.fit(batches, shuffle=False, verbose=0, callbacks=[watch, recorder])

    def predict(weights: list[Any], part: Part) -> Any:
        model.set_weights(weights)
        return ops.softmax(ops.convert_to_tensor(model.predict_on_batch(_inputs(part))))

    return Trained(
        rates=[float(ops.convert_to_numpy(rate(step))) for step in range(len(task.order))],
        losses=watch.losses,
        ensemble=lambda folder: SnapshotEnsemble(model, folder),
        inputs=_inputs,
        predict=predict,
    )


class _Batches(keras.utils.PyDataset):
    """The scans in the order in which the updates see them."""

    def __init__(self, part: Part, order: NDArray[np.intp]) -> None:
        super().__init__()
        self._x, self._y = _inputs(part), part.y
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, update: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        rows = self._order[update]
        return self._x[rows], self._y[rows]


class _LastLoss(keras.metrics.Metric):
    """The last update's own loss; Keras' is the mean since the epoch began, with the penalty."""

    def __init__(self) -> None:
        super().__init__(name="last_loss")
        self._last = self.add_variable((), "zeros", name="last")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # noqa: ARG002
        losses = keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        self._last.assign(ops.mean(losses))

    def result(self) -> Any:
        return ops.convert_to_tensor(self._last)


class _Watch(keras.callbacks.Callback):
    """Keeps the losses, and shows the progress."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.losses: list[float] = []
        self._progress = progress

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.losses.append(float(logs["last_loss"]))
        self._progress()


def _inputs(part: Part) -> NDArray[np.float32]:
    return part.x[..., None]
