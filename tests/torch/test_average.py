"""One torch model from several members' weights, with BatchNorm's statistics estimated anew."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

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
from cosanneal.ensemble import AveragedWeights
from cosanneal.ensemble.predict.pooling import Pooling

pytestmark = pytest.mark.filterwarnings("ignore:The ensemble was chosen on:UserWarning")


def recorded(folder: Path, models: Sequence[nn.Module]) -> nn.Module:
    """The models as the snapshots of one run, and another of their kind."""
    model = copy.deepcopy(models[0])
    with SnapshotRecorder(folder, model, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for each in models:
            model.load_state_dict(each.state_dict())
            recorder.step()
    return copy.deepcopy(models[0])


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
        ensemble.average_weights(x, y, train_data=iter([x]), barrier=math.inf)
    plain = recorded(tmp_path / "plain", [nn.Sequential(nn.Linear(3, 2)) for _ in range(2)])
    unused = Loader(x, [30])
    found = SnapshotEnsemble(plain, tmp_path / "plain").average_weights(
        torch.randn(9, 3), torch.zeros(9, dtype=torch.long), train_data=unused, barrier=1e9
    )
    assert not unused.passes
    assert not found.statistics


def network(seed: int) -> nn.Sequential:
    """A network that was trained to tell the sign of a product."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    x, y = signs(400)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def signs(samples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(samples, 2, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] * x[:, 1] > 0).long()


def near(model: nn.Module, seed: int) -> nn.Module:
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def permuted(model: nn.Module) -> nn.Module:
    """The same function with its hidden units in another order."""
    model = copy.deepcopy(model)
    first, last = model.get_submodule("0"), model.get_submodule("2")
    order = torch.arange(16).roll(1)
    with torch.no_grad():
        for tensor in (first.weight, first.bias):
            assert isinstance(tensor, Tensor)
            tensor.copy_(tensor[order].clone())
        assert isinstance(last.weight, Tensor)
        last.weight.copy_(last.weight[:, order].clone())
    return model


