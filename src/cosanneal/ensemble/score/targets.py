"""The targets of a regression: which of them count, and how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError
from ..arrays import as_floats, as_numpy
from ..labels import checked_counts

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """The targets that count, one after the other, in float64.

    Args:
        values: the targets, of shape (numbers,).
        shape: that of all targets, with the samples along the first axis.
        kept: which of all targets these are, of that shape; None for all.
        weights: the weight of each of `values`; None where all count the same.
        counts: how many places along the first axis each sample has; None where it is one.
    """

    values: Floats
    shape: tuple[int, ...]
    kept: NDArray[np.bool_] | None = None
    weights: Floats | None = None
    counts: NDArray[np.intp] | None = None

    @property
    def samples(self) -> int:
        """How many samples there are, those without a target that counts among them."""
        return self.shape[0] if self.counts is None else len(self.counts)

    def numbers(self, array: Any, name: str = "values", *, ends: bool = False) -> Floats:
        """A prediction's numbers for these targets, in their order.

        Args:
            array: of the targets' shape, or with one axis of length 1 more or less
                at the end; in any framework.
            name: the argument's name, for the message.
            ends: whether they are ends of intervals, which may be infinite.

        Raises:
            EnsembleError: another shape, or a number that is not finite.
        """
        numbers = as_floats(array)
        # Nothing is broadcast: (samples,) beside (samples, 1) would be a square of numbers.
        if self.shape not in (numbers.shape, (*numbers.shape, 1), numbers.shape[:-1]) or (
            numbers.shape[len(self.shape) :] not in ((), (1,))
        ):
            raise EnsembleError(
                f"Arguments `{name}` and `targets` must have one shape. Received: "
                f"{numbers.shape} and {self.shape}"
            )
        numbers = numbers.reshape(self.shape)
        found: Floats = numbers.reshape(-1) if self.kept is None else numbers[self.kept]
        if np.isnan(found).any() or not (ends or np.isfinite(found).all()):
            what = (
                "a number, or infinite. Received: NaN"
                if ends
                else "finite. Received: NaN or infinity"
            )
            raise EnsembleError(f"Argument `{name}` must be {what}")
        return found

    @property
    def counted(self) -> int:
        """How many samples there are with a target that counts."""
        return len(np.unique(self._owners()))

    def _owners(self) -> NDArray[np.intp]:
        """The sample of each number that counts."""
        if self.kept is None:
            at = np.repeat(np.arange(self.shape[0]), int(np.prod(self.shape[1:])))
        else:
            at = np.nonzero(self.kept.reshape(self.shape[0], -1))[0]
        return at if self.counts is None else np.repeat(np.arange(self.samples), self.counts)[at]

    def drawn(self, random: np.random.Generator) -> NDArray[np.intp]:
        """As many samples as there are, drawn with replacement: their places on the first axis."""
        if self.counts is None:
            return random.integers(self.samples, size=self.samples)
        starts = np.cumsum(self.counts) - self.counts
        at = random.choice(np.flatnonzero(self.counts), size=self.samples)
        return np.concatenate([np.arange(starts[i], starts[i] + self.counts[i]) for i in at])

    def columns(self) -> NDArray[np.intp]:
        """Which target of its sample each number is, of targets of two axes."""
        kept = np.ones(self.shape, bool) if self.kept is None else self.kept
        return np.nonzero(kept)[1]

    def mean(self, scores: Floats) -> float:
        """The mean of the scores of all numbers, by their weights."""
        return float(np.average(scores, weights=self.weights))

    def per_sample(self, scores: Floats) -> Floats:
        """A score for each sample, whose mean is `mean(scores)`; in the samples' order.

        The share of each sample in the sum, times the number of samples: where each has
        as many targets as the others, the mean of its own. Samples of which no target
        counts are left out.
        """
        weights = np.ones_like(scores) if self.weights is None else self.weights
        at = self._owners()
        sums = np.bincount(at, weights * scores, minlength=self.samples)
        there = np.bincount(at, minlength=self.samples) > 0
        return np.asarray(sums[there] * (np.count_nonzero(there) / weights.sum()))


def as_targets(
    targets: Any, *, sample_weight: Any = None, mask: Any = None, counts: Any = None
) -> Targets:
    """Targets of a regression, checked.

    Args:
        targets: the truth, with the samples along the first axis: of shape (samples,),
            or of several targets (samples, ...); in any framework.
        sample_weight: how much each counts, at least 0: of shape (samples,), or of the
            targets' shape. By default all the same.
        mask: True where a target counts: of shape (samples,), or of the targets' shape.
            What does not count may be NaN, in the targets and in the predictions.
        counts: where the first axis has the targets of all samples one after the other, how
            many each sample has, as in `LabelOptions`.

    Raises:
        EnsembleError: no targets, or none that counts; numbers that are not finite; weights
            or a mask of another shape or kind.
    """
    y = as_floats(targets)
    if y.ndim == 0 or y.size == 0:
        raise EnsembleError(
            "Argument `targets` must have the samples along the first axis, at least one. "
            f"Received: shape {y.shape}"
        )
    kept: NDArray[np.bool_] | None = None
    if mask is not None:
        flags = as_numpy(mask)
        if flags.dtype.kind != "b":
            raise EnsembleError(
                "Argument `mask` must be booleans, True where a target counts. Received: dtype "
                f"{flags.dtype}"
            )
        kept = np.array(_spread("mask", flags, y.shape))
    weights: Floats | None = None
    if sample_weight is not None:
        weights = np.array(_spread("sample_weight", as_floats(sample_weight), y.shape))
        counted = weights if kept is None else weights[kept]
        if not (np.isfinite(counted).all() and (counted >= 0).all()):
            raise EnsembleError(
                "Argument `sample_weight` must be finite numbers of at least 0. Received: "
                + ("NaN or infinity" if not np.isfinite(counted).all() else f"{counted.min():.6g}")
            )
        # What counts nothing is left out: its prediction need not be a number.
        kept = weights > 0 if kept is None else kept & (weights > 0)
    if kept is not None and kept.all():
        kept = None
    if kept is not None and not kept.any():
        raise EnsembleError(
            "There must be a target that counts. Received: none, by `mask` and `sample_weight`"
        )
    values = y.reshape(-1) if kept is None else y[kept]
    if not np.isfinite(values).all():
        raise EnsembleError(
            "Argument `targets` must be finite. Received: NaN or infinity; leave targets that are "
            "missing out by mask="
        )
    if weights is not None:
        weights = weights.reshape(-1) if kept is None else weights[kept]
    sizes = None if counts is None else checked_counts(counts, y.shape[0])
    return Targets(values, y.shape, kept, weights, sizes)


def _spread(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """What is given for each sample, or for each target, for each target."""
    if array.shape == shape:
        return array
    if array.shape != shape[:1]:
        raise EnsembleError(
            f"Argument `{name}` must be of shape {shape[:1]}, one for each sample, or of the "
            f"targets' shape {shape}. Received: shape {array.shape}"
        )
    return np.broadcast_to(array.reshape(-1, *(1 for _ in shape[1:])), shape)
