"""The lock that keeps a second writer out of a folder. Readers do not need it.

It is the operating system's, on a file of the folder's, so that it ends with the
process that holds it, however that ends. POSIX record locks serve here: they
work over network file systems, and are not inherited by child processes, which
may outlive a run that was killed. They do not tell two holders of one process
apart, so that the process keeps a list of its own.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Final

from ..core.errors import SnapshotError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_log = logging.getLogger(__name__)

LOCK_NAME: Final = ".cosanneal.lock"

# What file systems without locks answer.
_NO_LOCKS: Final = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}

_held: set[tuple[int, int]] = set()
# Reentrant, for the collector may end a dropped recorder, which gives its lock back, in here.
_guard = threading.RLock()


def _start_afresh() -> None:
    """In a child process, which holds none of its parent's locks."""
    global _guard
    _guard = threading.RLock()
    _held.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_start_afresh)


class FolderLock:
    """The right to write to a folder, until it is released or the process ends.

    Raises:
        SnapshotError: another recorder has it (the message names its process),
            or the folder cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_NAME
        self._identity: tuple[int, int] | None = None
        self.acquire()

    def acquire(self) -> None:
        """Take the right again after it was released; errors as at first."""
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor, self._identity = self._acquire()
        except OSError as error:
            raise SnapshotError(
                f"Folder {folder} must be a folder that can be written to. "
                f"Received: {error.strerror or error}"
            ) from error

    def release(self) -> None:
        """Give the right back; doing so twice is fine."""
        with _guard:
            if self._identity is None:
                return
            _held.discard(self._identity)
            # Only our own, for the folder may be another by now.
            try:
                ours = self._identity == _identity(self._path)
            except OSError:  # out of reach
                ours = False
            self._identity = None
            if ours and sys.platform != "win32":
                # While it is still locked: who waits for it finds that it is gone.
                with contextlib.suppress(OSError):
                    self._path.unlink()
            os.close(self._descriptor)
            if ours and sys.platform == "win32":
                with contextlib.suppress(OSError):
                    self._path.unlink()

    def _acquire(self) -> tuple[int, tuple[int, int] | None]:
        with _guard:
            while True:
                # Not even opened: closing it would end a lock this process has.
                if _identity(self._path) in _held:
                    raise self._refusal("another recorder of this process")
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
                try:
                    self._lock(descriptor)
                    status = os.fstat(descriptor)
                    identity = (status.st_dev, status.st_ino)
                    if identity == _identity(self._path):
                        os.ftruncate(descriptor, 0)
                        os.write(descriptor, f"{os.getpid()} on {socket.gethostname()}".encode())
                        _held.add(identity)
                        return descriptor, identity
                except BaseException:
                    os.close(descriptor)
                    raise
                os.close(descriptor)  # its last holder removed it meanwhile

    def _lock(self, descriptor: int) -> None:
        try:
            if sys.platform == "win32":
                # Far behind the text, which others must be able to read.
                os.lseek(descriptor, 1 << 30, os.SEEK_SET)
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                os.lseek(descriptor, 0, os.SEEK_SET)
            else:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                _log.warning(
                    "Folder %s is on a file system without locks (%s): a second recorder on it "
                    "would not be noticed",
                    self._path.parent,
                    error.strerror,
                )
                return
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise
            os.lseek(descriptor, 0, os.SEEK_SET)
            holder = os.read(descriptor, 300).decode(errors="replace")
            raise self._refusal(f"process {holder}" if holder else "another process") from error

    def _refusal(self, holder: str) -> SnapshotError:
        return SnapshotError(
            f"Folder {self._path.parent} must have one recorder at a time. Received: one that "
            f"{holder} is writing to; close that recorder first, or choose another folder"
        )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
