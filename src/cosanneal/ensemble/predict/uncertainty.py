"""How sure an ensemble is, and why not: streaming, beside its prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast

from ...core.errors import EnsembleError, shown
from ..arrays import Kind, check_class_axis, namespace, narrow, probabilities_of, widen
from ..score.uncertainty import Uncertainty, ValueUncertainty, divergence, entropy
from .gaussian import GaussianPool
from .outputs import REGRESSIONS, OutputSpec
from .pooling import Pool, ValuePool, check_weight, weighted

ArrayT = TypeVar("ArrayT")


class UncertaintyPool(Generic[ArrayT]):
    """The uncertainty of the members seen so far: one at a time, in the memory of one.

    All is summed in float64. The mutual information grows with each member by
    `a KL(q || q') + b KL(p || q')`, with the mean `q` of those before at their
    share `a` of all weights, the member's `p` at its share `b`, and the new mean
    `q' = a q + b p`. What is added is at least 0, and no difference of
    entropies: members that hardly differ have the digits of how they do.

    Attributes:
        mean: the pool of their probabilities.

    Args:
        inputs: what the members' predictions are: "probabilities" or "logits".
        class_axis: the axis of the classes; None where each number is an
            outcome of its own, as in an array of one axis.

    Raises:
        EnsembleError: no such input.

    Example:
        >>> import numpy as np
        >>> pool = UncertaintyPool()
        >>> pool.update(np.array([[0.5, 0.5], [1.0, 0.0]]))
        >>> pool.update(np.array([[0.5, 0.5], [0.0, 1.0]]))
        >>> found = pool.result()
        >>> found.entropy.round(3).tolist(), found.mutual_information.round(3).tolist()
        ([0.693, 0.693], [0.0, 0.693])

    Source: Lin, "Divergence Measures Based on the Shannon Entropy" (1991), section 4.
    """

    def __init__(
        self,
        *,
        inputs: Literal["probabilities", "logits"] = "probabilities",
        class_axis: int | None = -1,
    ) -> None:
        if inputs not in ("probabilities", "logits"):
            raise EnsembleError(
                "Argument `inputs` must be 'probabilities' or 'logits'. "
                f"Received: inputs={shown(inputs)}"
            )
        self.mean: Pool[ArrayT] = Pool(class_axis=class_axis)
        self._votes = Pool[Any]("vote", class_axis=class_axis)
        self._inputs, self._class_axis = inputs, class_axis
        self._like: Kind | None = None  # of what has no axis of classes any more
        self._weight = 0.0
        self._entropy: Any = 0.0
        self._information: Any = 0.0

    def update(self, prediction: ArrayT, weight: float = 1.0) -> None:
        """Take in one member's `prediction` with its `weight`, as `Pool.update` does."""
        self._add(widen(prediction), check_weight(weight), prediction)

    def update_stacked(self, predictions: ArrayT, weights: Sequence[float]) -> None:
        """Take in several members' `predictions`, stacked along one axis, by their `weights`."""
        wide, first = widen(predictions), cast(Any, predictions)[0]
        for each, weight in zip(wide, weights, strict=True):
            self._add(each, check_weight(weight), first)

    def _add(self, wide: Any, weight: float, like: Any) -> None:
        axis = None if len(wide.shape) == 1 else self._class_axis
        if self._like is None:
            check_class_axis(tuple(wide.shape), axis, "Predictions")
        xp = namespace(wide)
        logits = self._inputs == "logits"
        p = probabilities_of(wide, axis) if logits else xp.clip(wide, 0, 1)
        before = self.mean.wide if self._weight else None
        self.mean.update(p, weight)  # which refuses another shape
        if self._like is None:
            like = like if hasattr(like, "shape") else wide  # a nested list
            self.mean.like = Kind.of(like)
            first = (slice(None),) * ((axis or 0) % len(wide.shape))
            self._like = self.mean.like if axis is None else Kind.of(like[(*first, 0)])
        if not weight:
            return
        self._votes.update(p, weight)
        self._weight += weight
        share = weight / self._weight
        self._entropy = (1 - share) * self._entropy + share * entropy(p, axis)
        if before is not None:
            grown = divergence(before, p, self.mean.wide, share, axis)
            self._information = (1 - share) * self._information + grown

    def result(self, finish: Callable[[Pool[ArrayT]], ArrayT] | None = None) -> Uncertainty[ArrayT]:
        """The uncertainty, in the kind, dtype and place of the first prediction.

        Args:
            finish: what makes the probabilities of their pool, such as
                `Choice.finish`; by default they are its value.

        Raises:
            EnsembleError: no member has any weight.
        """
        mean = self.mean.wide
        axis = None if len(mean.shape) == 1 else self._class_axis
        votes = self._votes.wide
        xp = namespace(mean)
        most = xp.maximum(votes, 1 - votes) if axis is None else xp.amax(votes, axis=axis)
        information = self._information + xp.zeros_like(most)  # of one member, 0
        parts = (entropy(mean, axis), self._entropy, information, 1 - most)
        return Uncertainty(
            self.mean.value if finish is None else finish(self.mean),
            *(cast(ArrayT, narrow(part, self._like)) for part in parts),
        )


