"""Which recorder of this process has a folder, and when the next one takes it over.

A notebook's cell that is run again makes a second recorder for the folder, while
a variable, a cycle or the traceback of an exception keeps the first.
"""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path

from ..core.errors import SnapshotError, plural
from .lock import FolderLock
from .store import SnapshotStore
from .writer import Writer


class Tenancy:
    """A recorder's right to write to its folder.

    Another recorder of the process takes it over where it is made in the same
    thread and this one is not inside of its `with` block, or is gone: it waits
    for what this one has taken, and this one is `lost`.

    Args:
        store: the folder.
        writer: what the recorder writes by.
        turn: held while the recorder is stepped.

    Raises:
        SnapshotError: another recorder has the folder, or it cannot be written to.
    """

    def __init__(self, store: SnapshotStore, writer: Writer, turn: threading.RLock) -> None:
        self._store, self._writer, self._turn = store, writer, turn
        self._process = os.getpid()
        self._thread = weakref.ref(threading.current_thread())
        self.inside: bool = False  # of the recorder's `with` block
        self.dropped = False  # whether the recorder is gone
        self.lost: bool = False
        # What the folder held when the recorder let others write to it.
        self._left: list[Path] | None = None
        for other in tuple(_tenants):
            if other._process == self._process and other._is_of(store.folder):
                other.give_way()
        self._lock = FolderLock(store.folder)
        try:
            self._lease = store.lease()
        except BaseException:
            self._lock.release()
            raise
        _tenants.add(self)

    @property
    def resting(self) -> bool:
        """Whether others may write to the folder until `go_on`."""
        return self._left is not None

    def check(self) -> None:
        """Refuse to go on once another recorder has taken the folder over.

        Raises:
            SnapshotError: one has.
        """
        if self.lost:
            raise SnapshotError(
                f"A recorder must have its folder, {self._store.where}, for itself. Received: "
                "another recorder of this process took the folder over; step that one"
            )

    def confirmed(self) -> SnapshotStore:
        """The folder, to write a snapshot to, once it is seen that it is not another's by now.

        One that was removed and made again may be written to, and a lock's file
        that was removed is made again.

        Raises:
            SnapshotError: it was replaced by one with snapshots, or another recorder has it.
        """
        if not self._lock.is_of_folder and (found := self._store.list()):
            raise SnapshotError(
                f"Folder {self._store.where} must stay where it is while a recorder writes to it. "
                f"Received: another folder of that name, with {plural(len(found), 'snapshot')} "
                "that the recorder did not write; make a new recorder, for another folder"
            )
        self._lock.keep()
        if self._lease is not None:
            self._lease.check()
        return self._store

    def enter(self) -> None:
        """Begin the recorder's `with` block; errors as of `check`."""
        self.check()
        self.inside = True

    def give_way(self) -> None:
        """Leave the folder to another recorder, once all that was taken is written.

        Raises:
            SnapshotError: the recorder is not to be disturbed.
        """
        if not self.dropped and (self.inside or self._thread() is not threading.current_thread()):
            why = "inside of its `with` block" if self.inside else "made in another thread"
            raise SnapshotError(
                f"Folder {self._store.where} must have one recorder at a time. Received: one that "
                f"another recorder of this process is writing to, {why}; call its close() first, "
                "or choose another folder. Where no variable holds it, an exception's traceback may"
            )
        with self._turn:
            self.lost = True
            self._writer.wait()
            self.end()

    def end(self) -> None:
        """Let others write to the folder; doing so twice is fine."""
        try:
            if self._lease is not None:
                self._lease.release()
        finally:
            self._lock.release()
            _tenants.discard(self)

    def rest(self) -> None:
        """Let others write to the folder until `go_on`."""
        self._left = [snapshot.path for snapshot in self._store.list()]
        self.end()

    def go_on(self) -> None:
        """Keep others out of the folder again, in which nobody may have written meanwhile.

        Raises:
            SnapshotError: somebody has, or another recorder has the folder.
        """
        self.check()
        if self._left is None:
            return
        self._lock.acquire()
        try:
            if self._lease is not None:
                self._lease.acquire()
        except BaseException:
            self._lock.release()
            raise
        found = [snapshot.path for snapshot in self._store.list()]
        if found != self._left:
            self.end()
            raise SnapshotError(
                f"Folder {self._store.where} must hold the {len(self._left)} snapshots that the "
                f"recorder left there. Received: {len(found)}, or others; make a new recorder"
            )
        self._left = None
        _tenants.add(self)

    def _is_of(self, folder: Path) -> bool:
        try:
            return folder == self._store.folder or folder.samefile(self._store.folder)
        except OSError:
            return False


# Those of this process that have their folders, also of recorders that are gone.
_tenants: set[Tenancy] = set()


class Onlooker:
    """What a recorder has in place of a tenancy where another process has the folder."""

    inside = dropped = lost = False
    resting = False

    def check(self) -> None:
        """Nobody can take over what it does not have."""

    def confirmed(self) -> SnapshotStore:
        """There is nothing to write to."""
        raise SnapshotError("Another process writes to the folder. Received: a snapshot to write")

    def enter(self) -> None:
        """Begin the recorder's `with` block."""

    def end(self) -> None:
        """Nothing was held."""

    def rest(self) -> None:
        """Nothing was held."""

    def go_on(self) -> None:
        """Nothing is held."""
