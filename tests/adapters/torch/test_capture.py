"""A part of a module: its adapters, or what trains; recorded, predicted with, and averaged."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder
from cosanneal.ensemble import average_snapshots
from cosanneal.snapshots import SnapshotStore
from tests.shared.modes import MODES

EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)


class LoRA(nn.Module):
    """A frozen layer with an adapter of low rank, in PEFT's names."""

    def __init__(self, layer: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base_layer = layer.requires_grad_(False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(layer.in_features, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, layer.out_features, bias=False)})

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))
        return out


EXAMPLE = Path(__file__).parents[3] / "examples" / "torch_lora.py"


def adapted(seed: int = 0, width: int = 256) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(LoRA(nn.Linear(4, width)), nn.Tanh(), LoRA(nn.Linear(width, 3)))


def lora(name: str) -> bool:
    return "lora_" in name


def data(samples: int = 40) -> tuple[Tensor, Tensor]:
    x = torch.randn(samples, 4, generator=torch.Generator().manual_seed(7))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def train(
    folder: Path,
    model: nn.Module,
    updates: int = 6,
    *,
    keep: Callable[[], Any] | None = None,
    **o: Any,
) -> SnapshotStore:
    """Two updates a cycle, of what requires gradients; what `keep` gives is called at each."""
    schedule = ca.CyclicCosine(0.2, total_steps=updates, num_cycles=updates // 2)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.2)
    scheduler = CyclicCosineLR(optimizer, schedule)
    x, y = data()
    with SnapshotRecorder(folder, model, scheduler, **o) as recorder:
        for _ in range(updates):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            scheduler.step()
            if keep is not None and recorder.step():
                keep()
    return recorder.store


@pytest.mark.parametrize("which", ["trainable", lora])
def test_adapters_are_recorded_and_predict_as_whole_models(tmp_path: Path, which: Any) -> None:
    model, members = adapted(), list[nn.Module]()
    store = train(
        tmp_path, model, which=which, keep=lambda: members.append(copy.deepcopy(model).eval())
    )
    part = [name for name in model.state_dict() if "lora_" in name]
    size = sum(model.state_dict()[name].nbytes for name in part)
    for snapshot in store.list():
        assert set(snapshot.load()) == set(part)
        assert size < snapshot.path.stat().st_size < size + 4000
    x, y = data()
    with torch.no_grad():
        expected = torch.stack([each(x).softmax(1) for each in members]).mean(0)
    # A model of the same pretrained weights, whose adapters are others.
    fresh = adapted()
    with torch.no_grad():
        for name, parameter in fresh.named_parameters():
            if "lora_" in name:
                parameter.zero_()
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    for make in (fresh, adapted, torch.compile(adapted(), backend="eager")):
        ensemble = SnapshotEnsemble(make, tmp_path)
        for mode in MODES:
            torch.testing.assert_close(ensemble.predict(x, mode=mode), expected)
    ensemble = SnapshotEnsemble(fresh, tmp_path)
    with pytest.warns(UserWarning, match="validation samples"):
        ensemble.fit(x, y)
    found = ensemble.average_weights(x, y, barrier=100)
    for name, value in found.weights.items():
        mean = torch.stack([each.state_dict()[name].double() for each in members]).mean(0)
        torch.testing.assert_close(value.double(), mean, atol=1e-7, rtol=1e-6)
        if name not in part:
            assert torch.equal(value, before[name])
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())
    greedy = ensemble.average_weights(x, y, soup="greedy")
    adapted().load_state_dict(greedy.weights)


def test_the_mean_of_parts_in_a_file_is_a_part(tmp_path: Path) -> None:
    store = train(tmp_path / "runs", adapted(), which="trainable")
    out = tmp_path / "mean.safetensors"
    average_snapshots(store.list(), out)
    with safe_open(out, framework="pt") as file:
        assert json.loads(file.metadata()["rest"]) == store.list()[-1].metadata["rest"]
        for name in file.keys():  # noqa: SIM118 - no mapping
            members = [each.load(framework="pt")[name].double() for each in store.list()]
            torch.testing.assert_close(file.get_tensor(name).double(), torch.stack(members).mean(0))
    other = train(tmp_path / "other", adapted(1), which="trainable")
    with pytest.raises(ca.EnsembleError, match=r"leave out the same.*'0.base_layer.bias'; average"):
        average_snapshots([store.list()[0], other.list()[-1]], tmp_path / "two.safetensors")


