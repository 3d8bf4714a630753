"""How sure a score is, and a difference between two: from the samples' own scores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError
from ..arrays import as_floats, check_count, check_share

# Differences to which every one of the 2**n signs is given, in place of random ones.
_EXACT: Final = 12

# Numbers drawn at once, whatever the number of samples: 32 MiB.
_DRAWN: Final = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The difference of two models' scores on the same samples.

    Args:
        difference: the mean of the first's scores less that of the second's;
            negative where the first is better.
        interval: the bootstrap interval of the difference.
        level: its level.
        p_value: how probable so great a difference is, in either direction, if
            neither were better; by another method than the interval, and the one to trust
            where the two disagree.
    """

    difference: float
    interval: tuple[float, float]
    level: float
    p_value: float


def bootstrap_interval(
    scores: Any,
    *,
    weights: Any = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean score.

    The quantiles `(1 - level) / 2` and `(1 + level) / 2` of the means of
    samples drawn with replacement; with weights, of `sum(w s) / sum(w)` over
    the samples drawn, of which numerator and denominator vary together.

    Args:
        scores: a score for each sample, as `sample_scores` gives them.
        weights: how much each counts in the mean, as `sample_weights` gives them;
            by default all the same.
        level: the probability that the interval is to have.
        resamples: how often to draw; memory does not grow with it.
        seed: of the draws.

    Raises:
        EnsembleError: no scores, or arguments that cannot be.

    Example:
        >>> bootstrap_interval([0.0, 1.0] * 50, seed=1)
        (0.4, 0.6)

    Source: Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
    """
    values = _scores("scores", scores)
    share, count = check_share("level", level), check_count("resamples", resamples)
    shares = _weights(weights, values)
    random = np.random.default_rng(seed)
    # The distances to the mean, so that a large mean costs no digits.
    centre = np.average(values, weights=shares)
    around = values - centre

    def mean(at: NDArray[np.intp]) -> NDArray[np.float64]:
        if shares is None:
            return np.asarray(around[at].mean(axis=1))
        drawn = shares[at]
        return np.asarray((drawn * around[at]).sum(axis=1) / drawn.sum(axis=1))

    means = np.concatenate(
        [
            mean(random.integers(len(around), size=(draws, len(around))))
            for draws in _draws(count, len(around))
        ]
    )
    low, high = centre + np.quantile(means, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def compare_scores(
    scores: Any,
    than: Any,
    *,
    weights: Any = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Is the first model better than the second, on the same samples?

    The interval is the paired bootstrap's. The p-value is that of the
    sign-flip test: if neither model were better, each sample's difference
    could as well have the other sign. It is the share of all signs that give a
    mean at least as far from 0. For errors, 0 or 1 for each sample, and
    wherever all differences have one size, that is McNemar's exact test; it is
    exact too for up to 12 differences. Otherwise `resamples` random signs are
    drawn, and the signs that came count as one draw more.

    The two are different methods: where few samples differ, the interval can leave 0 out while
    the p-value is above `1 - level`, as in the example. Trust the p-value then: it holds its level
    with any number of samples, the bootstrap's interval only with many, and is too narrow before.

    Args:
        scores: the first model's score for each sample; the lower the better.
        than: the second's, for the same samples in the same order.
        weights: how much each sample counts in the mean, as `sample_weights` gives
            them; by default all the same.
        level: of the interval.
        resamples: how often to draw; memory does not grow with it.
        seed: of the draws.

    Raises:
        EnsembleError: lengths that differ, or arguments that cannot be.

    Example:
        >>> found = compare_scores([0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1])
        >>> round(found.difference, 4), found.p_value, found.interval[1] < 0
        (-0.8333, 0.0625, True)

    Source: Efron & Tibshirani (1993), chapter 15; McNemar (1947); Phipson &
    Smyth (2010) for the draw that is added.
    """
    first, second = _scores("scores", scores), _scores("than", than)
    if len(first) != len(second):
        raise EnsembleError(
            "Arguments `scores` and `than` must be of the same samples. Received: "
            f"{len(first)} and {len(second)} scores"
        )
    differences = first - second
    shares = _weights(weights, differences)
    parts = differences if shares is None else shares * differences
    return Comparison(
        difference=float(np.average(differences, weights=shares)),
        interval=bootstrap_interval(
            differences, weights=shares, level=level, resamples=resamples, seed=seed
        ),
        level=level,
        p_value=_sign_flip(parts[parts != 0], check_count("resamples", resamples), seed),
    )


def mean_and_error(
    scores: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> tuple[float, float]:
    """The mean of the samples' scores (or of their paired differences) and its standard error.

    With the shares `s` of the weights, `sum(s x)` and `sqrt(n / (n - 1) sum(s**2 (x - mean)**2))`,
    which of equal weights is the usual one; infinite for one sample.

    Args:
        scores: one for each sample.
        weights: how much each counts in the mean; by default all the same.

    Example:
        >>> mean_and_error(np.array([1.0, 2.0, 3.0]))[0]
        2.0

    Source: Cochran, "Sampling Techniques" (1977), section 6.4, for a ratio's.
    """
    n = len(scores)
    shares = np.full(n, 1 / n) if weights is None else weights / weights.sum()
    mean = float(shares @ scores)
    if n == 1:
        return mean, math.inf
    return mean, math.sqrt(float(shares**2 @ (scores - mean) ** 2) * n / (n - 1))


def _sign_flip(differences: NDArray[np.float64], resamples: int, seed: int) -> float:
    n = len(differences)
    if n == 0:
        return 1.0
    sizes = np.abs(differences)
    if sizes.min() == sizes.max():
        return _binomial_tails(n, int((differences < 0).sum()))
    total = abs(float(differences.sum()))
    # Sums of the same numbers in another order are equal but for rounding.
    total -= n * np.finfo(np.float64).eps * float(sizes.sum())
    if n <= _EXACT:
        signs = 1 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        return float(np.mean(np.abs(signs @ differences) >= total))
    random = np.random.default_rng([seed, n])
    beyond = 1
    for draws in _draws(resamples, n):
        packed = random.integers(256, size=(draws, -(-n // 8)), dtype=np.uint8)
        flips = np.unpackbits(packed, axis=1)
        sums = differences.sum() - 2 * (flips[:, :n].astype(np.float64) @ differences)
        beyond += int((np.abs(sums) >= total).sum())
    return beyond / (resamples + 1)


def _binomial_tails(n: int, k: int) -> float:
    """`P(|2 X - n| >= |2 k - n|)` for `X` of n fair coins."""
    k = min(k, n - k)
    if 2 * k == n:
        return 1.0
    log_all = math.lgamma(n + 1) - n * math.log(2)
    tail = math.fsum(
        math.exp(log_all - math.lgamma(i + 1) - math.lgamma(n - i + 1)) for i in range(k + 1)
    )
    return min(2 * tail, 1.0)


def _draws(resamples: int, samples: int) -> Iterator[int]:
    """How many of the resamples to draw at once."""
    at_once = max(_DRAWN // samples, 1)
    for start in range(0, resamples, at_once):
        yield min(at_once, resamples - start)


def _weights(weights: Any, scores: NDArray[np.float64]) -> NDArray[np.float64] | None:
    if weights is None:
        return None
    found = as_floats(weights)
    if found.shape != scores.shape or not (np.isfinite(found) & (found > 0)).all():
        raise EnsembleError(
            "Argument `weights` must have one finite positive number for each score. "
            f"Received: shape {found.shape} for {len(scores)} scores"
            + (f", from {found.min():.6g}" if found.shape == scores.shape else "")
        )
    return found


def _scores(name: str, scores: Any) -> NDArray[np.float64]:
    values = as_floats(scores)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise EnsembleError(
            f"Argument `{name}` must have one finite score for each sample. "
            f"Received: shape {values.shape}" + ("" if values.ndim != 1 else ", NaN or infinity")
        )
    return values
