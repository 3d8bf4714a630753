"""torch's runs that record at a URL, whose store outlives the process: local files, by fsspec."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import torch
import torch.distributed as dist
from torch import nn

from cosanneal.adapters.torch import CyclicCosineLR, SnapshotRecorder
from cosanneal.snapshots import SnapshotStore
from tests.kills.driver import Engine, begun, reporter
from tests.kills.torch_engines import (
    EVERY,
    SCHEDULE,
    UPDATES,
    WIDTH,
    do,
    network,
    newest_checkpoint,
    plain,
)
from tests.shared.faulty import FaultyFileSystem, register


class WholeFileSystem(FaultyFileSystem):
    """One in which an object appears when it is whole, as at S3."""

    protocol = "s3"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(str(path).removeprefix("s3://"))

    def put_file(self, lpath: Any, rpath: Any, **options: Any) -> Any:
        there = Path(self._strip_protocol(rpath))
        hidden = there.parents[1] / "uploads" / f"{there.name}-{os.getpid()}"
        hidden.parent.mkdir(exist_ok=True)
        super().put_file(lpath, str(hidden), **options)
        hidden.replace(there)


def loop(kind: str, processes: int, root: Path, rank: int, attempt: int) -> None:
    """A loop with checkpoints on the disk; each process its own part of them."""
    torch.set_num_threads(1)
    register()
    fsspec.register_implementation("s3", WholeFileSystem, clobber=True)
    model = network(WIDTH)
    if processes > 1:
        dist.init_process_group("gloo")
        model = nn.parallel.DistributedDataParallel(model)
    newest = newest_checkpoint(root, processes)
    done = 0 if newest is None else int(newest.name[-4:])
    begun(root, rank, attempt, done)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    if newest is not None:
        saved = torch.load(newest / f"{rank}.pt", weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
    resume_from = 0 if newest is None else None
    (root / "run").mkdir(exist_ok=True)  # a store has no folders that would have to be made
    store = SnapshotStore(f"{kind}://{root}/run", cache=root / "cache")
    report = reporter(root, attempt)
    with SnapshotRecorder(
        store, model, scheduler, resume_from=resume_from, on_durable=report, max_pending=2
    ):
        for update in range(done, UPDATES):
            do(update, model, optimizer)
            scheduler.step()
            if (update + 1) % EVERY == 0:
                state = {
                    "scheduler": scheduler.state_dict(),  # which waits for the snapshots
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                }
                if processes > 1:
                    dist.barrier()  # rank 0 has waited
                place = root / f"checkpoint-{update + 1:04}"
                place.mkdir(exist_ok=True)
                temporary = place / f"{rank}.tmp"
                torch.save(state, temporary)
                temporary.replace(place / f"{rank}.pt")
    if processes > 1:
        dist.barrier()
        dist.destroy_process_group()


def over(name: str, kind: str, processes: int) -> Engine:
    """An engine of the loop's."""
    return Engine(
        name=name,
        processes=processes,
        schedule=SCHEDULE,
        train=partial(loop, kind, processes),
        plain=partial(plain, WIDTH),
    )


ENGINES = {
    each.name: each
    for each in (
        over("store", "faulty", 1),
        over("store-whole", "s3", 1),
        over("store-ddp", "faulty", 2),
    )
}
