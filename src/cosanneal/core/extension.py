"""A schedule extended: its cycles up to one's end, and others after it.

The cycles that stay have the very same rows in the table, and so the same rates,
bit for bit: a run's state and its folder of snapshots are taken over.

- `at`: the end of the last cycle that stays: the number of updates done there, as
  a snapshot's `step` says; by default the end of the schedule.
- `num_cycles`: how many NEW cycles come after it. By default, with `total_steps`,
  as many as the schedule has left there. Their numbers go on.
- The new cycles are what would follow: cycles of a growing schedule grow on, of a
  list come the next ones, and after a schedule's end its last rule goes on, in
  lengths, peaks and warmups. (But a warmup of a schedule's only cycle was the
  run's, and does not come again.)
- `total_steps`: the new end of the schedule, counted from step 0. All lengths are
  then multiplied by one factor, so that the new cycles fill the rest exactly. New
  cycle `j` of `n` starts at

      floor(b + (total_steps - b) * (l_0 + ... + l_(j-1)) / (l_0 + ... + l_(n-1)))

  where `l_i` is the exact length that it would have, and `b` the exact boundary of
  which `at` is the whole part: `at` itself, unless a budget was cut into cycles of
  fractions of a step. Without growth all `l_i` are one. (A preset whose clocks are
  real-valued rounds up, as its own cycles do; one whose lengths are rounded in
  place is cut as above.) Warmups keep their steps, unless
- `restart_warmup_steps` gives each new cycle's: so many of its steps lead from its
  floor up to its peak, on a straight line.
- `max_lr`: the peak of the first new cycle; the later ones' keep their ratio to it.

Example: a run of 6 cycles of 100 steps goes on after 3 of them with twice the
workers, which halves the updates of an epoch. The 3 cycles that are left take half
as long: `schedule.extended(at=300, total_steps=450)`. Made longer by 2 cycles at its
end, it is `schedule.extended(num_cycles=2)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import TypeVar

from .errors import ScheduleError, check_growth, check_rate, check_steps, plural
from .lookup import Lookup
from .rules import CycleRule, Level, Phase, log2, reduced

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive cycles of one rule: from its cycle `first` on, `count` of them."""

    lookup: Lookup
    first: int
    count: int

    @property
    def index(self) -> int:
        """The number of the first of them in the whole schedule."""
        return self.lookup.index + self.first


def extended(
    found: Sequence[Lookup],
    total: int | None,
    make: Callable[[tuple[CycleRule, ...]], T],
    *,
    num_cycles: int | None,
    total_steps: int | None,
    at: int | None,
    max_lr: float | None,
    restart_warmup_steps: int | None,
) -> T:
    """A schedule up to a cycle's end, and other cycles after it; arguments as described above.

    Raises:
        ScheduleError: an argument that cannot be; the message names it.
    """
    if at is None and total is None:
        raise ScheduleError(
            "Argument `at` must be given, since this schedule has no end: where the last cycle "
            "that stays ends. Received: at=None"
        )
    at = check_steps("at", total if at is None else at)
    kept = _kept(found, total, at)
    if num_cycles is None and total_steps is None:
        raise ScheduleError(
            "Give at least one of the arguments `num_cycles` and `total_steps`: how many new "
            "cycles come, and where the last of them ends. Received: neither"
        )
    if num_cycles is None:
        num_cycles = _left(found, kept, at)
    num_cycles = check_steps("num_cycles", num_cycles, minimum=1)
    if total_steps is not None:
        total_steps = check_steps("total_steps", total_steps, minimum=1)
        if total_steps - at < num_cycles:
            raise ScheduleError(
                "Argument `total_steps` must be the whole length, counted from step 0, and leave "
                f"each new cycle a step. Received: total_steps={total_steps}, for "
                f"{plural(num_cycles, 'new cycle')} after step {at}"
            )
    if max_lr is not None:
        max_lr = check_rate("max_lr", max_lr)
    if restart_warmup_steps is not None:
        restart_warmup_steps = check_steps("restart_warmup_steps", restart_warmup_steps)
    try:
        rules = _rules(found, kept, num_cycles, total_steps, max_lr, restart_warmup_steps)
        return make(rules)
    except ScheduleError as error:
        raise ScheduleError(
            f"{error}. The arguments were num_cycles={num_cycles}, total_steps={total_steps}, "
            f"at={at}, max_lr={max_lr}, restart_warmup_steps={restart_warmup_steps}"
        ) from None


