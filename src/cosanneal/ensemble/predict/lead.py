"""Which class leads among the members seen so far, and whether those left can still change that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from ..arrays import EPS, Kind, as_numpy, namespace, two_greatest
from .outputs import OutputSpec
from .pooling import Pool, Pooling

# Where what a member adds to a class is bounded: from nothing to its weight.
BOUNDED: Final[tuple[Pooling, ...]] = ("probabilities", "vote")

# By so much a member's probabilities may be others when samples are run in another batch, whose
# products the frameworks' kernels round otherwise: 512 times the spacing of float32. Of a task
# whose leads are spread evenly, one sample in 16,000 is as near.
NOISE: Final = 2.0**-14

# By so much at least, where the model rounds its probabilities itself.
_ROUNDED: Final = 4 * EPS["float32"]

# Probabilities that were said to be some lie between -0.01 and 1.01, or are refused.
_LOOSE: Final = 1.02


class Lead:
    """The leading class of each sample of a batch, from the members seen so far.

    With the members' weights `w`, of which `W` is the sum and `L` that of those not seen, and
    the sum `S_k` of `w p_k` over those seen, a class `i` is decided where

    `S_i - S_k > b L + m W` for every other class `k`.

    A member adds at most `w` to what `k` gains on `i`, as its probabilities (or shares of its
    vote) lie in [0, 1] and sum to 1: `b` is 1; but 1.02 where the model itself gives
    probabilities, which are taken with that much slack. The margin `m` is for all rounding
    (`least_lead`): what is decided leads also in the pooled prediction, in its dtype and at its
    temperature. Of outcomes, `k` is that it does not happen. Where a member gives NaN, nothing
    is decided.

    With less than all care, where classes may be wrong for fewer passes, it is
    `S_i - S_k >= care L`, as `Budget` has it; after the last member nothing is decided here.

    Attributes:
        leaders: the leading class of each label of the samples that are left.
        shaky: whether a vote was near a tie in another batch than the whole one.

    Args:
        spec: what the outputs are.
        weights: the members', in the order in which they come.
        temperature: of the pooled prediction; the greatest that may be.
        care: 1 for what is certain.

    Example:
        >>> lead = Lead(OutputSpec("probabilities", -1, "probabilities"), [1, 1, 1])
        >>> p = np.array([[0.9, 0.1], [0.6, 0.4]])
        >>> lead.update(p, Kind.of(p)).tolist(), lead.update(p, Kind.of(p)).tolist()
        ([False, False], [True, False])
        >>> lead.leaders.tolist()
        [0, 0]

    Source: compare Hernandez-Lobato et al., "Statistical Instance-Based Pruning in Ensembles of
    Independent Classifiers" (2009), where members are left out that would hardly change a vote;
    here it is those that cannot.
    """

    def __init__(
        self,
        spec: OutputSpec,
        weights: Sequence[float],
        temperature: float = 1.0,
        care: float = 1.0,
    ) -> None:
        self._spec, self._weights, self._temperature = spec, weights, temperature
        self._care = care
        own = spec.outputs == "probabilities" and spec.pooling == "probabilities"
        self._bound = _LOOSE if own else 1.0
        self._total = math.fsum(weights)
        self._seen, self._weight = 0, 0.0
        self._sum: Any = None
        self._lead: Any = None
        self._noise: Any = None  # by how much of the weights another batch may have changed a lead
        self._margin = math.inf
        self.leaders: Any = None
        self.shaky: bool = False

    def update(self, wide: Any, like: Kind, *, moved: bool = False) -> NDArray[np.bool_]:
        """Take in the next member's outputs for the samples that are left.

        Args:
            wide: the outputs in float64.
            like: what the model gives; so is the pooled prediction.
            moved: whether they are of another batch than the whole one.

        Returns:
            Of which of these samples every label is decided, of shape (samples,).
        """
        weight = self._weights[self._seen]
        alone = cast(Pool[Any], self._spec.pool())
        alone.update(wide, 1.0)
        part = alone.wide * weight  # exactly what a pool of all adds
        self._sum = part if self._sum is None else self._sum + part
        if moved and self._spec.pooling == "probabilities":
            self._noise = self._noise + weight * self._noise_of(alone.wide)
        self._seen, self._weight = self._seen + 1, self._weight + weight
        if moved and self._spec.pooling == "vote":
            self.shaky = self.shaky or self._is_near_a_tie(wide)
        if self._seen == 1:
            axis = self._axis
            classes = 2 if axis is None else wide.shape[axis]
            self._margin = least_lead(like, classes, self._temperature, len(self._weights))
        self.leaders, self._lead = self._leading()
        if self._noise is None:
            self._noise = namespace(wide).zeros_like(self._lead)
        left = math.fsum(self._weights[self._seen :])
        if self._care == 1:
            decided = self._lead > self._bound * left + self._margin * self._total
        else:
            decided = self._lead >= (self._care * left if left else math.inf)
        while decided.ndim > 1:
            decided = decided.all(-1)
        return np.asarray(as_numpy(decided), np.bool_)

    def keep(self, places: NDArray[np.intp]) -> None:
        """Go on with some of the samples that are left."""
        self._sum, self._lead = self._sum[places], self._lead[places]
        self._noise, self.leaders = self._noise[places], self.leaders[places]

    @property
    def is_near(self) -> bool:
        """Whether a class is so near to the leading one that another batch may have changed it."""
        return not bool((self._lead >= self._noise).all())

    @property
    def mean(self) -> Any:
        """The pooled prediction of the samples that are left, in float64, as `Pool.wide` has it."""
        return self._sum / self._weight

    @property
    def _axis(self) -> int | None:
        return None if self._sum.ndim == 1 else self._spec.class_axis

    def _leading(self) -> tuple[Any, Any]:
        """The leading classes, and by how much of the weights they lead."""
        axis = self._axis
        if axis is None:
            lead = 2 * self._sum - self._weight
            return (lead > 0) * 1, abs(lead)
        rows = namespace(self._sum).moveaxis(self._sum, axis, -1)
        leaders = rows.argmax(-1)
        if rows.shape[-1] == 1:  # there is no other
            return leaders, 0 * rows[..., 0] + math.inf
        first, second = two_greatest(rows)
        # Where a logarithm is taken, a probability below 0 counts as 0.
        return leaders, first - namespace(second).clip(second, 0, None)

    def _noise_of(self, p: Any) -> Any:
        """By how much two of a member's probabilities may differ otherwise in another batch.

        A change `e` of logits changes a probability by `e p (1 - p)`, which is at most `e` times
        what is left for all others but the greatest: members that are sure are hardly others.
        """
        xp, axis = namespace(p), self._axis
        greatest = xp.maximum(p, 1 - p) if axis is None else xp.amax(p, axis=axis)
        noise = NOISE * xp.clip(4 * (1 - greatest), 0, 1)
        return noise + (_ROUNDED if self._spec.outputs == "probabilities" else 0.0)

    def _is_near_a_tie(self, wide: Any) -> bool:
        """Whether a member's vote would be another if its outputs were rounded otherwise."""
        axis = self._axis
        if axis is None:
            half = 0.0 if self._spec.outputs == "logits" else 0.5
            gap, first = abs(wide - half), abs(wide)
        else:
            first, second = two_greatest(namespace(wide).moveaxis(wide, axis, -1))
            gap, first = first - second, abs(first)
        return bool((gap <= NOISE * namespace(wide).clip(first, 1, None)).any())


