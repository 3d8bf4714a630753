"""DeepSpeed's engines, with their own checkpoints."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from torch import nn

from cosanneal.adapters.torch import CyclicCosineLR, SnapshotRecorder
from cosanneal.snapshots.options import RecorderOptions
from tests.kills.driver import Engine, begun, reporter
from tests.kills.torch_engines import EVERY, SCHEDULE, UPDATES, WIDTH, batch, network, plain
from tests.shared.deepspeed_run import engine_of


def newest(checkpoints: Path, processes: int) -> str | None:
    """The newest tag that all processes have saved; DeepSpeed's `latest` may be cut short."""
    found = {int(each.name.split("-")[0]) for each in checkpoints.glob("*-saved-*")}
    whole = [
        update
        for update in sorted(found)
        if len([*checkpoints.glob(f"{update}-saved-*")]) == processes
    ]
    return f"update-{whole[-1]}" if whole else None


def train(stage: int, root: Path, rank: int, attempt: int) -> None:
    """A loop as DeepSpeed's guide has it."""
    torch.set_num_threads(1)
    join: Any = deepspeed.init_distributed
    join("gloo", verbose=False)
    checkpoints = root / "checkpoints"
    tag = newest(checkpoints, dist.get_world_size())
    done = 0 if tag is None else int(tag.rpartition("-")[2])
    begun(root, rank, attempt, done)
    engine, _ = engine_of(
        stage, lambda optimizer: CyclicCosineLR(optimizer, SCHEDULE), model=network(WIDTH)
    )
    options: RecorderOptions = {"on_durable": reporter(root, attempt)}
    if tag is None:  # it starts over
        options["resume_from"] = 0
    else:
        engine.load_checkpoint(str(checkpoints), tag=tag)
    scheduler = engine.lr_scheduler
    with SnapshotRecorder(root / "run", engine, scheduler, **options):
        for update in range(done, UPDATES):
            x, y = batch(update)
            engine.backward(nn.functional.cross_entropy(engine(x), y))
            engine.step()
            if (update + 1) % EVERY == 0:
                engine.save_checkpoint(str(checkpoints), tag=f"update-{update + 1}")
                (checkpoints / f"{update + 1}-saved-{rank}").touch()
    dist.barrier()
    dist.destroy_process_group()


ENGINES = {
    name: Engine(
        name=name,
        processes=2,
        schedule=SCHEDULE,
        train=partial(train, stage),
        plain=partial(plain, WIDTH),
    )
    for name, stage in (("zero-1", 1), ("zero-2", 2), ("zero-3", 3))
}
