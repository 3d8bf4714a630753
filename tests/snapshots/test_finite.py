"""Which tensors are not finite, by their bits; the oracle is ml_dtypes' and numpy's own."""

from __future__ import annotations

import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from cosanneal.snapshots.file import DTYPES, TensorBytes
from cosanneal.snapshots.finite import all_finite, first_nonfinite
from tests.shared.files import every_dtype, raw

FLOATS = [name for name in DTYPES if "float" in name or "complex" in name]


def numpy_type(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def finite(array: Any) -> bool:
    wide = np.complex128 if array.dtype.kind == "c" else np.float64
    return bool(np.isfinite(array.astype(wide)).all())


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("name", FLOATS)
def test_every_pattern_of_bits_is_told_apart(name: str) -> None:
    dtype = numpy_type(name)
    random = np.random.default_rng(0)
    if dtype.itemsize <= 2:  # all there are
        bits = np.arange(2 ** (8 * dtype.itemsize)).astype(f"u{dtype.itemsize}").view(dtype)
    else:
        ordinary = random.integers(0, 256, 4096 * dtype.itemsize, np.uint8).view(dtype)
        info = np.finfo(dtype)
        edges = np.array([info.max, -info.max, info.tiny, 0.0, -0.0], dtype)
        marks = np.array([np.nan, -np.nan, np.inf, -np.inf, complex(0, np.inf)])
        special = (marks if dtype.kind == "c" else marks.real).astype(dtype)
        bits = np.concatenate([ordinary, edges, special])
    found = [all_finite(each.tobytes(), name) for each in bits]
    expected = np.isfinite(bits.astype(np.complex128 if dtype.kind == "c" else np.float64))
    assert found == expected.tolist()
    assert not all(found)
    assert any(found)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("place", [0, 299_999, 599_999])
def test_one_element_among_many_is_found(name: str, place: int) -> None:
    array = np.ones(600_000, numpy_type(name))
    assert first_nonfinite({"a": raw(array)}) is None
    array[place] = np.nan
    assert first_nonfinite({"a": raw(np.ones(3)), "b": raw(array)}) == "b"


def test_integers_scalars_and_empty_tensors_are_no_matter() -> None:
    arrays = every_dtype()
    for name, array in arrays.items():
        expected = array.dtype.kind in "biu" or finite(array)
        assert (first_nonfinite({name: raw(array)}) is None) == expected, name


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16"])
def test_an_infinity_by_itself_is_meant(name: str) -> None:
    dtype = numpy_type(name)
    for value in (np.inf, -np.inf):  # as the best loss of a state that has seen none
        assert first_nonfinite({"best": raw(np.array(value, dtype))}) is None
        assert first_nonfinite({"bias": raw(np.array([value], dtype))}) == "bias"
    assert first_nonfinite({"best": raw(np.array(np.nan, dtype))}) == "best"


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16"])
def test_a_mask_of_attention_is_meant(name: str) -> None:
    dtype = numpy_type(name)
    mask = np.triu(np.full((500, 500), -np.inf), 1).astype(dtype)
    assert first_nonfinite({"mask": raw(mask)}) is None
    for other in (np.inf, np.nan, 1.0):
        broken = mask.copy()
        broken[0, 1] = other
        assert first_nonfinite({"mask": raw(broken)}) == "mask"
    assert first_nonfinite({"mask": raw(mask[:1, 1:])}) == "mask"  # nothing is let through


def test_it_takes_no_memory_of_its_own_and_any_alignment() -> None:
    array = np.ones(4_000_001, np.float32)
    whole = memoryview(b"x" + array.tobytes())
    tracemalloc.start()
    assert first_nonfinite({"a": TensorBytes("float32", array.shape, whole[1:])}) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
