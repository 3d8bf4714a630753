"""What goes into a function of params: dicts and other pytrees, arrays of other kinds."""

from __future__ import annotations

import math
from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder
from tests.shared.jax_runs import EVERY_STEP
from tests.shared.modes import MODES

pytestmark = pytest.mark.filterwarnings("ignore:The ensemble was chosen on:UserWarning")


def recorded(folder: Path, members: int = 3) -> list[dict[str, Any]]:
    """Snapshots of params near each other, which are returned."""
    random = np.random.default_rng(0)
    base = {"left": random.normal(size=(2, 3)), "right": random.normal(size=(5, 3))}
    found = []
    with SnapshotRecorder(folder, EVERY_STEP) as recorder:
        for _ in range(members):
            found.append(
                {
                    name: jnp.asarray(leaf + 0.3 * random.normal(size=leaf.shape), jnp.float32)
                    for name, leaf in base.items()
                }
            )
            recorder.step(found[-1])
    return found


def data(samples: int = 40) -> tuple[Any, Any, Any]:
    random = np.random.default_rng(1)
    a = random.normal(size=(samples, 2)).astype(np.float32)
    b = random.normal(size=(samples, 5)).astype(np.float32)
    return a, b, np.arange(samples) % 3


def apply(params: Any, batch: Any) -> Any:
    assert {*batch} == {"a", "b"}
    return batch["a"] @ params["left"] + batch["b"] @ params["right"]


def by_hand(members: list[Any], run: Callable[[Any], Any]) -> Any:
    """A plain loop in numpy: the mean of the softmaxes."""
    rows = []
    for each in members:
        powers = np.exp(np.asarray(run(each), np.float64))
        rows.append(powers / powers.sum(-1, keepdims=True))
    return np.mean(rows, axis=0)


def check(found: Any, expected: Any) -> None:
    assert isinstance(found, jax.Array)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


class Loader:
    """Batches of some columns, which a function makes of them."""

    def __init__(self, make: Callable[..., Any], *columns: Any) -> None:
        self.make, self.columns = make, columns

    def __iter__(self) -> Any:
        for i in range(0, 40, 16):
            yield self.make(*(each[i : i + 16] for each in self.columns))


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_dicts_go_in_as_they_are_without_their_labels(
    tmp_path: Path, mode: Any, jitted: bool
) -> None:
    members = recorded(tmp_path)
    ensemble = SnapshotEnsemble(jax.jit(apply) if jitted else apply, tmp_path, members[0])
    a, b, y = data()
    expected = by_hand(members, lambda params: apply(params, {"a": a, "b": b}))
    for x in (
        {"a": a, "b": b},
        {"b": jnp.asarray(b), "labels": y, "a": a.tolist()},
        UserDict(a=a, b=b, y=y),
        Loader(lambda a, b, y: {"a": a, "b": b, "label": y}, a, b, y),
        Loader(lambda a, b, y: ({"a": a, "b": b}, y), a, b, y),
        [{"a": a, "b": b}],
    ):
        check(ensemble.predict(x, mode=mode), expected)
    check(ensemble.predict({"a": a, "b": b, "y": y}, mode=mode, batch_size=7), expected)


def test_an_apply_fn_may_write_to_its_dict(tmp_path: Path) -> None:
    members = recorded(tmp_path)
    a, b, _ = data()

    def popping(params: Any, batch: Any) -> Any:
        return batch.pop("a") @ params["left"] + batch.pop("b") @ params["right"]

    x = {"a": a, "b": b}
    ensemble = SnapshotEnsemble(popping, tmp_path, members[0])
    for mode in MODES:
        found = ensemble.predict(x, mode=mode)
        check(found, by_hand(members, lambda params: apply(params, x)))
    assert {*x} == {"a", "b"}


def test_labels_in_dicts_are_those_of_fit_and_of_averaged_weights(tmp_path: Path) -> None:
    members = recorded(tmp_path)
    ensemble = SnapshotEnsemble(apply, tmp_path, members[0])
    a, b, y = data()
    given = ensemble.fit({"a": a, "b": b}, y)
    mean = ensemble.average_weights({"a": a, "b": b}, y, barrier=math.inf)
    for x in (
        {"a": a, "b": b, "y": y},
        Loader(lambda a, b, y: {"a": a, "b": b, "y": y}, a, b, y),
    ):
        assert ensemble.fit(x).weights == pytest.approx(given.weights)
        found = ensemble.average_weights(x, barrier=math.inf)
        assert found.scores == pytest.approx(mean.scores, rel=1e-4)


class Graphs(NamedTuple):
    """As jraph has them: the nodes of all graphs along one axis."""

    nodes: Any
    senders: Any
    graph: Any
    globals: Any


@partial(jax.tree_util.register_dataclass, data_fields=["a", "b", "label"], meta_fields=[])
@dataclass
class Record:
    a: Any
    b: Any
    label: Any


