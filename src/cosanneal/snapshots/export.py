"""Weights as a file that others open: safetensors, under the tensors' own names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ..core.atomic import replacing
from ..core.errors import CosannealError, SnapshotError, shown
from ..core.paths import local_path
from .capture import HostBuffers
from .file import Layout, check_tensor, encode_header, plan_header
from .names import SNAPSHOT_NAME
from .store import Snapshot


def check_format(format: object, known: Sequence[str], elsewhere: str) -> None:  # noqa: A002
    """Refuse a format that an adapter does not write.

    Raises:
        SnapshotError: it is none of those known.
    """
    if format not in known:
        *others, last = map(repr, known)
        raise SnapshotError(
            f"Argument `format` must be {', '.join(others)}{' or ' * bool(others)}{last}. "
            f"Received: format={shown(format)}; {elsewhere}"
        )


def check_target(
    path: Path, overwrite: bool, *, what: str, error: type[CosannealError] = SnapshotError
) -> None:
    """Refuse a file that is there, or a name that would pass for a snapshot's.

    Args:
        path: the file to write.
        overwrite: whether it may replace a file.
        what: what it is, with its article.
        error: what to raise.
    """
    if SNAPSHOT_NAME.fullmatch(path.name):
        raise error(
            f"{what[0].upper()}{what[1:]} must not bear the name of a snapshot, for it is none. "
            f"Received: {path}; choose another name"
        )
    if not overwrite and os.path.lexists(path):
        raise error(
            f"The file of {what} must not be there yet. Received: {path}; choose another "
            "name, or replace it with overwrite=True"
        )


@contextlib.contextmanager
def exporting(path: str | os.PathLike[str], *, overwrite: bool) -> Iterator[BinaryIO]:
    """A file to write, which has its name when it is whole and durable.

    Raises:
        SnapshotError: it is there and not to be replaced, or cannot be written.
    """
    file_path = local_path(path, error=SnapshotError)
    check_target(file_path, overwrite, what="an export")
    with replacing(file_path, error=SnapshotError) as file:
        yield file
        check_target(file_path, overwrite, what="an export")  # it may have come meanwhile


def write_safetensors(
    file: BinaryIO,
    layout: Layout,
    chunks: Callable[[str], Iterable[bytes | memoryview]],
    metadata: Mapping[str, str],
) -> None:
    """Write tensors as safetensors has them, with a piece of one in memory at a time.

    Args:
        file: where to.
        layout: the shape and the dtype's name of each, by name.
        chunks: gives the bytes of one.
        metadata: of the header.
    """
    for name, (_, dtype) in layout.items():
        check_tensor(name, dtype)
    header, order = plan_header(layout, metadata)
    file.write(encode_header(header))
    for name in order:
        for chunk in chunks(name):
            file.write(chunk)


def write_snapshot(file: BinaryIO, snapshot: Snapshot, metadata: Mapping[str, str]) -> None:
    """Write a snapshot's tensors, each of which is compared with its digest."""
    with snapshot.open() as reader:
        write_safetensors(file, reader.layout, reader.chunks, metadata)


def write_arrays(
    file: BinaryIO, arrays: Mapping[str, Any], buffers: HostBuffers, metadata: Mapping[str, str]
) -> None:
    """Write arrays, of which the host has a copy meanwhile."""
    tensors = buffers.copy(arrays)
    buffers.arrive()
    layout = {name: (each.shape, each.dtype) for name, each in tensors.items()}
    write_safetensors(file, layout, lambda name: [tensors[name].data], metadata)
