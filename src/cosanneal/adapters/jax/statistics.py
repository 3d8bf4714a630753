"""The running statistics among params, estimated anew from data.

What they are is not known beforehand: any leaf that a batch moves is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError
from ...ensemble.arrays import as_floats, narrow
from ...ensemble.model import Batch
from ...ensemble.predict.batches import arrays_of
from ...ensemble.weights.means import has_mean
from ...ensemble.weights.moments import Moments
from .layouts import Average, Known

Named: TypeAlias = Mapping[str, Any]
Values: TypeAlias = dict[str, NDArray[np.float64]]

# The params by name, as training moves them by a batch; and the predictions with them.
MovedBy: TypeAlias = Callable[[Named, Batch], Named]
Predicted: TypeAlias = Callable[[Named, Batch], Any]


def estimate(
    named: Named, known: Known, batches: Iterable[Batch], moved_by: MovedBy, predicted: Predicted
) -> dict[str, Any]:
    """Params by name with the running statistics of the data, as if all had come in one batch.

    What the statistics are, how fast they move, and how they are stored, is
    found out on the first batch.

    Args:
        named: the params.
        known: what their tree says of the statistics.
        batches: of the training data.
        moved_by: the params by name after a batch, as training moves them.
        predicted: the predictions for a batch. They are asked for only where
            counters move, on which they might depend.

    Raises:
        EnsembleError: nothing moves, or otherwise than a moving average.
    """
    moving: _Moving | None = None
    found: dict[str, Moments] = {}
    means: dict[str, str] = {}
    shares: dict[str, Any] = {}
    for batch in batches:
        if moving is None:
            moving = _Moving(named, known, batch, moved_by)
            means = known.mean_of(moving.momenta)
            shares = {**moving.shares(batch, predicted), **moving.hidden_shares(batch)}
            found = {name: Moments() for name in moving.momenta}
        # Positions count too, as in padded sequences of several lengths.
        size = next((math.prod(each.shape) for each in arrays_of(batch)), 1)
        if not size:
            continue
        values = moving.statistics_of(batch)
        for name, moments in found.items():
            if name in means:
                moments.update(size, values[means[name]], values[name])
            else:
                moments.update(size, values[name], 0.0)
    estimated = dict(named)
    for name, moments in found.items():
        if moments.count:
            value = moments.variance() if name in means else moments.mean
            estimated[name] = narrow(value * shares.get(name, 1), named[name])
            for each in known.averages:
                if each.hidden == name:
                    estimated[each.average] = narrow(value, named[each.average])
    return estimated


class _Moving:
    """What the statistics among some params are, and how a batch moves them.

    `new = momentum * old + (1 - momentum) * batch`

    Args:
        named: the params.
        known: what their tree says.
        batch: of the data.
        moved_by: the params by name after a batch.

    Attributes:
        momenta: how much of itself each statistic keeps of a batch.
        settles: whether what a layer does with a batch depends on its own
            statistics, and so do those of the layers after it (as in Equinox'
            mode "ema").

    Raises:
        EnsembleError: nothing moves, or otherwise.
    """

    def __init__(self, named: Named, known: Known, batch: Batch, moved_by: MovedBy) -> None:
        self._named, self._known, self._moved_by = named, known, moved_by
        self.settles = False
        self.momenta = self._momenta(batch)
        self._refuse_pairs()
        self._check(batch)

    def statistics_of(self, batch: Batch) -> Values:
        """A batch's own statistics: what moved from 0, over how much of the way it moved.

        Where it settles, they are those from which nothing moves: layer after
        layer finds its own, once the layers before it have theirs.
        """
        old = {name: jnp.zeros_like(self._named[name]) for name in self.momenta}
        before: Values = {}
        unlike = ""
        for _ in range(len(self.momenta) + 3):
            moved = self._moved_by({**self._named, **old}, batch)
            found = {
                name: (as_floats(moved[name]) - share * as_floats(old[name])) / (1 - share)
                for name, share in self.momenta.items()
            }
            if not self.settles:
                return found
            unlike = next(self._unlike(before, found), "")
            if not unlike:
                return found
            before = found
            old = {name: narrow(value, self._named[name]) for name, value in found.items()}
        raise self._no_moving_average(unlike)

    def shares(self, batch: Batch, predicted: Predicted) -> dict[str, Any]:
        """What part of a statistic is stored, where the predictions divide by it.

        A moving average that began at 0 has come `1 - momentum ** counter` of
        the way, if a counter counts the batches.

        Raises:
            EnsembleError: the predictions use a counter otherwise.
        """
        moved = self._moved_by(self._named, batch)
        counters = {
            name: leaf
            for name, leaf in self._named.items()
            if jnp.issubdtype(leaf.dtype, jnp.integer)
            and not np.array_equal(np.asarray(leaf), np.asarray(moved[name]))
        }
        if not counters:
            return {}
        statistics = {
            name: narrow(value, self._named[name])
            for name, value in self.statistics_of(batch).items()
        }
        named = {**self._named, **statistics}
        # After so many batches all of the way is done.
        late = {
            name: jnp.full_like(leaf, np.iinfo(leaf.dtype).max // 2)
            for name, leaf in counters.items()
        }

        def output(changed: Named) -> NDArray[np.float64]:
            return as_floats(predicted({**named, **changed}, batch))

        present, wanted = output({}), output(late)
        if np.array_equal(present, wanted, equal_nan=True):
            return {}
        shares: dict[str, Any] = {}
        for name, momentum in self.momenta.items():
            counter = counters[_nearest(self._known.readings, name, counters)]
            if (np.asarray(counter) > 0).all():
                # In the precision in which the predictions do it.
                shares[name] = as_floats(1 - momentum ** jnp.asarray(counter))
        stored = {
            name: narrow(as_floats(statistics[name]) * share, self._named[name])
            for name, share in shares.items()
        }
        slack = 1e-3 + 16 * max(_precision(self._named[name]) for name in self.momenta)
        if not np.abs(output(stored) - wanted).max() <= slack * np.abs(wanted).max():
            alone = {name: output({name: late[name]}) for name in counters}
            used = max(counters, key=lambda name: not np.array_equal(alone[name], present))
            raise EnsembleError(
                "The predictions must use running statistics as they are, or over `1 - momentum "
                f"** counter`. Received: {self._known.shown(used)}, which the predictions depend "
                "on otherwise, and which `statistics_fn` moves"
            )
        return shares

    def hidden_shares(self, batch: Batch) -> dict[str, Any]:
        """What part of an average of Haiku's its hidden value is."""
        if not self._known.averages:
            return {}
        moved = self._moved_by(self._named, batch)
        averages = [each for each in self._known.averages if each.hidden in self.momenta]
        return {each.hidden: self._hidden_share(each, moved) for each in averages}

    def _hidden_share(self, each: Average, moved: Named) -> float:
        momentum = self.momenta[each.hidden]
        counter, later = (int(named[each.counter]) for named in (self._named, moved))
        average, hidden = as_floats(moved[each.average]), as_floats(moved[each.hidden])
        away = {
            share: np.abs(average * share_later - hidden).max(initial=0)
            for share, share_later in (
                (1.0, 1.0),
                (1 - momentum ** max(counter, 0), 1 - momentum ** max(later, 0)),
            )
        }
        share = min(away, key=lambda share: away[share])
        slack = 1e-3 + 4 * _precision(self._named[each.hidden])
        if not away[share] <= slack * np.abs(hidden).max(initial=0):
            raise self._no_moving_average(each.average)
        return share

    def _momenta(self, batch: Batch) -> dict[str, float]:
        """What the statistics are among the params: how much of itself each keeps of a batch.

        The batch's part is lost in rounding beside an `old` that is large.
        """
        named = self._named
        derived = {each.average for each in self._known.averages}
        floats = {
            name: leaf for name, leaf in named.items() if has_mean(leaf) and name not in derived
        }
        nudged = {name: leaf * (1 + 1 / 64) + 1 / 64 for name, leaf in floats.items()}
        moved = self._moved_by({**named, **nudged}, batch)
        names = [
            name
            for name, leaf in nudged.items()
            if not np.array_equal(as_floats(moved[name]), as_floats(leaf), equal_nan=True)
        ]
        if not names:
            raise EnsembleError(
                "Function `statistics_fn` must return the params with the running statistics "
                "moved by the batch, as in training. Received: params as they were"
            )
        large = {name: 2.0 ** (jnp.finfo(named[name].dtype).maxexp // 2) for name in names}
        moved = self._moved_by(
            {**named, **{name: jnp.full_like(named[name], large[name]) for name in names}}, batch
        )
        momenta: dict[str, float] = {}
        for name in names:
            kept = as_floats(moved[name]) / large[name]
            if kept.size:
                share = _decimal(float(kept.flat[0]), named[name].dtype)
                slack = _precision(named[name])
                if not (np.abs(kept - share) <= slack).all() or not -slack <= share < 1:
                    raise self._no_moving_average(name)
                momenta[name] = share
        return momenta

    def _check(self, batch: Batch) -> None:
        """Check that the statistics move as they should; find out whether they settle."""
        values = self.statistics_of(batch)
        moved = self._moved_by(self._named, batch)
        for name, share in self.momenta.items():
            old, new = as_floats(self._named[name]), as_floats(moved[name])
            expected = share * old + (1 - share) * values[name]
            scale = np.abs(old).max() + np.abs(values[name]).max()
            slack = 1e-2 * (1 - share) + 4 * _precision(self._named[name])
            if not (np.abs(new - expected) <= slack * scale).all():
                self.settles = True
        if self.settles:
            self.statistics_of(batch)

    def _unlike(self, before: Values, found: Values) -> Iterator[str]:
        """The names of the statistics that have not settled yet."""
        for name, value in found.items():
            slack = 4 * _precision(self._named[name]) / (1 - self.momenta[name])
            if name not in before or not (
                np.abs(value - before[name]).max() <= slack * np.abs(value).max()
            ):
                yield name

    def _refuse_pairs(self) -> None:
        for first, second, reading in self._known.pairs:
            if first in self.momenta and second in self.momenta:
                raise EnsembleError(
                    "Of two statistics in one state it must be known whether they are a mean and "
                    "one a variance, which gains what the means of batches differ by. Received: "
                    f"{first!r} and {second!r} ({reading}); keep them in a StateIndex each, as "
                    "`mean` and `var`"
                )

    def _no_moving_average(self, name: str) -> EnsembleError:
        return EnsembleError(
            "Function `statistics_fn` must move each statistic as momentum * old + (1 - momentum) "
            "* batch, by one momentum below 1 and by statistics of the batch that depend on no "
            f"old ones and on no random numbers. Received: {self._known.shown(name)} moved "
            "otherwise; turn dropout off"
        )


def _nearest(readings: Mapping[str, str], name: str, counters: Named) -> str:
    """The counter with which a statistic shares the most of its way."""
    way = readings.get(name, name).split(".")

    def shared(counter: str) -> int:
        pairs = zip(way, readings.get(counter, counter).split("."), strict=False)
        return next((i for i, (ours, its) in enumerate(pairs) if ours != its), len(way))

    return max(counters, key=shared)


def _precision(array: Any) -> float:
    return float(jnp.finfo(array.dtype).eps)


def _decimal(value: float, dtype: Any) -> float:
    """The shortest decimal that a dtype rounds to a value.

    A momentum of 0.99 was given as such; of `1 - 0.99` float32 holds 17 bits.
    """
    rounded = np.asarray(value).astype(dtype)
    decimals = (float(f"{value:.{digits}g}") for digits in range(1, 17))
    return next((each for each in decimals if np.asarray(each).astype(dtype) == rounded), value)
