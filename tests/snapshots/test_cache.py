"""The local copies of a store's snapshots: how many there are, and which go first."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.snapshots import SnapshotStore
from cosanneal.snapshots.cache import CACHE_BYTES, Cache
from tests.shared.faulty import FaultyFileSystem
from tests.shared.recording import EVERY_STEP, ArrayRecorder, filled


def recorded(url: str, tmp_path: Path, count: int = 4) -> int:
    """Record snapshots from another machine; and how many bytes one has."""
    with ArrayRecorder(SnapshotStore(url, cache=tmp_path / "other"), EVERY_STEP) as recorder:
        for value in range(count):
            recorder.step(filled(value))
    sizes = {each.size for each in SnapshotStore(url).list()}
    assert len(sizes) == 1
    return sizes.pop()


def copies(store: SnapshotStore) -> list[int]:
    """The cycles of those that are here."""
    return sorted(int(path.name[6:10]) for path in store.folder.glob("cycle-*"))


def test_the_least_recently_used_go_first(url: str, tmp_path: Path) -> None:
    size = recorded(url, tmp_path)
    store = SnapshotStore(url, cache_bytes=2 * size)
    a, b, c, d = store.list()
    for each in (a, b):
        each.load()
    assert copies(store) == [0, 1]
    a.load()
    c.load()  # for b, which was used before a
    assert copies(store) == [0, 2]
    d.load()
    assert copies(store) == [2, 3]
    assert FaultyFileSystem.count("get_file") == 4
    assert (b.load()["w"] == 1).all()
    assert copies(store) == [1, 3]


def test_the_bound_is_of_all_stores_together(url: str, tmp_path: Path) -> None:
    size = recorded(url, tmp_path, 2)
    recorded(f"{url}2", tmp_path, 2)
    one, two = (SnapshotStore(each, cache_bytes=2 * size) for each in (url, f"{url}2"))
    one.verify()
    assert (copies(one), copies(two)) == ([0, 1], [])
    two.list()[0].load()
    assert (copies(one), copies(two)) == ([1], [0])


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps what is open by itself")
def test_one_that_is_open_stays(url: str, tmp_path: Path) -> None:
    recorded(url, tmp_path)
    store = SnapshotStore(url, cache_bytes=0)
    a, b, c, d = store.list()
    with a.open() as first:
        with b.open():
            assert copies(store) == [0, 1]
        assert (first.load("pt")["w"] == 0).all()  # which opens the file once more
        c.load()
        assert copies(store) == [0, 2]  # the other, which was closed, went for it
        held = first["w"]
    d.load()
    assert copies(store) == [3]
    assert (held == 0).all()


def test_a_recorder_keeps_no_more_than_that(url: str, tmp_path: Path) -> None:
    size = recorded(f"{url}0", tmp_path, 1)
    store = SnapshotStore(url, cache_bytes=2 * size)
    with ArrayRecorder(store, EVERY_STEP) as recorder:
        for value in range(5):
            recorder.step(filled(value))
    assert copies(store) == [3, 4]
    assert len(store.list()) == store.verify() == 5


def test_one_that_is_being_put_stays(url: str, tmp_path: Path) -> None:
    recorded(f"{url}2", tmp_path, 1)
    there: list[bool] = []

    def fetch(real: Any, path: str, target: str, **options: Any) -> None:
        SnapshotStore(f"{url}2", cache_bytes=0).list()[0].load()
        there.append(Path(path).exists())
        real(path, target, **options)

    FaultyFileSystem.faults["put_file"] = [fetch]
    with ArrayRecorder(url, EVERY_STEP) as recorder:
        recorder.step(filled(0))
    assert there == [True]


def test_the_bound_is_kept_to_the_byte(url: str, tmp_path: Path) -> None:
    size = recorded(url, tmp_path, 2)
    for less, kept in ((1, [1]), (0, [0, 1])):
        store = SnapshotStore(url, cache=tmp_path / str(less), cache_bytes=2 * size - less)
        for each in store.list():
            each.load()
        assert copies(store) == kept


def test_a_copy_that_was_deleted_or_damaged_is_fetched_again(url: str, tmp_path: Path) -> None:
    recorded(url, tmp_path, 1)
    store = SnapshotStore(url)
    snapshot = store.list()[0]
    snapshot.load()
    content = bytearray(snapshot.path.read_bytes())
    content[-3] ^= 1
    snapshot.path.write_bytes(content)
    with pytest.raises(ca.SnapshotError, match=rf"{snapshot.path} is damaged.*delete it"):
        snapshot.load()
    snapshot.path.unlink()
    assert (snapshot.load()["w"] == 0).all()


def test_several_that_want_one_fetch_it_once(url: str, tmp_path: Path) -> None:
    recorded(url, tmp_path, 1)
    found: list[Any] = []

    def slow(real: Any, *arguments: Any, **options: Any) -> None:
        time.sleep(0.1)
        real(*arguments, **options)

    FaultyFileSystem.faults["get_file"] = [slow] * 6

    def read() -> None:
        found.append(SnapshotStore(url).list()[0].load()["w"][0])

    threads = [threading.Thread(target=read) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == [0] * 6
    assert FaultyFileSystem.count("get_file") == 1


def test_what_a_killed_fetch_left_goes(url: str, tmp_path: Path) -> None:
    recorded(url, tmp_path, 1)
    store = SnapshotStore(url)
    store.folder.mkdir(parents=True)
    (store.folder / ".fetch-00ff00ff.tmp").write_bytes(b"half")
    store.list()[0].load()
    assert [*store.folder.glob(".fetch-*.tmp")] == []


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSANNEAL_CACHE", str(tmp_path / "c"))
    assert Cache.of(None, None) == Cache(tmp_path / "c", CACHE_BYTES)
    assert Cache.of(tmp_path / "d", 7) == Cache(tmp_path / "d", 7)
    store = SnapshotStore("memory://bucket/a b/run:1", cache=tmp_path)
    assert store.folder == tmp_path / "memory/bucket/a b/run%3A1"
    monkeypatch.delenv("COSANNEAL_CACHE")
    name = "LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"
    monkeypatch.setenv(name, str(tmp_path))
    assert Cache.of(None, None).root == tmp_path / "cosanneal"
    monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    if os.name != "nt":
        assert Cache.of(None, None).root == tmp_path / ".cache/cosanneal"


@pytest.mark.parametrize("given", [-1, 1.5, "1", True])
def test_what_is_no_number_of_bytes_is_refused(given: Any) -> None:
    with pytest.raises(ca.SnapshotError, match=r"`cache_bytes` must be an integer of at least 0"):
        SnapshotStore("memory://a/b", cache_bytes=given)


def test_a_cache_that_cannot_be_written_to_is_named(url: str, tmp_path: Path) -> None:
    recorded(url, tmp_path, 1)
    (tmp_path / "file").write_text("in the way")
    store = SnapshotStore(url, cache=tmp_path / "file")
    assert store.list()[0].metadata["step"] == 1
    with pytest.raises(ca.SnapshotError, match=r"local copies, \S+, must be one that can be"):
        store.list()[0].load()
