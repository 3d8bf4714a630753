"""What goes into a torch model: dicts, structures, arrays of other kinds; or a whole batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotEnsemble
from tests.shared.modes import MODES
from tests.shared.torch_members import recorded

pytestmark = pytest.mark.filterwarnings("ignore:The ensemble was chosen on:UserWarning")


class TwoInputs(nn.Module):
    """A model of two inputs by name, of which one may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(2, 3), nn.Linear(5, 3)

    def forward(self, a: Tensor, b: Tensor, scale: Any = None) -> Tensor:
        out: Tensor = self.left(a) + self.right(b)
        return out if scale is None else out * scale


def drawn(kind: Callable[[], nn.Module], members: int = 3) -> list[nn.Module]:
    torch.manual_seed(0)
    first = kind()
    found = [first]
    for _ in range(members - 1):
        found.append(copy.deepcopy(first))
        with torch.no_grad():
            for parameter in found[-1].parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return [each.eval() for each in found]


def inputs(samples: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    a, b = (
        torch.randn(samples, 2, generator=generator),
        torch.randn(samples, 5, generator=generator),
    )
    return a, b, torch.arange(samples) % 3


@torch.no_grad()
def by_hand(models: list[nn.Module], run: Callable[[Any], Tensor]) -> Tensor:
    """The mean of the models' softmaxes, in float64."""
    return torch.stack([run(each).double().softmax(-1) for each in models]).mean(0).float()


class Batches:
    """Dicts, as a loader's collate function makes them."""

    def __init__(self, **columns: Any) -> None:
        self.columns = columns

    def __iter__(self) -> Any:
        for rows in torch.arange(40).split(16):
            yield {
                name: each[rows] if isinstance(each, Tensor) else each
                for name, each in self.columns.items()
            }


@pytest.mark.parametrize("mode", MODES)
def test_dict_batches_go_in_by_keyword_without_their_labels(tmp_path: Path, mode: Any) -> None:
    models = drawn(TwoInputs)
    ensemble = SnapshotEnsemble(recorded(tmp_path, models), tmp_path)
    a, b, y = inputs()
    expected = by_hand(models, lambda model: model(a, b))
    x: Any
    for x in ({"a": a, "b": b}, {"b": b, "labels": y, "a": a}, Batches(a=a, b=b, label=y)):
        torch.testing.assert_close(ensemble.predict(x, mode=mode), expected)
    torch.testing.assert_close(
        ensemble.predict(Batches(a=a, b=b, scale=2), mode=mode),
        by_hand(models, lambda model: 2 * model(a, b)),
    )
    for whole in ({"a": a, "b": b}, (a, b)):
        torch.testing.assert_close(ensemble.predict(whole, mode=mode, batch_size=7), expected)


def test_labels_in_dicts_are_those_of_fit_and_of_averaged_weights(tmp_path: Path) -> None:
    models = drawn(TwoInputs)
    ensemble = SnapshotEnsemble(recorded(tmp_path, models), tmp_path)
    a, b, y = inputs()
    given = ensemble.fit((a, b), y)
    mean = ensemble.average_weights((a, b), y, barrier=math.inf)
    for x in ({"a": a, "b": b, "y": y}, Batches(a=a, b=b, labels=y)):
        found = ensemble.fit(x)
        assert found.weights == pytest.approx(given.weights)
        assert found.temperature == pytest.approx(given.temperature)
        assert ensemble.average_weights(x, barrier=math.inf).scores == pytest.approx(mean.scores)
    message = r"Received: 'labels' and 'label'; take all but one out"
    with pytest.raises(ca.EnsembleError, match=message):
        ensemble.predict({"a": a, "b": b, "label": y, "labels": y})


@pytest.mark.parametrize("mode", MODES)
def test_forward_gets_the_copy_and_the_batch_whole(tmp_path: Path, mode: Any) -> None:
    models = drawn(TwoInputs)
    model = recorded(tmp_path, models)
    a, b, y = inputs()
    seen: list[Any] = []

    def forward(module: nn.Module, batch: Any) -> Any:
        seen.append((module, {name: type(each) for name, each in batch.items()}))
        assert not module.training
        labels = batch.pop("labels")  # of a dict of its own
        return {"loss": labels, "logits": module(batch["a"], b=batch["b"])}["logits"]

    ensemble = SnapshotEnsemble(model, tmp_path, forward=forward)
    expected = by_hand(models, lambda model: model(a, b))
    loader = Batches(a=a, b=b, labels=y, text="some", nothing=None)
    torch.testing.assert_close(ensemble.predict(loader, mode=mode), expected)
    kinds = {"a": Tensor, "b": Tensor, "labels": Tensor, "text": str, "nothing": type(None)}
    assert all(module is not model and found == kinds for module, found in seen)
    whole = {"a": a, "b": b.numpy(), "labels": y}
    torch.testing.assert_close(ensemble.predict(whole, mode=mode, batch_size=9), expected)
    assert whole.keys() == {"a", "b", "labels"}


def test_forward_is_used_by_all_that_runs_members(tmp_path: Path) -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))

    models = drawn(network)
    model = recorded(tmp_path, models)
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(40, 4, generator=generator), torch.arange(40) % 3
    plain = SnapshotEnsemble(model, tmp_path)
    ensemble = SnapshotEnsemble(model, tmp_path, forward=lambda model, batch: model(batch[0]))
    loader = [(x[rows], y[rows]) for rows in torch.arange(40).split(10)]
    for ours, theirs in zip(
        ensemble.member_predictions(loader), plain.member_predictions(x), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    assert ensemble.fit(loader).weights == pytest.approx(plain.fit(x, y).weights)
    found, expected = (
        each.average_weights(loader, train_data=train, barrier=math.inf)
        for each, train in ((ensemble, loader), (plain, x[:, :]))
    )
    assert found.scores is not None
    assert found.scores.keys() == expected.scores.keys()  # type: ignore[union-attr]
    # The first layer's statistics do not depend on how the data were cut.
    torch.testing.assert_close(found.weights["1.running_mean"], expected.weights["1.running_mean"])
    torch.testing.assert_close(found.weights["1.running_var"], expected.weights["1.running_var"])


def test_a_forward_that_runs_another_model_is_refused(tmp_path: Path) -> None:
    models = drawn(TwoInputs)
    model = recorded(tmp_path, models)
    a, b, _ = inputs()
    ensemble = SnapshotEnsemble(model, tmp_path, forward=lambda _, batch: model(*batch))
    with pytest.raises(ca.EnsembleError, match=r"forward= must run the module that it is given"):
        ensemble.predict((a, b))
    with pytest.raises(ca.EnsembleError, match=r"`forward` must be a function.*Received: str"):
        SnapshotEnsemble(model, tmp_path, forward="logits")  # type: ignore[arg-type]


class Pooled(nn.Module):
    """A network over graphs: a mean over the nodes of each."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, nodes: Tensor, graph: Tensor, count: int) -> Tensor:
        sums = torch.zeros(count, 3).index_add(0, graph, self.layer(nodes))
        return sums / graph.bincount(minlength=count)[:, None]


class Graphs:
    """A batch of graphs as libraries have it: an object that knows how to be moved."""

    def __init__(self, nodes: Tensor, graph: Tensor, y: Tensor) -> None:
        self.nodes, self.graph, self.y = nodes, graph, y
        self.moved = 0

    def to(self, device: Any) -> Graphs:
        self.nodes, self.graph = self.nodes.to(device), self.graph.to(device)
        self.moved += 1
        return self


def test_samples_may_be_unknown(tmp_path: Path) -> None:
    models = drawn(Pooled)
    model = recorded(tmp_path, models)
    nodes, y = torch.randn(12, 4), torch.tensor([0, 1, 2, 0])
    graph = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3])
    expected = by_hand(models, lambda model: model(nodes, graph, 4))
    item = {"nodes": nodes, "graph": graph, "count": 4, "y": y}
    torch.testing.assert_close(SnapshotEnsemble(model, tmp_path).predict([item]), expected)
    object_ = Graphs(nodes, graph, y)
    ensemble = SnapshotEnsemble(
        model, tmp_path, forward=lambda model, batch: model(batch.nodes, batch.graph, len(batch.y))
    )
    loader = {"graphs": object_}.values()
    torch.testing.assert_close(ensemble.predict(loader), expected)
    assert len(ensemble.fit(loader).weights) == 3
    assert len(SnapshotEnsemble(model, tmp_path).fit([item]).weights) == 3
    assert object_.moved == 0  # but a copy of it


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRU(4, 5), nn.Linear(5, 3)

    def forward(self, x: PackedSequence) -> Tensor:
        out: Tensor = self.head(self.cell(x)[1][0])
        return out


def test_packed_sequences_are_one_argument(tmp_path: Path) -> None:
    models = drawn(Recurrent)
    ensemble = SnapshotEnsemble(recorded(tmp_path, models), tmp_path)
    packed = pack_sequence([torch.randn(n, 4) for n in (5, 3, 2)])
    expected = by_hand(models, lambda model: model(packed))
    for item in (packed, (packed, torch.tensor([0, 1, 2]))):
        torch.testing.assert_close(ensemble.predict(iter([item]), mode="resident"), expected)


@pytest.mark.parametrize(
    "made",
    [
        lambda a: a.numpy().astype(np.float64),
        lambda a: a.numpy(),
        lambda a: a.tolist(),
        lambda a: np.lib.stride_tricks.as_strided(a.numpy(), writeable=False),
        lambda a: a.numpy().astype(ml_dtypes.bfloat16),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_arrays_of_numpy_and_lists_take_the_models_dtype(
    tmp_path: Path, made: Callable[[Tensor], Any], dtype: torch.dtype
) -> None:
    models = [each.to(dtype) for each in drawn(TwoInputs)]
    ensemble = SnapshotEnsemble(recorded(tmp_path, models), tmp_path)
    a, b, _ = (each.bfloat16().float() if each.is_floating_point() else each for each in inputs())
    expected = by_hand(models, lambda model: model(a.to(dtype), b.to(dtype)))
    for x in ((made(a), made(b)), {"a": made(a), "b": made(b)}):
        found = ensemble.predict(x)
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=1e-2)
    loader = [{"a": made(a), "b": made(b)}]
    torch.testing.assert_close(
        ensemble.predict(loader), ensemble.predict((a.to(dtype), b.to(dtype)))
    )


def test_tensors_stay_in_the_dtype_that_their_owner_gave_them(tmp_path: Path) -> None:
    ensemble = SnapshotEnsemble(recorded(tmp_path, drawn(TwoInputs)), tmp_path)
    a, b, _ = inputs()
    with pytest.raises(RuntimeError, match="dtype"):
        ensemble.predict((a.double(), b))


def test_integers_of_numpy_stay_integers(tmp_path: Path) -> None:
    models = drawn(lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 3)))
    ensemble = SnapshotEnsemble(recorded(tmp_path, models), tmp_path)
    ids = np.arange(40).reshape(20, 2) % 9
    expected = by_hand(models, lambda model: model(torch.tensor(ids)))
    for x in (ids, ids.tolist(), ids.astype(np.uint8).astype(np.int32)):
        torch.testing.assert_close(ensemble.predict(x), expected)


def test_what_is_no_number_is_said(tmp_path: Path) -> None:
    ensemble = SnapshotEnsemble(recorded(tmp_path, drawn(TwoInputs)), tmp_path)
    a, b, _ = inputs(2)
    for x, message in (
        (
            {"a": a, "b": b, "c": ["one", "two"]},
            r"Tensor or ndarray.*ndarray of <U3 .* as x\['c'\]",
        ),
        ([a, b], r"Received: list; give several arguments as a tuple"),
        ("text", r"Received: str"),
    ):
        with pytest.raises(ca.EnsembleError, match=message):
            ensemble.predict(x)


def test_large_arrays_are_run_batch_by_batch(tmp_path: Path) -> None:
    seen: list[int] = []

    def forward(model: nn.Module, batch: Mapping[str, Tensor]) -> Any:
        seen.append(len(batch["a"]))
        return model(**batch)

    models = drawn(TwoInputs)
    ensemble = SnapshotEnsemble(recorded(tmp_path, models), tmp_path, forward=forward, last=2)
    a, b, y = inputs(1000)
    found = ensemble.predict({"a": a, "b": b})
    assert seen == [250] * 8
    torch.testing.assert_close(found, by_hand(models[1:], lambda model: model(a, b)))
    seen.clear()
    torch.testing.assert_close(found, ensemble.predict({"a": a, "b": b}, batch_size=1000))
    list(ensemble.member_predictions({"a": a, "b": b}))
    assert seen == [1000] * 2 + [250] * 8
    seen.clear()
    ensemble.fit({"a": a, "b": b}, y)
    ensemble.average_weights({"a": a, "b": b}, y, barrier=math.inf)
    assert set(seen) == {250}


class OneDict(nn.Module):
    """A model whose forward takes one dict, or two items as one argument; and fails if told to."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)

    def forward(self, both: Any) -> Tensor:
        if not isinstance(both, Mapping | list | tuple):
            raise TypeError("from within")
        a, b = both.values() if isinstance(both, Mapping) else both
        out: Tensor = self.linear(a) + self.linear(b)
        return out


@pytest.mark.parametrize("mode", [None, "stacked"])
def test_what_a_forward_does_not_take_is_said(tmp_path: Path, mode: Any) -> None:
    a = inputs()[0]
    (model,) = drawn(OneDict, 1)
    recorded(tmp_path, [model])
    ensemble = SnapshotEnsemble(model, tmp_path)
    options = {} if mode is None else {"mode": mode}
    with pytest.raises(ca.EnsembleError) as found:
        ensemble.predict({"left": a, "right": a}, **options)
    assert str(found.value) == (
        "OneDict.forward must take what the input gives: a dict's entries by keyword. Received: "
        "left=, right=, where it takes (both); to have it otherwise, give the ensemble "
        "forward=lambda model, batch: model(batch)"
    )
    assert isinstance(found.value.__cause__, TypeError)
    with pytest.raises(ca.EnsembleError, match=r"a tuple's entries in order.*2 arguments, where"):
        ensemble.predict((a, a), **options)
    stays = TypeError if mode is None else ca.EnsembleError  # an error of its own
    with pytest.raises(stays, match="^from within$" if mode is None else "TypeError: from within;"):
        ensemble.predict(a, **options)
    # What the message says to write works.
    whole = SnapshotEnsemble(model, tmp_path, forward=lambda model, batch: model(batch))
    expected = by_hand([model], lambda module: module({"left": a, "right": a}))
    for given in ({"left": a, "right": a}, (a, a)):
        torch.testing.assert_close(whole.predict(given, **options), expected)


def test_arguments_that_a_hook_makes_are_not_those_of_the_message(tmp_path: Path) -> None:
    a = inputs()[0]
    (model,) = drawn(OneDict, 1)
    recorded(tmp_path, [model])

    def hook(module: nn.Module, args: Any, kwargs: Any) -> Any:  # noqa: ARG001
        return (7,), {}  # so that forward is called, and fails within

    model.register_forward_pre_hook(hook, with_kwargs=True)
    with pytest.raises(TypeError, match=r"^from within$"):
        SnapshotEnsemble(model, tmp_path).predict({"left": a, "right": a})


@pytest.mark.parametrize("forward", [None, lambda model, batch: model(batch["left"])])
def test_the_keys_in_which_no_labels_were_found_are_said(tmp_path: Path, forward: Any) -> None:
    a, _, y = inputs()
    model = nn.Linear(2, 3)
    recorded(tmp_path, [model])
    loader = [{"left": a, "target": y}]
    with pytest.raises(ca.EnsembleError, match="without labels") as found:
        SnapshotEnsemble(model, tmp_path, forward=forward).fit(loader)
    assert str(found.value) == (
        "Argument `x_val` must give batches of (x, y), or dicts with 'labels' or 'label' or 'y', "
        "where `y_val` is left out. Received: a dict of 'left', 'target' without labels; have it "
        "give them so, or give those of all as `y_val`"
    )
    if forward is not None:
        SnapshotEnsemble(model, tmp_path, forward=forward).fit(loader, y)
