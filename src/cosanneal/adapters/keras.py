"""Keras: the schedule, the snapshot recorder and the snapshot ensemble, on any of its backends."""

from __future__ import annotations

import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias, Unpack

from ..core.errors import (
    EnsembleError,
    MissingExtraError,
    ScheduleError,
    SnapshotError,
    check_flag,
    check_steps,
    shown,
)
from ..core.graph import Table, evaluate
from ..core.records import first_difference
from ..core.schedule import Schedule

# The extra that installs each package, and with it the backend that Keras was told to use.
_EXTRAS = {
    **dict.fromkeys(("keras", "numpy", "safetensors", "tensorflow"), "tf"),
    **dict.fromkeys(("jax", "jaxlib"), "jax"),
    "torch": "torch",
}

try:
    import keras
    import numpy as np
    from keras import ops
    from numpy.typing import NDArray

    from ..ensemble.arrays import as_floats, as_numpy, narrow
    from ..ensemble.averaged import Layers, Moments
    from ..ensemble.base import BaseEnsemble, Outputs, free_host_memory, lock_of
    from ..ensemble.batches import Batches
    from ..ensemble.pooling import Pooling
    from ..snapshots.recorder import BaseRecorder, Metrics, RecorderOptions, check_schedule
    from ..snapshots.store import Snapshot, SnapshotStore
except ModuleNotFoundError as error:
    if error.name not in _EXTRAS:
        raise
    needed_by = "cosanneal.adapters.keras"
    if error.name not in ("keras", "numpy", "safetensors"):
        needed_by = f"Keras on {error.name}, as KERAS_BACKEND or keras.json has it,"
    raise MissingExtraError.for_extra(
        _EXTRAS[error.name], package=error.name, needed_by=needed_by
    ) from error

Logs: TypeAlias = "dict[str, Any] | None"

__all__ = ["CyclicCosineSchedule", "SnapshotEnsemble", "SnapshotRecorder"]


