"""The lock that keeps a second writer out of a folder. Readers do not need it.

It is the operating system's, on a file of the folder's, so that it ends with the
process that holds it, however that ends. `filelock` takes it: it follows no link,
truncates nothing, and in a forked child, which may outlive a run that was killed,
it gives up the child's share. Here is what it leaves to its users: whose the lock
is, and that its file is no other file's.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
import sys
import threading
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from ..core.atomic import make_folder
from ..core.documents import open_regular
from ..core.errors import SnapshotError

_log = logging.getLogger(__name__)

LOCK_NAME: Final = ".cosanneal.lock"

# What file systems without locks answer.
_NO_LOCKS: Final = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
# What is answered where a file of that name is none that we may write to.
_NOT_OURS: Final = {errno.EACCES, errno.EPERM, errno.EISDIR}
# Long enough for a holder that is just removing its file.
_PATIENCE: Final = 0.2  # seconds


class FolderLock:
    """The right to write to a folder, which is made, until it is released or the process ends.

    Raises:
        SnapshotError: another recorder has it (the message names its process),
            the lock's file is a link, or the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_NAME
        self._process = os.getpid()
        # Reentrant, for the collector may end a dropped recorder, which releases its lock, in here.
        self._release = threading.RLock()
        # The folder itself, opened: while it is, no other one is told by the same number.
        self._folder: int | None = None
        # One that no other thread, and no other lock of this process, shares.
        self._lock = FileLock(
            self._path,
            timeout=_PATIENCE,
            poll_interval=_PATIENCE / 20,
            thread_local=False,
            fallback_to_soft=False,
            on_acquired=self._sign,
        )
        self.acquire()

    def acquire(self) -> None:
        """Take the right again after it was released; errors as at first."""
        folder = self._path.parent
        try:
            make_folder(folder)
            self._lock.acquire()
            while not self._is_in_place():  # the folder was replaced meanwhile
                self._lock.release()
                self._lock.acquire()
        except Timeout:
            raise self._refusal() from None
        except OSError as error:
            if os.path.islink(self._path):  # noqa: PTH114 - which never raises
                raise self._no_link("a symbolic link") from error
            if error.errno not in _NO_LOCKS:
                received = error.strerror or str(error)
                if error.errno in _NOT_OURS and os.path.lexists(self._path):
                    received += f", for the lock's file {LOCK_NAME} that is there; delete that"
                raise self._not_writable(received) from error
            _log.warning(
                "Folder %s is on a file system without locks (%s): a second recorder on it "
                "would not be noticed",
                folder,
                error.strerror,
            )
        self._forget()
        with contextlib.suppress(OSError):  # as on Windows, which keeps what is in use in its place
            self._folder = os.open(folder, os.O_RDONLY)
            self._opened = os.fstat(self._folder)

    @property
    def is_of_folder(self) -> bool:
        """Whether the folder of that name is the one that was locked, or there is none."""
        folder = self._path.parent
        if self._folder is None or not os.path.isdir(folder):  # noqa: PTH112 - which never raises
            return True
        if self._lock.is_locked and self._is_in_place():
            return True
        try:
            return os.path.samestat(self._opened, folder.stat())
        except OSError:
            return False

    def keep(self) -> None:
        """Take the right again where the lock's file, or the folder, is another by now.

        Raises:
            SnapshotError: another recorder has it by now, as at first.
        """
        if not os.path.isdir(self._path.parent):  # noqa: PTH112 - and nothing can be written
            return
        if not self.is_of_folder or (self._lock.is_locked and not self._is_in_place()):
            self._lock.release()
            self.acquire()

    def release(self) -> None:
        """Give the right back; doing so twice is fine."""
        if self._process != os.getpid():
            return
        with self._release:
            # While it is still locked: who waits for it finds that it is gone. Only our own, for
            # the folder may be another by now. Windows removes no open file; filelock sees to it.
            if self._lock.is_locked and self._is_in_place() and sys.platform != "win32":
                with contextlib.suppress(OSError):
                    self._path.unlink()
            self._lock.release()
            self._forget()

    def _forget(self) -> None:
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def _is_in_place(self) -> bool:
        """Whether the file that is locked is still the folder's."""
        try:
            return os.path.samestat(self._locked, self._path.lstat())
        except OSError:
            return False

    def _sign(self, descriptor: int) -> None:
        """Write whose the lock is into its file, once it is held."""
        self._locked = os.fstat(descriptor)
        if not stat.S_ISREG(self._locked.st_mode) or self._locked.st_nlink > 1:
            raise self._no_link("a hard link to another, or no file at all")
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"\n{_me()}".encode())

    def _refusal(self) -> SnapshotError:
        if not os.path.lexists(self._path):
            return self._not_writable("no file can be made in it")
        holder = "another process"
        with contextlib.suppress(OSError), open_regular(self._path, links=False, remedy="") as file:
            file.seek(1)  # for Windows lets nobody read the byte that is locked
            name = file.read(300).decode(errors="replace")
            holder = f"process {name}" if name else holder
            if name == _me():
                holder = "another recorder of this process"
        return SnapshotError(
            f"Folder {self._path.parent} must have one recorder at a time. Received: one that "
            f"{holder} is writing to; close that recorder first, or choose another folder"
        )

    def _not_writable(self, received: str) -> SnapshotError:
        return SnapshotError(
            f"Folder {self._path.parent} must be a folder that can be written to. "
            f"Received: {received}"
        )

    def _no_link(self, what: str) -> SnapshotError:
        return SnapshotError(
            f"The lock's file {self._path} must be a file of its own. Received: {what}; delete it"
        )


def _me() -> str:
    return f"{os.getpid()} on {socket.gethostname()}"
