"""A folder of snapshots at a URL: what is written there, found there, and fetched."""

from __future__ import annotations

import pickle
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

import cosanneal as ca
from cosanneal.snapshots import Snapshot, SnapshotStore, storage
from cosanneal.snapshots.capture import EachStep
from cosanneal.snapshots.ranks import Ranks
from cosanneal.snapshots.recorder import Recorder
from cosanneal.snapshots.sources import Sources
from tests.shared.faulty import FaultyFileSystem
from tests.shared.files import write
from tests.shared.ranks import together
from tests.shared.recording import ArrayCapture, ArrayRecorder, contents, filled

SCHEDULE = ca.CyclicCosine(0.1, total_steps=6, num_cycles=3)
NAMES = [f"cycle-{i:04}-step-{2 * i + 2:010}.safetensors" for i in range(3)]
LOSSES = [3, 1, 2, 5, 4, 0]


def train(folder: Any, begin: int = 0, stop: int = 6, **options: Any) -> ArrayRecorder:
    with ArrayRecorder(folder, SCHEDULE, **options) as recorder:
        for step in range(begin, stop):
            recorder.step(filled(step, 300_000), {"loss": float(LOSSES[step])})
    return recorder


@pytest.mark.parametrize(
    "options",
    [{}, {"keep_last": 2}, {"keep_best": 1, "metric": "loss"}, {"background": False}],
)
def test_a_run_leaves_at_a_url_what_it_leaves_in_a_folder(
    tmp_path: Path, url: str, options: Any
) -> None:
    train(tmp_path / "local", **options)
    statistics = train(url, **options).statistics
    expected = contents(tmp_path / "local")
    assert contents(tmp_path / "store/run") == expected
    assert (statistics.taken, statistics.durable, statistics.failed) == (3, 3, 0)
    found = SnapshotStore(url).list()
    assert [each.path.name for each in found] == sorted(expected)
    local = SnapshotStore(tmp_path / "local").list()
    assert [each.metadata for each in found] == [each.metadata for each in local]
    assert [each.layout() for each in found] == [each.layout() for each in local]
    assert [each.size for each in found] == [each.size for each in local]
    assert all(each.written is not None for each in found)
    assert SnapshotStore(url).verify() == len(expected)


def test_the_memory_of_fsspec_is_a_store_as_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSANNEAL_CACHE", str(tmp_path))
    train("memory://test-storage/run", keep_last=2)
    files = fsspec.filesystem("memory")
    assert (
        sorted(Path(each).name for each in files.ls("/test-storage/run", detail=False))
        == (NAMES[1:])
    )
    train("memory://test-storage/run", 4, resume_from=4)
    assert SnapshotStore("memory://test-storage/run").verify() == 2
    files.rm("/test-storage", recursive=True)


