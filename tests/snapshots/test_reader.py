"""Reading one tensor at a time, and everything that a snapshot can hold."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from xxhash import xxh3_128

import cosanneal as ca
from cosanneal.snapshots import SnapshotStore
from cosanneal.snapshots.file import DTYPES, digest_of, encode_header, plan_header
from tests.shared.files import ARRAYS, METADATA, every_dtype, raw, write


def test_tensors_are_read_one_at_a_time(tmp_path: Path) -> None:
    snapshot = write(SnapshotStore(tmp_path))
    with snapshot.open() as tensors:
        assert set(tensors) == set(ARRAYS)
        assert len(tensors) == len(ARRAYS)
        assert tensors.layout == snapshot.layout()
        for name, array in ARRAYS.items():
            assert tensors[name].dtype == array.dtype
            assert tensors[name].shape == array.shape
            assert np.array_equal(tensors[name], array)
            assert not tensors[name].flags.writeable
            assert b"".join(tensors.chunks(name, 3)) == array.tobytes()
        with pytest.raises(KeyError):
            tensors["other"]
        kept = tensors["weight"]
    assert np.array_equal(kept, ARRAYS["weight"])
    for read in (lambda: tensors["weight"], lambda: list(tensors.chunks("weight"))):
        with pytest.raises(ca.SnapshotError, match=r"is closed; read .* inside the `with` block"):
            read()


def test_what_is_loaded_is_ones_own(tmp_path: Path) -> None:
    snapshot = write(SnapshotStore(tmp_path))
    before = snapshot.path.read_bytes()
    for array in snapshot.load().values():
        array[...] = 0
    assert snapshot.path.read_bytes() == before


def test_a_damaged_tensor_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    snapshot = write(SnapshotStore(tmp_path))
    content = snapshot.path.read_bytes()
    place = content.index(ARRAYS["weight"].tobytes())
    damaged = bytearray(content)
    damaged[place] ^= 1
    snapshot.path.write_bytes(damaged)
    with snapshot.open() as tensors:
        assert "weight" in tensors  # which reads nothing
        for name in ARRAYS:
            if name != "weight":
                assert np.array_equal(tensors[name], ARRAYS[name])
        for read in (
            lambda: tensors["weight"],
            lambda: list(tensors.chunks("weight")),
            tensors.load,
            tensors.verify,
            lambda: tensors.load("pt"),
        ):
            with pytest.raises(ca.SnapshotError, match=r"'weight' does not match its digest; del"):
                read()
    with snapshot.open(verify=False) as tensors:
        assert not np.array_equal(tensors["weight"], ARRAYS["weight"])
        assert not np.array_equal(tensors.load()["weight"], ARRAYS["weight"])
        with pytest.raises(ca.SnapshotError, match=r"'weight' does not match"):
            tensors.verify()
        assert not np.array_equal(tensors["weight"], ARRAYS["weight"])


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    snapshot = write(SnapshotStore(tmp_path), arrays={**ARRAYS, "big": np.zeros(300_000)})
    seen: list[int] = []
    snapshot.verify(seen.append)
    assert sum(seen) == 2_400_000 + sum(array.nbytes for array in ARRAYS.values())
    assert max(seen) <= 1 << 20


@pytest.mark.parametrize("cached", [True, False])
def test_much_is_verified_by_several_threads_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    monkeypatch.setattr("cosanneal.snapshots.reader.is_cached", lambda *_: cached)
    before = {*threading.enumerate()}
    chance = np.random.default_rng(0)
    arrays = {f"layer {i}": chance.integers(0, 256, 3_000_000, np.uint8) for i in range(8)}
    snapshot = write(SnapshotStore(tmp_path), arrays=arrays)
    seen: list[int] = []
    threads = set()

    def note(count: int) -> None:
        seen.append(count)
        threads.add(threading.get_ident())
        time.sleep(0.001)  # in which others go on

    monkeypatch.setattr("os.cpu_count", lambda: 3)
    snapshot.verify(note)
    assert sum(seen) == 24_000_000
    assert len(threads) > 1
    content = bytearray(snapshot.path.read_bytes())
    for name, array in arrays.items():
        place = content.index(array.tobytes()[:64]) + 2_999_999
        content[place] ^= 1
        snapshot.path.write_bytes(content)
        with pytest.raises(ca.SnapshotError, match=rf"'{name}' does not match its digest"):
            snapshot.verify()
        with pytest.raises(ca.SnapshotError, match=rf"'{name}' does not match its digest"):
            snapshot.load()
        with pytest.raises(ca.SnapshotError, match=rf"'{name}' does not match its digest"):
            snapshot.load(framework="pt")
        content[place] ^= 1
    snapshot.path.write_bytes(content)
    assert all(np.array_equal(each, arrays[name]) for name, each in snapshot.load().items())
    assert {*threading.enumerate()} <= before


def test_what_the_disk_must_be_asked_for_is_read_and_else_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails is an error of a read, and ends a process that has mapped the file."""

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    arrays = {f"layer {i}": np.full(3_000_000, i, np.uint8) for i in range(8)}
    snapshot = write(SnapshotStore(tmp_path), arrays=arrays)
    monkeypatch.setattr("cosanneal.snapshots.reader._PREAD", fail)
    for cached in (False, True):
        monkeypatch.setattr("cosanneal.snapshots.reader.is_cached", lambda *_, c=cached: c)
        for read in (snapshot.verify, snapshot.load, lambda: snapshot.load(framework="pt")):
            if cached:
                read()
            else:
                with pytest.raises(ca.SnapshotError, match="could not be read: Input/output err"):
                    read()


