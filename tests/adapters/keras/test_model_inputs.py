"""What goes into a Keras model: dicts, lists, arrays of other kinds; or a whole batch."""

from __future__ import annotations

import math
import sys
from collections import UserDict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import cosanneal as ca
from cosanneal.adapters.keras import SnapshotEnsemble
from cosanneal.adapters.keras.names import array_of, named_weights
from tests.shared.compiling import BACKEND
from tests.shared.modes import MODES
from tests.shared.recording import EVERY_STEP, ArrayRecorder

pytestmark = pytest.mark.filterwarnings("ignore:The ensemble was chosen on:UserWarning")


def two_inputs(names: tuple[str, str] = ("a", "b"), **options: Any) -> Any:
    """A model of two inputs, with BatchNormalization on the first."""
    keras.utils.set_random_seed(0)
    a, b = keras.Input((2,), name=names[0]), keras.Input((5,), name=names[1])
    x = layers.Concatenate()([layers.BatchNormalization(name="norm")(a), b])
    x = layers.Dense(3, name="head")(layers.Dropout(0.5)(x))
    given = {names[0]: a, names[1]: b} if options.get("by_name") else [a, b]
    heads = {"classes": x, "more": layers.Dense(2, name="more")(x)} if options.get("heads") else x
    return keras.Model(given, heads)


def recorded(folder: Path, model: Any, members: int = 3) -> list[list[Any]]:
    """Snapshots of weights near each other, which are returned."""
    random = np.random.default_rng(0)
    found, own = [], model.get_weights()
    with ArrayRecorder(folder, EVERY_STEP) as recorder:
        for _ in range(members):
            found.append([w + 0.3 * random.random(w.shape).astype(w.dtype) for w in own])
            model.set_weights(found[-1])
            recorder.step({name: array_of(w) for name, w in named_weights(model).items()})
    return found


def data(samples: int = 40) -> tuple[Any, Any, Any]:
    random = np.random.default_rng(1)
    a = random.normal(size=(samples, 2)).astype(np.float32)
    b = random.normal(size=(samples, 5)).astype(np.float32)
    return a, b, np.arange(samples) % 3


def softmax(logits: Any) -> Any:
    powers = np.exp(np.asarray(logits, np.float64))
    return powers / powers.sum(-1, keepdims=True)


def by_hand(model: Any, weights: list[list[Any]], x: Any, pick: Any = lambda out: out) -> Any:
    """A plain loop: the mean of the softmaxes."""
    own, rows = model.get_weights(), []
    for each in weights:
        model.set_weights(each)
        rows.append(softmax(pick(model.predict(x, verbose=0))))
    model.set_weights(own)
    return np.mean(rows, axis=0)


class Loaded(keras.utils.PyDataset):
    """Batches of some columns, which a function makes of them."""

    def __init__(self, make: Any, *columns: Any) -> None:
        super().__init__()
        self.make, self.columns = make, columns

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> Any:
        return self.make(*(each[16 * i : 16 * i + 16] for each in self.columns))


@pytest.mark.parametrize("by_name", [True, False])
def test_two_inputs_by_dicts_and_lists(tmp_path: Path, by_name: bool) -> None:
    model = two_inputs(by_name=by_name)
    weights = recorded(tmp_path, model)
    ensemble = SnapshotEnsemble(model, tmp_path)
    a, b, y = data()
    expected = by_hand(model, weights, {"a": a, "b": b} if by_name else [a, b])
    given: list[Any] = [
        {"a": a, "b": b},
        {"b": b, "label": y, "a": a},
        UserDict(a=a, b=b, y=y),
        {"a": a.tolist(), "b": b.astype(np.float64)},
        Loaded(lambda a, b, y: {"a": a, "b": b, "labels": y}, a, b, y),
        Loaded(lambda a, b, y: ({"a": a, "b": b}, y), a, b, y),
    ]
    if not by_name:
        given += [[a, b], (a, b), [a.tolist(), b], Loaded(lambda a, b, y: ([a, b], y), a, b, y)]
    for x in given:
        for mode in ("stream", "resident"):
            found = ensemble.predict(x, mode=mode)
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
    for x in ({"a": a, "b": b}, (a, b))[: 2 - by_name]:
        for mode in MODES:
            found = ensemble.predict(x, mode=mode, batch_size=7)
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


