"""Runs of Keras, with the checkpoints that its people save."""

from __future__ import annotations

import os
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from cosanneal.adapters.keras import CyclicCosineSchedule, SnapshotRecorder
from tests.kills.driver import begun, reporter
from tests.kills.keras_engines import BY_EPOCHS, EPOCHS, PER_EPOCH, SCHEDULE

WIDTH, HIDDEN, BATCH = 64, 256, 8
# Where a BatchNormalization sees the rows of one replica or process alone.
APART = ("parts", "over", "mirrored")
PAUSE = 0.02  # seconds of an update, so that kills come amid the run


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """So many of an epoch's batches from a first one on; of each a process' share."""

    def __init__(self, first: int = 0, share: int = 0, shares: int = 1) -> None:
        super().__init__()
        self.first, self.share, self.shares = first, share, shares

    def __len__(self) -> int:
        return PER_EPOCH - self.first

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        time.sleep(PAUSE)
        rng = np.random.default_rng(self.first + index)
        x = rng.normal(size=(BATCH, WIDTH)).astype(np.float32)
        y = x[:, :3].argmax(1)
        rows = slice(self.share * BATCH // self.shares, (self.share + 1) * BATCH // self.shares)
        return x[rows], y[rows]


def network(schedule: Any = SCHEDULE, *, normalized: bool = True) -> Any:
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((WIDTH,)),
            layers.Dense(HIDDEN, name="first"),
            *([layers.BatchNormalization()] if normalized else []),
            layers.Activation("relu"),
            layers.Dense(3, name="last"),
        ]
    )
    model.compile(
        keras.optimizers.SGD(CyclicCosineSchedule(schedule), 0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def plain(kind: str, folder: str) -> None:
    """The same training, in this process and on one device."""
    one_thread()
    model = network(normalized=kind not in APART)
    fit(model, [SnapshotRecorder(folder, SCHEDULE)])


def one_thread() -> None:
    """So that sums are always of one order."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    elif keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(1)


def fit(model: Any, callbacks: list[Any], **given: Any) -> None:
    """All epochs."""
    given = {"shuffle": False, "verbose": 0, **given}
    model.fit(Batches(), epochs=EPOCHS, callbacks=callbacks, **given)


class Keep(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps a copy of BackupAndRestore's folder, which it writes anew in place.

    A kill as it does so leaves its file of weights torn, or of another epoch than the file
    beside it. Then the copy is put back.
    """

    def __init__(self, root: Path, rank: int) -> None:
        super().__init__()
        self.root, self.rank = root, rank

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        place = self.root / f"kept-{epoch + 1:04}-{self.rank}"
        temporary = place.with_suffix(".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(self.root / f"backup-{self.rank}", temporary)
        if not place.exists():
            temporary.rename(place)


def put_back(root: Path, rank: int, processes: int) -> int:
    """Put back the newest backup that all processes have; the epochs at it."""
    epochs = [
        int(each.name.split("-")[1])
        for each in root.glob("kept-*-0")
        if all((root / f"{each.name[:-2]}-{other}").exists() for other in range(processes))
    ]
    backup = root / f"backup-{rank}"
    shutil.rmtree(backup, ignore_errors=True)
    if epochs:
        shutil.copytree(root / f"kept-{max(epochs):04}-{rank}", backup)
    return max(epochs, default=0)


def backups(root: Path, rank: int) -> list[Any]:
    backup = keras.callbacks.BackupAndRestore(str(root / f"backup-{rank}"), delete_checkpoint=False)
    return [backup, Keep(root, rank)]


def by_epochs(kind: str, root: Path, attempt: int) -> None:
    """Backups at the epochs' ends, as they must be to choose by what an epoch's logs say."""
    schedule = BY_EPOCHS if kind == "best" else SCHEDULE
    model = network(schedule, normalized=kind not in APART)
    done = PER_EPOCH * put_back(root, 0, 1)
    begun(root, 0, attempt, done)
    options: dict[str, Any] = {"max_pending": 2, "on_durable": reporter(root, attempt)}
    given: dict[str, Any] = {}
    if kind == "best":
        options |= {"keep_best": 1000, "metric": "val_loss"}
        given["validation_data"] = Batches()
    options["resume_from"] = None if done else 0
    recorder = SnapshotRecorder(root / "run", schedule, **options)
    fit(model, [recorder, *backups(root, 0)], **given)


def newest(root: Path) -> Any:
    """The newest model that was saved whole; None if there is none."""
    for path in sorted(root.glob("checkpoint-*.keras"), reverse=True):
        try:
            return keras.saving.load_model(path)
        except Exception:  # torn by a kill, in which of its parts ever
            path.unlink()
    return None


class Take(keras.callbacks.Callback):  # type: ignore[misc]
    """Takes a snapshot amid each cycle."""

    def __init__(self, recorder: SnapshotRecorder) -> None:
        super().__init__()
        self.recorder = recorder

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        if int(self.model.optimizer.iterations) % 4 == 2:
            self.recorder.take()


def slow_disk() -> None:
    """Let kills come while snapshots are written."""
    fsync = os.fsync

    def slow(file: int) -> None:
        time.sleep(0.15)
        fsync(file)

    os.fsync = slow  # type: ignore[assignment]


def by_batches(kind: str, root: Path, attempt: int) -> None:
    """Models saved after every other batch, or, with what chooses among them, every one."""
    schedule = BY_EPOCHS if kind == "best-function" else SCHEDULE
    model = newest(root)
    done = 0 if model is None else int(model.optimizer.iterations)
    model = network(schedule) if model is None else model
    begun(root, 0, attempt, done)
    given: dict[str, Any] = {}
    options: dict[str, Any] = {"max_pending": 2, "on_durable": reporter(root, attempt)}
    if kind == "take":
        slow_disk()
    elif kind == "best-function":
        options |= {"keep_best": 1000, "metric": "norm", "metrics": lambda: {"norm": norm(model)}}
        given["validation_data"] = Batches()  # a while, between an epoch's last batch and its end
    options["resume_from"] = None if done else 0
    recorder = SnapshotRecorder(root / "run", schedule, **options)
    every = 2 if kind == "batches" else 1
    callbacks = [recorder, *([Take(recorder)] if kind == "take" else [])]
    begun_epochs = -(-done // PER_EPOCH)
    given |= {"shuffle": False, "verbose": 0}
    name = str(root / f"checkpoint-{attempt:03}-{{}}-{{{{epoch:03d}}}}-{{{{batch:03d}}}}.keras")
    if done % PER_EPOCH:  # the rest of an epoch
        saving = keras.callbacks.ModelCheckpoint(name.format("a"), save_freq=every)
        rest = Batches(done % PER_EPOCH)
        model.fit(rest, callbacks=[*callbacks, saving], **given)
    saving = keras.callbacks.ModelCheckpoint(name.format("b"), save_freq=every)
    given |= {"initial_epoch": begun_epochs, "epochs": EPOCHS}
    model.fit(Batches(), callbacks=[*callbacks, saving], **given)


def norm(model: Any) -> float:
    return float(sum(np.square(np.asarray(each)).sum() for each in model.get_weights()))


def train(kind: str, root: Path, rank: int, attempt: int) -> None:
    one_thread()
    if kind in ("epochs", "best"):
        by_epochs(kind, root, attempt)
    elif kind == "mirrored":
        mirrored(root, attempt)
    elif kind in ("copies", "parts", "over"):
        over_processes(kind, root, rank, attempt)
    else:
        by_batches(kind, root, attempt)


def mirrored(root: Path, attempt: int) -> None:
    """Two replicas, each on a device of its own."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        by_epochs("mirrored", root, attempt)


HEARTBEAT = 5  # seconds after which JAX holds a process for dead that says nothing; else 100


def over_processes(kind: str, root: Path, rank: int, attempt: int) -> None:
    """`keras.distribution` over two processes, with two devices each.

    DataParallel backs up by BackupAndRestore. Keras cannot save weights in parts: their values,
    and those of the optimizer's, are saved by Orbax.
    """
    import jax

    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Keras hands no timeouts on.
    jax.distributed.initialize = partial(
        jax.distributed.initialize,
        heartbeat_timeout_seconds=HEARTBEAT,
        shutdown_timeout_seconds=HEARTBEAT,
    )
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    keras.distribution.initialize(address, 2, rank)
    with distribution(kind).scope():
        model = network(normalized=kind == "copies")
        model.optimizer.build(model.trainable_variables)
        saving = backups(root, rank) if kind == "copies" else [Orbax(root, model)]
        done = put_back(root, rank, 2) if kind == "copies" else saving[0].restore()
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("met")
        begun(root, rank, attempt, done * PER_EPOCH)
        recorder = SnapshotRecorder(
            root / "run",
            SCHEDULE,
            resume_from=None if done else 0,
            on_durable=reporter(root, attempt),
            max_pending=2,
        )
        shares = (rank, 1 if kind == "over" else 2)  # whose batch axis has one place
        data = Batches(0, *shares) if shares[1] == 2 else Batches()
        model.fit(
            data,
            initial_epoch=done,
            epochs=EPOCHS,
            callbacks=[recorder, *saving],
            shuffle=False,
            verbose=0,
        )


def distribution(kind: str) -> Any:
    """The weights everywhere, in parts within each process, or in parts over all of them."""
    devices = keras.distribution.list_devices("cpu")
    if kind == "copies":
        return keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)
    mesh = keras.distribution.DeviceMesh(
        (2, 2) if kind == "parts" else (1, 4), ["batch", "model"], devices
    )
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*first/kernel"] = (None, "model")
    layout[".*last/kernel"] = ("model", None)
    return keras.distribution.ModelParallel(layout_map=layout, auto_shard_dataset=False)


class Orbax(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves what a model and its optimizer hold at the end of each epoch."""

    def __init__(self, root: Path, model: Any) -> None:
        super().__init__()
        import orbax.checkpoint as ocp

        kept = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self.ocp, self.own = ocp, model
        self.checkpoints = ocp.CheckpointManager(root / "checkpoints", options=kept)

    def variables(self) -> list[Any]:
        return [*self.own.variables, *self.own.optimizer.variables]

    def restore(self) -> int:
        """Take the newest; the epochs at it."""
        import jax

        done = int(self.checkpoints.latest_step() or 0)
        if done:
            lie = {
                str(number): jax.ShapeDtypeStruct(
                    each.value.shape, each.value.dtype, sharding=each.value.sharding
                )
                for number, each in enumerate(self.variables())
            }
            found = self.checkpoints.restore(done, args=self.ocp.args.StandardRestore(lie))
            for number, each in enumerate(self.variables()):
                each._value = found[str(number)]
        return done

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        assert self.model is self.own  # which has the loop hand the values over
        values = {str(number): each.value for number, each in enumerate(self.variables())}
        self.checkpoints.save(epoch + 1, args=self.ocp.args.StandardSave(values))

    def on_train_end(self, logs: Any = None) -> None:  # noqa: ARG002
        self.checkpoints.close()
