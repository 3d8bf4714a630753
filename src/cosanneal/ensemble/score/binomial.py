"""How large a share can be, of which some samples are known."""

from __future__ import annotations

import numpy as np


def binomial_upper(count: int, total: int, level: float = 0.95) -> float:
    """The exact upper bound of a share of which so many of all were counted, one-sided.

    The greatest `p` with `P(X <= count) >= 1 - level` for `X ~ Binomial(total, p)`: with a
    probability of `level` at least, the share is not above it, whatever it is.

    Args:
        count: how many were counted.
        total: of how many, at least 1.
        level: the probability.

    Example:
        >>> round(binomial_upper(0, 100), 4)  # the rule of three
        0.0295

    Source: Clopper & Pearson, "The use of confidence or fiducial limits illustrated in the case of
    the binomial" (1934).
    """
    if count >= total:
        return 1.0
    k = np.arange(count + 1)
    # log of `total` over k, from that of k - 1.
    ways = np.concatenate([[0.0], np.cumsum(np.log((total - k[1:] + 1) / k[1:]))])
    low, high = count / total, 1.0
    for _ in range(60):
        p = (low + high) / 2
        terms = ways + k * np.log(p) + (total - k) * np.log1p(-p)
        top = terms.max()
        if top + np.log(np.exp(terms - top).sum()) >= np.log1p(-level):
            low = p
        else:
            high = p
        if high - low <= 1e-15:
            break
    return float(high)
