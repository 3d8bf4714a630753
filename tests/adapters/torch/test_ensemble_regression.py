"""Ensembles of regressions in torch: pairs and values, fitted, saved, averaged and refused."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotEnsemble
from cosanneal.ensemble import analyze_regression, fit_regression, gaussian_nll, mse
from cosanneal.ensemble.predict.outputs import OutputSpec
from cosanneal.ensemble.weights.averaging import Judge
from tests.shared.modes import MODES
from tests.shared.scripts import run_example
from tests.shared.torch_members import near, recorded


class Heads(nn.Sequential):
    """A mean and a variance for each of two targets."""

    form = "tuple"

    def forward(self, x: Tensor) -> Any:
        z: Tensor = nn.Sequential.forward(self, x)  # type: ignore[no-untyped-call]
        mean, variance = z[:, :2], nn.functional.softplus(z[:, 2:])
        if self.form == "dict":
            return {"mean": mean, "variance": variance}
        return [mean, variance] if self.form == "list" else (mean, variance)


def heads(form: str = "tuple") -> Heads:
    torch.manual_seed(0)
    model = Heads(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4))
    model.form = form
    return model


def members_of(model: nn.Module, count: int = 4) -> list[nn.Module]:
    return [near(near(model, i), i + 50) for i in range(count)]


def data(samples: int = 1200) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 3, generator=random)
    y = torch.stack([x[:, 0] + x[:, 1], x[:, 2]], 1) + torch.randn(samples, 2, generator=random)
    return x, y


def exact(models: list[nn.Module], x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        parts = [[each.double() for each in model(x)] for model in models]
    m, v = (torch.stack(each) for each in zip(*parts, strict=True))
    return m.mean(0), (v + (m - m.mean(0)) ** 2).mean(0)


@pytest.mark.parametrize("form", ["tuple", "list", "dict"])
def test_pairs_are_predicted_in_every_mode_and_their_form(tmp_path: Path, form: str) -> None:
    models = members_of(heads())
    recorded(tmp_path, models)
    ensemble = SnapshotEnsemble(heads(form), tmp_path, outputs="gaussian")
    x, _ = data(20)
    mean, variance = exact(models, x)
    for mode in MODES:
        for batch_size in (None, 7):
            found: Any = ensemble.predict(x, mode=mode, batch_size=batch_size)
            assert type(found).__name__ == form
            parts = found.values() if isinstance(found, dict) else found
            for ours, theirs in zip(parts, (mean, variance), strict=True):
                assert ours.dtype == torch.float32
                torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-6)
    moments = ensemble.predict_with_variance(x)
    torch.testing.assert_close(moments[1], variance.float(), rtol=1e-5, atol=1e-6)
    first, *_ = ensemble.member_predictions(x)
    assert type(first).__name__ == form


def test_pairs_are_fitted_and_the_choice_is_kept(tmp_path: Path) -> None:
    models = members_of(heads())
    recorded(tmp_path, models)
    ensemble = SnapshotEnsemble(heads(), tmp_path, outputs="gaussian")
    x, y = data()
    choice = ensemble.fit(x, y, select="weights", keep=tmp_path / "kept.npy")
    kept = np.load(tmp_path / "kept.npy")
    assert kept.shape == (4, 2, 1200, 2)
    on_arrays = fit_regression(kept, y, outputs="gaussian", select="weights")
    assert choice.weights == on_arrays.weights
    mean, variance = ensemble.predict(x)
    by_hand = on_arrays.apply(kept)
    np.testing.assert_allclose(mean, by_hand[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, by_hand[1], rtol=1e-5)
    found = gaussian_nll(mean, variance, y)
    assert found == pytest.approx(choice.candidates[-1].scores["gaussian_nll"], abs=1e-6)
    ensemble.save(tmp_path / "choice.json")
    again = SnapshotEnsemble(heads(), tmp_path, outputs="gaussian")
    assert again.load(tmp_path / "choice.json") == choice
    torch.testing.assert_close(again.predict(x)[1], variance)
    values = SnapshotEnsemble(heads(), tmp_path, outputs="values")
    with pytest.raises(ca.EnsembleError, match=r"outputs, 'values'. Received: one of 'gaussian'"):
        values.load(tmp_path / "choice.json")
    classes = SnapshotEnsemble(heads(), tmp_path, outputs="logits", class_axis=-1)
    with pytest.raises(ca.EnsembleError, match=r"outputs, 'logits'. Received: one of 'gaussian'"):
        classes.load(tmp_path / "choice.json")


def test_values_have_a_predictive_variance_once_fitted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    models = members_of(model)
    recorded(tmp_path, models)
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
    x, targets = data()
    y = targets[:, 0]  # of shape (samples,), for outputs of shape (samples, 1)
    before = ensemble.predict_with_variance(x)[1]
    choice = ensemble.fit(x, y, metric="gaussian_nll", sample_weight=torch.ones(1200))
    mean, variance = ensemble.predict_with_variance(x)
    assert mean.shape == variance.shape == (1200, 1)
    torch.testing.assert_close(ensemble.predict(x), mean)
    assert choice.noise is not None
    found = gaussian_nll(mean, variance, y)
    assert found == pytest.approx(choice.candidates[-1].scores["gaussian_nll"], abs=1e-5)
    assert found < gaussian_nll(mean, before, y)
    ensemble.save()
    again = SnapshotEnsemble(model, tmp_path)  # which finds out by the choice that they are values
    assert again.load() == choice
    torch.testing.assert_close(again.predict_with_variance(x)[1], variance)
    by_mse = ensemble.fit(x, y, metric="mse", variance=False)
    assert by_mse.noise is None


def test_a_mean_of_weights_is_judged_by_the_likelihood(tmp_path: Path) -> None:
    models = members_of(heads())
    model = recorded(tmp_path, models)
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="gaussian")
    x, y = data()
    found = ensemble.average_weights(x, y)
    model.load_state_dict(found.weights)
    with torch.no_grad():
        mean, variance = model(x)
    nll = gaussian_nll(mean, variance, y)
    assert found.scores is not None
    assert found.scores["gaussian_nll"] == pytest.approx(nll, abs=1e-6)
    assert found.scores["mse"] == pytest.approx(mse(mean, y), rel=1e-6)
    # That normal of one variance, its own error, which has this likelihood.
    s = found.scores["equivalent_mse"]
    assert (math.log(2 * math.pi * s) + 1) / 2 == pytest.approx(nll, abs=1e-6)
    assert found.ensemble_scores is not None
    mean, variance = ensemble.predict(x)
    pooled = gaussian_nll(mean, variance, y)
    assert found.ensemble_scores["gaussian_nll"] == pytest.approx(pooled, abs=1e-6)
    assert found.barriers[0].losses[0] == found.member_scores[0]["equivalent_mse"]
    trained = heads()
    optimizer, loss = torch.optim.Adam(trained.parameters(), 0.05), nn.GaussianNLLLoss()
    for _ in range(100):
        optimizer.zero_grad()
        mean, variance = trained(x)
        loss(mean, y, variance).backward()
        optimizer.step()
    # The same function with every hidden unit's sign turned, whose mean with it knows nothing.
    turned = copy.deepcopy(trained)
    with torch.no_grad():
        for name, parameter in turned.named_parameters():
            if name != "2.bias":
                parameter.neg_()
    recorded(tmp_path / "apart", [trained, turned])
    far = SnapshotEnsemble(heads(), tmp_path / "apart", outputs="gaussian")
    with pytest.raises(ca.EnsembleError, match=r"the equivalent MSE goes from"):
        far.average_weights(x, y)
    assert far.average_weights(x, y, soup="greedy").scores is not None


def test_what_is_not_finite_has_an_infinite_score() -> None:
    judge = Judge(np.zeros(2), OutputSpec("gaussian", None, "probabilities"))
    found = judge.all_scores((np.array([1.0, np.nan]), np.ones(2)))
    assert found == dict.fromkeys(("gaussian_nll", "mse", "equivalent_mse"), math.inf)
    huge = judge.all_scores((np.array([1e200, 0.0]), np.full(2, 1e-100)))
    assert huge["equivalent_mse"] == math.inf


class Bad(nn.Linear):
    """Returns what some function makes of its output."""

    def __init__(self, make: Any) -> None:
        super().__init__(3, 2)
        self.make = make

    def forward(self, x: Tensor) -> Any:
        return self.make(super().forward(x))


@pytest.mark.parametrize("mode", ["stream", "resident", "stacked"])
@pytest.mark.parametrize(
    ("outputs", "make", "message"),
    [
        ("gaussian", lambda z: z, r"a pair of means and variances.*Received: Tensor"),
        (
            "gaussian",
            lambda z: (z, -z * z - 1),
            r"at least 0. Received: -.* from .*cycle-.*log-var",
        ),
        ("gaussian", lambda z: (z, z[:, :1] ** 2), r"one shape. Received: .* and .*1\)"),
        (
            "gaussian",
            lambda z: (z, z * z, z),
            r"a pair of means and variances.*Received: tuple of 3",
        ),
        ("gaussian", lambda z: (z[:1], z[:1] ** 2), r"a row for each sample"),
        (
            "gaussian",
            lambda z: (z, None),
            r"a pair of arrays.*a tuple with a NoneType; give output=",
        ),
        ("auto", lambda z: {"mean": z, "variance": z * z}, r"'variance'; of a mean.*\"gaussian\""),
        (
            "values",
            lambda z: {"mean": z, "variance": z * z},
            r"'variance'; of a mean.*\"gaussian\"",
        ),
    ],
)
def test_other_outputs_are_refused(
    tmp_path: Path, mode: Any, outputs: Any, make: Any, message: str
) -> None:
    torch.manual_seed(0)
    recorded(tmp_path, [nn.Linear(3, 2), nn.Linear(3, 2)])
    ensemble = SnapshotEnsemble(Bad(make), tmp_path, outputs=outputs)
    with pytest.raises(ca.EnsembleError, match=message):
        ensemble.predict(data(5)[0], mode=mode)


@pytest.mark.parametrize("mode", ["stream", "resident", "stacked"])
def test_a_tuple_is_its_first_item_but_where_a_variance_would_be_lost(
    tmp_path: Path, mode: Any
) -> None:
    recorded(tmp_path, [nn.Linear(3, 2), nn.Linear(3, 2)])
    x, _ = data(5)
    plain = SnapshotEnsemble(nn.Linear(3, 2), tmp_path, outputs="values").predict(x)
    pair = Bad(lambda z: (z, z * z))
    for options in ({"outputs": "values"}, {"outputs": "values", "output": 0}):
        found = SnapshotEnsemble(pair, tmp_path, **options).predict(x, mode=mode)
        torch.testing.assert_close(found, plain)
    with pytest.raises(ca.EnsembleError, match=r"a tuple of two.*\"gaussian\".*output=0 or 1"):
        SnapshotEnsemble(pair, tmp_path).predict_with_variance(x, mode=mode)
    mean, variance = SnapshotEnsemble(pair, tmp_path, output=0).predict_with_variance(x, mode=mode)
    torch.testing.assert_close(mean, plain)
    assert tuple(variance.shape) == (5, 2)


@pytest.mark.parametrize("mode", ["stream", "resident"])
def test_a_member_that_gives_nan_is_named(tmp_path: Path, mode: Any) -> None:
    recorded(tmp_path, [nn.Linear(3, 2), nn.Linear(3, 2)])
    for make in (lambda z: (z * math.nan, z * z), lambda z: (z, z * z * math.nan)):
        ensemble = SnapshotEnsemble(Bad(make), tmp_path, outputs="gaussian")
        with pytest.raises(ca.EnsembleError, match=r"must be finite. Received: NaN.*from .*cycle"):
            ensemble.predict(data(5)[0], mode=mode)


def test_the_example_runs(tmp_path: Path) -> None:
    told = run_example("torch_regression.py", tmp_path)
    (covered,) = re.findall(r"([0-9.]+) % of targets in the 90 % intervals", told)
    assert abs(float(covered) - 90) < 4
    (error,) = re.findall(r"RMSE ([0-9.]+)", told)
    assert float(error) < 0.35


def test_options_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    recorded(tmp_path, members_of(heads()))
    x, y = data(30)
    pairs = SnapshotEnsemble(heads(), tmp_path, outputs="gaussian")
    with pytest.raises(ca.EnsembleError, match=r"`temperature` must be left out for a regression"):
        pairs.fit(x, y, temperature=False)
    with pytest.raises(
        ca.EnsembleError, match=r"`pooling` must be left out for outputs='gaussian'"
    ):
        SnapshotEnsemble(heads(), tmp_path, outputs="gaussian", pooling="vote")
    classes = nn.Linear(3, 4)
    recorded(tmp_path / "classes", members_of(classes))
    ensemble = SnapshotEnsemble(classes, tmp_path / "classes")
    with pytest.raises(ca.EnsembleError, match=r"`variance` must be left out for classes"):
        ensemble.fit(x, torch.zeros(30, dtype=torch.long), variance=True)


class PerPosition(nn.Module):
    """A value for each position of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.scale(x)
        return value[..., 0]


