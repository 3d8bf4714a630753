"""Runs of accelerate with DeepSpeed, on CPUs; started by tests: `python -m ... FOLDER STAGE`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DeepSpeedPlugin
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch import nn

from cosanneal.adapters.torch import CyclicCosineLR, SnapshotRecorder
from tests.shared.deepspeed_run import SCHEDULE, network
from tests.shared.ranked_run import batch


def prepared(stage: int) -> tuple[Accelerator, Any, Any, CyclicCosineLR]:
    """What accelerate makes of a model and its optimizer; the scheduler is left out."""
    # accelerate uses DeepSpeed with devices alone, and asks here which there are.
    made: Any = lambda self, *_: ("gloo", DistributedType.MULTI_CPU)  # noqa: E731, ARG005
    PartialState._prepare_backend = made
    plugin = DeepSpeedPlugin(zero_stage=stage, gradient_accumulation_steps=2, zero3_init_flag=False)
    config = plugin.deepspeed_config
    config["train_micro_batch_size_per_gpu"] = 8
    config["gradient_clipping"] = 0.0  # which the plugin's own argument leaves at 1
    config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    accelerator = Accelerator(deepspeed_plugin=plugin)
    model = network()
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    return accelerator, *accelerator.prepare(model, optimizer), scheduler


def main() -> None:
    """Stop amid a cycle, and go on with an engine of its own."""
    folder, stage = Path(sys.argv[1]), int(sys.argv[2])
    stop = int(sys.argv[3])
    torch.set_num_threads(1)
    accelerator, model, optimizer, scheduler = prepared(stage)
    accelerator.register_for_checkpointing(scheduler)
    if (folder / "checkpoint").exists():
        accelerator.load_state(str(folder / "checkpoint"))
    with SnapshotRecorder(folder / "run", model, scheduler):
        while scheduler.last_epoch < stop:
            x, y = batch(scheduler.last_epoch)
            for _ in range(2):
                with accelerator.accumulate(model):
                    accelerator.backward(nn.functional.cross_entropy(model(x), y))
                    optimizer.step()
                    if accelerator.sync_gradients:
                        scheduler.step()
                    optimizer.zero_grad()
    if stop < 12:
        accelerator.save_state(str(folder / "checkpoint"))
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main()
