"""Keras models of several outputs, by name, key or place; and batches of several lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import cosanneal as ca
from cosanneal.adapters.keras import SnapshotEnsemble, SnapshotRecorder
from cosanneal.adapters.keras.model import KerasModel
from cosanneal.ensemble.predict.outputs import Reading
from cosanneal.snapshots.capture import Standing
from tests.shared.modes import MODES
from tests.shared.several import (
    MEMBERS,
    Build,
    check_fitted_by_one,
    check_pairs,
    check_ragged,
    check_ragged_judged,
    check_several,
    close,
    inputs,
    kernels,
    means,
)

EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)


def recorded(folder: Path, model: Any) -> None:
    """The members of the tests of several outputs, in a model whose weights are theirs."""
    model.compile("sgd")
    recorder = SnapshotRecorder(folder, EVERY_STEP)
    recorder.set_model(model)
    for seed in range(MEMBERS):
        kernel, bias = kernels(seed)
        if len(model.weights) == 2:
            model.set_weights([kernel, bias])
        else:
            model.set_weights([kernel[:, :3], bias[:3], kernel[:, 3:], bias[3:]])
        recorder.recorder.advance(Standing(seed + 1, seed + 1))
    recorder.close()


class Several(keras.Model):
    """A model of a user's own that returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(5)
        self.build((None, None, 4))

    def build(self, shape: Any) -> None:
        self.dense.build(shape)
        self.built = True

    def call(self, x: Any) -> Any:
        z = self.dense(x)
        box = z[..., 3:]
        return {"class": z[..., :3], "box": box, "aux": z[:, :1], "pair": (box, box * box + 1)}


def functional() -> Any:
    x = keras.Input((None, 4))
    z = layers.Dense(5)(x)
    box = z[..., 3:]
    return keras.Model(
        x, {"class": z[..., :3], "box": box, "aux": z[:, :1], "pair": (box, box * box + 1)}
    )


def named(form: Any = list) -> Any:
    x = keras.Input((None, 4))
    return keras.Model(x, form([layers.Dense(3, name="kind")(x), layers.Dense(2, name="box")(x)]))


@pytest.fixture(params=[functional, Several], ids=lambda each: each.__name__)
def build(request: Any, tmp_path: Path) -> Build:
    model = request.param()
    recorded(tmp_path, model)
    return lambda **options: SnapshotEnsemble(model, tmp_path, **options)


@pytest.mark.parametrize("mode", MODES)
def test_several_outputs(build: Build, mode: Any) -> None:
    check_several(build, mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_mean_and_its_variance_are_one_output(build: Build, mode: Any, tmp_path: Path) -> None:
    check_pairs(build, mode, tmp_path)


def test_a_choice_by_one_of_several(build: Build, tmp_path: Path) -> None:
    check_fitted_by_one(build, tmp_path)


@pytest.mark.parametrize("mode", MODES)
def test_batches_of_several_lengths(build: Build, mode: Any) -> None:
    check_ragged(build, mode)


def test_a_choice_by_batches_of_several_lengths(build: Build, tmp_path: Path) -> None:
    check_ragged_judged(build, tmp_path)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", [list, tuple])
def test_outputs_of_a_list_are_taken_by_their_layers_names(
    tmp_path: Path, form: Any, mode: Any
) -> None:
    model = named(form)
    recorded(tmp_path, model)
    x, _ = inputs(5, 6)
    p, values = means(x)
    for output in ("kind", 0, -2):
        ensemble = SnapshotEnsemble(model, tmp_path, output=output, class_axis=-1)
        close(ensemble.predict(x, mode=mode), p)
    every = ({"kind": "logits", "box": "values"}, ["logits", "values"])
    for outputs in every:
        ensemble = SnapshotEnsemble(model, tmp_path, outputs=outputs, class_axis=-1)
        found: Any = ensemble.predict(x, mode=mode)
        assert type(found) is type(outputs)
        for each, expected in zip(
            found.values() if isinstance(found, dict) else found, (p, values), strict=True
        ):
            close(each, expected)
    message = r"must return one array.*with 'kind' and 'box'; give output= one of these"
    with pytest.raises(ca.EnsembleError, match=message):
        SnapshotEnsemble(model, tmp_path).predict(x, mode=mode)


def test_one_output_alone_needs_no_name(tmp_path: Path) -> None:
    x = keras.Input((None, 4))
    z = layers.Dense(5)(x)
    model = keras.Model(x, [z])
    recorded(tmp_path, model)
    given, _ = inputs(5, 6)
    expected = np.mean([given @ kernels(m)[0] + kernels(m)[1] for m in range(MEMBERS)], axis=0)
    for mode in MODES:
        ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
        close(ensemble.predict(given, mode=mode), expected)


def test_what_each_of_several_says() -> None:
    x = keras.Input((4,))
    kind = layers.Dense(3, activation="softmax", name="kind")(x)
    box = layers.Dense(2, name="box")(x)
    for outputs, keys in (
        ([kind, box], ("kind", "box")),
        ([kind, box], (0, 1)),
        ((kind, box), ("kind", "box")),
        ({"a": kind, "b": box}, ("a", "b")),
    ):
        model = KerasModel(keras.Model(x, outputs))
        assert [model.says_outputs(key) for key in keys] == [Reading("probabilities", -1), None]
        assert model.says_outputs() is None
        assert model.says_outputs("none") is None
        assert model.says_outputs(7) is None
        names = ["kind", "box"]
        assert model.output_names() == ([] if isinstance(outputs, dict) else names)
        losses: Any = ["sparse_categorical_crossentropy", "mse"]
        if isinstance(outputs, dict):
            losses = dict(zip(outputs, losses, strict=True))
        for loss in (
            losses,
            dict(zip(names, losses, strict=True)) if "a" not in losses else losses,
        ):
            model.model.compile("sgd", loss)
            assert model.says_outputs(keys[1]) == Reading("values", None)
            assert model.says_outputs(keys[0]) == Reading("probabilities", -1)


def test_what_a_model_says_of_its_outputs_is_gone_by(tmp_path: Path) -> None:
    x = keras.Input((None, 4))
    kind = layers.Softmax(name="kind")(layers.Dense(3)(x))
    model = keras.Model(x, [kind, layers.Dense(2, name="box")(x)])
    recorded(tmp_path, model)
    model.compile("sgd", {"kind": "sparse_categorical_crossentropy", "box": "mse"})
    given, _ = inputs(5, 6)
    p, values = means(given)
    ensemble = SnapshotEnsemble(model, tmp_path, outputs={"kind": "auto", "box": "auto"})
    found: Any = ensemble.predict(given)
    close(found["kind"], p)
    close(found["box"], values)
