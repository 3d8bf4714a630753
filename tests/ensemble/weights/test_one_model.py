"""The one model of averaged weights: its temperature, its prediction, and what it was made from."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from cosanneal.adapters.torch import SnapshotEnsemble
from cosanneal.core.errors import EnsembleError
from cosanneal.ensemble.predict.pooling import Pooling
from tests.shared.averaged import best_temperature, check_averaged, scaled
from tests.shared.torch_members import near, network, recorded, signs


def members(count: int = 3) -> list[nn.Module]:
    """Networks that are near each other, and surer than they are right."""
    best = network(0)
    with torch.no_grad():
        best.get_submodule("2").weight.mul_(4)  # type: ignore[operator]
    return [near(best, seed) for seed in range(count)]


def noisy(samples: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Data of which every tenth label is wrong."""
    x, y = signs(samples, seed)
    y[::10] = 1 - y[::10]
    return x, y


def outputs(model: nn.Module, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    model = copy.deepcopy(model).eval()
    model.load_state_dict(weights)
    with torch.no_grad():
        found: Tensor = model(x)
    return found


def test_it_predicts_at_the_temperature_that_validation_data_give(tmp_path: Path) -> None:
    model = recorded(tmp_path, members())
    ensemble = SnapshotEnsemble(model, tmp_path)
    x, y = noisy(400)
    found = check_averaged(ensemble, lambda weights, x: outputs(model, weights, x), x, y)
    assert found.temperature > 1
    loader = DataLoader(TensorDataset(x), batch_size=64)
    torch.testing.assert_close(found.predict(loader), found.predict(x), rtol=1e-5, atol=1e-7)
    # A copy and another process' have it too.
    again = pickle.loads(pickle.dumps(found))  # noqa: S301
    assert torch.equal(again.predict(x), found.predict(x))
    with pytest.raises(EnsembleError, match="NaN or infinity from the mean of the weights of cycl"):
        found.predict(torch.full((3, 2), math.nan))


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_it_predicts_as_the_ensembles_rule_has_it(tmp_path: Path, pooling: Pooling) -> None:
    model = recorded(tmp_path, members())
    x, y = noisy(300)
    found = SnapshotEnsemble(model, tmp_path, pooling=pooling).average_weights(x, y, barrier=1)
    p = scaled(outputs(model, found.weights, x), found.temperature)
    expected = {"log-probabilities": np.log(p), "vote": p > 0.5}.get(pooling, p)
    np.testing.assert_allclose(found.predict(x).numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pooling", ["probabilities", "log-probabilities"])
def test_outcomes_have_their_odds_scaled(tmp_path: Path, pooling: Pooling) -> None:
    class Outcome(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            z = self.inner(x)
            found: Tensor = z[:, 1] - z[:, 0]
            return found

    model = recorded(tmp_path, [Outcome(each) for each in members()])
    x, y = noisy(300)
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="logits", class_axis=None, pooling=pooling)
    found = ensemble.average_weights(x, y, barrier=1)
    z = outputs(model, found.weights, x)
    both = torch.stack([torch.zeros_like(z), z], -1)
    assert found.temperature == pytest.approx(best_temperature(both, y.numpy()), rel=1e-4)
    p = scaled(both, found.temperature)[:, 1]
    expected = np.log(p) if pooling == "log-probabilities" else p
    np.testing.assert_allclose(found.predict(x).numpy(), expected, rtol=1e-4, atol=1e-6)


def test_only_labels_that_count_are_in_the_temperature(tmp_path: Path) -> None:
    model = recorded(tmp_path, members())
    x, y = noisy(300)
    kept = np.arange(300) % 3 > 0
    ensemble = SnapshotEnsemble(model, tmp_path)
    some = ensemble.average_weights(x, y, mask=kept, barrier=1)
    alone = ensemble.average_weights(x[kept], y[kept], barrier=1)
    assert some.temperature == pytest.approx(alone.temperature, rel=1e-5)
    assert some.temperature != pytest.approx(
        ensemble.average_weights(x, y, barrier=1).temperature, rel=1e-3
    )


def test_of_several_outputs_the_one_that_was_judged_has_the_temperature(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            z = self.inner(x)
            return {"class": z, "other": 2 * z, "value": z[:, 0]}

    model = recorded(tmp_path, [Two(each) for each in members()])
    x, y = noisy(300)
    form: Any = {"class": "logits", "other": "logits", "value": "values"}
    ensemble = SnapshotEnsemble(model, tmp_path, outputs=form, class_axis=-1)
    found = ensemble.average_weights(x, {"class": y}, output="class", barrier=1)
    assert found.temperature > 1.1
    made: Any = outputs(model, found.weights, x)
    predicted: Any = found.predict(x)
    for name, expected in (
        ("class", scaled(made["class"], found.temperature)),
        ("other", scaled(made["other"], 1.0)),
        ("value", made["value"].numpy()),
    ):
        np.testing.assert_allclose(predicted[name].numpy(), expected, rtol=1e-4, atol=1e-6)
    by_value = ensemble.average_weights(x, {"value": made["value"]}, output="value", barrier=1)
    assert (by_value.temperature, by_value.calibrated_scores) == (1.0, None)


def test_without_validation_data_it_predicts_as_it_is(tmp_path: Path) -> None:
    model = recorded(tmp_path, members())
    found = SnapshotEnsemble(model, tmp_path).average_weights(barrier=math.inf)
    assert (found.temperature, found.calibrated_scores) == (1.0, None)
    x, _ = signs(20)
    p = outputs(model, found.weights, x).softmax(-1)  # what they are is found out here
    torch.testing.assert_close(found.predict(x), p, rtol=1e-5, atol=1e-7)


def normed(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))


@pytest.fixture
def ensemble(tmp_path: Path) -> Any:
    models = [normed(seed) for seed in range(2)]
    for i, each in enumerate(models):
        each.get_buffer("0.running_mean").fill_(i)
    return SnapshotEnsemble(recorded(tmp_path, models), tmp_path)


def test_statistics_are_those_of_a_stated_sample(ensemble: Any) -> None:
    # Sorted, so that the first samples are unlike the others.
    x = torch.arange(10_000.0)[:, None] / 10_000 * torch.tensor([1.0, -2.0])
    found = ensemble.average_weights(train_data=x, barrier=math.inf)
    assert (found.samples, found.seed) == (2048, 0)
    assert "samples=2048, seed=0" in repr(found)
    mean = found.weights["0.running_mean"]
    # Of 2048 of 10000 uniform numbers: their standard error is 0.0057.
    assert mean.tolist() == pytest.approx([0.5, -1.0], abs=0.025)
    assert mean[0] != pytest.approx(0.5, abs=1e-6)
    again = ensemble.average_weights(train_data=x, train_batch_size=100, barrier=math.inf)
    torch.testing.assert_close(again.weights["0.running_mean"], mean, rtol=1e-6, atol=0)
    for options, samples, seed in (
        ({"seed": 5}, 2048, 5),
        ({"samples": 300}, 300, 0),
        ({"samples": None}, 10_000, None),
        ({"samples": 10_000}, 10_000, None),
    ):
        other = ensemble.average_weights(train_data=x, barrier=math.inf, **options)
        assert (other.samples, other.seed) == (samples, seed)
        assert not torch.equal(other.weights["0.running_mean"], mean)
    assert other.weights["0.running_mean"].tolist() == pytest.approx(x.mean(0).tolist(), rel=1e-6)
    # Numpy's, and structures of arrays, are drawn from alike.
    for given in (x.numpy(), (x,)):
        other = ensemble.average_weights(train_data=given, barrier=math.inf)
        torch.testing.assert_close(other.weights["0.running_mean"], mean, rtol=1e-6, atol=0)
    assert ensemble.average_weights(last=1).samples is None


def test_of_a_loader_whole_batches_are_drawn_by_one_pass(ensemble: Any) -> None:
    x = torch.arange(3000.0)[:, None].repeat(1, 2)
    passes: list[int] = []

    class Loader:
        def __iter__(self) -> Iterator[Any]:
            passes.append(1)
            return ((part, None) for part in x.split(50))

    y = torch.zeros(4, dtype=torch.long)
    found = ensemble.average_weights(x[:4], y, train_data=Loader(), samples=220, barrier=1e9)
    assert (len(passes), found.samples, found.seed) == (1, 250, 0)
    # The mean of five batches, and not of the first five.
    mean = float(found.weights["0.running_mean"][0])
    sums = (mean * 5 - 5 * 24.5) / 50
    assert sums == pytest.approx(round(sums), abs=1e-3)
    assert round(sums) > 0 + 1 + 2 + 3 + 4
    whole = ensemble.average_weights(train_data=Loader(), samples=None, barrier=math.inf)
    assert (whole.samples, whole.seed) == (None, None)
    assert whole.weights["0.running_mean"][0] == pytest.approx(1499.5)
    small = ensemble.average_weights(train_data=Loader(), samples=3000, barrier=math.inf)
    assert (small.samples, small.seed) == (3000, None)
    # A generator is over after the pass that is made.
    once = ensemble.average_weights(x[:4], y, train_data=iter(Loader()), barrier=1e9)
    assert once.samples == 2050
    first = ensemble.average_weights(train_data=itertools.islice(Loader(), 4), barrier=math.inf)
    assert (first.samples, first.seed) == (200, None)


def test_a_model_may_write_to_its_input(tmp_path: Path) -> None:
    class Writing(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.inner(x.add_(1))
            return found

    models = [Writing(normed(seed)) for seed in range(2)]
    for i, each in enumerate(models):
        each.get_buffer("inner.0.running_mean").fill_(i)
    model = recorded(tmp_path, models)
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="logits")
    x = torch.randn(300, 2)
    for train in (x, DataLoader(TensorDataset(x), batch_size=50)):
        given = train if isinstance(train, DataLoader) else train.clone()
        found = ensemble.average_weights(
            x[:4].clone(),
            torch.zeros(4, dtype=torch.long),
            train_data=given,
            samples=200,
            barrier=1e9,
        )
        assert abs(found.weights["inner.0.running_mean"] - 1).max() < 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1}, "`samples` must be an integer of at least 2. Received: samples=1"),
        ({"samples": 2.5}, "`samples` must be an integer of at least 2"),
        ({"seed": -1}, "`seed` must be an integer of at least 0. Received: seed=-1"),
    ],
)
def test_what_cannot_be_is_said(ensemble: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(EnsembleError, match=message):
        ensemble.average_weights(train_data=torch.zeros(9, 2), barrier=math.inf, **options)