def uncertainty(
    predictions: Iterable[ArrayT],
    weights: Sequence[float] | None = None,
    *,
    inputs: Literal["probabilities", "logits"] = "probabilities",
    class_axis: int | None = -1,
) -> Uncertainty[ArrayT]:
    """How sure members are together, and how far they differ; they may come one at a time.

    Args:
        predictions: the members' predictions: arrays of one shape, of any framework.
        weights: a weight for each, such as `Choice.weights`; by default all count
            the same.
        inputs: what the predictions are: "probabilities" or "logits".
        class_axis: the axis of the classes in one member's array, or None for outcomes.

    Returns:
        The parts, as `Uncertainty` says, of the kind, dtype and device of the first.

    Raises:
        EnsembleError: no members, shapes that differ, or weights that do not fit.

    Example:
        >>> import numpy as np
        >>> members = np.array([[[0.9, 0.1], [0.6, 0.4]], [[0.1, 0.9], [0.6, 0.4]]])
        >>> found = uncertainty(members)
        >>> found.mutual_information.round(3).tolist(), found.variation_ratio.tolist()
        ([0.368, 0.0], [0.5, 0.0])

    Source: as `Uncertainty`.
    """
    pool = UncertaintyPool[ArrayT](inputs=inputs, class_axis=class_axis)
    for prediction, weight in weighted(predictions, weights):
        pool.update(prediction, weight)
    return pool.result()


# What finds the uncertainty of classes, of values, and of means and variances.
AnyPool: TypeAlias = UncertaintyPool[Any] | ValuePool[Any] | GaussianPool[Any]


def uncertainty_pool(spec: OutputSpec) -> AnyPool:
    """What finds the uncertainty of members whose outputs are such.

    Raises:
        EnsembleError: they are pooled by another rule than the mean of probabilities.
    """
    if spec.pooling != "probabilities":
        raise EnsembleError(
            "An ensemble must pool the mean of probabilities for its uncertainty, which is that "
            f"mean's. Received: pooling={spec.pooling!r}; give pooling='probabilities'"
        )
    if spec.outputs in REGRESSIONS:
        return spec.moments()
    inputs: Literal["probabilities", "logits"] = (
        "logits" if spec.outputs == "logits" else "probabilities"
    )
    return UncertaintyPool(inputs=inputs, class_axis=spec.class_axis)


def uncertainty_of(
    pool: AnyPool, finish: Callable[[Pool[Any]], Any] | None
) -> Uncertainty[Any] | ValueUncertainty[Any]:
    """What such a pool has found, with the probabilities that `finish` makes of their pool."""
    if isinstance(pool, UncertaintyPool):
        return pool.result(finish)
    aleatoric = pool.aleatoric if isinstance(pool, GaussianPool) else None
    return ValueUncertainty(mean=pool.mean, epistemic=pool.epistemic, aleatoric=aleatoric)
