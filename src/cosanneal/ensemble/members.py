"""The members of an ensemble: snapshots, read as a model takes them, and known again."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from ..core.errors import EnsembleError, shown
from ..core.paths import local_path
from ..snapshots.below import runs_below
from ..snapshots.beside import Beside
from ..snapshots.file import Layout, count_bytes
from ..snapshots.part import part_mismatch
from ..snapshots.ranks import Ranks
from ..snapshots.sources import Source, Sources, is_named, names_of
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


@dataclass(frozen=True, slots=True)
class Picked:
    """Some snapshots of some sources.

    Args:
        sources: the folders and files.
        last: how many of the newest, of all sources together, in their order; by default all.
        chosen: which of those there are to be at all; see `choose_members`.
    """

    sources: Sources
    last: int | None = None
    chosen: Chosen | None = None

    @classmethod
    def of(
        cls, folder: Source | Sequence[Source], last: int | None, chosen: Chosen | None
    ) -> Picked:
        """What a user asked for.

        Raises:
            EnsembleError: arguments that cannot be.
        """
        sources = Sources(folder, error=EnsembleError)
        # An iterator would be over when a choice is loaded.
        chosen = chosen if chosen is None or callable(chosen) else _listed(chosen)
        return cls(sources, None if last is None else check_count("last", last), chosen)

    def candidates(self) -> list[Snapshot]:
        """Those that may be members."""
        found = self.sources.list()
        if self.chosen is None:
            return found
        return choose_members(found, self.chosen, where=self.sources.where)

    def by_name(self) -> Picked:
        """The same, without a function: other processes may not have it."""
        if not callable(self.chosen):
            return self
        return replace(self, chosen=list(names_of(self.candidates()).values()))

    def snapshots(self) -> list[Snapshot]:
        """Those that are members.

        Raises:
            EnsembleError: fewer than asked for.
        """
        found, last = self.candidates(), self.last
        if not found or (last is not None and last > len(found)):
            wanted = "at least one snapshot" if last is None else f"the {last} snapshots asked for"
            by = "" if self.chosen is None else " among those of members="
            where = self.sources.where
            folders = [each.folder for each in self.sources.stores if each.url is None]
            below = "" if found or self.chosen is not None else runs_below(folders)
            usual = "a snapshot is written at the end of each cycle"
            why = self.sources.missing() or below or usual
            raise EnsembleError(
                f"{where[0].upper()}{where[1:]} must hold {wanted}{by}. Received: {len(found)}; "
                f"{why}"
            )
        return found if last is None else found[-last:]


class Members:
    """Some snapshots, in an order, for one model.

    Args:
        model: what they are loaded into.
        picked: which of which folders; several, where ensembles were added.
        snapshots: those themselves, where they are known.

    Raises:
        EnsembleError: fewer snapshots than asked for, or one that came twice.
    """

    def __init__(
        self,
        model: Model[Any],
        *picked: Picked,
        snapshots: Sequence[Snapshot] | None = None,
    ) -> None:
        self._model, self._picked = model, picked
        self._parts = Parts(model)
        if snapshots is None:
            snapshots = model.ranks.agreed(
                lambda: [one for each in picked for one in each.snapshots()]
            )
            self._refuse_others(lambda: [each.path.name for each in snapshots])
        self.snapshots: tuple[Snapshot, ...] = tuple(snapshots)
        _refuse_copies(self.snapshots)
        # Of those that were read: their tensors, and the digest of those.
        self._layouts: dict[Snapshot, Layout] = {}
        self._verified: dict[Snapshot, str | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {
            "model": self._model,
            "picked": [each.by_name() for each in self._picked],
            "snapshots": self.snapshots,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        Members.__init__(self, state["model"], *state["picked"], snapshots=state["snapshots"])

    def __len__(self) -> int:
        return len(self.snapshots)

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(self.snapshots)

    def __add__(self, other: Members) -> Members:
        snapshots = [*self.snapshots, *other.snapshots]
        return Members(self._model, *self._picked, *other._picked, snapshots=snapshots)

    @property
    def stores(self) -> tuple[SnapshotStore, ...]:
        """Their folders."""
        return tuple(store for each in self._picked for store in each.sources.stores)

    @property
    def ranks(self) -> Ranks:
        """The processes that load and run them together; see `Model`."""
        return self._model.ranks

    @property
    def where(self) -> str:
        """What they are of, for a sentence."""
        return " and ".join(each.sources.where for each in self._picked)

    @property
    def names(self) -> list[str]:
        """Their names, which tell those of several folders apart."""
        return list(names_of(self.snapshots).values())

    def beside(self, path: str | os.PathLike[str] | None) -> Beside:
        """The file of a choice among them: by default beside the snapshots of their one folder.

        Raises:
            EnsembleError: no path, where they are not of one folder.
        """
        if path is not None:
            return Beside(local_path(path, error=EnsembleError))
        store = self._picked[0].sources.store if len(self._picked) == 1 else None
        if store is None:
            raise EnsembleError(
                "Argument `path` must be given where the ensemble is not of one folder, "
                f"beside whose snapshots the choice would be. Received: none, for {self.where}"
            )
        return store.beside(CHOICE_NAME)

    def among(self, choice: Choice, file: Beside) -> tuple[Snapshot, ...]:
        """The snapshots among which a choice was made; see `members_of`."""
        candidates = [one for each in self._picked for one in each.candidates()]
        chosen = any(each.chosen is not None for each in self._picked)
        found = members_of(choice, candidates, file, where=self.where, left_out=chosen)
        limited = [each.last for each in self._picked if each.last is not None]
        own = {each.path for each in self.snapshots}
        if limited and not {each.path for each in found} <= own:
            raise EnsembleError(
                f"The choice in {file} must be of the ensemble's own members. Received: one among "
                f"{len(found)} snapshots, for an ensemble of {len(self.snapshots)} by last="
                f"{limited[0]}; leave last= out to take the choice over, or fit this ensemble"
            )
        return found

    def load(self, snapshot: Snapshot) -> Weights:
        """A member's weights, for the model where it is now.

        Raises:
            SnapshotError: the snapshot is damaged.
            EnsembleError: it does not fit the model, is not finite, or is another
                than it was.
        """
        ranks = self._model.ranks
        tensors = ranks.told(lambda: self._read(snapshot))
        self._refuse_others(lambda: [snapshot.path.name, snapshot.metadata.get("digest")])
        loaded = self._model.load(tensors or {})
        rest = snapshot.metadata.get("rest") or {}
        return self._parts.whole(snapshot, rest, loaded) if rest else loaded

    def _read(self, snapshot: Snapshot) -> dict[str, Any]:
        """A member's tensors, which fit the model, are finite and what they were."""
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
        return tensors

    def _refuse_others(self, find: Callable[[], list[Any]]) -> None:
        """Refuse snapshots that are not those of rank 0, where processes share a model."""
        ranks = self._model.ranks
        if ranks.alone:
            return
        first = ranks.shared(find)

        def check() -> None:
            own = find()
            if own != first:
                raise EnsembleError(
                    "Every process must find the same snapshots where a model is sharded. "
                    f"Received: {own} in one, and {first} in that of rank 0; give all of them the "
                    "same folder and arguments, when the run has ended"
                )

        ranks.agreed(check)

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
            f"infinity in its tensor {name!r}, as of a run that diverged; leave it out, and others "
            "that are not finite, by members=lambda snapshot: snapshot.first_nonfinite() is None"
        )


