"""Shrinking and perturbing Keras models at a restart, and forgetting the momentum."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from cosanneal.adapters.keras import (
    ShrinkAndPerturb,
    SnapshotRecorder,
    load_snapshot,
    reset_momentum,
    shrink_and_perturb,
)
from cosanneal.adapters.keras.names import array_of, named_weights
from cosanneal.core.errors import ScheduleError
from tests.shared.keras_runs import SCHEDULE, fit, small_net


def weights_of(model: Any) -> dict[str, Any]:
    return {name: array_of(each) for name, each in named_weights(model).items()}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(("shrink", "perturb"), [(0.5, 0.5), (0.8, 0.1)])
def test_trained_weights_are_mixed_and_all_else_stays(shrink: float, perturb: float) -> None:
    model, fresh = small_net(1), small_net(2)
    fit(model, epochs=1)  # moves the running statistics
    model.layers[-1].trainable = False
    before, other = weights_of(model), weights_of(fresh)
    shrink_and_perturb(model, fresh, shrink=shrink, perturb=perturb)
    mixed = {
        name for name in before if name.startswith("dense/") or name[-5:] in ("gamma", "/beta")
    }
    assert len(mixed) == 4
    for name, value in weights_of(model).items():
        old, new = before[name].astype(np.float64), other[name].astype(np.float64)
        expected = shrink * old + perturb * new if name in mixed else old
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-7)
    assert same(weights_of(fresh), other)


def test_fresh_weights_come_from_the_seed_and_the_cycle_and_from_nothing_else() -> None:
    def drawn(**given: Any) -> dict[str, Any]:
        model = small_net(random.randrange(1000))
        state, numbers = random.getstate(), str(np.random.get_state())
        shrink_and_perturb(model, shrink=0.0, perturb=1.0, **given)
        assert random.getstate() == state
        assert str(np.random.get_state()) == numbers
        return weights_of(model)

    first = drawn(cycle=1)
    assert same(first, drawn(cycle=1, seed=0))
    assert same(drawn(cycle=1, fresh=_anew), drawn(cycle=1, fresh=_anew))
    others = [drawn(cycle=2), drawn(cycle=1, seed=1)]
    kernels = [each["dense/kernel"] for each in (first, *others)]
    assert len({each.tobytes() for each in kernels}) == 3
    assert kernels[0].std() > 0.1


def _anew() -> Any:
    model = keras.Sequential([keras.Input((4,)), *map(_layer, small_net_layers())])
    model.layers[0].kernel.assign(np.random.normal(size=(4, 8)))
    return model


def small_net_layers() -> list[tuple[Any, tuple[Any, ...]]]:
    return [
        (layers.Dense, (8,)),
        (layers.BatchNormalization, ()),
        (layers.Activation, ("relu",)),
        (layers.Dense, (3,)),
    ]


def _layer(made: tuple[Any, tuple[Any, ...]]) -> Any:
    kind, given = made
    return kind(*given)


class Noted(keras.callbacks.Callback):
    """The weights when an epoch ended, as validation has them, and when the next begins."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[dict[str, Any]] = []
        self.begins: list[dict[str, Any]] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.begins.append(weights_of(self.model))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.ends.append(weights_of(self.model))


def test_snapshots_are_of_the_weights_before_they_shrink(tmp_path: Path) -> None:
    model, noted = small_net(), Noted()
    recorder = SnapshotRecorder(tmp_path, SCHEDULE)
    fit(model, noted, recorder, ShrinkAndPerturb(recorder, seed=3))
    assert [each.step for each in recorder.store.list()] == [5, 10, 15, 20]
    for i, each in enumerate(recorder.store.list()):
        recorded = small_net(9)
        load_snapshot(recorded, each)
        assert same(weights_of(recorded), noted.ends[i])
        if i < 3:
            expected = recorded
            shrink_and_perturb(expected, cycle=i + 1, seed=3)
            assert same(weights_of(expected), noted.begins[i + 1])
    assert same(weights_of(model), noted.ends[3])


