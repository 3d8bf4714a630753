"""Classes from fewer passes are those of all passes, on outputs of every kind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cosanneal as ca
from cosanneal.ensemble import Budget, Choice, SnapshotEnsemble
from cosanneal.ensemble.predict.batches import Batches
from cosanneal.ensemble.predict.lead import NOISE
from cosanneal.snapshots.ranks import ALONE
from tests.shared.classes import left_early, passes_needed
from tests.shared.modes import MODES
from tests.shared.recording import EVERY_STEP, ArrayCapture, ArrayRecorder

MOST = 6


class Tables:
    """A model whose members give what is written in a table, row for row.

    Attributes:
        tables: of each member, an output for each number that may be in `x`; or several by name.
        noise: by how much an output changes with the size of its batch.
        runs: the member, and the numbers of the samples, of each run.
    """

    framework = "numpy"
    ranks = ALONE

    def __init__(self) -> None:
        self.tables: Any = []
        self.noise = 0.0
        self.state = False
        self.cut: Callable[[Any, Any], Any] = lambda batch, places: tuple(x[places] for x in batch)
        self.runs: list[tuple[int, list[int]]] = []

    def layout(self) -> dict[str, Any]:
        return {"member": ((1,), "int64")}

    def same_as(self, other: object) -> bool:
        return other is self

    def place(self) -> object:
        return None

    def own(self) -> ArrayCapture:
        return ArrayCapture()

    def is_array(self, thing: object) -> bool:
        return isinstance(thing, np.ndarray)

    def output_names(self) -> Sequence[str]:
        return ()

    def says_outputs(self, output: Any = None) -> None: ...

    def load(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        return dict(tensors)

    def _output(self, table: Any, x: Any) -> Any:
        found = table[x]
        if self.noise:  # of probabilities, as by that of their logits
            random = np.random.default_rng(len(x)).uniform(-1, 1, found.shape)
            within = ((found >= 0) & (found <= 1)).all()
            random *= 4 * found * (1 - found) if within else 1
            found = found + (self.noise * random).astype(found.dtype)
        return found

    @contextlib.contextmanager
    def running(self, pick: Any) -> Iterator[Callable[[Any, Any], Any]]:
        def run(weights: Any, batch: Any) -> Any:
            member = int(weights["member"][0])
            x = batch["x"] if isinstance(batch, dict) else batch[0]
            self.runs.append((member, x.tolist()))
            table = self.tables[member]
            if isinstance(table, dict):
                return pick({name: self._output(each, x) for name, each in table.items()})
            return pick(self._output(table, x))

        yield run

    def stack(self, members: Sequence[Callable[[], Any]], pick: Any) -> Callable[[Any], Any]:
        places = [int(load()["member"][0]) for load in members]
        tables = [self.tables[i] for i in places]
        if isinstance(tables[0], dict):
            every = {name: np.stack([each[name] for each in tables]) for name in tables[0]}
            return lambda batch: pick({name: each[:, batch[0]] for name, each in every.items()})
        return lambda batch: np.stack([self._output(each, batch[0]) for each in tables])

    def batches(self, x: Any, batch_size: int | None, **options: Any) -> Batches:
        options |= {"arrays": np.ndarray, "convert": np.asarray, "linked": self.state}
        return Batches(x, batch_size=batch_size, rows=self.cut, **options)

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Snapshots that say which member they are."""
    path = tmp_path_factory.mktemp("members")
    with ArrayRecorder(path, EVERY_STEP) as recorder:
        for member in range(MOST):
            recorder.step({"member": np.array([member])})
    return path


def build(
    folder: Path, tables: Any, kind: type[Tables] = Tables, **options: Any
) -> tuple[SnapshotEnsemble[Any], Tables]:
    """An ensemble of the members whose tables these are."""
    model = kind()
    model.tables = list(tables)
    cycles = range(1, len(model.tables) + 1)
    first = [each.cycle for each in SnapshotEnsemble(Tables(), folder).members][: len(cycles)]
    return SnapshotEnsemble(model, folder, members=first, **options), model


