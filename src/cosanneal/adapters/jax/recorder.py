"""The recorder of pytrees of params."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Unpack

import jax.numpy as jnp
import numpy as np

from ...core.difference import agree
from ...core.errors import SnapshotError, shown
from ...core.schedule import Schedule
from ...snapshots.capture import EachStep, HostBuffers, Piece, Standing
from ...snapshots.options import Metrics, RecorderOptions
from ...snapshots.reader import SnapshotReader
from ...snapshots.recorder import Recorder
from ...snapshots.store import SnapshotStore
from .buffer import SnapshotBuffer
from .capture import PytreeCapture
from .injected import checked_rate, rate_of
from .ranks import are_several, ranks_here
from .repeated import Repeated


class SnapshotRecorder(Recorder):
    """Records the params, any pytree of arrays, at the end of every cycle.

    They are copied when the cycle ends, and written in the background: see
    `cosanneal.snapshots.recorder.Recorder`.

    A run that goes on beyond its schedule is said to by a UserWarning, once. To make
    it longer, make the optimizer and the recorder anew with the extended schedule, as
    in `optax.sgd(cyclic_cosine_schedule(longer))`: the optimizer's state fits, and
    with `resume_from` the folder goes on.

    A tensor's name is its path in the pytree: `params["dense"]["kernel"]` is
    `dense.kernel`.

    In a run on several processes (`jax.distributed.initialize`, and only then the
    recorder) each makes its recorder, steps it with the params of the same update, and
    closes it. Process 0 writes; the others hold no folder. Arrays that every process has
    whole are taken as they are; others are gathered one by one, by all processes at a
    cycle's end. What is no array of several processes (of numpy's, or on one process'
    own devices) is taken from process 0, and is not compared with that of the others.
    `metrics` is called in every process, and process 0's numbers are kept. An error,
    of any process, is raised in all of them, at the latest at the next cycle's end; only
    `wait()`, which one process may call by itself, leaves one of writing to that.

    With `sharded=True` nothing is gathered: each process writes what lies on its devices,
    one file for each device, into the folder that all of them share. What several devices
    hold is written by one of them, so that every process has about as much to write.

    Args:
        folder: the folder of the snapshots, or its URL; made if it is not there.
        schedule: the schedule of the run.
        options: `resume_from`, `overwrite`, `metrics`, `background`, `max_pending`,
            `on_durable`, `on_error`, `keep_last`, `keep_best`, `metric`, `mode`,
            `install_sigterm`, `which` and `sharded`, as RecorderOptions has them; but params
            do not say which of them train, so that a part is chosen by the names.

    Raises:
        SnapshotError: the folder cannot be written to, or another recorder is
            writing to it; it holds snapshots, and the run is not resumed; or it
            was written under another schedule.

    Example:
        >>> import tempfile
        >>> import jax.numpy as jnp
        >>> import cosanneal as ca
        >>> params = {"dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}}
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> with SnapshotRecorder(tempfile.mkdtemp(), schedule) as recorder:
        ...     [recorder.step(params) for _ in range(6)]
        [False, False, True, False, False, True]
        >>> list(recorder.store.list()[-1].load())
        ['dense.bias', 'dense.kernel']
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | SnapshotStore,
        schedule: Schedule,
        **options: Unpack[RecorderOptions],
    ) -> None:
        ranks = ranks_here()
        self._pytree = PytreeCapture(ranks=ranks, writes=ranks.writes)
        self._sharded: bool = options.get("sharded", False)
        self._seen = False
        self._repeated = Repeated()
        super().__init__(folder, schedule, self._pytree, EachStep(), ranks=ranks, **options)

    def step(self, params: Any, metrics: Metrics = None) -> bool:
        """Note that an update was done; call it with the params that the update returned.

        With gradients accumulated by optax.MultiSteps, whose schedule counts updates
        and not batches, that is where `tx.has_updated(opt_state)`.

        The first call looks at the params' names and dtypes, and the first few hundred at whether
        they are the arrays of the call before, which is a line in the log, once: of a
        step too many. Afterwards they are not looked at where no cycle ends. At a cycle's
        end they are copied before this returns: their buffers may then be donated.

        Args:
            params: the pytree of arrays to record: the weights, and whatever
                else the model needs to predict (such as batch statistics).
            metrics: the user's own numbers for the snapshot: a dict, or a
                function that returns one and is called only if a cycle ended.

        Returns:
            Whether a cycle ended and its snapshot was taken.

        Raises:
            SnapshotError: params or metrics that cannot be recorded, or params
                whose structure is not that of the snapshot before (the first
                tensor that differs is named); an earlier snapshot could not be
                written; or the recorder is closed.
        """
        if not self._seen:
            self._refuse_made_too_early()
        with self._pytree.of(params):
            taken = self.look(metrics)
            if not self._seen:  # or an error would come only when a cycle has been trained
                self._seen = True
                self._ranks.agreed(self._pytree.check)
            self.warn_beyond()
            if self._repeated.are(params) and self._ranks.writes:
                self._notices.note(
                    f"Step {self.updates} was given the arrays of the step before. If step is "
                    "called more than once an update, call it once, or cycles end before their "
                    "time; if the update was left out, as of gradients that are not finite, leave "
                    "step out too",
                    once="repeated",
                )
            return taken

    def take(
        self, params: Any, metrics: Metrics = None, *, rate: Any = None, opt_state: Any = None
    ) -> bool:
        """Record a snapshot now, whether or not a cycle ended; after the `step` of an update.

        It counts no update: `step` does. Call it before a checkpoint is saved, since a run
        resumed from there does not take it again. The file has the name of the cycle in
        which the last update lay, and of the updates done. An ensemble has it as a member,
        and `keep_last` and `keep_best` count it, as any other. To predict with the cycles'
        ends alone, give the ensemble `members=lambda each: schedule.is_cycle_end(each.step - 1)`.

        Args:
            params: the pytree to record, as `step` has it.
            metrics: the user's own numbers for the snapshot, a dict or a function that
                returns one; by default those of the recorder's `metrics`.
            rate: the rate of the last update, where that is not the schedule's.
            opt_state: the optimizer's state after that update, of which the rate is taken:
                `hyperparams["learning_rate"]` of `optax.inject_hyperparams`. Without either,
                the schedule's rate is noted: a function of Optax has none that could be seen.

        Returns:
            Whether one was taken: False where the update has its snapshot, as at a cycle's
            end, and no `metrics` are given. With them its file is written anew.

        Raises:
            SnapshotError: no update was done yet; `rate` and `opt_state` at once, a rate
                that is no number of at least 0, or a state without one or with several; and
                as `step` does.

        Example:
            >>> import tempfile
            >>> import jax.numpy as jnp
            >>> import cosanneal as ca
            >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
            >>> params = {"kernel": jnp.ones((2, 3))}
            >>> with SnapshotRecorder(tempfile.mkdtemp(), schedule) as recorder:
            ...     _ = recorder.step(params)
            ...     recorder.take(params, metrics={"val_error": 0.25}, rate=0.0035)
            True
            >>> [snapshot.metadata["rate"] for snapshot in recorder.store.list()]
            [0.0035]
        """
        if rate is not None and opt_state is not None:
            raise SnapshotError(
                "Arguments `rate` and `opt_state` both say the rate. Received: both; give one"
            )
        had = self._standing.rate
        if opt_state is not None:
            had = rate_of(opt_state)
        elif rate is not None:
            had = checked_rate(rate)
        with self._pytree.of(params):
            return self.take_at(self._standing._replace(rate=had), metrics)

    def record(self, buffer: SnapshotBuffer) -> int:
        """Record the members of a buffer, as `step` would have done at each one's update.

        The recorder then stands where the buffer does. Members up to where it
        stands already are passed over, so a buffer may be recorded, updated
        further, and recorded again.

        Args:
            buffer: see `snapshot_buffer`; its schedule must be the recorder's, or
                have the same cycles as far as the buffer came, as one that was
                extended to the recorder's.

        Returns:
            How many snapshots were recorded.

        Raises:
            SnapshotError: a buffer of another schedule, one behind the recorder,
                one of several runs, or one whose steps were counted anew; and as
                `step` does.
        """
        if not isinstance(buffer, SnapshotBuffer):
            raise SnapshotError(
                "Argument `buffer` must be what snapshot_buffer(...) gave. "
                f"Received: {shown(buffer)}; params are recorded by step(params)"
            )
        done = int(buffer.latest) + 1 if not jnp.ndim(buffer.latest) else 0
        if buffer.schedule != self.schedule and not (
            done and agree(buffer.schedule, self.schedule, done)
        ):
            raise SnapshotError(
                "Argument `buffer` must have the recorder's schedule. "
                f"Received: one with {buffer.schedule!r}, not {self.schedule!r}"
            )
        self._refuse_made_too_early()
        recorded, members = 0, buffer.in_order()
        for step, params in members:
            if step >= self.updates:
                with self._pytree.of(params):
                    recorded += self.advance(Standing(step + 1, step + 1))
        if members and not recorded:
            self._refuse_others(*members[-1])
        self.advance(Standing(done, done))
        self.warn_beyond()
        return recorded

    def _refuse_others(self, step: int, params: Any) -> None:
        """Refuse a member that is passed over, and is not the one that was recorded.

        So a loop shows that counts its steps anew for each buffer, whose snapshots
        would else be lost.
        """
        self.flush()
        there = self._ranks.shared(
            lambda: any(snapshot.step == step + 1 for snapshot in self.store.list())
        )
        if there:
            with self._pytree.of(params):
                if self._sharded:
                    pieces = self._pytree.parts().pieces.values()
                    self._ranks.agreed(lambda: self._refuse_other(step, _same_pieces(pieces)))
                    return
                tensors = self._part.tensors()
            same = _same_tensors(tensors)
            self._ranks.told(lambda: self._refuse_other(step, same))

    def _refuse_other(self, step: int, is_same: Callable[[SnapshotReader], bool]) -> None:
        for snapshot in self.store.list():
            if snapshot.step != step + 1:
                continue
            with snapshot.open() as recorded:
                if not is_same(recorded):
                    raise SnapshotError(
                        "The steps of a buffer must count the updates of the whole run. "
                        f"Received: a member at step {step}, of which there is a snapshot of "
                        f"other params, {snapshot.path}; give update(start + i, ...) where a "
                        "loop counts anew"
                    )

    def _refuse_made_too_early(self) -> None:
        """Refuse to go on as one process that has meanwhile become one of several."""
        if self._ranks.alone and are_several():
            raise SnapshotError(
                "A recorder must be made when the processes of its run are there. Received: one "
                "that was made before them; make it after jax.distributed.initialize(...)"
            )


def _same_tensors(tensors: Mapping[str, Any]) -> Callable[[SnapshotReader], bool]:
    """Whether a snapshot has these tensors."""

    def same(recorded: SnapshotReader) -> bool:
        copied = HostBuffers().copy(tensors)
        return all(b"".join(recorded.chunks(name)) == each.data for name, each in copied.items())

    return same


def _same_pieces(pieces: Iterable[Mapping[str, Piece]]) -> Callable[[SnapshotReader], bool]:
    """Whether a snapshot has these pieces of tensors."""

    def same(recorded: SnapshotReader) -> bool:
        for named in pieces:
            for name, (data, start) in named.items():
                ours = np.asarray(data)
                at = tuple(slice(a, a + n) for a, n in zip(start, ours.shape, strict=True))
                if recorded[name][at].tobytes() != ours.tobytes():
                    return False
        return True

    return same
