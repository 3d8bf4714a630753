"""The schedules of other libraries and of the papers, as tables.

One function for each peer, with the peer's own parameter names (`base_lr`
stands for the rate that it takes from the optimizer). Each returns a Schedule:
data for the one table that every adapter reads, never a second formula.

In the equations `C(x) = (1 + cos(pi * x)) / 2` falls from 1 to 0, `t` is the
step, counted from 0, and `c` the number of steps since the cycle began. A step
is an optimizer step unless the peer counts epochs. What a peer gets wrong by
rounding (a cycle found by a float logarithm, `1 + cos` where it cancels) is
not reproduced; what it defines is: its lengths, its clocks, its last step and
what it does past its end.

A float that stands for a length or a factor (`T_max=10.5`, `t_mul=1.1`) means
the decimal it is written as: a restart that falls on a whole step on paper
falls there here. Where a peer rounds each cycle's length down to an integer,
its own product of two floats decides, and is computed likewise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from .errors import MAX_STEPS, ScheduleError, check_factor, check_flag, check_rate, check_steps
from .rules import CycleRule, Level, Phase, Rounding
from .schedule import Schedule
from .segment import Segment

__all__ = [
    "composer_warm_restarts",
    "fastai_sgdr",
    "hf_cosine",
    "hf_cosine_with_min_lr",
    "hf_hard_restarts",
    "ignite_cosine",
    "keras_contrib_snapshot",
    "keras_cosine_decay",
    "keras_cosine_decay_restarts",
    "mmengine_cosine_restart",
    "optax_cosine_decay",
    "optax_sgdr",
    "optax_warmup_cosine_decay",
    "sgdr",
    "snapshot_ensembles",
    "snapshot_ensembles_lua",
    "timm_cosine",
    "torch_cosine_annealing",
    "torch_one_cycle",
    "torch_warm_restarts",
    "torchensemble_snapshot",
]

_ZERO = Level(0.0)
_ONE = Fraction(1)


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
    T, M = _check_cut("T", T, "M", M)
    return _endless(-(-T // M), peak=Level(check_rate("alpha_0", alpha_0)))


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
    epochs, M = _check_cut("epochs", epochs, "M", M)
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
    floor = _check_floor("eta_min", eta_min, "eta_max", peak)
    return _endless(
        _check_length("T_0", T_0),
        growth=_check_growth("T_mult", T_mult),
        peak=Level(peak),
        floor=Level(floor),
        rounding="none",
    )


def keras_contrib_snapshot(nb_epochs: int, nb_snapshots: int, init_lr: float = 0.1) -> Schedule:
    """The snapshot callbacks of keras-contrib, and titu1994's, from which they come.

        rate(t) = init_lr * C(c / L),  L = floor(nb_epochs / nb_snapshots)

    A step is an EPOCH: the rate changes once in an epoch. The last epoch of a
    cycle stands one above 0. There is no end: where `nb_snapshots` does not
    divide `nb_epochs`, further cycles begin before the run is over.

    Args:
        nb_epochs: the epochs of the run.
        nb_snapshots: the number of cycles wanted.
        init_lr: the rate at the start of every cycle.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> keras_contrib_snapshot(nb_epochs=10, nb_snapshots=4).cycle_ends(10)
        [1, 3, 5, 7, 9]

    Source: `SnapshotCallbackBuilder` in keras_contrib/callbacks/snapshot.py.
    """
    nb_epochs, nb_snapshots = _check_cut("nb_epochs", nb_epochs, "nb_snapshots", nb_snapshots)
    return _endless(nb_epochs // nb_snapshots, peak=Level(check_rate("init_lr", init_lr)))


def torch_cosine_annealing(
    base_lr: float, T_max: float | Fraction, eta_min: float = 0.0
) -> Schedule:
    """PyTorch's CosineAnnealingLR.

        rate(t) = eta_min + (base_lr - eta_min) * C(t / T_max)

    `eta_min` is reached at step `T_max`; past it the rate rises again, to
    `base_lr` at step `2 * T_max`, and so on without end. A cycle here ends at
    the bottom, and the rise belongs to the next. PyTorch computes the curve by
    a recursion; this is the closed form that the recursion stands for.

    Args:
        base_lr: the optimizer's rate.
        T_max: the length of the fall, in calls of `step`; a float is taken
            as well, as PyTorch takes it.
        eta_min: the lowest rate.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = torch_cosine_annealing(base_lr=0.1, T_max=10)
        >>> schedule.rate(10), schedule.rate(20), schedule.cycle_ends(40)
        (0.0, 0.1, [9, 29])

    Source: `torch.optim.lr_scheduler.CosineAnnealingLR`.
    """
    peak = check_rate("base_lr", base_lr)
    floor = _check_floor("eta_min", eta_min, "base_lr", peak)
    return _waves(_check_length("T_max", T_max), peak=Level(peak), floor=Level(floor))


def torch_warm_restarts(
    base_lr: float, T_0: int, T_mult: int = 1, eta_min: float = 0.0
) -> Schedule:
    """PyTorch's CosineAnnealingWarmRestarts.

        rate(t) = eta_min + (base_lr - eta_min) * C(c / T_i),  T_i = T_0 * T_mult**i

    The last step of a cycle stands one step above `eta_min`; there is no end.

    Args:
        base_lr: the optimizer's rate.
        T_0: the length of the first cycle, in calls of `step`.
        T_mult: the factor from one cycle's length to the next, an integer.
        eta_min: the lowest rate.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> torch_warm_restarts(base_lr=0.1, T_0=10, T_mult=3).rate(10 + 30 + 90)
        0.1

    Source: `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`.
    """
    peak = check_rate("base_lr", base_lr)
    floor = _check_floor("eta_min", eta_min, "base_lr", peak)
    return _endless(
        check_steps("T_0", T_0, minimum=1),
        growth=Fraction(check_steps("T_mult", T_mult, minimum=1)),
        peak=Level(peak),
        floor=Level(floor),
    )


def torch_one_cycle(
    max_lr: float,
    total_steps: int,
    pct_start: float | Fraction = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    """PyTorch's OneCycleLR with its cosine strategy and two phases.

        up:    initial + (max_lr - initial) * (1 - C(t / u)),  0 <= t <= u
        down:  low + (max_lr - low) * C((t - u) / (total_steps - 1 - u)),  t > u

    with `u = pct_start * total_steps - 1`, which need be no integer, `initial =
    max_lr / div_factor` and `low = initial / final_div_factor`. The last step,
    `total_steps - 1`, is exactly `low`, and `low` is held past it. (PyTorch
    allows one step more, at which its rate rises a little, and refuses others.)

    Args:
        max_lr: the rate at the top.
        total_steps: the length of the cycle, in optimizer steps.
        pct_start: the share of the steps that rise, in [0, 1).
        div_factor: from the top to the initial rate.
        final_div_factor: from the initial rate to the last.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = torch_one_cycle(max_lr=1.0, total_steps=10, div_factor=4.0)
        >>> schedule.rate(0), schedule.rate(2), schedule.rate(9)
        (0.25, 1.0, 2.5e-05)

    Source: `torch.optim.lr_scheduler.OneCycleLR`.
    """
    peak = check_rate("max_lr", max_lr)
    steps = check_steps("total_steps", total_steps, minimum=1)
    share = check_factor("pct_start", pct_start) if pct_start else Fraction(0)
    if share >= 1:
        raise ScheduleError(
            "Argument `pct_start` must lie in [0, 1): some of the steps must fall. "
            f"Received: pct_start={pct_start!r}"
        )
    initial = peak / _check_power("div_factor", div_factor)
    floor = initial / _check_power("final_div_factor", final_div_factor)
    _check_floor("final_div_factor", floor, "max_lr", peak)
    top = share * steps - 1
    annealing = Phase(
        steps=None, first=Level(peak), last=Level(floor), endpoint=True, lead=max(-top, Fraction(0))
    )
    rise = Phase(steps=top, first=Level(initial), last=Level(peak))
    phases = (rise, annealing) if top > 0 else (annealing,)
    return Schedule((CycleRule(count=1, length=steps, phases=phases),))


def keras_cosine_decay(
    initial_learning_rate: float,
    decay_steps: float | Fraction,
    alpha: float = 0.0,
    warmup_target: float | None = None,
    warmup_steps: int = 0,
) -> Schedule:
    """Keras' CosineDecay.

        rate(t) = peak * ((1 - alpha) * C((t - w) / decay_steps) + alpha),  t >= w

    with `peak` the `warmup_target` if given, reached on a straight line from
    `initial_learning_rate` in `w = warmup_steps`, which `decay_steps` does NOT
    include; without it `peak` is `initial_learning_rate` and `warmup_steps` has
    no effect. The floor, `alpha * peak`, is reached at `w + decay_steps` and
    held.

    Args:
        initial_learning_rate: the rate of step 0.
        decay_steps: the length of the fall, in optimizer steps.
        alpha: the floor as a share of the peak, in [0, 1].
        warmup_target: the rate at the end of the warmup.
        warmup_steps: the length of the warmup, in optimizer steps.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = keras_cosine_decay(0.0, 100, warmup_target=0.1, warmup_steps=10)
        >>> schedule.rate(5), schedule.rate(10), schedule.total_steps
        (0.05, 0.1, 110)

    Source: `keras.optimizers.schedules.CosineDecay`.
    """
    initial = peak = check_rate("initial_learning_rate", initial_learning_rate)
    alpha = _check_share("alpha", alpha)
    length = _check_length("decay_steps", decay_steps)
    warmup = check_steps("warmup_steps", warmup_steps)
    if warmup_target is None:
        warmup = 0
    else:
        peak = check_rate("warmup_target", warmup_target)
    annealing = Phase(steps=None, first=Level(peak), last=Level(peak * alpha))
    return Schedule((_warmed(1, warmup, Level(initial), length, annealing, rounding="none"),))


def keras_cosine_decay_restarts(
    initial_learning_rate: float,
    first_decay_steps: float | Fraction,
    t_mul: float | Fraction = 2.0,
    m_mul: float = 1.0,
    alpha: float = 0.0,
) -> Schedule:
    """Keras' CosineDecayRestarts.

        rate(t) = initial_learning_rate * ((1 - alpha) * m_mul**i * C(c / L) + alpha)
        L = first_decay_steps * t_mul**i

    In cycle `i` the height above the floor shrinks by `m_mul`; the floor,
    `alpha * initial_learning_rate`, stays. Lengths are real-valued: a cycle
    takes over at the first step at or after its beginning. The last step of a
    cycle stands above the floor; there is no end.

    Args:
        initial_learning_rate: the rate of step 0.
        first_decay_steps: the length of the first cycle, in optimizer steps.
        t_mul: the factor from one cycle's length to the next; at least 1.
        m_mul: the factor from one cycle's height to the next.
        alpha: the floor as a share of `initial_learning_rate`, in [0, 1].

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = keras_cosine_decay_restarts(0.1, 10, t_mul=1.5, m_mul=0.5)
        >>> schedule.rate(10), schedule.rate(25), schedule.cycles()[2].stop
        (0.05, 0.025, 48)

    Source: `keras.optimizers.schedules.CosineDecayRestarts`.
    """
    initial = check_rate("initial_learning_rate", initial_learning_rate)
    alpha = _check_share("alpha", alpha)
    floor = initial * alpha
    decay = check_rate("m_mul", m_mul)
    return _endless(
        _check_length("first_decay_steps", first_decay_steps),
        growth=_check_growth("t_mul", t_mul),
        peak=Level(initial) if decay == 1 else Level(initial - floor, decay=decay, base=floor),
        floor=Level(floor),
        rounding="none",
    )


def optax_cosine_decay(
    init_value: float, decay_steps: int, alpha: float = 0.0, exponent: float = 1.0
) -> Schedule:
    """Optax' cosine_decay_schedule.

        rate(t) = init_value * ((1 - alpha) * C(t / decay_steps)**exponent + alpha)

    The floor, `alpha * init_value`, is reached at step `decay_steps` and held.

    Args:
        init_value: the rate of step 0.
        decay_steps: the length of the fall, in optimizer steps.
        alpha: the floor as a share of `init_value`, in [0, 1].
        exponent: the power to which the cosine is raised; positive.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = optax_cosine_decay(0.1, 100, alpha=0.5)
        >>> schedule.rate(0), schedule.rate(100), schedule.rate(1000)
        (0.1, 0.05, 0.05)

    Source: `optax.cosine_decay_schedule`.
    """
    peak = check_rate("init_value", init_value)
    floor = peak * _check_share("alpha", alpha)
    exponent = _check_power("exponent", exponent)
    length = check_steps("decay_steps", decay_steps, minimum=1)
    annealing = Phase(steps=None, first=Level(peak), last=Level(floor), exponent=exponent)
    return Schedule((CycleRule(count=1, length=length, phases=(annealing,)),))


def optax_warmup_cosine_decay(
    init_value: float,
    peak_value: float,
    warmup_steps: int,
    decay_steps: int,
    end_value: float = 0.0,
    exponent: float = 1.0,
) -> Schedule:
    """Optax' warmup_cosine_decay_schedule.

        rate(t) = end_value + (peak_value - end_value) * C((t - w) / (decay_steps - w))**exponent

    from step `w = warmup_steps` on, and before it a straight line from
    `init_value` to `peak_value`. `decay_steps` is the length of the whole and
    INCLUDES the warmup; `end_value` is a rate, not a share. It is reached at
    step `decay_steps` and held.

    Args:
        init_value: the rate of step 0, unless there is no warmup.
        peak_value: the rate at the end of the warmup.
        warmup_steps: the length of the warmup, in optimizer steps.
        decay_steps: the length of warmup and fall together, in optimizer steps.
        end_value: the rate to which the cosine falls.
        exponent: the power to which the cosine is raised; positive.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = optax_warmup_cosine_decay(0.0, 0.1, warmup_steps=10, decay_steps=100)
        >>> schedule.rate(10), schedule.rate(100), schedule.total_steps
        (0.1, 0.0, 100)

    Source: `optax.warmup_cosine_decay_schedule`.
    """
    initial = check_rate("init_value", init_value)
    peak = check_rate("peak_value", peak_value)
    floor = _check_floor("end_value", end_value, "peak_value", peak)
    exponent = _check_power("exponent", exponent)
    warmup = check_steps("warmup_steps", warmup_steps)
    length = check_steps("decay_steps", decay_steps, minimum=1)
    if length <= warmup:
        raise ScheduleError(
            "Argument `decay_steps` includes the warmup and must exceed `warmup_steps`. "
            f"Received: decay_steps={decay_steps}, warmup_steps={warmup_steps}"
        )
    annealing = Phase(steps=None, first=Level(peak), last=Level(floor), exponent=exponent)
    return Schedule((_warmed(1, warmup, Level(initial), length - warmup, annealing),))


def optax_sgdr(cosine_kwargs: Iterable[Mapping[str, float]]) -> Schedule:
    """Optax' sgdr_schedule: warmup_cosine_decay_schedules one after another.

    Each cycle is `optax_warmup_cosine_decay` of its own arguments, counted from
    the cycle's first step, and lasts `decay_steps`. After the last one its
    `end_value` is held.

    Args:
        cosine_kwargs: for each cycle, a dict of the arguments of
            `optax_warmup_cosine_decay`.

    Raises:
        ScheduleError: no cycle, an argument that is unknown, missing or cannot
            be; the message names the cycle and the argument.

    Example:
        >>> cycle = dict(init_value=0.0, peak_value=0.1, warmup_steps=5, decay_steps=20)
        >>> schedule = optax_sgdr([cycle, {**cycle, "peak_value": 0.05}])
        >>> schedule.rate(5), schedule.rate(25), schedule.total_steps
        (0.1, 0.05, 40)

    Source: `optax.sgdr_schedule`.
    """
    required = ("init_value", "peak_value", "warmup_steps", "decay_steps")
    known = (*required, "end_value", "exponent")
    rules: list[CycleRule] = []
    for i, kwargs in enumerate(cosine_kwargs):
        path = f"in 'cosine_kwargs[{i}]'"
        if not isinstance(kwargs, Mapping):
            raise ScheduleError(f"{path}: must be a dict. Received: {kwargs!r}")
        missing = [name for name in required if name not in kwargs]
        unknown = [name for name in kwargs if name not in known]
        if missing or unknown:
            what = f"lacks {missing[0]!r}" if missing else f"has the unknown {unknown[0]!r}"
            raise ScheduleError(f"{path}: {what}. Received: {sorted(map(str, kwargs))}")
        try:
            _join(rules, *optax_warmup_cosine_decay(**kwargs).rules)  # type: ignore[arg-type]
        except ScheduleError as error:
            raise ScheduleError(f"{path}: {error}") from None
    if not rules:
        raise ScheduleError(
            "Argument `cosine_kwargs` must name at least one cycle. Received: cosine_kwargs=[]"
        )
    return Schedule(tuple(rules))


def timm_cosine(
    base_lr: float,
    t_initial: float | Fraction,
    lr_min: float = 0.0,
    cycle_mul: float | Fraction = 1.0,
    cycle_decay: float = 1.0,
    cycle_limit: int = 1,
    warmup_t: int = 0,
    warmup_lr_init: float = 0.0,
    warmup_prefix: bool = False,
    t_in_epochs: bool = True,
    noise_range_t: object = None,
    noise_pct: float = 0.67,
    noise_std: float = 1.0,
    noise_seed: int = 42,
    k_decay: float = 1.0,
) -> Schedule:
    """The CosineLRScheduler of timm, but for its noise.

        rate(t) = lr_min + (base_lr * cycle_decay**i - lr_min) * C(c**k_decay / L**k_decay)
        L = t_initial * cycle_mul**i

    The first `warmup_t` steps follow a straight line from `warmup_lr_init` to
    `base_lr` instead. With `warmup_prefix` the first cycle's clock starts after
    them; without, it runs during the warmup, from which the rate then falls to
    where the cosine has come meanwhile. The peak decays, the floor does not.
    Lengths are real-valued. After `cycle_limit` cycles the rate holds `lr_min`.

    Args:
        base_lr: the optimizer's rate.
        t_initial: the length of the first cycle, in the unit that the caller
            counts: epochs for timm's `step`, updates for its `step_update`.
        lr_min: the rate to which every cycle falls.
        cycle_mul: the factor from one cycle's length to the next.
        cycle_decay: the factor from one cycle's peak to the next, in (0, 1].
        cycle_limit: the number of cycles.
        warmup_t: the length of the warmup, in the same unit; without
            `warmup_prefix` less than `t_initial`.
        warmup_lr_init: the rate at which the warmup starts.
        warmup_prefix: whether the warmup comes before the first cycle.
        t_in_epochs: no effect on the curve: which of timm's two methods moves it.
        noise_range_t: must be None: noise is not reproduced.
        noise_pct: no effect without noise.
        noise_std: no effect without noise.
        noise_seed: no effect without noise.
        k_decay: the power of the clock.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = timm_cosine(0.1, 100, warmup_t=5, warmup_lr_init=1e-4, cycle_limit=2)
        >>> schedule.rate(0), schedule.rate(100), schedule.rate(200)
        (0.0001, 0.1, 0.0)

    Source: `timm.scheduler.CosineLRScheduler`.
    """
    if noise_range_t is not None:
        raise ScheduleError(
            "Argument `noise_range_t` must be None: a schedule is a function of the step alone, "
            f"without noise. Received: noise_range_t={noise_range_t!r}; leave the noise out"
        )
    check_flag("t_in_epochs", t_in_epochs)
    check_rate("noise_pct", noise_pct)
    check_rate("noise_std", noise_std)
    check_steps("noise_seed", noise_seed)
    base = check_rate("base_lr", base_lr)
    initial = check_rate("warmup_lr_init", warmup_lr_init)
    floor = _check_floor("lr_min", lr_min, "base_lr", base)
    length = _check_length("t_initial", t_initial)
    mult = check_factor("cycle_mul", cycle_mul)
    limit = check_steps("cycle_limit", cycle_limit, minimum=1)
    warmup = check_steps("warmup_t", warmup_t)
    prefix = check_flag("warmup_prefix", warmup_prefix)
    decay = _check_share("cycle_decay", cycle_decay)
    k = _check_power("k_decay", k_decay)
    peak = Level(base, decay=decay)
    if peak.at(limit - 1) < floor or not decay:
        raise ScheduleError(
            "Argument `cycle_decay` must leave every cycle a peak above `lr_min`. "
            f"Received: cycle_decay={cycle_decay}, lr_min={lr_min}, and cycle {limit - 1} would "
            f"peak at {peak.at(limit - 1):g}; give fewer cycles (`cycle_limit`)"
        )
    if not prefix and warmup >= length:
        raise ScheduleError(
            "Argument `warmup_t` must be smaller than `t_initial`, whose clock runs during the "
            f"warmup. Received: warmup_t={warmup_t}, t_initial={t_initial}; "
            "give warmup_prefix=True for a clock that starts after it"
        )
    annealing = Phase(steps=None, first=peak, last=Level(floor), k=k, whole_cycle=not prefix)
    first = _warmed(
        1, warmup, Level(initial), length - (0 if prefix else warmup), annealing, rounding="none"
    )
    rest = CycleRule(
        count=limit - 1, length=length * mult, growth=mult, rounding="none", phases=(annealing,)
    )
    try:
        return Schedule((first, rest) if limit > 1 else (first,))
    except ScheduleError as error:
        raise ScheduleError(
            f"{error}, with t_initial={t_initial}, cycle_mul={cycle_mul}, cycle_limit={cycle_limit}"
        ) from None


def hf_cosine(
    base_lr: float,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float | Fraction = 0.5,
) -> Schedule:
    """Transformers' get_cosine_schedule_with_warmup.

        rate(t) = base_lr * C(2 * num_cycles * (t - w) / (num_training_steps - w))

    from step `w = num_warmup_steps` on, and before it a straight line from 0 to
    `base_lr`. 0 is reached when half a wave is over; after it the rate RISES to
    `base_lr` again, and falls again: the waves go on past `num_training_steps`,
    without end. A cycle here ends at the bottom.

    Args:
        base_lr: the optimizer's rate.
        num_warmup_steps: the length of the warmup, in optimizer steps.
        num_training_steps: the length of the whole, in optimizer steps.
        num_cycles: the number of whole waves after the warmup; 0.5 for one fall.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = hf_cosine(0.1, num_warmup_steps=10, num_training_steps=110)
        >>> schedule.rate(5), schedule.rate(110), schedule.rate(210)
        (0.05, 0.0, 0.1)

    Source: `transformers.get_cosine_schedule_with_warmup`.
    """
    base = check_rate("base_lr", base_lr)
    warmup, length = _check_training(num_warmup_steps, num_training_steps)
    half = _check_waves(num_cycles, length)
    return _waves(half, peak=Level(base), floor=Level(0.0), warmup=warmup)


def hf_cosine_with_min_lr(
    base_lr: float,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float | Fraction = 0.5,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
) -> Schedule:
    """Transformers' get_cosine_with_min_lr_schedule_with_warmup.

        rate(t) = base_lr * ((1 - r) * C(2 * num_cycles * (t - w) / (num_training_steps - w)) + r)

    from step `w = num_warmup_steps` on, with `r = min_lr / base_lr` or
    `min_lr_rate`; before it a straight line from 0 (not from the floor) to
    `base_lr`. The waves go on without end, as in `hf_cosine`.

    Args:
        base_lr: the optimizer's rate.
        num_warmup_steps: the length of the warmup, in optimizer steps.
        num_training_steps: the length of the whole, in optimizer steps.
        num_cycles: the number of whole waves after the warmup; 0.5 for one fall.
        min_lr: the floor, as a rate.
        min_lr_rate: the floor, as a share of `base_lr`, in [0, 1]. Exactly one
            of the two must be given.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = hf_cosine_with_min_lr(0.1, 0, 100, min_lr=0.01)
        >>> schedule.rate(0), schedule.rate(100)
        (0.1, 0.01)

    Source: `transformers.optimization.get_cosine_with_min_lr_schedule_with_warmup`.
    """
    base = check_rate("base_lr", base_lr)
    if (min_lr is None) == (min_lr_rate is None):
        raise ScheduleError(
            "Give exactly one of the arguments `min_lr` and `min_lr_rate`. "
            f"Received: min_lr={min_lr!r}, min_lr_rate={min_lr_rate!r}"
        )
    floor = (
        base * _check_share("min_lr_rate", min_lr_rate)
        if min_lr is None
        else _check_floor("min_lr", min_lr, "base_lr", base)
    )
    warmup, length = _check_training(num_warmup_steps, num_training_steps)
    half = _check_waves(num_cycles, length)
    return _waves(half, peak=Level(base), floor=Level(floor), warmup=warmup)


def hf_hard_restarts(
    base_lr: float, num_warmup_steps: int, num_training_steps: int, num_cycles: int = 1
) -> Schedule:
    """Transformers' get_cosine_with_hard_restarts_schedule_with_warmup.

        rate(t) = base_lr * C(num_cycles * (t - w) / (num_training_steps - w)  mod  1)

    from step `w = num_warmup_steps` on, and before it a straight line from 0 to
    `base_lr`. Lengths are real-valued: a cycle takes over at the first step at
    or after its beginning, and only where that is a whole step does it start at
    `base_lr` itself. From `num_training_steps` on the rate is 0.

    Args:
        base_lr: the optimizer's rate.
        num_warmup_steps: the length of the warmup, in optimizer steps.
        num_training_steps: the length of the whole, in optimizer steps.
        num_cycles: the number of cycles after the warmup, an integer.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> schedule = hf_hard_restarts(0.1, 10, 110, num_cycles=3)
        >>> schedule.cycle_ends()
        [43, 76, 109]

    Source: `transformers.get_cosine_with_hard_restarts_schedule_with_warmup`.
    """
    base = check_rate("base_lr", base_lr)
    warmup, steps = _check_training(num_warmup_steps, num_training_steps)
    cycles = check_steps("num_cycles", num_cycles, minimum=1)
    if cycles > steps:
        raise ScheduleError(
            "Argument `num_cycles` must leave every cycle at least one step. "
            f"Received: num_cycles={num_cycles}, and {steps} steps after the warmup"
        )
    length = Fraction(steps, cycles)
    annealing = Phase(steps=None, first=Level(base), last=Level(0.0))
    first = _warmed(1, warmup, Level(0.0), length, annealing, rounding="none")
    rest = CycleRule(count=cycles - 1, length=length, rounding="none", phases=(annealing,))
    return Schedule((first, rest) if cycles > 1 else (first,))


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
    start_mult = _check_power("start_value_mult", start_value_mult)
    end_mult = _check_power("end_value_mult", end_value_mult)
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
    floor = base * _check_share("alpha_f", alpha_f)
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
    epochs, n_estimators = _check_cut("epochs", epochs, "n_estimators", n_estimators)
    batches = check_steps("batches_per_epoch", batches_per_epoch, minimum=1)
    if epochs % n_estimators:
        raise ScheduleError(
            "Argument `epochs` must be a multiple of `n_estimators`. "
            f"Received: epochs={epochs}, n_estimators={n_estimators}"
        )
    return _endless(epochs // n_estimators * batches, peak=Level(check_rate("base_lr", base_lr)))


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
        _check_floor(name, floor, f"base_lr * restart_weights[{i}]", peak)
        annealing = Phase(steps=None, first=Level(peak), last=Level(floor), whole_cycle=True)
        _join(rules, CycleRule(count=1, length=length, phases=(annealing,)))
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


def _endless(
    length: int | Fraction,
    *,
    peak: Level,
    floor: Level = _ZERO,
    growth: Fraction = _ONE,
    rounding: Rounding = "boundaries",
) -> Schedule:
    """Cycles without end, all of one annealing."""
    annealing = Phase(steps=None, first=peak, last=floor)
    rule = CycleRule(
        count=None, length=length, growth=growth, rounding=rounding, phases=(annealing,)
    )
    return Schedule((rule,))


def _warmed(
    count: int | None,
    warmup: int,
    initial: Level,
    length: int | Fraction,
    annealing: Phase,
    *,
    rounding: Rounding = "boundaries",
) -> CycleRule:
    """Cycles of a straight line from `initial`, if it has steps, and an annealing of `length`."""
    rise = Phase(steps=warmup, first=initial, last=annealing.first, curve="linear")
    phases = (rise, annealing) if warmup else (annealing,)
    return CycleRule(count=count, length=warmup + length, rounding=rounding, phases=phases)


def _waves(half: Fraction, *, peak: Level, floor: Level, warmup: int = 0) -> Schedule:
    """A fall, after a warmup from 0, then rises and falls without end, each `half` long."""
    fall = Phase(steps=None, first=peak, last=floor)
    rise = Phase(steps=half, first=floor, last=peak)
    first = _warmed(1, warmup, Level(0.0), half, fall, rounding="none")
    rest = CycleRule(count=None, length=2 * half, rounding="none", phases=(rise, fall))
    return Schedule((first, rest))


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


def _join(rules: list[CycleRule], *more: CycleRule) -> None:
    """Appends rules; a run of equal cycles of one length becomes one rule."""
    for rule in more:
        count = rule.count or 0
        if rules and rules[-1].length == rule.length and rules[-1].phases == rule.phases:
            count += rules.pop().count or 0
        rules.append(CycleRule(count=count, length=rule.length, phases=rule.phases))


def _check_cut(name: str, total: int, parts_name: str, parts: int) -> tuple[int, int]:
    """A budget and the number of cycles into which it is cut."""
    total = check_steps(name, total, minimum=1)
    parts = check_steps(parts_name, parts, minimum=1)
    if parts > total:
        raise ScheduleError(
            f"Argument `{parts_name}` must not exceed `{name}`: a cycle must have a step. "
            f"Received: {parts_name}={parts}, {name}={total}"
        )
    return total, parts


def _check_length(name: str, value: float | Fraction) -> Fraction:
    """A real-valued length of at least one step."""
    length = check_factor(name, value)
    if length < 1:
        raise ScheduleError(f"Argument `{name}` must be at least 1. Received: {name}={value!r}")
    return length


def _check_growth(name: str, value: float | Fraction) -> Fraction:
    """The factor from one cycle's length to the next, for cycles without end."""
    growth = check_factor(name, value)
    if growth < 1:
        raise ScheduleError(
            f"Argument `{name}` must be at least 1: cycles without end cannot shrink. "
            f"Received: {name}={value!r}"
        )
    return growth


