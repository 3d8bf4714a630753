"""The truth that predictions are held against: labels as people have them, as scores need them.

Labels are given with probabilities of some shape. Of classes along an axis they are

- class numbers: integers, booleans, or whole floats, in the probabilities' shape without the
  class axis; also where that axis has length 1, or the labels a last axis of length 1;
- one-hot or soft labels: in the probabilities' shape, at least 0, with the sum 1 along the
  class axis;
- labels of any hashable kind, with `classes=` in the order of the outputs.

With `class_axis=None`, and of probabilities along one axis only, each number stands for an
outcome of its own, and labels are 0 or 1 (integers, booleans or floats), or soft: the
probability that the outcome happens. They have the probabilities' shape; a last axis of
length 1 may be there or not. What could be several of these is refused.

Of soft labels the log-loss is `-sum_k t_k log p_k` and the Brier score `sum_k (p_k - t_k)**2`;
every other score goes by their most probable class, of several the first.
"""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..core.errors import EnsembleError, shown
from .arrays import as_numpy, as_rows, unfolded
from .class_names import IGNORED, check_known, numbered

# By how much the sum of a soft label may differ from 1: float16 has 11 bits.
_SLACK: Final = 1e-2


class LabelOptions(TypedDict, total=False):
    """Which labels count, how much, and what they are called; every score takes these.

    A score of many labels is their weighted mean, `sum(w s) / sum(w)` over all labels that
    count, whatever sample they belong to, as `cross_entropy(ignore_index=...)` of PyTorch and
    scikit-learn's `sample_weight` have it. So a sample counts by the sum of its labels'
    weights; one without any drops out. Intervals resample whole samples, with their sums
    and weights, and are thus of the same mean.

    Args:
        ignore_index: labels equal to this integer (-100, 255, any) are left out.
        mask: True (or 1) where a label counts, False (or 0) where it is left out, as an
            attention mask has it; in the labels' shape (of soft labels without the class
            axis), or one for each sample. What is left out is not looked at.
        sample_weight: how much a label counts: at least 0, of the same shapes as `mask`.
        classes: the labels' names, of any hashable kind: the position of each is its
            class number. Of outcomes two, of which the second is that it happens.
        counts: where the first axis has the labels of all samples one after the other
            (sequences of different lengths): how many of them each sample has.
    """

    ignore_index: int | None
    mask: Any
    sample_weight: Any
    classes: Sequence[Hashable] | None
    counts: Any


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Labels:
    """The labels that count, one for each row of probabilities, sample by sample.

    Args:
        classes: the class of each, integers of shape (rows,); of a soft one the
            most probable.
        samples: how many samples have labels that count.
        shape: of the probabilities that they were given for.
        class_axis: the axis of the classes there; None of outcomes.
        kept: which of all rows these are; None for all.
        weights: how much each counts, positive; None where all count the same.
        targets: soft labels, of shape (rows, classes), with sums of 1; None
            where every label is one class.
        starts: where each sample's rows begin; None where all have as many.
        chosen: whether a user said which labels count, or how much.
    """

    classes: NDArray[np.intp]
    samples: int
    shape: tuple[int, ...]
    class_axis: int | None
    kept: NDArray[np.intp] | None = None
    weights: NDArray[np.float64] | None = None
    targets: NDArray[np.float64] | None = None
    starts: NDArray[np.intp] | None = None
    chosen: bool = False

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def sites(self) -> int:
        """How many labels, counted or not, there are to one place along the first axis."""
        classes = 1 if self.class_axis is None else self.shape[self.class_axis]
        return prod(self.shape[1:]) // classes

    def rows(self, probabilities: Any) -> NDArray[np.float64]:
        """The rows of these labels, of probabilities of the shape."""
        return as_rows(probabilities, self.class_axis, self.kept)

    def likelihoods(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The number in each row at its class."""
        found: NDArray[np.float64] = rows[np.arange(len(rows)), self.classes]
        return found

    def expected(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """`sum_k t_k v_k` in each row: the value of its class, or the mean by a soft label."""
        if self.targets is None:
            return self.likelihoods(values)
        return np.asarray(np.einsum("ij,ij->i", self.targets, values))

    def terms(self) -> tuple[Any, NDArray[np.intp], NDArray[np.float64] | None]:
        """The terms of a log-loss: the row of each, its class, and its weight (None: all 1).

        One for each label; of a soft label one for each class that it may be.
        """
        if self.targets is None:
            return slice(None), self.classes, self.weights
        rows, classes = np.nonzero(self.targets)
        weights = self.targets[rows, classes]
        return rows, classes, weights if self.weights is None else weights * self.weights[rows]

    def mean(self, scores: NDArray[Any]) -> float:
        """The weighted mean of the rows' scores."""
        if self.weights is None:
            return float(scores.mean())
        return float(self.weights @ scores / self.weights.sum())

    def per_sample(self, scores: NDArray[Any]) -> NDArray[np.float64]:
        """The weighted mean of the rows' scores over each sample."""
        values = np.asarray(scores, np.float64)
        if self.weights is None and self.starts is None:
            return np.asarray(values.reshape(self.samples, -1).mean(axis=1))
        weights = np.ones(len(self)) if self.weights is None else self.weights
        return self._sums(weights * values) / self._sums(weights)

    def sample_weights(self) -> NDArray[np.float64] | None:
        """By how much each sample's mean counts in that of all labels; None for all the same."""
        if self.weights is None and self.starts is None:
            return None
        return self._sums(np.ones(len(self)) if self.weights is None else self.weights)

    def rows_of(self, samples: NDArray[np.intp]) -> NDArray[np.intp]:
        """Where the rows of some samples are, one after the other."""
        if self.starts is None:
            return np.arange(len(self)).reshape(self.samples, -1)[samples].reshape(-1)
        counts = self._counts()[samples]
        ends = np.cumsum(counts)
        within = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
        return np.asarray(np.repeat(self.starts[samples], counts) + within)

    def of(self, samples: NDArray[np.intp]) -> Labels:
        """The labels of some samples, of which any may come several times."""
        at = self.rows_of(samples)
        starts = self.starts
        if starts is not None:
            counts = self._counts()[samples]
            starts = np.cumsum(counts) - counts
        return replace(
            self,
            classes=self.classes[at],
            samples=len(samples),
            kept=at if self.kept is None else self.kept[at],
            weights=None if self.weights is None else self.weights[at],
            targets=None if self.targets is None else self.targets[at],
            starts=starts,
        )

    def some(self, at: slice) -> Labels:
        """The classes, targets and weights of some rows; not which samples they are of."""
        return replace(
            self,
            classes=self.classes[at],
            targets=None if self.targets is None else self.targets[at],
            weights=None if self.weights is None else self.weights[at],
        )

    def sample_of_rows(self) -> NDArray[np.intp]:
        """The number of the sample that each row belongs to."""
        counts = len(self) // self.samples if self.starts is None else self._counts()
        return np.repeat(np.arange(self.samples), counts)

    def _counts(self) -> NDArray[np.intp]:
        return np.diff(np.asarray(self.starts), append=len(self))

    def _sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.starts is None:
            return np.asarray(values.reshape(self.samples, -1).sum(axis=1))
        return np.asarray(np.add.reduceat(values, self.starts))


def as_labels(
    labels: Any,
    shape: tuple[int, ...],
    class_axis: int | None = -1,
    *,
    ignore_index: int | None = None,
    mask: Any = None,
    sample_weight: Any = None,
    classes: Sequence[Hashable] | None = None,
    counts: Any = None,
) -> Labels:
    """Labels for probabilities of a shape, checked.

    Args:
        labels: the truth, as this module says.
        shape: the probabilities'.
        class_axis: as in `as_rows`.
        ignore_index: this and what follows: as in `LabelOptions`.
        mask: see there.
        sample_weight: see there.
        classes: see there.
        counts: see there.

    Raises:
        EnsembleError: shapes that do not fit, labels that are no classes, none that counts.
    """
    axis = None if class_axis is None or len(shape) < 2 else class_axis % len(shape)
    wanted = tuple(size for i, size in enumerate(shape) if i != axis)
    number = 2 if axis is None else shape[axis]
    ignored = _checked_index(ignore_index)
    names: Sequence[Any] = ()
    if axis is not None and shape[axis] < 2:
        raise EnsembleError(
            "Argument `probabilities` must have at least two classes along the class axis "
            f"{class_axis}. Received: shape {shape}; for the probability of an outcome (binary, "
            "multi-label) give class_axis=None"
        )
    if classes is None:
        y = as_numpy(labels)
    else:
        y, names = numbered(labels, classes, wanted, number, ignored)
        ignored = None if ignored is None else IGNORED
    given = y.shape
    soft = axis is not None and given == shape and classes is None
    if not (shape and y.size and (soft or given in _forms(shape, wanted, axis))):
        raise _unfit(given, shape, wanted, class_axis)
    y = unfolded(y, axis) if soft else y.reshape(-1)
    if soft and ignored is not None:
        raise EnsembleError(
            "Argument `ignore_index` must be left out for one-hot and soft labels, which have no "
            f"class numbers. Received: ignore_index={ignore_index}; give mask="
        )
    sizes = checked_counts(counts, wanted[0])
    rows_each = sizes * (prod(wanted) // wanted[0])
    spread = _Spread(wanted, given, rows_each)
    keep = np.ones(len(y), bool) if mask is None else spread.mask(mask)
    if ignored is not None:
        keep &= y != ignored
    weights = None if sample_weight is None else spread.weights(sample_weight, keep)
    if weights is not None:
        keep &= weights > 0
    if not keep.any():
        raise EnsembleError(
            "Argument `labels` must have at least one label that counts. Received: none of "
            f"{len(y)}; look at ignore_index=, mask= and sample_weight="
        )
    kept = None if keep.all() else np.flatnonzero(keep)
    y = y if kept is None else y[kept]
    if weights is not None:
        weights = weights if kept is None else weights[kept]
        weights = None if (weights == weights[0]).all() else weights
    targets = _soft(y, class_axis) if soft else None
    if not soft:
        if classes is not None:
            check_known(y, kept, names, wanted, classes)
        y, targets = _checked(y, number, outcomes=axis is None, shape=shape)
    starts, samples = None, wanted[0]
    if counts is not None or kept is not None:
        starts, samples = _starts(rows_each, keep)
    return Labels(
        classes=y.astype(np.intp) if targets is None else targets.argmax(axis=1),
        samples=samples,
        shape=shape,
        class_axis=None if axis is None else class_axis,
        kept=kept,
        weights=weights,
        # What is one class for certain needs no more than its number.
        targets=None if targets is None or (targets.max(axis=1) == 1).all() else targets,
        starts=starts,
        chosen=not (ignore_index is None and mask is None and sample_weight is None),
    )


def _forms(
    shape: tuple[int, ...], wanted: tuple[int, ...], axis: int | None
) -> Iterator[tuple[int, ...]]:
    """The shapes in which class numbers, or outcomes, may come."""
    yield wanted
    yield (*wanted, 1)
    if axis is not None:
        yield (*shape[:axis], 1, *shape[axis + 1 :])
    elif shape[-1:] == (1,) and len(shape) > 1:
        yield shape[:-1]


def _unfit(
    given: tuple[int, ...],
    shape: tuple[int, ...],
    wanted: tuple[int, ...],
    class_axis: int | None,
) -> EnsembleError:
    several = "shapes (samples, classes) and (samples,)"
    remedy = ""
    if given[:1] == shape[:1] and class_axis is None and len(given) == 1 < len(shape):
        remedy = "; for one class of several for each sample give the class_axis"
    elif given[:1] == shape[:1] and given and len(given) == len(shape):
        remedy = f"; class numbers have shape {wanted}, and one-hot or soft labels {shape}"
    return EnsembleError(
        f"Arguments `probabilities` and `labels` must have "
        f"{'one shape' if class_axis is None else several}, with at least one sample. "
        f"Received: {shape} and {given}{remedy}"
    )


def _checked(
    y: NDArray[Any], number: int, *, outcomes: bool, shape: tuple[int, ...]
) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """Class numbers; or of outcomes that are not all 0 or 1, soft labels of both classes."""
    added = y.dtype.kind == "V" and y.dtype.isbuiltin == 2  # a float that numpy was taught
    if y.dtype.kind == "f" or added:
        y = y.astype(np.float64)
        whole = np.isfinite(y) & (y == np.floor(y))
        if whole.all():
            pass  # class numbers that a table or a loss made floats
        elif outcomes and y.min() >= 0 and y.max() <= 1:
            return y, np.stack([1 - y, y], axis=1)
        elif outcomes:
            raise EnsembleError(
                "Argument `labels` must be 0 or 1, or between them the probability that the "
                f"outcome happens. Received: from {y.min():.6g} to {y.max():.6g}"
            )
        else:
            at = int(whole.argmin())
            raise EnsembleError(
                f"Argument `labels` must be integers from 0 to {number - 1}, one of the classes. "
                f"Received: dtype float64, and {y[at]:.6g}; class numbers are whole, soft labels "
                f"have the probabilities' shape {shape}, and those of outcomes come with "
                "class_axis=None"
            )
    integers = y.dtype.kind in "iubf"
    # Text and records have no least value.
    if not integers or y.min() < 0 or y.max() >= number:
        found = f", from {int(y.min())} to {int(y.max())}" if integers else ""
        named = "name them by classes=[...], in the order of the outputs"
        remedy = _remedy(y, number) if integers else named
        raise EnsembleError(
            f"Argument `labels` must be integers from 0 to {number - 1}, one of the classes. "
            f"Received: dtype {y.dtype}{found}; {remedy}"
        )
    return y, None


def _remedy(y: NDArray[Any], number: int) -> str:
    """What to do with numbers of which some are no class."""
    values = np.unique(y)
    if values[0] == 1 and values[-1] == number:
        return "classes are counted from 0: give labels - 1"
    if number == 2 and values.tolist() == [-1, 1]:
        return "give 0 in place of -1: (labels + 1) // 2"
    outside = values[(values < 0) | (values >= number)]
    # Such a number stands for "no label" where all others are classes, as -100 or 255.
    if len(outside) == 1 and len(values) > 1:
        return f"leave labels out by ignore_index={int(outside[0])}, if it means that there is none"
    return f"the predictions have {number} classes; name the labels' own by classes=[...]"


def _soft(y: NDArray[Any], class_axis: int | None) -> NDArray[np.float64]:
    """One-hot or soft labels, whose sums are made 1 to the last digit."""
    if y.dtype.kind not in "biuf" and not (y.dtype.kind == "V" and y.dtype.isbuiltin == 2):
        raise EnsembleError(
            "Argument `labels` must be numbers where it has the probabilities' shape: one-hot or "
            f"soft labels. Received: dtype {y.dtype}"
        )
    t = y.astype(np.float64)
    sums = t.sum(axis=1)
    if not (np.isfinite(t).all() and t.min() >= 0 and (np.abs(sums - 1) <= _SLACK).all()):
        raise EnsembleError(
            "Argument `labels` in the probabilities' shape must be at least 0 and sum to 1 along "
            f"the class axis {class_axis} (one-hot or soft labels). Received: from {t.min():.6g} "
            f"to {t.max():.6g}, with sums from {sums.min():.6g} to {sums.max():.6g}; where several "
            "outcomes of one sample may happen (multi-label) give class_axis=None"
        )
    return np.asarray(t / sums[:, None])


def _checked_index(ignore_index: object) -> int | None:
    if ignore_index is None:
        return None
    try:
        if isinstance(ignore_index, bool):
            raise TypeError
        return operator.index(ignore_index)  # type: ignore[arg-type]
    except TypeError:
        raise EnsembleError(
            "Argument `ignore_index` must be an integer, such as -100. "
            f"Received: ignore_index={shown(ignore_index)}"
        ) from None


def checked_counts(counts: Any, units: int) -> NDArray[np.intp]:
    """How many places along the first axis each sample has."""
    if counts is None:
        return np.ones(units, np.intp)
    sizes = as_numpy(counts)
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or sizes.size == 0 or sizes.min() < 0:
        raise EnsembleError(
            "Argument `counts` must be integers of at least 0, one for each sample. "
            f"Received: {shown(counts)}"
        )
    if sizes.sum() != units:
        raise EnsembleError(
            f"Argument `counts` must sum to {units}, the length of the first axis. "
            f"Received: a sum of {sizes.sum()}"
        )
    return sizes.astype(np.intp)


def _starts(
    rows_each: NDArray[np.intp], keep: NDArray[np.bool_]
) -> tuple[NDArray[np.intp] | None, int]:
    """Where each sample's kept rows begin (None: all have as many), and how many have any."""
    owner = np.repeat(np.arange(len(rows_each)), rows_each)
    found = np.bincount(owner[keep], minlength=len(rows_each))
    found = found[found > 0]
    if (found == found[0]).all():
        return None, len(found)
    return np.cumsum(found) - found, len(found)


@dataclass(frozen=True, slots=True)
class _Spread:
    """Makes what is given for samples, or for labels, one value for each label.

    Args:
        wanted: the labels' shape.
        given: that in which the user gave them.
        rows_each: how many labels each sample has.
    """

    wanted: tuple[int, ...]
    given: tuple[int, ...]
    rows_each: NDArray[np.intp]

    def mask(self, mask: Any) -> NDArray[np.bool_]:
        """Which labels count."""
        found = self._spread("mask", as_numpy(mask))
        if found.dtype.kind not in "biu" or not np.isin(found, (0, 1)).all():
            raise EnsembleError(
                "Argument `mask` must be boolean, True where a label counts. Received: "
                f"dtype {found.dtype}"
                + ("" if found.dtype.kind not in "iu" else ", with numbers other than 0 and 1")
            )
        return found.astype(bool)

    def weights(self, weights: Any, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        """How much each label counts; of those that do not, 0."""
        found = self._spread("sample_weight", as_numpy(weights))
        if found.dtype.kind not in "biuf":
            raise EnsembleError(
                f"Argument `sample_weight` must be numbers. Received: dtype {found.dtype}"
            )
        found = np.where(keep, found.astype(np.float64), 0.0)
        if not np.isfinite(found).all() or found.min() < 0:
            raise EnsembleError(
                "Argument `sample_weight` must be finite and at least 0. Received: from "
                f"{found.min():.6g} to {found.max():.6g}"
            )
        return found

    def _spread(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        if array.shape in (self.wanted, self.given) and array.size == self.rows_each.sum():
            return array.reshape(-1)
        if array.shape == self.rows_each.shape:
            return np.repeat(array, self.rows_each)
        raise EnsembleError(
            f"Argument `{name}` must be of the labels' shape {self.wanted}, or have one value for "
            f"each of {len(self.rows_each)} samples. Received: shape {array.shape}"
        )
