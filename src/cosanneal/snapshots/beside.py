"""A small file beside the snapshots of a folder, here or at a URL."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core.documents import MAX_BYTES
from ..core.errors import CosannealError, SnapshotError
from .storage import Remote


@dataclass(frozen=True, slots=True)
class Beside:
    """A file that is no snapshot; as text, where it is.

    Args:
        path: the file; of a folder at a URL, only its name counts.
        remote: the folder at a URL.
    """

    path: Path
    remote: Remote | None = None

    def __str__(self) -> str:
        return str(self.path) if self.remote is None else f"{self.remote.url}/{self.path.name}"

    def exists(self) -> bool:
        """Whether it is there.

        Raises:
            SnapshotError: the store cannot be asked.
        """
        if self.remote is None:
            return self.path.exists()
        return self.remote.size_of(self.path.name) is not None

    @contextlib.contextmanager
    def writing(self, error: type[CosannealError]) -> Iterator[Path]:
        """A local file to write; at the end it is put there, read back, and has its name.

        Raises:
            CosannealError: (as `error`) it could not be.
        """
        if self.remote is None:
            yield self.path
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, self.path.name)
            yield path
            try:
                self.remote.make()
                self.remote.put(path, advice=". Mend the store, and save it again")
            except SnapshotError as failure:
                raise error(str(failure)) from failure

    @contextlib.contextmanager
    def reading(self, error: type[CosannealError]) -> Iterator[Path]:
        """A local file to read, which is not there where none is at the store.

        An `error` that names it names what is at the store.

        Raises:
            CosannealError: (as `error`) it cannot be read, or is larger than a document may be.
        """
        if self.remote is None:
            yield self.path
            return
        name = self.path.name
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            try:
                size = self.remote.size_of(name)
                if size is not None:
                    # One byte more than may be is refused by who reads the document.
                    path.write_bytes(self.remote.read(name, 0, min(size, MAX_BYTES + 1)))
            except FileNotFoundError:  # it went meanwhile
                pass
            except SnapshotError as failure:
                raise error(str(failure)) from failure
            try:
                yield path
            except error as failure:
                raise error(str(failure).replace(str(path), str(self))) from failure
