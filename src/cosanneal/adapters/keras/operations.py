"""What the evaluation of a schedule's table needs of Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from ...core.errors import ScheduleError
from ...core.graph.steps import known_steps, unknown_floats


class Operations:
    """What `evaluate` needs of Keras, in the dtypes of the day.

    Where the backends' own operators do, they are used: Keras' functions bring
    64 bits down to 32 on some backends. Constants become tensors in each graph
    anew, for a tensor of one graph is none in another.
    """

    def __init__(self) -> None:
        # JAX has 64 bits only where x64 is enabled.
        self.wide: bool = keras.config.floatx() == "float64" and (
            keras.backend.standardize_dtype(ops.convert_to_tensor(np.zeros(1)).dtype) == "float64"
        )
        self.index, self.float = ("int64", "float64") if self.wide else ("int32", "float32")

    def step(self, value: Any, limit: int) -> Any:
        """The step in [0, limit]: a tensor of the index dtype, or an int where no graph is made."""
        if isinstance(value, keras.Variable) or ops.is_tensor(value):
            dtype = keras.backend.standardize_dtype(value.dtype)
            if "float" in dtype:
                value = _values(value, dtype)
        if not isinstance(value, keras.Variable) and not ops.is_tensor(value):
            remedy = "" if self.wide else "; set floatx to float64 for larger ones"
            steps = known_steps(value, limit, remedy=remedy, xp=np)
            return steps if isinstance(steps, int) else ops.convert_to_tensor(steps, self.index)
        if dtype not in ("int8", "uint8", "int16", "uint16", "int32", "int64"):
            raise ScheduleError(
                "Argument `step` must be an integer (optimizer steps, counted from 0), and as a "
                f"tensor a signed one. Received: a tensor of {dtype}"
            )
        step = ops.cast(value, dtype)  # reads a variable
        # An eager tensor of TensorFlow's or PyTorch's: one operation on it costs
        # more than the schedule's own rate.
        if step.ndim == 0 and hasattr(step, "numpy"):
            return min(max(int(step), 0), limit)
        if dtype == "int64":
            step = self.minimum(step, limit)
        return self.maximum(ops.cast(step, self.index), 0)

    def before(self, ends: Any, step: Any) -> Any:
        later = ops.expand_dims(step, -1) > ops.convert_to_tensor(ends)
        return ops.sum(ops.cast(later, "int32"), axis=-1)

    def take(self, constant: Any, i: Any) -> Any:
        return ops.take(ops.convert_to_tensor(constant), i, axis=0)

    def row(self, rows: tuple[NDArray[Any], NDArray[Any]], i: Any) -> tuple[list[Any], list[Any]]:
        integers, floats = (self.take(table, i) for table in rows)
        return _columns(integers), _columns(floats)

    def real(self, integer: Any) -> Any:
        return ops.cast(integer, self.float)

    def remainder(self, dividend: Any, divisor: int) -> Any:
        return dividend % divisor

    def quotient(self, dividend: Any, divisor: int) -> Any:
        return dividend // divisor

    def select(self, condition: Any, yes: Any, no: Any) -> Any:
        if not self.wide:
            return ops.where(condition, yes, no)
        # The products with 0 and 1 are exact, and so is their sum.
        dtype = (yes if ops.is_tensor(yes) else no).dtype
        chosen = ops.cast(condition, keras.backend.standardize_dtype(dtype))
        return chosen * yes + (1 - chosen) * no

    def minimum(self, a: Any, b: Any) -> Any:
        return self.select(a < b, a, b)

    def maximum(self, a: Any, b: Any) -> Any:
        return self.select(a > b, a, b)

    def power(self, base: Any, exponent: Any) -> Any:
        return base**exponent

    def sin(self, x: Any) -> Any:
        return _native(x).sin(x)

    def exp(self, x: Any) -> Any:
        return _native(x).exp(x)

    def log(self, x: Any) -> Any:
        return _native(x).log(x)


def _values(tensor: Any, dtype: str) -> NDArray[np.float64]:
    """The values of a tensor of floats, where they are known."""
    try:
        narrow = dtype in ("float16", "bfloat16")  # the latter is none of numpy's
        known = ops.convert_to_numpy(ops.cast(tensor, "float32") if narrow else tensor)
        return np.asarray(known).astype(np.float64)
    except Exception as error:  # each backend has its own
        raise unknown_floats(f"a tensor of {dtype}") from error


def _native(x: Any) -> Any:
    """The functions for a tensor. Keras' own on JAX are of float32, whatever they are given."""
    space = getattr(x, "__array_namespace__", None)
    return ops if space is None else space()


def _columns(row: Any) -> list[Any]:
    return [row[..., column] for column in range(row.shape[-1])]
