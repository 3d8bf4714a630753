"""Training, snapshots and prediction on a device, with Keras on the backend of KERAS_BACKEND."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import cosanneal as ca
from cosanneal.adapters.keras import CyclicCosineSchedule, SnapshotEnsemble, SnapshotRecorder
from cosanneal.snapshots import SnapshotStore
from tests.shared.compiling import BACKEND, ways
from tests.shared.plans import INT32, PLANS, assert_close, peaks_of, plan, steps_of

pytestmark = [
    pytest.mark.gpu,
    # What Keras itself does that numpy deprecates.
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    ),
]

SCHEDULE = ca.CyclicCosine(0.1, total_steps=30, num_cycles=3)
EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)


@pytest.fixture(autouse=True)
def _full_precision() -> Iterator[None]:
    """Devices multiply float32 in fewer bits, unless told otherwise; PyTorch must be told to."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        before = tf.config.experimental.tensor_float_32_execution_enabled()
        tf.config.experimental.enable_tensor_float_32_execution(False)
        yield
        tf.config.experimental.enable_tensor_float_32_execution(before)
    elif BACKEND == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            yield
    else:
        yield


class Ends(keras.callbacks.Callback):
    """The weights at the cycles' ends."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[Any]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        model = self.model
        if SCHEDULE.is_cycle_end(int(model.optimizer.iterations) - 1):
            self.seen.append(model.get_weights())


def network(*, dtype: str = "float32") -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(16, dtype=dtype),
            layers.BatchNormalization(dtype=dtype),
            layers.Activation("relu", dtype=dtype),
            layers.Dense(3, dtype=dtype),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(CyclicCosineSchedule(SCHEDULE), 0.9), loss)
    return model


NAMES = [
    *("dense/kernel", "dense/bias"),
    *(f"batch_normalization/{name}" for name in ("gamma", "beta", "moving_mean")),
    *("batch_normalization/moving_variance", "dense_1/kernel", "dense_1/bias"),
]


def data(samples: int = 96) -> tuple[Any, Any]:
    x = np.random.default_rng(7).normal(size=(samples, 6)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)


def trained(folder: Path, **given: Any) -> tuple[Any, list[list[Any]]]:
    """A small run of 30 updates, and its weights at the cycles' ends."""
    model, ends = network(**given), Ends()
    x, y = data()
    recorder = SnapshotRecorder(folder, SCHEDULE)
    model.fit(x, y, batch_size=32, epochs=10, verbose=0, callbacks=[recorder, ends])
    return model, ends.seen


def assert_holds(snapshot: Any, weights: list[Any]) -> None:
    """The snapshot has these very weights, and no others."""
    loaded = snapshot.load()
    assert {*loaded} == {*NAMES}
    for name, value in zip(NAMES, weights, strict=True):
        assert loaded[name].dtype == value.dtype, name
        assert loaded[name].tobytes() == value.tobytes(), name


def probabilities(folder: Path, x: Any) -> Any:
    """What the ensemble should say, by numpy in float64."""
    members = []
    for snapshot in SnapshotStore(folder).list():
        w = {name: value.astype(float) for name, value in snapshot.load().items()}
        hidden = x.astype(float) @ w["dense/kernel"] + w["dense/bias"]
        mean, variance = (w[f"batch_normalization/moving_{name}"] for name in ("mean", "variance"))
        hidden = (hidden - mean) / np.sqrt(variance + 1e-3)
        hidden = hidden * w["batch_normalization/gamma"] + w["batch_normalization/beta"]
        logits = np.maximum(hidden, 0) @ w["dense_1/kernel"] + w["dense_1/bias"]
        powers = np.exp(logits - logits.max(1, keepdims=True))
        members.append(powers / powers.sum(1, keepdims=True))
    return np.mean(members, axis=0)


def kind_of_device(found: Any) -> str:
    """The kind of device on which a tensor or a variable lies."""
    tensor = found.value if isinstance(found, keras.Variable) else found
    if BACKEND == "jax":
        return "cpu" if {device.platform for device in tensor.devices()} == {"cpu"} else "gpu"
    if BACKEND == "torch":
        return "gpu" if tensor.device.type == "cuda" else str(tensor.device.type)
    return "gpu" if "GPU" in tensor.device else "cpu"


@pytest.mark.parametrize("kind", PLANS)
def test_rates_on_the_device_are_within_8_ulp_of_the_exact_ones(
    kind: str, keras_device: str
) -> None:
    schedule, oracle = plan(kind)
    steps = steps_of(schedule, INT32, some=60)
    exact = [float(oracle.rate(step)) for step in steps]
    peaks = peaks_of(kind, INT32)
    dtype = "int64" if BACKEND == "tensorflow" else "int32"
    for way, computed in ways(CyclicCosineSchedule(schedule)).items():
        got = computed(ops.convert_to_tensor(np.array(steps, dtype)))
        assert kind_of_device(got) == keras_device, way
        assert_close(ops.convert_to_numpy(got), exact, steps, f"{kind}, {way}")
        if peaks:
            got = computed(ops.convert_to_tensor(np.array([*peaks], dtype)))
            wanted = [float(np.float32(peak)) for peak in peaks.values()]
            assert ops.convert_to_numpy(got).tolist() == wanted, way


