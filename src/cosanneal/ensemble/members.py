"""The members of an ensemble: snapshots, read as a model takes them, and known again."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from ..core.errors import EnsembleError, shown
from ..snapshots.file import Layout, count_bytes
from ..snapshots.part import part_mismatch
from ..snapshots.store import Snapshot, SnapshotStore
from .arrays import check_count
from .choose.choice import Choice
from .model import Model, Weights
from .parts import Parts

CHOICE_NAME: Final = "ensemble.json"

REMEDY: Final = "; fit the ensemble again"

_MOST_NAMES: Final = 8  # in an error

# Which snapshots: those of which a function says so; or by the files' names and cycles.
Chosen: TypeAlias = Callable[[Snapshot], bool] | Iterable[str | int]


class Members:
    """Some snapshots of a folder, oldest first, for one model.

    Args:
        store: the folder.
        model: what they are loaded into.
        last: how many of the newest; by default all.
        chosen: which of the folder's there are to be at all; see `choose_members`.

    Raises:
        EnsembleError: fewer snapshots than asked for.
    """

    def __init__(
        self,
        store: SnapshotStore,
        model: Model[Any],
        last: int | None,
        chosen: Chosen | None = None,
    ) -> None:
        self._model, self._store = model, store
        # An iterator would be over when a choice is loaded.
        self._chosen = chosen if chosen is None or callable(chosen) else _listed(chosen)
        found = self._candidates()
        if last is not None:
            last = check_count("last", last)
        if not found or (last is not None and last > len(found)):
            wanted = "at least one snapshot" if last is None else f"the {last} snapshots asked for"
            by = "" if chosen is None else " among those of members="
            raise EnsembleError(
                f"Folder {store.folder} must hold {wanted}{by}. Received: {len(found)}; "
                "a snapshot is written at the end of each cycle"
            )
        self.snapshots = tuple(found if last is None else found[-last:])
        self._parts = Parts(model)
        # Of those that were read: their tensors, and the digest of those.
        self._layouts: dict[Snapshot, Layout] = {}
        self._verified: dict[Snapshot, str | None] = {}

    def __len__(self) -> int:
        return len(self.snapshots)

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(self.snapshots)

    def among(self, choice: Choice, file: Path) -> tuple[Snapshot, ...]:
        """The snapshots among which a choice was made; see `members_of`."""
        candidates = None if self._chosen is None else self._candidates()
        return members_of(choice, self._store, file, candidates)

    def _candidates(self) -> list[Snapshot]:
        found = self._store.list()
        if self._chosen is None:
            return found
        return choose_members(found, self._chosen, where=f"folder {self._store.folder}")

    def load(self, snapshot: Snapshot) -> Weights:
        """A member's weights, for the model where it is now.

        Raises:
            SnapshotError: the snapshot is damaged.
            EnsembleError: it does not fit the model, is not finite, or is another
                than it was.
        """
        if snapshot not in self._layouts:
            self._layouts[snapshot] = snapshot.layout()
        rest = snapshot.metadata.get("rest") or {}
        mismatch = part_mismatch(self._layouts[snapshot], rest, self._model.layout())
        if mismatch is not None:
            raise EnsembleError(f"Snapshot {snapshot.path} must fit the model: {mismatch}")
        # A file is compared with its digests once. It does not change under its
        # name, unless the run is begun anew.
        tensors = snapshot.load(
            framework=self._model.framework, verify=snapshot not in self._verified
        )
        if snapshot not in self._verified:
            refuse_nonfinite(snapshot)
        digest = snapshot.metadata.get("digest")
        if self._verified.setdefault(snapshot, digest) != digest:
            raise EnsembleError(
                "The snapshots must stay as the ensemble read them first. Received: another one as "
                f"{snapshot.path}, by its digest; make a new ensemble"
            )
        loaded = self._model.load(tensors)
        return self._parts.whole(snapshot, rest, loaded) if rest else loaded

    def count_bytes(self, snapshots: Sequence[Snapshot]) -> int:
        """The size of some members' weights, of parts with what they leave out."""
        one = sum(count_bytes(shape, dtype) for shape, dtype in self._model.layout().values())
        return one * len(snapshots)


def refuse_nonfinite(snapshot: Snapshot) -> None:
    """Refuse the weights of a run that diverged, whatever their metadata say of them."""
    name = snapshot.first_nonfinite()
    if name is not None:
        raise EnsembleError(
            f"The members' weights must be finite. Received: {snapshot.path} with a NaN or an "
            f"infinity in its tensor {name!r}, as of a run that diverged; leave it out, here with "
            f"those after it, by members=lambda snapshot: snapshot.step < {snapshot.step}"
        )