def _kept(found: Sequence[Lookup], total: int | None, at: int) -> int:
    """How many cycles end up to `at`, which must be the end of one."""
    if total is not None and at > total:
        raise ScheduleError(
            "Argument `at` must be the end of one of the schedule's cycles. "
            f"Received: at={at}, and the last one ends at {total}"
        )
    step = max(at - 1, 0)
    lookup = next(each for each in reversed(found) if each.boundary(0) <= step)
    i, start, stop = lookup.cycle(step)
    if stop != at:
        near = f"{start} and {stop}" if start else str(stop)
        raise ScheduleError(
            "Argument `at` must be the end of a cycle: the number of updates done there. "
            f"Received: at={at}, in cycle {lookup.index + i}; near it a cycle ends at {near}"
        )
    return lookup.index + i + 1


def _left(found: Sequence[Lookup], kept: int, at: int) -> int:
    """How many cycles a schedule has left after those."""
    last = found[-1]
    if last.rule.count is None or last.index + last.rule.count == kept:
        left = "cycles without end" if last.rule.count is None else "none"
        raise ScheduleError(
            "Argument `num_cycles` must be given where the schedule has no number of cycles left: "
            f"how many new ones come. Received: num_cycles=None, and {left} after step {at}"
        )
    return last.index + last.rule.count - kept


def _rules(
    found: Sequence[Lookup],
    kept: int,
    num_cycles: int,
    total_steps: int | None,
    max_lr: float | None,
    warmup_steps: int | None,
) -> tuple[CycleRule, ...]:
    """The rules of so many cycles that are kept, and of others, by arguments that are checked."""
    rules: list[CycleRule] = []
    for lookup in found:
        rule, part = lookup.rule, kept - lookup.index
        if part > 0:
            whole = rule.count is not None and rule.count <= part
            rules.append(rule if whole else replace(rule, count=part))
    last = found[len(rules) - 1]
    runs = list(_following(found, kept, num_cycles))
    scale = Fraction(1)
    if total_steps is not None:
        rest = total_steps - last.exact(kept - last.index)
        scale = rest / sum(map(_steps, runs))
    peaks = None if max_lr is None else _Peaks(runs[0], max_lr)
    if peaks is not None and peaks.falls and num_cycles > 1:
        # So that the first has its peak to the last bit.
        lookup, first = runs[0].lookup, runs[0].first
        ones = [_Run(lookup, first, 1), _Run(lookup, first + 1, runs[0].count - 1)]
        runs = [run for run in (*ones, *runs[1:]) if run.count]
    going_on: Lookup | None = last
    for run in runs:
        rule = _rule(run, scale, cut=total_steps is not None)
        if run.lookup.index == 0 and run.lookup.rule.count == 1 and run.first:
            # The warmup of a schedule's only cycle was the run's.
            rule = replace(rule, phases=_annealing_on(rule.phases))
        if warmup_steps is not None:
            rule = replace(rule, phases=_warmed_up(rule.phases, warmup_steps))
        if peaks is not None:
            rule = replace(rule, phases=peaks.of(rule.phases, run.index, first=run.index == kept))
        natural = _rule(run, Fraction(1), cut=False)
        if rule == natural and run.lookup is going_on:
            rules[-1] = replace(rules[-1], count=(rules[-1].count or 0) + run.count)
            continue
        going_on = run.lookup if rule == natural else None
        rules.append(rule)
    return tuple(rules)


def _following(found: Sequence[Lookup], kept: int, count: int) -> Iterator[_Run]:
    """So many cycles after those that are kept; the last rule's go on beyond its end."""
    for lookup in found:
        ends = lookup.rule.count if lookup is not found[-1] else None
        first = max(kept - lookup.index, 0)
        take = count if ends is None else min(count, ends - first)
        if take > 0:
            yield _Run(lookup, first, take)
            count -= take


def _length(run: _Run) -> int | Fraction:
    """The exact length of a run's first cycle."""
    lookup, first = run.lookup, run.first
    if lookup.rule.rounding == "lengths":
        return lookup.boundary(first + 1) - lookup.boundary(first)
    growth = check_growth("Its growth", Fraction(lookup.rule.growth), first + run.count)
    return reduced(lookup.rule.length * growth**first)


