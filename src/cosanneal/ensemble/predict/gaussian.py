"""Outputs that are pairs, a mean and its variance, and the mixture that several of them make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError
from ..arrays import Kind, as_numpy, narrow, shape_of, widen
from .pooling import ValuePool

ArrayT = TypeVar("ArrayT")

_NAMES: Final = ("mean", "variance")


def is_pair(output: object) -> bool:
    """Whether an output is a tuple or a list of two, or a dict of a mean and a variance."""
    if isinstance(output, Mapping):
        return {*output} == {*_NAMES}
    return isinstance(output, tuple | list) and len(output) == 2


def pair_of(output: Any) -> tuple[Any, Any]:
    """The mean and the variance in an output, in that order.

    Raises:
        EnsembleError: it is no such pair.
    """
    if not is_pair(output):
        what = type(output).__name__
        if isinstance(output, Mapping):
            what += f" with {', '.join(map(repr, output))}"
        elif isinstance(output, tuple | list):
            what += f" of {len(output)}"
        raise EnsembleError(
            "The model must return a pair of means and variances for outputs='gaussian': a tuple "
            f"or a list of two arrays, or a dict with 'mean' and 'variance'. Received: {what}"
        )
    if isinstance(output, Mapping):
        return output["mean"], output["variance"]
    mean, variance = output
    return mean, variance


def pair_in(member: Any) -> tuple[Any, Any]:
    """The mean and the variance of a member, which may also be along an array's first axis.

    Raises:
        EnsembleError: it is no pair.
    """
    shape = () if is_pair(member) else shape_of(member)
    return pair_of(member if shape[:1] != (2,) else (member[0], member[1]))


def mapped(each: Callable[[Any], Any], output: Any) -> Any:
    """An output, or a pair in its form, with a function applied to its arrays."""
    return like_pair(output, *map(each, pair_of(output))) if is_pair(output) else each(output)


def like_pair(form: Any, mean: Any, variance: Any) -> Any:
    """A mean and a variance in the form of another pair."""
    if isinstance(form, Mapping):
        return dict(zip(_NAMES, (mean, variance), strict=True))
    if isinstance(form, list):
        return [mean, variance]
    kind: Any = type(form)
    return kind(mean, variance) if hasattr(form, "_fields") else (mean, variance)


def kept_pair(mean: Any, variance: Any) -> NDArray[Any]:
    """A pair as one array of numpy's, with the mean and the variance along the first axis."""
    return np.stack([as_numpy(mean), as_numpy(variance)])


class GaussianPool(Generic[ArrayT]):
    """The mixture of the members' normal distributions: its mean, and its variance in two parts.

    `mean = sum(w m)`, `variance = sum(w v) + sum(w (m - mean)**2)`

    with weights `w` that sum to 1, the members' means `m` and variances `v`: the law of
    total variance. The first part is `aleatoric`, the noise that the members tell of; the
    second `epistemic`, by which they disagree. Sums are in float64, without a difference
    of large squares.

    Example:
        >>> import numpy as np
        >>> pool = GaussianPool()
        >>> pool.update((np.array([1.0]), np.array([0.5])))
        >>> pool.update((np.array([3.0]), np.array([1.5])))
        >>> pool.mean.tolist(), pool.aleatoric.tolist(), pool.epistemic.tolist()
        ([2.0], [1.0], [1.0])
        >>> [each.tolist() for each in pool.value]
        [[2.0], [2.0]]

    Source: Lakshminarayanan et al., "Deep Ensembles" (2017), section 2.4; Kendall & Gal, "What
    Uncertainties Do We Need" (2017), for the two parts.
    """

    def __init__(self) -> None:
        self._values = ValuePool[ArrayT]()
        self._form: Any = None  # of the first pair

    def update(self, prediction: Any, weight: float = 1.0) -> None:
        """Take in one member's pair, which is left as it is.

        Args:
            prediction: a tuple or a list of means and variances, or a dict of a "mean" and a
                "variance": arrays of one shape, that of those before.
            weight: its weight, relative to the others'.

        Raises:
            EnsembleError: no pair, another shape, a negative variance, or a weight that
                is none.
        """
        mean, variance = pair_of(prediction)
        if self._form is None:  # without its arrays
            self._form = like_pair(prediction, None, None)
        self._values.update(mean, weight, variances=variance)

    def update_stacked(self, predictions: Any, weights: Sequence[float]) -> None:
        """Take in several members' `predictions`, stacked along one axis, by their `weights`."""
        means, variances = pair_of(predictions)
        for i, weight in enumerate(weights):
            self.update(like_pair(predictions, means[i], variances[i]), weight)

    def merge(self, other: GaussianPool[ArrayT]) -> None:
        """Take in all that the `other` pool has seen, as `Pool.merge` has it."""
        self._values.merge(other._values)
        if self._form is None:
            self._form = other._form

    @property
    def like(self) -> Kind | None:
        """The kind of the first mean."""
        return self._values.like

    @property
    def moments(self) -> tuple[Any, Any]:
        """The mean and the variance in float64, as `widen` makes them."""
        return self._values.moments

    @property
    def wide(self) -> tuple[Any, Any]:
        """The same."""
        return self.moments

    @property
    def mean(self) -> ArrayT:
        """The mixture's mean."""
        return self._values.mean

    @property
    def variance(self) -> ArrayT:
        """The mixture's variance."""
        return self._values.variance

    @property
    def aleatoric(self) -> ArrayT:
        """The mean of the members' variances."""
        return self._values.aleatoric

    @property
    def epistemic(self) -> ArrayT:
        """The variance of the members' means."""
        return self._values.epistemic

    @property
    def value(self) -> Any:
        """The mixture's mean and variance, in the form of the first pair."""
        return self.finished(*self.moments)

    def finished(self, mean: Any, variance: Any) -> Any:
        """A mean and a variance in float64, in the form and of the kind of the first pair."""
        return like_pair(self._form, narrow(mean, self.like), narrow(variance, self.like))


def wide_pair(output: Any) -> tuple[Any, Any]:
    """The mean and the variance of an output in float64, which must have one shape.

    Raises:
        EnsembleError: they have two shapes.
    """
    mean, variance = pair_of(output)
    check_pair_shapes(mean, variance)
    return widen(mean), widen(variance)


def check_pair_shapes(mean: Any, variance: Any) -> None:
    """Refuse a mean and a variance of two shapes."""
    if shape_of(mean) != shape_of(variance):
        raise EnsembleError(
            "The members' values and variances must have one shape. Received: "
            f"{shape_of(mean)} and {shape_of(variance)}"
        )