def least_lead(like: Kind, classes: int, temperature: float, members: int) -> float:
    """By how much a class must lead in the mean, so that it does in the rounded prediction.

    Of classes at temperature `T`, `q = softmax(log(p) / T)`: from `p_i - p_k >= d` follows
    `log p_i - log p_k >= d`, as no p is above 1, and so `q_k <= q_i exp(-d / T)`. Rounded to a
    dtype, of which `e` is the spacing at 1 and `s` the least number, they differ if `q_i - q_k`
    is more than `e q_i` and more than `s`; and `q_i` is at least `1 / K` of K classes. So with
    `r = 2 (e + K s)`, a lead of `-T log(1 - r)` is enough, and without a temperature one of r.
    (Of an outcome, `q - 1/2 = tanh(logit(p) / 2T) / 2` and `|logit(p)| >= 2 |2p - 1|`, for
    which the same is enough.)

    To it comes what the sums in float64 may be off, which is less than
    `16 (members + 2) 2**-53`; what the logarithms and powers may, `T 2**-30`; and `NOISE`.

    Returns:
        The lead, as a share of all weights; infinite where no lead is known to be enough.

    Example:
        >>> least_lead(Kind.of(np.zeros(1, np.float32)), 10, 1.0, 5) < 6.2e-5
        True
    """
    name = "float32" if like.dtype is None else str(like.dtype).rpartition(".")[-1]
    if name not in EPS:
        return math.inf
    # Below the least normal number some devices have none; conversions to half precision do.
    least = {"float64": 2.0**-1022, "float16": 2.0**-24}.get(name, 2.0**-126)
    lead = 2 * (EPS[name] + classes * least)
    if temperature != 1:
        if lead >= 1:
            return math.inf
        # Other outputs are pooled without one.
        lead = max(lead, temperature * (2.0**-30 - math.log1p(-lead)))
    return lead + NOISE + 16 * (members + 2) * 2.0**-53


def of_mean(mean: Any, spec: OutputSpec, like: Kind) -> Pool[Any]:
    """A pool that has come to a mean, of outputs of some kind."""
    pool = Pool[Any](class_axis=spec.class_axis)
    pool.update(mean, 1.0)
    pool.like = like
    return pool
