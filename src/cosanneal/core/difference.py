"""Where two schedules differ, as a person would say it; and whether a run notices.

What a run is not to go on with is said of its cycles and rates, and not of the
table: of that only where no number of these tells the two apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from .errors import ScheduleError, plural
from .records import first_difference, rules_from_dict
from .schedule import Schedule

# So many of the first cycles are compared.
_CYCLES: Final = 64
# So many are compared one by one, where rules do not tell that they agree.
_MOST_CYCLES: Final = 2**16


def difference(
    theirs: object,
    ours: Schedule,
    *,
    there: str,
    here: str = "in the schedule given",
    done: int = 0,
) -> str | None:
    """Where a schedule's description first differs from a schedule; None if nowhere.

    Args:
        theirs: what `Schedule.to_dict` gave, or any other data.
        ours: the schedule.
        there: where the description stands, for the sentence.
        here: where the schedule does.
        done: so many steps of it a run has done. Above 0, what comes after them may
            differ, as where a schedule was extended; see `agree`.

    Example:
        >>> import cosanneal as ca
        >>> short = ca.CyclicCosine(0.1, total_steps=600, num_cycles=6)
        >>> longer = ca.CyclicCosine(0.1, total_steps=1200, num_cycles=12)
        >>> difference(short.to_dict(), longer, there="in the folder", here="here")
        'the number of cycles is 6 in the folder, 12 here'
    """
    found = first_difference(theirs, ours.to_dict())
    if found is None:
        return None
    what, old, new = found
    try:
        other = Schedule(rules_from_dict(theirs))
        if done > 0 and agree(other, ours, done):
            return None
        pairs = zip(_facts(other), _facts(ours), strict=False)
        what, old, new = next((a[0], a[1], b[1]) for a, b in pairs if a != b)
    except (ScheduleError, StopIteration):  # no schedule, or the same in all these numbers
        pass
    return f"{what} is {_said(old, new)} {there}, {_said(new, old)} {here}"


def agree(first: Schedule, second: Schedule, done: int) -> bool:
    """Whether a run that did so many steps under one schedule may go on under another.

    It may where both have done the same to it, and have the same in hand: every
    cycle that begins before step `done` is the same in both, with the same rows in
    the table, exactly. Which of them was made of the other does not matter.

    Example:
        >>> import cosanneal as ca
        >>> short = ca.CyclicCosine(0.1, total_steps=600, num_cycles=6)
        >>> other = short.extended(at=300, total_steps=450)
        >>> agree(short, other, 300), agree(short, other, 301)
        (True, False)
    """
    number = _shared(first, second)
    if number is None:
        return True
    begins = first.cycles()[number - 1].stop if number else 0
    for each in range(number, number + _MOST_CYCLES):
        if begins >= done:
            return True
        over = [schedule.num_cycles == each for schedule in (first, second)]
        if any(over):
            return all(over) and first.rate(begins) == second.rate(begins)
        cycle = first.cycles()[each]
        rows, others = (
            list(schedule.segments(cycle.start, cycle.stop)) for schedule in (first, second)
        )
        if cycle != second.cycles()[each] or rows != others:
            return False
        begins = cycle.stop
    return False


def _shared(first: Schedule, second: Schedule) -> int | None:
    """So many of the first cycles come of rules that both have; None: all, without end."""
    number = 0
    for one, other in zip(first.rules, second.rules, strict=False):
        if replace(one, count=None) != replace(other, count=None):
            break
        counts = [rule.count for rule in (one, other) if rule.count is not None]
        if not counts:
            return None
        number += min(counts)
        if one.count != other.count:
            break
    return number


def _facts(schedule: Schedule) -> Iterator[tuple[str, Any]]:
    """What a person knows of a schedule, the plainest first: of two, each as far as all agrees."""
    count, steps = schedule.num_cycles, schedule.total_steps
    yield "the number of cycles", "without end" if count is None else count
    yield "the number of steps", "without end" if steps is None else steps
    cycles = [schedule.cycles()[i] for i in range(min(count or _CYCLES, _CYCLES))]
    for cycle in cycles:
        of = "the first cycle" if cycle.index == 0 else f"cycle {cycle.index}, counted from 0,"
        annealing = [
            each.start
            for each in schedule.segments(cycle.start, cycle.stop)
            if each.first == cycle.max_lr
        ]
        yield f"the warmup of {of}", plural(annealing[0] - cycle.start if annealing else 0, "step")
        yield f"the length of {of}", plural(cycle.length, "step")
        yield f"the peak of {of}", cycle.max_lr
        yield f"the floor of {of}", cycle.min_lr
    for cycle in cycles:
        for step in (cycle.start, cycle.start + cycle.length // 2, cycle.last_step):
            yield f"the rate of step {step}", schedule.rate(step)


def _said(value: object, other: object) -> str:
    """A value, in as few digits as tell it from the other."""
    if isinstance(value, float) and isinstance(other, float) and f"{value:g}" != f"{other:g}":
        return f"{value:g}"
    return str(value)
