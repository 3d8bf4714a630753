"""Structures, their leaves, and the same structure of others."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

import cosanneal as ca
from cosanneal.ensemble.predict.form import Form, spread


class Pair(NamedTuple):
    mean: Any
    mask: Any


@pytest.mark.parametrize(
    ("form", "names", "filled"),
    [
        ({"a": "x", "b": "y"}, ["a", "b"], {"a": 0, "b": 1}),
        ({"a": "x", "b": None}, ["a"], {"a": 0}),
        (("x", None, "y"), ["0", "2"], (0, None, 1)),
        (["x"], ["0"], [0]),
        (Pair("x", None), ["0"], Pair(0, None)),
        ({"a": ["x", {"b": "y"}], "c": {"d": None}}, ["a.0", "a.1.b"], {"a": [0, {"b": 1}]}),
        ({"a": {"b": None}, "c": "x"}, ["c"], {"c": 0}),
    ],
)
def test_a_form_is_filled(form: Any, names: list[str], filled: Any) -> None:
    found = Form.of(form)
    assert found.names == names
    again = found.fill(range(len(names)))
    assert again == filled
    assert type(again) is type(filled)
    assert found.several


def test_a_form_of_one() -> None:
    found = Form.of("logits")
    assert (found.names, found.leaves, found.several) == ([""], ["logits"], False)
    assert found.fill([5]) == 5


@pytest.mark.parametrize("form", [{}, (), {"a": None}, [None, {}]])
def test_a_form_without_leaves_is_refused(form: Any) -> None:
    with pytest.raises(ca.EnsembleError, match=r"`outputs` must say of one output at least"):
        Form.of(form)


def test_keys_are_kept_as_they_are() -> None:
    form = {1: "x", ("a", 2): "y"}
    found = Form.of(form)
    assert found.paths == [(1,), (("a", 2),)]
    assert found.fill("pq") == {1: "p", ("a", 2): "q"}


def test_one_value_for_all_leaves_or_one_each() -> None:
    found = Form.of({"a": "x", "b": ["y", "z"]})
    assert spread("class_axis", 1, found, "auto") == [1, 1, 1]
    assert spread("class_axis", {"b": [None, 2]}, found, "auto") == ["auto", None, 2]
    with pytest.raises(ca.EnsembleError, match=r"`class_axis` must.*'a', 'b.0', 'b.1'.*'c'"):
        spread("class_axis", {"c": 1}, found, "auto")
    with pytest.raises(ca.EnsembleError, match=r"`class_axis` must.*'b'"):
        spread("class_axis", {"b": 1}, found, "auto")
