"""The replicas of a model that TensorFlow's strategies make, one on each device."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from numpy.typing import NDArray

from ...core.errors import EnsembleError
from .names import array_of


def values_of(variable: Any) -> list[NDArray[Any]]:
    """A copy of what each replica has of a variable; of one that is no replica's, its value."""
    return [array_of(each) for each in _parts(variable)]


def put_values(variable: Any, values: Sequence[NDArray[Any]]) -> None:
    """Put back what `values_of` gave."""
    for part, value in zip(_parts(variable), values, strict=True):
        part.assign(value)


def _parts(variable: Any) -> Sequence[Any]:
    """The variables of TensorFlow's, one for each replica, that one of Keras' consists of."""
    if keras.backend.backend() == "tensorflow":
        held = variable.value
        if isinstance(held, sys.modules["tensorflow"].distribute.DistributedValues):
            parts: Sequence[Any] = held.values
            return parts
    return [variable]


def refuse_scope() -> None:
    """Refuse to go on within a strategy's scope, in which each replica would predict all rows.

    Raises:
        EnsembleError: there is one.
    """
    if keras.backend.backend() != "tensorflow":
        return
    distribute = sys.modules["tensorflow"].distribute
    if distribute.has_strategy() and distribute.get_strategy().num_replicas_in_sync > 1:
        raise EnsembleError(
            "An ensemble must be made, and asked, outside of the scope of a tf.distribute "
            "strategy, since it predicts on one device. Received: the scope of "
            f"{type(distribute.get_strategy()).__name__}; leave its `with` block first"
        )


@contextmanager
def on_one_device(model: keras.Model) -> Iterator[None]:
    """Have a model predict on one device, where a strategy made it for several."""
    strategy = getattr(model, "distribute_strategy", None)  # which other backends do not have
    if strategy is None or strategy.num_replicas_in_sync < 2:
        yield
        return
    own = model._distribute_strategy
    model._distribute_strategy = sys.modules["tensorflow"].distribute.get_strategy()
    model.predict_function = None  # which was made for all of them
    try:
        yield
    finally:
        model._distribute_strategy = own
        model.predict_function = None
