"""A snapshot of numpy arrays, written without a recorder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

import cosanneal as ca
from cosanneal.snapshots import Snapshot, SnapshotStore
from cosanneal.snapshots.file import DTYPES, TensorBytes

SCHEDULE = ca.CyclicCosine(0.1, cycle_steps=100, cycle_mult=1.5)

ARRAYS: dict[str, NDArray[Any]] = {
    "weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "flag": np.array([True, False, True]),
    "count": np.array(7, dtype=np.int64),
    "naïve/名前 with space": np.ones((2, 0, 3), dtype=np.float16),
    "odd": np.arange(5, dtype=np.uint8),
}

METADATA = {
    "cosanneal": "1",
    "cycle": "3",
    "step": "12000",
    "rate": "0.1",
    "schedule": json.dumps(SCHEDULE.to_dict()),
    "framework": "numpy",
    "versions": "{}",
    "metrics": "{}",
}


def as_bytes(array: NDArray[Any]) -> TensorBytes:
    data = memoryview(np.ascontiguousarray(array).tobytes())
    return TensorBytes(dtype=array.dtype.name, shape=array.shape, data=data)


def write(
    store: SnapshotStore,
    *,
    cycle: int = 3,
    step: int = 12_000,
    arrays: Mapping[str, NDArray[Any] | TensorBytes] = ARRAYS,
    **changes: Any,
) -> Snapshot:
    store.prepare()
    arguments: dict[str, Any] = {
        "rate": 0.1 / 3,
        "schedule": SCHEDULE,
        "framework": "numpy",
        "versions": {"numpy": np.__version__},
        "metrics": {"loss": 0.5},
        **changes,
    }
    tensors = {
        name: array if isinstance(array, TensorBytes) else as_bytes(array)
        for name, array in arrays.items()
    }
    return store.write(tensors, cycle=cycle, step=step, **arguments)


def every_dtype() -> dict[str, NDArray[Any]]:
    bits = np.arange(256, dtype=np.uint8)
    arrays: dict[str, NDArray[Any]] = {}
    for name in DTYPES:
        dtype = np.dtype(getattr(ml_dtypes, name, name))
        values = bits % 2 if name == "bool" else bits
        arrays[name] = values.view(dtype).reshape(2, -1)
        arrays[f"{name}/scalar"] = arrays[name][0, 0]
        arrays[f"{name}/empty"] = arrays[name][:, :0]
    return arrays


def raw(array: NDArray[Any]) -> TensorBytes:
    return TensorBytes(array.dtype.name, array.shape, memoryview(array.tobytes()))
