"""Recording a Keras model: what is recorded when, and what is refused."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import cosanneal as ca
from cosanneal.adapters.keras import CyclicCosineSchedule, SnapshotRecorder
from cosanneal.adapters.keras.capture import ModelCapture
from tests.shared.compiling import BACKEND
from tests.shared.keras_runs import (
    NAMES,
    SCHEDULE,
    contents,
    data,
    fit,
    small_net,
    steps,
    trained,
    wider,
)

# Runs are ended wherever a test is done with them.
pytestmark = pytest.mark.filterwarnings("ignore:The run ended at update:UserWarning")


class Weights(keras.callbacks.Callback):
    """The weights after each update, by the optimizer's count."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, list[Any]] = {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        model = self.model
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        self.seen[int(optimizer.iterations)] = model.get_weights()


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


class KilledError(Exception):
    """In the place of a signal."""


class KillAfter(keras.callbacks.Callback):
    """Ends the process, as it were, after so many batches: before any other callback's end."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = batches

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.left -= 1
        if not self.left:
            raise KilledError


@pytest.mark.parametrize("first", ["recorder", "backup"])
@pytest.mark.parametrize("batches", [3, 10, 13])
def test_a_run_resumed_by_backup_and_restore_is_the_run_that_was_not(
    tmp_path: Path, batches: int, first: str
) -> None:
    whole = small_net()
    fit(whole, SnapshotRecorder(tmp_path / "whole", SCHEDULE))

    def callbacks() -> list[Any]:
        both = [
            SnapshotRecorder(tmp_path / "broken", SCHEDULE),
            keras.callbacks.BackupAndRestore(str(tmp_path / "backup"), delete_checkpoint=False),
        ]
        return both if first == "recorder" else both[::-1]

    # Killed at the last batch of an epoch, a cycle's snapshot is not yet there.
    killed = callbacks()
    with pytest.raises(KilledError):
        fit(small_net(), KillAfter(batches), *killed)
    # As the end of the process does, whose lock on the folder goes with it.
    next(each for each in killed if isinstance(each, SnapshotRecorder)).close()
    resumed = small_net(9 if batches > 5 else 0)  # before 5 there is nothing to restore
    fit(resumed, *callbacks())
    for left, right in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        assert np.array_equal(left, right)
    assert contents(tmp_path / "whole") == contents(tmp_path / "broken")
    assert len(contents(tmp_path / "whole")) == 4


def test_a_snapshot_lost_between_a_checkpoint_and_it_is_made_up_for(tmp_path: Path) -> None:
    whole = small_net()
    fit(whole, SnapshotRecorder(tmp_path / "whole", SCHEDULE))
    model = small_net()
    recorder = SnapshotRecorder(tmp_path / "broken", SCHEDULE)
    fit(model, recorder, updates=10)
    model.save(tmp_path / "model.keras")
    recorder.store.list()[-1].path.unlink()  # as if the process had ended before it was written
    model = keras.saving.load_model(tmp_path / "model.keras")
    fit(model, SnapshotRecorder(tmp_path / "broken", SCHEDULE), updates=10)
    assert contents(tmp_path / "whole") == contents(tmp_path / "broken")


PROCESS = """
import os, signal, sys
import keras
from cosanneal.adapters.keras import SnapshotRecorder
from tests.shared.keras_runs import SCHEDULE, fit, small_net
class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == {kill}:
            os.kill(os.getpid(), signal.SIGKILL)
