"""Snapshots of several folders and files: in which order, under which names, and never twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.snapshots import Snapshot, SnapshotStore
from cosanneal.snapshots.sources import Sources, is_named, names_of
from tests.shared.files import write

NAMES = [f"cycle-{i:04d}-step-{10 * i:010d}" for i in range(4)]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for run in ("a", "b"):
        for i in range(3):
            write(SnapshotStore(tmp_path / run), cycle=i, step=10 * i, metrics={"of": run})
    return tmp_path


def seen(sources: Sources) -> list[tuple[str, int]]:
    return [(each.path.parent.name, each.cycle) for each in sources.list()]


def test_the_order_is_that_given_and_of_a_folder_oldest_first(runs: Path) -> None:
    a, b = runs / "a", SnapshotStore(runs / "b")
    one = b.list()[1]
    assert seen(Sources(a)) == seen(Sources(str(a))) == seen(Sources([a]))
    assert seen(Sources([b, a])) == [("b", i) for i in range(3)] + [("a", i) for i in range(3)]
    assert seen(Sources([one, a])) == [("b", 1), ("a", 0), ("a", 1), ("a", 2)]
    assert seen(Sources((str(a / f"{NAMES[2]}.safetensors"), a / f"{NAMES[0]}.safetensors"))) == [
        ("a", 2),
        ("a", 0),
    ]
    assert seen(Sources(one)) == [("b", 1)]
    alone = Sources(a).store
    assert alone is not None
    assert alone.folder == a
    assert Sources([a]).store is None is Sources(one).store
    assert [each.folder for each in Sources([b, one.path.parent.parent / "a"]).stores] == [
        runs / "b",
        a,
    ]
    both = Sources([a, b, runs / "a" / ".." / "a" / f"{NAMES[0]}.safetensors"]).where
    assert both == f"folders {a} and {b.folder} and file {runs}/a/../a/{NAMES[0]}.safetensors"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], r"at least one folder or file\. Received: \[\]"),
        (3, r"must be a folder, the file of a snapshot.*Received: 3"),
        (["a", None], r"must be a folder, the file of a snapshot.*Received: None"),
        ({"a"}, r"must be a folder, the file of a snapshot.*Received: \{'a'\}"),
        (["a", "a"], r"each snapshot once\. Received: \S+a, twice"),
        (["a", "link"], r"each snapshot once\. Received: \S+link, and \S+a, which is the same"),
        (["a", "a/N1"], r"each snapshot once\. Received: \S+N1\S*, twice"),
        (["a/N1", "a/N1"], r"each snapshot once\. Received: \S+N1\S*, twice"),
        (
            ["a", "a/other.safetensors"],
            r"under its own name.*other\.safetensors, a file of another",
        ),
        (["a/N3"], r"under its own name.*N3\.safetensors, no such file"),
        (["a", "c"], r"must name folders that hold snapshots\. Received: \S+c, which holds none"),
        (["a", "nowhere://b/c"], r"must be of a file system that fsspec reaches"),
    ],
)
def test_what_cannot_be_is_said(
    runs: Path, monkeypatch: pytest.MonkeyPatch, given: Any, message: str
) -> None:
    monkeypatch.chdir(runs)
    (runs / "a" / "other.safetensors").write_bytes(b"x")
    Path("link").symlink_to("a")

    def named(each: Any) -> Any:
        if not isinstance(each, str) or "/N" not in each:
            return each
        return f"a/{NAMES[int(each[-1])]}.safetensors"

    if isinstance(given, list):
        given = [named(each) for each in given]
    for i, name in enumerate(NAMES):
        message = message.replace(f"N{i}", name)
    with pytest.raises(ca.SnapshotError, match=message):
        Sources(given).list()
    if "fsspec" not in message:  # a URL that cannot be is the store's to say
        with pytest.raises(ca.EnsembleError, match=message):
            Sources(given, error=ca.EnsembleError).list()


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["/r/a"], [""]),
        (["/r/a", "/r/b"], ["a/", "b/"]),
        (["/r/a/snaps", "/r/b/snaps"], ["a/snaps/", "b/snaps/"]),
        (["/r/a/x/s", "/r/b/x/s", "/r/a/y/s"], ["a/x/s/", "b/x/s/", "a/y/s/"]),
        (["/s", "/r/s"], ["/s/", "r/s/"]),
    ],
)
def test_names_have_as_much_of_the_folder_as_tells_them_apart(
    folders: list[str], expected: list[str]
) -> None:
    snapshots = [
        Snapshot(Path(folder) / f"{NAMES[1]}.safetensors", cycle=1, step=10) for folder in folders
    ]
    names = list(names_of(snapshots).values())
    assert names == [f"{before}{NAMES[1]}.safetensors" for before in expected]
    for snapshot, name in zip(snapshots, names, strict=True):
        for asked in (name, name.removesuffix(".safetensors")):
            found = [each for each in snapshots if is_named(each, asked)]
            assert found == [snapshot]
        assert is_named(snapshot, NAMES[1])
        assert is_named(snapshot, str(snapshot.path))
        assert not is_named(snapshot, "x")
        assert not is_named(snapshot, "")
    assert names_of([]) == {}


def test_a_folder_that_is_not_there_is_said_with_one_of_a_name_like_it(runs: Path) -> None:
    assert Sources([runs / "a", runs / "b"]).missing() == ""
    (runs / "digits").mkdir()
    (runs / "digit.txt").touch()
    folder = runs / "digit"
    assert Sources(folder).missing() == f"there is no folder {folder}; there is 'digits' beside it"
    folder = runs / "no" / "such"
    assert Sources([runs / "a", folder]).missing() == f"there is no folder {folder}"
