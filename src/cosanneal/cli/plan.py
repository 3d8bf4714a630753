"""`cosanneal plan`: what a schedule will do, before any training is paid for."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..core.cyclic import CyclicCosine
from ..core.errors import MAX_STEPS, CosannealError, ScheduleError, plural, shown
from ..core.recommend import Recommendation, recommend
from ..core.schedule import Cycle, Schedule
from .compare import compare_presets, comparison_document, comparison_figure, show_comparison
from .console import output_console, print_note
from .numbers import CHOSEN, in_options, parse_factor, parse_lengths, parse_peak, parse_peaks
from .preset import Preset, choose_preset, choose_quoted_preset, show_presets
from .sketch import sketch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What is shown of cycles without end, unless `--steps` says otherwise.
_ENDLESS_CYCLES = 6
# More rows than this are shortened to the first and the last ones.
_MOST_ROWS, _FIRST_ROWS, _LAST_ROWS = 10, 6, 2
# More cycles than this would be a solid block in the terminal: the first ones are drawn.
_MOST_DRAWN, _FIRST_DRAWN = 20, 10
_WIDEST_SKETCH = 100
_HEADINGS = ("cycle", "first step", "last step", "snapshot", "length", "peak", "floor")
# What a narrow terminal does without, in this order; the last step is the one
# before the snapshot's.
_SPARED = ("last step", "length", "floor", "peak", "first step")
# What --json has of a cycle.
_LISTED = ("index", "start", "stop", "length", "last_step", "max_lr", "min_lr")
# A list beyond this is a mistake: it would fill the memory before it is printed.
_MOST_LISTED = 100_000

# An option of each panel of the help.
_length, _rate, _preset, _output = (
    functools.partial(typer.Option, rich_help_panel=panel)
    for panel in ("Length", "Rate", "Presets", "Output")
)


def _list_presets(wanted: bool) -> None:
    if wanted:
        show_presets(output_console())
        raise typer.Exit


_Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="The arguments of --preset: T_0=10, t_mul=3/2, prefix=true, periods=10,20.",
        show_default=False,
    ),
]
_TotalSteps = Annotated[
    int | None, _length(help="The budget in optimizer steps, warmups included; needs --num-cycles.")
]
_NumCycles = Annotated[
    int | None,
    _length(help="The number of cycles; with --cycle-steps and without this, they have no end."),
]
_CycleSteps = Annotated[
    str | None,
    _length(
        help="The first cycle's length in steps, or every cycle's: 10,20,40.", metavar="N or N,N,.."
    ),
]
_CycleMult = Annotated[
    str,
    _length(
        help="The factor from one cycle's length to the next: 2, 1.5 or 3/2.", metavar="FACTOR"
    ),
]
_MaxLr = Annotated[
    str, _rate(help="The first cycle's peak, or every cycle's: 0.2,0.1,0.1.", metavar="N or N,N,..")
]
_Recommend = Annotated[
    bool,
    _length("--recommend", help="Choose the cycles by what a bench says of the budget, and why."),
]
_BestStep = Annotated[
    int | None,
    _length(
        help="For --recommend: after so many steps one cosine run of this budget had its lowest "
        "validation loss."
    ),
]
_MinLr = Annotated[float, _rate(help="The floor of every cycle.")]
_CycleDecay = Annotated[
    float, _rate(help="The factor from one cycle's peak to the next, in (0, 1].")
]
_WarmupSteps = Annotated[
    int, _rate(help="So many of the first cycle's steps rise from --warmup-lr to its peak.")
]
_WarmupLr = Annotated[float, _rate(help="The rate at which that warmup starts.")]
_RestartWarmupSteps = Annotated[
    int, _rate(help="So many of each later cycle's steps rise from the floor to its peak.")
]
_Endpoint = Annotated[
    bool,
    _rate(
        "--endpoint", help="The last step of a cycle uses the floor exactly, not one step above it."
    ),
]
_Preset = Annotated[
    str | None,
    _preset(
        help="Another library's schedule, in its own arguments, instead of the options above.",
        metavar="NAME",
    ),
]
_Presets = Annotated[
    bool,
    _preset(
        "--presets",
        help="List the presets with their arguments, and exit.",
        is_eager=True,
        callback=_list_presets,
    ),
]
_Compare = Annotated[
    list[str] | None,
    _preset(
        help="A preset and its arguments, quoted; repeated, to see where they differ.",
        metavar="'NAME KEY=VALUE ..'",
    ),
]
_Steps = Annotated[
    int | None,
    _output(
        help=f"Look at the first so many steps; by default at all, or at {_ENDLESS_CYCLES} "
        "cycles of those without end, or twice as far as the end of what one is compared "
        "with."
    ),
]
_AsJson = Annotated[bool, _output("--json", help="Print JSON: the schedule and its cycles.")]
_Plot = Annotated[
    Path | None,
    _output(help="Also draw the rate into this file: .png, .svg or .pdf.", metavar="FILE"),
]


def plan(
    context: typer.Context,
    words: _Words = None,
    total_steps: _TotalSteps = None,
    num_cycles: _NumCycles = None,
    cycle_steps: _CycleSteps = None,
    cycle_mult: _CycleMult = "1",
    recommended: _Recommend = False,
    best_step: _BestStep = None,
    max_lr: _MaxLr = "0.1",
    min_lr: _MinLr = 0.0,
    cycle_decay: _CycleDecay = 1.0,
    warmup_steps: _WarmupSteps = 0,
    warmup_lr: _WarmupLr = 0.0,
    restart_warmup_steps: _RestartWarmupSteps = 0,
    endpoint: _Endpoint = False,
    preset: _Preset = None,
    _presets: _Presets = False,
    compare: _Compare = None,
    steps: _Steps = None,
    as_json: _AsJson = False,
    plot: _Plot = None,
) -> None:
    """Show a cyclic cosine schedule: its cycles, its rates, its snapshots.

    Give --total-steps and --num-cycles, or --cycle-steps; or --total-steps and
    --recommend; or a --preset with its arguments; or several presets to --compare.

    A step is one optimizer update, counted from 0. A snapshot is taken after
    each cycle's last step, and named after the updates done by then.
    """
    if preset is None and words:
        raise CosannealError(
            f"Arguments KEY=VALUE must come with --preset NAME. Received: {shown(words[0])}"
        )
    advice = _advice(context, recommended, max_lr, total_steps, best_step)
    if preset is not None or compare:
        _refuse_own_options(context, "--compare" if preset is None else "--preset")
    presets = [] if preset is None else [choose_preset(preset, words or [])]
    presets += [choose_quoted_preset(text, option="--compare") for text in compare or []]
    if compare:
        comparison = compare_presets(presets, _steps_for_all(presets, steps))
        _put_out(
            as_json=as_json,
            plot=plot,
            document=lambda: comparison_document(comparison),
            figure=lambda: comparison_figure(comparison),
            text=lambda console: show_comparison(comparison, console),
        )
        return
    if advice is not None:
        schedule = advice.schedule
    elif presets:
        schedule = presets[0].schedule
    else:
        try:
            schedule = CyclicCosine(
                parse_peaks(max_lr),
                total_steps=total_steps,
                cycle_steps=None if cycle_steps is None else parse_lengths(cycle_steps),
                num_cycles=num_cycles,
                min_lr=min_lr,
                cycle_mult=parse_factor(cycle_mult),
                cycle_decay=cycle_decay,
                warmup_steps=warmup_steps,
                warmup_lr=warmup_lr,
                restart_warmup_steps=restart_warmup_steps,
                endpoint=endpoint,
            )
        except ScheduleError as error:
            raise ScheduleError(in_options(str(error))) from error
    look = look_at(schedule, steps, preset=presets[0] if presets else None)
    _put_out(
        as_json=as_json,
        plot=plot,
        document=lambda: as_document(look) | _advised(advice),
        figure=lambda: _figure(look),
        text=lambda console: show(look, console, advice),
    )


def _advice(
    context: typer.Context,
    wanted: bool,
    max_lr: str,
    total_steps: int | None,
    best_step: int | None,
) -> Recommendation | None:
    """What is recommended for the budget; None where nothing was asked for."""
    if not wanted:
        if best_step is not None:
            raise CosannealError(
                "Option --best-step must come with --recommend, which goes by it. "
                f"Received: --best-step={best_step}"
            )
        return None
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        given = source is not None and source.name != "DEFAULT"
        if given and name in CHOSEN:
            raise CosannealError(
                f"Option --{name.replace('_', '-')} must not be given with --recommend, which "
                f"chooses the schedule by --total-steps. Received: --{name.replace('_', '-')}="
                f"{shown(value)}"
            )
    if total_steps is None:
        raise CosannealError(
            "Option --total-steps must come with --recommend: the budget in optimizer steps. "
            "Received: no --total-steps"
        )
    try:
        return recommend(parse_peak(max_lr), total_steps=total_steps, best_step=best_step)
    except ScheduleError as error:
        raise ScheduleError(in_options(str(error))) from error


def _advised(advice: Recommendation | None) -> dict[str, Any]:
    """What --json has of it."""
    if advice is None:
        return {}
    return {"recommendation": {"pays": advice.pays, "reason": advice.reason}}


def _refuse_own_options(context: typer.Context, used: str) -> None:
    """Refuse the options that describe a CyclicCosine, where presets take their place."""
    for name in inspect.signature(CyclicCosine).parameters:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise CosannealError(
                f"Option --{name.replace('_', '-')} must not be given with {used}: a preset takes "
                f"arguments of its own, written key=value. Received: "
                f"--{name.replace('_', '-')}={context.params[name]}"
            )


def _put_out(
    *,
    as_json: bool,
    plot: Path | None,
    document: Callable[[], dict[str, Any]],
    figure: Callable[[], Figure],
    text: Callable[[Console], None],
) -> None:
    # Whatever can fail comes before the first line of output.
    listed = json.dumps(document(), indent=2) if as_json else None
    if plot is not None:
        from ..report import save_figure

        save_figure(figure(), plot)
    if listed is not None:
        typer.echo(listed)
    else:
        text(output_console())
    if plot is not None:
        print_note(f"Wrote {plot}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A schedule and how far to look.

    Args:
        schedule: the schedule.
        steps: the steps `0 <= step < steps` are looked at.
        count: the number of cycles that begin before `steps`.
        preset: the preset that the schedule is, if it is one.
    """

    schedule: Schedule
    steps: int
    count: int
    preset: Preset | None = None


