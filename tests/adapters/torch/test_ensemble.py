"""Predicting with what was recorded of a torch model."""

from __future__ import annotations

import multiprocessing
import pickle
import re
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from torch import nn

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder, load_snapshot
from cosanneal.ensemble import folder_results
from cosanneal.ensemble.predict.pooling import Pooling
from cosanneal.snapshots import SnapshotStore
from tests.shared.modes import MODES
from tests.shared.pickled import check_pickled
from tests.shared.torch_members import recorded
from tests.shared.torch_runs import Training, data, record_once, small_net, trained


def test_the_prediction_is_the_mean_of_the_members_softmax(tmp_path: Path) -> None:
    model = trained(tmp_path)
    x, _ = data(30)
    ensemble = SnapshotEnsemble(model, tmp_path, last=3)
    # The oracle loads each snapshot into a model of its own, in numpy float64.
    expected = torch.zeros(30, 3, dtype=torch.float64)
    for snapshot in SnapshotStore(tmp_path).list()[-3:]:
        member = small_net(5)
        member.load_state_dict(snapshot.load(framework="pt"))
        member.eval()
        with torch.no_grad():
            logits = member(x).double()
        powers = torch.exp(logits - logits.max(1, keepdim=True).values)
        expected += powers / powers.sum(1, keepdim=True) / 3
    probabilities = ensemble.predict(x)
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.double(), expected, rtol=1e-6, atol=1e-7)
    for batch_size in (1, 7, 30, 100):
        torch.testing.assert_close(
            ensemble.predict(x, batch_size=batch_size), probabilities, rtol=2e-6, atol=1e-7
        )
    members = torch.stack(list(ensemble.member_predictions(x)))
    assert len(members) == len(ensemble) == 3
    torch.testing.assert_close(members.mean(0), probabilities, rtol=2e-6, atol=0)
    # Of its logits the probabilities are exact: rounded once, after the mean.
    np.testing.assert_array_max_ulp(probabilities.numpy(), expected.float().numpy(), 1)


@pytest.mark.filterwarnings("ignore:The ensemble was chosen on 30 validation:UserWarning")
def test_a_run_at_a_url_predicts_as_a_local_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSANNEAL_CACHE", str(tmp_path / "cache"))
    url, (x, y) = "memory://test-torch/run", data(30)
    try:
        local = SnapshotEnsemble(trained(tmp_path / "local"), tmp_path / "local", last=3)
        model = trained(url)
        ensemble = SnapshotEnsemble(model, url, last=3)
        for mode in ("stream", "stacked"):
            assert torch.equal(
                ensemble.predict(x, mode=mode),
                local.predict(x, mode=mode),
            )
        several = SnapshotEnsemble(
            model,
            [url, tmp_path / "local"],
            members=["run/cycle-0003-step-0000000020", "local/cycle-0002-step-0000000015"],
        )
        assert len(several) == 2
        load_snapshot(model, f"{url}/cycle-0003-step-0000000020.safetensors")
        assert torch.equal(
            model.state_dict()["0.weight"],
            SnapshotStore(url).list()[3].load(framework="pt")["0.weight"],
        )
        assert ensemble.fit(x, y).weights == local.fit(x, y).weights
        with pytest.raises(ca.EnsembleError, match=r"not of one folder.*for folders memory:"):
            several.load()
        ensemble.save()
        there = SnapshotEnsemble(model, url, last=3)
        choice = there.load()
        assert choice == ensemble.choice
        assert torch.equal(there.predict(x), ensemble.predict(x))
        assert folder_results(url)["choice"] == choice.to_dict()
        ensemble.save(tmp_path / "choice.json")
        loaded = SnapshotEnsemble(model, url, last=3)
        loaded.load(tmp_path / "choice.json")
        assert torch.equal(loaded.predict(x), local.predict(x))
    finally:
        fsspec.filesystem("memory").store.clear()


