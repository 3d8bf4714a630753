"""The recorder: it knows when a cycle ends, and has the weights copied and written.

It knows no framework. An adapter hands it a `Capture`, which gives the named
tensors and copies them, and a `Clock`, which says where the run stands.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Self, Unpack

from ..core.errors import SnapshotError, check_flag, check_steps
from ..core.schedule import Cycle, Schedule, check_schedule
from ..core.warn import warn
from .assembly import check_parted
from .capture import Capture, Clock, Standing
from .copies import Copies
from .ending import broken_off, ended_early, gone_beyond
from .job import OnDurable
from .metadata import plain_metrics
from .notices import Notices
from .options import Metrics, RecorderOptions, checked_options
from .part import Part
from .ranks import ALONE, Ranks
from .resume import Run
from .sigterm import FinishOnSigterm
from .statistics import Statistics
from .store import Snapshot, SnapshotStore
from .tenancy import Onlooker, Tenancy
from .under_way import follow
from .writer import Writer

_log = logging.getLogger(__name__)


class Recorder:
    """Records a snapshot whenever the run crosses the end of a cycle.

    At a cycle's end the training thread copies the weights into held memory and
    goes on; a thread in the background makes a durable file of the copy. An
    error there is raised by the next call of the recorder, once, after that call
    has done its own work. A loop that catches an error, this one or that of
    weights that cannot be recorded, has lost that snapshot and nothing else: the
    update counts, and the next cycle's snapshot is taken. An interpreter that
    ends writes what was taken, also where the recorder was not closed. (A kill
    takes at most `max_pending` snapshots: call `wait()` before a checkpoint is
    saved, for a run resumed from there does not take earlier ones again.)

    Updates may come from any thread, one at a time, but not from a forked child.

    Args:
        folder: the folder of the snapshots, or its URL; made if it is not there. It is
            locked against other recorders until `close`, or the process' end;
            but a new one of the same thread takes it over from one that is not
            inside of its `with` block, and that can then no longer be stepped.
        schedule: the schedule of the run.
        capture: gives the weights.
        clock: says where the run stands, when `look` is called.
        ranks: the processes of the run, each of which has its recorder.
        options: as `RecorderOptions` has them.

    Raises:
        SnapshotError: an argument that cannot be; the folder cannot be written
            to, or another recorder is writing to it; it holds snapshots and
            `resume_from` is not given; or some of another schedule or model.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | SnapshotStore,
        schedule: Schedule,
        capture: Capture,
        clock: Clock,
        *,
        ranks: Ranks = ALONE,
        **options: Unpack[RecorderOptions],
    ) -> None:
        self._retention = checked_options(type(self).__name__, options)
        self._metrics = options.get("metrics")
        self._notices = Notices(options.get("on_error", "raise"))
        self.store: SnapshotStore = (
            folder if isinstance(folder, SnapshotStore) else SnapshotStore(folder)
        )
        self.schedule: Schedule = check_schedule(schedule)
        self._capture, self._clock, self._ranks = capture, clock, ranks
        which = options.get("which", "all")
        self._part = Part(capture, which)
        in_parts = check_parted(options.get("sharded", False), capture, self.store, which)
        self._standing = self._started = clock.start()
        self._closed = self._checked = self._warned = self._begun = False
        self._taken_at: int | None = None  # the updates at the last snapshot
        self._statistics = Statistics()
        overwrite = options.get("overwrite", False)
        self._run = Run(self.store, schedule, self._retention, self._part, overwrite=overwrite)
        self._process = os.getpid()
        self._one_at_a_time = threading.RLock()
        self._writer = Writer(
            [capture.buffers() for _ in range(options.get("max_pending", 1))],
            background=options.get("background", True),
            failed=self._notices.fail,
        )
        on_durable = options.get("on_durable")
        follow(self._writer, self.store.folder, self.store.url)
        tenancy = partial(Tenancy, self.store, self._writer, self._one_at_a_time)
        self._tenancy = ranks.told(tenancy) or Onlooker()
        self._copies = Copies(
            store=self.store,
            schedule=self.schedule,
            capture=capture,
            part=self._part,
            ranks=ranks,
            run=self._run,
            tenancy=self._tenancy,
            writer=self._writer,
            statistics=self._statistics,
            notices=self._notices,
            on_durable=on_durable and partial(_tell, self._writer, on_durable),
            in_parts=in_parts,
        )
        self._finalizer = weakref.finalize(
            self, _dropped, self._writer, self._notices, self._tenancy, self._process
        )
        self._sigterm: FinishOnSigterm | None = None
        try:
            ranks.told(self.store.prepare)
            self._copies.prepare()
            resume_from = options.get("resume_from")
            if resume_from is not None:
                self.resume(resume_from)
            elif overwrite:
                ranks.told(self._run.start_over)
            ranks.told(self._run.compare)
            if check_flag("install_sigterm", options.get("install_sigterm", False)):
                finish = partial(_finish, self._one_at_a_time)
                self._sigterm = FinishOnSigterm(finish, self._writer)
        except BaseException:
            self._tenancy.end()
            raise

    def __enter__(self) -> Self:
        self._tenancy.enter()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._tenancy.inside = False
        try:
            self.close(unfinished=error is not None)
        except Exception as failure:
            if error is None:
                raise
            # It must not hide what ended the block.
            _log.error("%s", failure)
            error.add_note(f"While the recorder was closed: {failure}")

    @property
    def statistics(self) -> Statistics:
        """What recording has done and cost so far."""
        return replace(self._statistics)

    @property
    def updates(self) -> int:
        """The number of optimizer updates done, as the recorder knows it."""
        return self._standing.updates

    @property
    def busy(self) -> bool:
        """Whether a snapshot is being written, or there is something to say of one."""
        return bool(self._writer.pending or self._notices)

    @property
    def metric(self) -> str | None:
        """The name of the metric that every snapshot must have, for `keep_best`."""
        return self._retention.metric

    def resume(self, updates: int, *, position: int | None = None, again: int = 0) -> None:
        """Go on from a run that had done so many updates.

        Args:
            updates: how many.
            position: the step of the schedule, where it is another number.
            again: as if so many fewer were done, but for those that have their
                snapshot: one that was due with the updates' last is taken now.

        Raises:
            SnapshotError: snapshots there are of another schedule or model, or
                lack the metric by which to choose.
        """
        updates = check_steps("resume_from", updates)
        _refuse_a_fork(self._process)
        self._refuse_closed()
        self._writer.wait()
        at = Standing(updates, updates if position is None else position)
        kept = Standing(*self._ranks.shared(lambda: self._run.go_on(at, again=again)[:2]))
        self._taken_at = kept.updates or None
        self._standing = self._started = Standing(
            max(at.updates - again, kept.updates, 0), max(at.position - again, kept.position, 0)
        )

    def state_dict(self) -> dict[str, Any]:
        """The recorder's state as plain data, once the snapshots taken are durable.

        Raises:
            SnapshotError: one of them could not be written, as `wait` says.
        """
        self.wait()
        return {"updates": self._standing.updates, "position": self._standing.position}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state, as `resume_from` does."""
        if "updates" not in state_dict:
            raise SnapshotError(
                "Argument `state_dict` must be the state of a SnapshotRecorder. "
                f"Received: a dict with {sorted(state_dict)}"
            )
        self.resume(state_dict["updates"], position=state_dict.get("position"))

    def wait(self) -> None:
        """Return when every snapshot taken is durable, or lost.

        Raises:
            SnapshotError: one could not be written (with on_error="raise"), and
                no call has said so yet. In a run on several processes, of which not all
                need call this, it is raised in all of them at the next cycle's end, or
                by `close`.
        """
        if self._is_ours():
            self._writer.wait()
            if self._ranks.alone:  # or the others would wait for one that has stopped
                self._notices.say()

    def flush(self) -> None:
        """Return when every snapshot taken is durable or lost; what failed is said later."""
        if self._is_ours():
            self._writer.wait()

    def close(self, *, unfinished: bool = False) -> None:
        """Finish: wait for the snapshots taken, and free the folder; twice is fine.

        Args:
            unfinished: the run ended before its time, which is known: no warning of it.

        Raises:
            SnapshotError: as `wait` does. The recorder is closed nevertheless.

        Warns:
            UserWarning: the run ended a little before a snapshot was due, or took none.
        """
        if not self._is_ours():
            return
        with self._one_at_a_time:
            ended = self._clock.stop(self._standing)
            open_still = not (self._closed or unfinished)
            if open_still and self._ranks.writes and not self._tenancy.resting:
                taken = self._statistics.taken
                early = ended_early(self.schedule, self._started, ended, taken=taken)
                if early is not None:
                    self._notices.warn(early)
                elif off := broken_off(self.schedule, self._started, ended):
                    self._notices.note(off, once="broken off")
            self._closed = True
            if unfinished:
                self._copies.broken.set()
            if self._sigterm is not None:
                self._sigterm.release()
            self._writer.wait()
            self._copies.settle()
            self._tenancy.end()
            self._finalizer.detach()
            # In a run that broke off, the others may not come here.
            self._say(self._ranks if open_still else ALONE)

    def rest(self) -> None:
        """Wait for the snapshots taken, and let others write to the folder until `go_on`.

        All processes of a run call this, and hear of one that could not be written.
        """
        if not self._is_ours():
            return
        try:
            self.wait()
            if not self._ranks.alone:
                self._say(self._ranks)
        finally:
            self._tenancy.rest()

    def go_on(self) -> None:
        """Keep others out of the folder again, in which nobody may have written meanwhile."""
        _refuse_a_fork(self._process)
        if not self._closed:
            self._ranks.told(self._tenancy.go_on)

    def _is_ours(self) -> bool:
        """Whether this process is the recorder's, and not forked from it."""
        return self._process == os.getpid()

    def look(self, metrics: Metrics = None) -> bool:
        """Look at the clock, and record if a cycle ended since the last look.

        Args, returns and errors as of `advance`.
        """
        loaded = self._clock.loaded()
        if loaded is not None:  # it did not train its way here
            self.resume(loaded.updates, position=loaded.position)
        return self.advance(self._clock.now(self._standing), metrics)

    def advance(self, now: Standing, metrics: Metrics = None) -> bool:
        """Note where the run stands now; record if a cycle ended since the last look.

        Args:
            now: where.
            metrics: the user's own numbers for the snapshot: a dict, or a
                function that returns one and is called only if a cycle ended.

        Returns:
            Whether a snapshot was taken.

        Raises:
            SnapshotError: the weights or the metrics cannot be recorded; an
                earlier snapshot could not be written; or the recorder is closed.
        """
        _refuse_a_fork(self._process)  # whose parent's thread may hold the lock for ever
        with self._one_at_a_time:
            self._refuse_closed()
            last = self._standing
            if now.updates < last.updates or now.position < last.position:
                raise SnapshotError(
                    f"The updates done must not go back. Received: {now.updates} after "
                    f"{last.updates}; to resume from an earlier step, make a new recorder with "
                    "resume_from=step"
                )
            if self._ranks.alone or not self._begun:
                self._ranks.told(self._run.begin)
                self._begun = True
            # A cycle is found by crossing its end. Where several ended at once,
            # only the last has weights to show.
            ended = self.schedule.cycles_completed(last.position, now.position)
            self._standing = now
            if isinstance(metrics, Mapping) and not self._checked:
                self._check(metrics)  # now, and not at the end of the first cycle
                self._checked = True
            if ended:
                with contextlib.nullcontext() if self._sigterm is None else self._sigterm.held():
                    self._take(ended[-1], self._metrics if metrics is None else metrics)
            # Only now, so that who goes on after an earlier snapshot's error has
            # lost neither the update nor this snapshot.
            if self._ranks.alone:
                self._notices.say()
            return bool(ended)

    def take_at(self, now: Standing, metrics: Metrics = None, *, during: int | None = None) -> bool:
        """Record a snapshot of where the run stands now, whether or not a cycle ended.

        Where one ended since the last look, its snapshot is the one. An update whose
        snapshot was taken already has no second: it is recorded anew, in the same file, if
        `metrics` are given, and else left as it is.

        Args:
            now: where; its rate is noted.
            metrics: as `advance` has them.
            during: the step of the schedule that the last update used; by default the
                one before `now.position`. The snapshot has the cycle of it, or the last
                cycle where the schedule is over.

        Returns:
            Whether a snapshot was taken.

        Raises:
            SnapshotError: no update was done yet; and as `advance` does.
        """
        _refuse_a_fork(self._process)
        with self._one_at_a_time:
            if not now.updates:
                raise SnapshotError(
                    "A snapshot can be taken once an update was done. Received: none so far; call "
                    "take after the first update"
                )
            taken = self.advance(now, metrics)
            if taken or (metrics is None and self._taken_at == now.updates):
                return taken
            step, total = now.position - 1 if during is None else during, self.schedule.total_steps
            step = max(step if total is None else min(step, total - 1), 0)
            with contextlib.nullcontext() if self._sigterm is None else self._sigterm.held():
                self._take(
                    self.schedule.cycle_at(step), self._metrics if metrics is None else metrics
                )
            if self._ranks.alone:
                self._notices.say()
            return True

    def warn_beyond(self) -> None:
        """Say once, to whoever called the caller, that the run goes on after its last cycle."""
        text = None if self._warned else gone_beyond(self.schedule, self.updates)
        if text is not None and self._ranks.writes:
            self._warned = True
            warn(f"{text}. If step is called more than once an update, call it once")

    def _refuse_closed(self) -> None:
        self._tenancy.check()
        if self._closed:
            raise SnapshotError(
                "The recorder is closed. Step it inside its `with` block, or make a new one with "
                f"resume_from={self._standing.updates}"
            )

    def _take(self, cycle: Cycle, metrics: Metrics) -> None:
        # What went wrong before is said where all meet, once this snapshot is taken.
        in_parts = self._copies.in_parts is not None
        says = self._ranks.writes and not in_parts
        began = time.perf_counter()

        def check() -> dict[str, Any]:
            nonlocal began
            try:
                return self._check(metrics)
            finally:
                began = time.perf_counter()  # the user's own time is not the recorder's

        submit, earlier = self._copies.take(
            cycle, self._standing, check, self._notices.say if says else _nothing
        )
        self._taken_at = self._standing.updates
        if submit is None:
            self._statistics.taken += 1
        try:
            if earlier is not None:
                raise earlier
            # Of this one, which was written at once; or where each has its own to say, and by now,
            # with room for another copy, knows of it: once, and not in two steps.
            if not self._ranks.alone and (in_parts or not self._writer.background):
                self._say(self._ranks)
        finally:
            # Last: a writer at work would take the processor from those that meet.
            if submit is not None:
                submit()
            self._statistics.held_seconds += time.perf_counter() - began

    def _say(self, ranks: Ranks) -> None:
        """Say what there is to say, in all processes."""
        if self._copies.in_parts is not None:
            ranks.agreed(self._notices.say)
        else:
            ranks.told(self._notices.say)

    def _check(self, metrics: Metrics) -> dict[str, Any]:
        """Metrics as they stand in a snapshot, with the one that decides among them."""
        values = plain_metrics(metrics() if callable(metrics) else metrics)
        self._retention.check(values, "Argument `metrics`")
        return values


def _refuse_a_fork(process: int) -> None:
    if process != os.getpid():
        raise SnapshotError(
            f"The recorder belongs to process {process}, and this one, {os.getpid()}, "
            "was forked from it. Record in the process that made it"
        )


def _finish(one_at_a_time: threading.RLock, writer: Writer) -> None:
    """Wait for a snapshot that another thread is taking, and for those that were taken."""
    with one_at_a_time:
        writer.wait()


def _tell(writer: Writer, on_durable: OnDurable, snapshot: Snapshot) -> None:
    """Call a function that may list the folder itself, or wait for a thread that does."""
    with writer.telling():
        on_durable(snapshot)


def _dropped(writer: Writer, notices: Notices, tenancy: Tenancy | Onlooker, process: int) -> None:
    """At the end of a recorder that nobody closed, or of the interpreter."""
    if process != os.getpid():
        return

    def finish() -> None:
        notices.log()
        tenancy.end()

    tenancy.dropped = True
    writer.at_rest(finish)


def _nothing() -> None:
    """What a process has to say that writes nothing."""
