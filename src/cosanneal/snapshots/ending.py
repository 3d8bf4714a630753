"""What is said of a run that ended before a snapshot was due, or goes on after the last one."""

from __future__ import annotations

from ..core.schedule import Schedule
from .capture import Standing


def ended_early(schedule: Schedule, began: Standing, ended: Standing, *, taken: int) -> str | None:
    """A warning, where a run ended a little before a snapshot was due, or took none.

    A run that is stopped in the middle of a cycle, with snapshots of those before, is
    one that somebody stopped. One that stops within the last tenth of a cycle was
    meant to reach its end: it is what a budget gives that was miscounted.

    Args:
        schedule: the schedule.
        began: where the run stood when the recorder was made, or resumed.
        ended: where it stands now.
        taken: the snapshots that were taken in between.
    """
    updates, total = ended.updates - began.updates, schedule.total_steps
    if total is not None and ended.position >= total:
        return None
    if updates > 0 and ended.position == began.position:
        return (
            f"The optimizer did {updates} updates, and the schedule did not move: no snapshot was "
            "taken. Call scheduler.step() after every optimizer.step(); a recorder that was given "
            "the schedule in place of the scheduler needs its own recorder.step() there"
        )
    if ended.position == began.position:
        return None
    cycle = schedule.cycle_at(ended.position)
    missing = cycle.stop - ended.position
    none_at_all = not taken and not began.position
    if missing == cycle.length or not (10 * missing <= cycle.length or none_at_all):
        return None
    which = "first" if none_at_all else "next"
    return (
        f"The run ended at update {ended.position}, {missing} before its {which} snapshot was due: "
        f"cycle {cycle.index} ends at update {cycle.stop}. If it was not stopped on purpose, make "
        "total_steps (or cycle_steps) what the run really does: the batches that the loader gives "
        "in all epochs, without those that drop_last leaves out, divided by those that gradient "
        "accumulation takes for one update. Where the loop calls step, it must after every update"
    )


def broken_off(schedule: Schedule, began: Standing, ended: Standing) -> str | None:
    """What is logged of a run that was closed before its schedule's end: how far it came.

    It may be meant, so that it is no warning. One that was resumed, and then did nothing,
    is not spoken of.
    """
    total, at = schedule.total_steps, ended.position
    if total is None or at >= total or (at == began.position and at):
        return None
    if not at:
        return (
            "The recorder was closed before its first update, and took no snapshot: train inside "
            "of its `with` block, and step the scheduler, or the recorder, after every update"
        )
    done, count = schedule.cycle_at(at).index, schedule.num_cycles
    return (
        f"The recorder was closed at update {at} of {total}, after {done} of {count} cycles. If "
        "the run was not stopped on purpose, make total_steps what it really does; where the loop "
        "calls step, it must after every update, and not once an epoch"
    )


def gone_beyond(schedule: Schedule, updates: int) -> str | None:
    """A warning, where a run goes on after its last cycle."""
    total = schedule.total_steps
    if total is None or updates <= total:
        return None
    return (
        f"The run goes on beyond its schedule: it has done {updates} updates of a schedule of "
        f"{total}. No more snapshots are taken, and the schedule's rate stays at "
        f"{schedule.rate(total)}; make a schedule with more total_steps (the batches of an epoch "
        "times the epochs), or end the run with it"
    )
