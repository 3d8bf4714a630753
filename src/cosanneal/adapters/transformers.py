"""transformers' Trainer: the scheduler over its own number of updates, and the snapshots.

It stands on the adapter for torch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Unpack

from ..core.cyclic import CyclicCosine
from ..core.errors import MissingExtraError, ScheduleError, SnapshotError, shown
from ..core.schedule import Schedule
from .torch import CyclicCosineLR, SnapshotRecorder
from .torch.wrapped import schedulers_within

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState
    from transformers import TrainingArguments as Arguments
except ModuleNotFoundError as _error:
    if _error.name not in ("transformers", "accelerate"):
        raise
    raise MissingExtraError.for_extra(
        "transformers", package=_error.name, needed_by="cosanneal.adapters.transformers"
    ) from _error

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from ..snapshots.options import RecorderOptions
    from ..snapshots.store import SnapshotStore

__all__ = ["CyclicCosineTrainer", "SnapshotCallback"]

_log = logging.getLogger(__name__)


class SnapshotCallback(TrainerCallback):
    """Records the trainer's model at the end of every cycle of its scheduler.

    The scheduler is a CyclicCosineLR: that of `CyclicCosineTrainer`, or one that is given
    to the trainer by `optimizers=`. Each process makes its recorder, and rank 0 writes.
    A checkpoint is saved when the snapshots taken are durable, and
    `trainer.train(resume_from_checkpoint=...)` goes on in mid-cycle.

    Each snapshot holds the numbers that the trainer logged last, such as `eval_loss`, so
    that `keep_best=2, metric="eval_loss"` works.

    Args:
        folder: the folder of the snapshots, or its URL; made if it is not there.
        options: what `cosanneal.adapters.torch.SnapshotRecorder` takes by keyword:
            `keep_last`, `keep_best`, `metric`, `metrics`, `overwrite` and so on.

    Raises:
        SnapshotError: (when the training begins) another scheduler; or as of
            `SnapshotRecorder`.

    Example: see `CyclicCosineTrainer`.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | SnapshotStore, **options: Unpack[RecorderOptions]
    ) -> None:
        self.folder: str | os.PathLike[str] | SnapshotStore = folder
        self.options: RecorderOptions = options
        self.recorder: SnapshotRecorder | None = None

    def on_train_begin(
        self,
        args: Arguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,
    ) -> None:
        """Open the folder; a checkpoint's state is loaded by now.

        Raises:
            SnapshotError: the trainer has no CyclicCosineLR whose cycles could be recorded.
        """
        self.release()  # of a training before, which was broken off
        found = [*schedulers_within(kwargs["lr_scheduler"])]
        if len(found) != 1:
            several = f" with {len(found)} of them" if found else ""
            raise SnapshotError(
                "The trainer must have one CyclicCosineLR, whose cycles are recorded. Received: "
                f"{type(kwargs['lr_scheduler']).__name__}{several}; use CyclicCosineTrainer in "
                "place of Trainer, or give the Trainer optimizers=(optimizer, CyclicCosineLR("
                "optimizer, schedule))"
            )
        options: RecorderOptions = {**self.options}
        options.setdefault("metrics", lambda: _logged(state))
        self.recorder = SnapshotRecorder(self.folder, kwargs["model"], found[0], **options)

    def on_step_end(
        self,
        args: Arguments,  # noqa: ARG002
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Say what went wrong in the background; and wait before a checkpoint."""
        if self.recorder is None:
            return
        if self.recorder.step():
            taken = self.recorder.statistics.taken
            _log.info("Snapshot %d at update %d", taken, self.recorder.updates)
        if control.should_save:
            self.recorder.wait()

    def on_epoch_end(
        self,
        args: Arguments,  # noqa: ARG002
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Wait before a checkpoint."""
        if self.recorder is not None and control.should_save:
            self.recorder.wait()

    def on_train_end(
        self,
        args: Arguments,  # noqa: ARG002
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Wait for the snapshots taken, and let others write to the folder."""
        self._close()

    def release(self) -> None:
        """Give the folder back, with every snapshot taken so far in it.

        For a training that was broken off, of which the trainer tells no callback;
        `CyclicCosineTrainer` does it by itself.
        """
        self._close(unfinished=True)

    def _close(self, *, unfinished: bool = False) -> None:
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            recorder.close(unfinished=unfinished)


class CyclicCosineTrainer(Trainer):
    """A Trainer that anneals its rate in cycles, over its own number of updates.

    The first peak is `args.learning_rate`, and the first cycle begins with `args.warmup_steps`
    of warmup. The number of updates is the trainer's own: of epochs or `max_steps`, with
    accumulation and over all processes; so it works where `optimizers=` is refused, as
    with FSDP. Of other trainers, derive from both: `class Mine(CyclicCosineTrainer,
    Seq2SeqTrainer)`.

    Args:
        args: what the Trainer takes.
        num_cycles: how many cycles.
        schedule: in place of `num_cycles`, a function of the number of updates (optimizer
            steps) that returns the Schedule; or a Schedule of just so many steps.
        kwargs: what the Trainer takes.

    Raises:
        ScheduleError: (when the training begins) a schedule that cannot be, or is of another
            number of steps.

    Example:
        >>> import tempfile, torch
        >>> from transformers import BertConfig, BertForSequenceClassification, TrainingArguments
        >>> from cosanneal.adapters.torch import SnapshotEnsemble
        >>> from cosanneal.adapters.transformers import CyclicCosineTrainer, SnapshotCallback
        >>> config = BertConfig(
        ...     vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        ...     intermediate_size=8, num_labels=3,
        ... )
        >>> model = BertForSequenceClassification(config)
        >>> rows = [{"input_ids": torch.arange(5) + i, "labels": i % 3} for i in range(12)]
        >>> folder, output = tempfile.mkdtemp(), tempfile.mkdtemp()
        >>> trainer = CyclicCosineTrainer(
        ...     model,
        ...     TrainingArguments(output, max_steps=6, report_to="none", disable_tqdm=True),
        ...     train_dataset=rows,
        ...     num_cycles=3,
        ...     callbacks=[SnapshotCallback(folder)],
        ... )
        >>> result = trainer.train()  # doctest: +ELLIPSIS
        {...}
        >>> from cosanneal.snapshots import SnapshotStore
        >>> [snapshot.step for snapshot in SnapshotStore(folder).list()]
        [2, 4, 6]
    """

    lr_scheduler: Any
    optimizer: Any

    def __init__(
        self,
        *args: Any,
        num_cycles: int | None = None,
        schedule: Schedule | Callable[[int], Schedule] | None = None,
        **kwargs: Any,
    ) -> None:
        if (num_cycles is None) == (schedule is None):
            raise ScheduleError(
                "Arguments `num_cycles` and `schedule` must be given one of both. Received: "
                f"num_cycles={num_cycles}, schedule={shown(schedule)}"
            )
        self.num_cycles: int | None = num_cycles
        self.schedule: Schedule | Callable[[int], Schedule] | None = schedule
        super().__init__(*args, **kwargs)

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> Any:
        """The scheduler for `num_training_steps` updates, unless the trainer has one.

        Of the `optimizer`, or where none is given of the trainer's own.
        """
        if self.lr_scheduler is None:
            schedule = self._schedule(num_training_steps)
            self.lr_scheduler = CyclicCosineLR(optimizer or self.optimizer, schedule)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, as a Trainer does; where that is broken off, the snapshots' folder is free."""
        try:
            return super().train(*args, **kwargs)
        except BaseException:
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, SnapshotCallback):
                    callback.release()
            raise

    def _schedule(self, updates: int) -> Schedule:
        if self.schedule is None:
            return CyclicCosine(
                self.args.learning_rate,
                total_steps=updates,
                num_cycles=self.num_cycles,
                warmup_steps=self.args.get_warmup_steps(updates),
            )
        given = self.schedule
        schedule = given if isinstance(given, Schedule) else given(updates)
        if not isinstance(schedule, Schedule) or schedule.total_steps not in (None, updates):
            raise ScheduleError(
                f"Argument `schedule` must give a Schedule of the {updates} updates that the "
                f"trainer does. Received: {shown(schedule)}"
            )
        return schedule


def _logged(state: TrainerState) -> dict[str, float]:
    """The numbers that were logged last, by name."""
    found: dict[str, float] = {}
    for row in state.log_history:
        found |= {name: float(value) for name, value in row.items() if _is_number(value)}
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
