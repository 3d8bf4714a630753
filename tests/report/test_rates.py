"""What the figures of schedules hold."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from cosanneal import CyclicCosine, Schedule, ScheduleError, range_test, suggest_max_lr
from cosanneal.report import plot_range_test, plot_schedule, plot_schedules
from tests.shared.reading import draw, legend_of, line, points, vertices


def restarts(axes: Axes) -> list[float]:
    (marks,) = [mark for mark in axes.collections if mark.get_label() == "restart"]
    return [x for path in marks.get_paths() for (x, _), _ in [vertices(path)]]


class TestPlotSchedule:
    def test_every_step_of_a_short_schedule_is_drawn_at_its_rate(self) -> None:
        schedule = CyclicCosine(0.2, total_steps=1000, num_cycles=5, min_lr=0.01, warmup_steps=30)
        (axes,) = plot_schedule(schedule).axes
        assert points(line(axes, "rate")) == [(s, schedule.rate(s)) for s in range(1000)]

    def test_snapshots_and_restarts_stand_where_they_happen(self) -> None:
        schedule = CyclicCosine(0.2, cycle_steps=[10, 20, 40])
        figure = plot_schedule(schedule)
        (axes,) = figure.axes
        ends = [9, 29, 69]
        marks = line(axes, "snapshot, after the step")
        assert points(marks) == [(s, schedule.rate(s)) for s in ends]
        assert restarts(axes) == [10, 30]
        assert legend_of(figure) == ["rate", "restart", "snapshot, after the step"]

    def test_only_what_lies_before_stop_is_marked(self) -> None:
        schedule = CyclicCosine(0.2, cycle_steps=10)
        (axes,) = plot_schedule(schedule, stop=29).axes
        assert [x for x, _ in points(line(axes, "snapshot, after the step"))] == [9, 19]
        assert restarts(axes) == [10, 20]
        assert points(line(axes, "rate"))[-1][0] == 28

    def test_a_part_of_one_cycle_has_neither_restart_nor_snapshot(self) -> None:
        figure = plot_schedule(CyclicCosine(0.2, cycle_steps=100), stop=30)
        draw(figure)
        assert legend_of(figure) == ["rate"]

    def test_after_the_end_the_floor_is_drawn(self) -> None:
        schedule = CyclicCosine(0.2, total_steps=20, num_cycles=2, min_lr=0.05)
        (axes,) = plot_schedule(schedule, stop=50).axes
        assert points(line(axes, "rate"))[20:] == [(s, 0.05) for s in range(20, 50)]

    @pytest.mark.parametrize("num_cycles", [3, 100, 500])
    def test_millions_of_steps_are_sampled_at_every_boundary(self, num_cycles: int) -> None:
        schedule = CyclicCosine(
            0.1, total_steps=7_654_321, num_cycles=num_cycles, restart_warmup_steps=100
        )
        (axes,) = plot_schedule(schedule).axes
        drawn = points(line(axes, "rate"))
        steps = [int(x) for x, _ in drawn]
        assert len(steps) <= 5000
        assert steps == sorted(set(steps))
        assert steps[0] == 0
        assert steps[-1] == 7_654_320
        assert set(schedule.cycle_ends()) <= set(steps)
        assert {segment.start for segment in schedule.segments(0, 7_654_321)} <= set(steps)
        assert all(y == schedule.rate(int(x)) for x, y in drawn)

    def test_very_many_cycles_are_a_band_between_floors_and_peaks(self) -> None:
        schedule = CyclicCosine(
            0.1, total_steps=10**6, num_cycles=10_000, min_lr=0.01, cycle_decay=0.9999
        )
        figure = plot_schedule(schedule)
        (axes,) = figure.axes
        (band,) = [mark for mark in axes.collections if isinstance(mark, PolyCollection)]
        (path,) = band.get_paths()
        corners = set(vertices(path))
        assert {(0, 0.01), (0, 0.1), (10**6, 0.01)} <= corners
        last = schedule.cycles()[-1]
        assert (last.start, last.max_lr) in corners
        assert len(corners) < 2000
        assert legend_of(figure) == [
            "10000 cycles between floor and peak, each with a snapshot at its end"
        ]

    def test_a_band_goes_on_with_the_floor(self) -> None:
        schedule = CyclicCosine(0.1, total_steps=1000, num_cycles=1000, min_lr=0.01)
        (axes,) = plot_schedule(schedule, stop=2000).axes
        assert points(line(axes, "rate after")) == [(1000, 0.01), (1999, 0.01)]

    def test_peak_and_floor_are_written_beside_the_axes(self) -> None:
        figure = plot_schedule(CyclicCosine(0.25, total_steps=100, num_cycles=2, min_lr=0.125))
        texts = {text.get_text(): text for text in figure.axes[0].texts}
        assert set(texts) == {"peak 0.25", "floor 0.125"}
        low, high = figure.axes[0].get_ylim()
        assert low < 0.125 < 0.25 < high

    def test_labels_of_close_levels_do_not_overlap(self) -> None:
        schedule = CyclicCosine(0.1, min_lr=0.0999, total_steps=20, num_cycles=2, warmup_steps=3)
        figure = plot_schedule(schedule)
        draw(figure)
        peak, floor = (text.get_window_extent() for text in figure.axes[0].texts)
        assert not peak.overlaps(floor)

    def test_a_constant_rate_is_labelled_once(self) -> None:
        figure = plot_schedule(CyclicCosine(0.1, min_lr=0.1, total_steps=20, num_cycles=2))
        assert [text.get_text() for text in figure.axes[0].texts] == ["rate 0.1"]

    @pytest.mark.parametrize("log", [False, True], ids=["linear", "log"])
    @pytest.mark.parametrize(
        ("schedule", "stop"),
        [
            (CyclicCosine(0.1, total_steps=1, num_cycles=1), None),
            (CyclicCosine(0.1, total_steps=2, num_cycles=2), None),
            (CyclicCosine(0.1, total_steps=20, num_cycles=2, endpoint=True), 60),
            (CyclicCosine(0.1, cycle_steps=10, cycle_mult=Fraction(3, 2)), 2**63),
            (CyclicCosine(0.1, cycle_steps=1), 2**63),
            (CyclicCosine(1e-300, total_steps=10, num_cycles=2), None),
            (CyclicCosine(0.1, min_lr=0.1, total_steps=20, num_cycles=2), None),
        ],
        ids=str,
    )
    def test_extremes_can_be_drawn_also_on_a_log_axis(
        self, schedule: Schedule, stop: int | None, log: bool
    ) -> None:
        figure = plot_schedule(schedule, stop=stop)
        (axes,) = figure.axes
        if log:
            axes.set_yscale("log")
        draw(figure)
        box = axes.get_position()
        assert box.width > 0.5
        assert box.height > 0.5

    def test_steps_are_numbered_with_whole_numbers(self) -> None:
        for total in (1, 2, 3, 7):
            (axes,) = plot_schedule(CyclicCosine(0.1, total_steps=total, num_cycles=1)).axes
            assert all(tick == round(tick) for tick in axes.get_xticks())

    def test_endless_schedules_need_a_stop(self) -> None:
        with pytest.raises(ScheduleError, match="`stop` must be given"):
            plot_schedule(CyclicCosine(0.1, cycle_steps=10))

    @pytest.mark.parametrize("stop", [0, -1, 1.5, True])
    def test_a_stop_that_cannot_be_is_refused(self, stop: Any) -> None:
        with pytest.raises(ScheduleError, match="`stop` must be a positive integer"):
            plot_schedule(CyclicCosine(0.1, cycle_steps=10), stop=stop)

    def test_figures_leave_pyplot_and_the_backend_alone(self) -> None:
        code = (
            "import sys, io, cosanneal as ca\n"
            "from cosanneal.report import plot_schedule\n"
            "figure = plot_schedule(ca.CyclicCosine(0.1, total_steps=10, num_cycles=2))\n"
            "figure.savefig(io.BytesIO(), format='png')\n"
            "print('matplotlib.figure' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout == "True False\n"


class TestPlotSchedules:
    def test_every_schedule_is_a_line_at_its_rates(self) -> None:
        schedules = {
            "growing": CyclicCosine(0.2, cycle_steps=10, cycle_mult=2),
            "finite": CyclicCosine(0.1, total_steps=50, num_cycles=5, min_lr=0.01),
        }
        figure = plot_schedules(schedules, stop=100)
        (axes,) = figure.axes
        for name, schedule in schedules.items():
            assert points(line(axes, name)) == [(s, schedule.rate(s)) for s in range(100)]
        assert len(axes.lines) == 2
        assert not axes.collections
        assert legend_of(figure) == ["growing", "finite"]
        assert {text.get_text() for text in axes.texts} == {"peak 0.2", "floor 0"}

    def test_lines_differ_in_colour_and_dashes_and_grow_no_broader(self) -> None:
        same = CyclicCosine(0.2, cycle_steps=10)
        figure = plot_schedules({str(i): same for i in range(20)}, stop=30)
        lines = figure.axes[0].lines
        looks = {(str(one.get_color()), repr(one._dash_pattern)) for one in lines}  # type: ignore[attr-defined]
        assert len(looks) == 20
        for one, other in pairwise(lines[:5]):
            assert one.get_color() != other.get_color()
            assert one.get_linestyle() != other.get_linestyle()
        widths = [one.get_linewidth() for one in lines]
        assert widths == sorted(widths, reverse=True)
        # Each of the first shows under the next.
        assert widths[0] > widths[1] > widths[2]

    def test_the_legend_covers_no_axes_whatever_its_length(self) -> None:
        same = CyclicCosine(0.2, cycle_steps=10)
        for count in (1, 2, 8):
            names = [f"{i} {'long name ' * 9}" for i in range(count)]
            figure = plot_schedules(dict.fromkeys(names, same), stop=30)
            figure.draw_without_rendering()
            (legend,) = figure.legends
            (axes,) = figure.axes
            box = legend.get_window_extent()
            assert not box.overlaps(axes.get_window_extent())
            assert 0 <= box.x0 < box.x1 <= figure.bbox.width
            assert axes.get_position().height > 0.45

    def test_very_many_cycles_are_a_band_named_once(self) -> None:
        schedules = {
            "many": CyclicCosine(0.1, total_steps=10**6, num_cycles=10_000, min_lr=0.01),
            "few": CyclicCosine(0.2, cycle_steps=10**5),
        }
        figure = plot_schedules(schedules, stop=2 * 10**6)
        draw(figure)
        (axes,) = figure.axes
        (band,) = [mark for mark in axes.collections if isinstance(mark, PolyCollection)]
        assert band.get_label() == "many"
        assert points(line(axes, "rate after")) == [(10**6, 0.01), (2 * 10**6 - 1, 0.01)]
        assert legend_of(figure) == ["many", "few"]
        assert len(points(line(axes, "few"))) < 5000

    @pytest.mark.parametrize("stop", [1, 2, 2**63])
    def test_extremes_can_be_drawn(self, stop: int) -> None:
        flat = CyclicCosine(0.1, min_lr=0.1, total_steps=20, num_cycles=2)
        draw(plot_schedules({"flat": flat, "ones": CyclicCosine(0.1, cycle_steps=1)}, stop=stop))

    @pytest.mark.parametrize("stop", [0, -1, 1.5, True, None])
    def test_a_stop_that_cannot_be_is_refused(self, stop: Any) -> None:
        with pytest.raises(ScheduleError, match="`stop` must be a positive integer"):
            plot_schedules({"one": CyclicCosine(0.1, cycle_steps=10)}, stop=stop)

    def test_there_must_be_one(self) -> None:
        with pytest.raises(ScheduleError, match="`schedules` must hold at least one schedule"):
            plot_schedules({}, stop=10)


RATES = list(range_test(1e-4, 10.0, total_steps=60).rates(0, 60))
LOSSES = [2 / (1 + 100 * x) + x**2 for x in RATES]


class TestPlotRangeTest:
    def test_losses_their_smoothed_curve_and_the_suggestion_are_drawn(self) -> None:
        figure = plot_range_test(RATES, LOSSES)
        (axes,) = figure.axes
        assert points(line(axes, "loss of each update")) == list(zip(RATES, LOSSES, strict=True))
        suggested = suggest_max_lr(RATES, LOSSES)
        ((x, y),) = points(line(axes, f"suggested peak {suggested:.2g}"))
        assert x == suggested
        assert (x, y) in points(line(axes, "smoothed"))
        draw(figure)

    def test_a_loss_that_runs_away_does_not_flatten_the_picture(self) -> None:
        figure = plot_range_test(RATES, [*LOSSES[:55], *[1e9] * 5])
        assert figure.axes[0].get_ylim()[1] < 10

    def test_what_cannot_be_suggested_is_refused(self) -> None:
        with pytest.raises(ScheduleError, match="`losses` must fall somewhere"):
            plot_range_test(RATES, [1.0] * 60)
