"""Snapshot files and the folder that holds them, without any framework."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

import cosanneal as ca
from cosanneal.snapshots import Snapshot, SnapshotStore
from cosanneal.snapshots.file import TensorBytes, write_file

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


def test_what_was_written_is_read(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "deep" / "folder")
    written = write(store)
    assert written.path.name == "cycle-0003-step-0000012000.safetensors"
    (snapshot,) = store.list()
    assert (snapshot.path, snapshot.cycle, snapshot.step) == (written.path, 3, 12_000)
    loaded = snapshot.load()
    assert loaded.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert loaded[name].dtype == array.dtype
        assert np.array_equal(loaded[name], array)
    metadata = snapshot.metadata
    assert metadata["rate"] == 0.1 / 3
    assert metadata["metrics"] == {"loss": 0.5}
    assert (metadata["cycle"], metadata["step"], metadata["format"]) == (3, 12_000, 1)
    assert snapshot.schedule == SCHEDULE
    assert store.verify() == 1
    assert [path.name for path in store.folder.iterdir()] == [written.path.name]


def test_the_layout_is_read_from_the_header_alone(tmp_path: Path) -> None:
    snapshot = write(SnapshotStore(tmp_path))
    wanted = {name: (array.shape, array.dtype.name) for name, array in ARRAYS.items()}
    assert snapshot.layout() == wanted
    content = snapshot.path.read_bytes()
    snapshot.path.write_bytes(content[:-1] + b"?")
    assert snapshot.layout() == wanted
    for wrong in (b'"I64"', b'"U64"'), (b'"shape":[5]', b'"shape":511'), (b'"dtype":', b'"dtyqe":'):
        assert wrong[0] in content
        snapshot.path.write_bytes(content.replace(*wrong).ljust(len(content)))
        with pytest.raises(ca.SnapshotError, match=r"could not be read"):
            snapshot.layout()


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
        assert digests[name] == hashlib.sha256(array.tobytes()).hexdigest()
    stated = header["__metadata__"].pop("digest")
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert stated == f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
    # Every tensor starts at a multiple of its element's size.
    for name, array in ARRAYS.items():
        assert (8 + length + header[name]["data_offsets"][0]) % array.itemsize == 0


def test_equal_content_makes_equal_files(tmp_path: Path) -> None:
    one = write(SnapshotStore(tmp_path / "one"))
    two = write(SnapshotStore(tmp_path / "two"))
    assert one.path.read_bytes() == two.path.read_bytes()


def test_snapshots_are_listed_oldest_first_and_nothing_else_is(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    assert SnapshotStore(tmp_path / "nowhere").list() == []
    for cycle, step in [(10, 10_500), (2, 300), (9, 10_000), (10_000, 10**11)]:
        write(store, cycle=cycle, step=step)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "cycle-0001-step-0000000100.safetensors.bak").write_text("")
    (tmp_path / "cycle-1-step-100.safetensors").write_text("")
    (tmp_path / "cycle-0007-step-0000000700.safetensors").mkdir()
    (tmp_path / "cycle-0008-step-0000000800.safetensors").symlink_to("/etc/passwd")
    assert [(s.cycle, s.step) for s in store.list()] == [
        (2, 300),
        (9, 10_000),
        (10, 10_500),
        (10_000, 10**11),
    ]


def test_later_snapshots_are_removed_and_others_stay(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    for cycle in range(4):
        write(store, cycle=cycle, step=100 * (cycle + 1))
    (tmp_path / "notes.txt").write_text("mine")
    assert [s.step for s in store.remove_after(200)] == [300, 400]
    assert [s.step for s in store.list()] == [100, 200]
    assert store.remove_after(200) == ()
    assert (tmp_path / "notes.txt").exists()


def test_leftovers_of_an_interrupted_write_are_never_listed_and_are_cleared(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    whole = write(store).path.read_bytes()
    leftover = tmp_path / ".cycle-0004-step-0000016000.safetensors.0a1b2c3d.tmp"
    leftover.write_bytes(whole[:100])
    mine = tmp_path / ".hidden.tmp"
    mine.write_text("")
    assert len(store.list()) == 1
    store.prepare()
    assert not leftover.exists()
    assert mine.exists()


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


def test_a_file_of_others_is_no_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "cycle-0000-step-0000000001.safetensors"
    safetensors.numpy.save_file({"a": np.ones(3)}, path)
    with pytest.raises(ca.SnapshotError, match=r"Received: None, no snapshot of cosanneal's"):
        _ = SnapshotStore(tmp_path).list()[0].metadata


def rewrite(snapshot: Snapshot, change: Callable[[dict[str, str]], None]) -> None:
    metadata = dict(METADATA)
    change(metadata)
    write_file(snapshot.path, {}, metadata)


def test_metadata_of_another_version_or_kind_are_refused(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    snapshot = write(store)
    rewrite(snapshot, lambda metadata: metadata.update(cosanneal="2"))
    with pytest.raises(ca.SnapshotError, match=r"version 1.*Received: '2'; a newer cosanneal"):
        _ = store.list()[0].metadata
    for name, value in [("rate", "high"), ("metrics", "{"), ("cycle", "x")]:
        rewrite(snapshot, lambda metadata, n=name, v=value: metadata.update({n: v}))  # type: ignore[misc]
        with pytest.raises(ca.SnapshotError, match=r"bad metadata"):
            store.list()[0].verify()
    rewrite(snapshot, lambda metadata: metadata.update(schedule='{"format": 1}'))
    with pytest.raises(ca.SnapshotError, match=r"holds no readable schedule"):
        _ = store.list()[0].schedule


def test_verify_names_every_damaged_snapshot(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    for cycle in range(3):
        write(store, cycle=cycle, step=cycle + 1)
    for snapshot in store.list()[:2]:
        content = bytearray(snapshot.path.read_bytes())
        content[-1] ^= 0xFF
        snapshot.path.write_bytes(content)
    with pytest.raises(ca.SnapshotError, match=r"2 of 3 snapshots .* damaged:\n.*0000.*\n.*0001"):
        store.verify()


def test_metrics_that_are_no_plain_data_are_refused(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    for metrics in ({"model": object()}, {"curve": np.ones(3)}, {(1, 2): 3}):
        with pytest.raises(ca.SnapshotError, match=r"`metrics` must be a dict of numbers"):
            write(store, metrics=metrics)
    assert store.list() == []
    write(store, metrics={"loss": np.float32(0.5), "steps": np.int64(3), "lost": float("nan")})
    metrics = store.list()[0].metadata["metrics"]
    assert metrics["loss"] == 0.5
    assert metrics["steps"] == 3


def test_tensors_of_the_wrong_size_are_refused(tmp_path: Path) -> None:
    wrong = TensorBytes(dtype="float32", shape=(3,), data=memoryview(b"12345678"))
    with pytest.raises(ca.SnapshotError, match=r"must have 12 bytes\. Received: 8"):
        write_file(tmp_path / "x.safetensors", {"a": wrong}, {})


def test_a_dtype_numpy_lacks_is_named(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    write(store, arrays={"a": TensorBytes("float8_e5m2", (2,), memoryview(b"12"))})
    # In a process of its own: once imported, ml_dtypes is known to numpy for good.
    code = """
