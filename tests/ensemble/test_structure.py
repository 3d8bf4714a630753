"""Arrays in structures: what is a container, and what of it stays."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest

from cosanneal.ensemble.structure import leaves, map_leaves, named_leaves


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass(frozen=True)
class Record:
    left: Any
    right: Any
    size: int = field(init=False, default=3)


class Named(UserDict[str, Any]):
    """A mapping with an attribute of its own, as transformers' BatchEncoding."""

    encodings: Any = None


A, B = np.arange(3), np.arange(4)


@pytest.mark.parametrize(
    "node",
    [
        (A, B),
        [A, B],
        Pair(A, B),
        {"left": A, "right": B},
        OrderedDict(left=A, right=B),
        Named(left=A, right=B),
    ],
)
def test_containers_keep_their_kinds(node: Any) -> None:
    found = map_leaves(lambda leaf: leaf + 1, node)
    assert type(found) is type(node)
    assert [leaf.tolist() for leaf in leaves(found)] == [[1, 2, 3], [1, 2, 3, 4]]
    assert leaves(node)[0] is A  # it stays as it was


def test_containers_are_new_ones_and_may_be_written_to() -> None:
    node = {"x": A, "more": [A, {"y": B}]}
    found = map_leaves(lambda leaf: leaf, node)
    found["more"][1].pop("y")
    found.pop("x")
    assert node["x"] is A
    assert leaves(node) == [A, A, B]


def test_what_else_a_container_knows_stays() -> None:
    named = Named(left=A, right=B)
    named.encodings = "read"
    assert map_leaves(lambda leaf: leaf, named).encodings == "read"
    record = map_leaves(lambda leaf: leaf * 2, Record(A, B))
    assert type(record) is Record
    assert (record.left.tolist(), record.size) == ([0, 2, 4], 6)


def test_a_mapping_that_cannot_be_written_to_becomes_a_dict() -> None:
    found = map_leaves(lambda leaf: leaf * 2, MappingProxyType({"x": A}))
    assert type(found) is dict
    assert found["x"].tolist() == [0, 2, 4]


def test_leaves_have_their_ways() -> None:
    node = {"ids": A, "images": (B, [A]), "none": None, "pair": Pair(1, "two")}
    assert [path for path, _ in named_leaves(node)] == [
        *("['ids']", "['images'][0]", "['images'][1][0]", "['none']"),
        *("['pair'][0]", "['pair'][1]"),
    ]
    assert leaves(node) == [leaf for _, leaf in named_leaves(node)]
    assert leaves({}) == leaves(()) == []


def test_some_containers_may_be_leaves() -> None:
    packed = namedtuple("packed", "data sizes")
    found = map_leaves(len, {"x": packed(A, B)}, lambda node: isinstance(node, packed))
    assert found == {"x": 2}