def _steps(run: _Run) -> Fraction:
    """The exact length of all its cycles."""
    growth, count, length = run.lookup.rule.growth, run.count, Fraction(_length(run))
    if growth == 1:
        return count * length
    if abs(log2(Fraction(growth))) * count > 128:
        raise ScheduleError(
            "Argument `num_cycles` must leave every cycle at least one step, and end within 2**63 "
            f"steps. Received: num_cycles={count}, of cycles that grow or shrink by {growth}; give "
            "fewer cycles"
        )
    return length * (growth**count - 1) / (growth - 1)


def _rule(run: _Run, scale: Fraction, *, cut: bool) -> CycleRule:
    """The rule of a run's cycles, at so many times their length.

    Args:
        run: the cycles.
        scale: the factor.
        cut: whether they are to end at a step that is given.
    """
    lookup, first = run.lookup, run.first
    rule = replace(lookup.rule, count=run.count, length=reduced(_length(run) * scale))
    if rule.rounding != "lengths":
        return rule
    if first:  # their parts were multiplied and rounded in place
        begin, length = lookup.boundary(first), int(_length(run))
        stops = [int(part.stop) for part in lookup.parts(first, begin, length)]
        parts = [stop - start for start, stop in pairwise((begin, *stops))]
        phases = tuple(
            phase if phase.steps is None else replace(phase, steps=steps)
            for phase, steps in zip(rule.phases, parts, strict=True)
            if phase.steps is None or steps
        )
        rule = replace(rule, phases=phases)
    # Rounded so, they would not end at a step that is given.
    rounds = cut and (scale != 1 or rule.growth != 1)
    return replace(rule, rounding="boundaries") if rounds else rule


def _annealing_on(phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    """A cycle's phases from its annealing on."""
    fixed = [phase.steps is not None for phase in phases]
    return phases[fixed.index(False) :]


def _warmed_up(phases: tuple[Phase, ...], steps: int) -> tuple[Phase, ...]:
    """A cycle's phases, with so many steps up to its annealing, from where that ends."""
    rest = _annealing_on(phases)
    if not steps:
        return rest
    warmup = Phase(steps=steps, first=rest[0].last, last=rest[0].first, curve="linear")
    return (warmup, *rest)


class _Peaks:
    """Other peaks for the cycles of some rules: in their ratio, from the first one's on.

    Args:
        first: the first of these cycles.
        max_lr: its peak.

    Raises:
        ScheduleError: it has no peak above 0 to be in a ratio to, or one below its floor.
    """

    def __init__(self, first: _Run, max_lr: float) -> None:
        annealing, index = first.lookup.annealing, first.index
        self._level, floor = annealing.first, annealing.last
        if self._level.at(index) < floor.at(index):  # one that rises
            self._level, floor = floor, self._level
        height = self._level.at(index) - self._level.base
        if max_lr < floor.at(index) or height <= 0:
            raise ScheduleError(
                "Argument `max_lr` must not lie below the floor, and replace a peak that is above "
                f"it. Received: max_lr={max_lr}, for cycle {index} from {self._level.at(index):g} "
                f"to {floor.at(index):g}"
            )
        self._max_lr = max_lr
        self._ratio = (max_lr - self._level.base) / height

    @property
    def falls(self) -> bool:
        """Whether the peak changes from cycle to cycle of the first rule."""
        return self._level.decay != 1

    def of(self, phases: tuple[Phase, ...], index: int, *, first: bool) -> tuple[Phase, ...]:
        """The phases of a rule with these peaks.

        Args:
            phases: the rule's.
            index: the number of its first cycle.
            first: whether that is the first of all.
        """
        annealing = next(phase for phase in phases if phase.steps is None)
        rises = annealing.first.at(index) < annealing.last.at(index)
        peak = annealing.last if rises else annealing.first
        if (first or not self.falls) and peak == self._level:
            to = Level(self._max_lr)
        else:
            to = replace(peak, value=peak.value * self._ratio)

        def changed(phase: Phase) -> Phase:
            if phase is annealing:
                return replace(phase, last=to) if rises else replace(phase, first=to)
            first, last = (to if level == peak else level for level in (phase.first, phase.last))
            return replace(phase, first=first, last=last)

        return tuple(map(changed, phases))
