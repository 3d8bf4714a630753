"""What a scheduler asks of an optimizer's parameter groups, and its watch for those added later."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor
from torch.optim import Optimizer

from ...core.errors import ScheduleError
from ...core.warn import warn
from ...snapshots.capture import Standing
from .updates import Followers, KeepsPace, is_left, register


class Watches(KeepsPace, Protocol):
    """A scheduler that takes in groups which its optimizer has got since, and that is followed."""

    base_lrs: list[float | Tensor]
    followers: Followers
    loaded: Standing
    applied: bool

    def take_in_groups(self) -> None:
        """Take them in, at the rate that is theirs now."""

    def apply(self) -> None:
        """Set the rates of the step at which it stands."""


def watch(scheduler: Watches) -> None:
    """Before each update, have late groups taken in, and followers told if the scheduler is left.

    And where the optimizer's state is loaded after the scheduler's, have the rates
    set again: that state has those of the schedule under which it was saved, which
    may be the floor after its end where another, extended from it, has a peak. As
    long as the scheduler is alive.
    """
    held = weakref.ref(scheduler)

    def before_update(optimizer: Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG001
        scheduler = held()
        if scheduler is None:
            return
        if len(optimizer.param_groups) != len(scheduler.base_lrs):
            scheduler.take_in_groups()
        if scheduler.pace.waits_at(scheduler.last_epoch) and is_left(scheduler):
            scheduler.followers.tell()

    def after_load(_: Optimizer) -> None:
        scheduler = held()
        # Only if a state was loaded, and nothing was stepped since.
        at = scheduler.loaded.position if scheduler is not None and scheduler.applied else None
        if scheduler is not None and scheduler.last_epoch == at:
            scheduler.apply()

    # Where there are no hooks, the next step takes them in.
    register(scheduler.optimizer, "step_pre", before_update)
    register(scheduler.optimizer, "load_state_dict_post", after_load)


def initial_rates(optimizer: Optimizer, *, ratios: bool) -> list[float]:
    """The groups' initial rates; `ratios`: of which one at least must be positive.

    Raises:
        ScheduleError: none is, or a group without a rate: an optimizer that
            makes its rates by itself, as the Adafactor of transformers may.
    """
    groups = optimizer.param_groups
    for i, group in enumerate(groups):
        if group.get("lr") is None:
            raise ScheduleError(
                "The optimizer must have a rate in each parameter group, for a schedule to set. "
                f"Received: lr=None in group {i} of {type(optimizer).__name__}; give it an lr "
                "(and transformers' Adafactor relative_step=False beside it)"
            )
    initial = [float(group.get("initial_lr", group["lr"])) for group in groups]
    if ratios and not max(initial) > 0:
        raise ScheduleError(
            "The optimizer must have a parameter group with a positive rate, since a group's "
            f"rate is its ratio to the highest. Received: lr={initial}"
        )
    return initial


def nearest(base_lrs: Sequence[float | Tensor], reference: float) -> int:
    """The number of the group whose ratio to the reference is 1, or nearest to it."""
    return min(range(len(base_lrs)), key=lambda i: abs(float(base_lrs[i]) - reference))


def refuse_fewer(now: int, before: int) -> None:
    """Refuse an optimizer that has fewer groups than the scheduler sets.

    Raises:
        ScheduleError: it has.
    """
    if now < before:
        raise ScheduleError(
            "The optimizer must keep the parameter groups that the scheduler sets. Received: "
            f"{now} group(s), and {before} before; to train some no more, leave them and set "
            "requires_grad=False, or make a new scheduler with last_epoch="
        )


def warn_of_replaced(
    group: dict[str, Any], now: float, optimizer: Optimizer, reference: float
) -> None:
    """Say that a late group's rate is not kept, where somebody seems to have meant it."""
    given = float(group["lr"])
    usual = (now, getattr(optimizer, "defaults", {}).get("lr", now))
    if not any(math.isclose(given, float(rate), rel_tol=1e-6) for rate in usual):
        warn(
            f"A parameter group was added with lr={given}, which the schedule sets to {now}, "
            "the others' rate, and on along the schedule; for a rate in a ratio to theirs, "
            f"give the group an initial_lr (ratio 1 is {reference})"
        )
