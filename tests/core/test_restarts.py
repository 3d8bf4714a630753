"""The seeds of fresh weights, which a resumed run must find again, and the checks of a restart."""

from __future__ import annotations

import random

import pytest

from cosanneal.core.errors import ScheduleError
from cosanneal.core.restarts import check_restart, check_shares, fresh_seed, python_seeded


def test_a_seed_is_the_same_in_every_version() -> None:
    # By coreutils: printf 'cosanneal restart 0 1' | sha256sum, its first 32 bits, halved.
    assert fresh_seed(0, 1) == 1626434777
    assert fresh_seed(7, 12) == 924304519


def test_every_seed_and_cycle_has_another_that_all_frameworks_take() -> None:
    found = {fresh_seed(seed, cycle) for seed in range(40) for cycle in range(1, 41)}
    assert len(found) == 1600
    assert all(0 <= each < 2**31 for each in found)
    assert max(found) > 2**30


def test_pythons_random_numbers_go_on_also_after_an_error() -> None:
    random.seed(3)
    expected = [random.random(), random.random()]
    random.seed(3)
    first = random.random()
    inner = []

    def draw() -> None:
        with python_seeded(5):
            inner.append(random.random())
            raise KeyError

    with pytest.raises(KeyError):
        draw()
    assert [first, random.random()] == expected
    assert inner == [random.Random(5).random()]


def test_what_is_given_is_checked() -> None:
    assert check_shares(1, 0) == (1.0, 0.0)
    assert check_restart(2, 5) == (5, 2)
    for shrink in (-0.1, 1.1, float("nan"), None, "half"):
        with pytest.raises(ScheduleError, match="`shrink` must be a number from 0 to 1"):
            check_shares(shrink, 0.5)
    for cycle in (None, 0):
        with pytest.raises(ScheduleError, match=r"first one, 0, has its initial weights"):
            check_restart(cycle, 0)