def _check_multiplied(name: str, value: float) -> float:
    """The factor by which a peer multiplies a cycle's length in place, a float as there."""
    mult = _check_power(name, value)
    if mult != 1 and 0.999 < mult < 1.001:
        raise ScheduleError(
            f"Argument `{name}` must be 1, at most 0.999 or at least 1.001: lengths that are "
            f"rounded in place have to be counted out. Received: {name}={value!r}"
        )
    return mult


def _check_floor(name: str, floor: float, peak_name: str, peak: float) -> float:
    floor = check_rate(name, floor)
    if floor > peak:
        raise ScheduleError(
            f"Argument `{name}` must give a floor that is not above the peak, `{peak_name}`. "
            f"Received: a floor of {floor} under a peak of {peak}"
        )
    return floor


def _check_share(name: str, value: float | None) -> float:
    share = check_rate(name, value)
    if share > 1:
        raise ScheduleError(f"Argument `{name}` must lie in [0, 1]. Received: {name}={value!r}")
    return share


def _check_power(name: str, value: float) -> float:
    power = check_rate(name, value)
    if not power:
        raise ScheduleError(f"Argument `{name}` must be positive. Received: {name}={value!r}")
    return power


def _check_training(num_warmup_steps: int, num_training_steps: int) -> tuple[int, int]:
    """The warmup, and the steps after it: at least one, as in Transformers."""
    warmup = check_steps("num_warmup_steps", num_warmup_steps)
    total = check_steps("num_training_steps", num_training_steps, minimum=1)
    return warmup, max(1, total - warmup)


def _check_waves(num_cycles: float | Fraction, steps: int) -> Fraction:
    """The length of half a wave."""
    half = steps / (2 * check_factor("num_cycles", num_cycles))
    if half < 1:
        raise ScheduleError(
            "Argument `num_cycles` must leave every fall at least one step. "
            f"Received: num_cycles={num_cycles!r}, and {steps} steps after the warmup, "
            f"which makes a fall {math.floor(half * 1000) / 1000} steps long"
        )
    return half
