"""A schedule: an exact table of segments, and the rate at every step of it.

A step is one optimizer update, counted from 0, and every interval is
half-open. The table is exact: boundaries are integers or Fractions, a step is
found by integer arithmetic and bisection, and floats appear only when a rate
is finally evaluated.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, overload

from .errors import ScheduleError, plural, shown
from .extension import extended
from .lookup import Lookup, lookups
from .rates import fill_range, rate_of
from .records import rules_from_dict, rules_to_dict
from .rules import CycleRule
from .segment import Segment
from .unordered import AS_A_RATE, Unordered


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """One cycle: a warmup, perhaps, and an annealing.

    Args:
        index: the cycle's number, from 0.
        start: its first step.
        stop: the step after its last; the snapshot is taken after update `stop - 1`.
        max_lr: the upper end of its annealing, which starts there unless it rises.
        min_lr: the lower end of its annealing.
    """

    index: int
    start: int
    stop: int
    max_lr: float
    min_lr: float

    @property
    def length(self) -> int:
        """Its number of optimizer steps, warmup included."""
        return self.stop - self.start

    @property
    def last_step(self) -> int:
        """Its last step: the update after which its snapshot is taken."""
        return self.stop - 1


@dataclass(frozen=True, slots=True, repr=False)
class Schedule(Unordered):
    """The learning rate of every step, from an exact table of segments.

    Made by `CyclicCosine` or read back by `Schedule.from_dict`; immutable,
    hashable, compared by content, safe to share between threads.

    Args:
        rules: the runs of cycles, one after another.

    Raises:
        ScheduleError: a rule that cannot be, with the path of the bad field.

    Example:
        >>> import cosanneal as ca
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=100, num_cycles=4)
        >>> schedule.rate(0), schedule(25), schedule.rate(100)
        (0.2, 0.2, 0.0)
        >>> schedule.cycle_ends()
        [24, 49, 74, 99]
    """

    rules: tuple[CycleRule, ...]
    _lookups: tuple[Lookup, ...] = field(init=False, compare=False)
    _rates: tuple[Callable[[int], float], ...] = field(init=False, compare=False)
    _starts: tuple[int, ...] = field(init=False, compare=False)
    _only: Callable[[int], float] | None = field(init=False, compare=False)  # of a single rule
    _total: int | None = field(init=False, compare=False)
    _count: int | None = field(init=False, compare=False)
    _end: float = field(init=False, compare=False)  # total_steps, or infinity
    _floor: float = field(init=False, compare=False)  # the rate after the end

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        set_field(self, "rules", tuple(self.rules))
        found = lookups(self.rules)
        final, count = found[-1], found[-1].rule.count
        index = None if count is None else final.index + count
        total = None if count is None else final.boundary(count)
        floor = 0.0 if index is None else final.rule.phases[-1].last.at(index - 1)
        rates = tuple(map(rate_of, found))
        set_field(self, "_lookups", found)
        set_field(self, "_rates", rates)
        set_field(self, "_starts", tuple(lookup.boundary(0) for lookup in found))
        set_field(self, "_only", rates[0] if len(rates) == 1 else None)
        set_field(self, "_total", total)
        set_field(self, "_count", index)
        set_field(self, "_end", math.inf if total is None else total)
        set_field(self, "_floor", floor)

    def __repr__(self) -> str:
        cycle = self.cycle_at(0)
        size = (
            "endless"
            if self._total is None
            else f"{plural(self._count or 0, 'cycle')}, {plural(self._total, 'step')}"
        )
        return (
            f"<Schedule: {size}, first cycle {plural(cycle.length, 'step')} "
            f"from {cycle.max_lr:g} to {cycle.min_lr:g}>"
        )

    def __reduce__(self) -> tuple[type[Schedule], tuple[tuple[CycleRule, ...]]]:
        # And not by __getstate__, which dataclasses put theirs in the place of before 3.11.4.
        return type(self), (self.rules,)

    @property
    def total_steps(self) -> int | None:
        """The number of optimizer steps until the schedule ends; None when it has no end."""
        return self._total

    @property
    def num_cycles(self) -> int | None:
        """The number of cycles; None when they have no end."""
        return self._count

    def rate(self, step: int) -> float:
        """The rate that update number `step` uses.

        `last + (first - last) * sin(pi * remaining / 2) ** 2` on an annealing,
        with `remaining = (stop - step) / length` formed exactly: within 8 ulp
        of the exact value at every step. After a finite schedule, its floor.

        Args:
            step: the optimizer step, counted from 0.

        Raises:
            ScheduleError: a negative step, or one that is no integer.
        """
        if type(step) is not int or step < 0:
            step = _check_step("step", step)
        if step >= self._end:
            return self._floor
        if self._only is not None:
            return self._only(step)
        return self._rates[bisect_right(self._starts, step) - 1](step)

    def __call__(self, step: int | None = None) -> float:
        """The rate of a `step`, which must be given; see `rate`."""
        if step is None:  # by Keras, say, which was given the schedule itself as its rate
            raise ScheduleError(
                f"Argument `step` must be an integer. Received: no step; {AS_A_RATE}"
            )
        return self.rate(step)

    def rate_at(self, time: float | Fraction) -> float:
        """The rate at an instant, which may lie between two steps: `rate` at whole ones.

        Args:
            time: in optimizer steps, counted from 0.

        Raises:
            ScheduleError: a negative instant, or one that is no finite number.

        Example:
            >>> import cosanneal as ca
            >>> ca.CyclicCosine(0.2, cycle_steps=3).rate_at(1.5)
            0.09999999999999998
        """
        try:
            exact = None if isinstance(time, bool | str) else Fraction(time)
        except (TypeError, ValueError, OverflowError):
            exact = None
        if exact is None or exact < 0:
            raise ScheduleError(
                "Argument `time` must be a finite number of at least 0 (optimizer steps). "
                f"Received: time={shown(time)}"
            )
        step = math.floor(exact)
        if exact == step or step >= self._end:
            return self.rate(step)
        # Clocks that are real-valued hand over between two steps.
        upcoming = [
            segment
            for segment in self.segments(step, step + 2)
            if segment.start == step + 1 and step < segment.origin <= exact
        ]
        segment = upcoming[-1] if upcoming else next(self.segments(step))
        return segment.rate(exact)

    @overload
    def rates(self, start: int = 0, stop: int | None = None) -> list[float]: ...
    @overload
    def rates(self, start: int = 0, stop: int | None = None, *, xp: Any) -> Any: ...
    def rates(self, start: int = 0, stop: int | None = None, *, xp: Any = None) -> Any:
        """The rates of the steps `start <= step < stop`.

        Args:
            start: the first step.
            stop: the step after the last; by default the end of the schedule.
            xp: numpy, for an array in place of a list: millions of rates at the
                speed of memory. It is handed in, since the core imports no
                package. The array's rates are `rate`'s to within an ulp or two,
                as numpy's sine may differ in the last bit.

        Returns:
            A list of floats; or an array of float64, of shape (stop - start,).

        Raises:
            ScheduleError: a negative step, `stop` before `start`, or no `stop`
                for a schedule without end.
        """
        start = _check_step("start", start)
        stop = self._check_stop(stop)
        if stop < start:
            raise ScheduleError(
                f"Argument `stop` must not lie before `start`. Received: start={start}, stop={stop}"
            )
        if xp is None:
            rate = self.rate
            return [rate(step) for step in range(start, stop)]
        out = xp.empty(stop - start, dtype=xp.float64)
        if self._total is not None and stop > self._total:
            out[max(self._total - start, 0) :] = self._floor
        ends = [*self._starts[1:], stop if self._total is None else self._total]
        fill_range(out, self._lookups, ends, start, self._segments, xp)
        return out

    def segments(self, start: int = 0, stop: int | None = None) -> Iterator[Segment]:
        """The rows of the table that rule the steps `start <= step < stop`, in order.

        After a finite schedule comes one last row, which holds its floor.
        Without `stop`, the rows of an endless schedule have no end.
        """
        start = _check_step("start", start)
        return self._segments(start, None if stop is None else _check_step("stop", stop))

    def _segments(self, start: int, end: int | None) -> Iterator[Segment]:
        total = self._total
        while (end is None or start < end) and (total is None or start < total):
            lookup, *cycle = self._find(start)
            for segment in lookup.segments(*cycle):
                if (segment.stop or 0) > start and (end is None or segment.start < end):
                    yield segment
            start = cycle[-1]
        if total is not None and (end is None or start < end):
            floor = self._floor
            yield Segment(
                start=total,
                stop=None,
                origin=total,
                length=1,
                first=floor,
                last=floor,
                curve="constant",
            )

    def cycle_at(self, step: int) -> Cycle:
        """The cycle to which `step` belongs.

        Raises:
            ScheduleError: a negative step, or one after the end of the schedule.
        """
        step = _check_step("step", step)
        if self._total is not None and step >= self._total:
            raise ScheduleError(
                f"Argument `step` must lie in a cycle. Received: step={shown(step)}, and the "
                f"schedule ended after step {self._total - 1}; from there on the rate holds its "
                "floor"
            )
        return _cycle(*self._find(step))

    def cycles(self) -> CycleSequence:
        """All cycles, in order: a sequence that makes each one when asked.

        It can be iterated and indexed; `len` needs a schedule with an end.

        Example:
            >>> import cosanneal as ca
            >>> endless = ca.CyclicCosine(max_lr=0.1, cycle_steps=10, cycle_mult=2)
            >>> endless.cycles()[3]
            Cycle(index=3, start=70, stop=150, max_lr=0.1, min_lr=0.0)
        """
        return CycleSequence(self, self._cycle_number)

    def cycle_ends(self, stop: int | None = None) -> list[int]:
        """The last step of every cycle that ends before step `stop`.

        Args:
            stop: by default the end of the schedule.

        Raises:
            ScheduleError: no `stop` for a schedule without end.
        """
        stop = self._check_stop(stop)
        return [cycle.last_step for cycle in self.cycles_completed(0, stop)]

    def is_cycle_end(self, step: int) -> bool:
        """Whether update `step` is the last of its cycle."""
        step = _check_step("step", step)
        if self._total is not None and step >= self._total:
            return False
        return self._find(step)[3] == step + 1

    def cycles_completed(self, before: int, after: int) -> tuple[Cycle, ...]:
        """The cycles that ended while the number of updates done went from `before` to `after`.

        A cycle is found by crossing its end (`before < cycle.stop <= after`),
        so that several updates at once miss none.

        Args:
            before: optimizer updates done at the last look.
            after: optimizer updates done now.

        Raises:
            ScheduleError: a negative count, or `after` smaller than `before`.
        """
        before = _check_step("before", before)
        after = _check_step("after", after)
        if after < before:
            raise ScheduleError(
                "Argument `after` must not be smaller than `before`. "
                f"Received: before={before}, after={after}"
            )
        found: list[Cycle] = []
        end = after if self._total is None else min(after, self._total)
        while before < end:
            cycle = _cycle(*self._find(before))
            if cycle.stop > end:
                break
            found.append(cycle)
            before = cycle.stop
        return tuple(found)

    def extended(
        self,
        *,
        num_cycles: int | None = None,
        total_steps: int | None = None,
        at: int | None = None,
        max_lr: float | None = None,
        restart_warmup_steps: int | None = None,
    ) -> Schedule:
        """The same schedule up to a cycle's end, and other cycles after it.

        So a run is made longer, or goes on with other updates in an epoch. In full,
        with the equation and the errors: `cosanneal.core.extension`.

        Args:
            num_cycles: how many NEW cycles; by default those left after `at`.
            total_steps: the new end, counted from step 0, which they fill exactly.
            at: the end of the last cycle that stays; by default the schedule's end.
            max_lr: the peak of the first new cycle; by default peaks go on.
            restart_warmup_steps: of each new cycle; by default as they would be.

        Example:
            >>> import cosanneal as ca
            >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=600, num_cycles=6)
            >>> schedule.extended(num_cycles=2).total_steps
            800
            >>> schedule.extended(at=300, total_steps=450).cycle_ends()  # twice the workers
            [99, 199, 299, 349, 399, 449]
        """
        return extended(
            self._lookups,
            self._total,
            type(self),
            num_cycles=num_cycles,
            total_steps=total_steps,
            at=at,
            max_lr=max_lr,
            restart_warmup_steps=restart_warmup_steps,
        )

    def to_dict(self) -> dict[str, Any]:
        """The whole table as plain data for JSON; exact, and read back by `from_dict`."""
        return rules_to_dict(self.rules)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Schedule:
        """The schedule that `to_dict` described, from its `data`.

        Raises:
            ScheduleError: not such a description, one of an unknown version,
                or one with a bad field, whose path is named.
        """
        return cls(rules_from_dict(data))

    def _check_stop(self, stop: int | None) -> int:
        if stop is not None:
            return _check_step("stop", stop)
        if self._total is None:
            raise ScheduleError(
                "Argument `stop` must be given, since this schedule has no end. Received: stop=None"
            )
        return self._total

    def _find(self, step: int) -> tuple[Lookup, int, int, int]:
        """Of a step before the end: its rule, its cycle there, and where that starts and stops."""
        number = bisect_right(self._starts, step) - 1 if len(self._starts) > 1 else 0
        lookup = self._lookups[number]
        return lookup, *lookup.cycle(step)

    def _cycle_number(self, index: int) -> Cycle:
        lookup = self._lookups[bisect_right(self._lookups, index, key=lambda each: each.index) - 1]
        i = index - lookup.index
        return _cycle(lookup, i, lookup.boundary(i), lookup.boundary(i + 1))


class CycleSequence(Sequence[Cycle]):
    """The cycles of a schedule, made when asked.

    Args:
        schedule: the schedule.
        make: makes the cycle of a number that is one.
    """

    __slots__ = ("_make", "_schedule")

    def __init__(self, schedule: Schedule, make: Callable[[int], Cycle]) -> None:
        self._schedule = schedule
        self._make = make

    def __len__(self) -> int:
        count = self._schedule.num_cycles
        if count is None:
            raise TypeError("a schedule without end has no number of cycles")
        return count

    @overload
    def __getitem__(self, index: int) -> Cycle: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Cycle]: ...
    def __getitem__(self, index: int | slice) -> Cycle | Sequence[Cycle]:
        count = self._schedule.num_cycles
        if isinstance(index, slice):
            if count is None:
                first, last = index.start or 0, index.stop or 0
                far_end = index.start if (index.step or 1) < 0 else index.stop
                if far_end is None or min(first, last) < 0:
                    raise IndexError("a slice of endless cycles needs bounds, counted from 0")
                count = max(first, last) + 1
            return tuple(self._make(i) for i in range(*index.indices(count)))
        number = operator.index(index)
        if number < 0 and count is not None:
            number += count
        if number < 0 or (count is not None and number >= count):
            size = "they have no end, and count from 0" if count is None else f"there are {count}"
            raise IndexError(f"no cycle {index}: {size}")
        return self._make(number)

    def __iter__(self) -> Iterator[Cycle]:
        count = self._schedule.num_cycles
        number = 0
        while count is None or number < count:
            yield self._make(number)
            number += 1

    def __repr__(self) -> str:
        return f"<cycles of {self._schedule!r}>"


def _cycle(lookup: Lookup, i: int, start: int, stop: int) -> Cycle:
    index = lookup.index + i
    ends = lookup.annealing.first.at(index), lookup.annealing.last.at(index)
    return Cycle(index=index, start=start, stop=stop, max_lr=max(ends), min_lr=min(ends))


def _check_step(name: str, value: object) -> int:
    """A step as an int; steps have no upper bound, so that no run can fail at one."""
    try:
        step = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        step = None
    if step is None:
        # An array or a tracer: from an optimizer that was given the schedule itself.
        hint = f"; {AS_A_RATE}" if hasattr(value, "dtype") else ""
        raise ScheduleError(
            f"Argument `{name}` must be an integer (optimizer steps, counted from 0). "
            f"Received: {name}={shown(value)}{hint}"
        )
    if step < 0:
        raise ScheduleError(
            f"Argument `{name}` must not be negative: steps count from 0. "
            f"Received: {name}={shown(step)}"
        )
    return step


def check_schedule(value: object) -> Schedule:
    """`value`, which must be a Schedule."""
    if not isinstance(value, Schedule):
        raise ScheduleError(
            "Argument `schedule` must be a cosanneal.Schedule, such as CyclicCosine(...) gives. "
            f"Received: {value!r}"
        )
    return value
