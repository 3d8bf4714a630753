"""Arrays in structures, as batches are: dicts, tuples, lists, and records of such, nested."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from typing import Any, cast


def parts(node: Any) -> dict[Any, Any] | None:
    """What a container holds, by key, place or field; None for what is none, a leaf.

    Containers are tuples (also named ones), lists, mappings and dataclasses.
    """
    if isinstance(node, tuple | list):
        return dict(enumerate(node))
    if hasattr(node, "shape"):  # the most frequent leaf
        return None
    if isinstance(node, Mapping):
        return {key: node[key] for key in node}
    if is_dataclass(node) and not isinstance(node, type):
        return {each.name: getattr(node, each.name) for each in fields(node)}
    return None


def described(node: Any) -> str:
    """What a structure is, for a message: its kind, and the keys of a dict."""
    kind = f"a {type(node).__name__}"
    if not isinstance(node, Mapping) or not node:
        return kind
    keys = [repr(key) for key in node]
    return f"{kind} of {', '.join(keys[:8])}{', ...' if len(keys) > 8 else ''}"


def leaves(node: Any) -> list[Any]:
    """The leaves of a structure, in its own order."""
    held = node
    if not isinstance(node, tuple | list):
        named = parts(node)
        if named is None:
            return [node]
        held = named.values()
    return [leaf for each in held for leaf in leaves(each)]


def named_leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a structure, each with the way to it, such as `['ids'][0]`."""
    held = parts(node)
    if held is None:
        yield path, node
        return
    for key, each in held.items():
        yield from named_leaves(each, f"{path}[{key!r}]")


def map_leaves(
    function: Callable[[Any], Any], node: Any, is_leaf: Callable[[Any], bool] | None = None
) -> Any:
    """A structure with what a function makes of each leaf, in containers of its own.

    Mappings and records keep their kinds where these let themselves be copied and
    written to; other mappings become dicts.

    Args:
        function: of a leaf.
        node: the structure.
        is_leaf: whether a container is a leaf here; by default none is.
    """
    held = None if is_leaf is not None and is_leaf(node) else parts(node)
    if held is None:
        return function(node)
    return _like(node, {key: map_leaves(function, each, is_leaf) for key, each in held.items()})


def _like(node: Any, made: dict[Any, Any]) -> Any:
    if isinstance(node, tuple):
        make: Any = getattr(node, "_make", tuple)  # of a named one
        return make(made.values())
    if isinstance(node, list):
        return list(made.values())
    if type(node) is dict:
        return made
    if not isinstance(node, Mapping):
        copied = copy.copy(node)
        for name, value in made.items():
            object.__setattr__(copied, name, value)  # also of a frozen one
        return copied
    try:
        copied = cast(MutableMapping[Any, Any], copy.copy(node))
        for key, value in made.items():
            copied[key] = value
    except Exception:  # one that cannot be written to, or not with such values
        return made
    return copied
