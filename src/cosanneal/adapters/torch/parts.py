"""What each process writes of a model's state: the parts that it holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...core.errors import SnapshotError
from ...snapshots.capture import Parts, Piece
from ...snapshots.file import Layout, count_bytes
from .ranks import are_several, ranks_here
from .shards import is_cut, local_part
from .zero import is_parted

# So many elements of a tensor are looked at, to see whether all processes have the same.
_GLIMPSE: Final = 64


class Parting:
    """Finds what each process writes; where the tensors begin is looked up while they stay so."""

    def __init__(self) -> None:
        self._starts: dict[str, tuple[object, tuple[int, ...] | None]] = {}

    def parts(self, state: Mapping[str, Tensor], layout: Layout, alike: Collection[str]) -> Parts:
        """The parts of a state, one for each process; all of them must ask.

        Of what several processes hold, the first of them writes, whose elements a snapshot that
        is gathered has too. What is kept `alike` is spread over them by size.

        Args:
            state: the tensors, by name.
            layout: shapes and dtypes of the whole ones.
            alike: the names of those that the engine keeps the same in every process.

        Raises:
            SnapshotError: in every process, for what cannot be parted.
        """
        rank, size = (dist.get_rank(), dist.get_world_size()) if are_several() else (0, 1)

        def own() -> list[str]:
            lines = [f"{name}: {layout[name]}, {_how(name, state[name])}" for name in state]
            self._look_up({name: value for name, value in state.items() if is_cut(value)})
            return lines

        def say(lines: list[str]) -> list[str]:
            digest = blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()
            return [digest, _glimpse(state, alike) if size > 1 else ""]

        ranks = ranks_here()
        lines, everyones = ranks.said(own, say)
        if any(digest != everyones[0][0] for digest, _ in everyones):
            _refuse_others(ranks.said(lambda: lines, list)[1])
        # They are not, where each process trains by itself for a while.
        same = all(glimpse == everyones[0][1] for _, glimpse in everyones)
        writers = _writers(layout, alike if same else (), size)
        pieces: dict[str, Piece] = {}
        for name, value in state.items():
            shape = layout[name][0]
            if not count_bytes(*layout[name]):  # torch has no place for them, and there is nothing
                if not rank:
                    pieces[name] = Piece(torch.empty(shape, dtype=value.dtype), (0,) * len(shape))
            elif is_cut(value):
                start = self._starts[name][1]
                if start is not None and (part := local_part(value).detach()).numel():
                    pieces[name] = Piece(part, start)
            elif writers.get(name, 0) == rank:
                pieces[name] = Piece(value.detach(), (0,) * len(shape))
        return Parts(size, layout, {rank: pieces})

    def _look_up(self, cut: Mapping[str, Any]) -> None:
        """Where the blocks of this process begin; None for those that it does not write.

        They are written by rank 0's own mesh and replica.

        Raises:
            SnapshotError: rank 0 is in no mesh of a tensor.
        """
        laid = {name: (each.device_mesh, each.placements, each.shape) for name, each in cut.items()}
        news = {
            name: cut[name]
            for name, how in laid.items()
            if name not in self._starts or self._starts[name][0] != how
        }
        starts = _planned(
            {name: value for name, value in news.items() if _is_of_rank_0s(name, value)}
        )
        self._starts |= {name: (laid[name], starts.get(name)) for name in news}


def kept_alike(model: nn.Module) -> set[int]:
    """The ids of the parameters that DistributedDataParallel keeps the same in every process.

    Not of the buffers: after an update each process has its own, and the next pass takes those
    of rank 0.
    """
    if not are_several():
        return set()
    return {
        id(value)
        for engine in model.modules()
        if isinstance(engine, DistributedDataParallel)
        and dist.get_world_size(engine.process_group) == dist.get_world_size()
        for name, value in engine.module.named_parameters()
        if name not in engine.parameters_to_ignore
    }


def _how(name: str, value: Any) -> str:
    """How the processes hold a tensor, in the same words in all of them.

    Raises:
        SnapshotError: it cannot be parted.
    """
    if is_parted(value):
        raise SnapshotError(
            "With sharded=True, the model's tensors must be whole, or cut along their axes as "
            f"DTensors. Received: {name!r}, parted by DeepSpeed's ZeRO-3, which cuts the row of "
            "all of its elements; leave sharded out, and it is gathered"
        )
    if not is_cut(value):
        return "whole"
    if any(each.is_partial() for each in value.placements):
        raise SnapshotError(
            "With sharded=True, the model's tensors must be whole, or cut along their axes as "
            f"DTensors. Received: {name!r}, with the placements {value.placements}, of which "
            "each process has a summand; leave sharded out, and it is gathered"
        )
    # By its shape: where there are several meshes, each has all of the tensor.
    return f"{value.placements} on a mesh of {tuple(value.device_mesh.shape)}"


def _is_of_rank_0s(name: str, value: Any) -> bool:
    """Whether this process is of rank 0's mesh and replica.

    Raises:
        SnapshotError: rank 0 is in none.
    """
    mesh = value.device_mesh
    at, first = mesh.get_coordinate(), (mesh.mesh == 0).nonzero().tolist()
    if dist.get_rank() == 0 and at is None:
        raise SnapshotError(
            "With sharded=True, the process of rank 0 must have its part of each tensor. "
            f"Received: {name!r}, on a mesh of the ranks {mesh.mesh.tolist()}; place the model on "
            "a mesh of all processes (init_device_mesh)"
        )
    if at is None or not first:
        return False
    axes = zip(value.placements, at, first[0], strict=True)
    return all(there == here for each, here, there in axes if each.is_replicate())


def _planned(cut: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Where the blocks of this process begin in the whole tensors, as torch's planner has it."""
    # With DTensors it is there, and takes a second of the import.
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

    planner = DefaultSavePlanner(flatten_state_dict=False)
    planner.set_up_planner(dict(cut), is_coordinator=False)
    return {
        item.index.fqn: tuple(item.tensor_data.chunk.offsets)
        for item in planner.create_local_plan().items
        if item.tensor_data is not None
    }


def _glimpse(state: Mapping[str, Tensor], names: Collection[str]) -> str:
    """A digest of some elements of each tensor."""
    looked = []
    for name in sorted(names):
        flat = state[name].detach().reshape(-1)
        if flat.numel():
            some = flat[:: -(-flat.numel() // _GLIMPSE)].resolve_conj().resolve_neg()
            looked.append(some.contiguous().view(torch.uint8))
    if not looked:
        return ""
    return blake2b(torch.cat(looked).cpu().numpy().tobytes(), digest_size=16).hexdigest()


def _writers(layout: Layout, names: Collection[str], size: int) -> dict[str, int]:
    """Which process writes each of some tensors, so that all have about as much to write."""
    sizes = {name: count_bytes(*layout[name]) for name in names}
    loads, found = [0] * size, {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        found[name] = rank = loads.index(min(loads))
        loads[rank] += sizes[name]
    return found


def _refuse_others(everyones: Sequence[Sequence[str]]) -> None:
    """Refuse a state that is another in another process.

    Raises:
        SnapshotError: what first differs.
    """
    first = everyones[0]
    for rank, lines in enumerate(everyones):
        if lines != first:
            ours = next(iter(sorted(set(first) - set(lines))), "fewer tensors")
            others = next(iter(sorted(set(lines) - set(first))), "fewer tensors")
            raise SnapshotError(
                "With sharded=True, every process must have the same tensors, cut in the same way. "
                f"Received: {ours} in the process of rank 0, and {others} in that of rank {rank}; "
                "place the model on one mesh of all processes (init_device_mesh)"
            )
