"""Writes docs/performance.md, docs/performance-tables.md and their plots from what was measured.

python -m benchmarks.performance
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from benchmarks.harness import RESULTS

DOCS = Path(__file__).parents[1] / "docs"

TABLES = """# Performance: all figures

Written by `python -m nox -s bench`, which runs the modules of `benchmarks/`.
Ours, the peers and the limit take turns in one process. Times are medians; a
ratio is the median of the rounds' ratios, with their quartiles. The goal is for
the median of the ratio, or for a limit that is a number, for our median. The ten
that matter most are in [performance](performance.md).
"""

HEAD = """# Performance

What it costs, in ten figures. Each was measured beside what you would write yourself
or use otherwise, in one run on {machine}; [all figures](performance-tables.md) have
the peers, the spread and the versions.

| you ask | answer | beside |
|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """A line of the first page: a figure in the reader's terms.

    Args:
        question: what a reader asks.
        benchmark, figure: where the answer was measured.
        answer: a sentence, of the fields `ours`, `limit`, `ratio` (to the limit), `peer` and
            `peer_ratio`.
        beside: the same, of what it was measured beside.
    """

    question: str
    benchmark: str
    figure: str
    answer: str
    beside: str

    def line(self, results: Mapping[str, Any]) -> str:
        """The line of the table."""
        figures = {each["figure"]: each for each in results[self.benchmark]["figures"]}
        figure = figures[self.figure]
        unit = figure["unit"]
        values = {"ours": f"{_amount(figure['ours'])} {unit}"}
        if figure["limit"] is not None:
            values |= {"limit": f"{_amount(figure['limit'])} {unit}"}
            values["ratio"] = f"{figure['ratio_to_limit'][1]:.2f}"
        if figure["best_peer"]:
            values |= {"peer": f"{_amount(figure['peers'][figure['best_peer']])} {unit}"}
            values |= {"peer_ratio": f"{figure['ratio_to_peer'][1]:.2f}"}
            values |= {"best": figure["best_peer"]}
        return f"| {self.question} | {self.answer} | {self.beside} |".format(**values)


ANSWERS = (
    Answer(
        "What does importing it cost?",
        *("import_time", "import, and the first rate"),
        "{ours}, the first rate included",
        "a bare interpreter; no other package is imported",
    ),
    Answer(
        "What does the schedule add to an update in PyTorch?",
        *("torch_step", "1 group, one rate"),
        "{ours} for one parameter group",
        "{peer}, {best}",
    ),
    Answer(
        "And in JAX, inside the compiled step?",
        *("jax_graph", "call, 1,000 equal"),
        "{ours} for the call, whatever the number of equal cycles",
        "{limit}, one `optax.cosine_decay_schedule` alone",
    ),
    Answer(
        "And in Keras' `fit`, with the recorder?",
        *("keras_fit", "schedule and recorder, tensorflow"),
        "{ratio} of an update's time without",
        "a constant rate, no callback",
    ),
    Answer(
        "How long does a snapshot of 100 MB hold the training up?",
        *("snapshot_cost", "held, 100 MB"),
        "{ours}: it is written in the background",
        "{limit}, one copy of as many bytes",
    ),
    Answer(
        "And of 1 GB?",
        *("snapshot_cost", "held, 1,000 MB"),
        "{ours}",
        "{limit}",
    ),
    Answer(
        "When is it safe on the disk?",
        *("snapshot_cost", "durable, 100 MB"),
        "{ours} later, for 100 MB",
        "{limit}, safetensors' `save_file` and an fsync",
    ),
    Answer(
        "How much memory does a recorder take?",
        *("snapshot_cost", "extra memory, 1,000 MB"),
        "{ours} the weights",
        "the copy that is being written",
    ),
    Answer(
        "What does the prediction of an ensemble of 5 cost?",
        *("ensemble_predict", "loader, stream, M = 5"),
        "{ratio} of five passes of one model",
        "a loop in PyTorch that keeps each pass's softmax",
    ),
    Answer(
        "How much memory does it take?",
        *("ensemble_predict", "memory, stream, M = 20"),
        "{ours}' worth of weights, for 20 members",
        "one model; all in memory, 20",
    ),
)


