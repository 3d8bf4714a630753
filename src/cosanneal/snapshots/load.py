"""A snapshot's tensors for a model of the user's: all read and checked before one is used."""

from __future__ import annotations

import os
from typing import Any

from ..core.errors import SnapshotError
from .capture import Capture
from .part import Rest, part_mismatch, rest_mismatch
from .store import Snapshot


def fitting_tensors(
    snapshot: Snapshot | str | os.PathLike[str],
    capture: Capture,
    *,
    framework: str,
    owner: str = "the model",
) -> dict[str, Any]:
    """The tensors of a snapshot that fits a model, by name.

    Args:
        snapshot: the snapshot, or its file.
        capture: what gives the model's own tensors.
        framework: in whose arrays, as `Snapshot.load` has it.
        owner: what the model is called.

    Raises:
        SnapshotError: as of `fitting`.
    """
    return fitting(snapshot, capture, owner=owner).load(framework=framework)


def fitting(
    snapshot: Snapshot | str | os.PathLike[str], capture: Capture, *, owner: str = "the model"
) -> Snapshot:
    """A snapshot that fits a model, whose tensors were not read yet.

    Args:
        snapshot: the snapshot, or its file.
        capture: what gives the model's own tensors.
        owner: what the model is called.

    Raises:
        SnapshotError: no snapshot; a damaged one; one whose tensors are not the
            model's (the first is named); or a part of the weights, of which the
            model has another rest than it was taken with.
    """
    snapshot = Snapshot.at(snapshot)
    layout, rest = snapshot.layout(), snapshot.metadata["rest"] or {}
    mismatch = part_mismatch(layout, rest, capture.layout() or {}, owner=owner)
    if mismatch is not None:
        raise SnapshotError(f"Snapshot {snapshot.path} must fit {owner}: {mismatch}")
    if rest:
        differing = rest_mismatch(rest, Rest(capture, rest).digests())
        if differing is not None:
            raise SnapshotError(
                f"Snapshot {snapshot.path} is a part, and {owner} must have what it leaves out as "
                f"it was when it was taken. Received: another tensor {differing!r}; give the "
                "weights with which that run began, such as those of the same pretrained model"
            )
    return snapshot
