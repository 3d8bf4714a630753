"""The report page and its figures: what they hold, how they are written."""

from __future__ import annotations

import copy
import re
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from cosanneal import CosannealError, CyclicCosine
from cosanneal.core.errors import EnsembleError
from cosanneal.ensemble import analyze, fit, folder_results
from cosanneal.report import write_report
from cosanneal.report.figures import NAMES, draw_results
from cosanneal.snapshots import SnapshotStore
from tests.ensemble.documents import analysis_of, bare, members_of, record_folder, whole


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []  # with the tag that each stands in
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br"):
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def all_of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text_of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


def page_of(results: dict[str, Any], tmp_path: Path) -> Page:
    written = write_report(results, tmp_path / "report.html")
    assert all(path.stat().st_size for path in written)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def drawn(results: dict[str, Any]) -> dict[str, Figure]:
    return {each.name: each.figure for each in draw_results(results)}


def values(data: Any) -> list[float]:
    return [float(each) for each in np.asarray(data).tolist()]


def lines(figure: Figure, panel: int = 0) -> dict[str, tuple[list[float], list[float]]]:
    return {
        str(line.get_label()): (values(line.get_xdata()), values(line.get_ydata()))
        for line in figure.axes[panel].lines
    }


def lines_of_bars(figure: Figure) -> set[str]:
    """The labels of lines with error bars."""
    return {str(each.get_label()) for each in figure.axes[0].containers}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return whole()


@pytest.fixture(scope="module")
def reported(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "all.html"
    write_report(document, path)
    return path


EVERY = ["training", "members", "correlation", "disagreement", "reliability"]
EVERY += ["interpolation", "study"]


def test_the_page_has_every_figure_and_they_stand_beside_it(reported: Path) -> None:
    page = Page(reported.read_text(encoding="utf-8"))
    figures = [each["id"] for each in page.all_of("figure") if "id" in each]
    assert figures == EVERY
    described = [each for each in page.all_of("svg") if each.get("role") == "img"]
    assert len(described) == len(EVERY)
    assert all(len(each["aria-label"] or "") > 20 for each in described)
    folder = reported.with_name("all_files")
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.{kind}" for name in EVERY for kind in ("png", "svg")
    }
    for name in EVERY:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        root = ET.parse(folder / f"{name}.svg").getroot()  # noqa: S314 - our own
        assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_the_page_needs_nothing_else(reported: Path) -> None:
    text = reported.read_text(encoding="utf-8")
    page = Page(text)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "img"}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href"):
                assert value is not None
                assert value.startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"url\((?!#)|@import", text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = re.findall(r'(?:url\(#|xlink:href="#)([^)"]+)', text)
    assert referred
    assert set(referred) <= set(ids)


def test_the_page_says_what_the_numbers_say(document: dict[str, Any], reported: Path) -> None:
    page = Page(reported.read_text(encoding="utf-8"))
    lead = page.text_of("p")[0]
    analysis = document["analysis"]
    choice, chosen = analysis["choice"], analysis["chosen"]
    used = [member["weight"] for member in choice["members"] if member["weight"]]
    assert f"the mean of the last {len(used)} was chosen" in lead
    assert "1,200 validation samples" in lead
    assert (
        f"error is {100 * chosen['error']:.2f} % and its log-loss {chosen['log_loss']:.4f}" in lead
    )
    (loss,) = (row for row in analysis["comparisons"] if row["metric"] == "log_loss")
    assert f"a log-loss {-loss['difference']:.4f} lower (95 % interval: " in lead
    assert "Beside the plain mean of all 5 members" in lead
    assert "come from the validation data alone" in lead
    for i, member in enumerate(analysis["members"]):
        (row,) = (row for row in page.rows if row[0] == str(i + 1))
        weight = choice["members"][i]["weight"]
        assert row[1:] == [
            member["name"],
            f"{weight:.3f}" if weight else "0",
            f"{100 * member['error']:.2f}",
            f"{member['log_loss']:.4f}",
            f"{member['brier']:.4f}",
            f"{100 * member['ece']:.2f}",
        ]
    (row,) = (row for row in page.rows if row[1].startswith("Chosen: "))
    assert row[4] == f"{chosen['log_loss']:.4f}"
    best = choice["candidates"][-1]
    considered = page.rows[[row[0] for row in page.rows].index("Candidate") + 1]
    assert considered[1:4] == [
        f"{choice['temperature']:.4g}",
        f"{100 * best['error']:.2f}",
        f"{best['log_loss']:.4f}",
    ]
    assert ["Chosen", "1.90 ± 0.20", "0.0570 ± 0.0100"] in page.rows
    assert ["Mean of the weights", "6.00", "0.1800", "0.0900", "2.00"] in page.rows
    assert "What is not here" not in page.text_of("h2")


