"""Writing a snapshot in parts: each process its own, and rank 0 the index, when all are there.

The processes meet in the step, when the weights are copied, and not again for this: rank 0's
thread looks into the folder, which is shared, for the parts of the others.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

from xxhash import xxh3_128

from ..core.atomic import sync_folder
from ..core.errors import SnapshotError, plural, shown
from .capture import Capture, HostBuffers, PartedCapture, Parts
from .file import Layout, TensorBytes, check_tensor, write_file
from .finite import all_finite, is_meant
from .joined import Joined
from .names import is_leftover, note_name, of_writing, part_name, probe_name
from .part import Which
from .pieces import Index, checked_part, part_metadata
from .ranks import Ranks
from .reader import SnapshotReader
from .store import Snapshot, SnapshotStore

# How long rank 0 waits for the others' parts once its own are written.
PARTS_SECONDS: Final = 600.0
# How long it waits on without a sign of life, once the run broke off: a process may be gone. A
# client of NFS hears within 60 seconds that another writes to a file.
QUIET_SECONDS: Final = 90.0
# How long a process looks for the file by which all see that they have one folder.
PROBE_SECONDS: Final = 20.0
_SHORTEST: Final = 0.005  # seconds between two looks into the folder; then longer, up to
_LONGEST: Final = 0.5
_MOST_TEXT: Final = 2000  # of a note


def new_token() -> str:
    """What tells the parts of one writing from those of another."""
    return secrets.token_hex(4)


def check_parted(
    sharded: object, capture: Capture, store: SnapshotStore, which: Which
) -> PartedCapture | None:
    """The capture, if its weights are to be written in parts, and can be; None if they are not.

    Raises:
        SnapshotError: they cannot.
    """
    if not isinstance(sharded, bool):
        raise SnapshotError(
            f"Argument `sharded` must be True or False. Received: sharded={shown(sharded)}"
        )
    if not sharded:
        return None
    received = ""
    if store.url is not None:
        received = f"the URL {store.url}; give a folder that all processes share"
    elif which != "all":
        received = f"which={shown(which)}; leave it out"
    elif not isinstance(capture, PartedCapture):
        received = f"weights of {capture.framework}, which are gathered; leave it out"
    if received or not isinstance(capture, PartedCapture):
        raise SnapshotError(
            "Argument `sharded` is for all of a model's weights in a shared local folder, of a "
            f"framework that holds them in parts. Received: sharded=True, and {received}"
        )
    return capture


def see_one_folder(ranks: Ranks, folder: Path) -> None:
    """See that the processes of a run have one folder, and not each its own of that name.

    Raises:
        SnapshotError: one does not see what rank 0 wrote there; in all of them.
    """
    if ranks.alone:
        return
    probe = folder / probe_name(ranks.shared(new_token))

    def write() -> None:
        try:
            probe.touch()
        except OSError as error:
            raise SnapshotError(
                f"Folder {folder} must be a folder that can be written to. "
                f"Received: {error.strerror or error}"
            ) from error

    def look() -> None:
        ends, pause = time.monotonic() + PROBE_SECONDS, _SHORTEST
        while probe.name not in _listed(folder):
            if time.monotonic() > ends:
                raise SnapshotError(
                    f"Folder {folder} must be one that all processes share, for each writes its "
                    "parts of a snapshot there. Received: another in this process than in that of "
                    "rank 0; give an absolute path on a file system that all of them reach"
                )
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)

    ranks.told(write)
    try:
        ranks.agreed(look)
    finally:
        if ranks.writes:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)


def agree(said: list[list[Any]]) -> None:
    """Refuse parts of which the processes say different things; in all of them alike.

    Args:
        said: what each says of its own by `summary`.

    Raises:
        SnapshotError: they differ, or a part is nobody's or two processes'.
    """
    first = said[0]
    for rank, each in enumerate(said):
        if each[:2] != first[:2]:
            raise SnapshotError(
                "All processes must name the same tensors, of the same shapes and dtypes, and as "
                f"many parts. Received: {each[0]} parts of other tensors in the process of rank "
                f"{rank} than in that of rank 0, which has {first[0]} parts"
            )
    theirs = sorted(part for each in said for part in each[2])
    if theirs != list(range(first[0])):
        raise SnapshotError(
            f"Each of {first[0]} parts must be one process' own. Received: those with the "
            f"indices {shown(theirs)}"
        )


def summary(parts: Parts) -> list[Any]:
    """What a process says of its parts to the others."""
    layout = {name: [list(shape), dtype] for name, (shape, dtype) in parts.layout.items()}
    digest = xxh3_128(json.dumps(layout, sort_keys=True).encode()).hexdigest()
    return [parts.number, digest, sorted(parts.pieces)]


def check_parts(parts: Parts) -> Parts:
    """Parts as a capture gives them, if a file can hold their tensors.

    Raises:
        SnapshotError: it cannot.
    """
    for name, (_, dtype) in parts.layout.items():
        check_tensor(name, dtype)
    return parts


class Share:
    """What one process writes of one snapshot in parts.

    Args:
        path: the snapshot.
        token: of this writing of it.
        parts: as the capture gives them. Their data are not held.
        buffers: hold a copy of them from then on.
    """

    def __init__(self, path: Path, token: str, parts: Parts, buffers: HostBuffers) -> None:
        self._path, self._token = path, token
        self._number, self._layout = parts.number, parts.layout
        keys = {
            (part, name): name if len(parts.pieces) == 1 else f"{name} (part {part + 1})"
            for part, pieces in parts.pieces.items()
            for name in pieces
        }
        self._starts = {
            part: {name: tuple(each.start) for name, each in pieces.items()}
            for part, pieces in parts.pieces.items()
        }
        data = {keys[part, name]: parts.pieces[part][name].data for part, name in keys}
        copied = buffers.copy(data)
        self._pieces = {
            part: {name: copied[keys[part, name]] for name in pieces}
            for part, pieces in parts.pieces.items()
        }
        self.tensors: Mapping[str, TensorBytes] = copied

    def arrive(self, buffers: HostBuffers) -> None:
        """Wait until the copy has arrived, or leave a note that it did not."""
        try:
            buffers.arrive()
        except BaseException as error:
            self.fail(error)
            raise

    def write(self) -> None:
        """Write this process' parts, or leave a note that it failed.

        Raises:
            SnapshotError: one cannot be written.
        """
        try:
            for part, pieces in self._pieces.items():
                lost = [
                    name for name, each in pieces.items() if not all_finite(each.data, each.dtype)
                ]
                metadata = part_metadata(self._token, part, self._number, self._starts[part], lost)
                write_file(self._file(part), pieces, metadata)
        except BaseException as error:
            self.fail(error)
            raise

    def fail(self, error: BaseException) -> None:
        """Leave a note for rank 0 that this process' parts will not come."""
        text = str(error) or type(error).__name__
        for part in self._pieces:
            note = self._path.with_name(note_name(self._file(part).name))
            with contextlib.suppress(OSError):  # then rank 0 waits as long as it does
                note.write_text(text[:_MOST_TEXT], encoding="utf-8", errors="replace")
                break

    def gather(self, broken: threading.Event) -> tuple[Index, str | None]:
        """Wait for the parts of all, and see that they are right.

        Args:
            broken: is set when the run broke off.

        Returns:
            What the index is to say, and the first tensor that is not finite.

        Raises:
            SnapshotError: a part does not come, or is not what it must be.
        """
        self._wait(broken)
        paths = [self._file(part) for part in range(self._number)]
        with contextlib.ExitStack() as stack:
            readers: list[SnapshotReader] = []
            suspects: set[str] = set()
            for part, path in enumerate(paths):
                reader = stack.enter_context(SnapshotReader(path))
                readers.append(reader)
                try:
                    suspects.update(checked_part(reader, self._token, part, self._number))
                except ValueError as error:
                    raise SnapshotError(f"Snapshot {path} could not be read: {error}") from error
            joined = Joined(paths, readers, self._layout)
            lost = _first_lost(joined, self._layout, suspects)
            digests = tuple(each.raw_metadata["digest"] for each in readers)
        # The names of the parts, before the one that says that they are there.
        try:
            sync_folder(self._path.parent)
        except OSError as error:
            raise SnapshotError(
                f"{self._path} could not be written: {error.strerror or error}"
            ) from error
        return Index(self._token, self._layout, digests), lost

    def discard(self) -> None:
        """Remove what there is of a writing that failed, of all processes; best effort."""
        with contextlib.suppress(OSError):
            for each in of_writing(self._path.parent, self._path.name, self._token):
                each.unlink(missing_ok=True)

    def _file(self, part: int) -> Path:
        name = part_name(self._path.name, part, self._number, self._token)
        return self._path.with_name(name)

    def _wait(self, broken: threading.Event) -> None:
        missing = {self._file(part).name: part for part in range(self._number)}
        began = changed = time.monotonic()
        seen: set[tuple[str, int, int]] | None = None
        pause = _SHORTEST
        while True:
            there = _listed(self._path.parent)
            for name, part in missing.items():
                if note_name(name) in there:
                    raise self._noted(name, part)
            missing = {name: part for name, part in missing.items() if name not in there}
            if not missing:
                return
            now = time.monotonic()
            if broken.is_set() and seen != (seen := _being_written(self._path.parent, missing)):
                changed = now
            waited, most = now - began, PARTS_SECONDS
            if seen is not None and now - changed > QUIET_SECONDS:
                waited, most = now - changed, QUIET_SECONDS
            if waited > most:
                few = ", ".join(str(part + 1) for part in [*missing.values()][:8])
                after = " after the run broke off" if most == QUIET_SECONDS else ""
                raise SnapshotError(
                    f"{self._path} could not be written: of its {plural(self._number, 'part')}, "
                    f"{len(missing)} did not come within {most:g} seconds{after}, such as {few}. "
                    "See that every process runs on; the snapshots before it are untouched"
                )
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)

    def _noted(self, name: str, part: int) -> SnapshotError:
        text = "no word of why"
        with contextlib.suppress(OSError):
            note = self._path.with_name(note_name(name))
            with note.open(encoding="utf-8", errors="replace") as file:
                text = file.read(_MOST_TEXT) or text
        return SnapshotError(
            f"{self._path} could not be written: the process that writes its part {part + 1} of "
            f"{self._number} failed: {text}"
        )


