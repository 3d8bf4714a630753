"""Arrays of any framework: to float64 and back, and in the layout that scores are computed in.

No framework is imported. An array of torch, JAX or TensorFlow can only have
come from its framework, which is then in `sys.modules`.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.errors import EnsembleError, shown

# Where a logarithm is taken, a probability below this, the smallest normal
# float32, counts as this: one that underflowed must not make a mean infinite.
SMALLEST: Final = 2.0**-126

# The spacing of floats at 1, by the dtype's name.
EPS: Final = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}

# By how much probabilities may leave [0, 1], and their sum 1: bfloat16 has 8 bits.
_SLACK: Final = 1e-2


def as_numpy(array: Any) -> NDArray[Any]:
    """An array of any framework, or a nested list, as numpy's; without a copy where one can do."""
    if _is_a(array, "torch", "Tensor"):
        array = array.detach().cpu()
        if array.dtype == sys.modules["torch"].bfloat16:  # which numpy does not know
            array = array.float()
    try:
        return np.asarray(array)
    except ValueError as error:
        raise EnsembleError(
            f"Predictions and labels must be arrays of numbers. Received: {shown(array)}"
        ) from error
    except RuntimeError as error:
        if getattr(array, "is_fully_addressable", True):
            raise
        raise EnsembleError(
            "Predictions and labels must be whole in this process. Received: an array of shape "
            f"{tuple(array.shape)} in parts over several; gather it by "
            "jax.experimental.multihost_utils.process_allgather(array, tiled=True)"
        ) from error


def as_floats(array: Any) -> NDArray[np.float64]:
    """A copy of an array of any framework as numpy's in float64."""
    values = as_numpy(array)
    # Kind V: records, but also the floats that others have added to numpy.
    added = values.dtype.kind == "V" and values.dtype.isbuiltin == 2
    if values.dtype.kind not in "biuf" and not added:
        raise EnsembleError(
            f"Predictions must be arrays of numbers. Received: dtype {values.dtype}"
        )
    return values.astype(np.float64)


def widen(array: Any) -> Any:
    """An array in float64, in which predictions are summed; complex numbers in complex128.

    A tensor of torch stays on its device, but for those without float64
    (Apple's GPUs); everything else becomes an array of numpy's, since neither
    JAX nor TensorFlow has float64 on every device and in every mode.
    """
    if _is_a(array, "torch", "Tensor"):
        torch = sys.modules["torch"]
        array = array.detach() if array.requires_grad else array
        dtype = torch.complex128 if array.is_complex() else torch.float64
        return array.to("cpu", dtype) if array.device.type == "mps" else array.to(dtype)
    if as_numpy(array).dtype.kind == "c":
        return as_numpy(array).astype(np.complex128)
    return as_floats(array)


def stacked_tensors(arrays: Sequence[Any]) -> Any:
    """Tensors of torch along a new first axis; None of other arrays, or where they differ."""
    torch, first = sys.modules.get("torch"), arrays[0]
    if torch is None or not all(isinstance(each, torch.Tensor) for each in arrays):
        return None
    kind = first.shape, first.dtype, first.device
    if any((each.shape, each.dtype, each.device) != kind for each in arrays):
        return None
    return torch.stack(list(arrays))


def shape_of(array: Any) -> tuple[int, ...]:
    """The shape of an array, or of a nested list."""
    return tuple(array.shape) if hasattr(array, "shape") else as_numpy(array).shape


