"""Batches of dicts, tuples and records: what of them is the input, and what the labels."""

from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

import cosanneal as ca
from cosanneal.ensemble.predict.batches import Batches, samples_of

X, W, Y = np.arange(20.0).reshape(10, 2), np.arange(30.0).reshape(10, 3), np.arange(10) % 3
OTHERS = {"a": X, "text": "some", "n": 3, "no": None}


class Loaded:
    """Items, as often as they are asked for."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __iter__(self) -> Any:
        return iter(self.items)


class Labelled(NamedTuple):
    image: Any
    mask: Any
    label: Any
    index: Any = None


class Pair(NamedTuple):
    image: Any
    target: Any


class Graph(NamedTuple):
    nodes: Any
    edges: Any
    senders: Any
    receivers: Any


@dataclass
class Record:
    nodes: Any
    y: Any


class Foreign:
    """An array of another framework."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)
        self.shape = self.values.shape

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.values

    def __len__(self) -> int:
        return len(self.values)


def batches_of(x: Any, batch_size: int | None = None, **options: Any) -> Batches:
    return Batches(x, batch_size=batch_size, arrays=np.ndarray, convert=np.asarray, **options)


def plain(batch: Any) -> Any:
    """A batch as lists."""
    if isinstance(batch, np.ndarray):
        return batch.tolist()
    if isinstance(batch, dict):
        return {name: plain(each) for name, each in batch.items()}
    return tuple(map(plain, batch)) if isinstance(batch, tuple | list) else batch


@pytest.mark.parametrize(
    ("item", "batch", "labels"),
    [
        (X, (X,), None),
        ([X], (X,), None),
        ((X, Y), (X,), Y),
        ([X, Y, W], (X,), Y),
        (((X, W), Y), (X, W), Y),
        (([X, W], Y), (X, W), Y),
        (({"a": X, "b": W}, Y), {"a": X, "b": W}, Y),
        (({"a": X, "y": W}, Y), {"a": X, "y": W}, Y),
        (({"a": X, "y": Y},), {"a": X}, Y),
        ({"a": X, "b": W, "labels": Y}, {"a": X, "b": W}, Y),
        ({"a": X, "label": Y}, {"a": X}, Y),
        ({"a": X, "y": Y, "labels": None}, {"a": X}, Y),
        ({"a": (X, {"b": W}), "y": Y}, {"a": (X, {"b": W})}, Y),
        (UserDict(a=X, labels=Y), {"a": X}, Y),
        (OTHERS, OTHERS, None),
        ((X.tolist(), Y.tolist()), (X,), Y),
        ({"a": X.tolist(), "y": Y.tolist()}, {"a": X}, Y),
        (Labelled(X, W, Y), (X, W), Y),
        (Labelled(X, W, Y, X), (X, W), Y),
        (Pair(X, Y), (X,), Y),
        (Graph(X, W, Y, Y), (Graph(X, W, Y, Y),), None),
        ((Graph(X, W, Y, Y), Y), (Graph(X, W, Y, Y),), Y),
        ((Foreign(X), Foreign(Y)), (X,), Y),
    ],
)  # fmt: skip
def test_a_loaders_batch_is_read_as_people_mean_it(item: Any, batch: Any, labels: Any) -> None:
    batches = batches_of(Loaded(item))
    for _ in range(2):
        (found,) = batches
        assert plain(found) == plain(batch)
        assert type(found) is type(batch)
    if labels is None:
        with pytest.raises(ca.EnsembleError, match=r"batches of \(x, y\), or dicts with 'labels'"):
            batches.labels()
    else:
        np.testing.assert_array_equal(np.concatenate(batches.labels()), labels)


def test_a_record_goes_in_as_it_is_with_its_labels() -> None:
    record = Record(X, Y)
    batches = batches_of(Loaded(record))
    ((found,),) = batches
    assert type(found) is Record
    np.testing.assert_array_equal(found.nodes, X)
    np.testing.assert_array_equal(np.concatenate(batches.labels()), Y)


@pytest.mark.parametrize(
    "item",
    [{"a": X, "labels": Y}, (X, Y), [X, Y], {"a": X, "y": Y, "label": Y}, (["a", "b"], Y[:2])],
)
def test_whole_batches_come_as_they_are(item: Any) -> None:
    (found,) = batches_of(Loaded(item), whole=True)
    assert type(found.given) is type(item)
    assert plain(found.given) == plain(item)
    assert samples_of(found) is None


def test_whole_batches_have_labels_too() -> None:
    for item in ({"a": X, "labels": Y}, (X, Y)):
        (labels,) = batches_of(Loaded(item), whole=True).labels()
        np.testing.assert_array_equal(labels, Y)
    with pytest.raises(ca.EnsembleError, match=r"Received: 'label' and 'y'; take all but one out"):
        batches_of(Loaded({"a": X, "y": Y, "label": Y}), whole=True).labels()
    cuts: list[Any] = [({"a": X, "y": Y}, {"a": X[:5], "y": Y[:5]}), ((X, W), (X[:5], W[:5]))]
    for x, part in cuts:
        first, _ = batches_of(x, 5, whole=True)
        assert plain(first.given) == plain(part)