def test_a_model_with_another_rest_is_refused_by_name(tmp_path: Path) -> None:
    train(tmp_path, adapted(), which="trainable")
    x, _ = data()
    with pytest.raises(
        ca.EnsembleError, match=r"is a part.*another tensor '0.base_layer.bias'; give a model with"
    ):
        SnapshotEnsemble(adapted(1), tmp_path).predict(x)
    changed = adapted()
    ensemble = SnapshotEnsemble(changed, tmp_path)
    ensemble.predict(x)
    with torch.no_grad():
        changed[2].base_layer.weight[0, 0] += 1  # type: ignore[union-attr, operator, index]
    with pytest.raises(ca.EnsembleError, match=r"another tensor '2.base_layer.weight'"):
        ensemble.predict(x)
    bare = nn.Sequential(nn.Linear(4, 256), nn.Tanh(), nn.Linear(256, 3))
    with pytest.raises(ca.EnsembleError, match=r"'0.base_layer.bias', which it leaves out as a p"):
        SnapshotEnsemble(bare, tmp_path).predict(x)
    more = adapted().append(nn.Linear(3, 3))
    with pytest.raises(ca.EnsembleError, match=r"the model's tensor '3.weight' is not in it"):
        SnapshotEnsemble(more, tmp_path).predict(x)


def frozen(seed: int = 0) -> nn.Sequential:
    """A backbone of 4 MB and a head of 12 kB."""
    torch.manual_seed(seed)
    backbone = nn.Sequential(nn.Linear(4, 1000), nn.BatchNorm1d(1000), nn.ReLU())
    backbone.append(nn.Linear(1000, 1000)).requires_grad_(False)
    return nn.Sequential(backbone, nn.Linear(1000, 3))


def test_of_a_frozen_backbone_in_training_mode_the_statistics_are_recorded(tmp_path: Path) -> None:
    model, members = frozen(), list[nn.Module]()
    store = train(
        tmp_path,
        model,
        which="trainable",
        keep=lambda: members.append(copy.deepcopy(model).eval()),
    )
    buffers = {f"0.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert set(store.list()[0].load()) == {"1.weight", "1.bias"} | buffers
    assert store.list()[0].path.stat().st_size < 24_000
    x, _ = data()
    with torch.no_grad():
        expected = torch.stack([each(x).softmax(1) for each in members]).mean(0)
    torch.testing.assert_close(SnapshotEnsemble(frozen(), tmp_path).predict(x), expected)


def test_statistics_that_are_left_out_and_move_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ca.SnapshotError, match=r"tensor '0.1.num_batches_tracked', which is another than at the"
    ):
        train(tmp_path / "moves", frozen(), which=lambda name: name.startswith("1."))
    model = frozen()
    model[0].eval()
    store = train(tmp_path / "stays", model, which=lambda name: name.startswith("1."))
    assert [set(each.load()) for each in store.list()] == [{"1.weight", "1.bias"}] * 3
    assert store.list()[0].path.stat().st_size < 16_000


@pytest.mark.parametrize("way", ["in place", "data"])
def test_a_layer_that_trains_and_is_left_out_is_an_error(tmp_path: Path, way: str) -> None:
    model = nn.Sequential(nn.Linear(4, 300), nn.Linear(300, 3))
    with SnapshotRecorder(
        tmp_path, model, EVERY_STEP, which=lambda name: name.startswith("1.")
    ) as recorder:
        recorder.step()
        weight = next(model.parameters())
        with torch.no_grad():
            if way == "data":  # which torch does not count
                weight.data.copy_(weight + 1)
            else:
                weight[123, 1] += 1  # which a look at some elements does not see
        with pytest.raises(ca.SnapshotError, match=r"tensor '0.weight', which is another"):
            recorder.step()


def test_what_is_written_to_by_what_was_there_has_not_moved(tmp_path: Path) -> None:
    model = adapted()
    with SnapshotRecorder(tmp_path, model, EVERY_STEP, which="trainable") as recorder:
        for _ in range(3):
            model.load_state_dict(copy.deepcopy(model.state_dict()))
            recorder.step()
    assert len(recorder.store.list()) == 3


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.middle, self.outputs = (
            nn.Embedding(5, 4),
            nn.Linear(4, 4),
            nn.Linear(4, 5),
        )
        self.outputs.weight = self.inputs.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.outputs(self.middle(self.inputs(x)))
        return out