def test_other_pytrees_are_one_argument(tmp_path: Path) -> None:
    members = recorded(tmp_path)
    a, b, y = data()
    expected = by_hand(members, lambda params: apply(params, {"a": a, "b": b}))

    def of_record(params: Any, record: Any) -> Any:
        return apply(params, {"a": record.a, "b": record.b})

    ensemble = SnapshotEnsemble(jax.jit(of_record), tmp_path, members[0])
    for mode in MODES:
        for x in (Record(a, b, y), Loader(Record, a, b, y)):
            check(ensemble.predict(x, mode=mode), expected)
            assert len(ensemble.fit(x).weights) == 3
            ensemble.choice = None

    def of_graphs(params: Any, graphs: Graphs) -> Any:
        sums = jax.ops.segment_sum(graphs.nodes @ params["left"], graphs.graph, 4)
        return sums + graphs.globals @ params["right"]

    graphs = Graphs(a[:12], np.zeros(3), np.repeat(np.arange(4), 3), b[:4])
    ensemble = SnapshotEnsemble(jax.jit(of_graphs), tmp_path, members[0])
    wanted = by_hand(members, lambda params: of_graphs(params, graphs))
    for mode in MODES:
        for batch in (graphs, (graphs, y[:4])):
            check(ensemble.predict([batch], mode=mode), wanted)


def test_statistics_fn_gets_what_apply_fn_gets(tmp_path: Path) -> None:
    a, b, y = data()
    members = [
        {"mean": jnp.zeros(2), "w": jnp.asarray(each["left"])} for each in recorded(tmp_path / "0")
    ]
    with SnapshotRecorder(tmp_path / "1", EVERY_STEP) as recorder:
        for i, params in enumerate(members):
            recorder.step({**params, "mean": params["mean"] + i})

    def run(params: Any, batch: Any) -> Any:
        return (batch["a"] - params["mean"]) @ params["w"]

    def moved(params: Any, batch: Any) -> Any:
        assert {*batch} == {"a", "b"}
        return {**params, "mean": 0.9 * params["mean"] + 0.1 * batch["a"].mean(0)}

    ensemble = SnapshotEnsemble(run, tmp_path / "1", members[0], statistics_fn=moved)
    x = {"a": a, "b": b, "label": y}
    for train in (x, Loader(lambda a, b, y: {"a": a, "b": b, "label": y}, a, b, y)):
        found = ensemble.average_weights(x, train_data=train, barrier=math.inf)
        np.testing.assert_allclose(found.weights["mean"], a.mean(0), rtol=1e-4, atol=1e-6)


def test_arrays_of_other_kinds_are_taken(tmp_path: Path) -> None:
    members = recorded(tmp_path)
    a, b, _ = data()
    ensemble = SnapshotEnsemble(
        jax.jit(lambda params, a, b: apply(params, {"a": a, "b": b})), tmp_path, members[0]
    )
    expected = by_hand(members, lambda params: apply(params, {"a": a, "b": b}))

    class Foreign:
        """As torch's and TensorFlow's tensors are to JAX."""

        def __init__(self, values: Any) -> None:
            self.values, self.shape = values, values.shape

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return self.values

    for made in (lambda x: x.tolist(), lambda x: x.astype(np.float64), jnp.asarray, Foreign):
        check(ensemble.predict((made(a), made(b))), expected)
        check(ensemble.predict(Loader(lambda a, b, m=made: ((m(a), m(b)), 0), a, b)), expected)


def test_large_arrays_are_run_batch_by_batch(tmp_path: Path) -> None:
    members = recorded(tmp_path)
    a, b, _ = data(600)
    seen: list[int] = []

    def noting(params: Any, a: Any, b: Any) -> Any:
        seen.append(len(a))
        return apply(params, {"a": a, "b": b})

    found = SnapshotEnsemble(noting, tmp_path, members[0]).predict((a, b))
    assert seen == [200] * 9
    check(found, by_hand(members, lambda params: apply(params, {"a": a, "b": b})))


def test_tracers_in_structures_are_refused(tmp_path: Path) -> None:
    members = recorded(tmp_path)
    ensemble = SnapshotEnsemble(apply, tmp_path, members[0])
    a, b, _ = data()
    with pytest.raises(ca.EnsembleError, match=r"outside of jit\. Received: x as a tracer"):
        jax.jit(ensemble.predict)({"a": a, "b": b})


def test_what_a_function_does_not_take_is_said(tmp_path: Path) -> None:
    members = recorded(tmp_path)
    a, b, _ = data()

    def run(params: Any, a: Any, b: Any) -> Any:
        return apply(params, {"a": a, "b": b})

    def failing(params: Any, batch: Any) -> Any:
        raise TypeError(f"from within, {params}, {batch}")

    x = {"a": a, "b": b}
    for function in (run, jax.jit(run)):
        with pytest.raises(ca.EnsembleError, match=r"2 arguments.*\(params, a, b\).*\*\*x\)"):
            SnapshotEnsemble(function, tmp_path, members[0]).predict(x)
    with pytest.raises(ca.EnsembleError, match=r"3 arguments.*\(params, batch\).*params, batch\)"):
        SnapshotEnsemble(apply, tmp_path, members[0]).predict((a, b))
    with pytest.raises(TypeError, match=r"^from within"):
        SnapshotEnsemble(failing, tmp_path, members[0]).predict(x)
