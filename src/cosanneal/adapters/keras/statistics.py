"""The running statistics of Keras' BatchNormalization, estimated anew from data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from ...core.errors import EnsembleError
from ...ensemble.arrays import as_floats, narrow
from ...ensemble.model import Batch
from ...ensemble.weights.moments import Moments
from .calls import calls_replaced
from .names import array_of, free_name, named_weights


def moving_layers(model: keras.Model) -> list[str]:
    """The layers with running statistics of batches, which a mean of weights needs anew.

    One that is frozen while others are trained has statistics that its
    training holds constant, as Keras has it, and is left out.
    """
    trained = bool(model.trainable_variables)
    return [
        name for name, layer in _normalizations(model).items() if layer.trainable or not trained
    ]


def estimate(
    model: keras.Model,
    weights: Mapping[str, Any],
    layers: Sequence[str],
    batches: Iterable[Batch],
    run: Callable[[Batch], object],
) -> dict[str, Any]:
    """Weights with the running statistics of the data, as if all had come in one batch.

    Args:
        model: a model that has the weights; its statistics are other ones afterwards.
        weights: by name.
        layers: as `moving_layers` calls them.
        batches: of the training data.
        run: runs the model on a batch, eagerly.
    """
    known = _normalizations(model)
    found = {known[name]: Moments() for name in layers}
    blind: list[str] = []
    try:
        with calls_replaced(found, lambda layer, call: _looking(layer, call, found[layer], blind)):
            for batch in batches:
                run(batch)
    except Exception as error:
        if not blind:
            raise
        # Here, since Keras and TensorFlow make others of what is raised within a layer.
        raise EnsembleError(
            "The layers with running statistics must be run eagerly, and not within a graph or "
            f"a vectorized map. Received: {blind[0]!r}, whose input has no numbers yet"
        ) from error
    names = {id(variable): name for name, variable in named_weights(model).items()}
    estimated = dict(weights)
    for layer, moments in found.items():
        if np.all(moments.count):  # it was reached
            for variable, value in (
                (layer.moving_mean, moments.mean),
                (layer.moving_variance, moments.variance()),
            ):
                name = names[id(variable)]
                estimated[name] = narrow(value, weights[name])
    return estimated


def _normalizations(model: keras.Model) -> dict[str, Any]:
    """The layers of BatchNormalization, by names that a copy has too."""
    taken: set[str] = set()
    return {
        free_name(layer.name, taken): layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.built
    }


def _looking(
    layer: Any, call: Callable[..., Any], moments: Moments, blind: list[str]
) -> Callable[..., Any]:
    """A layer's `call` that takes in its input's moments, and normalizes by them.

    Its name is left in `blind` where the input has no numbers yet.
    """

    def look(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        mask = kwargs.get("mask")
        blind.append(layer.name)
        x = as_floats(array_of(inputs))
        mask = None if mask is None else array_of(mask)
        blind.pop()
        rows = np.moveaxis(x, layer.axis, -1).reshape(-1, x.shape[layer.axis])
        batch = Moments()
        if not len(rows):
            return call(inputs, *args, **kwargs)
        if mask is None:
            batch.update(float(len(rows)), rows.mean(axis=0), rows.var(axis=0))
        else:
            # As Keras has it: a mask of all axes but the last.
            kept = np.broadcast_to(mask[..., None], x.shape)
            kept = np.moveaxis(kept, layer.axis, -1).reshape(rows.shape).astype(bool)
            if not kept.any(axis=0).all():
                return call(inputs, *args, **kwargs)
            batch.update(
                kept.sum(axis=0).astype(np.float64),
                rows.mean(axis=0, where=kept),
                rows.var(axis=0, where=kept),
            )
        moments.update(batch.count, batch.mean, batch.variance())
        layer.moving_mean.assign(batch.mean)
        layer.moving_variance.assign(batch.variance())
        return call(inputs, *args, **kwargs)

    return look
