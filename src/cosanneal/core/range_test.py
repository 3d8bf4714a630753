"""The range test: which peak a run can bear, from one short run over all rates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from statistics import median
from typing import Final, SupportsFloat

from .errors import ScheduleError, check_rate, check_steps, shown
from .rules import CycleRule, Level, Phase, reduced
from .schedule import Schedule

# Straight lines to each factor of ten: they are within 1.1 % of the exponential.
_LINES: Final = 8
# The loss is looked at through a Gaussian of this width in the logarithm of the rate.
_WIDTH: Final = 1.0
# The suggestion is the rate at which this share of the loss' fall is done.
_SHARE: Final = 0.9
_FEWEST: Final = 20
# At so many rates at most the smoothed loss is looked at.
_PLACES: Final = 200


def range_test(min_lr: float, max_lr: float, *, total_steps: int) -> Schedule:
    """A rate that rises from very low to too high, for a run that shows which peak is right.

        rate(step) = min_lr * (max_lr / min_lr) ** (step / (total_steps - 1))

    on straight lines, eight to each factor of ten, between points of this curve, which
    are within 1.1 % of it. All adapters take it, as they take any schedule. Train a
    model that you throw away, note the loss of every update, and give both to
    `suggest_max_lr`. 100 to 200 updates are enough.

    Args:
        min_lr: the first rate: so low that the loss does not move.
        max_lr: the last one: so high that the loss rises again.
        total_steps: the number of optimizer steps, at least 20.

    Returns:
        A Schedule of one cycle, whose last step uses `max_lr`.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.

    Example:
        >>> import cosanneal as ca
        >>> test = ca.range_test(1e-4, 10.0, total_steps=101)
        >>> [round(test.rate(step), 6) for step in (0, 20, 40, 60, 80, 100)]
        [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0]

    Source: L. N. Smith, "Cyclical Learning Rates for Training Neural Networks"
    (arXiv:1506.01186), section 3.3, where the rate rises on one straight line.
    """
    lowest, highest = check_rate("min_lr", min_lr), check_rate("max_lr", max_lr)
    steps = check_steps("total_steps", total_steps)
    if steps < _FEWEST:
        raise ScheduleError(
            f"Argument `total_steps` must be at least {_FEWEST}: fewer losses show nothing. "
            f"Received: total_steps={steps}"
        )
    if not 0 < lowest < highest:
        raise ScheduleError(
            "Argument `min_lr` must be positive and below `max_lr`. "
            f"Received: min_lr={lowest!r}, max_lr={highest!r}"
        )
    last = steps - 1
    decades = math.log10(highest) - math.log10(lowest)
    count = min(last, max(1, math.ceil(_LINES * decades)))
    # By exponents: a ratio of floats may be beyond the range of floats.
    levels = [Level(10 ** (math.log10(lowest) + decades * i / count)) for i in range(count + 1)]
    levels[0], levels[-1] = Level(lowest), Level(highest)
    steps_each = reduced(Fraction(last, count))
    rises = [
        Phase(steps=steps_each, first=first, last=then, curve="linear")
        for first, then in pairwise(levels[:-1])
    ]
    end = Phase(steps=None, first=levels[-2], last=levels[-1], curve="linear", endpoint=True)
    return Schedule((CycleRule(count=1, length=steps, phases=(*rises, end)),))


def suggest_max_lr(
    rates: Iterable[SupportsFloat], losses: Iterable[SupportsFloat], *, share: float = _SHARE
) -> float:
    """A peak to begin with, from the losses of a range test.

    The loss is smoothed by a Gaussian of width 1 in `ln(rate)`. The suggestion is the
    lowest rate at which nine tenths (`share`) of its fall are done, from the level at the
    first tenth of the rates down to its lowest point.

    What it is worth: on twelve small tasks (`docs/quality.md`), with 100 to 400 updates,
    it was within a factor of 3 of the peak that validation chose in two cases of three, and
    never off by more than a factor of 12. So it says where to look: try it, a third
    of it and three times it, and keep what is best on validation data. It misleads where
    the budget is long, which wants lower peaks; where most of the loss falls by what the
    last layer's bias learns; with adaptive optimizers, whose loss falls at rates far below
    the best; and with `min_lr` so high that the loss falls from the first update on.

    Args:
        rates: the rate of each update, rising.
        losses: the loss that each update was made for, of the batch before it: numbers,
            or scalars of a framework. What comes after the first one that is not finite
            does not count.
        share: of the fall, in (0, 1).

    Returns:
        One of the rates.

    Raises:
        ScheduleError: rates and losses of unlike length, fewer than 20, rates that do not
            rise; a loss that does not fall.

    Example:
        >>> import cosanneal as ca
        >>> rates = ca.range_test(1e-4, 10.0, total_steps=100).rates(0, 100)
        >>> losses = [1 / (1 + 100 * rate) + rate**2 for rate in rates]
        >>> round(ca.suggest_max_lr(rates, losses), 3)
        0.038

    Source: the range test is Smith's (arXiv:1506.01186, section 3.3), who reads the
    rate off a plot; this rule is our own, chosen on one half of the twelve tasks.
    """
    share = check_rate("share", share)
    if not 0 < share < 1:
        raise ScheduleError(f"Argument `share` must lie in (0, 1). Received: share={share!r}")
    x, y = checked_losses(rates, losses)
    places, smooth = smoothed_losses(x, y)
    start = median(smooth[: max(1, len(smooth) // 10)])
    lowest = min(smooth)
    # By how much the smoothed loss would differ if there were nothing but noise: from the median
    # difference of neighbours, for normal noise, and from how many losses a value is the mean of.
    differences = [abs(after - before) for before, after in pairwise(y)]
    noise = median(differences) / (0.6745 * math.sqrt(2))
    span = math.log(x[-1] / x[0])
    averaged = max(1.0, len(x) * min(1.0, 2 * math.sqrt(math.pi) * _WIDTH / span))
    if start - lowest <= 3 * noise / math.sqrt(averaged):
        raise ScheduleError(
            "Argument `losses` must fall somewhere. Received: "
            f"losses that begin at {start:.4g} and come down to {lowest:.4g} at the least, which "
            "is within their noise; begin at a lower rate, end at a higher one, or take more steps"
        )
    limit = start - share * (start - lowest)
    return next(x[place] for place, value in zip(places, smooth, strict=True) if value <= limit)


def checked_losses(
    rates: Iterable[SupportsFloat], losses: Iterable[SupportsFloat]
) -> tuple[list[float], list[float]]:
    """The rates and the losses up to the first that is not finite, as floats."""
    x, y = [float(rate) for rate in rates], [float(loss) for loss in losses]
    if len(x) < len(y) or (len(x) > len(y) and y and math.isfinite(y[-1])):
        raise ScheduleError(
            "Arguments `rates` and `losses` must have one entry for each update. Received: "
            f"{len(x)} rates and {len(y)} losses"
        )
    finite = next((i for i, loss in enumerate(y) if not math.isfinite(loss)), len(y))
    x, y = x[:finite], y[:finite]
    if len(x) < _FEWEST:
        raise ScheduleError(
            f"Argument `losses` must have at least {_FEWEST} finite entries. Received: {len(x)}"
        )
    for i, rate in enumerate(x):
        if not math.isfinite(rate) or rate <= (x[i - 1] if i else 0):
            raise ScheduleError(
                "Argument `rates` must be positive and rise from update to update. Received: "
                f"rates[{i}]={shown(rate)}" + (f" after {shown(x[i - 1])}" if i else "")
            )
    return x, y


def smoothed_losses(rates: list[float], losses: list[float]) -> tuple[list[int], list[float]]:
    """At some of the updates, the weighted mean of the losses of those at similar rates.

    The weights are `exp(-(ln(rate / other)) ** 2 / 2)`. Losses further above the first ones
    than the lowest lies below them count as if they were no higher: what a run that breaks
    has at last would drown all else.

    Returns:
        The numbers of the updates, 200 at most, and the smoothed loss at each.
    """
    start = median(losses[: max(3, len(losses) // 10)])
    most = start + max(start - min(losses), 0.0)
    logs = [math.log(rate) / _WIDTH for rate in rates]
    count = min(len(rates), _PLACES)
    places = [(len(rates) - 1) * i // (count - 1) for i in range(count)]
    smooth = []
    for place in places:
        weights = [math.exp(-((log - logs[place]) ** 2) / 2) for log in logs]
        heights = (weight * min(loss, most) for weight, loss in zip(weights, losses, strict=True))
        smooth.append(sum(heights) / sum(weights))
    return places, smooth
