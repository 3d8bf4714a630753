"""Running a torch ensemble streaming, resident and stacked."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn, tensor
from torch.utils._python_dispatch import TorchDispatchMode

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder
from cosanneal.adapters.torch.model import TorchModel
from tests.shared.classes import check_budget, check_classes
from tests.shared.modes import (
    MODES,
    Loader,
    check_choice,
    check_labels,
    check_loaders,
    check_memory,
    check_modes,
    check_uncertainty,
)

EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)


def network() -> nn.Sequential:
    convolution = nn.Conv2d(2, 6, 3, padding=1, bias=False)
    pooled = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(convolution, nn.BatchNorm2d(6), *pooled, nn.Dropout(0.5), nn.Linear(24, 3))


def drawn(model: nn.Module, seed: int) -> None:
    """Other weights and statistics for every tensor of the model."""
    generator = torch.Generator().manual_seed(seed)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator).abs() + 0.1)


def recorded(folder: Path, model: nn.Module, members: int = 4) -> nn.Module:
    with SnapshotRecorder(folder, model, EVERY_STEP) as recorder:
        for seed in range(members):
            drawn(model, seed)
            recorder.step()
    drawn(model, 99)
    return model


def data(samples: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(samples, 2, 6, 6, generator=generator), torch.arange(samples) % 3


def test_every_mode_gives_the_same(tmp_path: Path) -> None:
    model = recorded(tmp_path, network())
    check_modes(SnapshotEnsemble(model, tmp_path), data()[0])


def test_loaders_give_what_arrays_give(tmp_path: Path) -> None:
    ensemble = SnapshotEnsemble(recorded(tmp_path, network()), tmp_path)
    check_loaders(ensemble, *data())
    x, y = data()
    ours = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=16)
    torch.testing.assert_close(ensemble.predict(ours), ensemble.predict(x))
    alone = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=16)
    torch.testing.assert_close(ensemble.predict(alone), ensemble.predict(x))
    mixed = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, y), batch_size=16, shuffle=True
    )
    with pytest.raises(ca.EnsembleError, match="turn shuffling"):
        ensemble.predict(mixed)
    with pytest.raises(ca.EnsembleError, match="`x` must be an array"):
        ensemble.predict(torch.utils.data.TensorDataset(x, y))
    # numpy's arrays within a loader's batches are taken, too.
    torch.testing.assert_close(
        ensemble.predict(Loader(x.numpy(), y.numpy(), 16)), ensemble.predict(x)
    )
    torch.testing.assert_close(ensemble.predict(x.numpy()), ensemble.predict(x))


def test_a_choice_is_applied_in_every_mode(tmp_path: Path) -> None:
    check_choice(SnapshotEnsemble(recorded(tmp_path, network()), tmp_path), *data())


def test_its_uncertainty_is_that_of_the_members(tmp_path: Path) -> None:
    check_uncertainty(SnapshotEnsemble(recorded(tmp_path, network()), tmp_path), *data())


def test_classes_are_those_of_predict(tmp_path: Path) -> None:
    check_classes(SnapshotEnsemble(recorded(tmp_path, network()), tmp_path), *data())


def test_classes_keep_a_budget(tmp_path: Path) -> None:
    check_budget(SnapshotEnsemble(recorded(tmp_path, network()), tmp_path), *data())


class Sure(nn.Module):
    """Says of the greatest of three numbers that it is, each member by another factor.

    Attributes:
        sizes: of the batches that were run.
    """

    sizes: ClassVar[list[int]] = []

    def __init__(self, factor: float = 1.0, *, together: bool = False) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([factor]))
        self.together = together

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        self.sizes.append(len(x))
        z = self.factor * x if mask is None else self.factor * x * mask
        return z - z.mean(0) if self.together else z


def sure(folder: Path, model: Sure, **options: Any) -> SnapshotEnsemble:
    with SnapshotRecorder(folder, model, EVERY_STEP) as recorder:
        for factor in (8.0, 9.0, 10.0, 11.0, -9.0):  # the last of which is of another mind
            with torch.no_grad():
                model.factor.fill_(factor)
            recorder.step()
    Sure.sizes.clear()
    return SnapshotEnsemble(model, folder, **options)


def test_samples_that_are_decided_are_left_out(tmp_path: Path) -> None:
    ensemble = sure(tmp_path, Sure())
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    x[:60, 0] += 9.0
    dicts = [{"x": x[:32], "mask": None}, {"x": x[32:], "mask": torch.ones(32, 1), "labels": 0}]
    assert torch.equal(ensemble.predict_classes(x, mode="resident"), ensemble.predict(x).argmax(1))
    Sure.sizes.clear()
    found = ensemble.predict_classes(x)
    assert Sure.sizes[:3] == [64, 64, 64]
    assert all(0 < size <= 4 for size in Sure.sizes[3:])
    assert 3 <= ensemble.passes == sum(Sure.sizes) / 64 < 3.2
    assert found.dtype == torch.int64
    assert torch.equal(found, ensemble.predict(x).argmax(1))
    # In dicts, in the first of which there is what has no rows; and whole batches.
    for _ in range(2):  # the first time, dicts of this kind are run both ways
        assert torch.equal(ensemble.predict_classes(tuple_loader(dicts)), found)
    assert 3 <= ensemble.passes < 3.5
    whole = sure(tmp_path / "whole", Sure(), forward=lambda model, batch: model(batch["x"]))
    assert torch.equal(whole.predict_classes(tuple_loader(dicts)), found)
    assert {*Sure.sizes} == {32}
    assert whole.passes == 3.5
    nearly = x[:48].clone()
    nearly[:40] = torch.randn(40, 3, generator=torch.Generator().manual_seed(1)) / 90
    expected = ensemble.predict(nearly).argmax(1)
    Sure.sizes.clear()
    assert torch.equal(ensemble.predict_classes(nearly), expected)
    assert {*Sure.sizes} == {48}  # of most of a batch, none of its own is made


def test_samples_that_depend_on_each_other_are_not_left_out(tmp_path: Path) -> None:
    ensemble = sure(tmp_path, Sure(together=True))
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    expected = ensemble.predict(x).argmax(1)
    for _ in range(2):
        Sure.sizes.clear()
        assert torch.equal(ensemble.predict_classes(x), expected)
    assert {*Sure.sizes} == {64}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_classes_of_other_dtypes_are_those_of_predict(tmp_path: Path, dtype: Any) -> None:
    ensemble = sure(tmp_path, Sure().to(dtype))
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0)) / 9
    x[:50] += torch.tensor([9.0, 0.0, 0.0])
    x = x.to(dtype)
    found = ensemble.predict_classes(x)
    assert torch.equal(found, ensemble.predict(x).argmax(1))
    assert ensemble.passes < 5
    with ThreadPoolExecutor(2) as threads:
        every = list(threads.map(lambda _: ensemble.predict_classes(x), range(6)))
    assert all(torch.equal(each, found) for each in every)


def test_labels_count_as_they_are_said_to(tmp_path: Path) -> None:
    check_labels(SnapshotEnsemble(recorded(tmp_path, network()), tmp_path), *data())


def test_auto_streams_where_the_members_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = recorded(tmp_path, network())
    check_memory(SnapshotEnsemble(model, tmp_path), data()[0], monkeypatch)


@pytest.mark.parametrize("pooling", ["probabilities", "logits", "log-probabilities", "vote"])
@pytest.mark.parametrize("class_axis", [1, -1, None])
def test_every_pooling_in_every_mode(tmp_path: Path, pooling: Any, class_axis: int | None) -> None:
    dense = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Tanh())
    model = recorded(tmp_path, dense)
    ensemble = SnapshotEnsemble(model, tmp_path, class_axis=class_axis, pooling=pooling)
    x = data(6)[0]
    expected = ensemble.predict(x)
    for mode in MODES:
        torch.testing.assert_close(
            ensemble.predict(x, mode=mode, batch_size=4), expected, rtol=2e-5, atol=1e-6
        )


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 1), nn.Linear(4, 1)
        self.second.weight = self.first.weight  # tied

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.as_tensor(self.first(a) - 2 * self.second(b))


def test_several_arguments_tied_weights_and_values(tmp_path: Path) -> None:
    model = recorded(tmp_path, Two())
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 9, 4, generator=generator)
    members = torch.stack(list(ensemble.member_predictions((a, b)))).double()
    loader = [((a[:5], b[:5]), "label"), ((a[5:], b[5:]), "label")]
    for mode in MODES:
        for x in ((a, b), tuple_loader(loader)):
            mean, variance = ensemble.predict_with_variance(x, mode=mode)
            torch.testing.assert_close(mean.double(), members.mean(0), rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(
                variance.double(), members.var(0, correction=0), rtol=1e-5, atol=1e-6
            )


def tuple_loader(batches: list[Any]) -> Any:
    class Batches:
        def __iter__(self) -> Any:
            return iter(batches)

    return Batches()


@pytest.mark.parametrize("mode", MODES)
def test_the_model_comes_back_and_may_change_meanwhile(tmp_path: Path, mode: Any) -> None:
    model = recorded(tmp_path, network())
    ensemble = SnapshotEnsemble(model, tmp_path)
    x = data()[0]
    before = ensemble.predict(x, mode=mode)
    own = dict(model.state_dict(keep_vars=True))
    next(model.children()).eval()
    modes = [module.training for module in model.modules()]
    model.double()  # another dtype than that of the snapshots
    with pytest.raises(ca.EnsembleError, match=r"must fit the model.*float64"):
        SnapshotEnsemble(model, tmp_path).predict(x, mode=mode)
    model.float()
    drawn(model, 7)
    torch.testing.assert_close(ensemble.predict(x, mode=mode), before, rtol=0, atol=0)
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict(keep_vars=True).items():
        assert value is own[name] or not isinstance(own[name], nn.Parameter)
    with pytest.raises(RuntimeError, match="size"):
        ensemble.predict(x[:, :, :, :0], mode="stream")
    drawn(model, 7)
    again = network()
    drawn(again, 7)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.sum() > 10:  # which no vectorized map can know for all at once
            return x @ self.weight
        return x @ self.weight * 2


def test_a_model_that_cannot_be_stacked_is_resident(tmp_path: Path) -> None:
    ensemble = SnapshotEnsemble(recorded(tmp_path, Branching()), tmp_path)
    x = torch.ones(5, 4)
    with pytest.raises(ca.EnsembleError, match=r"vectorized map.*give mode='resident'"):
        ensemble.predict(x, mode="stacked")
    torch.testing.assert_close(ensemble.predict(x, mode="auto"), ensemble.predict(x))
    assert ensemble.measured["stacked"] == np.inf
    assert ensemble.held == 4


def test_streaming_has_one_member_at_a_time(tmp_path: Path, monkeypatch: Any) -> None:
    """The tensors of one are let go before those of the next are read."""
    import gc
    import weakref

    ensemble = SnapshotEnsemble(recorded(tmp_path, network()), tmp_path)
    inner = TorchModel.load
    earlier: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def watching(self: Any, tensors: Any) -> Any:
        gc.collect()
        alive.append(sum(ref() is not None for ref in earlier))
        loaded = inner(self, tensors)
        earlier.extend(weakref.ref(value) for value in loaded.values())
        return loaded

    monkeypatch.setattr(TorchModel, "load", watching)
    ensemble.predict(data()[0], batch_size=16)
    list(ensemble.member_predictions(data()[0]))
    assert alive == [0] * 8


@pytest.mark.parametrize("mode", MODES)
def test_an_error_on_the_way_gives_the_model_back_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    """Not only when the error, which the interpreter may keep, is gone."""
    model = recorded(tmp_path, network()).train()
    own = [*model.parameters()]
    ensemble = SnapshotEnsemble(model, tmp_path)

    def interrupted(_: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("cosanneal.ensemble.predict.pooling.Pool.value", property(interrupted))
    with pytest.raises(KeyboardInterrupt) as kept:
        ensemble.predict(data()[0], mode=mode)
    assert kept.value.__traceback__ is not None
    assert all(a is b for a, b in zip(own, model.parameters(), strict=True))
    assert model.training
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("modes", [("stream", "stream"), ("resident", "stream"), ("auto",) * 2])
def test_threads_take_turns_with_the_model(tmp_path: Path, modes: tuple[Any, Any]) -> None:
    model = recorded(tmp_path, network()).train()
    own = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = [*model.parameters()]
    x = data()[0]
    # Two of them: the model is what must not be lent twice.
    ensembles = [SnapshotEnsemble(model, tmp_path), SnapshotEnsemble(model, tmp_path)]
    expected = ensembles[0].predict(x)

    def work(i: int) -> float:
        found = [ensembles[i].predict(x, mode=modes[i]) for _ in range(25)]
        return max(float((each - expected).abs().max()) for each in found)

    with ThreadPoolExecutor(2) as pool:
        assert max(pool.map(work, [0, 1])) < 1e-6
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(torch.equal(own[name], value) for name, value in model.state_dict().items())
    assert model.training


class Merging(nn.Linear):
    """As LoRA does: in evaluation mode, a part of the weight that is kept apart is merged."""

    def __init__(self) -> None:
        super().__init__(24, 3)
        self.part = nn.Parameter(torch.ones(3, 24))
        self.merged = False

    def train(self, mode: bool = True) -> Merging:
        super().train(mode)
        if self.merged is mode:
            self.weight.data += self.part.data * (-1 if mode else 1)
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.merged else self.weight + self.part
        return nn.functional.linear(x, weight, self.bias)


@pytest.mark.parametrize("mode", MODES)
def test_a_layer_that_changes_its_weights_with_the_mode_keeps_them(
    tmp_path: Path, mode: Any
) -> None:
    model = recorded(tmp_path, nn.Sequential(nn.Flatten(), nn.Linear(72, 24), Merging())).train()
    own = {name: value.clone() for name, value in model.state_dict().items()}
    x = data()[0]
    alone = nn.Sequential(nn.Flatten(), nn.Linear(72, 24), Merging())
    members = []
    for file in sorted(tmp_path.glob("*.safetensors")):
        alone.load_state_dict(safetensors.torch.load_file(file))
        members.append(alone(x).softmax(1))
    found = SnapshotEnsemble(model, tmp_path).predict(x, mode=mode)
    torch.testing.assert_close(found, torch.stack(members).mean(0).detach())
    assert all(torch.equal(own[name], value) for name, value in model.state_dict().items())
    model(x).sum().backward()
    layer: Any = model.get_submodule("2")
    assert layer.part.grad is not None


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("mode", MODES)
def test_what_modules_make_of_their_weights_is_the_models_own_again(
    tmp_path: Path, mode: Any
) -> None:
    """torch's older weight_norm keeps a weight, and LSTM a list of weights, as plain attributes."""
    torch.manual_seed(0)
    layer = torch.nn.utils.weight_norm(nn.Linear(2, 3))
    recurrent = nn.LSTM(2, 2, batch_first=True)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.recurrent = layer, recurrent

        def forward(self, x: Tensor) -> Tensor:
            # A vectorized map knows no LSTM.
            found: Tensor = self.layer(x if mode == "stacked" else self.recurrent(x)[0][:, -1])
            return found

    model = Model()
    with SnapshotRecorder(tmp_path, model, EVERY_STEP) as recorder:
        for _ in range(3):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn(parameter.shape))
            recorder.step()
    x = torch.randn(6, 2) if mode == "stacked" else torch.randn(6, 4, 2)
    expected = model(x).detach()
    weight, flat = layer.weight, [*recurrent._flat_weights]
    ensemble = SnapshotEnsemble(model, tmp_path)
    assert not torch.allclose(ensemble.predict(x, mode=mode), expected.softmax(1))
    assert layer.weight is weight
    assert all(a is b for a, b in zip(recurrent._flat_weights, flat, strict=True))
    torch.save(model.state_dict(), tmp_path / "model.pt")
    torch.testing.assert_close(model(x).detach(), expected)


