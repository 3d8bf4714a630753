"""Labels by their names: texts, tuples, numbers, whatever can be hashed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from ..core.errors import EnsembleError, shown
from .arrays import as_numpy

# In place of a class number: a label that is to be left out, and one that is no class.
IGNORED: Final = -1
UNKNOWN: Final = -2


def numbered(
    labels: Any,
    classes: Sequence[Hashable],
    wanted: tuple[int, ...],
    number: int,
    ignored: int | None,
) -> tuple[NDArray[Any], Sequence[Any]]:
    """Class numbers by the labels' names, and the names themselves, one after the other."""
    if isinstance(classes, str) or len(classes) != number:
        raise EnsembleError(
            f"Argument `classes` must be a list of the {number} classes, in the order of the "
            f"outputs. Received: {shown(classes)}"
        )
    # Of numpy's scalars the values, which are what a list made of an array holds.
    table: dict[Any, int] = {}
    for i, name in enumerate(classes):
        key = name.item() if isinstance(name, np.generic) else name
        try:
            twice = key in table
        except TypeError:
            raise EnsembleError(
                "Argument `classes` must be of a hashable kind, such as texts, numbers and tuples. "
                f"Received: {shown(name)}"
            ) from None
        if twice:
            raise EnsembleError(
                f"Argument `classes` must have each class once. Received: {shown(name)} twice"
            )
        table[key] = i

    def code(name: Any) -> int:
        if ignored is not None and not isinstance(name, str) and name == ignored:
            return IGNORED
        try:
            found = table.get(name, UNKNOWN)
        except TypeError:
            return UNKNOWN
        if found == UNKNOWN and isinstance(name, bytes):  # as TensorFlow has texts
            found = table.get(name.decode(errors="replace"), UNKNOWN)
        return found

    if isinstance(labels, list | tuple):
        names, shape = _leaves(labels, len(wanted))
    else:
        array = as_numpy(labels)
        shape = array.shape
        if array.ndim == len(wanted) + 1 and all(isinstance(name, tuple) for name in table):
            shape = shape[:-1]  # an array that numpy made of tuples
            names = [tuple(row) for row in array.reshape(-1, array.shape[-1]).tolist()]
        elif array.dtype.kind in "biufSU":
            values, at = np.unique(array.reshape(-1), return_inverse=True)
            codes = np.array([code(value) for value in values.tolist()], np.intp)
            return codes[at].reshape(shape), cast(Sequence[Any], array.reshape(-1))
        else:
            names = array.reshape(-1).tolist()
    return np.array([code(name) for name in names], np.intp).reshape(shape), names


def _leaves(labels: Sequence[Any], depth: int) -> tuple[list[Any], tuple[int, ...]]:
    """What lies so deep in nested lists, and the shape of these."""
    items = list(labels)
    shape: tuple[int, ...] = (len(labels),)
    for _ in range(depth - 1):
        sizes = {len(item) if isinstance(item, list | tuple) else -1 for item in items}
        if len(sizes) != 1 or -1 in sizes:
            raise EnsembleError(
                f"Argument `labels` must be lists of one length, {depth} deep. "
                f"Received: {shown(labels)}"
            )
        items, shape = [each for item in items for each in item], (*shape, *sizes)
    alone = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in items]
    return [each.item() if isinstance(each, np.generic) else each for each in alone], shape


def check_known(
    numbers: NDArray[Any],
    kept: NDArray[np.intp] | None,
    names: Sequence[Any],
    wanted: tuple[int, ...],
    classes: Sequence[Hashable],
) -> None:
    """Refuse labels that are none of the classes.

    Args:
        numbers: of the labels that count.
        kept: where these are among all; None where all count.
        names: of all labels.
        wanted: the labels' shape.
        classes: the classes.
    """
    if not (numbers == UNKNOWN).any():
        return
    at = int((numbers == UNKNOWN).argmax())
    place = at if kept is None else int(kept[at])
    name = names[place]
    name = name.item() if isinstance(name, np.generic) else name
    where = ", ".join(str(int(i)) for i in np.unravel_index(place, wanted))
    raise EnsembleError(
        "Argument `labels` must be among `classes`. Received: "
        f"{shown(name)} at labels[{where}], for classes={shown(list(classes))}"
    )
