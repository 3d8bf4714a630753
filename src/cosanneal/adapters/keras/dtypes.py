"""The dtype in which a model's layers hold their weights and compute."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import keras

from ...core.errors import EnsembleError, shown

_HELD: Final = ("bfloat16", "float16", "float32")


def checked_dtype(dtype: Any) -> str:
    """The name of the dtype in which members are held.

    Raises:
        EnsembleError: there is none for it.
    """
    found: str
    try:
        found = keras.backend.standardize_dtype(dtype)
    except (TypeError, ValueError):
        found = ""
    if dtype is None or found not in _HELD:
        raise EnsembleError(
            f"Argument `dtype` must be {', '.join(_HELD[:-1])} or {_HELD[-1]}, or None for the "
            f"model's own. Received: dtype={shown(dtype)}"
        )
    return found


@contextmanager
def built_in(dtype: str | None) -> Iterator[None]:
    """Have layers that name no dtype take this one, in what is built meanwhile."""
    if dtype is None:
        yield
        return
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def rebuilt_in(model: keras.Model, dtype: str) -> keras.Model:
    """A model of the same structure, all layers of which compute in a dtype.

    Its inputs keep their own; the layers take floats of them in theirs.

    Args:
        model: the model, with all that it is in its config.
        dtype: the dtype.
    """
    state = random.getstate()  # from which Keras takes the seeds of the new layers
    try:
        made: keras.Model = type(model).from_config(_with_policy(model.get_config(), dtype))
    finally:
        random.setstate(state)
    return made


def check_held(model: keras.Model, dtype: str) -> None:
    """Refuse a model that holds none of its weights in a dtype.

    Raises:
        EnsembleError: it does not.
    """
    floats = {each.dtype for each in model.weights if "float" in each.dtype}
    if floats and dtype not in floats:
        raise EnsembleError(
            "Argument `model` of the ensemble must be a function that builds layers anew, without "
            f"a dtype of their own, for dtype={dtype!r}. Received: one that gives a model with "
            f"weights in {', '.join(sorted(floats))}, as one that loads a file does; give the "
            "model itself"
        )


def _with_policy(config: Any, dtype: str) -> Any:
    """A config with each policy of floats in it replaced."""
    if isinstance(config, Mapping):
        if config.get("class_name") == "DTypePolicy":
            name = str(config["config"]["name"])
            if "float" in name:
                return {**config, "config": {"name": dtype}}
        return {key: _with_policy(value, dtype) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_with_policy(each, dtype) for each in config)
    return config
