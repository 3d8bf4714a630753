"""What a Keras model says of its outputs, and that an ensemble goes by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, losses

import cosanneal as ca
from cosanneal.adapters.keras import SnapshotEnsemble
from cosanneal.adapters.keras.outputs import said_outputs
from cosanneal.ensemble import error_rate, log_loss
from cosanneal.ensemble.predict.outputs import Reading
from tests.shared.keras_runs import record_once

CLASSES, OUTCOMES = Reading("probabilities", -1), Reading("probabilities", None)
LOGITS, LOGIT, VALUES = Reading("logits", -1), Reading("logits", None), Reading("values", None)


def ending(*last: Any, loss: Any = None, shape: tuple[int, ...] = (4,)) -> Any:
    model = keras.Sequential([keras.Input(shape), *last])
    if loss is not None:
        model.compile("sgd", loss)
    return model


def functional(make: Callable[[Any], Any], loss: Any = None, *, more: bool = False) -> Any:
    inputs = keras.Input((4,))
    hidden = layers.Dense(3)(inputs)
    outputs = make(hidden)
    model = keras.Model(inputs, [outputs, hidden] if more else outputs)
    if loss is not None:
        model.compile("sgd", loss)
    return model


@keras.saving.register_keras_serializable("tests")
class Own(layers.Layer):
    def call(self, x: Any) -> Any:
        return keras.ops.softmax(x)


class Subclassed(keras.Model):
    def __init__(self, last: Any, loss: Any = None) -> None:
        super().__init__()
        self.last = last
        self.build((None, 4))
        if loss is not None:
            self.compile("sgd", loss)

    def build(self, shape: Any) -> None:
        self.last.build(shape)
        self.built = True

    def call(self, x: Any) -> Any:
        return self.last(x)


class Other(keras.Sequential):
    def call(self, *args: Any, **kwargs: Any) -> Any:
        return 2 * super().call(*args, **kwargs)


def dense(activation: Any = None, units: int = 3) -> Any:
    return layers.Dense(units, activation=activation)


SPARSE = losses.SparseCategoricalCrossentropy
SAID: dict[str, tuple[Callable[[], Any], Reading | None]] = {
    # By the last activation.
    "softmax": (lambda: ending(dense("softmax")), CLASSES),
    "sigmoid": (lambda: ending(dense("sigmoid")), OUTCOMES),
    "log_softmax": (lambda: ending(dense("log_softmax")), LOGITS),
    "softmax, mse": (lambda: ending(dense("softmax"), loss="mse"), CLASSES),
    "Softmax": (lambda: ending(dense(), layers.Softmax()), CLASSES),
    "Softmax(axis)": (
        lambda: ending(layers.Conv2D(3, 1), layers.Softmax(axis=1), shape=(8, 8, 2)),
        Reading("probabilities", 1),
    ),
    "Activation": (lambda: ending(dense(), layers.Activation("softmax", dtype="float32")), CLASSES),
    "convolution": (
        lambda: ending(layers.Conv2D(3, 1, activation="softmax"), shape=(8, 8, 2)),
        CLASSES,
    ),
    "TimeDistributed": (
        lambda: ending(layers.TimeDistributed(dense("softmax")), shape=(5, 4)),
        CLASSES,
    ),
    "functional": (lambda: functional(dense("sigmoid")), OUTCOMES),
    "ops": (lambda: functional(keras.ops.softmax), CLASSES),
    "activations": (lambda: functional(keras.activations.sigmoid), OUTCOMES),
    "nested": (lambda: ending(dense(units=4), functional(layers.Softmax())), CLASSES),
    "nested in functional": (lambda: functional(ending(dense("softmax"), shape=(3,))), CLASSES),
    # By the loss.
    "sparse": (lambda: ending(dense(), loss=SPARSE(from_logits=True)), LOGITS),
    "categorical": (
        lambda: ending(
            layers.Conv2D(3, 1),
            loss=losses.CategoricalCrossentropy(from_logits=True, axis=1),
            shape=(8, 8, 2),
        ),
        Reading("logits", 1),
    ),
    "binary": (lambda: ending(dense(), loss=losses.BinaryCrossentropy(from_logits=True)), LOGIT),
    "focal": (
        lambda: ending(dense(), loss=losses.BinaryFocalCrossentropy(from_logits=True)),
        LOGIT,
    ),
    "one of a dict": (lambda: ending(layers.Dense(1, name="y"), loss={"y": "mse"}), VALUES),
    "one of a list": (lambda: ending(dense(units=1), loss=["mse"]), VALUES),
    "layer of one's own": (
        lambda: ending(dense(), Own(), loss="sparse_categorical_crossentropy"),
        CLASSES,
    ),
    "subclassed": (lambda: Subclassed(dense("softmax"), "binary_crossentropy"), OUTCOMES),
    "subclassed, logits": (lambda: Subclassed(dense(), SPARSE(from_logits=True)), LOGITS),
    # Nothing certain.
    "linear": (lambda: ending(dense()), None),
    "contradiction": (lambda: ending(dense(), loss="sparse_categorical_crossentropy"), None),
    "contradiction, binary": (lambda: ending(dense(), loss="binary_crossentropy"), None),
    "function": (lambda: ending(dense(), loss=lambda y, p: keras.ops.mean(p - y)), None),
    "two outputs": (lambda: functional(keras.ops.softmax, more=True), None),
    "gates": (lambda: ending(layers.LSTM(3, activation="sigmoid"), shape=(5, 4)), None),
    "call": (lambda: Other([keras.Input((4,)), dense("softmax")]), None),
    "subclassed, nothing": (lambda: Subclassed(dense("softmax")), None),
}


@pytest.mark.parametrize(
    "loss",
    ["mse", "mae", "huber", losses.LogCosh(), losses.mean_squared_error, "cosine_similarity"],
)
def test_a_loss_of_regressions_says_values(loss: Any) -> None:
    assert said_outputs(ending(dense(units=1), loss=loss)) == VALUES


@pytest.mark.parametrize("name", SAID)
def test_what_a_model_says(name: str) -> None:
    make, expected = SAID[name]
    assert said_outputs(make()) == expected


def teach(model: Any, logits: Any) -> Any:
    """Give a model of one dense layer weights that make a sample's index these logits."""
    model.layers[0].set_weights([logits, np.zeros(logits.shape[1])])
    return model


