"""The schedules of training loops on PyTorch: Ignite, fastai, Composer, torchensemble, MMEngine."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from ..core.errors import MAX_STEPS, ScheduleError, check_rate, check_steps
from ..core.rules import CycleRule, Level, Phase, Rounding, join
from ..core.schedule import Schedule
from ..core.segment import Segment
from .build import check_cut, check_floor, check_power, check_share, endless


def ignite_cosine(
    start_value: float,
    end_value: float,
    cycle_size: int,
    cycle_mult: float = 1.0,
    start_value_mult: float = 1.0,
    end_value_mult: float = 1.0,
    warmup_duration: int = 0,
) -> Schedule:
    """Ignite's CosineAnnealingScheduler.

        rate(t) = s + (e - s) * (1 - C(c / L))

    in cycle `i`, with `s = start_value * start_value_mult**i` and `e =
    end_value * end_value_mult**i`. The next length is `int(L * cycle_mult)`,
    the product that of two floats as in Ignite (`int(100 * 1.15)` is 114), and
    so is that of the warmup, which leads after each cycle on a straight line
    from its `e` to the next cycle's `s`. Here a cycle ends before that warmup,
    which belongs to the next one. The last step of a cycle stands above `e`,
    the warmup's first step is exactly `e`; there is no end, unless cycles
    shrink: then the schedule ends, at `e`, where Ignite would divide by a
    cycle of 0 events.

    Args:
        start_value: the rate at the start of the first cycle; it may be the
            lower one: then the rate rises.
        end_value: the rate at its end.
        cycle_size: the length of the first cycle, in events; at least 2.
        cycle_mult: the factor from one cycle's length to the next: 1, at least
            1.001 or at most 0.999.
        start_value_mult: the factor from one cycle's start to the next one's.
        end_value_mult: the factor from one cycle's end to the next one's.
        warmup_duration: the length of the first warmup, in events.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = ignite_cosine(0.1, 0.0, cycle_size=10, cycle_mult=1.5, warmup_duration=4)
        >>> schedule.rate(10), schedule.rate(12), schedule.rate(14), schedule.cycle_ends(60)
        (0.0, 0.05, 0.1, [9, 28, 56])

    Source: `ignite.handlers.param_scheduler.CosineAnnealingScheduler`.
    """
    start = check_rate("start_value", start_value)
    end = check_rate("end_value", end_value)
    size = check_steps("cycle_size", cycle_size, minimum=2)
    mult = _check_multiplied("cycle_mult", cycle_mult)
    start_mult = check_power("start_value_mult", start_value_mult)
    end_mult = check_power("end_value_mult", end_value_mult)
    warmup = check_steps("warmup_duration", warmup_duration)
    first, last = Level(start, decay=start_mult), Level(end, decay=end_mult)
    annealing = Phase(steps=None, first=first, last=last)
    if not warmup:
        return _multiplied(size, mult, annealing)
    # From the end of the cycle before, whose index is one less.
    rise = Phase(
        steps=warmup, first=Level(end / end_mult, decay=end_mult), last=first, curve="linear"
    )
    return _multiplied(size, mult, annealing, rise)


def fastai_sgdr(
    lr_max: float, n_cycles: int, cycle_len: int, cycle_mult: int = 2, batches_per_epoch: int = 1
) -> Schedule:
    """The fit_sgdr of fastai.

        rate(t) = lr_max * C(c / L),  L = cycle_len * batches_per_epoch * cycle_mult**i

    The last step of a cycle stands one step above 0, which is held after the
    last cycle, where fit_sgdr ends.

    Args:
        lr_max: the rate at the start of every cycle.
        n_cycles: the number of cycles.
        cycle_len: the length of the first cycle, in EPOCHS.
        cycle_mult: the factor from one cycle's length to the next, an integer.
        batches_per_epoch: the optimizer steps in an epoch.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> fastai_sgdr(0.1, n_cycles=3, cycle_len=1, batches_per_epoch=10).cycle_ends()
        [9, 29, 69]

    Source: `fastai.callback.schedule.fit_sgdr` and its `SchedCos`.
    """
    batches = check_steps("batches_per_epoch", batches_per_epoch, minimum=1)
    annealing = Phase(steps=None, first=Level(check_rate("lr_max", lr_max)), last=Level(0.0))
    rule = CycleRule(
        count=check_steps("n_cycles", n_cycles, minimum=1),
        length=check_steps("cycle_len", cycle_len, minimum=1) * batches,
        growth=Fraction(check_steps("cycle_mult", cycle_mult, minimum=1)),
        phases=(annealing,),
    )
    try:
        return Schedule((rule,))
    except ScheduleError as error:
        raise ScheduleError(
            f"Argument `n_cycles` must be smaller. Received: n_cycles={n_cycles}: {error}"
        ) from None


def composer_warm_restarts(
    base_lr: float, t_0: int, t_mult: float = 1.0, alpha_f: float = 0.0
) -> Schedule:
    """Composer's CosineAnnealingWarmRestartsScheduler.

        rate(t) = base_lr * ((1 - alpha_f) * C(c / L) + alpha_f)

    The next length is `int(t_mult * L)`, the product that of two floats as in
    Composer. The last step of a cycle stands above the floor; there is no end,
    unless cycles shrink: then the schedule ends, at its floor, where Composer
    raises an error.

    Args:
        base_lr: the optimizer's rate.
        t_0: the length of the first cycle, in batches, to which Composer
            converts epochs.
        t_mult: the factor from one cycle's length to the next: 1, at least
            1.001 or at most 0.999.
        alpha_f: the floor as a share of `base_lr`, in [0, 1].

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> composer_warm_restarts(0.1, t_0=5, t_mult=1.5).cycle_ends(40)
        [4, 11, 21, 36]

    Source: `composer.optim.CosineAnnealingWarmRestartsScheduler`.
    """
    base = check_rate("base_lr", base_lr)
    floor = base * check_share("alpha_f", alpha_f)
    length = check_steps("t_0", t_0, minimum=1)
    annealing = Phase(steps=None, first=Level(base), last=Level(floor))
    return _multiplied(length, _check_multiplied("t_mult", t_mult), annealing)


def torchensemble_snapshot(
    base_lr: float, n_estimators: int, epochs: int, batches_per_epoch: int
) -> Schedule:
    """Ensemble-PyTorch's SnapshotEnsembleClassifier and -Regressor.

        rate(t) = base_lr * C(c / L),  L = epochs * batches_per_epoch / n_estimators

    The last step of a cycle stands one step above 0; there is no end. (The
    option `lr_clip` of its `fit` is not part of the schedule.)

    Args:
        base_lr: the optimizer's rate.
        n_estimators: the number of cycles; it must divide `epochs`.
        epochs: the epochs of the run.
        batches_per_epoch: the optimizer steps in an epoch.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = torchensemble_snapshot(0.1, n_estimators=2, epochs=4, batches_per_epoch=5)
        >>> schedule.cycle_ends(20)
        [9, 19]

    Source: `torchensemble.snapshot_ensemble.SnapshotEnsembleClassifier`.
    """
    epochs, n_estimators = check_cut("epochs", epochs, "n_estimators", n_estimators)
    batches = check_steps("batches_per_epoch", batches_per_epoch, minimum=1)
    if epochs % n_estimators:
        raise ScheduleError(
            "Argument `epochs` must be a multiple of `n_estimators`. "
            f"Received: epochs={epochs}, n_estimators={n_estimators}"
        )
    return endless(epochs // n_estimators * batches, peak=Level(check_rate("base_lr", base_lr)))


def mmengine_cosine_restart(
    base_lr: float,
    periods: Sequence[int],
    restart_weights: Sequence[float] = (1.0,),
    eta_min: float | None = None,
    eta_min_ratio: float | None = None,
) -> Schedule:
    """MMEngine's CosineRestartLR.

        rate(t) = eta_min + (base_lr * restart_weights[i] - eta_min) * C(c / periods[i])

    The last step of a period stands one step above the floor. Past the last
    period the scheduler leaves the rate as it is: that of the last step, and
    not the floor, is held.

    Args:
        base_lr: the optimizer's rate.
        periods: the length of each cycle, in epochs, or in optimizer steps
            with MMEngine's by_epoch=False.
        restart_weights: the peak of each cycle, as a share of `base_lr`; as
            many as periods.
        eta_min: the floor, as a rate.
        eta_min_ratio: the floor, as a share of `base_lr`. Exactly one of the
            two must be given.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = mmengine_cosine_restart(0.1, [10, 20], [1.0, 0.5], eta_min=0.0)
        >>> schedule.rate(10), schedule.rate(29) == schedule.rate(30) > 0
        (0.05, True)

    Source: `mmengine.optim.CosineRestartLR`.
    """
    base = check_rate("base_lr", base_lr)
    if (eta_min is None) == (eta_min_ratio is None):
        raise ScheduleError(
            "Give exactly one of the arguments `eta_min` and `eta_min_ratio`. "
            f"Received: eta_min={eta_min!r}, eta_min_ratio={eta_min_ratio!r}"
        )
    floor = (
        base * check_rate("eta_min_ratio", eta_min_ratio)
        if eta_min is None
        else check_rate("eta_min", eta_min)
    )
    lengths = [check_steps(f"periods[{i}]", n, minimum=1) for i, n in enumerate(periods)]
    weights = [check_rate(f"restart_weights[{i}]", w) for i, w in enumerate(restart_weights)]
    if not lengths or len(weights) != len(lengths):
        raise ScheduleError(
            "Argument `restart_weights` must have as many weights as there are `periods`, at "
            f"least one. Received: {len(weights)} weights, {len(lengths)} periods"
        )
    rules: list[CycleRule] = []
    for i, (length, weight) in enumerate(zip(lengths, weights, strict=True)):
        peak = base * weight
        name = "eta_min_ratio" if eta_min is None else "eta_min"
        check_floor(name, floor, f"base_lr * restart_weights[{i}]", peak)
        annealing = Phase(steps=None, first=Level(peak), last=Level(floor), whole_cycle=True)
        join(rules, CycleRule(count=1, length=length, phases=(annealing,)))
    # Its last step stands apart, as a constant: a schedule holds its last rate.
    held = Segment(start=0, stop=length, origin=0, length=length, first=peak, last=floor)
    rest = Level(held.rate(length - 1))
    phases: tuple[Phase, ...]
    if length == 1:
        phases = (Phase(steps=None, first=rest, last=rest, curve="constant"),)
    else:
        phases = (annealing, Phase(steps=1, first=rest, last=rest, curve="constant"))
    final = rules.pop()
    if final.count != 1:
        rules.append(CycleRule(count=(final.count or 0) - 1, length=length, phases=(annealing,)))
    rules.append(CycleRule(count=1, length=length, phases=phases))
    return Schedule(tuple(rules))


def _multiplied(length: int, mult: float, annealing: Phase, rise: Phase | None = None) -> Schedule:
    """Cycles whose length is multiplied in place, `rise` leading from each to the next."""
    growth = Fraction(mult)
    if length * mult > MAX_STEPS:
        raise ScheduleError(
            "A cycle must be at most 2**63 steps long. "
            f"Received: a second one of {length} * {mult:g} steps"
        )
    first = CycleRule(count=1, length=length, phases=(annealing,))
    second = int(length * mult)
    count = None
    if mult < 1:
        # It ends with the last cycle that has a step.
        count, left = 0, second
        while left:
            count, left = count + 1, int(left * mult)
        if not count:
            return Schedule((first,))
    if rise is None:
        rounding: Rounding = "boundaries" if growth.denominator == 1 else "lengths"
        whole = count if count is None else count + 1
        rule = CycleRule(
            count=whole, length=length, growth=growth, rounding=rounding, phases=(annealing,)
        )
        return Schedule((rule,))
    rest = CycleRule(
        count=count,
        length=second + (rise.steps or 0),
        growth=growth,
        rounding="lengths",
        phases=(rise, annealing),
    )
    return Schedule((first, rest))


def _check_multiplied(name: str, value: float) -> float:
    """The factor by which a peer multiplies a cycle's length in place, a float as there."""
    mult = check_power(name, value)
    if mult != 1 and 0.999 < mult < 1.001:
        raise ScheduleError(
            f"Argument `{name}` must be 1, at most 0.999 or at least 1.001: lengths that are "
            f"rounded in place have to be counted out. Received: {name}={value!r}"
        )
    return mult