def test_values_are_averaged_as_they_are(tmp_path: Path) -> None:
    model = trained(tmp_path)
    x, _ = data(9)
    ensemble = SnapshotEnsemble(model, tmp_path, last=2, outputs="values")
    members = torch.stack(list(ensemble.member_predictions(x)))
    assert (members < 0).any()  # no softmax
    torch.testing.assert_close(ensemble.predict(x), members.double().mean(0).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("pooling", ["probabilities", "logits", "log-probabilities", "vote"])
def test_the_members_are_pooled_as_asked(
    tmp_path: Path, pooling: Pooling, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 4).to(dtype)
    with SnapshotRecorder(tmp_path, model, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for _ in range(3):
            with torch.no_grad():
                model.weight.normal_().mul_(8)  # whose smallest softmax float16 does not hold
            recorder.step()
    x = torch.randn(6, 3).to(dtype)
    logits = [
        nn.functional.linear(x, w["weight"], w["bias"]).double()
        for w in (snapshot.load(framework="pt") for snapshot in SnapshotStore(tmp_path).list())
    ]
    mean = torch.stack([z.softmax(-1) for z in logits]).mean(0)
    expected = {
        "probabilities": mean,
        "logits": torch.stack(logits).mean(0).softmax(-1),
        "log-probabilities": mean.log(),
        "vote": torch.stack([nn.functional.one_hot(z.argmax(-1), 4) for z in logits])
        .double()
        .mean(0),
    }[pooling]
    ensemble = SnapshotEnsemble(model, tmp_path, pooling=pooling)
    found = ensemble.predict(x)
    assert found.dtype == dtype
    # Members' probabilities are rounded to the dtype; logits are not rounded again.
    unit = torch.finfo(dtype).eps
    tolerance = unit * (expected.abs().max() if pooling == "log-probabilities" else 1)
    torch.testing.assert_close(found.double(), expected, rtol=unit, atol=float(tolerance))
    for z, member in zip(logits, ensemble.member_predictions(x), strict=True):
        torch.testing.assert_close(member.double(), z.softmax(-1), rtol=unit, atol=unit)


@pytest.mark.parametrize("pooling", ["probabilities", "logits", "log-probabilities", "vote"])
@pytest.mark.parametrize("outcomes", [1, 3])
def test_logits_of_outcomes_are_pooled_through_a_sigmoid(
    tmp_path: Path, outcomes: int, pooling: Pooling
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, outcomes), nn.Flatten(0) if outcomes == 1 else nn.Identity())
    with SnapshotRecorder(tmp_path, model, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for _ in range(3):
            nn.init.normal_(model[0].weight)  # type: ignore[arg-type]
            recorder.step()
    x = torch.randn(6, 3)
    logits = []
    for snapshot in SnapshotStore(tmp_path).list():
        model.load_state_dict(snapshot.load(framework="pt"))
        logits.append(model(x).detach().double())
    shares = torch.stack(logits).sigmoid()
    expected = {
        "probabilities": shares.mean(0),
        "logits": torch.stack(logits).mean(0).sigmoid(),
        "log-probabilities": shares.mean(0).log(),
        "vote": (shares > 0.5).double().mean(0),
    }[pooling]
    found = SnapshotEnsemble(model, tmp_path, class_axis=None, pooling=pooling).predict(x)
    assert found.shape == ((6,) if outcomes == 1 else (6, 3))
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)


def test_a_regression_has_a_variance_between_its_members(tmp_path: Path) -> None:
    model = trained(tmp_path)
    x, _ = data()
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
    mean, variance = ensemble.predict_with_variance(x)
    members = torch.stack(list(ensemble.member_predictions(x))).double()
    torch.testing.assert_close(mean, ensemble.predict(x), rtol=2e-7, atol=1e-10)
    torch.testing.assert_close(mean.double(), members.mean(0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        variance.double(), members.var(0, unbiased=False), rtol=1e-6, atol=1e-9
    )
    with pytest.raises(ca.EnsembleError, match=r"must have outputs='values'.*'logits'"):
        SnapshotEnsemble(model, tmp_path, outputs="logits").predict_with_variance(x)
    with pytest.raises(ca.EnsembleError, match=r"`pooling` must be left out.*pooling='vote'"):
        SnapshotEnsemble(model, tmp_path, outputs="values", pooling="vote")
    with pytest.raises(ca.EnsembleError, match=r"`pooling` must be 'probabilities'"):
        SnapshotEnsemble(model, tmp_path, pooling="mean")  # type: ignore[arg-type]


def test_the_class_axis_can_be_given(tmp_path: Path) -> None:
    model = nn.Conv2d(1, 4, 3, padding=1)
    record_once(tmp_path, model)
    probabilities = SnapshotEnsemble(model, tmp_path, class_axis=1).predict(torch.randn(2, 1, 5, 5))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2, 5, 5))


def test_ensembles_that_cannot_be_are_refused(tmp_path: Path) -> None:
    model = small_net()
    missing = re.escape(str(tmp_path / "none"))
    with pytest.raises(ca.EnsembleError, match=rf"{missing} must hold at least one snapshot"):
        SnapshotEnsemble(model, tmp_path / "none")
    record_once(tmp_path, model)
    with pytest.raises(ca.EnsembleError, match=r"the 3 snapshots asked for\. Received: 1"):
        SnapshotEnsemble(model, tmp_path, last=3)
    with pytest.raises(ca.EnsembleError, match=r"`last` must be a positive integer\. Rec"):
        SnapshotEnsemble(model, tmp_path, last=0)
    with pytest.raises(ca.EnsembleError, match=r"`outputs` must be 'logits'.*'softmax'"):
        SnapshotEnsemble(model, tmp_path, outputs="softmax")  # type: ignore[arg-type]
    x, _ = data(3)
    wider = nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9))
    with pytest.raises(ca.EnsembleError, match=r"must fit the model: its tensor '0.weight' is"):
        SnapshotEnsemble(wider, tmp_path).predict(x)
    shorter = nn.Sequential(nn.Linear(4, 8))
    with pytest.raises(ca.EnsembleError, match=r"its tensor '1\.\w+' is not in the model"):
        SnapshotEnsemble(shorter, tmp_path).predict(x)
    longer = nn.Sequential(*small_net(), nn.Linear(3, 3))
    with pytest.raises(ca.EnsembleError, match=r"the model's tensor '5.weight' is not in it"):
        SnapshotEnsemble(longer, tmp_path).predict(x)
    single = nn.Linear(4, 1)
    record_once(tmp_path / "single", single)
    with pytest.raises(ca.EnsembleError, match=r"shape .* could be several things.*values"):
        SnapshotEnsemble(single, tmp_path / "single").predict(x)


