"""Which array is taken of what a model returns."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import pytest

import cosanneal as ca
from cosanneal.ensemble.predict.picking import at, pick

A, B = np.zeros((2, 3)), np.ones((2, 1))


class Named(NamedTuple):
    hidden: Any
    logits: Any


class Pair(NamedTuple):
    mean: Any
    variance: Any


@dataclasses.dataclass
class Answer:
    loss: Any
    logits: Any


@dataclasses.dataclass
class Parts:
    box: Any
    mask: Any = None


def is_array(thing: object) -> bool:
    return isinstance(thing, np.ndarray)


@pytest.mark.parametrize(
    "returned",
    [
        A,
        {"logits": A, "aux": B},
        OrderedDict(loss=B, logits=A),
        {"only": A},
        {"x": A, "none": None},
        {"last_hidden_state": A, "cache": object(), "hidden_states": (A, B)},
        {"one": {"of": A}},
        (A, B),
        [A, B],
        (A,),
        ((A, B), B),
        ({"logits": A}, B),
        {"logits": (A, B)},
        Named(B, A),
        Answer(None, A),
        Answer(B, A),
        Pair(A, B),
        Parts(A),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_frameworks_people_would_take_is_taken(returned: Any) -> None:
    assert pick(returned, is_array) is A


@pytest.mark.parametrize(
    ("returned", "received"),
    [
        ({"box": A, "mask": B}, r"a dict with 'box' and 'mask'; give output= one of these"),
        (Parts(A, B), r"a Parts with 'box' and 'mask'; give output="),
        ({}, r"an empty dict"),
        ((), r"an empty tuple"),
        (None, r"NoneType"),
        ("text", r"str"),
        ((None, A), r"NoneType"),
        ({"logits": "x"}, r"str"),
    ],
)
def test_what_could_be_several_things_or_is_none_is_refused(returned: Any, received: str) -> None:
    with pytest.raises(ca.EnsembleError, match=rf"must return one array.*Received: {received}"):
        pick(returned, is_array)


def test_a_list_whose_items_have_names_is_refused_with_them() -> None:
    message = r"a list with 'box' and 'mask'; give output= one of these, or outputs= a structure"
    with pytest.raises(ca.EnsembleError, match=message):
        pick([A, B], is_array, ("box", "mask"))
    assert pick([B, A], is_array, ("box", "logits")) is A
    assert pick([A], is_array, ("box",)) is A


@pytest.mark.parametrize(
    ("returned", "key"),
    [
        ({"a": B, "b": A}, "b"),
        ({0: B, 1: A}, 1),
        ((B, A), 1),
        ([B, A], -1),
        (Named(A, B), "hidden"),
        (Named(A, B), 0),
        (Answer(A, B), "loss"),
    ],
)
def test_one_is_taken_by_its_key_name_or_place(returned: Any, key: Any) -> None:
    assert at(returned, key, is_array) is A


def test_one_of_a_list_is_taken_by_the_name_that_the_model_gives_it() -> None:
    assert at([B, A], "mask", is_array, ("box", "mask")) is A


@pytest.mark.parametrize(
    ("returned", "key", "received"),
    [
        ({"a": A, "b": B}, "c", r"a dict with 'a' and 'b'"),
        ({"a": A}, 0, r"a dict with 'a'"),
        ((A, B), 2, r"a tuple of 2"),
        ((A, B), -3, r"a tuple of 2"),
        ([A, B], "box", r"a list of 2"),
        (Answer(A, B), "box", r"an? Answer with 'loss' and 'logits'"),
        (Answer(A, B), "__class__", r"an? Answer with 'loss' and 'logits'"),
        (Answer(A, B), 0, r"an? Answer with 'loss' and 'logits'"),
        (Answer(None, B), "loss", r"an? Answer with 'logits'"),
        (A, "a", r"one array"),
        (A, 0, r"one array"),
        (None, 0, r"NoneType"),
    ],
)
def test_what_is_not_there_is_refused(returned: Any, key: Any, received: str) -> None:
    message = rf"must return an output {key!r}.*Received: {received}"
    with pytest.raises(ca.EnsembleError, match=message):
        at(returned, key, is_array)
