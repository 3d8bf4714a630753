"""A run on several processes, one of which may die; started by tests.

`python -m tests.shared.ranked_run JSON [DEVICE]`: on CPUs, by gloo, or each process on a GPU of
its own, by nccl (DEVICE "cuda").
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder
from tests.shared.joining import joined

SCHEDULE = ca.CyclicCosine(0.1, total_steps=12, num_cycles=3)
CPU = torch.device("cpu")


def plain_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4))


def spread(model: nn.Module, how: str, device: torch.device = CPU) -> nn.Module:
    """The model as an engine has it."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    if how == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    if how == "fsdp2":
        from torch.distributed.fsdp import fully_shard

        for layer in model.children():
            if [*layer.parameters()]:
                fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    elif how == "tensor":
        from torch.distributed.tensor.parallel import (
            ColwiseParallel,
            RowwiseParallel,
            parallelize_module,
        )

        parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    return model


def batch(update: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(update)
    x = torch.randn(8, 5, generator=generator)
    return x, x[:, 0].gt(0).long()


def held_out() -> Tensor:
    """Samples whose number no number of processes divides."""
    return torch.randn(11, 5, generator=torch.Generator().manual_seed(99))


def predicted(model: nn.Module, folder: str, device: torch.device, *, itself: bool) -> Tensor:
    """What an ensemble predicts of samples that are dealt out, with the model as it was trained.

    Args:
        itself: False builds it anew, whole.
    """
    data = TensorDataset(held_out())
    sampler: Any = DistributedSampler(data, shuffle=False) if dist.is_initialized() else None
    given: Any = model if itself else lambda: plain_model().to(device)
    ensemble = SnapshotEnsemble(given, folder, outputs="logits")
    found = ensemble.predict(DataLoader(data, batch_size=2, sampler=sampler))
    assert found.device == device
    return found.cpu()


def run(how: str, folder: str, work: str, device: torch.device, **options: Any) -> list[str]:
    """Train, and return what went wrong."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    model = plain_model().to(device)
    model = model if how == "alone" else spread(model, how, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    checkpoint = Path(work) / f"checkpoint-{rank}.pt"
    start = 0
    if options.get("resume") and checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=False)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
        start = saved["scheduler"]["last_epoch"]
    asked: list[int] = []

    def metrics() -> dict[str, float]:
        share = torch.ones(1, device=device)
        if dist.is_initialized():
            share /= dist.get_world_size()
            dist.all_reduce(share)  # which takes every process
        asked.append(rank)
        if options.get("bad_metrics") == rank:
            raise ValueError("no metrics here")
        return {"share": float(share)}

    wrong: list[str] = []
    try:
        sharded = options.get("sharded", False)
        with SnapshotRecorder(
            folder, model, scheduler, metrics=metrics, sharded=sharded
        ) as recorder:
            if options.get("full_disk") and rank == 0:
                recorder.store.write = _full  # type: ignore[method-assign]
            for update in range(start, 12):
                x, y = (each.to(device) for each in batch(update))
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                try:
                    scheduler.step()
                except Exception as error:  # the user's own too, of the metrics
                    wrong.append(f"update {update + 1}: {type(error).__name__}: {error}")
                if options.get("keep") and recorder.step():
                    _keep(model, Path(work) / f"weights-{update + 1}.pt", rank)
                if update % 3 == 2:
                    recorder.wait()
                    state = {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "scheduler": scheduler.state_dict(),
                    }
                    if dist.is_initialized():
                        dist.barrier()
                    torch.save(state, checkpoint.with_suffix(".tmp"))
                    checkpoint.with_suffix(".tmp").rename(checkpoint)
                if options.get("kill") == [rank, update]:
                    os._exit(9)
    except ca.CosannealError as error:
        wrong.append(f"{type(error).__name__}: {error}")
    if options.get("predict"):
        itself = how in ("alone", "ddp") or (how == "fsdp2" and "sharded" in options)
        found = predicted(model, folder, device, itself=itself)
        torch.save(found, Path(work) / f"predicted-{rank}.pt")
    return wrong


def _keep(model: nn.Module, path: Path, rank: int) -> None:
    """Save the whole weights by torch's own way."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state: dict[str, Any] = get_model_state_dict(model, options=options)
    if rank == 0:
        torch.save(state, path)


def _full(*_: Any, **__: Any) -> Any:
    time.sleep(0.3)  # so that the loop has gone on when it is known
    raise ca.SnapshotError("the disk is full")


def main() -> None:
    """Run the cases given, one after the other, and write down what went wrong in each."""
    cases = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    device = joined(sys.argv[2] if len(sys.argv) > 2 else "cpu")
    rank = dist.get_rank() if dist.is_initialized() else 0
    for case in cases:
        Path(case["work"]).mkdir(exist_ok=True)
        wrong = run(**case, device=device)
        Path(case["work"], f"wrong-{rank}.json").write_text(json.dumps(wrong))
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
