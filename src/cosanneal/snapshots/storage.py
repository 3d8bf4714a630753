"""A folder of snapshots at a URL: on an object store, or any other file system of fsspec's.

What is at the store counts; local files are copies of it. A snapshot is written locally first,
put under the store, and read back before it is called durable. It is fetched, whole, when its
tensors are asked for; its header is read there by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar
from urllib.parse import quote

from ..core.atomic import make_folder
from ..core.errors import MissingExtraError, SnapshotError, shown
from .cache import Cache
from .file import MAX_HEADER_BYTES
from .reader import Header, SnapshotReader, read_header

T = TypeVar("T")

# How often each thing is tried, and the seconds before the second time; then twice as many.
ATTEMPTS: Final = 4
PAUSE: Final = 0.25
# Where an object appears when it is whole. On all others it is given its name at the end.
WHOLE: Final = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci", "hf"}

_PIECE_BYTES: Final = 1 << 23
# What most headers fit into, so that they are read at once.
_HEAD_BYTES: Final = 1 << 16
_FETCHING: Final = ".fetch-"
# Another try would fail as well.
_FINAL: Final = (PermissionError, NotImplementedError, ImportError, TypeError)


class _TornError(Exception):
    """What is at the store is not what was put there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An object in the folder.

    Attributes:
        name: its name there.
        size: its bytes.
        written: when, where the store says so.
    """

    name: str
    size: int
    written: datetime | None


class Remote:
    """A folder at a URL, and where its local copies are.

    Args:
        url: the folder's. Nothing is asked of the store before it is needed.
        options: what fsspec's file system is made with, beside its own configuration.
        cache: of the local copies.

    Raises:
        MissingExtraError: fsspec is not installed.
        SnapshotError: no URL of a folder that fsspec reaches.

    Attributes:
        url: the URL.
        folder: of the local copies.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None, cache: Cache) -> None:
        self.url: str = url
        self._options, self._cache = dict(options or {}), cache
        self._scheme, path = url.split("://", 1) if "://" in url else (url, "")
        self._scheme = self._scheme.lower()
        _refuse(url, self._scheme, path)
        self.folder: Path = cache.root.joinpath(
            self._scheme + _mark(self._options), *(_as_name(part) for part in path.split("/"))
        )
        # What this object has put and deleted there, which a listing may not know yet.
        self._put: dict[str, int] = {}
        self._gone: set[str] = set()
        self._turn = threading.RLock()  # for the collector may end a dropped recorder in here

    def __reduce__(self) -> tuple[Any, ...]:
        return Remote, (self.url, self._options, self._cache)

    def entries(self) -> list[Entry]:
        """What files there are now; what was just put there, or deleted, counts at once."""
        found = {each.name: each for each in self._listed()}
        with self._turn:
            put = [
                name
                for name, size in self._put.items()
                if name not in found or found[name].size != size
            ]
            gone = self._gone & found.keys()
        for name in put:
            size = self.size_of(name)
            if size is not None:
                found[name] = Entry(name, size, None)
        for name in gone:
            if self.size_of(name) is None:
                del found[name]
        return [*found.values()]

    def size_of(self, name: str) -> int | None:
        """The bytes of an object; None if there is none of that name."""
        try:
            size = self._tried("looked for", lambda: self._info(self._at(name)), name)
        except FileNotFoundError:
            return None
        if isinstance(size, int):
            return size
        raise SnapshotError(f"{self.url}/{name} must have a known size. Received: {shown(size)}")

    def file(self, entry: Entry) -> RemoteFile:
        """A snapshot's object that was found there."""
        return RemoteFile(self, entry)

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Some bytes of an object, or fewer at its end.

        Raises:
            FileNotFoundError: there is no such object.
            SnapshotError: it cannot be read.
        """
        if stop <= start:
            return b""
        at = self._at(name)
        return self._tried("read", lambda: bytes(self._cat(at, start, stop)), name)

    def write(self, name: str, data: bytes, *, new: bool = False) -> None:
        """Write a small object.

        Args:
            name: its name.
            data: all of it.
            new: only where there is none of that name, as far as the store can see to that.

        Raises:
            FileExistsError: there is one.
            SnapshotError: it cannot be written.
        """
        at = self._at(name)

        def once() -> None:
            if new:
                # Those that cannot be asked for it are asked whether it is there.
                with contextlib.suppress(TypeError, ValueError, NotImplementedError):
                    self._files.pipe_file(at, data, mode="create")
                    return
                if self.size_of(name) is not None:
                    raise FileExistsError(name)
            self._files.pipe_file(at, data)

        self._tried("written", once, name, final=FileExistsError)

    def delete(self, *names: str) -> None:
        """Delete objects; one that is gone already is passed over.

        Raises:
            SnapshotError: one cannot be deleted.
        """
        for name in names:
            at = self._at(name)
            with contextlib.suppress(FileNotFoundError):
                self._tried("deleted", lambda at=at: self._files.rm_file(at), name)  # type: ignore[misc]
            with self._turn:
                self._put.pop(name, None)
                self._gone.add(name)

    def prepare(self, is_leftover: Callable[[str], object]) -> None:
        """Make the folder, and clear away what interrupted writes left, here and there.

        Args:
            is_leftover: whether a name is that of one.

        Raises:
            SnapshotError: the folder cannot be made, or is no folder.
        """
        self.make()
        self.delete(*(each.name for each in self._listed() if is_leftover(each.name)))

    def make(self) -> None:
        """Make the folder; errors as of `prepare`."""
        if self._scheme not in WHOLE:  # which have no folders
            self._tried("made", lambda: self._files.makedirs(self._root, exist_ok=True))

    def put(self, path: Path, *, advice: str | None = None) -> Entry:
        """Put a local file there, under its own name, and read it back; then make room here.

        It has its name there when it is whole: at once on a store of `WHOLE`, and on a file
        system by a rename of what was read back.

        Args:
            path: the file.
            advice: what to do where it cannot be put; by default, of a snapshot.

        Returns:
            What is there now.

        Raises:
            SnapshotError: it could not be put, or not read back, in any of `ATTEMPTS` attempts.
        """
        kept = self._cache.opened(path)
        if kept is None:
            raise SnapshotError(
                f"The local file {path} must stay until it is put into {self.url}. Received: none, "
                "for somebody deleted it; go on without this snapshot, or resume from before it"
            )
        name, size = path.name, os.fstat(kept.fileno()).st_size
        there = self._at(name)
        whole = self._scheme in WHOLE
        target = there if whole else self._at(f".{name}.{secrets.token_hex(4)}.tmp")

        def once() -> None:
            at = target
            try:
                self._files.put_file(str(path), target)
                self._compare(path, target, size)
                if not whole:
                    self._files.mv(target, there)
                    at = there
                    self._compare(path, there, size, most=_HEAD_BYTES)
            except BaseException as error:
                # An object that is there already stays, unless it is known to be no good.
                with contextlib.suppress(Exception):
                    if at != there or isinstance(error, _TornError):
                        self._files.rm_file(at)
                raise

        if advice is None:
            advice = (
                f". The snapshots before it are untouched, and its local file {path} is whole; "
                "mend the store, then go on without this one, or resume from before it"
            )
        with kept:
            self._tried("put there", once, name, final=(), advice=advice)
        with self._turn:
            self._put[name] = size
            self._gone.discard(name)
        self._cache.make_room()
        return Entry(name, size, datetime.now(UTC))

    def fetched(self, path: Path, head: bytes) -> BinaryIO:
        """A local copy of the object of that name, opened so that it stays until it is closed.

        Args:
            path: where the copy is, or is to be.
            head: the bytes before the object's data, by which the right copy is known.

        Raises:
            SnapshotError: the object is not there, cannot be fetched, is damaged, or has
                another head by now.
        """
        from filelock import FileLock

        try:
            make_folder(self.folder)
            # One process fetches it, and the others find it.
            with FileLock(self.folder / f"{_FETCHING}lock"):
                file = self._copy(path, head)
                if file is not None:
                    return file
                for left in self.folder.glob(f"{_FETCHING}*.tmp"):  # by a process that was killed
                    left.unlink(missing_ok=True)
                temporary = self.folder / f"{_FETCHING}{secrets.token_hex(4)}.tmp"
                try:
                    self._fetch(path.name, temporary, head)
                    temporary.replace(path)
                finally:
                    temporary.unlink(missing_ok=True)
                file = self._copy(path, head)
        except OSError as error:
            raise SnapshotError(
                f"The folder of local copies, {self.folder}, must be one that can be written to. "
                f"Received: {error.strerror or error}; mend it, or give another by cache="
            ) from error
        if file is None:
            raise SnapshotError(
                f"The local copy {path} of {self.url}/{path.name} must stay while it is read. "
                "Received: none, for somebody deleted it; read it again"
            )
        self._cache.make_room()
        return file

    def _copy(self, path: Path, head: bytes) -> BinaryIO | None:
        """The copy that is here, if it is of that object."""
        file = self._cache.opened(path)
        if file is not None and file.read(len(head)) != head:
            file.close()
            return None
        return file

    def _fetch(self, name: str, temporary: Path, head: bytes) -> None:
        at, where = self._at(name), f"{self.url}/{name}"

        def once() -> None:
            self._files.get_file(at, str(temporary))
            with temporary.open("rb") as file:
                if file.read(len(head)) != head:
                    raise SnapshotError(
                        f"Snapshot {where} must stay as it is while it is read. Received: another "
                        "of that name by now; list the folder again"
                    )
            try:
                with SnapshotReader(temporary) as tensors:
                    tensors.verify()
            except SnapshotError as error:
                raise SnapshotError(str(error).replace(str(temporary), where)) from error

        try:
            self._tried("fetched", once, name)
        except FileNotFoundError as error:
            raise SnapshotError(f"Snapshot {where} could not be read: it is not there") from error

    def _compare(self, path: Path, target: str, size: int, most: int | None = None) -> None:
        """Read an object back, `most` or all of it; compare it with the file that was put there."""
        found = self._info(target)
        if found is not None and found != size:
            raise _TornError(f"it has {shown(found)} of {size} bytes there")
        with path.open("rb") as file:
            for start in range(0, size if most is None else min(size, most), _PIECE_BYTES):
                piece = file.read(_PIECE_BYTES if most is None else most)
                if self._cat(target, start, start + len(piece)) != piece:
                    raise _TornError(f"it is not the same there, from byte {start} on")

    def _listed(self) -> list[Entry]:
        def once() -> list[Any]:
            self._files.invalidate_cache()
            try:
                return list(self._files.ls(self._root, detail=True))
            except FileNotFoundError:
                return []

        entries = self._tried("listed", once)
        found: list[Entry] = []
        for each in entries:
            name = str(each["name"]).rstrip("/").rpartition("/")[2]
            if each.get("type") != "file" or each.get("islink"):
                continue
            size = each.get("size")
            size = size if isinstance(size, int) else self.size_of(name)
            if size is not None:
                found.append(Entry(name, size, _time_of(each)))
        return found

    def _info(self, at: str) -> object:
        self._files.invalidate_cache()
        return self._files.info(at).get("size")

    def _cat(self, at: str, start: int, stop: int) -> Any:
        return self._files.cat_file(at, start=start, end=stop)

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @property
    def _files(self) -> Any:
        return self._connected[0]

    @property
    def _root(self) -> str:
        return self._connected[1]

    @cached_property
    def _connected(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        try:
            files, root = url_to_fs(self.url, **self._options)
        except Exception as error:
            raise self._error("reached", error) from error
        return files, str(root)

    def _tried(
        self,
        done: str,
        do: Callable[[], T],
        name: str = "",
        *,
        final: type[Exception] | tuple[()] = FileNotFoundError,
        advice: str = "",
    ) -> T:
        """What a function makes, tried `ATTEMPTS` times; a `final` error is raised as it is."""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                return do()
            except final:
                raise
            except _FINAL as error:
                raise self._error(done, error, name, advice) from error
            except Exception as error:
                if isinstance(error, SnapshotError) and attempt:  # it is so, and no chance
                    raise
                failure = error
        how_often = f" (tried {ATTEMPTS} times)"
        raise self._error(done, failure, name, how_often + advice) from failure

    def _error(self, done: str, error: Exception, name: str = "", more: str = "") -> SnapshotError:
        where = f"{self.url}/{name}" if name else self.url
        what = str(error)
        if not isinstance(error, _TornError):
            what = f"{type(error).__name__}: {error}".rstrip(": ")
        return SnapshotError(f"{where} could not be {done}: {what}{more}")


@dataclass
class RemoteFile:
    """A snapshot's object: its header, read by itself, and the local copy of it.

    Args:
        remote: its folder.
        entry: what was found there.
    """

    remote: Remote
    entry: Entry
    _header: Header | None = field(default=None, init=False, repr=False)
    _head: bytes = field(default=b"", init=False, repr=False)

    @property
    def url(self) -> str:
        """Its URL."""
        return f"{self.remote.url}/{self.entry.name}"

    def header(self) -> Header:
        """What its header says, read once.

        Raises:
            SnapshotError: it cannot be read, or is no snapshot's.
        """
        if self._header is None:
            name, size = self.entry.name, self.entry.size
            try:
                data = self.remote.read(name, 0, min(_HEAD_BYTES, size))
                stop = min(8 + int.from_bytes(data[:8], "little"), size)
                if len(data) < stop <= 8 + MAX_HEADER_BYTES:  # a longer one is refused below
                    data += self.remote.read(name, len(data), stop)
            except FileNotFoundError as error:
                raise SnapshotError(
                    f"Snapshot {self.url} could not be read: it is not there"
                ) from error
            self._head = data[:stop]
            header = read_header(self.url, io.BytesIO(self._head), size)
            if "parts" in header.raw_metadata:
                raise SnapshotError(
                    f"Snapshot {self.url} could not be read: it is in parts, which are read in a "
                    "local folder alone; copy all of its files into one"
                )
            self._header = header
        return self._header

    def opened(self, path: Path) -> BinaryIO:
        """The local copy, fetched if need be; it stays until this is closed. See `fetched`."""
        self.header()
        return self.remote.fetched(path, self._head)


def _refuse(url: str, scheme: str, path: str) -> None:
    """Refuse a URL that cannot be that of a folder of snapshots."""
    refusal = ""
    if "::" in url or not path:
        refusal = "a chain of several; the copies here are cosanneal's own" if path else "no folder"
    elif scheme in ("file", "local"):
        refusal = f"a local folder's; give its path, {shown('/' + path.lstrip('/'))}"
    elif re.match(r"[^/@]*:[^/@]*@", path):
        refusal, url = "one with a password; give it by storage_options", f"{scheme}://..."
    elif re.search(r"[?#*\[\]]|(?:^|/)\.{1,2}(?:/|$)", path):
        refusal = "one with `.`, `..`, or a character that fsspec reads as a pattern or a query"
    if refusal:
        raise SnapshotError(
            "The URL of a folder of snapshots must be one such as s3://bucket/run. "
            f"Received: {shown(url)}, {refusal}"
        )
    try:
        import fsspec
    except ModuleNotFoundError as error:
        if error.name != "fsspec":
            raise
        raise MissingExtraError.for_extra(
            "remote", package="fsspec", needed_by=f"The folder {shown(url)}"
        ) from error
    try:
        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        raise SnapshotError(
            f"The URL {shown(url)} must be of a file system that fsspec reaches. Received: {error}"
        ) from error


def _mark(options: Mapping[str, Any]) -> str:
    """What tells two stores apart that differ by their options alone."""
    if not options:
        return ""
    text = json.dumps(options, sort_keys=True, default=str)
    return f"-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _as_name(part: str) -> str:
    """A part of a URL as a folder's name, which another part does not have."""
    name = quote(part, safe=" @+=,~") or "%"
    return name if len(name) <= 200 else hashlib.sha256(part.encode()).hexdigest()


def _time_of(entry: Mapping[str, Any]) -> datetime | None:
    """When an object was written, of what file systems call that."""
    for key in ("LastModified", "last_modified", "mtime", "modified", "created"):
        value = entry.get(key)
        if isinstance(value, datetime):
            return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
    return None
