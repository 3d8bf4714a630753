"""One Keras model from several members' weights, with BatchNormalization estimated anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import cosanneal as ca
from cosanneal import ensemble as on_arrays
from cosanneal.adapters.keras import CyclicCosineSchedule, SnapshotEnsemble, SnapshotRecorder
from cosanneal.core.errors import EnsembleError


def convolutional() -> Any:
    inner = keras.Sequential([layers.Dense(6), layers.BatchNormalization(momentum=0.5)])
    return keras.Sequential(
        [
            keras.Input((5, 5, 2)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.5),
            layers.Flatten(),
            inner,
            layers.Dense(2),
        ]
    )


def images(samples: int) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    x = random.normal(size=(samples, 5, 5, 2))
    x += np.linspace(-2, 2, samples)[:, None, None, None]
    return x.astype("float32"), (x[:, 0, 0, 0] > 0).astype(int)


def trained(
    build: Callable[[], Any], folder: Path, x: Any, y: Any, members: int = 3
) -> tuple[Any, list[list[Any]]]:
    """A model, and the weights at the ends of the cycles of its training."""
    schedule = ca.CyclicCosine(0.05, total_steps=2 * members, num_cycles=members)
    keras.utils.set_random_seed(0)
    model = build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(CyclicCosineSchedule(schedule)), loss)
    found: list[list[Any]] = []
    ends = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: found.append(model.get_weights()))
    callbacks = [SnapshotRecorder(folder, schedule), ends]
    model.fit(*(x, y), batch_size=len(x) // 2, epochs=members, callbacks=callbacks, verbose=0)
    return model, found


class Loader:
    def __init__(self, x: Any, sizes: Sequence[int]) -> None:
        self.parts = np.split(x, np.cumsum(sizes)[:-1])

    def __iter__(self) -> Iterator[Any]:
        return iter(self.parts)


def numpy(value: Any) -> Any:
    return np.asarray(keras.ops.convert_to_numpy(value), np.float64)


def norms(model: Any) -> list[Any]:
    kind = layers.BatchNormalization
    return [layer for layer in model._flatten_layers() if isinstance(layer, kind)]


def exact(model: Any, parts: Sequence[Any]) -> list[tuple[Any, Any]]:
    """The moments of what reaches each of two layers, layer after layer, by numpy."""
    conv, first, _, _, _, inner, _ = model.layers
    second = inner.layers[1]
    reached: list[list[Any]] = [[], []]
    for part in parts:
        h = numpy(conv(part))
        reached[0].append(h.reshape(-1, 4))
        h = (h - h.mean((0, 1, 2))) / np.sqrt(h.var((0, 1, 2)) + first.epsilon)
        h = np.maximum(h * numpy(first.gamma) + numpy(first.beta), 0).reshape(len(part), -1)
        reached[1].append(numpy(inner.layers[0](h.astype("float32"))))
    assert norms(model) == [first, second]
    return [(e.mean(0), e.var(0)) for e in map(np.concatenate, reached)]


@pytest.mark.parametrize("sizes", [(60,), (7, 41, 12)])
def test_statistics_are_those_of_the_data(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    x, y = images(60)
    model, members = trained(convolutional, tmp_path, x, y)
    model.predict_on_batch(x)  # compiled before anyone looks
    asked: list[int] = []
    inner = norms(model)[1].call

    def call(*args: Any, **kwargs: Any) -> Any:
        asked.append(1)
        return inner(*args, **kwargs)

    vars(norms(model)[1])["call"] = call  # the user's own, which stays
    own = model.get_weights()
    ensemble = SnapshotEnsemble(model, tmp_path)
    found = ensemble.average_weights(x, y, train_data=Loader(x, sizes), barrier=1e9)
    assert found.statistics
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), own, strict=True))
    assert "call" not in vars(norms(model)[0])
    assert vars(norms(model)[1])["call"] is call
    assert asked
    assert len(found.barriers) == 2
    other = convolutional()
    other.set_weights(found.weights)
    moving = {id(v) for layer in norms(other) for v in layer.non_trainable_variables}
    for i, variable in enumerate(other.weights):
        if id(variable) not in moving:
            mean = np.mean([weights[i].astype(float) for weights in members], axis=0)
            np.testing.assert_allclose(found.weights[i], mean, rtol=1e-6, atol=1e-7)
    for layer, (mean, variance) in zip(
        norms(other), exact(other, np.split(x, np.cumsum(sizes)[:-1])), strict=True
    ):
        np.testing.assert_allclose(numpy(layer.moving_mean), mean, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(numpy(layer.moving_variance), variance, rtol=2e-5)
    p = numpy(keras.ops.softmax(other.predict_on_batch(x)))
    assert found.scores is not None
    assert found.scores["log_loss"] == pytest.approx(on_arrays.log_loss(p, y), rel=1e-5)
    assert found.ensemble_scores is not None
    assert found.ensemble_scores["log_loss"] == pytest.approx(
        on_arrays.log_loss(ensemble.predict(x), y), rel=1e-5
    )


def test_one_batch_has_keras_own_statistics(tmp_path: Path) -> None:
    x, y = images(40)
    model, _ = trained(convolutional, tmp_path, x, y)
    weights = (
        SnapshotEnsemble(model, tmp_path).average_weights(train_data=x, barrier=math.inf).weights
    )
    other = convolutional()
    other.set_weights(weights)
    other.layers[4 - 1].rate = 0  # dropout
    for layer in norms(other):
        layer.momentum = 0.0
    other(x, training=True)
    for mine, theirs in zip(weights, other.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-5)


def test_frozen_layers_keep_their_statistics(tmp_path: Path) -> None:
    def build() -> Any:
        model = convolutional()
        norms(model)[0].trainable = False
        return model

    x, y = images(40)
    model, members = trained(build, tmp_path, x, y)
    ensemble = SnapshotEnsemble(model, tmp_path)
    found = ensemble.average_weights(train_data=x, barrier=math.inf)
    model.set_weights(found.weights)
    frozen, free = norms(model)
    assert numpy(frozen.moving_mean).tolist() == [0] * 4
    assert numpy(frozen.moving_variance).tolist() == [1] * 4
    assert not np.allclose(numpy(free.moving_variance), members[-1][-3], rtol=1e-2)
    # Where all of the model is frozen, after its training, that is no sign.
    model.trainable = False
    again = ensemble.average_weights(train_data=x, barrier=math.inf)
    model.set_weights(again.weights)
    assert numpy(frozen.moving_mean).all()


def test_positions_that_are_masked_do_not_count(tmp_path: Path) -> None:
    def build() -> Any:
        return keras.Sequential(
            [
                keras.Input((4, 3)),
                layers.Masking(),
                layers.BatchNormalization(),
                layers.GlobalAveragePooling1D(),
                layers.Dense(2),
            ]
        )

    x = np.random.default_rng(0).normal(size=(30, 4, 3)).astype("float32") + 2
    y = (x[:, 0, 0] > 2).astype(int)
    model, _ = trained(build, tmp_path, x, y, 2)  # a batch of padding alone makes it diverge
    # Of some samples a part is padding, and of a whole batch all.
    x[:10, 2:] = 0
    x[15:20] = 0
    found = SnapshotEnsemble(model, tmp_path).average_weights(
        train_data=Loader(x, (5, 10, 5, 10)), barrier=math.inf
    )
    model.set_weights(found.weights)
    kept = np.concatenate([each.reshape(-1, 3) for each in (x[:10, :2], x[10:15], x[20:])])
    (norm,) = norms(model)
    np.testing.assert_allclose(numpy(norm.moving_mean), kept.astype(float).mean(0), rtol=1e-5)
    np.testing.assert_allclose(numpy(norm.moving_variance), kept.astype(float).var(0), rtol=1e-5)


def test_channels_along_another_axis_and_a_layer_that_is_shared(tmp_path: Path) -> None:
    def build() -> Any:
        shared = layers.BatchNormalization(axis=1)
        entry = keras.Input((4, 3))
        both = layers.Concatenate()([shared(entry), shared(entry * 2)])
        return keras.Model(entry, layers.Dense(2)(layers.Flatten()(both)))

    x = np.random.default_rng(0).normal(size=(30, 4, 3)).astype("float32") + 2
    model, _ = trained(build, tmp_path, x, (x[:, 0, 0] > 2).astype(int), 2)
    found = SnapshotEnsemble(model, tmp_path).average_weights(
        train_data=Loader(x, (5, 25)), barrier=math.inf
    )
    model.set_weights(found.weights)
    both = np.concatenate([x, 2 * x]).astype(float)
    (norm,) = norms(model)
    np.testing.assert_allclose(numpy(norm.moving_mean), both.mean((0, 2)), rtol=1e-5)
    np.testing.assert_allclose(numpy(norm.moving_variance), both.var((0, 2)), rtol=1e-5)


class Mapped(layers.Layer):
    """Normalizes each sample's steps within a vectorized map."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = layers.BatchNormalization()

    def build(self, shape: Any) -> None:
        self.norm.build(shape[1:])

    def call(self, x: Any, training: bool = False) -> Any:
        return keras.ops.vectorized_map(lambda rows: self.norm(rows, training=training), x)


