"""How an ensemble is run must not matter; the adapters' own tests call these."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import cosanneal as ca
from cosanneal.ensemble import (
    SnapshotEnsemble,
    Uncertainty,
    error_rate,
    fit,
    log_loss,
    macro_f1,
    uncertainty,
)
from cosanneal.ensemble.arrays import as_numpy
from cosanneal.ensemble.predict.modes import Mode

MODES: tuple[Mode, ...] = ("stream", "resident", "stacked", "auto")


class Loader:
    """Batches of (x, y), the last one smaller, in the same order in every pass or not."""

    def __init__(self, x: Any, y: Any, size: int, *, shuffled: bool = False) -> None:
        self.x, self.y, self.size = x, y, size
        self.shuffled = shuffled
        self.passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        order = np.arange(len(self.x))
        if self.shuffled:
            order = np.random.default_rng(self.passes).permutation(order)
        for start in range(0, len(order), self.size):
            rows = order[start : start + self.size]
            yield self.x[rows], self.y[rows]


def check_modes(ensemble: SnapshotEnsemble[Any], x: Any, rtol: float = 2e-5) -> None:
    """Every mode gives what a member by itself gives, in one batch or in several."""
    members = [as_numpy(each) for each in ensemble.member_predictions(x)]
    assert len(members) == len(ensemble) > 2
    assert not np.allclose(members[0], members[1], rtol=10 * rtol)
    mean = np.mean(np.stack(members).astype(np.float64), axis=0)
    for mode in MODES:
        for batch_size in (None, 7, None):
            found = ensemble.predict(x, mode=mode, batch_size=batch_size)
            assert type(found) is type(ensemble.predict(x))
            np.testing.assert_allclose(as_numpy(found), mean, rtol=rtol, atol=1e-6, err_msg=mode)
    measured = ensemble.measured
    assert measured.keys() == {"resident", "stacked"}
    assert all(0 < seconds < np.inf for seconds in measured.values())
    ensemble.release()
    np.testing.assert_allclose(
        as_numpy(ensemble.predict(x, mode="resident")), mean, rtol=rtol, atol=1e-6
    )


def check_choice(ensemble: SnapshotEnsemble[Any], x: Any, y: Any) -> None:
    """What was fitted is applied in every mode, and labels may come from the loader."""
    with pytest.warns(UserWarning, match="validation samples"):
        choice = ensemble.fit(x, y, select="greedy")
    expected = as_numpy(choice.apply(ensemble.member_predictions(x)))
    for mode in MODES:
        found = as_numpy(ensemble.predict(x, mode=mode))
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6, err_msg=mode)
    with pytest.warns(UserWarning, match="validation samples"):
        again = ensemble.fit(Loader(x, y, 16), select="greedy")
    assert again.weights == pytest.approx(choice.weights)
    assert again.temperature == pytest.approx(choice.temperature, rel=1e-4)
    with pytest.raises(ca.EnsembleError, match="`y_val` must be given"):
        ensemble.fit(x)


def check_labels(ensemble: SnapshotEnsemble[Any], x: Any, y: Any) -> None:
    """What counts, and how much, counts in choosing, averaging and evaluating, as on arrays."""
    truth = as_numpy(y)
    holes = np.where(np.arange(len(truth)) % 5 == 2, -100, truth)
    weights = np.random.default_rng(0).exponential(size=len(truth))
    options: dict[str, Any] = {"ignore_index": -100, "sample_weight": weights}
    classes = sorted(set(truth.tolist()))
    texts = np.array([f"class {i}" for i in truth])
    named: dict[str, Any] = {
        "classes": [f"class {i}" for i in classes],
        "mask": holes >= 0,
        "sample_weight": weights,
    }
    kept = holes >= 0
    members = [as_numpy(each) for each in ensemble.member_predictions(x)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The ensemble was chosen on")
        expected = fit(
            [p[kept] for p in members],
            truth[kept],
            metric="macro_f1_error",
            sample_weight=weights[kept],
        )
        for labels, given in ((holes, options), (texts, named)):
            found = ensemble.fit(x, labels, metric="macro_f1_error", **given)
            assert found.weights == expected.weights
            assert found.temperature == pytest.approx(expected.temperature, rel=1e-4)
            assert (found.samples, found.metric) == (kept.sum(), "macro_f1_error")
    with pytest.warns(UserWarning, match="seem to be those that the ensemble was chosen on"):
        document = ensemble.evaluate(x, holes, bins=5, **options)
    score = document["chosen"]
    pooled = as_numpy(ensemble.predict(x)).astype(float)
    assert score["log_loss"] == pytest.approx(log_loss(pooled, holes, **options), rel=1e-4)
    f1 = macro_f1(pooled, holes, **options)
    assert score["metrics"]["macro_f1_error"] == pytest.approx(1 - f1, abs=1e-6)
    assert document["choice"] == found.to_dict()
    names = [snapshot.path.name for snapshot in ensemble.members]
    assert [row["name"] for row in document["members"]] == names
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The .* samples to judge on seem to be")
        again = ensemble.evaluate(Loader(x, y, 16), sample_weight=weights, mask=kept)
    assert again["chosen"]["log_loss"] == pytest.approx(score["log_loss"], rel=1e-4)
    with pytest.raises(ca.EnsembleError, match="`y` must be given where `x` is no loader"):
        ensemble.evaluate(x)
    with pytest.raises(ca.EnsembleError, match=r"`labels` must be integers.*ignore_index=-100"):
        ensemble.evaluate(x, holes)
    ensemble.choice = None
    soup = ensemble.average_weights(x, holes, train_data=x, barrier=100.0, **options)
    assert soup.ensemble_scores is not None
    mean = np.mean(members, axis=0, dtype=float)
    for name, scored in (("log_loss", log_loss), ("error", error_rate)):
        assert soup.ensemble_scores[name] == pytest.approx(scored(mean, holes, **options), rel=1e-4)


def check_loaders(ensemble: SnapshotEnsemble[Any], x: Any, y: Any) -> None:
    """A loader gives what its arrays give; what would mix samples up is refused."""
    expected = as_numpy(ensemble.predict(x))
    for mode in MODES:
        loader = Loader(x, y, 16)
        found = as_numpy(ensemble.predict(loader, mode=mode))
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6, err_msg=mode)
        assert loader.passes == (len(ensemble) if mode == "stream" else 1)
        # Once over, nothing more comes from it.
        once = (batch for batch in Loader(x, y, 16))
        if mode == "stream":
            with pytest.raises(ca.EnsembleError, match="over after one pass"):
                ensemble.predict(once)
        else:
            found = as_numpy(ensemble.predict(once, mode=mode))
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
    whole = next(iter(ensemble.member_predictions(Loader(x, y, 16))))
    assert as_numpy(whole).shape == expected.shape
    with pytest.raises(ca.EnsembleError, match=r"same batches in every pass.*another batch 0"):
        ensemble.predict(Loader(x, y, 16, shuffled=True))
    with pytest.raises(ca.EnsembleError, match="at least one batch"):
        ensemble.predict(Loader(x[:0], y[:0], 16))
    with pytest.raises(ca.EnsembleError, match="`batch_size` must be left out"):
        ensemble.predict(Loader(x, y, 16), batch_size=4)
    with pytest.raises(ca.EnsembleError, match="`mode` must be"):
        ensemble.predict(x, mode="fast")  # type: ignore[arg-type]
    refused: Callable[[Any], Any] = ensemble.predict
    nothing: Any
    for nothing in ({"x": "x"}, "x", 5, {}, (), [], iter([{"x": 1}]), iter([3.0])):
        with pytest.raises(ca.EnsembleError, match="`x` must"):
            refused(nothing)


def check_memory(ensemble: SnapshotEnsemble[Any], x: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for the members, or without knowing, `auto` streams."""
    for free in (10, None):
        monkeypatch.setattr(type(ensemble.model), "free_memory", lambda _, free=free: free)
        ensemble.predict(x, mode="auto")
        assert ensemble.measured == {}
        assert ensemble.held == 0
    # Members that are kept for where the model was do not count.
    ensemble.predict(x, mode="resident")
    monkeypatch.setattr(type(ensemble.model), "place", lambda _: "elsewhere")
    ensemble.predict(x, mode="auto")
    assert ensemble.measured == {}
    assert ensemble.held == 0


