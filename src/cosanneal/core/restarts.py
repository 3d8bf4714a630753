"""What shrinking and perturbing at a restart takes, whatever the framework."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real

from .errors import ScheduleError, check_steps, shown


def check_shares(shrink: object, perturb: object) -> tuple[float, float]:
    """The factors of the old weights and of the fresh ones, each from 0 to 1."""
    return _share("shrink", shrink), _share("perturb", perturb)


def check_restart(cycle: object, seed: object) -> tuple[int, int]:
    """The seed of the fresh weights, and the number of the cycle that begins.

    Raises:
        ScheduleError: the first cycle, before which there is nothing to shrink.
    """
    if cycle is None or (isinstance(cycle, int) and cycle == 0):
        raise ScheduleError(
            "Argument `cycle` must be the number of the cycle that begins, of at least 1: the "
            "first one, 0, has its initial weights, and those of a restart are drawn by its "
            f"number. Received: cycle={shown(cycle)}; call it at the starts of "
            "schedule.cycles()[1:], with their index"
        )
    return check_steps("seed", seed), check_steps("cycle", cycle, minimum=1)


def fresh_seed(seed: int, cycle: int) -> int:
    """The seed of a restart's fresh weights, below 2**31: of each seed and cycle another."""
    digest = hashlib.sha256(f"cosanneal restart {seed} {cycle}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@contextmanager
def python_seeded(seed: int) -> Iterator[None]:
    """Python's own random numbers from a seed; they go on afterwards where they were."""
    state = random.getstate()
    try:
        random.seed(seed)
        yield
    finally:
        random.setstate(state)


def _share(name: str, value: object) -> float:
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not 0 <= float(value) <= 1:  # type: ignore[arg-type]
        raise ScheduleError(
            f"Argument `{name}` must be a number from 0 to 1. Received: {name}={shown(value)}"
        )
    return float(value)  # type: ignore[arg-type]
