"""Lightning's Trainer, with checkpoints of its own at the end of each epoch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, TensorDataset

from cosanneal.adapters.lightning import SnapshotCallback
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotRecorder
from cosanneal.snapshots import assembly
from cosanneal.snapshots.options import RecorderOptions
from tests.kills.driver import Engine, begun, reporter
from tests.kills.torch_engines import EVERY, SCHEDULE, UPDATES, WAITS, WIDTH, batch, network


class Classifier(pl.LightningModule):
    """A user's module."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network(WIDTH)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ARG002
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        scheduler = {"scheduler": CyclicCosineLR(optimizer, SCHEDULE), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


class Sharded(Classifier):
    """The same, in parts."""

    def configure_model(self) -> None:
        fully_shard(self.net, mesh=self.device_mesh["data_parallel"])


class Watch(pl.Callback):
    """Says when the processes have met, and which checkpoints are whole."""

    def __init__(self, root: Path, rank: int, attempt: int, done: int) -> None:
        self.root, self.rank, self.attempt, self.done = root, rank, attempt, done

    def setup(self, *_: Any, **__: Any) -> None:
        begun(self.root, self.rank, self.attempt, self.done)

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.mark(trainer.global_step)

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.mark(trainer.global_step)

    def mark(self, done: int) -> None:
        """What is there is whole, but what a killed attempt left, which came further."""
        for each in self.root.glob("checkpoints/*.ckpt"):
            if int(each.stem) <= done:
                each.with_suffix(f".saved-{self.rank}").touch()


def newest(root: Path) -> Path | None:
    """The newest checkpoint that both processes have saved."""
    found = sorted(root.glob("checkpoints/*.ckpt"))
    whole = [each for each in found if len([*root.glob(f"checkpoints/{each.stem}.saved-*")]) == 2]
    return whole[-1] if whole else None


def train(parts: bool, root: Path, rank: int, attempt: int) -> None:
    """A fit."""
    assembly.PARTS_SECONDS = WAITS  # type: ignore[misc]
    torch.set_num_threads(1)
    checkpoint = newest(root)
    done = 0 if checkpoint is None else int(checkpoint.stem)
    options: RecorderOptions = {"sharded": parts, "on_durable": reporter(root, attempt)}
    if checkpoint is None:  # it starts over
        options["resume_from"] = 0
    strategy: Any = "ddp"
    if parts:
        strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    saving = ModelCheckpoint(
        root / "checkpoints",
        filename="{step:04d}",
        auto_insert_metric_name=False,
        every_n_epochs=1,
        save_on_train_epoch_end=True,
        save_top_k=-1,
        enable_version_counter=False,
    )
    watch = Watch(root, rank, attempt, done)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        max_epochs=UPDATES // EVERY,
        use_distributed_sampler=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch, SnapshotCallback(root / "run", **options), saving],
    )
    trainer.fit(
        Sharded() if parts else Classifier(),
        loader(),
        ckpt_path=None if checkpoint is None else str(checkpoint),
        weights_only=False,
    )
    dist.barrier()
    dist.destroy_process_group()


def loader() -> DataLoader[Any]:
    """The batches of an epoch, the same in each process."""
    batches = [batch(update) for update in range(EVERY)]
    x, y = (torch.cat(each) for each in zip(*batches, strict=True))
    return DataLoader(TensorDataset(x, y), batch_size=len(batches[0][0]))


def plain(folder: Path) -> None:
    """The same training without a trainer."""
    torch.set_num_threads(1)
    model = Classifier()
    found = model.configure_optimizers()
    optimizer, scheduler = found["optimizer"], found["lr_scheduler"]["scheduler"]
    with SnapshotRecorder(folder, model, scheduler):
        for _ in range(UPDATES // EVERY):
            for each in loader():
                optimizer.zero_grad()
                model.training_step(each, 0).backward()
                optimizer.step()
                scheduler.step()


ENGINES = {
    name: Engine(
        name=name,
        processes=2,
        schedule=SCHEDULE,
        train=partial(train, parts),
        plain=plain,
        parted=parts,
    )
    for name, parts in (("lightning-ddp", False), ("lightning-model-parallel", True))
}
