"""Training, snapshots and prediction on a CUDA device, with PyTorch."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder
from cosanneal.snapshots import SnapshotStore
from tests.shared.plans import INT32, PLANS, assert_close, peaks_of, plan, steps_of

pytestmark = pytest.mark.gpu

SCHEDULE = ca.CyclicCosine(0.05, total_steps=30, num_cycles=3)
EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)

Rated = Callable[[list[nn.Parameter], Tensor], torch.optim.Optimizer]


def network(device: torch.device, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = (nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    return nn.Sequential(*layers).to(device)


def data(device: torch.device, samples: int = 96) -> tuple[Tensor, Tensor]:
    x = torch.randn(samples, 6, generator=torch.Generator().manual_seed(1))
    return x.to(device), ((x[:, 0] > 0).long() + (x[:, 1] > 0)).to(device)


def trained(folder: Path, device: torch.device) -> tuple[nn.Module, list[dict[str, Tensor]]]:
    """A small run, and its weights at the cycles' ends."""
    model = network(device)
    x, y = data(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    ends = []
    with SnapshotRecorder(folder, model, scheduler) as recorder:
        for step in range(SCHEDULE.total_steps or 0):
            rows = slice(step % 3 * 32, step % 3 * 32 + 32)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            scheduler.step()
            if recorder.step():
                ends.append(copied(model))
    return model, ends


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_holds(snapshot: Any, weights: dict[str, Tensor]) -> None:
    """The snapshot has these very weights, and no others."""
    loaded = snapshot.load(framework="pt")
    assert loaded.keys() == weights.keys()
    for name, value in weights.items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name].view(-1).view(torch.uint8), bits(value)), name


def bits(value: Tensor) -> Tensor:
    return value.cpu().contiguous().view(-1).view(torch.uint8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", PLANS)
def test_rates_on_the_device_are_within_8_ulp_of_the_exact_ones(
    kind: str, dtype: torch.dtype, torch_device: torch.device
) -> None:
    schedule, oracle = plan(kind)
    rate = torch.tensor(1.0, dtype=dtype, device=torch_device)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1, device=torch_device))], lr=rate)
    scheduler = CyclicCosineLR(optimizer, schedule)
    optimizer.step()

    def at(steps: list[int]) -> Any:
        found = torch.empty(len(steps), dtype=dtype, device=torch_device)
        for place, step in zip(found, steps, strict=True):
            scheduler.last_epoch = step - 1
            scheduler.step()
            place.copy_(rate)
        assert optimizer.param_groups[0]["lr"] is rate  # filled, as captured graphs need
        return found.cpu().numpy()

    steps = steps_of(schedule, INT32, some=40)
    assert_close(at(steps), [float(oracle.rate(step)) for step in steps], steps, kind)
    peaks = peaks_of(kind, INT32)
    if peaks:
        assert at([*peaks]).tolist() == torch.tensor([*peaks.values()], dtype=dtype).tolist()


def test_a_whole_training_with_snapshots_and_ensemble(
    tmp_path: Path, torch_device: torch.device
) -> None:
    model, ends = trained(tmp_path, torch_device)
    found = SnapshotStore(tmp_path).list()
    assert [(each.cycle, each.step) for each in found] == [(0, 10), (1, 20), (2, 30)]
    for snapshot, weights in zip(found, ends, strict=True):
        assert all(value.device.type == torch_device.type for value in weights.values())
        assert_holds(snapshot, weights)
    own = copied(model)
    x, y = data(torch_device)
    ensemble = SnapshotEnsemble(model, tmp_path)
    probabilities = ensemble.predict(x)
    assert probabilities.device.type == torch_device.type
    assert (probabilities.argmax(1) == y).float().mean() > 0.6  # guessing has less than 0.5
    assert all(torch.equal(own[name], value) for name, value in model.state_dict().items())
    with pytest.warns(UserWarning, match="chosen on"):
        ensemble.fit(x, y.cpu().numpy())
    assert ensemble.predict(x).device.type == torch_device.type


