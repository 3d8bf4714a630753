"""The user's model is never touched, and what layers derive of their weights is derived anew."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import cosanneal as ca
from cosanneal.adapters.keras import SnapshotEnsemble, SnapshotRecorder
from cosanneal.adapters.keras.model import KerasModel
from cosanneal.snapshots.capture import Standing
from tests.shared.compiling import BACKEND

EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)


def recorded(folder: Path, model: Any, change: Callable[[Any, int], None] | None = None) -> Any:
    """Snapshots of other weights each; and what `model` predicted with them."""

    def drawn(model: Any, seed: int) -> None:
        generator = np.random.default_rng(seed)
        model.set_weights([generator.normal(size=w.shape) for w in model.get_weights()])

    model.compile("sgd", "mse")
    recorder = SnapshotRecorder(folder, EVERY_STEP)
    recorder.set_model(model)
    for seed in range(3):
        (change or drawn)(model, seed)
        recorder.recorder.advance(Standing(seed + 1, seed + 1))
    recorder.close()


def numbers(model: Any) -> list[Any]:
    return [np.array(keras.ops.convert_to_numpy(each)) for each in model.variables]


def adapted(seed: int | None) -> Any:
    """A model whose first layer normalizes by what it was adapted to."""
    normalization = layers.Normalization()
    model = keras.Sequential([keras.Input((4,)), normalization, layers.Dense(3)])
    if seed is not None:
        generator = np.random.default_rng(seed)
        normalization.adapt(10 * seed + (1 + seed) * generator.normal(size=(100, 4)))
    return model


def test_a_normalization_in_a_fresh_model_has_the_members_statistics(tmp_path: Path) -> None:
    model = adapted(1)
    x = 10 + 2 * np.random.default_rng(5).normal(size=(6, 4)).astype("float32")
    kernels = []

    def change(model: Any, seed: int) -> None:
        kernels.append(np.random.default_rng(seed).normal(size=(4, 3)))
        model.layers[-1].set_weights([kernels[-1], np.zeros(3)])

    recorded(tmp_path, model, change)
    expected = []
    for kernel in kernels:
        model.layers[-1].set_weights([kernel, np.zeros(3)])
        expected.append(np.array(model.predict_on_batch(x)))
    fresh = adapted(None)
    ensemble = SnapshotEnsemble(fresh, tmp_path, outputs="values")
    for mode in ("stream", "resident", "stacked"):
        np.testing.assert_allclose(
            ensemble.predict(x, mode=mode), np.mean(expected, axis=0), rtol=1e-4, atol=1e-5
        )


def test_members_that_were_adapted_to_other_data_each(tmp_path: Path) -> None:
    model = adapted(1)
    x = np.random.default_rng(5).normal(size=(6, 4)).astype("float32")
    expected = []

    def change(model: Any, seed: int) -> None:
        generator = np.random.default_rng(seed)
        model.layers[0].adapt(5 * seed + (1 + seed) * generator.normal(size=(100, 4)))
        model.predict_function = None
        expected.append(np.array(model.predict_on_batch(x)))

    recorded(tmp_path, model, change)
    own = np.array(model.predict_on_batch(x))
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
    for mode in ("stream", "resident", "stream"):
        np.testing.assert_allclose(
            ensemble.predict(x, mode=mode), np.mean(expected, axis=0), rtol=1e-4, atol=1e-5
        )
    with pytest.raises(ca.EnsembleError, match=r"differ in 'normalization/\w+'; give mode='resid"):
        ensemble.predict(x, mode="stacked")
    np.testing.assert_array_equal(model.predict_on_batch(x), own)


class Doubling(layers.Layer):
    """A layer of the user's, for which there is no copy."""

    def call(self, x: Any) -> Any:
        return 2 * x