@pytest.mark.parametrize("seeds", [1, 5])
def test_what_is_of_the_first_seed_is_said_to_be(tmp_path: Path, seeds: int) -> None:
    results = whole(3)
    results["comparison"] |= {"seeds": seeds, "note": "m was 2 with every seed."}
    del results["study"]
    page = page_of(results, tmp_path)
    several = seeds > 1
    lead, average, compared = page.text_of("p")[:3]
    assert lead.startswith("The first of 5 seeds: the run of 600 updates" if several else "The run")
    assert average.startswith("The first seed: the mean of the weights" if several else "The mean")
    assert compared.startswith("Over 5 seeds" if several else "Over 1 seed, ")
    captions = page.text_of("figcaption")
    assert len(captions) == 4 + 6
    assert sum(each.startswith("The first seed. ") for each in captions[:4]) == (
        3 if several else 0
    )
    assert captions[3].endswith("the best of each column is bold. m was 2 with every seed.")
    assert ("All of the first seed." in page.text_of("p")) == several
    results["study"] = whole(3)["study"]
    notes = page_of(results, tmp_path).text_of("p")
    told = "All of the first seed, but for “One budget, more or fewer cycles”."
    assert (told in notes) == several


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    p, y = members_of(3, 500)
    page = page_of(bare(analysis=analyze(p, y)), tmp_path)
    assert "Nothing was chosen." in page.text_of("p")[0]
    assert "What is not here" in page.text_of("h2")
    code = page.text_of("code")
    assert "--validation-predictions" in code
    assert "cosanneal report FOLDER" in code
    assert not any("cosanneal evaluate --predictions" in each for each in code)


def test_the_best_of_a_column_is_bold_and_the_chosen_is_marked(reported: Path) -> None:
    text = reported.read_text(encoding="utf-8")
    bold = [float(each) for each in re.findall(r'<td class="best">([0-9.]+)</td>', text)]
    assert bold
    chosen = text.count('<tr class="chosen">')
    analysis = whole()["analysis"]
    used = sum(member["weight"] > 0 for member in analysis["choice"]["members"])
    assert chosen == used + 2  # the ensemble of them, and the candidate
    assert f"{analysis['chosen']['log_loss']:.4f}" in [f"{each:.4f}" for each in bold]


def comparison(metric: str, difference: float, low: float, high: float) -> dict[str, Any]:
    return {
        "metric": metric,
        "difference": difference,
        "interval": [low, high],
        "level": 0.95,
        "p_value": 0.1,
    }


@pytest.mark.parametrize(
    ("error", "loss", "said"),
    [
        (
            (-0.02, -0.03, -0.01),
            (0.1, 0.05, 0.15),
            "2.00 percentage points fewer errors (95 % interval: 1.00 to 3.00 fewer), and a "
            "log-loss 0.1000 higher (95 % interval: 0.0500 to 0.1500 higher)",
        ),
        (
            (0.01, -0.01, 0.03),
            (-0.1, -0.3, 0.1),
            "1.00 percentage points more errors (95 % interval: from 1.00 fewer to 3.00 more, "
            "which leaves open which is better), and a log-loss 0.1000 lower (95 % interval: from "
            "0.3000 lower to 0.1000 higher, which leaves open which is better)",
        ),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), "the same number of errors, and a log-loss that is"),
        (
            (0.0, -0.01, 0.02),
            (0.0, -0.1, 0.3),
            "as many errors (95 % interval: from 1.00 fewer to 2.00 more, which leaves open which "
            "is better), and a log-loss that is the same (95 % interval: from 0.1000 lower to "
            "0.3000 higher, which leaves open which is better).",
        ),
    ],
)
def test_a_difference_is_put_into_words(tmp_path: Path, error: Any, loss: Any, said: str) -> None:
    part = analysis_of(3)
    part["comparisons"] = [comparison("error", *error), comparison("log_loss", *loss)]
    lead = page_of(bare(analysis=part), tmp_path).text_of("p")[0]
    assert f"Beside the last member alone, it has {said}" in lead