def choose_members(
    snapshots: Sequence[Snapshot], members: Chosen, *, where: str, name: str = "Argument `members`"
) -> list[Snapshot]:
    """Those of some snapshots that are asked for, in the snapshots' order.

    Args:
        snapshots: of one folder, oldest first; or of several.
        members: a function of a snapshot that says whether it is taken; or, in
            any order, names of files (with or without `.safetensors`; after
            folders, `run1/cycle-...`, where several have one of that name) and
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
            found = [one for one in snapshots if is_named(one, each)]
        else:
            found = [one for one in snapshots if one.cycle == each]
        if len(found) != 1:
            told = names_of(snapshots)
            names = ", ".join(told[one] for one in (found or snapshots)[-_MOST_NAMES:])
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
    choice: Choice,
    candidates: Sequence[Snapshot],
    file: Beside,
    *,
    where: str,
    left_out: bool = False,
) -> tuple[Snapshot, ...]:
    """The snapshots among which a choice was made, all of them as they were then.

    They are known by their names, and in several folders, or where these were
    moved, by their digests.

    Args:
        choice: the choice.
        candidates: those that may be members: of each folder oldest first.
        file: where the choice was read, for the messages.
        where: what holds the snapshots, for these too.
        left_out: whether some were left out by members=.

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
    holder = where[0].upper() + where[1:]
    named = {name: each for each, name in names_of(candidates).items()}
    by_digest: dict[str, Snapshot] = {}
    members: list[Snapshot] = []
    for name, digest in zip(choice.members, choice.digests, strict=True):
        found = named.get(name)
        if found is None or found.metadata["digest"] != digest:
            by_digest = by_digest or {each.metadata["digest"]: each for each in candidates}
            if found is not None and digest not in by_digest:
                raise EnsembleError(
                    f"Snapshot {found.path} must be the one that the choice in {file} was made "
                    f"among. Received: another, by its digest{REMEDY}"
                )
            found = by_digest.get(digest)
        if found is None:
            raise EnsembleError(
                f"{holder} must hold the snapshots that the choice in {file} was made "
                f"among. Received: no {name}{' among those of members=' * left_out}{REMEDY}"
            )
        members.append(found)
    for newer in reversed(_after(members, candidates)):
        if newer.metadata.get("nonfinite") is None:
            raise EnsembleError(
                f"{holder} must hold no newer snapshots than the choice in {file} was made among. "
                f"Received: {names_of(candidates)[newer]}{REMEDY}, or leave it out by members="
            )
    return tuple(members)


