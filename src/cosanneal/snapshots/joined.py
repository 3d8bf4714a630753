"""Reading a snapshot in parts: its tensors, each joined from the pieces when it is asked for."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..core.errors import SnapshotError
from .file import DTYPES, Layout, count_bytes, encode_header, plan_header
from .names import part_name, parts_among
from .pieces import Block, Index, bands, blocks_of, checked_part
from .reader import SnapshotReader, numpy_dtype

_CHUNK_BYTES: Final = 1 << 20
_LEAST_BYTES: Final = 1 << 14  # that are read of a piece at once

# safetensors' names for frameworks -> its module.
_MODULES: Final[Mapping[str, str]] = {
    "pt": "torch",
    "torch": "torch",
    "pytorch": "torch",
    "flax": "flax",
    "jax": "flax",
    "tf": "tensorflow",
    "tensorflow": "tensorflow",
}


class Joined:
    """The tensors of opened parts, in one piece.

    Args:
        paths: of the parts.
        parts: they themselves, opened.
        layout: of the whole tensors.

    Raises:
        SnapshotError: the pieces do not make up the tensors.
    """

    def __init__(
        self, paths: Sequence[Path], parts: Sequence[SnapshotReader], layout: Layout
    ) -> None:
        self._layout = layout
        self._blocks = blocks_of(paths, parts, layout)

    def blocks(self, name: str) -> Sequence[Block]:
        """The pieces of a tensor."""
        return self._blocks[name]

    def chunks(self, name: str, size: int = _CHUNK_BYTES) -> Iterator[bytes]:
        """The bytes of a whole tensor in turn, `size` at once and fewer at the end."""
        kept = bytearray()
        for piece in self._pieces(name, size):
            if not kept and len(piece) == size:
                yield bytes(piece)
                continue
            kept += piece
            while len(kept) >= size:
                yield bytes(kept[:size])
                del kept[:size]
        if kept:
            yield bytes(kept)

    def _pieces(self, name: str, size: int) -> Iterator[bytes | memoryview]:
        shape, dtype = self._layout[name]
        width = DTYPES[dtype][1] // 8
        streams = {id(each): _Stream(each, width) for each in self._blocks[name]}
        if streams:
            yield from _walk(shape, self._blocks[name], streams, width, size, 0)


class _Stream:
    """The bytes of a piece in their order, which is theirs in the whole tensor too."""

    def __init__(self, block: Block, width: int) -> None:
        self._block = block
        self._left = block.elements * width
        self._chunks: Iterator[bytes] | None = None
        self._rest = memoryview(b"")

    def through(self, count: int, size: int) -> Iterator[memoryview]:
        """So many bytes, in pieces of at most about `size`."""
        if self._chunks is None:
            self._chunks = self._block.part.chunks(self._block.name, max(size, _LEAST_BYTES))
        while count:
            if not self._rest:
                self._rest = memoryview(next(self._chunks))
            piece, self._rest = self._rest[:count], self._rest[count:]
            count -= len(piece)
            self._left -= len(piece)
            yield piece
        if not self._left:  # its reader compares the digest at the end
            for _ in self._chunks:
                pass

    def take(self, count: int, size: int) -> bytes:
        """So many bytes."""
        return b"".join(self.through(count, size))


def _walk(
    shape: tuple[int, ...],
    blocks: Sequence[Block],
    streams: Mapping[int, _Stream],
    width: int,
    size: int,
    axis: int,
) -> Iterator[bytes | memoryview]:
    """The bytes of what blocks make up over the axes from that on, where the others stand still."""
    if len(blocks) == 1:
        yield from streams[id(blocks[0])].through(math.prod(shape[axis:]) * width, size)
        return
    row = math.prod(shape[axis + 1 :]) * width
    for low, high, here in bands(blocks, axis):
        if len(here) == 1:
            yield from streams[id(here[0])].through((high - low) * row, size)
        elif row <= size:
            rows = size // row
            for at in range(low, high, rows):
                yield _assembled(shape, here, streams, width, axis, min(rows, high - at), size)
        else:
            for _ in range(low, high):
                yield from _walk(shape, here, streams, width, size, axis + 1)


def _assembled(
    shape: tuple[int, ...],
    blocks: Sequence[Block],
    streams: Mapping[int, _Stream],
    width: int,
    axis: int,
    rows: int,
    size: int,
) -> memoryview:
    """So many rows of an axis, of several blocks side by side."""
    whole = np.empty((rows, *shape[axis + 1 :], width), np.uint8)
    for each in blocks:
        start, stop = each.start[axis + 1 :], each.stop[axis + 1 :]
        extent = (rows, *(b - a for a, b in zip(start, stop, strict=True)), width)
        data = streams[id(each)].take(math.prod(extent), size // len(blocks))
        place = (slice(None), *(slice(a, b) for a, b in zip(start, stop, strict=True)))
        whole[place] = np.frombuffer(data, np.uint8).reshape(extent)
    return whole.reshape(-1).data


class JoinedReader(SnapshotReader):
    """The tensors of an opened snapshot in parts, by name; as a `SnapshotReader` of one file.

    Each part is opened, and its header compared with what the index says of it. A tensor that
    lies in several parts takes memory when it is asked for; `chunks` takes that of a chunk.

    Args:
        path: the index.
        verify: compare each piece with its digest when it is read.

    Raises:
        SnapshotError: the index or a part cannot be read, or is not what was written.
    """

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        super().__init__(path, verify=verify)
        self._parts: list[SnapshotReader] = []
        try:
            try:
                self._index = Index.from_text(self.raw_metadata.get("parts", ""))
            except ValueError as error:
                raise SnapshotError(
                    f"Snapshot {path} could not be read: {error}; delete it, or restore it from a "
                    "copy"
                ) from error
            paths = part_paths(path, self._index)
            for part, each in enumerate(paths):
                self._parts.append(self._opened(path, each, part, verify=verify))
            self._joined = Joined(paths, self._parts, self._index.layout)
        except BaseException:
            self.close()
            raise
        self.layout: dict[str, tuple[tuple[int, ...], str]] = dict(self._index.layout)

    def _opened(self, whole: Path, path: Path, part: int, *, verify: bool) -> SnapshotReader:
        try:
            reader = SnapshotReader(path, verify=verify)
        except SnapshotError as error:
            raise SnapshotError(f"{error} (a part of {whole.name})") from error
        index = self._index
        try:
            if reader.raw_metadata["digest"] != index.digests[part]:
                raise ValueError("its header's digest is another")
            checked_part(reader, index.token, part, len(index.digests))
        except ValueError as error:
            reader.close()
            raise SnapshotError(
                f"Snapshot {path} could not be read: it is not the part with which {whole.name} "
                f"was written, for {error}; delete that one, or restore both from a copy"
            ) from error
        return reader

    def __contains__(self, name: object) -> bool:
        return name in self.layout

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)

    def __getitem__(self, name: str) -> NDArray[Any]:
        shape, _ = self.layout[name]
        blocks = self._joined.blocks(name)
        if len(blocks) == 1:
            return blocks[0].part[name].reshape(shape)
        array = self._whole(name)
        array.flags.writeable = False
        return array

    def chunks(self, name: str, size: int = _CHUNK_BYTES) -> Iterator[bytes]:
        """The bytes of the tensor `name` in turn, at most `size` at once; to be read to the end.

        Raises:
            SnapshotError: at the end of a piece, if it was not what was written.
        """
        return self._joined.chunks(name, size)

    def load(self, framework: str = "numpy") -> dict[str, Any]:
        """All tensors by name, as `SnapshotReader.load` has it; one at a time is joined.

        Raises:
            SnapshotError: a piece is damaged, or the framework is none, or has no such dtype.
        """
        if framework in ("numpy", "np"):
            return {name: self._whole(name) for name in self}
        if framework not in _MODULES:
            raise SnapshotError(
                f"Argument `framework` must be one of numpy, {', '.join(_MODULES)}. "
                f"Received: framework={framework!r}"
            )
        tensors: dict[str, Any] = {}
        for name in self:
            header, _ = plan_header({name: self.layout[name]}, {})
            file = b"".join((encode_header(header), *self.chunks(name)))
            try:
                tensors[name] = _loaded(file, framework)[name]
            except (TypeError, AttributeError, KeyError) as error:
                raise _unknown_dtype(self.layout[name][1], name, framework) from error
        return tensors

    def verify(self, progress: Callable[[int], None] | None = None) -> None:
        """Read every part and compare its tensors with their digests, as `SnapshotReader` does.

        Args:
            progress: called with the number of bytes read since it was last called.

        Raises:
            SnapshotError: one of them is not what was written; the message names the part.
        """
        for part in self._parts:
            part.verify(progress)

    def data_digests(self) -> str:
        """The digests of the pieces, of all parts."""
        return "\n".join(part.raw_metadata["digests"] for part in self._parts)

    def close(self) -> None:
        """Close the files. Arrays that were handed out stay usable."""
        super().close()
        for part in self._parts:
            part.close()

    def _whole(self, name: str) -> NDArray[Any]:
        shape, code = self.layout[name]
        dtype = numpy_dtype(code)
        if dtype is None:
            raise _unknown_dtype(code, name, "numpy")
        data, at = np.empty(count_bytes(shape, code), np.uint8), 0
        for chunk in self.chunks(name):
            data[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
            at += len(chunk)
        return np.ndarray(shape, dtype, buffer=data)


def _loaded(file: bytes, framework: str) -> Mapping[str, Any]:
    """The tensor in a file that is in memory, by name."""
    # Which frameworks' extras bring along.
    import safetensors

    module = importlib.import_module(f"safetensors.{_MODULES[framework]}")
    with contextlib.suppress(KeyError):
        tensors: Mapping[str, Any] = module.load(file)
        return tensors
    # A dtype that safetensors knows in a file on the disk alone, as torch's float8_e8m0fnu.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tensor.safetensors"
        path.write_bytes(file)
        with safetensors.safe_open(path, framework=framework) as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def data_digests(reader: SnapshotReader) -> str:
    """A text that is the same for two snapshots of a run if each of their tensors is."""
    if isinstance(reader, JoinedReader):
        return reader.data_digests()
    return reader.raw_metadata["digests"]


def part_paths(path: Path, index: Index) -> list[Path]:
    """The files of a snapshot's parts, in their order; the names are formed from its own."""
    number = len(index.digests)
    return [
        path.with_name(part_name(path.name, part, number, index.token)) for part in range(number)
    ]