def chosen(weights: Sequence[float], temperature: float, class_axis: int | None) -> Choice:
    return Choice(
        members=tuple(map(str, range(len(weights)))),
        weights=tuple(weights),
        temperature=temperature,
        class_axis=class_axis,
        select="weights",
        metric="log_loss",
        candidates=(),
        samples=1,
        interval=(0.0, 0.0),
        seed=0,
    )


def expected(ensemble: Any, x: Any, class_axis: int | None, **options: Any) -> Any:
    value = np.asarray(ensemble.predict(x, **options), float)
    return value > 0.5 if class_axis is None or value.ndim == 1 else value.argmax(class_axis)


def probabilities(members: int, samples: int, classes: int, seed: int = 0, sure: float = 1) -> Any:
    logits = sure * np.random.default_rng(seed).normal(size=(members, samples, classes))
    powers = np.exp(logits)
    return powers / powers.sum(-1, keepdims=True)


@st.composite
def cases(draw: Any) -> dict[str, Any]:
    """Members' outputs with many ties, and how they are pooled."""
    members, samples, classes = draw(
        st.tuples(st.integers(1, 5), st.integers(0, 9), st.integers(2, 4))
    )
    outputs = draw(st.sampled_from(["logits", "probabilities"]))
    pooling = draw(
        st.sampled_from(["probabilities", "probabilities", "vote", "logits", "log-probabilities"])
    )
    axis = draw(st.sampled_from([-1, -1, None]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (members, samples, classes)
    grid = draw(st.sampled_from([2, 8, 1000]))
    table = random.integers(1, grid + 1, shape) / grid
    if draw(st.booleans()):  # all but the same members
        table[1:] = table[:1]
        table[random.random(shape) < 0.1] = 0.5
    if outputs == "logits":
        table = draw(st.sampled_from([1, 30])) * (table - (0.5 if axis is None else 1.5))
    elif axis is not None:
        table = table / table.sum(-1, keepdims=True)
    positive = st.sampled_from([1.0, 0.1, 0.2, 0.3, 0.7, 1e-9])
    weights = draw(st.lists(st.one_of(st.just(0.0), positive), min_size=members, max_size=members))
    weights[draw(st.integers(0, members - 1))] = draw(positive)
    total = sum(weights)
    fitted = pooling == "probabilities" and draw(st.booleans())
    return {
        "table": table.astype(draw(st.sampled_from([np.float16, np.float32, np.float64]))),
        "options": {"outputs": outputs, "pooling": pooling, "class_axis": axis},
        "weights": [each / total for each in weights] if fitted else None,
        "temperature": draw(st.sampled_from([1.0, 0.02, 0.4, 3.0, 100.0])),
        "batch_size": draw(st.sampled_from([None, 1, 3])),
        "mode": draw(st.sampled_from(MODES)),
        "noise": draw(st.sampled_from([0.0, 0.0, NOISE / 40])),
    }


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(case=cases())
def test_they_are_exactly_those_of_predict(folder: Path, case: dict[str, Any]) -> None:
    ensemble, model = build(folder, case["table"], **case["options"])
    axis = case["options"]["class_axis"]
    if case["weights"] is not None:
        ensemble.choice = chosen(case["weights"], case["temperature"], axis)
    model.noise = case["noise"] if case["table"].dtype != np.float16 else 0.0
    x = np.arange(case["table"].shape[1])
    how = {"mode": case["mode"], "batch_size": case["batch_size"]}
    found = ensemble.predict_classes(x, **how)
    assert found.dtype == np.int64
    if case["options"]["pooling"] == "log-probabilities" and axis is None:
        return  # of which `predict` gives logarithms
    np.testing.assert_array_equal(found, expected(ensemble, x, axis, **how))


def test_members_that_agree_are_left_out_and_samples_keep_their_places(folder: Path) -> None:
    p = np.full((5, 40, 3), 0.01)
    order = np.random.default_rng(3).integers(3, size=40)
    p[:, np.arange(40), order] = 0.98
    p[2, 7] = p[2, 8] = p[0, 21] = [0.34, 0.33, 0.33]  # a member that is not sure of these
    ensemble, model = build(folder, p, class_axis=-1)
    ensemble.predict_classes(np.arange(40))  # the first time, samples are run both ways
    assert ensemble.passes > passes_needed(p, np.ones(5)).mean()
    for mode in ("stream", "resident", "auto"):
        model.runs.clear()
        found = ensemble.predict_classes(np.arange(40), mode=mode, batch_size=16)
        alone = [run for run in model.runs if run[0] == 3]
        np.testing.assert_array_equal(found, expected(ensemble, np.arange(40), -1))
        needed = passes_needed(p, np.ones(5))
        assert sorted(set(needed)) == [3, 4]
        assert ensemble.passes == pytest.approx(needed.mean())
        assert [i for _, x in alone for i in x] == [7, 8, 21]
    with pytest.raises(AssertionError):  # the oracle is none that a wrong order would pass
        np.testing.assert_array_equal(found, np.roll(order, 1))


def test_members_that_are_of_two_minds_are_all_run(folder: Path) -> None:
    p = np.zeros((4, 8, 2)) + 0.5
    p[::2] += [0.4, -0.4]
    p[1::2] -= [0.4, -0.4]
    p[3] -= [0.01, -0.01]
    for pooling in ("probabilities", "vote"):
        ensemble, _ = build(folder, p, pooling=pooling, class_axis=-1)
        found = ensemble.predict_classes(np.arange(8))
        assert (found == (1 if pooling == "probabilities" else 0)).all()
        assert ensemble.passes == 4
    for pooling in ("logits", "log-probabilities"):  # where one could outweigh all others
        ensemble, _ = build(folder, p[[0, 0, 0]], pooling=pooling, class_axis=-1)
        assert (ensemble.predict_classes(np.arange(8)) == 0).all()
        assert ensemble.passes == 3


def test_the_heaviest_members_come_first_and_those_without_weight_never(folder: Path) -> None:
    p = probabilities(4, 30, 3, sure=9)
    ensemble, model = build(folder, p, class_axis=-1)
    ensemble.choice = chosen((0.1, 0.0, 0.6, 0.3), 1.0, -1)
    ensemble.predict_classes(np.arange(30))
    model.runs.clear()
    found = ensemble.predict_classes(np.arange(30), mode="resident")
    assert [member for member, _ in model.runs][:2] == [2, 3]
    assert {member for member, _ in model.runs} <= {0, 2, 3}
    np.testing.assert_array_equal(found, expected(ensemble, np.arange(30), -1))
    needed = passes_needed(p[[2, 3, 0]], (0.6, 0.3, 0.1))
    assert 1 < needed.mean() < 2.5
    assert ensemble.passes == pytest.approx(needed.mean())


@pytest.mark.parametrize("mode", MODES)
def test_classes_that_rounding_makes_equal_are_the_first(folder: Path, mode: Any) -> None:
    """The mean of the second is above the first's, by less than the dtype has digits for."""
    for dtype, apart in ((np.float32, 1e-9), (np.float16, 1e-5), (np.float64, 0.0)):
        p = np.zeros((3, 1, 3))
        p[:] = [0.5 - apart, 0.5, 0.0]
        for each, first in ((p, 0 if apart == 0 else 1), (p.astype(dtype), 0)):
            ensemble, _ = build(folder, each, outputs="probabilities", class_axis=-1)
            assert ensemble.predict_classes(np.array([0]), mode=mode) == first


def test_a_temperature_can_make_equal_what_leads_by_far(folder: Path) -> None:
    """In half precision 0.46 and 0.54 are one number at a temperature of 2000."""
    p = np.array([[[0.46, 0.54]]] * 4, np.float16)
    ensemble, _ = build(folder, p, outputs="probabilities", class_axis=-1)
    for temperature, first, passes in ((1.0, 1, 1), (2000.0, 0, 4)):
        ensemble.choice = chosen([0.97, 0.01, 0.01, 0.01], temperature, -1)
        assert ensemble.predict(np.array([0])).argmax(-1) == first
        assert ensemble.predict_classes(np.array([0])) == first
        assert ensemble.passes == passes


@pytest.mark.parametrize("mode", ["stream", "resident"])
@pytest.mark.parametrize("pooling", ["probabilities", "vote"])
def test_what_a_smaller_batch_leaves_near_a_tie_is_run_whole(
    folder: Path, mode: Any, pooling: Any
) -> None:
    p = np.full((4, 40, 2), [0.9, 0.1])
    p[1, ::9] = [0.1, 0.9]
    p[3, ::9] = [0.1, 0.9] if pooling == "probabilities" else [0.5, 0.5]
    ensemble, model = build(folder, p, pooling=pooling, class_axis=-1)
    model.noise = NOISE / 40
    for seed in range(5):
        x = np.random.default_rng(seed).permutation(40)
        ensemble.predict_classes(x, mode=mode)  # which takes out samples the first time
        found = ensemble.predict_classes(x, mode=mode)
        np.testing.assert_array_equal(found, expected(ensemble, x, -1))
        assert ensemble.passes > 4


@pytest.mark.parametrize("mode", ["stream", "resident"])
def test_with_a_budget_nothing_is_run_again(folder: Path, mode: Any) -> None:
    p = np.full((4, 40, 2), [0.9, 0.1])
    p[3, ::4] = p[1, ::4] = [0.1, 0.9]  # of which two have as much for them as against them
    ensemble, _ = build(folder, p, class_axis=-1)
    ensemble.choice = replace(
        chosen((0.25,) * 4, 1.0, -1),
        budget=Budget(
            asked=2.0,
            care=0.99,
            order=(3, 2, 1, 0),
            passes=3.25,
            error=0.0,
            exact_passes=3.25,
            exact_error=0.0,
            made_wrong=0,
            made_right=0,
            increase=None,
        ),
    )
    x = np.arange(40)
    for _ in range(2):  # the first time, samples are run both ways
        found = ensemble.predict_classes(x, mode=mode)
        np.testing.assert_array_equal(found, left_early(p, (0.25,) * 4, 0.99)[0])
    assert ensemble.passes == left_early(p, (0.25,) * 4, 0.99)[1].mean() == 3.25
    ensemble.predict_classes(x, mode=mode, exact=True)
    assert ensemble.passes > 4


@pytest.mark.parametrize("mode", MODES)
def test_samples_that_depend_on_each_other_are_run_together(folder: Path, mode: Any) -> None:
    class Together(Tables):
        def _output(self, table: Any, x: Any) -> Any:
            return table[x] + x.mean() * np.array([0.02, 0, 0])

    tables = 8 * probabilities(5, 30, 3, sure=5) - 4
    ensemble, together = build(folder, tables, Together, class_axis=-1)
    x = np.arange(30)
    found = ensemble.predict_classes(x, mode=mode, batch_size=10)
    np.testing.assert_array_equal(found, expected(ensemble, x, -1, batch_size=10))
    if mode != "stacked":
        assert {len(x) for _, x in together.runs[-20:]} == {10}


def test_a_model_made_for_batches_of_one_size_is_given_those(folder: Path) -> None:
    class Fixed(Tables):
        def _output(self, table: Any, x: Any) -> Any:
            if len(x) != 10:
                raise ValueError("a batch of 10, please")
            return table[x]

    ensemble, fixed = build(folder, probabilities(5, 30, 3, sure=5), Fixed, class_axis=-1)
    found = ensemble.predict_classes(np.arange(30), batch_size=10)
    np.testing.assert_array_equal(found, expected(ensemble, np.arange(30), -1, batch_size=10))
    # Batches that are decided are not run at all.
    fixed.tables = [np.tile([0.01, 0.98, 0.01], (30, 1))] * 5
    assert (ensemble.predict_classes(np.arange(30), batch_size=10) == 1).all()
    assert ensemble.passes == 3


class Graphs:
    """Batches that are no arrays of samples: of each, an index and a list of its own."""

    def __iter__(self) -> Iterator[Any]:
        return iter([{"x": np.arange(i, i + 5), "edges": np.arange(3)} for i in (0, 5, 10)])


class Named:
    """Batches that are dicts of arrays."""

    def __iter__(self) -> Iterator[Any]:
        for i in (0, 5, 10):
            yield {"x": np.arange(i, i + 5), "mask": np.ones((5, 2)), "labels": np.zeros(5)}


@pytest.mark.parametrize("mode", ["stream", "resident"])
def test_batches_of_dicts_are_cut_where_each_array_has_a_row_for_each_sample(
    folder: Path, mode: Any
) -> None:
    p = probabilities(5, 15, 3, sure=6)
    p[:, 5:10] = [0.01, 0.01, 0.98]  # all of a batch
    ensemble, model = build(folder, p, class_axis=-1)

    def cut(batch: Any, places: Any) -> Any:
        assert {len(each) for each in batch.values()} == {5}
        return {name: each[places] for name, each in batch.items()}

    model.cut = cut
    least = passes_needed(p, np.ones(5))
    for loader in (Graphs(), Named()):
        found = ensemble.predict_classes(loader, mode=mode)
        np.testing.assert_array_equal(found, expected(ensemble, np.arange(15), -1))
        whole = least.reshape(3, 5).max(1).mean()
        if isinstance(loader, Graphs):
            assert ensemble.passes == whole
    assert ensemble.passes < whole


def test_members_that_are_not_needed_are_not_read(folder: Path) -> None:
    ensemble, model = build(folder, np.full((5, 4, 2), [0.01, 0.99]), class_axis=-1)
    assert (ensemble.predict_classes(np.arange(4)) == 1).all()
    assert [member for member, _ in model.runs] == [0, 1, 2]
    ensemble.predict_classes(np.arange(4), mode="resident")
    assert ensemble.held == 3


def test_a_model_with_a_state_has_every_batch_run(folder: Path) -> None:
    ensemble, model = build(folder, np.full((5, 4, 2), [0.01, 0.99]), class_axis=-1)
    model.state = True
    assert (ensemble.predict_classes(np.arange(4), batch_size=2) == 1).all()
    assert ensemble.passes == 5


def test_labels_of_a_sample_are_decided_together(folder: Path) -> None:
    """Images, whose classes are along the second axis; and no samples, of no known kind."""
    p = np.moveaxis(probabilities(5, 24, 3, sure=20).reshape(5, 4, 2, 3, 3), -1, 2)
    ensemble, _ = build(folder, p, class_axis=1)
    x = np.arange(4)
    found = ensemble.predict_classes(x)
    assert found.shape == (4, 2, 3)
    np.testing.assert_array_equal(found, expected(ensemble, x, 1))
    needed = passes_needed(np.moveaxis(p, 2, -1).reshape(5, 24, 3), np.ones(5))
    assert ensemble.passes == pytest.approx(needed.reshape(4, 6).max(1).mean(), abs=0.51)
    empty, _ = build(folder, np.zeros((2, 4, 3)))
    assert empty.predict_classes(x[:0]).shape == (0,)
    empty, _ = build(folder, np.zeros((2, 4, 3)), class_axis=None, outputs="logits")
    assert empty.predict_classes(x[:0]).shape == (0, 3)
    one, _ = build(folder, np.ones((3, 4, 1)), outputs="probabilities", class_axis=-1)
    assert one.predict_classes(x).tolist() == [0] * 4


def test_outcomes_are_those_above_a_half(folder: Path) -> None:
    p = np.array([[0.5, 0.9, 0.2], [0.5, 0.95, 0.1], [0.5, 0.99, 0.45], [0.5, 0.1, 0.6]])
    ensemble, model = build(folder, p, outputs="probabilities", class_axis=None)
    x = np.arange(3)
    assert ensemble.predict_classes(x).tolist() == [0, 1, 0]
    # By 0.4, 0.45, 0.49 of more than 0.5 that is left: all are needed but for the last.
    assert 3 <= ensemble.passes <= 4
    model.tables = list(np.array([[0.9, 0.1], [0.99, 0.01], [0.98, 0.0]]))
    model.tables *= 2
    sure, _ = build(folder, model.tables[:5], outputs="probabilities", class_axis=None)
    assert sure.predict_classes(x[:2]).tolist() == [1, 0]
    assert sure.passes < 5
    p[:, 0] = 0.4
    logs, _ = build(
        folder, p, outputs="probabilities", class_axis=None, pooling="log-probabilities"
    )
    assert logs.predict_classes(x).tolist() == [0, 1, 0]


@pytest.mark.parametrize("mode", MODES)
def test_a_member_without_numbers_is_named_as_predict_names_it(folder: Path, mode: Any) -> None:
    p = probabilities(3, 6, 3)
    p[1, 2, 0] = np.nan
    ensemble, _ = build(folder, p, class_axis=-1, outputs="probabilities")
    name = ensemble.members[1].path.name
    for call in (ensemble.predict, ensemble.predict_classes):
        with pytest.raises(ca.EnsembleError, match=f"must be finite.*{name}"):
            call(np.arange(6), mode=mode)
    # Of logits that are all minus infinity, there is no probability; what is left is run.
    z = np.log(probabilities(3, 6, 3, sure=9))
    z[2, 4] = -np.inf
    z[0, 3] = -np.inf
    ensemble, _ = build(folder, z, class_axis=-1, outputs="logits")
    with np.errstate(invalid="ignore"):
        found = ensemble.predict_classes(np.arange(6), mode=mode)
        np.testing.assert_array_equal(found, expected(ensemble, np.arange(6), -1, mode=mode))


@pytest.mark.parametrize("mode", MODES)
def test_several_outputs_and_batches_of_several_lengths(folder: Path, mode: Any) -> None:
    a, b = probabilities(5, 12, 3, sure=6), probabilities(5, 24, 2, 1, 6).reshape(5, 12, 2, 2)
    tables = [{"a": a[i], "b": b[i], "size": a[i]} for i in range(5)]
    form = {"a": "probabilities", "b": "probabilities", "size": None}
    ensemble, _ = build(folder, tables, outputs=form, class_axis=-1)
    x = np.arange(12)
    found: Any = ensemble.predict_classes(x, mode=mode, batch_size=5)
    probable: Any = ensemble.predict(x, mode=mode, batch_size=5)
    assert list(found) == ["a", "b"]
    for name, each in found.items():
        np.testing.assert_array_equal(each, probable[name].argmax(-1))
    assert (ensemble.passes < 5) == (mode != "stacked")
    for kind in ("values", "gaussian"):
        other, _ = build(folder, tables, outputs={"a": "logits", "size": kind}, class_axis=-1)
        with pytest.raises(ca.EnsembleError, match=r"'size': .*of classes.*outputs='.*by None in"):
            other.predict_classes(x, mode=mode)
    values, _ = build(folder, a, outputs="values")
    with pytest.raises(ca.EnsembleError, match=r"outputs of classes.*outputs='values', since"):
        values.predict_classes(x, mode=mode)


class Lengths(Tables):
    """Gives as many positions as its batch has."""

    def _output(self, table: Any, x: Any) -> Any:
        return table[x]

    @contextlib.contextmanager
    def running(self, pick: Any) -> Iterator[Callable[[Any, Any], Any]]:
        yield lambda weights, batch: pick(
            self.tables[int(weights["member"][0])][batch[0]][:, : batch[1].shape[1]]
        )


@pytest.mark.parametrize("mode", ["stream", "resident", "auto"])
def test_batches_of_several_lengths_are_a_list_or_padded(folder: Path, mode: Any) -> None:
    tables = probabilities(4, 50, 3, sure=6).reshape(4, 10, 5, 3)
    ensemble, _ = build(folder, tables, Lengths, class_axis=-1)
    batches = [((np.arange(4), np.zeros((4, 5))), 0), ((np.arange(4, 10), np.zeros((6, 2))), 0)]

    class Loader:
        def __iter__(self) -> Iterator[Any]:
            return iter(batches)

    found: Any = ensemble.predict_classes(Loader(), mode=mode, ragged="list")
    probable: Any = ensemble.predict(Loader(), ragged="list")
    for each, p in zip(found, probable, strict=True):
        np.testing.assert_array_equal(each, p.argmax(-1))
    padded, mask = ensemble.predict_classes(Loader(), mode=mode, ragged="pad")
    assert padded.dtype.kind == "i"
    assert mask.dtype == bool
    whole, inside = ensemble.predict(Loader(), ragged="pad")
    np.testing.assert_array_equal(mask, inside)
    np.testing.assert_array_equal(padded, np.where(inside, whole.argmax(-1), 0))
    with pytest.raises(ca.EnsembleError, match=r"give ragged='list'"):
        ensemble.predict_classes(Loader(), mode=mode)
    with pytest.raises(ca.EnsembleError, match=r"`ragged` must be"):
        ensemble.predict_classes(Loader(), ragged="rag")  # type: ignore[arg-type]
    with pytest.raises(ca.EnsembleError, match=r"`mode` must be"):
        ensemble.predict_classes(Loader(), mode="fast")  # type: ignore[arg-type]