def test_another_dtype_is_seen_in_every_mode(tmp_path: Path) -> None:
    model = recorded(tmp_path, network())
    ensemble = SnapshotEnsemble(model, tmp_path)
    x = data()[0]
    for mode in MODES:
        ensemble.predict(x, mode=mode)
    model.double()
    for mode in MODES:
        with pytest.raises(ca.EnsembleError, match=r"must fit the model.*float"):
            ensemble.predict(x.double(), mode=mode)


def test_a_run_begun_anew_in_the_folder_is_not_mixed_with_the_one_before(tmp_path: Path) -> None:
    model = recorded(tmp_path, network())
    ensemble = SnapshotEnsemble(model, tmp_path)
    x = data()[0]
    ensemble.predict(x)
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    with SnapshotRecorder(tmp_path, model, EVERY_STEP) as recorder:
        for seed in range(4):
            drawn(model, 10 + seed)
            recorder.step()
    with pytest.raises(ca.EnsembleError, match=r"another one as .*make a new ensemble"):
        ensemble.predict(x)
    SnapshotEnsemble(model, tmp_path).predict(x)


@pytest.mark.parametrize("axis", [0, True, "x", 1.0])
def test_an_axis_that_cannot_be_the_classes_is_refused(tmp_path: Path, axis: Any) -> None:
    recorded(tmp_path, network())
    with pytest.raises(ca.EnsembleError, match=r"`class_axis` must be an axis other than"):
        SnapshotEnsemble(network(), tmp_path, class_axis=axis)


