"""Whether the snapshots in a folder are a run's own, and how it goes on from among them."""

from __future__ import annotations

import logging

from ..core.difference import difference
from ..core.errors import SnapshotError
from ..core.schedule import Schedule
from .file import Layout, first_mismatch
from .retention import Retention
from .store import Snapshot, SnapshotStore

_log = logging.getLogger(__name__)


def refuse_foreign(store: SnapshotStore) -> None:
    """Refuse a folder with snapshots: a new run must not mix its own with those of an earlier one.

    Raises:
        SnapshotError: there are some.
    """
    found = store.list()
    if found:
        raise SnapshotError(
            f"Folder {store.folder} must hold no snapshots of another run. Received: "
            f"{len(found)}, up to step {found[-1].step}; go on from there with "
            "resume_from=step, start over with resume_from=0 (which removes them), or choose "
            "another folder"
        )


def go_on_in(
    store: SnapshotStore, schedule: Schedule, retention: Retention, updates: int
) -> list[Snapshot]:
    """Make a folder such as the run had it when it had done so many updates.

    Later snapshots are removed, since the run will make them again; and those that
    would not be kept after the last of the others, should the run have ended before that.

    Returns:
        Those up to that step, oldest first.

    Raises:
        SnapshotError: some were taken under another schedule, or lack the metric
            by which to choose; then nothing is removed.
    """
    found = store.list()
    kept = [snapshot for snapshot in found if snapshot.step <= updates]
    # Also those to be removed: of another run, they are not this one's to remove.
    for snapshot in found if updates else ():
        there = f"in snapshot {snapshot.path}"
        differing = difference(snapshot.metadata["schedule"], schedule, there=there)
        if differing is not None:
            raise SnapshotError(
                "A run must be resumed with the schedule it began with. Received: another, for "
                f"{differing}; give that schedule, or record into another folder"
            )
    excess = retention.excess(kept)  # which may refuse, before anything is gone
    removed = store.remove_after(updates)
    if removed:
        _log.info(
            "Resuming at step %d: removed %d later snapshot(s) from %s",
            updates,
            len(removed),
            store.folder,
        )
    store.delete(*excess)
    over = schedule.total_steps is not None and updates >= schedule.total_steps
    cycle = schedule.num_cycles if over else schedule.cycle_at(updates).index
    if cycle and retention.keeps_all and all(each.cycle != cycle - 1 for each in kept):
        _log.warning(  # for it will never have one
            "Resuming at step %d without the snapshot of cycle %d, which is not in %s. Call "
            "the recorder's wait() before a checkpoint is saved, so that this cannot happen",
            updates,
            cycle - 1,
            store.folder,
        )
    return kept


class Structure:
    """The tensors that every snapshot of a run has: those of the one before.

    Args:
        store: the run's folder, whose newest snapshot is the one before the first.
    """

    def __init__(self, store: SnapshotStore) -> None:
        self._store = store
        self._latest: tuple[str, Layout] | None = None  # which snapshot, and its tensors

    def keep(self, step: int, layout: Layout) -> None:
        """Refuse weights of another structure than those before.

        Args:
            step: the updates that the weights have seen.
            layout: their shapes and dtypes.

        Raises:
            SnapshotError: they differ; with the first that does.
        """
        if self._latest is None and (found := self._store.list()):
            self._latest = str(found[-1].path), found[-1].layout()
        if self._latest is not None:
            which, before = self._latest
            mismatch = first_mismatch(before, layout)
            if mismatch is not None:
                raise SnapshotError(
                    "The model must keep its structure from snapshot to snapshot. Received: "
                    f"weights unlike those of the snapshot before, {which}: {mismatch}; record "
                    "another model into another folder"
                )
        self._latest = f"of step {step}", layout
