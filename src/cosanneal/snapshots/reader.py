"""Reading a snapshot file. Nothing that it says is used before it was checked.

A file is opened once. Its header is compared with its digest, and what it says
of the tensors with the file's size, before anything is read by it; a tensor is
compared with its own digest as it is read. Memory is taken for what is really
in the file, not for what its header claims.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128

from ..core.documents import open_regular, parse_document
from ..core.errors import SnapshotError, shown
from .at_once import MUCH_BYTES, of_each
from .disk import is_cached
from .file import DTYPES, FORMAT_VERSION, MAX_HEADER_BYTES, count_bytes, digest_of
from .finite import all_finite, is_meant

Piece = TypeVar("Piece", bytes, bytes | memoryview)

# safetensors' code -> the framework's name.
_NAMES: Final[Mapping[str, str]] = {code: name for name, (code, _) in DTYPES.items()}

# Small enough to be hashed and copied where the processor has it at hand.
_CHUNK_BYTES: Final = 1 << 20

# Of what is in memory and only digested: threads that come back so seldom do not wait for each
# other. Of 100 MB by two, 4.4 ms at best in place of 5.3.
_MAPPED_BYTES: Final = 1 << 24

# More than any framework's tensors have.
_MOST_AXES: Final = 64

# Not on Windows.
_PREAD: Final[Callable[[int, int, int], bytes] | None] = getattr(os, "pread", None)

_REMEDY: Final = "delete it, or restore it from a copy"


@dataclass(frozen=True, slots=True)
class _Place:
    """A tensor in the file: what it is, and its first byte and the one after its last."""

    shape: tuple[int, ...]
    dtype: str
    start: int
    stop: int
    digest: str


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a snapshot says, checked.

    Attributes:
        raw_metadata: its metadata, as they stand there.
        places: where each tensor is, by name.
    """

    raw_metadata: dict[str, str]
    places: dict[str, _Place]

    @property
    def layout(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """The shape and the dtype's name of each tensor, by name."""
        return {name: (at.shape, at.dtype) for name, at in self.places.items()}


class SnapshotReader(Mapping[str, NDArray[Any]]):
    """The tensors of an opened snapshot, by name, each read when it is asked for.

    `reader[name]` is a read-only array over the file's memory map, which stays
    usable after the reader is closed. It takes no memory that the system cannot
    take back, and must not be used while somebody changes the file in place
    (cosanneal never does: it writes another and renames it).

    Args:
        path: the file.
        verify: compare each tensor with its digest when it is read.
        held: closed with it: what keeps the file in its place.

    Raises:
        SnapshotError: the file cannot be read, or its header is not what was
            written.

    Attributes:
        layout: the shape and the dtype's name of each tensor, by name.
        raw_metadata: the header's metadata, as they stand in the file.

    Example: see `Snapshot.open`, which gives readers.
    """

    def __init__(self, path: Path, *, verify: bool = True, held: BinaryIO | None = None) -> None:
        self._path = path
        self._held = held
        self._verify = verify
        self._checked: set[str] = set()  # the tensors whose mapped bytes were found right
        self._map: mmap.mmap | None = None
        self._lock = threading.Lock()  # around the file's position
        try:
            self._file = open_regular(path, links=False, remedy=_REMEDY)
        except OSError as error:
            raise self._error(error.strerror or str(error)) from error
        try:
            header = read_header(path, self._file, os.fstat(self._file.fileno()).st_size)
        except BaseException as error:
            self._file.close()
            if not isinstance(error, OSError):
                raise
            raise self._error(f"{error}; {_REMEDY}") from error
        self.raw_metadata: dict[str, str] = header.raw_metadata
        self.layout: dict[str, tuple[tuple[int, ...], str]] = header.layout
        self._places = header.places
        self._sizes = {name: at.stop - at.start for name, at in header.places.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __contains__(self, name: object) -> bool:
        return name in self._places  # without reading it

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, name: str) -> NDArray[Any]:
        at = self._places[name]
        dtype = self._numpy_dtype(name)
        data = self._mapped()[at.start : at.stop]
        if len(data) < at.stop - at.start:
            raise self._damaged(name)
        if self._verify and name not in self._checked:
            if xxh3_128(data).hexdigest() != at.digest:
                raise self._damaged(name)
            self._checked.add(name)
        return np.ndarray(at.shape, dtype, buffer=data)

    def chunks(self, name: str, size: int = _CHUNK_BYTES) -> Iterator[bytes]:
        """The bytes of the tensor `name` in turn, at most `size` at once; to be read to the end.

        Raises:
            SnapshotError: at the end, if they were not what was written.
        """
        return self._chunks(name, size, verify=self._verify)

    def _chunks(self, name: str, size: int, *, verify: bool) -> Iterator[bytes]:
        return self._pieces(name, size, self._read_at, verify=verify)

    def _pieces(
        self, name: str, size: int, read: Callable[[int, int], Piece], *, verify: bool
    ) -> Iterator[Piece]:
        """The bytes of a tensor as `read` gives them, of a place and so many; and their digest."""
        at = self._places[name]
        digest = xxh3_128()
        for start in range(at.start, at.stop, size):
            wanted = min(size, at.stop - start)
            chunk = read(start, wanted)
            if len(chunk) < wanted:
                raise self._damaged(name)
            if verify:
                digest.update(chunk)
            yield chunk
        if verify and digest.hexdigest() != at.digest:
            raise self._damaged(name)

    def _read_at(self, start: int, size: int) -> bytes:
        """So many bytes from there on, or fewer at the end of the file; in any thread."""
        with self._lock if _PREAD is None else contextlib.nullcontext():
            self._refuse_closed()
            try:
                if _PREAD is not None:  # several threads at once
                    return _PREAD(self._file.fileno(), size, start)
                self._file.seek(start)
                return self._file.read(size)
            except OSError as error:
                raise self._error(error.strerror or str(error)) from error

    def _mapped(self) -> memoryview:
        """The whole file, as it is mapped into memory."""
        self._refuse_closed()
        if self._map is None:
            try:
                self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise self._error(str(error)) from error
        return memoryview(self._map)

    def _fastest(self) -> Callable[[int, int], bytes | memoryview]:
        """What gives so many bytes from a place on, with the least work.

        A disk that fails under a mapped file ends the process, and under a read is an error.
        What is in memory needs no disk, and no copy.
        """
        self._refuse_closed()
        size = max((at.stop for at in self._places.values()), default=0)
        if size < MUCH_BYTES or not is_cached(self._file.fileno(), size):
            return self._read_at
        whole = self._mapped()
        return lambda start, size: whole[start : start + size]

    def load(self, framework: str = "numpy") -> dict[str, Any]:
        """All tensors by name, as arrays of the framework (safetensors' names for them).

        Of numpy's, dtypes that ml_dtypes adds to numpy are known where it is installed.

        Raises:
            SnapshotError: a tensor is damaged, the file was replaced meanwhile, or the
                framework has no such dtype.
        """
        if framework in ("numpy", "np"):
            return of_each(self._sizes, functools.partial(self._copy, self._fastest()))
        import safetensors  # which frameworks' extras bring along

        tensors: dict[str, Any] = {}
        name = ""
        try:
            with safetensors.safe_open(self._path, framework=framework) as file:
                for name in self:
                    tensors[name] = file.get_tensor(name)
            opened, found = os.fstat(self._file.fileno()), self._path.stat()
        except (safetensors.SafetensorError, OSError) as error:
            raise self._error(str(error)) from error
        except (TypeError, AttributeError) as error:
            raise self._unknown_dtype(name, framework) from error
        if not os.path.samestat(opened, found):
            raise self._error("it was replaced meanwhile; read it again")
        if self._verify:
            self._verify_loaded(tensors)
        return tensors

    def _verify_loaded(self, tensors: Mapping[str, Any]) -> None:
        """Compare what was read with the digests."""
        if self._fastest() == self._read_at or not all(
            hasattr(value, "data_ptr") for value in tensors.values()
        ):
            self.verify()
            return

        def check(name: str) -> None:
            # Torch's tensors lie over a mapping of the file by safetensors. To map it once more
            # would have every page of it found twice, which takes half as long as the digest.
            at = self._places[name]
            size = self._sizes[name]
            data = (ctypes.c_char * size).from_address(tensors[name].data_ptr()) if size else b""
            if xxh3_128(data).hexdigest() != at.digest:
                raise self._damaged(name)

        of_each(self._sizes, check)

    def verify(self, progress: Callable[[int], None] | None = None) -> None:
        """Read every tensor and compare it with its digest, whatever `verify` was given as.

        Several tensors are digested at once where there is much to digest.

        Args:
            progress: called with the number of bytes read since it was last
                called; from another thread, it may be, but not twice at once.

        Raises:
            SnapshotError: one of them is not what was written; the message names it.
        """
        reporting = threading.Lock()
        read = self._fastest()
        size = _CHUNK_BYTES if read == self._read_at else _MAPPED_BYTES

        def check(name: str) -> None:
            for piece in self._pieces(name, size, read, verify=True):
                if progress is not None:
                    with reporting:
                        progress(len(piece))

        of_each(self._sizes, check)

    def first_nonfinite(self) -> str | None:
        """The first tensor with a NaN or an infinity; see `finite.first_nonfinite`."""
        for name, (_, dtype) in self.layout.items():
            finite = all(all_finite(each, dtype) for each in self.chunks(name))
            if not finite and not self.is_meant(name):
                return name
        return None

    def is_meant(self, name: str) -> bool:
        """Whether the tensor `name`, not finite, is meant so; see `finite.first_nonfinite`."""
        shape, dtype = self.layout[name]
        return is_meant(self.chunks(name), dtype, shape)

    def close(self) -> None:
        """Close the file. Arrays that were handed out stay usable."""
        self._file.close()
        if self._held is not None:
            self._held.close()
        # Unmapped when the last array over it is gone.
        self._map = None

    def _copy(self, read: Callable[[int, int], bytes | memoryview], name: str) -> NDArray[Any]:
        at = self._places[name]
        dtype = self._numpy_dtype(name)
        data = np.empty(at.stop - at.start, np.uint8)
        filled = 0
        for chunk in self._pieces(name, _CHUNK_BYTES, read, verify=self._verify):
            data[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
            filled += len(chunk)
        return np.ndarray(at.shape, dtype, buffer=data)

    def _numpy_dtype(self, name: str) -> np.dtype[Any]:
        dtype = self._places[name].dtype
        found = numpy_dtype(dtype)
        if found is None:
            raise self._unknown_dtype(name, "numpy")
        return found

    def _refuse_closed(self) -> None:
        if self._file.closed:
            raise self._error("it is closed; read its tensors inside the `with` block")

    def _error(self, what: str) -> SnapshotError:
        return SnapshotError(f"Snapshot {self._path} could not be read: {what}")

    def _damaged(self, name: str) -> SnapshotError:
        return SnapshotError(
            f"Snapshot {self._path} is damaged: its tensor {name!r} does not match its digest; "
            f"{_REMEDY}"
        )

    def _unknown_dtype(self, name: str, framework: str) -> SnapshotError:
        return SnapshotError(
            f"Tensor {name!r} of snapshot {self._path} has dtype {self._places[name].dtype}, which "
            f"{framework} does not know. Install ml_dtypes, or load it with framework='pt'"
        )


def numpy_dtype(name: str) -> np.dtype[Any] | None:
    """The dtype of that name, if numpy or ml_dtypes (where installed) has it."""
    try:
        return np.dtype(name)
    except TypeError:
        pass
    try:
        importlib.import_module("ml_dtypes")  # which teaches numpy its dtypes
        return np.dtype(name)
    except (ImportError, TypeError):
        return None


def read_header(path: Path | str, file: BinaryIO, size: int) -> Header:
    """What a header says, all of it checked.

    Args:
        path: what the messages call the snapshot.
        file: its bytes, as far as the header goes.
        size: how many it has in all.

    Raises:
        SnapshotError: it cannot be so, or is of another version.
        OSError: the file cannot be read.
    """
    try:
        return _read_header(path, file, size)
    except ValueError as error:
        raise SnapshotError(f"Snapshot {path} could not be read: {error}; {_REMEDY}") from error


def _read_header(path: Path | str, file: BinaryIO, size: int) -> Header:
    if size < 8:
        raise ValueError(f"it has {size} bytes")
    length = int.from_bytes(file.read(8), "little")
    if length > min(MAX_HEADER_BYTES, size - 8):
        raise ValueError(f"a header of {length} bytes does not fit")
    text = file.read(length)
    header = parse_document(text.decode(), at="header")
    if not isinstance(header, dict) or not text.startswith(b"{"):
        raise ValueError("its header is no JSON object")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise ValueError("its metadata are no strings by name")
    version = metadata.get("cosanneal")
    if version != str(FORMAT_VERSION):
        raise SnapshotError(
            f"Snapshot {path} must be of format version {FORMAT_VERSION}, the one this cosanneal "
            f"reads. Received: {shown(version)}"
            + (
                "; a newer cosanneal may read it"
                if version
                else ", no snapshot of cosanneal's; move it elsewhere, or restore it from a copy"
            )
        )
    if metadata.pop("digest", None) != (digest := digest_of(header)):
        raise ValueError("its header does not match its digest")
    del header["__metadata__"]
    places = _check_places(header, metadata.get("digests", ""), 8 + length, size)
    return Header({**metadata, "digest": digest}, places)


def _check_places(
    header: Mapping[str, Any], digests: str, start: int, size: int
) -> dict[str, _Place]:
    """The tensors' places, which must fill the file from `start` on without gap or overlap."""
    found = parse_document(digests, at="digests")
    if not isinstance(found, dict) or found.keys() != header.keys():
        raise ValueError("its digests are not those of its tensors")
    places: dict[str, _Place] = {}
    for name, entry in header.items():
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"bad tensor {shown(name)}")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _NAMES:
            raise ValueError(f"tensor {shown(name)} has the unknown dtype {shown(dtype)}")
        if not (_are_sizes(shape) and len(shape) <= _MOST_AXES):
            raise ValueError(f"tensor {shown(name)} has the shape {shown(shape)}")
        if not (_are_sizes(offsets) and len(offsets) == 2):
            raise ValueError(f"tensor {shown(name)} has the offsets {shown(offsets)}")
        place = _Place(
            shape=tuple(shape),
            dtype=_NAMES[dtype],
            start=start + offsets[0],
            stop=start + offsets[1],
            digest=str(found[name]),
        )
        # An empty tensor may have other axes, but none that no array could have.
        extent = count_bytes(tuple(filter(None, place.shape)), place.dtype)
        expected = 0 if 0 in place.shape else extent
        if extent >= 2**63 or place.stop - place.start != expected:
            raise ValueError(f"tensor {shown(name)} has {offsets} for the shape {shown(shape)}")
        places[name] = place
    end = start
    for place in sorted(places.values(), key=lambda place: (place.start, place.stop)):
        if place.start != end:
            raise ValueError("its tensors overlap, or leave gaps")
        end = place.stop
    if end != size:
        raise ValueError(f"it must have {end} bytes. Received: {size}")
    return places


def _are_sizes(values: object) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 2**63 for value in values
    )
