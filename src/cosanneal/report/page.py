"""The report page: one HTML file that needs nothing else, and its figures beside it."""

from __future__ import annotations

import io
import math
import os
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ..core.atomic import replacing
from ..core.errors import CosannealError, MissingExtraError, shown
from ..core.version import __version__
from ..ensemble.metrics import TITLES
from ..ensemble.results import SCORES, check_results
from .figures import NAMES, Drawn, draw_results, member_title, plural
from .plots import BLUE, COLOURS, GREEN, GREY, VERMILION, save_figure

try:
    import matplotlib
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup, escape
except ModuleNotFoundError as error:
    if error.name not in ("jinja2", "markupsafe"):
        raise
    raise MissingExtraError.for_extra(
        "plot", package=error.name, needed_by="Writing a report"
    ) from error

# A colour of the page in the light scheme and in the dark one. What the figures
# are drawn in is light's; in the page each stands for the scheme's own.
_COLOURS: Final = {
    "paper": ("#ffffff", "#16181c"),
    "ink": ("#000000", "#e6e6e6"),
    "soft": ("#555555", "#a9adb3"),
    "line": ("#dddddd", "#3a3e45"),
    "shade": ("#f3f4f6", "#22262c"),
    "mark": ("#fff3d6", "#3a3017"),
    "blue": (BLUE, "#5db7f0"),
    "vermilion": (VERMILION, "#ff9147"),
    "green": (GREEN, "#35cf9f"),
    "grey": (GREY, "#a0a4aa"),
    "pink": (COLOURS[3], "#e3a6ca"),
    "orange": (COLOURS[4], "#f2b63c"),
    "sky": (COLOURS[5], "#8ccdf5"),
}

_HEADINGS: Final = {"error": "Error, %", "log_loss": "Log-loss", "brier": "Brier", "ece": "ECE, %"}
_SCALES: Final = {"error": (100, 2), "log_loss": (1, 4), "brier": (1, 4), "ece": (100, 2)}

# Of the scores that sentences tell: the name, the word and the unit.
_ALONE: Final = (("error", "error", " %"), ("log_loss", "log-loss", ""))

_MINUS: Final = "\N{MINUS SIGN}"

# matplotlib has settings that only all threads can have together.
_SETTINGS: Final = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A table's row; `best` are the cells that are the best of their columns."""

    cells: Sequence[str]
    chosen: bool = False
    best: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A table; `texts` are the columns that hold words, of which the first names the row."""

    title: str
    caption: str
    columns: Sequence[str]
    texts: Sequence[str]
    groups: Sequence[Sequence[_Row]]


def write_report(results: Mapping[str, Any], path: str | os.PathLike[str]) -> list[Path]:
    """Write a page that shows all that a results document tells, and its figures beside it.

    The page is one HTML file: it needs no network, no script and no other file,
    follows the reader's light or dark scheme, and can be read on a phone. The
    figures are also written as PNG and SVG, into the folder `NAME_files` beside
    `NAME.html`; those of an earlier report that this one does not have are
    removed from it. Every file is written whole or not at all, the page last.

    Args:
        results: the document, as `cosanneal.ensemble.results` describes it.
        path: the page; it must end in .html.

    Returns:
        The page, and then the figures.

    Raises:
        EnsembleError: no such document; the path of the bad field is named.
        CosannealError: a document without any part, another suffix, or a file
            that cannot be written.

    Example:
        >>> import tempfile
        >>> from cosanneal.ensemble import analyze
        >>> members = [[[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.7, 0.3]]]
        >>> results = {"format": "cosanneal.results", "version": 1, "title": "Two members"}
        >>> page = Path(tempfile.mkdtemp()) / "report.html"
        >>> written = write_report({**results, "analysis": analyze(members, [0, 1])}, page)
        >>> [file.name for file in written][:2]
        ['report.html', 'members.png']
    """
    path = check_page(path)
    results = check_results(results)
    several = (results.get("comparison") or {}).get("seeds", 1)
    tables = [
        replace(table, caption=("The first seed. " if several > 1 else "") + table.caption)
        for table in _tables(results)
    ]
    if "comparison" in results and results["comparison"]["rows"]:
        tables.append(_comparison_table(results["comparison"]))
    drawn = list(draw_results(results))
    lead = [
        _of_first(" ".join(_lead(results)), f"The first of {several} seeds", several),
        _of_first(" ".join(_average_lead(results)), "The first seed", several),
        " ".join(_comparison_lead(results)),
    ]
    if not tables and not drawn and not any(lead):
        raise CosannealError(
            "A results document must have something to report, such as the part 'analysis'. "
            f"Received: {', '.join(results)}"
        )
    folder = path.with_name(f"{path.stem}_files")
    svgs = {each.name: _svg(each) for each in drawn}
    page = _template().render(
        title=results["title"],
        lead=lead,
        tables=tables,
        figures=[
            {
                "name": each.name,
                "title": each.title,
                "caption": each.caption,
                "svg": _inline(svgs[each.name], each),
            }
            for each in drawn
        ],
        note=_figures_note(drawn) if several > 1 else "",
        missing=_with_code(" ".join(_missing(results))),
        colours=_COLOURS,
        folder=folder.name,
        version=__version__,
    )
    files = [folder / f"{each.name}.{kind}" for each in drawn for kind in ("png", "svg")]
    try:
        if drawn:
            folder.mkdir(exist_ok=True)
        known = [folder / f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")]
        for file in known if folder.is_dir() else ():
            if file not in files:
                file.unlink(missing_ok=True)
    except OSError as error:
        raise CosannealError(
            f"{folder} could not be made ready for figures: {error.strerror or error}"
        ) from error
    for each in drawn:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            save_figure(each.figure, folder / f"{each.name}.png")
        with replacing(folder / f"{each.name}.svg") as svg:
            svg.write(svgs[each.name].encode())
    with replacing(path) as html:
        html.write(page.encode(errors="replace"))
    return [path, *files]


def check_page(path: str | os.PathLike[str]) -> Path:
    """The page's path, which must end as one.

    Raises:
        CosannealError: another suffix.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise CosannealError(f"A report's file must end in .html. Received: {str(path)!r}")
    return path


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html")