@keras.saving.register_keras_serializable(package="cosanneal")
class CyclicCosineSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """The schedule as a Keras schedule, which any optimizer takes as its learning rate.

    `rate(step) = low + (high - low) * sin(pi * share / 2) ** 2`

    `share` is the part of the annealing between the step and its low end,
    counted in integers, over its length. The schedule is lowered once into small
    constant arrays; the graph has one lookup and one sine, however many cycles
    there are. On each backend, compiled or not, the rate is within 8 ulp of the
    exact one in float32, and in float64 where that is Keras' `floatx`, with the
    peak itself at every restart. (Where a preset takes powers, as optax'
    `exponent` and timm's `k_decay`, within 12 ulp, times the exponent where that
    is more than 1.)

    It is saved with the model, optimizer and all, and loaded where this module
    is imported.

    Args:
        schedule: the schedule. Graphs hold it up to step 2**31 - 1, or 2**62 in
            float64.

    Returns:
        As a function of the step: a scalar of the backend's. The step is an
        integer of Python's or numpy's, a variable, or a tensor of integers,
        whose elements it maps. Inside a graph nothing can be raised, so a
        tensor's negative steps count as step 0, and steps beyond the last as
        the last. A Python or numpy integer that is negative, or beyond the
        last, is a ScheduleError.

    Raises:
        ScheduleError: no schedule; one that would need a table of more than
            32,768 rows; or one whose rates are beyond the range of the float
            dtype.

    Example:
        >>> import keras
        >>> import cosanneal as ca
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> rate = CyclicCosineSchedule(schedule)
        >>> optimizer = keras.optimizers.SGD(rate, momentum=0.9)
        >>> [round(float(rate(step)), 6) for step in range(7)]
        [0.2, 0.15, 0.05, 0.2, 0.15, 0.05, 0.0]

    Source: Loshchilov and Hutter, "SGDR" (2017), Eq. 5.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = check_schedule(schedule)
        # By the precision, for floatx may be changed between two calls.
        self._tables: dict[bool, Table[NDArray[Any]]] = {}
        self._table(_Operations())  # what cannot be lowered is said here, and not inside of a graph

    def __call__(self, step: Any) -> Any:
        """The rate of the update with that number; see the class."""
        operations = _Operations()
        table = self._table(operations)
        steps = operations.step(step, table.limit)
        if isinstance(steps, int):
            return ops.convert_to_tensor(self.schedule.rate(steps), operations.float)
        return evaluate(table, steps, operations)

    def get_config(self) -> dict[str, Any]:
        """The schedule as plain data."""
        return {"schedule": self.schedule.to_dict()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CyclicCosineSchedule:
        """The schedule that `get_config` describes."""
        return cls(Schedule.from_dict(config["schedule"]))

    def _table(self, operations: _Operations) -> Table[NDArray[Any]]:
        if operations.wide not in self._tables:
            self._tables[operations.wide] = Table.of(
                self.schedule,
                wide=operations.wide,
                constant=lambda values: np.array(values, operations.index),
                rows=lambda integers, floats: (
                    np.array(integers, operations.index),
                    np.array(floats, operations.float),
                ),
            )
        return self._tables[operations.wide]


class _Operations:
    """What `evaluate` needs of Keras, in the dtypes of the day.

    Where the backends' own operators do, they are used: Keras' functions bring
    64 bits down to 32 on some backends. Constants become tensors in each graph
    anew, for a tensor of one graph is none in another.
    """

    def __init__(self) -> None:
        # JAX has 64 bits only where x64 is enabled.
        self.wide = keras.config.floatx() == "float64" and (
            keras.backend.standardize_dtype(ops.convert_to_tensor(np.zeros(1)).dtype) == "float64"
        )
        self.index, self.float = ("int64", "float64") if self.wide else ("int32", "float32")

    def step(self, value: Any, limit: int) -> Any:
        """The step in [0, limit]: a tensor of the index dtype, or an int where no graph is made."""
        if not isinstance(value, keras.Variable) and not ops.is_tensor(value):
            step = check_steps("step", value)
            if step > limit:
                raise ScheduleError(
                    f"Argument `step` must be at most {limit}, the largest step of a graph. "
                    f"Received: step={shown(value)}"
                    + ("" if self.wide else "; set floatx to float64 for larger ones")
                )
            return step
        dtype = keras.backend.standardize_dtype(value.dtype)
        if dtype not in ("int8", "uint8", "int16", "uint16", "int32", "int64"):
            raise ScheduleError(
                "Argument `step` must be an integer (optimizer steps, counted from 0), and as a "
                f"tensor a signed one. Received: a tensor of {dtype}"
            )
        step = ops.cast(value, dtype)  # reads a variable
        # An eager tensor of TensorFlow's or PyTorch's: one operation on it costs
        # more than the schedule's own rate.
        if step.ndim == 0 and hasattr(step, "numpy"):
            return min(max(int(step), 0), limit)
        if dtype == "int64":
            step = self.minimum(step, limit)
        return self.maximum(ops.cast(step, self.index), 0)

    def before(self, ends: Any, step: Any) -> Any:
        later = ops.expand_dims(step, -1) > ops.convert_to_tensor(ends)
        return ops.sum(ops.cast(later, "int32"), axis=-1)

    def take(self, constant: Any, i: Any) -> Any:
        return ops.take(ops.convert_to_tensor(constant), i, axis=0)

    def row(self, rows: tuple[NDArray[Any], NDArray[Any]], i: Any) -> tuple[list[Any], list[Any]]:
        integers, floats = (self.take(table, i) for table in rows)
        return _columns(integers), _columns(floats)

    def real(self, integer: Any) -> Any:
        return ops.cast(integer, self.float)

    def remainder(self, dividend: Any, divisor: int) -> Any:
        return dividend % divisor

    def quotient(self, dividend: Any, divisor: int) -> Any:
        return dividend // divisor

    def select(self, condition: Any, yes: Any, no: Any) -> Any:
        if not self.wide:
            return ops.where(condition, yes, no)
        # The products with 0 and 1 are exact, and so is their sum.
        dtype = (yes if ops.is_tensor(yes) else no).dtype
        chosen = ops.cast(condition, keras.backend.standardize_dtype(dtype))
        return chosen * yes + (1 - chosen) * no

    def minimum(self, a: Any, b: Any) -> Any:
        return self.select(a < b, a, b)

    def maximum(self, a: Any, b: Any) -> Any:
        return self.select(a > b, a, b)

    def power(self, base: Any, exponent: Any) -> Any:
        return base**exponent

    def sin(self, x: Any) -> Any:
        return _native(x).sin(x)

    def exp(self, x: Any) -> Any:
        return _native(x).exp(x)

    def log(self, x: Any) -> Any:
        return _native(x).log(x)


def _native(x: Any) -> Any:
    """The functions for a tensor. Keras' own on JAX are of float32, whatever they are given."""
    space = getattr(x, "__array_namespace__", None)
    return ops if space is None else space()


