"""The schedules of Keras, and the snapshot callback of keras-contrib."""

from __future__ import annotations

from fractions import Fraction

from ..core.errors import check_rate, check_steps
from ..core.rules import Level, Phase
from ..core.schedule import Schedule
from .build import check_cut, check_growth, check_length, check_share, endless, warmed


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
    alpha = check_share("alpha", alpha)
    length = check_length("decay_steps", decay_steps)
    warmup = check_steps("warmup_steps", warmup_steps)
    if warmup_target is None:
        warmup = 0
    else:
        peak = check_rate("warmup_target", warmup_target)
    annealing = Phase(steps=None, first=Level(peak), last=Level(peak * alpha))
    return Schedule((warmed(1, warmup, Level(initial), length, annealing, rounding="none"),))


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
    alpha = check_share("alpha", alpha)
    floor = initial * alpha
    decay = check_rate("m_mul", m_mul)
    return endless(
        check_length("first_decay_steps", first_decay_steps),
        growth=check_growth("t_mul", t_mul),
        peak=Level(initial) if decay == 1 else Level(initial - floor, decay=decay, base=floor),
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
    nb_epochs, nb_snapshots = check_cut("nb_epochs", nb_epochs, "nb_snapshots", nb_snapshots)
    return endless(nb_epochs // nb_snapshots, peak=Level(check_rate("init_lr", init_lr)))