def check_uncertainty(ensemble: SnapshotEnsemble[Any], x: Any, y: Any) -> None:
    """In every mode, what the members' own predictions give; before and after a choice."""
    names = ("entropy", "expected_entropy", "mutual_information", "variation_ratio")
    for fitted in (False, True):
        members = [as_numpy(each) for each in ensemble.member_predictions(x)]
        weights = None
        if fitted:
            with pytest.warns(UserWarning, match="validation samples"):
                choice = ensemble.fit(x, y)
            # A member that is left out, and a temperature that changes the prediction alone.
            weights = (0.0, 0.5, 0.3, 0.2, *[0.0] * (len(members) - 4))
            ensemble.choice = replace(choice, weights=weights, temperature=1.7)
        expected = uncertainty(members, weights)
        assert as_numpy(expected.mutual_information).max() > 1e-3
        like = ensemble.predict(x)
        for mode in MODES:
            for batch_size in (None, 7):
                found = ensemble.predict_with_uncertainty(x, mode=mode, batch_size=batch_size)
                assert isinstance(found, Uncertainty)
                assert type(found.entropy) is type(like)
                assert found.entropy.dtype == like.dtype
                theirs = as_numpy(ensemble.predict(x, mode=mode, batch_size=batch_size))
                np.testing.assert_allclose(as_numpy(found.probabilities), theirs, atol=2e-7)
                for name in names:
                    np.testing.assert_allclose(
                        as_numpy(getattr(found, name)),
                        as_numpy(getattr(expected, name)),
                        rtol=1e-4,
                        atol=2e-6,
                        err_msg=name,
                    )
        ensemble.choice = None
