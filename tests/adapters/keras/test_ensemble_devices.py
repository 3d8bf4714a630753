"""Ensembles of Keras models that lie on several devices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.shared.compiling import BACKEND

# The snapshots, by numpy.
EXPECTED = """
import numpy as np
import keras
import cosanneal as ca
from cosanneal.adapters.keras import SnapshotEnsemble, SnapshotRecorder, export_weights
from tests.shared.keras_runs import NAMES, SCHEDULE, data, fit, small_net, steps

class Same(keras.layers.Layer):
    def call(self, x):
        return x

def own_net():  # which cannot be copied
    small = small_net()
    model = keras.Sequential([keras.Input((4,)), *small.layers, Same()])
    model.compile(small.optimizer, small.loss)
    return model

def expected(folder, x):
    found = 0
    for snapshot in ca.snapshots.SnapshotStore(folder).list():
        each = [snapshot.load()[name].astype(float) for name in NAMES]
        h = x @ each[0] + each[1]
        h = (h - each[4]) / np.sqrt(each[5] + 1e-3) * each[2] + each[3]
        z = np.maximum(h, 0) @ each[6] + each[7]
        found = found + np.exp(z) / np.exp(z).sum(-1, keepdims=True) / 4
    return found

def check(ensemble, folder):
    x, _ = data(33)
    for rows, batch_size, mode in ((1, None, "stream"), (7, 3, "resident"), (33, 8, "stacked")):
        found = ensemble.predict(x[:rows], batch_size=batch_size, mode=mode)
        assert found.shape == (rows, 3), found.shape
        np.testing.assert_allclose(found, expected(folder, x[:rows]), rtol=1e-5)
"""

MIRRORED = """
import inspect
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

def mirrored(build):
    with strategy.scope():
        return build()

def replicas(model):
    return [[np.asarray(part) for part in each.value.values] for each in model.variables]

ON_READ = "synchronization" in inspect.signature(keras.Variable).parameters

for build in (small_net, own_net):
    folder = FOLDER + build.__name__
    model = mirrored(build)
    fit(model, SnapshotRecorder(folder, SCHEDULE))
    before, own = replicas(model), model.distribute_strategy
    # Statistics of their own, but in older releases, which keep them alike.
    assert any(not np.array_equal(*parts) for parts in before) or not ON_READ
    ensemble = SnapshotEnsemble(model, folder)
    check(ensemble, folder)
    x, y = data(40)
    if build is own_net:
        given = lambda: mirrored(build)
        forward = lambda model, batch: model.predict_on_batch(batch)
        built = SnapshotEnsemble(given, folder, forward=forward, outputs="logits")
        np.testing.assert_allclose(built.predict(x), expected(folder, x), rtol=1e-5)
        ensemble.average_weights(x, y, train_data=x, barrier=float("inf"))
        export_weights(ensemble.members[0], folder + ".weights.h5", model=model)
    for had, has in zip(before, replicas(model), strict=True):
        assert all(map(np.array_equal, had, has))
    assert model.distribute_strategy is own
    assert model.predict(x, verbose=0).shape == (40, 3)  # over all replicas, as before
    for call in (lambda: SnapshotEnsemble(model, folder), lambda: ensemble.predict(x)):
        try:
            mirrored(call)
        except ca.EnsembleError as error:
            assert "outside of the scope of a tf.distribute strategy" in str(error)
            assert "MirroredStrategy" in str(error)
        else:
            raise AssertionError("within the scope")

if not ON_READ:
    sys.exit()

# One update of a replica each: what is read is what TensorFlow says the variable is.
class Counts(keras.layers.Layer):
    def build(self, shape):
        made = {"trainable": False, "synchronization": "on_read"}
        for name in ("mean", "sum", "only_first_replica"):
            setattr(self, name, keras.Variable(0.0, aggregation=name, name=name, **made))

    def call(self, x, training=False):
        if training:
            for each in (self.mean, self.sum, self.only_first_replica):
                each.assign_add(keras.ops.max(x))
        return x

def counting():
    model = keras.Sequential([keras.Input((4,)), Counts(), keras.layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model

folder, model = FOLDER + "counts", mirrored(counting)
x = np.repeat(np.arange(1, 9, dtype="float32")[:, None], 4, 1)
one = ca.CyclicCosine(0.1, cycle_steps=1)
model.fit(x, x[:, :3], batch_size=8, shuffle=False, verbose=0, callbacks=[
    SnapshotRecorder(folder, one, set_lr=True)])
snapshot = ca.snapshots.SnapshotStore(folder).list()[0].load()
assert [float(snapshot["counts/" + name]) for name in ("mean", "sum", "only_first_replica")] == [
    6.0, 12.0, 4.0]
before = replicas(model)
SnapshotEnsemble(model, folder, outputs="values").predict(x[:3])
for had, has in zip(before, replicas(model), strict=True):
    assert all(map(np.array_equal, had, has))
"""

LAID_OUT = """
import contextlib
devices = keras.distribution.list_devices("cpu")
assert len(devices) == 4
mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"], devices)
layout = keras.distribution.LayoutMap(mesh)
layout[".*/dense/kernel"] = (None, "model")
for i, distribution in enumerate((
    keras.distribution.DataParallel(devices=devices),
    keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch"),
)):
    keras.backend.clear_session()
    build = (small_net, own_net)[i]
    folder = FOLDER + str(i)
    with distribution.scope():
        model = build()
        fit(model, SnapshotRecorder(folder, SCHEDULE))
    before = [(np.array(each.value), each.value.sharding) for each in model.variables]
    assert all(len(sharding.device_set) == 4 for _, sharding in before)
    for scope in (contextlib.nullcontext(), distribution.scope()):
        with scope:
            check(SnapshotEnsemble(model, folder), folder)
    for (value, sharding), each in zip(before, model.variables, strict=True):
        assert np.array_equal(value, each.value)
        assert sharding == each.value.sharding
"""


def run(code: str, folder: Path, begin: str = "") -> None:
    code = f"FOLDER = {str(folder / 'run')!r}\n{begin}{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a strategy of TensorFlow's")
def test_an_ensemble_of_a_mirrored_model(tmp_path: Path) -> None:
    run(EXPECTED + MIRRORED, tmp_path)


@pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution is of JAX")
def test_an_ensemble_of_a_model_that_is_laid_out(tmp_path: Path) -> None:
    four = 'import os\nos.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"\n'
    run(EXPECTED + LAID_OUT, tmp_path, four)
