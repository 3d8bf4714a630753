"""Many predictions made one: streaming, in the memory of one, for arrays of any framework."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar, cast, get_args

import numpy as np

from ...core.errors import EnsembleError, shown
from ..arrays import Kind, check_class_axis, namespace, narrow, widen
from .rules import Inputs as Inputs
from .rules import Moments, Rule
from .rules import Pooling as Pooling

ArrayT = TypeVar("ArrayT")


class Pool(Generic[ArrayT]):
    """The pooled prediction of the members seen so far.

    With weights `w` that sum to 1, the members' probabilities `p` and logits `z`:

    - "probabilities": `sum(w p)`, the linear opinion pool, as in the paper;
    - "logits": `softmax(sum(w z))`, the logarithmic opinion pool: the geometric
      mean `prod(p**w)`, normalised. (Of outcomes: the sigmoid in the softmax' place.)
    - "log-probabilities": `log(sum(w exp(log p)))`, the logarithm of the first,
      by a running log-sum-exp: for likelihoods too small for a float;
    - "vote": each member votes for its most probable class, or shares its vote
      equally among several; the result is the share of the votes. Of outcomes,
      it votes where the probability is above 1/2, and with half a vote there.

    Sums are in float64: the order of the members matters by rounding alone. The
    result has the kind, dtype and device of the first member's prediction.

    Args:
        pooling: the rule.
        inputs: what the members' predictions are: "probabilities", "logits" or
            "log-probabilities". Where a logarithm is taken of a probability,
            one below 2**-126 counts as that.
        class_axis: the axis of the classes; None where each number is an
            outcome of its own (binary, multi-label), as in an array of one axis.

    Raises:
        EnsembleError: no such rule or input.

    Example:
        >>> import numpy as np
        >>> pool = Pool()
        >>> pool.update(np.array([[0.8, 0.2]]))
        >>> pool.update(np.array([[0.5, 0.5]]), weight=2)
        >>> pool.value.round(3).tolist()
        [[0.6, 0.4]]

    Source: Huang et al., "Snapshot Ensembles" (2017), section 3; Stone (1961) and
    Genest & Zidek, "Combining Probability Distributions" (1986), for the pools;
    Hansen & Salamon (1990) for the vote.
    """

    def __init__(
        self,
        pooling: Pooling = "probabilities",
        *,
        inputs: Inputs = "probabilities",
        class_axis: int | None = -1,
    ) -> None:
        self.pooling = check_pooling(pooling)
        if inputs not in get_args(Inputs):
            raise EnsembleError(
                "Argument `inputs` must be 'probabilities', 'logits' or 'log-probabilities'. "
                f"Received: inputs={shown(inputs)}"
            )
        self.inputs = inputs
        self.class_axis = class_axis
        self._rule = Rule(self.pooling, inputs)
        self.like: Kind | None = None  # of the first prediction
        self._shape: tuple[int, ...] = ()
        self._weight = 0.0
        self._total: Any = None  # as the rule keeps it

    def update(self, prediction: ArrayT, weight: float = 1.0) -> None:
        """Take in one member's prediction, which is left as it is.

        Args:
            prediction: of the same shape as those before.
            weight: its weight, relative to the others'.

        Raises:
            EnsembleError: another shape than before, too few classes, or a
                weight that is none.
        """
        weight = check_weight(weight)
        wide = widen(prediction)
        self._meet(prediction, tuple(wide.shape))
        if weight > 0:
            self._weight += weight
            self._add(self._rule.part(wide, self._axis), weight)

    def update_stacked(self, predictions: ArrayT, weights: Sequence[float]) -> None:
        """Take in several members' predictions, stacked along a first axis, as one by one.

        Args:
            predictions: of shape (members, ...); left as they are.
            weights: a weight for each.

        Raises:
            EnsembleError: as `update`, or as many weights as members must come.
        """
        checked = [check_weight(weight) for weight in weights]
        wide = widen(predictions)
        if len(checked) != len(wide):
            raise EnsembleError(
                "Argument `weights` must have a weight for each member. Received: "
                f"{len(checked)} weights for {len(wide)} members"
            )
        # Of one of them: how all lie, as of JAX' arrays, is by the members' axis too.
        first = cast(Any, predictions)[0] if len(checked) else predictions
        self._meet(first, tuple(wide.shape[1:]))
        counted = [i for i, weight in enumerate(checked) if weight > 0]
        if len(counted) < len(checked):
            wide, checked = wide[counted], [checked[i] for i in counted]
        if not counted:
            return
        self._weight += math.fsum(checked)
        if self.pooling == "log-probabilities":  # whose greatest is looked for one by one
            for each, weight in zip(wide, checked, strict=True):
                self._add(self._rule.part(each, self._axis), weight)
            return
        axis = self._axis if self._axis is None or self._axis < 0 else self._axis + 1
        part = self._rule.part(wide, axis)
        factors = part.new_tensor(checked) if hasattr(part, "new_tensor") else np.array(checked)
        self._add(namespace(part).tensordot(factors, part, 1), 1.0)

    def merge(self, other: Pool[ArrayT]) -> None:
        """Take in all that another pool has seen, as if this one had: other members, the same data.

        For members that are run in several processes, whose pools can be pickled.

        Args:
            other: a pool of the same rule, which is left as it is.

        Raises:
            EnsembleError: another rule, other inputs or classes, or another shape.
        """
        for name in ("pooling", "inputs", "class_axis"):
            ours, theirs = getattr(self, name), getattr(other, name, None)
            if type(other) is not type(self) or ours != theirs:
                raise EnsembleError(
                    f"Pools must be of one kind, with the same `{name}`, to be merged. "
                    f"Received: {name}={shown(ours)} and {name}={shown(theirs)}"
                )
        if other.like is None:
            return
        if self.like is None:
            self.like, self._shape = other.like, other._shape
        elif self._shape != other._shape:
            raise unlike_shapes(other._shape, self._shape)
        self._weight += other._weight
        if other._total is not None:
            self._total = self._rule.joined(self._total, other._total)

    def _meet(self, prediction: ArrayT, shape: tuple[int, ...]) -> None:
        """Keep the first prediction's kind and shape, and refuse others' of another shape."""
        if self.like is None:
            self._shape = shape
            if self.inputs != "probabilities" or self.pooling != "probabilities":
                check_class_axis(shape, self._axis, "Predictions")
            self.like = Kind.of(prediction)
        elif shape != self._shape:
            raise unlike_shapes(shape, self._shape)

    def _add(self, part: Any, weight: float) -> None:
        self._total = self._rule.add(self._total, part, weight)

    @property
    def wide(self) -> Any:
        """The pooled prediction in float64: a tensor of torch, or an array of numpy's.

        Raises:
            EnsembleError: no member has any weight.
        """
        return self._rule.finished(_seen(self._total), self._weight, self._axis)

    @property
    def value(self) -> ArrayT:
        """The pooled prediction.

        Raises:
            EnsembleError: no member has any weight.
        """
        return cast(ArrayT, narrow(self.wide, self.like))

    @property
    def _axis(self) -> int | None:
        return None if len(self._shape) == 1 else self.class_axis


def pool(
    predictions: Iterable[ArrayT],
    *,
    weights: Sequence[float] | None = None,
    pooling: Pooling = "probabilities",
    inputs: Inputs = "probabilities",
    class_axis: int | None = -1,
) -> ArrayT:
    """One prediction from those of the members, which may come one at a time.

    Args:
        predictions: the members' predictions: arrays of one shape.
        weights: a weight for each; by default all count the same.
        pooling: the rule, as in `Pool`.
        inputs: what the predictions are, as in `Pool`.
        class_axis: the axis of the classes, or None, as in `Pool`.

    Returns:
        Of the kind, dtype and device of the first.

    Raises:
        EnsembleError: no members, shapes that differ, or weights that do not fit.

    Example:
        >>> import numpy as np
        >>> members = np.array([[0.9, 0.1], [0.2, 0.8]])[:, None]
        >>> pool(members, pooling="vote").tolist()
        [[0.5, 0.5]]
        >>> pool(members, pooling="logits").round(3).tolist()
        [[0.6, 0.4]]
    """
    pooled = Pool[ArrayT](pooling, inputs=inputs, class_axis=class_axis)
    for prediction, weight in weighted(predictions, weights):
        pooled.update(prediction, weight)
    return pooled.value


class ValuePool(Generic[ArrayT]):
    """The mean and the variance of the members' values of a regression, seen so far.

    `mean = sum(w m)`, `variance = sum(w (m - mean)**2) + sum(w v)`

    with weights `w` that sum to 1, the members' values `m`, and their own
    variances `v` where they predict them: the moments of the mixture. Without
    them it is the variance between the members alone, which leaves out the
    noise of the targets. The first part is `epistemic`, the second `aleatoric`.

    Example:
        >>> import numpy as np
        >>> values = ValuePool()
        >>> for member in (1.0, 2.0, 6.0):
        ...     values.update(np.array([member]))
        >>> values.mean.tolist(), values.variance.round(3).tolist()
        ([3.0], [4.667])

    Source: West, "Updating Mean and Variance Estimates" (1979); Lakshminarayanan
    et al., "Deep Ensembles" (2017), section 2.4.
    """

    def __init__(self) -> None:
        self.like: Kind | None = None  # of the first values
        self._shape: tuple[int, ...] = ()
        self._moments = Moments()

    def update(
        self, values: ArrayT, weight: float = 1.0, *, variances: ArrayT | None = None
    ) -> None:
        """Take in one member's values, and its variances if it has them.

        Raises:
            EnsembleError: another shape than before, a negative variance, or a weight
                that is none.
        """
        weight = check_weight(weight)
        wide = widen(values)
        spread = None if variances is None else widen(variances)
        if self.like is None:
            self.like, self._shape = Kind.of(values), tuple(wide.shape)
        for shape in (wide.shape, wide.shape if spread is None else spread.shape):
            if tuple(shape) != self._shape:
                raise EnsembleError(
                    "The members' values and variances must have one shape. Received: "
                    f"{tuple(shape)} beside {self._shape}"
                )
        if spread is not None and bool((spread < 0).any()):
            raise negative_variance(float(spread.min()))
        if weight > 0:
            self._moments.add(wide, spread, weight)

    def update_stacked(self, values: Any, weights: Sequence[float]) -> None:
        """Take in several members' `values`, stacked along a first axis, with their `weights`."""
        for each, weight in zip(values, weights, strict=True):
            self.update(each, weight)

    def merge(self, other: ValuePool[ArrayT]) -> None:
        """Take in all that the `other` pool has seen; args and errors as of `Pool.merge`."""
        if other.like is not None and self.like is not None and self._shape != other._shape:
            raise unlike_shapes(other._shape, self._shape)
        if self.like is None:
            self.like, self._shape = other.like, other._shape
        self._moments.merge(other._moments)

    @property
    def mean(self) -> ArrayT:
        """The mean.

        Raises:
            EnsembleError: no member has any weight.
        """
        return cast(ArrayT, narrow(_seen(self._moments.mean), self.like))

    @property
    def variance(self) -> ArrayT:
        """The variance: the sum of the two parts.

        Raises:
            EnsembleError: no member has any weight.
        """
        return cast(ArrayT, narrow(self.moments[1], self.like))

    @property
    def aleatoric(self) -> ArrayT:
        """The mean of the members' own variances; 0 where they have none.

        Raises:
            EnsembleError: no member has any weight.
        """
        return cast(ArrayT, narrow(_seen(self._moments.noise) / self._moments.weight, self.like))

    @property
    def epistemic(self) -> ArrayT:
        """The variance of the members' values.

        Raises:
            EnsembleError: no member has any weight.
        """
        return cast(ArrayT, narrow(_seen(self._moments.squares) / self._moments.weight, self.like))

    @property
    def moments(self) -> tuple[Any, Any]:
        """The mean and the variance in float64: tensors of torch, or arrays of numpy's.

        Raises:
            EnsembleError: no member has any weight.
        """
        return _seen(self._moments.mean), self._moments.variance


def unlike_shapes(shape: tuple[int, ...], before: tuple[int, ...]) -> EnsembleError:
    """The error for members' predictions of two shapes."""
    return EnsembleError(
        f"The members' predictions must have one shape. Received: {shape} after {before}"
    )


def _seen(total: Any) -> Any:
    if total is None:
        raise EnsembleError("The pool must have a member with a positive weight. Received: none")
    return total


def negative_variance(least: float, member: str = "") -> EnsembleError:
    """The error for members' variances that are none."""
    return EnsembleError(
        f"The members' variances must be at least 0. Received: {least:.6g}"
        f"{member and f' from {member}'}; if the model gives log-variances, give their exp"
    )


def check_pooling(pooling: object) -> Pooling:
    """`pooling`, which must be the name of a rule."""
    for known in get_args(Pooling):
        if pooling == known:
            return cast(Pooling, known)
    raise EnsembleError(
        "Argument `pooling` must be 'probabilities', 'logits', 'log-probabilities' or 'vote'. "
        f"Received: pooling={shown(pooling)}"
    )


def check_weight(weight: object) -> float:
    """`weight` as a finite float of at least 0."""
    try:
        value = math.nan if isinstance(weight, bool | str) else float(weight)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise EnsembleError(
            f"A member's weight must be a finite number of at least 0. Received: {shown(weight)}"
        )
    return value


def weighted(
    predictions: Iterable[ArrayT], weights: Sequence[float] | None
) -> Iterable[tuple[ArrayT, float]]:
    """Each prediction with its weight; there must be as many of one as of the other."""
    count = 0
    for prediction in predictions:
        if weights is not None and count >= len(weights):
            count += 1
            break
        yield prediction, 1.0 if weights is None else weights[count]
        count += 1
    if weights is not None and count != len(weights):
        raise EnsembleError(
            "Argument `weights` must have a weight for each member. Received: "
            f"{len(weights)} weights for {'more' if count > len(weights) else count} members"
        )
