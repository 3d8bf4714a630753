"""Which cycles to take: what the bench of ordinary tasks supports, and no more."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from .cyclic import CyclicCosine
from .errors import ScheduleError, check_steps, shown
from .schedule import Schedule

# Seven of the bench's tasks turned before 0.35 of the run, and five at 0.45 or later, or never.
TURNED: Final = Fraction(2, 5)
_CYCLES, _GROWTH = 4, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """A schedule, and why.

    Args:
        schedule: what to train with.
        pays: whether the bench says that restarts gain something here; None where too little
            is known of the run.
        reason: why, in a few sentences.
    """

    schedule: Schedule
    pays: bool | None
    reason: str


def recommend(max_lr: float, *, total_steps: int, best_step: int | None = None) -> Recommendation:
    """The cycles that a bench of twelve small tasks supports for a budget.

    Look at one cosine run of the same budget first. If the loss on its validation data was
    lowest early in the run, and rises from there, the run has more updates than one annealing
    can use: there restarts paid. So give the update after which it was lowest:

    - up to 0.4 of the budget: four cycles, each twice as long as the one before. On the seven
      tasks of the bench that were so, at their long budgets, they had 0.94 times the loss of one
      cosine (four won, none lost); five equal cycles had 0.96, three 0.97.
    - later, or at the end: one cosine. On the other five tasks the four cycles had 1.01 (two
      won, at best 0.96; none lost). Five equal cycles had 0.94 there, by two tasks alone (`digits`
      0.81, `vowel` 0.93), and nothing says beforehand which.
    - not known: four doubling cycles, if you want restarts at all. The last one has more than
      half of the budget, so that they lose less where it is short (at worst 1.25 times the loss,
      and 1.44 of five equal ones).

    The limits of this. The networks are small, and the budgets 100 to 2,400 updates. The
    loss is the log-loss at the best temperature, or the RMSE, of the ensemble that
    `fit(select="last")` chooses. Each schedule had the best of four peaks, so that a peak
    tuned for one cosine need not be that of cycles. The rule was found on the same tasks
    on which its numbers are, with 6 seeds each. Fewer, more or longer cycles, and large networks,
    were not measured. `cosanneal.study` measures your own task.

    Args:
        max_lr: the peak of the rate.
        total_steps: the budget in optimizer steps.
        best_step: after so many updates one cosine run of this budget had its lowest validation
            loss; the budget itself where it was lowest at the end.

    Returns:
        The schedule, whether restarts pay by what is known, and why.

    Raises:
        ScheduleError: an argument that cannot be, as a budget too short for four cycles.

    Example:
        >>> import cosanneal as ca
        >>> found = ca.recommend(0.1, total_steps=1500, best_step=300)
        >>> [cycle.length for cycle in found.schedule.cycles()], found.pays
        ([100, 200, 400, 800], True)
        >>> ca.recommend(0.1, total_steps=1500, best_step=1500).schedule.num_cycles
        1

    Source: the bench, `docs/quality.md` and `docs/restarts.md`; the cycles are those of
    Loshchilov and Hutter, "SGDR" (2017), with T_mult = 2.
    """
    total_steps = check_steps("total_steps", total_steps, minimum=1)
    if best_step is not None:
        best_step = check_steps("best_step", best_step, minimum=1)
        if best_step > total_steps:
            raise ScheduleError(
                "Argument `best_step` must be at most `total_steps`, for a run of this budget. "
                f"Received: best_step={shown(best_step)}, total_steps={shown(total_steps)}"
            )
        if best_step > TURNED * total_steps:
            return Recommendation(
                schedule=CyclicCosine(max_lr, total_steps=total_steps, num_cycles=1),
                pays=False,
                reason=(
                    f"One cosine: its run was best after {best_step} of {total_steps} updates, so "
                    "that it still used its budget. On the bench's five tasks of this kind four "
                    "doubling cycles had 1.01 times the loss. Five equal ones gained on two of "
                    "them; a study shows whether yours is such a one."
                ),
            )
    schedule = CyclicCosine(max_lr, total_steps=total_steps, num_cycles=_CYCLES, cycle_mult=_GROWTH)
    if best_step is None:
        return Recommendation(
            schedule=schedule,
            pays=None,
            reason=(
                "Four doubling cycles, if restarts are wanted: they lost least where the budget "
                "was short. Whether they gain is not known without the step at which one "
                "cosine run of this budget had its lowest validation loss (best_step)."
            ),
        )
    return Recommendation(
        schedule=schedule,
        pays=True,
        reason=(
            f"Four doubling cycles: one cosine was best after {best_step} of {total_steps} "
            "updates, and had more than it could use. On the bench's seven tasks of this kind "
            "they had 0.94 times the loss (four won, none lost)."
        ),
    )
