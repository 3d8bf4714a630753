"""Whether tensors are finite, by the bits of their elements: of every dtype, with numpy alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .file import TensorBytes

# What is looked at once is still at hand when it is looked at again.
_CHUNK_BYTES: Final = 1 << 18

# Of each dtype with an exponent of ones for infinity and NaN: the bits of an element,
# and infinity's. As integers, what is not finite is at or above it; with a sign, as
# unsigned ones, at or above it with the highest bit set.
_INFINITY: Final[Mapping[str, tuple[int, int]]] = {
    "float64": (64, 0x7FF0 << 48),
    "float32": (32, 0x7F80 << 16),
    "complex64": (32, 0x7F80 << 16),  # two float32 each
    "bfloat16": (16, 0x7F80),
    "float16": (16, 0x7C00),
    "float8_e5m2": (8, 0x7C),
    "float8_e4m3fn": (8, 0x7F),  # its NaN: it has no infinity
}

# The one NaN of those that have neither an infinity nor a negative zero, or no sign.
_NAN: Final[Mapping[str, int]] = {
    "float8_e4m3fnuz": 0x80,
    "float8_e5m2fnuz": 0x80,
    "float8_e8m0fnu": 0xFF,
}


def first_nonfinite(tensors: Mapping[str, TensorBytes]) -> str | None:
    """The name of the first tensor with a NaN or an infinity in it; None if all are finite.

    Two that are meant count as finite: a mask of zeros and minus infinities, such
    as attention adds to its scores; and a number by itself (shape ()) that is an
    infinity, such as the best loss of a state that has seen none. Integers and
    bools always are.

    Args:
        tensors: by name.

    Example:
        >>> import numpy as np
        >>> weights = np.array([1.0, np.nan], np.float32)
        >>> mask = np.array([0.0, -np.inf], np.float32)
        >>> first_nonfinite({
        ...     "mask": TensorBytes("float32", (2,), memoryview(mask)),
        ...     "kernel": TensorBytes("float32", (2,), memoryview(weights)),
        ... })
        'kernel'
    """
    for name, tensor in tensors.items():
        if all_finite(tensor.data, tensor.dtype):
            continue
        if not is_meant([tensor.data], tensor.dtype, tensor.shape):
            return name
    return None


def all_finite(data: bytes | memoryview, dtype: str) -> bool:
    """Whether all elements of a tensor, or of a part of it, are finite; without a copy of them.

    Args:
        data: their bytes, as a snapshot has them.
        dtype: its name, as a snapshot has it.
    """
    if dtype not in _INFINITY:
        nan = _NAN.get(dtype)
        return nan is None or all(nan not in part for part in _parts(data, "u1"))
    bits, infinity = _INFINITY[dtype]
    sign = 1 << bits - 1
    for part in _parts(data, f"<u{bits // 8}"):
        # The greatest of each sign: two sums of no memory, and at the speed of it.
        if part.max() >= sign | infinity or part.view(f"<i{bits // 8}").max() >= infinity:
            return False
    return True


def is_meant(data: Iterable[bytes | memoryview], dtype: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor that is not finite, in parts, is one that is meant to be so."""
    if dtype not in _INFINITY or dtype in ("complex64", "float8_e4m3fn"):
        return False
    bits, infinity = _INFINITY[dtype]
    minus = 1 << bits - 1 | infinity
    zeros = infinities = False
    for part in itertools.chain.from_iterable(_parts(each, f"<u{bits // 8}") for each in data):
        zero, infinite = part == 0, part == minus
        if shape == ():
            return bool(infinite.all() or (part == infinity).all())
        if not (zero | infinite).all():
            return False
        zeros, infinities = zeros or bool(zero.any()), infinities or bool(infinite.any())
    return zeros and infinities


def _parts(data: bytes | memoryview, dtype: str) -> list[NDArray[Any]]:
    """The elements of a tensor as arrays of integers, one after the other."""
    view = memoryview(data)
    if not view.nbytes:
        return []
    elements = np.frombuffer(view, dtype)
    size = _CHUNK_BYTES // elements.itemsize
    return [elements[start : start + size] for start in range(0, len(elements), size)]