def test_layers_within_a_vectorized_map_are_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4, 3)), Mapped(), layers.Flatten(), layers.Dense(2)])
    # By hand: not every backend can train it.
    schedule = ca.CyclicCosine(0.1, total_steps=2, num_cycles=2)
    model.compile(keras.optimizers.SGD(CyclicCosineSchedule(schedule)), "mse")
    norms(model)[0].trainable = False
    x = np.ones((2, 4, 3), "float32")
    recorder = SnapshotRecorder(tmp_path, schedule)
    model.fit(x, np.ones((2, 2)), batch_size=1, callbacks=[recorder], verbose=0)
    norms(model)[0].trainable = True
    own = model.get_weights()
    with pytest.raises(EnsembleError, match=r"vectorized map.*'batch_normalization"):
        SnapshotEnsemble(model, tmp_path).average_weights(train_data=x, barrier=math.inf)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), own, strict=True))


def test_steps_that_are_run_one_after_the_other(tmp_path: Path) -> None:
    def build() -> Any:
        inner = layers.TimeDistributed(layers.BatchNormalization())
        return keras.Sequential([keras.Input((4, 3)), inner, layers.Flatten(), layers.Dense(2)])

    x = 2 + np.random.default_rng(0).normal(size=(20, 4, 3)).astype("float32")
    model, _ = trained(build, tmp_path, x, (x[:, 0, 0] > 2).astype(int), 2)
    found = SnapshotEnsemble(model, tmp_path).average_weights(
        train_data=Loader(x, (5, 15)), barrier=math.inf
    )
    model.set_weights(found.weights)
    rows = x.reshape(-1, 3).astype(float)
    np.testing.assert_allclose(numpy(norms(model)[0].moving_mean), rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(numpy(norms(model)[0].moving_variance), rows.var(0), rtol=1e-5)


def test_no_data_no_statistics_and_an_error_in_the_pass(tmp_path: Path) -> None:
    x, y = images(40)
    model, _ = trained(convolutional, tmp_path, x, y)
    own = model.get_weights()
    ensemble = SnapshotEnsemble(model, tmp_path)
    with pytest.raises(EnsembleError, match=r"`train_data`.*batch_normalization"):
        ensemble.average_weights(x, y)
    assert not ensemble.average_weights(last=1).statistics

    def broken() -> Iterator[Any]:
        yield x
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        ensemble.average_weights(train_data=broken(), barrier=math.inf)
    assert not any("call" in vars(layer) for layer in norms(model))
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), own, strict=True))


def test_a_model_without_statistics_needs_no_training_data(tmp_path: Path) -> None:
    def build() -> Any:
        return keras.Sequential([keras.Input((3,)), layers.LayerNormalization(), layers.Dense(2)])

    random = np.random.default_rng(0)
    x = random.normal(size=(40, 3)).astype("float32")
    y = (x[:, 0] > 0).astype(int)
    model, members = trained(build, tmp_path, x, y)
    found = SnapshotEnsemble(model, tmp_path).average_weights(x, y, soup="exponential", decay=0.5)
    assert not found.statistics
    shares = on_arrays.exponential_weights(3, 0.5)
    for mine, *theirs in zip(found.weights, *members, strict=True):
        mean = sum(a * w.astype(float) for a, w in zip(shares, theirs, strict=True))
        np.testing.assert_allclose(mine, mean, rtol=1e-6, atol=1e-7)
