"""The format of a snapshot file, and how one is written: safetensors, with digests, atomically.

The file is plain safetensors, which any of its readers opens: eight bytes with
the header's length, the header in JSON, then the tensors' bytes. The header's
metadata holds two entries more than the writer was given: `digests`, the
XXH3-128 of each tensor's bytes by name (a JSON object), and `digest`, the
XXH3-128 of the header without that entry (as JSON with sorted keys and no
spaces). So the header vouches for itself, whoever reads no more than that, and
for each tensor, which can be read alone. A change of any name, shape, dtype,
offset, metadata or datum is noticed by what reads it.

Files are written here, and not by the safetensors package, because a snapshot
must be durable before it has its name: every byte goes through one descriptor
that is synced before the rename.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

from xxhash import xxh3_128

from ..core.atomic import replacing
from ..core.errors import SnapshotError
from .disk import begin_writing, reserve

FORMAT_VERSION: Final = 1

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
    "float8_e4m3fnuz": ("F8_E4M3FNUZ", 8),
    "float8_e5m2": ("F8_E5M2", 8),
    "float8_e5m2fnuz": ("F8_E5M2FNUZ", 8),
    "float8_e8m0fnu": ("F8_E8M0", 8),
    "float16": ("F16", 16),
    "bfloat16": ("BF16", 16),
    "float32": ("F32", 32),
    "float64": ("F64", 64),
    "complex64": ("C64", 64),
}

# The shape and the dtype's name of each tensor, by name.
Layout: TypeAlias = Mapping[str, tuple[tuple[int, ...], str]]

# From so much data on, writing takes so long that the system is told of it early; and as much
# is sent to the disk at once.
_LARGE_BYTES: Final = 1 << 24

# Small enough for the processor's cache, and so large that a call costs little beside it.
_PIECE_BYTES: Final = 1 << 22


@dataclass(frozen=True, slots=True)
class TensorBytes:
    """A tensor as a framework hands it over: its dtype's name, its shape, its bytes in C order."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview


def write_file(path: Path, tensors: Mapping[str, TensorBytes], metadata: Mapping[str, str]) -> None:
    """Write a snapshot file so that `path` is either all there, durably, or not there.

    Each piece of the data is digested and written while the processor has it at hand; the
    digests are put into the header at the end.

    Raises:
        SnapshotError: a tensor that the format cannot hold, or an error of the
            file system, with the path. Nothing is left behind.
    """
    for name, tensor in tensors.items():
        check_tensor(name, tensor.dtype)
        expected = count_bytes(tensor.shape, tensor.dtype)
        if tensor.data.nbytes != expected:
            raise SnapshotError(
                f"Tensor {name!r} of shape {tensor.shape} and dtype {tensor.dtype} must have "
                f"{expected} bytes. Received: {tensor.data.nbytes}"
            )
    layout = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    _, order = plan_header(layout, metadata)
    # Digests are all of one length, and so are the headers with and without them.
    room = _encoded(layout, metadata, dict.fromkeys(order, "0" * 32))
    advice = (
        ". The snapshots written before it are untouched; free space or mend the folder, then go "
        "on without this one, or resume from before it"
    )
    with replacing(path, error=SnapshotError, advice=advice) as file:
        file.write(room)
        digests = _write_data(file, {name: tensors[name].data for name in order}, len(room))
        file.seek(0)
        file.write(_encoded(layout, metadata, digests))


def _write_data(file: BinaryIO, parts: Mapping[str, memoryview], start: int) -> dict[str, str]:
    """Write the tensors from there on; their digests."""
    end = start + sum(data.nbytes for data in parts.values())
    is_large = end >= _LARGE_BYTES
    if is_large:
        file.flush()
        reserve(file.fileno(), end)
    digests: dict[str, str] = {}
    begun = written = start
    for name, data in parts.items():
        digest = xxh3_128()
        data = data.cast("B") if data.nbytes else data  # of no elements there is no such view
        for at in range(0, data.nbytes, _PIECE_BYTES):
            piece = data[at : at + _PIECE_BYTES]
            digest.update(piece)
            file.write(piece)
            written += piece.nbytes
            if is_large and written - begun >= _LARGE_BYTES:
                begin_writing(file.fileno(), begun, written - begun)
                begun = written
        digests[name] = digest.hexdigest()
    return digests


