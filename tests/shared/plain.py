"""Python's own numbers as a framework, which a table is evaluated with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cosanneal as ca
from cosanneal.core.graph import Table

INT32 = 2**31 - 1


class Plain:
    """Python's own numbers as a framework, which bounds every index."""

    def before(self, ends: list[int], step: int) -> int:
        return sum(end < step for end in ends)

    def take(self, constant: list[Any], i: int) -> Any:
        assert 0 <= i < len(constant)
        return constant[i]

    def row(
        self, rows: tuple[list[tuple[int, ...]], list[tuple[float, ...]]], i: int
    ) -> tuple[Sequence[int], Sequence[float]]:
        integers, floats = rows
        return self.take(integers, i), self.take(floats, i)

    def real(self, integer: int) -> float:
        assert isinstance(integer, int)
        return float(integer)

    def remainder(self, dividend: int, divisor: int) -> int:
        return dividend % divisor if dividend >= 0 else -1

    def quotient(self, dividend: int, divisor: int) -> int:
        assert dividend >= 0
        return dividend // divisor

    def select(self, condition: bool, yes: float, no: float) -> float:
        return yes if condition else no

    def minimum(self, a: float, b: float) -> float:
        return min(a, b)

    def maximum(self, a: float, b: float) -> float:
        return max(a, b)

    def sin(self, x: float) -> float:
        return math.sin(x)

    def power(self, base: float, exponent: float) -> float:
        return math.pow(base, exponent)

    def exp(self, x: float) -> float:
        return math.exp(x)

    def log(self, x: float) -> float:
        return math.log(x)


def plain(schedule: ca.Schedule, *, wide: bool) -> Table[list[Any]]:
    return Table.of(schedule, wide=wide, constant=list, rows=lambda *rows: rows)
