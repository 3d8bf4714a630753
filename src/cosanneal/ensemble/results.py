"""The results document: what is known of an ensemble, as plain data that a report is drawn from.

A dict for JSON with `format`, `version`, a `title` and any of these parts. A
score is a dict of `error` and `log_loss`, and mostly `brier` and `ece`.

- `run`: the training run. `rate`, one for each step, or in its place
  `schedule` (as `Schedule.to_dict` gives it) and `updates`, their number;
  `loss`, one for each step, or null; `cycle_ends`, the steps after which
  snapshots were taken.
- `snapshots`: of each its `name`, `cycle`, `step`, `rate` and `metrics`.
- `choice`: what was chosen on validation data, as `Choice.to_dict` gives it.
- `analysis`: what `analyze` returns.
- `interpolations`: the fields of `Interpolation` and the names of the `first`
  and the `second` member. There may be `errors` along the path, and
  `statistics`: whether the running statistics of normalization layers were
  estimated anew on the way, as `average_weights` does it; a mean of them
  makes barriers look higher than they are.
- `average`: the `members` whose weights were averaged, the mean's own score
  beside that of their `ensemble`, and `refused`: why no mean was taken, or
  null. There may be the `barrier` between them and what is `allowed` by default
  in its place, and `picked_on`: how many validation samples said how many to
  average.
- `comparison`: models over so many `seeds`; `rows` with the `model`'s name and
  `test_error` and `test_nll`, each with `mean` and `std` (null for one seed);
  there may be a `title` and a `note`. With several seeds, the parts above are
  of the first.
- `study`: one budget of `updates` cut into more and more cycles; `rows` with
  `cycles`, and for the `last` snapshot, `all` and the `best` of them, each
  `test_error` and `test_nll` as in a comparison.

Other parts must be dicts; they are kept and not looked at. A number that is
not finite is null.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from ..core.atomic import replacing
from ..core.documents import read_document
from ..core.errors import CosannealError, EnsembleError, SnapshotError, shown
from ..core.records import Reader
from ..core.schedule import Schedule
from ..snapshots.store import SnapshotStore
from .choose.choice import Choice
from .members import CHOICE_NAME, members_of
from .predict.pooling import Pool
from .score.analysis import correlation, disagreement
from .score.evidence import compare_scores
from .score.metrics import (
    METRICS,
    brier_score,
    calibration_error,
    error_rate,
    log_loss,
    reliability,
    sample_scores,
)

FORMAT: Final = "cosanneal.results"
VERSION: Final = 1

# By how much the means of probabilities may leave [0, 1], as they may themselves.
_SLACK: Final = 1e-2

# The highest that a score can be.
_MOST: Final = {
    "error": 1.0,
    "log_loss": sys.float_info.max,
    "brier": 2.0 + 4 * _SLACK,
    "ece": 1.0 + _SLACK,
}
SCORES: Final = tuple(_MOST)

T = TypeVar("T")


def scores_of(
    probabilities: Any, labels: Any, *, class_axis: int | None = -1, bins: int = 15
) -> dict[str, float]:
    """A score, as a results document has it: `error`, `log_loss`, `brier` and `ece`."""
    return {
        "error": error_rate(probabilities, labels, class_axis=class_axis),
        "log_loss": log_loss(probabilities, labels, class_axis=class_axis),
        "brier": brier_score(probabilities, labels, class_axis=class_axis),
        "ece": calibration_error(probabilities, labels, bins=bins, class_axis=class_axis),
    }


def analyze(
    predictions: Sequence[Any] | Any,
    labels: Any,
    *,
    names: Sequence[str] | None = None,
    choice: Choice | None = None,
    class_axis: int | None = -1,
    bins: int = 15,
    seed: int = 0,
) -> dict[str, Any]:
    """What members are worth, alone and together, as the part `analysis` of a results document.

    Args:
        predictions: the members' probabilities, oldest first: a sequence of
            arrays of one shape (memory-mapped ones are read one at a time), or
            one array with the members along its first axis.
        labels: the true classes, as `cosanneal.ensemble.metrics` says, of data
            that no member was trained on and nothing was chosen by.
        names: of the members; by default those of the choice, or "0", "1", ...
        choice: what `fit` chose among these members, on other data.
        class_axis: the axis of the classes in one member's array, or None.
        bins: of the reliability diagrams and of the calibration error.
        seed: of the intervals.

    Returns:
        Plain data for JSON: `samples`, their number; `members`, the score of
        each, with its `name`; `ensembles`, that of the mean of the `last` 2, 3,
        ...; `choice` and `chosen`, its score (both null without one);
        `comparisons`, in each metric the paired difference of the best
        prediction (the chosen one, or the mean of all) to the last member, and
        `comparisons_with_mean` that of the chosen one to the mean of all;
        `correlation` and `disagreement` of every two members; and the
        `reliability` of the best prediction `before` its temperature and, where
        it has one, `after`.

    Raises:
        EnsembleError: no members, arrays that do not fit, or a choice that was
            made among others.

    Example:
        >>> members = [[[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.7, 0.3]]]
        >>> found = analyze(members, [0, 1], names=["first", "second"])
        >>> [(row["name"], row["error"]) for row in found["members"]]
        [('first', 0.0), ('second', 0.5)]
        >>> found["ensembles"][0]["last"], found["disagreement"]
        (2, [[0.0, 0.5], [0.5, 0.0]])
    """
    members = list(predictions)
    if not members:
        raise EnsembleError("Argument `predictions` must have at least one member. Received: none")
    if names is None:
        names = [str(i) for i in range(len(members))] if choice is None else choice.members
    if len(names) != len(members):
        raise EnsembleError(
            f"Argument `names` must have a name for each of {len(members)} members. "
            f"Received: {len(names)}"
        )
    if choice is not None and (tuple(names), class_axis) != (choice.members, choice.class_axis):
        raise EnsembleError(
            "Argument `choice` must have been made among these members, with the same class_axis. "
            f"Received: one among {shown(list(choice.members))} with class_axis="
            f"{choice.class_axis}, for {shown(list(names))} with class_axis={class_axis}"
        )

    def scores(p: Any) -> dict[str, float]:
        return scores_of(p, labels, class_axis=class_axis, bins=bins)

    def compared(first: Any, second: Any) -> list[dict[str, Any]]:
        rows = []
        for metric in METRICS:
            both = [
                sample_scores(metric, p, labels, class_axis=class_axis) for p in (first, second)
            ]
            found = compare_scores(*both, seed=seed)
            rows.append(
                {
                    "metric": metric,
                    "difference": found.difference,
                    "interval": list(found.interval),
                    "level": found.level,
                    "p_value": found.p_value,
                }
            )
        return rows

    def diagram(p: Any) -> dict[str, Any]:
        found = reliability(p, labels, bins=bins, class_axis=class_axis)
        return {
            "confidence": found.confidence.tolist(),
            "accuracy": found.accuracy.tolist(),
            "count": found.counts.tolist(),
            "ece": calibration_error(p, labels, bins=bins, class_axis=class_axis),
        }

    rows = [{"name": name, **scores(p)} for name, p in zip(names, members, strict=True)]
    last, ensembles = Pool[Any](class_axis=class_axis), []
    for m, member in enumerate(reversed(members), start=1):
        last.update(member)
        if m > 1:
            ensembles.append({"last": m, **scores(last.value)})
    everyone = best = before = last.value
    if choice is not None:
        best = choice.apply(members)
        before = replace(choice, temperature=1.0).apply(members)
    diagrams = {"before": diagram(before)}
    if choice is not None and choice.temperature != 1:
        diagrams["after"] = diagram(best)
    several = len(members) > 1
    return {
        "samples": len(labels),
        "members": rows,
        "ensembles": ensembles,
        "choice": None if choice is None else choice.to_dict(),
        "chosen": None if choice is None else scores(best),
        "comparisons": compared(best, members[-1]) if several or choice is not None else [],
        "comparisons_with_mean": compared(best, everyone) if several and choice is not None else [],
        "correlation": _plain(correlation(members).tolist()),
        "disagreement": disagreement(members, class_axis=class_axis).tolist(),
        "reliability": diagrams,
    }


def folder_results(folder: str | os.PathLike[str], *, choice: bool = True) -> dict[str, Any]:
    """What a folder of snapshots says of its run, as a results document.

    Only the headers are read: the schedule, the steps and the user's metrics;
    and `ensemble.json`, the choice that was saved beside the snapshots, if it is
    there.

    Args:
        folder: the folder.
        choice: False leaves the choice aside, also one that could not be read.

    Returns:
        A document with the parts `run`, `snapshots` and, if there is one, `choice`.

    Raises:
        SnapshotError: no folder, no snapshots in it, or one that is damaged.
        EnsembleError: the choice cannot be read, or was made among other snapshots.
    """
    store = SnapshotStore(folder)
    snapshots = store.list()
    if not snapshots:
        hint = ""
        if not store.folder.is_dir():
            hint = ", no folder"
        elif (store.folder / "results.json").is_file():
            hint = " there; it has a results.json: give that"
        raise SnapshotError(
            f"Folder {store.folder} must hold at least one snapshot. Received: none{hint}"
        )
    newest = snapshots[-1]
    recorded = newest.metadata["schedule"]
    results: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "title": f"Snapshots in {store.folder.resolve().name}",
        "run": {
            "schedule": newest.schedule.to_dict(),
            "updates": newest.step,
            "loss": None,
            # Those of an earlier schedule do not lie on this one's curve.
            "cycle_ends": [
                each.step - 1 for each in snapshots if each.metadata["schedule"] == recorded
            ],
        },
        "snapshots": [
            {
                "name": each.path.name,
                "cycle": each.cycle,
                "step": each.step,
                "rate": _plain(each.metadata["rate"]),
                "metrics": _plain(each.metadata["metrics"]),
            }
            for each in snapshots
        ],
    }
    file = store.folder / CHOICE_NAME
    if choice and file.exists():
        saved = Choice.load(file)
        members_of(saved, store, file)
        results["choice"] = saved.to_dict()
    return results


def write_results(results: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a results document as JSON, so that the file is all there or as it was.

    Args:
        results: the document, as this module describes it; numbers that are not
            finite are written as null.
        path: the file.

    Raises:
        EnsembleError: no such document (the path of the bad field is named), or
            the file cannot be written.
    """
    document = check_results(_plain(results))
    text = json.dumps(document, indent=1, allow_nan=False)
    with replacing(Path(path), error=EnsembleError) as file:
        file.write(text.encode() + b"\n")