@pytest.mark.parametrize("whole", [True, False])
def test_an_object_has_its_name_when_it_is_whole_and_read_back(
    url: str, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    monkeypatch.setattr(storage, "WHOLE", {"faulty"} if whole else set())
    Path(url.removeprefix("faulty://")).mkdir(parents=True)
    train(url, stop=2)
    calls = [each for each in FaultyFileSystem.calls if each[0] in ("put_file", "mv")]
    if whole:
        assert calls == [("put_file", NAMES[0])]
    else:
        (put, temporary), moved = calls
        assert put == "put_file"
        assert temporary.startswith(f".{NAMES[0]}.")
        assert moved == ("mv", NAMES[0])
    # Piece by piece, and at the end once more what it begins with.
    assert FaultyFileSystem.count("cat_file", calls[0][1]) >= 1


def test_a_snapshot_is_durable_once_it_is_in_the_store(url: str, tmp_path: Path) -> None:
    seen: list[tuple[str, bytes]] = []

    def look(snapshot: Snapshot) -> None:
        there = tmp_path / "store/run" / snapshot.path.name
        assert snapshot.path.read_bytes() == there.read_bytes()
        seen.append((snapshot.path.name, there.read_bytes()))
        assert recorder.statistics.durable == len(seen)

    with ArrayRecorder(url, SCHEDULE, on_durable=look) as recorder:
        for step in range(6):
            recorder.step(filled(step))
    assert [name for name, _ in seen] == NAMES


def test_a_slow_store_holds_back_what_is_durable_and_not_the_loop(url: str, tmp_path: Path) -> None:
    gate, reached = threading.Event(), threading.Event()

    def wait(real: Any, *arguments: Any, **options: Any) -> None:
        reached.set()
        assert gate.wait(30)
        real(*arguments, **options)

    FaultyFileSystem.faults["put_file"] = [wait]
    with ArrayRecorder(url, SCHEDULE) as recorder:
        recorder.step(filled(0))
        recorder.step(filled(1))
        assert reached.wait(30)
        recorder.step(filled(2))  # it goes on
        assert recorder.statistics.durable == 0
        assert not [*tmp_path.glob("store/run/*.safetensors")]
        gate.set()
        recorder.wait()
        assert recorder.statistics.durable == 1
        assert [each.step for each in SnapshotStore(url).list()] == [2]
        for _ in range(3):
            recorder.step(filled(3))


def test_what_is_no_snapshot_is_passed_over(url: str, tmp_path: Path) -> None:
    train(url)
    there = tmp_path / "store/run"
    (there / "notes.txt").write_text("not ours")
    (there / "cycle-00009-step-0000000009.safetensors").write_bytes(b"one zero more")
    (there / "cycle-0009-step-0000000099.safetensors").mkdir()
    (there / "cycle-0008-step-0000000098.safetensors").symlink_to(there / NAMES[0])
    (there / f".{NAMES[0]}.0a1b2c3d.tmp").write_bytes(b"half")
    assert [each.path.name for each in SnapshotStore(url).list()] == NAMES
    assert SnapshotStore(f"{url}/nothing").list() == []


@pytest.mark.parametrize("content", [b"", b"foreign", b"\xff" * 100_000, b"\x10\0\0\0\0\0\0\0{}"])
def test_a_foreign_object_of_a_snapshots_name_is_refused_by_its_url(
    url: str, tmp_path: Path, content: bytes
) -> None:
    train(url)
    (tmp_path / "store/run" / NAMES[1]).write_bytes(content)
    foreign = SnapshotStore(url).list()[1]
    for read in (lambda: foreign.metadata, foreign.layout, foreign.load, foreign.verify):
        with pytest.raises(ca.SnapshotError, match=rf"{url}/{NAMES[1]} could not be read: "):
            read()
    with pytest.raises(ca.SnapshotError, match=r"1 of 3 snapshots in faulty://\S+ are damaged"):
        SnapshotStore(url).verify()


def test_a_damaged_object_is_never_read(url: str, tmp_path: Path) -> None:
    train(SnapshotStore(url, cache=tmp_path / "other"))
    there = tmp_path / "store/run" / NAMES[1]
    content = bytearray(there.read_bytes())
    content[-5] ^= 1
    there.write_bytes(content)
    damaged = SnapshotStore(url).list()[1]
    assert damaged.metadata["step"] == 4  # whose digest is right
    with pytest.raises(ca.SnapshotError, match=rf"{url}/{NAMES[1]} is damaged: its tensor 'w'"):
        damaged.load()
    assert FaultyFileSystem.count("get_file", NAMES[1]) == 2  # no chance, then
    assert not damaged.path.exists()
    assert [*damaged.path.parent.glob(".fetch-*.tmp")] == []


def test_a_header_is_read_by_itself_and_a_file_is_fetched_once(url: str, tmp_path: Path) -> None:
    train(SnapshotStore(url, cache=tmp_path / "other"))
    FaultyFileSystem.calls.clear()
    first, *_ = SnapshotStore(url).list()
    assert first.metadata["step"] == 2
    assert FaultyFileSystem.calls == [("ls", "run"), ("cat_file", NAMES[0])]
    assert not first.path.exists()
    for store in (SnapshotStore(url), SnapshotStore(url)):
        assert (store.list()[0].load()["w"] == 1).all()
    assert FaultyFileSystem.count("get_file") == 1


def test_a_header_of_many_tensors_is_read_whole(url: str, tmp_path: Path) -> None:
    arrays = {f"layer/{i:04}/weight": np.full(3, i, np.float32) for i in range(2000)}
    write(SnapshotStore(url, cache=tmp_path / "other"), arrays=arrays)
    found = SnapshotStore(url).list()[0]
    assert found.layout() == dict.fromkeys(arrays, ((3,), "float32"))
    assert FaultyFileSystem.count("get_file") == 0
    assert (found.load()["layer/1999/weight"] == 1999).all()


def test_another_snapshot_of_the_same_name_is_fetched_anew(url: str, tmp_path: Path) -> None:
    train(SnapshotStore(url, cache=tmp_path / "other"))
    before = SnapshotStore(url).list()[0]
    assert (before.load()["w"] == 1).all()
    with ArrayRecorder(
        SnapshotStore(url, cache=tmp_path / "other"), SCHEDULE, resume_from=0
    ) as recorder:
        for _ in range(6):
            recorder.step(filled(7, 300_000))
    after = SnapshotStore(url).list()[0]
    assert after.path == before.path
    assert (after.load()["w"] == 7).all()
    # What was looked at does not become another under its reader's hands.
    with pytest.raises(ca.SnapshotError, match=r"must stay as it is.*another of that name by now"):
        before.load()


def test_an_object_that_is_gone_is_said(url: str, tmp_path: Path) -> None:
    train(SnapshotStore(url, cache=tmp_path / "other"))
    first, second, _ = SnapshotStore(url).list()
    assert first.metadata["step"] == 2
    for each in (tmp_path / "store/run").glob("cycle-*"):
        each.unlink()
    for gone in (first, second):
        with pytest.raises(ca.SnapshotError, match=r"could not be read: it is not there"):
            gone.load()


def test_a_store_a_snapshot_and_a_file_at_a_url_are_sources(url: str) -> None:
    train(url)
    train(f"{url}2")
    assert [each.path.name for each in Sources(f"{url}/").list()] == NAMES
    several = Sources([url, f"{url}2/{NAMES[0]}", SnapshotStore(f"{url}3")])
    assert several.store is None
    alone = Sources(url).store
    assert alone is not None
    assert alone.url == url
    assert f"{url} and {url}3" in several.where
    with pytest.raises(ca.SnapshotError, match=rf"Received: {url}3, which holds none"):
        several.list()
    one = Snapshot.at(f"{url}2/{NAMES[0]}")
    assert (one.step, (one.load()["w"] == 1).all()) == (2, True)
    with pytest.raises(ca.SnapshotError, match=r"must name each snapshot once"):
        Sources([url, f"{url}/{NAMES[0]}"]).list()
    with pytest.raises(ca.SnapshotError, match=r"of which there is none"):
        Snapshot.at(f"{url}2/cycle-0009-step-0000000009.safetensors")


def test_a_run_goes_on_on_another_machine(url: str, tmp_path: Path) -> None:
    def machine(name: str) -> SnapshotStore:
        return SnapshotStore(url, cache=tmp_path / name)

    train(machine("a"), stop=4)
    train(machine("b"), 4, resume_from=4)
    train(tmp_path / "whole")
    assert contents(tmp_path / "store/run") == contents(tmp_path / "whole")
    # Only headers were asked for.
    assert FaultyFileSystem.count("get_file") == 0
    other = ca.CyclicCosine(0.3, total_steps=6, num_cycles=3)
    given: Any
    for given, message in (
        ({}, rf"Folder {url} must hold no snapshots of another run\. Received: 3, up to step 6"),
        ({"resume_from": 4}, r"must be resumed with the schedule it began with"),
    ):
        with (
            pytest.raises(ca.SnapshotError, match=message),
            ArrayRecorder(machine("c"), other, **given) as recorder,
        ):
            recorder.step(filled(1))
    with (
        pytest.raises(ca.SnapshotError, match=rf"Folder {url} must hold snapshots of this model"),
        ArrayRecorder(machine("c"), SCHEDULE, resume_from=6) as recorder,
    ):
        recorder.step({"other": np.zeros(3)})
    assert SnapshotStore(url).verify() == 3
    # From before the last, which is replaced; and over.
    train(machine("d"), 3, resume_from=3)
    assert contents(tmp_path / "store/run") == contents(tmp_path / "whole")
    with ArrayRecorder(machine("e"), other, overwrite=True) as recorder:
        recorder.step({"other": np.zeros(3)})
        recorder.step({"other": np.zeros(3)})
        recorder.wait()
        assert [each.step for each in SnapshotStore(url).list()] == [2]
        for _ in range(4):
            recorder.step({"other": np.zeros(3)})


def test_of_several_processes_the_first_alone_asks_the_store(url: str, tmp_path: Path) -> None:
    asked: list[int] = []

    def run(ranks: Ranks, rank: int) -> Any:
        store = SnapshotStore(url, storage_options={"rank": rank}, cache=tmp_path / "cache")
        capture = ArrayCapture()
        capture.weights = filled(rank)
        with Recorder(store, SCHEDULE, capture, EachStep(), ranks=ranks) as recorder:
            for _ in range(6):
                recorder.look()
        return recorder.statistics.taken

    class Asked(FaultyFileSystem):
        def __init__(self, *, rank: int) -> None:
            asked.append(rank)
            super().__init__()

    fsspec.register_implementation("faulty", Asked, clobber=True)
    assert together(run) == [3, 3, 3]
    assert asked == [0]
    assert sorted(contents(tmp_path / "store/run")) == NAMES


def test_a_store_and_its_snapshots_are_pickled(url: str) -> None:
    train(url)
    store = pickle.loads(pickle.dumps(SnapshotStore(url, storage_options={"auto_mkdir": True})))  # noqa: S301
    snapshot = pickle.loads(pickle.dumps(store.list()[2]))  # noqa: S301
    assert (snapshot.load()["w"] == 5).all()
    assert repr(store) == f"SnapshotStore({url!r})"
    assert repr(snapshot) == f"<Snapshot: cycle 2, step 6, '{url}/{NAMES[2]}'>"
    # Stores that their options tell apart have copies of their own.
    assert store.folder != SnapshotStore(url).folder


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("file:///home/run", r"a local folder's; give its path, '/home/run'"),
        ("local:///home/run", r"a local folder's"),
        ("simplecache::memory://run", r"a chain of several; the copies here are"),
        ("memory://", r"no folder"),
        ("memory://a/../b", r"one with `\.`, `\.\.`, or a character"),
        ("memory://a/*", r"or a character that fsspec reads as a pattern"),
        ("memory://a?versionId=3", r"or a character that fsspec reads as a pattern or a query"),
        ("sftp://me:secret@host/run", r"Received: 'sftp://\.\.\.', one with a password"),
        (
            Path("s3://bucket/run"),
            r"'s3:/bucket/run', a URL, which is taken .*as a str",
        ),
        ("nowhere://a/b", r"of a file system that fsspec reaches\. Received: .*nowhere"),
    ],
)
def test_what_is_no_url_of_a_folder_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ca.SnapshotError, match=message) as caught:
        SnapshotStore(given)
    assert "secret" not in str(caught.value)


