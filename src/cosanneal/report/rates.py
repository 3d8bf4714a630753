"""Figures of schedules: the rate against the step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..core.errors import ScheduleError, check_steps
from ..core.schedule import Cycle, Schedule
from .style import (
    BLUE,
    COLOURS,
    DASHES,
    GREY,
    MOST_POINTS,
    MOST_RESTARTS,
    SNAPSHOT,
    tidy,
    whole_steps,
)

_MOST_LINED = 500  # more cycles than this are drawn as a band
_MOST_DOTTED = 60  # up to so many steps, each has a dot


def plot_schedule(schedule: Schedule, *, stop: int | None = None) -> Figure:
    """The rate against the step, with every restart and every snapshot marked.

    A long schedule is sampled: at every boundary of its table, and evenly
    between them. With more cycles than a picture can tell apart, it shows the
    band between their floors and peaks.

    Args:
        schedule: the schedule.
        stop: the steps `0 <= step < stop` are drawn; by default all of them.

    Returns:
        A figure with one pair of axes, for `save_figure` or to be worked on.

    Raises:
        ScheduleError: no `stop` for a schedule without end, or a bad one.

    Example:
        >>> import cosanneal as ca
        >>> from cosanneal.report import plot_schedule
        >>> figure = plot_schedule(ca.CyclicCosine(0.1, total_steps=100, num_cycles=4))
        >>> figure.axes[0].get_ylabel()
        'learning rate'
    """
    if stop is None:
        stop = schedule.total_steps
        if stop is None:
            raise ScheduleError(
                "Argument `stop` must be given, since this schedule has no end. Received: stop=None"
            )
    stop = check_steps("stop", stop, minimum=1)
    count = _count_cycles(schedule, stop)
    figure, axes = _new_figure(height=3.6)
    label = "rate"
    if count > _MOST_LINED:
        label = f"{count} cycles between floor and peak, each with a snapshot at its end"
    levels = draw_rate(axes, schedule, stop, label=label, color=BLUE, linewidth=1.8)
    if count <= _MOST_LINED:
        _mark_cycles(axes, schedule, stop, count)
    _finish(axes, stop, *levels)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def plot_schedules(schedules: Mapping[str, Schedule], *, stop: int) -> Figure:
    """The rates of several schedules against the step, one over the other.

    Each is drawn as `plot_schedule` draws it, without the marks of its cycles,
    in colours and dashes of its own. Earlier ones are broader, so that they
    show under later ones that lie on them.

    Args:
        schedules: the schedules by their names in the legend.
        stop: the steps `0 <= step < stop` are drawn.

    Returns:
        A figure with one pair of axes and the legend above them.

    Raises:
        ScheduleError: no schedule, or a bad `stop`.

    Example:
        >>> import cosanneal as ca
        >>> from cosanneal.report import plot_schedules
        >>> equal = ca.CyclicCosine(0.1, total_steps=100, num_cycles=4)
        >>> growing = ca.CyclicCosine(0.1, total_steps=100, num_cycles=4, cycle_mult=2)
        >>> figure = plot_schedules({"equal": equal, "growing": growing}, stop=100)
        >>> [line.get_label() for line in figure.axes[0].lines]
        ['equal', 'growing']
    """
    if not schedules:
        raise ScheduleError(
            "Argument `schedules` must hold at least one schedule. Received: schedules={}"
        )
    stop = check_steps("stop", stop, minimum=1)
    figure, axes = _new_figure(height=3.4 + 0.2 * len(schedules))
    peaks, floors = [], []
    for i, (name, schedule) in enumerate(schedules.items()):
        style = {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": DASHES[i % len(DASHES)],
            "linewidth": max(3.2 - 0.8 * i, 1.4),
        }
        peak, floor = draw_rate(axes, schedule, stop, label=name, **style)
        peaks.append(peak)
        floors.append(floor)
    _finish(axes, stop, max(peaks), min(floors))
    handles = {h.get_label(): h for h in axes.get_legend_handles_labels()[0]}
    # One below the other, since names may be long.
    figure.legend(
        handles=[handles[name] for name in schedules if name in handles],
        loc="outside upper left",
        frameon=False,
        handlelength=4,
    )
    return figure


def _count_cycles(schedule: Schedule, stop: int) -> int:
    """The number of cycles that begin before `stop`."""
    total = schedule.total_steps
    return schedule.cycle_at((stop if total is None else min(stop, total)) - 1).index + 1


def _new_figure(*, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, height), layout="constrained")
    return figure, figure.add_subplot()


def _finish(axes: Axes, stop: int, peak: float, floor: float) -> None:
    _label_levels(axes, peak, floor)
    axes.set_xlabel("step (optimizer updates)")
    axes.set_ylabel("learning rate")
    axes.xaxis.set_major_locator(whole_steps())
    if stop <= 2:  # one or two steps, seen with the empty places beside them
        axes.set_xlim(-1, stop)
    tidy(axes)


def draw_rate(
    axes: Axes, schedule: Schedule, stop: int, *, label: str, **style: Any
) -> tuple[float, float]:
    """Draw a line, or a band for very many cycles; returns the highest peak and lowest floor."""
    count = _count_cycles(schedule, stop)
    if count > _MOST_LINED:
        return _draw_band(axes, schedule, stop, count, label=label, color=style["color"])
    if count > MOST_RESTARTS:
        style["linewidth"] = 0.8
    steps = _sampled(schedule, stop)
    axes.plot(
        [float(step) for step in steps],
        [schedule.rate(step) for step in steps],
        marker="." if stop <= _MOST_DOTTED else "",
        label=label,
        **style,
    )
    return _extremes(schedule.cycles()[:count])


def _mark_cycles(axes: Axes, schedule: Schedule, stop: int, count: int) -> None:
    """Mark the restarts and the snapshots."""
    cycles = schedule.cycles()[:count]
    restarts = [float(cycle.start) for cycle in cycles[1:]]
    if 0 < len(restarts) <= MOST_RESTARTS:
        axes.vlines(
            restarts,
            0,
            1,
            transform=axes.get_xaxis_transform(),
            colors=GREY,
            linestyles=":",
            linewidth=1,
            label="restart",
        )
    ends = [cycle.last_step for cycle in cycles if cycle.stop <= stop]
    if ends:
        style = SNAPSHOT | {"markersize": 7 if count <= MOST_RESTARTS else 3}
        axes.plot(
            [float(step) for step in ends],
            [schedule.rate(step) for step in ends],
            label="snapshot, after the step",
            **style,
        )


def _draw_band(
    axes: Axes, schedule: Schedule, stop: int, count: int, *, label: str, color: str
) -> tuple[float, float]:
    """Draw floors and peaks only; returns the highest peak and the lowest floor."""
    numbers = sorted({(count - 1) * i // (_MOST_LINED - 1) for i in range(_MOST_LINED)})
    cycles = [schedule.cycles()[number] for number in numbers]
    edges = [(cycle.start, cycle.min_lr, cycle.max_lr) for cycle in cycles]
    edges.append((min(cycles[-1].stop, stop), cycles[-1].min_lr, cycles[-1].max_lr))
    starts, floors, peaks = zip(*edges, strict=True)
    axes.fill_between(
        [float(start) for start in starts],
        floors,
        peaks,
        color=color,
        alpha=0.35,
        linewidth=0,
        label=label,
    )
    total = schedule.total_steps
    if total is not None and stop > total:
        after = schedule.rate(total)
        axes.plot([float(total), float(stop - 1)], [after, after], color=color, label="rate after")
    return _extremes(cycles)


def _extremes(cycles: Sequence[Cycle]) -> tuple[float, float]:
    return max(cycle.max_lr for cycle in cycles), min(cycle.min_lr for cycle in cycles)


def _sampled(schedule: Schedule, stop: int) -> list[int]:
    """Some of the steps before `stop`: all boundaries, and so many evenly between them."""
    if stop <= MOST_POINTS:
        return list(range(stop))
    steps = {(stop - 1) * i // (MOST_POINTS - 1) for i in range(MOST_POINTS)}
    for segment in schedule.segments(0, stop):
        steps.add(segment.start)
        if segment.stop is not None and segment.stop <= stop:
            steps.add(segment.stop - 1)
    return sorted(steps)


def _label_levels(axes: Axes, peak: float, floor: float) -> None:
    """Write peak and floor on the right of the axes, each at its height."""
    levels = [("peak", peak, "bottom"), ("floor", floor, "top")]
    if peak == floor:
        levels = [("rate", peak, "center")]
    # Also a level that no step drawn reaches belongs into the picture.
    axes.update_datalim([(0.0, floor), (0.0, peak)])
    axes.autoscale_view()
    low, high = axes.get_ylim()
    far_apart = peak - floor > (high - low) / 8
    for name, level, side in levels:
        axes.annotate(
            f"{name} {level:.6g}",
            xy=(0.99, level),
            xycoords=axes.get_yaxis_transform(),
            xytext=(12, 0),
            textcoords="offset points",
            verticalalignment="center" if far_apart else side,
            # On an axis made logarithmic later, a floor of 0 has no place.
            annotation_clip=True,
        )
