"""Counting the updates of optimizers, by their own hooks, beside the steps of a scheduler."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from torch import Tensor
from torch.optim import Optimizer

from ...core.schedule import Schedule
from ...core.warn import warn
from ...snapshots.capture import Standing
from .restarts import cycle_of
from .stretch import copied

_EVERY_UPDATE: Final = (
    "A step of the schedule is one update of the optimizer: call scheduler.step() after every "
    "optimizer.step()"
)

# So many updates may be skipped until the scheduler's lead on them is taken for a mistake.
_SKIPPED: Final = 8


class Follower(Protocol):
    """What is told of a scheduler's steps."""

    @property
    def lost(self) -> bool:
        """Whether another has taken its place, which it would refuse to be told."""

    def moved(self) -> bool:
        """The scheduler left a cycle; whether to be told of the next step, too."""

    def flush(self) -> None:
        """Finish what is under way: a state of the scheduler is about to be saved."""


class Followers:
    """What is told of a scheduler's steps.

    Args:
        cut_short: has the scheduler tell of its next step; a method of the
            scheduler, which is not held, so that it goes with its last user.
    """

    def __init__(self, cut_short: Callable[[], None]) -> None:
        self._cut_short = weakref.WeakMethod(cut_short)
        self._followers: list[Follower] = []

    def __bool__(self) -> bool:
        return bool(self._followers)

    def add(self, follower: Follower) -> None:
        """Tell it of each step that leaves a cycle, and of those it asks for."""
        self._followers = [each for each in self._followers if not each.lost]
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


def register(optimizer: Any, when: str, hook: Callable[..., None]) -> bool:
    """Have a hook called at "step_pre", "step_post" or "load_state_dict_post" of an optimizer.

    Returns:
        Whether that can be: what wraps an optimizer may have no hooks, and hold
        none that has.
    """
    while optimizer is not None:
        try:
            getattr(optimizer, f"register_{when}_hook")(hook)
        except (AttributeError, TypeError):
            optimizer = getattr(optimizer, "optimizer", None)  # as accelerate's has it
        else:
            return True
    return False


class KeepsPace(Protocol):
    """A scheduler whose optimizer's updates are counted."""

    optimizer: Optimizer
    last_epoch: int
    schedules: list[Schedule]
    pace: Pace

    def get_last_lr(self) -> list[float | Tensor]:
        """The rates that it set last."""


