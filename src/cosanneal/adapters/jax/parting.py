"""How params are parted: which device's part of a snapshot has which block of which array.

A block is what a device holds of an array. Of devices that hold the same one, one writes it.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from xxhash import xxh3_128

from ...core.errors import SnapshotError
from ...snapshots.capture import Parts, Piece
from ...snapshots.ranks import Ranks
from .shards import is_of_several

# A device by its process and its number: the order of the parts is theirs.
Place: TypeAlias = tuple[int, int]


class Block(NamedTuple):
    """A block of an array.

    Attributes:
        start: where it begins in the array, on each axis.
        shape: its own.
        holders: the places that hold it.
    """

    start: tuple[int, ...]
    shape: tuple[int, ...]
    holders: tuple[Place, ...]


class Shared(NamedTuple):
    """A block of a named array, and the place that writes it."""

    place: Place
    name: str
    block: Block


def parted(arrays: Mapping[str, Any], ranks: Ranks) -> Parts:
    """The parts of a snapshot of arrays; all processes must ask.

    There is a part for each device on which an array lies. What lies on none in particular
    (arrays of numpy's) is for those of the process that writes, as is what is no array of
    several processes.

    Args:
        arrays: of JAX' or numpy's, of several processes or of this one.
        ranks: the processes that ask.

    Returns:
        The pieces of this process, as they lie on its devices.

    Raises:
        SnapshotError: in every process, arrays that are not laid out alike in all.
    """
    blocks = {
        name: _blocks(array.sharding, tuple(array.shape))
        for name, array in arrays.items()
        if isinstance(array, jax.Array)
    }
    common = {name: each for name, each in blocks.items() if is_of_several(arrays[name])}
    ours = [
        [name, list(each.shape), each.dtype.name, _told(common.get(name))]
        for name, each in arrays.items()
    ]
    # Those of the first process count, whose own arrays the others do not have.
    places, firsts = ranks.shared(lambda: [_places(blocks.values()), ours])
    ranks.agreed(lambda: _check_alike(ours, firsts))
    parts = {(process, device): i for i, (process, device) in enumerate(places)}
    here = int(jax.process_index())
    mine = tuple(place for place in parts if place[0] == here)
    load = Load()
    shared = load.share(common, arrays)
    if ranks.writes:
        own = {
            name: blocks.get(name) or (_undivided(array, mine),)
            for name, array in arrays.items()
            if name not in common
        }
        shared += load.share(own, arrays)
    pieces: dict[int, dict[str, Piece]] = {parts[place]: {} for place in mine}
    held: dict[str, dict[Place, Any]] = {}
    for place, name, block in shared:
        if place[0] == here:
            if name not in held:
                held[name] = _data(arrays[name])
            data = held[name].get(place, arrays[name])
            pieces[parts[place]][name] = Piece(data, block.start)
    layout = {name: (tuple(each.shape), each.dtype.name) for name, each in arrays.items()}
    return Parts(len(parts), layout, pieces)


class Load:
    """What each place has to write so far, and who writes what comes next.

    It depends on what was given before, and on nothing else: in all processes it is the same.
    """

    def __init__(self) -> None:
        self._of_process: dict[int, int] = {}
        self._of_place: dict[Place, int] = {}

    def share(
        self, blocks: Mapping[str, Sequence[Block]], arrays: Mapping[str, Any]
    ) -> list[Shared]:
        """Have each block written by that of its holders whose process has the least to write."""
        sizes = {name: arrays[name].dtype.itemsize for name in blocks}
        # What one place alone holds comes first, then what is large: small ones level the rest.
        ordered = sorted(
            (len(each.holders) > 1, -math.prod(each.shape) * sizes[name], name, each)
            for name in blocks
            for each in blocks[name]
        )
        return [Shared(self._given(each, -size), name, each) for _, size, name, each in ordered]

    def _given(self, block: Block, size: int) -> Place:
        place = min(block.holders, key=self._key)
        self._of_process[place[0]] = self._of_process.get(place[0], 0) + size
        self._of_place[place] = self._of_place.get(place, 0) + size
        return place

    def _key(self, place: Place) -> tuple[int, int, Place]:
        return self._of_process.get(place[0], 0), self._of_place.get(place, 0), place


# The same from snapshot to snapshot, and of many devices worth keeping.
@functools.lru_cache(maxsize=4096)
def _blocks(sharding: Any, shape: tuple[int, ...]) -> tuple[Block, ...]:
    """The blocks of an array that lies so."""
    ends: dict[tuple[int, ...], tuple[int, ...]] = {}
    holders: dict[tuple[int, ...], list[Place]] = {}
    for device, index in sharding.devices_indices_map(shape).items():
        bounds = [each.indices(size) for each, size in zip(index, shape, strict=True)]
        start = tuple(first for first, _, _ in bounds)
        ends[start] = tuple(end for _, end, _ in bounds)
        holders.setdefault(start, []).append(_place(device))
    return tuple(
        Block(start, tuple(np.subtract(end, start).tolist()), tuple(sorted(holders[start])))
        for start, end in ends.items()
    )


def _undivided(array: Any, holders: tuple[Place, ...]) -> Block:
    shape = tuple(array.shape)
    return Block((0,) * len(shape), shape, holders)


def _place(device: Any) -> Place:
    return int(device.process_index), int(device.id)


def _places(blocks: Iterable[Sequence[Block]]) -> list[Place]:
    """All places with a block, in order; of no array of JAX' this process itself."""
    found = {place for every in blocks for each in every for place in each.holders}
    return sorted(found) or [(int(jax.process_index()), 0)]


def _data(array: Any) -> dict[Place, Any]:
    """What this process' places hold of an array; nothing of one that lies on none."""
    if not isinstance(array, jax.Array):
        return {}
    return {_place(shard.device): shard.data for shard in array.addressable_shards}


def _told(blocks: Sequence[Block] | None) -> str:
    """What is the same of an array that lies in the same way."""
    return "" if blocks is None else xxh3_128(repr(sorted(blocks)).encode()).hexdigest()


def _check_alike(ours: list[Any], firsts: list[Any]) -> None:
    """Refuse arrays that are not those of the first process, or lie otherwise."""
    for here, there in itertools.zip_longest(ours, firsts):
        if here != there:
            what = described(here), described(there)
            if here and there and here[:3] == there[:3]:
                what = what[0], "the same, over other devices or in one process alone"
            raise SnapshotError(
                "The params must be laid out over the processes in one way. Received: "
                f"{what[0]}, and in the first process {what[1]}; step all recorders with the "
                "params of one update"
            )


def described(array: Sequence[Any] | None) -> str:
    """An array by its name, shape and dtype, in words."""
    if array is None:
        return "no other"
    name, shape, dtype = array[:3]
    return f"{name!r} of {dtype} and shape {tuple(shape)}"