import sys
sys.modules["ml_dtypes"] = None
from cosanneal import SnapshotError
from cosanneal.snapshots import SnapshotStore
(snapshot,) = SnapshotStore(sys.argv[1]).list()
try:
    snapshot.load()
except SnapshotError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert re.search(
        r"'a' .*dtype float8_e5m2, which numpy does not know\. Install ml_dtypes, or .*'pt'",
        done.stdout,
    )


def test_a_snapshot_that_is_gone_is_named(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    snapshot = write(store)
    snapshot.path.unlink()
    with pytest.raises(ca.SnapshotError, match=r"cycle-0003.*could not be read: No such file"):
        _ = snapshot.metadata
    with pytest.raises(ca.SnapshotError, match=r"cycle-0003.*could not be read"):
        snapshot.load()


def test_a_copy_under_a_longer_name_is_no_second_snapshot(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    snapshot = write(store)
    content = snapshot.path.read_bytes()
    for name in (
        "cycle-00003-step-0000012000.safetensors",
        "cycle-0003-step-00000012000.safetensors",
        "cycle-0003-step-00000000000000012000.safetensors",
        "cycle-000\u0663-step-0000012000.safetensors",
    ):
        (tmp_path / name).write_bytes(content)
    assert [each.path for each in store.list()] == [snapshot.path]
    assert store.verify() == 1
    long = write(store, cycle=12_345, step=10**12)
    assert store.list()[-1].path == long.path


def test_the_folder_is_made_by_prepare(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "a" / "b")
    assert store.list() == []
    store.prepare()
    assert store.folder.is_dir()
