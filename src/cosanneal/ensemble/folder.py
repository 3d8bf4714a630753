"""What a folder of snapshots says of its run, as a results document."""

from __future__ import annotations

import os
from typing import Any

from ..core.difference import difference
from ..core.errors import EnsembleError, SnapshotError
from ..core.schedule import Schedule
from ..snapshots.below import runs_below
from ..snapshots.metadata import without_nan
from ..snapshots.store import Snapshot, SnapshotStore
from .choose.choice import Choice
from .members import CHOICE_NAME, members_of
from .results import FORMAT, VERSION


def folder_results(folder: str | os.PathLike[str], *, choice: bool = True) -> dict[str, Any]:
    """What a folder of snapshots says of its run, as a results document.

    Only the headers are read: the schedule, the steps and the user's metrics;
    and `ensemble.json`, the choice that was saved beside the snapshots, if it is
    there.

    Args:
        folder: the folder, or its URL.
        choice: False leaves the choice aside, also one that could not be read.

    Returns:
        A document with the parts `run`, `snapshots` and, if there is one, `choice`.

    Raises:
        SnapshotError: no folder, no snapshots in it, or one that is damaged.
        EnsembleError: the choice cannot be read, or was made among other snapshots.

    Example:
        >>> import tempfile, torch
        >>> import cosanneal as ca
        >>> from cosanneal.adapters.torch import SnapshotRecorder
        >>> folder, model = tempfile.mkdtemp(), torch.nn.Linear(2, 1)
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> with SnapshotRecorder(folder, model, schedule) as recorder:
        ...     for _ in range(6):
        ...         _ = recorder.step()
        >>> [each["step"] for each in folder_results(folder)["snapshots"]]
        [3, 6]
    """
    store = SnapshotStore(folder)
    snapshots = store.list()
    if not snapshots:
        hint = ""
        if store.url is not None:
            hint = " there"
        elif not store.folder.is_dir():
            hint = ", no folder"
        elif (store.folder / "results.json").is_file():
            hint = " there; it has a results.json: give that"
        elif below := runs_below([store.folder]):
            hint = f" there; {below}"
        raise SnapshotError(
            f"Folder {store.where} must hold at least one snapshot. Received: none{hint}"
        )
    newest = snapshots[-1]
    schedule = newest.schedule
    results: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "title": f"Snapshots in {store.url or store.folder.resolve().name}",
        "run": {
            "schedule": schedule.to_dict(),
            "updates": newest.step,
            "loss": None,
            # Those of an earlier schedule lie on this one's curve if it was extended to this.
            "cycle_ends": [each.step - 1 for each in snapshots if _on(each, schedule)],
        },
        "snapshots": [
            {
                "name": each.path.name,
                "cycle": each.cycle,
                "step": each.step,
                "rate": without_nan(each.metadata["rate"]),
                "metrics": without_nan(each.metadata["metrics"]),
            }
            for each in snapshots
        ],
    }
    file = store.beside(CHOICE_NAME)
    if choice and file.exists():
        with file.reading(EnsembleError) as local:
            saved = Choice.load(local)
        members_of(saved, snapshots, file, where=f"folder {store.where}")
        results["choice"] = saved.to_dict()
    return results


def _on(snapshot: Snapshot, schedule: Schedule) -> bool:
    """Whether a snapshot was taken on a schedule's curve."""
    there, done = snapshot.metadata["schedule"], snapshot.standing.position
    return difference(there, schedule, there="", done=done) is None
