"""A snapshot in parts: what its index says of them, and that their pieces make up the tensors.

A part is a safetensors file of its own, with blocks of the tensors, under their names. Where each
block begins stands in its metadata, in the form of torch.distributed.checkpoint's
HuggingFaceStorageWriter, whose readers can so read a folder of parts too.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple

from ..core.documents import parse_document
from ..core.errors import SnapshotError, shown
from .file import DTYPES, FORMAT_VERSION, Layout, count_bytes
from .reader import SnapshotReader

# What torch.distributed.checkpoint calls the two.
_STARTS: Final = "DCP_SHARDING_INFO"
_START: Final = "saved_offsets"

_TOKEN: Final = re.compile(r"[0-9a-f]{8}")
_MOST_PARTS: Final = 10**9 - 1
_MOST_AXES: Final = 64
_CODES: Final = {code: name for name, (code, _) in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Index:
    """What the index of a snapshot in parts says.

    Attributes:
        token: in the names of its parts.
        layout: the shapes and dtypes of the whole tensors.
        digests: the header's digest of each part, in their order.
    """

    token: str
    layout: Layout
    digests: tuple[str, ...]

    def to_text(self) -> str:
        """As it stands in the index's metadata."""
        tensors = {
            name: {"dtype": DTYPES[dtype][0], "shape": list(shape)}
            for name, (shape, dtype) in self.layout.items()
        }
        whole = {"token": self.token, "digests": list(self.digests), "tensors": tensors}
        return json.dumps(whole, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Index:
        """What stands there, checked.

        Raises:
            ValueError: it cannot be so.
        """
        found = parse_document(text, at="parts")
        if not isinstance(found, dict) or not {"token", "digests", "tensors"} <= found.keys():
            raise ValueError("in 'parts': no object with a token, digests and tensors")
        token, digests, tensors = found["token"], found["digests"], found["tensors"]
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ValueError(f"in 'parts.token': {shown(token)} is no token")
        if (
            not isinstance(digests, list)
            or not 0 < len(digests) <= _MOST_PARTS
            or not all(isinstance(each, str) for each in digests)
        ):
            raise ValueError("in 'parts.digests': no list of texts")
        if not isinstance(tensors, dict):
            raise ValueError("in 'parts.tensors': no object")
        return cls(
            token, {name: _tensor(name, each) for name, each in tensors.items()}, tuple(digests)
        )


def _tensor(name: str, entry: object) -> tuple[tuple[int, ...], str]:
    if isinstance(entry, dict) and entry.keys() == {"dtype", "shape"}:
        dtype, shape = entry["dtype"], entry["shape"]
        known = isinstance(dtype, str) and dtype in _CODES and _are_sizes(shape)
        # As of a tensor in a file: an empty one may have other axes, within reason.
        if known and count_bytes(tuple(filter(None, shape)), _CODES[dtype]) < 2**63:
            return tuple(shape), _CODES[dtype]
    raise ValueError(f"in 'parts.tensors': bad tensor {shown(name)}")


def _are_sizes(values: object) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= _MOST_AXES
        and all(type(each) is int and 0 <= each < 2**63 for each in values)
    )