def _after(members: Sequence[Snapshot], candidates: Sequence[Snapshot]) -> list[Snapshot]:
    """Those newer than the newest member of their folder; all of a folder that comes after them."""
    newest: dict[Path, int] = {}
    for each in members:
        folder = each.path.parent
        newest[folder] = max(each.step, newest.get(folder, 0))
    places = [i for i, each in enumerate(candidates) if each in members]
    return [
        each
        for i, each in enumerate(candidates)
        if each.step > newest.get(each.path.parent, -1 if i > places[-1] else each.step)
    ]


def check_alike(
    model: Model[Any], other: Model[Any], settings: Sequence[object], others: Sequence[object]
) -> None:
    """Refuse to add ensembles that are not of one model, or read its outputs in two ways.

    Raises:
        EnsembleError: they are, or do.
    """
    if not model.same_as(other):
        raise EnsembleError(
            "Ensembles must be of one model to be added: the very same object, or function. "
            "Received: two; give both the same model, or average their predictions"
        )
    for name, ours, theirs in zip(
        ("outputs", "class_axis", "pooling", "output"), settings, others, strict=True
    ):
        if ours != theirs:
            raise EnsembleError(
                f"Ensembles must have the same `{name}` to be added. "
                f"Received: {name}={shown(ours)} and {name}={shown(theirs)}"
            )


def _refuse_copies(snapshots: Sequence[Snapshot]) -> None:
    """Refuse a snapshot that is a member twice: the same one, or a copy in another folder."""
    seen: dict[object, Snapshot] = {}
    several = len({each.path.parent for each in snapshots}) > 1
    for each in snapshots:
        keys: list[object] = [os.path.realpath(each.path)]
        if several and "digest" in each.metadata:
            keys.append(each.metadata["digest"])
        for key in keys:
            if key in seen:
                raise EnsembleError(
                    "An ensemble must have each snapshot once. Received: "
                    f"{each.path}, and {seen[key].path}, which is the same; leave one of them out"
                )
        seen.update(dict.fromkeys(keys, each))
