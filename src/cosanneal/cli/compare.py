"""Where schedules differ: `cosanneal plan --compare "NAME key=value ..." --compare ...`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..core.errors import CosannealError
from ..core.schedule import Schedule
from .preset import Preset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Each rate may stand 8 ulp off its exact value: two that mean the same, twice as much.
ULPS = 16
# Up to so many steps, each is looked at.
MOST_EXACT = 100_000
# Beyond, so many evenly spaced ones, and the first so many boundaries of each schedule.
_MOST_EVEN, _MOST_BOUNDARIES = 10_000, 10_000
_MOST_ROWS, _MOST_ENDS = 5, 5
_WIDEST_LABEL = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How a schedule differs from the first one, at the steps looked at.

    Args:
        steps: the steps at which the rates differ.
        largest: the step at which they differ most; None where they never do.
        rows: some steps at which they differ more than at the step before and
            after, with both rates.
        first_ends: the last steps of the first schedule's cycles that are none of the other's.
        other_ends: the last steps of the other's that are none of the first's.
    """

    steps: Sequence[int]
    largest: tuple[int, float, float] | None
    rows: Sequence[tuple[int, float, float]]
    first_ends: Sequence[int]
    other_ends: Sequence[int]

    def is_none(self) -> bool:
        """Whether neither rates nor cycles differ."""
        return self.largest is None and not (self.first_ends or self.other_ends)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Presets compared with the first of them.

    Args:
        presets: the presets, two or more.
        stop: the steps `0 <= step < stop` are compared.
        steps: those of them that were looked at, in order.
        differences: one for each preset after the first.
    """

    presets: Sequence[Preset]
    stop: int
    steps: Sequence[int]
    differences: Sequence[Difference]

    def labels(self) -> list[str]:
        """A line for each preset, no two alike: its number and what was written."""
        lines = (f"{i}  {preset.words}" for i, preset in enumerate(self.presets, 1))
        return [
            line if len(line) <= _WIDEST_LABEL else f"{line[: _WIDEST_LABEL - 3]}..."
            for line in lines
        ]


def compare_presets(presets: Sequence[Preset], stop: int) -> Comparison:
    """Compare the presets' schedules with the first one's, over the steps `0 <= step < stop`.

    Raises:
        CosannealError: fewer than two presets.
    """
    if len(presets) < 2:
        raise CosannealError(
            "Option --compare must be given at least twice, or together with --preset. "
            f"Received: {presets[0].words} alone"
        )
    first, *others = [preset.schedule for preset in presets]
    steps = _steps([first, *others], stop)
    rates = [first.rate(step) for step in steps]
    ends = [step for step in steps if first.is_cycle_end(step)]
    differences = [_difference(steps, rates, ends, other) for other in others]
    return Comparison(presets=presets, stop=stop, steps=steps, differences=differences)


def _steps(schedules: Iterable[Schedule], stop: int) -> Sequence[int]:
    """The steps to look at: all, or evenly spaced ones and those next to a boundary."""
    if stop <= MOST_EXACT:
        return range(stop)
    steps = {(stop - 1) * i // (_MOST_EVEN - 1) for i in range(_MOST_EVEN)}
    for schedule in schedules:
        for segment in islice(schedule.segments(0, stop), _MOST_BOUNDARIES):
            steps.update((segment.start - 1, segment.start, segment.start + 1))
    return sorted(step for step in steps if 0 <= step < stop)


def _difference(
    steps: Sequence[int], rates: Sequence[float], ends: Sequence[int], other: Schedule
) -> Difference:
    pairs = [(step, rate, other.rate(step)) for step, rate in zip(steps, rates, strict=True)]
    gaps = [
        0.0 if abs(its - mine) <= ULPS * math.ulp(max(mine, its)) else abs(its - mine)
        for _, mine, its in pairs
    ]
    largest = max(range(len(gaps)), key=gaps.__getitem__)
    tops = [
        i
        for i, (before, gap, after) in enumerate(
            zip([0.0, *gaps[:-1]], gaps, [*gaps[1:], 0.0], strict=True)
        )
        if before < gap >= after
    ]
    tops = sorted(sorted(tops, key=lambda i: -gaps[i])[:_MOST_ROWS])
    other_ends = [step for step in steps if other.is_cycle_end(step)]
    return Difference(
        steps=[step for step, gap in zip(steps, gaps, strict=True) if gap],
        largest=pairs[largest] if gaps[largest] else None,
        rows=[pairs[i] for i in tops],
        first_ends=sorted({*ends}.difference(other_ends)),
        other_ends=sorted({*other_ends}.difference(ends)),
    )


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain data for JSON; `against` counts the presets from 1, as the text."""
    return {
        "steps": comparison.stop,
        "steps_looked_at": len(comparison.steps),
        "tolerance_ulp": ULPS,
        "presets": [
            {**preset.to_dict(), "schedule": preset.schedule.to_dict()}
            for preset in comparison.presets
        ],
        "differences": [
            {
                "preset": number,
                "against": 1,
                "first_step": difference.steps[0] if difference.steps else None,
                "differing_steps": len(difference.steps),
                "largest": _row(difference.largest),
                "rates": [_row(row) for row in difference.rows],
                "cycle_ends_of_first_only": difference.first_ends,
                "cycle_ends_of_other_only": difference.other_ends,
            }
            for number, difference in enumerate(comparison.differences, 2)
        ],
    }


