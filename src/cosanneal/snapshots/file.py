"""One snapshot file: safetensors, with a digest, written atomically.

The file is plain safetensors, which any of its readers opens: eight bytes with
the header's length, the header in JSON, then the tensors' bytes. The header's
metadata holds one entry more than the writer was given, `digest`: the SHA-256
of the header without that entry (as JSON with sorted keys and no spaces)
followed by all of the tensors' bytes. A change of any name, shape, dtype,
offset, metadata or datum changes it.

Files are written here, and not by the safetensors package, because a snapshot
must be durable before it has its name: every byte goes through one descriptor
that is synced before the rename. They are read by the safetensors package.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import safetensors
from numpy.typing import NDArray

from ..core.atomic import replacing
from ..core.errors import SnapshotError

# safetensors' own bound on a header, which its reader enforces.
MAX_HEADER_BYTES: Final = 100_000_000

# The name a framework gives a dtype -> safetensors' code and the bits of one element.
DTYPES: Final[Mapping[str, tuple[str, int]]] = {
    "bool": ("BOOL", 8),
    "uint8": ("U8", 8),
    "int8": ("I8", 8),
    "uint16": ("U16", 16),
    "int16": ("I16", 16),
    "uint32": ("U32", 32),
    "int32": ("I32", 32),
    "uint64": ("U64", 64),
    "int64": ("I64", 64),
    "float8_e4m3fn": ("F8_E4M3", 8),
    "float8_e5m2": ("F8_E5M2", 8),
    "float16": ("F16", 16),
    "bfloat16": ("BF16", 16),
    "float32": ("F32", 32),
    "float64": ("F64", 64),
    "complex64": ("C64", 64),
}

# safetensors' code -> the framework's name.
_NAMES: Final[Mapping[str, str]] = {code: name for name, (code, _) in DTYPES.items()}

_CHUNK_BYTES: Final = 1 << 22

# From so much data on, syncing takes long enough to be begun early.
_LARGE_BYTES: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class TensorBytes:
    """A tensor as a framework hands it over: its dtype's name, its shape, its bytes in C order."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview


def write_file(path: Path, tensors: Mapping[str, TensorBytes], metadata: Mapping[str, str]) -> None:
    """Write a snapshot file so that `path` is either all there, durably, or not there.

    The digest is computed beside the writing, and put into the header at the end.

    Raises:
        SnapshotError: a tensor that the format cannot hold, or an error of the
            file system, with the path. Nothing is left behind.
    """
    header, order = _header(tensors, metadata)
    data = [tensors[name].data for name in order]
    canonical = _canonical(header)
    encoded = _encoded(header, "0" * 64)
    if len(encoded) > MAX_HEADER_BYTES:
        raise SnapshotError(
            f"The header of a snapshot must be at most {MAX_HEADER_BYTES} bytes. Received: "
            f"{len(encoded)} bytes for {path.name}; shorten the metrics or the tensors' names"
        )
    advice = (
        ". The snapshots written before it are untouched; free space or mend the folder, then go "
        "on without this one, or resume from before it"
    )
    with replacing(path, error=SnapshotError, advice=advice) as file:
        file.write(struct.pack("<Q", len(encoded)))
        file.write(encoded)
        with _digesting(canonical, data) as digest:
            for part in data:
                file.write(part)
            if sum(part.nbytes for part in data) >= _LARGE_BYTES:
                # The disk has long to do; it may begin before the digest is there.
                file.flush()
                os.fsync(file.fileno())
        file.seek(8)
        file.write(_encoded(header, digest()))


def check_tensor(name: str, dtype: str) -> None:
    """Refuse a tensor that the format cannot hold.

    Raises:
        SnapshotError: its name is safetensors' own, or its dtype has no code.
    """
    if name == "__metadata__":
        raise SnapshotError("A tensor must not be named '__metadata__': safetensors owns it")
    if dtype not in DTYPES:
        raise SnapshotError(
            f"Tensor {name!r} must have a dtype that safetensors holds ({', '.join(DTYPES)}). "
            f"Received: {dtype}; convert it, or leave it out of the model's state"
        )


def read_metadata(path: Path) -> dict[str, str]:
    """The header's metadata, as it stands in the file; the digest is not checked."""
    with _opened(path) as file:
        header, _ = _read_header(path, file)
    metadata: dict[str, str] = header.get("__metadata__", {})
    return metadata


def verify_file(path: Path) -> None:
    """Read the whole file and compare it with its digest.

    Raises:
        SnapshotError: it is no readable snapshot, or not what was written.
    """
    # safetensors checks the layout: sizes, offsets, gaps, overlaps, shapes.
    with _safetensors(path, "numpy"):
        pass
    with _opened(path) as file:
        header, start = _read_header(path, file)
        stated = header.get("__metadata__", {}).pop("digest", None)
        digest = hashlib.sha256(_canonical(header))
        file.seek(start)
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    if stated != f"sha256:{digest.hexdigest()}":
        raise SnapshotError(
            f"Snapshot {path} is damaged: its content does not match its digest. "
            "Delete it, or restore it from a copy"
        )


