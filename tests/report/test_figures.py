"""The figures of a results document: which there are, and that they hold its numbers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh

from cosanneal import CyclicCosine
from cosanneal.ensemble import fit, folder_results
from cosanneal.report.figures import NAMES, draw_results
from cosanneal.snapshots import SnapshotStore
from tests.shared.documents import bare, members_of, record_folder, uncertainty_of, whole
from tests.shared.reading import draw, drawn, line, lines, page_of, values


def test_the_figures_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    record_folder(folder)
    page = page_of(folder_results(folder), tmp_path)
    assert {each["id"] for each in page.all_of("figure") if "id" in each} == {"training", "metrics"}
    assert "No ensemble was chosen among them yet." in page.text_of("p")[0]
    (row,) = (row for row in page.rows if row[0] == "2")
    assert row == ["2", "cycle-0001-step-0000000020", "1", "20", row[4], "1", "<b>&", "0.05"]
    (row,) = (row for row in page.rows if row[0] == "1")
    assert row[-1] == "none"  # a loss that was NaN
    found = drawn(folder_results(folder))
    schedule = CyclicCosine(0.1, total_steps=40, num_cycles=4)
    training = found["training"].axes[0].lines
    assert values(training[0].get_ydata()) == schedule.rates()
    assert values(training[-1].get_xdata()) == [9, 19, 29, 39]
    metrics = found["metrics"].axes
    assert [axes.get_title() for axes in metrics] == ["epoch", "val_loss"]
    # A loss that was NaN: its cycle is there, with a gap in the line.
    assert values(metrics[1].lines[0].get_xdata()) == [0, 1, 2, 3]
    assert np.isnan(values(metrics[1].lines[0].get_ydata())).tolist() == [True, *[False] * 3]

    p, y = members_of(4, 1500)
    snapshots = SnapshotStore(folder).list()
    names = [each.path.name for each in snapshots]
    digests = [each.metadata["digest"] for each in snapshots]
    choice = fit(p, y, names=names, digests=digests)
    choice.save(folder / "ensemble.json")
    page = page_of(folder_results(folder), tmp_path)
    lead = page.text_of("p")[0]
    assert "was chosen, for the least log-loss on 1,500 validation samples" in lead
    assert "on the data that it was chosen on" in lead
    weights = [row[5] for row in page.rows if row[0] in set("1234")]
    assert weights == [f"{weight:.3f}" if weight else "0" for weight in choice.weights]
    members = drawn(folder_results(folder))["members"]
    plain = [each for each in choice.candidates if "temperature" not in each.name]
    shown = lines(members, 1)["mean of the last m"]
    assert shown == ([1.0, 2.0, 3.0, 4.0], [each.scores["log_loss"] for each in plain])


def test_the_figures_hold_the_numbers(document: dict[str, Any]) -> None:
    figures = drawn(document)
    analysis = document["analysis"]
    shown = lines(figures["members"], 1)
    rows = [analysis["members"][-1], *analysis["ensembles"]]
    assert shown["mean of the last m"] == (
        [1.0, 2.0, 3.0, 4.0, 5.0],
        [row["log_loss"] for row in rows],
    )
    assert set(shown["the choice"][1]) == {analysis["chosen"]["log_loss"]}
    errors = lines(figures["members"], 0)["mean of the last m"][1]
    assert errors == pytest.approx([100 * row["error"] for row in rows])
    for name, scale in (("correlation", 1), ("disagreement", 100)):
        meshes: list[Any] = list(figures[name].axes[0].collections)
        (mesh,) = (each for each in meshes if isinstance(each, QuadMesh))
        cells: Any = np.ma.filled(np.ma.asarray(mesh.get_array()), np.nan).reshape(4, 4)
        full = scale * np.array(analysis[name])
        np.testing.assert_allclose(cells[np.tril_indices(4)], full[1:, :-1][np.tril_indices(4)])
        assert np.isnan(cells[np.triu_indices(4, 1)]).all()
    after = analysis["reliability"]["after"]
    found = [values(line.get_ydata()) for line in figures["reliability"].axes[0].lines]
    assert after["accuracy"] in found
    paths = [values(line.get_ydata()) for line in figures["interpolation"].axes[0].lines]
    assert paths == [path["losses"] for path in document["interpolations"]]
    ends = figures["training"].axes[1].lines[-1]
    assert values(ends.get_xdata()) == document["run"]["cycle_ends"]


def test_the_risks_are_drawn_against_the_coverage() -> None:
    part = uncertainty_of(3)
    axes = drawn(bare(uncertainty=part))["risk_coverage"].axes[0]
    for row in part["selective"]["rows"]:
        who = "the prediction" if row["model"] == "prediction" else "the last member alone"
        curve = line(axes, f"{who}, AURC {100 * row['aurc']:.2f} %")
        assert values(curve.get_xdata()) == [100 * each for each in row["coverages"]]
        assert values(curve.get_ydata()) == [100 * each for each in row["risks"]]
    # Predictions without an error have a level line, and no wanted rate in sight.
    perfect = copy.deepcopy(part)
    for row in perfect["selective"]["rows"]:
        row |= {"risks": [0.0] * len(row["risks"]), "aurc": 0.0, "coverage_at_risk": 1.0}
    (figure,) = (each for each in draw_results(bare(uncertainty=perfect)))
    assert "dotted" not in figure.caption
    draw(figure.figure)
    one = uncertainty_of(1)
    one["selective"]["rows"][0] |= {"coverages": [1.0], "risks": [1.0]}
    draw(drawn(bare(uncertainty=one))["risk_coverage"])


def test_many_paths_and_values_that_are_not_finite(tmp_path: Path) -> None:
    results = whole(2)
    (path,) = results["interpolations"]
    results["interpolations"] = [copy.deepcopy(path) for _ in range(30)]
    results["interpolations"][3]["barrier"] = 99.0
    results["interpolations"][4] |= {"losses": [None] * 11, "barrier": None}
    results["run"]["loss"] = [None] * len(results["run"]["loss"])
    page = page_of(results, tmp_path)
    captions = " ".join(page.text_of("figcaption"))
    assert "is 99 (1 → 2)" in captions


@pytest.mark.parametrize("statistics", [None, False, True])
def test_whether_statistics_were_estimated_anew_is_said(statistics: bool | None) -> None:
    results = whole(3)
    for path in results["interpolations"]:
        if statistics is not None:
            path["statistics"] = statistics
    (path,) = (each for each in draw_results(results) if each.name == "interpolation")
    assert ("running statistics estimated anew" in path.caption) == bool(statistics)


@pytest.mark.parametrize(
    "run",
    [
        {"rate": [0.1], "loss": [2.0], "cycle_ends": [0]},
        {"rate": [0.0, 0.0], "loss": [0.0, 0.0], "cycle_ends": []},
        {"rate": [1e308, 1.0], "loss": [1e308, -1e308], "cycle_ends": [1]},
        {"rate": [0.1] * 9, "loss": [None] * 9, "cycle_ends": [4, 8]},
    ],
)
def test_runs_at_their_limits_are_drawn(tmp_path: Path, run: dict[str, Any]) -> None:
    lead = page_of(bare(run=run), tmp_path).text_of("p")[0]
    snapshots = len(run["cycle_ends"])
    assert f" left {snapshots} snapshot" in lead


def test_a_line_is_broken_where_a_metric_was_no_number_not_where_it_was_not_there() -> None:
    losses: list[dict[str, Any]] = [{"loss": 3.0}, {"loss": None}, {"loss": 2.0}, {}, {"loss": 1.0}]
    snapshots = [
        {"name": str(i), "cycle": i, "step": 10 + 10 * i, "rate": None, "metrics": each}
        for i, each in enumerate(losses)
    ]
    (line,) = drawn(bare(snapshots=snapshots))["metrics"].axes[0].lines
    assert values(line.get_xdata()) == [0, 1, 2, 4]
    np.testing.assert_array_equal(line.get_ydata(), [3, np.nan, 2, 1])


def test_metrics_at_their_limits_are_drawn(tmp_path: Path) -> None:
    metrics = {"big": 1e299, "huge": 10**5000, "list": [1, 2], "": 1.0, "$a\n\x01": -2, "no": True}
    snapshot = {"name": "a", "cycle": 0, "step": 10, "rate": None, "metrics": metrics}
    page = page_of(bare(snapshots=[snapshot]), tmp_path)
    titles = {text for tag, text in page.texts if tag == "text"}
    assert {"big", "$a??"} <= titles
    assert not {"huge", "list", "no"} & titles
    (row,) = (row for row in page.rows if row[0] == "1")
    assert row[2:] == ["0", "10", "none", "1e+299", row[6], "[1, 2]", "1", "-2", "True"]


def test_no_legend_is_cut_off(document: dict[str, Any]) -> None:
    legends = 0
    for figure in drawn(document).values():
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
        for legend in figure.legends:
            box = legend.get_window_extent()
            assert 0 <= box.x0 < box.x1 <= figure.bbox.width
            assert 0 <= box.y0 < box.y1 <= figure.bbox.height
            legends += 1
    assert legends > 3


def test_every_figure_has_a_known_name(document: dict[str, Any]) -> None:
    assert set(drawn(document)) <= set(NAMES)
