"""The recorder that every adapter fills in: it counts updates and knows when a cycle ends."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeAlias

import safetensors

from ..core.errors import ScheduleError, SnapshotError, check_steps
from ..core.records import first_difference
from ..core.schedule import Schedule
from ..core.version import __version__
from .file import TensorBytes
from .store import SnapshotStore

_log = logging.getLogger(__name__)

Metrics: TypeAlias = Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None


class BaseRecorder(ABC):
    """Records a snapshot whenever the count of updates crosses the end of a cycle.

    Args:
        folder: the folder of the snapshots; made if it is not there.
        schedule: the schedule of the run.
        resume_from: the number of updates the run had done when it was
            interrupted. Snapshots up to there are kept, later ones removed (the
            run will make them again). 0 starts over and removes all.

    Raises:
        SnapshotError: the folder cannot be written to; it holds snapshots and
            `resume_from` is not given; or it was written under another schedule.
    """

    framework: str  # the adapter's, as it stands in a snapshot's metadata
    framework_version: str

    def __init__(
        self,
        folder: str | os.PathLike[str] | SnapshotStore,
        schedule: Schedule,
        *,
        resume_from: int | None = None,
    ) -> None:
        self.store = folder if isinstance(folder, SnapshotStore) else SnapshotStore(folder)
        self.schedule = schedule
        self._updates = 0
        self._closed = False
        # Whether the folder's snapshots are known to be this run's. A state may
        # yet be loaded, so that it is asked when the first update comes.
        self._claimed = False
        self.store.prepare()
        if resume_from is not None:
            self.resume(resume_from)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def updates(self) -> int:
        """The number of optimizer updates done, as the recorder knows it."""
        return self._updates

    def resume(self, updates: int) -> None:
        """Go on from a run that had done so many updates.

        Raises:
            SnapshotError: the snapshots kept were taken under another schedule.
        """
        updates = check_steps("resume_from", updates)
        kept = [snapshot for snapshot in self.store.list() if snapshot.step <= updates]
        for snapshot in kept:
            difference = first_difference(snapshot.metadata["schedule"], self.schedule.to_dict())
            if difference is not None:
                path, theirs, ours = difference
                raise SnapshotError(
                    f"A run must be resumed with the schedule it began with. Snapshot "
                    f"{snapshot.path} has {path} = {theirs}, and the schedule given has {ours}; "
                    "give that schedule, or record into another folder"
                )
        removed = self.store.remove_after(updates)
        if removed:
            _log.info(
                "Resuming at step %d: removed %d later snapshot(s) from %s",
                updates,
                len(removed),
                self.store.folder,
            )
        self._updates = updates
        self._claimed = True

    def state_dict(self) -> dict[str, Any]:
        """The recorder's state as plain data."""
        return {"updates": self._updates}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state, as `resume_from` does."""
        if "updates" not in state_dict:
            raise SnapshotError(
                "Argument `state_dict` must be the state of a SnapshotRecorder. "
                f"Received: a dict with {sorted(state_dict)}"
            )
        self.resume(state_dict["updates"])

    def close(self) -> None:
        """Finish. Every snapshot taken is durable when this returns; calling it twice is fine."""
        self._closed = True

    def _advance(self, updates: int, metrics: Metrics) -> bool:
        """Note that so many updates are done now; record if a cycle ended since the last look.

        Returns:
            Whether a snapshot was recorded.
        """
        if self._closed:
            raise SnapshotError(
                "The recorder is closed. Step it inside its `with` block, or make a new one with "
                f"resume_from={self._updates}"
            )
        if updates < self._updates:
            raise SnapshotError(
                f"The updates done must not go back. Received: {updates} after {self._updates}; "
                "to resume from an earlier step, make a new recorder with resume_from=step"
            )
        if not self._claimed:
            self._refuse_foreign()
            self._claimed = True
        # A cycle is found by crossing its end. Where several ended at once,
        # only the last has weights to show.
        ended = self.schedule.cycles_completed(self._updates, updates)
        self._updates = updates
        if not ended:
            return False
        values = metrics() if callable(metrics) else metrics
        self.store.write(
            self._capture(),
            cycle=ended[-1].index,
            step=updates,
            rate=self.schedule.rate(updates - 1),
            schedule=self.schedule,
            framework=self.framework,
            versions={
                "cosanneal": __version__,
                "safetensors": safetensors.__version__,
                self.framework: self.framework_version,
            },
            metrics=values,
        )
        return True

    def _refuse_foreign(self) -> None:
        """A new run must not mix its snapshots with those of an earlier one."""
        found = self.store.list()
        if found:
            raise SnapshotError(
                f"Folder {self.store.folder} must hold no snapshots of another run. Received: "
                f"{len(found)}, up to step {found[-1].step}; go on from there with "
                "resume_from=step, start over with resume_from=0 (which removes them), or choose "
                "another folder"
            )

    @abstractmethod
    def _capture(self) -> Mapping[str, TensorBytes]:
        """The weights as they are now, by name."""


def check_schedule(value: object) -> Schedule:
    """`value`, which must be a Schedule."""
    if not isinstance(value, Schedule):
        raise ScheduleError(
            "Argument `schedule` must be a cosanneal.Schedule, such as CyclicCosine(...) gives. "
            f"Received: {value!r}"
        )
    return value
