"""Means of the members' weights: one model at the cost of one, on arrays by name.

Weights are dicts of arrays of any framework, of one structure, oldest member
first. Means are in float64 (or complex128), rounded once to each tensor's own
dtype. Integers and bools (counters, masks) have no mean: the newest member's
are taken. Running statistics, such as BatchNorm's, are averaged like weights,
which makes them near to those of the averaged weights, not equal: re-estimate
them on training data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.errors import EnsembleError, shown
from ..arrays import as_numpy, check_count, namespace, narrow, shape_of, widen
from ..predict.pooling import check_weight, weighted

Weights = Mapping[str, Any]


def average_weights(
    members: Iterable[Weights], *, weights: Sequence[float] | None = None
) -> dict[str, Any]:
    """The mean of the members' weights: `sum(w x) / sum(w)`, tensor by tensor.

    One member is needed at a time. Tensors on which all agree stay as they are.

    Args:
        members: arrays by name, oldest member first.
        weights: a weight for each member; by default all count the same.

    Returns:
        Arrays of the kind, dtype and device of the newest member's.

    Raises:
        EnsembleError: no members, names or shapes that differ, or weights that
            do not fit.

    Example:
        >>> import numpy as np
        >>> members = [{"w": np.array([1.0, 4.0])}, {"w": np.array([3.0, 4.0])}]
        >>> average_weights(members)["w"].tolist()
        [2.0, 4.0]

    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
    Generalization" (2018), section 3.
    """
    means: dict[str, Any] = {}
    total = 0.0
    # Of each tensor that has any: a running mean of infinities would be NaN.
    infinities: dict[str, Any] = {}
    newest: Weights | None = None
    for member, weight in weighted(members, weights):
        if newest is not None:
            check_same(newest, member)
        newest = member
        if not check_weight(weight):
            continue
        total += weight
        for name, array in member.items():
            if not has_mean(array):
                continue
            value = widen(array)
            xp = namespace(value)
            infinite = xp.isinf(value)
            if infinite.any():
                with np.errstate(invalid="ignore"):  # of both signs: NaN, as it should be
                    infinities[name] = infinities.get(name, 0) + xp.where(infinite, value, 0)
                value = xp.where(infinite, 0, value)
            before = means.get(name)
            means[name] = value if before is None else before + (value - before) * (weight / total)
    if newest is None or not total:
        raise EnsembleError("There must be a member with a positive weight. Received: none")
    for name, value in infinities.items():
        means[name] = namespace(value).where(value == 0, means[name], value)
    return {
        name: narrow(means[name], value) if name in means else value
        for name, value in newest.items()
    }


def exponential_weights(members: int, decay: float) -> tuple[float, ...]:
    """The members' weights in an exponential moving average, oldest first; they sum to 1.

    `mean_0 = x_0`, `mean_i = decay mean_(i-1) + (1 - decay) x_i`, so that the
    last member but k has `(1 - decay) decay**k`, and the first `decay**(n - 1)`.

    Args:
        members: how many, `n`.
        decay: in (0, 1]; 1 keeps the first member.

    Raises:
        EnsembleError: a number that cannot be.

    Example:
        >>> exponential_weights(3, 0.5)
        (0.25, 0.25, 0.5)

    Source: Polyak & Juditsky (1992); Tarvainen & Valpola, "Mean Teachers" (2017), Eq. 1.
    """
    count = check_count("members", members)
    if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 < decay <= 1:
        raise EnsembleError(
            f"Argument `decay` must be a number in (0, 1]. Received: decay={shown(decay)}"
        )
    later = [(1 - decay) * decay**k for k in reversed(range(count - 1))]
    return (decay ** (count - 1), *later)


def lawa(members: Iterable[Weights], window: int) -> Iterator[dict[str, Any]]:
    """At each member, the mean of the weights of the latest `window` members up to it.

    Args:
        members: arrays by name, oldest member first.
        window: how many; the first means are of fewer. So many are in memory.

    Raises:
        EnsembleError: names or shapes that differ, or no positive window.

    Example:
        >>> import numpy as np
        >>> members = [{"w": np.array(float(i))} for i in range(4)]
        >>> [float(mean["w"]) for mean in lawa(members, 2)]
        [0.0, 0.5, 1.5, 2.5]

    Source: Kaddour, "Stop Wasting My Time! Saving Days of ImageNet and BERT Training
    with Latest Weight Averaging" (2022), section 2.
    """
    latest: deque[Weights] = deque(maxlen=check_count("window", window))
    for member in members:
        latest.append(member)
        yield average_weights(latest)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Soup:
    """A mean of some members' weights.

    Args:
        members: the indices of those in it, in the order in which they were taken.
        weights: their mean.
        score: its score.
    """

    members: tuple[int, ...]
    weights: dict[str, Any]
    score: float


def greedy_soup(
    members: Sequence[Weights],
    score: Callable[[dict[str, Any]], float],
    *,
    alone: Sequence[float] | None = None,
) -> Soup:
    """The mean of those members that do not make it worse, tried from the best one down.

    Args:
        members: arrays by name.
        score: the score of weights on held-out data, such as the log-loss; the
            lower the better. It is called once for each member alone, and once
            for each soup that is tried.
        alone: the score of each member alone, where it is known.

    Raises:
        EnsembleError: no members, or names or shapes that differ.

    Example:
        >>> import numpy as np
        >>> members = [{"w": np.array(x)} for x in (0.5, 9.0, -0.25)]
        >>> soup = greedy_soup(members, lambda weights: float(abs(weights["w"])))
        >>> soup.members, float(soup.weights["w"])
        ((2, 0), 0.125)

    Source: Wortsman et al., "Model Soups" (2022), recipe 1.
    """
    if alone is None:
        alone = [float(score(dict(member))) for member in members]
    if not members:
        raise EnsembleError("Argument `members` must have at least one member. Received: none")
    first, *others = sorted(range(len(members)), key=lambda i: alone[i])
    soup = Soup(members=(first,), weights=dict(members[first]), score=alone[first])
    for i in others:
        tried = (*soup.members, i)
        mean = average_weights(members[j] for j in tried)
        found = float(score(mean))
        if found <= soup.score:
            soup = Soup(members=tried, weights=mean, score=found)
    return soup


def interpolate_weights(first: Weights, second: Weights, share: float) -> dict[str, Any]:
    """The weights `first + share * (second - first)`, tensor by tensor.

    Of integers and bools the nearer member's are taken.

    Args:
        first: arrays by name.
        second: arrays by the same names, of the same shapes.
        share: how far to go; beyond 0 and 1 too.

    Raises:
        EnsembleError: names or shapes that differ.

    Example:
        >>> import numpy as np
        >>> interpolate_weights({"w": np.array([0.0])}, {"w": np.array([4.0])}, 0.25)["w"].tolist()
        [1.0]
    """
    check_same(first, second)
    if share in (0, 1):
        return dict(second if share else first)
    mixed: dict[str, Any] = {}
    for name, start in first.items():
        if has_mean(start):
            wide, end = widen(start), widen(second[name])
            with np.errstate(invalid="ignore"):  # infinities, which may part, are set apart
                way = wide + share * (end - wide)
                xp = namespace(way)
                infinite = xp.isinf(wide) | xp.isinf(end)
                way = xp.where(infinite, (1 - share) * wide + share * end, way)
                mixed[name] = narrow(xp.where(wide == end, wide, way), start)
        else:
            mixed[name] = start if share < 0.5 else second[name]
    return mixed


def has_mean(array: Any) -> bool:
    """Whether an array holds floats or complex numbers."""
    dtype = str(array.dtype if hasattr(array, "dtype") else as_numpy(array).dtype)
    return "float" in dtype or "complex" in dtype


def check_same(first: Weights, second: Weights) -> None:
    """Refuse weights of other names or shapes than the first's."""
    for name in [*first, *(name for name in second if name not in first)]:
        if name not in first or name not in second:
            raise EnsembleError(
                "The members must have the same tensors. Received: "
                f"{shown(name)} in one of them only"
            )
        shapes = [shape_of(each[name]) for each in (first, second)]
        if shapes[0] != shapes[1]:
            raise EnsembleError(
                "The members' tensors must have the same shapes. Received: "
                f"{shown(name)} of {shapes[0]} and of {shapes[1]}"
            )