@pytest.mark.parametrize(("count", "select"), [(1, "last"), (2, "greedy"), (40, "weights")])
def test_few_and_many_members(tmp_path: Path, count: int, select: str) -> None:
    page = page_of(bare(analysis=analysis_of(count, select=select)), tmp_path)
    figures = {each["id"] for each in page.all_of("figure") if "id" in each}
    several = {"members", "correlation", "disagreement"} if count > 1 else set()
    assert figures == {"reliability"} | several
    assert (tmp_path / "report.html").stat().st_size < 400_000
    assert ("There is one member only" in page.text_of("p")[0]) == (count == 1)


def test_outcomes_and_equal_members(tmp_path: Path) -> None:
    p, y = members_of(2, 300, classes=2)
    same = [p[0, :, 1], p[0, :, 1], np.full(300, 0.5)]
    part = analyze(same, y)
    assert part["correlation"][2] == [None, None, None]
    page_of(bare(analysis=part), tmp_path)


def test_users_texts_are_text(tmp_path: Path) -> None:
    hostile = [
        "<script>alert(1)</script>",
        '" onload="x',
        "$\\frac{1}{2}$ #ffffff #0072b2",
        "模型 " + "a" * 300,
        '{{ title }} & id="x" url(#x)',
    ]
    results = whole(names=hostile)
    results["title"] = "<b>&amp;"
    results["interpolations"][0]["first"] = "$x$ <i> #ffffff url(#x)"
    results["average"]["refused"] = None
    results["comparison"]["rows"][0]["model"] = "<u>"
    results["comparison"]["title"] = "</h2><hr>"
    page = page_of(results, tmp_path)
    assert not {"script", "b", "u", "hr", "i"} & {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if "onload" in name]
    assert page.text_of("h1") == ["<b>&amp;"]
    names = [row[1] for row in page.rows if row[0] in set("12345")]
    assert names == hostile
    (label,) = {text for tag, text in page.texts if tag == "text" and text.startswith("$x$")}
    assert label == "$x$ <i> #ffffff url(#x) → 5"


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
    assert shown == ([1.0, 2.0, 3.0, 4.0], [each.log_loss for each in plain])


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


def test_a_refused_average_is_told(tmp_path: Path) -> None:
    part = {"members": ["a", "b"], "refused": "a barrier of 3.2 lies between.", "barrier": 3.2}
    page = page_of(bare(average=part), tmp_path)
    assert page.text_of("p")[0] == (
        "The weights of 2 members were not averaged: a barrier of 3.2 lies between."
    )
    assert not (tmp_path / "report_files").exists()


def averaged(mean: tuple[float, float], *alone: tuple[float, float], **more: Any) -> dict[str, Any]:
    """The last 2 members' weights averaged; error and log-loss of the mean and of each member."""
    part = analysis_of(len(alone))
    for row, (error, loss) in zip(part["members"], alone, strict=True):
        row |= {"error": error, "log_loss": loss}
    names = [row["name"] for row in part["members"]]
    average = {"members": names[-2:], "refused": None, "error": mean[0], "log_loss": mean[1]}
    return bare(analysis=part, average=average | more)


@pytest.mark.parametrize(
    ("mean", "alone", "said"),
    [
        ((0.03, 0.1), [(0.01, 0.01), (0.04, 0.2), (0.05, 0.3)], ""),
        ((0.06, 0.4), [(0.07, 0.5), (0.04, 0.2), (0.05, 0.3)], "Each of them alone is better."),
        (
            (0.045, 0.4),
            [(0.01, 0.01), (0.04, 0.2), (0.05, 0.3)],
            "The best of them alone has a lower error (4.00 %) and a lower log-loss (0.2000). The "
            "last member alone has a lower log-loss (0.3000).",
        ),
        (
            (0.045, 0.2),
            [(0.01, 0.01), (0.05, 0.2), (0.04, 0.3)],
            "The last member alone has a lower error (4.00 %).",
        ),
        ((0.04, 0.1), [(0.01, 0.01), (0.04, 0.2), (0.04, 0.1)], ""),
    ],
)
def test_a_mean_that_is_worse_than_its_members_is_said_to_be(
    tmp_path: Path, mean: Any, alone: Any, said: str
) -> None:
    lead = page_of(averaged(mean, *alone), tmp_path).text_of("p")[1]
    has = f"has an error of {100 * mean[0]:.2f} % and a log-loss of {mean[1]:.4f}."
    assert lead.partition(has)[2].strip() == said


