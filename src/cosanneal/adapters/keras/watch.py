"""What goes wrong quietly in a run of Keras, and is said once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import keras

from ...core.errors import SnapshotError, shown
from ...core.schedule import Schedule
from ...core.warn import warn
from ...snapshots.capture import Standing
from ...snapshots.ending import broken_off, ended_early, gone_beyond
from ...snapshots.notices import log


class Watch:
    """Looks on as a recorder's callback is called, and says what will not do what was meant.

    Args:
        schedule: the schedule of the run.
        metric: the metric that the epochs' logs must hold, if there is one.
        says: whether warnings are for this process to give, and not for another.
    """

    def __init__(self, schedule: Schedule, metric: str | None, *, says: bool = True) -> None:
        self._schedule, self._metric, self._says = schedule, metric, says
        self._said: set[str] = set()
        self._counted, self._others = "model.optimizer", list[str]()
        # The rate that was seen first, and at which update, until another one is seen.
        self._stands: tuple[int, float] | None = None
        self._moves = False
        self._process = os.getpid()
        self._began: int | None = None  # where the run stood at first
        self.begin()

    def begin(self, *, unsized: bool = False) -> None:
        """A `fit` begins; `unsized` if TensorFlow does not know its data's size."""
        self._unsized = unsized
        # What there is to say if no other fit comes, and whether it is more than a line in the log.
        self._left: tuple[str, bool] | None = None
        self._first: int | None = None
        self._epochs = self._epoch_start = self._of_epoch = 0
        self._logs: Mapping[str, Any] | None = None

    def looked(self, updates: int, rate: float | None) -> None:
        """The count of updates was read; `rate` is the optimizer's, where it is a float."""
        if self._first is None:
            self._first = self._epoch_start = updates
            self._began = updates if self._began is None else self._began
        if self._stands is None and rate is not None:
            self._stands = updates, rate
        beyond = gone_beyond(self._schedule, updates)
        if beyond is not None:
            self._say(
                "beyond",
                beyond
                + "; TensorFlow counts one more in each epoch of a dataset whose size it does not "
                "know: tell it by tf.data.experimental.assert_cardinality, or give the dataset "
                "repeat() and fit steps_per_epoch" * self._unsized,
            )

    def epoch_ended(self, updates: int, trained: bool, logs: Mapping[str, Any] | None) -> None:
        """An epoch ended; `trained` if it had batches."""
        self._of_epoch, self._epoch_start = updates - self._epoch_start, updates
        self._epochs += 1
        self._logs = logs  # to which later callbacks add theirs
        if self._metric is not None:
            self._look_for_metric(self._metric, logs or {})
        if trained and not self._of_epoch:
            self._stands_still()

    def train_ended(self, updates: int, *, stopped: bool, taken: int) -> None:
        """The `fit` ended; `stopped` by somebody before its end, with so many snapshots `taken`."""
        if stopped:
            return
        total = self._schedule.total_steps
        little = total is not None and 0 < total - updates < self._of_epoch
        # One of several that make the run may be shorter than the next.
        if total is None or not little or (self._epochs == 1 and self._first):
            self._ended_early(updates, taken)
            return
        due = self._schedule.cycle_at(updates).stop
        self._say(
            "early",
            f"The run ended after {updates} of the schedule's {total} updates, and the next "
            f"snapshot is due at update {due}. total_steps must be the updates that fit does: "
            "a dataset that leaves out its last batch (drop_last, drop_remainder), "
            "steps_per_epoch, and updates that loss scaling skips (mixed_float16) make them fewer",
        )

    def _ended_early(self, updates: int, taken: int) -> None:
        """Keep what there is to say of a run that ends here, which only its last `fit` shows.

        A `fit` of several epochs that nobody stopped is as a rule the whole run, and whoever
        keeps the recorder in a variable would not hear of it later: that is logged at once.
        """
        if not updates:
            return
        began, ended = (Standing(at, at) for at in (self._began or 0, updates))
        early = ended_early(self._schedule, began, ended, taken=taken)
        text = early or broken_off(self._schedule, began, ended)
        self._left = None if text is None else (text, early is not None)
        if self._epochs > 1:
            self.over()

    def over(self, *, heard: bool = False) -> None:
        """No other `fit` comes; `heard` where it is the user who says so, and can be warned."""
        left, self._left = self._left, None
        if left is None or not self._says or self._process != os.getpid():
            return
        text, early = left
        if heard and early:
            warn(text)
        else:
            log(text)

    def rate_is(self, updates: int, rate: float | None, *, ended: bool = False) -> None:
        """Every callback had its turn to set the rate, which is this, if it is a float.

        A callback cannot see whether others set the rate. So it is judged by
        what the rate did: those of Keras that set it log it, too. One that is set
        epoch by epoch, also between two calls of `fit`, stands still within each: when
        a `fit` has `ended`, so much is no sign until a cycle has gone by.
        """
        if self._moves or self._stands is None or rate is None:
            return
        start, stands = self._stands
        if rate != stands or {"lr", "learning_rate"} & {*(self._logs or ())}:
            self._moves = True
            return
        if ended and not self._schedule.cycles_completed(start, max(start, updates)):
            return
        began, now = (self._schedule.rate(step) for step in (start, max(updates - 1, 0)))
        if abs(began - now) > 1e-2 * abs(began):
            self._say(
                "rate",
                f"Nothing anneals: the optimizer's rate stayed at {rate:.6g}, where the schedule "
                f"went from {began:.6g} to {now:.6g}. Compile the optimizer with "
                "CyclicCosineSchedule(schedule) as its learning rate, or give the recorder "
                "set_lr=True",
            )

    def optimizers(self, model: Any, counted: Any, name: str) -> None:
        """What `_stands_still` says: the optimizers among a model's attributes."""
        self._counted = name
        self._others = sorted(
            key
            for key, value in vars(model).items()
            if isinstance(value, keras.optimizers.Optimizer)
            and value is not counted
            and key not in ("optimizer", "_optimizer")
        )

    def _stands_still(self) -> None:
        found = f" (it has {', '.join(map('model.'.__add__, self._others))})" * bool(self._others)
        self._say(
            "still",
            f"An epoch went by without an update of {self._counted}, whose updates are counted. No "
            "snapshot is taken, unless it does some. Where the model's train_step has "
            f"optimizers of its own{found}, say which one counts by SnapshotRecorder(..., "
            "optimizer=...)",
        )

    def _look_for_metric(self, metric: str, logs: Mapping[str, Any]) -> None:
        if metric in logs:
            value = logs[metric]
            if isinstance(value, str | bool | bytes) or not hasattr(value, "__float__"):
                raise self._no_metric(f"{metric}={shown(value)}")
            return
        validated = any(name.startswith("val_") for name in logs)
        if "metric" in self._said:
            return
        if not metric.startswith("val_") or validated:
            raise self._no_metric(f"logs of {sorted(logs)}")
        self._say(
            "metric",
            f"The epochs' logs must hold a number named {metric!r} when a cycle ends. Received: "
            f"logs of {sorted(logs)} in this epoch; give fit validation_data (a "
            "validation_freq must have it come where cycles end)",
        )

    def _no_metric(self, received: str) -> SnapshotError:
        return SnapshotError(
            f"The epochs' logs must hold a number named {self._metric!r}, by which keep_best "
            f"chooses. Received: {received}; compile the model with it, or list the callback that "
            "adds it, in every epoch, before the recorder"
        )

    def _say(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            if self._says:
                warn(text)