def choose_members(
    snapshots: Sequence[Snapshot], members: Chosen, *, where: str, name: str = "Argument `members`"
) -> list[Snapshot]:
    """Those of some snapshots that are asked for, oldest first.

    Args:
        snapshots: of one folder, oldest first.
        members: a function of a snapshot that says whether it is taken; or, in
            any order, names of files (with or without `.safetensors`) and
            numbers of cycles.
        where: what holds the snapshots, for the messages.
        name: what these call the argument.

    Raises:
        EnsembleError: another kind of argument; a name or a cycle that is not
            there, or that stands for several snapshots, or one that is given twice.
    """
    if callable(members):
        return [snapshot for snapshot in snapshots if members(snapshot)]
    taken: dict[Snapshot, object] = {}
    for each in _listed(members, name):
        if isinstance(each, str):
            wanted = each.removesuffix(".safetensors")
            found = [
                one for one in snapshots if one.path.name.removesuffix(".safetensors") == wanted
            ]
        else:
            found = [one for one in snapshots if one.cycle == each]
        if len(found) != 1:
            names = ", ".join(one.path.name for one in (found or snapshots)[-_MOST_NAMES:])
            there = (
                f"{len(found)}, {names}: give their names"
                if found
                else f"none; the newest are {names}"
            )
            what = shown(each) if isinstance(each, str) else f"cycle {each}"
            raise EnsembleError(
                f"{name} must name snapshots of {where}. Received: {what}, of which "
                f"there is {there}"
            )
        if found[0] in taken:
            raise EnsembleError(
                f"{name} must name a snapshot once. Received: {shown(each)} and "
                f"{shown(taken[found[0]])}, which are both {found[0].path.name}"
            )
        taken[found[0]] = each
    return [snapshot for snapshot in snapshots if snapshot in taken]


def _listed(members: Iterable[str | int], name: str = "Argument `members`") -> list[str | int]:
    """Names and cycles, checked; numpy's integers count as such."""
    found: list[str | int] = []
    try:
        for each in [members] if isinstance(members, str | bytes) else members:
            if isinstance(each, bool | bytes):
                raise TypeError
            found.append(each if isinstance(each, str) else operator.index(each))
    except TypeError:
        raise EnsembleError(
            f"{name} must be a function of a snapshot, or a list of names of snapshots "
            f"and of numbers of cycles. Received: {shown(members)}"
        ) from None
    return found


def members_of(
    choice: Choice, store: SnapshotStore, file: Path, candidates: Sequence[Snapshot] | None = None
) -> tuple[Snapshot, ...]:
    """The snapshots among which a choice was made, all of them as they were then.

    Args:
        choice: the choice.
        store: their folder.
        file: where the choice was read, for the messages.
        candidates: those of the folder that may be members; by default all.

    Raises:
        EnsembleError: a choice of other predictions; a snapshot that is missing
            or another than it was; or newer ones, but for those that were known
            not to be finite when they were taken, among which there is no choice.
        SnapshotError: a snapshot that cannot be read.
    """
    if choice.digests is None:
        raise EnsembleError(
            f"The choice in {file} must be of snapshots. Received: one of arrays{REMEDY}"
        )
    snapshots = store.list() if candidates is None else candidates
    found = {snapshot.path.name: snapshot for snapshot in snapshots}
    for name, digest in zip(choice.members, choice.digests, strict=True):
        if name not in found:
            left_out = " among those of members=" * (candidates is not None)
            raise EnsembleError(
                f"Folder {store.folder} must hold the snapshots that the choice in {file} was made "
                f"among. Received: no {name}{left_out}{REMEDY}"
            )
        if found[name].metadata["digest"] != digest:
            raise EnsembleError(
                f"Snapshot {found[name].path} must be the one that the choice in {file} was made "
                f"among. Received: another, by its digest{REMEDY}"
            )
    members = tuple(found[name] for name in choice.members)
    for newest in reversed(snapshots):
        if newest.step <= members[-1].step:
            break
        if newest.metadata.get("nonfinite") is None:
            raise EnsembleError(
                f"Folder {store.folder} must hold no newer snapshots than the choice in {file} was "
                f"made among. Received: {newest.path.name}{REMEDY}, or leave it out by members="
            )
    return members
