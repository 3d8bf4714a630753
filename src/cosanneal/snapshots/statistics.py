"""What recording has done and cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Statistics:
    """What recording has done and cost so far.

    Attributes:
        taken: the snapshots whose weights were copied.
        durable: those of them that are on the disk, or of a folder at a URL in the store;
            `on_durable` is called next.
        failed: those that were lost, or may be, to an error of the file system
            or an interrupt.
        data_bytes: the bytes of the durable ones' weights.
        held_seconds: how long the training thread was held in all, the metrics
            aside.
        waited_seconds: how much of that it waited for an earlier snapshot to
            become durable; more `max_pending`, or a faster disk, would help.
        copied_seconds: how much of it the weights were gathered and copied.
        writing_seconds: how long the writing took, in the background or not, with the putting
            into a store.
    """

    taken: int = 0
    durable: int = 0
    failed: int = 0
    data_bytes: int = 0
    held_seconds: float = 0.0
    waited_seconds: float = 0.0
    copied_seconds: float = 0.0
    writing_seconds: float = 0.0

    @property
    def pending(self) -> int:
        """Those that were taken and are not durable yet."""
        return self.taken - self.durable - self.failed
