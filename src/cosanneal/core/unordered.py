"""What is no rate, and says so where an optimizer takes it for one."""

from __future__ import annotations

from typing import Final

from .errors import shown

# What is said where an optimizer was given a schedule as its rate.
AS_A_RATE: Final = (
    "where an optimizer is to follow it, use CyclicCosineLR(optimizer, schedule) in PyTorch, "
    "CyclicCosineSchedule(schedule) as Keras' rate, and cyclic_cosine_schedule(schedule) as Optax'"
)


class Unordered:
    """What must not be compared by size, by which optimizers look whether a rate is one."""

    __slots__ = ()

    def __lt__(self, other: object) -> bool:
        raise self._refusal(other)

    def __le__(self, other: object) -> bool:
        raise self._refusal(other)

    def __gt__(self, other: object) -> bool:
        raise self._refusal(other)

    def __ge__(self, other: object) -> bool:
        raise self._refusal(other)

    def _refusal(self, other: object) -> TypeError:
        return TypeError(
            f"A {type(self).__name__} must not be compared by size, since it is no rate. "
            f"Received: a comparison with {shown(other)}; {AS_A_RATE}"
        )
