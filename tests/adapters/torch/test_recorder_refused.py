"""What cannot be recorded or predicted with is said at construction, by the tensor's name."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ChainedScheduler, LinearLR, LRScheduler

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder

EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)


class Extra(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"a": 1}


def zero() -> nn.Module:
    """As DeepSpeed's ZeRO-3 leaves a model: empty tensors, known by a number of its own."""
    model = nn.Linear(2, 2)
    for i, parameter in enumerate(model.parameters()):
        parameter.data = torch.empty(0)
        parameter.ds_id = i  # type: ignore[attr-defined]
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Extra(2, 2), r"must consist of tensors.*'_extra_state', a dict"),
        (lambda: nn.LazyLinear(3), r"must be built before.*'weight' is not initialized"),
        (lambda: nn.Linear(2, 2, device="meta"), r"must have data\. Received: 'weight' on the m"),
        (zero, r"must be whole in this process\. Received: 'weight', a shard"),
        (
            lambda: nn.ParameterDict({"z": nn.Parameter(torch.zeros(1, dtype=torch.complex128))}),
            r"'z' must have a dtype that safetensors holds.*complex128",
        ),
    ],
)
def test_a_state_that_cannot_be_recorded_is_refused_when_the_recorder_is_made(
    tmp_path: Path, build: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(ca.SnapshotError, match=message):
        SnapshotRecorder(tmp_path / "run", build(), EVERY_STEP)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Any]:
    from torch.distributed.device_mesh import init_device_mesh

    store = f"file://{tmp_path}/rendezvous"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def test_models_in_shards_are_gathered_or_refused_by_name(tmp_path: Path, mesh: Any) -> None:
    from torch.distributed.tensor import Shard, distribute_tensor

    whole = nn.Linear(2, 2)
    with SnapshotRecorder(tmp_path / "run", whole, EVERY_STEP) as recorder:
        recorder.step()
    sharded = nn.Linear(2, 2)
    sharded.weight = nn.Parameter(distribute_tensor(sharded.weight.detach(), mesh, [Shard(0)]))
    with SnapshotRecorder(tmp_path / "gathered", sharded, EVERY_STEP) as recorder:
        recorder.step()
    (snapshot,) = recorder.store.list()
    weight: Any = sharded.weight
    assert torch.equal(snapshot.load(framework="pt")["weight"], weight.full_tensor())
    zero: Any = nn.Linear(2, 2)
    # As DeepSpeed's ZeRO marks what is elsewhere; where there is no DeepSpeed to gather it.
    zero.weight.ds_id, zero.weight.data = 0, torch.empty(0)
    for marks in ({}, {"ds_shape": (2, 2), "ds_status": "NOT_AVAILABLE"}):
        for name, value in marks.items():
            setattr(zero.weight, name, value)
        with pytest.raises(ca.SnapshotError, match=r"Received: 'weight', a shard; record a model"):
            SnapshotRecorder(tmp_path / "other", zero, EVERY_STEP)
    with pytest.raises(ca.EnsembleError, match=r"Received: 'weight', a shard of DeepSpeed's"):
        SnapshotEnsemble(zero, tmp_path / "run")
    with pytest.raises(ca.EnsembleError, match=r"Received: 'weight', without data; give a model"):
        SnapshotEnsemble(nn.Linear(2, 2, device="meta"), tmp_path / "run")


def test_of_a_model_in_shards_one_tensor_is_whole_at_a_time(
    tmp_path: Path, mesh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    parts = (distribute_tensor(torch.randn(3, 3), mesh, [Shard(0)]) for _ in range(4))
    model = nn.ParameterList(map(nn.Parameter, parts))
    gathered: list[weakref.ref[Any]] = []
    real = DTensor.full_tensor

    def full_tensor(value: Any) -> Any:
        assert all(each() is None for each in gathered)
        whole = real(value).clone()
        gathered.append(weakref.ref(whole))
        return whole

    monkeypatch.setattr(DTensor, "full_tensor", full_tensor)
    with SnapshotRecorder(tmp_path / "run", model, EVERY_STEP) as recorder:
        recorder.step()
    assert len(gathered) == 4
    assert len(recorder.store.list()[0].load()) == 4


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # torch's own of it
def test_the_first_fsdp_is_refused_by_name(tmp_path: Path, mesh: Any) -> None:  # noqa: ARG001
    from torch.distributed.fsdp import FullyShardedDataParallel

    inner = FullyShardedDataParallel(nn.Linear(2, 2), device_id=torch.device("cpu"))
    for model, name in ((inner, "the model"), (nn.Sequential(inner), "0")):
        with pytest.raises(ca.SnapshotError, match=rf"{name}'?, a FullyShardedDataParallel; shard"):
            SnapshotRecorder(tmp_path / "run", model, EVERY_STEP)
    assert not (tmp_path / "run").exists()


def test_a_default_device_is_not_where_copies_are_held(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    try:
        torch.set_default_device("meta")  # as "cuda" would, where there is one
        with SnapshotRecorder(tmp_path, model, EVERY_STEP) as recorder:
            recorder.step()
        ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
        x = torch.ones(3, 2, device="cpu")
        found = ensemble.predict(x)
    finally:
        torch.set_default_device(None)
    torch.testing.assert_close(found, model(x).detach())


@pytest.mark.parametrize("chained", [False, True])
def test_another_scheduler_is_refused_with_what_to_give(tmp_path: Path, chained: bool) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler: LRScheduler = LinearLR(optimizer)
    if chained:
        ours = CyclicCosineLR(optimizer, EVERY_STEP, chainable=True)
        scheduler = ChainedScheduler([scheduler, ours])  # type: ignore[assignment,unused-ignore]
    with pytest.raises(ca.SnapshotError, match=r"must be a CyclicCosineLR.*give the CyclicCosi"):
        SnapshotRecorder(tmp_path, model, scheduler)  # type: ignore[arg-type]