class Kind(NamedTuple):
    """What is kept of an array, to make others like it: not its data.

    Args:
        framework: "torch", "jax", "tensorflow" or "numpy".
        dtype: in the framework's terms; None for what holds no fractions, which
            stands for the framework's widest float.
        place: the device, or JAX' sharding.
    """

    framework: str
    dtype: Any
    place: Any

    @classmethod
    def of(cls, array: Any) -> Kind:
        """The kind of an array of any framework."""
        name = str(getattr(array, "dtype", "int"))
        floating = "float" in name or "complex" in name
        dtype = array.dtype if floating else None
        if _is_a(array, "torch", "Tensor"):
            return cls("torch", dtype, array.device)
        if _is_a(array, "jax", "Array"):
            return cls("jax", dtype, array.sharding)
        if _is_a(array, "tensorflow", "Tensor"):
            return cls("tensorflow", dtype and dtype.as_numpy_dtype, array.device)
        return cls("numpy", dtype, None)


def narrow(wide: Any, like: Any) -> Any:
    """What `widen` made, as an array of the kind, the dtype and on the device of `like`.

    Args:
        wide: the array.
        like: an array, or the kind of one.
    """
    kind = like if isinstance(like, Kind) else Kind.of(like)
    if kind.framework == "torch":
        return wide.to(device=kind.place, dtype=kind.dtype)
    value = wide if kind.dtype is None else wide.astype(kind.dtype)
    if kind.framework == "jax":
        return sys.modules["jax"].device_put(value, kind.place)
    if kind.framework == "tensorflow":
        tensorflow = sys.modules["tensorflow"]
        with tensorflow.device(kind.place):
            return tensorflow.convert_to_tensor(value)
    return value


def as_numbers(wide: Any, like: Any) -> Any:
    """Whole numbers, as integers of the framework and in the place of `like`; see `narrow`."""
    kind = like if isinstance(like, Kind) else Kind.of(like)
    whole = wide.astype(np.int64) if isinstance(wide, np.ndarray) else wide.long()
    return narrow(whole, kind._replace(dtype=None))


def namespace(array: Any) -> Any:
    """The module with the functions for an array: torch, or numpy for all else that `widen` makes.

    For arrays of JAX and tensors of TensorFlow, which are not widened where a graph is
    traced, jax.numpy, and keras.ops, which has numpy's functions for these.
    """
    if _is_a(array, "torch", "Tensor"):
        return sys.modules["torch"]
    if _is_a(array, "jax", "Array"):
        return sys.modules["jax"].numpy
    return sys.modules["keras"].ops if _is_a(array, "tensorflow", "Tensor") else np


def log_softmax(wide: Any, class_axis: int) -> Any:
    """`z - log(sum(exp(z)))` along an axis."""
    xp = namespace(wide)
    shifted = wide - xp.amax(wide, axis=class_axis, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=class_axis, keepdims=True))


def log_sigmoid(wide: Any) -> Any:
    """`-log(1 + exp(-z))`."""
    xp = namespace(wide)
    return -xp.logaddexp(xp.zeros_like(wide), -wide)


def probabilities_of(logits: Any, class_axis: int | None) -> Any:
    """The softmax along an axis, or the sigmoid, of what `widen` made."""
    if hasattr(logits, "softmax"):  # torch has each as one operation
        return logits.sigmoid() if class_axis is None else logits.softmax(class_axis)
    logs = log_sigmoid(logits) if class_axis is None else log_softmax(logits, class_axis)
    return namespace(logits).exp(logs)


def logarithm(probabilities: Any) -> Any:
    """`log(p)` of what `widen` made, with p at least 2**-126."""
    xp = namespace(probabilities)
    return xp.log(xp.where(probabilities < SMALLEST, SMALLEST, probabilities))


def log_odds(probabilities: Any) -> Any:
    """`log(p / (1 - p))` of what `widen` made, with both at least 2**-126."""
    return logarithm(probabilities) - logarithm(1 - probabilities)


def two_greatest(rows: Any) -> tuple[Any, Any]:
    """The two greatest numbers along the last axis, which may be equal; NaN is the greatest."""
    if isinstance(rows, np.ndarray):
        count = rows.shape[-1]
        sorted_ = np.partition(rows, (count - 2, count - 1), axis=-1)
        return sorted_[..., -1], sorted_[..., -2]
    found = rows.topk(2, dim=-1).values
    return found[..., 0], found[..., 1]