def test_a_lent_models_normalization_is_its_own_again(tmp_path: Path) -> None:
    model = keras.Sequential([*adapted(1).layers, Doubling()])
    x = np.random.default_rng(5).normal(size=(6, 4)).astype("float32")
    expected = []

    def change(model: Any, seed: int) -> None:
        generator = np.random.default_rng(seed)
        model.layers[0].adapt(5 * seed + (1 + seed) * generator.normal(size=(100, 4)))
        model.predict_function = None
        expected.append(np.array(model.predict_on_batch(x)))

    recorded(tmp_path, model, change)
    model.layers[0].adapt(3 + np.random.default_rng(8).normal(size=(100, 4)))
    model.predict_function = None
    own, before = np.array(model.predict_on_batch(x)), numbers(model)
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
    np.testing.assert_allclose(ensemble.predict(x), np.mean(expected, axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.predict_on_batch(x), own)
    assert all(np.array_equal(*pair) for pair in zip(numbers(model), before, strict=True))


def test_layers_with_a_state_begin_each_pass_without_one(tmp_path: Path) -> None:
    def build() -> Any:
        recurrent = layers.LSTM(6, stateful=True)
        return keras.Sequential([keras.Input(batch_shape=(4, 5, 3)), recurrent, layers.Dense(3)])

    model = build()
    x = np.random.default_rng(0).normal(size=(8, 5, 3)).astype("float32")
    recorded(tmp_path, model)
    # The oracle: a model of its own, which goes on from batch to batch.
    expected = []
    for seed in range(3):
        generator = np.random.default_rng(seed)
        alone = build()
        alone.set_weights([generator.normal(size=w.shape) for w in alone.get_weights()])
        batches = [np.array(alone.predict_on_batch(x[i : i + 4])) for i in (0, 4)]
        expected.append(np.concatenate(batches))
    model.predict_on_batch(x[:4])
    states = [np.array(keras.ops.convert_to_numpy(each)) for each in model.layers[0].states]
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
    for _ in range(2):
        np.testing.assert_allclose(
            ensemble.predict(x, batch_size=4), np.mean(expected, axis=0), rtol=1e-4, atol=1e-5
        )
    for mode in ("resident", "stacked"):
        with pytest.raises(ca.EnsembleError, match=r"state from batch to batch.*mode='stream'"):
            ensemble.predict(x, batch_size=4, mode=mode)
    for state, before in zip(model.layers[0].states, states, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(state), before)


def test_a_state_that_could_not_be_put_back_is_refused(tmp_path: Path) -> None:
    def build() -> Any:
        return keras.Sequential(
            [
                keras.Input(batch_shape=(4, 5, 3)),
                layers.LSTM(6, stateful=True),
                Doubling(),
                layers.Dense(3),
            ]
        )

    recorded(tmp_path, build())
    with pytest.raises(ca.EnsembleError, match=r"must be a function that builds the model.*'lstm"):
        SnapshotEnsemble(build(), tmp_path)
    x = np.ones((4, 5, 3), "float32")
    same = build()
    with pytest.raises(ca.EnsembleError, match=r"must build another each time"):
        SnapshotEnsemble(lambda: same, tmp_path)
    ensemble = SnapshotEnsemble(build, tmp_path, outputs="values")
    np.testing.assert_array_equal(ensemble.predict(x), ensemble.predict(x))


class Interrupting(layers.Layer):
    """Ctrl-C in the middle of a pass."""

    at: int = -1
    calls: int = 0

    def call(self, x: Any) -> Any:
        Interrupting.calls += 1
        if Interrupting.calls == Interrupting.at:
            raise KeyboardInterrupt
        return x


def test_an_interrupt_leaves_the_model_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), Interrupting()])
    recorded(tmp_path, model)
    x = np.ones((2, 4), "float32")
    model.set_weights([np.full(w.shape, 7.0) for w in model.get_weights()])
    before = numbers(model)
    expected = SnapshotEnsemble(model, tmp_path, outputs="values").predict(x)
    # While weights are put in place, and while they are put back.
    assign = keras.Variable.assign
    for at in range(1, 12):
        ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
        count = 0

        def interrupting(self: Any, value: Any, at: int = at) -> Any:
            nonlocal count
            count += 1
            if count == at:
                raise KeyboardInterrupt
            return assign(self, value)

        monkeypatch.setattr(keras.Variable, "assign", interrupting)
        try:
            ensemble.predict(x)
        except KeyboardInterrupt:
            pass
        else:
            assert at > 8
        monkeypatch.setattr(keras.Variable, "assign", assign)
        assert all(np.array_equal(*pair) for pair in zip(numbers(model), before, strict=True))
        np.testing.assert_array_equal(ensemble.predict(x), expected)