@pytest.mark.parametrize(
    ("x", "second"),
    [
        (X, (X[4:8],)),
        ((X, W), (X[4:8], W[4:8])),
        ({"a": X, "b": W}, {"a": X[4:8], "b": W[4:8]}),
        ({"a": X, "b": W, "labels": Y}, {"a": X[4:8], "b": W[4:8]}),
        (UserDict(a=X, y=Y), {"a": X[4:8]}),
        ({"a": (X, [W])}, {"a": (X[4:8], [W[4:8]])}),
        (X.tolist(), (X[4:8],)),
        ({"a": X.tolist(), "b": W}, {"a": X[4:8], "b": W[4:8]}),
        (Foreign(X), (X[4:8],)),
        (Graph(X, W, Y, Y), (Graph(X[4:8], W[4:8], Y[4:8], Y[4:8]),)),
        (Labelled(X, W, Y, Y), (X[4:8], W[4:8])),
        (({"a": X}, W), ({"a": X[4:8]}, W[4:8])),
    ],
)
def test_arrays_in_structures_are_cut_along_their_first_axes(x: Any, second: Any) -> None:
    found = [*batches_of(x, 4)]
    assert len(found) == 3
    assert plain(found[1]) == plain(second)
    assert type(found[1]) is type(second)
    assert len([*batches_of(x)]) == 1


def test_labels_among_arrays() -> None:
    x: Any
    for x in ({"a": X, "labels": Y}, {"a": X, "y": Y.tolist()}, Labelled(X, W, Y, Y)):
        np.testing.assert_array_equal(batches_of(x, 4).labels(), Y)
    for x in (X, (X, Y), {"a": X}):
        with pytest.raises(ca.EnsembleError, match="`y_val` must be given where"):
            batches_of(x).labels()


def test_a_list_of_dicts_or_tuples_is_batches() -> None:
    for items in ([{"a": X, "y": Y}] * 2, [(X, Y)] * 2):
        batches = batches_of(items)
        assert len([*batches]) == 2
        np.testing.assert_array_equal(batches.labels(), [Y, Y])


def test_a_list_of_arrays_is_several_arguments_where_the_framework_has_it_so() -> None:
    first, *_ = batches_of([X, W], 4, lists=True)
    assert plain(first) == plain((X[:4], W[:4]))
    with pytest.raises(
        ca.EnsembleError, match=r"Received: list; give several arguments as a tuple"
    ):
        batches_of([X, W])


def test_an_input_may_have_the_name_of_labels() -> None:
    batches = batches_of(Loaded({"y": X, "label": Y}), label_names=("labels", "label"))
    assert [plain(batch) for batch in batches] == [{"y": X.tolist()}]
    np.testing.assert_array_equal(batches.labels(), [Y])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({"a": X, "b": W[:9]}, r"the same number of samples\. Received: \[10, 9\]"),
        ({"a": X, "title": "some"}, r"Received: str as x\['title'\]; take it out, or give batches"),
        ({"a": X, "n": 3}, r"Received: int as x\['n'\]"),
        ({"a": X, "more": (None,)}, r"Received: NoneType as x\['more'\]\[0\]"),
        ({"a": X, "n": np.array(3.0)}, r"Received: ndarray of float64 and shape \(\) as x\['n'\]"),
        ({"a": [[1, 2], [3]]}, r"nested lists of `x` must be of one length.*pad them"),
        ({"a": X, "y": Y, "labels": Y}, r"one of the names .*Received: 'labels' and 'y'; take all"),
        ({}, r"`x` must be an array \(ndarray\).*Received: nothing"),
        ((), r"Received: nothing"),
        ([], r"Received: nothing"),
        ({"labels": Y}, r"`x` must give batches that are arrays, dicts"),
        (Loaded({"labels": Y}), r"`x` must give batches that are arrays, dicts"),
        (Loaded({"a": "text"}), r"Received: a dict with \{'a': 'text'\}"),
        (Loaded({"a": X, "y": Y, "label": Y}), r"Received: 'label' and 'y'; take all but one out"),
    ],
)  # fmt: skip
def test_what_cannot_be_an_input_is_said(x: Any, message: str) -> None:
    with pytest.raises(ca.EnsembleError, match=message):
        list(batches_of(x))


@pytest.mark.parametrize(
    ("batch", "samples"),
    [
        ((X,), 10),
        ((X, W), 10),
        ({"a": X, "b": W}, None),
        ((X, W[:4]), None),
        ((X, 3), None),
        ((X[:0],), 0),
        (Graph(X, W[:4], Y[:4], Y[:4]), None),
        (["some", "texts"], None),
        ((object(),), None),
    ],
)
def test_samples_are_known_where_all_arguments_are_arrays_of_one_length(
    batch: Any, samples: int | None
) -> None:
    assert samples_of(batch) == samples


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"a": X, "b": W}, {"a": X, "b": W + 1}),
        ({"a": X, "b": W}, {"a": X, "c": W}),
        ({"a": X, "n": 1}, {"a": X, "n": 2}),
        ({"a": X, "text": "one"}, {"a": X, "text": "two"}),
        ((X, W), (W, X)),
        ({"a": (X, W)}, {"a": (X, X)}),
    ],
)
def test_another_batch_is_known_by_all_that_is_in_it(first: Any, second: Any) -> None:
    class Changing:
        passes = 0

        def __iter__(self) -> Any:
            self.passes += 1
            yield ((first if self.passes < 3 else second), Y)

    batches = batches_of(Changing())
    for _ in range(2):
        list(batches)
    with pytest.raises(ca.EnsembleError, match="another batch 0"):
        list(batches)


def test_what_says_where_it_lies_is_no_other_batch() -> None:
    class New:
        def __iter__(self) -> Any:
            yield {"a": X, "thing": object()}

    batches = batches_of(New())
    for _ in range(2):
        list(batches)
