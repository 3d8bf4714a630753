"""Looking at what a Keras model's layers are called with, and whether they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import keras

# What takes a layer's place: made of the layer's own `call`.
Looking: TypeAlias = Callable[[Any, Callable[..., Any]], Callable[..., Any]]


@contextmanager
def calls_replaced(layers: Iterable[Any], looking: Looking) -> Iterator[None]:
    """Have layers call something else in the place of their `call`.

    Args:
        layers: of one model, or the model too.
        looking: makes it, of a layer and its own `call`.
    """
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(_put_call, layer, vars(layer).get("call"))
            # What the model calls, and no attribute that Keras would track.
            vars(layer)["call"] = looking(layer, layer.call)
        yield


@contextmanager
def noting_calls(model: keras.Model) -> Iterator[list[str]]:
    """The names of the model's layers, and its own, that are called meanwhile."""
    called: list[str] = []

    def looking(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        def look(*args: Any, **kwargs: Any) -> Any:
            called.append(layer.name)
            return call(*args, **kwargs)

        return look

    with calls_replaced(model._flatten_layers(), looking):
        yield called


def _put_call(layer: Any, call: Any) -> None:
    """Give a layer back the call of its own that a user set, or none."""
    if call is None:
        vars(layer).pop("call", None)
    else:
        vars(layer)["call"] = call
