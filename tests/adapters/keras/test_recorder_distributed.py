"""Recording Keras models whose variables lie on several devices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.shared.compiling import BACKEND

MIRRORED = """
import warnings
from pathlib import Path
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, numpy as np
from cosanneal.adapters.keras import SnapshotRecorder
from tests.shared.keras_runs import NAMES, SCHEDULE, contents, fit, small_net, steps
warnings.simplefilter("error", UserWarning)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2

class Weights(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.seen[int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))] = (
            self.model.get_weights()
        )

def run(folder, seen, updates, made=None, set_lr=False):
    weights = Weights()
    weights.seen = seen
    with strategy.scope():
        model = made() if made else small_net(rate=0.5 if set_lr else None)
    recorder = SnapshotRecorder(folder, SCHEDULE, set_lr=set_lr)
    fit(model, recorder, weights, updates=updates)
    return model, recorder

for set_lr in (False, True):
    seen = {{}}
    folder = {folder!r} + str(set_lr)
    _, recorder = run(folder, seen, 20, set_lr=set_lr)
    assert steps(recorder.store) == [(0, 5), (1, 10), (2, 15), (3, 20)]
    for snapshot in recorder.store.list():
        for name, value in zip(NAMES, seen[snapshot.step], strict=True):
            assert np.array_equal(snapshot.load()[name], value), name
        assert snapshot.metadata["rate"] == SCHEDULE.rate(snapshot.step - 1)
folder = {folder!r} + "resumed"
model, recorder = run(folder, {{}}, 10)
model.save(folder + ".keras")
_, recorder = run(folder, {{}}, 10, made=lambda: keras.saving.load_model(folder + ".keras"))
assert steps(recorder.store) == [(0, 5), (1, 10), (2, 15), (3, 20)]
assert contents(Path(folder)).keys() == contents(Path({folder!r} + "False")).keys()
"""

SHARDED = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import keras, numpy as np
from cosanneal.adapters.keras import SnapshotEnsemble, SnapshotRecorder
from tests.shared.keras_runs import NAMES, SCHEDULE, data, fit, small_net, steps
devices = keras.distribution.list_devices("cpu")
assert len(devices) == 4
mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"], devices)
layout = keras.distribution.LayoutMap(mesh)
layout[".*dense/kernel"] = (None, "model")
with keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch").scope():
    model = small_net()
    assert len({{str(each.index) for each in model.layers[0].kernel.value.addressable_shards}}) > 1
    seen = {{}}
    class Weights(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen[int(self.model.optimizer.iterations)] = self.model.get_weights()
    recorder = SnapshotRecorder({folder!r}, SCHEDULE)
    fit(model, recorder, Weights())
assert steps(recorder.store) == [(0, 5), (1, 10), (2, 15), (3, 20)]
for snapshot in recorder.store.list():
    for name, value in zip(NAMES, seen[snapshot.step], strict=True):
        assert np.array_equal(snapshot.load()[name], value), name
assert snapshot.load()["dense/kernel"].shape == (4, 8)
"""


def run(code: str, tmp_path: Path) -> None:
    code = code.format(folder=str(tmp_path / "run"))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a strategy of TensorFlow's")
def test_mirrored_variables_on_two_devices(tmp_path: Path) -> None:
    run(MIRRORED, tmp_path)


@pytest.mark.skipif(BACKEND != "jax", reason="Keras shards variables over devices on JAX")
def test_variables_that_are_sharded_are_recorded_whole(tmp_path: Path) -> None:
    run(SHARDED, tmp_path)