def read_results(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a results document.

    Raises:
        EnsembleError: the file cannot be read, or holds no such document.
    """
    data = read_document(path, error=EnsembleError)
    try:
        return check_results(data)
    except EnsembleError as error:
        raise EnsembleError(f"{path}: {error}") from error


def check_results(data: Any) -> dict[str, Any]:
    """`data`, which must be a results document.

    Raises:
        EnsembleError: it is none, or one of an unknown version, or has a bad
            field, whose path is named.
    """
    reader = Reader.of(
        data,
        FORMAT,
        VERSION,
        what="A results document",
        source="write_results writes it",
        error=EnsembleError,
    )
    parts = [name for name in data if name not in ("format", "version", "title")]
    reader.only("format", "version", "title", optional=parts)
    reader.text("title")
    for name in parts:
        _PARTS.get(name, Reader.item)(reader, name)
    if {"choice", "analysis"} <= data.keys() and data["choice"] != data["analysis"]["choice"]:
        raise reader.error("choice", "that of 'analysis'; give it to analyze, or leave it out here")
    return dict(data)


def _plain(value: Any) -> Any:
    """The value without what JSON has no word for: NaN and the infinities become null."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check_run(results: Reader, name: str) -> None:
    run = results.item(name)
    run.only("loss", "cycle_ends", optional=("rate", "schedule", "updates"))
    if "rate" in run:
        run.only("rate", "loss", "cycle_ends")
        steps = len(_numbers(run, "rate", least=0))
        if not steps:
            raise run.error("rate", "a list of at least one rate")
    else:
        run.only("schedule", "updates", "loss", "cycle_ends")
        steps = _count(run, "updates", least=1)
        _nested(run, "schedule", Schedule.from_dict)
    if run.value("loss") is not None and len(_numbers(run, "loss", null=True)) != steps:
        raise run.error("loss", f"null or a list of {steps} losses, one for each rate")
    before = -1
    for i, end in enumerate(run.list("cycle_ends")):
        if isinstance(end, bool) or not isinstance(end, int) or not before < end < steps:
            raise run.error(f"cycle_ends[{i}]", f"a step after the one before and below {steps}")
        before = end


def _check_snapshots(results: Reader, name: str) -> None:
    if not results.list(name):
        raise results.error(name, "a list of at least one snapshot")
    for snapshot in results.items(name):
        snapshot.only("name", "cycle", "step", "rate", "metrics")
        snapshot.text("name")
        _count(snapshot, "cycle")
        _count(snapshot, "step")
        _number(snapshot, "rate", null=True)
        snapshot.item("metrics")


def _check_choice(results: Reader, name: str) -> Choice:
    choice = _nested(results, name, Choice.from_dict)
    if not choice.candidates:
        raise results.item(name).error("candidates", "a list of at least one candidate")
    return choice


def _check_analysis(results: Reader, name: str) -> None:
    part = results.item(name)
    part.only(
        *("samples", "members", "ensembles", "choice", "chosen", "comparisons"),
        optional=("comparisons_with_mean", "correlation", "disagreement", "reliability"),
    )
    _count(part, "samples", least=1)
    members = part.items("members")
    if not members:
        raise part.error("members", "a list of at least one member")
    for member in members:
        _check_scores(member, "name", optional=("file",))
        member.text("name")
    for i, row in enumerate(part.items("ensembles"), start=2):
        _check_scores(row, "last")
        if _count(row, "last") != i or i > len(members):
            raise row.error("last", f"{i}, and at most the number of members")
    if (part.value("choice") is None) != (part.value("chosen") is None):
        raise part.error("chosen", "there where 'choice' is, and null where it is null")
    if part.value("choice") is not None:
        choice = _check_choice(part, "choice")
        if choice.members != tuple(member.text("name") for member in members):
            raise part.error("choice", "one among the members of 'members'")
        _check_scores(part.item("chosen"))
    for field in ("comparisons", "comparisons_with_mean"):
        for row in part.items(field) if field in part else ():
            row.only("metric", "difference", "interval", "level", "p_value")
            if row.value("metric") not in METRICS:
                raise row.error("metric", f"one of {', '.join(map(repr, METRICS))}")
            _number(row, "difference")
            if len(_numbers(row, "interval")) != 2:
                raise row.error("interval", "two numbers")
            _number(row, "level", least=0, most=1)
            _number(row, "p_value", least=0, most=1)
    for field, least in (("correlation", -1), ("disagreement", 0)):
        if field in part:
            _check_square(part, field, len(members), least=least, most=1)
    if "reliability" in part:
        diagrams = part.item("reliability")
        diagrams.only("before", optional=("after",))
        for field in ("before", "after") if "after" in diagrams else ("before",):
            diagram = diagrams.item(field)
            diagram.only("confidence", "accuracy", "count", "ece")
            _number(diagram, "ece", least=0, most=_MOST["ece"])
            counts = _numbers(diagram, "count", least=1)
            for each in ("confidence", "accuracy"):
                found = _numbers(diagram, each, least=-_SLACK, most=1 + _SLACK)
                if len(found) != len(counts) or not counts:
                    raise diagram.error(each, "a list of as many as 'count', at least one")


def _check_interpolations(results: Reader, name: str) -> None:
    for path in results.items(name):
        path.only(
            "first", "second", "shares", "losses", "barrier", optional=("errors", "statistics")
        )
        path.text("first")
        path.text("second")
        shares = _numbers(path, "shares")
        if len(shares) < 2:
            raise path.error("shares", "a list of at least two numbers")
        for field in ("losses", "errors"):
            if field in path and len(_numbers(path, field, null=True)) != len(shares):
                raise path.error(field, "a list of as many as 'shares'")
        _number(path, "barrier", null=True)
        if "statistics" in path:
            path.flag("statistics")


def _check_average(results: Reader, name: str) -> None:
    part = results.item(name)
    others = ("ensemble", "barrier", "allowed", "picked_on")
    # What is allowed says nothing without the barrier.
    needed = ("members", "refused", *(("barrier",) if "allowed" in part else ()))
    part.only(*needed, optional=(*others, *SCORES))
    if not all(isinstance(member, str) for member in part.list("members")):
        raise part.error("members", "a list of names")
    if part.value("refused") is None:
        _check_scores(part, "members", "refused", optional=others)
    else:
        part.text("refused")
        part.only("members", "refused", optional=others)
    if "ensemble" in part and part.value("ensemble") is not None:
        _check_scores(part.item("ensemble"))
    if "barrier" in part:
        _number(part, "barrier", null=True)
    if "allowed" in part:
        _number(part, "allowed", least=0)
    if "picked_on" in part:
        _count(part, "picked_on", least=1)


def _check_comparison(results: Reader, name: str) -> None:
    part = results.item(name)
    part.only("seeds", "rows", optional=("title", "note"))
    _count(part, "seeds", least=1)
    for field in ("title", "note"):
        if field in part:
            part.text(field)
    for row in part.items("rows"):
        _check_spreads(row, "model")
        row.text("model")


def _check_study(results: Reader, name: str) -> None:
    part = results.item(name)
    part.only("updates", "seeds", "rows")
    _count(part, "updates", least=1)
    _count(part, "seeds", least=1)
    if not part.list("rows"):
        raise part.error("rows", "a list of at least one row")
    for row in part.items("rows"):
        row.only("cycles", "last", "all", "best")
        _count(row, "cycles", least=1)
        for field in ("last", "all", "best"):
            _check_spreads(row.item(field))


def _check_spreads(row: Reader, *others: str) -> None:
    row.only(*others, "test_error", "test_nll")
    for field in ("test_error", "test_nll"):
        spread = row.item(field)
        spread.only("mean", "std")
        _number(spread, "mean", least=0)
        _number(spread, "std", null=True, least=0)


_PARTS: Final[dict[str, Callable[[Reader, str], object]]] = {
    "run": _check_run,
    "snapshots": _check_snapshots,
    "choice": _check_choice,
    "analysis": _check_analysis,
    "interpolations": _check_interpolations,
    "average": _check_average,
    "comparison": _check_comparison,
    "study": _check_study,
}


def _check_scores(row: Reader, *others: str, optional: Sequence[str] = ()) -> None:
    row.only(*others, "error", "log_loss", optional=(*optional, "brier", "ece"))
    for field in SCORES:
        if field in row:
            _number(row, field, least=0, most=_MOST[field])


def _check_square(part: Reader, name: str, size: int, *, least: float, most: float) -> None:
    rows = part.list(name)
    if len(rows) != size:
        raise part.error(name, f"a list of {size} lists, one for each member")
    for i, row in enumerate(rows):
        if not isinstance(row, list | tuple) or len(row) != size:
            raise part.error(f"{name}[{i}]", f"a list of {size} numbers, one for each member")
        for j, value in enumerate(row):
            _check_number(part, f"{name}[{i}][{j}]", value, null=True, least=least, most=most)


def _number(reader: Reader, name: str, **bounds: Any) -> None:
    _check_number(reader, name, reader.value(name), **bounds)


def _numbers(reader: Reader, name: str, **bounds: Any) -> Sequence[Any]:
    values = reader.list(name)
    for i, value in enumerate(values):
        _check_number(reader, f"{name}[{i}]", value, **bounds)
    return values


def _check_number(
    reader: Reader,
    name: str,
    value: object,
    *,
    null: bool = False,
    least: float = -sys.float_info.max,
    most: float = sys.float_info.max,
) -> None:
    """Refuse what is no finite number within the bounds; null only where it may be."""
    if value is None and null:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        low = "" if least == -sys.float_info.max else f" of at least {least:g}"
        high = "" if most == sys.float_info.max else f" of at most {most:g}"
        both = f" from {least:g} to {most:g}" if low and high else low or high
        raise reader.error(name, f"a finite number{both}{' or null' if null else ''}")


def _count(reader: Reader, name: str, *, least: int = 0) -> int:
    count = reader.count(name)
    if count is None or count < least:
        raise reader.error(name, f"an integer of at least {least}")
    return count


def _nested(reader: Reader, name: str, parse: Callable[[Any], T]) -> T:
    """What a description of its own, with a format and a version, says."""
    try:
        return parse(reader.value(name))
    except CosannealError as error:
        raise EnsembleError(f"in '{reader.at(name)}': {error}") from error
