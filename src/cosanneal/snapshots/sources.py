"""Snapshots of several folders and files, in the order given; and names that tell them apart."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from ..core.errors import CosannealError, SnapshotError, shown
from ..core.paths import kind_of, lasting_path, url_of
from .names import SNAPSHOT_NAME
from .store import Snapshot, SnapshotStore

# A folder, a file of one snapshot, the URL of either, or either as an object.
Source: TypeAlias = str | os.PathLike[str] | SnapshotStore | Snapshot


class Sources:
    """Where snapshots are taken from: one folder, or a list of folders, files and snapshots.

    Their order is that of the list, and within a folder oldest first.

    Args:
        given: a folder, its store, the file of a snapshot, the URL of a folder or a snapshot, a
            `Snapshot`, or a list of these.
        name: what the messages call the argument.
        error: what to raise.

    Raises:
        CosannealError: (as `error`) none of these; an empty list; a file that is
            not there or bears no snapshot's name; or what is given twice.

    Attributes:
        stores: those of the folders.
        store: the folder's, where nothing else was given; else None.
    """

    def __init__(
        self,
        given: Source | Sequence[Source],
        *,
        name: str = "Argument `folder`",
        error: type[CosannealError] = SnapshotError,
    ) -> None:
        self._name, self._error = name, error
        several = isinstance(given, list | tuple)
        listed: Sequence[object] = given if several else [given]  # type: ignore[assignment]
        if not listed:
            raise error(f"{name} must name at least one folder or file. Received: {shown(given)}")
        self._sources = [self._of(each) for each in listed]
        self.stores: tuple[SnapshotStore, ...] = tuple(
            each for each in self._sources if isinstance(each, SnapshotStore)
        )
        alone = self.stores and not several
        self.store: SnapshotStore | None = self.stores[0] if alone else None
        self._several = several
        _refuse_twice(
            [
                each.folder if isinstance(each, SnapshotStore) else each.path
                for each in self._sources
            ],
            name,
            error,
        )

    @property
    def where(self) -> str:
        """What they are, for a sentence: "folder runs/a", "folders runs/a and runs/b"."""
        folders = [each.where for each in self.stores]
        files = [str(each.path) for each in self._sources if isinstance(each, Snapshot)]
        parts = [
            f"{noun}{'s' if len(paths) > 1 else ''} {' and '.join(paths)}"
            for noun, paths in (("folder", folders), ("file", files))
            if paths
        ]
        return " and ".join(parts)

    def missing(self) -> str:
        """What to say of a local folder that is not there; nothing where all are."""
        for store in self.stores:
            if store.url is None and not store.folder.is_dir():
                near = difflib.get_close_matches(
                    store.folder.name, _folders_in(store.folder.parent), n=1
                )
                also = f"; there is {near[0]!r} beside it" if near else ""
                return f"there is no folder {store.folder}{also}"
        return ""

    def list(self) -> list[Snapshot]:
        """The snapshots that are there now.

        Raises:
            CosannealError: one of several folders has none, or a snapshot came twice.
        """
        found: list[Snapshot] = []
        for source in self._sources:
            snapshots = [source] if isinstance(source, Snapshot) else source.list()
            if not snapshots and self._several:
                raise self._error(
                    f"{self._name} must name folders that hold snapshots. "
                    f"Received: {source.where}, which holds none"  # type: ignore[union-attr]
                )
            found += snapshots
        _refuse_twice([each.path for each in found], self._name, self._error)
        return found

    def _of(self, source: object) -> SnapshotStore | Snapshot:
        if isinstance(source, SnapshotStore | Snapshot):
            return source
        if not isinstance(source, str | os.PathLike):
            raise self._error(
                f"{self._name} must be a folder, the file of a snapshot, a SnapshotStore, a "
                f"Snapshot, or a list of these. Received: {shown(source)}"
            )
        url = url_of(source)
        if url is not None:
            named = SNAPSHOT_NAME.fullmatch(url.rpartition("/")[2])
            return Snapshot.at(url) if named else SnapshotStore(url)
        path = lasting_path(source, error=SnapshotError)
        kind, named = kind_of(path, error=SnapshotError), SNAPSHOT_NAME.fullmatch(path.name)
        if kind == "file" and named:
            return Snapshot(path, cycle=int(named[1]), step=int(named[2]))
        if kind == "file" or named:
            what = "a file of another name" if kind == "file" else "no such file"
            raise self._error(
                f"{self._name} must be a folder, or the file of a snapshot under its own name, "
                f"cycle-0003-step-0000012000.safetensors. Received: {path}, {what}"
            )
        return SnapshotStore(path)


def _folders_in(parent: Path) -> list[str]:
    """The names of the folders beside one that is looked for."""
    try:
        return [each.name for each in parent.iterdir() if each.is_dir()]
    except OSError:
        return []


def names_of(snapshots: Iterable[Snapshot]) -> dict[Snapshot, str]:
    """A name for each snapshot: its file's, after as much of the folder's as tells several apart.

    Example:
        >>> from pathlib import Path
        >>> name = "cycle-0001-step-0000000010.safetensors"
        >>> a, b = (Snapshot(Path(f"/runs/{x}/best/{name}"), cycle=1, step=10) for x in "ab")
        >>> list(names_of([a, b]).values())[0]
        'a/best/cycle-0001-step-0000000010.safetensors'
    """
    snapshots = list(snapshots)
    folders = list(dict.fromkeys(each.path.parent for each in snapshots))
    depth = 0
    while len({_tail(folder, depth) for folder in folders}) < len(folders):
        depth += 1
    return {
        each: Path(*_tail(each.path.parent, depth), each.path.name).as_posix() for each in snapshots
    }


def is_named(snapshot: Snapshot, name: str) -> bool:
    """Whether a name is a snapshot's: its file's, with or without its end and some folders."""
    wanted = Path(name.removesuffix(".safetensors")).parts
    parts = (*snapshot.path.parent.parts, snapshot.path.name.removesuffix(".safetensors"))
    return bool(wanted) and parts[-len(wanted) :] == wanted


def _tail(folder: Path, depth: int) -> tuple[str, ...]:
    return folder.parts[-depth:] if depth else ()


def _refuse_twice(paths: Iterable[Path], name: str, error: type[CosannealError]) -> None:
    seen: dict[str, Path] = {}
    for path in paths:
        real = os.path.realpath(path)
        if real in seen:
            raise error(
                f"{name} must name each snapshot once. Received: {path}"
                + (f", and {seen[real]}, which is the same" if seen[real] != path else ", twice")
            )
        seen[real] = path