def test_sequences_of_several_lengths_are_judged_by_samples(tmp_path: Path) -> None:
    torch.manual_seed(0)
    models = members_of(PerPosition(), 3)
    recorded(tmp_path, models)
    random = torch.Generator().manual_seed(2)
    x = [torch.randn(n, length, 3, generator=random) for n, length in ((40, 5), (30, 2), (30, 7))]
    y = [each.sum(-1) + torch.randn(each.shape[:-1], generator=random) for each in x]
    loader = list(zip(x, y, strict=True))
    ensemble = SnapshotEnsemble(models[0], tmp_path, outputs="values")
    with torch.no_grad():
        rows = [np.concatenate([model(each).reshape(-1).numpy() for each in x]) for model in models]
    truth = np.concatenate([each.reshape(-1).numpy() for each in y])
    counts = np.repeat([5, 2, 7], [40, 30, 30])
    with pytest.warns(UserWarning, match="100 validation samples"):
        choice = ensemble.fit(loader)
    with pytest.warns(UserWarning, match="100 validation samples"):
        expected = fit_regression(rows, truth, counts=counts)
    assert (choice.samples, choice.weights) == (100, expected.weights)
    assert choice.interval == pytest.approx(expected.interval, rel=1e-4, abs=1e-7)
    with pytest.warns(UserWarning, match="seem to be those that the ensemble was chosen on"):
        found = ensemble.evaluate(loader)
    assert found["samples"] == 100
    own = analyze_regression(rows, truth, counts=counts)
    for ours, theirs in zip(found["members"], own["members"], strict=True):
        assert ours["rmse"] == pytest.approx(theirs["rmse"], rel=1e-5)
    averaged = ensemble.average_weights(loader, barrier=10.0)
    assert [each["mse"] for each in averaged.member_scores] == pytest.approx(
        [float(np.mean((row - truth) ** 2)) for row in rows], rel=1e-4
    )