class Rounds:
    """Which calls of an optimizer are one update: DeepSpeed's ZeRO-3 calls it part after part."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._seen: set[int] = set()

    def goes_on(self, optimizer: Optimizer, position: float) -> bool:
        """Whether a call, at a step of the schedule, does what the update before has left.

        It has other parameters than those since then, and the scheduler has not moved.
        """
        groups = (each["params"] for each in optimizer.param_groups)
        first = next((id(each[0]) for each in groups if each), 0)
        if position == self._at and first not in self._seen:
            self._seen.add(first)
            return True
        self._at, self._seen = position, {first}
        return False


def count_updates(scheduler: KeepsPace) -> None:
    """Count the updates of a scheduler's optimizer in its pace, as long as it is alive."""
    held = weakref.ref(scheduler)
    rounds = Rounds()

    def after_update(optimizer: Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG001
        scheduler = held()
        if scheduler is None:
            return
        pace, position = scheduler.pace, math.floor(scheduler.last_epoch)
        if rounds.goes_on(optimizer, scheduler.last_epoch):
            return
        rate = optimizer.param_groups[pace.leading]["lr"]
        problem = pace.note(rate, position)
        if problem is None:
            return
        if is_in_charge(scheduler):
            pace.say(*problem)
        else:  # within SequentialLR another scheduler has the word
            pace.align(position)

    scheduler.pace.counted = register(scheduler.optimizer, "step_post", after_update)


def is_left(scheduler: KeepsPace, *, over: bool = False) -> bool:
    """Whether the update that ended a cycle was done, and the scheduler is not stepped after it.

    SequentialLR steps the next scheduler in its place, and a loop may leave its last
    step out. From then on, the scheduler's pace counts that step.

    Args:
        scheduler: the scheduler, before the next update.
        over: whether there is none.
    """
    pace, position, schedule = scheduler.pace, scheduler.last_epoch, scheduler.schedules[0]
    total = schedule.total_steps
    if not pace.waits_at(position) or (total is not None and position >= total):
        return False
    if cycle_of(schedule, position).stop != position + 1:
        return False
    if "pace" in pace.said if over else is_in_charge(scheduler):
        return False
    pace.leave(position)
    return True


def is_in_charge(scheduler: KeepsPace) -> bool:
    """Whether the rate is the one that the scheduler set, and not another's."""
    leading = scheduler.pace.leading
    rate = scheduler.optimizer.param_groups[leading]["lr"]
    return float(rate) == float(scheduler.get_last_lr()[leading])


class Pace:
    """How many updates an optimizer has done, and whether its scheduler keeps pace with them.

    As long as no update was noted, each step of the scheduler counts as one: an optimizer may
    update by another method than `step`, as SAM's does, which calls no hooks. And so do the
    steps of a stretch without any, as where a captured CUDA graph is replayed.

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
        self.leading: int = leading
        self.counted: bool = False
        self._noted = self._waited = False
        # Where the scheduler stood at the last update, and the most that it moved between two.
        self.count: int = 0
        self._at = self._gap = 0
        self._waits = False  # for the scheduler's step after an update
        self._left: int | None = None  # where it is not to come
        self.rate: float | Tensor | None = None
        self.said: set[str] = set()
        self._begin(0, 0)

    def align(self, position: int, count: int | None = None) -> None:
        """Take it that the scheduler stands right, after so many updates."""
        if count is not None:
            self.rate = None
        self._begin(self._updates(position) if count is None else count, position)

    def _begin(self, count: int, position: int) -> None:
        self.count = count
        # What `position - count` is when an update has just been done, and the scheduler's
        # step after it has not.
        self._lead = position - count - 1
        self._began = count, position
        self._at, self._waits = position, False

    def _updates(self, position: int) -> int:
        if self.counted and self._noted:
            since = position - self._at
            return self.count + (since - 1 if since > max(_SKIPPED, self._gap) else 0)
        return self._began[0] + max(position - self._began[1], 0)

    def standing(self, position: float) -> Standing:
        """Where the run stands, with the scheduler there."""
        position = max(math.floor(position), 0)
        position += position == self._left
        updates = self._updates(position)
        # Of updates that were not noted, the rate was not either.
        rate = None if self.rate is None or updates > self.count else float(self.rate)
        return Standing(updates, position, rate)

    def note(self, rate: float | Tensor, position: int) -> tuple[str, str] | None:
        """An update was done, at that rate and with the scheduler there.

        Returns:
            What to `say` of it, if the rate is the scheduler's.
        """
        self.count += 1
        self._noted = self._waits = True
        # One that is a tensor is filled in place for the next update.
        self.rate = rate if type(rate) is float else copied(rate)
        at, self._at = self._at, position
        self._gap = max(self._gap, position - at)
        if position - self.count == self._lead and position < self._total:
            return None
        return self._problem(position, back=position < at)

    def waits_at(self, position: float) -> bool:
        """Whether an update was done with the scheduler there, and it did not move since."""
        return self._waits and position == self._at

    def leave(self, position: int) -> None:
        """Count the step after that update, which the scheduler is not to do."""
        self._left = position

    def say(self, what: str, text: str) -> None:
        """Warn of it."""
        self.said.add(what)
        warn(text)

    def _problem(self, position: int, *, back: bool) -> tuple[str, str] | None:
        """A schedule that is over, or out of pace, if that was not said; and what to say."""
        if position < 0:  # SequentialLR has not come to it yet
            return None
        ahead = position - self.count - self._lead
        done, moved = self.count - self._began[0], position - self._began[1]
        late = moved == 1 and ahead < -1 and not self._waited
        if late or back or (done == 1 and ahead > 1):
            # It starts to move after a while; or was set back, or on to where a run had stopped.
            self._waited = self._waited or late
            self._begin(max(self._began[0] + moved, self.count - 1), position)
            self.count += 1
            ahead, done, moved = 0, 1, 0
        # The first update beyond the end may be that before another scheduler, such as SWALR.
        if position >= self._total and (position > self._total or ahead < 0):
            return None if "end" in self.said else ("end", self._over())
        if "pace" in self.said:
            return None
        steps = f"{moved} step{'s' if moved > 1 else ''} in {done - 1} updates of the optimizer"
        # A few more are those of updates that a GradScaler skips, or of a loop that steps
        # the scheduler first, of which torch warns.
        if ahead > _SKIPPED and moved >= 2 * (done - 1):
            return "pace", (
                f"The scheduler moved {steps}. {_EVERY_UPDATE} (accelerate steps a scheduler that "
                "went through prepare() once for each process: leave it out of prepare(), and step "
                "it where accelerator.sync_gradients is true; or count total_steps in its steps)"
            )
        if ahead < -1 and moved > 0:
            return "pace", (
                f'The scheduler moved {steps}. {_EVERY_UPDATE} (in Lightning: "interval": "step"), '
                "with total_steps in updates"
            )
        if not moved and done > self._first:
            return "pace", (
                f"The optimizer did {done} updates, and the scheduler has not moved: the rate is "
                f'still the first. {_EVERY_UPDATE} (in Lightning: "interval": "step")'
            )
        return None

    def _over(self) -> str:
        return (
            f"The schedule is over: its {self._total} steps are done, and the run trains on at "
            f"its floor, a rate of {float(self.rate or 0.0):.3g}. Make total_steps (or "
            "cycle_steps) the number of updates of the whole run, or end the run there"
        )