def test_tied_tensors_are_recorded_all_or_none(tmp_path: Path) -> None:
    for i, which in enumerate((lambda name: name == "inputs.weight", "trainable")):
        model = Tied()
        model.middle.requires_grad_(False)
        model.outputs.bias.requires_grad_(False)
        options: dict[str, Any] = {"which": which}
        with SnapshotRecorder(tmp_path / str(i), model, EVERY_STEP, **options) as recorder:
            recorder.step()
            with torch.no_grad():
                model.inputs.weight += 1
            recorder.step()
        assert set(recorder.store.list()[-1].load()) == {"inputs.weight", "outputs.weight"}
        x = torch.arange(5)
        expected = model(x).softmax(-1)
        ensemble = SnapshotEnsemble(model, tmp_path / str(i), last=1)
        for mode in MODES:
            torch.testing.assert_close(ensemble.predict(x, mode=mode), expected)


def test_wrapped_and_averaged_models_have_parts(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain", adapted(), which=lora)
    wrapped = {
        "compiled": torch.compile(adapted(), backend="eager"),
        "parallel": nn.DataParallel(adapted()),
    }
    for name, model in wrapped.items():
        store = train(tmp_path / name, model, which=lora)  # type: ignore[arg-type]
        for ours, theirs in zip(plain.list(), store.list(), strict=True):
            assert ours.metadata["rest"] == theirs.metadata["rest"]
            assert ours.load().keys() == theirs.load().keys()
    model = frozen()
    mean = torch.optim.swa_utils.AveragedModel(model)
    with SnapshotRecorder(tmp_path / "mean", mean, EVERY_STEP, which="trainable") as recorder:
        for _ in range(3):
            with torch.no_grad():
                next(iter(model[1].parameters())).add_(1)
            mean.update_parameters(model)
            recorder.step()
    assert {"n_averaged", "module.1.weight"} <= set(recorder.store.list()[-1].load())


def test_a_model_of_which_nothing_trains_is_refused_when_the_recorder_is_made(
    tmp_path: Path,
) -> None:
    model = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(
        ca.SnapshotError, match=r"`which` must choose.*'trainable', which chooses none of 2"
    ):
        SnapshotRecorder(tmp_path, model, EVERY_STEP, which="trainable")
    SnapshotRecorder(tmp_path, model, EVERY_STEP).close()  # the folder is free


def test_a_run_of_parts_killed_and_resumed_is_the_one_that_was_not(tmp_path: Path) -> None:
    def run(folder: Path, stop: int) -> None:
        torch.manual_seed(0)
        model = adapted()
        schedule = ca.CyclicCosine(0.2, total_steps=6, num_cycles=3)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.2)
        scheduler = CyclicCosineLR(optimizer, schedule)
        state = folder / "state.pt"
        recorder = SnapshotRecorder(folder, model, scheduler, which="trainable")
        if state.exists():
            loaded = torch.load(state, weights_only=True)
            for each, key in ((model, "model"), (optimizer, "opt"), (scheduler, "sched")):
                each.load_state_dict(loaded[key])
        x, y = data()
        with recorder:
            while scheduler.last_epoch < stop:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                scheduler.step()
            recorder.wait()
            names: dict[str, Any] = {"model": model, "opt": optimizer, "sched": scheduler}
            torch.save({name: each.state_dict() for name, each in names.items()}, state)

    run(tmp_path / "whole", 6)
    for stop in (2, 3, 6):
        run(tmp_path / "parts", stop)
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / each).glob("*.safetensors")}
        for each in ("whole", "parts")
    )
    assert len(first) == 3
    assert first == second


def test_the_example_runs_and_records_its_adapters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = EXAMPLE.read_text(encoding="utf-8").replace("500", "50")
    assert len(code.splitlines()) < 60
    exec(compile(code, str(EXAMPLE), "exec"), {"__name__": "__main__"})  # noqa: S102 - our own
    assert "35,8" in capsys.readouterr().out
    assert all("lora_" in name for name in load_file(tmp_path / "runs" / "adapter.safetensors"))
