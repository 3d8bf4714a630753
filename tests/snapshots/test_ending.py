"""What is said of a run by where it began and ended."""

from __future__ import annotations

import pytest

import cosanneal as ca
from cosanneal.snapshots.capture import Standing
from cosanneal.snapshots.ending import broken_off, ended_early

SCHEDULE = ca.CyclicCosine(0.1, total_steps=60, num_cycles=3)
ENDLESS = ca.CyclicCosine(0.1, cycle_steps=20)


def text(began: int, ended: int, taken: int, schedule: ca.Schedule = SCHEDULE) -> str | None:
    return ended_early(schedule, Standing(began, began), Standing(ended, ended), taken=taken)


@pytest.mark.parametrize(
    ("began", "ended", "taken"),
    [
        (0, 0, 0),  # nothing was done
        (0, 60, 3),  # all was
        (0, 70, 3),  # and more
        (0, 40, 2),  # up to a cycle's end
        (0, 45, 2),  # stopped by somebody
        (0, 57, 2),  # the last tenth begins with 58
        (40, 45, 0),  # of a run that was taken up and stopped again
        (45, 45, 0),
    ],
)
def test_of_these_nothing_is_said(began: int, ended: int, taken: int) -> None:
    assert text(began, ended, taken) is None


@pytest.mark.parametrize(
    ("began", "ended", "taken", "said"),
    [
        (0, 59, 2, "ended at update 59, 1 before its next snapshot was due: cycle 2 ends at upd"),
        (0, 58, 2, "ended at update 58, 2 before its next"),
        (45, 59, 0, "ended at update 59, 1 before its next"),
        (0, 15, 0, "ended at update 15, 5 before its first snapshot was due: cycle 0 ends at"),
        (0, 1, 0, "ended at update 1, 19 before its first"),
    ],
)
@pytest.mark.parametrize("schedule", [SCHEDULE, ENDLESS])
def test_of_these_it_is_said_how_many_updates_were_missing(
    began: int, ended: int, taken: int, said: str, schedule: ca.Schedule
) -> None:
    found = text(began, ended, taken, schedule)
    assert found is not None
    assert said in found
    assert "drop_last" in found
    assert "step, it must after every update" in found


def test_a_schedule_that_did_not_move_is_said() -> None:
    found = ended_early(SCHEDULE, Standing(3, 0), Standing(63, 0), taken=0)
    assert found is not None
    assert found.startswith("The optimizer did 60 updates, and the schedule did not move")


@pytest.mark.parametrize(
    ("began", "ended", "text"),
    [
        (0, 0, "closed before its first update, and took no snapshot"),
        (0, 1, "at update 1 of 100, after 0 of 5 cycles"),
        (0, 40, "at update 40 of 100, after 2 of 5 cycles"),
        (20, 50, "at update 50 of 100, after 2 of 5 cycles"),
        (20, 20, None),  # resumed, and done nothing
        (0, 100, None),
        (100, 100, None),
        (0, 130, None),
    ],
)
def test_a_run_that_is_broken_off_is_logged(began: int, ended: int, text: str | None) -> None:
    schedule = ca.CyclicCosine(0.1, total_steps=100, num_cycles=5)
    found = broken_off(schedule, Standing(began, began), Standing(ended, ended))
    assert (found is None) if text is None else (found is not None and text in found)
    assert found is None or "after every update" in found
    endless = ca.CyclicCosine(0.1, cycle_steps=20)
    assert broken_off(endless, Standing(began, began), Standing(ended, ended)) is None
