"""The ways in which a backend computes a function, and the size of what it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

BACKEND: str = keras.backend.backend()

Function = Callable[[Any], Any]


def ways(function: Function) -> dict[str, Function]:
    """The function by name of the way: eager, and compiled in each way that the backend has."""
    found = {"eager": function}
    if BACKEND == "tensorflow":
        import tensorflow as tf

        found["graph"] = tf.function(function)
        found["XLA"] = tf.function(function, jit_compile=True)
    elif BACKEND == "jax":
        import jax

        found["jit"] = jax.jit(function)
    return found


def operations(function: Function, x: Any) -> int:
    """The number of a backend's operations that the function takes."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return len(tf.function(function).get_concrete_function(x).graph.get_operations())
    if BACKEND == "jax":
        import jax

        return len(str(jax.make_jaxpr(function)(x)).splitlines())
    from torch.utils._python_dispatch import TorchDispatchMode

    called: list[Any] = []

    class Listing(TorchDispatchMode):
        def __torch_dispatch__(
            self,
            func: Any,
            types: Any,
            args: Any = (),
            kwargs: Any = None,
        ) -> Any:
            called.append(func)
            return func(*args, **(kwargs or {}))

    with Listing():  # type: ignore[no-untyped-call]
        function(x)
    return len(called)