class Block(NamedTuple):
    """A piece of a tensor, in a part.

    Attributes:
        part: the opened part.
        name: the tensor's.
        start: where it begins in the whole tensor, on each axis.
        stop: where it ends.
    """

    part: SnapshotReader
    name: str
    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many there are."""
        return math.prod(b - a for a, b in zip(self.start, self.stop, strict=True))


def part_metadata(
    token: str, part: int, number: int, starts: Mapping[str, Sequence[int]], lost: Iterable[str]
) -> dict[str, str]:
    """The metadata of a part.

    Args:
        token: of this writing of the snapshot.
        part: its index, from 0.
        number: of all parts.
        starts: where each of its pieces begins in the whole tensor.
        lost: the names of the tensors of which a piece of it is not finite.
    """
    of = {"token": token, "part": part + 1, "of": number, "nonfinite": [*lost]}
    places = {name: {_START: list(start)} for name, start in starts.items()}
    return {
        "cosanneal": str(FORMAT_VERSION),
        "part": json.dumps(of, ensure_ascii=False, separators=(",", ":")),
        _STARTS: json.dumps(places, ensure_ascii=False, separators=(",", ":")),
    }


def checked_part(reader: SnapshotReader, token: str, part: int, number: int) -> list[str]:
    """See that an opened part is the one of that place; its tensors that are not finite.

    Raises:
        ValueError: it is another.
    """
    of = parse_document(reader.raw_metadata.get("part", "{}"), at="part")
    wanted = {"token": token, "part": part + 1, "of": number}
    if not isinstance(of, dict) or {name: of.get(name) for name in wanted} != wanted:
        raise ValueError(f"it is not part {part + 1} of {number} of {token}")
    lost = of.get("nonfinite")
    if not isinstance(lost, list) or not all(isinstance(each, str) for each in lost):
        raise ValueError(f"in 'part.nonfinite': {shown(lost)} is no list of names")
    return lost


def blocks_of(
    paths: Sequence[object], parts: Sequence[SnapshotReader], layout: Layout
) -> dict[str, list[Block]]:
    """The pieces of each tensor, which cover each of its elements exactly once.

    Args:
        paths: of the parts, for the messages.
        parts: the opened parts.
        layout: of the whole tensors.

    Raises:
        SnapshotError: a piece that does not belong there, or pieces that overlap or leave gaps.
    """
    found: dict[str, list[Block]] = {name: [] for name in layout}
    for path, part in zip(paths, parts, strict=True):
        try:
            starts = parse_document(part.raw_metadata.get(_STARTS, "{}"), at=_STARTS)
            for name, (shape, dtype) in part.layout.items():
                block = _block(part, name, shape, dtype, starts, layout)
                found[name].append(block)
        except ValueError as error:
            raise SnapshotError(f"Snapshot {path} could not be read: {error}") from error
    for name, (shape, _) in layout.items():
        # Empty ones, as of a process that has none of a small tensor, are in nobody's way.
        blocks = found[name] = [each for each in found[name] if each.elements]
        total = sum(each.elements for each in blocks)
        if total != math.prod(shape) or (total and not _covers(shape, blocks)):
            raise SnapshotError(
                f"The parts of a snapshot must hold every element of a tensor once. Received: "
                f"those of {name!r}, of shape {shape}, overlap or leave gaps, in {paths[0]} and "
                f"its {len(parts) - 1} others; restore them from a copy, or delete them"
            )
    return found


def _block(
    part: SnapshotReader,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    starts: Any,
    layout: Layout,
) -> Block:
    if name not in layout:
        raise ValueError(f"its tensor {shown(name)} is none of the snapshot's")
    whole, wanted = layout[name]
    if dtype != wanted:
        raise ValueError(f"its tensor {shown(name)} is of {dtype}, not {wanted}")
    entry = starts.get(name) if isinstance(starts, dict) else None
    start = entry.get(_START) if isinstance(entry, dict) else None
    if not isinstance(start, list) or not _are_sizes(start) or len(start) != len(shape):
        raise ValueError(f"its tensor {shown(name)} begins at {shown(start)}")
    stop = tuple(a + b for a, b in zip(start, shape, strict=True))
    if len(shape) != len(whole) or any(a > b for a, b in zip(stop, whole, strict=True)):
        raise ValueError(f"its tensor {shown(name)} does not lie in one of shape {whole}")
    return Block(part, name, tuple(start), stop)


def bands(blocks: Sequence[Block], axis: int) -> list[tuple[int, int, list[Block]]]:
    """The stretches of an axis over which the same blocks lie: from where, to where, and which."""
    cuts = sorted({cut for each in blocks for cut in (each.start[axis], each.stop[axis])})
    coming = sorted(blocks, key=lambda each: each.start[axis], reverse=True)
    here: list[Block] = []
    found: list[tuple[int, int, list[Block]]] = []
    for low, high in pairwise(cuts):
        here = [each for each in here if each.stop[axis] > low]
        while coming and coming[-1].start[axis] <= low:
            here.append(coming.pop())
        found.append((low, high, here))
    return found


def _covers(shape: tuple[int, ...], blocks: Sequence[Block], axis: int = 0) -> bool:
    """Whether blocks lie over each place of the axes from that on exactly once."""
    if axis == len(shape):
        return len(blocks) == 1
    if len(blocks) == 1:
        (only,) = blocks
        return not any(only.start[axis:]) and only.stop[axis:] == shape[axis:]
    at = 0
    for low, high, here in bands(blocks, axis):
        if low != at or not here or not _covers(shape, here, axis + 1):
            return False
        at = high
    return at == shape[axis]