def test_fsspec_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(
        ca.MissingExtraError,
        match=r"'fsspec', which is not installed.*pip install 'cosanneal\[remote\]'",
    ):
        SnapshotStore("memory://a/b")
    assert SnapshotStore("a/b").list() == []


@pytest.mark.parametrize("name", ["storage_options", "cache", "cache_bytes"])
def test_what_is_for_urls_is_refused_for_a_folder(name: str) -> None:
    given: Any = {"storage_options": {}, "cache": "c", "cache_bytes": 5}[name]
    with pytest.raises(ca.SnapshotError, match=rf"`{name}` is for a folder at a URL"):
        SnapshotStore("runs", **{name: given})


def test_storage_options_are_the_file_systems(url: str, tmp_path: Path) -> None:
    class Asked(FaultyFileSystem):
        def __init__(self, *, key: str) -> None:
            assert key == "k"
            super().__init__()

    fsspec.register_implementation("faulty", Asked, clobber=True)
    train(SnapshotStore(url, storage_options={"key": "k"}))
    assert sorted(contents(tmp_path / "store/run")) == NAMES
    with pytest.raises(ca.SnapshotError, match=r"could not be reached: TypeError"):
        SnapshotStore(url).list()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"LastModified": datetime(2026, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))}, 3),
        ({"last_modified": datetime(2026, 3, 4, 5)}, 5),
        ({"mtime": 1_772_600_400.0}, 5),
        ({"created": "yesterday"}, None),
        ({}, None),
    ],
)
def test_what_a_store_says_of_an_object_is_taken_as_it_comes(
    url: str, said: Any, expected: int | None
) -> None:
    """When it was written; and where its size is not in the listing, it is asked for."""
    train(url)

    def listed(real: Any, *arguments: Any, **options: Any) -> Any:
        return [
            {"name": each["name"], "type": "file", "size": None, **said}
            for each in real(*arguments, **options)
        ]

    FaultyFileSystem.faults["ls"] = [listed]
    first, *_ = SnapshotStore(url).list()
    hour = None if expected is None else datetime(2026, 3, 4, expected, tzinfo=UTC)
    assert first.written == hour
    assert first.size == Path(f"{url.removeprefix('faulty://')}/{NAMES[0]}").stat().st_size