def _svg(drawn: Drawn) -> str:
    """The figure as SVG, in which text is text, the same for the same figure."""
    buffer = io.BytesIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": drawn.name}
    with _SETTINGS, matplotlib.rc_context(settings), warnings.catch_warnings():
        # A browser has glyphs that matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        drawn.figure.savefig(
            buffer, format="svg", dpi=200, metadata={"Date": None, "Title": drawn.title}
        )
    return buffer.getvalue().decode()


def _inline(svg: str, drawn: Drawn) -> Markup:
    """The SVG as a part of the page, in the colours of its scheme."""
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"<title>.*?</title>", "", svg, count=1, flags=re.DOTALL)
    head, _, rest = svg.partition(">")
    head = re.sub(r' (width|height|version|xmlns)="[^"]*"', "", head)
    # Names of parts are the figure's own; in the page they need the figure's name before them.
    by_hex = {light.lower(): f"var(--{name})" for name, (light, _) in _COLOURS.items()}

    def adapt(tag: re.Match[str]) -> str:
        text = re.sub(r'( id="|url\(#|xlink:href="#)', rf"\g<1>{drawn.name}-", tag[0])
        return re.sub(r"#[0-9a-f]{6}\b", lambda found: by_hex.get(found[0], found[0]), text)

    rest = re.sub(r"<[^>]*>", adapt, rest)  # within tags: what stands between is text
    # What matplotlib wrote has every text of a user's escaped.
    opened = Markup('{} role="img" aria-label="{}">').format(Markup(head), drawn.alt)  # noqa: S704
    return opened + Markup(rest)  # noqa: S704


def _number(value: float, scale: float = 1, digits: int = 2) -> str:
    return f"{scale * value:.{digits}f}".replace("-", _MINUS)


def _score(name: str, row: Mapping[str, Any]) -> str:
    return _number(row[name], *_SCALES[name]) if name in row else ""


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def _choice(results: Mapping[str, Any]) -> Mapping[str, Any] | None:
    analysis: Mapping[str, Any] = results.get("analysis") or {}
    return analysis.get("choice") or results.get("choice")


def _what(choice: Mapping[str, Any]) -> str:
    """The chosen members, in words."""
    count = len(choice["members"])
    used = sum(member["weight"] > 0 for member in choice["members"])
    if count == 1:
        return "the only member"
    if choice["select"] == "last":
        if used == count:
            return f"the mean of all {count}"
        return "the last one alone" if used == 1 else f"the mean of the last {used}"
    how = "found greedily" if choice["select"] == "greedy" else "of the least log-loss"
    return f"a mean of {used} with the weights {how}"


