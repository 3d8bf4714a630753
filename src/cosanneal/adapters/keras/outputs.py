"""What a Keras model says of its outputs: by its last activation, or by the loss it has.

Only what Keras' own layers and losses say is certain; of anything else, nothing is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import keras

from ...ensemble.predict.outputs import Reading
from .names import free_name

# Layers whose output is that of their activation.
_ACTIVATED: Final = {
    getattr(keras.layers, name)
    for name in (
        *("Activation", "Dense", "EinsumDense"),
        *(f"Conv{n}D{kind}" for n in (1, 2, 3) for kind in ("", "Transpose")),
        *(f"{kind}Conv{n}D" for n in (1, 2) for kind in ("Depthwise", "Separable")),
    )
}
_LINEAR: Final = "linear"
_CLASSES: Final = {
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "sparse_categorical_crossentropy",
}
_OUTCOMES: Final = {"binary_crossentropy", "binary_focal_crossentropy"}
_REGRESSION: Final = {
    *("mean_squared_error", "mean_absolute_error", "mean_absolute_percentage_error"),
    *("mean_squared_logarithmic_error", "huber", "log_cosh", "poisson", "cosine_similarity"),
}


def output_names(model: keras.Model) -> list[str]:
    """The names of several outputs that a functional model returns in a list or a tuple.

    They are those of the layers that made them, as in `compile` and `fit`; with a
    number where one layer made several.
    """
    returned = _returned(model)
    if not isinstance(returned, list | tuple) or len(returned) != len(model.output_names):
        return []
    taken: set[str] = set()
    return [free_name(name, taken) for name in model.output_names]


def said_outputs(model: keras.Model, output: Any = None) -> Reading | None:
    """What a model's output is, or one of several, if it says so for certain.

    Where the last activation is no softmax or sigmoid, the loss it was compiled
    with decides. A loss of probabilities behind a layer that is known to give
    any number contradicts it: then nothing is said.
    """
    loss = getattr(model, "loss", None)
    if output is None:
        last = _last(model)
    else:
        returned, names = _returned(model), output_names(model)
        place: Any = names.index(output) if output in names else output
        try:
            last = _last(returned[place]._keras_history.operation)
        except (AttributeError, IndexError, KeyError, TypeError):  # there is none, or of a part
            return None
        if isinstance(loss, dict | list | tuple):
            key = names[place] if names and isinstance(loss, dict) else place
            try:
                loss = loss[key]
            except (IndexError, KeyError, TypeError):
                loss = None
    if isinstance(last, Reading):
        return last
    found, needs_numbers_in_0_1 = _of_loss(loss)
    return None if last == _LINEAR and needs_numbers_in_0_1 else found


def _returned(model: Any) -> Any:
    """The structure of a functional model's outputs; None of another model."""
    return model.output if _is_kerass(type(model).call) and hasattr(model, "output_names") else None


def _last(model: Any) -> Reading | str | None:
    """What the last activation says: of its output, or that it is linear, or nothing."""
    while isinstance(model, keras.Model):
        if not _is_kerass(type(model).call):  # by which the layers need not be all
            return None
        if isinstance(model, keras.Sequential):
            model = model.layers[-1]
        else:
            outputs: Sequence[Any] = getattr(model, "outputs", None) or ()
            if len(outputs) != 1:
                return None
            model = outputs[0]._keras_history.operation
    if type(model) is keras.layers.TimeDistributed:
        return _last(model.layer)
    if type(model) in _ACTIVATED:
        activation = model.activation
        if activation is keras.activations.softmax:
            return Reading("probabilities", -1)
        if activation is keras.activations.sigmoid:
            return Reading("probabilities", None)
        if activation is keras.activations.log_softmax:
            return Reading("logits", -1)
        return _LINEAR if activation is keras.activations.linear else None
    # A layer of this name, or the operation of a function of `keras.ops`.
    kind, axis = type(model).__name__, getattr(model, "axis", None)
    if not _is_kerass(type(model)):
        return None
    if kind in ("Softmax", "LogSoftmax") and isinstance(axis, int) and axis != 0:
        return Reading("probabilities" if kind == "Softmax" else "logits", axis)
    return Reading("probabilities", None) if kind == "Sigmoid" else None


def _of_loss(loss: Any) -> tuple[Reading | None, bool]:
    """What a loss says of the outputs, and whether it is one of probabilities."""
    if isinstance(loss, dict) and len(loss) == 1:
        (loss,) = loss.values()
    elif isinstance(loss, list | tuple) and len(loss) == 1:
        loss = loss[0]
    try:
        loss = keras.losses.get(loss)
    except (TypeError, ValueError):  # several, or none of Keras'
        return None, False
    config = loss.get_config() if isinstance(loss, keras.losses.Loss) else {}
    function = getattr(loss, "fn", loss)
    if not (_is_kerass(function) and _is_kerass(type(loss) if config else function)):
        return None, False
    name = function.__name__
    if name in _REGRESSION:
        return Reading("values", None), False
    if name not in _CLASSES | _OUTCOMES:
        return None, False
    from_logits = bool(config.get("from_logits", False))
    axis = None if name in _OUTCOMES else config.get("axis", -1)
    return Reading("logits" if from_logits else "probabilities", axis), not from_logits


def _is_kerass(thing: Any) -> bool:
    """Whether a class or a function is of Keras' own code."""
    return str(getattr(thing, "__module__", "")).startswith("keras.")
