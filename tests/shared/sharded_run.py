"""An ensemble of a model in shards, on several processes; started by tests, as a script.

What every process finds goes into a file for each.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.utils.data import DataLoader

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder
from tests.shared.ranked_run import spread
from tests.shared.shared_run import Samples, dealt, make

HOW = ("ddp", "fsdp2", "root", "tensor")


class Normed(nn.Module):
    """Layers with tensors that are not sharded: buffers, also one that no state has."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)
        self.register_buffer("calls", torch.zeros(2), persistent=False)
        self.fails = False

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        hidden = self.first(x)
        if self.fails and not self.training:
            raise OSError("this layer fails")
        found: Tensor = self.last(self.norm(hidden))
        return found


class Uncounted(DataLoader[Any]):
    """Batches, of which one process may have fewer, or fail at the second."""

    def __init__(self, fewer: bool = False, fails: bool = False) -> None:
        super().__init__(Samples(), batch_size=4)
        self.fewer, self.fails = fewer, fails

    def __iter__(self) -> Any:
        for i, each in enumerate(super().__iter__()):
            if i == 1 and self.fewer:
                return
            if i == 1 and self.fails:
                raise OSError("the disk is gone")
            yield each


def record(folder: Path, model: nn.Module, **options: Any) -> None:
    """Three members, each a little further; by one process."""
    schedule = ca.CyclicCosine(0.1, cycle_steps=1)
    with SnapshotRecorder(folder, model, schedule, **options) as recorder:
        for seed in range(3):
            random = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for each in model.parameters():
                    if each.requires_grad:
                        each.add_(torch.randn(each.shape, generator=random), alpha=0.3)
            recorder.step()


def frozen(rank: int = 0) -> nn.Module:
    """A model with a layer that is not trained, and a buffer that is another in each process."""
    model = make()
    model.get_submodule("0").requires_grad_(False)
    model.register_buffer("seen", torch.full((2, 2), float(rank)))
    return model


def sharded(model: nn.Module, how: str) -> nn.Module:
    """The model as an engine has it; "root" is FSDP2's that gathers all layers at once."""
    if how != "root":
        return spread(model, how)
    from torch.distributed.fsdp import fully_shard

    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    return model


def state_of(model: nn.Module) -> list[Tensor]:
    """The parts of this process of all tensors, those of no state too."""
    found: list[Any] = [*model.parameters(), *model.buffers()]
    parts = [each.to_local() if hasattr(each, "to_local") else each for each in found]
    return [each.detach().clone() for each in parts]


def found(ensemble: Any, x: Any, y: Any) -> Iterator[Any]:
    """What is made of data, as plain numbers."""
    yield ensemble.predict(x).tolist()
    yield ensemble.predict(x, mode="resident").tolist()
    yield [each.tolist() for each in ensemble.member_predictions(x)]
    yield [ensemble.predict_classes(x, mode=mode).tolist() for mode in ("stream", "resident")]
    yield ensemble.fit(x, y, select="weights").to_dict()
    yield ensemble.predict(x).tolist()
    yield ensemble.evaluate(x, y)


