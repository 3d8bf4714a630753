"""What torch itself trains in several processes by, in a loop of a user's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotRecorder
from cosanneal.snapshots import assembly
from cosanneal.snapshots.options import RecorderOptions
from tests.kills.driver import Engine, begun, reporter

UPDATES = 40
SCHEDULE = ca.CyclicCosine(0.1, total_steps=UPDATES, num_cycles=20)
EVERY = 5  # updates between two checkpoints: now and then amid a cycle
WIDTH = 301  # which no number of processes divides
EVEN = 300  # as tensor parallelism needs it
WAITS = 2.0  # seconds that rank 0 waits for the parts of others, in place of ten minutes


def network(hidden: int) -> nn.Module:
    """The same in each process."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, hidden), nn.ReLU(), nn.Linear(hidden, 3))


def batch(update: int) -> tuple[Tensor, Tensor]:
    """That of an update, the same in each process; their mean gradient is then that of one."""
    x = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(update))
    return x, x[:, :3].argmax(1)


def plain(hidden: int, folder: Path) -> None:
    """The same training in this process alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = network(hidden)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    with SnapshotRecorder(folder, model, scheduler):
        for update in range(UPDATES):
            do(update, model, optimizer)
            scheduler.step()
    torch.set_num_threads(threads)


def do(update: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """One update of the weights."""
    x, y = batch(update)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()


def newest_checkpoint(root: Path, processes: int) -> Path | None:
    """The newest that all processes have saved."""
    whole = [
        each
        for each in sorted(root.glob("checkpoint-*"))
        if all((each / f"{rank}.pt").exists() for rank in range(processes))
    ]
    return whole[-1] if whole else None


def loop(
    spread: Callable[[nn.Module], nn.Module],
    hidden: int,
    options: RecorderOptions,
    root: Path,
    rank: int,
    attempt: int,
) -> None:
    """A loop with checkpoints, each process its own part of them."""
    assembly.PARTS_SECONDS = WAITS  # type: ignore[misc]
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    model = spread(network(hidden))
    newest = newest_checkpoint(root, dist.get_world_size())
    done = 0 if newest is None else int(newest.name[-4:])
    begun(root, rank, attempt, done)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    if newest is not None:
        saved = torch.load(newest / f"{rank}.pt", weights_only=False)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
    options = {**options, "max_pending": 2, "on_durable": reporter(root, attempt)}
    if newest is None:  # it starts over
        options["resume_from"] = 0
    with SnapshotRecorder(root / "run", model, scheduler, **options) as recorder:
        for update in range(done, UPDATES):
            do(update, model, optimizer)
            scheduler.step()
            if (update + 1) % EVERY == 0:
                recorder.wait()
                dist.barrier()  # rank 0 has waited, so that the snapshot is there
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                state["scheduler"] = scheduler.state_dict()
                place = root / f"checkpoint-{update + 1:04}"
                place.mkdir(exist_ok=True)
                temporary = place / f"{rank}.tmp"
                torch.save(state, temporary)
                temporary.replace(place / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def over(
    name: str,
    spread: Callable[[nn.Module], nn.Module],
    *,
    processes: int = 2,
    tolerance: float = 0.0,
    hidden: int = WIDTH,
    **options: Any,
) -> Engine:
    """An engine of the loop's."""
    return Engine(
        name=name,
        processes=processes,
        schedule=SCHEDULE,
        train=partial(loop, spread, hidden, options),  # type: ignore[arg-type]
        plain=partial(plain, hidden),
        tolerance=tolerance,
        parted="sharded" in options,
    )


def fsdp2(model: nn.Module) -> nn.Module:
    """All layers in parts, gathered at once."""
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    return model


def hsdp(model: nn.Module) -> nn.Module:
    """Replicas, each in one part."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(), 1), mesh_dim_names=("copy", "part"))
    fully_shard(model, mesh=mesh)
    return model


def tensor(model: nn.Module) -> nn.Module:
    """The first layer's columns and the last one's rows in parts."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


def tensor_fsdp2(model: nn.Module) -> nn.Module:
    """Both, over two processes each."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    parallelize_module(model, mesh["tensor"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
    fully_shard(model, mesh=mesh["data"])
    return model


# A sum over the parts of a layer is of another order than a plain layer's.
SUMS: dict[str, Any] = {"hidden": EVEN, "tolerance": 1e-5}

ENGINES = {
    each.name: each
    for each in (
        over("ddp", nn.parallel.DistributedDataParallel),
        over("fsdp2", fsdp2),
        over("fsdp2-sharded", fsdp2, sharded=True),
        over("hsdp", hsdp),
        over("tensor", tensor, **SUMS),
        over("tensor-sharded", tensor, **SUMS, sharded=True),
        over("tensor-fsdp2", tensor_fsdp2, processes=4, **SUMS),
    )
}
