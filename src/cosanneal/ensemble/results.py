"""The results document: what is known of an ensemble, as plain data that a report is drawn from.

A dict for JSON with `format`, `version`, a `title` and any of these parts. A
score is a dict of `error` and `log_loss`, and mostly `brier` and `ece`; in `metrics`
there may be others by their names.

- `run`: the training run. `rate`, one for each step, or in its place `schedule` (as
  `Schedule.to_dict` gives it) and `updates`, their number; `loss`, one for each step, or null;
  `cycle_ends`, the steps after which snapshots were taken.
- `snapshots`: of each its `name`, `cycle`, `step`, `rate` and `metrics`.
- `choice`: what was chosen on validation data, as `Choice.to_dict` gives it.
- `analysis`: what `analyze` returns.
- `uncertainty`: what `analyze_uncertainty` returns.
- `regression`: what `analyze_regression` returns.
- `interpolations`: the fields of `Interpolation` and the names of the `first` and the `second`
  member. There may be `errors` along the path, and `statistics`: whether the running statistics
  of normalization layers were estimated anew on the way, as `average_weights` does it; a mean of
  them makes barriers look higher than they are.
- `average`: the `members` whose weights were averaged, the mean's own score beside that of their
  `ensemble`, and `refused`: why no mean was taken, or null. There may be the `barrier` between
  them and what is `allowed` by default in its place, and `picked_on`: how many validation samples
  said how many to average.
- `comparison`: models over so many `seeds`; `rows` with the `model`'s name and `test_error` and
  `test_nll`, each with `mean` and `std` (null for one seed); there may be a `title` and a `note`.
  With several seeds, the parts above are of the first.
- `study`: one budget of `updates` cut into more and more cycles; `rows` with `cycles`, and for
  the `last` snapshot, `all` and the `best` of them, each `test_error` and `test_nll` as in a
  comparison.

Other parts must be dicts; they are kept and not looked at. A number that is
not finite is null.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar, get_args

from ..core.atomic import replacing
from ..core.documents import read_document
from ..core.errors import CosannealError, EnsembleError
from ..core.records import Reader
from ..core.schedule import Schedule
from ..snapshots.metadata import without_nan
from .choose.choice import Choice
from .choose.conformal import Method
from .choose.diagnosis import findings_from
from .score.measures import is_metric
from .score.metrics import METRICS
from .score.regression import REGRESSION_METRICS

FORMAT: Final = "cosanneal.results"
VERSION: Final = 1

T = TypeVar("T")


def write_results(results: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a results document as JSON, so that the file is all there or as it was.

    Args:
        results: the document, as this module describes it; numbers that are not
            finite are written as null.
        path: the file.

    Raises:
        EnsembleError: no such document (the path of the bad field is named), or
            the file cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "results.json")
        >>> write_results({"format": FORMAT, "version": VERSION, "title": "mine"}, path)
        >>> read_results(path)["title"]
        'mine'
    """
    document = check_results(without_nan(results))
    text = json.dumps(document, indent=1, allow_nan=False)
    with replacing(path, error=EnsembleError) as file:
        file.write(text.encode() + b"\n")