def test_a_damaged_member_is_not_predicted_with(tmp_path: Path) -> None:
    model = small_net()
    (snapshot,) = record_once(tmp_path, model).list()
    content = bytearray(snapshot.path.read_bytes())
    content[-1] ^= 1
    snapshot.path.write_bytes(content)
    with pytest.raises(ca.SnapshotError, match=r"is damaged.*does not match its digest"):
        SnapshotEnsemble(model, tmp_path).predict(torch.zeros(2, 4))


def test_two_runs_are_one_ensemble_by_a_list_or_a_sum(tmp_path: Path) -> None:
    model = trained(tmp_path / "a")
    run = Training(tmp_path / "b")
    with torch.no_grad():  # or it would be the same run, whose snapshots are the same
        next(run.model.parameters()).mul_(-1)
    for _ in range(20):
        run.update()
    run.recorder.close()
    x, _ = data()
    first, second = (SnapshotEnsemble(model, tmp_path / name) for name in "ab")
    both = SnapshotEnsemble(model, [tmp_path / "a", tmp_path / "b"])
    expected = (first.predict(x).double() + second.predict(x).double()) / 2
    for each in (both, first + second):
        assert isinstance(each, SnapshotEnsemble)
        assert len(each) == 8
        for mode in MODES:
            torch.testing.assert_close(each.predict(x, mode=mode).double(), expected)
    chosen = SnapshotEnsemble(model, [second.members[3].path, first.members[1]])
    assert [each.path.parent.name for each in chosen.members] == ["b", "a"]
    with pytest.raises(ca.EnsembleError, match="of one model to be added"):
        first + SnapshotEnsemble(small_net(), tmp_path / "b")


@pytest.mark.filterwarnings("ignore:The ensemble was chosen on:UserWarning")
def test_an_ensemble_goes_to_another_process(tmp_path: Path) -> None:
    model = trained(tmp_path)
    x, y = data(30)
    ensemble = SnapshotEnsemble(model, tmp_path, members=lambda one: one.cycle != 1)
    assert len(ensemble) == len(SnapshotStore(tmp_path).list()) - 1
    check_pickled(ensemble, x, y)
    expected = ensemble.predict(x)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        torch.testing.assert_close(pool.apply(ensemble.predict, (x,)), expected, rtol=0, atol=0)
    # A choice among the members that a function picked is read by their names.
    ensemble.save()
    other = pickle.loads(pickle.dumps(ensemble))  # noqa: S301
    other.load()
    torch.testing.assert_close(other.predict(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("method", "wrong", "said"),
    [
        ("fit", "selct", "SnapshotEnsemble.fit has no option 'selct'; did you mean 'select'?"),
        ("fit", "kep", "SnapshotEnsemble.fit has no option 'kep'; did you mean 'keep'?"),
        ("fit", "ignor_index", "did you mean 'ignore_index'?"),
        ("evaluate", "bin", "SnapshotEnsemble.evaluate has no option 'bin'; did you mean 'bins'?"),
        ("average_weights", "sop", "SnapshotEnsemble.average_weights has no option 'sop'; did you"),
        ("predict", "batchsize", "predict has no option 'batchsize'; did you mean 'batch_size'?"),
        (
            "predict_classes",
            "exakt",
            "_classes has no option 'exakt'; did you mean 'exact'?",
        ),
        ("predict_with_variance", "batchsize", "SnapshotEnsemble.predict_with_variance has no opt"),
        ("predict_with_uncertainty", "mod", "SnapshotEnsemble.predict_with_uncertainty has no opt"),
    ],
)
def test_an_option_that_there_is_not_is_said(
    tmp_path: Path, method: str, wrong: str, said: str
) -> None:
    model = nn.Linear(2, 3)
    recorded(tmp_path, [model])
    with pytest.raises(TypeError, match=re.escape(said)):
        getattr(SnapshotEnsemble(model, tmp_path), method)(torch.zeros(4, 2), **{wrong: 1})
    given: dict[str, Any] = {"lst": 1}
    with pytest.raises(TypeError, match=r"^SnapshotEnsemble has no option 'lst'; .*'last'\?$"):
        SnapshotEnsemble(model, tmp_path, **given)
