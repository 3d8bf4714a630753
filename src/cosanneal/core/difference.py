"""Where two schedules differ, as a person would say it.

What a run is not to go on with is said of its cycles and rates, and not of the
table: of that only where no number of these tells the two apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from .errors import ScheduleError, plural
from .records import first_difference, rules_from_dict
from .schedule import Schedule

# So many of the first cycles are compared.
_CYCLES: Final = 64


def difference(
    theirs: object, ours: Schedule, *, there: str, here: str = "in the schedule given"
) -> str | None:
    """Where a schedule's description first differs from a schedule; None if nowhere.

    Args:
        theirs: what `Schedule.to_dict` gave, or any other data.
        ours: the schedule.
        there: where the description stands, for the sentence.
        here: where the schedule does.

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
        pairs = zip(_facts(Schedule(rules_from_dict(theirs))), _facts(ours), strict=False)
        what, old, new = next((a[0], a[1], b[1]) for a, b in pairs if a != b)
    except (ScheduleError, StopIteration):  # no schedule, or the same in all these numbers
        pass
    return f"{what} is {_said(old, new)} {there}, {_said(new, old)} {here}"


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