def read_layout(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """The shape and the dtype of each tensor by name, from the header alone."""
    with _opened(path) as file:
        header, _ = _read_header(path, file)
    header.pop("__metadata__", None)
    try:
        return {
            name: (tuple(int(size) for size in entry["shape"]), _NAMES[entry["dtype"]])
            for name, entry in header.items()
        }
    except (KeyError, TypeError, ValueError) as error:
        raise SnapshotError(f"Snapshot {path} could not be read: bad tensor ({error!r})") from error


def read_tensors(path: Path, framework: str) -> dict[str, Any]:
    """The tensors by name, as arrays of the framework (safetensors' names for them).

    Of numpy's, dtypes that another package has added to numpy (ml_dtypes, which
    comes with jax) are known once that package is imported.
    """
    with _safetensors(path, framework) as file:
        tensors: dict[str, Any] = {}
        for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
            try:
                tensors[name] = file.get_tensor(name)
            except (TypeError, AttributeError) as error:
                dtype = file.get_slice(name).get_dtype()
                added = _added_dtype(dtype) if framework == "numpy" else None
                if added is not None:
                    tensors[name] = _read_raw(path, name, added)
                    continue
                raise SnapshotError(
                    f"Tensor {name!r} of snapshot {path} has dtype {dtype}, which {framework} "
                    "does not know. Load it with framework='pt'"
                ) from error
        return tensors


def _added_dtype(code: str) -> np.dtype[Any] | None:
    """The dtype of safetensors' code, if a package has taught it to numpy."""
    try:
        return np.dtype(_NAMES[code])
    except (KeyError, TypeError):
        return None


def _read_raw(path: Path, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A tensor by its bytes. The layout has been checked by safetensors' reader."""
    with _opened(path) as file:
        header, start = _read_header(path, file)
        begin, end = header[name]["data_offsets"]
        file.seek(start + begin)
        return np.ndarray(header[name]["shape"], dtype, buffer=bytearray(file.read(end - begin)))


def _header(
    tensors: Mapping[str, TensorBytes], metadata: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    for name, tensor in tensors.items():
        check_tensor(name, tensor.dtype)
        expected = math.prod(tensor.shape) * DTYPES[tensor.dtype][1] // 8
        if tensor.data.nbytes != expected:
            raise SnapshotError(
                f"Tensor {name!r} of shape {tensor.shape} and dtype {tensor.dtype} must have "
                f"{expected} bytes. Received: {tensor.data.nbytes}"
            )
    # Wide elements first, so that every tensor is aligned to its element's size.
    order = sorted(tensors, key=lambda name: (-DTYPES[tensors[name].dtype][1], name))
    offset = 0
    for name in order:
        tensor = tensors[name]
        end = offset + tensor.data.nbytes
        header[name] = {
            "dtype": DTYPES[tensor.dtype][0],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    return header, order


def _encoded(header: Mapping[str, Any], digest: str) -> bytes:
    """The header with its digest, whose length is always the same."""
    metadata = {**header["__metadata__"], "digest": f"sha256:{digest}"}
    encoded = json.dumps(
        {**header, "__metadata__": metadata}, ensure_ascii=False, separators=(",", ":")
    ).encode()
    # Padded with spaces, so that the data starts at a multiple of eight bytes.
    return encoded + b" " * (-len(encoded) % 8)


@contextlib.contextmanager
def _digesting(canonical: bytes, data: Sequence[memoryview]) -> Iterator[Callable[[], str]]:
    """Compute the digest in a thread while the body runs; afterwards the call has it."""
    found: list[str] = []

    def work() -> None:
        digest = hashlib.sha256(canonical)
        for part in data:
            digest.update(part)
        found.append(digest.hexdigest())

    def digest() -> str:
        if not found:  # there was no thread to be had
            work()
        return found[0]

    thread = threading.Thread(target=work, name="cosanneal-digest")
    try:
        thread.start()
    except RuntimeError:
        yield digest
        return
    try:
        yield digest
    finally:
        thread.join()


def _canonical(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise SnapshotError(
            f"Snapshot {path} could not be read: {error.strerror or error}"
        ) from error


@contextlib.contextmanager
def _safetensors(path: Path, framework: str) -> Iterator[Any]:
    try:
        with safetensors.safe_open(path, framework=framework) as file:
            yield file
    except (safetensors.SafetensorError, OSError) as error:
        raise SnapshotError(f"Snapshot {path} could not be read: {error}") from error


def _read_header(path: Path, file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The header and the place where the data starts."""
    try:
        prefix = file.read(8)
        (length,) = struct.unpack("<Q", prefix)
        if length > min(MAX_HEADER_BYTES, os.fstat(file.fileno()).st_size - 8):
            raise ValueError(f"a header of {length} bytes does not fit")
        header = json.loads(file.read(length), object_pairs_hook=_unique)
        if not isinstance(header, dict):
            raise ValueError("the header is no JSON object")
        metadata = header.get("__metadata__", {})
        if not isinstance(metadata, dict) or not all(
            isinstance(value, str) for value in metadata.values()
        ):
            raise ValueError("the metadata are no strings by name")
    except (ValueError, RecursionError, struct.error) as error:
        raise SnapshotError(f"Snapshot {path} could not be read: {error}") from error
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # JSON leaves open which of two equal names counts; two readers might differ.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in the header")
    return found
