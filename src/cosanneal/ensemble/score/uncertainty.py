"""The parts of an ensemble's uncertainty, and the entropies and divergences that they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from ..arrays import logarithm, namespace

ArrayT = TypeVar("ArrayT")

# The smallest normal float64, and by how much floats below 1 stay away from it.
_TINY: Final = 2.0**-1022
_EPS: Final = 2.0**-52


@dataclass(frozen=True, slots=True, eq=False)
class Uncertainty(Generic[ArrayT]):
    """How sure an ensemble is of its classes or outcomes; entropies in nats.

    With the members' probabilities `p_m`, weights `w_m` that sum to 1, and
    their mean `q = sum(w_m p_m)`:

    - `entropy = H(q)`, with `H(q) = -sum_k q_k log(q_k)`: all of it;
    - `expected_entropy = sum(w_m H(p_m))`: what each member is unsure of (aleatoric);
    - `mutual_information = entropy - expected_entropy = sum(w_m KL(p_m || q))`:
      how far they differ (epistemic), at least 0;
    - `variation_ratio = 1 - max_k v_k`, where `v_k` is the share of the votes for
      class k: a member votes for its most probable class, or shares its vote among
      several.

    A temperature, as `fit` finds it, is one of the pooled prediction and of no
    member. `probabilities` are at it, as `predict` gives them; the other
    fields are those of the members' mean before it, of which alone the
    equation holds.

    Args:
        probabilities: of the members' outputs' shape.
        entropy: of that shape without the axis of the classes. Of outcomes,
            each has the entropy of two classes, and the shape is the same.
        expected_entropy: of that shape.
        mutual_information: of that shape, from terms that are at least 0: it is
            no difference of two rounded entropies.
        variation_ratio: of that shape.

    Source: Depeweg et al., "Decomposition of Uncertainty in Bayesian Deep
    Learning" (2018), section 3; Gal, "Uncertainty in Deep Learning" (2016),
    section 3.3. The fields are torch-uncertainty's Entropy, MutualInformation
    and VariationRatio(probabilistic=False).
    """

    probabilities: ArrayT
    entropy: ArrayT
    expected_entropy: ArrayT
    mutual_information: ArrayT
    variation_ratio: ArrayT


@dataclass(frozen=True, slots=True, eq=False)
class ValueUncertainty(Generic[ArrayT]):
    """How sure an ensemble is of the values of a regression: variances, in squared units.

    Args:
        mean: of the members' values.
        epistemic: the variance between them.
        aleatoric: the mean of the variances that they predict; None where they
            predict values only, which say nothing of the targets' noise.

    Source: Lakshminarayanan et al., "Deep Ensembles" (2017), section 2.4.
    """

    mean: ArrayT
    epistemic: ArrayT
    aleatoric: ArrayT | None = None


def entropy(p: Any, axis: int | None) -> Any:
    """`-sum(p log(p))` along the axis, with 0 log(0) = 0; of outcomes, that of both."""
    if axis is None:
        return -p * logarithm(p) - (1 - p) * logarithm(1 - p)
    return -(p * logarithm(p)).sum(axis=axis)


def divergence(before: Any, p: Any, mean: Any, share: float, axis: int | None) -> Any:
    """`(1 - share) KL(before || mean) + share KL(p || mean)`, where that is their mean.

    The ratios to the mean are taken by their distance to 1, so that what is
    left of two that hardly differ is off by 1e-16 of their distance.
    """
    terms = _terms(before, p, mean, share)
    if axis is None:
        terms = terms + _terms(1 - before, 1 - p, 1 - mean, share)
    else:
        terms = terms.sum(axis=axis)
    return namespace(terms).clip(terms, 0, None)


def _terms(before: Any, p: Any, mean: Any, share: float) -> Any:
    xp = namespace(p)
    away = (p - before) / xp.clip(mean, _TINY, None)
    # Where one of the two is 0, so is its term, and not 0 times the logarithm of 0.
    away = xp.clip(away, (_EPS - 1) / (1 - share), (1 - _EPS) / share)
    terms = share * p * xp.log1p((1 - share) * away)
    terms += (1 - share) * before * xp.log1p(-share * away)
    return terms
