"""Pooling of the arrays of Keras' backends."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from cosanneal.ensemble import error_rate, pool
from tests.shared.kinds import check_kind


def read(array: Any) -> Any:
    return np.asarray(keras.ops.convert_to_numpy(array)).astype(np.float64)


def test_arrays_of_the_backend_come_back_as_they_came() -> None:
    check_kind(
        lambda values, dtype: keras.ops.cast(keras.ops.convert_to_tensor(values), dtype),
        read,
        dtypes=("float32", "float16", "bfloat16"),
        same_place=lambda a, b: (
            type(a) is type(b)
            and keras.ops.is_tensor(a)
            and (a.dtype, a.device) == (b.dtype, b.device)
        ),
    )


def test_integers_become_floats_and_metrics_take_arrays_of_the_backend() -> None:
    tensor = keras.ops.convert_to_tensor
    whole = pool([tensor([[1, 0]]), tensor([[0, 1]])])
    assert keras.ops.is_tensor(whole)
    assert read(whole).tolist() == [[0.5, 0.5]]
    assert error_rate(tensor([[0.25, 0.75]]), tensor([1])) == 0
