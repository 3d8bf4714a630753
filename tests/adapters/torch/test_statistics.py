"""The statistics of torch's normalization layers, estimated anew for averaged weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

import cosanneal as ca
from cosanneal import ensemble as on_arrays
from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder
from cosanneal.core.errors import EnsembleError
from tests.shared.torch_members import recorded

pytestmark = pytest.mark.filterwarnings("ignore:The ensemble was chosen on:UserWarning")


def convolutional(seed: int, spread: float = 0.1) -> nn.Sequential:
    """A network with layers of BatchNorm, near the one of seed 0."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(36, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, 2),
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 2, generator=generator)
    return model


def images(samples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = 3 + torch.randn(samples, 2, 5, 5, generator=generator)
    # Samples differ in their mean, so that batches do.
    x += torch.linspace(-2, 2, samples)[:, None, None, None]
    return x, (x[:, 0, 0, 0] > 3).long()


class Loader:
    """Batches of given sizes, as often as they are asked for."""

    def __init__(self, x: Tensor, sizes: Iterable[int]) -> None:
        self.batches = torch.split(x, list(sizes))
        self.passes = 0

    def __iter__(self) -> Iterator[tuple[Tensor, str]]:
        self.passes += 1
        return ((batch, "a label") for batch in self.batches)


def averaged(folder: Path, models: Sequence[nn.Module], train: Any, **options: Any) -> Any:
    model = recorded(folder, models)
    ensemble = SnapshotEnsemble(model, folder)
    return ensemble.average_weights(train_data=train, barrier=math.inf, **options).weights


def without_statistics(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """A model with the weights, ready for torch's own estimate by one batch."""
    model = copy.deepcopy(model)
    model.load_state_dict(weights)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None
    return model.train()


def assert_statistics(found: dict[str, Tensor], expected: dict[str, Tensor], prefix: str) -> None:
    for name in ("running_mean", "running_var"):
        key = f"{prefix}{name}"
        assert found[key].dtype == expected[key].dtype
        torch.testing.assert_close(found[key], expected[key], rtol=2e-6, atol=2e-6)


def test_the_weights_are_the_mean_and_all_data_in_one_batch_give_torchs_own_statistics(
    tmp_path: Path,
) -> None:
    members = [convolutional(seed) for seed in range(3)]
    x, _ = images(70)
    found = averaged(tmp_path, members, x)
    mean = on_arrays.average_weights(dict(member.state_dict()) for member in members)
    for name, value in mean.items():
        if "running" not in name:
            torch.testing.assert_close(found[name], value, rtol=0, atol=0)
    oracle = without_statistics(members[0], found)
    oracle(x)
    for prefix in ("1.", "6."):
        assert not torch.allclose(found[f"{prefix}running_var"], mean[f"{prefix}running_var"])
        assert_statistics(found, oracle.state_dict(), prefix)


def test_batches_of_unequal_size_count_by_their_samples_and_positions(tmp_path: Path) -> None:
    members = [convolutional(seed) for seed in range(2)]
    x, _ = images(70)
    sizes = (3, 40, 7, 2, 18)
    found = averaged(tmp_path, members, Loader(x, sizes))
    # The first layer's statistics are those of one batch, exactly.
    oracle = without_statistics(members[0], found)
    oracle(x)
    assert_statistics(found, oracle.state_dict(), "1.")
    # Deeper ones are those of all that reaches the layer, while each batch is normalized by itself.
    reached: dict[str, list[Tensor]] = {"1.": [], "6.": []}
    for prefix, inputs in reached.items():
        oracle.get_submodule(prefix[:-1]).register_forward_pre_hook(
            lambda _, args, inputs=inputs: inputs.append(args[0].detach())
        )
    for batch in torch.split(x, list(sizes)):
        oracle(batch)
    for prefix, inputs in reached.items():
        every = np.concatenate([each.double().numpy() for each in inputs])
        rows = np.moveaxis(every, 1, -1).reshape(-1, every.shape[1])
        exact = {
            f"{prefix}running_mean": torch.tensor(rows.mean(axis=0)).float(),
            f"{prefix}running_var": torch.tensor(rows.var(axis=0, ddof=1)).float(),
        }
        assert_statistics(found, exact, prefix)


def test_torchs_update_bn_misses_the_variance_between_batches_and_their_sizes(
    tmp_path: Path,
) -> None:
    members = [convolutional(seed) for seed in range(2)]
    x, _ = images(60)
    equal = averaged(tmp_path / "equal", members, Loader(x, [20] * 3))
    peer = copy.deepcopy(members[0])
    peer.load_state_dict(equal)
    with torch.no_grad():
        update_bn(torch.split(x, 20), peer)
        first = peer.get_submodule("0")(x).double()
    theirs = peer.state_dict()
    # Means of batches of one size have the mean of all; the mean of their variances has not the
    # variance of all, which is that within batches and that between: with `n` numbers in each of
    # `k` batches, `(k n - 1) var = (n - 1) sum_b var_b + n sum_b (mean_b - mean)**2`.
    torch.testing.assert_close(equal["1.running_mean"], theirs["1.running_mean"])
    n, k = 20 * 9, 3
    means = torch.stack([each.mean((0, 2, 3)) for each in torch.split(first, 20)])
    between = n * ((means - means.mean(0)) ** 2).sum(0)
    expected = ((n - 1) * k * theirs["1.running_var"].double() + between) / (k * n - 1)
    torch.testing.assert_close(equal["1.running_var"].double(), expected, rtol=1e-5, atol=1e-6)
    assert (between / (k * n - 1) > 0.05 * expected).all()
    # And of batches of other sizes the small ones count too much there.
    sizes = (4, 56)
    ours = averaged(tmp_path / "unequal", members, Loader(x, sizes))
    with torch.no_grad():
        update_bn(torch.split(x, list(sizes)), peer)
    true = first.mean((0, 2, 3)).float()
    torch.testing.assert_close(ours["1.running_mean"], true, rtol=1e-5, atol=1e-5)
    assert ((peer.state_dict()["1.running_mean"] - true).abs() > 1e-2).any()
    assert ((peer.state_dict()["1.running_mean"] - true).abs() > 1e-4).all()


class Kinds(nn.Module):
    """All kinds of layers with statistics of batches, and some without."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.BatchNorm1d(6)
        self.sync = nn.SyncBatchNorm(6)
        self.line = nn.BatchNorm1d(2)
        self.volume = nn.BatchNorm3d(2)
        self.twice = nn.BatchNorm1d(6, affine=False)
        self.again = self.twice
        self.untracked = nn.BatchNorm1d(6, track_running_stats=False)
        self.group = nn.GroupNorm(2, 6)
        self.unused = nn.BatchNorm1d(6)
        self.lazy = nn.LazyBatchNorm1d()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Any:
        x = self.sync(self.flat(x))
        x = self.line(x.reshape(-1, 2, 3)).reshape(-1, 6)
        x = self.volume(x.reshape(-1, 2, 3, 1, 1)).reshape(-1, 6)
        x = self.twice(self.twice(x) ** 2)
        x = self.lazy(input=self.group(self.untracked(x)))
        return self.drop(x)


def test_every_kind_of_layer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = 1 + torch.randn(50, 6)
    models = []
    for _ in range(2):
        model = Kinds()
        for _ in range(3):
            model(x + torch.randn(50, 6))
        models.append(model)
    found = averaged(tmp_path, models, x)
    oracle = without_statistics(models[0], found)
    oracle(x)
    expected = oracle.state_dict()
    for prefix in ("flat.", "sync.", "line.", "volume.", "lazy."):
        assert_statistics(found, expected, prefix)
    # One that is gone through twice sees both inputs as one batch would.
    inputs: list[Tensor] = []
    oracle.get_submodule("twice").register_forward_pre_hook(
        lambda _, args: inputs.append(args[0].detach())
    )
    oracle(x)
    both = torch.cat(inputs)
    for prefix in ("twice.", "again."):
        torch.testing.assert_close(found[f"{prefix}running_mean"], both.mean(0))
        torch.testing.assert_close(found[f"{prefix}running_var"], both.var(0))
    # What no data reach stays the mean.
    states = [model.state_dict()["unused.running_var"] for model in models]
    torch.testing.assert_close(found["unused.running_var"], (states[0] + states[1]) / 2)


def test_a_model_that_is_a_layer_of_batchnorm(tmp_path: Path) -> None:
    models = [nn.BatchNorm1d(3), nn.BatchNorm1d(3)]
    x = torch.randn(20, 3) + 5
    models[1](x)  # which moves its statistics
    found = averaged(tmp_path, models, x)
    torch.testing.assert_close(found["running_mean"], x.mean(0))
    torch.testing.assert_close(found["running_var"], x.var(0))
    ensemble = SnapshotEnsemble(models[0], tmp_path)
    with pytest.raises(EnsembleError, match=r"train_data.*'BatchNorm1d'"):
        ensemble.average_weights(barrier=math.inf)


def test_moments_far_from_zero_keep_their_digits(tmp_path: Path) -> None:
    models = [nn.BatchNorm1d(2), nn.BatchNorm1d(2)]
    x = (2.0**20 + torch.arange(2000) % 7).float().reshape(-1, 2)
    models[1](x)
    found = averaged(tmp_path, models, Loader(x, [900, 37, 63]))
    exact = x.double().var(0).float()
    torch.testing.assert_close(found["running_var"], exact, rtol=1e-6, atol=0)


def test_a_model_that_is_compiled_is_looked_into(tmp_path: Path) -> None:
    x, _ = images(40)
    model = recorded(tmp_path, [convolutional(seed) for seed in range(2)])
    model.compile(backend="eager")
    model.eval()
    with torch.no_grad():
        model(x)
    ensemble = SnapshotEnsemble(model, tmp_path)
    found = ensemble.average_weights(train_data=x, barrier=math.inf).weights
    oracle = without_statistics(convolutional(0), found)
    oracle(x)
    assert_statistics(found, oracle.state_dict(), "6.")


def test_compiled_parts_are_looked_into(tmp_path: Path) -> None:
    class Parted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            inner = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
            self.inner = torch.compile(inner, backend="eager")

        def forward(self, x: Tensor) -> Any:
            return self.inner(x)

    x = torch.randn(20, 3) + 1
    torch.manual_seed(0)
    model = Parted().eval()
    with torch.no_grad():
        model(x)  # as compiled, before anyone looks
    with SnapshotRecorder(tmp_path, model, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for _ in range(2):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn(parameter.shape))
                model.get_buffer("inner._orig_mod.1.running_mean").add_(1)
            recorder.step()
    ensemble = SnapshotEnsemble(model, tmp_path)
    if not hasattr(torch.compiler, "set_stance"):  # before torch 2.6
        with pytest.raises(ca.EnsembleError, match=r"torch 2\.6 or newer"):
            ensemble.average_weights(train_data=x, barrier=math.inf)
        return
    found = ensemble.average_weights(train_data=x, barrier=math.inf).weights
    model.load_state_dict(found)
    linear = model.get_submodule("inner._orig_mod.0")
    with torch.no_grad():
        reached = linear(x)
    for name, value in found.items():
        if name.endswith("running_mean"):
            torch.testing.assert_close(value, reached.mean(0), rtol=1e-5, atol=1e-6)
        if name.endswith("running_var"):
            torch.testing.assert_close(value, reached.var(0), rtol=1e-5, atol=1e-6)


def test_the_model_and_the_random_state_stay_as_they_are(tmp_path: Path) -> None:
    model = recorded(tmp_path, [convolutional(seed) for seed in range(3)])
    x, y = images(60)
    model.train()
    model.get_submodule("1").eval()
    seen: list[bool] = []
    hook = model.get_submodule("1").register_forward_pre_hook(lambda *_: seen.append(True))
    state = copy.deepcopy(model.state_dict())
    held = {name: id(parameter) for name, parameter in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    train = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)
    validation = DataLoader(TensorDataset(x, y), batch_size=16)
    SnapshotEnsemble(model, tmp_path).average_weights(
        validation, train_data=train, barrier=1e9, shares=[0.5]
    )
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == held
    assert len(model.get_submodule("1")._forward_pre_hooks) == 1
    assert not model.get_submodule("6")._forward_pre_hooks
    hook.remove()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    assert seen


def test_an_error_in_a_pass_leaves_nothing_behind(tmp_path: Path) -> None:
    model = recorded(tmp_path, [convolutional(seed) for seed in range(2)])
    state = copy.deepcopy(model.state_dict())
    ensemble = SnapshotEnsemble(model, tmp_path)
    x, _ = images(21)
    with pytest.raises(EnsembleError, match=r"train_data.*two samples.*\(1, 8\)"):
        ensemble.average_weights(train_data=Loader(x, [20, 1]), barrier=math.inf)
    assert not any(module._forward_pre_hooks for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    # Arrays leave no such rest.
    ensemble.average_weights(train_data=x, train_batch_size=20, barrier=math.inf)


def test_statistics_need_data_and_nothing_else_does(tmp_path: Path) -> None:
    model = recorded(tmp_path / "norm", [convolutional(seed) for seed in range(2)])
    x, y = images(30)
    ensemble = SnapshotEnsemble(model, tmp_path / "norm")
    with pytest.raises(EnsembleError, match=r"`train_data`.*'1.BatchNorm2d'"):
        ensemble.average_weights(x, y)
    # One member has its own.
    alone = ensemble.average_weights(last=1)
    assert not alone.statistics
    assert alone.scores is None
    assert torch.equal(
        alone.weights["1.running_var"], convolutional(1).state_dict()["1.running_var"]
    )
    with pytest.raises(EnsembleError, match=r"`train_data` must have at least one sample"):
        ensemble.average_weights(train_data=x[:0], barrier=math.inf)
    with pytest.raises(EnsembleError, match=r"`train_batch_size` must be left out where `train_"):
        ensemble.average_weights(train_data=Loader(x, [30]), train_batch_size=3, barrier=math.inf)
    with pytest.raises(EnsembleError, match=r"`train_data`.*more than once.*give the loader"):
        ensemble.average_weights(x, y, train_data=iter([x]), samples=None, barrier=1e9)
    plain = recorded(tmp_path / "plain", [nn.Sequential(nn.Linear(3, 2)) for _ in range(2)])
    unused = Loader(x, [30])
    found = SnapshotEnsemble(plain, tmp_path / "plain").average_weights(
        torch.randn(9, 3), torch.zeros(9, dtype=torch.long), train_data=unused, barrier=1e9
    )
    assert not unused.passes
    assert not found.statistics


def test_the_greedy_soups_statistics_are_estimated_for_each(tmp_path: Path) -> None:
    x, y = images(60)
    trained = convolutional(0)
    optimizer = torch.optim.Adam(trained.parameters(), 0.01)
    members = []
    for step in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(trained(x), y).backward()
        optimizer.step()
        if step > 40:
            members.append(copy.deepcopy(trained))
    members = members[::6]
    model = recorded(tmp_path, members)
    found = SnapshotEnsemble(model, tmp_path).average_weights(x, y, train_data=x, soup="greedy")
    assert found.statistics == (len(found.members) > 1)
    assert len(found.members) > 1
    oracle = without_statistics(model, found.weights)
    oracle(x)
    assert_statistics(found.weights, oracle.state_dict(), "6.")


def test_frozen_statistics_stay_as_they_are(tmp_path: Path) -> None:
    """The usual fine-tuning: BatchNorm in evaluation mode, with statistics of other data."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    x = torch.randn(400, 2) + torch.tensor([3.0, 0.0])
    y = (x[:, 0] > 3).long()
    model.train()
    model[0].eval().requires_grad_(False)
    optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], 0.02)
    schedule = ca.CyclicCosine(0.1, total_steps=200, num_cycles=2)
    with SnapshotRecorder(tmp_path, model, schedule) as recorder:
        for _ in range(200):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            recorder.step()
    ensemble = SnapshotEnsemble(model, tmp_path)
    with pytest.raises(EnsembleError, match=r"`train_data` must be.*2\.BatchNorm1d"):
        ensemble.average_weights(x, y)
    found = ensemble.average_weights(x, y, train_data=x)
    assert torch.equal(found.weights["0.running_mean"], torch.zeros(2))
    assert torch.equal(found.weights["0.running_var"], torch.ones(2))
    expected: Any = without_statistics(model, found.weights)
    expected[0].load_state_dict(
        {name[2:]: value for name, value in found.weights.items() if name.startswith("0.")}
    )
    expected[0].eval()
    expected(x)
    assert_statistics(found.weights, expected.state_dict(), "2.")
    # All of them frozen: there is nothing to estimate.
    frozen = recorded(tmp_path / "frozen", [model, model])
    SnapshotEnsemble(frozen, tmp_path / "frozen").average_weights(x, y)