def _lead(results: Mapping[str, Any]) -> Iterator[str]:
    """What the numbers say, in sentences."""
    analysis, choice = results.get("analysis"), _choice(results)
    if "snapshots" in results:
        snapshots = results["snapshots"]
        yield (
            f"The folder holds {plural(len(snapshots), 'snapshot')}, the last of them after "
            f"{plural(snapshots[-1]['step'], 'update')}."
        )
    elif "run" in results:
        run = results["run"]
        steps = len(run["rate"]) if "rate" in run else run["updates"]
        snapshots = plural(len(run["cycle_ends"]), "snapshot")
        yield f"The run of {plural(steps, 'update')} left {snapshots}."
    if choice:
        heat, count = choice["temperature"], len(choice["members"])
        samples = plural(choice["samples"], "validation sample")
        at = f"a temperature of {heat:.3g}"
        if count > 1:
            told = f"Of {count} members, {_what(choice)} was chosen, for the least "
            told += f"{TITLES[choice['metric']]} on {samples}"
            yield told + (f", at {at}." if heat != 1 else ", without a temperature.")
        else:
            what = f"{at} was fitted to it" if heat != 1 else "it was looked at"
            yield f"There is one member only, and {what} on {samples}."
    if analysis:
        yield from _analysis_lead(analysis)
    elif choice:
        best = choice["candidates"][-1]
        scale, digits = _SCALES[choice["metric"]]
        between = _interval(choice["interval"], scale, digits, ("lower", "higher"))
        points = ", percentage points" if scale == 100 else ""
        yield (
            f"There, on the data that it was chosen on, its error is {_score('error', best)} % and "
            f"its log-loss {_score('log_loss', best)}; compared with the mean of all members, its "
            f"{TITLES[choice['metric']]} is {between} (95 % interval{points}). "
            "New data will show less of what it gains."
        )
    elif "snapshots" in results:
        yield "No ensemble was chosen among them yet."


def _of_first(text: str, seed: str, several: int) -> str:
    """A text of the first seed alone, which says so where there are several."""
    return f"{seed}: {text[:1].lower()}{text[1:]}" if several > 1 and text else text


def _comparison_lead(results: Mapping[str, Any]) -> Iterator[str]:
    """Which of the models compared is best."""
    if "comparison" in results and (rows := results["comparison"]["rows"]):
        seeds = results["comparison"]["seeds"]
        names = ("test_error", "test_nll")
        # Of equal ones, that which is the best in the other score too.
        best = [
            min(rows, key=lambda row: [row[each]["mean"] for each in order])
            for order in (names, names[::-1])
        ]
        error = f"error ({_spread(best[0]['test_error'], 100, 2)} %)"
        loss = f"log-loss ({_spread(best[1]['test_nll'], 1, 4)})"
        told = f"“{best[0]['model']}” has the least mean test {error} and "
        if best[0] is best[1]:
            told += loss
        else:
            told += f"“{best[1]['model']}” has the least mean test {loss}"
        yield f"Over {plural(seeds, 'seed')}, {told}."


def _analysis_lead(analysis: Mapping[str, Any]) -> Iterator[str]:
    members, samples = analysis["members"], plural(analysis["samples"], "sample")
    if analysis["chosen"]:
        best, subject = analysis["chosen"], "it"
        yield (
            f"On the {samples} that are reported here, its error is {_score('error', best)} % and "
            f"its log-loss {_score('log_loss', best)}."
        )
    else:
        best = (analysis["ensembles"] or members)[-1]
        subject = "that mean" if len(members) > 1 else "it"
        who = f"the mean of all {len(members)} members" if len(members) > 1 else "the one member"
        yield (
            f"On {samples}, the error of {who} is {_score('error', best)} % and its log-loss "
            f"{_score('log_loss', best)}."
        )
    for field, other in (
        ("comparisons", "the last member alone"),
        ("comparisons_with_mean", f"the plain mean of all {len(members)} members"),
    ):
        found = {row["metric"]: row for row in analysis.get(field, ())}
        if {"error", "log_loss"} <= found.keys():
            error = _difference(found["error"], 100, 2, " percentage points", ("fewer", "more"))
            loss = _difference(found["log_loss"], 1, 4, "", ("lower", "higher"))
            yield f"Beside {other}, {subject} has {error}, and a log-loss {loss}."
    if analysis["chosen"]:
        yield (
            "Members, weights and temperature come from the validation data alone; these scores "
            "come from data that had no part in the choice."
        )
    else:
        yield "Nothing was chosen."


