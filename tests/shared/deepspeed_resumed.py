"""DeepSpeed's engines that stop and go on, of several precisions; started by tests.

`python -m tests.shared.deepspeed_resumed WORK JSON`, where the JSON lists names of `CASES`; or with
`[NAME, RANK, UPDATE]` in it, of a run in which the process of that rank kills itself then.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from torch import nn

from cosanneal.adapters.torch import CyclicCosineLR, SnapshotRecorder
from tests.shared.deepspeed_run import SCHEDULE
from tests.shared.deepspeed_run import engine_of as made
from tests.shared.ranked_run import batch, plain_model

OVERFLOWS = (2, 5, 6)  # of fp16, the calls of the engine whose losses are infinite

_HALF = {"fp16": {"enabled": True, "initial_scale_power": 4}}
_BRAIN = {"bf16": {"enabled": True}}
# By the optimizer that is given, and not by one of DeepSpeed's own, which would be compiled.
_OFFLOADED = {"zero_force_ds_cpu_optimizer": False}

CASES: dict[str, tuple[int, dict[str, Any]]] = {
    **{f"plain-{stage}": (stage, {}) for stage in range(4)},
    "bf16-1": (1, _BRAIN),
    "bf16-3": (3, _BRAIN),
    "fp16-2": (2, _HALF),
    "fp16-3": (3, _HALF),
    "offloaded-2": (2, _OFFLOADED | {"zero": {"offload_optimizer": {"device": "cpu"}}}),
    "offloaded-3": (
        3,
        _OFFLOADED
        | {"zero": {name: {"device": "cpu"} for name in ("offload_optimizer", "offload_param")}},
    ),
}


def network() -> nn.Module:
    """A model with a layer that does not train, and none whose kernels mix precisions."""
    model = nn.Sequential(*plain_model().children(), nn.LayerNorm(4), nn.Linear(4, 4))
    model[-1].requires_grad_(False)
    return model


def engine_of(stage: int, **config: Any) -> Any:
    """An engine that steps its scheduler by itself."""
    zero = {"stage3_gather_16bit_weights_on_model_save": True} | config.pop("zero", {})
    engine, _ = made(
        stage,
        lambda optimizer: CyclicCosineLR(optimizer, SCHEDULE),
        model=network(),
        zero=zero,
        **config,
    )
    return engine


def call(engine: Any) -> None:
    """One call of the engine, whose number it counts and a checkpoint keeps."""
    number = engine.global_steps
    x, y = batch(number)
    loss = nn.functional.cross_entropy(engine(x.to(engine.communication_data_type)).float(), y)
    if engine.fp16_enabled() and number in OVERFLOWS:
        loss = loss * float("inf")
    engine.backward(loss)
    engine.step()


def train(
    folder: Path,
    engine: Any,
    *,
    stop: int = 12,
    load: Path | None = None,
    each: Callable[[int], object] = lambda _: None,
) -> None:
    """Train to an update, after a checkpoint if it is given; the recorder is there already."""
    scheduler = engine.lr_scheduler
    with SnapshotRecorder(folder, engine, scheduler):
        if load is not None and (load / "latest").exists():
            engine.load_checkpoint(str(load))
        while scheduler.last_epoch < stop:
            call(engine)
            each(scheduler.last_epoch)


def stopped(work: Path, name: str) -> None:
    """A run that is whole, one that stops amid a cycle, and one that goes on with it."""
    stage, config = CASES[name]
    engine = engine_of(stage, **json.loads(json.dumps(config)))

    def keep(update: int) -> None:
        if update == 4:
            engine.save_16bit_model(str(work / name), "weights.pt")

    train(work / name / "whole", engine, each=keep)
    skipped = engine.skipped_steps
    checkpoint = work / name / "checkpoint"
    engine = engine_of(stage, **json.loads(json.dumps(config)))
    train(work / name / "resumed", engine, stop=6)
    engine.save_checkpoint(str(checkpoint))
    dist.barrier()
    engine = engine_of(stage, **json.loads(json.dumps(config)))
    if stage % 2:  # before the recorder is made, or with it there
        engine.load_checkpoint(str(checkpoint))
        train(work / name / "resumed", engine)
    else:
        train(work / name / "resumed", engine, load=checkpoint)
    told = {"skipped": [skipped, engine.skipped_steps]}
    (work / name / f"found-{dist.get_rank()}.json").write_text(json.dumps(told))


def killed(work: Path, name: str, rank: int, update: int) -> None:
    """A run that saves a checkpoint every three updates, and goes on from the last."""
    stage, config = CASES[name]
    engine = engine_of(stage, **json.loads(json.dumps(config)))
    checkpoint = work / name / "checkpoint"
    pause = float(os.environ.get("PAUSE", "0"))

    def each(at: int) -> None:
        if at == update and dist.get_rank() == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        if at % 3 == 0:
            engine.save_checkpoint(str(checkpoint))
        time.sleep(pause)

    train(work / name / "killed", engine, load=checkpoint, each=each)


def main() -> None:
    """Run the cases."""
    work = Path(sys.argv[1])
    torch.set_num_threads(1)
    # DeepSpeed asks for a processor that is fast with it; torch computes it on every one.
    get_accelerator().is_fp16_supported = lambda: True
    join: Any = deepspeed.init_distributed
    join("gloo", verbose=False)
    for case in json.loads(sys.argv[2]):
        if isinstance(case, str):
            stopped(work, case)
        else:
            killed(work, *case)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
