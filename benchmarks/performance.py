"""Writes docs/performance.md and its plots from benchmarks/results.json.

python -m benchmarks.performance
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from benchmarks.harness import RESULTS

DOCS = Path(__file__).parents[1] / "docs"

HEAD = """# Performance

Written by `python -m nox -s bench`, which runs the modules of `benchmarks/`.
Ours, the peers and the limit take turns in one process. Times are medians; a
ratio is the median of the rounds' ratios, with their quartiles. The goal is for
the median of the ratio, or for a limit that is a number, for our median.
"""


def main() -> None:
    """Write the page and the plots."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    parts = [HEAD]
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
    (DOCS / "performance.md").write_text("\n".join(parts), encoding="utf-8")


def _described(name: str) -> str:
    """What the benchmark says at its top, without how it is called."""
    module = ast.parse((RESULTS.parent / f"{name}.py").read_text(encoding="utf-8"))
    first, _, *others = (ast.get_docstring(module) or "").split("\n\n")
    return "\n\n".join([first, *others])


def _row(figure: Mapping[str, Any]) -> str:
    def amount(value: float | None) -> str:
        return "" if value is None else f"{value:.3g}" if value < 999 else f"{value:,.0f}"

    def times(ratio: list[float] | None) -> str:
        if ratio is None:
            return ""
        low, middle, high = ratio
        return f"{middle:.2f}" if low == high else f"{middle:.2f} ({low:.2f} to {high:.2f})"

    best = figure["best_peer"]
    peer = f"{amount(figure['peers'][best])} ({best})" if best else ""
    goal = ""
    if figure["goal"] is not None:
        met = "met" if figure["met"] else "**not met**"
        goal = f"{figure['goal']:g} x the {figure['beside']}: {met}"
    cells = (
        f"{figure['figure']}, {figure['unit']}",
        amount(figure["ours"]),
        peer,
        amount(figure["limit"]),
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
