"""The making of a snapshot file: its digest, and that it is whole or not there."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from xxhash import xxh3_128

import cosanneal as ca
from cosanneal.snapshots import SnapshotStore, disk, file
from cosanneal.snapshots.file import TensorBytes, write_file
from tests.shared.files import ARRAYS, write


def test_any_reader_of_safetensors_opens_it(tmp_path: Path) -> None:
    snapshot = write(SnapshotStore(tmp_path))
    loaded = safetensors.numpy.load_file(snapshot.path)
    assert all(np.array_equal(loaded[name], array) for name, array in ARRAYS.items())


def test_the_digest_is_what_its_description_says(tmp_path: Path) -> None:
    snapshot = write(SnapshotStore(tmp_path))
    content = snapshot.path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert (8 + length) % 8 == 0
    header = json.loads(content[8 : 8 + length])
    data = content[8 + length :]
    digests = json.loads(header["__metadata__"]["digests"])
    assert digests.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        begin, end = header[name]["data_offsets"]
        assert data[begin:end] == array.tobytes()
        assert digests[name] == xxh3_128(array.tobytes()).hexdigest()
    stated = header["__metadata__"].pop("digest")
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert stated == f"xxh3_128:{xxh3_128(canonical.encode()).hexdigest()}"
    # Every tensor starts at a multiple of its element's size.
    for name, array in ARRAYS.items():
        assert (8 + length + header[name]["data_offsets"][0]) % array.itemsize == 0


@pytest.mark.parametrize("call", ["fsync", "replace", "write"])
def test_a_failing_file_system_leaves_nothing_behind_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store = SnapshotStore(tmp_path)
    write(store, cycle=0, step=100)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if call == "fsync":
            patch.setattr(os, "fsync", fail)
        elif call == "replace":
            patch.setattr(Path, "replace", fail)
        else:
            real_open = Path.open

            def failing_open(path: Path, mode: str = "r", *rest: Any) -> Any:
                file = real_open(path, mode, *rest)
                if mode != "xb":
                    return file
                file.close()
                # A device that is always full.
                return open("/dev/full", "wb")  # noqa: PTH123

            patch.setattr(Path, "open", failing_open)
        with pytest.raises(
            ca.SnapshotError,
            match=r"cycle-0003.*could not be written: No space left on device.*free space",
        ):
            write(store)
    assert [path.name for path in tmp_path.iterdir()] == ["cycle-0000-step-0000000100.safetensors"]
    assert store.verify() == 1


def test_an_interrupted_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(SnapshotStore(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_durable_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(descriptor: int) -> None:
        folder = os.path.isdir(f"/proc/self/fd/{descriptor}")  # noqa: PTH112
        calls.append("sync folder" if folder else "sync file")
        real_sync(descriptor)

    def replace(path: Path, target: Path) -> Path:
        calls.append("rename")
        return real_replace(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    write(SnapshotStore(tmp_path))
    assert calls == ["sync file", "rename", "sync folder"]


def test_a_large_file_is_the_same_whatever_the_system_does_of_it_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = np.random.default_rng(0)
    arrays: dict[str, NDArray[Any]] = {
        "large": chance.standard_normal((5, 1 << 20)),
        "middle": chance.standard_normal((2001, 1000), np.float32),
        "none": np.ones((0, 3), np.float32),
        "odd": chance.integers(0, 256, 9_000_001, np.uint8),
    }
    calls: list[tuple[str, int]] = []

    def note(module: Any, name: str) -> None:
        real = getattr(module, name)

        def noted(*given: int) -> None:
            calls.append((name, given[-1]))
            real(*given)

        monkeypatch.setattr(module, name, noted)

    (tmp_path / "helped").mkdir()
    for module, name in ((file, "reserve"), (file, "begin_writing"), (os, "fsync")):
        note(module, name)
    helped = write(SnapshotStore(tmp_path / "helped"), arrays=arrays).path
    size = helped.stat().st_size
    assert size > 5 << 23
    assert calls[0] == ("reserve", size)
    # All is sent to the disk but the rest, which the file's sync has left to do; then the folder.
    assert [name for name, _ in calls[1:]] == [*["begin_writing"] * 3, "fsync", "fsync"]
    assert 0 <= size - sum(given for name, given in calls if name == "begin_writing") < 17 << 20
    monkeypatch.setattr(disk, "_KNOWN", False)
    alone = write(SnapshotStore(tmp_path / "alone"), arrays=arrays).path
    assert alone.read_bytes() == helped.read_bytes()
    loaded = safetensors.numpy.load_file(helped)
    assert all(np.array_equal(loaded[name], array) for name, array in arrays.items())
    with safetensors.safe_open(helped, "np") as opened:
        digests = json.loads(opened.metadata()["digests"])
    assert digests == {name: xxh3_128(each.tobytes()).hexdigest() for name, each in arrays.items()}


def test_a_large_file_without_room_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform != "linux":
        pytest.skip("the file is Linux' /dev/full")
    reserve = disk.reserve

    def full(descriptor: int, size: int) -> None:
        reserve(descriptor, size)
        device = os.open("/dev/full", os.O_WRONLY)
        os.dup2(device, descriptor)
        os.close(device)

    monkeypatch.setattr(file, "reserve", full)
    with pytest.raises(ca.SnapshotError, match="could not be written: No space left on device"):
        write(SnapshotStore(tmp_path), arrays={"large": np.ones(1 << 22)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(), (6,), (2, 3), (0, 3)])
def test_bytes_are_taken_in_any_view(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1
    write_file(tmp_path / "x", {"a": TensorBytes("float32", shape, array.data)}, {})
    assert np.array_equal(safetensors.numpy.load_file(tmp_path / "x")["a"], array)


def test_tensors_of_the_wrong_size_are_refused(tmp_path: Path) -> None:
    wrong = TensorBytes(dtype="float32", shape=(3,), data=memoryview(b"12345678"))
    with pytest.raises(ca.SnapshotError, match=r"must have 12 bytes\. Received: 8"):
        write_file(tmp_path / "x.safetensors", {"a": wrong}, {})
