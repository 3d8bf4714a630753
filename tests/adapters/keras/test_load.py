"""A snapshot into a Keras model, and weights into files that Keras opens; on every backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import safetensors.numpy
from keras import layers

import cosanneal as ca
from cosanneal.adapters.keras import (
    SnapshotEnsemble,
    SnapshotRecorder,
    export_weights,
    load_snapshot,
)
from tests.adapters.keras.test_capture import frozen
from tests.shared.keras_runs import NAMES, SCHEDULE, data, fit, record_once, small_net, wider


def check_equal(model: Any, weights: list[Any]) -> None:
    for ours, theirs in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_snapshot_is_loaded_in_place(tmp_path: Path) -> None:
    model = small_net(3)
    fit(model, SnapshotRecorder(tmp_path, SCHEDULE))
    last = SnapshotRecorder(tmp_path, SCHEDULE, resume_from=20).store.list()[-1]
    x, _ = data()
    for given in (last, last.path, str(last.path)):
        other = small_net(4)
        fit(other)
        count = int(other.optimizer.iterations)
        other.predict_on_batch(x)  # which is compiled with the weights as they were
        load_snapshot(other, given)
        check_equal(other, model.get_weights())
        assert int(other.optimizer.iterations) == count
        np.testing.assert_allclose(
            other.predict_on_batch(x), model.predict_on_batch(x), rtol=1e-5, atol=1e-6
        )
        fit(other)  # it goes on from there


def test_what_a_layer_makes_of_its_weights_is_made_anew(tmp_path: Path) -> None:
    def build(scale: float) -> Any:
        normalize = layers.Normalization()
        normalize.adapt(np.array([[0.0], [scale]], np.float32))
        return keras.Sequential([keras.Input((1,)), normalize, layers.Dense(1)])

    model, other = build(2.0), build(8.0)
    (snapshot,) = record_once(tmp_path, model).list()
    x = np.ones((3, 1), np.float32)
    other.predict_on_batch(x)
    load_snapshot(other, snapshot)
    np.testing.assert_allclose(other.predict_on_batch(x), model.predict_on_batch(x), rtol=1e-6)


def test_what_does_not_fit_leaves_the_model_as_it_is(tmp_path: Path) -> None:
    (snapshot,) = record_once(tmp_path, small_net()).list()
    model = wider()
    before = model.get_weights()
    with pytest.raises(ca.SnapshotError, match=r"must fit the model: its tensor 'dense/kernel' is"):
        load_snapshot(model, snapshot)
    check_equal(model, before)
    content = bytearray(snapshot.path.read_bytes())
    content[-3] ^= 1
    snapshot.path.write_bytes(content)
    model = small_net(4)
    before = model.get_weights()
    with pytest.raises(ca.SnapshotError, match="is damaged"):
        load_snapshot(model, snapshot)
    check_equal(model, before)
    for no_model in (keras.Sequential([layers.Dense(2)]), None):
        with pytest.raises(ca.SnapshotError, match=r"`model` must be a keras\.Model that is built"):
            load_snapshot(no_model, snapshot)


def test_a_part_is_loaded_and_exported_with_the_rest(tmp_path: Path) -> None:
    model = frozen()
    recorder = SnapshotRecorder(tmp_path / "runs", SCHEDULE, which="trainable")
    fit(model, recorder)
    last = recorder.store.list()[-1]
    fresh = frozen()
    load_snapshot(fresh, last)
    check_equal(fresh, model.get_weights())
    with pytest.raises(ca.SnapshotError, match=r"is a part.*another tensor 'dense/kernel'"):
        load_snapshot(frozen(seed=1), last)
    export_weights(last, tmp_path / "whole.weights.h5", model=frozen())
    fresh = frozen()
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
        fresh.load_weights(tmp_path / "whole.weights.h5")
    check_equal(fresh, model.get_weights())
    export_weights(last, tmp_path / "part.safetensors", format="safetensors")
    assert set(safetensors.numpy.load_file(tmp_path / "part.safetensors")) == {*NAMES[-2:]}


class Own(layers.Dense):
    """No layer of Keras' own, so that the model cannot be copied from its config."""


def built(own: bool) -> Any:
    keras.utils.set_random_seed(4)
    kind = Own if own else layers.Dense
    return keras.Sequential([keras.Input((4,)), layers.BatchNormalization(), kind(3)])


@pytest.mark.parametrize("own", [False, True])
def test_keras_opens_an_export(tmp_path: Path, own: bool) -> None:
    model = built(own)
    model.set_weights([value + 1 for value in model.get_weights()])
    wanted = model.get_weights()
    (snapshot,) = record_once(tmp_path / "runs", model).list()
    x, y = data()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ensemble = SnapshotEnsemble(model, tmp_path / "runs")
    found = ensemble.average_weights(x, y, train_data=x)
    for i, weights in enumerate((snapshot, snapshot.path, found, wanted)):
        other = built(own)
        before = other.get_weights()
        path = tmp_path / f"{i}.weights.h5"
        export_weights(weights, path, model=other)
        check_equal(other, before)
        other.load_weights(path)
        check_equal(other, wanted)
        compiled = built(own)
        compiled.compile("adam", loss)
        with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
            compiled.load_weights(path)
        check_equal(compiled, wanted)
        assert int(compiled.optimizer.iterations) == 0
        if i != 1:
            named = tmp_path / f"{i}.safetensors"
            export_weights(weights, named, format="safetensors", model=other)
            assert set(safetensors.numpy.load_file(named)) == set(snapshot.load())


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    model = small_net()
    weights = model.get_weights()
    wrong: list[tuple[Any, str, dict[str, Any], str]] = [
        (
            weights,
            "a.weights.h5",
            {},
            r"`model` must be a keras.Model that is built. Received: none",
        ),
        (weights, "a.h5", {"model": model}, r"`path` must end with .weights.h5.*Received: .*a.h5"),
        (weights[:-1], "a.weights.h5", {"model": model}, r"model.get_weights\(\) gives"),
        ({"w": weights[0]}, "a.weights.h5", {"model": model}, r"model.get_weights\(\) gives"),
        (weights, "a", {"format": "torch"}, r"'keras' or 'safetensors'.*'torch'; what torch opens"),
        (tmp_path, "a.weights.h5", {"model": model}, r"`snapshot` must be a Snapshot or the file"),
    ]
    for given, name, options, message in wrong:
        with pytest.raises(ca.SnapshotError, match=message):
            export_weights(given, tmp_path / name, **options)
    (tmp_path / "a.weights.h5").write_text("mine")
    with pytest.raises(ca.SnapshotError, match=r"must not be there yet"):
        export_weights(weights, tmp_path / "a.weights.h5", model=model)
    assert (tmp_path / "a.weights.h5").read_text() == "mine"
    export_weights(weights, tmp_path / "a.weights.h5", model=model, overwrite=True)
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
        model.load_weights(tmp_path / "a.weights.h5")
