"""transformers' Trainer and accelerate, as torchrun starts them, with their own checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, DataLoaderConfiguration
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import TrainerCallback, TrainingArguments

from cosanneal.adapters.torch import CyclicCosineLR, SnapshotRecorder
from cosanneal.adapters.transformers import CyclicCosineTrainer, SnapshotCallback
from cosanneal.snapshots.options import RecorderOptions
from tests.kills.driver import Engine, begun, reporter
from tests.kills.torch_engines import EVERY, SCHEDULE, UPDATES, WIDTH, batch, network

ROWS = 4  # of a process' batch


def data(updates: int) -> tuple[Tensor, Tensor]:
    """The rows of an epoch of so many updates, for two processes."""
    x, y = zip(*(batch(update) for update in range(2 * updates)), strict=True)
    return torch.cat(x), torch.cat(y)


def newest(root: Path, processes: int = 2) -> Path | None:
    """The newest checkpoint that all processes have saved."""
    found = sorted(root.glob("checkpoint-*"), key=lambda each: int(each.name[11:]))
    whole = [each for each in found if len([*each.glob("saved-*")]) == processes]
    return whole[-1] if whole else None


# transformers.


class Classifier(nn.Module):
    """A model as the Trainer takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network(WIDTH)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Saved(TrainerCallback):
    """Says which checkpoints are whole."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        place = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (place / f"saved-{args.process_index}").touch()


def trainer(root: Path, rows: int, options: RecorderOptions) -> CyclicCosineTrainer:
    """As a user has it."""
    torch.set_num_threads(1)
    arguments: dict[str, Any] = {
        "per_device_train_batch_size": rows,
        "num_train_epochs": UPDATES // 8,
        "learning_rate": 0.1,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "max_grad_norm": 0.0,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "steps",
        "save_steps": EVERY,
        "logging_steps": 1,
        "use_cpu": True,
        "ddp_backend": "gloo" if rows == ROWS else None,
        "dataloader_pin_memory": False,
    }
    x, y = data(8)  # so that checkpoints are amid an epoch
    return CyclicCosineTrainer(
        Classifier(),
        TrainingArguments(str(root), **arguments),
        train_dataset=[{"x": x[i], "labels": y[i]} for i in range(len(x))],
        schedule=SCHEDULE,
        callbacks=[SnapshotCallback(root / "run", **options), Saved()],
    )


def train_transformers(root: Path, rank: int, attempt: int) -> None:
    """A training that goes on."""
    checkpoint = newest(root)
    options: RecorderOptions = {"on_durable": reporter(root, attempt)}
    if checkpoint is None:  # it starts over
        options["resume_from"] = 0
    made = trainer(root, ROWS, options)
    begun(root, rank, attempt, 0 if checkpoint is None else int(checkpoint.name[11:]))
    made.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    dist.barrier()
    dist.destroy_process_group()


def plain_transformers(folder: Path) -> None:
    """One process, whose batches are those of both."""
    trainer(folder.parent, 2 * ROWS, {}).train()


# accelerate.


def train_accelerate(root: Path, rank: int, attempt: int) -> None:
    """A training that goes on."""
    checkpoint = newest(root)
    options: RecorderOptions = {"on_durable": reporter(root, attempt)}
    if checkpoint is None:  # it starts over
        options["resume_from"] = 0
    made = accelerator()
    done = 0 if checkpoint is None else int(checkpoint.name[11:])
    begun(root, rank, attempt, done)
    loop(made, root, ROWS, checkpoint, done, options)
    made.end_training()


def plain_accelerate(folder: Path) -> None:
    """One process, whose batches are those of both."""
    loop(accelerator(), folder.parent, 2 * ROWS, None, 0, {})


def accelerator() -> Accelerator:
    """Of the processes that there are."""
    torch.set_num_threads(1)
    seedable = DataLoaderConfiguration(use_seedable_sampler=True)
    return Accelerator(cpu=True, gradient_accumulation_steps=2, dataloader_config=seedable)


def loop(
    accelerator: Accelerator,
    root: Path,
    rows: int,
    checkpoint: Path | None,
    done: int,
    options: RecorderOptions,
) -> None:
    """A loop as examples/torch_accelerate.py has it."""
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(*data(EVERY)), batch_size=rows // 2, shuffle=True)
    model = network(WIDTH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    recorder = SnapshotRecorder(root / "run", model, scheduler, **options)
    accelerator.register_for_checkpointing(scheduler, recorder)
    if checkpoint is not None:
        accelerator.load_state(str(checkpoint))
    with recorder:
        for epoch in range(done // EVERY, UPDATES // EVERY):
            loader.set_epoch(epoch)
            for inputs, labels in loader:
                with accelerator.accumulate(model):
                    accelerator.backward(nn.functional.cross_entropy(model(inputs), labels))
                    optimizer.step()
                    if accelerator.sync_gradients:
                        scheduler.step()
                    optimizer.zero_grad()
            place = root / f"checkpoint-{scheduler.last_epoch}"
            accelerator.save_state(str(place))
            (place / f"saved-{accelerator.process_index}").touch()


# The mean over the processes is of another order than that over one batch.
MEANS = 1e-5

ENGINES = {
    name: Engine(
        name=name, processes=2, schedule=SCHEDULE, train=train, plain=plain, tolerance=MEANS
    )
    for name, train, plain in (
        ("transformers", train_transformers, plain_transformers),
        ("accelerate", train_accelerate, plain_accelerate),
    )
}