RANDOM = np.random.default_rng(0)
INDEX = np.eye(300, dtype=np.float32)


def test_a_model_that_ends_in_softmax_scores_as_its_own_probabilities(tmp_path: Path) -> None:
    logits = 3 * RANDOM.normal(size=(300, 10))
    model = teach(ending(dense("softmax", 10), shape=(300,)), logits)
    own = model.predict(INDEX, verbose=0)
    y = np.array([RANDOM.choice(10, p=p / p.sum()) for p in own.astype(float)])
    record_once(tmp_path, model)
    ensemble = SnapshotEnsemble(model, tmp_path)
    np.testing.assert_allclose(ensemble.predict(INDEX), own, atol=1e-7)
    np.testing.assert_allclose(next(ensemble.member_predictions(INDEX)), own, atol=1e-7)
    assert log_loss(ensemble.predict(INDEX), y) == pytest.approx(log_loss(own, y), rel=1e-6)
    with pytest.warns(UserWarning, match="validation samples"):
        assert ensemble.fit(INDEX, y, temperature=False).class_axis == -1
    ensemble.save()
    again = SnapshotEnsemble(model, tmp_path)
    again.load()
    np.testing.assert_allclose(again.predict(INDEX), own, atol=1e-6)
    # Whoever says that they are logits is told that they are none.
    told = SnapshotEnsemble(model, tmp_path, outputs="logits", class_axis=-1)
    with pytest.warns(UserWarning, match="sum to 1 along axis -1 already"):
        wrong = told.predict(INDEX)
    assert wrong.max() < 0.5 < own.max()


def test_a_model_that_ends_in_a_sigmoid_has_the_errors_of_its_own(tmp_path: Path) -> None:
    y = RANDOM.integers(2, size=300)
    logits = (2.0 * y - 1)[:, None] * 4
    logits[:3] *= -1  # one in a hundred is wrong
    model = teach(ending(dense("sigmoid", 1), shape=(300,)), logits)
    record_once(tmp_path, model)
    for mode in ("stream", "resident", "stacked"):
        p = SnapshotEnsemble(model, tmp_path).predict(INDEX, mode=mode)
        assert error_rate(p[:, 0], y, class_axis=None) == pytest.approx(0.01)
        np.testing.assert_allclose(p, model.predict(INDEX, verbose=0), atol=1e-7)


def test_what_stays_open_is_refused_with_its_readings(tmp_path: Path) -> None:
    model = teach(ending(dense(units=1), shape=(300,)), RANDOM.normal(size=(300, 1)))
    record_once(tmp_path, model)
    message = r'outputs="logits", class_axis=None.*, or outputs="values"'
    ensemble = SnapshotEnsemble(model, tmp_path)
    for mode in ("stream", "resident", "stacked", "auto"):
        with pytest.raises(ca.EnsembleError, match=message):
            ensemble.predict(INDEX, mode=mode)
    own = model.predict(INDEX, verbose=0)
    model.compile("sgd", "mse")
    np.testing.assert_array_equal(SnapshotEnsemble(model, tmp_path).predict(INDEX), own)
    model.compile("sgd", losses.BinaryCrossentropy(from_logits=True))
    found = SnapshotEnsemble(model, tmp_path).predict(INDEX)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-own)), rtol=1e-5)


def test_a_regression_has_a_variance_and_classes_have_none(tmp_path: Path) -> None:
    model = teach(ending(dense(units=2), shape=(300,)), RANDOM.normal(size=(300, 2)))
    record_once(tmp_path, model)
    ensemble = SnapshotEnsemble(model, tmp_path)
    mean, variance = ensemble.predict_with_variance(INDEX)
    np.testing.assert_array_equal(mean, model.predict(INDEX, verbose=0))
    assert (variance == 0).all()
    np.testing.assert_array_equal(ensemble.predict(INDEX), mean)  # it knows from now on
    model.compile("sgd", SPARSE(from_logits=True))
    with pytest.raises(ca.EnsembleError, match=r"variance.*'logits', since the model says so"):
        SnapshotEnsemble(model, tmp_path).predict_with_variance(INDEX)
