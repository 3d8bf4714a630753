"""A part of a Keras model: its adapters, or what trains; on every backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import cosanneal as ca
from cosanneal.adapters.keras import SnapshotEnsemble, SnapshotRecorder
from tests.shared.keras_runs import SCHEDULE, data, fit, small_net
from tests.shared.modes import MODES


def frozen(**compiled: Any) -> Any:
    """The small net, of which the last layer trains, and statistics move where `moving`."""
    model = small_net(**compiled)
    for layer in model.layers[:2]:
        layer.trainable = False
    model.compile(model.optimizer, model.loss)
    return model


def adapted() -> Any:
    """Frozen kernels with adapters of low rank, and a normalization that trains."""
    model = small_net()
    for layer in model.layers:
        if isinstance(layer, layers.Dense):
            layer.enable_lora(1)
    model.compile(model.optimizer, model.loss)
    return model


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (frozen, {"dense_1/kernel", "dense_1/bias"}),
        (
            adapted,
            {
                *(
                    f"dense{i}/{name}"
                    for i in ("", "_1")
                    for name in ("bias", "lora_kernel_a", "lora_kernel_b")
                ),
                *(f"batch_normalization/{name}" for name in ("gamma", "beta")),
                *(f"batch_normalization/moving_{name}" for name in ("mean", "variance")),
            },
        ),
    ],
)
def test_what_trains_is_recorded_and_predicts_as_the_whole(
    tmp_path: Path, build: Any, expected: set[str]
) -> None:
    for name in ("trainable", "all"):
        fit(build(), SnapshotRecorder(tmp_path / name, SCHEDULE, which=name))
    model = build()
    before = model.get_weights()
    ensemble, whole = (SnapshotEnsemble(model, tmp_path / name) for name in ("trainable", "all"))
    assert set(ensemble.members[0].load()) == expected
    x, y = data()
    for mode in MODES:
        np.testing.assert_allclose(
            ensemble.predict(x, mode=mode), whole.predict(x, mode=mode), rtol=1e-5, atol=1e-6
        )
    found, other = (
        each.average_weights(x, y, train_data=x, barrier=100) for each in (ensemble, whole)
    )
    for ours, theirs in zip(found.weights, other.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


def test_the_rest_comes_from_a_model_that_is_lent_too(tmp_path: Path) -> None:
    class Head(layers.Dense):
        """No layer of Keras' own, so that the model cannot be copied from its config."""

    def build() -> Any:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), layers.Dense(8), Head(3)])
        model.layers[0].trainable = False
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss)
        return model

    for which in ("trainable", "all"):
        recorder = SnapshotRecorder(tmp_path / which, SCHEDULE, set_lr=True, which=which)
        fit(build(), recorder)
    x, _ = data()
    ensemble, whole = (SnapshotEnsemble(build(), tmp_path / each) for each in ("trainable", "all"))
    for mode in MODES:
        np.testing.assert_allclose(
            ensemble.predict(x, mode=mode), whole.predict(x, mode=mode), rtol=1e-5, atol=1e-6
        )


def test_what_is_left_out_and_moves_or_is_another_is_refused(tmp_path: Path) -> None:
    recorder = SnapshotRecorder(
        tmp_path / "moves", SCHEDULE, which=lambda name: name.startswith("dense_1/")
    )
    with pytest.raises(
        ca.SnapshotError, match=r"tensor 'batch_normalization/beta', which is another than at"
    ):
        fit(small_net(), recorder)
    recorder.close()
    fit(frozen(), SnapshotRecorder(tmp_path / "parts", SCHEDULE, which="trainable"))
    x, _ = data()
    with pytest.raises(ca.EnsembleError, match=r"another tensor 'dense/kernel'"):
        SnapshotEnsemble(frozen(seed=1), tmp_path / "parts").predict(x)
    message = r"`which` must choose at least one.*a function, which chooses none of 8"
    with pytest.raises(ca.SnapshotError, match=message):
        fit(small_net(), SnapshotRecorder(tmp_path / "n", SCHEDULE, which=lambda _: False))
