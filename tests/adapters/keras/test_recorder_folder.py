"""What a recorder does with its folder before, between and after calls of `fit`."""

from __future__ import annotations

import threading
from pathlib import Path

import keras
import numpy as np
import pytest

import cosanneal as ca
from cosanneal.adapters.keras import SnapshotRecorder
from tests.shared.keras_runs import SCHEDULE, data, fit, small_net, steps


def test_after_fit_all_is_durable_and_others_may_write_to_the_folder(tmp_path: Path) -> None:
    model = small_net()
    recorder = SnapshotRecorder(tmp_path, SCHEDULE)
    fit(model, recorder, updates=10)
    assert recorder.statistics.durable == recorder.statistics.taken == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        snapshot.path.name for snapshot in recorder.store.list()
    ]
    # The same recorder goes on, and has the folder for itself meanwhile.
    refused = []

    class Other(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
            other = threading.Thread(target=self.record)
            other.start()
            other.join()

        def record(self) -> None:
            with pytest.raises(ca.SnapshotError, match="made in another thread"):
                SnapshotRecorder(tmp_path, SCHEDULE)
            refused.append(True)

    fit(model, recorder, Other(), updates=5)
    assert refused == [True]
    assert steps(recorder.store) == [(0, 5), (1, 10), (2, 15)]
    # Another takes the run over, and so the first must not go on.
    fit(model, SnapshotRecorder(tmp_path, SCHEDULE), updates=5)
    assert steps(recorder.store) == [(0, 5), (1, 10), (2, 15), (3, 20)]
    with pytest.raises(ca.SnapshotError, match=r"the 3 snapshots .* Received: 4, or others"):
        fit(model, recorder, updates=5)
    SnapshotRecorder(tmp_path, SCHEDULE, resume_from=0).close()
    recorder.close()


def test_a_snapshot_in_parts_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        ca.SnapshotError, match=r"`sharded` must be left out in Keras, .* gathered .*; leave it out"
    ):
        SnapshotRecorder(tmp_path / "run", SCHEDULE, sharded=True)
    assert not (tmp_path / "run").exists()
    SnapshotRecorder(tmp_path / "run", SCHEDULE, sharded=False).close()


def test_a_cell_that_is_run_again_takes_the_folder_over(tmp_path: Path) -> None:
    """Also from a `fit` that was interrupted, which keeps the folder."""
    first = SnapshotRecorder(tmp_path, SCHEDULE)

    class Interrupting(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
            if first.updates >= 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(small_net(), first, Interrupting(), updates=20)
    with pytest.raises(ca.SnapshotError, match=r"start over with resume_from=0 \(as in a notebook"):
        fit(small_net(), SnapshotRecorder(tmp_path, SCHEDULE), updates=20)
    second = SnapshotRecorder(tmp_path, SCHEDULE, resume_from=0)
    with pytest.raises(ca.SnapshotError, match="took the folder over"):
        fit(small_net(), first, updates=20)
    fit(small_net(), second, updates=20)
    assert steps(second.store) == [(0, 5), (1, 10), (2, 15), (3, 20)]
    with SnapshotRecorder(tmp_path, SCHEDULE, resume_from=0) as third:
        with pytest.raises(ca.SnapshotError, match="inside of its `with` block"):
            SnapshotRecorder(tmp_path, SCHEDULE)
        fit(small_net(), third, updates=10)
    assert steps(third.store) == [(0, 5), (1, 10)]


def test_the_lock_is_given_back_where_training_fails_to_begin(tmp_path: Path) -> None:
    recorder = SnapshotRecorder(tmp_path, SCHEDULE, set_lr=True)
    with pytest.raises(ca.ScheduleError, match="set_lr"):
        fit(small_net(), recorder)
    recorder.close()
    SnapshotRecorder(tmp_path, SCHEDULE).close()


def test_the_best_by_a_log_are_kept(tmp_path: Path) -> None:
    model = small_net()
    recorder = SnapshotRecorder(tmp_path, SCHEDULE, keep_best=2, metric="val_loss")
    losses = fit(model, recorder, validation_data=data(16)).history["val_loss"]
    best = sorted(np.argsort(losses)[:2])
    kept = recorder.store.list()
    assert [snapshot.cycle for snapshot in kept] == best
    for snapshot in kept:
        assert snapshot.metadata["metrics"] == {"val_loss": losses[snapshot.cycle]}
    # A run that goes on from there has no logs for what it kept, and needs none.
    recorder = SnapshotRecorder(tmp_path, SCHEDULE, keep_best=2, metric="val_loss")
    with pytest.warns(UserWarning, match="goes on beyond its schedule"):
        fit(model, recorder, updates=5, validation_data=data(16))
    with pytest.raises(ca.SnapshotError, match="must hold a number named 'val_loss'"):
        fit(
            small_net(),
            SnapshotRecorder(tmp_path, SCHEDULE, keep_best=2, metric="val_loss", resume_from=0),
        )
