"""The study's results document: every run's scores, as plain data, checked when they are read.

A dict for JSON with `format`, `version`, a `title`, the `cosanneal` that wrote
it, `updates` (the budget), `select` (how ensembles were chosen), `runs` and
`failed`. A run has `cycles`, `seed`, `seconds`, and what `Run.scores` gives. A
run that failed has `cycles`, `seed` and its `error`. What is concluded from
them is not in it: `summarize` and `sentences` compute it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final, get_args

from ..core.atomic import replacing
from ..core.documents import read_document
from ..core.errors import StudyError
from ..core.records import Reader
from ..ensemble.choose.record import Select

FORMAT: Final = "cosanneal.study"
VERSION: Final = 1

# What of a run is scored: the last snapshot with its temperature, the plain mean, the choice.
WAYS: Final = ("last", "mean", "fitted")


def run_name(cycles: int, seed: int) -> str:
    """The name of a run's files."""
    return f"cycles-{cycles}-seed-{seed}"


def write_study(results: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a study's results document as JSON, so that the file is all there or as it was.

    Args:
        results: the document, as this module describes it.
        path: the file.

    Raises:
        StudyError: no such document (the path of the bad field is named), or
            the file cannot be written.

    Example: see `run`, which writes one.
    """
    text = json.dumps(check_study(results), indent=1, allow_nan=False)
    with replacing(path, error=StudyError) as file:
        file.write(text.encode() + b"\n")


def read_study(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a study's results document.

    Args:
        path: the file.

    Raises:
        StudyError: the file cannot be read, or holds no such document.

    Example: see `run`.
    """
    data = read_document(path, error=StudyError)
    try:
        return check_study(data)
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from error


def check_study(data: Any) -> dict[str, Any]:
    """`data`, which must be a study's results document.

    Raises:
        StudyError: it is none, or has a bad field, whose path is named.
    """
    reader = Reader.of(
        data,
        FORMAT,
        VERSION,
        what="A study's results document",
        source="study.run writes it",
        error=StudyError,
    )
    reader.only(*("format", "version", "title", "cosanneal", "updates", "select", "runs", "failed"))
    reader.text("title")
    reader.text("cosanneal")
    _count(reader, "updates", 1)
    if reader.value("select") not in get_args(Select):
        raise reader.error("select", f"one of {', '.join(map(repr, get_args(Select)))}")
    pairs = set()
    for row in reader.items("runs"):
        _check_run(row)
        pairs.add((row.value("cycles"), row.value("seed")))
    for row in reader.items("failed"):
        row.only("cycles", "seed", "error")
        _count(row, "cycles", 1)
        _count(row, "seed", 0)
        row.text("error")
        pairs.add((row.value("cycles"), row.value("seed")))
    if len(pairs) != len(reader.items("runs")) + len(reader.items("failed")):
        raise reader.error("runs", "runs of which none is there twice, nor among 'failed'")
    return dict(data)


def check_run(data: Any) -> dict[str, Any]:
    """`data`, which must be what is known of a run.

    Raises:
        StudyError: it has a bad field, whose path is named.
    """
    reader = Reader(data, "run", error=StudyError)
    _check_run(reader)
    return dict(data)


def _check_run(row: Reader) -> None:
    row.only("cycles", "seed", "seconds", "members", "samples", "validation_nll", *WAYS)
    _count(row, "cycles", 1)
    _count(row, "seed", 0)
    _number(row, "seconds")
    if row.value("members") != row.value("cycles") or isinstance(row.value("members"), bool):
        raise row.error("members", "that of 'cycles'")
    _number(row, "validation_nll")
    samples = row.item("samples")
    samples.only("validation", "test")
    for name in ("validation", "test"):
        _count(samples, name, 1)
    for way in WAYS:
        score = row.item(way)
        score.only("error", "log_loss", "passes")
        _number(score, "error", most=1)
        _number(score, "log_loss")
        passes = _count(score, "passes", 1)
        if passes > row.value("members"):
            raise score.error("passes", "at most the number of members")


def _count(reader: Reader, name: str, least: int) -> int:
    count = reader.count(name)
    if count is None or count < least:
        raise reader.error(name, f"an integer of at least {least}")
    return count


def _number(reader: Reader, name: str, most: float = float("inf")) -> None:
    value = reader.number(name)
    if not 0 <= value <= most or value == float("inf"):
        high = "" if most == float("inf") else f" and at most {most:g}"
        raise reader.error(name, f"a finite number of at least 0{high}")
