"""The schedules of the papers: Snapshot Ensembles, as written and as published in Lua, and SGDR."""

from __future__ import annotations

from fractions import Fraction

from ..core.errors import check_rate, check_steps
from ..core.rules import CycleRule, Level, Phase
from ..core.schedule import Schedule
from .build import check_cut, check_floor, check_growth, check_length, endless


def snapshot_ensembles(T: int, M: int, alpha_0: float) -> Schedule:
    """Equation 2 of the Snapshot Ensembles paper.

        rate(t) = alpha_0 * C(c / L),  L = ceil(T / M)

    The paper counts its iterations from 1; its iteration `t + 1` is step `t`.
    The last step of a cycle stands one step above 0. The equation has no end:
    where M does not divide T, step `T` comes in the middle of a cycle, and
    fewer than M cycles are complete by then (T=9, M=7: four, and a half).

    Args:
        T: the training iterations in all, in optimizer steps.
        M: the number of cycles.
        alpha_0: the rate at the start of every cycle.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> snapshot_ensembles(T=100, M=4, alpha_0=0.1).cycle_ends(100)
        [24, 49, 74, 99]

    Source: Huang et al., "Snapshot Ensembles: Train 1, get M for free" (2017), Eq. 2.
    """
    T, M = check_cut("T", T, "M", M)
    return endless(-(-T // M), peak=Level(check_rate("alpha_0", alpha_0)))


def snapshot_ensembles_lua(epochs: int, M: int, batches_per_epoch: int, alpha_0: float) -> Schedule:
    """The code that the authors of Snapshot Ensembles published, in Lua.

        rate(t) = alpha_0 * C((c + 1) / L),  L = floor(epochs / M) * batches_per_epoch

    It counts a cycle's iterations from 1, so that a cycle starts one step below
    `alpha_0` and its last step is exactly 0. Where M does not divide `epochs`,
    the last cycle takes what is left, `E = epochs - (M - 1) * floor(epochs / M)`
    epochs; but its clock is the epoch modulo `E`, counted from the run's start:
    unless `E` divides `(M - 1) * floor(epochs / M)` it is joined on its way,
    reaches 0 early, restarts, and ends the run half annealed. That is
    reproduced. Past the end the last cycle is repeated.

    Args:
        epochs: `nEpochs`, the epochs of the run.
        M: `nCycles`, the number of cycles.
        batches_per_epoch: `nBatches`, the optimizer steps in an epoch.
        alpha_0: `LR`, the rate from which a cycle falls.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = snapshot_ensembles_lua(epochs=4, M=2, batches_per_epoch=5, alpha_0=0.1)
        >>> schedule.rate(9), schedule.cycle_ends(20)
        (0.0, [9, 19])

    Source: `learningRateCosine` in train.lua of the repository gaohuang/SnapshotEnsemble.
    """
    epochs, M = check_cut("epochs", epochs, "M", M)
    batches = check_steps("batches_per_epoch", batches_per_epoch, minimum=1)
    peak = Level(check_rate("alpha_0", alpha_0))
    each = epochs // M
    left = epochs - (M - 1) * each
    joined = (M - 1) * each % left  # so many epochs into its clock the last cycle begins

    def rule(count: int | None, length: int, lead: int = 0) -> CycleRule:
        annealing = Phase(
            steps=None, first=peak, last=Level(0.0), endpoint=True, lead=lead * batches + 1
        )
        return CycleRule(count=count, length=length * batches, phases=(annealing,))

    if each == left:
        return Schedule((rule(None, each),))
    joins = (rule(1, left - joined, joined),) if joined else ()
    return Schedule((rule(M - 1, each), *joins, rule(None, left)))


def sgdr(
    eta_max: float, T_0: float | Fraction, T_mult: float | Fraction = 1, eta_min: float = 0.0
) -> Schedule:
    """Warm restarts as the SGDR paper defines them.

        rate(t) = eta_min + (eta_max - eta_min) * C(c / T_i),  T_i = T_0 * T_mult**i

    The paper counts epochs and updates the rate every batch, at the fraction of
    an epoch that has passed: give `T_0` as that many epochs' batches. The last
    step of a cycle stands one step above `eta_min`; there is no end.

    Args:
        eta_max: the rate at the start of every cycle.
        T_0: the length of the first cycle, in optimizer steps; at least 1.
        T_mult: the factor from one cycle's length to the next; at least 1.
        eta_min: the rate to which every cycle falls.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> sgdr(eta_max=0.05, T_0=10, T_mult=2).cycle_ends(70)
        [9, 29, 69]

    Source: Loshchilov and Hutter, "SGDR" (2017), Eq. 5 and section 4.
    """
    peak = check_rate("eta_max", eta_max)
    floor = check_floor("eta_min", eta_min, "eta_max", peak)
    return endless(
        check_length("T_0", T_0),
        growth=check_growth("T_mult", T_mult),
        peak=Level(peak),
        floor=Level(floor),
        rounding="none",
    )