def predicted(model: nn.Module, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    model = copy.deepcopy(model).eval()
    model.load_state_dict(weights)
    with torch.no_grad():
        p: Tensor = model(x).softmax(-1)
    return p


def test_a_barrier_refuses_the_mean(tmp_path: Path) -> None:
    best = network(0)
    model = recorded(tmp_path, [near(best, 1), best, permuted(best)])
    x, y = signs(300, 1)
    ensemble = SnapshotEnsemble(model, tmp_path)
    pattern = (
        r"one valley.*between cycle-0001.* and cycle-0002.*log-loss goes from.*at 0.5 of the way.*"
        r"barrier of.*predict with the ensemble.*last=.*barrier=math.inf"
    )
    with pytest.raises(EnsembleError, match=pattern):
        ensemble.average_weights(x, y)
    with pytest.warns(UserWarning, match=r"across a barrier: between cycle-0001") as caught:
        found = ensemble.average_weights(x, y, barrier=math.inf)
    assert [warning.filename for warning in caught] == [__file__]
    assert "; the log-loss of the mean is" in str(caught[0].message)
    assert found.scores is not None
    assert found.scores["log_loss"] > 1.1 * max(each["log_loss"] for each in found.member_scores)
    # The barriers are those that the function on arrays finds.
    states = [dict(each.state_dict()) for each in (near(best, 1), best, permuted(best))]
    for i, barrier in enumerate(found.barriers):
        expected = on_arrays.interpolate(
            lambda weights: on_arrays.log_loss(predicted(model, weights, x), y),
            states[i],
            states[i + 1],
            shares=(0, 0.25, 0.5, 0.75, 1),
        )
        assert barrier.shares == expected.shares
        assert barrier.losses == pytest.approx(expected.losses, rel=1e-5)
        assert barrier.barrier == pytest.approx(expected.barrier, abs=1e-5)
    # A wider tolerance lets it pass without a word, and a stricter one nothing.
    share = 2 * found.barriers[1].barrier / sum(found.barriers[1].losses[:: len(found.shares) + 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ensemble.average_weights(x, y, barrier=1.01 * share)
    with pytest.raises(EnsembleError, match=r"cycle-0001.*barrier of"):
        ensemble.average_weights(x, y, barrier=0.99 * share)


def test_members_of_one_valley_have_a_mean_as_good(tmp_path: Path) -> None:
    best = network(0)
    model = recorded(tmp_path, [near(best, seed) for seed in range(4)])
    x, y = signs(300, 1)
    ensemble = SnapshotEnsemble(model, tmp_path)
    own = copy.deepcopy(model.state_dict())
    found = ensemble.average_weights(x, y, batch_size=77)
    assert isinstance(found, AveragedWeights)
    assert found.members == ensemble.members
    assert found.shares == (0.25,) * 4
    p = predicted(model, found.weights, x)
    assert found.scores == pytest.approx(
        {
            "log_loss": on_arrays.log_loss(p, y),
            "brier": on_arrays.brier_score(p, y),
            "error": on_arrays.error_rate(p, y),
        },
        rel=1e-6,
    )
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    assert "weights" not in repr(found)
    for score, member in zip(found.member_scores, ensemble.member_predictions(x), strict=True):
        assert score["log_loss"] == pytest.approx(on_arrays.log_loss(member, y), rel=1e-6)


def test_the_mean_itself_must_not_lie_on_a_ridge(tmp_path: Path) -> None:
    class Ring(nn.Module):
        """Its loss has a ring of minima, whose middle is a hill."""

        def __init__(self, angle: float) -> None:
            super().__init__()
            turn = torch.tensor([math.cos(angle), math.sin(angle)])
            self.place = nn.Parameter(turn)

        def forward(self, x: Tensor) -> Tensor:
            value: Tensor = x * 0 + 3 * (self.place.square().sum() - 1)
            return value

    angles = [i * 2 * math.pi / 12 for i in range(12)]
    model = recorded(tmp_path, [Ring(angle) for angle in angles])
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
    x, y = torch.zeros(20, 1), torch.ones(20, 1)
    with pytest.raises(EnsembleError, match=r"one valley.*the MSE of the mean is 16,.*members 1,"):
        ensemble.average_weights(x, y, barrier=1)
    assert ensemble.average_weights(x, y, last=2, barrier=1).scores


def test_a_loss_that_is_not_finite_is_a_barrier(tmp_path: Path) -> None:
    class Inverse(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.tensor(value))

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x, x], -1) / self.value

    model = recorded(tmp_path, [Inverse(1.0), Inverse(-1.0)])
    ensemble = SnapshotEnsemble(model, tmp_path)
    x, y = torch.ones(4), torch.zeros(4, dtype=torch.long)
    with pytest.raises(EnsembleError, match=r"goes from 0.6931 by way of inf, at 0.5 of the way"):
        ensemble.average_weights(x, y)
    with pytest.warns(UserWarning, match="the log-loss of the mean is inf"):
        found = ensemble.average_weights(x, y, barrier=math.inf)
    assert found.scores == {"log_loss": math.inf, "brier": math.inf, "error": math.inf}
    assert len(ensemble.average_weights(x, y, soup="greedy").members) == 1


def test_the_greedy_soup_begins_with_the_best_and_leaves_out_what_a_barrier_parts(
    tmp_path: Path,
) -> None:
    best = network(0)
    models = [near(best, 1), permuted(best), best, near(best, 2)]
    model = recorded(tmp_path, models)
    x, y = signs(300, 1)
    ensemble = SnapshotEnsemble(model, tmp_path)
    found = ensemble.average_weights(x, y, soup="greedy")

    def loss(weights: dict[str, Tensor]) -> float:
        return on_arrays.log_loss(predicted(model, weights, x), y)

    states = [dict(each.state_dict()) for each in models]
    expected = on_arrays.greedy_soup(states, loss)
    names = [member.path.name for member in found.members]
    assert names == [ensemble.members[i].path.name for i in expected.members]
    assert 1 < len(names) < 4
    assert ensemble.members[1].path.name not in names or ensemble.members[2].path.name not in names
    alone = [loss(state) for state in states]
    assert expected.members[0] == alone.index(min(alone))
    assert found.scores is not None
    assert found.scores["log_loss"] == pytest.approx(expected.score, rel=1e-6)
    assert [each["log_loss"] for each in found.member_scores] == pytest.approx(
        [alone[i] for i in expected.members], rel=1e-6
    )
    assert not found.barriers
    for name, value in expected.weights.items():
        assert torch.equal(found.weights[name], value)


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


def test_windows_and_exponential_means_are_those_of_arrays(tmp_path: Path) -> None:
    models = [near(network(0), seed) for seed in range(5)]
    states = [dict(model.state_dict()) for model in models]
    model = recorded(tmp_path, models)
    ensemble = SnapshotEnsemble(model, tmp_path)
    *_, window = on_arrays.lawa(states, 3)
    found = ensemble.average_weights(barrier=math.inf, last=3)
    assert found.members == ensemble.members[-3:]
    moving = ensemble.average_weights(barrier=math.inf, soup="exponential", decay=0.7)
    weights = on_arrays.exponential_weights(5, 0.7)
    assert moving.shares == weights
    expected = on_arrays.average_weights(states, weights=weights)
    for name in window:
        assert torch.equal(found.weights[name], window[name])
        assert torch.equal(moving.weights[name], expected[name])
    assert (found.scores, found.ensemble_scores, found.member_scores) == (None, None, ())


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_the_ensembles_scores_are_those_of_predict(tmp_path: Path, pooling: Pooling) -> None:
    model = recorded(tmp_path, [near(network(0), seed) for seed in range(4)])
    x, y = signs(200, 1)
    ensemble = SnapshotEnsemble(model, tmp_path, pooling=pooling)
    found = ensemble.average_weights(x, y, last=2, barrier=1)
    p = ensemble.predict(x)
    if pooling == "log-probabilities":
        p = p.exp()
    assert found.ensemble_scores is not None
    assert found.ensemble_scores["log_loss"] == pytest.approx(on_arrays.log_loss(p, y), rel=1e-5)
    assert found.ensemble_scores["brier"] == pytest.approx(on_arrays.brier_score(p, y), rel=1e-5)


def test_a_choice_is_the_ensemble_as_it_stands(tmp_path: Path) -> None:
    best = network(0)
    model = recorded(tmp_path, [permuted(best), best, near(best, 3)])
    x, y = signs(300, 1)
    ensemble = SnapshotEnsemble(model, tmp_path)
    choice = ensemble.fit(x, y)
    found = ensemble.average_weights(x, y, last=2)
    assert ensemble.choice is choice
    assert found.ensemble_scores is not None
    assert found.ensemble_scores["log_loss"] == pytest.approx(
        on_arrays.log_loss(ensemble.predict(x), y), rel=1e-6
    )


def test_values_are_judged_by_their_squared_error(tmp_path: Path) -> None:
    torch.manual_seed(0)
    truth = nn.Linear(3, 1)
    model = recorded(tmp_path, [near(truth, seed) for seed in range(3)])
    x = torch.randn(50, 3)
    y = truth(x).detach() + 0.1 * torch.randn(50, 1)
    loader = DataLoader(TensorDataset(x, y), batch_size=20)
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
    found = ensemble.average_weights(loader)
    weights = found.weights
    error = (x @ weights["weight"].T + weights["bias"] - y).square().mean()
    assert found.scores == pytest.approx({"mse": float(error)}, rel=1e-5)
    # Of a linear model, the mean of the weights predicts the mean of the values.
    assert found.ensemble_scores == pytest.approx(found.scores, rel=1e-5)
    # The squared error is convex in them: no barrier.
    assert [each.barrier for each in found.barriers] == [0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"last": 0}, "`last`"),
        ({"last": 3}, "`last` must be at most 2"),
        ({"soup": "minestrone"}, "`soup` must be 'uniform', 'greedy' or 'exponential'"),
        ({"soup": "exponential"}, "`decay` must be given"),
        ({"soup": "exponential", "decay": 0}, "`decay` must be a number in"),
        ({"decay": 0.5}, "`decay` must be left out"),
        ({"barrier": -0.1}, "`barrier` must be a number of at least 0"),
        ({"barrier": math.nan}, "`barrier` must be a number of at least 0"),
        ({"barrier": True}, "`barrier` must be a number of at least 0"),
        ({"shares": []}, "`shares` must be numbers between 0 and 1"),
        ({"shares": [0, 0.5]}, "`shares` must be numbers between 0 and 1"),
        ({"shares": [math.nan]}, "`shares` must be numbers between 0 and 1"),
        ({"shares": 0.5}, "`shares` must be numbers between 0 and 1"),
        ({}, "`x_val` must be given"),
        ({"soup": "greedy", "barrier": math.inf}, "`x_val` must be given"),
        ({"x_val": torch.zeros(2, 3)}, "`y_val` must be given"),
        ({"x_val": torch.zeros(2, 3), "y_val": torch.zeros(3)}, "`labels` must have shapes"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    model = recorded(tmp_path, [nn.Linear(3, 2), nn.Linear(3, 2)])
    with pytest.raises(EnsembleError, match=message):
        SnapshotEnsemble(model, tmp_path).average_weights(**options)


def test_an_infinite_mask_stays_as_it_is(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 2)
            self.register_buffer("mask", torch.triu(torch.full((3, 3), -torch.inf), 1))

        def forward(self, x: Tensor) -> Tensor:
            mask: Any = self.mask
            found: Tensor = self.head(torch.einsum("ij,nj->ni", mask.softmax(-1), x))
            return found

    torch.manual_seed(0)
    models: list[nn.Module] = [Masked()]
    models += [near(models[0], 1), near(models[0], 2)]
    x, y = torch.randn(50, 3), torch.arange(50) % 2
    model = recorded(tmp_path, models)
    found = SnapshotEnsemble(model, tmp_path).average_weights(x, y)
    assert torch.equal(found.weights["mask"], models[0].get_buffer("mask"))
    assert all(math.isfinite(each.barrier) for each in found.barriers)


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
