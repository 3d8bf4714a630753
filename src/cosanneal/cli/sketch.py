"""A small picture of a schedule for the terminal, in block characters."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from ..core.schedule import Schedule

_SAMPLES_PER_COLUMN = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Glyphs:
    levels: str  # from an empty cell to a full one
    tick: str
    side: str
    corner: str
    base: str
    snapshot: str


_BLOCKS = _Glyphs(levels=" ▁▂▃▄▅▆▇█", tick="┤", side="│", corner="└", base="─", snapshot="▲")
_ASCII = _Glyphs(levels=" .:#", tick="+", side="|", corner="+", base="-", snapshot="^")


def sketch(
    schedule: Schedule, stop: int, *, width: int, height: int = 8, ascii_only: bool = False
) -> list[Text]:
    """The rate over the steps `0 <= step < stop`, as lines of text.

    A column shows the highest rate of the steps that it stands for, so that no
    peak is lost between two columns. The lowest rate still shows as the
    lowest block: every column has one.

    Args:
        schedule: the schedule to draw; it should have few cycles before `stop`,
            since each one's boundaries are looked at.
        stop: the step after the last one drawn; at least 1.
        width: the most characters a line may have.
        height: the number of lines that the curve itself takes.
        ascii_only: whether to do without block characters.

    Returns:
        `height + 3` lines: the curve between its labels, the axis, the mark of
        each snapshot, and the first and the last step.
    """
    glyphs = _ASCII if ascii_only else _BLOCKS
    boundaries = [segment.start for segment in schedule.segments(0, stop)]
    # The labels' width is not known before the rates are, and the rates of the
    # columns not before their number is: the labels come from the boundaries,
    # and from columns that leave no room for labels, since a boundary need not
    # be where the highest rate is.
    known = [*map(schedule.rate, boundaries), schedule.rate(stop - 1)]
    known += _column_tops(schedule, stop, width, boundaries)
    cycles = schedule.cycles_completed(0, stop)
    floors = [cycle.min_lr for cycle in cycles] or [known[-1]]
    high, low = max(known), min(*known, *floors)
    labels = [f"{high:.6g}", *[""] * (height - 1)]
    if low < high:
        labels[-1] = f"{low:.6g}"
    margin = max(map(len, labels))
    columns = max(width - margin - 2, 8)

    tops = _column_tops(schedule, stop, columns, boundaries)
    steps_up = len(glyphs.levels) - 1  # the levels a cell has above the empty one
    spread = (high - low) or 1.0
    full = height * steps_up
    heights = [1 + round((full - 1) * min(max((top - low) / spread, 0), 1)) for top in tops]
    if low == high:
        heights = [full] * columns

    lines: list[Text] = []
    for row, label in enumerate(labels):
        below = (height - 1 - row) * steps_up
        cells = [glyphs.levels[min(max(filled - below, 0), steps_up)] for filled in heights]
        axis = glyphs.tick if label else glyphs.side
        body = "".join(cells).rstrip()
        lines.append(Text.assemble(f"{label:>{margin}} ", (axis, "dim"), (body, "cyan")))
    indent = " " * (margin + 1)
    lines.append(Text.assemble(indent, (glyphs.corner + glyphs.base * columns, "dim")))

    marks = [" "] * columns
    for cycle in cycles:
        marks[((cycle.last_step + 1) * columns - 1) // stop] = glyphs.snapshot
    lines.append(Text.assemble(f"{indent} ", ("".join(marks).rstrip(), "magenta")))
    first, last = "step 0", str(stop - 1)
    # One step: its number once. Otherwise the last step stands at the right end.
    steps = first if stop == 1 else f"{first}{last:>{max(columns - len(first), len(last) + 1)}}"
    lines.append(Text(f"{indent} {steps}"))
    return lines


def _column_tops(schedule: Schedule, stop: int, columns: int, boundaries: list[int]) -> list[float]:
    tops: list[float] = []
    upcoming = iter(boundaries)
    boundary = next(upcoming, stop)
    for column in range(columns):
        # With fewer steps than columns, several columns stand for one step.
        first = column * stop // columns
        after = max((column + 1) * stop // columns, first + 1)
        span = after - first
        steps = {first + span * i // _SAMPLES_PER_COLUMN for i in range(_SAMPLES_PER_COLUMN)}
        while boundary < after:
            # Boundaries hold the peaks, which samples between them may miss.
            if boundary >= first:
                steps.add(boundary)
            boundary = next(upcoming, stop)
        tops.append(max(map(schedule.rate, steps)))
    return tops
