"""Runs of Keras that go wrong quietly: what a recorder says of them, once."""

from __future__ import annotations

import gc
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import cosanneal as ca
from cosanneal.adapters.keras import CyclicCosineSchedule, SnapshotRecorder
from cosanneal.snapshots import SnapshotStore
from tests.shared.compiling import BACKEND
from tests.shared.keras_runs import SCHEDULE, data, fit, small_net, steps


@contextmanager
def said() -> Iterator[list[str]]:
    """The UserWarnings in the block, as texts."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield texts
    texts += [str(each.message) for each in caught if each.category is UserWarning]


class Gan(keras.Model):
    """Two models, each with an optimizer of its own, neither of which is `model.optimizer`."""

    def __init__(self, rate: Any) -> None:
        super().__init__()
        self.generator = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
        self.discriminator = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
        self.g_optimizer = keras.optimizers.SGD(rate)
        self.d_optimizer = keras.optimizers.SGD(0.01)
        for optimizer, model in self.parts():
            optimizer.build(model.trainable_variables)

    def parts(self) -> list[tuple[Any, Any]]:
        return [(self.g_optimizer, self.generator), (self.d_optimizer, self.discriminator)]

    def call(self, x: Any) -> Any:
        return self.discriminator(self.generator(x))

    def train_step(self, data: Any) -> dict[str, Any]:
        x = data[0] if isinstance(data, tuple | list) else data
        for optimizer, part in self.parts():
            weights = part.trainable_variables
            if BACKEND == "tensorflow":
                import tensorflow as tf

                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean(self(x))
                gradients = tape.gradient(loss, weights)
            else:
                loss = self(x).mean()
                part.zero_grad()
                loss.backward()
                gradients = [weight.value.grad for weight in weights]
            if BACKEND == "torch":
                import torch

                with torch.no_grad():
                    optimizer.apply(gradients, weights)
            else:
                optimizer.apply(gradients, weights)
        return {"loss": loss}


def gan(rate: Any = None, *, compiled: bool = True) -> Any:
    model = Gan(CyclicCosineSchedule(SCHEDULE) if rate is None else rate)
    if compiled:
        model.compile(run_eagerly=True)
    return model


@pytest.mark.skipif(BACKEND == "jax", reason="on JAX fit knows of no optimizer but its own")
def test_the_optimizer_that_counts_can_be_said(tmp_path: Path) -> None:
    model = gan()
    with said() as texts:
        fit(model, recorder := SnapshotRecorder(tmp_path / "other", SCHEDULE))
    assert steps(recorder.store) == []
    assert len(texts) == 1
    assert re.search(
        r"without an update of model\.optimizer.*"
        r"d_optimizer.*g_optimizer.*optimizer=",
        texts[0],
    )
    model = gan()
    recorder = SnapshotRecorder(tmp_path / "own", SCHEDULE, optimizer=model.g_optimizer)
    seen: dict[int, Any] = {}

    class Kernels(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            kernel = keras.ops.convert_to_numpy(model.generator.layers[0].kernel)
            seen[int(model.g_optimizer.iterations)] = np.array(kernel)

    fit(model, recorder, Kernels())
    assert steps(recorder.store) == [(0, 5), (1, 10), (2, 15), (3, 20)]
    for snapshot in recorder.store.list():
        loaded = snapshot.load()
        assert np.array_equal(loaded["sequential/dense/kernel"], seen[snapshot.step])
    # The schedule of the optimizer that counts is the one that is compared.
    recorder = SnapshotRecorder(
        tmp_path / "rate", SCHEDULE, set_lr=True, optimizer=model.g_optimizer
    )
    with pytest.raises(ca.ScheduleError, match=r"`set_lr` must be False where"):
        fit(model, recorder)


def test_a_model_that_was_not_compiled_in_a_loop_of_ones_own(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    inner = keras.optimizers.SGD(CyclicCosineSchedule(SCHEDULE))
    optimizer = keras.optimizers.LossScaleOptimizer(inner)
    recorder = SnapshotRecorder(tmp_path, SCHEDULE, optimizer=optimizer)
    recorder.set_model(model)
    recorder.on_train_begin()
    for step in range(20):
        recorder.on_train_batch_begin(step)
        inner.iterations.assign(step + 1)
    recorder.on_train_end()
    assert steps(recorder.store) == [(0, 5), (1, 10), (2, 15), (3, 20)]
    for given in ("sgd", model, 0.1):
        with pytest.raises(ca.SnapshotError, match=r"`optimizer` must be a Keras optimizer.*Rec"):
            SnapshotRecorder(tmp_path, SCHEDULE, optimizer=given, resume_from=20)


def test_a_run_beyond_its_schedule(tmp_path: Path) -> None:
    with said() as texts:
        fit(small_net(), recorder := SnapshotRecorder(tmp_path, SCHEDULE), updates=35)
        fit(recorder.model, recorder, epochs=1)
    assert steps(recorder.store)[-1] == (3, 20)
    assert recorder.updates == 40
    assert len(texts) == 1
    assert re.search(r"25 updates of a schedule of 20.*rate stays at 0\.0.*total_steps", texts[0])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="others take a batch before an update")
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_dataset_whose_size_tensorflow_does_not_know(tmp_path: Path) -> None:
    import tensorflow as tf

    unsized = tf.data.Dataset.from_tensor_slices(data()).filter(lambda *_: True).batch(8)
    for dataset, count in (
        (unsized, 24),
        (unsized.apply(tf.data.experimental.assert_cardinality(5)), 20),
    ):
        recorder = SnapshotRecorder(tmp_path / str(count), SCHEDULE)
        with said() as texts:
            small_net().fit(dataset, epochs=4, callbacks=[recorder], shuffle=False, verbose=0)
        assert recorder.updates == count
        assert any("one more in each epoch of a dataset whose size" in text for text in texts) == (
            count > 20
        )


@pytest.mark.parametrize(("total", "says"), [(21, True), (24, True), (25, False), (20, False)])
def test_a_run_that_ends_some_updates_early(tmp_path: Path, total: int, says: bool) -> None:
    schedule = ca.CyclicCosine(0.1, total_steps=total, num_cycles=2)
    model = small_net(rate=CyclicCosineSchedule(schedule))
    with said() as texts:
        fit(model, SnapshotRecorder(tmp_path, schedule))
    assert len(texts) == says
    if says:
        assert re.search(
            rf"20 of the schedule's {total} updates.*at update {total}.*drop_last.*"
            "steps_per_epoch.*loss scaling skips",
            texts[0],
        )


def test_a_run_that_was_stopped_is_not_said_to_end_early(tmp_path: Path) -> None:
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            if int(self.model.optimizer.iterations) == 18:
                self.model.stop_training = True

    with said() as texts:
        fit(small_net(), SnapshotRecorder(tmp_path, SCHEDULE), Stop())
    assert texts == []


def test_a_rate_that_nothing_anneals(tmp_path: Path) -> None:
    with said() as texts:
        fit(small_net(rate=0.1), SnapshotRecorder(tmp_path / "fixed", SCHEDULE))
        fit(small_net(rate=0.1), SnapshotRecorder(tmp_path / "one", SCHEDULE), epochs=1)
    assert len(texts) == 2
    for text in texts:
        assert re.search(
            r"rate stayed at 0\.1.*CyclicCosineSchedule\(schedule\).*set_lr=True", text
        )

    def quiet(rate: Any, *callbacks: Any, **given: Any) -> None:
        folder = tmp_path / str(len([*tmp_path.iterdir()]))
        with said() as texts:
            fit(small_net(rate=rate), SnapshotRecorder(folder, SCHEDULE, **given), *callbacks)
        assert texts == []

    quiet(0.1, set_lr=True)
    quiet(None)
    quiet(keras.optimizers.schedules.CosineDecayRestarts(0.1, 5))
    # As Keras' documents have it: at first the rate that was there.
    quiet(0.1, keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / (1 + (epoch > 2))))
    quiet(0.1, keras.callbacks.ReduceLROnPlateau("loss"))

    class Own(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            self.model.optimizer.learning_rate = 0.1 / (batch + 1)

    quiet(0.1, Own())


def test_a_rate_that_is_set_epoch_by_epoch_is_annealed(tmp_path: Path) -> None:
    schedule = ca.CyclicCosine(0.1, total_steps=20, num_cycles=1)

    class ByEpoch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            self.model.optimizer.learning_rate = schedule.rate(5 * epoch)

    with said() as texts:
        fit(small_net(rate=0.1), SnapshotRecorder(tmp_path / "after", schedule), ByEpoch())
        model, recorder = small_net(rate=0.1), SnapshotRecorder(tmp_path / "fits", schedule)
        for epoch in range(4):
            model.optimizer.learning_rate = schedule.rate(5 * epoch)
            fit(model, recorder, epochs=1)
    assert texts == []
    model, recorder = small_net(rate=0.1), SnapshotRecorder(tmp_path / "none", schedule)
    with said() as texts:
        for _ in range(2):
            fit(model, recorder, epochs=1)
    assert len(texts) == 1
    assert "rate stayed at 0.1" in texts[0]


def test_a_run_of_several_fits_of_unlike_length_ends_with_the_last(tmp_path: Path) -> None:
    model, recorder = small_net(), SnapshotRecorder(tmp_path, SCHEDULE)
    x, y = data()
    with said() as texts:
        for batches in (9, 9, 2):
            rows = np.arange(8 * batches) % len(x)
            model.fit(x[rows], y[rows], batch_size=8, callbacks=[recorder], verbose=0)
    assert texts == []
    assert steps(recorder.store) == [(0, 5), (1, 10), (2, 15), (3, 20)]


def test_the_rate_that_is_noted_is_the_optimizers(tmp_path: Path) -> None:
    def noted(rate: Any, *callbacks: Any, **given: Any) -> list[float]:
        folder = tmp_path / str(len([*tmp_path.iterdir()]))
        with said():
            fit(small_net(rate=rate), SnapshotRecorder(folder, SCHEDULE, **given), *callbacks)
        store = SnapshotStore(folder)
        return [snapshot.metadata["rate"] for snapshot in store.list()]

    ends = [SCHEDULE.rate(step - 1) for step in (5, 10, 15, 20)]
    assert noted(None) == ends
    assert noted(0.7, set_lr=True) == ends
    assert noted(0.125) == [0.125] * 4
    half = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    assert noted(half) == pytest.approx([0.5**step for step in (5, 10, 15, 20)], rel=1e-6)
    assert noted(lambda: 0.25) == [0.25] * 4
    drop = keras.callbacks.LearningRateScheduler(lambda epoch: 2.0**-epoch)
    assert noted(0.7, drop) == [1.0, 0.5, 0.25, 0.125]


def unbuilt() -> Any:
    model = keras.Sequential([layers.Dense(3)])
    model.compile(keras.optimizers.SGD(CyclicCosineSchedule(SCHEDULE)), "mse")
    return model


def test_a_model_that_fit_builds(tmp_path: Path) -> None:
    model = unbuilt()
    x, _ = data()
    recorder = SnapshotRecorder(tmp_path, SCHEDULE)
    model.fit(x, x[:, :3], batch_size=8, epochs=4, callbacks=[recorder], verbose=0)
    assert steps(recorder.store) == [(0, 5), (1, 10), (2, 15), (3, 20)]


def test_a_model_that_nothing_has_built_when_a_snapshot_is_due(tmp_path: Path) -> None:
    recorder = SnapshotRecorder(tmp_path, SCHEDULE)
    recorder.set_model(model := unbuilt())
    recorder.on_train_begin()
    recorder.on_train_batch_begin(0)
    model.optimizer.iterations.assign(5)
    with pytest.raises(ca.SnapshotError, match=r"must be built when .*Received: .*call it on a b"):
        recorder.on_train_end()
    assert steps(recorder.store) == []


def test_a_function_gives_the_metric_that_no_logs_have(tmp_path: Path) -> None:
    scores = iter([0.5, 0.9, 0.2, 0.7])
    recorder = SnapshotRecorder(
        *(tmp_path, SCHEDULE),
        keep_best=2,
        metric="f1",
        mode="max",
        metrics=lambda: {"f1": next(scores)},
    )
    x, y = data()
    small_net().fit(x, y, 8, 4, verbose=0, callbacks=[recorder])
    assert [each.metadata["metrics"] for each in recorder.store.list()] == [
        {"f1": 0.9},
        {"f1": 0.7},
    ]


@pytest.mark.filterwarnings("ignore:The run ended at update:UserWarning")
def test_a_metric_that_the_logs_will_not_have_is_found_in_the_first_epoch(tmp_path: Path) -> None:
    schedule = ca.CyclicCosine(0.1, total_steps=20, num_cycles=2)
    given: dict[str, Any] = {"keep_best": 1, "mode": "min"}

    def run(metric: str, *callbacks: Any, **options: Any) -> Any:
        folder = tmp_path / str(len([*tmp_path.iterdir()]))
        model = small_net(rate=CyclicCosineSchedule(schedule))
        recorder = SnapshotRecorder(folder, schedule, metric=metric, **given)
        try:
            fit(model, recorder, *callbacks, **options)
        finally:
            recorder.close()
        return recorder

    x, y = data()
    message = r"named 'acc', by which keep_best chooses.*\['loss'\]"
    with pytest.raises(ca.SnapshotError, match=message):
        run("acc", epochs=1)
    with pytest.raises(ca.SnapshotError, match=r"'val_acc'.*\['loss', 'val_loss'\]"):
        run("val_acc", epochs=1, validation_data=(x, y))
    # With validation_freq it may come yet.
    with pytest.warns(UserWarning, match=r"'val_loss'.*\['loss'\].*validation_data"):
        run("val_loss", epochs=1)
    with said() as texts:
        recorder = run("val_loss", validation_data=(x, y), validation_freq=2)
    assert len(texts) == 1
    assert len(recorder.store.list()) == 1

    class Text(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            logs["f1"] = "high"

    folder = tmp_path / "text"
    model = small_net(rate=CyclicCosineSchedule(schedule))
    recorder = SnapshotRecorder(folder, schedule, metric="f1", **given)
    with pytest.raises(ca.SnapshotError, match=r"must hold a number named 'f1'.*'high'"):
        fit(model, Text(), recorder, epochs=1)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged since the last call; of recorders of before, too, unless they are gone."""
    gc.collect()
    found = [each.message for each in caplog.records if each.name == "cosanneal.snapshots.notices"]
    caplog.clear()
    return found


