"""Running a Keras ensemble streaming, resident and stacked, on each backend."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import cosanneal as ca
from cosanneal.adapters.keras import SnapshotEnsemble, SnapshotRecorder
from cosanneal.snapshots.capture import Standing
from tests.shared.classes import check_budget, check_classes
from tests.shared.compiling import BACKEND
from tests.shared.modes import (
    MODES,
    check_choice,
    check_labels,
    check_loaders,
    check_memory,
    check_modes,
    check_uncertainty,
)

EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)


def network(*, convolution: bool = BACKEND != "torch") -> Any:
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(5, 3, use_bias=False) if convolution else layers.Dense(5),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dropout(0.5),  # whose random state is no weight
            layers.Dense(3),
        ]
    )
    model.compile(
        keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model


def drawn(model: Any, seed: int) -> None:
    random = np.random.default_rng(seed)
    model.set_weights([abs(random.normal(size=w.shape)) + 0.1 for w in model.get_weights()])


def recorded(folder: Path, model: Any) -> SnapshotEnsemble:
    recorder = SnapshotRecorder(folder, EVERY_STEP)
    recorder.set_model(model)
    for seed in range(4):
        drawn(model, seed)
        recorder.recorder.advance(Standing(seed + 1, seed + 1))
    recorder.close()
    drawn(model, 99)
    return SnapshotEnsemble(model, folder)


@pytest.fixture
def ensemble(tmp_path: Path) -> SnapshotEnsemble:
    return recorded(tmp_path, network())


def data() -> tuple[Any, Any]:
    x = np.random.default_rng(7).normal(size=(40, 6, 6, 2)).astype(np.float32)
    return x, np.arange(40) % 3


def test_every_mode_gives_the_same(ensemble: SnapshotEnsemble) -> None:
    model: Any = ensemble.model
    weights = model.model.get_weights()
    check_modes(ensemble, data()[0], rtol=1e-4)
    for before, after in zip(weights, model.model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_loaders_give_what_arrays_give(ensemble: SnapshotEnsemble) -> None:
    check_loaders(ensemble, *data())


class Sequence(keras.utils.PyDataset):
    """Batches without an end of their own."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> Any:
        x, y = data()
        return x[10 * i : 10 * i + 10], y[10 * i : 10 * i + 10]


def test_the_datasets_of_keras_are_loaders(ensemble: SnapshotEnsemble) -> None:
    expected = ensemble.predict(data()[0])
    for mode in MODES:
        found = ensemble.predict(Sequence(), mode=mode)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    if BACKEND == "tensorflow":
        import tensorflow

        dataset = tensorflow.data.Dataset.from_tensor_slices(data()).batch(16)
        np.testing.assert_allclose(ensemble.predict(dataset), expected, rtol=1e-4, atol=1e-6)


def test_a_choice_is_applied_in_every_mode(ensemble: SnapshotEnsemble) -> None:
    check_choice(ensemble, *data())


def test_its_uncertainty_is_that_of_the_members(ensemble: SnapshotEnsemble) -> None:
    check_uncertainty(ensemble, *data())


def test_classes_are_those_of_predict(ensemble: SnapshotEnsemble) -> None:
    check_classes(ensemble, *data())


def test_classes_keep_a_budget(ensemble: SnapshotEnsemble) -> None:
    check_budget(ensemble, *data(), sizes=BACKEND != "torch")


@pytest.mark.parametrize("fixed", [None, 8])
def test_samples_are_left_out_where_a_model_takes_any_number(
    tmp_path: Path, fixed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = keras.Sequential([keras.Input((3,), batch_size=fixed), layers.Dense(3)])
    recorder = SnapshotRecorder(tmp_path, EVERY_STEP)
    recorder.set_model(model)
    for member, factor in enumerate((8.0, 9.0, 10.0, 11.0, -9.0)):
        model.set_weights([factor * np.eye(3), np.zeros(3)])
        recorder.recorder.advance(Standing(member + 1, member + 1))
    recorder.close()
    ensemble = SnapshotEnsemble(model, tmp_path)
    x = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32) / 9
    x[np.arange(32) % 8 > 1] *= 200
    expected = ensemble.predict(x).argmax(-1)
    sizes: list[int] = []
    inner = keras.Model.predict_on_batch

    def watched(self: Any, batch: Any) -> Any:
        sizes.append(len(batch))
        return inner(self, batch)

    monkeypatch.setattr(keras.Model, "predict_on_batch", watched)
    for _ in range(2):
        found = ensemble.predict_classes(x, mode="resident", batch_size=8)
        np.testing.assert_array_equal(found, expected)
        assert type(found) is np.ndarray
    assert {*sizes} == ({8} if fixed else {8, 2, 1})
    assert (ensemble.passes < 4) == (fixed is None)


def test_a_state_has_every_member_see_every_batch(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((4, 3), batch_size=6), layers.SimpleRNN(5, stateful=True), layers.Dense(3)]
    )
    ensemble = recorded(tmp_path, model)
    x = np.random.default_rng(0).normal(size=(24, 4, 3)).astype(np.float32)
    expected = ensemble.predict(x, batch_size=6).argmax(-1)
    np.testing.assert_array_equal(ensemble.predict_classes(x, batch_size=6), expected)
    assert ensemble.passes == len(ensemble)


def test_labels_count_as_they_are_said_to(ensemble: SnapshotEnsemble) -> None:
    check_labels(ensemble, *data())


def test_auto_streams_where_the_members_do_not_fit(
    ensemble: SnapshotEnsemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_memory(ensemble, data()[0], monkeypatch)


def test_several_arguments(tmp_path: Path) -> None:
    a, b = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([a, b], layers.Dense(3)(layers.Add()([a, b])))
    model.compile("sgd", "mse")
    ensemble = recorded(tmp_path, model)
    x = np.random.default_rng(1).normal(size=(2, 9, 4)).astype(np.float32)
    expected = ensemble.predict((x[0], x[1]))
    for mode in MODES:
        found = ensemble.predict((x[0], x[1]), mode=mode, batch_size=5)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_convolution_is_stacked_or_resident(tmp_path: Path) -> None:
    ensemble = recorded(tmp_path, network(convolution=True))
    x = data()[0]
    expected = ensemble.predict(x)
    if BACKEND == "torch":  # where Keras asks for a layout of memory, which no such map has
        with pytest.raises(ca.EnsembleError, match=r"vectorized map.*give mode='resident'"):
            ensemble.predict(x, mode="stacked")
    else:
        found = ensemble.predict(x, mode="stacked")
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ensemble.predict(x, mode="auto"), expected, rtol=1e-4, atol=1e-6)
    assert (ensemble.measured["stacked"] == np.inf) == (BACKEND == "torch")


def test_threads_take_turns_with_the_model(tmp_path: Path) -> None:
    model = network()
    ensemble = recorded(tmp_path, model)
    own = model.get_weights()
    # Two of them: the model is what must not be lent twice.
    ensembles = [ensemble, SnapshotEnsemble(model, tmp_path)]
    x = np.random.default_rng(3).normal(size=(20, 6, 6, 2)).astype(np.float32)
    expected = ensemble.predict(x)

    def work(i: int) -> float:
        return max(float(abs(ensembles[i].predict(x) - expected).max()) for _ in range(10))

    with ThreadPoolExecutor(2) as pool:
        assert max(pool.map(work, [0, 1])) < 1e-6
    assert all(np.array_equal(*pair) for pair in zip(own, model.get_weights(), strict=True))