def made_whole(
    share: Share,
    make: Callable[..., Snapshot],
    failed: deque[Share],
    broken: threading.Event,
) -> tuple[Snapshot, str | None]:
    """Write rank 0's share, and the index when the others have written theirs.

    Args:
        share: rank 0's.
        make: makes the snapshot, of an index and the name of a tensor that is not finite.
        failed: earlier ones, of which late parts may have come since.
        broken: is set when the run broke off.

    Returns:
        The snapshot, and that tensor.

    Raises:
        SnapshotError: a part cannot be written, or does not come. What there is, is removed.
    """
    for each in failed:
        each.discard()
    try:
        share.write()
        index, lost = share.gather(broken)
        return make(parts=index, nonfinite=lost), lost
    except BaseException:
        share.discard()
        failed.append(share)
        raise


def _first_lost(joined: Joined, layout: Layout, suspects: set[str]) -> str | None:
    """The first tensor that is not finite and not meant to be so, as of one in one piece."""
    for name, (shape, dtype) in layout.items():
        if name in suspects and not is_meant(joined.chunks(name), dtype, shape):
            return name
    return None


def _listed(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))  # noqa: PTH208 - names, and as they are now
    except OSError:
        return set()


def _being_written(folder: Path, names: Collection[str]) -> set[tuple[str, int, int]]:
    """The temporary files of such files, with what changes of one that is written to."""
    found = set()
    for name in _listed(folder):
        if is_leftover(name) and name.startswith(tuple(f".{each}." for each in names)):
            with contextlib.suppress(OSError):  # it has its name by now
                stat = (folder / name).stat()
                found.add((name, stat.st_size, stat.st_mtime_ns))
    return found
