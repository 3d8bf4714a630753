"""Runs of DeepSpeed's engines on CPUs; started by tests: `python -m ... FOLDER`."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from torch import nn

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder
from tests.shared.ranked_run import batch, held_out, plain_model

SCHEDULE = ca.CyclicCosine(0.1, total_steps=12, num_cycles=3)
STAGES = (0, 1, 2, 3)


def network() -> nn.Module:
    """A model with buffers, and with a layer that does not train."""
    layers = plain_model().children()
    model = nn.Sequential(*layers, nn.BatchNorm1d(4), nn.Linear(4, 4))
    model[-1].requires_grad_(False)
    return model


def engine_of(
    stage: int, lr_scheduler: Any = None, *, model: nn.Module | None = None, **config: Any
) -> tuple[Any, Any]:
    """An engine, and the optimizer that it was given; no tensor of ZeRO-3 is too small to part."""
    model = network() if model is None else model
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9)
    zero = {"stage": stage, "stage3_param_persistence_threshold": 0} | config.pop("zero", {})
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        lr_scheduler=lr_scheduler,
        config={
            "train_micro_batch_size_per_gpu": 8,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "gradient_clipping": 0.0,
            "steps_per_print": 10**9,
        }
        | config,
    )
    return engine, optimizer


def train(folder: Path, stage: int, how: str, **config: Any) -> list[str]:
    """Train, and return the warnings."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made = [lambda optimizer: CyclicCosineLR(optimizer, SCHEDULE)] if how == "engine" else []
        engine, optimizer = engine_of(stage, *made, **config)
        scheduler = engine.lr_scheduler if made else CyclicCosineLR(optimizer, SCHEDULE)
        which: Any = {"which": "trainable"} if how == "part" else {}
        passes = config.get("gradient_accumulation_steps", 1)
        with SnapshotRecorder(folder, engine, scheduler, **which):
            for update in range(12):
                x, y = batch(update)
                for _ in range(passes):
                    engine.backward(nn.functional.cross_entropy(engine(x), y))
                    engine.step()
                if not made:
                    scheduler.step()
    if stage < 3:
        found = SnapshotEnsemble(engine, folder, outputs="logits").predict(held_out())
    else:
        found = SnapshotEnsemble(network, folder, outputs="logits").predict(held_out())
    torch.save(found, folder.parent / f"{folder.name}-predicted-{dist.get_rank()}.pt")
    return [str(each.message) for each in said if each.category is UserWarning]


def alone(folder: Path, passes: int = 1) -> None:
    """The same run without an engine."""
    model = network()
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    with SnapshotRecorder(folder, model, scheduler):
        for update in range(12):
            x, y = batch(update)
            optimizer.zero_grad()
            for _ in range(passes):
                (nn.functional.cross_entropy(model(x), y) / passes).backward()
            optimizer.step()
            scheduler.step()


def refused(work: Path) -> dict[str, str]:
    """What is said of what cannot be recorded, or not be copied."""
    engine, optimizer = engine_of(3)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    wrong: dict[str, Any] = {"ensemble": lambda: SnapshotEnsemble(engine, work / "stage-3")}

    def recorded(name: str, value: object) -> Any:
        before = getattr(engine, name)
        setattr(engine, name, value)
        try:
            return SnapshotRecorder(work / "none", engine, scheduler)
        finally:
            setattr(engine, name, before)

    wrong["pipeline"] = lambda: recorded("pipeline_parallelism", True)
    wrong["experts"] = lambda: recorded("has_moe_layers", True)
    wrong["tensor"] = lambda: recorded("mp_world_size", 2)
    wrong["schedule"] = lambda: SnapshotRecorder(work / "none", engine, SCHEDULE)
    found = {}
    for name, do in wrong.items():
        try:
            do()
        except ca.CosannealError as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def main() -> None:
    """Run all, and write down what was said."""
    work = Path(sys.argv[1])
    torch.set_num_threads(1)
    join: Any = deepspeed.init_distributed
    join("gloo", verbose=False)
    said = {f"stage-{stage}": train(work / f"stage-{stage}", stage, "loop") for stage in STAGES}
    said["whole"] = train(
        work / "whole", 3, "loop", zero={"stage3_param_persistence_threshold": 20}
    )
    said["groups"] = train(work / "groups", 3, "loop", zero={"sub_group_size": 10})
    said["part"] = train(work / "part", 3, "part")
    for stage in (1, 3):
        name = f"engine-{stage}"
        said[name] = train(work / name, stage, "engine", gradient_accumulation_steps=2)
    found = {"said": said, "refused": refused(work)}
    (work / f"found-{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
