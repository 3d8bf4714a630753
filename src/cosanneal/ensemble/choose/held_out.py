"""Members' predictions and the truth: what a choice goes by."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias, Unpack

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError
from ...core.keywords import takes_options
from ..arrays import SMALLEST, as_numpy, as_rows
from ..labels import LabelOptions, Labels, as_labels
from ..score.measures import Measure
from ..score.metrics import METRICS, row_scores
from .budget import Leaving

Floats: TypeAlias = NDArray[np.float64]

# Numbers of all members at a time: 32 MiB.
_NUMBERS: Final = 1 << 22


class HeldOut:
    """The members' predictions for data that none of them was trained on, and its labels.

    Args:
        predictions: the members' probabilities, oldest first: a sequence of
            arrays of one shape (memory-mapped ones are read when needed), or
            one array with the members along its first axis.
        labels: the true classes, as `cosanneal.ensemble.labels` says.
        class_axis: the axis of the classes in one member's array, or None.
        options: see `LabelOptions`.

    Raises:
        EnsembleError: no members, shapes that differ or do not fit, labels that
            are no classes, numbers that are no probabilities.

    Example:
        >>> members = [[[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.7, 0.3]]]
        >>> held_out = HeldOut(members, [0, 1])
        >>> len(held_out), held_out.scores([0.5, 0.5])["error"]
        (2, 0.5)
    """

    @takes_options(LabelOptions)
    def __init__(
        self,
        predictions: Sequence[Any] | Any,
        labels: Any,
        *,
        class_axis: int | None = -1,
        **options: Unpack[LabelOptions],
    ) -> None:
        self._members = [as_numpy(member) for member in predictions]
        shapes = {member.shape for member in self._members}
        if len(shapes) != 1:
            raise EnsembleError(
                "Argument `predictions` must have at least one member, and all of one shape. "
                f"Received: {len(self._members)} members"
                + (f" of shapes {sorted(shapes)}" if shapes else "")
            )
        self.shape: tuple[int, ...] = shapes.pop()
        self.class_axis = class_axis
        self.labels: Labels = as_labels(labels, self.shape, class_axis, **options)
        self._counts = options.get("counts")
        # One row for each label (of a soft one, for each class that it may be), one
        # column for each member; and how much a row counts, None where all count the
        # same. A mean of numbers of at least 2**-126 is at least that too.
        at, classes, weights = self.labels.terms()
        self.weights: Floats | None = weights
        self._stack: Floats | None = None  # all members' rows, once they were asked for
        self.likelihoods: Floats = np.empty((len(classes), len(self)))
        places = np.arange(len(self.labels))[at]
        for i in range(len(self)):
            self.likelihoods[:, i] = np.maximum(self.rows(i)[places, classes], SMALLEST)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return self.labels.samples

    def rows(self, member: int) -> Floats:
        """A member's probabilities, one row for each label that counts; not to be changed."""
        if self._stack is not None:
            return np.asarray(self._stack[member])
        return self.labels.rows(self._members[member])

    def of(self, samples: NDArray[np.intp]) -> HeldOut:
        """The same members for some of the samples alone, in their order, none twice."""
        rows = self.labels.rows_of(samples)
        terms = np.arange(len(self.labels))[self.labels.terms()[0]]
        within = np.zeros(len(self.labels), bool)
        within[rows] = True
        found = copy.copy(self)
        found.labels = self.labels.of(samples)
        found.weights = found.labels.terms()[2]
        found.likelihoods = self.likelihoods[within[terms]]
        found._stack = None if self._stack is None else self._stack.take(rows, axis=1)
        return found

    def parts(self, members: NDArray[np.intp] | None = None) -> Iterator[tuple[Labels, Floats]]:
        """The labels that count, some at a time, with the rows of some members, stacked.

        Args:
            members: which; by default all.

        Yields:
            Of the labels their classes, targets and weights; and rows of shape (members,
            labels, classes), not to be changed.
        """
        y = self.labels
        wanted = np.arange(len(self)) if members is None else members
        classes = 2 if y.class_axis is None else self.shape[y.class_axis]
        if self._stack is None and len(y) * classes * len(self) <= _NUMBERS:
            self._stack = np.stack([self.rows(i) for i in range(len(self))])
        if self._stack is not None:
            yield y, self._stack if len(wanted) == len(self) else self._stack[wanted]
            return
        numbers = math.prod(self.shape) // self.shape[0] * len(wanted)
        at_once = max(_NUMBERS // numbers, 1)
        for start in range(0, self.shape[0], at_once):
            part = slice(start, start + at_once)
            # Of all rows those of this part, and of these the ones that count.
            first, stop = start * y.sites, min(start + at_once, self.shape[0]) * y.sites
            kept, at = None, slice(first, stop)
            if y.kept is not None:
                at = slice(*np.searchsorted(y.kept, (first, stop)))
                kept = y.kept[at] - first
            if at.start < at.stop:
                rows = [as_rows(self._members[i][part], self.class_axis, kept) for i in wanted]
                yield y.some(at), np.stack(rows)

    def error_products(self, members: NDArray[np.intp]) -> Floats:
        """`mean(sum_k (p_a - y)_k (p_b - y)_k)` for every two of some members."""
        products = np.zeros((len(members), len(members)))
        for y, rows in self.parts(members):
            errors = rows.copy()
            if y.targets is None:
                errors[:, np.arange(len(y)), y.classes] -= 1
            else:
                errors -= y.targets
            if y.weights is not None:
                errors *= np.sqrt(y.weights)[:, None]
            flat = errors.reshape(len(members), -1)
            products += flat @ flat.T
        y = self.labels
        return products / (len(y) if y.weights is None else y.weights.sum())

    def leaving(self, weights: Sequence[float]) -> Leaving:
        """When samples can leave a mean with these weights, and what it costs; not of `of`."""
        losses = np.average(-np.log(self.likelihoods), axis=0, weights=self.weights)
        newest_first = range(len(self) - 1, -1, -1)
        order = sorted(newest_first, key=losses.tolist().__getitem__)
        return Leaving(self._members, weights, self.labels, self._counts, order=order)

    def pooled(self, weights: Sequence[float] | Floats) -> Floats:
        """`sum(w p)` with the `weights` w of the members, one row for each label.

        Raises:
            EnsembleError: not a weight for each member, or one that is negative or not finite.
        """
        total: Floats | None = None
        for i, weight in enumerate(weights):
            if weight:
                part = weight * self.rows(i)
                total = part if total is None else np.add(total, part, out=total)
        if total is None or len(weights) != len(self):
            raise EnsembleError(
                f"Argument `weights` must have a weight for each of {len(self)} members, and one "
                f"above 0. Received: {list(weights)}"
            )
        return total

    def scores(self, weights: Sequence[float] | Floats) -> dict[str, float]:
        """The log-loss, the Brier score and the error of `pooled(weights)`."""
        return self.scores_of(self.pooled(weights))

    def scores_of(self, rows: Floats, measure: Measure | None = None) -> dict[str, float]:
        """The log-loss, Brier score and error of `rows` of probabilities, and that of `measure`."""
        found: dict[str, float] = {
            name: self.labels.mean(row_scores(name, rows, self.labels)) for name in METRICS
        }
        if measure is not None and measure.name not in found:
            found[measure.name] = measure.value(rows, self.labels)
        return found