@pytest.mark.parametrize("batch_size", [None, 1, 40])
def test_the_device_predicts_as_the_host_does(
    tmp_path: Path, batch_size: int | None, torch_device: torch.device
) -> None:
    model, _ = trained(tmp_path, torch_device)
    x, _ = data(torch_device)
    on_host = copy.deepcopy(model).cpu()
    expected = SnapshotEnsemble(on_host, tmp_path).predict(x.cpu())
    ensemble = SnapshotEnsemble(model, tmp_path)
    # From wherever the input comes.
    for given in (x, x.cpu()):
        found = ensemble.predict(given, batch_size=batch_size)
        assert found.device.type == torch_device.type
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-6)
    members = [each.cpu() for each in ensemble.member_predictions(x)]
    assert max((each - expected).abs().max() for each in members) > 1e-3


@pytest.mark.parametrize("mode", ["stream", "resident", "stacked"])
def test_every_mode_predicts_the_same(
    tmp_path: Path, mode: str, torch_device: torch.device
) -> None:
    model, _ = trained(tmp_path, torch_device)
    x, _ = data(torch_device)
    own = copied(model)
    on_host = SnapshotEnsemble(copy.deepcopy(model).cpu(), tmp_path).predict(x.cpu())
    given: dict[str, Any] = {"mode": mode}
    ensemble = SnapshotEnsemble(model, tmp_path)
    for batch_size in (None, 40):
        found = ensemble.predict(x, batch_size=batch_size, **given)
        assert found.device.type == torch_device.type
        torch.testing.assert_close(found.cpu(), on_host, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(own[name], value) for name, value in model.state_dict().items())


def adam(parameters: list[nn.Parameter], rate: Tensor) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=rate, capturable=True)


def adamw(parameters: list[nn.Parameter], rate: Tensor) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=rate, capturable=True)


def fused_sgd(parameters: list[nn.Parameter], rate: Tensor) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=rate, momentum=0.9, fused=True)


@pytest.mark.parametrize("make", [adam, adamw, fused_sgd])
def test_the_schedule_advances_while_a_captured_graph_replays(
    tmp_path: Path, make: Rated, torch_device: torch.device
) -> None:
    eager = replayed(tmp_path / "eager", make, torch_device, captured=False)
    graph = replayed(tmp_path / "graph", make, torch_device, captured=True)
    held = replayed(tmp_path / "held", make, torch_device, captured=True, steps=0)
    exact = torch.tensor([SCHEDULE.rate(step) for step in range(30)])
    torch.testing.assert_close(graph[1].cpu(), exact, rtol=1e-6, atol=0)
    for name, value in eager[0].items():
        torch.testing.assert_close(graph[0][name], value, rtol=1e-4, atol=1e-6)
    # A rate that stays what it was at the capture ends elsewhere.
    assert (held[0]["0.weight"] - eager[0]["0.weight"]).abs().max() > 1e-2
    assert [snapshot.step for snapshot in SnapshotStore(tmp_path / "graph").list()] == [10, 20, 30]


def replayed(
    folder: Path,
    make: Rated,
    device: torch.device,
    *,
    captured: bool,
    steps: int = 30,
) -> tuple[dict[str, Tensor], Tensor]:
    """The weights after 30 updates, of which the schedule follows some, and their rates."""
    model = network(device)
    x, y = data(device)
    rate = torch.tensor(1.0, device=device)
    optimizer = make([*model.parameters()], rate)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    rates: list[Tensor] = []

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    def after(step: int) -> None:
        if step < steps:
            scheduler.step()
        if recorder.step():
            ends.append(copied(model))

    ends: list[dict[str, Tensor]] = []
    with SnapshotRecorder(folder, model, SCHEDULE) as recorder:
        # The first ones are no replays: they make the optimizer's state.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for step in range(3):
                rates.append(rate.clone())
                update()
                after(step)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        if captured:
            optimizer.zero_grad(set_to_none=True)
            with torch.cuda.graph(graph):
                update()
        for step in range(3, 30):
            rates.append(rate.clone())
            graph.replay() if captured else update()
            after(step)
    for snapshot, weights in zip(SnapshotStore(folder).list(), ends, strict=True):
        assert_holds(snapshot, weights)
    return copied(model), torch.stack(rates)


