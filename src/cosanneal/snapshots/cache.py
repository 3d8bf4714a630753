"""Local copies of a store's snapshots: where they are, which are in use, and which go for others.

A copy that is read is locked by whoever reads it (`flock`, shared), so that no process takes it
away meanwhile; the lock ends with the file's being closed, however that comes. Windows removes no
open file by itself.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, Final

from ..core.documents import open_regular
from ..core.errors import SnapshotError, shown
from ..core.paths import lasting_path

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

CACHE_BYTES: Final = 16 * 10**9
_VARIABLE: Final = "COSANNEAL_CACHE"


@dataclass(frozen=True)
class Cache:
    """A folder of local copies, of bounded size.

    Args:
        root: the folder, of all stores together.
        most: how many bytes its snapshots may have. The least recently used go first; those
            that are open stay, so that it may be larger while they are.
    """

    root: Path
    most: int

    @classmethod
    def of(cls, root: str | os.PathLike[str] | None, most: int | None) -> Cache:
        """The cache that was asked for: by default $COSANNEAL_CACHE, else in the user's own.

        Raises:
            SnapshotError: no path, or no number of bytes.
        """
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 0):
            raise SnapshotError(
                "Argument `cache_bytes` must be an integer of at least 0 (bytes). "
                f"Received: cache_bytes={shown(most)}"
            )
        if root is None:
            root = os.environ.get(_VARIABLE) or _users_own() / "cosanneal"
        return cls(lasting_path(root, error=SnapshotError), CACHE_BYTES if most is None else most)

    def opened(self, path: Path) -> BinaryIO | None:
        """A copy, opened so that it stays until it is closed; None if there is none.

        Raises:
            OSError: it cannot be opened.
        """
        while True:
            try:
                file = open_regular(path, links=False, remedy="delete it")
            except FileNotFoundError:
                return None
            try:
                if fcntl is not None:
                    # A file system without locks: then it goes while it is open, which breaks
                    # nothing but a second opening.
                    with contextlib.suppress(OSError):
                        fcntl.flock(file, fcntl.LOCK_SH)
                # Its last use, finer than the system's own clock for files.
                os.utime(path, ns=(time.time_ns(),) * 2)
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
            except FileNotFoundError:  # it went between the opening and the lock
                pass
            except BaseException:
                file.close()
                raise
            file.close()

    def make_room(self) -> None:
        """Delete the least recently used copies until the others have no more than `most` bytes."""
        copies = sorted(self._copies())
        total = sum(size for _, size, _ in copies)
        for _, size, path in copies:
            if total <= self.most:
                return
            if _deleted(path):
                total -= size

    def _copies(self) -> Iterator[tuple[int, int, Path]]:
        for path in self.root.rglob("cycle-*.safetensors"):
            with contextlib.suppress(OSError):  # it went meanwhile
                found = path.lstat()
                yield found.st_mtime_ns, found.st_size, path


def _deleted(path: Path) -> bool:
    """Whether a copy could be deleted, which nobody has open."""
    try:
        if fcntl is None:
            path.unlink()
            return True
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        return True
    except OSError:
        return not path.exists()


def _users_own() -> Path:
    """The folder of the user's caches, by the platform's convention."""
    name = "LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"
    given = os.environ.get(name)
    return Path(given) if given and Path(given).is_absolute() else Path("~/.cache")
