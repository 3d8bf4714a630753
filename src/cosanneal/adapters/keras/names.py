"""The weights of a Keras model, by names that a model built anew has too."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


def named_weights(model: keras.Model) -> dict[str, Any]:
    """The model's weights, without metrics and random states, by names that a rebuilt model has.

    A name is the way through the layers, as in `dense/kernel`. Keras numbers
    the layers that the user did not name through the whole process, so that a
    model built twice has other names; so their numbers are counted anew, among
    the layers of the layer that holds them.
    """
    return dict(_walk(model, "", set()))


def _walk(layer: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """A layer's weights in Keras' order: its own, then those of the layers in it."""
    inner = layer._flatten_layers(include_self=False, recursive=False)
    of_inner = {id(weight) for each in inner for weight in each.weights}
    taken: set[str] = set()
    for weight in layer.weights:
        if id(weight) not in of_inner and id(weight) not in seen:
            seen.add(id(weight))
            yield prefix + free_name(_plain(weight.name, "Variable"), taken), weight
    for each in inner:
        if each.weights:
            name = free_name(_plain(each.name, type(each).__name__), taken)
            yield from _walk(each, f"{prefix}{name}/", seen)


def _plain(name: str, kind: str) -> str:
    """A name without its number, if it is one that Keras makes of the class."""
    plain = re.sub(r"_\d+$", "", name)
    made = plain.replace("_", "") == kind.replace("_", "").lower()
    return plain if made else name


def free_name(name: str, taken: set[str]) -> str:
    """The name, or the first that is free of those with a number added."""
    free, number = name, 0
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


def array_of(variable: Any) -> NDArray[Any]:
    """A copy of a variable or a tensor, which a later update leaves as it is."""
    with warnings.catch_warnings():
        # Keras asks for the array in a way that numpy has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.array(ops.convert_to_numpy(variable), order="C")


def input_names(model: keras.Model) -> set[str]:
    """By which names a model's inputs may be given, where it says so."""
    names = {each.name for each in getattr(model, "inputs", None) or ()}
    given = getattr(model, "input", None)
    return names | set(given if isinstance(given, dict) else ())
