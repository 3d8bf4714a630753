"""The folder that holds snapshots, without any framework."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import cosanneal as ca
from cosanneal.snapshots import Snapshot, SnapshotStore
from cosanneal.snapshots.file import TensorBytes, write_file
from tests.shared.files import ARRAYS, METADATA, SCHEDULE, write


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


def test_a_tensor_that_was_not_finite_is_noted_and_found_again(tmp_path: Path) -> None:
    arrays = {**ARRAYS, "weight": np.array([1.0, np.nan], np.float32)}
    noted = write(SnapshotStore(tmp_path / "noted"), arrays=arrays, nonfinite="weight")
    assert noted.metadata["nonfinite"] == noted.first_nonfinite() == "weight"
    noted.verify()
    silent = write(SnapshotStore(tmp_path / "silent"), arrays=arrays)
    assert silent.metadata["nonfinite"] is None
    assert silent.first_nonfinite() == "weight"
    assert write(SnapshotStore(tmp_path / "whole")).first_nonfinite() is None
    masked = {"mask": np.triu(np.full((600, 600), -np.inf, np.float32), 1)}
    assert write(SnapshotStore(tmp_path / "mask"), arrays=masked).first_nonfinite() is None


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
