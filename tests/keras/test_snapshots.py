"""Recording a Keras model, and predicting with what was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import cosanneal as ca
from cosanneal.adapters.keras import CyclicCosineSchedule, SnapshotEnsemble, SnapshotRecorder
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


class Weights(keras.callbacks.Callback):
    """The weights after each update, by the optimizer's count."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, list[Any]] = {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        model = self.model
        self.seen[int(model.optimizer.iterations)] = model.get_weights()


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


@pytest.mark.parametrize("set_lr", [False, True])
@pytest.mark.parametrize(
    "compiled",
    [{"jit_compile": False}, {"jit_compile": "auto"}, {"run_eagerly": True}],
    ids=["uncompiled", "compiled", "eager"],
)
def test_snapshots_are_the_weights_after_each_cycles_last_update(
    tmp_path: Path, set_lr: bool, compiled: dict[str, Any]
) -> None:
    model = small_net(rate=0.5 if set_lr else None, **compiled)
    weights = Weights()
    recorder = SnapshotRecorder(tmp_path, SCHEDULE, set_lr=set_lr)
    fit(model, recorder, weights)
    assert steps(recorder.store) == [(0, 5), (1, 10), (2, 15), (3, 20)]
    assert recorder.updates == 20
    for snapshot in recorder.store.list():
        loaded = snapshot.load()
        assert {*loaded} == {*NAMES}
        for name, value in zip(NAMES, weights.seen[snapshot.step], strict=True):
            assert np.array_equal(loaded[name], value), name
            assert loaded[name].dtype == value.dtype
        assert snapshot.metadata["rate"] == SCHEDULE.rate(snapshot.step - 1)
        assert snapshot.metadata["framework"] == "keras"
        assert snapshot.metadata["versions"]["keras"] == keras.__version__
        assert snapshot.schedule == SCHEDULE
    assert not np.array_equal(weights.seen[15][0], weights.seen[20][0])


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def by_numpy(snapshot: Any, x: Any) -> Any:
    """The logits of a snapshot of small_net, in float64."""
    w = {name: value.astype(float) for name, value in snapshot.load().items()}
    x = x.astype(float) @ w["dense/kernel"] + w["dense/bias"]
    x = (x - w["batch_normalization/moving_mean"]) / np.sqrt(
        w["batch_normalization/moving_variance"] + 1e-3
    )
    x = np.maximum(x * w["batch_normalization/gamma"] + w["batch_normalization/beta"], 0)
    return x @ w["dense_1/kernel"] + w["dense_1/bias"]


def trained(folder: Path) -> Any:
    model = small_net()
    fit(model, SnapshotRecorder(folder, SCHEDULE))
    return model


def test_the_prediction_is_the_mean_of_the_members_softmax(tmp_path: Path) -> None:
    model = trained(tmp_path)
    x, _ = data(30)
    ensemble = SnapshotEnsemble(model, tmp_path, last=3)
    members = SnapshotStore(tmp_path).list()[-3:]
    expected = np.mean([softmax(by_numpy(snapshot, x)) for snapshot in members], axis=0)
    probabilities = ensemble.predict(x)
    assert isinstance(probabilities, np.ndarray)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected, rtol=2e-5, atol=1e-7)
    for batch_size in (1, 7, 30, 100):
        again = ensemble.predict(keras.ops.convert_to_tensor(x), batch_size=batch_size)
        np.testing.assert_allclose(again, probabilities, rtol=5e-6, atol=1e-7)
    found = list(ensemble.member_predictions(x))
    assert len(found) == len(ensemble) == 3
    mean = np.stack(found).astype(np.float64).mean(0).astype(np.float32)
    np.testing.assert_array_max_ulp(probabilities, mean, 1)