def look_at(schedule: Schedule, steps: int | None = None, *, preset: Preset | None = None) -> Look:
    """What to show of a schedule: so many steps, or all, or the first few endless cycles.

    Raises:
        ScheduleError: `steps` is no number of steps.
    """
    total = schedule.total_steps
    if steps is None:
        steps = total or max(
            # Fewer than the first few where they grow fast.
            (c.stop for c in schedule.cycles()[:_ENDLESS_CYCLES] if c.stop <= MAX_STEPS),
            default=MAX_STEPS,
        )
    elif not 1 <= steps <= MAX_STEPS:
        raise ScheduleError(
            f"Option --steps must be an integer from 1 to 2**63. Received: --steps={steps}"
        )
    last = steps - 1 if total is None else min(steps, total) - 1
    count = schedule.cycle_at(last).index + 1
    return Look(schedule=schedule, steps=steps, count=count, preset=preset)


def _steps_for_all(presets: Sequence[Preset], steps: int | None) -> int:
    """How far to look at several schedules.

    To where the last one with an end has it, if any has; and as far again where
    another goes on, which may differ from what it holds after its end.
    """
    looks = [look_at(preset.schedule, steps) for preset in presets]
    ends = [look.steps for look in looks if look.schedule.total_steps is not None]
    if steps is not None or len(ends) in (0, len(looks)):
        return max(ends or [look.steps for look in looks])
    return min(2 * max(ends), MAX_STEPS)