def check_count(name: str, value: object, *, minimum: int = 1) -> int:
    """`value` as an int of at least `minimum`; numpy's and torch's integers count as such."""
    try:
        count = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = None
    if count is None or count < minimum:
        what = "a positive integer" if minimum == 1 else f"an integer of at least {minimum}"
        raise EnsembleError(f"Argument `{name}` must be {what}. Received: {name}={shown(value)}")
    return count


def check_share(name: str, value: object) -> float:
    """`value` as a float strictly between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise EnsembleError(
            f"Argument `{name}` must be a number between 0 and 1. Received: {name}={shown(value)}"
        )
    return float(value)


def check_class_axis(shape: tuple[int, ...], class_axis: int | None, name: str) -> None:
    """Refuse a shape that has no two classes along the class axis."""
    if class_axis is None:
        return
    if not -len(shape) <= class_axis < len(shape) or len(shape) < 2 or shape[class_axis] < 2:
        raise EnsembleError(
            f"{name} must have at least two classes along the class axis {class_axis}. "
            f"Received: an output of shape {tuple(shape)}; for a regression give "
            "outputs='values', for numbers that each stand for an outcome of their own (binary, "
            "multi-label) class_axis=None"
        )


def as_rows(
    probabilities: Any, class_axis: int | None = -1, kept: NDArray[np.intp] | None = None
) -> NDArray[np.float64]:
    """Probabilities in float64 as rows of classes: of shape (samples * sites, classes).

    The rows of a sample with several labels (pixels, tokens, outcomes) follow
    each other. An outcome becomes a row of two: it does not happen, it does.

    Args:
        probabilities: of classes along `class_axis`, with the samples along the
            first axis; or, where that is None or there is one axis only, of
            outcomes that each happen or not.
        class_axis: the axis of the classes, or None.
        kept: which of the rows to take, and to look at; by default all.

    Raises:
        EnsembleError: no such shape, or numbers that are no probabilities.
    """
    p = unfolded(as_floats(probabilities), class_axis)
    p = p if kept is None else p[kept]
    if not np.isfinite(p).all():
        raise EnsembleError("Argument `probabilities` must be finite. Received: NaN or infinity")
    if p.size and not (p.min() >= -_SLACK and p.max() <= 1 + _SLACK):
        raise EnsembleError(
            "Argument `probabilities` must be between 0 and 1. Received: from "
            f"{p.min():.6g} to {p.max():.6g}; make probabilities of logits first"
        )
    if p.ndim == 1:
        return np.stack([1 - p, p], axis=1)
    sums = p.sum(axis=1)
    if not (np.abs(sums - 1) <= _SLACK).all():
        raise EnsembleError(
            f"Argument `probabilities` must sum to 1 along the class axis {class_axis}. Received: "
            f"sums from {sums.min():.6g} to {sums.max():.6g}; for outcomes that each happen or not "
            "(multi-label) give class_axis=None"
        )
    return p


def unfolded(array: NDArray[Any], class_axis: int | None) -> NDArray[Any]:
    """An array with the classes along the last of two axes; of outcomes, along its only one.

    Raises:
        EnsembleError: no such axis, or no axis of the samples beside it.
    """
    if class_axis is None or array.ndim == 1:
        return array.reshape(-1)
    if array.ndim < 2 or not -array.ndim <= class_axis < array.ndim or class_axis % array.ndim == 0:
        raise EnsembleError(
            "Argument `probabilities` must have the samples along the first axis and the classes "
            f"along axis {class_axis}. Received: shape {array.shape}"
        )
    moved = np.ascontiguousarray(np.moveaxis(array, class_axis, -1))
    return moved.reshape(-1, moved.shape[-1])


def _is_a(array: Any, module: str, name: str) -> bool:
    """Whether an array is of a class of a framework, which is not imported for the question."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(array, kind)
