"""A folder of snapshots. The files are the truth; there is no manifest beside them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Container, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..core.atomic import make_folder, sync_folder
from ..core.errors import ScheduleError, SnapshotError, shown
from ..core.paths import lasting_path, url_of
from ..core.schedule import Schedule
from .beside import Beside
from .cache import Cache
from .capture import Standing
from .file import FORMAT_VERSION, TensorBytes, write_file
from .joined import JoinedReader, parts_of, unnamed_parts
from .lease import Lease
from .metadata import parse_metadata, plain_metrics
from .names import SNAPSHOT_NAME, is_leftover, is_leftover_there, parts_among, snapshot_name
from .part import RestDigests
from .pieces import Index
from .reader import SnapshotReader
from .storage import Remote, RemoteFile
from .under_way import settle


class Snapshot:
    """One snapshot in a store.

    Args:
        there: what it is at the store, of a folder at a URL.

    Attributes:
        path: its file. Of a folder at a URL, that of the local copy, which is there while the
            snapshot is open, and may be gone at other times.
        cycle: the index, from 0, of the cycle at whose end it was taken; of one that was
            taken between two ends, of the cycle in which its last update lay.
        step: the number of optimizer updates its weights have seen.

    Example: see `SnapshotStore`, whose `list` gives snapshots, and `Snapshot.open`.
    """

    __slots__ = ("_metadata", "_there", "cycle", "path", "step")

    def __init__(
        self, path: Path, *, cycle: int, step: int, there: RemoteFile | None = None
    ) -> None:
        self.path: Path = path
        self._there = there
        self.cycle: int = cycle
        self.step: int = step
        self._metadata: dict[str, Any] | None = None

    @classmethod
    def at(cls, path: str | os.PathLike[str] | Snapshot) -> Snapshot:
        """The snapshot that a file is; one that is a snapshot already stays as it is.

        Args:
            path: the file, or its URL, under the name that it was written under.

        Raises:
            SnapshotError: no path, or no snapshot's name; or nothing is at the URL.
        """
        if isinstance(path, Snapshot):
            return path
        url = url_of(path)
        if url is not None and SNAPSHOT_NAME.fullmatch(url.rpartition("/")[2]):
            return SnapshotStore(url.rpartition("/")[0]).snapshot(url.rpartition("/")[2])
        file = lasting_path(path, error=SnapshotError)
        match = SNAPSHOT_NAME.fullmatch(file.name)
        if not match:
            raise SnapshotError(
                "Argument `snapshot` must be a Snapshot or the file of one, whose name is such as "
                f"{snapshot_name(3, 12000)}. Received: {shown(str(path))}; a folder's are in "
                "SnapshotStore(folder).list()"
            )
        return cls(file, cycle=int(match[1]), step=int(match[2]))

    def __repr__(self) -> str:
        where = str(self.path) if self._there is None else self._there.url
        return f"<Snapshot: cycle {self.cycle}, step {self.step}, {where!r}>"

    @property
    def metadata(self) -> dict[str, Any]:
        """What its header says, read once.

        `format`, `cycle`, `step`, `schedule_step` (of the schedule: another
        number, where the scheduler did not move once an update), `rate` (of the
        last update), `schedule` (see `Schedule.to_dict`), `framework`,
        `versions`, `metrics` (the user's own), `nonfinite` (the first tensor
        that held a NaN or an infinity when it was taken; else None), `rest` (of a
        part of the weights: the digest of each tensor that it leaves out, by name;
        else None), `parts` (of one that several processes wrote: the number of its
        parts; else None) and `digest`.

        Raises:
            SnapshotError: the file is no snapshot that this version reads.
        """
        if self._metadata is None and self._there is not None:
            header = self._there.header()
            self._parse(header.raw_metadata, header.places)
        elif self._metadata is None:
            with SnapshotReader(self.path) as reader:  # of one in parts, the index alone
                self._parse(reader.raw_metadata, reader)
        return self._metadata or {}

    def _parse(self, raw: Mapping[str, str], tensors: Container[str]) -> None:
        self._metadata = parse_metadata(self.path, (self.cycle, self.step), raw, tensors)

    @property
    def size(self) -> int:
        """The bytes of its file; of one in parts, with those of the parts that are there.

        Raises:
            OSError: it is gone.
        """
        if self._there is not None:
            return self._there.entry.size
        size = self.path.stat().st_size
        for part in parts_of(self.path):
            with contextlib.suppress(OSError):
                size += part.stat().st_size
        return size

    @property
    def written(self) -> datetime | None:
        """When its file was written; None where a store does not say so.

        Raises:
            OSError: it is gone.
        """
        if self._there is not None:
            return self._there.entry.written
        return datetime.fromtimestamp(self.path.stat().st_mtime, UTC)

    @property
    def standing(self) -> Standing:
        """Where the run stood when it was taken."""
        at = self.metadata
        return Standing(at["step"], at["schedule_step"], at["rate"])

    @property
    def schedule(self) -> Schedule:
        """The schedule under which it was taken.

        Raises:
            SnapshotError: the file holds no schedule that can be read.
        """
        try:
            return Schedule.from_dict(self.metadata["schedule"])
        except ScheduleError as error:
            raise SnapshotError(
                f"Snapshot {self.path} holds no readable schedule: {error}"
            ) from error

    def layout(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """The shape and the dtype's name of each of its tensors by name, from the header alone.

        Raises:
            SnapshotError: the header cannot be read, or is not what was written.
        """
        if self._there is not None:
            return self._there.header().layout
        with SnapshotReader(self.path) as reader:
            self._parse(reader.raw_metadata, reader)
            text = reader.raw_metadata.get("parts")
            return reader.layout if text is None else dict(Index.from_text(text).layout)

    def open(self, *, verify: bool = True) -> SnapshotReader:
        """Its tensors, each read when it is asked for: for one at a time, or for a few of many.

        Of a folder at a URL the file is fetched first, whole, unless it is here.

        Args:
            verify: compare each tensor with its digest when it is read. The
                header is compared with its own in any case.

        Returns:
            A mapping from names to arrays, to be used in a `with` block.

        Raises:
            SnapshotError: the file cannot be read, its header is not what was
                written, or it bears another snapshot's name.

        Example:
            >>> def mean_of(snapshot, name):
            ...     with snapshot.open() as tensors:
            ...         return tensors[name].mean()
        """
        held = None if self._there is None else self._there.opened(self.path)
        try:
            reader = SnapshotReader(self.path, verify=verify, held=held)
        except BaseException:
            if held is not None:
                held.close()
            raise
        if "parts" in reader.raw_metadata:
            reader.close()
            reader = JoinedReader(self.path, verify=verify)
        try:
            self._parse(reader.raw_metadata, reader)
        except BaseException:
            reader.close()
            raise
        return reader

    def load(self, *, framework: str = "numpy", verify: bool = True) -> dict[str, Any]:
        """Its tensors by name.

        Args:
            framework: "numpy", "pt" (torch), "flax" or "tf", as safetensors
                names them.
            verify: compare each tensor with its digest. The header is compared
                with its own in any case.

        Raises:
            SnapshotError: the file cannot be read, or is not what was written.
        """
        with self.open(verify=verify) as tensors:
            return tensors.load(framework)

    def first_nonfinite(self) -> str | None:
        """The first of its tensors with a NaN or an infinity, looked for in its data.

        Raises:
            SnapshotError: the file cannot be read.
        """
        with self.open(verify=False) as tensors:
            return tensors.first_nonfinite()

    def verify(self, progress: Callable[[int], None] | None = None) -> None:
        """Read the whole file and compare it with its digests and its name.

        Args:
            progress: called with the number of bytes read since it was last called.

        Raises:
            SnapshotError: it is damaged; the message names the file.
        """
        with self.open() as tensors:
            tensors.verify(progress)


class SnapshotStore:
    """A folder of snapshots.

    Args:
        folder: its path; made by `prepare`, which a recorder calls. It is the
            same folder after a chdir, and `~` is the home folder. Or a URL, such as
            `s3://bucket/run`, that fsspec reaches: then what is there counts, and local files
            are copies of it.
        storage_options: of a URL, what fsspec's file system is made with, such as
            `endpoint_url` or `anon`; beside what its configuration and the environment say.
        cache: of a URL, the folder of the local copies, of all stores together; by default
            $COSANNEAL_CACHE, else `cosanneal` in the user's folder of caches.
        cache_bytes: how many bytes they may have, 16 GB by default. The least recently used go
            first; those that are open stay.

    Attributes:
        folder: its path; of a URL, that of the local copies.
        url: the URL; None of a local folder.

    Raises:
        SnapshotError: no path; or a URL of no folder that fsspec reaches.
        MissingExtraError: a URL, and fsspec is not installed.

    Example:
        >>> import tempfile
        >>> store = SnapshotStore(tempfile.mkdtemp())
        >>> store.list()
        []
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        storage_options: Mapping[str, Any] | None = None,
        cache: str | os.PathLike[str] | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        self._remote: Remote | None = None
        self.folder: Path
        self.url: str | None = url_of(folder)
        if self.url is not None:
            self._remote = Remote(self.url, storage_options, Cache.of(cache, cache_bytes))
            self.folder = self._remote.folder
            return
        self.folder = lasting_path(folder, error=SnapshotError)
        given = {"storage_options": storage_options, "cache": cache, "cache_bytes": cache_bytes}
        for name, value in given.items():
            if value is not None:
                raise SnapshotError(
                    f"Argument `{name}` is for a folder at a URL, such as s3://bucket/run. "
                    f"Received: {name}={shown(value)}, with the local {shown(str(folder))}"
                )

    def __repr__(self) -> str:
        return f"SnapshotStore({self.where!r})"

    @property
    def where(self) -> str:
        """Its URL, or its path, for a sentence."""
        return self.url or str(self.folder)

    def beside(self, name: str) -> Beside:
        """A small file of that name beside the snapshots, which is none itself."""
        return Beside(self.folder / name, self._remote)

    def lease(self) -> Lease | None:
        """The right to write to the store of its URL, taken; None of a local folder.

        Raises:
            SnapshotError: another recorder has it.
        """
        return None if self._remote is None else Lease(self._remote)

    def list(self) -> list[Snapshot]:
        """The snapshots of the folder, oldest first.

        Only whole ones: a snapshot has its name from the moment it is durable.
        Other files and symbolic links are passed over, and what bears another
        name than it would be written under: a copy with one more zero is no
        second member. What a recorder of this process has taken and is still writing
        here is waited for; not in `on_durable`, which is called by what writes.

        Raises:
            SnapshotError: the folder cannot be read.
        """
        settle(self.folder, self.url)
        if self._remote is not None:
            there = {each.name: self._remote.file(each) for each in self._remote.entries()}
            return _among(self.folder, there)
        try:
            with os.scandir(self.folder) as entries:
                files = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SnapshotError(
                f"Folder {self.folder} could not be read: {error.strerror or error}"
            ) from error
        return _among(self.folder, dict.fromkeys(files))

    def snapshot(self, name: str) -> Snapshot:
        """The snapshot of that name.

        Raises:
            SnapshotError: there is none.

        Example:
            >>> def first_of(folder):
            ...     return SnapshotStore(folder).snapshot("cycle-0000-step-0000000100.safetensors")
        """
        for found in self.list():
            if found.path.name == name:
                return found
        raise SnapshotError(
            f"Argument `name` must be that of a snapshot in {self.where}. Received: "
            f"{shown(name)}, of which there is none"
        )

    def write(
        self,
        tensors: Mapping[str, TensorBytes],
        *,
        cycle: int,
        step: int,
        rate: float,
        schedule: Schedule,
        framework: str,
        versions: Mapping[str, str],
        metrics: Mapping[str, Any] | None = None,
        schedule_step: int | None = None,
        nonfinite: str | None = None,
        rest: RestDigests | None = None,
        parts: Index | None = None,
    ) -> Snapshot:
        """Write one snapshot; when this returns, it is durable, at the store if it has a URL.

        Args:
            tensors: the weights by name.
            cycle: the index of the cycle that ended, or in which the last update lay.
            step: the number of updates done.
            rate: the rate of the last of them.
            schedule: the schedule of the run.
            framework: the framework of the weights, such as "torch".
            versions: the versions of the libraries involved.
            metrics: the user's own numbers, by name.
            schedule_step: the step of the schedule, where it is not `step`.
            nonfinite: the tensor in which a NaN or an infinity was found, if one was.
            rest: of a part of the weights, the digests of what it leaves out.
            parts: of a snapshot in parts, which are there, what is to stand in its index.

        Raises:
            SnapshotError: the file cannot be written, or metrics are no plain data.
        """
        metadata = {
            "cosanneal": str(FORMAT_VERSION),
            "cycle": str(cycle),
            "step": str(step),
            "rate": repr(float(rate)),
            "schedule": json.dumps(schedule.to_dict(), separators=(",", ":")),
            "framework": framework,
            "versions": json.dumps(dict(versions), sort_keys=True),
            "metrics": json.dumps(plain_metrics(metrics), sort_keys=True),
            **({} if nonfinite is None else {"nonfinite": nonfinite}),
        }
        if rest is not None:
            metadata["rest"] = json.dumps(dict(rest), sort_keys=True, separators=(",", ":"))
        if schedule_step not in (None, step):
            metadata["schedule_step"] = str(schedule_step)
        if parts is not None:
            metadata["parts"] = parts.to_text()
        snapshot = Snapshot(self.folder / snapshot_name(cycle, step), cycle=cycle, step=step)
        # Of the one that it replaces, which goes in the moment of the rename.
        replaced = parts_of(snapshot.path)
        write_file(snapshot.path, tensors, metadata)
        with contextlib.suppress(SnapshotError):  # it is there; they go when the folder is prepared
            self._delete(replaced)
        if self._remote is not None:
            entry = self._remote.put(snapshot.path)
            there = self._remote.file(entry)
            return Snapshot(snapshot.path, cycle=cycle, step=step, there=there)
        return snapshot

    def verify(self) -> int:
        """Verify every snapshot.

        Returns:
            How many there are.

        Raises:
            SnapshotError: some are damaged; the message names each.
        """
        snapshots = self.list()
        damaged: list[str] = []
        for snapshot in snapshots:
            try:
                snapshot.verify()
            except SnapshotError as error:
                damaged.append(str(error))
        if damaged:
            raise SnapshotError(
                f"{len(damaged)} of {len(snapshots)} snapshots in {self.where} are damaged:\n"
                + "\n".join(damaged)
            )
        return len(snapshots)

    def prepare(self) -> None:
        """Make the folder, and clear away what an interrupted write left.

        Raises:
            SnapshotError: the folder cannot be made or written to.
        """
        received = ""
        try:
            make_folder(self.folder)
            with os.scandir(self.folder) as entries:
                names = [entry.name for entry in entries]
            leftovers = [self.folder / name for name in names if is_leftover(name)]
            for whole, writings in parts_among(names).items():
                leftovers += unnamed_parts(self.folder / whole, writings)
            for leftover in leftovers:
                received = f"{leftover}, which cannot be deleted: "
                leftover.unlink(missing_ok=True)
        except OSError as error:
            raise SnapshotError(
                f"Folder {self.folder} must be a folder that can be written to. "
                f"Received: {received}{error.strerror or error}"
            ) from error
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise SnapshotError(
                f"Folder {self.folder} must be a folder that can be written to. "
                "Received: a read-only one; mend its permissions or choose another"
            )
        if self._remote is not None:
            self._remote.prepare(is_leftover_there)

    def delete(self, *snapshots: Snapshot) -> None:
        """Delete snapshots, for good when this returns; one that is gone already is passed over.

        Raises:
            SnapshotError: a snapshot of another folder, or one that cannot be deleted.
        """
        for snapshot in snapshots:
            if snapshot.path.parent != self.folder:
                raise SnapshotError(
                    f"The snapshots to delete must be of folder {self.where}. Received: "
                    f"{snapshot.path}; ask the store of its folder"
                )
        if self._remote is not None:
            self._remote.delete(*(snapshot.path.name for snapshot in snapshots))
        # The index first: a snapshot is there, or it is not.
        parts = [part for snapshot in snapshots for part in parts_of(snapshot.path)]
        self._delete([snapshot.path for snapshot in snapshots])
        self._delete(parts)

    def _delete(self, files: Sequence[Path]) -> None:
        try:
            for file in files:
                file.unlink(missing_ok=True)
            if files and self._remote is None:
                sync_folder(self.folder)
        except OSError as error:
            raise SnapshotError(
                f"A snapshot in {self.folder} could not be deleted: {error.strerror or error}. "
                "Mend the folder's permissions, or delete it by hand"
            ) from error


def _among(folder: Path, files: Mapping[str, RemoteFile | None]) -> list[Snapshot]:
    """The snapshots among a folder's files, oldest first."""
    found = [
        Snapshot(folder / name, cycle=cycle, step=step, there=there)
        for name, there in files.items()
        if (match := SNAPSHOT_NAME.fullmatch(name))
        and name == snapshot_name(cycle := int(match[1]), step := int(match[2]))
    ]
    return sorted(found, key=lambda snapshot: (snapshot.step, snapshot.cycle))