def as_document(look: Look) -> dict[str, Any]:
    """The plan as plain data for JSON.

    `cycles` are those that begin before `steps`, whole; `cycle_ends` are the
    last steps, before `steps`, of those that end there.

    Raises:
        CosannealError: more cycles than can sensibly be listed.
    """
    if look.count > _MOST_LISTED:
        raise CosannealError(
            f"Option --json lists at most {_MOST_LISTED} cycles. Received: a plan of {look.count}; "
            "give a smaller --steps"
        )
    schedule = look.schedule
    return {
        **({} if look.preset is None else {"preset": look.preset.to_dict()}),
        "schedule": schedule.to_dict(),
        "total_steps": schedule.total_steps,
        "num_cycles": schedule.num_cycles,
        "steps": look.steps,
        "cycles": [
            {name: getattr(cycle, name) for name in _LISTED}
            for cycle in schedule.cycles()[: look.count]
        ],
        "cycle_ends": schedule.cycle_ends(look.steps),
    }


def show(look: Look, console: Console, advice: Recommendation | None = None) -> None:
    """Print the plan for people: why, a summary, the table of cycles, a small curve."""
    if advice is not None:
        console.print(advice.reason)
        console.print()
    if look.preset is not None:
        console.print(look.preset.heading())
    console.print(_summary(look))
    ellipsis = "..." if console.options.ascii_only else "…"
    console.print(_cycle_table(look, ellipsis=ellipsis, width=console.width))
    if look.count > _MOST_ROWS and look.count <= _MOST_LISTED:
        console.print(Text("--json lists all cycles.", style="dim"))
    console.print()
    _show_sketch(look, console)