class Counted(TorchDispatchMode):
    """Counts torch's operations, by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def test_a_member_more_costs_no_operation_that_changes_nothing(tmp_path: Path) -> None:
    """Its pass alone: few numbers are looked at and pooled all at once."""
    model = recorded(tmp_path, nn.Linear(4, 3))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))

    def counted(members: int) -> Counter[str]:
        ensemble = SnapshotEnsemble(model, tmp_path, last=members)
        ensemble.predict(x, mode="resident")  # which reads the members, and looks at the model once
        seen = Counted()
        with seen:
            ensemble.predict(x, mode="resident")
        return seen.counts

    more = counted(4) - counted(3)
    assert sum(more.values()) == 2
    assert {*more} == {"aten.t.default", "aten.addmm.default"}


@pytest.mark.parametrize("samples", [40, 40_000])
@pytest.mark.parametrize("pooling", ["probabilities", "logits", "log-probabilities", "vote"])
def test_few_outputs_and_many_are_pooled_alike(tmp_path: Path, pooling: Any, samples: int) -> None:
    """Of few samples, all members' outputs are pooled at once; of many, one by one."""
    model = recorded(tmp_path, nn.Linear(3, 5))
    ensemble = SnapshotEnsemble(model, tmp_path, pooling=pooling)
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    many = x.repeat(samples // 40, 1)
    expected = SnapshotEnsemble(model, tmp_path, pooling=pooling).predict(x)
    found = ensemble.predict(many, mode="resident", batch_size=samples)
    torch.testing.assert_close(found[-40:], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("samples", [40, 40_000])
def test_one_member_of_several_that_gives_probabilities_for_logits_is_told(
    tmp_path: Path, samples: int
) -> None:
    model = nn.Linear(1, 2)
    with SnapshotRecorder(tmp_path, model, EVERY_STEP) as recorder:
        for bias in ([-3.0, 5.0], [0.0, 1.0], [-4.0, 2.0]):  # the second gives x and 1 - x
            model.load_state_dict({"weight": tensor([[1.0], [-1.0]]), "bias": tensor(bias)})
            recorder.step()
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="logits")
    x = torch.rand(samples, 1, generator=torch.Generator().manual_seed(2))
    with pytest.warns(UserWarning, match="sum to 1 along axis -1 already"):
        ensemble.predict(x, mode="resident", batch_size=samples)
