"""The making of a snapshot file: its digest, and that it is whole or not there."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from xxhash import xxh3_128

import cosanneal as ca
from cosanneal.snapshots import SnapshotStore
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


def test_tensors_of_the_wrong_size_are_refused(tmp_path: Path) -> None:
    wrong = TensorBytes(dtype="float32", shape=(3,), data=memoryview(b"12345678"))
    with pytest.raises(ca.SnapshotError, match=r"must have 12 bytes\. Received: 8"):
        write_file(tmp_path / "x.safetensors", {"a": wrong}, {})
