"""A run of Keras on JAX in several processes; started by tests: `python -m ... JSON [folder]`.

However many there are, there are four devices in all. All sums are of whole numbers, so that
the weights are the same in whatever order they are added.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
import keras
import numpy as np
from keras import layers

import cosanneal as ca
from cosanneal.adapters.keras import (
    CyclicCosineSchedule,
    SnapshotEnsemble,
    SnapshotRecorder,
    load_snapshot,
)
from cosanneal.snapshots import SnapshotStore

PROCESSES = int(os.environ.get("WORLD_SIZE", "1"))
SCHEDULE = ca.CyclicCosine(0.1, total_steps=12, num_cycles=3)
NAMES = ("first", "narrow", "frozen")


def begin() -> int:
    """Bring the processes together; the number of this one."""
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={4 // PROCESSES}"
    jax.config.update("jax_platforms", "cpu")
    if PROCESSES > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        keras.distribution.initialize(address, PROCESSES, int(os.environ["RANK"]))
    return int(jax.process_index())


def distribution(kind: str) -> Any:
    """The weights everywhere, in parts within each process, or in parts over all of them."""
    devices = keras.distribution.list_devices("cpu")
    if kind == "copies":
        return keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)
    shape = (2, 2) if kind == "parts" else (1, 4)
    mesh = keras.distribution.DeviceMesh(shape, ["batch", "model"], devices)
    layout = keras.distribution.LayoutMap(mesh)
    for name in NAMES:
        layout[f".*{name}/kernel"] = (None, "model")
    return keras.distribution.ModelParallel(layout_map=layout, auto_shard_dataset=False)


class Same(layers.Layer):  # type: ignore[misc]
    """A layer that is not Keras' own, so that a model with it is not copied."""

    def call(self, x: Any) -> Any:
        return x


@keras.saving.register_keras_serializable("tests")  # type: ignore[untyped-decorator]
def summed(_: Any, outputs: Any) -> Any:
    return keras.ops.sum(outputs, -1)


def network(*, own: bool = False, rate: Any = None) -> Any:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,))
    x = Same()(inputs) if own else inputs
    parts = [
        layers.Dense(8, name="first")(x),
        layers.Dense(8, name="narrow", dtype="bfloat16")(x),
        layers.Dense(4, name="frozen", trainable=False)(x),
    ]
    model = keras.Model(inputs, layers.Concatenate()(parts))
    rate = CyclicCosineSchedule(SCHEDULE) if rate is None else rate
    model.compile(keras.optimizers.SGD(rate, 0.9), summed)
    return model


def data(kind: str) -> tuple[Any, Any]:
    """Batches of eight samples, of which this process has a share or all."""
    x = np.random.default_rng(7).integers(-1, 2, size=(4, 8, 4)).astype(np.float32)
    if kind != "over":  # whose batch axis has one place
        share = 8 // PROCESSES
        x = x[:, share * jax.process_index() :][:, :share]
    return x.reshape(-1, 4), np.zeros((x.shape[0] * x.shape[1], 1), np.float32)


def fit(model: Any, recorder: SnapshotRecorder, epochs: int, kind: str) -> None:
    x, y = data(kind)
    given = {"batch_size": len(x) // 4, "epochs": epochs, "shuffle": False, "verbose": 0}
    model.fit(x, y, callbacks=[recorder], **given)


def step(model: Any, recorder: SnapshotRecorder, *_: Any) -> None:
    """One update that does nothing, as the recorder sees a cycle of them."""
    recorder.set_model(model)
    recorder.on_train_begin()
    recorder.on_train_batch_begin(0)
    model.optimizer.iterations.assign(model.optimizer.iterations + 4)
    recorder.on_train_end()


def run(folder: str, kind: str, **options: Any) -> list[str]:
    """Train, and return what went wrong."""
    rank = jax.process_index()
    with distribution(kind).scope():
        set_lr = bool(options.get("set_lr"))
        model = network(own=bool(options.get("own")), rate=0.5 if set_lr else None)

        def metrics() -> dict[str, float]:
            if options.get("bad_metrics") == rank:
                raise ValueError("no metrics here")
            return {"one": 1.0}

        try:
            given: dict[str, Any] = {"metrics": metrics, "set_lr": set_lr}
            given["which"] = options.get("which", "all")
            recorder = SnapshotRecorder(folder, SCHEDULE, **given)
            if options.get("full_disk") and rank == 0:
                recorder.store.write = _full  # type: ignore[method-assign]
            train = step if options.get("by_hand") else fit
            for epochs in (2, 1):  # the folder is free between two calls of fit
                train(model, recorder, epochs, kind)
                there = [each.step for each in recorder.store.list()]
                if there != [4 * i + 4 for i in range(int(model.optimizer.iterations) // 4)]:
                    return [f"not durable after fit: {there}"]
        except Exception as error:  # the user's own too, of the metrics
            return [f"{type(error).__name__}: {error}"]
        wrong = ensembles(model, folder) if options.get("ensembles") else []
        if options.get("load"):
            load_snapshot(model, recorder.store.list()[0])
            again = SnapshotRecorder(f"{folder}-loaded", ca.CyclicCosine(0.1, cycle_steps=1))
            again.set_model(model)
            again.on_train_begin()
            again.take()
            again.on_train_end()
    return wrong


def ensembles(model: Any, folder: str) -> list[str]:
    """What is wrong with those of a run, each of which predicts in its own process."""
    x = np.random.default_rng(jax.process_index()).normal(size=(7, 4)).astype(np.float32)
    wrong: list[str] = []
    members, expected = SnapshotStore(folder).list(), np.zeros((7, 20))
    for snapshot in members:
        held = {name: value.astype(np.float32) for name, value in snapshot.load().items()}
        outputs = [x @ held[f"{name}/kernel"] + held[f"{name}/bias"] for name in NAMES]
        expected = expected + np.concatenate(outputs, -1) / len(members)
    for name, given in (("own", model), ("built", lambda: network(own=True))):
        try:
            ensemble = SnapshotEnsemble(given, folder, outputs="values")
        except ca.EnsembleError as error:
            wrong.append(str(error))
            continue
        found = ensemble.predict(x, batch_size=3, mode="stacked" if name == "own" else "stream")
        if found.shape != (7, 20) or not np.allclose(found, expected, rtol=0.03, atol=0.03):
            wrong.append(f"{name}: {np.abs(found - expected).max()}")
    return wrong


def _full(*_: Any, **__: Any) -> Any:
    raise ca.SnapshotError("the disk is full")


def main() -> None:
    """Run the cases given, one after the other, and print what went wrong in each."""
    warnings.simplefilter("error", UserWarning)
    early = None
    if len(sys.argv) > 2:
        early = SnapshotRecorder(sys.argv[2] + os.environ["RANK"], SCHEDULE)
    begin()
    printed = {Path(case["folder"]).name: run(**case) for case in json.loads(sys.argv[1])}
    if early is not None:
        try:
            early.set_model(network())
            early.on_train_begin()
        except ca.SnapshotError as error:
            printed["early"] = [str(error)]
    sys.stdout.write(f"\n{json.dumps(printed)}\n")  # after what gloo prints


if __name__ == "__main__":
    main()
