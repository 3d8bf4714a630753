"""An ensemble on several processes, each with a share of the data; started by tests.

`python -m tests.shared.shared_run FOLDER [DEVICE]`: on CPUs, by gloo, or each process on a GPU of
its own, by nccl (DEVICE "cuda"). Where accelerate is not installed, its loaders are left out.

What every process finds, and what one finds that has all data, goes into a file for each.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder
from cosanneal.adapters.torch.share import share_of
from tests.shared.joining import joined

MODES = ("stream", "resident", "stacked", "auto")
SAMPLES = 11  # which no number of processes divides


class Samples(Dataset[Any]):
    """Samples, of which one process may fail to read one."""

    def __init__(self, samples: int = SAMPLES, texts: bool = False, fails: bool = False) -> None:
        random = torch.Generator().manual_seed(1)
        self.x = torch.randn(samples, 4, generator=random)
        self.y = (self.x.sum(1) > 0).long()
        self.texts, self.fails = texts, fails

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        if self.fails and i >= 5:
            raise OSError("the disk is gone")
        return self.x[i], ("no", "yes")[int(self.y[i])] if self.texts else self.y[i]


def make() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def record(folder: Path, model: nn.Module) -> None:
    with SnapshotRecorder(folder, model, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for _ in range(3):
            with torch.no_grad():
                for each in model.parameters():
                    each.add_(torch.randn_like(each), alpha=0.3)
            recorder.step()


def found(ensemble: Any, loader: Any, y: Any = None) -> Iterator[Any]:
    """All that is made of data, as plain numbers."""
    yield ensemble.predict(loader).tolist()
    yield ensemble.predict(loader, mode="resident").tolist()
    yield [each.tolist() for each in ensemble.member_predictions(loader)]
    yield [ensemble.predict_classes(loader, mode=mode).tolist() for mode in MODES]
    sure = ensemble.predict_with_uncertainty(loader)
    yield [sure.probabilities.tolist(), sure.mutual_information.tolist()]
    for select in ("last", "greedy", "weights"):
        yield ensemble.fit(loader, y, select=select).to_dict()
    yield ensemble.predict(loader).tolist()
    yield ensemble.evaluate(loader, y)
    averaged = ensemble.average_weights(loader, y, barrier=10.0)
    yield [averaged.scores, {name: each.tolist() for name, each in averaged.weights.items()}]
    yield [averaged.temperature, averaged.calibrated_scores, averaged.predict(loader).tolist()]


def one_by_one(loader: Any) -> DataLoader[Any]:
    """What one process has, with the same rows in a batch, and so the same arithmetic."""
    return DataLoader(loader.dataset, batch_size=1)


def dealt(data: Dataset[Any], shuffle: bool = False, drop_last: bool = False) -> DataLoader[Any]:
    sampler: DistributedSampler[Any] = DistributedSampler(
        data, shuffle=shuffle, drop_last=drop_last
    )
    return DataLoader(data, batch_size=1, sampler=sampler)


def in_batches(data: Dataset[Any]) -> DataLoader[Any]:
    sampler = BatchSampler(DistributedSampler(data, shuffle=False), 1, drop_last=False)
    return DataLoader(data, batch_sampler=sampler)


def prepared(data: Dataset[Any], shuffle: bool = False, **options: Any) -> Any:
    from accelerate.data_loader import prepare_data_loader

    return prepare_data_loader(
        DataLoader(data, batch_size=1, shuffle=shuffle),
        num_processes=dist.get_world_size(),
        process_index=dist.get_rank(),
        put_on_device=False,
        **options,
    )


def said(do: Callable[[], Any]) -> str:
    """The error that something is refused by."""
    try:
        do()
    except ca.CosannealError as error:
        return f"{type(error).__name__}: {error}"
    except OSError as error:
        return f"OSError: {error}"
    return "none"


def main() -> None:
    """Run all, and write down what was found."""
    work = Path(sys.argv[1])
    warnings.simplefilter("ignore", UserWarning)  # few samples
    torch.set_num_threads(1)
    device = joined(sys.argv[2] if len(sys.argv) > 2 else "cpu")
    rank = dist.get_rank()
    record(work / "run", make().to(device))
    model = make().to(device)

    def ensemble() -> Any:
        return SnapshotEnsemble(model, work / "run", outputs="logits")

    results: dict[str, Any] = {"alone": [*found(ensemble(), one_by_one(dealt(Samples())))]}
    results["dealt"] = [*found(ensemble(), dealt(Samples()))]
    results["shuffled"] = [*found(ensemble(), dealt(Samples(), shuffle=True))]
    results["batches"] = [*found(ensemble(), in_batches(Samples()))]
    if find_spec("accelerate"):
        results["prepared"] = [*found(ensemble(), prepared(Samples()))]
        results["uneven"] = [*found(ensemble(), prepared(Samples(), even_batches=False))]
    results["labels"] = [*found(ensemble(), dealt(Samples()), Samples().y)]
    texts = {"classes": ["no", "yes"]}
    results["texts"] = ensemble().fit(dealt(Samples(texts=True)), **texts).to_dict()

    values = SnapshotEnsemble(model, work / "run", outputs="values")
    targets = torch.arange(SAMPLES * 2.0).reshape(-1, 2)
    regression = [each.tolist() for each in values.predict_with_variance(dealt(Samples()))]
    alone = [each.tolist() for each in values.predict_with_variance(Samples().x, batch_size=1)]
    results["regression"] = [regression, values.fit(dealt(Samples()), targets).to_dict()]
    results["regression alone"] = [
        alone,
        values.fit(Samples().x, targets, batch_size=1).to_dict(),
    ]

    torch.manual_seed(0)
    moving = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)).to(device)
    with SnapshotRecorder(work / "moving", moving, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        recorder.step()
        moving(torch.randn(8, 4, device=device))
        recorder.step()
    of_moving = SnapshotEnsemble(moving, work / "moving", outputs="logits")
    wrong = {
        "drop_last": lambda: ensemble().predict(dealt(Samples(), drop_last=True)),
        "lengths": lambda: ensemble().predict(dealt(Samples(SAMPLES + rank))),
        "reading": lambda: ensemble().predict(dealt(Samples(fails=rank == 1))),
        "reading to fit": lambda: ensemble().fit(dealt(Samples(fails=rank == 1))),
        "ragged": lambda: ensemble().predict(dealt(Samples()), ragged="list"),
        "keep": lambda: ensemble().fit(dealt(Samples()), keep=work / "kept.npy"),
        "train_data": lambda: of_moving.average_weights(
            Samples().x, Samples().y, train_data=dealt(Samples())
        ),
        "labels": lambda: ensemble().fit(dealt(Samples()), Samples().y[:3]),
    }
    if find_spec("accelerate"):
        wrong["shuffled"] = lambda: ensemble().predict(prepared(Samples(), shuffle=True))
    results["wrong"] = {name: said(do) for name, do in wrong.items()}
    # Where one process has its rows of another shape, the others hear of it.
    share = share_of(dealt(Samples()))
    assert share is not None
    rows = torch.zeros(-(-SAMPLES // dist.get_world_size()), 2 + rank)
    results["wrong"]["shapes"] = said(lambda: share.whole(rows))
    results["wrong"]["counts"] = said(lambda: share.whole(rows[rank:, :2]))
    results["wrong"]["kinds"] = said(lambda: share.whole(np.zeros(len(rows), "M8[s]")))
    results["empty"] = [*share.whole(torch.zeros(len(rows), 0)).shape]
    results["bytes"] = share.whole(torch.ones(len(rows), 2, 3, dtype=torch.bfloat16)).sum().item()
    (work / f"found-{rank}.json").write_text(json.dumps(results))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