def test_cycles_that_end_within_an_epoch_restart_there(tmp_path: Path) -> None:
    model, whole = small_net(), small_net()
    recorder = SnapshotRecorder(tmp_path / "one", SCHEDULE)
    restart = ShrinkAndPerturb(recorder, reset_momentum=True)
    other = SnapshotRecorder(tmp_path / "other", SCHEDULE)
    x = np.random.default_rng(7).normal(size=(160, 4)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    options: dict[str, Any] = {"batch_size": 8, "shuffle": False, "verbose": 0}
    model.fit(x, y, callbacks=[recorder, restart], **options)  # 20 updates in one epoch
    for i in range(4):  # the same in epochs of five
        part = slice(40 * i, 40 * (i + 1))
        again = ShrinkAndPerturb(other, reset_momentum=True)
        whole.fit(x[part], y[part], callbacks=[other, again], **options)
    assert same(weights_of(model), weights_of(whole))


@pytest.mark.parametrize("forgets", [True, False])
def test_the_callback_forgets_the_momentum_if_it_is_told_to(tmp_path: Path, forgets: bool) -> None:
    model, seen = small_net(), list[float]()

    def look(epoch: int, logs: Any = None) -> None:  # noqa: ARG001
        momentum = [each for each in model.optimizer.variables if "momentum" in each.path]
        seen.append(max((float(abs(array_of(each)).max()) for each in momentum), default=0.0))

    recorder = SnapshotRecorder(tmp_path, SCHEDULE)
    restart = ShrinkAndPerturb(recorder, reset_momentum=forgets)
    noted = Noted()  # which has JAX's loop hand the optimizer over
    fit(model, recorder, restart, noted, keras.callbacks.LambdaCallback(on_epoch_begin=look))
    assert len(seen) == 4
    assert (max(seen) == 0) is forgets


def test_a_run_resumed_from_a_backup_is_the_run_that_was_not_stopped(tmp_path: Path) -> None:
    def run(name: str, epochs: int, stops: bool = False) -> Any:
        model = small_net()
        recorder = SnapshotRecorder(tmp_path / name, SCHEDULE)
        backup = keras.callbacks.BackupAndRestore(str(tmp_path / f"{name}-backup"))
        callbacks: list[Any] = [recorder, ShrinkAndPerturb(recorder), backup]
        if stops:
            callbacks.append(keras.callbacks.LambdaCallback(on_epoch_begin=_stop_at(2)))
        try:
            fit(model, *callbacks, epochs=epochs)
        except KeyboardInterrupt:
            recorder.close()
        return weights_of(model)

    whole = run("whole", 4)
    run("broken", 4, stops=True)
    assert same(run("broken", 4), whole)


def _stop_at(epoch: int) -> Any:
    def stop(now: int, logs: Any = None) -> None:  # noqa: ARG001
        if now == epoch:
            raise KeyboardInterrupt

    return stop


def test_a_recorder_that_is_listed_after_it_is_found_out(tmp_path: Path) -> None:
    recorder = SnapshotRecorder(tmp_path, SCHEDULE)
    with pytest.raises(ScheduleError, match=r"listed before ShrinkAndPerturb.*seen \d of 5"):
        fit(small_net(), ShrinkAndPerturb(recorder), recorder)
    recorder.close()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"`cycle` must be .*at least 1.*cycle=None"),
        ({"cycle": 1, "shrink": 2}, r"`shrink` must be a number from 0 to 1.*shrink=2"),
        ({"cycle": 1, "seed": -1}, r"`seed` must be an integer of at least 0"),
        ({"cycle": 1, "fresh": 3}, r"`fresh` must be a keras\.Model, or a function.*Received: 3"),
        ({"cycle": 1, "fresh": dict}, r"`fresh` must be a keras\.Model that is built.*\{\}"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        shrink_and_perturb(small_net(), **given)


def test_models_that_do_not_fit_are_refused() -> None:
    model = small_net()
    with pytest.raises(ScheduleError, match="the model's own weights"):
        shrink_and_perturb(model, model)
    other = keras.Sequential([keras.Input((3,)), layers.Dense(8)])
    with pytest.raises(ScheduleError, match=r"'dense/kernel' of shape \(4, 8\) one of shape"):
        shrink_and_perturb(model, other)
    with pytest.raises(ScheduleError, match=r"`model` must be a keras\.Model that is built"):
        shrink_and_perturb(keras.Sequential([layers.Dense(2)]), cycle=1)
    wrong: Any = SCHEDULE
    with pytest.raises(ScheduleError, match="`recorder` must be the SnapshotRecorder"):
        ShrinkAndPerturb(wrong)
    with pytest.raises(ScheduleError, match="`optimizer` must be a Keras optimizer"):
        reset_momentum(wrong)


@pytest.mark.parametrize("kind", ["SGD", "Adam", "RMSprop"])
def test_the_momentum_is_forgotten_and_all_else_is_kept(kind: str) -> None:
    given = {} if kind == "Adam" else {"momentum": 0.9}
    weight = keras.Variable([1.0, 2.0])
    optimizer = getattr(keras.optimizers, kind)(0.1, **given)
    for slope in (1.0, -2.0, 0.5):
        optimizer.apply([keras.ops.full((2,), slope)], [weight])
    before = {each.path: array_of(each) for each in optimizer.variables}
    reset_momentum(optimizer)
    changed = [
        each.path
        for each in optimizer.variables
        if not np.array_equal(array_of(each), before[each.path])
    ]
    assert len(changed) == 1
    start = array_of(weight)
    optimizer.apply([keras.ops.full((2,), 0.3)], [weight])
    if kind == "SGD":
        np.testing.assert_allclose(array_of(weight), start - 0.1 * 0.3, rtol=1e-6)
    if kind == "Adam":  # of four slopes, with the mean of their squares
        squares = sum(0.001 * 0.999**i * g**2 for i, g in enumerate([0.3, 0.5, -2.0, 1.0]))
        mean = 0.1 * 0.3 / (1 - 0.9**4)
        step = 0.1 * mean / ((squares / (1 - 0.999**4)) ** 0.5 + 1e-7)
        np.testing.assert_allclose(array_of(weight), start - step, rtol=1e-5)