def main() -> None:
    """Write the pages and the plots."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    parts = [TABLES]
    for name, result in sorted(results.items()):
        plot(name, result["figures"], DOCS / "images" / f"bench_{name}.png")
        where = ", ".join(f"{what} {value}" for what, value in result["machine"].items())
        lines = [
            f"## {name}\n\n{_described(name)}\n\nMeasured with {where}.\n",
            "| figure | ours | best peer | limit | ours/peer | ours/limit | goal |",
            "|---|---|---|---|---|---|---|",
            *(_row(figure) for figure in result["figures"]),
            f"\n![{name}](images/bench_{name}.png)\n",
        ]
        parts.append("\n".join(lines))
    (DOCS / "performance-tables.md").write_text("\n".join(parts), encoding="utf-8")
    (DOCS / "performance.md").write_text(first_page(results), encoding="utf-8")


def first_page(results: Mapping[str, Any]) -> str:
    """Ten answers, and the goals that were missed."""
    machines = {f"{each['machine']['processor']}" for each in results.values()}
    cores = {each["machine"]["cores"] for each in results.values()}
    machine = f"{' or '.join(sorted(cores))} cores of {', '.join(sorted(machines))}"
    goals = [
        (name, figure)
        for name, result in sorted(results.items())
        for figure in result["figures"]
        if figure["met"] is not None
    ]
    missed = [
        f"- {figure['figure']} ({name}): {figure['ratio_to_' + figure['beside']][1]:.2f} times the "
        f"{figure['beside']}; the goal is {figure['goal']:g}"
        for name, figure in goals
        if not figure["met"]
    ]
    lines = [
        HEAD.format(machine=machine) + "\n".join(answer.line(results) for answer in ANSWERS),
        "Nothing of this was measured on a GPU yet: `benchmarks/on_device.sh` does it."
        if not any(name.startswith("gpu_") for name in results)
        else "",
        f"Of {len(goals)} goals that we set ourselves, {len(missed)} are not met:",
        "\n".join(missed),
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def _amount(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 999 else f"{value:,.0f}"


def _described(name: str) -> str:
    """What the benchmark says at its top, without how it is called."""
    module = ast.parse((RESULTS.parent / f"{name}.py").read_text(encoding="utf-8"))
    first, _, *others = (ast.get_docstring(module) or "").split("\n\n")
    return "\n\n".join([first, *others])


def _row(figure: Mapping[str, Any]) -> str:
    def times(ratio: list[float] | None) -> str:
        if ratio is None:
            return ""
        low, middle, high = ratio
        return f"{middle:.2f}" if low == high else f"{middle:.2f} ({low:.2f} to {high:.2f})"

    best = figure["best_peer"]
    peer = f"{_amount(figure['peers'][best])} ({best})" if best else ""
    goal = ""
    if figure["goal"] is not None:
        met = "met" if figure["met"] else "**not met**"
        goal = f"{figure['goal']:g} x the {figure['beside']}: {met}"
    cells = (
        f"{figure['figure']}, {figure['unit']}",
        _amount(figure["ours"]),
        peer,
        _amount(figure["limit"]),
        times(figure["ratio_to_peer"]),
        times(figure["ratio_to_limit"]),
        goal,
    )
    return f"| {' | '.join(cells)} |"


def plot(name: str, figures: list[Mapping[str, Any]], file: Path) -> None:
    """Ours, every peer and the limit, on a logarithmic axis."""
    shown, axes = pyplot.subplots(figsize=(10, 1 + 0.3 * len(figures)), layout="constrained")
    places = range(len(figures))
    peers = sorted({peer for figure in figures for peer in figure["peers"]})
    for peer in peers:
        at = [place for place in places if peer in figures[place]["peers"]]
        values = [figures[place]["peers"][peer] for place in at]
        axes.plot(values, at, "o", alpha=0.6, label=peer)
    at = [place for place in places if figures[place]["limit"] is not None]
    if at:
        limits = [figures[place]["limit"] for place in at]
        axes.plot(limits, at, "k|", markersize=12, label="limit")
    axes.plot([figure["ours"] for figure in figures], places, "D", color="C3", label="ours")
    axes.set_yticks(list(places), [f"{each['figure']}, {each['unit']}" for each in figures])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_title(name)
    axes.grid(axis="x", alpha=0.3)
    shown.legend(loc="outside right upper", fontsize="small")
    shown.savefig(file, dpi=100)
    pyplot.close(shown)


if __name__ == "__main__":
    main()
