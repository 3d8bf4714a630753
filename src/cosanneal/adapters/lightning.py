"""Lightning: a callback that records the module's weights at the end of every cycle.

It stands on the adapter for torch, and takes the scheduler, the number of updates and
the moment of a checkpoint from the trainer's own hooks.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from ..core.cyclic import CyclicCosine
from ..core.errors import MissingExtraError, SnapshotError
from .torch import CyclicCosineLR, SnapshotRecorder
from .torch.wrapped import schedulers_within

# Lightning comes as two packages of the same code; a program uses one of them.
_PACKAGE = "pytorch_lightning" if "pytorch_lightning" in sys.modules else "lightning.pytorch"
try:
    if TYPE_CHECKING or _PACKAGE == "lightning.pytorch":
        from lightning.pytorch import Callback, LightningModule, Trainer
        from lightning.pytorch.utilities.types import LRSchedulerConfig
    else:
        from pytorch_lightning import Callback, LightningModule, Trainer
        from pytorch_lightning.utilities.types import LRSchedulerConfig
except ModuleNotFoundError as _error:
    if _error.name != "lightning":
        raise
    raise MissingExtraError.for_extra(
        "lightning", package="lightning", needed_by="cosanneal.adapters.lightning"
    ) from _error

if TYPE_CHECKING:
    from ..snapshots.options import RecorderOptions
    from ..snapshots.store import SnapshotStore

__all__ = ["SnapshotCallback"]

_log = logging.getLogger(__name__)

_LINES = (
    "return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': CyclicCosineLR(optimizer, "
    "schedule), 'interval': 'step'}} from configure_optimizers"
)


class SnapshotCallback(Callback):
    """Records the module's weights and buffers at the end of every cycle of its scheduler.

    The scheduler is the CyclicCosineLR that `configure_optimizers` returns, with
    `"interval": "step"`. Or give `num_cycles`, and let `configure_optimizers` return the
    optimizer alone: the callback then anneals its rate to 0 in so many cycles over
    all updates of the run, `trainer.estimated_stepping_batches`, from the optimizer's `lr`.
    (With manual optimization the module steps `self.lr_schedulers()` after each update.)

    Each process of a strategy makes its recorder, and rank 0 writes. A checkpoint is
    saved when the snapshots taken are durable, and `trainer.fit(..., ckpt_path=...)`
    goes on in mid-cycle. `Trainer(fast_dev_run=True)` records nothing.

    Each snapshot holds the trainer's logged metrics of its moment (those of the last
    validation before), so that `keep_best=2, metric="val_loss"` works, and is logged as
    `snapshots`, the number taken so far, by the trainer's loggers.

    Args:
        folder: the folder of the snapshots, or its URL; made if it is not there.
        num_cycles: of the schedule that the callback makes; by default it makes none.
        options: what `cosanneal.adapters.torch.SnapshotRecorder` takes by keyword:
            `keep_last`, `keep_best`, `metric`, `metrics`, `overwrite` and so on.

    Raises:
        SnapshotError: (when the fit starts) no CyclicCosineLR, or several that differ; one
            that is not stepped once an update; or as of `SnapshotRecorder`.
        ScheduleError: fewer updates than cycles.

    Example:
        >>> import tempfile, torch
        >>> import lightning.pytorch as pl
        >>> from cosanneal.adapters.torch import SnapshotEnsemble
        >>> from cosanneal.adapters.lightning import SnapshotCallback
        >>> class Classifier(pl.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = torch.nn.Linear(4, 3)
        ...     def forward(self, x):
        ...         return self.layer(x)
        ...     def training_step(self, batch, batch_idx):
        ...         x, y = batch
        ...         return torch.nn.functional.cross_entropy(self(x), y)
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), lr=0.1)
        >>> x, y = torch.randn(64, 4), torch.arange(64) % 3
        >>> loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 8)
        >>> folder, module = tempfile.mkdtemp(), Classifier()
        >>> trainer = pl.Trainer(
        ...     max_epochs=5,
        ...     callbacks=[SnapshotCallback(folder, num_cycles=5)],
        ...     default_root_dir=folder,
        ...     enable_progress_bar=False,
        ...     enable_model_summary=False,
        ... )
        >>> trainer.fit(module, loader)
        >>> SnapshotEnsemble(module, folder).predict(x).shape
        torch.Size([64, 3])
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | SnapshotStore,
        *,
        num_cycles: int | None = None,
        **options: Unpack[RecorderOptions],
    ) -> None:
        self.folder: str | os.PathLike[str] | SnapshotStore = folder
        self.num_cycles: int | None = num_cycles
        self.options: RecorderOptions = options
        self.recorder: SnapshotRecorder | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the scheduler, or make it, before a checkpoint's state is loaded into it.

        Raises:
            SnapshotError: there is no CyclicCosineLR to follow, it is not stepped after every
                update, or `num_cycles` is given where a scheduler is there.
        """
        scheduler, config = _found(trainer)
        if self.num_cycles is None:
            if scheduler is None:
                raise SnapshotError(
                    "SnapshotCallback must find a CyclicCosineLR among the module's schedulers. "
                    f"Received: {_names(trainer)}; {_LINES}, or give num_cycles= to have it made"
                )
            if pl_module.automatic_optimization and (config.interval, config.frequency) != (
                "step",
                1,
            ):
                raise SnapshotError(
                    "The CyclicCosineLR must be stepped after every update. Received: interval="
                    f"{config.interval!r}, frequency={config.frequency}; {_LINES}"
                )
            return
        if trainer.lr_scheduler_configs:
            raise SnapshotError(
                "Argument `num_cycles` must be left out where the module has a scheduler of its "
                f"own. Received: num_cycles={self.num_cycles}, and {_names(trainer)}"
            )
        if len(trainer.optimizers) != 1:
            raise SnapshotError(
                "Argument `num_cycles` must be left out but for one optimizer. Received: "
                f"num_cycles={self.num_cycles}, and {len(trainer.optimizers)} of them; {_LINES}"
            )
        self._anneal(trainer, self.num_cycles)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the folder; a checkpoint's state is loaded by now."""
        scheduler, _ = _found(trainer)
        if trainer.fast_dev_run or scheduler is None:
            return
        self._close(unfinished=True)  # of a fit before, which was broken off
        options: RecorderOptions = {**self.options}
        options.setdefault("metrics", lambda: _numbers(trainer.callback_metrics))
        self.recorder = SnapshotRecorder(self.folder, pl_module, scheduler, **options)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Say what went wrong in the background, and log a snapshot that was taken."""
        if self.recorder is not None and self.recorder.step():
            taken = self.recorder.statistics.taken
            _log.info("Snapshot %d at update %d", taken, self.recorder.updates)
            for logger in trainer.loggers:
                logger.log_metrics({"snapshots": taken}, step=trainer.global_step)

    def on_train_end(self, *_: Any) -> None:
        """Wait for the snapshots taken, and let others write to the folder."""
        self._close()

    def on_exception(self, *_: Any) -> None:
        """Give the folder back, with every snapshot taken so far in it."""
        self._close(unfinished=True)

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint, once the snapshots taken are durable."""
        return {} if self.recorder is None else self.recorder.state_dict()

    def _anneal(self, trainer: Trainer, cycles: int) -> None:
        """Add the scheduler, as `configure_optimizers` would have returned it."""
        updates = trainer.estimated_stepping_batches
        if not 0 < updates < math.inf:
            raise SnapshotError(
                "The trainer must know how many updates the run has, for num_cycles=. Received: "
                f"{updates}; give the Trainer max_steps"
            )
        if trainer.fast_dev_run:
            cycles = min(cycles, int(updates))
        (optimizer,) = trainer.optimizers
        peak = max(float(group["lr"]) for group in optimizer.param_groups)
        schedule = CyclicCosine(peak, total_steps=int(updates), num_cycles=cycles)
        scheduler = CyclicCosineLR(optimizer, schedule)
        config = LRSchedulerConfig(scheduler, interval="step")
        trainer.strategy.lr_scheduler_configs.append(config)

    def _close(self, *, unfinished: bool = False) -> None:
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            recorder.close(unfinished=unfinished)


def _found(trainer: Trainer) -> tuple[CyclicCosineLR | None, Any]:
    """The scheduler to follow, and how Lightning steps it.

    Raises:
        SnapshotError: several, whose cycles differ.
    """
    found = [
        (scheduler, config)
        for config in trainer.lr_scheduler_configs
        for scheduler in schedulers_within(config.scheduler)
    ]
    if any(each.schedules != found[0][0].schedules for each, _ in found):
        raise SnapshotError(
            "SnapshotCallback must find one CyclicCosineLR, or several of one schedule. Received: "
            f"{len(found)} that differ; make a SnapshotRecorder with the one to follow in the "
            "module's on_train_start"
        )
    return found[0] if found else (None, None)


def _names(trainer: Trainer) -> str:
    """The module's schedulers, in words."""
    kinds = [type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs]
    return ", ".join(kinds) or "none"


def _numbers(logged: Mapping[str, Any]) -> dict[str, float]:
    """What was logged, as a snapshot's metrics."""
    return {name: float(value) for name, value in logged.items()}
