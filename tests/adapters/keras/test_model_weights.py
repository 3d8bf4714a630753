"""A Keras model is run with its members' weights, and what it is itself stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import cosanneal as ca
from cosanneal.adapters.keras import SnapshotEnsemble, SnapshotRecorder
from cosanneal.adapters.keras.names import named_weights
from tests.shared.compiling import BACKEND
from tests.shared.keras_runs import (
    NAMES,
    SCHEDULE,
    contents,
    data,
    fit,
    record_once,
    small_net,
    trained,
)


def composed(dtype: str = "float32") -> Any:
    """Layers in layers, a shared one, several of a class, weights of their own, random ones."""

    class Block(layers.Layer):
        def __init__(self) -> None:
            super().__init__(dtype=dtype)
            self.inner = [layers.Dense(4, dtype=dtype), layers.Dense(4, dtype=dtype)]

        def build(self, shape: Any) -> None:
            self.scale = self.add_weight(shape=(4,), initializer="ones")
            self.shift = self.add_weight(shape=(4,), initializer="zeros")
            for layer in self.inner:
                layer.build(shape)

        def call(self, x: Any) -> Any:
            return self.inner[1](self.inner[0](x)) * self.scale + self.shift

    x = keras.Input((4,))
    block = Block()
    y = layers.Dropout(0.5)(block(block(x)))
    y = keras.Sequential([layers.Dense(4, name="first", dtype=dtype)])(y)
    y = layers.Dense(3, name="head_7", dtype=dtype)(y)
    return keras.Model(x, y)


def test_a_model_built_anew_has_the_same_names(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        model = composed()
        weights = named_weights(model)
        assert [id(each) for each in weights.values()] == [id(each) for each in model.weights]
        names.append([*weights])
    assert names[0] == names[1] == names[2]
    assert names[0] == [
        *("block/variable", "block/variable_1"),
        *("block/dense/kernel", "block/dense/bias", "block/dense_1/kernel", "block/dense_1/bias"),
        *("sequential/first/kernel", "sequential/first/bias", "head_7/kernel", "head_7/bias"),
    ]
    model.save_weights(tmp_path / "some.weights.h5")  # Keras' own way of it is of the same mind
    composed().load_weights(tmp_path / "some.weights.h5")
    model = small_net()
    fit(model, epochs=1)
    model.save(tmp_path / "model.keras")
    assert [*named_weights(keras.saving.load_model(tmp_path / "model.keras"))] == NAMES


def test_the_model_comes_back_as_it_was(tmp_path: Path) -> None:
    model = trained(tmp_path)
    x, _ = data()
    before = [keras.ops.convert_to_numpy(each).copy() for each in model.variables]
    state = [keras.ops.convert_to_numpy(each).copy() for each in model.optimizer.variables]
    ensemble = SnapshotEnsemble(small_net(3), tmp_path)
    ensemble.predict(x)
    ensemble = SnapshotEnsemble(model, tmp_path)
    predictions = ensemble.member_predictions(x)
    next(predictions)
    assert np.array_equal(model.get_weights()[0], before[0])  # also between two members
    predictions.close()  # type: ignore[attr-defined]
    ensemble.predict(x)
    with pytest.raises(Exception, match=r"(?i)shape|size|dim"):
        ensemble.predict(x[:, :3])
    for variables, expected in ((model.variables, before), (model.optimizer.variables, state)):
        for each, value in zip(variables, expected, strict=True):
            assert np.array_equal(keras.ops.convert_to_numpy(each), value), each.path


def test_members_are_predicted_without_a_new_trace(tmp_path: Path) -> None:
    trained(tmp_path)
    calls: list[int] = []

    class Counting(layers.Layer):
        def call(self, x: Any) -> Any:
            calls.append(1)
            return x

    model = keras.Sequential([keras.Input((4,)), *small_net().layers, Counting()])
    x, _ = data()
    model.predict_on_batch(x)
    calls.clear()
    SnapshotEnsemble(model, tmp_path).predict(x)
    assert len(calls) == (4 if BACKEND == "torch" else 0)


def test_an_ensemble_in_the_middle_of_fit_leaves_the_training_as_it_is(tmp_path: Path) -> None:
    whole = small_net()
    fit(whole, SnapshotRecorder(tmp_path / "whole", SCHEDULE))
    x, _ = data()

    class Looking(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            if contents(tmp_path / "looked"):
                SnapshotEnsemble(self.model, tmp_path / "looked").predict(x)

    model = small_net()
    fit(model, SnapshotRecorder(tmp_path / "looked", SCHEDULE), Looking())
    assert contents(tmp_path / "whole") == contents(tmp_path / "looked")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_of_every_float_come_back_as_they_were(tmp_path: Path, dtype: str) -> None:
    if BACKEND == "jax" and dtype == "float64":
        dtype = "float32"  # all that it has without x64
    model = composed(dtype)
    (snapshot,) = record_once(tmp_path, model).list()
    assert snapshot.layout()["head_7/kernel"] == ((4, 3), dtype)
    x, _ = data(5)
    expected = model.predict_on_batch(x)
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
    probabilities = SnapshotEnsemble(model, tmp_path).predict(x)
    got = ensemble.predict(x)
    assert got.dtype == expected.dtype == probabilities.dtype
    assert np.array_equal(got, expected)
    np.testing.assert_allclose(probabilities.astype(float).sum(1), 1, atol=0.02)


def test_models_of_several_inputs_and_of_none(tmp_path: Path) -> None:
    a, b = keras.Input((2,)), keras.Input((5,))
    model = keras.Model((a, b), layers.Dense(3)(a) + layers.Dense(3)(b))
    record_once(tmp_path, model)
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
    left, right = np.ones((7, 2), np.float32), np.ones((7, 5), np.float32)
    expected = model.predict_on_batch((left, right))
    np.testing.assert_allclose(ensemble.predict((left, right), batch_size=3), expected, rtol=1e-6)
    assert ensemble.predict((left[:0], right[:0])).shape == (0, 3)
    with pytest.raises(ca.EnsembleError, match=r"same number of samples.*\[7, 6\]"):
        ensemble.predict((left, right[:6]))
    np.testing.assert_allclose(ensemble.predict([left, right]), expected, rtol=1e-6)
