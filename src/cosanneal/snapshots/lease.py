"""The lease that keeps a second writer out of a folder at a URL, where no lock is to be had.

A small object says whose the folder is and until when. Its owner renews it, and whoever else wants
the folder watches it: one that is renewed is refused, and one that is not is taken over. Two who
take it in the same instant may both believe that they have it, where a store cannot make an object
only if there is none; each looks again before it writes, and the one that lost it stops.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from ..core.documents import parse_document
from ..core.errors import SnapshotError
from .storage import Remote

_log = logging.getLogger(__name__)

LEASE_NAME: Final = ".cosanneal.lease"
# After so long without being renewed it is over.
LEASE_SECONDS: Final = 120.0
RENEW_SECONDS: Final = 30.0
_MOST_BYTES: Final = 4096
_READINGS: Final = 3


class Lease:
    """The right to write to a folder at a URL, until it is released or not renewed.

    Taken at once where there is none, where it is over, and where its process ran on this
    machine and is gone. Else it is watched for up to `LEASE_SECONDS`.

    Args:
        remote: the folder.

    Raises:
        SnapshotError: another recorder has it, which the message names; or the folder
            cannot be written to.
    """

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._process = os.getpid()
        self._token = secrets.token_hex(8)
        self._owner = {"process": os.getpid(), "host": socket.gethostname(), "token": self._token}
        self._renewed = 0.0
        self._stop: threading.Event | None = None
        # While it is written or removed.
        self._turn = threading.RLock()
        self.acquire()

    def acquire(self) -> None:
        """Take it again after it was released; errors as at first."""
        self._remote.make()
        began = time.monotonic()
        first = self._read()
        found = first
        while found is not None and not self._is_over(found):
            if found != first:
                raise self._refusal(found)  # it lives
            if time.monotonic() - began >= LEASE_SECONDS:
                break
            if time.monotonic() - began < RENEW_SECONDS / 10:
                _log.warning("%s: watching it for a sign of life", self._held(found))
            time.sleep(RENEW_SECONDS / 10)
            found = self._read()
        if found is None:
            with contextlib.suppress(FileExistsError):  # whose it is, is seen below
                self._write(new=True)
        else:
            _log.warning("%s: it is over, and taken over", self._held(found))
            self._write()
        found = self._read()
        if not self._is_ours(found):
            raise self._refusal(found or {})
        self._stop = threading.Event()
        threading.Thread(
            target=self._keep, args=(self._stop,), name="cosanneal-lease", daemon=True
        ).start()

    def check(self) -> None:
        """See that it is held still, and renew it: before anything is written, or deleted.

        Raises:
            SnapshotError: another recorder has it by now, or the store cannot be asked.
        """
        with self._turn:
            found = self._read()
            late = time.monotonic() - self._renewed > LEASE_SECONDS
            # One that is gone was deleted by hand, unless it was over: then somebody had it.
            if not self._is_ours(found) and (found is not None or late):
                raise SnapshotError(
                    f"The folder {self._remote.url} must have one recorder at a time. Received: "
                    f"{self._name(found or {})}, which took it over when this one had not renewed "
                    f"its lease for {LEASE_SECONDS:g} seconds; go on with that one"
                )
            self._write()

    def release(self) -> None:
        """Give it back; doing so twice is fine."""
        if self._process != os.getpid() or self._stop is None:
            return
        self._stop.set()
        with self._turn:
            self._stop = None
            try:
                if self._is_ours(self._read()):
                    self._remote.delete(LEASE_NAME)
            except SnapshotError as error:
                _log.warning("A lease is left, to end by itself: %s", error)

    def _keep(self, stop: threading.Event) -> None:
        """Renew it from time to time."""
        while not stop.wait(RENEW_SECONDS):
            try:
                with self._turn:
                    if stop.is_set() or not self._is_ours(self._read()):
                        return  # which `check` will say
                    self._write()
            except SnapshotError as error:
                _log.warning("A lease could not be renewed: %s", error)

    def _read(self) -> dict[str, Any] | None:
        data = b""
        for _ in range(_READINGS):
            try:
                data = self._remote.read(LEASE_NAME, 0, _MOST_BYTES)
                found = parse_document(data.decode(), at="lease")
            except FileNotFoundError:
                return None
            except ValueError:
                found = None
            if isinstance(found, dict):
                return found
            time.sleep(RENEW_SECONDS / 100)  # it may have been read while it was written
        # Whatever else is there lives if it changes.
        return {"unknown": data.decode(errors="replace")}

    def _write(self, *, new: bool = False) -> None:
        document = {**self._owner, "renewed": time.time(), "number": secrets.token_hex(4)}
        self._remote.write(LEASE_NAME, json.dumps(document).encode(), new=new)
        self._renewed = time.monotonic()

    def _is_ours(self, found: Mapping[str, Any] | None) -> bool:
        return found is not None and found.get("token") == self._token

    def _is_over(self, found: Mapping[str, Any]) -> bool:
        if self._is_ours(found):
            return True
        renewed, process = found.get("renewed"), found.get("process")
        if isinstance(renewed, int | float) and time.time() - renewed > LEASE_SECONDS:
            return True
        here = found.get("host") == self._owner["host"] and sys.platform != "win32"
        return here and type(process) is int and process > 0 and not _is_alive(process)

    def _name(self, found: Mapping[str, Any]) -> str:
        if "process" in found and "host" in found:
            return f"process {str(found['process'])[:20]} on {str(found['host'])[:253]}"
        return "another recorder"

    def _held(self, found: Mapping[str, Any]) -> str:
        return f"The folder {self._remote.url} is leased to {self._name(found)}"

    def _refusal(self, found: Mapping[str, Any]) -> SnapshotError:
        return SnapshotError(
            f"The folder {self._remote.url} must have one recorder at a time. Received: one that "
            f"{self._name(found)} is writing to; close that recorder first, or choose another "
            "folder"
        )


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