def read_results(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a results document.

    Args:
        path: the file.

    Returns:
        The document, as this module describes it.

    Raises:
        EnsembleError: the file cannot be read, or holds no such document.

    Example: see `write_results`.
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


# What a field of a dict must be: it raises where the field is something else.
_Check: TypeAlias = Callable[[Reader, str], object]

_HUGE: Final = sys.float_info.max


@dataclass(frozen=True, slots=True)
class _Number:
    """A finite number within bounds; null only where it may be."""

    least: float = -_HUGE
    most: float = _HUGE
    null: bool = False

    def __call__(self, reader: Reader, name: str) -> None:
        self.check(reader, name, reader.value(name))

    def check(self, reader: Reader, name: str, value: Any) -> None:
        if value is None and self.null:
            return
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not self.least <= value <= self.most:
            low = "" if self.least == -_HUGE else f" of at least {self.least:g}"
            high = "" if self.most == _HUGE else f" of at most {self.most:g}"
            both = f" from {self.least:g} to {self.most:g}" if low and high else low or high
            raise reader.error(name, f"a finite number{both}{' or null' if self.null else ''}")


def _numbers(least: float = -_HUGE, most: float = _HUGE, *, null: bool = False) -> _Check:
    each = _Number(least, most, null)

    def check(reader: Reader, name: str) -> None:
        for i, value in enumerate(reader.list(name)):
            each.check(reader, f"{name}[{i}]", value)

    return check


def _count(least: int = 0) -> _Check:
    def check(reader: Reader, name: str) -> None:
        count = reader.count(name)
        if count is None or count < least:
            raise reader.error(name, f"an integer of at least {least}")

    return check


def _or_null(check: _Check) -> _Check:
    return lambda reader, name: reader.value(name) is None or check(reader, name)


def _dict(fields: Mapping[str, _Check]) -> _Check:
    return lambda reader, name: _check_fields(reader.item(name), fields)


def _dicts(fields: Mapping[str, _Check], *, at_least_one: str | None = None) -> _Check:
    def check(reader: Reader, name: str) -> None:
        if at_least_one is not None and not reader.list(name):
            raise reader.error(name, f"a list of at least one {at_least_one}")
        for each in reader.items(name):
            _check_fields(each, fields)

    return check


def _check_fields(reader: Reader, fields: Mapping[str, _Check]) -> None:
    """Have it these fields and no others; one may be missing where its name ends in "?" here."""
    needed = [name for name in fields if not name.endswith("?")]
    reader.only(*needed, optional=[name.rstrip("?") for name in fields])
    for name, check in fields.items():
        if name.rstrip("?") in reader:
            check(reader, name.rstrip("?"))


def _parsed(reader: Reader, name: str, parse: Callable[[Any], T]) -> T:
    """What a description of its own, with a format and a version, says."""
    try:
        return parse(reader.value(name))
    except CosannealError as error:
        raise EnsembleError(f"in '{reader.at(name)}': {error}") from error


# By how much the means of probabilities may leave [0, 1], as they may themselves.
_SLACK: Final = 1e-2

_SCORE: Final[dict[str, _Check]] = {
    "error": _Number(0, 1),
    "log_loss": _Number(0),
    "brier?": _Number(0, 2 + 4 * _SLACK),
    "ece?": _Number(0, 1 + _SLACK),
}
SCORES: Final = tuple(name.rstrip("?") for name in _SCORE)
# What the choice was made by, where that is none of these.
_SCORE["metrics?"] = lambda row, name: _check_metrics(row.item(name), row.value(name))

_SPREAD: Final = _dict({"mean": _Number(0), "std": _Number(0, null=True)})
_SPREADS: Final = {"test_error": _SPREAD, "test_nll": _SPREAD}


def _check_run(results: Reader, name: str) -> None:
    run = results.item(name)
    rates: dict[str, _Check] = {
        "schedule": lambda run, name: _parsed(run, name, Schedule.from_dict),
        "updates": _count(1),
    }
    if "rate" in run:
        rates = {"rate": _numbers(0)}
    loss = _or_null(_numbers(null=True))
    _check_fields(run, {"loss": loss, "cycle_ends": Reader.list, **rates})
    steps = len(run.list("rate")) if "rate" in run else run.value("updates")
    if not steps:
        raise run.error("rate", "a list of at least one rate")
    if run.value("loss") is not None and len(run.list("loss")) != steps:
        raise run.error("loss", f"null or a list of {steps} losses, one for each rate")
    before = -1
    for i, end in enumerate(run.list("cycle_ends")):
        if isinstance(end, bool) or not isinstance(end, int) or not before < end < steps:
            raise run.error(f"cycle_ends[{i}]", f"a step after the one before and below {steps}")
        before = end


def _check_choice(results: Reader, name: str) -> Choice:
    choice = _parsed(results, name, Choice.from_dict)
    if not choice.candidates:
        raise results.item(name).error("candidates", "a list of at least one candidate")
    return choice


def _check_analysis(results: Reader, name: str) -> None:
    part = results.item(name)
    _check_fields(part, _ANALYSIS)
    members = tuple(member.text("name") for member in part.items("members"))
    for i, row in enumerate(part.items("ensembles"), start=2):
        if row.value("last") != i or i > len(members):
            raise row.error("last", f"{i}, and at most the number of members")
    if (part.value("choice") is None) != (part.value("chosen") is None):
        raise part.error("chosen", "there where 'choice' is, and null where it is null")
    if part.value("choice") is not None and _check_choice(part, "choice").members != members:
        raise part.error("choice", "one among the members of 'members'")
    if "passes" in part:
        _check_passes(part)
    for field, each in _SQUARES.items():
        if field in part:
            _check_square(part, field, each, len(members))


def _check_passes(part: Reader) -> None:
    budget = (part.value("choice") or {}).get("budget")
    if budget is None:
        raise part.error("passes", "there only where 'choice' has a budget")
    cares = [row.number("care") for row in part.items("passes")]
    if cares != sorted(set(cares)) or budget["care"] not in cares or 1 not in cares:
        raise part.error("passes", "a list by rising care, up to 1, which has that of the choice")


def _check_regression(results: Reader, name: str) -> None:
    part = results.item(name)
    _check_fields(part, _REGRESSION)
    if part.value("outputs") not in ("values", "gaussian"):
        raise part.error("outputs", "'values' or 'gaussian'")
    quantiles = part.value("quantiles")
    told = len(part.list("levels") if quantiles is None else part.list("quantiles"))
    members = tuple(member.text("name") for member in part.items("members"))
    for i, row in enumerate(part.items("ensembles"), start=2):
        if row.value("last") != i or i > len(members):
            raise row.error("last", f"{i}, and at most the number of members")
    if (part.value("choice") is None) != (part.value("chosen") is None):
        raise part.error("chosen", "there where 'choice' is, and null where it is null")
    scored = [*part.items("members"), *part.items("ensembles")]
    if part.value("choice") is not None:
        choice = _check_choice(part, "choice")
        if choice.members != members or choice.outputs != part.value("outputs"):
            raise part.error("choice", "one among the members of 'members', of these outputs")
        scored.append(part.item("chosen"))
    for row in scored:
        if ("pinball" in row) != (quantiles is not None) or ("rmse" in row) == ("pinball" in row):
            raise row.error("rmse", "there, or 'pinball' where there are quantiles")
        for field in ("coverage", "width"):
            if field in row and len(row.list(field)) != told:
                raise row.error(field, f"a list of {told} numbers, one for each level or quantile")


def _check_square(part: Reader, name: str, each: _Number, size: int) -> None:
    rows = part.list(name)
    if len(rows) != size:
        raise part.error(name, f"a list of {size} lists, one for each member")
    for i, row in enumerate(rows):
        if not isinstance(row, list | tuple) or len(row) != size:
            raise part.error(f"{name}[{i}]", f"a list of {size} numbers, one for each member")
        for j, value in enumerate(row):
            each.check(part, f"{name}[{i}][{j}]", value)


def _one_of(values: Sequence[str]) -> _Check:
    def check(reader: Reader, name: str) -> None:
        if reader.value(name) not in values:
            raise reader.error(name, f"one of {', '.join(map(repr, values))}")

    return check


def _check_metrics(row: Reader, metrics: Mapping[str, Any]) -> None:
    for name in metrics:
        if not is_metric(name):
            raise row.error(name, "the score of a metric that is known")
        _Number()(row, name)


def _check_interval(row: Reader, name: str) -> None:
    _numbers()(row, name)
    if len(row.list(name)) != 2:
        raise row.error(name, "two numbers")


def _check_diagram(diagrams: Reader, name: str) -> None:
    diagram = diagrams.item(name)
    _check_fields(diagram, _DIAGRAM)
    count = len(diagram.list("count"))
    for field in ("confidence", "accuracy"):
        if len(diagram.list(field)) != count or not count:
            raise diagram.error(field, "a list of as many as 'count', at least one")


def _check_interpolations(results: Reader, name: str) -> None:
    _dicts(_INTERPOLATION)(results, name)
    for path in results.items(name):
        count = len(path.list("shares"))
        if count < 2:
            raise path.error("shares", "a list of at least two numbers")
        for field in ("losses", "errors"):
            if field in path and len(path.list(field)) != count:
                raise path.error(field, "a list of as many as 'shares'")


def _check_uncertainty(results: Reader, name: str) -> None:
    part = results.item(name)
    _check_fields(part, _UNCERTAINTY)
    selective = part.item("selective")
    _check_fields(selective, _SELECTIVE)
    models = [row.text("model") for row in selective.items("rows")]
    if models != ["prediction", "last"][: min(part.value("members"), 2)]:
        raise selective.error("rows", "those of 'prediction' and, of several members, 'last'")
    for row in selective.items("rows"):
        before = 0.0
        for i, coverage in enumerate(row.list("coverages")):
            if not before < coverage:
                raise row.error(f"coverages[{i}]", "greater than the one before")
            before = coverage
        if not before or len(row.list("risks")) != len(row.list("coverages")):
            raise row.error("risks", "a list of as many as 'coverages', at least one")


def _check_average(results: Reader, name: str) -> None:
    part = results.item(name)
    fields: dict[str, _Check] = {
        "members": Reader.list,
        "refused": Reader.value,
        "ensemble?": _or_null(_dict(_SCORE)),
        # What is allowed says nothing without the barrier.
        "barrier" if "allowed" in part else "barrier?": _Number(null=True),
        "allowed?": _Number(0),
        "picked_on?": _count(1),
    }
    if refused := "refused" in part and part.value("refused") is not None:
        part.text("refused")
    _check_fields(part, fields if refused else {**fields, **_SCORE})
    if not all(isinstance(member, str) for member in part.list("members")):
        raise part.error("members", "a list of names")


_COMPARED: Final[dict[str, _Check]] = {
    "difference": _Number(),
    "interval": _check_interval,
    "level": _Number(0, 1),
    "p_value": _Number(0, 1),
}
_COMPARISONS: Final = _dicts({"metric": _one_of(METRICS), **_COMPARED})
_BESIDE: Final = ("comparisons_with_last_calibrated?", "comparisons_with_baseline?")
_SQUARES: Final = {
    "correlation": _Number(-1, 1, null=True),
    "disagreement": _Number(0, 1, null=True),
}
_DIAGRAM: Final[dict[str, _Check]] = {
    "confidence": _numbers(-_SLACK, 1 + _SLACK),
    "accuracy": _numbers(-_SLACK, 1 + _SLACK),
    "count": _numbers(1),
    "ece": _SCORE["ece?"],
}
_ANALYSIS: Final[dict[str, _Check]] = {
    "samples": _count(1),
    "members": _dicts(
        {"name": Reader.text, **_SCORE, "file?": Reader.value}, at_least_one="member"
    ),
    "ensembles": _dicts({"last": _count(), **_SCORE}),
    "choice": Reader.value,
    "chosen": _or_null(_dict(_SCORE)),
    "comparisons": _COMPARISONS,
    "passes?": _dicts({"care": _Number(0, 1), "passes": _Number(1), "error": _Number(0, 1)}),
    **dict.fromkeys(("baseline?", "last_calibrated?"), _dict(_SCORE)),
    **dict.fromkeys(("comparisons_with_mean?", *_BESIDE), _COMPARISONS),
    **{f"{name}?": Reader.list for name in _SQUARES},
    "reliability?": _dict({"before": _check_diagram, "after?": _check_diagram}),
    "findings?": findings_from,
}
_SHARE: Final = _Number(0, 1)
_SELECTIVE: Final[dict[str, _Check]] = {
    "risk": _Number(0),
    "coverage": _SHARE,
    "rows": _dicts(
        {
            "model": Reader.text,
            **dict.fromkeys(("aurc", "augrc", "coverage_at_risk", "risk_at_coverage"), _SHARE),
            "coverages": _numbers(0, 1),
            "risks": _numbers(0, 1),
        },
        at_least_one="row",
    ),
}
_UNCERTAINTY: Final[dict[str, _Check]] = {
    "samples": _count(1),
    "members": _count(1),
    # By rounding, and of probabilities whose sum is 1 but for theirs.
    **dict.fromkeys(("entropy", "expected_entropy"), _Number(-_SLACK)),
    "mutual_information": _Number(0),
    "variation_ratio": _SHARE,
    "selective": Reader.item,
    "conformal?": _dicts(
        {
            "method": _one_of(get_args(Method)),
            "labels": _count(1),
            **dict.fromkeys(("alpha", "coverage"), _SHARE),
            "size": _Number(0),
        }
    ),
    "ood?": _dict(
        {
            "samples": _count(1),
            "rows": _dicts(
                {"score": Reader.text, **dict.fromkeys(("auroc", "aupr", "fpr95"), _SHARE)},
                at_least_one="row",
            ),
        }
    ),
}
_REGRESSION_SCORE: Final[dict[str, _Check]] = {
    "rmse?": _Number(0),
    "mae?": _Number(0),
    "gaussian_nll?": _Number(),
    "calibration?": _Number(0, 1),
    "pinball?": _Number(0),
    "coverage?": _numbers(0, 1),
    "width?": _numbers(0),
    "crossing?": _Number(0, 1),
}
_REGRESSION: Final[dict[str, _Check]] = {
    "samples": _count(1),
    "outputs": Reader.text,
    "quantiles": _or_null(_numbers(0, 1)),
    "levels": _numbers(0, 1),
    "members": _dicts(
        {"name": Reader.text, **_REGRESSION_SCORE, "file?": Reader.value}, at_least_one="member"
    ),
    "ensembles": _dicts({"last": _count(), **_REGRESSION_SCORE}),
    "choice": Reader.value,
    "chosen": _or_null(_dict(_REGRESSION_SCORE)),
    **dict.fromkeys(("baseline?", "last_calibrated?"), _dict(_REGRESSION_SCORE)),
    **{
        name: _dicts({"metric": _one_of(REGRESSION_METRICS), **_COMPARED})
        for name in ("comparisons", "comparisons_with_mean", *_BESIDE)
    },
    "findings?": findings_from,
}
_INTERPOLATION: Final[dict[str, _Check]] = {
    "first": Reader.text,
    "second": Reader.text,
    "shares": _numbers(),
    "losses": _numbers(null=True),
    "errors?": _numbers(null=True),
    "barrier": _Number(null=True),
    "statistics?": Reader.flag,
}
_PARTS: Final[dict[str, _Check]] = {
    "run": _check_run,
    "snapshots": _dicts(
        {
            "name": Reader.text,
            "cycle": _count(),
            "step": _count(),
            "rate": _Number(null=True),
            "metrics": Reader.item,
        },
        at_least_one="snapshot",
    ),
    "choice": _check_choice,
    "analysis": _check_analysis,
    "uncertainty": _check_uncertainty,
    "regression": _check_regression,
    "interpolations": _check_interpolations,
    "average": _check_average,
    "comparison": _dict(
        {
            "seeds": _count(1),
            "title?": Reader.text,
            "note?": Reader.text,
            "rows": _dicts({"model": Reader.text, **_SPREADS}),
        }
    ),
    "study": _dict(
        {
            "updates": _count(1),
            "seeds": _count(1),
            "rows": _dicts(
                {"cycles": _count(1), **dict.fromkeys(("last", "all", "best"), _dict(_SPREADS))},
                at_least_one="row",
            ),
        }
    ),
}
