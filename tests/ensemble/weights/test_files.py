"""The mean of snapshots, beside exact means of Fractions and within a bounded memory."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

import cosanneal as ca
from cosanneal.ensemble import average_snapshots
from cosanneal.snapshots import Snapshot, SnapshotStore
from cosanneal.snapshots.file import TensorBytes
from tests.shared.files import write


def snapshots_of(folder: Path, *members: dict[str, NDArray[Any]]) -> list[Snapshot]:
    store = SnapshotStore(folder / "store")
    for cycle, arrays in enumerate(members):
        tensors = {
            name: TensorBytes(array.dtype.name, array.shape, memoryview(array.tobytes()))
            for name, array in arrays.items()
        }
        write(store, cycle=cycle, step=100 * (cycle + 1), arrays=tensors)
    return store.list()


def mean_of(folder: Path, *arrays: NDArray[Any]) -> NDArray[Any]:
    """The mean of arrays, through the files."""
    snapshots = snapshots_of(folder, *({"a": array} for array in arrays))
    out = folder / "mean.safetensors"
    assert average_snapshots(snapshots, out) == ()
    (found,) = load_raw(out).values()
    return found.view(arrays[0].dtype).reshape(arrays[0].shape)


def load_raw(path: Path) -> dict[str, NDArray[np.uint8]]:
    return {
        name: np.frombuffer(entry["data"], np.uint8)
        for name, entry in safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    }


FLOATS = {
    "float64": 52,
    "float32": 23,
    "float16": 10,
    "bfloat16": 7,
    "float8_e4m3fn": 3,
    "float8_e4m3fnuz": 3,
    "float8_e5m2": 2,
    "float8_e5m2fnuz": 2,
}


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def any_finite(name: str, count: int, chance: np.random.Generator) -> NDArray[Any]:
    """Values of random bits: of every magnitude, subnormal ones and both zeros among them."""
    dtype = dtype_of(name)
    found = np.frombuffer(chance.bytes(dtype.itemsize * count * 2), dtype)
    with np.errstate(invalid="ignore"):  # NaNs that signal
        return found[np.isfinite(found.astype(np.float64))][:count]


def is_nearest(found: float, wanted: Fraction, name: str) -> bool:
    """Whether no neighbour in the dtype is nearer to the exact mean; a tie goes to the even one."""
    dtype = dtype_of(name)
    unsigned = np.dtype(f"u{dtype.itemsize}")
    bits = int(np.array(found, dtype).view(unsigned))
    error = abs(Fraction(found) - wanted)
    for step in (-1, 1):
        beside = np.array((bits + step) % 2 ** (8 * dtype.itemsize), unsigned).view(dtype)
        value = float(beside)
        if not math.isfinite(value):
            continue
        other = abs(Fraction(value) - wanted)
        if other < error or (other == error and value != found and bits % 2):
            return False
    return True


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("name", [name for name in FLOATS if name != "float64"])
def test_a_mean_is_the_exact_one_rounded_once(tmp_path: Path, name: str, count: int) -> None:
    chance = np.random.default_rng(count)
    arrays = [any_finite(name, 2_000, chance) for _ in range(count)]
    if count > 1:  # values near each other, whose mean is near a tie
        arrays = [np.concatenate([arrays[0], a, arrays[i % 2]]) for i, a in enumerate(arrays)]
    found = mean_of(tmp_path, *arrays)
    for i, value in enumerate(found.astype(np.float64).tolist()):
        exact = sum((Fraction(float(array[i])) for array in arrays), Fraction(0)) / count
        # Values whose exponents lie further apart than float64 is wide are rounded in their sum.
        wide = name in ("float32", "bfloat16")
        slack = abs(exact) * Fraction(count, 2**52) if wide else 0
        near = (exact - slack, exact, exact + slack)
        assert any(is_nearest(value, wanted, name) for wanted in near), (i, value, float(exact))


def test_the_mean_of_float64_is_within_its_own_rounding(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    arrays = [chance.normal(size=1000) for _ in range(5)]
    found = mean_of(tmp_path, *arrays)
    for i, value in enumerate(found.tolist()):
        values = [Fraction(float(array[i])) for array in arrays]
        # Each addition and the division round once, each relative to what it rounds.
        bound = Fraction(6, 2**53) * sum(map(abs, values), Fraction(0)) / 5
        assert abs(Fraction(value) - sum(values, Fraction(0)) / 5) <= bound


def test_a_mean_of_ties_beyond_float32_is_not_rounded_twice(tmp_path: Path) -> None:
    # (2 + 2**-6 + tiny) / 3 of values chosen so that float32 would lie on the tie.
    one = np.array([1, 1, 1], ml_dtypes.bfloat16)
    two = np.array([1.0078125, 1.0078125, 1], ml_dtypes.bfloat16)
    tiny = np.array([2**-40, -(2**-40), 2**-40], ml_dtypes.bfloat16)
    found = mean_of(tmp_path, one, two, tiny, np.array([1, 1, 2], ml_dtypes.bfloat16) * 0)
    exact = [Fraction(2) + Fraction(1, 128) + Fraction(1, 2**40)] * 2
    exact[1] -= Fraction(2, 2**40)
    for value, wanted in zip(found.astype(float).tolist(), exact, strict=False):
        assert is_nearest(value, wanted / 4, "bfloat16")


@pytest.mark.parametrize("name", [*FLOATS, "float8_e8m0fnu", "complex64"])
def test_what_all_agree_on_stays_as_it_is(tmp_path: Path, name: str) -> None:
    chance = np.random.default_rng(3)
    dtype = dtype_of(name)
    array = np.frombuffer(chance.bytes(dtype.itemsize * 3_000), dtype)
    with np.errstate(invalid="ignore"):  # NaNs that signal
        array = array[np.isfinite(array)]
    found = mean_of(tmp_path, array, array, array)
    assert found.tobytes() == array.tobytes()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [*FLOATS, "complex64"])
def test_what_is_not_finite_is_refused_by_its_name(tmp_path: Path, name: str, value: float) -> None:
    whole = np.ones(300_000, dtype_of(name))
    broken = whole.copy()
    broken[-1] = value
    if np.isfinite(broken[-1].astype(np.complex128)):
        pytest.skip("the dtype has no such number")
    snapshots = snapshots_of(tmp_path, {"b": whole, "a": whole}, {"b": broken, "a": whole})
    message = r"finite to be averaged.*cycle-0001-\S+ with a NaN or an infinity in its tensor 'b'"
    with pytest.raises(ca.EnsembleError, match=message):
        average_snapshots(snapshots, tmp_path / "mean.safetensors")
    assert not (tmp_path / "mean.safetensors").exists()


def test_a_mask_stays_as_it_is(tmp_path: Path) -> None:
    mask = np.triu(np.full((400, 400), -math.inf, np.float32), 1)
    assert np.array_equal(mean_of(tmp_path, mask, mask), mask)


def test_complex_numbers_are_averaged(tmp_path: Path) -> None:
    one = np.array([1 + 2j, 5 + 1j, 0], np.complex64)
    two = np.array([2 - 4j, 3 + 3j, 1j], np.complex64)
    assert mean_of(tmp_path, one, two).tolist() == [1.5 - 1j, 4 + 2j, 0.5j]


def test_integers_are_the_newest_ones_and_those_that_differ_are_named(tmp_path: Path) -> None:
    members: list[dict[str, NDArray[Any]]] = [
        {
            "bn.num_batches_tracked": np.array(count),
            "bn.running_mean": np.full(3, count, np.float32),
            "index": np.arange(4, dtype=np.int32),
            "mask": np.array([True, False]),
            "changed mask": np.array([True, count > 1]),
        }
        for count in (1, 2, 6)
    ]
    snapshots = snapshots_of(tmp_path, *members)
    out = tmp_path / "mean.safetensors"
    # In whatever order they are given.
    differing = average_snapshots(reversed(snapshots), out)
    assert sorted(differing) == ["bn.num_batches_tracked", "changed mask"]
    found = safetensors.numpy.load_file(out)
    assert found["bn.num_batches_tracked"] == 6
    assert found["bn.num_batches_tracked"].shape == ()
    assert found["bn.running_mean"].tolist() == [3.0, 3.0, 3.0]
    assert found["index"].tolist() == [0, 1, 2, 3]
    assert found["changed mask"].tolist() == [True, True]
    with safetensors.safe_open(out, framework="numpy") as file:
        metadata = file.metadata()
    assert json.loads(metadata["averaged"]) == [
        {"name": each.path.name, "step": each.step, "digest": each.metadata["digest"]}
        for each in snapshots
    ]
    assert set(json.loads(metadata["taken_from_newest"])) == set(members[0]) - {"bn.running_mean"}
    assert metadata["framework"] == "numpy"


def test_it_is_what_torch_makes_of_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    members: list[dict[str, NDArray[Any]]] = [
        {"w": torch.randn(50, 7, dtype=torch.float64).numpy(), "e": np.ones((0, 3), np.float16)}
        for _ in range(4)
    ]
    out = tmp_path / "mean.safetensors"
    average_snapshots(snapshots_of(tmp_path, *members), out)
    found = load_file(out)
    stacked = torch.stack([torch.from_numpy(member["w"]) for member in members])
    torch.testing.assert_close(found["w"], stacked.mean(0), rtol=1e-15, atol=1e-15)
    assert found["e"].shape == (0, 3)


def test_tensors_that_differ_are_named(tmp_path: Path) -> None:
    one: dict[str, NDArray[Any]] = {"a": np.zeros(3), "b": np.zeros(2)}
    cases: list[tuple[dict[str, NDArray[Any]], str]] = [
        ({"a": np.zeros(3), "b": np.zeros(3)}, r"its tensor 'b' is float64 of shape \(3,\)"),
        ({"a": np.zeros(3, np.float32), "b": np.zeros(2)}, r"its tensor 'a' is float32"),
        ({"a": np.zeros(3)}, r"cycle-0001.*'s tensor 'b' is not in it"),
        ({**one, "c": np.zeros(3)}, r"its tensor 'c' is not in cycle-0001"),
    ]
    for number, (other, what) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        snapshots = snapshots_of(folder, other, one)
        with pytest.raises(ca.EnsembleError, match=rf"the same tensors.*cycle-0000.*{what}"):
            average_snapshots(snapshots, folder / "mean.safetensors")
        assert [path.name for path in folder.iterdir()] == ["store"]


def test_nothing_is_written_over_unless_told(tmp_path: Path) -> None:
    snapshots = snapshots_of(tmp_path, {"a": np.zeros(3)})
    out = tmp_path / "mean.safetensors"
    out.write_text("mine")
    with pytest.raises(ca.EnsembleError, match=r"must not be there yet.*mean.*overwrite=True$"):
        average_snapshots(snapshots, out)
    assert out.read_text() == "mine"
    average_snapshots(snapshots, out, overwrite=True)
    assert safetensors.numpy.load_file(out)["a"].tolist() == [0, 0, 0]
    # A file that comes while the average is written.
    late = tmp_path / "late.safetensors"

    def interfere(_: int) -> None:
        late.write_text("mine")

    with pytest.raises(ca.EnsembleError, match=r"must not be there yet.*late"):
        average_snapshots(snapshots, late, progress=interfere)
    assert late.read_text() == "mine"
    with pytest.raises(ca.EnsembleError, match=r"must not bear the name of a snapshot"):
        average_snapshots(snapshots, snapshots[0].path, overwrite=True)
    with pytest.raises(ca.EnsembleError, match=r"nowhere.*could not be written: No such file"):
        average_snapshots(snapshots, tmp_path / "nowhere" / "x.safetensors")
    with pytest.raises(ca.EnsembleError, match=r"must hold at least one"):
        average_snapshots([], tmp_path / "x.safetensors")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"store", "mean.safetensors", "late.safetensors"}


def test_a_damaged_snapshot_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    snapshots = snapshots_of(tmp_path, {"a": np.zeros(3)}, {"a": np.ones(3)})
    content = bytearray(snapshots[0].path.read_bytes())
    content[-1] ^= 1
    snapshots[0].path.write_bytes(content)
    with pytest.raises(ca.SnapshotError, match=r"cycle-0000.*'a' does not match its digest"):
        average_snapshots(snapshots, tmp_path / "mean.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_progress_counts_what_is_read(tmp_path: Path) -> None:
    seen: list[int] = []
    members = [{"a": np.zeros(300_000), "n": np.array(count)} for count in (1, 2)]
    snapshots = snapshots_of(tmp_path, *members)
    average_snapshots(snapshots, tmp_path / "mean.safetensors", progress=seen.append)
    assert sum(seen) == 2 * (2_400_000 + 8)


@pytest.mark.parametrize("size", [1 << 16, 1 << 22])
def test_memory_does_not_grow_with_the_snapshots(tmp_path: Path, size: int) -> None:
    members: list[dict[str, NDArray[Any]]] = [
        {"a": np.full(size, i, np.float32), "b": np.ones(size, np.int8)} for i in range(6)
    ]
    snapshots = snapshots_of(tmp_path, *members)
    del members
    tracemalloc.start()
    average_snapshots(snapshots, tmp_path / "mean.safetensors")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Six pieces of 256 KiB, their sum and temporaries in float64; never a tensor of 16 MiB.
    assert peak < 6 << 20
    found = safetensors.numpy.load_file(tmp_path / "mean.safetensors")
    assert (found["a"] == 2.5).all()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="where Linux counts memory")
def test_the_process_stays_small_beside_its_files(tmp_path: Path) -> None:
    size = 1 << 24  # 64 MiB each, 384 MiB together
    snapshots_of(tmp_path, *({"a": np.full(size, i, np.float32)} for i in range(6)))
    code = """
import sys, resource
from cosanneal.ensemble import average_snapshots
from cosanneal.snapshots import SnapshotStore
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
before = peak()
average_snapshots(SnapshotStore(sys.argv[1]).list(), sys.argv[2])
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store"), str(tmp_path / "mean.safetensors")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 40 << 20
