"""The seam: what a framework must bring, shown by one of numpy alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cosanneal as ca
from cosanneal.ensemble import SnapshotEnsemble, ValueUncertainty, log_loss
from cosanneal.ensemble.predict.batches import Batches
from cosanneal.snapshots.ranks import ALONE
from tests.shared.classes import check_classes
from tests.shared.modes import (
    MODES,
    check_choice,
    check_labels,
    check_loaders,
    check_memory,
    check_modes,
    check_uncertainty,
)
from tests.shared.recording import EVERY_STEP, ArrayCapture, ArrayRecorder


class LinearModel:
    """`x @ w + b` in numpy: all that another framework's adapter has to be."""

    framework = "numpy"
    ranks = ALONE

    def layout(self) -> dict[str, Any]:
        return {"w": ((4, 3), "float32"), "b": ((3,), "float32")}

    def same_as(self, other: object) -> bool:
        return other is self

    def place(self) -> object:
        return None

    def own(self) -> ArrayCapture:
        own = ArrayCapture()
        own.weights = drawn(0)
        return own

    def is_array(self, thing: object) -> bool:
        return isinstance(thing, np.ndarray)

    def output_names(self) -> Sequence[str]:
        return ()

    def says_outputs(self, output: Any = None) -> None: ...

    def load(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        return dict(tensors)

    @contextlib.contextmanager
    def running(self, pick: Any) -> Iterator[Callable[[Any, Any], Any]]:
        yield lambda weights, batch: pick(batch[0] @ weights["w"] + weights["b"])

    def stack(self, members: Sequence[Callable[[], Any]], pick: Any) -> Callable[[Any], Any]:  # noqa: ARG002
        loaded = [load() for load in members]
        w, b = (np.stack([each[name] for each in loaded]) for name in ("w", "b"))
        return lambda batch: batch[0] @ w + b[:, None]

    def batches(self, x: Any, batch_size: int | None, **options: Any) -> Batches:
        return Batches(x, batch_size=batch_size, arrays=np.ndarray, convert=np.asarray, **options)

    def join(self, outputs: Sequence[Any]) -> Any:
        return np.concatenate(outputs)

    def wait(self, outputs: Any) -> None: ...

    def free_memory(self) -> int | None:
        return 1 << 30

    def running_statistics(self, members: object) -> Sequence[str]:  # noqa: ARG002
        return ()

    def estimate(self, weights: Any, layers: object, batches: object) -> Any:  # noqa: ARG002
        return weights

    def same_randomness(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def export(self, weights: Any) -> Any:
        return weights


def drawn(seed: int) -> dict[str, Any]:
    """Weights near each other: one valley."""
    base, random = np.random.default_rng(0), np.random.default_rng(seed)
    shapes = {"w": (4, 3), "b": (3,)}
    return {
        name: (base.normal(size=shape) + 0.1 * random.normal(size=shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


@pytest.fixture
def ensemble(tmp_path: Path) -> SnapshotEnsemble[Any]:
    with ArrayRecorder(tmp_path, EVERY_STEP) as recorder:
        for seed in range(1, 5):
            recorder.step(drawn(seed))
    return SnapshotEnsemble(LinearModel(), tmp_path)


def data() -> tuple[Any, Any]:
    x = np.random.default_rng(7).normal(size=(40, 4)).astype(np.float32)
    return x, np.arange(40) % 3


def test_it_predicts_in_every_mode(ensemble: SnapshotEnsemble[Any]) -> None:
    x, _ = data()
    logits = np.stack([x @ w["w"] + w["b"] for w in map(drawn, range(1, 5))]).astype(float)
    powers = np.exp(logits)
    expected = (powers / powers.sum(-1, keepdims=True)).mean(0)
    np.testing.assert_allclose(ensemble.predict(x), expected, rtol=1e-6)
    check_modes(ensemble, x)
    check_loaders(ensemble, *data())


def test_it_is_fitted_and_the_choice_is_applied(ensemble: SnapshotEnsemble[Any]) -> None:
    check_choice(ensemble, *data())


def test_its_classes_are_those_of_predict(ensemble: SnapshotEnsemble[Any]) -> None:
    check_classes(ensemble, *data())


def test_it_says_how_sure_it_is(ensemble: SnapshotEnsemble[Any]) -> None:
    check_uncertainty(ensemble, *data())
    with pytest.raises(ca.EnsembleError, match=r"for its uncertainty.*pooling='vote'; give"):
        SnapshotEnsemble(
            LinearModel(), ensemble.stores[0], pooling="vote"
        ).predict_with_uncertainty(object())


@pytest.mark.parametrize("mode", MODES)
def test_of_values_it_says_how_far_they_differ(ensemble: SnapshotEnsemble[Any], mode: Any) -> None:
    values = SnapshotEnsemble(LinearModel(), ensemble.stores[0], outputs="values")
    x, _ = data()
    found = values.predict_with_uncertainty(x, mode=mode, batch_size=7)
    assert isinstance(found, ValueUncertainty)
    members = np.stack([x @ w["w"] + w["b"] for w in map(drawn, range(1, 5))]).astype(float)
    np.testing.assert_allclose(found.mean, members.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.epistemic, members.var(0), rtol=1e-3, atol=1e-6)
    assert found.aleatoric is None


def test_labels_count_as_they_are_said_to(ensemble: SnapshotEnsemble[Any]) -> None:
    check_labels(ensemble, *data())


def test_its_weights_are_averaged(ensemble: SnapshotEnsemble[Any]) -> None:
    x, y = data()
    found = ensemble.average_weights(x, y, barrier=1)
    members = [drawn(seed) for seed in range(1, 5)]
    for name, value in found.weights.items():
        mean = np.mean([member[name].astype(float) for member in members], axis=0)
        np.testing.assert_array_equal(value, mean.astype(np.float32))
    logits = x @ found.weights["w"] + found.weights["b"]
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert found.scores is not None
    assert found.scores["log_loss"] == pytest.approx(log_loss(p, y), rel=1e-5)


def test_members_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP) as recorder:
        recorder.step({**drawn(1), "more": np.zeros(1)})
    with pytest.raises(ca.EnsembleError, match=r"its tensor 'more' is not in the model"):
        SnapshotEnsemble(LinearModel(), tmp_path).predict(data()[0])


class DoublingModel(LinearModel):
    """Gives two rows for each sample, as Keras does where two replicas share a batch wrongly."""

    @contextlib.contextmanager
    def running(self, pick: Any) -> Iterator[Callable[[Any, Any], Any]]:
        with super().running(pick) as run:
            yield lambda weights, batch: np.repeat(run(weights, batch), 2, axis=0)

    def stack(self, members: Sequence[Callable[[], Any]], pick: Any) -> Callable[[Any], Any]:
        run = super().stack(members, pick)
        return lambda batch: np.repeat(run(batch), 2, axis=1)


@pytest.mark.parametrize("mode", MODES)
def test_an_output_of_other_rows_than_samples_is_refused(
    ensemble: SnapshotEnsemble[Any], mode: Any
) -> None:
    doubling = SnapshotEnsemble(DoublingModel(), ensemble.stores[0])
    x, y = data()
    message = r"row for each sample.*an output of shape \(80, 3\) for 40 samples"
    for call in (
        lambda: doubling.predict(x, mode=mode),
        lambda: list(doubling.member_predictions(x)),
        lambda: doubling.fit(x, y),
        lambda: doubling.average_weights(x, y),
    ):
        with pytest.raises(ca.EnsembleError, match=message):
            call()


def test_auto_streams_where_the_members_do_not_fit(
    ensemble: SnapshotEnsemble[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_memory(ensemble, data()[0], monkeypatch)
    assert set(MODES) == {"stream", "resident", "stacked", "auto"}
