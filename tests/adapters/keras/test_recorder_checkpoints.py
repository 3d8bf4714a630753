"""Checkpoints between two epochs: none says of a snapshot that is not there."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import keras
import pytest

import cosanneal as ca
from cosanneal.adapters.keras import CyclicCosineSchedule, SnapshotRecorder
from cosanneal.snapshots import Snapshot
from tests.shared.compiling import BACKEND
from tests.shared.keras_runs import SCHEDULE, contents, fit, small_net

# Cycles that end in the middle of an epoch.
UNEVEN = ca.CyclicCosine(0.1, cycle_steps=[8, 5, 7])

PROCESS = """
import os, signal, time
import keras
from cosanneal.adapters.keras import CyclicCosineSchedule, SnapshotRecorder
from tests.adapters.keras.test_recorder_checkpoints import UNEVEN
from tests.shared.keras_runs import fit, small_net
fsync = os.fsync
def slow(file):  # as a disk under load
    time.sleep(0.5)
    fsync(file)
os.fsync = slow
class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == 9:
            os.kill(os.getpid(), signal.SIGKILL)
backup = keras.callbacks.BackupAndRestore({backup!r}, save_freq=1, delete_checkpoint=False)
recorder = SnapshotRecorder({folder!r}, UNEVEN)
callbacks = [recorder, backup] if {first} else [backup, recorder]
callbacks.insert(callbacks.index(backup) + 1, Kill())
fit(small_net(rate=CyclicCosineSchedule(UNEVEN)), *callbacks)
"""


def test_a_checkpoint_after_each_batch_and_a_kill_lose_no_snapshot(tmp_path: Path) -> None:
    killed = {}
    for name in ("before", "after"):
        folder, backup = str(tmp_path / name), str(tmp_path / f"{name}-backup")
        code = PROCESS.format(first=name == "before", folder=folder, backup=backup)
        killed[name] = subprocess.Popen(
            [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True
        )
    model = small_net(rate=CyclicCosineSchedule(UNEVEN))
    fit(model, SnapshotRecorder(tmp_path / "whole", UNEVEN))
    # The checkpoint is of 9 updates, from which no run would come by the cycle's end at 8 again.
    snapshot = "cycle-0000-step-0000000008.safetensors"
    wanted = {snapshot: contents(tmp_path / "whole")[snapshot]}
    for name, process in killed.items():
        _, stderr = process.communicate(timeout=200)
        assert process.returncode == -signal.SIGKILL, stderr
        assert contents(tmp_path / name) == wanted


@pytest.mark.parametrize(("updates", "by_metric"), [(15, True), (20, False)])
def test_a_run_killed_between_the_last_batch_and_its_snapshot_takes_it_anew(
    tmp_path: Path, updates: int, by_metric: bool
) -> None:
    # A metric of a function's is known again, and one of an epoch's logs is not.
    options: dict[str, Any] = {"keep_best": 9, "metric": "norm"} if by_metric else {}

    def recorder(name: str, model: Any) -> SnapshotRecorder:
        norm = float(model.get_weights()[0].sum())
        if by_metric:
            options["metrics"] = lambda: {"norm": norm}
        return SnapshotRecorder(tmp_path / name, SCHEDULE, **options)

    model = small_net()
    whole = recorder("whole", model)
    fit(model, whole, updates=20)
    model = small_net()
    first = recorder("broken", model)
    fit(model, first, updates=updates)
    model.save(tmp_path / "model.keras")
    first.close()
    first.store.list()[-1].path.unlink()  # as if the process had ended before it was written
    again = keras.saving.load_model(tmp_path / "model.keras")
    fit(again, recorder("broken", small_net()), initial_epoch=updates // 5, epochs=4)
    assert contents(tmp_path / "whole") == contents(tmp_path / "broken")
    assert len(contents(tmp_path / "whole")) == 4


def test_the_last_snapshot_is_there_before_the_last_backup(tmp_path: Path) -> None:
    # Who goes on from that backup may see that there is nothing to do, and not call fit.
    durable: list[int] = []
    there: dict[int, list[int]] = {}

    class Backup(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            there[epoch] = [*durable]

    def slowly(snapshot: Snapshot) -> None:
        time.sleep(0.2)
        durable.append(snapshot.step)

    fit(small_net(), SnapshotRecorder(tmp_path, SCHEDULE, on_durable=slowly), Backup())
    assert there[3] == [5, 10, 15, 20]


def test_a_snapshot_that_was_taken_is_there_before_the_next_callback(tmp_path: Path) -> None:
    durable: list[int] = []
    there: dict[int, list[int]] = {}

    class Take(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            done = int(self.model.optimizer.iterations)
            if done == 3:
                assert recorder.take()
                there[done] = [*durable]

    def slowly(snapshot: Snapshot) -> None:
        time.sleep(0.2)
        durable.append(snapshot.step)

    recorder = SnapshotRecorder(tmp_path, SCHEDULE, on_durable=slowly)
    fit(small_net(), recorder, Take())
    assert there == {3: [3]}


@pytest.mark.skipif(BACKEND == "tensorflow", reason="it calls all callbacks in turn")
def test_without_such_callbacks_nothing_is_waited_for(tmp_path: Path) -> None:
    # A snapshot's end waits for the batch after it: in turn, that would be for ever.
    begun, waited = threading.Event(), []

    class Begin(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            if self.model.optimizer.iterations == 7:
                begun.set()

    def durable(snapshot: Snapshot) -> None:
        if snapshot.step == 5:
            waited.append(begun.wait(20))

    recorder = SnapshotRecorder(tmp_path, SCHEDULE, on_durable=durable)
    fit(small_net(), recorder, Begin())
    assert waited == [True]
