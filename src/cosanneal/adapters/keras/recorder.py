"""The recorder of Keras models: a callback that holds one, and looks at the optimizer's count."""

from __future__ import annotations

import math
import os
import sys
import threading
import weakref
from types import TracebackType
from typing import Any, Self, TypeAlias, Unpack

import keras
import numpy as np

from ...core.difference import difference
from ...core.errors import ScheduleError, SnapshotError, check_flag, shown
from ...core.schedule import Schedule
from ...snapshots.capture import EachStep, Standing
from ...snapshots.options import Metrics, RecorderOptions
from ...snapshots.recorder import Recorder
from ...snapshots.statistics import Statistics
from ...snapshots.store import SnapshotStore
from .capture import ModelCapture
from .names import array_of
from .ranks import are_several, ranks_here
from .schedule import CyclicCosineSchedule
from .watch import Watch

Logs: TypeAlias = "dict[str, Any] | None"

# The rates with which models trained last. A compiled step has its schedule's constants,
# and would go on with them where the optimizer was given another.
_compiled_with: weakref.WeakKeyDictionary[keras.Model, Any] = weakref.WeakKeyDictionary()


class SnapshotRecorder(keras.callbacks.Callback):
    """Records the model's weights at the end of every cycle; a callback for `fit`.

    It counts the optimizer's updates, as the optimizer does: over several calls
    of `fit`, and on from where a loaded optimizer stood, whichever callback or
    call restored it. What it counts is what Keras gives its schedules as the
    step: with `gradient_accumulation_steps=k`, one for each of the k batches. (On
    TensorFlow, `fit` counts one more in each epoch of a dataset whose size is not
    known, as of `from_generator` and `filter`: tell it by `assert_cardinality`.)

    With `steps_per_execution` above 1, Keras shows the weights only between two
    executions. A cycle that ends inside of one is recorded after it, and the
    snapshot's step is the number of updates that its weights have seen.

    To make a run longer, give its optimizer the extended schedule, and a new recorder too:
    `model.optimizer.learning_rate = CyclicCosineSchedule(longer)`, also of a model that was
    loaded. The optimizer counts on, and the folder goes on. (Without this recorder, a
    model that was trained already must be compiled anew, or by
    `model.make_train_function(force=True)`: its step has the old schedule in it.)

    In a loop of your own, over `train_on_batch`, call it as Keras does:
    `set_model` and `on_train_begin`, then `on_train_batch_begin` before each
    batch, and `on_train_end`.

    The weights are copied when the cycle ends, and written in the background:
    see `cosanneal.snapshots.recorder.Recorder`. When `fit` returns, all snapshots are
    durable, and others may write to the folder. List the recorder before
    BackupAndRestore and other callbacks that save the model: then no snapshot is
    lost to a kill between their checkpoint and its file. Also before those that
    change the weights when an epoch ends, as SwapEMAWeights does. Where others have an
    `on_train_batch_end`, and so may save between two epochs (`save_freq=100`), a snapshot is
    waited for before they are called; on TensorFlow, where that is not seen, always.

    In a run on several processes (JAX' `keras.distribution.initialize`, and only then the
    recorder) each makes its recorder and gives it to `fit`. Process 0 writes; the others
    hold no folder. Weights in parts are gathered one by one, by all processes at a cycle's
    end. `metrics` is called in every process, and process 0's numbers are kept. An error, of
    any process, is raised in all of them, at the latest when `fit` returns. On TensorFlow a
    run must have one process, as with MirroredStrategy. On PyTorch, in a loop under
    DistributedDataParallel, the process of rank 0 alone makes the recorder.

    What would go wrong quietly is said by a UserWarning, once: epochs in which the
    counted optimizer did no update; a rate that nothing anneals; a run that goes on
    beyond its schedule, or ends less than an epoch before a snapshot is due. One that ends
    earlier is a line in the log, when a `fit` of several epochs ends that was not stopped; of
    calls of one epoch each, when the recorder is closed (then, a warning if no snapshot was
    taken), or is gone.

    The rate noted in a snapshot is the optimizer's own, of its last update, also where
    another schedule or a callback sets it. The history gets the rate of each epoch's
    last update as `learning_rate`, where this schedule sets it. With `keep_best`,
    cycles must end with epochs, whose logs hold the metric (such as `val_loss`).

    Args:
        folder: the folder of the snapshots, or its URL; made if it is not there.
        schedule: the schedule of the run.
        set_lr: set the rate before each update, where the optimizer was
            compiled with a float, in place of a CyclicCosineSchedule. That
            waits for each update before the next; the schedule does not.
        optimizer: the Keras optimizer whose updates are counted, where that is
            not the one the model was compiled with: of a model with a
            train_step and optimizers of its own, such as a GAN.
        options: `resume_from` (not needed where the optimizer's state is
            restored, by BackupAndRestore or by loading the model: its count is
            gone by), `overwrite`, `metrics` (where the logs do not hold the metric),
            `background`, `max_pending`, `on_durable`, `on_error`, `keep_last`,
            `keep_best`, `metric`, `mode`, `install_sigterm` and `which`, as RecorderOptions has
            them; but `sharded` is refused. Of `which`, "trainable" are the model's
            trainable weights, and the others of at most one axis (as running statistics
            have) of layers that are trained: Keras holds those of a frozen
            BatchNormalization constant.

    Raises:
        SnapshotError: the folder cannot be written to, or another recorder is
            writing to it; it holds snapshots, and the run is not resumed; it was
            written under another schedule; several processes of TensorFlow or PyTorch; or
            `sharded`.

    Example:
        >>> import tempfile
        >>> import keras, numpy as np
        >>> import cosanneal as ca
        >>> from cosanneal.adapters.keras import CyclicCosineSchedule, SnapshotRecorder
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(CyclicCosineSchedule(schedule)), "mse")
        >>> recorder = SnapshotRecorder(tempfile.mkdtemp(), schedule)
        >>> x, y = np.ones((6, 2)), np.ones((6, 1))
        >>> history = model.fit(x, y, batch_size=2, epochs=2, callbacks=[recorder], verbose=0)
        >>> [snapshot.step for snapshot in recorder.store.list()]
        [3, 6]
    """

    # So its `on_train_batch_end` does not have Keras wait for every batch's logs.
    async_safe = True

    def __init__(
        self,
        folder: str | os.PathLike[str] | SnapshotStore,
        schedule: Schedule,
        *,
        set_lr: bool = False,
        optimizer: keras.Optimizer | None = None,
        **options: Unpack[RecorderOptions],
    ) -> None:
        super().__init__()
        if options.get("sharded"):
            raise SnapshotError(
                "Argument `sharded` must be left out in Keras, whose weights in parts are gathered "
                "one by one to process 0, which writes the whole. Received: sharded=True; leave it "
                "out, or, where no host can hold the whole model, train and record its variables "
                "as params of the JAX adapter"
            )
        self.set_lr: bool = check_flag("set_lr", set_lr)
        if optimizer is not None and not isinstance(optimizer, keras.optimizers.Optimizer):
            raise SnapshotError(
                "Argument `optimizer` must be a Keras optimizer, whose updates are counted. "
                f"Received: {shown(optimizer)}"
            )
        self._optimizer = optimizer
        # What `updates` it has is told by `advance`; its own clock is not looked at.
        self._ranks = ranks_here()
        self._capture = ModelCapture(ranks=self._ranks)
        self.recorder: Recorder = Recorder(
            folder, schedule, self._capture, EachStep(), ranks=self._ranks, **options
        )
        self.schedule: Schedule = self.recorder.schedule
        self.store: SnapshotStore = self.recorder.store
        self._resume_from = options.get("resume_from")
        # The metric that only an epoch's logs tell.
        of_logs = self.recorder.metric if options.get("metrics") is None else None
        self._of_logs: str | None = of_logs
        self._watch = Watch(self.schedule, of_logs, says=self._ranks.writes)
        # Or at the interpreter's end, in which no other `fit` can come.
        weakref.finalize(self, self._watch.over)
        self._logs_rate = False
        # A look at the optimizer's count waits for the device. So one is taken
        # only where the executions begun since the last may have ended a cycle.
        self._began = self._training = self._in_turn = False
        self._thread = threading.get_ident()
        self._had: float | None = None  # the rate of the last update, where another is set
        self._executions = self._due = self._pace = self._batches = 0

    def __enter__(self) -> Self:
        self.recorder.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.recorder.__exit__(kind, error, traceback)
        if error is None:
            self._watch.over(heard=True)
        else:
            self._watch.begin()  # as if another came: it is known why none does

    @property
    def updates(self) -> int:
        """The number of optimizer updates done, as the recorder knows it."""
        return self.recorder.updates

    @property
    def statistics(self) -> Statistics:
        """What recording has done and cost so far."""
        return self.recorder.statistics

    def take(self, metrics: Metrics = None) -> bool:
        """Record a snapshot now, whether or not a cycle ended; called from another callback.

        In `fit`, call it in another callback's `on_train_batch_end` or `on_epoch_end`; it looks
        at the optimizer's count itself, which waits for the device, and returns when the
        snapshot is on the disk. A run that is resumed from a checkpoint does not take those
        before it again: list that callback before the one that saves, and none is lost to a
        kill. In a loop of your own, call it before `on_train_end`.

        The rate noted is the optimizer's own at its last update, whoever set it. The file has
        the name of the cycle in which the update lay, and of the updates done. An ensemble has
        it as a member, and `keep_last` and `keep_best` count it, as any other. To predict
        with the cycles' ends alone, give the ensemble
        `members=lambda each: schedule.is_cycle_end(each.step - 1)`.

        Args:
            metrics: the user's own numbers for the snapshot, a dict or a function that
                returns one; by default those of the recorder's `metrics`.

        Returns:
            Whether one was taken: False where the update has its snapshot, as at a cycle's
            end, and no `metrics` are given. With them its file is written anew.

        Raises:
            SnapshotError: no `fit` is under way, or no update was done yet; and as of
                `Recorder.advance`.

        Example:
            >>> import tempfile
            >>> import keras, numpy as np
            >>> import cosanneal as ca
            >>> from cosanneal.adapters.keras import CyclicCosineSchedule, SnapshotRecorder
            >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
            >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
            >>> model.compile(keras.optimizers.SGD(CyclicCosineSchedule(schedule)), "mse")
            >>> recorder = SnapshotRecorder(tempfile.mkdtemp(), schedule)
            >>> class Often(keras.callbacks.Callback):
            ...     def on_train_batch_end(self, batch, logs=None):
            ...         recorder.take(metrics={"loss": logs["loss"]})
            >>> x, y = np.ones((6, 2)), np.ones((6, 1))
            >>> both = [recorder, Often()]
            >>> _ = model.fit(x, y, batch_size=2, epochs=2, callbacks=both, verbose=0)
            >>> [(snapshot.cycle, snapshot.step) for snapshot in recorder.store.list()]
            [(0, 1), (0, 2), (0, 3), (1, 4), (1, 5), (1, 6)]
        """
        if not self._training:
            raise SnapshotError(
                "A snapshot can be taken while `fit` trains the model, since only then the folder "
                "is the recorder's. Received: no fit under way; call take in a callback"
            )
        optimizer = self.counted(self.model)
        updates = int(array_of(optimizer._iterations))
        if self.set_lr and updates == self.updates:  # whose next rate is set already
            rate = self._had
        else:
            rate = _rate(optimizer, self.schedule, updates) if updates else None
        before = self.statistics.taken
        self._look(metrics)
        taken = self.statistics.taken > before
        taken = taken or self.recorder.take_at(Standing(updates, updates, rate), metrics)
        # The next callback may save the model, and who goes on from there does not take it again.
        self.recorder.wait()
        return taken

    def wait(self) -> None:
        """Return when every snapshot taken is durable; errors as of `Recorder.wait`."""
        self.recorder.wait()

    def close(self) -> None:
        """Finish, and let others write to the folder; errors as of `Recorder.close`."""
        # A `fit` that did not come to its end was stopped, and had not looked at all it did.
        self.recorder.close(unfinished=bool(self.params))
        self._watch.over(heard=True)

    def set_model(self, model: keras.Model) -> None:
        """Take the model whose weights are recorded; called by `fit`."""
        super().set_model(model)
        self._capture.model = model

    def on_train_begin(self, logs: Logs = None) -> None:  # noqa: ARG002
        """Check that the optimizer fits the schedule; called by `fit`.

        Raises:
            SnapshotError: the model has no optimizer whose updates could be counted; or the
                run has several processes, and this recorder cannot be one of several.
            ScheduleError: the optimizer's rate is another schedule, or cannot be set.
        """
        model = self._model  # not `model`, which has JAX's loop hand the weights over
        ranks_here(model)
        if self._ranks.alone and are_several():
            raise SnapshotError(
                "A recorder must be made when the processes of its run are there. Received: one "
                "that was made before them; make it after keras.distribution.initialize(...)"
            )
        self.recorder.go_on()
        counted = self.counted(model)
        if counted is None:
            raise SnapshotError(
                "The model must be compiled with an optimizer, whose updates are counted. "
                "Received: a model without one; compile it, or say optimizer=..."
            )
        rate = counted._learning_rate
        if isinstance(rate, CyclicCosineSchedule):
            differing = difference(
                self.schedule.to_dict(),
                rate.schedule,
                there="in the schedule given",
                here="in the optimizer's",
            )
            if differing is not None:
                raise ScheduleError(
                    "Argument `schedule` must be the schedule of the optimizer. Received: another, "
                    f"for {differing}; give both the same"
                )
        pace = model.steps_per_execution
        if self.set_lr and not isinstance(rate, keras.Variable):
            raise ScheduleError(
                "Argument `set_lr` must be False where the optimizer's rate is a schedule. "
                f"Received: set_lr=True and {type(rate).__name__}; compile the optimizer with a "
                "float, or leave set_lr out"
            )
        if self.set_lr and pace > 1:
            raise ScheduleError(
                "Argument `set_lr` must be False where steps_per_execution is above 1, since the "
                f"rate is set between two executions. Received: steps_per_execution={pace}; "
                "compile the optimizer with CyclicCosineSchedule(schedule) and leave set_lr out"
            )
        if _compiled_with.get(model, rate) is not rate:
            model.make_train_function(force=True)
        _compiled_with[model] = rate
        self._logs_rate = self.set_lr or isinstance(rate, CyclicCosineSchedule)
        unsized = "steps" in (self.params or {}) and self.params["steps"] is None
        self._watch.begin(unsized=unsized and keras.backend.backend() == "tensorflow")
        self._watch.optimizers(
            model, counted, "model.optimizer" if self._optimizer is None else "the optimizer given"
        )
        self._began, self._training, self._in_turn = False, True, False
        self._thread = threading.get_ident()
        self._executions, self._due, self._pace, self._batches = 0, 0, pace, 0

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Record a cycle that the updates so far have ended; called by `fit`."""
        # Here and not at a batch's end, which Keras may tell of later, and from another thread.
        if not self._batches:  # of the epoch, at whose begin others may have set the rate
            self._watch.rate_is(self.updates, self._float())
        if self._executions >= self._due:
            self._look()
        if self._in_turn and self.recorder.busy:
            self.recorder.wait()
        self._executions += 1
        self._batches += 1

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Wait for snapshots where other callbacks may save the model now; called by `fit`."""
        # Keras tells of it from another thread where no callback needs to know in turn.
        # A checkpoint that is saved next must not be newer than a snapshot that a kill may take.
        self._in_turn = threading.get_ident() == self._thread
        if self._in_turn and self.recorder.busy:
            self.recorder.wait()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Record a cycle that the epoch's last updates have ended; called by `fit`."""
        metric = self.recorder.metric
        if metric is None:
            # A checkpoint of this epoch must not be older than an earlier snapshot.
            self.recorder.wait()
            self._look()
            if epoch + 1 == (self.params or {}).get("epochs"):
                self.recorder.wait()  # who goes on from its end has no update to do
        else:
            # One that is not there yet, as of a validation_freq, is asked for when a cycle ends.
            found = {name: value for name, value in (logs or {}).items() if name == metric}
            self._look(found or None)
            self.recorder.wait()  # for a resumed run has the weights again, but not the logs
        self._watch.epoch_ended(self.updates, self._batches > 0, logs)
        self._batches = 0
        if logs is not None and self._logs_rate:
            logs["learning_rate"] = self.schedule.rate(max(self.updates - 1, 0))

    def on_train_end(self, logs: Logs = None) -> None:  # noqa: ARG002
        """Record a cycle that the last updates have ended, and finish; called by `fit`."""
        # In `fit` the epoch's end has looked; by now the weights may be the
        # best ones, or their average, and no longer those of the last update.
        # One that was killed after its last update has none to do, and may lack the snapshot.
        if self._executions or (not self._began and self._restored()):
            self._look()
        self._training = False
        self.recorder.rest()
        self._watch.rate_is(self.updates, self._float(), ended=True)
        stopped = getattr(self._model, "stop_training", False)
        self._watch.train_ended(self.updates, stopped=stopped, taken=self.statistics.taken)

    def counted(self, model: keras.Model) -> Any:
        """The optimizer of a `model` that has the count and the rate, without a loss scaler."""
        given = self._optimizer
        optimizer = getattr(model, "optimizer", None) if given is None else given
        return getattr(optimizer, "inner_optimizer", optimizer)

    def _restored(self) -> bool:
        """Whether the optimizer has done updates that the recorder did not see."""
        return bool(int(array_of(self.counted(self.model)._iterations)) > self.updates)

    def _float(self) -> float | None:
        """The optimizer's rate, where it is a float that somebody may set."""
        if self.set_lr or not isinstance(self.counted(self._model)._learning_rate, keras.Variable):
            return None
        return float(array_of(self.counted(self.model)._learning_rate))

    def _look(self, metrics: Metrics = None) -> None:
        """Read the optimizer's count, and record if a cycle ended."""
        # On JAX the loop has the weights and the count; `model` fetches them.
        optimizer = self.counted(self.model)
        updates = int(array_of(optimizer._iterations))
        if self._began:
            # A train_step of the user's may update more than once.
            gained = math.ceil((updates - self.updates) / max(self._executions, 1))
            self._pace = max(self._pace, gained)
        else:
            self._begin(updates)
        rate, gained_any = None, updates > self.updates
        ended = gained_any and self.schedule.cycles_completed(self.updates, updates)
        if ended or (gained_any and self.set_lr):
            rate = _rate(optimizer, self.schedule, updates)
        self.recorder.advance(Standing(updates, updates, rate), metrics)
        self._watch.looked(updates, self._float())
        total = self.schedule.total_steps
        if self.set_lr:
            if gained_any:
                self._had = rate
            optimizer.learning_rate = self.schedule.rate(updates)
            self._due = 1
        elif not self._began:
            self._due = 1  # to find out the pace
        elif total is not None and updates >= total:
            self._due = sys.maxsize
        else:
            self._due = math.ceil((self.schedule.cycle_at(updates).stop - updates) / self._pace)
        self._began = True
        self._executions = 0

    def _begin(self, updates: int) -> None:
        """Find out where the run stands. By now every callback has restored what it restores."""
        expected, self._resume_from = self._resume_from, None
        if expected is not None and expected != updates:
            remedy = (
                "restore its state, as keras.saving.load_model does, or have a new one count on, "
                f"by optimizer.iterations.assign({expected}); and leave resume_from out"
                if expected
                else "build and compile the model anew, or choose another folder"
            )
            raise SnapshotError(
                "Argument `resume_from` must be the number of updates that the optimizer has done. "
                f"Received: resume_from={expected}, and an optimizer that has done {updates}; "
                + remedy
            )
        if self.updates and not updates:
            raise SnapshotError(
                "The optimizer must count on from the updates that the recorder has seen. "
                f"Received: none, after {self.updates}, as when a model is compiled anew. "
                "For another run, make a new recorder with a folder of its own; to go on with this "
                f"one and its schedule, call optimizer.iterations.assign({self.updates}) before fit"
            )
        if not updates or (expected is None and updates == self.updates):
            return
        # A run may be killed between a checkpoint and the snapshot that was due
        # with it: those weights are here again.
        again = self._pace if self._of_logs is None else 0
        self.recorder.resume(updates, again=again)


def _rate(optimizer: Any, schedule: Schedule, updates: int) -> float:
    """The rate of the optimizer's last update: the schedule's, where they do not differ."""
    rate = optimizer._learning_rate
    if isinstance(rate, CyclicCosineSchedule):
        return rate.schedule.rate(updates - 1)
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        rate = rate(updates - 1)
    elif not isinstance(rate, keras.Variable):
        rate = rate()
    had, wanted = array_of(rate), schedule.rate(updates - 1)
    return wanted if had == np.asarray(wanted, had.dtype) else float(had)
