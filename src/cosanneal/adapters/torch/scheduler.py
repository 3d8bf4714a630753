"""The schedule as a scheduler of torch's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, cast

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ...core.difference import difference
from ...core.errors import ScheduleError
from ...core.schedule import Schedule, check_schedule
from ...core.warn import warn
from ...snapshots.capture import Standing
from .groups import initial_rates, nearest, refuse_fewer, warn_of_replaced, watch
from .restarts import RestartNames, cycle_of
from .stretch import Stretch, copied, fill, fit_to_fill, rounded, scaled
from .updates import Followers, Pace, count_updates

# Older releases of torch do all within `step`, and note as the last rates the groups' very tensors.
_HANDS_OVER_TENSORS: Final = not hasattr(LRScheduler, "_update_lr")

# What a state must have.
_STATE: Final = {
    "schedules",
    "last_epoch",
    "_step_count",
    "updates",
    "base_lrs",
    "_last_lr",
    "chainable",
    "reference",
    "factors",
    "own",
    "in_charge",
}


class CyclicCosineLR(RestartNames, LRScheduler):
    """Sets each parameter group's rate from a schedule; step it after every optimizer step.

    `group["lr"] = schedule.rate(t) * initial_lr / max(initial_lr of all groups)`

    where `t` (`last_epoch`) counts the calls of `step()`. The group with the
    highest initial rate follows the schedule itself, to the last bit, and the
    others keep their ratio to it: the schedule's `max_lr` says what it says, and
    the optimizer's `lr` is only the ratio. With a list of schedules, one for
    each group, each group follows its own.

    A group added later takes part at once, from the optimizer's very next
    update: at the ratio of its `initial_lr`, if it brings one, to the highest
    initial rate that there was when the scheduler was made, else at ratio 1. Its
    `lr` is no ratio, for it may be the optimizer's default, which would set it
    far above the others at a cycle's end, or their rate of the moment, which
    would freeze it in the cycles to come. A warning says where a third `lr` is
    replaced. (With a list, append the group's schedule to `schedules`.)

    The optimizer's updates are counted by a hook. A warning says, once, where
    the scheduler is not stepped once an update, or beyond its last cycle.

    Args:
        optimizer: the optimizer. Rates that are tensors are filled in place.
        schedule: the schedule, or one for each parameter group.
        chainable: multiply the group's current rate by the ratio of two
            successive rates of the schedule, in place of setting it: for use
            under ChainedScheduler, so that factors of other schedulers stay.
            A factor survives a rate of 0.
        last_epoch: the number of the last update done, to go on from there; -1
            starts. The optimizer is a fresh one at its initial rates, or one
            whose state was restored after the scheduler's step: with
            `chainable`, what its rates differ by from the schedule's are then
            the factors of other schedulers (lost where the rate is 0). To
            resume from a checkpoint, `load_state_dict` is all that is needed.

    Raises:
        ScheduleError: no schedule, a list whose length is not the number of
            groups, a group whose rate is None, or no group with a positive
            rate.

    Example:
        >>> import torch
        >>> import cosanneal as ca
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> scheduler = CyclicCosineLR(optimizer, schedule)
        >>> rates = []
        >>> for _ in range(4):
        ...     rates.append(optimizer.param_groups[0]["lr"])
        ...     optimizer.step()
        ...     scheduler.step()
        >>> [round(rate, 9) for rate in rates]
        [0.2, 0.15, 0.05, 0.2]
    """

    base_lrs: list[float | Tensor]
    last_epoch: int

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: Schedule | Sequence[Schedule],
        *,
        chainable: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        groups = optimizer.param_groups
        # Whether every group follows the one schedule at its ratio.
        self._shared = not isinstance(schedule, list | tuple)
        self.schedules: list[Schedule] = _schedules(schedule, len(groups))
        initial = initial_rates(optimizer, ratios=self._shared)
        self._reference = max(initial)
        # A restored optimizer's rates are annealed already: they are those of the coming step.
        self._restored = last_epoch >= 0 and initial != [float(group["lr"]) for group in groups]
        if last_epoch >= 0:
            for group in groups:  # torch asks for these, and would refuse a fresh optimizer
                group.setdefault("initial_lr", copied(group["lr"]))
        self.chainable = chainable
        self._factors = [1.0] * len(groups)  # what other schedulers multiplied each rate by
        self._own: list[float] = []  # the rates of our own making, before those factors
        # How often a state was loaded, where it stood, and whether it set the rates: a
        # recorder that follows the scheduler must not take the jump for a training run.
        self.loads: int = 0
        self.loaded: Standing = Standing(0, 0)
        self.applied: bool = False
        self._stretch: Stretch | None = None
        self._last: list[float | Tensor] | None = None
        # What is told of each step that leaves a cycle, and of others on request.
        self.followers: Followers = Followers(self._cut_short)
        # The optimizer's updates, beside these steps.
        self.pace: Pace = Pace(self.schedules, leading=initial.index(self._reference))
        super().__init__(optimizer, last_epoch)
        self.pace.align(self.last_epoch, self.last_epoch)
        watch(self)
        count_updates(self)

    def _update_lr(self, epoch: int | None = None) -> None:
        # What torch's `step` leaves to this method, and older releases do within `step`. Where
        # nothing changed since the last update but the step, the rates are all there is to do.
        stretch, step = self._stretch, self.last_epoch + 1
        if (
            stretch is not None
            and epoch is None
            and stretch.start <= step < stretch.stop
            and type(step) is int
            and self.schedules[0] is stretch.schedule
            and self.base_lrs == stretch.base_lrs
            and not self.chainable
            and stretch.fill(self.optimizer.param_groups, stretch.evaluate(step))
        ):
            self.last_epoch = step
            self._last = None
            return
        super()._update_lr(epoch)
        if epoch is not None:
            self.pace.align(math.floor(self.last_epoch))
        self._stretch = None
        if not self.followers.tell():
            self._stretch = self._next_stretch(stretch)

    if _HANDS_OVER_TENSORS:

        def step(self, epoch: int | None = None) -> None:
            """Set the rates of the next step."""
            super().step(epoch)
            self.followers.tell()

    def _next_stretch(self, before: Stretch | None) -> Stretch | None:
        groups = self.optimizer.param_groups
        tensors = [group["lr"] for group in groups if isinstance(group["lr"], Tensor)]
        # The step that leaves the cycle goes the long way, if that is told of.
        leaves = cycle_of(self.schedules[0], self.last_epoch).stop
        if (
            self.chainable
            or not self._shared
            or type(self).get_lr is not CyclicCosineLR.get_lr
            or not isinstance(self.last_epoch, int)
            or (tensors and not fit_to_fill(tensors, len(groups)))
        ):
            return None
        return Stretch(
            self.schedules[0],
            self.last_epoch + 1,
            base_lrs=list(self.base_lrs),
            ratios=_ratios(self.base_lrs, self._reference),
            rates=self._own,
            tensors=tensors,
            until=leaves if self.followers and leaves > self.last_epoch else None,
            # The look-up pays for itself where such a stretch lasted before.
            follow=before is not None and before.stop == self.last_epoch,
        )

    @property
    def _last_lr(self) -> list[float | Tensor]:
        # On a stretch they are made when asked for, since few ask at every step.
        if self._last is None and self._stretch is not None:
            self._own = self._stretch.rates
            self._last = self._stretch.copies()
        return cast(list[float | Tensor], self._last)

    @_last_lr.setter
    def _last_lr(self, rates: list[float | Tensor]) -> None:
        self._last = [copied(rate) for rate in rates] if _HANDS_OVER_TENSORS else rates

    def __getstate__(self) -> dict[str, Any]:
        last = self._last_lr
        return {**self.__dict__, "_last": last, "_stretch": None, "followers": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        watch(self)  # a copy of an optimizer has no hooks
        self.followers = Followers(self._cut_short)
        count_updates(self)

    def get_lr(self) -> list[float | Tensor]:
        """The rates for `last_epoch`; for the rates in force, see `get_last_lr`."""
        if not self._get_lr_called_within_step:
            warn(
                "To get the last learning rate computed by the scheduler, please use "
                "`get_last_lr()`."
            )
        if self.chainable:
            self._note_factors()
        self._restored = False
        self._adopt_groups()
        self._own = self._rates()
        if not self.chainable:
            return list(self._own)
        return [rate * factor for rate, factor in zip(self._own, self._factors, strict=True)]

    def _get_closed_form_lr(self) -> list[float | Tensor]:
        # torch calls this, and not get_lr, where a step is jumped to.
        self._adopt_groups()
        self._own = self._rates()
        self._factors = [1.0] * len(self._own)
        return list(self._own)

    def _cut_short(self) -> None:
        """Have the next step go the long way, which tells the followers."""
        self._last_lr = self._last_lr  # which the stretch may know alone
        self._stretch = None

    def _rates(self) -> list[float]:
        rates = [_rate(schedule, self.last_epoch) for schedule in self.schedules]
        return scaled(rates[0], _ratios(self.base_lrs, self._reference)) if self._shared else rates

    def take_in_groups(self) -> None:
        """Take in the groups that were added since, at the rate that is theirs now.

        Raises:
            ScheduleError: there is a list of schedules, and none for a new group.
        """
        known, groups = len(self.base_lrs), self.optimizer.param_groups
        last = self._last_lr
        if self.chainable:
            self._note_factors()
        self._adopt_groups()
        model = nearest(self.base_lrs[:known], self._reference)
        now = float(groups[model]["lr"])
        ours = now == float(last[model])  # and not that of another scheduler, under SequentialLR
        own = list(self._own)
        for i, group in enumerate(groups[known:], known):
            if self._shared:
                ratio = float(self.base_lrs[i]) / float(self.base_lrs[model])
                own.append(own[model] * ratio)
                rate = now * ratio
            else:
                rate = _rate(self.schedules[i], self.last_epoch) if ours else float(group["lr"])
                own.append(rate)
            if ours:
                rate = own[i] * self._factors[i] if self.chainable else own[i]
            fill(group, rate)
        self._own = own
        self._last_lr = [*last, *(copied(group["lr"]) for group in groups[known:])]
        self._stretch = None  # it was made for fewer

    def _adopt_groups(self) -> None:
        known, groups = len(self.base_lrs), self.optimizer.param_groups
        if not self._shared and len(self.schedules) != len(groups):
            raise ScheduleError(
                "The scheduler must have a schedule for each parameter group. Received: "
                f"{len(groups)} groups and {len(self.schedules)} schedules; append the new "
                "group's to scheduler.schedules"
            )
        refuse_fewer(len(groups), known)
        if known == len(groups):
            return
        model = nearest(self.base_lrs, self._reference)
        now = float(groups[model]["lr"])
        for i, group in enumerate(groups[known:], known):
            if self._shared and "initial_lr" not in group:
                warn_of_replaced(group, now, self.optimizer, self._reference)
            if any(group["lr"] is other["lr"] for other in groups[:i]):
                group["lr"] = copied(group["lr"])  # a tensor, which is to be filled for this alone
            initial = self._reference if self._shared else copied(group["lr"])
            self.base_lrs.append(copied(group.setdefault("initial_lr", initial)))
            self._factors.append(self._factors[model])

    def _note_factors(self) -> None:
        """Find out by what others multiplied each known rate since we last set it."""
        coming = self._rates() if self._restored else []
        for i, group in enumerate(self.optimizer.param_groups[: len(self.base_lrs)]):
            now = float(group["lr"])
            if self._restored:
                before = rounded(coming[i], group)
            # Older releases of torch do not say when the step is the initial one.
            elif getattr(self, "_is_initial", False) or i >= len(self._own):
                before = float(self.base_lrs[i])
            elif now == float(self._last_lr[i]):
                continue  # nobody did; and so no rounding gathers
            else:
                before = self._own[i]
            if before > 0:  # at a rate of 0 a factor leaves no trace
                self._factors[i] = now / before

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data (numbers, strings, lists, dicts), which `weights_only` loads.

        Snapshots that a recorder took within `step` are durable, or lost, when this
        returns: a run resumed from a checkpoint does not take earlier ones again.
        """
        self.followers.flush()
        if len(self.base_lrs) != len(self.optimizer.param_groups):
            self.take_in_groups()
        last = [float(rate) for rate in self._last_lr]
        now = [float(group["lr"]) for group in self.optimizer.param_groups[: len(last)]]
        return {
            "schedules": [schedule.to_dict() for schedule in self.schedules],
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
            "updates": self.pace.standing(self.last_epoch).updates,
            "base_lrs": [float(rate) for rate in self.base_lrs],
            "_last_lr": last,
            "chainable": self.chainable,
            "reference": self._reference,
            "factors": list(self._factors),
            "own": list(self._own),
            # Under SequentialLR another scheduler may have the word at present.
            "in_charge": now == last,
        }

    def load_state_dict(self, state_dict: dict[str, Any], *, strict: bool = True) -> None:
        """Go on from a state, on this or on a fresh optimizer; the rates are set at once.

        Args:
            state_dict: what `state_dict` returned, under a schedule with the same
                cycles up to there: this one, or one that was `extended` to it.
            strict: False takes over the step alone, from a run under any schedule.

        Raises:
            ScheduleError: not a state of this class; one of another schedule
                (the difference is named); more parameter groups than there are.
        """
        groups = self.optimizer.param_groups
        _check_state(state_dict, self.schedules, len(groups), strict=strict)
        known = len(state_dict["base_lrs"])
        self.base_lrs = [*state_dict["base_lrs"], *self.base_lrs[known:]]
        self._factors = [*state_dict["factors"], *self._factors[known:]]
        self._reference = state_dict["reference"]
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict["_step_count"]
        # Of groups that the state has not, what stands there now.
        more = [float(group["lr"]) for group in groups[known : len(self.base_lrs)]]
        self._own = [*state_dict["own"], *more]
        self._last_lr = [*state_dict["_last_lr"], *more]
        self._stretch = None  # it was made for other ratios
        self.loads += 1
        self.pace.align(math.floor(self.last_epoch), state_dict["updates"])
        self.loaded = self.pace.standing(self.last_epoch)
        self.applied = state_dict["in_charge"]
        if self.applied:
            self.apply()

    def stand_at(self, step: float, *, step_count: int) -> None:
        """From a `step`, as after `step_count` calls of `step()`, and set the rates at once."""
        self.last_epoch = step  # type: ignore[assignment]
        self._step_count = step_count
        self.pace.align(math.floor(step), math.floor(step))
        self.apply()

    def apply(self) -> None:
        """Set the groups' rates to those of `last_epoch`."""
        self._adopt_groups()
        self._own = self._rates()
        for group, rate, factor in zip(
            self.optimizer.param_groups, self._own, self._factors, strict=True
        ):
            fill(group, rate * factor if self.chainable else rate)
        self._last_lr = [copied(group["lr"]) for group in self.optimizer.param_groups]


def _schedules(schedule: Schedule | Sequence[Schedule], groups: int) -> list[Schedule]:
    """The schedule, or those of so many groups."""
    if not isinstance(schedule, list | tuple):
        return [check_schedule(schedule)]
    schedules = [check_schedule(each) for each in schedule]
    if len(schedules) != groups:
        raise ScheduleError(
            "Argument `schedule` must be one schedule, or a list with one for each of the "
            f"optimizer's {groups} parameter groups. Received: a list of {len(schedules)}"
        )
    return schedules


def _ratios(base_lrs: Sequence[float | Tensor], reference: float) -> list[float]:
    # A ratio of 1 leaves the schedule's own rate, bit for bit.
    return [float(base) / reference for base in base_lrs]


def _rate(schedule: Schedule, step: float) -> float:
    # An int, but for torch's deprecated `step(epoch)`, which takes fractions.
    return schedule.rate(step) if isinstance(step, int) else schedule.rate_at(step)


def _check_state(
    state_dict: dict[str, Any], schedules: list[Schedule], groups: int, *, strict: bool
) -> None:
    """Refuse what is no state of a scheduler of these schedules, on so many groups."""
    missing = sorted(_STATE - state_dict.keys())
    if missing:
        raise ScheduleError(
            "Argument `state_dict` must be the state of a CyclicCosineLR. Received: a dict "
            f"without {missing}"
        )
    done = math.ceil(state_dict["last_epoch"])
    differing = _differing(state_dict["schedules"], schedules, done) if strict else None
    if differing is not None:
        raise ScheduleError(
            "The state must be of the same schedule as this scheduler's, or of one with the same "
            f"cycles up to the state's step, {done}. Received: another, for {differing}; to go on "
            "with other cycles from one's end, make the schedule by schedule.extended(...); to go "
            "on under this one from the state's step, give strict=False"
        )
    if len(state_dict["base_lrs"]) > groups:
        raise ScheduleError(
            "The optimizer must have as many parameter groups as the state's. Received: "
            f"{groups} groups, and {len(state_dict['base_lrs'])} in the state; add the "
            "others with add_param_group first"
        )


def _differing(theirs: object, ours: Sequence[Schedule], done: int) -> str | None:
    """Where the schedules of a state differ from a scheduler's, of which it did so many steps."""
    there, here = "in the state", "here"
    theirs = theirs if isinstance(theirs, list | tuple) else []
    if len(theirs) != len(ours):
        return f"the number of schedules is {len(theirs)} {there}, {len(ours)} {here}"
    for number, (each, own) in enumerate(zip(theirs, ours, strict=True)):
        differing = difference(each, own, there=there, here=here, done=done)
        if differing is not None:
            which = f"in the schedule of group {number}, " if len(theirs) > 1 else ""
            return which + differing
    return None