def _difference(
    row: Mapping[str, Any], scale: float, digits: int, unit: str, words: tuple[str, str]
) -> str:
    """A difference and its interval, in words."""
    noun = " errors" if unit else ""
    if row["interval"][0] == row["interval"][1] == 0:
        return f"the same number of{noun}" if unit else "that is the same"
    value = row["difference"]
    between = _interval(row["interval"], scale, digits, words)
    told = f"{_number(abs(value), scale, digits)}{unit} {words[value > 0]}{noun}"
    if value == 0:
        told = f"as many{noun}" if unit else "that is the same"
    return f"{told} ({100 * row['level']:.3g} % interval: {between})"


def _interval(interval: Sequence[float], scale: float, digits: int, words: tuple[str, str]) -> str:
    low, high = interval
    near, far = (_number(abs(value), scale, digits) for value in sorted(interval, key=abs))
    if high < 0 or low > 0:
        return f"{near} to {far} {words[low > 0]}"
    below, above = (_number(abs(value), scale, digits) for value in interval)
    told = f"from {below} {words[0]} to {above} {words[1]}"
    return f"{told}, which leaves open which is better"


def _average_lead(results: Mapping[str, Any]) -> Iterator[str]:
    """What averaged weights are worth."""
    if "average" not in results:
        return
    average = results["average"]
    count = plural(len(average["members"]), "member")
    if average["refused"] is not None:
        yield f"The weights of {count} were not averaged: {average['refused'].rstrip('.')}."
        return
    told = f"The mean of the weights of {count}, one model at the cost of one, has an error of "
    told += f"{_score('error', average)} % and a log-loss of {_score('log_loss', average)}"
    if ensemble := average.get("ensemble"):
        told += f"; their ensemble has {_score('error', ensemble)} % and "
        told += _score("log_loss", ensemble)
    yield f"{told}."
    yield from _better_alone(average, (results.get("analysis") or {}).get("members", ()))
    if "allowed" in average and _exceeds(average):
        yield (
            "By default they would not be averaged: a barrier "
            f"{'that is' if average['barrier'] is None else 'of'} {_barrier(average)} lies between "
            f"them, where {average['allowed']:.3g} is allowed."
        )


