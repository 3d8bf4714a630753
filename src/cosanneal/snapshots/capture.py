"""What a recorder is handed: where the weights come from, and what counts the updates.

Each framework brings a `Capture` of its own, and a `Clock` where it has a count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

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
        return {name: data for name, (_, data) in self._held.items()}

    def arrive(self) -> None:
        """Wait until copies that are under way have arrived; the writer's thread calls it."""


class Capture(Protocol):
    """What a recorder has the weights from.

    Attributes:
        framework: as it stands in a snapshot's metadata.
        version: the framework's.
    """

    framework: str
    version: str

    def tensors(self) -> Mapping[str, Any]:
        """The weights as they are now, by name, as the buffers copy them.

        Raises:
            SnapshotError: weights that cannot be recorded; with the name of one.
        """

    def layout(self) -> Layout | None:
        """The shapes and dtypes that a snapshot would have; None if there are no weights yet."""

    def buffers(self) -> HostBuffers:
        """New memory for a copy of the weights, not used yet."""


class Clock(Protocol):
    """What says how many updates are done, each time that a recorder is stepped."""

    def start(self) -> int:
        """The updates done when the recorder is made."""

    def loaded(self) -> int | None:
        """The updates done by a state that was loaded since the last call; None if none was."""

    def now(self, updates: int) -> int:
        """The updates done now, where `updates` were at the recorder's last look."""


class EachStep:
    """The clock where each step of the recorder is an update."""

    def start(self) -> int:
        """None yet."""
        return 0

    def loaded(self) -> None:
        """A counter of calls has no state of its own that could be loaded."""

    def now(self, updates: int) -> int:
        """One more than before."""
        return updates + 1
