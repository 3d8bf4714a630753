"""What each process would write of a model in parts; started by tests, as a script.

`python -m tests.shared.parted_run FOLDER HOW ...`: by gloo. What was found goes into a file of
rank 0.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from cosanneal.adapters.torch.capture import ModuleCapture
from tests.shared.ranked_run import spread
from tests.shared.sharded_run import said

# Widths of the layers. No number of processes divides the second's; of the last, few have any.
WIDTHS = ((8, 8, 8), (5, 7, 3), (3, 2, 1))


def plain(widths: tuple[int, int, int]) -> nn.Module:
    """A model whose buffers differ from process to process, as running statistics do."""
    torch.manual_seed(0)
    a, b, c = widths
    model = nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b), nn.Linear(b, c))
    model.get_buffer("1.running_mean").fill_(float(dist.get_rank()))
    model.register_buffer("none", torch.empty(0, 3))
    return model


def sharded(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Every layer by FSDP2."""
    from torch.distributed.fsdp import fully_shard

    for layer in model.children():
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def built(how: str, widths: tuple[int, int, int]) -> nn.Module:
    """The model as an engine has it; "hsdp" and "2d" take four processes."""
    model, size = plain(widths), dist.get_world_size()
    if how == "apart":  # each trained by itself for a while
        model = spread(model, "ddp")
        with torch.no_grad():
            for each in model.parameters():
                each.add_(float(dist.get_rank()))
        return model
    if how == "hsdp":
        names = ("replicate", "shard")
        return sharded(model, init_device_mesh("cpu", (2, size // 2), mesh_dim_names=names))
    if how == "2d":
        mesh = init_device_mesh("cpu", (2, size // 2), mesh_dim_names=("data", "tensor"))
        from torch.distributed.tensor.parallel import (
            ColwiseParallel,
            RowwiseParallel,
            parallelize_module,
        )

        parallelize_module(model, mesh["tensor"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
        return sharded(model, mesh["data"])
    return model if how == "plain" else spread(model, how)


def saved(model: nn.Module) -> dict[str, Tensor]:
    """The whole weights by torch's own way, in rank 0."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state: dict[str, Any] = get_model_state_dict(model, options=options)
    return {name.removeprefix("module."): value for name, value in state.items()}


def looked(model: nn.Module) -> dict[str, Any]:
    """Whether all parts make the whole, each element once; and the bytes of each part."""
    parts = ModuleCapture(model).parts()
    (part,) = parts.pieces
    mine = {name: (piece.data.clone(), piece.start) for name, piece in parts.pieces[part].items()}
    everyones: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, (part, mine))
    whole = saved(model)
    if dist.get_rank():
        return {}
    wrong = [] if parts.layout.keys() == whole.keys() else ["names"]
    for name, value in whole.items():
        joined, times = torch.zeros_like(value), torch.zeros(value.shape)
        found = [each[name] for _, each in everyones if name in each]
        for data, start in found:
            at = tuple(slice(a, a + n) for a, n in zip(start, data.shape, strict=True))
            joined[at] = data
            times[at] += 1
        shape, dtype = parts.layout[name]
        described = shape == tuple(value.shape) and f"torch.{dtype}" == str(value.dtype)
        if not (found and described and torch.equal(joined, value) and (times == 1).all()):
            wrong.append(name)
    bytes_of = [sum(data.nbytes for data, _ in each.values()) for _, each in everyones]
    numbers = [number for number, _ in everyones]
    return {"wrong": wrong, "bytes": bytes_of, "numbers": numbers, "number": parts.number}


def refused() -> dict[str, str]:
    """What cannot be parted, and what this process is told of it."""
    rank, size = dist.get_rank(), dist.get_world_size()
    from torch.distributed.tensor import DTensor, Partial, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (size,))
    partial = plain(WIDTHS[0])
    partial.register_buffer("sum", DTensor.from_local(torch.ones(2), mesh, [Partial()]))
    others = nn.Linear(2, 2 + rank)
    away = nn.Linear(2, 2)
    mine = distribute_tensor(torch.ones(2, 2), DeviceMesh("cpu", [1]), [Shard(0)])
    away.weight = nn.Parameter(mine)
    models = {"partial": partial, "others": others, "away": away}
    return {name: said(ModuleCapture(model).parts) for name, model in models.items()}


def main() -> None:
    """Look at all, and write down what was found."""
    folder, hows = Path(sys.argv[1]), sys.argv[2:]
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found: dict[str, Any] = {}
    for how in hows:
        found[how] = [looked(built(how, widths)) for widths in WIDTHS]
    everyones: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, refused())
    found["refused"] = everyones
    if dist.get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