def test_a_copy_leaves_the_model_its_random_numbers_and_its_functions(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, "relu"), layers.Dropout(0.5), layers.Dense(3)]
    )
    recorded(tmp_path, model)
    x = np.ones((2, 4), "float32")
    model.predict_on_batch(x)
    before, function, state = numbers(model), model.predict_function, random.getstate()
    SnapshotEnsemble(model, tmp_path).predict(x)
    assert model.predict_function is function
    assert random.getstate() == state
    assert all(np.array_equal(*pair) for pair in zip(numbers(model), before, strict=True))


COPIED: dict[str, Callable[[], Any]] = {
    "sequential": lambda: keras.Sequential([keras.Input((4,)), layers.Dense(3)]),
    "shared and nested": lambda: nested(),
    "mutated": lambda: mutated(),
}
LENT: dict[str, Callable[[], Any]] = {
    "a layer of the user's": lambda: keras.Sequential([keras.Input((4,)), Doubling()]),
    "a lambda": lambda: keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: 2 * x)]),
    "a patched call": lambda: patched(),
    "a subclass": lambda: Own(),
    "a sequence of the user's": lambda: Negated([keras.Input((4,)), layers.Dense(3)]),
}


def nested() -> Any:
    x = keras.Input((4,))
    shared = layers.Dense(4, "tanh")
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.BatchNormalization()])
    return keras.Model(x, layers.Dense(3)(inner(shared(shared(x))) + x * 2))


def mutated() -> Any:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu")])
    model.layers[0].activation = keras.activations.tanh
    return model


def patched() -> Any:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    call = model.layers[0].call
    vars(model.layers[0])["call"] = lambda x, **_: -call(x)
    return model


class Negated(keras.Sequential):
    def call(self, x: Any, training: Any = None, mask: Any = None) -> Any:
        return -super().call(x, training=training, mask=mask)


class Own(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(3)
        self.dense.build((None, 4))
        self.factor = 1.0
        self.built = True

    def call(self, x: Any) -> Any:
        return self.factor * self.dense(x)


@pytest.mark.parametrize("kind", [*COPIED, *LENT])
def test_a_model_is_copied_where_its_config_says_all_and_lent_otherwise(
    tmp_path: Path, kind: str
) -> None:
    model = {**COPIED, **LENT}[kind]()
    if isinstance(model, Own):
        model.factor = 3.0  # which no config knows
    x = np.random.default_rng(5).normal(size=(6, 4)).astype("float32")
    if model.weights:
        expected = []

        def change(model: Any, seed: int) -> None:
            generator = np.random.default_rng(seed)
            model.set_weights([abs(generator.normal(size=w.shape)) for w in model.get_weights()])
            model.predict_function = None
            expected.append(keras.ops.convert_to_numpy(model(x, training=False)))

        recorded(tmp_path, model, change)
        ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
        before = numbers(model)
        np.testing.assert_allclose(
            ensemble.predict(x), np.mean(expected, axis=0), rtol=1e-4, atol=1e-5
        )
        assert all(np.array_equal(*pair) for pair in zip(numbers(model), before, strict=True))
    assert KerasModel(model).lent == (kind in LENT)


if BACKEND == "tensorflow":  # without which Keras looks nothing up

    def test_layers_whose_state_no_config_has_are_lent() -> None:
        lookup = layers.IntegerLookup()
        lookup.adapt(np.array([3, 5, 7]))
        model = keras.Sequential([keras.Input((1,), dtype="int64"), lookup, layers.Embedding(8, 3)])
        assert KerasModel(model).lent
