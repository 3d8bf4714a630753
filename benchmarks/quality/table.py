"""The results as JSON, and as the tables of `docs/quality.md`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.runner import machine
from cosanneal.core.atomic import replacing

from .tasks import SEARCHED, VIEWS

RESULTS: Final = Path(__file__).parent / "results.json"
PAGE: Final = Path(__file__).parents[2] / "docs" / "quality.md"
# What stands between these lines of the page is written anew.
START: Final = "<!-- tables: written by `python -m benchmarks.quality table` -->"
END: Final = "<!-- end of the tables -->"


def write_results(results: Mapping[str, Any], path: Path = RESULTS) -> None:
    """Write the results, with the machine and the versions that they were measured with."""
    with replacing(path) as file:
        content = {"machine": machine(), **results}
        file.write(json.dumps(content, indent=1).encode() + b"\n")


def read_results(path: Path = RESULTS) -> dict[str, Any]:
    """The committed results."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def cell(score: Mapping[str, float] | None) -> str:
    """A ratio and its standard error."""
    return "" if score is None else f"{score['ratio']:.3f} ± {score['error']:.3f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def numbers(score: Mapping[str, Any] | None, tasks: int) -> str:
    """Of several tasks the mean ratio, the worst, those won and lost, and if not all of `tasks`."""
    if score is None:
        return ""
    mean = "" if score["mean"] is None else f"{score['mean']:.3f}"
    some = f"; {score['tasks']} tasks only" if score["tasks"] < tasks else ""
    return f"{mean} (worst {score['worst']:.3f}; {score['won']} won, {score['lost']} lost{some})"


def most(methods: Mapping[str, Any], method: str, score: str) -> int:
    """The most tasks that one way to predict (`fit last`, say) has of any schedule."""
    way = method.partition("/")[2]
    same = (each for name, each in methods.items() if name.partition("/")[2] == way)
    return max((each[score]["tasks"] for each in same if each[score]), default=0)


def methods_of(results: Mapping[str, Any], schedule: str | None = None) -> list[str]:
    """The methods that were scored, or those of a schedule, in their order."""
    found: dict[str, None] = {}
    for task in results["tasks"].values():
        for budget in task["budgets"].values():
            found |= dict.fromkeys(budget["methods"])
    return [name for name in found if schedule in (None, name.partition("/")[0])]


def tables(results: Mapping[str, Any]) -> str:
    """All tables: over the tasks first, and then task by task."""
    parts = []
    budgets = list(next(iter(results["summary"]["to_cosine"].values())))
    titles = {
        "to_cosine": "one cosine run",
        "to_last": "the last snapshot of the same run",
        "to_base": "the plain schedule, predicted with in the same way",
    }
    for beside, title in titles.items():
        for half, by_budget in results["summary"][beside].items():
            parts.append(f"### Beside {title}: the {half} half\n")
            header = ["method", *(f"{b}: {s}" for b in budgets for s in ("loss", "error"))]
            rows = []
            for method in methods_of(results):
                if beside != "to_base" and method.partition("/")[0] in VIEWS:
                    continue
                cells = [
                    numbers(
                        by_budget[b].get(method, {}).get(s),
                        most(by_budget[b], method, s),
                    )
                    for b in budgets
                    for s in ("loss", "error")
                ]
                if any(cells) and method != "cosine/last":
                    rows.append([method, *cells])
            parts.append(markdown(header, rows))
    for half in ("tuning", "reported"):
        for schedule in (name for name in SEARCHED if name != "cosine"):
            names = methods_of(results, schedule)
            if not names:
                continue
            rows = []
            for task, found in results["tasks"].items():
                for budget, each in found["budgets"].items():
                    if found["half"] != half or schedule not in each["peaks"]:
                        continue
                    for score in next(iter(each["methods"].values())):
                        base = each["methods"]["cosine/last"][score]["mean"]
                        cells = [
                            cell(each["methods"].get(name, {}).get(score, {}).get("to_cosine"))
                            for name in names
                        ]
                        title = score.replace("_", "-").replace("rmse", "RMSE")
                        rows.append([f"{task}, {budget}, {title}", f"{base:.4f}", *cells])
            if not rows:
                continue
            short = [name.partition("/")[2] for name in names]
            parts.append(f"### {schedule}, task by task: the {half} half\n")
            parts.append(markdown(["task", "cosine", *short], rows))
    peaks = []
    budgets_of = [each for task in results["tasks"].values() for each in task["budgets"].values()]
    tried = {name for each in budgets_of for name in each["peaks"]}
    columns = [name for name in SEARCHED if name in tried]
    for task, found in results["tasks"].items():
        for budget, each in found["budgets"].items():
            edge = each["peaks_at_the_edge"]
            cells = [
                f"{each['peaks'][name]:g}{'*' if name in edge else ''}"
                if name in each["peaks"]
                else ""
                for name in columns
            ]
            counts = [str(each["steps"]), str(each["seeds"])]
            peaks.append([f"{task}, {budget}", *counts, *cells])
    parts.append("### The peaks that were chosen (* at an end of the grid)\n")
    parts.append(markdown(["task", "updates", "seeds", *columns], peaks))
    about = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    missing = "; ".join(results["missing"]) or "nothing"
    parts.append(f"Measured with {about}. Not measured: {missing}.\n")
    return "\n".join(parts)


def with_tables(page: str, results: Mapping[str, Any]) -> str:
    """The page with the tables of these results in place of those that it has.

    Raises:
        ValueError: the page has no place for them.
    """
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(
            f"The page must have the lines {START!r} and {END!r}, between which the tables go. "
            "Received: a page without them"
        )
    return f"{before}{START}\n\n{tables(results)}\n{END}{after}"


def write_page(path: Path = PAGE, results: Path = RESULTS) -> None:
    """Write the tables of the committed results into the page."""
    page = with_tables(
        path.read_text(encoding="utf-8"), json.loads(results.read_text(encoding="utf-8"))
    )
    with replacing(path) as file:
        file.write(page.encode())
