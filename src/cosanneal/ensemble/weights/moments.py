"""The mean and the variance of numbers that come in batches, as if all had come in one."""

from __future__ import annotations

from typing import Any


class Moments:
    """The mean and the variance of numbers that come in batches, each number with the same weight.

    `M2 = sum_b n_b v_b + n_a n_b (m_b - m_a)**2 / (n_a + n_b)`, batch after batch

    with the number `n`, the mean `m` and the variance `v` of a batch, and of all
    before it: as if all had come in one batch. In the precision of what it is
    given, element by element of arrays.

    Example:
        >>> moments = Moments()
        >>> moments.update(2, 1.0, 1.0)  # of 0 and 2
        >>> moments.update(1, 4.0, 0.0)
        >>> moments.mean, round(moments.variance(), 4)
        (2.0, 2.6667)

    Source: Chan, Golub & LeVeque, "Updating Formulae and a Pairwise Algorithm for
    Computing Sample Variances" (1979), Eq. 2.1.
    """

    __slots__ = ("_squares", "count", "mean")

    def __init__(self) -> None:
        self.count: Any = 0.0
        self.mean: Any = 0.0
        self._squares: Any = 0.0

    def update(self, count: Any, mean: Any, variance: Any) -> None:
        """Take in a batch of so many numbers (at least one), its mean and its variance."""
        total = self.count + count
        away = mean - self.mean
        between = away * away * (self.count * count / total)
        self._squares = self._squares + variance * count + between
        self.mean = self.mean + away * (count / total)
        self.count = total

    def variance(self, correction: int = 0) -> Any:
        """The variance; with correction=1 the unbiased one, of at least two numbers."""
        return self._squares / (self.count - correction)
