"""The outputs of several batches in one, also where they differ in more than their samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, shown
from ..arrays import Kind, as_numbers, as_numpy, namespace, narrow, widen
from .gaussian import is_pair, like_pair, pair_of

Ragged: TypeAlias = Literal["error", "list", "pad"]

Shape: TypeAlias = tuple[int, ...]

# The outputs of batches, one at least, as one array.
Join: TypeAlias = Callable[[Sequence[Any]], Any]


def check_ragged(ragged: object) -> None:
    """Refuse what is no way to lay batches out."""
    if ragged not in get_args(Ragged):
        raise EnsembleError(
            f"Argument `ragged` must be 'error', 'list' or 'pad'. Received: ragged={shown(ragged)}"
        )


def laid(join: Join, parts: Sequence[Any], class_axis: int | None, ragged: Ragged) -> Any:
    """The outputs of several batches as was asked for.

    Args:
        join: the framework's own way to join arrays along the first axis.
        parts: the outputs: arrays, or pairs of a mean and a variance; or dataclasses of arrays,
            of which the first field is such an output, and all others have no classes.
        class_axis: of them; None where each number has a label of its own.
        ragged: "error" for one array, which takes parts of one shape but for the
            samples; "list" for the parts as they are; "pad" for one array, as
            large as the largest part along every axis and filled up with 0, and
            a mask of the same shape without the classes, True where there is
            something.

    Raises:
        EnsembleError: parts that cannot be laid out so.
    """
    check_ragged(ragged)
    if ragged == "list":
        return list(parts)
    first = parts[0]
    if is_pair(first):
        both = zip(*map(pair_of, parts), strict=True)
        found = [laid(join, each, class_axis, ragged) for each in both]
        if ragged == "error":
            return like_pair(first, *found)
        (mean, mask), (variance, _) = found
        return like_pair(first, mean, variance), mask
    if is_dataclass(first):
        names = [each.name for each in fields(first) if getattr(first, each.name) is not None]
        kind: Any = type(first)
        columns = {}
        for i, name in enumerate(names):
            column = [getattr(part, name) for part in parts]
            columns[name] = laid(join, column, None if i else class_axis, ragged)
        if ragged == "error":
            return kind(**columns)
        return kind(**{name: each for name, (each, _) in columns.items()}), columns[names[0]][1]
    shapes = shapes_of(parts)
    if ragged == "error":
        for i, shape in enumerate(shapes):
            if shape[1:] != shapes[0][1:]:
                raise EnsembleError(
                    "The outputs of all batches must have one shape, but for the number of rows. "
                    f"Received: rows of shape {shape[1:]} for batch {i}, after {shapes[0][1:]}; "
                    "give ragged='list' for a list with an array for each batch, or ragged='pad' "
                    "for one array and a mask"
                )
        return join(parts)
    axis = _check(shapes, class_axis)
    sizes = tuple(max(each) for each in zip(*shapes, strict=True))[1:]
    first = (slice(None),) * (axis or 0) + (0,) * (axis is not None)
    padded, masks = [], []
    for part in parts:
        wide = widen(part)
        # What holds no fractions is classes' numbers, or predictions that need none.
        back = as_numbers if Kind.of(part).dtype is None else narrow
        padded.append(back(_padded(wide, wide, sizes), part))
        # Of ones, and by a comparison: so the mask is of the framework, and where the part is.
        ones = _padded(wide, 1.0, sizes)[first]
        masks.append(back(ones, part) != 0)
    return join(padded), join(masks)


def are_ragged(shapes: Sequence[Shape]) -> bool:
    """Whether the shapes of batches differ in more than the number of samples."""
    return any(shape[1:] != shapes[0][1:] for shape in shapes)


def as_output_rows(parts: Sequence[Any], class_axis: int | None) -> Any:
    """Outputs as rows, one for each label: (labels, classes), or (labels,) of outcomes or values.

    Of the kind, the dtype and on the device of the first part. The rows of a sample
    follow each other.
    """
    if is_pair(parts[0]):
        both = zip(*map(pair_of, parts), strict=True)
        return like_pair(parts[0], *(as_output_rows(each, class_axis) for each in both))
    axis = _check(shapes_of(parts), class_axis)
    rows = [_rows(widen(part), axis) for part in parts]
    xp: Any = namespace(rows[0])
    return narrow(xp.concatenate(rows), parts[0])


def as_label_rows(labels: Any, shapes: Sequence[Shape], class_axis: int | None) -> NDArray[Any]:
    """The labels of batches, a mask of them or weights, in the order of `as_output_rows`.

    Args:
        labels: a list with those of each batch: of the shape of its outputs
            without the classes, or (one-hot, soft) with them.
        shapes: of the batches' outputs.
        class_axis: of the outputs.

    Raises:
        EnsembleError: labels of other shapes, or no list of batches.
    """
    wanted = (
        "The labels of batches that differ in shape must be a list with an array for each batch, "
        "of the shape of its outputs without the classes. Received: "
    )
    if not isinstance(labels, list | tuple):
        raise EnsembleError(wanted + f"an array{_shape_of(labels)}")
    if len(labels) != len(shapes):
        raise EnsembleError(wanted + f"{len(labels)} for {len(shapes)} batches")
    axis = _check(shapes, class_axis)
    rows = []
    for i, (given, shape) in enumerate(zip(labels, shapes, strict=True)):
        y = as_numpy(given)
        if y.shape not in (shape, tuple(size for j, size in enumerate(shape) if j != axis)):
            raise EnsembleError(wanted + f"{y.shape} for batch {i}, of outputs {shape}")
        rows.append(_rows(y, axis if y.shape == shape else None))
    return np.concatenate(rows)


def counts_of_rows(shapes: Sequence[Shape], class_axis: int | None) -> NDArray[np.intp]:
    """How many of the rows of `as_output_rows` each sample has."""
    axis = _check(shapes, class_axis)
    counts = [
        math.prod(size for i, size in enumerate(shape) if i not in (0, axis)) for shape in shapes
    ]
    return np.repeat(counts, [shape[0] for shape in shapes])


def _padded(wide: Any, values: Any, sizes: Shape) -> Any:
    """An array of larger axes with some values where `wide` is in it, and 0 elsewhere."""
    shape = (len(wide), *sizes)
    new = np.zeros(shape, wide.dtype) if isinstance(wide, np.ndarray) else wide.new_zeros(shape)
    new[tuple(slice(size) for size in wide.shape)] = values
    return new


def shapes_of(parts: Sequence[Any]) -> list[Shape]:
    """The shapes of outputs; of pairs, those of the means."""
    return [tuple((pair_of(each)[0] if is_pair(each) else each).shape) for each in parts]


def _check(shapes: Sequence[Shape], class_axis: int | None) -> int | None:
    """The class axis counted from the first; all must have as many axes, and as many classes."""
    first = shapes[0]
    axis = None if class_axis is None or len(first) == 1 else class_axis % len(first)
    for i, shape in enumerate(shapes):
        if len(shape) != len(first):
            raise EnsembleError(
                "The outputs of all batches must have one number of axes. "
                f"Received: shape {shape} for batch {i}, after {first}"
            )
        if axis is not None and shape[axis] != first[axis]:
            raise EnsembleError(
                "The outputs of all batches must have one number of classes. "
                f"Received: {shape[axis]} along axis {class_axis} for batch {i}, after "
                f"{first[axis]}; if the classes are along another one, give class_axis="
            )
    return axis


def _rows(array: Any, axis: int | None) -> Any:
    if axis is None:
        return array.reshape(-1)
    return namespace(array).moveaxis(array, axis, -1).reshape(-1, array.shape[axis])


def _shape_of(labels: Any) -> str:
    return f" of shape {tuple(labels.shape)}" if hasattr(labels, "shape") else ""
