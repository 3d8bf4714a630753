"""Models as people have them: wrapped, of many tensors, on a device that is another's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder
from cosanneal.snapshots import SnapshotStore

EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    store = f"file://{tmp_path}/rendezvous"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


def compiled_inside(model: nn.Module) -> nn.Module:
    return nn.Sequential(*(compiled(each) for each in model.children()))


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda model: model,
    "compiled": compiled,
    "compiled inside": compiled_inside,
    "DataParallel": nn.DataParallel,
    "DDP": nn.parallel.DistributedDataParallel,
    "DDP of compiled": lambda model: nn.parallel.DistributedDataParallel(compiled(model)),
    "compiled DDP": lambda model: compiled(nn.parallel.DistributedDataParallel(model)),
}


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_prefix_of_a_wrapper_is_taken_off_and_put_back(tmp_path: Path, wrapper: str) -> None:
    wrap = WRAPPERS[wrapper]
    x = torch.randn(6, 4)
    expected: list[Tensor] = []
    plain = net()
    with SnapshotRecorder(tmp_path / "run", wrap(plain), EVERY_STEP) as recorder:
        for seed in (1, 2):
            plain.load_state_dict(net(seed).state_dict())
            recorder.step()
            expected.append(net(seed).eval()(x).softmax(-1).detach())
    for snapshot in recorder.store.list():
        assert snapshot.load().keys() == plain.state_dict().keys()
    mean = torch.stack(expected).double().mean(0).float()
    for other in WRAPPERS.values():
        wrapped = other(net(3))
        before = {name: value.clone() for name, value in wrapped.state_dict().items()}
        ensemble = SnapshotEnsemble(wrapped, tmp_path / "run")
        torch.testing.assert_close(ensemble.predict(x), mean)
        for name, value in wrapped.state_dict().items():
            assert torch.equal(value, before[name])
        assert wrapped.training


def test_names_that_only_look_like_a_wrappers_are_the_models_own(tmp_path: Path) -> None:
    model = nn.ModuleDict({"module": nn.Linear(2, 2), "not_orig_mod": nn.Linear(2, 2)})
    with SnapshotRecorder(tmp_path, model, EVERY_STEP) as recorder:
        recorder.step()
    (snapshot,) = recorder.store.list()
    assert snapshot.load().keys() == model.state_dict().keys()


KINDS = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
]
if hasattr(torch, "float8_e8m0fnu"):  # which is newer than the others
    KINDS.append(torch.float8_e8m0fnu)


def buffers_of(tensors: dict[str, Tensor]) -> nn.Module:
    model = nn.Module()
    for name, value in tensors.items():
        model.register_buffer(name, value)
    return model


@pytest.mark.filterwarnings("ignore:The weights at update 1 are not finite:UserWarning")
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_dtype_in_every_shape(tmp_path: Path, kind: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> Tensor:
        size = torch.empty(0, dtype=kind).element_size()
        raw = torch.randint(
            0, 2 if kind == torch.bool else 256, (*shape, size), generator=generator
        )
        return raw.to(torch.uint8).view(kind).reshape(shape)

    whole = drawn(5, 6)
    tensors = {
        "whole": whole,
        "scalar": drawn(),
        "empty": drawn(3, 0, 2),
        "turned": whole.t(),
        "spread": whole[::2, 1::3],
        "expanded": drawn(1, 4).expand(3, 4),
        "offset": whole[2:],
    }
    with SnapshotRecorder(tmp_path, buffers_of(tensors), EVERY_STEP) as recorder:
        recorder.step()
    (snapshot,) = recorder.store.list()
    loaded = snapshot.load(framework="pt")
    for name, value in tensors.items():
        assert (loaded[name].dtype, loaded[name].shape) == (kind, value.shape)
        flat = value.contiguous().reshape(-1)
        assert torch.equal(loaded[name].reshape(-1).view(torch.uint8), flat.view(torch.uint8))


def test_a_dtype_without_a_code_is_refused_by_name(tmp_path: Path) -> None:
    model = buffers_of({"fine": torch.ones(2), "odd": torch.zeros(2, dtype=torch.complex128)})
    with pytest.raises(ca.SnapshotError, match=r"'odd' must have a dtype.*complex128; conv"):
        SnapshotRecorder(tmp_path, model, EVERY_STEP)
    assert list(tmp_path.iterdir()) == []


def test_views_of_one_storage_and_tied_weights_stand_by_themselves(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    model = nn.Module()
    model.first = nn.Parameter(base[:6])
    model.second = nn.Parameter(base[3:9].view(2, 3))
    model.tied = model.first
    with SnapshotRecorder(tmp_path, model, EVERY_STEP) as recorder:
        recorder.step()
        with torch.no_grad():
            base += 100
        recorder.step()
    before, after = (each.load(framework="pt") for each in recorder.store.list())
    for name, value in model.state_dict().items():
        assert torch.equal(after[name], value)
        assert torch.equal(before[name], value - 100)
    assert before.keys() == {"first", "second", "tied"}


class Named(nn.Module):
    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.scale = nn.ParameterDict({name: torch.randn(2) for name in names})


def test_any_name_that_torch_takes(tmp_path: Path) -> None:
    names = [
        "naïve/名前",
        "/etc/passwd",
        "a b\tc\n",
        '"quoted\\"',
        "\u202e\U0001f600",
        "x" * 500,
    ]
    model = Named(names)
    with SnapshotRecorder(tmp_path, model, EVERY_STEP) as recorder:
        recorder.step()
    (snapshot,) = recorder.store.list()
    loaded = snapshot.load(framework="pt")
    assert loaded.keys() == model.state_dict().keys()
    assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())
    assert len(list(tmp_path.iterdir())) == 1


def test_a_model_of_ten_thousand_tensors(tmp_path: Path) -> None:
    tensors = {f"t{i}": torch.full((i % 3, 2), float(i)) for i in range(10_000)}
    with SnapshotRecorder(tmp_path, buffers_of(tensors), EVERY_STEP, keep_last=1) as recorder:
        for _ in range(3):
            recorder.step()
    (snapshot,) = recorder.store.list()
    loaded = snapshot.load(framework="pt")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())


def test_no_gradient_and_no_graph_is_touched(tmp_path: Path) -> None:
    model = net()
    loss = model(torch.randn(5, 4)).sum()
    with SnapshotRecorder(tmp_path, model, EVERY_STEP) as recorder:
        recorder.step()
        loss.backward()  # nothing that it needs was written to
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_inference_mode_leaves_the_held_memory_usable(tmp_path: Path) -> None:
    with torch.inference_mode():
        model = net()
        recorder = SnapshotRecorder(tmp_path, model, EVERY_STEP)
        recorder.step()
    recorder.step()
    recorder.close()
    one, two = (snapshot.load(framework="pt") for snapshot in SnapshotStore(tmp_path).list())
    assert all(torch.equal(one[name], two[name]) for name in one)