def test_what_is_handed_out_is_what_was_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cosanneal.snapshots.reader.is_cached", lambda *_: True)
    arrays = {
        "wide": np.arange(3_000_000.0),
        "narrow": np.arange(200, dtype=np.uint8),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float16),
    }
    snapshot = write(SnapshotStore(tmp_path), arrays=arrays)
    safe_open, changed = safetensors.safe_open, ""

    def other(name: str, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        if name == changed:
            tensor.view(-1)[-1] += 1
        return tensor

    @contextlib.contextmanager
    def opened(*given: Any, **named: Any) -> Iterator[Any]:
        with safe_open(*given, **named) as file:
            yield SimpleNamespace(get_tensor=lambda name: other(name, file.get_tensor(name)))

    monkeypatch.setattr("safetensors.safe_open", opened)
    for name, value in snapshot.load(framework="pt").items():
        assert np.array_equal(value.numpy(), arrays[name])
        assert value.shape == arrays[name].shape
    for changed in ("wide", "narrow", "scalar"):
        with pytest.raises(ca.SnapshotError, match=rf"'{changed}' does not match its digest"):
            snapshot.load(framework="pt")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_mapped_file_is_let_go_of_when_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_mapped() -> bool:
        return str(snapshot.path) in Path("/proc/self/maps").read_text("utf-8")

    monkeypatch.setattr("cosanneal.snapshots.reader.is_cached", lambda *_: True)
    arrays = {f"layer {i}": np.full(3_000_000, i, np.uint8) for i in range(8)}
    snapshot = write(SnapshotStore(tmp_path), arrays=arrays)
    with snapshot.open() as tensors:
        tensors.verify()
        tensors.load()
        assert is_mapped()
    assert not is_mapped()


def test_a_snapshot_replaced_while_it_is_read_is_not_mixed_up(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    snapshot = write(store)
    with snapshot.open() as tensors:
        write(store, arrays={name: array * 0 for name, array in ARRAYS.items()})
        assert np.array_equal(tensors["weight"], ARRAYS["weight"])
        assert np.array_equal(tensors.load()["weight"], ARRAYS["weight"])
        # Other frameworks' arrays come from safetensors' reader, which opens the path.
        with pytest.raises(ca.SnapshotError, match=r"was replaced meanwhile; read it again"):
            tensors.load("pt")


def test_every_dtype_comes_back_bit_for_bit(tmp_path: Path) -> None:
    # Of those that older releases of torch have, too.
    arrays = {
        name: array for name, array in every_dtype().items() if hasattr(torch, array.dtype.name)
    }
    assert len(arrays) >= 3 * 18
    store = SnapshotStore(tmp_path)
    snapshot = write(store, arrays={name: raw(array) for name, array in arrays.items()})
    loaded, as_torch = snapshot.load(), snapshot.load(framework="pt")
    assert store.verify() == 1
    with snapshot.open() as tensors:
        for name, array in arrays.items():
            for found in (loaded[name], tensors[name]):
                assert (found.dtype, found.shape) == (array.dtype, array.shape)
                assert found.tobytes() == array.tobytes()
            assert as_torch[name].dtype == getattr(torch, array.dtype.name)
            assert as_torch[name].shape == array.shape
            bits = as_torch[name].reshape(-1).view(torch.uint8).numpy() if array.size else b""
            assert bytes(bits) == array.tobytes()


def test_every_dtype_of_torch_that_safetensors_holds_is_known() -> None:
    from safetensors.torch import _TYPES

    assert {str(dtype).removeprefix("torch.") for dtype in _TYPES.values()} <= set(DTYPES)


@pytest.mark.parametrize(
    "name",
    ["", " ", "a/b/../c", "../../etc/passwd", "/etc/passwd", "C:\\x", "\0", "\n\u202e", "🜁", '"\\'],
)
def test_any_text_is_a_name(tmp_path: Path, name: str) -> None:
    snapshot = write(SnapshotStore(tmp_path), arrays={name: np.arange(3)})
    assert snapshot.load()[name].tolist() == [0, 1, 2]
    assert snapshot.load(framework="pt")[name].tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == [snapshot.path.name]


def test_what_is_no_text_is_no_name(tmp_path: Path) -> None:
    with pytest.raises(ca.SnapshotError, match=r"name must be Unicode text\. Received: 'a\\ud800'"):
        write(SnapshotStore(tmp_path), arrays={"a\ud800": np.arange(3)})
    with pytest.raises(ca.SnapshotError, match=r"'__metadata__'"):
        write(SnapshotStore(tmp_path), arrays={"__metadata__": np.arange(3)})


def test_no_tensors_and_unknown_names_are_fine(tmp_path: Path) -> None:
    snapshot = write(SnapshotStore(tmp_path), arrays={})
    assert snapshot.load() == {}
    assert snapshot.load(framework="pt") == {}
    with snapshot.open() as tensors:
        assert "weight" not in tensors
        assert list(tensors) == []


def test_the_work_of_opening_grows_with_the_number_of_tensors_and_no_faster(tmp_path: Path) -> None:
    work = []
    for count in (1_000, 10_000):
        arrays = {f"layer.{i}.weight": np.full(2, i, np.float32) for i in range(count)}
        snapshot = write(SnapshotStore(tmp_path / str(count)), arrays=arrays)
        calls = 0

        def note(*_: object) -> None:
            nonlocal calls
            calls += 1

        sys.setprofile(note)
        try:
            with snapshot.open() as tensors:
                total = sum(float(tensors[name][0]) for name in tensors)
        finally:
            sys.setprofile(None)
        assert total == math.comb(count, 2)
        work.append(calls)
    assert 10_000 < work[1] < 11 * work[0]


@pytest.mark.skipif(sys.platform == "win32", reason="files are not sparse there by themselves")
def test_a_tensor_beyond_4_gib_is_read_lazily(tmp_path: Path) -> None:
    after = np.arange(6, dtype=np.uint8).reshape(2, 3)
    layout = {"big": ((4097, 1 << 17), "float64"), "small": ((2, 3), "uint8")}
    digests = {"big": "0" * 32, "small": xxh3_128(after.tobytes()).hexdigest()}
    header, order = plan_header(layout, {**METADATA, "digests": json.dumps(digests)})
    assert order == ["big", "small"]
    header["__metadata__"]["digest"] = digest_of(header)
    path = tmp_path / "cycle-0003-step-0000012000.safetensors"
    with path.open("wb") as file:
        file.write(encode_header(header))
        file.seek(4097 << 20, os.SEEK_CUR)
        file.write(after.tobytes())
    (snapshot,) = SnapshotStore(tmp_path).list()
    assert snapshot.layout() == layout
    tracemalloc.start()
    with snapshot.open(verify=False) as tensors:
        big = tensors["big"]
        assert big.shape == (4097, 1 << 17)
        assert not big[[0, 2048, 4096]].any()
        assert sum(len(chunk) for chunk in islice(tensors.chunks("big"), 3)) == 3 << 20
        assert next(tensors.chunks("big", 5)) == bytes(5)
    # What lies behind it is found, and compared with its digest.
    with snapshot.open() as tensors:
        assert np.array_equal(tensors["small"], after)
        assert b"".join(tensors.chunks("small")) == after.tobytes()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 << 20
