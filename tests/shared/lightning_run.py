"""A fit of Lightning's on two processes; started by tests, as a script."""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

# Lightning comes as two packages; the callback is of the one that is there first.
pl: Any = importlib.import_module(sys.argv[3])
from cosanneal.adapters.lightning import SnapshotCallback  # noqa: E402


class Classifier(pl.LightningModule):
    """A user's module."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ARG002
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Sharded(Classifier):
    """The same, in parts."""

    def configure_model(self) -> None:
        from torch.distributed.fsdp import fully_shard

        for layer in (self.net[0], self.net[2], self.net):
            fully_shard(layer, mesh=self.device_mesh["data_parallel"])


def loader() -> DataLoader[Any]:
    """The data, of which each process has all."""
    x = torch.randn(24, 4, generator=torch.Generator().manual_seed(3))
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=4)


def main() -> None:
    folder, processes, parts = sys.argv[1], int(sys.argv[2]), sys.argv[4:] == ["parts"]
    warnings.simplefilter("ignore")
    strategy: Any = "ddp" if processes > 1 else "auto"
    if parts:
        of = importlib.import_module(f"{sys.argv[3]}.strategies")
        strategy = of.ModelParallelStrategy(data_parallel_size=processes, tensor_parallel_size=1)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=strategy,
        max_epochs=2,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[SnapshotCallback(folder, num_cycles=3, sharded=parts)],
    )
    trainer.fit(Sharded() if parts else Classifier(), loader())
    if dist.is_initialized():
        # Lightning leaves gloo's threads to the process's end, and now and then they abort there.
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