@pytest.mark.parametrize(
    ("barrier", "refused", "told"),
    [
        (0.171, "a barrier of 0.171 lies between them, where 0.0177 is allowed", "0.171"),
        (None, "a barrier that is not finite lies between them, where 0.0177 is allowed", "not f"),
        (0.0176, None, "0.0176"),
    ],
)
def test_a_mean_that_would_be_refused_is_said_to_be(
    tmp_path: Path, barrier: float | None, refused: str | None, told: str
) -> None:
    more = {"barrier": barrier, "allowed": 0.0177, "picked_on": 500}
    page = page_of(averaged((0.1, 0.1), (0.2, 0.2), (0.2, 0.2), (0.2, 0.2), **more), tmp_path)
    lead, captions = page.text_of("p")[1], " ".join(page.text_of("figcaption"))
    assert ("By default they would not be averaged" in lead) == bool(refused)
    assert refused is None or refused in lead
    assert "Their number was picked on 500 validation samples." in captions
    assert f"The highest barrier between them is {told}" in captions
    assert "by default 0.0177 is allowed" in captions


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [("A", 0.02, 0.1), ("B", 0.03, 0.2)],
            "“A” has the least mean test error (2.00 %) and log-loss (0.1000).",
        ),
        (
            [("A", 0.02, 0.2), ("B", 0.03, 0.1)],
            "“A” has the least mean test error (2.00 %) and “B” has the least mean test log-loss "
            "(0.1000).",
        ),
        # Of those with the least error, the one with the least log-loss too.
        (
            [("A", 0.02, 0.2), ("B", 0.02, 0.1)],
            "“B” has the least mean test error (2.00 %) and log-loss (0.1000).",
        ),
    ],
)
def test_the_best_in_both_scores_is_named_once(tmp_path: Path, rows: Any, said: str) -> None:
    part = {
        "seeds": 3,
        "rows": [
            {
                "model": model,
                "test_error": {"mean": error, "std": None},
                "test_nll": {"mean": nll, "std": None},
            }
            for model, error, nll in rows
        ],
    }
    assert page_of(bare(comparison=part), tmp_path).text_of("p")[0] == f"Over 3 seeds, {said}"


def test_one_is_no_plural(tmp_path: Path) -> None:
    analysis = analyze([[[0.9, 0.1]], [[0.8, 0.2]]], [0])
    with pytest.warns(UserWarning, match="chosen on 1"):
        choice = fit([[[0.9, 0.1]], [[0.8, 0.2]]], [0], temperature=False)
    parts = [
        bare(analysis=analysis, interpolations=whole(2)["interpolations"]),
        bare(
            choice=choice.to_dict(),
            run={"rate": [0.1], "loss": None, "cycle_ends": [0]},
            study=whole(2)["study"] | {"updates": 1},
        ),
        bare(analysis=analyze([[[0.9, 0.1]], [[0.8, 0.2]]], [0], choice=choice)),
        bare(
            snapshots=[
                {
                    "name": "a",
                    "cycle": 0,
                    "step": 1,
                    "rate": 0.1,
                    "metrics": {f"metric {i}": 1.0 for i in range(7)},
                }
            ]
        ),
    ]
    for results in parts:
        page = page_of(results, tmp_path)
        texts = [text for tag, text in page.texts if tag in ("p", "figcaption", "td", "th")]
        texts += [each["aria-label"] or "" for each in page.all_of("svg") if "aria-label" in each]
        assert not re.search(
            r"(?<![0-9.,])1 (validation samples|samples|snapshots|updates|pairs|more stand)\b",
            " ".join(texts),
        )