def test_a_compiled_step_is_not_compiled_again_over_three_cycles(
    torch_device: torch.device,
) -> None:
    schedule = ca.CyclicCosine(0.2, cycle_steps=40)
    weights = [nn.Parameter(torch.randn(8, device=torch_device)) for _ in range(2)]
    groups = [
        {"params": [weight], "lr": torch.tensor(lr, device=torch_device)}
        for weight, lr in zip(weights, (0.1, 0.05), strict=True)
    ]
    optimizer = torch.optim.SGD(groups)
    scheduler = CyclicCosineLR(optimizer, schedule)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("inductor")
    step = torch.compile(optimizer.step, backend=counter)
    with warnings.catch_warnings():
        # torch's own: of the step that is not the method it patched, and of its compiler.
        warnings.filterwarnings("ignore", message="(Seems|Detected)", category=UserWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="Profiler record", category=UserWarning)
        for number in range(120):
            for weight in weights:
                weight.grad = weight.detach() * 0.5
            before = [weight.detach().clone() for weight in weights]
            step()
            for weight, was, ratio in zip(weights, before, (1.0, 0.5), strict=True):
                expected = was - was * 0.5 * (schedule.rate(number) * ratio)
                torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-7)
            scheduler.step()
            if number == 2:
                warm = counter.frame_count
    assert warm > 0
    assert counter.frame_count == warm


class Scaled(nn.Module):
    """A layer of low precision: weights in bfloat16, and scales in float8."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3).bfloat16()
        self.scale: Tensor
        self.register_buffer("scale", torch.rand(6).to(torch.float8_e4m3fn))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.linear(x.bfloat16() * self.scale.bfloat16())
        return output


def test_snapshots_of_low_precision_come_back_from_the_device(
    tmp_path: Path, torch_device: torch.device
) -> None:
    torch.manual_seed(0)
    model = Scaled().to(torch_device)
    x, y = data(torch_device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    ends = []
    with SnapshotRecorder(tmp_path, model, scheduler) as recorder:
        for step in range(30):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            scheduler.step()
            model.scale.copy_((torch.arange(6) + step).to(torch.float8_e4m3fn))
            if recorder.step():
                ends.append(copied(model))
    for snapshot, weights in zip(recorder.store.list(), ends, strict=True):
        assert snapshot.layout()["scale"] == ((6,), "float8_e4m3fn")
        assert snapshot.layout()["linear.weight"] == ((3, 6), "bfloat16")
        assert_holds(snapshot, weights)
    assert not torch.equal(bits(ends[0]["scale"]), bits(ends[1]["scale"]))
    found = SnapshotEnsemble(model, tmp_path).predict(x)
    assert (found.device.type, found.dtype) == (torch_device.type, torch.bfloat16)
    # Each member by hand: what the snapshots hold is what predicts.
    members = []
    for weights in ends:
        model.load_state_dict(weights)
        with torch.no_grad():
            members.append(model(x).softmax(-1).double())
    expected = torch.stack(members).mean(0)
    torch.testing.assert_close(found.double(), expected, rtol=2**-7, atol=1e-3)


def test_streaming_takes_the_memory_of_one_member_however_many_there_are(
    tmp_path: Path, torch_device: torch.device
) -> None:
    model = nn.Sequential(nn.Linear(2048, 4096), nn.ReLU(), nn.Linear(4096, 4)).to(torch_device)
    size = sum(value.nbytes for value in model.state_dict().values())  # about 34 MB
    x = torch.randn(16, 2048, device=torch_device)
    with SnapshotRecorder(tmp_path, model, EVERY_STEP) as recorder, torch.no_grad():
        for _ in range(8):
            for value in model.parameters():
                value.add_(0.01)
            recorder.step()

    def peak(members: int) -> int:
        ensemble = SnapshotEnsemble(model, tmp_path, last=members)
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        assert np.isfinite(ensemble.predict(x).cpu().numpy()).all()
        return torch.cuda.max_memory_allocated() - before

    peak(1)  # makes the workspace of the matrix products
    one, two, eight = peak(1), peak(2), peak(8)
    assert one >= 0.9 * size  # a member on the device is what is measured
    assert eight <= two + 0.1 * size
    assert two <= one + 1.1 * size
