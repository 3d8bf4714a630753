"""The metadata in a snapshot's header: the user's metrics, and what else is no plain string."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, Final

from ..core.documents import parse_document
from ..core.errors import MAX_STEPS, SnapshotError, shown
from .file import FORMAT_VERSION
from .names import snapshot_name
from .pieces import Index

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


def parse_metadata(
    path: Path, named: tuple[int, int], raw: Mapping[str, str], tensors: Container[str]
) -> dict[str, Any]:
    """What a snapshot's header says, as `Snapshot.metadata` has it.

    Args:
        path: the snapshot.
        named: the cycle and the step in its name.
        raw: the header's metadata.
        tensors: those in the file; of an index, none.

    Raises:
        SnapshotError: it cannot be so, or is another snapshot's.
    """
    try:
        index = Index.from_text(raw["parts"]) if "parts" in raw else None
        tensors = tensors if index is None else index.layout
        metadata: dict[str, Any] = {
            "format": FORMAT_VERSION,
            "cycle": int(raw["cycle"]),
            "step": int(raw["step"]),
            "schedule_step": int(raw.get("schedule_step", raw["step"])),
            "rate": float(raw["rate"]),
            "schedule": parse_object(raw["schedule"], "schedule"),
            "framework": raw["framework"],
            "versions": parse_object(raw["versions"], "versions"),
            "metrics": parse_object(raw["metrics"], "metrics"),
            "nonfinite": raw.get("nonfinite"),
            "rest": parse_object(raw["rest"], "rest") if "rest" in raw else None,
            "parts": None if index is None else len(index.digests),
            "digest": raw["digest"],
        }
        for name in ("cycle", "step", "schedule_step"):
            if not 0 <= metadata[name] <= MAX_STEPS:
                raise ValueError(f"in '{name}': {shown(metadata[name])} is no count of updates")
        if metadata["nonfinite"] is not None and metadata["nonfinite"] not in tensors:
            raise ValueError(f"in 'nonfinite': {shown(metadata['nonfinite'])} is no tensor's name")
        for name, digest in (metadata["rest"] or {}).items():
            if name in tensors or not isinstance(digest, str):
                raise ValueError(f"in 'rest': {shown(name)} is recorded, or has no digest")
    except (KeyError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise SnapshotError(
            f"Snapshot {path} could not be read: bad metadata ({what}). Delete it, or "
            "restore it from a copy"
        ) from error
    if (metadata["cycle"], metadata["step"]) != named:
        raise SnapshotError(
            f"Snapshot {path} must bear the name of its content, "
            f"{snapshot_name(metadata['cycle'], metadata['step'])}. It was renamed or copied over "
            "another; give it that name, or delete it"
        )
    return metadata
