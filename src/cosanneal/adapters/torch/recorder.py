"""The recorder of torch modules: how their state is captured, and what counts the updates."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any, Unpack

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import register_optimizer_step_post_hook

from ...core.errors import ScheduleError, SnapshotError, shown
from ...core.schedule import Schedule
from ...core.warn import warn
from ...snapshots.capture import Standing
from ...snapshots.options import Metrics, RecorderOptions
from ...snapshots.recorder import Recorder
from ...snapshots.store import SnapshotStore
from .capture import ModuleCapture
from .ranks import ranks_here
from .scheduler import CyclicCosineLR
from .stretch import copied
from .updates import Follower, is_in_charge, is_left
from .zero import refuse_uncounted


class SnapshotRecorder(Recorder):
    """Records the model's weights and buffers at the end of every cycle.

    The weights are copied when the cycle ends, and written in the background:
    see `cosanneal.snapshots.recorder.Recorder`. From a CUDA device the copy goes to
    pinned memory on a stream of its own, and only the device waits for it.

    Names are those of the plain model: what torch.compile, DataParallel,
    DistributedDataParallel and DeepSpeed's engine put before them is taken off.

    In a run on several processes (torch.distributed, also under torchrun) each makes its
    recorder, steps it, and closes it. Rank 0 writes; the others hold no folder. What is
    sharded (FSDP2, tensor parallelism: DTensors; DeepSpeed's ZeRO-3) is gathered tensor by
    tensor into rank 0's memory, by all processes at a cycle's end; the snapshot is that of one
    process. With `sharded=True` nothing is gathered, but each process writes what it holds: its
    blocks of DTensors; what DistributedDataParallel keeps the same, spread by size; all else is
    rank 0's. ZeRO-3's tensors are refused there. `metrics` is called in every process, and rank
    0's numbers are kept. An error, of any process, is raised in all of them, at the latest at the
    next cycle's end; only `wait()`, which one process may call by itself, raises it there alone.

    Args:
        folder: the folder of the snapshots, or its URL; made if it is not there.
        model: the model. Its whole state is recorded, parameters and buffers, or
            with `which` a part of it: "trainable" are the parameters that require
            gradients when the recorder is made, and the buffers of at most one
            axis, as of running statistics, which move in frozen layers too. Tied
            tensors are recorded all or none.
        schedule: the CyclicCosineLR (or accelerate's wrapper of one). Snapshots
            are then taken within `scheduler.step()`, in the moment in which it
            leaves a cycle: nothing else is to be called, and resuming the
            scheduler resumes the recorder. Or the schedule, of which each
            `recorder.step()` is an update, if an optimizer of the model did one.
        options: `resume_from` (not needed where the scheduler's state is
            loaded), `overwrite`, `metrics`, `background`, `max_pending`,
            `on_durable`, `on_error`, `keep_last`, `keep_best`, `metric`, `mode`,
            `install_sigterm`, `which` and `sharded`, as RecorderOptions has them.

    Raises:
        SnapshotError: the folder cannot be written to, or another recorder is
            writing to it; it holds snapshots, and the run is not resumed; or it
            was written under another schedule.

    Example:
        >>> import tempfile, torch
        >>> import cosanneal as ca
        >>> model = torch.nn.Linear(2, 1)
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        >>> scheduler = CyclicCosineLR(optimizer, schedule)
        >>> with SnapshotRecorder(tempfile.mkdtemp(), model, scheduler) as recorder:
        ...     for _ in range(6):
        ...         optimizer.step()
        ...         scheduler.step()
        >>> [snapshot.step for snapshot in recorder.store.list()]
        [3, 6]
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | SnapshotStore,
        model: nn.Module,
        schedule: Schedule | CyclicCosineLR,
        **options: Unpack[RecorderOptions],
    ) -> None:
        ranks = ranks_here()
        capture = ModuleCapture(model, writes=ranks.writes)
        if options.get("sharded") is True:
            capture.parts()  # what cannot be parted is said now, and not at the first cycle's end
        self._asked = 0  # the snapshots that `step` has told of
        # accelerate's wrapper holds the scheduler that was prepared.
        scheduler = getattr(schedule, "scheduler", schedule)
        if not isinstance(scheduler, CyclicCosineLR):
            if isinstance(scheduler, LRScheduler):
                raise SnapshotError(
                    "Argument `schedule` must be a CyclicCosineLR, or a Schedule. Received: "
                    f"{type(scheduler).__name__}; of one that runs several (SequentialLR, "
                    "ChainedScheduler), give the CyclicCosineLR among them"
                )
            refuse_uncounted(model, schedule)
            each = OptimizersClock(model)
            super().__init__(folder, scheduler, capture, each, ranks=ranks, **options)
            return
        if options.get("metric") is not None and options.get("metrics") is None:
            raise SnapshotError(
                "Argument `metrics` must be a function that returns the metric by which keep_best "
                f"chooses. Received: metric={shown(options['metric'])}, and no metrics; a snapshot "
                "is taken within scheduler.step(), to which none can be given"
            )
        clock = SchedulerClock(scheduler)
        began, given = clock.start(), options.get("resume_from")
        if began.updates and given is not None and given != began.updates:
            raise SnapshotError(
                "Argument `resume_from` must be what the scheduler's optimizer has done. Received: "
                f"resume_from={given}, and {began.updates} updates; leave resume_from out"
            )
        super().__init__(folder, clock.schedule(), capture, clock, ranks=ranks, **options)
        if given is None and scheduler.loads:
            try:
                self.resume(began.updates, position=began.position)
            except BaseException:
                self.close(unfinished=True)  # or the folder would stay locked
                raise
        clock.follow(self)

    def step(self, metrics: Metrics = None) -> bool:
        """Note that an update was done; call it after `optimizer.step()`.

        Not needed where the recorder follows a scheduler: there it takes the
        snapshot within `scheduler.step()`, and this says whether it took one
        since it was last asked.

        Args:
            metrics: the user's own numbers for the snapshot: a dict, or a
                function that returns one and is called only if a cycle ended.
                Where a scheduler is followed, give the recorder a function.

        Returns:
            Whether a cycle ended and its snapshot was taken.

        Raises:
            SnapshotError: the weights or the metrics cannot be recorded; an
                earlier snapshot could not be written; or the recorder is closed.
        """
        if not isinstance(self._clock, SchedulerClock):
            taken = self.look(metrics)
            self.warn_beyond()  # as a scheduler does of itself
            return taken
        if metrics is not None:
            raise SnapshotError(
                "Argument `metrics` must be given to the recorder where it follows a scheduler, "
                "since a snapshot is taken within scheduler.step(): "
                "SnapshotRecorder(folder, model, scheduler, metrics=function). "
                f"Received: {shown(metrics)} in step()"
            )
        self.look()
        asked, self._asked = self._asked, self.statistics.taken
        return self._asked > asked

    def take(self, metrics: Metrics = None) -> bool:
        """Record a snapshot now, whether or not a cycle ended.

        Call it after `optimizer.step()` and, where there is one, `scheduler.step()`, in every
        process of the run, and before a checkpoint is saved: a run resumed from there does not
        take it again. With a schedule in place of a scheduler, it counts the update as `step`
        does: call it in place of `step`, or after it.

        The rate noted is the optimizer's own at its last update (of the group that leads the
        scheduler; without one, the highest of all groups), whichever scheduler set it. The
        file has the name of the cycle in which the update lay, and of the updates done. An
        ensemble has it as a member, and `keep_last` and `keep_best` count it, as any other.
        To predict with the cycles' ends alone, give the ensemble
        `members=lambda each: schedule.is_cycle_end(each.step - 1)`.

        Args:
            metrics: the user's own numbers for the snapshot, a dict or a function that
                returns one; by default those of the recorder's `metrics`.

        Returns:
            Whether one was taken: False where the update has its snapshot, as at a cycle's
            end, and no `metrics` are given. With them its file is written anew.

        Raises:
            SnapshotError: no update was done yet; and as `step` does.

        Example:
            >>> import tempfile, torch
            >>> import cosanneal as ca
            >>> model = torch.nn.Linear(2, 1)
            >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
            >>> scheduler = CyclicCosineLR(optimizer, schedule)
            >>> with SnapshotRecorder(tempfile.mkdtemp(), model, scheduler) as recorder:
            ...     for update in range(6):
            ...         optimizer.step()
            ...         scheduler.step()
            ...         if update == 3:
            ...             taken = recorder.take(metrics={"val_error": 0.25})
            >>> [(each.cycle, each.step) for each in recorder.store.list()]
            [(0, 3), (1, 4), (1, 6)]
        """
        clock = self._clock
        if not isinstance(clock, SchedulerClock):
            if isinstance(clock, OptimizersClock) and not clock.moved():
                return self.take_at(self._standing, metrics)
            return self.take_at(clock.now(self._standing), metrics)
        self.look()
        now, during = clock.taking(self._standing)
        before = self.statistics.taken
        taken = self.take_at(now, metrics, during=during)
        self._asked += self.statistics.taken - before  # `step` tells of cycles' ends
        return taken

    def close(self, *, unfinished: bool = False) -> None:
        """Finish, as `Recorder.close` does; a cycle that the last update has ended is recorded.

        Args and errors: as `Recorder.close` has them.
        """
        clock = self._clock
        ours = not (self._closed or unfinished or self.lost) and self._is_ours()
        try:
            if ours and isinstance(clock, SchedulerClock) and clock.is_left():
                self.look()
        finally:
            super().close(unfinished=unfinished)
        if ours and self._ranks.writes and isinstance(clock, SchedulerClock):
            clock.leave(self.store.folder)

    @property
    def lost(self) -> bool:
        """Whether another recorder of this process took the folder over."""
        return self._tenancy.lost

    def moved(self) -> bool:
        """The scheduler left a cycle; whether to be told of the next step, too."""
        self.look()
        return self.busy


class SchedulerClock:
    """Follows a scheduler's step, so that resuming the scheduler resumes the recorder."""

    def __init__(self, scheduler: CyclicCosineLR) -> None:
        self._scheduler = scheduler
        self._loads = scheduler.loads
        self._follower: Follower | None = None

    def schedule(self) -> Schedule:
        """The schedule whose cycles are followed.

        Raises:
            ScheduleError: parameter groups whose schedules have other cycles.
        """
        first = self._scheduler.schedules[0]
        layouts = [
            [(rule.count, rule.length, rule.growth, rule.rounding) for rule in each.rules]
            for each in self._scheduler.schedules
        ]
        if any(layout != layouts[0] for layout in layouts):
            raise ScheduleError(
                "The parameter groups' schedules must have the same cycles for a recorder to "
                "follow the scheduler. Received: schedules that differ; give the recorder the one "
                "to follow"
            )
        return first

    def follow(self, recorder: Follower) -> None:
        """Have the recorder look whenever the scheduler leaves a cycle."""
        self._follower = recorder
        self._scheduler.followers.add(recorder)

    def start(self) -> Standing:
        """Where the scheduler stands."""
        return self._scheduler.pace.standing(self._scheduler.last_epoch)

    def loaded(self) -> Standing | None:
        """Where a state stood that was loaded into the scheduler."""
        if self._loads == self._scheduler.loads:
            return None
        self._loads = self._scheduler.loads
        return self._scheduler.loaded

    def now(self, last: Standing) -> Standing:
        """Where the scheduler stands."""
        at = self.start()
        # One that was left at a cycle's end, before a checkpoint, stands before it still.
        return at._replace(position=last.position) if at.position == last.position - 1 else at

    def taking(self, last: Standing) -> tuple[Standing, int]:
        """Where the scheduler stands, and the step that the last update used."""
        at, pace = self.now(last), self._scheduler.pace
        waits = pace.waits_at(self._scheduler.last_epoch) and at.position == last.position
        if not waits:
            return at, at.position - 1
        # The scheduler's step for this update is to come, and changes no weights.
        if at.updates == at.position + 1:
            return at._replace(position=at.updates), at.position
        return at, at.position

    def is_left(self) -> bool:
        """Whether the last update has ended a cycle, and no step of the scheduler is to come."""
        return is_left(self._scheduler, over=True)

    def leave(self, folder: Path) -> None:
        """Have it said if the scheduler goes on, and leaves a cycle with nobody to record it."""
        at, total = self.start(), self.schedule().total_steps
        if not self._scheduler.followers and (total is None or at.position < total):
            # The scheduler holds what it tells, and must go without the garbage collector.
            itself = weakref.proxy(self._scheduler)
            self._scheduler.followers.add(Closed(folder, SchedulerClock(itself)))

    def stop(self, last: Standing) -> Standing:
        """Where it stands; where it is known not to move, where it stood."""
        if self._follower is not None:
            self._scheduler.followers.remove(self._follower)
            self._follower = None  # a recorder and its model go without the garbage collector
        at = self.start()
        stands = "pace" in self._scheduler.pace.said and at.position == last.position
        return last if stands or not is_in_charge(self._scheduler) else at


class Closed:
    """Stands where a recorder was that was closed: says once that a cycle ends without it.

    Args:
        folder: the recorder's.
        clock: of the scheduler, which holds this.
    """

    lost = True  # whoever follows takes its place

    def __init__(self, folder: Path, clock: SchedulerClock) -> None:
        self._folder, self._clock, self._said = folder, clock, False
        self._at = clock.start()

    def moved(self) -> bool:
        """The scheduler moved, and perhaps left a cycle."""
        now, last = self._clock.start().position, self._at.position
        if now > last and not self._said and self._clock.schedule().cycles_completed(last, now):
            self._said = True
            warn(
                "A cycle ended, and no snapshot was taken: the recorder of "
                f"{self._folder} was closed after {self._at.updates} updates. Train inside of its "
                "`with` block, and close it when the run ends"
            )
        return False

    def flush(self) -> None:
        """There is nothing under way."""


class OptimizersClock:
    """Counts the updates that optimizers do of a model's weights.

    A call of the recorder without an update since the last, as gradient accumulation
    has them, is none. Of several optimizers that take turns, each call counts once. As
    long as no optimizer was seen, as where a loop sets the weights by itself, each
    call is an update, but where there are gradients and the weights stayed as they were.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = weakref.ref(model)
        self._ours = weakref.WeakKeyDictionary[Optimizer, bool]()
        self._since: dict[int, int] = {}  # the updates since the last look, by optimizer
        self._seen = False  # whether an optimizer was
        self._looked = False  # whether anybody asked
        self._versions = self._changes()[0]
        self._rate: float | Tensor | None = None
        held = weakref.ref(self)

        def after_update(optimizer: Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG001
            clock = held()
            if clock is not None:
                clock.note(optimizer)

        self._hook = register_optimizer_step_post_hook(after_update)
        weakref.finalize(self, self._hook.remove)

    def note(self, optimizer: Optimizer) -> None:
        """An optimizer, of whatever weights, did an update."""
        if optimizer not in self._ours:
            model = self._model()
            weights = set() if model is None else {id(each) for each in model.parameters()}
            self._ours[optimizer] = any(
                id(each) in weights for group in optimizer.param_groups for each in group["params"]
            )
        if self._ours[optimizer]:
            self._since[id(optimizer)] = self._since.get(id(optimizer), 0) + 1
            self._rate = copied(max(group["lr"] for group in optimizer.param_groups))

    def start(self) -> Standing:
        """No update yet."""
        return Standing(0, 0)

    def loaded(self) -> None:
        """There is no state that could be loaded."""

    def now(self, last: Standing) -> Standing:
        """So many updates more than before."""
        self._looked = True
        since, self._since = self._since, {}
        self._seen = self._seen or bool(since)
        gained = 1 if len(since) > 1 else sum(since.values())
        if not self._seen:
            before, (self._versions, graded) = self._versions, self._changes()
            gained = 0 if graded and before == self._versions else 1
        updates = last.updates + gained
        return Standing(updates, updates, None if self._rate is None else float(self._rate))

    def moved(self) -> bool:
        """Whether there is an update since the last look, as far as optimizers tell of it."""
        if self._since or self._seen:
            return bool(self._since)
        return self._changes()[0] != self._versions

    def _changes(self) -> tuple[list[int], bool]:
        """How often each of the weights was changed in place, and whether one has a gradient."""
        model = self._model()
        weights = [] if model is None else list(model.parameters())
        # Those of torch.inference_mode are not counted, and have no gradients.
        versions = [0 if each.is_inference() else each._version for each in weights]
        return versions, any(each.grad is not None for each in weights)

    def stop(self, last: Standing) -> Standing:
        """Where it stood."""
        self._hook.remove()
        if self._looked:
            return last
        since = max(self._since.values(), default=0)
        return last._replace(updates=last.updates + since)
