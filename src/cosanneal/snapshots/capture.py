"""What a recorder is handed: where the weights come from, and what says where the run stands.

Each framework brings a `Capture` of its own, and a `Clock` where it has a count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .file import Layout, TensorBytes, check_tensor


class HostBuffers:
    """Host memory for one copy of the weights, held from snapshot to snapshot.

    This one copies whatever numpy.asarray takes. An adapter whose framework
    copies faster, or from a device, brings one of its own.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[NDArray[Any], TensorBytes]] = {}

    def copy(self, weights: Mapping[str, Any]) -> dict[str, TensorBytes]:
        """Copy the weights, which may change from then on.

        The bytes returned may be read once `arrive` has returned, and until the
        next copy.

        Raises:
            SnapshotError: a tensor that a snapshot cannot hold.
        """
        for name in self._held.keys() - weights.keys():
            del self._held[name]
        for name, value in weights.items():
            array = np.asarray(value)
            held = self._held[name][0] if name in self._held else None
            if held is None or (held.shape, held.dtype) != (array.shape, array.dtype):
                check_tensor(name, array.dtype.name)
                self._held.pop(name, None)
                held = np.empty(array.shape, array.dtype.newbyteorder("="))
                # A view of no elements cannot be cast to bytes.
                data = held.reshape(-1).view(np.uint8).data if held.size else memoryview(b"")
                self._held[name] = held, TensorBytes(array.dtype.name, array.shape, data)
            np.copyto(held, array)
            del value, array  # or there would be two while the next one is fetched
        return {name: data for name, (_, data) in self._held.items()}

    def arrive(self) -> None:
        """Wait until copies that are under way have arrived; the writer's thread calls it."""


class Gathered(Mapping[str, Any]):
    """Weights of which each is gathered when it is asked for, so that one is in memory at a time.

    It takes all processes to gather one. All ask for all, in the same order: also one that does
    not want them, or has failed.

    Args:
        values: what this process has of each, by name.
        gather: makes a whole one of it.
    """

    def __init__(self, values: Mapping[str, Any], gather: Callable[[Any], Any]) -> None:
        self._values, self._gather = values, gather
        self._left = dict.fromkeys(values)

    def __getitem__(self, name: str) -> Any:
        self._left.pop(name, None)
        try:
            return self._gather(self._values[name])
        except BaseException:
            self._left.clear()  # the others have failed too, or are gone
            raise

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def ask_for_the_rest(self) -> None:
        """Ask for what was not asked for yet, in its order."""
        while self._left:
            self[next(iter(self._left))]


class Capture(Protocol):
    """What a recorder has the weights from.

    Attributes:
        framework: as it stands in a snapshot's metadata.
        version: the framework's.
    """

    framework: str
    version: str

    def tensors(
        self, names: Collection[str] | None = None, *, cut: Callable[[Any], Any] | None = None
    ) -> Mapping[str, Any]:
        """The weights as they are now, by name, as the buffers copy them.

        They may be fetched when they are asked for, or gathered by all processes: `Gathered`.

        Args:
            names: of those that are asked for; by default all.
            cut: takes a piece of each.

        Raises:
            SnapshotError: weights that cannot be recorded; with the name of one.
        """

    def chosen(self, which: Literal["trainable"] | Callable[[str], bool]) -> Collection[str]:
        """The names of the tensors that training moves, or of which a function says so.

        Raises:
            SnapshotError: it is not known which those are that training moves.
        """

    def stamps(self, names: Collection[str]) -> Mapping[str, object]:
        """Of tensors what is another once they were written to, where the framework tells."""

    def layout(self) -> Layout | None:
        """The shapes and dtypes that a snapshot would have; None if there are no weights yet."""

    def buffers(self) -> HostBuffers:
        """New memory for a copy of the weights, not used yet."""


class Piece(NamedTuple):
    """A block of a tensor that this process writes.

    Attributes:
        data: its elements, as the buffers copy them.
        start: where it begins in the whole tensor, on each axis.
    """

    data: Any
    start: tuple[int, ...]


class Parts(NamedTuple):
    """What the processes of a run write of a snapshot in parts.

    Attributes:
        number: of parts, of all processes.
        layout: the shapes and dtypes of the whole tensors, the same in all processes.
        pieces: those of this process: by the index of the part, from 0, then by the tensor's
            name. A part is one process' own.
    """

    number: int
    layout: Layout
    pieces: Mapping[int, Mapping[str, Piece]]


@runtime_checkable
class PartedCapture(Capture, Protocol):
    """A capture that can have each process write what it holds, and gathers nothing for it."""

    def parts(self) -> Parts:
        """The weights as they are now, in pieces; all processes call it at the same time.

        Every element of every tensor lies in exactly one piece of one process.

        Raises:
            SnapshotError: weights that cannot be parted; in every process.
        """


class Standing(NamedTuple):
    """Where a run stands.

    Attributes:
        updates: how many updates the optimizer has done.
        position: the step of the schedule, by which cycles end. The same, but
            where a scheduler moves otherwise than once an update.
        rate: the rate of the last update, as the optimizer had it; None where
            it is not known, and the schedule's is taken.
    """

    updates: int
    position: int
    rate: float | None = None


class Clock(Protocol):
    """What says where the run stands, each time that a recorder looks."""

    def start(self) -> Standing:
        """Where the run stands when the recorder is made."""

    def loaded(self) -> Standing | None:
        """Where a state stood that was loaded since the last call; None if none was."""

    def now(self, last: Standing) -> Standing:
        """Where the run stands now, where `last` was at the recorder's last look."""

    def stop(self, last: Standing) -> Standing:
        """Where the run stands at its end, for the recorder is closed and will not look again."""


class EachStep:
    """The clock where each step of the recorder is an update."""

    def start(self) -> Standing:
        """No update yet."""
        return Standing(0, 0)

    def loaded(self) -> None:
        """A counter of calls has no state of its own that could be loaded."""

    def now(self, last: Standing) -> Standing:
        """One update more than before."""
        return Standing(last.updates + 1, last.position + 1)

    def stop(self, last: Standing) -> Standing:
        """Where it stood."""
        return last
