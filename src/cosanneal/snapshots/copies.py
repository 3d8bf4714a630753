"""What a recorder does with the weights in the step: it copies them, and has the copy written."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from ..core.schedule import Cycle, Schedule
from .assembly import Share, agree, check_parts, made_whole, new_token, see_one_folder, summary
from .capture import Capture, Gathered, HostBuffers, PartedCapture, Parts, Standing
from .file import TensorBytes
from .job import OnDurable, made_here, write, write_share, written
from .names import snapshot_name
from .notices import Notices
from .part import Part
from .ranks import Ranks
from .resume import Run
from .statistics import Statistics
from .store import Snapshot, SnapshotStore
from .tenancy import Onlooker, Tenancy
from .writer import Job, Writer

_MOST_FAILED: Final = 4  # snapshots in parts of which late parts are looked for


@dataclass(kw_only=True)
class Copies:
    """The copies of a run's weights, in one process of it.

    Args:
        store: the folder.
        schedule: the run's.
        capture: gives the weights.
        part: which of them are recorded.
        ranks: the processes of the run.
        run: its snapshots in the folder.
        tenancy: the right to write there.
        writer: writes in the background, or at once.
        statistics: what is counted.
        notices: what is said of a snapshot.
        on_durable: called with each snapshot that is there.
        in_parts: the capture, where each process writes what it holds; else None.
        broken: to be set when the run breaks off: then what others write is not waited for as long.
    """

    store: SnapshotStore
    schedule: Schedule
    capture: Capture
    part: Part
    ranks: Ranks
    run: Run
    tenancy: Tenancy | Onlooker
    writer: Writer
    statistics: Statistics
    notices: Notices
    on_durable: OnDurable | None
    in_parts: PartedCapture | None
    broken: threading.Event = field(default_factory=threading.Event)
    _failed: deque[Share] = field(default_factory=lambda: deque(maxlen=_MOST_FAILED))

    def prepare(self) -> None:
        """See, once the folder is prepared, that it can take what the processes write.

        Raises:
            SnapshotError: it is not the same one for all.
        """
        if self.in_parts is not None:
            see_one_folder(self.ranks, self.store.folder)

    def take(
        self,
        cycle: Cycle,
        at: Standing,
        check: Callable[[], Mapping[str, Any]],
        tell: Callable[[], object],
    ) -> tuple[Callable[[], None] | None, Exception | None]:
        """Copy the weights, in all processes at the same time.

        Args:
            cycle: the snapshot's.
            at: where the run stands.
            check: gives the user's own metrics, or raises what is wrong with them.
            tell: raises what is to be said of earlier snapshots.

        Returns:
            What has the copy written, if that is not done yet, or None where another process
            writes; and what all are to raise of the earlier ones, or None.

        Raises:
            SnapshotError: the weights or the metrics cannot be recorded; in all of them.
        """
        if self.in_parts is None:
            # One meeting, at its end: each costs more than a copy of some megabytes.
            submit, _, earlier = self.ranks.agreed_and_told(
                partial(self._copied, cycle, at, check), tell, _nothing_said
            )
            return submit, earlier
        metrics, tokens, earlier = self.ranks.agreed_and_told(check, tell, _a_token)
        try:
            return self._in_parts(self.in_parts, cycle, at, metrics, tokens[0]), earlier
        except Exception as error:
            if earlier is not None:
                error.add_note(str(earlier))
            raise

    def _in_parts(
        self,
        capture: PartedCapture,
        cycle: Cycle,
        at: Standing,
        metrics: Mapping[str, Any],
        token: str,
    ) -> Callable[[], None]:
        """A copy of what each process writes, under the token of rank 0."""
        path = self.store.folder / snapshot_name(cycle.index, at.updates)
        (buffers, share, _), said = self.ranks.said(
            partial(self._shared, capture, partial(Share, path, token), at),
            lambda made: summary(made[2]),
        )
        agree(said)
        job: Job = partial(write_share, share, buffers, self.statistics)
        if self.ranks.writes:
            make = partial(self._making(cycle, at, metrics), {}, None)
            made = partial(made_whole, share, make, self._failed, self.broken)
            job = self._job(buffers, share.tensors, made)
        return self._handed_over(buffers, job)

    def settle(self) -> None:
        """Count as failed what an interrupt took, if nothing is in flight that is yet to be."""
        if (self.ranks.writes or self.in_parts) and not self.writer.pending:
            self.statistics.failed = self.statistics.taken - self.statistics.durable

    def _copied(
        self, cycle: Cycle, at: Standing, check: Callable[[], Mapping[str, Any]]
    ) -> Callable[[], None] | None:
        metrics: Mapping[str, Any] = {}
        failure: Exception | None = None
        try:
            metrics = check()
        except Exception as error:
            if self.ranks.alone:
                raise
            failure = error  # once the weights are gathered: the others wait there for this one
        rest, weights = self.part.rest(), self.part.tensors()
        try:
            if failure is not None:
                raise failure
            if not self.ranks.writes:
                return None
            buffers = self._free_buffers()
            tensors = self._timed(partial(buffers.copy, weights))
        finally:
            if isinstance(weights, Gathered):
                weights.ask_for_the_rest()
        layout = {name: (each.shape, each.dtype) for name, each in tensors.items()}
        self.run.keep(at.updates, layout, rest)
        make = partial(self._making(cycle, at, metrics), tensors, rest)
        return self._handed_over(
            buffers, self._job(buffers, tensors, partial(made_here, tensors, make))
        )

    def _shared(
        self, capture: PartedCapture, share: Callable[..., Share], at: Standing
    ) -> tuple[HostBuffers, Share, Parts]:
        """A copy of what this process writes."""
        parts = check_parts(capture.parts())
        buffers = self._free_buffers()
        copied = self._timed(lambda: share(parts, buffers))
        if self.ranks.writes:
            self.run.keep(at.updates, parts.layout, None)
        return buffers, copied, parts

    def _free_buffers(self) -> HostBuffers:
        asked = time.perf_counter()
        buffers = self.writer.free_buffers()
        self.statistics.waited_seconds += time.perf_counter() - asked
        return buffers

    def _timed(self, copy: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        copied = copy()
        self.statistics.copied_seconds += time.perf_counter() - began
        return copied

    def _making(
        self, cycle: Cycle, at: Standing, metrics: Mapping[str, Any]
    ) -> Callable[..., Snapshot]:
        """What makes a snapshot of tensors and the digests of the rest."""
        return partial(
            written,
            self.tenancy,
            cycle=cycle,
            at=at,
            schedule=self.schedule,
            of=(self.capture.framework, self.capture.version),
            metrics=metrics,
        )

    def _job(
        self,
        buffers: HostBuffers,
        tensors: Mapping[str, TensorBytes],
        make: Callable[[], tuple[Snapshot, str | None]],
    ) -> Job:
        # It must not know the recorder, which could then not be dropped, or the weights.
        told = self.notices, self.on_durable
        return partial(write, buffers, tensors, make, self.run, self.statistics, *told)

    def _handed_over(self, buffers: HostBuffers, job: Job) -> Callable[[], None]:
        submit = partial(self._submit, buffers, job)
        if self.writer.background:
            return submit
        submit()  # now, so that an error of it is said by this very call
        return _nothing

    def _submit(self, buffers: HostBuffers, job: Job) -> None:
        self.settle()
        try:
            self.statistics.taken += 1
            self.writer.submit(buffers, job)
        except BaseException:
            self.settle()
            raise


def _nothing() -> None:
    """What is left to do of a snapshot that was written at once."""


def _nothing_said(_: object) -> None:
    """What a process says of its copy."""


def _a_token(_: object) -> str:
    """What a process says of a snapshot in parts to come; rank 0's is taken."""
    return new_token()
