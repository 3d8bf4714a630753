"""The schedules of Optax."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..core.errors import ScheduleError, check_rate, check_steps
from ..core.rules import CycleRule, Level, Phase, join
from ..core.schedule import Schedule
from .build import check_floor, check_power, check_share, warmed


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
    floor = peak * check_share("alpha", alpha)
    exponent = check_power("exponent", exponent)
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
    floor = check_floor("end_value", end_value, "peak_value", peak)
    exponent = check_power("exponent", exponent)
    warmup = check_steps("warmup_steps", warmup_steps)
    length = check_steps("decay_steps", decay_steps, minimum=1)
    if length <= warmup:
        raise ScheduleError(
            "Argument `decay_steps` includes the warmup and must exceed `warmup_steps`. "
            f"Received: decay_steps={decay_steps}, warmup_steps={warmup_steps}"
        )
    annealing = Phase(steps=None, first=Level(peak), last=Level(floor), exponent=exponent)
    return Schedule((warmed(1, warmup, Level(initial), length - warmup, annealing),))


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
            join(rules, *optax_warmup_cosine_decay(**kwargs).rules)  # type: ignore[arg-type]
        except ScheduleError as error:
            raise ScheduleError(f"{path}: {error}") from None
    if not rules:
        raise ScheduleError(
            "Argument `cosine_kwargs` must name at least one cycle. Received: cosine_kwargs=[]"
        )
    return Schedule(tuple(rules))