def index_of(path: Path) -> Index | None:
    """What the index says that a file is; None of a snapshot that is whole in it.

    Raises:
        SnapshotError: the file cannot be read.
    """
    with contextlib.closing(SnapshotReader(path)) as reader:
        text = reader.raw_metadata.get("parts")
    try:
        return None if text is None else Index.from_text(text)
    except ValueError as error:
        raise SnapshotError(f"Snapshot {path} could not be read: {error}") from error


def parts_of(path: Path) -> list[Path]:
    """The files of a snapshot's parts; none of one that is whole, or cannot be read."""
    try:
        names = os.listdir(path.parent)  # noqa: PTH208 - names, of which most are of other kinds
    except OSError:
        return []
    if path.name not in parts_among(names):
        return []
    try:
        index = index_of(path)
    except SnapshotError:  # what is left of it goes when the folder is prepared
        return []
    return [] if index is None else part_paths(path, index)


def unnamed_parts(path: Path, writings: Mapping[str, Sequence[str]]) -> list[Path]:
    """Of parts, by the token of their writing, those that are not of the snapshot that is there."""
    named: list[Path] = []
    if os.path.lexists(path):
        try:
            index = index_of(path)
        except SnapshotError:  # nobody knows which are its own
            return []
        named = [] if index is None else part_paths(path, index)
    found = [path.with_name(name) for names in writings.values() for name in names]
    return [each for each in found if each not in named]


def _unknown_dtype(dtype: str, name: str, framework: str) -> SnapshotError:
    return SnapshotError(
        f"Tensor {name!r} of a snapshot in parts has dtype {dtype}, which {framework} does not "
        "know. Install ml_dtypes, or load it with framework='pt'"
    )