def test_labels_in_dicts_are_those_of_fit_and_of_averaged_weights(tmp_path: Path) -> None:
    model = two_inputs()
    recorded(tmp_path, model)
    ensemble = SnapshotEnsemble(model, tmp_path)
    a, b, y = data()
    given = ensemble.fit([a, b], y)
    mean = ensemble.average_weights([a, b], y, train_data=[a, b], barrier=math.inf)
    for x in ({"a": a, "b": b, "y": y}, Loaded(lambda a, b, y: {"a": a, "b": b, "y": y}, a, b, y)):
        assert ensemble.fit(x).weights == pytest.approx(given.weights)
        found = ensemble.average_weights(x, train_data={"a": a, "b": b, "y": y}, barrier=math.inf)
        assert found.scores == pytest.approx(mean.scores, rel=1e-4)
        for ours, theirs in zip(found.weights, mean.weights, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_an_input_may_have_the_name_of_labels(tmp_path: Path) -> None:
    model = two_inputs(("a", "y"))
    weights = recorded(tmp_path, model)
    ensemble = SnapshotEnsemble(model, tmp_path)
    a, b, y = data()
    found = ensemble.predict({"a": a, "y": b, "label": y})
    np.testing.assert_allclose(found, by_hand(model, weights, [a, b]), rtol=2e-5, atol=1e-6)
    assert len(ensemble.fit({"a": a, "y": b, "label": y}).weights) == 3


@pytest.mark.parametrize("mode", MODES)
def test_forward_gets_the_model_and_the_batch_whole(tmp_path: Path, mode: Any) -> None:
    model = two_inputs(heads=True)
    weights = recorded(tmp_path, model)
    a, b, y = data()
    expected = by_hand(model, weights, [a, b], lambda out: out["classes"])

    def forward(model: Any, batch: Any) -> Any:
        assert {*batch} == {"a", "b", "labels"}
        batch.pop("labels")  # of a dict of its own
        return model([batch["a"], batch["b"]])["classes"]

    ensemble = SnapshotEnsemble(model, tmp_path, forward=forward)
    with pytest.raises(ca.EnsembleError, match=r"Received: a dict with 'classes' and 'more'; give"):
        SnapshotEnsemble(model, tmp_path).predict([a, b])
    own = model.get_weights()
    columns = {"a": a, "b": b, "labels": y}
    for x in (columns, Loaded(lambda a, b, y: {"a": a, "b": b, "labels": y}, a, b, y)):
        found = ensemble.predict(x, mode=mode)
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
    found = ensemble.predict(columns, mode=mode, batch_size=9)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
    for before, after in zip(own, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_forward_may_be_compiled_by_keras(tmp_path: Path) -> None:
    model = two_inputs(heads=True)
    weights = recorded(tmp_path, model)
    a, b, y = data()
    ensemble = SnapshotEnsemble(
        model, tmp_path, forward=lambda model, batch: model.predict_on_batch([*batch[0]])["classes"]
    )
    loader = Loaded(lambda a, b, y: ((a, b), y, "some text"), a, b, y)
    expected = by_hand(model, weights, [a, b], lambda out: out["classes"])
    np.testing.assert_allclose(ensemble.predict(loader), expected, rtol=2e-5, atol=1e-6)
    if BACKEND == "torch":  # which Keras compiles nothing of
        found = ensemble.average_weights(loader, train_data=loader, barrier=math.inf)
        assert found.statistics
    else:  # statistics are looked at while a layer is run, which is eagerly
        with pytest.raises(ca.EnsembleError, match=r"must be run eagerly.*'norm'"):
            ensemble.average_weights(loader, train_data=loader, barrier=math.inf)
    np.testing.assert_allclose(ensemble.predict(loader), expected, rtol=2e-5, atol=1e-6)


def test_forward_is_used_by_fit_and_for_statistics(tmp_path: Path) -> None:
    model = two_inputs()
    recorded(tmp_path, model)
    a, b, y = data()
    plain = SnapshotEnsemble(model, tmp_path)
    ensemble = SnapshotEnsemble(
        model, tmp_path, forward=lambda model, batch: model([batch["a"], batch["b"]])
    )
    columns = {"a": a, "b": b, "label": y}
    assert ensemble.fit(columns).weights == pytest.approx(plain.fit([a, b], y).weights)
    found = ensemble.average_weights(columns, train_data=columns, barrier=math.inf)
    mean = plain.average_weights([a, b], y, train_data=[a, b], barrier=math.inf)
    for ours, theirs in zip(found.weights, mean.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_forward_that_runs_another_model_is_refused(tmp_path: Path) -> None:
    model = two_inputs()
    recorded(tmp_path, model)
    a, b, _ = data()
    ensemble = SnapshotEnsemble(model, tmp_path, forward=lambda _, batch: model([*batch]))
    with pytest.raises(ca.EnsembleError, match=r"must run the model that it is given"):
        ensemble.predict((a, b))
    part = SnapshotEnsemble(
        model, tmp_path, forward=lambda m, batch: m.get_layer("norm")(batch[0]), class_axis=-1
    )
    assert part.predict((a, b)).shape == (40, 2)
    with pytest.raises(ca.EnsembleError, match=r"`forward` must be a function.*Received: str"):
        SnapshotEnsemble(model, tmp_path, forward="logits")  # type: ignore[arg-type]


def test_a_model_that_is_lent_is_run_by_forward_too(tmp_path: Path) -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.head = layers.Dense(3)

        def call(self, inputs: Any) -> Any:
            return {"logits": self.head(inputs["ids"]) * inputs["scale"]}

    model = Own()
    a, b, y = data()
    model({"ids": a, "scale": b[:, :1]})
    weights = recorded(tmp_path, model)
    columns = {"ids": a, "scale": b[:, :1], "label": y}
    ensemble = SnapshotEnsemble(model, tmp_path, forward=lambda model, x: model(x)["logits"])
    expected = by_hand(
        model, weights, {"ids": a, "scale": b[:, :1]}, lambda output: output["logits"]
    )
    own = model.get_weights()
    for mode in MODES:
        found = ensemble.predict(columns, mode=mode)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
    np.testing.assert_array_equal(own[0], model.get_weights()[0])


def test_arrays_of_other_frameworks_are_taken(tmp_path: Path) -> None:
    model = two_inputs()
    weights = recorded(tmp_path, model)
    ensemble = SnapshotEnsemble(model, tmp_path)
    a, b, y = data()
    expected = by_hand(model, weights, [a, b])
    makers: list[Any] = [keras.ops.convert_to_tensor]
    for name in ("torch", "tensorflow", "jax"):
        framework = sys.modules.get(name)  # the backend's, and whatever else is loaded
        if framework is not None:
            makers.append(
                {
                    "torch": lambda x: sys.modules["torch"].from_numpy(x.copy()),
                    "tensorflow": lambda x: sys.modules["tensorflow"].constant(x),
                    "jax": lambda x: sys.modules["jax"].numpy.asarray(x),
                }[name]
            )
    for make in makers:
        for x in (
            (make(a), make(b)),
            {"a": make(a), "b": make(b)},
            Loaded(lambda a, b, y, make=make: ((make(a), make(b)), make(y)), a, b, y),
        ):
            np.testing.assert_allclose(ensemble.predict(x), expected, rtol=2e-5, atol=1e-6)
    assert BACKEND in ("tensorflow", "jax", "torch")


@pytest.mark.skipif(BACKEND != "tensorflow", reason="needs TensorFlow")
def test_datasets_of_tensorflow(tmp_path: Path) -> None:
    import tensorflow

    model = two_inputs()
    weights = recorded(tmp_path, model)
    a, b, y = data()
    expected = by_hand(model, weights, [a, b])
    for columns in ({"a": a, "b": b, "label": y}, ({"a": a, "b": b}, y), ((a, b), y)):
        dataset = tensorflow.data.Dataset.from_tensor_slices(columns).batch(16)
        ensemble = SnapshotEnsemble(model, tmp_path)
        np.testing.assert_allclose(ensemble.predict(dataset), expected, rtol=2e-5, atol=1e-6)
        assert len(ensemble.fit(dataset).weights) == 3


def test_large_arrays_are_run_batch_by_batch(tmp_path: Path) -> None:
    model = two_inputs()
    weights = recorded(tmp_path, model)
    seen: list[int] = []

    def forward(model: Any, batch: Any) -> Any:
        seen.append(len(batch[0]))
        return model([*batch])

    a, b, _ = data(600)
    found = SnapshotEnsemble(model, tmp_path, forward=forward).predict((a, b))
    assert seen == [200] * 9
    np.testing.assert_allclose(found, by_hand(model, weights, [a, b]), rtol=2e-5, atol=1e-6)


def test_a_model_that_is_made_for_batches_of_one_size_has_those(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(batch_shape=(8, 4)), layers.Dense(3)])
    weights = recorded(tmp_path, model)
    x = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
    found = SnapshotEnsemble(model, tmp_path).predict(x)
    expected = np.mean([softmax(x @ kernel + bias) for kernel, bias in weights], axis=0)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


def test_what_a_call_does_not_take_is_said(tmp_path: Path) -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.head = layers.Dense(3)

        def call(self, ids: Any, scale: Any) -> Any:
            return self.head(ids) * scale

    model = Own()
    a, b, _ = data()
    model(a, b[:, :1])
    recorded(tmp_path, model, members=1)
    x = {"ids": a, "scale": b[:, :1]}
    with pytest.raises(ca.EnsembleError, match=r"Own\.call must.*takes \(ids, scale\).*\*\*batch"):
        SnapshotEnsemble(model, tmp_path, outputs="logits").predict(x)
    ensemble = SnapshotEnsemble(model, tmp_path, forward=lambda model, batch: model(**batch))
    assert ensemble.predict(x).shape == (40, 3)
