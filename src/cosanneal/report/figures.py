"""The figures of a report, one for each thing that a results document tells.

Members are numbered from 1, the oldest, as in the page's table: names may be
long. The study is drawn in demo.py, beside what the demonstration shows of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from matplotlib.lines import Line2D

from ..core.schedule import Schedule
from .demo import draw_study
from .passes import draw_passes
from .rates import draw_rate
from .style import (
    BLUE,
    COLOURS,
    DASHES,
    GREEN,
    GREY,
    MOST_RESTARTS,
    SNAPSHOT,
    VERMILION,
    WIDTH,
    Drawn,
    draw_curve,
    legend_below,
    mark_snapshots,
    new_panels,
    smoothed,
    tidy,
    whole_steps,
)
from .words import barrier, choice_of, member_title, plural

_MOST_METRICS = 6
_MOST_WRITTEN = 10  # more members than this have no numbers in the cells of a matrix
_MOST_NUMBERED = 12  # more members or cycles than this are not all numbered at an axis
_MOST_PATHS = 7  # more paths than this are not told apart by a legend

# From here on matplotlib's own arithmetic overflows.
_HUGE: Final = 1e300

# In a cell of a matrix: neither the black nor the white that a page's dark scheme changes.
_DARK, _BRIGHT = "#010101", "#fefefe"

_LAST = re.compile(r"last (\d+)(, temperature .*)?")

# The name of every figure there can be, in the order in which they come.
NAMES: Final = (
    *("training", "metrics", "members", "correlation", "disagreement"),
    *("reliability", "risk_coverage", "passes", "interpolation", "study", "schedules"),
)


def draw_results(results: Mapping[str, Any]) -> Iterator[Drawn]:
    """The figures that a results document has the numbers for.

    Args:
        results: the document, as `cosanneal.ensemble.results` describes it.

    Example:
        >>> from cosanneal.ensemble import analyze
        >>> part = analyze([[[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.7, 0.3]]], [0, 1])
        >>> [drawn.name for drawn in draw_results({"analysis": part})]
        ['members', 'correlation', 'disagreement', 'reliability']
    """
    analysis = results.get("analysis") or {}
    choice = choice_of(results)
    if "run" in results:
        yield _training(results["run"])
    said = [each["metrics"] for each in results.get("snapshots", ())]
    names = dict.fromkeys(name for metrics in said for name in metrics)
    if numeric := [name for name in names if any(_is_number(each.get(name)) for each in said)]:
        yield _metrics(results["snapshots"], numeric)
    if len((analysis or choice or {}).get("members", ())) > 1:
        yield _members(analysis, choice)
    for name in ("correlation", "disagreement"):
        if len(analysis.get(name, ())) > 1:
            yield _matrix(name, analysis[name])
    if "reliability" in analysis:
        yield _reliability(analysis["reliability"], choice)
    if "uncertainty" in results:
        yield _risk_coverage(results["uncertainty"])
    if analysis.get("passes"):
        yield draw_passes(analysis)
    if results.get("interpolations"):
        named = next(filter(None, (analysis.get("members"), results.get("snapshots"))), ())
        yield _interpolation(results["interpolations"], [member["name"] for member in named])
    if "study" in results:
        yield draw_study(results["study"])


def _training(run: Mapping[str, Any]) -> Drawn:
    """The rate, and the training loss where it is known, with every snapshot."""
    loss, ends = run["loss"], run["cycle_ends"]
    figure, panels = new_panels(*([1.9, 2.2] if loss else [2.3]), legend=0.35)
    style: dict[str, Any] = {"color": BLUE, "linewidth": 1.6}
    marks = SNAPSHOT | {"markersize": 7 if len(ends) <= MOST_RESTARTS else 3}
    if "rate" in run:
        steps = len(run["rate"])
        draw_curve(panels[0], _drawable(run["rate"]), style)
        at_ends = [run["rate"][end] for end in ends]
    else:
        schedule, steps = Schedule.from_dict(run["schedule"]), run["updates"]
        draw_rate(panels[0], schedule, steps, label="rate", **style)
        at_ends = [schedule.rate(end) for end in ends]
    if ends:
        panels[0].plot([float(end) for end in ends], at_ends, clip_on=False, **marks)
    panels[0].set_ylim(bottom=0)
    panels[0].set_title("learning rate")
    seen = f"The learning rate over {plural(steps, 'update')}"
    if loss:
        panels[0].sharex(panels[1])
        panels[0].tick_params(labelbottom=False)
        values = smoothed(_drawable(loss), ends)
        draw_curve(panels[1], values, style)
        if ends:
            mark_snapshots(panels[1], ends, values)
        finite = [value for value in values if math.isfinite(value)]
        if finite and 0 < 20 * min(finite) < max(finite):
            panels[1].set_yscale("log")
        panels[1].set_title("training loss, smoothed")
        seen += ", and the training loss under it"
    panels[-1].set_xlabel("step (optimizer updates)")
    panels[-1].xaxis.set_major_locator(whole_steps())
    for axes in panels:
        tidy(axes)
    lines = [Line2D([], [], **style), Line2D([], [], **SNAPSHOT)]
    for handle, label in zip(lines, ("each update", "snapshot, after it"), strict=True):
        handle.set_label(label)
    legend_below(figure, lines if ends else lines[:1])
    return Drawn(
        name="training",
        title="The training run",
        alt=f"{seen}, with {plural(len(ends), 'snapshot')} marked.",
        caption=f"{seen}. A dot is a snapshot, taken after the last update of a cycle"
        + (
            ". The loss is the mean over a hundredth of the run around each update, within a cycle."
            if loss
            else "."
        ),
        figure=figure,
    )


def _metrics(snapshots: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Drawn:
    """The metrics of these names, as far as there is room, against the cycle."""
    shown = names[:_MOST_METRICS]
    figure, panels = new_panels(*[1.5] * len(shown))
    for axes, name in zip(panels, shown, strict=True):
        pairs = [(each["cycle"], each["metrics"].get(name, "")) for each in snapshots]
        # Null stands for what was no finite number, as of a run that diverged: a gap.
        found = [
            (cycle, math.nan if value is None else value)
            for cycle, value in pairs
            if value is None or _is_number(value)
        ]
        cycles, values = zip(*found, strict=True)
        axes.plot(cycles, values, color=BLUE, linewidth=1.6, marker="o", markersize=5)
        axes.set_title(_plain_text(name))
        axes.xaxis.set_major_locator(whole_steps())
        axes.set_xlim(*_around([each["cycle"] for each in snapshots]))
        axes.tick_params(labelbottom=axes is panels[-1])
        tidy(axes)
    panels[-1].set_xlabel("cycle")
    listed = ", ".join(shown)
    rest = len(names) - len(shown)
    more = f" {rest} more stand{'s' if rest == 1 else ''} in the table." if rest else ""
    return Drawn(
        name="metrics",
        title="Your metrics",
        alt=f"{listed} of {plural(len(snapshots), 'snapshot')}, against the cycle.",
        caption="The numbers that were handed to the recorder, as they stand in the snapshots, "
        f"against the cycle at whose end each was taken.{more}",
        figure=figure,
    )


def _members(analysis: Mapping[str, Any], choice: Mapping[str, Any] | None) -> Drawn:
    """The scores of the mean of the last m, on all data that there are."""
    figure, panels = new_panels(2.1, 2.3, legend=0.6)
    count = len((analysis or choice or {})["members"])
    ms = list(range(1, count + 1))
    rows = [analysis["members"][-1], *analysis["ensembles"]] if analysis else []
    plain, tempered = _candidates(choice)
    handles: dict[str, Any] = {}
    style: dict[str, Any]
    sizes: dict[str, Any] = {"markersize": 5 if count <= _MOST_NUMBERED else 3}
    for axes, name, scale in zip(panels, ("error", "log_loss"), (100, 1), strict=True):
        if rows:
            label = "mean of the last m"
            values = [scale * row[name] for row in rows]
            style = {"color": BLUE, "linewidth": 1.8, "marker": "s", **sizes}
            handles[label] = axes.plot(ms, values, label=label, **style)[0]
        chosen = analysis.get("chosen") or (choice["candidates"][-1]["scores"] if choice else None)
        if chosen is not None:
            style = {"color": VERMILION, "linestyle": "-.", "linewidth": 1.4}
            handles["the choice"] = axes.axhline(scale * chosen[name], label="the choice", **style)
        if plain:
            label = "the same, validation data" if rows else "mean of the last m"
            values = [scale * plain[m][name] for m in sorted(plain)]
            style = {"color": GREEN, "linestyle": "--", "marker": "^", **sizes}
            handles[label] = axes.plot(sorted(plain), values, label=label, **style)[0]
        if tempered and name == "log_loss":
            label = "validation, at its temperature" if rows else "at its temperature"
            values = [scale * tempered[m][name] for m in sorted(tempered)]
            style = {"color": GREEN, "linestyle": ":", "marker": "v", **sizes}
            handles[label] = axes.plot(sorted(tempered), values, label=label, **style)[0]
        axes.set_title("error (%)" if name == "error" else "log-loss")
        if count <= _MOST_NUMBERED:
            axes.set_xticks(ms)
        else:
            axes.xaxis.set_major_locator(whole_steps())
        axes.set_xlim(*_around(ms))
        tidy(axes)
    panels[0].tick_params(labelbottom=False)
    panels[-1].set_xlabel("m: how many of the last members")
    legend_below(figure, list(handles.values()))
    data = plural(analysis["samples"], "sample") if analysis else "the validation data"
    caption = (
        f"What more members are worth: error and log-loss of the mean of the last m, on {data}."
        if rows
        else f"Error and log-loss of the mean of the last m, on {data} that the choice was made by."
    )
    if choice:
        caption += " The level line is the ensemble that was chosen, with its temperature"
        caption += ", on the same data." if rows else "."
    if choice and plain and rows:
        caption += (
            " Green: the same means on the "
            f"{plural(choice['samples'], 'validation sample')} that the choice was made by."
        )
    return Drawn(
        name="members",
        title="Error and log-loss against m",
        alt=f"Error and log-loss against the number of the last members, from 1 to {count}.",
        caption=caption,
        figure=figure,
    )


def _candidates(
    choice: Mapping[str, Any] | None,
) -> tuple[dict[int, Mapping[str, Any]], dict[int, Mapping[str, Any]]]:
    """The scores of the last m, without and with a temperature, by m."""
    plain: dict[int, Mapping[str, Any]] = {}
    tempered: dict[int, Mapping[str, Any]] = {}
    for candidate in choice["candidates"] if choice else ():
        match = _LAST.fullmatch(candidate["name"])
        if match:
            (tempered if match[2] else plain)[int(match[1])] = candidate["scores"]
    return plain, tempered


# The title of a matrix, and what it means.
_MATRICES: Final = {
    "correlation": (
        "Correlation of the members",
        "Pearson's correlation of every two members' probabilities, over all samples and classes. "
        "Where it is low (dark) the members differ, and their mean has something to gain.",
    ),
    "disagreement": (
        "Disagreement of the members",
        "The share of labels, in percent, for which two members predict different classes. "
        "Equal members (dark) add nothing to each other.",
    ),
}


def _matrix(name: str, rows: Sequence[Sequence[float | None]]) -> Drawn:
    """The correlation, or the disagreement, of every two members."""
    title, caption = _MATRICES[name]
    scale = 100 if name == "disagreement" else 1
    count = len(rows)
    # Symmetric: the lower half has all.
    cells = [
        [math.nan if value is None or j >= i else scale * value for j, value in enumerate(row[:-1])]
        for i, row in enumerate(rows)
    ][1:]
    found = [value for row in cells for value in row if math.isfinite(value)]
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    if low == high:
        low, high = low - 0.05, high + 0.05
    written = count <= _MOST_WRITTEN
    digits = (1 if scale == 100 else 2) + (high - low < 5 * scale / 100)
    figure, (axes,) = new_panels(WIDTH * 0.82)
    drawn = axes.pcolormesh(
        range(1, count + 1),
        range(2, count + 2),
        cells,
        cmap="cividis",
        vmin=low,
        vmax=high,
        edgecolors="white" if written else "none",
        linewidth=0.8,
        # So many cells are smaller as a picture, which a page can carry too.
        rasterized=not written,
    )
    for i, row in enumerate(cells if written else ()):
        for j, value in enumerate(row[: i + 1]):
            if math.isfinite(value):
                axes.text(
                    j + 1.5,
                    i + 2.5,
                    f"{value:.{digits}f}",
                    ha="center",
                    va="center",
                    fontsize=10 if count <= 6 else 7.5,
                    color=_BRIGHT if (value - low) / (high - low) < 0.55 else _DARK,
                )
    numbers = list(range(1, count + 1))
    step = 1 if count <= _MOST_NUMBERED else 5
    shown = [n for n in numbers if step == 1 or n == 1 or n % step == 0]
    axes.set_xticks([n + 0.5 for n in shown if n < count], [str(n) for n in shown if n < count])
    axes.set_yticks([n + 0.5 for n in shown if n > 1], [str(n) for n in shown if n > 1])
    axes.set_ylim(count + 1, 2)
    axes.set_aspect("equal")
    axes.set_xlabel("member")
    axes.set_ylabel("member")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.85, pad=0.03)
    bar.outline.set_visible(False)
    span = f"from {low:.3g} to {high:.3g}{' %' if scale == 100 else ''}" if found else "unknown"
    return Drawn(
        name=name,
        title=title,
        alt=f"The {name} of every two of {count} members, {span}.",
        caption=caption,
        figure=figure,
    )


def _reliability(diagrams: Mapping[str, Any], choice: Mapping[str, Any] | None) -> Drawn:
    """How often predictions come true, against their confidence."""
    figure, (axes, counts) = new_panels(3.1, 1.0, legend=0.35)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2)
    styles: dict[str, dict[str, Any]] = {
        "before": {"color": VERMILION, "linestyle": "--", "marker": "o", "markersize": 5},
        "after": {"color": BLUE, "linestyle": "-", "marker": "s", "markersize": 5},
    }
    several = "after" in diagrams
    handles: list[Line2D] = []
    for i, (name, style) in enumerate(styles.items()):
        if name not in diagrams:
            continue
        diagram = diagrams[name]
        label = f"{name} temperature" if several else "the prediction"
        label += f", ECE {100 * diagram['ece']:.2f} %"
        shares = [count / sum(diagram["count"]) for count in diagram["count"]]
        at = (diagram["confidence"], diagram["accuracy"])
        axes.plot(*at, color=style["color"], linestyle=style["linestyle"], linewidth=0.9, alpha=0.5)
        # A bin of few predictions says little, and is drawn small.
        sizes = [6 + 130 * share for share in shares]
        axes.scatter(
            *at, s=sizes, color=style["color"], marker=style["marker"], zorder=3, clip_on=False
        )
        handles.append(Line2D([], [], label=label, **style))
        counts.bar(
            [each + (0.008 * (2 * i - 1) if several else 0) for each in diagram["confidence"]],
            [100 * share for share in shares],
            width=0.014 if several else 0.024,
            color=style["color"],
        )
    counts.sharex(axes)
    lowest = min(min(diagram["confidence"]) for diagram in diagrams.values())
    axes.set_xlim(max(0.1 * math.floor(10 * lowest) - 0.02, -0.02), 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_title("share that came true")
    axes.tick_params(labelbottom=False)
    counts.set_title("predictions (%)")
    counts.set_xlabel("confidence")
    tidy(axes)
    tidy(counts)
    legend_below(figure, handles, columns=1)
    what = "of the chosen ensemble" if choice else "of the mean of all members"
    errors = " and ".join(f"{100 * each['ece']:.2f} %" for each in diagrams.values())
    return Drawn(
        name="reliability",
        title="Reliability before and after temperature" if several else "Reliability",
        alt=f"How often predictions {what} come true, against their confidence; expected "
        f"calibration error {errors}.",
        caption=f"How often predictions {what} of about one confidence come true, in bins of equal "
        "width; on the dotted line they are as sure as they may be, below it they promise too "
        "much, above it too little. Underneath: how many predictions are in each bin; a small mark "
        "is a bin of few. ECE is the mean distance to the line, by predictions.",
        figure=figure,
    )


def _risk_coverage(part: Mapping[str, Any]) -> Drawn:
    """The error rate of the surest, against the share of them."""
    selective = part["selective"]
    risk = selective["risk"]
    figure, (axes,) = new_panels(2.8, legend=0.55)
    labels = {"prediction": "the prediction", "last": "the last member alone"}
    styles: tuple[dict[str, Any], ...] = (
        {"color": BLUE, "linewidth": 1.8},
        {"color": VERMILION, "linestyle": "--", "linewidth": 1.4},
    )
    handles: list[Any] = []
    for row, style in zip(selective["rows"], styles, strict=False):
        label = f"{labels[row['model']]}, AURC {100 * row['aurc']:.2f} %"
        coverages, risks = ([100 * each for each in row[name]] for name in ("coverages", "risks"))
        handles += axes.plot(coverages, risks, label=label, **style)
        at = 100 * row["coverage_at_risk"]
        if 1 < at < 100:  # not the very first, right by chance
            axes.plot([at], [100 * risk], marker="o", color=style["color"], zorder=4)
    highest = 100 * max(max(row["risks"][len(row["risks"]) // 20 :]) for row in selective["rows"])
    if 100 * risk <= highest:
        axes.axhline(100 * risk, color=GREY, linestyle=":", linewidth=1.2)
    axes.set_xlim(0, 102)
    # What the very surest do by chance would leave no room for the others.
    axes.set_ylim(0, 1.08 * highest if highest else 1)
    axes.set_title("error (%)")
    axes.set_xlabel("coverage: how many are predicted, the surest first (%)")
    tidy(axes)
    legend_below(figure, handles, columns=1)
    first = selective["rows"][0]
    reached = f"{100 * first['coverage_at_risk']:.3g} %"
    return Drawn(
        name="risk_coverage",
        title="Errors against coverage",
        alt=f"The error rate of the surest predictions against how many they are; at most "
        f"{100 * risk:.3g} % errors for {reached} of them.",
        caption="What is wrong where only the surest are predicted and the others are left to "
        "somebody else. A curve that rises from 0 knows where its errors are; a level one does "
        f"not. At most {100 * risk:.3g} % errors"
        + (" (dotted)" if 100 * risk <= highest else "")
        + f" are made for {reached} of all.",
        figure=figure,
    )


def _interpolation(paths: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Drawn:
    """The loss on the straight lines between members' weights; `names` are all members'."""
    errors = all("errors" in path for path in paths)
    anew = all(path.get("statistics") for path in paths)
    told = len(paths) <= _MOST_PATHS
    legend = 0.25 * ((len(paths) + 1) // 2 if told else 1) + 0.1
    figure, panels = new_panels(*([2.2, 2.0] if errors else [2.6]), legend=legend)
    highest = max(paths, key=lambda path: -math.inf if path["barrier"] is None else path["barrier"])
    between = f"{_number(highest['first'], names)} → {_number(highest['second'], names)}"
    handles: dict[str, Any] = {}
    for axes, field in zip(panels, ("losses", "errors"), strict=False):
        for i, path in enumerate(paths):
            style: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "alpha": 0.6}
            label = "the other pairs"
            if told:
                style = {
                    "color": COLOURS[i % len(COLOURS)],
                    "linestyle": DASHES[i % len(DASHES)],
                    "linewidth": 1.6,
                }
                label = f"{_number(path['first'], names)} → {_number(path['second'], names)}"
            elif path is highest:
                style = {"color": VERMILION, "linewidth": 1.8, "zorder": 3}
                label = f"{between}, the highest barrier"
            scale = 100 if field == "errors" else 1
            values = [scale * each for each in _drawable(path[field])]
            handles[label] = axes.plot(_drawable(path["shares"]), values, label=label, **style)[0]
        axes.set_title("error (%)" if field == "errors" else "loss")
        tidy(axes)
    if errors:
        panels[0].tick_params(labelbottom=False)
    panels[-1].set_xlabel("share of the way from the first to the second")
    legend_below(figure, list(handles.values()))
    height = barrier(highest["barrier"])
    return Drawn(
        name="interpolation",
        title="Between two members' weights",
        alt=f"The loss along the straight line between the weights of "
        f"{plural(len(paths), 'pair')} of members; the highest barrier is {height}.",
        caption="The loss of the weights on the straight line between two members"
        + (", with running statistics estimated anew on the way" if anew else "")
        + ". A hump is a barrier: the two have found different solutions, of which the mean of the "
        "predictions gains and the mean of the weights does not. The highest, above the line "
        f"between its ends, is {height} ({between}).",
        figure=figure,
    )


def _number(name: str, names: Sequence[str]) -> str:
    """A member's number; where it is none of the members, its name."""
    if name in names:
        return str(names.index(name) + 1)
    return _plain_text(member_title(name))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HUGE


def _drawable(values: Sequence[float | None]) -> list[float]:
    """The values, without those that no axis has room for."""
    return [math.nan if each is None or abs(each) >= _HUGE else each for each in values]


def _around(numbers: Sequence[int]) -> tuple[float, float]:
    beside = max(0.05 * (max(numbers) - min(numbers)), 0.3)
    return min(numbers) - beside, max(numbers) + beside


def _plain_text(name: str) -> str:
    """A user's text, short, as matplotlib draws it: a dollar begins no formula."""
    name = "".join(each if each.isprintable() else "?" for each in name)
    short = name if len(name) <= 24 else f"{name[:11]}…{name[-12:]}"
    return short.replace("$", r"\$")