def test_the_study_says_how_the_last_m_were_found() -> None:
    (study,) = (each for each in draw_results(whole(2)) if each.name == "study")
    assert "last m by validation" in lines_of_bars(study.figure)
    assert "as many of the last snapshots as are best on validation data" in study.caption


def test_snapshots_that_were_never_members_have_no_weight(tmp_path: Path) -> None:
    p, y = members_of(3, 1000)
    names = [f"cycle-{i}.safetensors" for i in range(5)]
    choice = fit(p, y, names=names[2:], select="greedy").to_dict()
    choice["members"][0]["weight"], choice["members"][1]["weight"] = 0.0, 0.5
    choice["members"][2]["weight"] = 0.5
    snapshots = [
        {"name": name, "cycle": i, "step": 10 * i + 10, "rate": 0.1, "metrics": {}}
        for i, name in enumerate(names)
    ]
    page = page_of(bare(snapshots=snapshots, choice=choice), tmp_path)
    at = page.rows[0].index("Weight")
    assert [row[at] for row in page.rows[1:6]] == ["", "", "0", "0.500", "0.500"]
    assert "Those without a weight were no members." in page.text_of("figcaption")[0]


def test_a_files_suffix_is_no_part_of_a_members_name(tmp_path: Path) -> None:
    names = [f"cycle-{i}.safetensors" for i in range(3)]
    results = whole(3, names=names)
    alone = bare(choice=results["analysis"]["choice"])
    results["interpolations"][0]["first"] = "another.safetensors"
    for each in (results, alone):
        page = page_of(each, tmp_path)
        assert [row[1] for row in page.rows if row[0] in {"1", "2", "3"}] == [
            "cycle-0",
            "cycle-1",
            "cycle-2",
        ]
        assert not [text for _, text in page.texts if ".safetensors" in text]


def test_what_is_no_unicode_is_replaced(tmp_path: Path) -> None:
    document = bare(comparison=whole(2)["comparison"]) | {"title": "a\ud800b"}
    assert page_of(document, tmp_path).text_of("h1") == ["a?b"]


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


def test_the_same_document_gives_the_same_bytes(
    document: dict[str, Any], reported: Path, tmp_path: Path
) -> None:
    before = dict(matplotlib.rcParams)
    results = bare(analysis=document["analysis"])
    with ThreadPoolExecutor(2) as threads:
        pages = [tmp_path / f"{i}" / "all.html" for i in range(2)]
        for page in pages:
            page.parent.mkdir()
        list(threads.map(lambda page: write_report(results, page), pages))
    assert pages[0].read_bytes() == pages[1].read_bytes()
    assert dict(matplotlib.rcParams) == before
    first, second = (page.with_name("all_files") / "members.svg" for page in pages)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes() == (reported.with_name("all_files") / "members.svg").read_bytes()


def test_figures_of_an_earlier_report_go_and_others_stay(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_report(whole(2), page)
    (tmp_path / "report_files" / "mine.png").touch()
    write_report(bare(comparison=whole(2)["comparison"]), page)
    assert [path.name for path in (tmp_path / "report_files").iterdir()] == ["mine.png"]


def test_what_cannot_be_reported_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("as it was")
    with pytest.raises(CosannealError, match=r"must end in \.html. Received: .*report\.txt"):
        write_report(whole(2), tmp_path / "report.txt")
    with pytest.raises(CosannealError, match="must have something to report"):
        write_report(bare(demo={}), page)
    bad = bare(run={"rate": [-1], "loss": None, "cycle_ends": []})
    with pytest.raises(EnsembleError, match=r"in 'run\.rate\[0\]'"):
        write_report(bad, page)
    results = bare(comparison=whole(2)["comparison"], analysis=analysis_of(2))
    with pytest.raises(
        CosannealError, match=r"report_files could not be made ready .*: No such file"
    ):
        write_report(results, tmp_path / "missing" / "report.html")
    (tmp_path / "report_files").touch()
    with pytest.raises(
        CosannealError, match=r"report_files could not be made ready .*: File exists"
    ):
        write_report(results, page)
    (tmp_path / "report_files").unlink()
    (tmp_path / "report_files" / "metrics.svg").mkdir(parents=True)
    with pytest.raises(CosannealError, match="could not be made ready for figures: "):
        write_report(results, page)
    assert page.read_text() == "as it was"
