"""The record of a choice, read: what `Choice.to_dict` wrote, with every field checked."""

from __future__ import annotations

import math
from typing import Any, Final, Literal, TypeAlias, get_args

from ...core.errors import EnsembleError
from ...core.records import Reader
from ..score.measures import is_metric
from .baseline import read_baseline
from .diagnosis import findings_from

Select: TypeAlias = Literal["auto", "last", "greedy", "weights"]
# What a choice is of: classes and outcomes, or a regression's values or pairs.
Kind: TypeAlias = Literal["probabilities", "values", "gaussian"]

FORMAT: Final = "cosanneal.ensemble"
VERSION: Final = 1

# More than any framework's arrays have.
_MOST_AXES: Final = 64


def read_choice(data: object) -> dict[str, Any]:
    """The fields of a choice, by name; of `candidates` the name and the scores of each.

    Raises:
        EnsembleError: not such a description, one of an unknown version, or
            one with a bad field, whose path is named.
    """
    reader = Reader.of(
        data,
        FORMAT,
        VERSION,
        what="The description of a choice",
        source="Choice.to_dict() gives it",
        error=EnsembleError,
    )
    reader.only(
        *("format", "version", "members", "temperature", "class_axis", "select", "metric"),
        *("candidates", "samples", "interval", "seed", "gap", "output"),
        *("outputs", "variance_scale", "noise", "quantiles"),
        # A reason of select="auto" alone, a budget and a baseline where they were given, the last
        # snapshot alone where something was fitted to it.
        optional=("reason", "budget", "findings", "baseline", "last_alone"),
    )
    members = reader.items("members")
    for member in members:
        member.only("name", "weight", "digest")
        if not 0 <= member.number("weight") <= 1:
            raise member.error("weight", "between 0 and 1")
    weights = tuple(member.number("weight") for member in members)
    if not abs(math.fsum(weights) - 1) < 1e-9:
        raise reader.error("members", "a list whose weights sum to 1")
    digests = [member.value("digest") for member in members]
    known = any(digest is not None for digest in digests)
    if known and len({member.text("name") for member in members}) < len(members):
        raise reader.error("members", "a list that has each snapshot once")
    for field, values in (("outputs", get_args(Kind)), ("select", get_args(Select))):
        if reader.text(field) not in values:
            raise reader.error(field, f"one of {', '.join(map(repr, values))}")
    # A regression's may be the user's own, under any name.
    if reader.text("outputs") == "probabilities" and not is_metric(reader.text("metric")):
        raise reader.error("metric", "the name of a metric, such as 'log_loss' or 'custom:name'")
    candidates = [_candidate(each, reader.text("metric")) for each in reader.items("candidates")]
    temperature = reader.number("temperature")
    if not 0 < temperature < math.inf:
        raise reader.error("temperature", "a finite positive number")
    samples, seed = reader.count("samples"), reader.count("seed")
    for field, value, least in (("samples", samples, 1), ("seed", seed, 0)):
        if value is None or value < least:
            raise reader.error(field, f"an integer of at least {least}")
    class_axis = reader.count("class_axis")
    if class_axis is not None and not -_MOST_AXES <= class_axis < _MOST_AXES:
        raise reader.error("class_axis", f"null or an axis, at most {_MOST_AXES - 1}")
    interval = reader.numbers("interval")
    if len(interval) != 2 or not -math.inf < interval[0] <= interval[1] < math.inf:
        raise reader.error("interval", "two finite numbers, the lower one first")
    gap = None if reader.value("gap") is None else reader.number("gap")
    if gap is not None and not 0 <= gap < math.inf:
        raise reader.error("gap", "null or a finite number of at least 0")
    return {
        "members": tuple(member.text("name") for member in members),
        "weights": weights,
        "temperature": temperature,
        "class_axis": class_axis,
        "select": reader.text("select"),
        "metric": reader.text("metric"),
        "candidates": candidates,
        "samples": samples,
        "interval": interval,
        "seed": seed,
        "gap": gap,
        "digests": tuple(member.text("digest") for member in members) if known else None,
        "output": None if reader.value("output") is None else reader.text("output"),
        "outputs": reader.text("outputs"),
        "reason": reader.text("reason") if "reason" in reader else None,
        "budget": _budget(reader.item("budget"), len(members)) if "budget" in reader else None,
        "findings": findings_from(reader, "findings") if "findings" in reader else (),
        "baseline": read_baseline(reader.item("baseline")) if "baseline" in reader else None,
        "last_alone": read_baseline(reader.item("last_alone")) if "last_alone" in reader else None,
        **_variance(reader),
    }


def _candidate(reader: Reader, metric: str) -> tuple[str, dict[str, float]]:
    """The name and the scores of a candidate."""
    reader.only("name", "scores")
    part = reader.item("scores")
    scores = {str(name): part.number(name) for name in reader.value("scores")}
    for name, score in scores.items():
        if not math.isfinite(score):
            raise part.error(name, "a finite number")
    if metric not in scores:
        raise reader.error("scores", f"a dict that has {metric!r}")
    return reader.text("name"), scores


def _budget(reader: Reader, members: int) -> dict[str, Any]:
    """The fields of a budget for so many members."""
    shares = ("care", "error", "exact_error")
    means = ("asked", "passes", "exact_passes")
    counts = ("made_wrong", "made_right")
    reader.only(*means, *shares, *counts, "order", "increase")
    found: dict[str, Any] = {name: reader.number(name) for name in (*means, *shares)}
    for name in means:
        if not 1 <= found[name] < math.inf:
            raise reader.error(name, "a finite number of at least 1")
    for name in shares:
        if not 0 <= found[name] <= 1:
            raise reader.error(name, "between 0 and 1")
    for name in counts:
        found[name] = reader.count(name)
        if found[name] is None or found[name] < 0:
            raise reader.error(name, "an integer of at least 0")
    order = reader.value("order")
    known = isinstance(order, list) and all(type(each) is int for each in order)
    if not known or sorted(order) != list(range(members)):
        raise reader.error("order", f"each number from 0 to {members - 1} once")
    found["order"] = tuple(order)
    found["increase"] = None if reader.value("increase") is None else reader.number("increase")
    if found["increase"] is not None and not 0 <= found["increase"] <= 1:
        raise reader.error("increase", "null or between 0 and 1")
    return found


def _variance(reader: Reader) -> dict[str, Any]:
    """The fields of a regression."""
    scale = reader.number("variance_scale")
    if not 0 <= scale < math.inf:
        raise reader.error("variance_scale", "a finite number of at least 0")
    found: dict[str, Any] = {"variance_scale": scale}
    for field, most in (("noise", math.inf), ("quantiles", 1.0)):
        value = None if reader.value(field) is None else tuple(reader.numbers(field))
        if value is not None and not (value and all(0 <= each < most for each in value)):
            below = " below 1" if most == 1 else ""
            raise reader.error(field, f"null or a list of finite numbers of at least 0{below}")
        found[field] = value
    return found