def test_a_whole_training_with_snapshots_and_ensemble(tmp_path: Path, keras_device: str) -> None:
    model, ends = trained(tmp_path)
    assert all(kind_of_device(weight) == keras_device for weight in model.weights)
    found = SnapshotStore(tmp_path).list()
    assert [(each.cycle, each.step) for each in found] == [(0, 10), (1, 20), (2, 30)]
    for snapshot, weights in zip(found, ends, strict=True):
        assert_holds(snapshot, weights)
    own = model.get_weights()
    x, y = data()
    ensemble = SnapshotEnsemble(model, tmp_path)
    assert (ensemble.predict(x).argmax(1) == y).mean() > 0.6  # guessing has less than 0.5
    with pytest.warns(UserWarning, match="chosen on"):
        ensemble.fit(x, y)
    for before, after in zip(own, model.get_weights(), strict=True):
        assert np.array_equal(before, after)


@pytest.mark.usefixtures("keras_device")
@pytest.mark.parametrize("batch_size", [None, 1, 40])
def test_the_device_predicts_as_the_host_does(tmp_path: Path, batch_size: int | None) -> None:
    model, _ = trained(tmp_path)
    x, _ = data()
    expected = probabilities(tmp_path, x)
    ensemble = SnapshotEnsemble(model, tmp_path)
    for given in (x, ops.convert_to_tensor(x)):
        found = ensemble.predict(given, batch_size=batch_size)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    members = [*ensemble.member_predictions(x)]
    assert max(np.abs(each - expected).max() for each in members) > 1e-3


@pytest.mark.usefixtures("keras_device")
@pytest.mark.parametrize("mode", ["stream", "resident", "stacked"])
def test_every_mode_predicts_the_same(tmp_path: Path, mode: str) -> None:
    model, _ = trained(tmp_path)
    x, _ = data()
    own = model.get_weights()
    given: dict[str, Any] = {"mode": mode}
    ensemble = SnapshotEnsemble(model, tmp_path)
    for batch_size in (None, 40):
        found = ensemble.predict(x, batch_size=batch_size, **given)
        np.testing.assert_allclose(found, probabilities(tmp_path, x), rtol=1e-4, atol=1e-5)
    for before, after in zip(own, model.get_weights(), strict=True):
        assert np.array_equal(before, after)


@pytest.mark.usefixtures("keras_device")
def test_snapshots_of_low_precision_come_back_from_the_device(tmp_path: Path) -> None:
    model, ends = trained(tmp_path, dtype="bfloat16")
    x, _ = data()
    for snapshot, weights in zip(SnapshotStore(tmp_path).list(), ends, strict=True):
        assert snapshot.layout()["dense/kernel"] == ((6, 16), "bfloat16")
        assert_holds(snapshot, weights)
    found = SnapshotEnsemble(model, tmp_path).predict(x)
    # Each member by hand: what the snapshots hold is what predicts.
    members = []
    for weights in ends:
        model.set_weights(weights)
        logits = np.asarray(ops.convert_to_numpy(model(x, training=False)), np.float64)
        powers = np.exp(logits - logits.max(1, keepdims=True))
        members.append(powers / powers.sum(1, keepdims=True))
    assert np.abs(members[0] - members[2]).max() > 0.05
    # Of bfloat16's eight bits, a rounding of the logits, and one of each probability.
    np.testing.assert_allclose(np.asarray(found, float), np.mean(members, axis=0), atol=2**-6)


def used() -> int:
    """The bytes of the device's memory that are in use."""
    if BACKEND == "torch":
        import torch

        return torch.cuda.memory_allocated()
    if BACKEND == "jax":
        import jax

        return int(jax.devices()[0].memory_stats()["bytes_in_use"])
    import tensorflow as tf

    return int(tf.config.experimental.get_memory_info("GPU:0")["current"])


@pytest.mark.usefixtures("keras_device")
def test_streaming_takes_the_memory_of_one_member_however_many_there_are(tmp_path: Path) -> None:
    inputs = keras.Input((2048,))
    model = keras.Model(inputs, layers.Dense(4)(layers.Dense(4096, activation="relu")(inputs)))
    size = sum(4 * int(np.prod(weight.shape)) for weight in model.weights)  # about 34 MB
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.ones((16, 2048), np.float32)
    recorder = SnapshotRecorder(tmp_path, EVERY_STEP)
    model.fit(x, np.zeros((16, 4)), batch_size=2, verbose=0, callbacks=[recorder])
    ensemble = SnapshotEnsemble(model, tmp_path)
    assert len(ensemble) == 8
    taken = []
    for prediction in ensemble.member_predictions(x):
        assert np.isfinite(prediction).all()
        taken.append(used())
    # The model is there already, and holds each member in turn.
    assert taken[0] >= 0.9 * size
    assert max(taken) - min(taken) <= 0.1 * size