def _columns(row: Any) -> list[Any]:
    return [row[..., column] for column in range(row.shape[-1])]


class SnapshotRecorder(BaseRecorder, keras.callbacks.Callback):
    """Records the model's weights at the end of every cycle; a callback for `fit`.

    It counts the optimizer's updates, as the optimizer does: over several calls
    of `fit`, and on from where a loaded optimizer stood, whichever callback or
    call restored it. What it counts is what Keras gives its schedules as the
    step: with `gradient_accumulation_steps=k`, one for each of the k batches.

    With `steps_per_execution` above 1, Keras shows the weights only between two
    executions. A cycle that ends inside of one is recorded after it, and the
    snapshot's step is the number of updates that its weights have seen.

    In a loop of your own, over `train_on_batch`, call it as Keras does:
    `set_model` and `on_train_begin`, then `on_train_batch_begin` before each
    batch, and `on_train_end`.

    The weights are copied when the cycle ends, and written in the background:
    see `BaseRecorder`. When `fit` returns, all snapshots are durable, and others
    may write to the folder. List the recorder before BackupAndRestore and other
    callbacks that save the model: then no snapshot is lost to a kill between
    their checkpoint and its file.

    The history gets the rate of each epoch's last update as `learning_rate`,
    where this schedule sets it. With `keep_best`, cycles must end with epochs,
    whose logs hold the metric (such as `val_loss`).

    Args:
        folder: the folder of the snapshots; made if it is not there.
        schedule: the schedule of the run.
        set_lr: set the rate before each update, where the optimizer was
            compiled with a float, in place of a CyclicCosineSchedule. That
            waits for each update before the next; the schedule does not.
        options: `resume_from` (not needed where the optimizer's state is
            restored, by BackupAndRestore or by loading the model: its count is
            gone by), `background`, `max_pending`, `on_error`, `keep_last`,
            `keep_best`, `metric` and `mode`, as BaseRecorder has them.

    Raises:
        SnapshotError: the folder cannot be written to, or another recorder is
            writing to it; it holds snapshots, and the run is not resumed; or it
            was written under another schedule.

    Example:
        >>> import tempfile
        >>> import keras, numpy as np
        >>> import cosanneal as ca
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(CyclicCosineSchedule(schedule)), "mse")
        >>> recorder = SnapshotRecorder(tempfile.mkdtemp(), schedule)
        >>> x, y = np.ones((6, 2)), np.ones((6, 1))
        >>> history = model.fit(x, y, batch_size=2, epochs=2, callbacks=[recorder], verbose=0)
        >>> [snapshot.step for snapshot in recorder.store.list()]
        [3, 6]
    """

    framework = "keras"
    framework_version = str(keras.__version__)

    def __init__(
        self,
        folder: str | os.PathLike[str] | SnapshotStore,
        schedule: Schedule,
        *,
        set_lr: bool = False,
        **options: Unpack[RecorderOptions],
    ) -> None:
        keras.callbacks.Callback.__init__(self)
        self.set_lr = check_flag("set_lr", set_lr)
        super().__init__(folder, check_schedule(schedule), **options)
        self._resume_from = options.get("resume_from")
        self._logs_rate = False
        # A look at the optimizer's count waits for the device. So one is taken
        # only where the executions begun since the last may have ended a cycle.
        self._began = False
        self._executions = self._due = self._pace = 0

    def on_train_begin(self, logs: Logs = None) -> None:  # noqa: ARG002
        """Check that the optimizer fits the schedule; called by `fit`."""
        self._go_on()
        model = self._model  # not `model`, which has JAX's loop hand the weights over
        if getattr(model, "optimizer", None) is None:
            raise SnapshotError(
                "The model must be compiled with an optimizer, whose updates are counted. "
                "Received: a model without one"
            )
        rate = _inner(model.optimizer)._learning_rate
        if isinstance(rate, CyclicCosineSchedule):
            difference = first_difference(rate.schedule.to_dict(), self.schedule.to_dict())
            if difference is not None:
                path, theirs, ours = difference
                raise ScheduleError(
                    "Argument `schedule` must be the schedule of the optimizer. Received: one with "
                    f"{path} = {ours}, and an optimizer whose schedule has {theirs}; give both the "
                    "same"
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
        self._logs_rate = self.set_lr or isinstance(rate, CyclicCosineSchedule)
        self._began = False
        self._executions, self._due, self._pace = 0, 0, pace

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Record a cycle that the updates so far have ended; called by `fit`."""
        # Here and not at a batch's end: a callback with an end of its own makes
        # Keras wait for every batch's logs.
        if self._executions >= self._due:
            self._look()
        self._executions += 1

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Record a cycle that the epoch's last updates have ended; called by `fit`."""
        metric = self._retention.metric
        if metric is None:
            # A checkpoint of this epoch must not be older than an earlier snapshot.
            self.wait()
            self._look()
        else:
            self._look({name: value for name, value in (logs or {}).items() if name == metric})
            self.wait()  # for a resumed run has the weights again, but not the logs
        if logs is not None and self._logs_rate:
            logs["learning_rate"] = self.schedule.rate(max(self._updates - 1, 0))

    def on_train_end(self, logs: Logs = None) -> None:  # noqa: ARG002
        """Record a cycle that the last updates have ended, and finish; called by `fit`."""
        # In `fit` the epoch's end has looked; by now the weights may be the
        # best ones, or their average, and no longer those of the last update.
        if self._executions:
            self._look()
        self._rest()

    def _look(self, metrics: Metrics = None) -> None:
        """Read the optimizer's count, and record if a cycle ended."""
        # On JAX the loop has the weights and the count; `model` fetches them.
        optimizer = _inner(self.model.optimizer)
        updates = int(optimizer._iterations)
        if self._began:
            # A train_step of the user's may update more than once.
            gained = math.ceil((updates - self._updates) / max(self._executions, 1))
            self._pace = max(self._pace, gained)
        else:
            self._begin(updates)
        self._advance(updates, metrics)
        total = self.schedule.total_steps
        if self.set_lr:
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
            raise SnapshotError(
                "Argument `resume_from` must be the number of updates that the optimizer has done. "
                f"Received: resume_from={expected}, and an optimizer that has done {updates}; "
                "restore its state, as keras.saving.load_model does, and leave resume_from out"
            )
        if not updates or (expected is None and updates == self._updates):
            return
        self.resume(updates)
        if self._retention.metric is None:
            # A run may be killed between a checkpoint and the snapshot that was due
            # with it: those weights are here again.
            kept = self.store.list()
            self._updates = max(updates - self._pace, kept[-1].step if kept else 0, 0)

    def _weights(self) -> dict[str, NDArray[Any]]:
        return {name: _array(variable) for name, variable in _named_weights(self.model).items()}


class SnapshotEnsemble(BaseEnsemble["NDArray[Any]"]):
    """One prediction from the last snapshots: by default the mean of their probabilities.

    The model is only borrowed: it comes back with its own weights, and its
    optimizer is not touched. It predicts as `model.predict_on_batch` does: in
    inference mode, compiled once for all members.

    Args:
        model: a model of the kind that was recorded, built.
        folder: the folder of the snapshots.
        last: how many of the newest to use; by default all.
        outputs: what the model returns: "logits" (a softmax over the class axis
            makes probabilities of them), "probabilities", or "values" of a
            regression.
        class_axis: the axis of the classes; None where each number is an
            outcome of its own (binary, multi-label), and a sigmoid makes its
            probability of its logit.
        pooling: "probabilities" (their mean), "logits" (their mean, which is
            the geometric mean of probabilities), "log-probabilities" (the
            logarithm of the mean probabilities) or "vote".

    Raises:
        EnsembleError: an argument that cannot be, or fewer snapshots than asked for.

    Example:
        >>> import tempfile
        >>> import keras, numpy as np
        >>> import cosanneal as ca
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> model.compile(keras.optimizers.SGD(CyclicCosineSchedule(schedule)), "mse")
        >>> folder = tempfile.mkdtemp()
        >>> recorder = SnapshotRecorder(folder, schedule)
        >>> x, y = np.ones((6, 2)), np.ones((6, 3))
        >>> history = model.fit(x, y, batch_size=1, callbacks=[recorder], verbose=0)
        >>> ensemble = SnapshotEnsemble(model, folder, last=2)
        >>> ensemble.predict(np.zeros((5, 2))).shape
        (5, 3)
        >>> found = ensemble.average_weights(np.zeros((5, 2)), np.arange(5) % 3)
        >>> model.set_weights(found.weights)

    Source: Huang et al., "Snapshot Ensembles" (2017), section 3.
    """

    def __init__(
        self,
        model: keras.Model,
        folder: str | os.PathLike[str] | SnapshotStore,
        *,
        last: int | None = None,
        outputs: Outputs = "logits",
        class_axis: int | None = -1,
        pooling: Pooling = "probabilities",
    ) -> None:
        super().__init__(folder, last=last, outputs=outputs, class_axis=class_axis, pooling=pooling)
        if not isinstance(model, keras.Model) or not model.built:
            raise EnsembleError(
                "Argument `model` must be a keras.Model that is built. Received: "
                f"{type(model).__name__}; build a model by calling it on a batch"
            )
        self.model = model

    def _batches(
        self, x: Any, batch_size: int | None, *, training: bool = False, name: str = "x"
    ) -> Batches:
        if isinstance(x, keras.utils.PyDataset):  # which has no end of its own
            x = _Sequence(x)
        tensor = type(ops.convert_to_tensor(0))
        return Batches(
            x,
            batch_size=batch_size,
            arrays=(np.ndarray, tensor),
            convert=as_numpy,
            training=training,
            name=name,
        )

    def _load(self, snapshot: Snapshot) -> dict[str, Any]:
        variables = _named_weights(self.model)
        layout = {
            name: (tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype))
            for name, variable in variables.items()
        }
        return self._tensors(snapshot, layout)

    @contextmanager
    def _exchanged(self) -> Iterator[Callable[[dict[str, Any]], None]]:
        """What gives the model some weights; afterwards it has its own again."""
        with lock_of(self.model):
            if hasattr(self.model, "jax_state_sync"):
                self.model.jax_state_sync()  # the weights of a training that goes on
            variables = _named_weights(self.model)
            own: dict[str, NDArray[Any]] = {}
            present = None

            def give(weights: dict[str, Any]) -> None:
                nonlocal present
                if not own:
                    own.update({name: _array(variable) for name, variable in variables.items()})
                if weights is not present:
                    for name, variable in variables.items():
                        variable.assign(weights[name])
                    present = weights

            try:
                yield give
            finally:
                for name, value in own.items():
                    variables[name].assign(value)

    @contextmanager
    def _borrowed(self) -> Iterator[Callable[[dict[str, Any], tuple[Any, ...]], NDArray[Any]]]:
        with self._exchanged() as give:

            def run(weights: dict[str, Any], batch: tuple[Any, ...]) -> NDArray[Any]:
                give(weights)
                return self._prediction(self.model.predict_on_batch(_as_input(batch)))

            yield run

    def _handed_out(self, weights: dict[str, Any]) -> list[Any]:
        names = {id(variable): name for name, variable in _named_weights(self.model).items()}
        return [weights[names[id(variable)]] for variable in self.model.weights]

    def _batch_norms(self) -> list[Any]:
        """The layers with running statistics of batches.

        One that is frozen while others are trained has statistics that its
        training holds constant, as Keras has it.
        """
        trained = bool(self.model.trainable_variables)
        return [
            layer
            for layer in self.model._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
            and layer.built
            and (layer.trainable or not trained)
        ]

    def _running_statistics(self, members: Sequence[Snapshot]) -> Layers:  # noqa: ARG002
        return [(layer.name, layer) for layer in self._batch_norms()]

    def _reestimated(
        self, weights: dict[str, Any], layers: Layers, batches: Batches
    ) -> dict[str, Any]:
        found = {layer: Moments() for _, layer in layers}
        blind: list[str] = []
        try:
            with self._exchanged() as give, ExitStack() as stack:
                for layer, moments in found.items():
                    stack.callback(_put_call, layer, vars(layer).get("call"))
                    # What the model calls, and no attribute that Keras would track.
                    vars(layer)["call"] = _looking(layer, moments, blind)
                give(weights)
                for batch in batches:
                    # Not as compiled before, which knows the layers as they were.
                    self.model(_as_input(batch), training=False)
        except Exception as error:
            if not blind:
                raise
            # Here, since Keras and TensorFlow make others of what is raised within a layer.
            raise EnsembleError(
                "The layers with running statistics must be run eagerly, and not within a graph or "
                f"a vectorized map. Received: {blind[0]!r}, whose input has no numbers yet"
            ) from error
        names = {id(variable): name for name, variable in _named_weights(self.model).items()}
        estimated = dict(weights)
        for layer, moments in found.items():
            if np.all(moments.count):  # it was reached
                for variable, value in (
                    (layer.moving_mean, moments.mean),
                    (layer.moving_variance, moments.variance()),
                ):
                    name = names[id(variable)]
                    estimated[name] = narrow(value, weights[name])
        return estimated

    def _stack(self, snapshots: Sequence[Snapshot]) -> Callable[[tuple[Any, ...]], NDArray[Any]]:
        members = [self._load(snapshot) for snapshot in snapshots]
        stacked = _Stacked(
            self.model,
            {name: np.stack([member[name] for member in members]) for name in members[0]},
        )

        def run(batch: tuple[Any, ...]) -> NDArray[Any]:
            outputs = stacked.predict_on_batch(_as_input(batch))
            if not isinstance(outputs, np.ndarray):
                return self._prediction(outputs)
            return np.stack([self._prediction(output) for output in outputs])

        return run

    def _joined(self, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _where(self) -> object:
        return None  # what is kept of the members lies in the host's memory, or follows Keras

    def _free_memory(self) -> int | None:
        return free_host_memory()

    def _wait_for(self, predictions: Any) -> None:
        """They are numpy's: there already."""

    def _prediction(self, output: Any) -> NDArray[Any]:
        if not isinstance(output, np.ndarray):
            raise EnsembleError(
                "The model must return one tensor. Received: "
                f"{type(output).__name__}; wrap the model so that it returns the tensor to average"
            )
        return self._checked(output, output.shape)

    def _probabilities(self, logits: NDArray[Any]) -> NDArray[Any]:
        tensor = ops.convert_to_tensor(logits)
        if self.class_axis is None:
            return _array(ops.sigmoid(tensor))
        return _array(ops.softmax(tensor, axis=self.class_axis))


def _put_call(layer: Any, call: Any) -> None:
    """Give a layer back the call of its own that a user set, or none."""
    if call is None:
        vars(layer).pop("call", None)
    else:
        vars(layer)["call"] = call


class _Sequence:
    """The batches of a PyDataset, as an iterable that ends."""

    def __init__(self, dataset: keras.utils.PyDataset) -> None:
        self._dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        return (self._dataset[i] for i in range(len(self._dataset)))


class _Stacked(keras.Model):
    """A model with the stacked weights of several members, which runs them all at once.

    It is a model for the sake of `predict_on_batch`, which compiles it as the
    backend does.
    """

    def __init__(self, model: keras.Model, stacked: dict[str, NDArray[Any]]) -> None:
        super().__init__(name="stacked_members")
        names = {id(variable): name for name, variable in _named_weights(model).items()}
        # What is no weight, such as a random state, stays the model's own.
        self._lists = [
            [names.get(id(variable)) for variable in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        ]
        # In functions, for Keras would take the model's weights for its own.
        self._run: Callable[..., Any] = lambda *lists: model.stateless_call(*lists, training=False)[
            0
        ]
        self._own: Callable[[], Any] = lambda: (
            model.trainable_variables,
            model.non_trainable_variables,
        )
        self._held = {
            name: self.add_weight(
                value.shape,
                initializer="zeros",
                dtype=str(value.dtype),
                trainable=False,
                name=f"member_weight_{i}",
            )
            for i, (name, value) in enumerate(stacked.items())
        }
        for name, variable in self._held.items():
            variable.assign(stacked[name])
        self.built = True

    def call(self, x: Any) -> Any:
        def one(weights: dict[str, Any]) -> Any:
            lists = [
                [
                    ops.convert_to_tensor(own) if name is None else weights[name]
                    for own, name in zip(variables, names, strict=True)
                ]
                for variables, names in zip(self._own(), self._lists, strict=True)
            ]
            return self._run(*lists, x)

        return ops.vectorized_map(
            one, {name: ops.convert_to_tensor(value) for name, value in self._held.items()}
        )


def _looking(layer: Any, moments: Moments, blind: list[str]) -> Callable[..., Any]:
    """A layer's `call` that takes in its input's moments, and normalizes by them.

    Its name is left in `blind` where the input has no numbers yet.
    """
    call = layer.call

    def look(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        mask = kwargs.get("mask")
        blind.append(layer.name)
        x = as_floats(_array(inputs))
        mask = None if mask is None else _array(mask)
        blind.pop()
        rows = np.moveaxis(x, layer.axis, -1).reshape(-1, x.shape[layer.axis])
        batch = Moments()
        if not len(rows):
            return call(inputs, *args, **kwargs)
        if mask is None:
            batch.update(float(len(rows)), rows.mean(axis=0), rows.var(axis=0))
        else:
            # As Keras has it: a mask of all axes but the last.
            kept = np.broadcast_to(mask[..., None], x.shape)
            kept = np.moveaxis(kept, layer.axis, -1).reshape(rows.shape).astype(bool)
            if not kept.any(axis=0).all():
                return call(inputs, *args, **kwargs)
            batch.update(
                kept.sum(axis=0).astype(np.float64),
                rows.mean(axis=0, where=kept),
                rows.var(axis=0, where=kept),
            )
        moments.update(batch.count, batch.mean, batch.variance())
        layer.moving_mean.assign(batch.mean)
        layer.moving_variance.assign(batch.variance())
        return call(inputs, *args, **kwargs)

    return look


def _as_input(batch: tuple[Any, ...]) -> Any:
    return batch[0] if len(batch) == 1 else batch


def _inner(optimizer: Any) -> Any:
    """The optimizer that has the count and the rate, without the one that scales its loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _named_weights(model: keras.Model) -> dict[str, Any]:
    """The model's weights, without metrics and random states, by names that a rebuilt model has.

    A name is the way through the layers, as in `dense/kernel`. Keras numbers
    the layers that the user did not name through the whole process, so that a
    model built twice has other names; so their numbers are counted anew, among
    the layers of the layer that holds them.
    """
    return dict(_walk(model, "", set()))


def _walk(layer: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """A layer's weights in Keras' order: its own, then those of the layers in it."""
    inner = layer._flatten_layers(include_self=False, recursive=False)
    of_inner = {id(weight) for each in inner for weight in each.weights}
    taken: set[str] = set()
    for weight in layer.weights:
        if id(weight) not in of_inner and id(weight) not in seen:
            seen.add(id(weight))
            yield prefix + _free(_plain(weight.name, "Variable"), taken), weight
    for each in inner:
        if each.weights:
            name = _free(_plain(each.name, type(each).__name__), taken)
            yield from _walk(each, f"{prefix}{name}/", seen)


def _plain(name: str, kind: str) -> str:
    """A name without its number, if it is one that Keras makes of the class."""
    plain = re.sub(r"_\d+$", "", name)
    made = plain.replace("_", "") == kind.replace("_", "").lower()
    return plain if made else name


def _free(name: str, taken: set[str]) -> str:
    """The name, or the first that is free of those with a number added."""
    free, number = name, 0
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


def _array(variable: Any) -> NDArray[Any]:
    """A copy, which a later update leaves as it is."""
    with warnings.catch_warnings():
        # Keras asks for the array in a way that numpy has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.array(ops.convert_to_numpy(variable), order="C")
