"""Predicting with what was recorded of a Keras model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import cosanneal as ca
from cosanneal.adapters.keras import SnapshotEnsemble, SnapshotRecorder
from cosanneal.snapshots import SnapshotStore
from tests.shared.keras_runs import SCHEDULE, data, fit, record_once, small_net, trained, wider
from tests.shared.modes import MODES
from tests.shared.pickled import check_pickled


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def by_numpy(snapshot: Any, x: Any) -> Any:
    """The logits of a snapshot of small_net, in float64."""
    w = {name: value.astype(float) for name, value in snapshot.load().items()}
    x = x.astype(float) @ w["dense/kernel"] + w["dense/bias"]
    x = (x - w["batch_normalization/moving_mean"]) / np.sqrt(
        w["batch_normalization/moving_variance"] + 1e-3
    )
    x = np.maximum(x * w["batch_normalization/gamma"] + w["batch_normalization/beta"], 0)
    return x @ w["dense_1/kernel"] + w["dense_1/bias"]


def test_the_prediction_is_the_mean_of_the_members_softmax(tmp_path: Path) -> None:
    model = trained(tmp_path)
    x, _ = data(30)
    ensemble = SnapshotEnsemble(model, tmp_path, last=3)
    members = SnapshotStore(tmp_path).list()[-3:]
    expected = np.mean([softmax(by_numpy(snapshot, x)) for snapshot in members], axis=0)
    probabilities = ensemble.predict(x)
    assert isinstance(probabilities, np.ndarray)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected, rtol=2e-5, atol=1e-7)
    for batch_size in (1, 7, 30, 100):
        again = ensemble.predict(keras.ops.convert_to_tensor(x), batch_size=batch_size)
        np.testing.assert_allclose(again, probabilities, rtol=5e-6, atol=1e-7)
    assert len(ensemble) == 3
    # Of its logits the probabilities are exact: rounded once, after the mean.
    own = SnapshotEnsemble(model, tmp_path, last=3, outputs="values")
    logits = [each.astype(np.float64) for each in own.member_predictions(x)]
    mean = np.mean([softmax(each) for each in logits], axis=0).astype(np.float32)
    np.testing.assert_array_max_ulp(probabilities, mean, 1)
    np.testing.assert_allclose(np.mean([*ensemble.member_predictions(x)], 0), mean, rtol=2e-6)


def test_a_run_at_a_url_predicts_as_a_local_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    monkeypatch.setenv("COSANNEAL_CACHE", str(tmp_path / "cache"))
    url, (x, y) = "memory://test-keras/run", data(30)
    try:
        model = small_net()
        there, here = (SnapshotRecorder(each, SCHEDULE) for each in (url, tmp_path / "local"))
        fit(model, there, here, updates=10)
        fit(model, there, here, updates=20, initial_epoch=2)  # between which both folders are free
        assert [each.step for each in there.store.list()] == [5, 10, 15, 20]
        files = fsspec.filesystem("memory")
        for path in (tmp_path / "local").iterdir():
            assert files.cat_file(f"/test-keras/run/{path.name}") == path.read_bytes()
        ensemble = SnapshotEnsemble(model, url, last=3)
        local = SnapshotEnsemble(model, tmp_path / "local", last=3)
        assert np.array_equal(ensemble.predict(x), local.predict(x))
        with pytest.warns(UserWarning, match="The ensemble was chosen on 30 validation"):
            ensemble.fit(x, y)
        ensemble.save()
        assert SnapshotEnsemble(model, url, last=3).load() == ensemble.choice
    finally:
        fsspec.filesystem("memory").store.clear()


def test_values_are_averaged_as_they_are(tmp_path: Path) -> None:
    model = trained(tmp_path)
    x, _ = data(9)
    ensemble = SnapshotEnsemble(model, tmp_path, last=2, outputs="values")
    members = np.stack(list(ensemble.member_predictions(x)))
    assert (members < 0).any()  # no softmax
    np.testing.assert_allclose(ensemble.predict(x), members.mean(0), rtol=1e-6, atol=1e-7)


def test_ensembles_that_cannot_be_are_refused(tmp_path: Path) -> None:
    model = trained(tmp_path)
    x, _ = data(3)
    with pytest.raises(ca.EnsembleError, match=r"must hold at least one snapshot"):
        SnapshotEnsemble(model, tmp_path / "none")
    with pytest.raises(ca.EnsembleError, match=r"the 5 snapshots asked for\. Received: 4"):
        SnapshotEnsemble(model, tmp_path, last=5)
    with pytest.raises(ca.EnsembleError, match=r"`outputs` must be 'logits'.*'softmax'"):
        SnapshotEnsemble(model, tmp_path, outputs="softmax")  # type: ignore[arg-type]
    for unfit in (None, keras.Sequential([layers.Dense(3)])):
        with pytest.raises(ca.EnsembleError, match=r"`model` must be a keras.Model that is built"):
            SnapshotEnsemble(unfit, tmp_path)
    with pytest.raises(ca.EnsembleError, match=r"its tensor 'dense/kernel' is float32 of .*\(4, 9"):
        SnapshotEnsemble(wider(), tmp_path).predict(x)
    longer = keras.Sequential([keras.Input((4,)), *small_net().layers, layers.Dense(3)])
    with pytest.raises(ca.EnsembleError, match=r"the model's tensor 'dense_2/kernel' is not in it"):
        SnapshotEnsemble(longer, tmp_path).predict(x)
    shorter = keras.Sequential([keras.Input((4,)), *small_net().layers[:1]])
    with pytest.raises(ca.EnsembleError, match=r"its tensor '\w+/\w+' is not in the model"):
        SnapshotEnsemble(shorter, tmp_path).predict(x)
    double = keras.Model(model.inputs[0], [*model.outputs] * 2)
    message = r"must return one array.*a list with 'dense_\d+' and 'dense_\d+_1'; give output="
    with pytest.raises(ca.EnsembleError, match=message):
        SnapshotEnsemble(double, tmp_path).predict(x)
    single = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    record_once(tmp_path / "single", single)
    with pytest.raises(ca.EnsembleError, match=r"shape .* could be several things.*values"):
        SnapshotEnsemble(single, tmp_path / "single").predict(x)


def test_a_damaged_member_is_not_predicted_with(tmp_path: Path) -> None:
    model = trained(tmp_path)
    snapshot = SnapshotStore(tmp_path).list()[-1]
    content = bytearray(snapshot.path.read_bytes())
    content[-1] ^= 1
    snapshot.path.write_bytes(content)
    with pytest.raises(ca.SnapshotError, match=r"is damaged.*does not match its digest"):
        SnapshotEnsemble(model, tmp_path, last=1).predict(data(2)[0])


def test_two_runs_are_one_ensemble_by_a_list_or_a_sum(tmp_path: Path) -> None:
    model = trained(tmp_path / "a")
    other = small_net(seed=3)
    fit(other, SnapshotRecorder(tmp_path / "b", SCHEDULE))
    x, _ = data()
    first, second = (SnapshotEnsemble(model, tmp_path / name) for name in "ab")
    expected = (first.predict(x).astype(float) + second.predict(x)) / 2
    for each in (SnapshotEnsemble(model, [tmp_path / "a", tmp_path / "b"]), first + second):
        assert len(each) == 8
        for mode in MODES:
            np.testing.assert_allclose(each.predict(x, mode=mode), expected, atol=1e-6)
    with pytest.raises(ca.EnsembleError, match="of one model to be added"):
        first + SnapshotEnsemble(other, tmp_path / "b")


@pytest.mark.filterwarnings("ignore:The ensemble was chosen on:UserWarning")
def test_an_ensemble_goes_to_another_process(tmp_path: Path) -> None:
    model = trained(tmp_path)
    x, y = data(30)
    ensemble = SnapshotEnsemble(model, tmp_path, members=lambda one: one.cycle != 1)
    assert len(ensemble) == len(SnapshotStore(tmp_path).list()) - 1
    check_pickled(ensemble, x, y)
