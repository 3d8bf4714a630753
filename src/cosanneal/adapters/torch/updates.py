"""Counting the updates of optimizers, by their own hooks, beside the steps of a scheduler."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from torch import Tensor
from torch.optim import Optimizer

from ...core.schedule import Schedule
from ...snapshots.capture import Standing
from .stretch import copied

_EVERY_UPDATE: Final = (
    "A step of the schedule is one update of the optimizer: call scheduler.step() after every "
    "optimizer.step()"
)


class Follower(Protocol):
    """What is told of a scheduler's steps."""

    def moved(self) -> bool:
        """The scheduler left a cycle; whether to be told of the next step, too."""

    def flush(self) -> None:
        """Finish what is under way: a state of the scheduler is about to be saved."""


class Followers:
    """What is told of a scheduler's steps.

    Args:
        cut_short: the scheduler's method that has its next step tell.
    """

    def __init__(self, cut_short: Callable[[], None]) -> None:
        # A scheduler that is let go of ends at once, and not with the next collection.
        self._cut_short = weakref.WeakMethod(cut_short)
        self._followers: list[Follower] = []

    def __bool__(self) -> bool:
        return bool(self._followers)

    def add(self, follower: Follower) -> None:
        """Tell it of each step that leaves a cycle, and of those it asks for."""
        self._followers.append(follower)
        cut_short = self._cut_short()
        if cut_short is not None:
            cut_short()

    def remove(self, follower: Follower) -> None:
        """Tell it no more."""
        self._followers = [each for each in self._followers if each is not follower]

    def tell(self) -> bool:
        """Tell each, also where one raises; whether one asks for the next step."""
        again, errors = False, list[Exception]()
        for follower in self._followers:
            try:
                again = follower.moved() or again
            except Exception as error:
                errors.append(error)
        for other in errors[1:]:
            errors[0].add_note(str(other))
        if errors:
            raise errors[0]
        return again

    def flush(self) -> None:
        """Have each finish what is under way."""
        for follower in self._followers:
            follower.flush()


def register(optimizer: Any, when: str, hook: Callable[[Optimizer, Any, Any], None]) -> bool:
    """Have a hook called before ("pre") or after ("post") each update of an optimizer.

    Returns:
        Whether that can be: what wraps an optimizer may have no hooks, and hold
        none that has.
    """
    while optimizer is not None:
        try:
            getattr(optimizer, f"register_step_{when}_hook")(hook)
        except (AttributeError, TypeError):
            optimizer = getattr(optimizer, "optimizer", None)  # as accelerate's has it
        else:
            return True
    return False


class KeepsPace(Protocol):
    """A scheduler whose optimizer's updates are counted."""

    optimizer: Optimizer
    last_epoch: int
    pace: Pace

    def get_last_lr(self) -> list[float | Tensor]:
        """The rates that it set last."""


def count_updates(scheduler: KeepsPace) -> None:
    """Count the updates of a scheduler's optimizer in its pace, as long as it is alive."""
    held = weakref.ref(scheduler)

    def after_update(optimizer: Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG001
        scheduler = held()
        if scheduler is None:
            return
        pace = scheduler.pace
        rate = optimizer.param_groups[pace.leading]["lr"]
        if not pace.note(rate, scheduler.last_epoch):
            return
        position = math.floor(scheduler.last_epoch)
        if position >= 0 and float(rate) == float(scheduler.get_last_lr()[pace.leading]):
            pace.check(position)
        else:  # within SequentialLR another scheduler has the word
            pace.align(position)

    scheduler.pace.counted = register(scheduler.optimizer, "post", after_update)


class Pace:
    """How many updates an optimizer has done, and whether its scheduler keeps pace with them.

    Args:
        schedules: the scheduler's.
        leading: the number of the group whose rate is noted.

    Attributes:
        counted: whether updates are counted: the optimizer may have no hooks.
        count: how many updates were done.
        rate: the rate of the last one; None before the first.
        said: what was warned of already.
    """

    def __init__(self, schedules: Sequence[Schedule], *, leading: int) -> None:
        totals = [schedule.total_steps for schedule in schedules]
        self._total = math.inf if None in totals else max(total for total in totals if total)
        self._first = min(schedule.cycle_at(0).stop for schedule in schedules)
        self.leading = leading
        self.counted = False
        self.count = 0
        self.rate: float | Tensor | None = None
        self.said: set[str] = set()
        self.align(0)

    def align(self, position: int, count: int | None = None) -> None:
        """Take it that the scheduler stands right, after so many updates."""
        if count is not None:
            self.count, self.rate = count, None
        # What `position - count` is when an update has just been done, and the scheduler's
        # step after it has not.
        self._lead = position - self.count - 1
        self._began = self.count, position

    def standing(self, position: float) -> Standing:
        """Where the run stands, with the scheduler there."""
        position = max(math.floor(position), 0)
        rate = None if self.rate is None else float(self.rate)
        return Standing(self.count if self.counted else position, position, rate)

    def note(self, rate: float | Tensor, position: int) -> bool:
        """An update was done, at that rate and with the scheduler there.

        Returns:
            Whether there may be something to say of it: see `check`.
        """
        self.count += 1
        # One that is a tensor is filled in place for the next update.
        self.rate = rate if type(rate) is float else copied(rate)
        return position - self.count != self._lead or position >= self._total

    def check(self, position: int) -> None:
        """Warn, once each, of a scheduler that moves otherwise than once an update, or is over."""
        ahead = position - self.count - self._lead
        done, moved = self.count - self._began[0], position - self._began[1]
        if done == 1 and ahead > 1:  # one that was stepped on to where a run had stopped
            self.align(position, position)
            self.count += 1
            return
        steps = f"{moved} step{'s' if moved > 1 else ''} in {done - 1} updates of the optimizer"
        if position >= self._total:
            self._warn(
                "end",
                f"The schedule is over: its {self._total} steps are done, and the run trains on at "
                f"its floor, a rate of {float(self.rate or 0.0):.3g}. Make total_steps (or "
                "cycle_steps) the number of updates of the whole run, or end the run there",
            )
        elif ahead > 1:  # by one is a loop that steps the scheduler first, of which torch warns
            self._warn(
                "pace",
                f"The scheduler moved {steps}. {_EVERY_UPDATE} (accelerate steps a scheduler that "
                "went through prepare() once for each process: leave it out of prepare(), and step "
                "it where accelerator.sync_gradients is true; or count total_steps in its steps)",
            )
        elif ahead < -1 and moved:
            self._warn(
                "pace",
                f'The scheduler moved {steps}. {_EVERY_UPDATE} (in Lightning: "interval": "step"), '
                "with total_steps in updates",
            )
        elif not moved and done > self._first:
            self._warn(
                "pace",
                f"The optimizer did {done} updates, and the scheduler has not moved: the rate is "
                f'still the first. {_EVERY_UPDATE} (in Lightning: "interval": "step")',
            )

    def _warn(self, what: str, text: str) -> None:
        if what not in self.said:
            self.said.add(what)
            warnings.warn(text, UserWarning, stacklevel=2)
