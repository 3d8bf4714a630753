"""Which array is taken of what a model returns, where that is no array alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...core.errors import EnsembleError
from ..structure import parts as parts_of
from .gaussian import is_pair, pair_of

IsArray = Callable[[object], bool]


def pick(returned: Any, is_array: IsArray, names: Sequence[str] = ()) -> Any:
    """The one array that is meant, where nobody said which.

    Of a dict, a NamedTuple or a dataclass (such as one of transformers' outputs) it is
    `logits`, or else the only array in it; of a tuple or a list the first item, as
    in `(logits, aux)`, unless the model has names for its items.

    Args:
        returned: what a model returned.
        is_array: whether something is an array of its framework.
        names: the model's own, of the items of a list or a tuple.

    Raises:
        EnsembleError: it could be one of several; or there is none.
    """
    while not is_array(returned):
        parts = _parts(returned, names)
        arrays = [each for each in parts.values() if is_array(each)]
        if "logits" in parts:
            returned = parts["logits"]
        elif isinstance(returned, tuple | list) and returned and not (len(parts) > 1 and names):
            returned = returned[0]
        elif len(arrays) == 1:
            (returned,) = arrays
        elif len(parts) == 1:
            (returned,) = parts.values()
        else:
            advice = "; make it return one that is to be averaged"
            if isinstance(returned, Mapping) and is_pair(returned):
                advice = '; of a mean and a variance give outputs="gaussian", or give output='
            elif parts:
                some = ", ".join(f"{name!r}: 'logits'" for name in [*parts][:2])
                advice = (
                    "; give output= one of these, or outputs= a structure that says what each is, "
                    f"such as outputs={{{some}}}"
                )
            raise EnsembleError(
                "The model must return one array, or outputs of which one is 'logits'. "
                f"Received: {_described(returned, parts)}{advice}"
            )
        names = ()
    return returned


def pick_leaf(
    returned: Any, path: Sequence[Any], is_array: IsArray, names: Sequence[str], *, pair: bool
) -> Any:
    """The array, or the pair, that stands somewhere in what a model returned.

    Args:
        returned: what it returned.
        path: the keys, names and places on the way.
        is_array: as in `pick`.
        names: as in `pick`.
        pair: whether it is a mean and a variance.

    Raises:
        EnsembleError: it is not there.
    """
    for key in path:
        returned, names = at(returned, key, is_array, names), ()
    return pick_pair(returned, is_array) if pair else pick(returned, is_array, names)


def pick_pair(returned: Any, is_array: IsArray) -> Any:
    """The pair of a mean and a variance that a model returned, as it is.

    Raises:
        EnsembleError: it is none.
    """
    for each in pair_of(returned):
        if not is_array(each):
            raise EnsembleError(
                "The model must return a pair of arrays for outputs='gaussian'. Received: a "
                f"{type(returned).__name__} with a {type(each).__name__}; give output= where the "
                "pair stands in what it returns"
            )
    return returned


def at(returned: Any, key: Any, is_array: IsArray, names: Sequence[str] = ()) -> Any:
    """What stands at a key, under a name or in a place of what a model returned.

    Args:
        returned: a dict, a tuple, a list, a NamedTuple or a dataclass.
        key: a dict's key, a field's name, or a place in a tuple or a list.
        is_array: as in `pick`.
        names: as in `pick`.

    Raises:
        EnsembleError: nothing does.
    """
    parts: dict[Any, Any] = {}
    if not is_array(returned):
        parts = _parts(returned, names)
        if key in parts:
            return parts[key]
        items = returned if isinstance(returned, tuple | list) else ()
        if isinstance(key, int) and -len(items) <= key < len(items):
            return items[key]
    received = "one array" if is_array(returned) else _described(returned, parts)
    raise EnsembleError(
        f"The model must return an output {key!r}, as output= or outputs= has it. "
        f"Received: {received}"
    )


def _parts(returned: Any, names: Sequence[str]) -> dict[Any, Any]:
    """What there is by name, but for what is None."""
    found: Mapping[Any, Any] | None
    if hasattr(returned, "_asdict"):
        found = returned._asdict()
    elif isinstance(returned, tuple | list):
        found = dict(zip(names, returned, strict=True)) if len(names) == len(returned) else {}
    else:
        found = parts_of(returned)
    if not found:
        found = {"logits": getattr(returned, "logits", None)}
    return {name: each for name, each in found.items() if each is not None}


def _described(returned: Any, parts: Mapping[Any, Any]) -> str:
    kind = type(returned).__name__
    article = "an" if kind[0] in "AEIOUaeiou" else "a"
    if parts:
        *others, last = map(repr, parts)
        listed = f"{', '.join(others)} and {last}" if others else last
        return f"{article} {kind} with {listed}"
    if isinstance(returned, tuple | list | Mapping):
        return f"{article} {kind} of {len(returned)}" if returned else f"an empty {kind}"
    return kind