class TestARunThatEndsTooEarly:
    schedule = ca.CyclicCosine(0.1, total_steps=42, num_cycles=3)  # an epoch has 3 updates

    def run(self, folder: Path, *epochs: int, callbacks: Any = ()) -> SnapshotRecorder:
        recorder = SnapshotRecorder(folder, self.schedule)
        model = small_net(rate=CyclicCosineSchedule(self.schedule))
        x, y = data()
        for each in epochs:
            model.fit(x[:24], y[:24], 8, each, verbose=0, callbacks=[recorder, *callbacks])
        return recorder

    def test_is_logged_at_once_where_the_fit_has_several_epochs(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        logged(caplog)
        recorder = self.run(tmp_path / "late", 11)
        (text,) = logged(caplog)
        assert text.startswith("The recorder was closed at update 33 of 42, after 2 of 3 cycles.")
        recorder.close()
        assert logged(caplog) == []  # it was said
        recorder = self.run(tmp_path / "none", 2)
        (text,) = logged(caplog)
        assert text.startswith("The run ended at update 6, 8 before its first snapshot was due")
        self.run(tmp_path / "whole", 14)

        class Stop(keras.callbacks.Callback):
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
                self.model.stop_training = epoch == 10

        self.run(tmp_path / "stopped", 14, callbacks=[Stop()])
        assert logged(caplog) == []

    def test_is_said_of_single_epochs_when_no_other_can_come(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        logged(caplog)
        recorder = self.run(tmp_path / "gone", *[1] * 11)
        assert logged(caplog) == []
        del recorder
        (text,) = logged(caplog)
        assert "closed at update 33 of 42" in text
        recorder = self.run(tmp_path / "closed", 1, 1)
        with pytest.warns(UserWarning, match="ended at update 6, 8 before its first snapshot"):
            recorder.close()
        with self.run(tmp_path / "block", *[1] * 11):
            pass
        (text,) = logged(caplog)
        assert "closed at update 33 of 42" in text
        with pytest.raises(RuntimeError, match="of another kind"), self.run(tmp_path / "error", 1):
            raise RuntimeError("of another kind")
        self.run(tmp_path / "whole", *[1] * 14)
        assert logged(caplog) == []
