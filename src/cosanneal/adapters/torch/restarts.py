"""What torch's warm restarts call the place in a cycle, for code that reads it there."""

from __future__ import annotations

import math

from ...core.errors import ScheduleError
from ...core.schedule import Cycle, Schedule


class RestartNames:
    """`T_cur` and `T_i`, as `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts` has them."""

    last_epoch: int
    schedules: list[Schedule]

    @property
    def T_cur(self) -> float:  # noqa: N802 - the name in torch
        """The steps since the last restart (of the first schedule); they count on after its end."""
        return self.last_epoch - cycle_of(self.schedules[0], self.last_epoch).start

    @T_cur.setter
    def T_cur(self, value: float) -> None:  # noqa: N802
        raise ScheduleError(
            "T_cur cannot be set: it follows from last_epoch and the schedule. Received: "
            f"T_cur={value}; to go on elsewhere, call step(epoch) with the step counted from the "
            "run's start, or make the scheduler with last_epoch="
        )

    @property
    def T_i(self) -> int:  # noqa: N802 - the name in torch
        """The length of the current cycle (of the first schedule), in steps."""
        return cycle_of(self.schedules[0], self.last_epoch).length


def cycle_of(schedule: Schedule, step: float) -> Cycle:
    """The cycle of a step; the first of what lies before it, the last of what comes after."""
    step = max(math.floor(step), 0)
    if schedule.total_steps is not None:
        step = min(step, schedule.total_steps - 1)
    return schedule.cycle_at(step)