def said(do: Callable[[], Any]) -> str:
    """The error that something is refused by."""
    try:
        do()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def trained(model: nn.Module, between: Callable[[], object]) -> list[list[float]]:
    """The parts of the weights after four updates, with something done between them."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    data = Samples()
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.x), data.y).backward()
        optimizer.step()
        between()
    return [each.reshape(-1).tolist() for each in state_of(model)]


def main() -> None:
    """Run all, and write down what was found."""
    work = Path(sys.argv[1])
    warnings.simplefilter("ignore", UserWarning)  # few samples
    torch.set_num_threads(1)
    if os.environ["RANK"] == "0":  # alone, for there is no group yet
        record(work / "run", make())
        record(work / "normed", Normed())
        record(work / "part", frozen(), which="trainable")
        record(work / "all", frozen().requires_grad_())
        record(work / "damaged", make())
        newest = sorted((work / "damaged").iterdir())[-1]
        newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    dist.init_process_group("gloo")
    rank, data = dist.get_rank(), Samples()
    dist.barrier()
    results: dict[str, Any] = {"alone": [], "kept": []}

    def ensemble(model: nn.Module, folder: str = "run", **options: Any) -> Any:
        return SnapshotEnsemble(model, work / folder, outputs="logits", **options)

    results["alone"] = [*found(ensemble(make()), data.x, data.y)]
    for how in HOW:
        model = sharded(make(), how)
        before = state_of(model)
        results[how] = [*found(ensemble(model), data.x, data.y)]
        same = zip(before, state_of(model), strict=True)
        results["kept"].append(all(torch.equal(*each) for each in same) and model.training)
    results["auto"] = ensemble(model).predict(data.x, mode="auto").tolist()
    model = spread(make(), "fsdp2")
    before = state_of(model)
    results["dealt"] = [*found(ensemble(model), dealt(data), None)]
    same = zip(before, state_of(model), strict=True)
    results["kept"].append(all(torch.equal(*each) for each in same) and model.training)
    sure = Samples()
    sure.x[::2] *= 100.0  # the rows of rank 0, whose classes one member decides
    sure.x[1::2] *= 0.01
    results["sure"] = ensemble(model).predict_classes(dealt(sure)).tolist()
    results["sure alone"] = ensemble(make()).predict_classes(sure.x, batch_size=1).tolist()
    results["dealt alone"] = [*found(ensemble(make()), DataLoader(data, batch_size=1), None)]

    # Members that are a part; and others that stay in memory meanwhile.
    of_part = ensemble(spread(frozen(rank), "fsdp2"), "part")
    results["part"] = [
        of_part.predict(data.x, mode=mode).tolist() for mode in ("stream", "resident")
    ]
    results["part alone"] = [ensemble(frozen(), "part").predict(data.x).tolist()] * 2
    both = [work / "all", work / "part"]
    for name, model in (("both", spread(frozen(rank), "fsdp2")), ("both alone", frozen())):
        of_both = SnapshotEnsemble(model, both, outputs="logits")
        results[name] = of_both.predict(data.x, mode="resident").tolist()

    # Buffers that a forward changes, and one that fails.
    normed = Normed()
    results["normed alone"] = ensemble(normed, "normed").predict(data.x).tolist()
    normed = Normed()
    spread(normed, "fsdp2")
    normed(data.x)  # which has running statistics of its own
    before = state_of(normed)
    of_normed = ensemble(normed, "normed")
    results["normed"] = of_normed.predict(data.x).tolist()
    normed.fails = True
    results["failed"] = said(lambda: of_normed.predict(data.x, mode="resident"))
    normed.fails = False
    same = zip(before, state_of(normed), strict=True)
    results["kept"].append(all(torch.equal(*each) for each in same) and normed.training)
    results["normed again"] = of_normed.predict(data.x).tolist()
    one, other = spread(Normed(), "fsdp2"), spread(Normed(), "fsdp2")
    of_other = ensemble(other, "normed")
    results["trained"] = [
        trained(one, lambda: one(data.x)),
        trained(other, lambda: (of_other.predict(data.x), other(data.x))),
    ]

    tensor, fsdp2 = (ensemble(spread(make(), how)) for how in ("tensor", "fsdp2"))
    rows = data.x + rank
    damaged = ensemble(spread(make(), "fsdp2"), "damaged")
    keeping, hooked = spread(make(), "fsdp2"), spread(make(), "fsdp2")
    keeping.kept = keeping(data.x)  # with its gradients
    hooked._register_state_dict_hook(lambda _, state, *__: state.update(w=torch.ones(1)))
    wrong: dict[str, Callable[[], Any]] = {
        "rows": lambda: fsdp2.predict(rows),
        "rows of tensor": lambda: tensor.predict(rows),
        "dealt": lambda: tensor.predict(dealt(data)),
        "fewer": lambda: fsdp2.predict(Uncounted(fewer=rank == 1)),
        "fewer resident": lambda: fsdp2.predict(Uncounted(fewer=rank == 1), mode="resident"),
        "reading": lambda: fsdp2.predict(Uncounted(fails=rank == 1)),
        "reading resident": lambda: fsdp2.predict(Uncounted(fails=rank == 1), mode="resident"),
        "reading to fit": lambda: fsdp2.fit(Uncounted(fails=rank == 1)),
        "damaged": lambda: damaged.predict(data.x),
        "damaged resident": lambda: damaged.predict(data.x, mode="resident"),
        "stacked": lambda: fsdp2.predict(data.x, mode="stacked"),
        "average": lambda: fsdp2.average_weights(data.x, data.y),
        "one": lambda: fsdp2.average_weights(data.x, data.y, last=1),
        "module": lambda: fsdp2.as_module(),
        "keep": lambda: fsdp2.fit(data.x, data.y, keep=work / "kept.npy"),
        "members": lambda: ensemble(spread(make(), "fsdp2"), last=2 - rank),
        "folder": lambda: ensemble(spread(make(), "fsdp2"), ("run", "none")[rank]),
        "keeping": lambda: ensemble(keeping),
        "hooked": lambda: ensemble(hooked),
        "built": lambda: ensemble(lambda: spread(make(), "fsdp2")),  # type: ignore[arg-type]
    }
    results["wrong"] = {name: said(do) for name, do in wrong.items()}
    # And all goes on after each of them.
    results["again"] = [each.predict(data.x).tolist() for each in (tensor, fsdp2)]
    dist.barrier()
    dist.destroy_process_group()
    if rank == 0:
        dist.init_process_group("gloo", init_method=f"file://{work}/met", rank=0, world_size=1)
        model = spread(make(), "fsdp2")
        before = state_of(model)
        results["of one"] = [ensemble(model).predict(data.x).tolist()]
        same = zip(before, state_of(model), strict=True)
        results["of one"].append([all(torch.equal(*each) for each in same)])
        dist.destroy_process_group()
    (work / f"found-{rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
