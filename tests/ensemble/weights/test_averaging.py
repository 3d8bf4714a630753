"""One model from several members' weights, if the loss between them lets it be one; with torch."""

from __future__ import annotations

import copy
import math
import warnings
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from cosanneal import ensemble as on_arrays
from cosanneal.adapters.torch import SnapshotEnsemble
from cosanneal.core.errors import EnsembleError
from cosanneal.ensemble import AveragedWeights
from cosanneal.ensemble.predict.pooling import Pooling
from tests.shared.torch_members import near, network, recorded, signs

pytestmark = pytest.mark.filterwarnings("ignore:The ensemble was chosen on:UserWarning")


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


def test_values_have_no_labels_to_leave_out(tmp_path: Path) -> None:
    best = network(0)
    model = recorded(tmp_path, [best, near(best, 1)])
    x, y = signs(30, 1)
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
    targets = torch.nn.functional.one_hot(y, 2).float()
    with pytest.raises(EnsembleError, match=r"`ignore_index` must be left out for outputs='valu"):
        ensemble.average_weights(x, targets, ignore_index=0)
    some = ensemble.average_weights(x, targets, mask=y > 0, barrier=math.inf).scores
    alone = ensemble.average_weights(x[y > 0], targets[y > 0], barrier=math.inf).scores
    assert some is not None
    assert alone is not None
    assert some["mse"] == pytest.approx(alone["mse"], rel=1e-6)


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
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="logits")
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
        SnapshotEnsemble(model, tmp_path, outputs="logits").average_weights(**options)


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
