"""An ensemble as one Keras model gives what it predicts, also saved, loaded and exported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import cosanneal as ca
from cosanneal.adapters.keras import SnapshotEnsemble, SnapshotRecorder
from cosanneal.core.errors import EnsembleError
from cosanneal.ensemble.predict.pooling import Pooling
from cosanneal.snapshots.capture import Standing

POOLINGS: tuple[Pooling, ...] = ("probabilities", "logits", "log-probabilities", "vote")
MEMBERS = 3


def build(kind: str = "classes") -> Any:
    """A model with layers that have a state, or do something else in training."""
    x = keras.Input((4,), name="x")
    h = layers.BatchNormalization()(layers.Dense(8, activation="tanh")(x))
    h = layers.Dropout(0.5)(h)
    if kind == "classes":
        return keras.Model(x, layers.Dense(3)(h))
    if kind == "sequential":
        return keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    if kind == "two inputs":
        z = keras.Input((2,), name="z")
        return keras.Model({"x": x, "z": z}, layers.Dense(3)(layers.Concatenate()([h, z])))
    mean, variance = layers.Dense(2, name="m")(h), layers.Dense(2, activation="softplus")(h)
    if kind == "pairs":
        return keras.Model(x, {"mean": mean, "variance": variance})
    return keras.Model(x, [layers.Dense(3, name="classes")(h), mean])


def samples(kind: str = "classes", count: int = 9) -> Any:
    generator = np.random.default_rng(9)
    x, z = generator.normal(size=(count, 4)), generator.normal(size=(count, 2))
    return {"x": x.astype("f4"), "z": z.astype("f4")} if kind == "two inputs" else x.astype("f4")


def recorded(folder: Path, model: Any, members: int = MEMBERS) -> Any:
    """The model, whose snapshots have weights of chance."""
    recorder = SnapshotRecorder(folder, ca.CyclicCosine(0.1, cycle_steps=1))
    model.compile(keras.optimizers.SGD(0.1))
    recorder.set_model(model)
    generator = np.random.default_rng(0)
    for step in range(1, members + 1):
        give_chance(model, generator)
        recorder.recorder.advance(Standing(step, step))
    recorder.close()
    return model


def give_chance(model: Any, generator: np.random.Generator) -> None:
    for weight in model.weights:
        if "float" in weight.dtype:
            drawn = generator.normal(size=weight.shape).astype("f4")
            weight.assign(0.5 + abs(drawn) if "variance" in weight.path else drawn)


def assert_alike(found: Any, wanted: Any) -> None:
    assert type(found) is type(wanted)
    for one, other in zip(keras.tree.flatten(found), keras.tree.flatten(wanted), strict=True):
        assert one.dtype == other.dtype
        assert one.std() > 1e-3
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-6)


def assert_saved_and_exported(model: Any, x: Any, predicted: Any, folder: Path) -> None:
    """Also what was written and read again gives the same numbers."""
    given = model.predict(x, verbose=0)
    assert_alike(given, predicted)
    model.save(folder / "ensemble.keras")
    loaded = keras.saving.load_model(folder / "ensemble.keras")
    for one, other in zip(
        *map(keras.tree.flatten, (loaded.predict(x, verbose=0), given)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        model.export(os.fspath(folder / "exported"), verbose=False)
        artifact = tf.saved_model.load(os.fspath(folder / "exported"))
        for one, other in zip(*map(keras.tree.flatten, (artifact.serve(x), given)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("axis", [-1, None])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_it_gives_what_the_ensemble_predicts(
    tmp_path: Path, pooling: Pooling, axis: int | None
) -> None:
    model, x = recorded(tmp_path, build()), samples()
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="logits", class_axis=axis, pooling=pooling)
    predicted = ensemble.predict(x)
    members = np.stack([each.astype("f8") for each in ensemble.member_predictions(x)])
    assert np.abs(members[0] - members[1]).max() > 0.1
    if pooling == "probabilities":
        np.testing.assert_allclose(predicted, members.mean(0), rtol=1e-6, atol=1e-6)
    own = [np.array(keras.ops.convert_to_numpy(each)) for each in model.weights]
    shipped = ensemble.as_model()
    assert_alike(shipped.predict(x, verbose=0), predicted)
    assert_alike(shipped.predict(x[:4], verbose=0), predicted[:4])
    assert not shipped.trainable_weights
    for each, before in zip(model.weights, own, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(each), before)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("sequential", {}),
        pytest.param(
            *("two inputs", {"outputs": "logits", "class_axis": -1}),
            marks=pytest.mark.skipif(
                keras.__version__.startswith("3.7."), reason="it exports a dict's inputs as a list"
            ),
        ),
        ("pairs", {"outputs": "gaussian"}),
        ("several", {"outputs": ["logits", "values"], "class_axis": [-1, None]}),
        ("several", {"outputs": "logits", "class_axis": -1, "output": "classes"}),
        ("several", {"outputs": ("logits", "values"), "class_axis": (-1, None)}),
    ],
)
def test_it_is_saved_and_exported(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    model, x = recorded(tmp_path / "run", build(kind)), samples(kind)
    ensemble = SnapshotEnsemble(model, tmp_path / "run", **options)
    predicted = ensemble.predict(x)
    assert_saved_and_exported(ensemble.as_model(), x, predicted, tmp_path)


@pytest.mark.parametrize(("given", "dtype"), [("model", "bfloat16"), ("function", "float16")])
def test_a_dtype_is_that_of_the_members_alone(tmp_path: Path, given: str, dtype: str) -> None:
    model, x = recorded(tmp_path / "run", build()), samples()
    whose = model if given == "model" else build
    ensemble = SnapshotEnsemble(whose, tmp_path / "run", outputs="logits", class_axis=-1)
    ensemble.predict(x)
    shipped = ensemble.as_model(dtype=dtype)
    assert keras.config.dtype_policy().name == "float32"
    floats = [each.dtype for each in shipped.weights if "float" in each.dtype]
    assert {*floats} == {dtype}
    assert len(floats) == MEMBERS * len([each for each in model.weights if "float" in each.dtype])
    keras.config.set_dtype_policy(dtype)  # the members' own rounding, and none after it
    try:
        rounded = build()
    finally:
        keras.config.set_dtype_policy("float32")
    generator, z = np.random.default_rng(0), []
    for _ in range(MEMBERS):
        give_chance(rounded, generator)
        z.append(numbers(rounded(x, training=False)))
    wanted = (np.exp(z) / np.exp(z).sum(-1, keepdims=True)).mean(0)
    found = shipped(x, training=False)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_allclose(numbers(found), wanted, rtol=0, atol=1e-6)
    assert np.abs(wanted - numbers(keras.ops.cast(wanted, dtype))).max() > 1e-5
    predicted = shipped.predict(x, verbose=0)  # compiled, which may leave out a rounding
    spacing = {"bfloat16": 2.0**-7, "float16": 2.0**-10}[dtype]
    np.testing.assert_allclose(predicted, wanted, rtol=0, atol=2 * spacing)
    assert_saved_and_exported(shipped, x, predicted, tmp_path)


def numbers(array: Any) -> Any:
    return np.asarray(keras.ops.convert_to_numpy(array)).astype(np.float64)


def test_a_dtype_in_which_no_members_can_be_held_is_refused(tmp_path: Path) -> None:
    model = recorded(tmp_path, build())
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="logits", class_axis=-1)
    ensemble.predict(samples())
    for dtype in ("int8", "float64", "bf16", 3.0):
        with pytest.raises(EnsembleError, match="`dtype` must be bfloat16, float16 or float32, or"):
            ensemble.as_model(dtype=dtype)
    path = tmp_path / "model.keras"
    model.save(path)
    loads = SnapshotEnsemble(
        lambda: keras.saving.load_model(path), tmp_path, outputs="logits", class_axis=-1
    )
    loads.predict(samples())
    with pytest.raises(EnsembleError, match="weights in float32, as one that loads a file does"):
        loads.as_model(dtype="bfloat16")


@pytest.mark.filterwarnings("ignore:The ensemble was chosen on:UserWarning")
def test_it_has_the_members_weights_and_temperature_that_were_chosen(tmp_path: Path) -> None:
    model, x = recorded(tmp_path / "run", build(), members=4), samples(count=100)
    ensemble = SnapshotEnsemble(model, tmp_path / "run", outputs="logits", class_axis=-1)
    y = np.random.default_rng(3).integers(3, size=100)
    choice = ensemble.fit(x, y, select="greedy", steps=3)
    counted = sum(weight > 0 for weight in choice.weights)
    assert 0 < counted < 4
    assert abs(choice.temperature - 1) > 0.05
    shipped = ensemble.as_model()
    assert sum(layer.name.startswith("member_") for layer in shipped.layers) == counted
    assert_saved_and_exported(shipped, x, ensemble.predict(x), tmp_path)


def test_what_layers_derive_of_their_weights_is_each_members(tmp_path: Path) -> None:
    def normalized() -> Any:
        normalization = layers.Normalization()
        normalization.adapt(np.random.default_rng(1).normal(3, 5, size=(50, 4)))
        return keras.Sequential([keras.Input((4,)), normalization, layers.Dense(3)])

    model, x = recorded(tmp_path / "run", normalized()), samples()
    ensemble = SnapshotEnsemble(model, tmp_path / "run", outputs="logits", class_axis=-1)
    assert_saved_and_exported(ensemble.as_model(), x, ensemble.predict(x), tmp_path)


def test_a_function_that_builds_the_model_ships_layers_of_ones_own(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("cosanneal-tests")
    class Doubled(layers.Layer):
        def call(self, x: Any) -> Any:
            return 2 * x

    def built() -> Any:
        return keras.Sequential([keras.Input((4,)), layers.Dense(3), Doubled()])

    model, x = recorded(tmp_path / "run", built()), samples()
    options: dict[str, Any] = {"outputs": "logits", "class_axis": -1}
    with pytest.raises(EnsembleError, match=r"function that builds the model.*Received: a model"):
        SnapshotEnsemble(model, tmp_path / "run", **options).as_model()
    ensemble = SnapshotEnsemble(built, tmp_path / "run", **options)
    assert_saved_and_exported(ensemble.as_model(), x, ensemble.predict(x), tmp_path)


def test_what_cannot_be_shipped_is_refused(tmp_path: Path) -> None:
    class Written(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.last = layers.Dense(3)

        def call(self, x: Any) -> Any:
            return self.last(x)

    def written() -> Any:
        made = Written()
        made(samples())
        return made

    def stateful() -> Any:
        return keras.Sequential([keras.Input(batch_shape=(1, 2, 4)), layers.LSTM(3, stateful=True)])

    folder = tmp_path / "run"
    model, x = recorded(folder, build()), samples()
    logits: dict[str, Any] = {"outputs": "logits", "class_axis": -1}
    with pytest.raises(EnsembleError, match=r"Received: one that has run none; call predict"):
        SnapshotEnsemble(model, folder).as_model()
    ensemble = SnapshotEnsemble(model, folder, forward=lambda model, x: model(x), **logits)
    ensemble.predict(x)
    with pytest.raises(EnsembleError, match=r"Received: one with forward=; make a model"):
        ensemble.as_model()
    several = recorded(tmp_path / "several", build("several"))
    with pytest.raises(EnsembleError, match=r"Received: a None in a list or a tuple"):
        SnapshotEnsemble(several, tmp_path / "several", outputs=[None, "values"]).as_model()
    with pytest.raises(EnsembleError, match=r"must have texts as keys.*Received: the key 1;"):
        SnapshotEnsemble(several, tmp_path / "several", outputs={1: "values"}).as_model()
    for make, message in ((written, "Received: a Written, whose"), (stateful, "one with 'lstm")):
        recorded(tmp_path / make.__name__, make())
        with pytest.raises(EnsembleError, match=message):
            SnapshotEnsemble(make, tmp_path / make.__name__, **logits).as_model()
