"""What the figures hold, and how they are saved."""

from __future__ import annotations

import copy
import io
import math
import stat
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path as MplPath

from cosanneal import CosannealError, CyclicCosine, Schedule, ScheduleError
from cosanneal.report import plot_demo, plot_schedule, save_figure
from cosanneal.report.plots import plot_schedules


def draw(figure: Figure) -> None:
    """Render it: what cannot be laid out or scaled warns, and warnings are errors."""
    figure.savefig(io.BytesIO(), format="png", dpi=50)


def line(axes: Axes, label: str) -> Line2D:
    (found,) = [line for line in axes.lines if line.get_label() == label]
    return found


def vertices(path: MplPath) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in np.asarray(path.vertices).tolist()]


def points(line: Line2D) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in np.asarray(line.get_xydata()).tolist()]


def restarts(axes: Axes) -> list[float]:
    (marks,) = [mark for mark in axes.collections if mark.get_label() == "restart"]
    return [x for path in marks.get_paths() for (x, _), _ in [vertices(path)]]


def legend_of(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


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


STEPS = 1000


@pytest.fixture
def results() -> dict[str, Any]:
    cyclic = CyclicCosine(0.2, total_steps=STEPS, num_cycles=5)
    cosine = CyclicCosine(0.1, total_steps=STEPS, num_cycles=1)
    falling = [2.0 * 0.995**step for step in range(STEPS)]
    # High in every cycle but for its last 100 steps: a smoothing that looked
    # beyond a restart would find the high values there.
    valleys = [1.0 if step % 200 < 100 else 0.25 for step in range(STEPS)]
    return {
        "config": {"seeds": 3, "epochs": 10, "steps": STEPS, "num_cycles": 5},
        "curves": {
            "single": {"rate": [0.05] * STEPS, "loss": falling},
            "cosine": {"rate": cosine.rates(), "loss": falling},
            "cyclic": {"rate": cyclic.rates(), "loss": valleys, "cycle_ends": cyclic.cycle_ends()},
        },
        "seeds": [
            {
                "seed": seed,
                "single": {"test_error": 0.03 + 0.001 * seed, "test_nll": 0.1},
                "cosine": {"test_error": 0.02, "test_nll": 0.1},
                "nocycle": {"test_error": 0.028 + 0.001 * seed, "test_nll": 0.2},
                "short": {"test_error": 0.025, "test_nll": 0.3 + 0.1 * seed},
                "fitted": {"test_error": 0.005 + 0.002 * seed, "test_nll": 0.05},
                "ensemble": [
                    {"members": m, "test_error": 0.03 / m + 0.002 * seed, "test_nll": 0.1}
                    for m in range(1, 6)
                ],
            }
            for seed in range(3)
        ],
    }


ENDS = [199, 399, 599, 799, 999]


class TestPlotDemo:
    def test_the_rates_of_all_three_runs_with_the_cyclic_ones_snapshots(
        self, results: dict[str, Any]
    ) -> None:
        rates = plot_demo(results).axes[0]
        drawn = [points(line) for line in rates.lines]
        curves = [list(enumerate(results["curves"][run]["rate"])) for run in results["curves"]]
        assert drawn[:3] == curves
        assert drawn[3] == [(end, curves[2][end][1]) for end in ENDS]

    def test_the_losses_share_the_axis_of_the_rates(self, results: dict[str, Any]) -> None:
        rates, losses, *_ = plot_demo(results).axes
        assert losses.get_shared_x_axes().joined(rates, losses)
        assert all(len(points(line)) == STEPS for line in rates.lines[:3])

    def test_no_loss_is_smoothed_over_a_restart(self, results: dict[str, Any]) -> None:
        losses = plot_demo(results).axes[1]
        (marks,) = [line for line in losses.lines if line.get_marker() == "o"]
        assert points(marks) == [(end, 0.25) for end in ENDS]
        cyclic = dict(points(losses.lines[2]))
        assert cyclic[200] == 1.0
        # Elsewhere it is smoothed: a window of 11 steps around the fall.
        assert cyclic[100] == pytest.approx((5 * 1.0 + 6 * 0.25) / 11)

    def test_a_loss_that_is_no_number_spoils_only_its_place(self, results: dict[str, Any]) -> None:
        loss = results["curves"]["single"]["loss"]
        loss[500], loss[700:800] = math.nan, [math.inf] * 100
        figure = plot_demo(results)
        draw(figure)
        drawn = [y for _, y in points(figure.axes[1].lines[0])]
        assert all(map(math.isfinite, drawn[:700] + drawn[800:]))
        assert math.isnan(drawn[750])

    def test_a_run_that_diverged_does_not_break_the_picture(self, results: dict[str, Any]) -> None:
        results["curves"]["cyclic"]["loss"] = [1.0] * 100 + [math.nan] * (STEPS - 100)
        figure = plot_demo(results)
        draw(figure)
        assert figure.axes[1].get_position().height > 0.2

    def test_losses_over_orders_of_magnitude_are_logarithmic(self, results: dict[str, Any]) -> None:
        assert plot_demo(results).axes[1].get_yscale() == "log"
        for run in results["curves"].values():
            run["loss"] = [1.0 + 0.5 * (step % 2) for step in range(STEPS)]
        assert plot_demo(results).axes[1].get_yscale() == "linear"

    def test_a_loss_of_zero_does_not_break_the_picture(self, results: dict[str, Any]) -> None:
        results["curves"]["single"]["loss"] = [0.0] * STEPS
        figure = plot_demo(results)
        assert figure.axes[1].get_yscale() == "linear"
        draw(figure)

    def test_the_errors_are_means_with_standard_deviations(self, results: dict[str, Any]) -> None:
        errors = plot_demo(results).axes[2]
        bars = [bar for bar in errors.containers if isinstance(bar, ErrorbarContainer)]
        ensemble, _, (spread,) = bars[0].lines
        # Errors of 3/m + 0, 0.2 and 0.4 percent: mean 3/m + 0.2, deviation 0.2.
        means = [(float(m), 3 / m + 0.2) for m in range(1, 6)]
        np.testing.assert_allclose(points(ensemble), means)
        ranges = [[(m, mean - 0.2), (m, mean + 0.2)] for m, mean in means]
        np.testing.assert_allclose(np.array(spread.get_segments()), ranges)
        levels = [line for line in errors.lines if line.get_linestyle() in ("--", "-.")]
        np.testing.assert_allclose(
            [np.asarray(line.get_ydata()) for line in levels], [[3.1] * 2, [2.0] * 2]
        )
        single, cosine = errors.patches
        assert single.get_window_extent().height > 0
        assert cosine.get_window_extent().height == 0
        assert errors.get_title() == "test error (%), mean ± s.d. of 3 seeds"

    def test_the_other_ensembles_stand_beside_the_members(self, results: dict[str, Any]) -> None:
        _, _, errors, losses = plot_demo(results).axes
        for axes, expected, deviation in (
            (errors, [0.7, 2.5, 2.9], [0.2, 0.0, 0.1]),
            (losses, [0.05, 0.4, 0.2], [0.0, 0.1, 0.0]),
        ):
            bars = [bar for bar in axes.containers if isinstance(bar, ErrorbarContainer)][1:]
            found = [points(bar.lines[0])[0] for bar in bars]
            np.testing.assert_allclose(found, list(zip((6, 7, 8), expected, strict=True)))
            for bar, mean, spread in zip(bars, expected, deviation, strict=True):
                ((low, high),) = bar.lines[2][0].get_segments()
                np.testing.assert_allclose([low[1], high[1]], [mean - spread, mean + spread])
            assert list(axes.get_xticks()) == [1, 2, 3, 4, 5]
        assert losses.get_title() == "test log-loss"

    def test_a_single_seed_has_no_spread(self, results: dict[str, Any]) -> None:
        results["seeds"] = results["seeds"][:1]
        figure = plot_demo(results)
        draw(figure)
        errors = figure.axes[2]
        bars = [bar for bar in errors.containers if isinstance(bar, ErrorbarContainer)]
        assert len(bars) == 4
        assert not any(bar.has_yerr for bar in bars)
        assert errors.get_title() == "test error (%), one seed"

    def test_the_legend_names_the_runs_and_covers_no_panel(self, results: dict[str, Any]) -> None:
        figure = plot_demo(results)
        draw(figure)
        assert legend_of(figure) == [
            "single model",
            "one cosine",
            "cyclic cosine and its ensemble",
            "snapshot",
            "fitted",
            "SingleCycle",
            "NoCycle",
        ]
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        for axes in figure.axes:
            panel = axes.get_tightbbox()
            assert panel is not None
            assert not box.overlaps(panel)

    def test_long_runs_are_thinned(self, results: dict[str, Any]) -> None:
        for run in results["curves"].values():
            run["rate"], run["loss"] = run["rate"] * 100, run["loss"] * 100
        figure = plot_demo(results)
        assert all(len(points(line)) <= 3000 for line in figure.axes[1].lines)

    def test_the_results_are_left_as_they_were(self, results: dict[str, Any]) -> None:
        before = copy.deepcopy(results)
        draw(plot_demo(results))
        assert results == before


@pytest.fixture
def figure() -> Figure:
    return plot_schedule(CyclicCosine(0.1, total_steps=100, num_cycles=2))


class TestSaveFigure:
    @pytest.mark.parametrize(
        ("name", "start"),
        [("a.png", b"\x89PNG"), ("a.SVG", b"<?xml"), ("a.b.pdf", b"%PDF")],
    )
    def test_the_suffix_decides_the_format(
        self, name: str, start: bytes, figure: Figure, tmp_path: Path
    ) -> None:
        save_figure(figure, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
        assert [path.name for path in tmp_path.iterdir()] == [name]

    @pytest.mark.parametrize("name", ["a.jpeg", "a", "png", ".png", "a.png.tmp"])
    def test_another_suffix_is_refused_with_the_known_ones(
        self, name: str, figure: Figure, tmp_path: Path
    ) -> None:
        with pytest.raises(CosannealError, match=r"one of \.png, \.svg, \.pdf") as caught:
            save_figure(figure, tmp_path / name)
        assert name in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    def test_it_takes_the_place_of_an_earlier_file(self, figure: Figure, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        path.write_text("old")
        save_figure(figure, str(path))
        assert path.read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
    def test_a_failure_midway_leaves_the_folder_as_it_was(
        self,
        failure: type[BaseException],
        figure: Figure,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        path = tmp_path / "a.png"
        path.write_text("old")

        def fail(file: Any, **_: Any) -> None:
            file.write(b"half a picture")
            file.flush()
            # The half written so far lies beside the target, not in it.
            assert len(list(tmp_path.iterdir())) == 2
            raise failure

        monkeypatch.setattr(figure, "savefig", fail)
        with pytest.raises(failure):
            save_figure(figure, path)
        assert list(tmp_path.iterdir()) == [path]
        assert path.read_text() == "old"

    def test_a_failure_of_the_move_leaves_the_folder_as_it_was(
        self, figure: Figure, tmp_path: Path
    ) -> None:
        path = tmp_path / "a.png"
        path.mkdir()
        with pytest.raises(CosannealError, match=r"a\.png could not be written: Is a directory"):
            save_figure(figure, path)
        assert list(tmp_path.iterdir()) == [path]

    def test_a_missing_folder_is_named(self, figure: Figure, tmp_path: Path) -> None:
        with pytest.raises(CosannealError, match=r"a\.png could not be written: No such file"):
            save_figure(figure, tmp_path / "missing" / "a.png")

    @pytest.mark.skipif(sys.platform == "win32", reason="no such modes there")
    def test_the_file_has_the_mode_of_any_other_new_file(
        self, figure: Figure, tmp_path: Path
    ) -> None:
        (tmp_path / "other").touch()
        save_figure(figure, tmp_path / "a.png")
        modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        assert len(modes) == 1


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("matplotlib", "MissingExtraError matplotlib ModuleNotFoundError"),
        ("numpy", "MissingExtraError numpy ModuleNotFoundError"),
        ("jinja2", "MissingExtraError jinja2 ModuleNotFoundError"),
        ("markupsafe", "MissingExtraError markupsafe ModuleNotFoundError"),
        ("matplotlib._path", "ModuleNotFoundError matplotlib._path None"),
    ],
)
def test_a_missing_package_is_told_from_a_broken_one(missing: str, expected: str) -> None:
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
try:
    import cosanneal.report
except ImportError as error:
    cause = type(error.__cause__).__name__ if error.__cause__ else None
    print(type(error).__name__, error.name, cause)
    print("cosanneal[plot]" in str(error))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    told, has_command = done.stdout.splitlines()
    assert told == expected
    assert has_command == str(expected.startswith("MissingExtraError"))