@pytest.mark.parametrize("alone", [False, True])
def test_statistics_of_instances_are_means_over_the_samples(tmp_path: Path, alone: bool) -> None:
    def network(seed: int) -> nn.Sequential:
        torch.manual_seed(seed)
        normalization: nn.Module = nn.InstanceNorm1d(4, affine=True, track_running_stats=True)
        model = nn.Sequential(nn.Conv1d(2, 4, 3), normalization, nn.Flatten(0 if alone else 1))
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if "running" in name:
                    buffer.uniform_(0.5, 2)
        return model

    torch.manual_seed(5)
    x = torch.randn(12, 2, 8) * torch.linspace(0.5, 3, 12)[:, None, None] + 2
    train = Loader(x[0], (2,)) if alone else Loader(x, (5, 3, 4))
    model: Any = recorded(tmp_path, [network(0), network(1)])
    ensemble = SnapshotEnsemble(model, tmp_path, class_axis=None)
    with pytest.raises(EnsembleError, match=r"1\.InstanceNorm1d"):
        ensemble.average_weights(barrier=math.inf)
    found = ensemble.average_weights(train_data=train, barrier=math.inf).weights
    # torch's own, of all samples in one batch, at a momentum that keeps nothing of before.
    model.load_state_dict(found)
    model[1].momentum = 1.0
    model.train()
    model(x[0] if alone else x)
    assert_statistics(found, model.state_dict(), "1.")
    assert model[1].track_running_stats
    with pytest.raises(EnsembleError, match="at least two positions"):
        ensemble.average_weights(train_data=Loader(x[:, :, :3], (12,)), barrier=math.inf)
