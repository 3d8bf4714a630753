"""The members of an ensemble: snapshots, read as a model takes them, and known again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ..core.errors import EnsembleError, check_steps
from ..snapshots.file import Layout, count_bytes, first_mismatch
from ..snapshots.store import Snapshot, SnapshotStore
from .choose.choice import Choice
from .model import Model, Weights

CHOICE_NAME: Final = "ensemble.json"

REMEDY: Final = "; fit the ensemble again"


class Members:
    """Some snapshots of a folder, oldest first, for one model.

    Args:
        store: the folder.
        model: what they are loaded into.
        last: how many of the newest; by default all.

    Raises:
        EnsembleError: fewer snapshots than asked for.
    """

    def __init__(self, store: SnapshotStore, model: Model[Any], last: int | None) -> None:
        self._model = model
        found = store.list()
        if last is not None:
            last = check_steps("last", last, minimum=1)
        if not found or (last is not None and last > len(found)):
            wanted = "at least one snapshot" if last is None else f"the {last} snapshots asked for"
            raise EnsembleError(
                f"Folder {store.folder} must hold {wanted}. Received: {len(found)}; "
                "a snapshot is written at the end of each cycle"
            )
        self.snapshots = tuple(found if last is None else found[-last:])
        # Of those that were read: their tensors, and the digest of those.
        self._layouts: dict[Snapshot, Layout] = {}
        self._verified: dict[Snapshot, str | None] = {}

    def __len__(self) -> int:
        return len(self.snapshots)

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(self.snapshots)

    def load(self, snapshot: Snapshot) -> Weights:
        """A member's weights, for the model where it is now.

        Raises:
            SnapshotError: the snapshot is damaged.
            EnsembleError: it does not fit the model, or is another than it was.
        """
        if snapshot not in self._layouts:
            self._layouts[snapshot] = snapshot.layout()
        mismatch = first_mismatch(self._layouts[snapshot], self._model.layout())
        if mismatch is not None:
            raise EnsembleError(f"Snapshot {snapshot.path} must fit the model: {mismatch}")
        # A file is compared with its digests once. It does not change under its
        # name, unless the run is begun anew.
        tensors = snapshot.load(
            framework=self._model.framework, verify=snapshot not in self._verified
        )
        digest = snapshot.metadata.get("digest")
        if self._verified.setdefault(snapshot, digest) != digest:
            raise EnsembleError(
                "The snapshots must stay as the ensemble read them first. Received: another one as "
                f"{snapshot.path}, by its digest; make a new ensemble"
            )
        return self._model.load(tensors)

    def count_bytes(self, snapshots: Sequence[Snapshot]) -> int:
        """The size of some members' weights."""
        return sum(
            count_bytes(shape, dtype)
            for snapshot in snapshots
            for shape, dtype in snapshot.layout().values()
        )


def members_of(choice: Choice, store: SnapshotStore, file: Path) -> tuple[Snapshot, ...]:
    """The snapshots among which a choice was made, all of them as they were then.

    Args:
        choice: the choice.
        store: their folder.
        file: where the choice was read, for the messages.

    Raises:
        EnsembleError: a choice of other predictions; a snapshot that is missing
            or another than it was; or newer ones.
        SnapshotError: a snapshot that cannot be read.
    """
    if choice.digests is None:
        raise EnsembleError(
            f"The choice in {file} must be of snapshots. Received: one of arrays{REMEDY}"
        )
    snapshots = store.list()
    found = {snapshot.path.name: snapshot for snapshot in snapshots}
    for name, digest in zip(choice.members, choice.digests, strict=True):
        if name not in found:
            raise EnsembleError(
                f"Folder {store.folder} must hold the snapshots that the choice in {file} was made "
                f"among. Received: no {name}{REMEDY}"
            )
        if found[name].metadata["digest"] != digest:
            raise EnsembleError(
                f"Snapshot {found[name].path} must be the one that the choice in {file} was made "
                f"among. Received: another, by its digest{REMEDY}"
            )
    members = tuple(found[name] for name in choice.members)
    newest = snapshots[-1]
    if newest.step > members[-1].step:
        raise EnsembleError(
            f"Folder {store.folder} must hold no newer snapshots than the choice in {file} was "
            f"made among. Received: {newest.path.name}{REMEDY}"
        )
    return members