backup = keras.callbacks.BackupAndRestore({backup!r}, delete_checkpoint=False)
model = small_net({seed})
history = fit(model, Kill(), SnapshotRecorder({folder!r}, SCHEDULE), backup)
print(history.history["learning_rate"])
model.save_weights({folder!r} + ".weights.h5")
"""


def run_in_process(tmp_path: Path, kill: int, seed: int) -> Any:
    folder, backup = str(tmp_path / "broken"), str(tmp_path / "backup")
    code = PROCESS.format(kill=kill, seed=seed, folder=folder, backup=backup)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)


def test_a_process_killed_and_run_anew_is_the_one_that_was_not(tmp_path: Path) -> None:
    whole = small_net()
    fit(whole, SnapshotRecorder(tmp_path / "whole", SCHEDULE))
    killed = run_in_process(tmp_path, 13, 0)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(contents(tmp_path / "broken")) in (1, 2)  # the second may not be durable yet
    resumed = run_in_process(tmp_path, -1, 5)
    assert resumed.returncode == 0, resumed.stderr
    assert contents(tmp_path / "whole") == contents(tmp_path / "broken")
    assert resumed.stdout.splitlines()[-1] == str([SCHEDULE.rate(14), SCHEDULE.rate(19)])
    model = small_net(1)
    model.optimizer.build(model.trainable_variables)
    model.load_weights(tmp_path / "broken.weights.h5")
    for left, right in zip(whole.get_weights(), model.get_weights(), strict=True):
        assert np.array_equal(left, right)


def test_fit_called_again_goes_on(tmp_path: Path) -> None:
    model = small_net()
    recorder = SnapshotRecorder(tmp_path, SCHEDULE)
    for _ in range(2):
        history = fit(model, recorder, epochs=1)
    fit(model, recorder, initial_epoch=2, epochs=3)
    fit(model, epochs=1)  # without it: the weights of this cycle's end are still there
    with pytest.warns(UserWarning, match=r"goes on beyond its schedule"):
        fit(model, recorder, epochs=1)
    assert steps(recorder.store) == [(0, 5), (1, 10), (2, 15), (3, 20)]
    assert history.history["learning_rate"] == [SCHEDULE.rate(9)]
    assert recorder.updates == 25


def test_a_fit_that_is_interrupted_at_a_cycles_end_and_called_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            if batch == 4:
                raise KeyboardInterrupt

    model, recorder = small_net(), SnapshotRecorder(tmp_path, SCHEDULE)
    with pytest.raises(KeyboardInterrupt):
        fit(model, recorder, Interrupt())
    fit(model, recorder, updates=15)
    assert steps(recorder.store) == [(0, 5), (1, 10), (2, 15), (3, 20)]
    assert [record for record in caplog.records if record.name.startswith("cosanneal")] == []


def test_early_stopping_in_mid_cycle_leaves_no_half_cycle(tmp_path: Path) -> None:
    schedule = ca.CyclicCosine(0.1, total_steps=24, num_cycles=3)
    model = small_net(rate=CyclicCosineSchedule(schedule))
    recorder = SnapshotRecorder(tmp_path, schedule)
    # A loss that does not fall at all stops it after the second epoch.
    stop = keras.callbacks.EarlyStopping("loss", min_delta=100, restore_best_weights=True)
    fit(model, recorder, stop)
    assert recorder.updates == 10
    assert steps(recorder.store) == [(0, 8)]


def test_several_updates_at_once_miss_no_cycle(tmp_path: Path) -> None:
    model = small_net(steps_per_execution=4)
    if BACKEND == "torch":
        with pytest.raises(ValueError, match="must be 1 with the PyTorch backend"):
            fit(model)
        return
    weights = Weights()
    recorder = SnapshotRecorder(tmp_path, SCHEDULE)
    fit(model, recorder, weights)
    # Five batches an epoch: executions end at 4, 5, 9, 10, ...
    assert steps(recorder.store) == [(0, 5), (1, 10), (2, 15), (3, 20)]
    schedule = ca.CyclicCosine(0.1, total_steps=21, num_cycles=7)
    model = small_net(rate=CyclicCosineSchedule(schedule), steps_per_execution=4)
    recorder, weights = SnapshotRecorder(tmp_path / "late", schedule), Weights()
    with pytest.warns(UserWarning, match=r"ended after 20 of the schedule's 21 updates"):
        fit(model, recorder, weights)
    # A cycle of 3 that ends inside of an execution is recorded after it.
    assert steps(recorder.store) == [(0, 4), (2, 9), (3, 14), (4, 15), (5, 19)]
    for snapshot in recorder.store.list():
        assert np.array_equal(snapshot.load()["dense/kernel"], weights.seen[snapshot.step][0])


@pytest.mark.parametrize("set_lr", [False, True])
def test_under_gradient_accumulation_a_step_is_what_keras_takes_for_one(
    tmp_path: Path, set_lr: bool
) -> None:
    rate = 0.5 if set_lr else CyclicCosineSchedule(SCHEDULE)
    optimizer = keras.optimizers.SGD(rate, gradient_accumulation_steps=2)
    model = small_net(rate=optimizer)
    recorder = SnapshotRecorder(tmp_path, SCHEDULE, set_lr=set_lr)
    seen: list[float] = []

    class Rates(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            seen.append(float(self.model.optimizer.learning_rate))

    fit(model, recorder, Rates())
    assert steps(recorder.store) == [(0, 5), (1, 10), (2, 15), (3, 20)]
    np.testing.assert_allclose(seen, SCHEDULE.rates(0, 20), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:The weights at update .* are not finite")  # its statistics
@pytest.mark.parametrize("set_lr", [False, True])
def test_updates_that_loss_scaling_skips_do_not_count(tmp_path: Path, set_lr: bool) -> None:
    inner = keras.optimizers.SGD(0.5 if set_lr else CyclicCosineSchedule(SCHEDULE))
    optimizer = keras.optimizers.LossScaleOptimizer(inner)
    recorder, weights = SnapshotRecorder(tmp_path, SCHEDULE, set_lr=set_lr), Weights()
    x, y = data()
    x[9] = np.inf  # no update comes of the second of five batches
    model = small_net(rate=optimizer)
    model.fit(x, y, 8, 5, shuffle=False, verbose=0, callbacks=[recorder, weights])
    # The inner one's count, which before Keras 3.9 is not the outer one's.
    assert int(inner.iterations) == recorder.updates == 20
    assert steps(recorder.store) == [(0, 5), (1, 10), (2, 15), (3, 20)]
    for snapshot in recorder.store.list():
        assert np.array_equal(snapshot.load()["dense/kernel"], weights.seen[snapshot.step][0])


def test_set_lr_sets_each_updates_rate_and_logs_it(tmp_path: Path) -> None:
    seen: list[float] = []

    class Rates(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            seen.append(float(self.model.optimizer.learning_rate))

    recorder = SnapshotRecorder(tmp_path, SCHEDULE, set_lr=True)
    history = fit(small_net(rate=0.7), recorder, Rates())
    assert seen == [float(np.float32(rate)) for rate in SCHEDULE.rates(0, 20)]
    assert history.history["learning_rate"] == [SCHEDULE.rate(step) for step in (4, 9, 14, 19)]


def test_a_rate_that_is_not_the_schedules_is_not_logged(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"Nothing anneals"):
        history = fit(small_net(rate=0.1), SnapshotRecorder(tmp_path, SCHEDULE), epochs=1)
    assert "learning_rate" not in history.history


def test_a_loop_over_train_on_batch(tmp_path: Path) -> None:
    model = small_net(rate=0.1)
    recorder = SnapshotRecorder(tmp_path, SCHEDULE, set_lr=True)
    recorder.set_model(model)
    recorder.on_train_begin()
    x, y = data(8)
    rates = []
    for batch in range(20):
        recorder.on_train_batch_begin(batch)
        model.train_on_batch(x, y)
        rates.append(float(model.optimizer.learning_rate))
    recorder.on_train_end()
    assert rates == [float(np.float32(rate)) for rate in SCHEDULE.rates(0, 20)]
    assert steps(recorder.store) == [(0, 5), (1, 10), (2, 15), (3, 20)]


def test_optimizers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    other = ca.CyclicCosine(0.2, total_steps=20, num_cycles=4)
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (CyclicCosineSchedule(other), {}, r"must be the schedule of the optimizer.*0\.1.*0\.2"),
        (None, {"set_lr": True}, r"`set_lr` must be False.*CyclicCosineSchedule; compile the"),
        (lambda: 0.1, {"set_lr": True}, r"`set_lr` must be False where.* is a schedule.*function"),
    ]
    for rate, given, message in cases:
        with pytest.raises(ca.ScheduleError, match=message):
            fit(small_net(rate=rate), SnapshotRecorder(tmp_path, SCHEDULE, **given))
    if BACKEND != "torch":
        model = small_net(rate=0.1, steps_per_execution=4)
        with pytest.raises(
            ca.ScheduleError, match=r"steps_per_execution=4; compile .*leave set_lr"
        ):
            fit(model, SnapshotRecorder(tmp_path, SCHEDULE, set_lr=True))
    with pytest.raises(ca.ScheduleError, match=r"`schedule` must be a cosanneal.Schedule"):
        SnapshotRecorder(tmp_path, CyclicCosineSchedule(SCHEDULE))
    with pytest.raises(ca.ScheduleError, match=r"`set_lr` must be True or False"):
        SnapshotRecorder(tmp_path, SCHEDULE, set_lr=1)  # type: ignore[arg-type]
    recorder = SnapshotRecorder(tmp_path, SCHEDULE)
    recorder.set_model(keras.Sequential([keras.Input((2,)), layers.Dense(1)]))
    with pytest.raises(ca.SnapshotError, match=r"must be compiled with an optimizer"):
        recorder.on_train_begin()
    assert steps(recorder.store) == []


def test_a_new_run_does_not_mix_with_an_earlier_one(tmp_path: Path) -> None:
    trained(tmp_path)
    before = contents(tmp_path)
    message = r"must hold no snapshots of another run\. Received: 4, up to step 20; .*resume_from=0"
    with pytest.raises(ca.SnapshotError, match=message):
        fit(small_net(), SnapshotRecorder(tmp_path, SCHEDULE))
    assert contents(tmp_path) == before
    with pytest.raises(ca.SnapshotError, match=r"resume_from=10, and an optimizer that has done 0"):
        fit(small_net(), SnapshotRecorder(tmp_path, SCHEDULE, resume_from=10))
    recorder = SnapshotRecorder(tmp_path, SCHEDULE, resume_from=0)
    model = small_net()
    fit(model, recorder, updates=10)
    assert steps(recorder.store) == [(0, 5), (1, 10)]
    # Compiled anew, the optimizer counts from 0.
    model.compile(keras.optimizers.SGD(CyclicCosineSchedule(SCHEDULE)), model.loss)
    message = r"must count on .*none, after 10, .*own; .*iterations\.assign\(10\) before fit"
    with pytest.raises(ca.SnapshotError, match=message):
        fit(model, recorder, epochs=1)
    model.optimizer.iterations.assign(10)
    fit(model, recorder, updates=10)
    assert steps(recorder.store) == [(0, 5), (1, 10), (2, 15), (3, 20)]
    with pytest.raises(ca.SnapshotError, match=r"resume_from=0.* done 20; build and compile the m"):
        fit(model, SnapshotRecorder(tmp_path, SCHEDULE, resume_from=0))
    recorder = SnapshotRecorder(tmp_path, SCHEDULE, resume_from=20)
    recorder.close()
    with pytest.raises(ca.SnapshotError, match="closed"):
        fit(model, recorder, epochs=1)


def test_a_model_whose_structure_changed_is_refused(tmp_path: Path) -> None:
    fit(small_net(), SnapshotRecorder(tmp_path, SCHEDULE), updates=10)
    model = wider()
    model.optimizer.iterations.assign(10)
    recorder = SnapshotRecorder(tmp_path, SCHEDULE)
    message = r"this model alone.*'dense/kernel' is float32 of shape \(4, 8\), .* \(4, 9\)"
    with pytest.raises(ca.SnapshotError, match=message):
        fit(model, recorder)
    assert recorder.statistics.taken == 0  # at the first look
    assert steps(recorder.store) == [(0, 5), (1, 10)]
    recorder.close()
    fit(wider(), SnapshotRecorder(tmp_path, SCHEDULE, overwrite=True), updates=5)
    assert steps(recorder.store) == [(0, 5)]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_models_own_snapshots_fit_it(dtype: str) -> None:
    """What is told of its weights before a copy is what the file has of them."""
    capture = ModelCapture()
    assert capture.layout() is None
    capture.model = keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Conv2D(2, 2, dtype=dtype), layers.BatchNormalization()]
    )
    capture.model.add(layers.Normalization())  # with a count, an integer
    copied = capture.buffers().copy(capture.tensors())
    assert capture.layout() == {name: (each.shape, each.dtype) for name, each in copied.items()}


def test_snapshots_of_another_schedule_are_not_removed(tmp_path: Path) -> None:
    fit(small_net(), SnapshotRecorder(tmp_path, SCHEDULE))
    before = contents(tmp_path)
    other = ca.CyclicCosine(0.3, total_steps=90, num_cycles=3)
    model = small_net(rate=CyclicCosineSchedule(other))
    x, y = data()
    model.fit(x[:24], y[:24], batch_size=8, verbose=0)  # of which the recorder has not seen
    with pytest.raises(ca.SnapshotError, match="another folder"):
        fit(model, SnapshotRecorder(tmp_path, other), epochs=1)
    assert contents(tmp_path) == before


def test_on_durable_is_called_with_each_file_before_fit_returns(tmp_path: Path) -> None:
    told: list[tuple[int, bool]] = []
    recorder = SnapshotRecorder(
        tmp_path, SCHEDULE, on_durable=lambda one: told.append((one.step, one.path.is_file()))
    )
    fit(small_net(), recorder)
    assert told == [(step, True) for step in (5, 10, 15, 20)]


def test_an_option_that_there_is_not_is_said_by_the_name_of_what_was_made(tmp_path: Path) -> None:
    wrong: dict[str, Any] = {"keep_lats": 1}
    with pytest.raises(TypeError, match=r"^SnapshotRecorder has no option.*; .*'keep_last'"):
        SnapshotRecorder(tmp_path, SCHEDULE, **wrong)