def _row(row: tuple[int, float, float] | None) -> Mapping[str, float] | None:
    if row is None:
        return None
    step, mine, its = row
    return {"step": step, "first": mine, "other": its, "difference": its - mine}


def comparison_figure(comparison: Comparison) -> Figure:
    """The rates of all presets in one figure."""
    from ..report import plot_schedules

    schedules = [preset.schedule for preset in comparison.presets]
    named = dict(zip(comparison.labels(), schedules, strict=True))
    figure = plot_schedules(named, stop=comparison.stop)
    units = {preset.unit for preset in comparison.presets}
    figure.axes[0].set_xlabel(
        f"step ({units.pop() if len(units) == 1 else 'as each schedule counts'})"
    )
    return figure


def show_comparison(comparison: Comparison, console: Console) -> None:
    """Print the comparison for people: what is compared, and each difference from the first."""
    for number, preset in enumerate(comparison.presets, 1):
        _show_block(console, Text(str(number), "bold"), preset.words, preset.note)
    console.print(_how_compared(comparison))
    for number, difference in enumerate(comparison.differences, 2):
        console.print()
        first, other = comparison.presets[0].schedule, comparison.presets[number - 1].schedule
        if difference.is_none():
            said = _none_so_far({1: first, number: other})
            console.print(Text.assemble((f"{number} against 1", "bold"), f": {said}"))
        else:
            _show_difference(difference, number, len(comparison.steps), console)


def _show_block(console: Console, mark: Text, *lines: str | None) -> None:
    block = Table.grid(padding=(0, 1))
    block.add_column()
    block.add_column(overflow="fold")
    for line in lines:
        if line is not None:
            block.add_row(mark, Text(line))
            mark = Text()
    console.print(block)


def _how_compared(comparison: Comparison) -> str:
    looked, last = len(comparison.steps), comparison.stop - 1
    if looked == comparison.stop:
        which = f"Compared at every step from 0 to {last}"
    else:
        which = (
            f"Sampled: compared at {looked} of the steps from 0 to {last}, evenly spaced and next "
            f"to boundaries (the first {_MOST_BOUNDARIES} of each schedule); differences between "
            "them are not seen"
        )
    return f"{which}. Rates within {ULPS} ulp of each other count as equal."


def _show_difference(difference: Difference, number: int, looked: int, console: Console) -> None:
    console.print(Text(f"{number} against 1", "bold"))
    facts = Table.grid(padding=(0, 2))
    facts.add_column()
    facts.add_column(overflow="fold")
    if difference.largest is None:
        facts.add_row("rates", "equal")
    else:
        step, mine, its = difference.largest
        facts.add_row("first difference", f"at step {difference.steps[0]}")
        facts.add_row("steps that differ", f"{len(difference.steps)} of {looked}")
        facts.add_row("largest difference", f"{abs(its - mine):.6g} at step {step}")
    ends = {1: difference.first_ends, number: difference.other_ends}
    only = [f"only of {i}: {_some(steps)}" for i, steps in ends.items() if steps]
    facts.add_row("cycles' last steps", "; ".join(only) or "the same")
    console.print(facts)
    if difference.rows:
        console.print()
        console.print(_rate_table(difference.rows, number))


def _none_so_far(schedules: Mapping[int, Schedule]) -> str:
    """That there is no difference, which may yet come where one of two has ended."""
    ended = [i for i, schedule in schedules.items() if schedule.total_steps is not None]
    if len(ended) != 1:
        return "no difference."
    (goes_on,) = {*schedules}.difference(ended)
    last = (schedules[ended[0]].total_steps or 0) - 1
    return (
        f"no difference in these steps. {ended[0]} ends after step {last} and {goes_on} goes on: "
        "--steps looks further."
    )


def _some(steps: Sequence[int]) -> str:
    text = ", ".join(map(str, steps[:_MOST_ENDS]))
    return text if len(steps) <= _MOST_ENDS else f"{text} and {len(steps) - _MOST_ENDS} more"


def _rate_table(rows: Sequence[tuple[int, float, float]], number: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("step", "rate of 1", f"rate of {number}", "difference"):
        table.add_column(heading, justify="right", overflow="fold")
    for step, mine, its in rows:
        table.add_row(str(step), f"{mine:.6g}", f"{its:.6g}", f"{its - mine:+.3g}")
    return table
