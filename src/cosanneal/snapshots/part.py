"""A part of the weights: which tensors a recorder records, and that the others stay as they are.

What is not recorded, the rest, is not copied either. Of each of its tensors a
snapshot keeps a digest, by which whoever puts the part into a model can tell
whether the model has the same rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

from xxhash import xxh3_128

from ..core.errors import SnapshotError, shown
from .capture import Capture, HostBuffers
from .file import Layout, TensorBytes, first_mismatch

# Of the model's tensors: all, those that training moves, or those of which a function of the
# name says so.
Which: TypeAlias = Literal["all", "trainable"] | Callable[[str], bool]

# The digest of each tensor that a part leaves out, by name.
RestDigests: TypeAlias = Mapping[str, str]

# So many elements of a tensor are looked at, at most, to see whether it was written to.
_GLIMPSE: Final = 1024
_MOST_NAMES: Final = 4  # in an error


def check_which(which: object) -> Which:
    """The argument `which`, if it can be.

    Raises:
        SnapshotError: it cannot.
    """
    if which == "all":
        return "all"
    if which == "trainable":
        return "trainable"
    if callable(which):
        return which
    raise SnapshotError(
        "Argument `which` must be 'all', 'trainable', or a function of a tensor's name that says "
        f"whether it is recorded. Received: which={shown(which)}"
    )


def chosen_by(which: Callable[[str], bool], names: Iterable[str]) -> set[str]:
    """The names of which a function says so."""
    return {name for name in names if which(name)}


class Part:
    """What a recorder records of what a capture has; all of it where `which` is "all".

    Which tensors they are is settled when the capture first has some.

    Args:
        capture: where the weights come from.
        which: which of them.

    Raises:
        SnapshotError: a `which` that cannot be, or chooses no tensor.
    """

    def __init__(self, capture: Capture, which: Which) -> None:
        self._capture, self._which = capture, check_which(which)
        self._names: set[str] | None = None
        self._rest: Rest | None = None

    def settle(self) -> None:
        """Find out which tensors they are, if it is not known yet and can be.

        Raises:
            SnapshotError: `which` chooses none.
        """
        if self._which == "all" or self._names is not None:
            return
        layout = self._capture.layout()
        if layout is None:
            return
        names = set(self._capture.chosen(self._which))
        if not names:
            those = ", ".join(map(repr, list(layout)[:_MOST_NAMES]))
            how = shown(self._which) if isinstance(self._which, str) else "a function"
            raise SnapshotError(
                "Argument `which` must choose at least one of the model's tensors. Received: "
                f"{how}, which chooses none of {len(layout)}, such as {those}"
            )
        self._names = names
        if rest := layout.keys() - names:
            self._rest = Rest(self._capture, rest)

    @property
    def left_out(self) -> Collection[str]:
        """The names of the tensors that are not recorded."""
        return () if self._rest is None else self._rest.names

    def tensors(self) -> Mapping[str, Any]:
        """The tensors as they are now."""
        self.settle()
        return self._capture.tensors(self._names)

    def layout(self) -> Layout | None:
        """Their shapes and dtypes; None if there are none yet."""
        self.settle()
        layout = self._capture.layout()
        if layout is None or self._names is None:
            return layout
        return {name: each for name, each in layout.items() if name in self._names}

    def rest(self) -> RestDigests | None:
        """The digests of the tensors that are not recorded; None where there are none of these.

        Raises:
            SnapshotError: one is no longer what it was at the first call, or the
                model has others than it had.
        """
        self.settle()
        if self._rest is None:
            return None
        known = {*(self._names or ()), *self._rest.names}
        layout = self._capture.layout() or {}
        if other := known ^ layout.keys():
            raise SnapshotError(
                "The model must keep its structure from snapshot to snapshot. Received: "
                f"tensor {min(other)!r} at one of them only; record another model into another "
                "folder"
            )
        moved = self._rest.moved()
        if moved is not None:
            raise SnapshotError(
                "What `which` leaves out must stay as it is, for snapshots do not have it. "
                f"Received: tensor {moved!r}, which is another than at the first snapshot; freeze "
                "it, or choose it too, by a function of the name: which=lambda name: ... or name "
                f"== {moved!r}"
            )
        return self._rest.digests()


class Rest:
    """The tensors that a part leaves out.

    Their digests are of all of their bytes, and are computed once, at the first
    call: about a second for 8 GB. Later it is looked whether one was written
    to: by what the framework tells of that, and by 1024 elements of each.

    Args:
        capture: where they come from.
        names: which they are.
    """

    def __init__(self, capture: Capture, names: Collection[str]) -> None:
        self._capture = capture
        self.names: frozenset[str] = frozenset(names)
        self._digests: dict[str, str] = {}
        self._stamps: Mapping[str, object] = {}
        self._glimpses: dict[str, str] = {}

    def digests(self) -> RestDigests:
        """The digests as they were at the first call of this, or of `moved`."""
        if not self._digests:
            self._digests = self._digested(self.names)
            self._stamps = self._capture.stamps(self.names)
            self._glimpses = self._glimpsed()
        return self._digests

    def moved(self) -> str | None:
        """The first tensor that is not what it was at the first call."""
        if not self._digests:
            self.digests()
            return None
        stamps, glimpses = self._capture.stamps(self.names), self._glimpsed()
        for name in sorted(self.names):
            if glimpses[name] != self._glimpses[name]:
                return name
        # Which may have been written to by what they were before.
        suspects = {name for name in stamps if stamps[name] != self._stamps.get(name)}
        found = self._digested(suspects)
        for name in sorted(suspects):
            if found[name] != self._digests[name]:
                return name
        self._stamps = stamps
        return None

    def _digested(self, names: Collection[str]) -> dict[str, str]:
        tensors = self._capture.tensors(names)
        found: dict[str, str] = {}
        for name in sorted(names):  # one at a time in the host's memory
            found |= _digests(self._capture.buffers(), {name: tensors[name]})
        return found

    def _glimpsed(self) -> dict[str, str]:
        return _digests(self._capture.buffers(), self._capture.tensors(self.names, cut=_glimpse))


def rest_mismatch(stated: RestDigests, found: RestDigests) -> str | None:
    """The first tensor of which two digests differ."""
    return next((name for name in sorted(stated) if found.get(name) != stated[name]), None)


def part_mismatch(
    layout: Layout, left_out: Collection[str], model: Layout, *, owner: str = "the model"
) -> str | None:
    """What first differs between a snapshot's tensors, which may be a part, and a model's.

    Args:
        layout: the snapshot's.
        left_out: the names of those that it leaves out.
        model: all of the model's.
        owner: what the model is called.
    """
    for name in sorted(left_out):
        if name not in model:
            return f"tensor {name!r}, which it leaves out as a part, is not in {owner}"
    expected = {name: each for name, each in model.items() if name not in left_out}
    return first_mismatch(layout, expected, owner=owner)


def _digests(buffers: HostBuffers, tensors: Mapping[str, Any]) -> dict[str, str]:
    copied = buffers.copy(tensors)
    buffers.arrive()
    return {name: _digest(tensor) for name, tensor in copied.items()}


def _digest(tensor: TensorBytes) -> str:
    digest = xxh3_128(f"{tensor.dtype} {json.dumps(list(tensor.shape))}\n".encode())
    digest.update(tensor.data)
    return digest.hexdigest()


def _glimpse(value: Any) -> Any:
    """Some elements of an array, evenly over all of its axes."""
    shape = tuple(value.shape)
    if not shape:
        return value
    most = max(int(_GLIMPSE ** (1 / len(shape))), 1)
    return value[tuple(slice(None, None, max(-(-size // most), 1)) for size in shape)]
