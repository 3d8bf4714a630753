"""JSON in a snapshot's header: the user's metrics, and what else is no plain string."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from ..core.documents import parse_document
from ..core.errors import SnapshotError, shown

# Less than a document that tells of snapshots may have.
_DEPTH: Final = 32


def plain_metrics(metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy of the user's metrics as they stand in a snapshot.

    Raises:
        SnapshotError: they are no plain data.
    """
    try:
        text = json.dumps(dict(metrics or {}), default=_as_number)
        return parse_object(text, "metrics")
    except (TypeError, ValueError, RecursionError) as error:
        raise SnapshotError(
            "Argument `metrics` must be a dict of numbers, strings and lists of them. "
            f"Received: {shown(metrics)} ({error})"
        ) from error


def without_nan(value: Any) -> Any:
    """The value without what JSON has no word for: NaN and the infinities become null."""
    if isinstance(value, Mapping):
        return {name: without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_number(value: object) -> Any:
    """Zero-dimensional arrays and tensors stand for their number."""
    item = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"{type(value).__name__} is no number")
    return item()


def parse_object(text: str, name: str) -> dict[str, Any]:
    """A JSON object that stands in a header, `name` in its metadata.

    Raises:
        ValueError: it is none.
    """
    # Metrics that are no number are in a snapshot as they came.
    value = parse_document(text, at=name, finite=False, depth=_DEPTH)
    if not isinstance(value, dict):
        raise ValueError(f"in '{name}': {shown(value)} is no JSON object")
    return value
