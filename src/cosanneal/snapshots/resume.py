"""A run's snapshots among those in its folder, and how it goes on from among them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from ..core.difference import difference
from ..core.errors import SnapshotError, shown
from ..core.schedule import Schedule
from .capture import Standing
from .file import Layout, first_mismatch
from .joined import data_digests
from .part import Part, RestDigests, rest_mismatch
from .retention import Retention
from .store import Snapshot, SnapshotStore

_log = logging.getLogger(__name__)

_REMEDY: Final = "record into another folder, or replace what is in this one with overwrite=True"


class Run:
    """A run's snapshots in its folder, and those there that it is to replace.

    Where a run begins anew, or goes on from before the last of them, the others
    are abandoned: they stay until its next snapshot is durable, and are removed
    then. So the folder is never without the snapshots that it had, and does not
    mix two runs for longer than that takes. Retention does not count them.

    `written` is called where snapshots are written; all else, while none is.

    Args:
        store: the folder.
        schedule: the run's schedule.
        retention: which snapshots it keeps.
        part: what is recorded.
        overwrite: whether those of another schedule or model are replaced, and not refused.
    """

    def __init__(
        self,
        store: SnapshotStore,
        schedule: Schedule,
        retention: Retention,
        part: Part,
        *,
        overwrite: bool,
    ) -> None:
        if not isinstance(overwrite, bool):
            raise SnapshotError(
                "Argument `overwrite` must be True or False. "
                f"Received: overwrite={shown(overwrite)}"
            )
        self._store, self._schedule, self._retention = store, schedule, retention
        self._overwrite, self._part = overwrite, part
        self._abandoned: list[Snapshot] = []
        # Whether those there are known to be the run's, or to be replaced. A state
        # may yet be loaded, so that it is asked when the first update comes.
        self._claimed = False
        # Every snapshot has the tensors of the one before: of which, what they are, and the
        # digests of those that are left out.
        self._before: tuple[str, Layout, RestDigests | None] | None = None
        self._compared = False
        # The updates of the last snapshot that was written, and the digests of its tensors.
        self._last: tuple[int, str] | None = None

    def start_over(self) -> None:
        """Abandon whatever is there, without looking at it."""
        self._abandon(self._store.list())
        self._claimed = True

    def begin(self) -> None:
        """See, at an update, that those there are the run's own; the first time it can be known.

        Raises:
            SnapshotError: there are some, and the run does not go on from them, or
                they are of another model.
        """
        if not self._claimed:
            found = self._store.list()
            if found:
                raise SnapshotError(
                    f"Folder {self._store.where} must hold no snapshots of another run. Received: "
                    f"{len(found)}, up to step {found[-1].step}; go on from there with "
                    "resume_from=step, start over with resume_from=0 (as in a notebook's cell that "
                    "is run again; they go once the first new one is there), or choose another "
                    "folder"
                )
            self._claimed = True
        self.compare()

    def go_on(self, at: Standing, *, again: int = 0) -> Standing:
        """Go on from where the run stood: abandon what came later.

        Args:
            at: where.
            again: so many updates back, a snapshot that is not there is yet to be taken.

        Returns:
            Where it stood at the last snapshot that is kept; at its beginning if there is none.

        Raises:
            SnapshotError: some are of another schedule or model, or lack the metric
                by which to choose.
        """
        updates, found = at.updates, self._store.list()
        self._before, self._compared = None, False
        if not updates and self._overwrite:
            self.start_over()
        else:
            own = self._of_the_schedule(found, at)
            kept = [snapshot for snapshot in found if own and snapshot.step <= updates]
            self._retention.excess(kept)  # which may refuse them
            self._abandon([snapshot for snapshot in found if snapshot not in kept])
            self._claimed = True
        self.compare()
        kept = self._kept(found)
        position, total = max(at.position - again, 0), self._schedule.total_steps
        over = total is not None and position >= total
        within = None if over else self._schedule.cycle_at(position)
        cycle = self._schedule.num_cycles if within is None else within.index
        # One from the midst of the cycle before is not the one of its end.
        began = total or 0 if within is None else within.start
        every = self._retention.keeps_all
        if (
            cycle
            and every
            and all(each.cycle != cycle - 1 or each.standing.position < began for each in kept)
        ):
            _log.warning(  # for it will never have one
                "Resuming at step %d without the snapshot of cycle %d, which is not in %s. Call "
                "the recorder's wait() before a checkpoint is saved, so that this cannot happen",
                updates,
                cycle - 1,
                self._store.where,
            )
        return kept[-1].standing if kept else Standing(0, 0)

    def compare(self, layout: Layout | None = None) -> None:
        """Refuse, or abandon, what is of another model; as soon as the run's weights are known.

        Args:
            layout: theirs; by default as they are now.

        Raises:
            SnapshotError: the tensors differ; with the first that does.
        """
        self._part.settle()
        if self._compared:
            return
        found = self._store.list()
        # What may be replaced need not fit.
        before = self._kept(found) if self._overwrite else found
        if before:
            layout = self._part.layout() if layout is None else layout
            if layout is None:
                return
            there, rest = before[-1].layout(), before[-1].metadata["rest"]
            refusal = self._unlike(before[-1], there, rest or {}, layout)
            if refusal is not None and not self._overwrite:
                raise SnapshotError(f"{refusal}; {_REMEDY}")
            if refusal is None:
                self._before = str(before[-1].path), there, rest
            else:
                self._abandon(found)
        self._compared = True

    def _unlike(
        self, snapshot: Snapshot, there: Layout, rest: RestDigests, layout: Layout
    ) -> str | None:
        """In what the tensors of a snapshot, or those that it leaves out, are not the run's."""
        left_out = {*self._part.left_out}
        if rest.keys() != left_out and there.keys() | rest.keys() == layout.keys() | left_out:
            name = min(rest.keys() ^ left_out)
            lacks = "is not in it" if name in rest else "is in it"
            return (
                f"Folder {self._store.where} must hold snapshots of one part of the model. "
                f"Received: {snapshot.path}, of {len(there)} of {len(there) + len(rest)} tensors, "
                f"where this run's `which` chooses {len(layout)}: {name!r} {lacks}; give the "
                "`which` of that run"
            )
        mismatch = first_mismatch(there, layout)
        if mismatch is None and rest.keys() != left_out:
            mismatch = f"of tensors that it leaves out, {min(rest.keys() ^ left_out)!r}"
        if mismatch is None:
            return None
        return (
            f"Folder {self._store.where} must hold snapshots of this model alone. "
            f"Received: {snapshot.path}, of another: {mismatch}"
        )

    def keep(self, step: int, layout: Layout, rest: RestDigests | None) -> None:
        """Refuse weights of another structure than those before.

        Args:
            step: the updates that the weights have seen.
            layout: their shapes and dtypes.
            rest: the digests of what is left out.

        Raises:
            SnapshotError: they differ; with the first that does.
        """
        self.compare(layout)
        if self._before is not None:
            which, before, stated = self._before
            moved = rest_mismatch(stated or {}, rest or {})
            if moved is not None and self._overwrite:
                self._abandon(self._store.list())
            elif moved is not None:
                raise SnapshotError(
                    "What `which` leaves out must be what it was at the snapshots that are there. "
                    f"Received: tensor {moved!r}, which is another than at {which}; begin with the "
                    f"weights with which that run began, {_REMEDY}"
                )
            mismatch = first_mismatch(before, layout)
            if mismatch is not None:
                raise SnapshotError(
                    "The model must keep its structure from snapshot to snapshot. Received: "
                    f"weights unlike those of the snapshot before, {which}: {mismatch}; record "
                    "another model into another folder"
                )
        self._before = f"of step {step}", layout, rest

    def written(self, snapshot: Snapshot) -> None:
        """Now that it is durable, remove those that it replaces, newest first.

        Raises:
            SnapshotError: one cannot be deleted; the next call tries again.
        """
        # One may have had its name, and is replaced already.
        self._abandoned = [each for each in self._abandoned if each.path != snapshot.path]
        self._store.delete(*reversed(self._abandoned))
        self._abandoned = []
        if not self._retention.keeps_all:
            self._store.delete(*self._retention.excess(self._store.list()))

    def unchanged_since(self, snapshot: Snapshot) -> int | None:
        """The updates of the snapshot written before, if each of its tensors is the same."""
        with snapshot.open(verify=False) as reader:
            digests = data_digests(reader)
        before, self._last = self._last, (snapshot.step, digests)
        if before is None or before[1] != digests or before[0] == snapshot.step:
            return None
        return before[0]

    def _of_the_schedule(self, found: Sequence[Snapshot], at: Standing) -> bool:
        """Whether all are of the run's schedule, or of one that agrees as far as the run came."""
        # Also those to be removed: they may be another run's.
        for snapshot in found:
            there = f"in snapshot {snapshot.path}"
            done = min(snapshot.standing.position, at.position)
            schedule = snapshot.metadata["schedule"]
            differing = difference(schedule, self._schedule, there=there, done=done)
            if differing is not None:
                if self._overwrite:
                    return False
                if not at.updates:
                    raise SnapshotError(
                        f"Folder {self._store.folder} must hold snapshots of this schedule for a "
                        f"run that starts over. Received: those of another, for {differing}; "
                        f"{_REMEDY}"
                    )
                raise SnapshotError(
                    "A run must be resumed with the schedule it began with, or with one that has "
                    f"the same cycles up to there. Received: another, for {differing}; give that "
                    f"schedule, make this one of it by schedule.extended(...), {_REMEDY}"
                )
        return True

    def _kept(self, found: Sequence[Snapshot]) -> list[Snapshot]:
        abandoned = {each.path for each in self._abandoned}
        return [snapshot for snapshot in found if snapshot.path not in abandoned]

    def _abandon(self, snapshots: list[Snapshot]) -> None:
        if snapshots:
            _log.info(
                "%d snapshot(s) in %s stay until the next one is there, which replaces them",
                len(snapshots),
                self._store.where,
            )
        self._abandoned = snapshots
