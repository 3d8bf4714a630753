"""What the demonstration's figures hold."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer

from cosanneal import CyclicCosine
from cosanneal.report import plot_demo
from cosanneal.report.figures import draw_results
from tests.shared.documents import whole
from tests.shared.reading import draw, legend_of, points

STEPS = 1000
ENDS = [199, 399, 599, 799, 999]


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


def test_the_study_says_how_the_last_m_were_found() -> None:
    (study,) = (each for each in draw_results(whole(2)) if each.name == "study")
    labels = {each.get_label() for each in study.figure.axes[0].containers}
    assert "last m by validation" in labels
    assert "as many of the last snapshots as are best on validation data" in study.caption
