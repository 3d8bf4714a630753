"""The normal distribution on arrays, by the standard library's functions."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# numpy has none of its own.
_ERFC: Final = np.frompyfunc(math.erfc, 1, 1)


def normal_cdf(z: Any) -> NDArray[np.float64]:
    """The probability below each number under the standard normal distribution."""
    return np.asarray(_ERFC(np.asarray(z, np.float64) * -math.sqrt(0.5)), np.float64) / 2


def normal_density(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """The standard normal density."""
    return np.asarray(np.exp(-z * z / 2) / math.sqrt(2 * math.pi))


def normal_quantile(share: float) -> float:
    """The number below which a share of the standard normal distribution lies."""
    return NormalDist().inv_cdf(share)