def plan_header(layout: Layout, metadata: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The header of a file of such tensors, and the order in which their bytes follow it.

    Args:
        layout: the shape and the dtype's name of each tensor, by name.
        metadata: the header's metadata.
    """
    # Wide elements first, so that every tensor is aligned to its element's size.
    order = sorted(layout, key=lambda name: (-DTYPES[layout[name][1]][1], name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name in order:
        shape, dtype = layout[name]
        end = offset + count_bytes(shape, dtype)
        header[name] = {
            "dtype": DTYPES[dtype][0],
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        offset = end
    return header, order


def encode_header(header: Mapping[str, Any]) -> bytes:
    """The bytes before the data: the header's length and the header, in JSON.

    Raises:
        SnapshotError: it is longer than a reader of safetensors takes.
    """
    encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    # Padded with spaces, so that the data starts at a multiple of eight bytes.
    encoded += b" " * (-len(encoded) % 8)
    if len(encoded) > MAX_HEADER_BYTES:
        raise SnapshotError(
            f"The header of a snapshot must be at most {MAX_HEADER_BYTES} bytes. Received: "
            f"{len(encoded)} bytes; shorten the metrics or the tensors' names"
        )
    return struct.pack("<Q", len(encoded)) + encoded


def digest_of(header: Mapping[str, Any]) -> str:
    """The digest of a header that does not hold it yet.

    Raises:
        UnicodeEncodeError: (a ValueError) a surrogate without its pair, which is no text.
    """
    canonical = json.dumps(header, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return f"xxh3_128:{xxh3_128(canonical.encode()).hexdigest()}"


def count_bytes(shape: tuple[int, ...], dtype: str) -> int:
    """The bytes of a tensor of that shape and dtype."""
    return math.prod(shape) * DTYPES[dtype][1] // 8


def check_tensor(name: str, dtype: str) -> None:
    """Refuse a tensor that the format cannot hold.

    Raises:
        SnapshotError: its name is safetensors' own or no text, or its dtype has no code.
    """
    if name == "__metadata__":
        raise SnapshotError("A tensor must not be named '__metadata__': safetensors owns it")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise SnapshotError(
            f"A tensor's name must be Unicode text. Received: {name!r} ({error.reason})"
        ) from error
    if dtype not in DTYPES:
        raise SnapshotError(
            f"Tensor {name!r} must have a dtype that safetensors holds ({', '.join(DTYPES)}). "
            f"Received: {dtype}; convert it, or leave it out of the model's state"
        )


def _encoded(layout: Layout, metadata: Mapping[str, str], digests: Mapping[str, str]) -> bytes:
    """The bytes before the data of a snapshot."""
    stated = json.dumps(digests, ensure_ascii=False, sort_keys=True)
    header, _ = plan_header(layout, {**metadata, "digests": stated})
    header["__metadata__"]["digest"] = digest_of(header)
    return encode_header(header)


def first_mismatch(found: Layout, expected: Layout, *, owner: str = "the model") -> str | None:
    """What first differs between the tensors of a snapshot and of a model, in words."""
    for name, (shape, dtype) in expected.items():
        if name not in found:
            return f"{owner}'s tensor {name!r} is not in it"
        if found[name] != (shape, dtype):
            theirs = f"{found[name][1]} of shape {found[name][0]}"
            return f"its tensor {name!r} is {theirs}, {owner}'s {dtype} of shape {shape}"
    for name in found:
        if name not in expected:
            return f"its tensor {name!r} is not in {owner}"
    return None
