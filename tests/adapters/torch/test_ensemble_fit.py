"""Fitting a torch ensemble on validation data, and its record beside the snapshots."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder
from cosanneal.ensemble import error_rate, fit, log_loss
from cosanneal.ensemble.choose.record import Select
from cosanneal.ensemble.members import Members

pytestmark = pytest.mark.filterwarnings("ignore:The ensemble was chosen on:UserWarning")


def data(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 4, generator=generator)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def recorded(folder: Path, members: int = 5) -> nn.Linear:
    """Noisy copies of a model that knows much; the first two say the opposite."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    knows = torch.tensor([[-4.0, -4, 0, 0], [0, 0, 0, 0], [4, 4, 0, 0]])
    with SnapshotRecorder(folder, model, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for i in range(members):
            with torch.no_grad():
                sense = -1 if i < 2 else 1
                model.weight.copy_(sense * knows + torch.randn(3, 4))
                model.bias.copy_(torch.tensor([-2.0, 0, -2]))
            recorder.step()
    return model


@pytest.mark.parametrize("select", get_args(Select))
def test_predict_uses_what_was_fitted(tmp_path: Path, select: Select) -> None:
    model = recorded(tmp_path)
    (x, y), (x_test, _) = data(300, 1), data(50, 2)
    ensemble = SnapshotEnsemble(model, tmp_path)
    assert not ensemble.choice
    before = ensemble.predict(x_test)
    choice = ensemble.fit(x, y, select=select, batch_size=64)
    assert ensemble.choice is choice
    members = list(ensemble.member_predictions(x))
    expected = fit(
        members,
        y,
        select=select,
        names=[snapshot.path.name for snapshot in ensemble.members],
        digests=[snapshot.metadata["digest"] for snapshot in ensemble.members],
    )
    assert choice.members == expected.members
    assert choice.weights == pytest.approx(expected.weights, rel=1e-6, abs=1e-6)
    after = ensemble.predict(x_test)
    assert after.dtype == torch.float32
    torch.testing.assert_close(after, choice.apply(ensemble.member_predictions(x_test)))
    assert not torch.allclose(after, before)
    fitted = log_loss(ensemble.predict(x), y)
    assert fitted < log_loss(torch.stack(members).mean(0), y)
    assert fitted == pytest.approx(choice.candidates[-1].scores["log_loss"], rel=1e-6)


def test_members_of_no_weight_are_not_run(tmp_path: Path, monkeypatch: Any) -> None:
    model = recorded(tmp_path)
    ensemble = SnapshotEnsemble(model, tmp_path)
    choice = ensemble.fit(*data(300, 1))
    used = sum(weight > 0 for weight in choice.weights)
    assert used < 5
    runs: list[Path] = []
    inner = Members.load

    def counting(self: Any, snapshot: Any) -> Any:
        runs.append(snapshot.path)
        return inner(self, snapshot)

    monkeypatch.setattr(Members, "load", counting)
    ensemble.predict(data(5, 3)[0])
    assert runs == [snapshot.path for snapshot in ensemble.members][-used:]


def test_every_member_is_run_once_and_its_predictions_may_be_kept(
    tmp_path: Path, monkeypatch: Any
) -> None:
    model = recorded(tmp_path / "run")
    x, y = data(300, 1)
    ensemble = SnapshotEnsemble(model, tmp_path / "run")
    in_memory = ensemble.fit(x, y)
    runs: list[int] = []
    inner = Members.load

    def counting(self: Any, snapshot: Any) -> Any:
        runs.append(1)
        return inner(self, snapshot)

    monkeypatch.setattr(Members, "load", counting)
    assert ensemble.fit(x, y, keep=tmp_path / "kept.npy") == in_memory
    assert len(runs) == 5
    kept = np.load(tmp_path / "kept.npy", allow_pickle=False)
    assert kept.dtype == np.float32
    members = torch.stack(list(ensemble.member_predictions(x))).numpy()
    np.testing.assert_allclose(kept, members, rtol=5e-6)

    with pytest.raises(ca.EnsembleError, match=r"`keep` must be a file.*directory"):
        ensemble.fit(x, y, keep=tmp_path)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("cosanneal.ensemble.predict.kept.IN_MEMORY", 100)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    seen: list[Any] = []

    def looking(predictions: Any, *arguments: Any, **options: Any) -> Any:
        seen.append((isinstance(predictions, np.memmap), len(list(temporary.iterdir()))))
        return fit(predictions, *arguments, **options)

    monkeypatch.setattr("cosanneal.ensemble.choose.regression.fit", looking)
    assert ensemble.fit(x, y) == in_memory
    assert seen == [(True, 1)]
    assert list(temporary.iterdir()) == []


def test_a_saved_choice_is_taken_over_beside_its_snapshots(tmp_path: Path) -> None:
    model = recorded(tmp_path)
    ensemble = SnapshotEnsemble(model, tmp_path, last=4)
    with pytest.raises(ca.EnsembleError, match=r"There must be a choice to save.*call fit first"):
        ensemble.save()
    choice = ensemble.fit(*data(300, 1), select="weights")
    ensemble.save()
    assert (tmp_path / "ensemble.json").is_file()
    x, _ = data(20, 3)
    other = SnapshotEnsemble(model, tmp_path)
    assert len(other.stores[0].list()) == 5  # the file is no snapshot
    assert other.load() == choice == other.choice
    assert [snapshot.path for snapshot in other.members] == [
        snapshot.path for snapshot in ensemble.members
    ]
    assert torch.equal(other.predict(x), ensemble.predict(x))
    ensemble.save(tmp_path / "elsewhere.json")
    (tmp_path / "ensemble.json").unlink()
    with pytest.raises(ca.EnsembleError, match=r"ensemble.json could not be read"):
        other.load()
    assert other.load(tmp_path / "elsewhere.json") == choice
    fewer = SnapshotEnsemble(model, tmp_path, last=2)
    with pytest.raises(
        ca.EnsembleError,
        match=r"one among 4 snapshots, for an ensemble of 2 by last=2; leave last=",
    ):
        fewer.load(tmp_path / "elsewhere.json")
    assert len(fewer) == 2
    assert SnapshotEnsemble(model, tmp_path, last=5).load(tmp_path / "elsewhere.json") == choice


def test_a_choice_is_refused_where_the_folder_changed(tmp_path: Path) -> None:
    model = recorded(tmp_path / "a", members=3)
    ensemble = SnapshotEnsemble(model, tmp_path / "a")
    ensemble.fit(*data(300, 1))
    ensemble.save()
    before = ensemble.choice

    recorded(tmp_path / "b", members=4)
    shutil.copy(tmp_path / "a" / "ensemble.json", tmp_path / "b")
    grown = SnapshotEnsemble(model, tmp_path / "b")
    with pytest.raises(ca.EnsembleError, match=r"no newer snapshots.*cycle-0003-.*fit the "):
        grown.load()
    assert grown.choice is None
    assert len(grown) == 4

    names = [snapshot.path for snapshot in ensemble.members]
    kept = names[1].read_bytes()
    other = nn.Linear(4, 3)
    with SnapshotRecorder(tmp_path / "c", other, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for _ in range(3):
            recorder.step()
    shutil.copy(tmp_path / "c" / names[1].name, names[1])
    again = SnapshotEnsemble(model, tmp_path / "a")
    with pytest.raises(ca.EnsembleError, match=rf"{names[1].name} must be the one that.*digest"):
        again.load()
    names[1].unlink()
    with pytest.raises(ca.EnsembleError, match=rf"Received: no {names[1].name}; fit the ensemble"):
        SnapshotEnsemble(model, tmp_path / "a").load()
    names[1].write_bytes(kept)
    assert SnapshotEnsemble(model, tmp_path / "a").load() == before
    with pytest.raises(ca.EnsembleError, match=r"with class_axis=1.*with class_axis=-1"):
        SnapshotEnsemble(model, tmp_path / "a", class_axis=1).load()
    members = list(ensemble.member_predictions(data(300, 1)[0]))
    fit(members, data(300, 1)[1]).save(tmp_path / "a" / "arrays.json")
    with pytest.raises(ca.EnsembleError, match=r"must be of snapshots.*one of arrays"):
        again.load(tmp_path / "a" / "arrays.json")


def test_test_labels_have_no_part_in_the_choice(tmp_path: Path) -> None:
    model = recorded(tmp_path)
    x_val, y_val = data(300, 1)
    x_test, y_test = data(300, 2)
    found = []
    for labels in (y_test, 2 - y_test):
        ensemble = SnapshotEnsemble(model, tmp_path)
        ensemble.fit(x_val, y_val, select="greedy")
        ensemble.save()
        record = (tmp_path / "ensemble.json").read_bytes()
        found.append((record, error_rate(ensemble.predict(x_test), labels)))
    assert found[0][0] == found[1][0]
    assert found[0][1] < found[1][1]


def test_outcomes_can_be_fitted_and_what_is_no_mean_cannot(tmp_path: Path) -> None:
    model = recorded(tmp_path)
    x, y = data(300, 1)
    truth = torch.stack([y > 0, y > 1, y < 3], 1).long()
    ensemble = SnapshotEnsemble(model, tmp_path, class_axis=None)
    choice = ensemble.fit(x, truth)
    assert choice.class_axis is None
    torch.testing.assert_close(
        ensemble.predict(x), choice.apply(ensemble.member_predictions(x)), rtol=1e-6, atol=1e-7
    )
    for options in ({"pooling": "vote"}, {"pooling": "logits"}):
        with pytest.raises(ca.EnsembleError, match=r"must pool the mean of probabilities"):
            SnapshotEnsemble(model, tmp_path, **options).fit(x, y)  # type: ignore[arg-type]
        with pytest.raises(ca.EnsembleError, match=r"must pool the mean of probabilities"):
            SnapshotEnsemble(model, tmp_path, **options).load()  # type: ignore[arg-type]


def test_the_user_is_told_how_noisy_a_choice_is(tmp_path: Path) -> None:
    ensemble = SnapshotEnsemble(recorded(tmp_path), tmp_path)
    with pytest.warns(UserWarning, match=r"chosen on 100 validation samples, fewer than 1000"):
        ensemble.fit(*data(100, 1))


class Scaled(nn.Module):
    """Gives its input, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


def scaled(folder: Path, factors: Sequence[float]) -> Scaled:
    model = Scaled()
    with SnapshotRecorder(folder, model, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for factor in factors:
            model.weight.data.fill_(factor)
            recorder.step()
    return model


@pytest.mark.parametrize("sign", [1, -1])
def test_a_confident_outcome_counts_as_much_as_its_opposite(tmp_path: Path, sign: int) -> None:
    """In float32 the sigmoid of 20 is 1, and that of -20 is not 0."""
    ensemble = SnapshotEnsemble(scaled(tmp_path, [1.0, 1.0]), tmp_path, class_axis=None)
    x = torch.full((1000,), 20.0 * sign)
    y = torch.full((1000,), int(sign > 0))
    y[:100] = 1 - y[:100]
    choice = ensemble.fit(x, y)
    plain, *_ = choice.candidates
    # By hand: a tenth is wrong, which costs 20 nats each.
    assert plain.scores["log_loss"] == pytest.approx(0.1 * 20, rel=1e-6)
    # The best temperature makes 0.9 of it.
    assert choice.temperature == pytest.approx(20 / math.log(9), rel=1e-4)
    found = ensemble.predict(x)
    torch.testing.assert_close(found, torch.full((1000,), 0.9 if sign > 0 else 0.1))
    soup = ensemble.average_weights(x, y)
    assert soup.ensemble_scores is not None
    assert soup.ensemble_scores["log_loss"] == pytest.approx(
        choice.candidates[-1].scores["log_loss"]
    )


def test_the_mean_of_logits_is_scored_as_it_is_predicted(tmp_path: Path) -> None:
    model = scaled(tmp_path, [20.0, -18.0])
    ensemble = SnapshotEnsemble(model, tmp_path, class_axis=None, pooling="logits")
    x, y = torch.ones(10), torch.zeros(10, dtype=torch.long)
    predicted = ensemble.predict(x)
    torch.testing.assert_close(predicted, torch.tensor(1.0).sigmoid().expand(10))
    scores = ensemble.average_weights(x, y, barrier=math.inf).ensemble_scores
    assert scores is not None
    assert scores["log_loss"] == pytest.approx(math.log(1 + math.e), rel=1e-6)


def test_half_precision_has_the_temperature_of_its_logits(tmp_path: Path) -> None:
    x = torch.tensor([[20.0, 0.0]]).expand(1000, 2).half()
    y = (torch.arange(1000) < 100).long()
    model = Scaled().half()
    with SnapshotRecorder(tmp_path, model, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        recorder.step()
    ensemble = SnapshotEnsemble(model, tmp_path)
    choice = ensemble.fit(x, y)
    assert choice.temperature == pytest.approx(20 / math.log(9), rel=1e-4)
    assert ensemble.predict(x).dtype == torch.float16