def _better_alone(
    average: Mapping[str, Any], members: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Which members alone are better than the mean of their weights."""
    own = [member for member in members if member["name"] in average["members"]]
    if len(own) < 2 or len(own) < len(average["members"]):
        return
    if all(average[name] > max(row[name] for row in own) for name, _, _ in _ALONE):
        yield "Each of them alone is better."
        if members[-1] in own:
            return
        own = []
    told: dict[str, str] = {}  # of the last member, where it is the best of them
    for who, rows in (("The best of them", own), ("The last member", members[-1:])):
        lower = [
            f"a lower {what} ({_score(name, best)}{unit})"
            for name, what, unit in _ALONE
            for best in [min(rows, key=lambda row: row[name], default=average)]
            if best[name] < average[name]
        ]
        if lower:
            told[_listed(lower)] = who
    for what, who in told.items():
        yield f"{who} alone has {what}."


def _exceeds(average: Mapping[str, Any]) -> bool:
    """Whether the barrier is higher than what is allowed by default."""
    return average["barrier"] is None or average["barrier"] > average["allowed"]


def _barrier(average: Mapping[str, Any]) -> str:
    barrier = average["barrier"]
    return "not finite" if barrier is None else f"{barrier:.3g}"


def _figures_note(drawn: Sequence[Drawn]) -> str:
    """Which of the figures are of the first seed alone, where there are several."""
    others = [f"“{each.title}”" for each in drawn if each.name == "study"]
    if len(others) == len(drawn):
        return ""
    return f"All of the first seed{', but for' if others else ''} {_listed(others)}".rstrip() + "."


def _tables(results: Mapping[str, Any]) -> Iterator[_Table]:
    analysis, choice = results.get("analysis"), _choice(results)
    if "snapshots" in results:
        yield _snapshot_table(results["snapshots"], choice)
    if analysis:
        yield _member_table(analysis, choice)
    elif choice and "snapshots" not in results:
        yield _Table(
            title="Members",
            caption="The members, oldest first, and the weight of each in the chosen ensemble.",
            columns=("#", "Member", "Weight"),
            texts=("Member",),
            groups=[
                [
                    _Row(
                        cells=(str(i), member_title(member["name"]), _weight(member["weight"])),
                        chosen=member["weight"] > 0,
                    )
                    for i, member in enumerate(choice["members"], start=1)
                ]
            ],
        )
    if choice:
        yield _candidate_table(choice)
    if "average" in results and results["average"]["refused"] is None:
        yield _average_table(results["average"])


def _weight(weight: float | None) -> str:
    return "" if weight is None else f"{weight:.3f}" if weight else "0"


def _member_table(analysis: Mapping[str, Any], choice: Mapping[str, Any] | None) -> _Table:
    members = analysis["members"]
    weights = [member["weight"] for member in choice["members"]] if choice else []
    titled: list[list[tuple[str, str, str, Mapping[str, Any], bool]]] = [
        [
            (
                str(i + 1),
                member_title(member["name"]),
                _weight(weights[i]) if choice else "",
                member,
                bool(choice and weights[i] > 0),
            )
            for i, member in enumerate(members)
        ],
        [("", f"Mean of the last {row['last']}", "", row, False) for row in analysis["ensembles"]],
    ]
    if choice:
        heat = choice["temperature"]
        name = f"Chosen: {_what(choice)}" + (f", temperature {heat:.3g}" if heat != 1 else "")
        titled.insert(0, [("", name, "", analysis["chosen"], True)])
    columns = ["#", "Member or ensemble", *(["Weight"] if choice else [])]
    rows = [
        [
            ([number, name, *([weight] if choice else [])], scores, chosen)
            for number, name, weight, scores, chosen in group
        ]
        for group in titled
    ]
    return _Table(
        title="Members",
        caption=f"Scores on {plural(analysis['samples'], 'sample')}; the best of each column is "
        "bold."
        + (" Marked: what was chosen, with the weight of each member in it." if choice else ""),
        columns=[*columns, *_HEADINGS.values()],
        texts=("Member or ensemble",),
        groups=_scored(rows),
    )


def _scored(
    groups: Sequence[Sequence[tuple[Sequence[str], Mapping[str, Any], bool]]],
    names: Sequence[str] = SCORES,
) -> list[list[_Row]]:
    """Rows of some cells and then the scores, of which the best are told."""
    every = [scores for group in groups for _, scores, _ in group]
    least = {
        name: min((row[name] for row in every if name in row), default=math.nan) for name in names
    }
    return [
        [
            _Row(
                cells=[*cells, *(_score(name, scores) for name in names)],
                chosen=chosen,
                best=frozenset(
                    len(cells) + i
                    for i, name in enumerate(names)
                    if len(every) > 1 and scores.get(name) == least[name]
                ),
            )
            for cells, scores, chosen in group
        ]
        for group in groups
    ]


def _candidate_table(choice: Mapping[str, Any]) -> _Table:
    candidates = choice["candidates"]
    metric = choice["metric"]
    samples = plural(choice["samples"], "validation sample")
    names = ("error", "log_loss", "brier")
    searched = {
        "last": "Each number m of the last members was tried, and the best one taken.",
        "greedy": "Members were added one after the other, with replacement, while it helped.",
        "weights": "The weights are those of the least log-loss"
        + (f", which they miss by {choice['gap']:.1g} at most." if choice["gap"] else "."),
    }
    return _Table(
        title="What was considered",
        caption=f"Why this one: its {TITLES[metric]} on {samples}, "
        f"the data of the choice. {searched[choice['select']]} The best of each column is bold.",
        columns=["Candidate", "Temperature", *(_HEADINGS[name] for name in names)],
        texts=("Candidate",),
        groups=_scored(
            [
                [
                    ([name[:1].upper() + name[1:], heat or "none"], each, each is candidates[-1])
                    for each in (candidates[-1], *candidates[:-1])
                    for name, _, heat in [each["name"].partition(", temperature ")]
                ]
            ],
            names,
        ),
    )


def _snapshot_table(
    snapshots: Sequence[Mapping[str, Any]], choice: Mapping[str, Any] | None
) -> _Table:
    weights = {member["name"]: member["weight"] for member in choice["members"]} if choice else {}
    others = any(each["name"] not in weights for each in snapshots)
    metrics = list(dict.fromkeys(name for each in snapshots for name in each["metrics"]))
    return _Table(
        title="Snapshots",
        caption="The snapshots of the folder, oldest first, with the rate of the update before "
        "each and the metrics that were handed to the recorder."
        + (" Marked: those that were chosen, with their weights." if choice else "")
        + (" Those without a weight were no members." if choice and others else ""),
        columns=[
            *("#", "Snapshot", "Cycle", "Step", "Rate"),
            *(["Weight"] if choice else []),
            *metrics,
        ],
        texts=("Snapshot",),
        groups=[
            [
                _Row(
                    cells=[
                        str(i),
                        member_title(each["name"]),
                        str(each["cycle"]),
                        f"{each['step']:,}",
                        _cell(each["rate"]),
                        # Those that were no members were not dropped by the choice.
                        *([_weight(weights.get(each["name"]))] if choice else []),
                        *(_cell(each["metrics"].get(name, "")) for name in metrics),
                    ],
                    chosen=weights.get(each["name"], 0) > 0,
                )
                for i, each in enumerate(snapshots, start=1)
            ]
        ],
    )


def _cell(value: object) -> str:
    """What a user put there, short."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", _MINUS)
    text = value if isinstance(value, str) else shown(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _average_table(average: Mapping[str, Any]) -> _Table:
    rows = [(["Mean of the weights"], average, False)]
    if average.get("ensemble"):
        rows.append((["Ensemble of the same members"], average["ensemble"], False))
    names = [member_title(name) for name in average["members"]]
    caption = f"One model whose weights are the mean of {_listed(names)}, beside the ensemble of "
    caption += "their predictions."
    if "picked_on" in average:
        samples = plural(average["picked_on"], "validation sample")
        caption += f" Their number was picked on {samples}."
    if "allowed" in average:
        caption += f" The highest barrier between them is {_barrier(average)}; by default "
        caption += f"{average['allowed']:.3g} is allowed."
    elif average.get("barrier") is not None:
        caption += f" The highest barrier between them is {_barrier(average)}."
    return _Table(
        title="Averaged weights",
        caption=caption,
        columns=["Model", *_HEADINGS.values()],
        texts=("Model",),
        groups=_scored([rows]),
    )


def _comparison_table(comparison: Mapping[str, Any]) -> _Table:
    rows, seeds = comparison["rows"], comparison["seeds"]
    columns = (("test_error", "Test error, %", 100, 2), ("test_nll", "Test log-loss", 1, 4))
    least = {name: min(row[name]["mean"] for row in rows) for name, *_ in columns}
    return _Table(
        title=comparison.get("title", "Models compared"),
        caption=(f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "One seed")
        + "; the best of each column is bold."
        + (f" {comparison['note']}" if comparison.get("note") else ""),
        columns=["Model", *(heading for _, heading, _, _ in columns)],
        texts=("Model",),
        groups=[
            [
                _Row(
                    cells=[
                        row["model"],
                        *(_spread(row[name], scale, digits) for name, _, scale, digits in columns),
                    ],
                    best=frozenset(
                        i
                        for i, (name, *_) in enumerate(columns, start=1)
                        if row[name]["mean"] == least[name]
                    ),
                )
                for row in rows
            ]
        ],
    )


def _spread(spread: Mapping[str, Any], scale: float, digits: int) -> str:
    told = _number(spread["mean"], scale, digits)
    if spread["std"] is None:
        return told
    return f"{told} ± {_number(spread['std'], scale, digits)}"


def _missing(results: Mapping[str, Any]) -> Iterator[str]:
    """What a report could also show, and where it comes from."""
    found = []
    if "run" not in results:
        found.append("the rate of the run (`cosanneal report FOLDER`, of its snapshots)")
    elif results["run"]["loss"] is None:
        found.append("the training loss (a results document takes it in its part `run`)")
    if "analysis" not in results:
        found.append(
            "the members' scores on test data, their correlation and reliability (`cosanneal "
            "evaluate --predictions 'test/*.npy' --labels y.npy --report page.html`, or "
            "`cosanneal.ensemble.analyze`)"
        )
    if _choice(results) is None:
        found.append(
            "a choice of members (`--validation-predictions` and `--validation-labels` of "
            "`cosanneal evaluate`, or `fit` and `save` of a SnapshotEnsemble)"
        )
    if not results.get("interpolations"):
        found.append(
            "the loss between two members' weights (`barriers` of what `average_weights` returns, "
            "or `cosanneal.ensemble.interpolate`)"
        )
    if "average" not in results:
        found.append("averaged weights beside the ensemble (`cosanneal.ensemble.average_weights`)")
    if found:
        yield f"Not in this report: {'; '.join(found)}."
        yield (
            "`cosanneal.ensemble.write_results` writes all of it into one document, of which "
            "`cosanneal report results.json` makes a page."
        )


def _with_code(text: str) -> Markup:
    """The page's own words, with what stands in backquotes as code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704