def _summary(look: Look) -> Text:
    schedule = look.schedule
    first = schedule.cycles()[0]
    total, count = schedule.total_steps, schedule.num_cycles
    if total is None or count is None:
        size = "Cycles without end"
    else:
        size = f"{plural(count, 'cycle')} in {plural(total, 'step')}"
    text = Text.assemble((size, "bold"), f", peak {first.max_lr:.6g}, floor {first.min_lr:.6g}")
    if total is None or look.steps != total:
        text.append(f"; shown up to step {look.steps - 1} (--steps)")
    return text


def _cycle_table(look: Look, *, ellipsis: str, width: int) -> Table:
    cycles, count = look.schedule.cycles(), look.count
    if count <= _MOST_ROWS:
        head, tail = range(count), range(0)
    else:
        head, tail = range(_FIRST_ROWS), range(count - _LAST_ROWS, count)
    rows = [_cells(cycles[index]) for index in (*head, *tail)]
    if tail:
        left_out = {"first step": f"{count - len(rows)} more"}
        rows.insert(len(head), dict.fromkeys(_HEADINGS, ellipsis) | left_out)
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in _HEADINGS}
    # Between two columns, the box has a character, and padding two more.
    airy = sum(widths.values()) + 3 * (len(widths) - 1) <= width
    spared = iter(_SPARED)
    while not airy and sum(widths.values()) + len(widths) - 1 > width:
        least = next(spared, None)
        if least is None:
            break
        del widths[least]
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1) if airy else 0, show_edge=False
    )
    for heading in widths:
        table.add_column(heading, justify="right", overflow="fold")
    for place, row in enumerate(rows):
        style = "dim" if tail and place == len(head) else None
        table.add_row(*(row[heading] for heading in widths), style=style)
    return table


def _cells(cycle: Cycle) -> dict[str, str]:
    return {
        "cycle": _whole(cycle.index),
        "first step": _whole(cycle.start),
        "last step": _whole(cycle.last_step),
        # Named as its file is, after the updates that its weights have seen.
        "snapshot": _whole(cycle.stop),
        "length": _whole(cycle.length),
        "peak": f"{cycle.max_lr:.6g}",
        "floor": f"{cycle.min_lr:.6g}",
    }


def _whole(number: int) -> str:
    # A fast-growing endless cycle may stop far beyond any step that is ever reached.
    return str(number) if number <= MAX_STEPS else f"{Decimal(number):.3e}"


def _show_sketch(look: Look, console: Console) -> None:
    steps, title = look.steps, "rate"
    if look.count > _MOST_DRAWN:
        steps = look.schedule.cycles()[_FIRST_DRAWN - 1].stop
        title = f"rate in the first {_FIRST_DRAWN} cycles"
    ascii_only = console.options.ascii_only
    mark = "^" if ascii_only else "▲"
    console.print(Text.assemble((title, "bold"), ", ", (mark, "magenta"), " snapshot"))
    width = min(console.width, _WIDEST_SKETCH)
    for line in sketch(look.schedule, steps, width=width, ascii_only=ascii_only):
        console.print(line, no_wrap=True, crop=False)


def _figure(look: Look) -> Figure:
    from ..report import plot_schedule

    figure = plot_schedule(look.schedule, stop=look.steps)
    if look.preset is not None:
        figure.axes[0].set_xlabel(f"step ({look.preset.unit})")
    return figure
