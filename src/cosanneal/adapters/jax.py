"""JAX and Optax: the schedule, the snapshot recorder and the snapshot ensemble."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Unpack, cast

from ..core.errors import (
    EnsembleError,
    MissingExtraError,
    ScheduleError,
    SnapshotError,
    check_steps,
    shown,
)
from ..core.graph import Ends, Table, evaluate, is_cycle_end
from ..core.schedule import Schedule

try:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from jax import lax
    from numpy.typing import NDArray

    from ..ensemble.arrays import as_floats, as_numpy, narrow
    from ..ensemble.averaged import Layers, Moments
    from ..ensemble.base import BaseEnsemble, Outputs, free_host_memory
    from ..ensemble.batches import Batches
    from ..ensemble.pooling import Pooling
    from ..ensemble.weights import has_mean
    from ..snapshots.file import first_mismatch
    from ..snapshots.recorder import BaseRecorder, Metrics, RecorderOptions, check_schedule
    from ..snapshots.store import Snapshot, SnapshotStore
except ModuleNotFoundError as error:
    if error.name not in ("jax", "jaxlib", "numpy", "optax", "safetensors"):
        raise
    raise MissingExtraError.for_extra(
        "jax", package=error.name, needed_by="cosanneal.adapters.jax"
    ) from error

__all__ = [
    "SnapshotBuffer",
    "SnapshotEnsemble",
    "SnapshotRecorder",
    "cyclic_cosine_schedule",
    "snapshot_buffer",
]


def cyclic_cosine_schedule(schedule: Schedule) -> optax.Schedule:
    """The schedule as a pure function of the step, for Optax and for any traced code.

    `rate(step) = low + (high - low) * sin(pi * share / 2) ** 2`

    `share` is the part of the annealing between the step and its low end,
    counted in integers, over its length. The schedule is lowered once into small
    constant arrays; the graph has one lookup and one sine, however many cycles
    there are. It works under `jit`, `vmap`, `lax.scan` and `grad` (which it
    passes no gradient), and computes in the default precision: within 8 ulp of
    the exact rate in float32, and in float64 where x64 is enabled, with the
    peak itself at every restart. (Where a preset takes powers, as optax'
    `exponent` and timm's `k_decay`, within 12 ulp, times the exponent where that
    is more than 1.)

    Args:
        schedule: the schedule. Graphs hold it up to step 2**31 - 1, or 2**62
            where x64 is enabled.

    Returns:
        A function of the step: a Python or numpy integer, or a jax array of
        integers, whose elements it maps. Rates are arrays of jax's default
        float dtype. Inside a graph nothing can be raised, so an array's
        negative steps count as step 0, and steps beyond the last as the last.
        A Python or numpy integer that is negative, or beyond the last, is a
        ScheduleError.

    Raises:
        ScheduleError: no schedule; one that would need a table of more than
            32,768 rows; or one whose rates are beyond the range of the float
            dtype.

    Example:
        >>> import jax, optax
        >>> import cosanneal as ca
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> rate = cyclic_cosine_schedule(schedule)
        >>> tx = optax.sgd(rate, momentum=0.9)
        >>> [round(float(jax.jit(rate)(step)), 6) for step in range(7)]
        [0.2, 0.15, 0.05, 0.2, 0.15, 0.05, 0.0]

    Source: Loshchilov and Hutter, "SGDR" (2017), Eq. 5.
    """
    schedule = check_schedule(schedule)
    # By the precision, for x64 may be switched on or off between two calls.
    tables: dict[bool, Table[NDArray[Any]]] = {}

    def table() -> tuple[Table[NDArray[Any]], _Operations]:
        ops = _Operations.now()
        if ops.wide not in tables:
            tables[ops.wide] = Table.of(
                schedule,
                wide=ops.wide,
                constant=lambda values: np.array(values, ops.index),
                rows=ops.packed,
            )
        return tables[ops.wide], ops

    def rate(step: Any) -> jax.Array:
        constants, ops = table()
        steps = ops.step(step, constants.limit)
        if not steps.ndim:
            return cast(jax.Array, evaluate(constants, steps, ops))
        each = jax.vmap(lambda step: evaluate(constants, step, ops))
        return cast(jax.Array, each(steps.ravel()).reshape(steps.shape))

    table()  # what cannot be lowered is said here, and not inside of a graph
    return cast(optax.Schedule, rate)


class _Operations(NamedTuple):
    """What `evaluate` needs of jax, in the dtypes of the day."""

    wide: bool
    index: Any
    float: Any

    @classmethod
    def now(cls) -> _Operations:
        wide = bool(jnp.result_type(float) == np.float64)
        return cls(wide, *((np.int64, np.float64) if wide else (np.int32, np.float32)))

    def step(self, value: Any, limit: int) -> jax.Array:
        """The step in the index dtype, in [0, limit]."""
        if not isinstance(value, jax.Array):  # as tracers are
            step = check_steps("step", value)
            if step > limit:
                raise ScheduleError(
                    f"Argument `step` must be at most {limit}, the largest step of a graph. "
                    f"Received: step={shown(value)}"
                    + ("" if self.wide else "; enable x64 for larger ones")
                )
            return jnp.asarray(step, self.index)
        if not jnp.issubdtype(value.dtype, jnp.integer):
            raise ScheduleError(
                "Argument `step` must be an integer (optimizer steps, counted from 0). "
                f"Received: an array of {value.dtype}"
            )
        if jnp.iinfo(value.dtype).max > limit:
            value = lax.min(value, lax.full_like(value, limit))
        value = value.astype(self.index)
        return lax.max(value, lax.full_like(value, 0))

    def before(self, ends: Any, step: jax.Array) -> jax.Array:
        return jnp.sum(jnp.asarray(ends) < step, dtype=self.index)

    def take(self, constant: Any, i: Any) -> jax.Array:
        # Unsigned, an index needs no look at negative ones.
        i = lax.convert_element_type(i, np.uint32)
        start = [i] + [np.uint32(0)] * (constant.ndim - 1)
        row = lax.dynamic_slice(jnp.asarray(constant), start, (1, *constant.shape[1:]))
        return lax.squeeze(row, (0,))

    def packed(
        self, integers: list[tuple[int, ...]], floats: list[tuple[float, ...]]
    ) -> tuple[NDArray[Any], int]:
        """The rows in one array, for one constant is quicker than two; and how many integers."""
        count = len(integers[0])
        bits = np.array(floats, self.float).view(self.index)
        return np.concatenate([np.array(integers, self.index), bits], axis=1), count

    def row(
        self, rows: tuple[NDArray[Any], int], i: jax.Array
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        row, count = self.take(rows[0], i), rows[1]
        floats = lax.bitcast_convert_type(row[count:], self.float)
        return list(jnp.unstack(row[:count])), list(jnp.unstack(floats))

    def real(self, integer: jax.Array) -> jax.Array:
        return integer.astype(self.float)

    def remainder(self, dividend: jax.Array, divisor: int) -> jax.Array:
        return lax.rem(dividend, lax.full_like(dividend, divisor))

    def quotient(self, dividend: jax.Array, divisor: int) -> jax.Array:
        return lax.div(dividend, lax.full_like(dividend, divisor))

    def select(self, condition: jax.Array, yes: Any, no: Any) -> jax.Array:
        return lax.select(condition, *_alike(yes, no))

    def minimum(self, a: Any, b: Any) -> jax.Array:
        return lax.min(*_alike(a, b))

    def maximum(self, a: Any, b: Any) -> jax.Array:
        return lax.max(*_alike(a, b))

    def sin(self, x: jax.Array) -> jax.Array:
        return lax.sin(x)

    def power(self, base: jax.Array, exponent: Any) -> jax.Array:
        return lax.pow(*_alike(base, exponent))

    def exp(self, x: jax.Array) -> jax.Array:
        return lax.exp(x)

    def log(self, x: jax.Array) -> jax.Array:
        return lax.log(x)


def _alike(a: Any, b: Any) -> tuple[jax.Array, jax.Array]:
    """Two arrays, of which one may have come as a number of Python's."""
    if not isinstance(a, jax.Array):
        return lax.full_like(b, a), b
    return a, b if isinstance(b, jax.Array) else lax.full_like(a, b)


class SnapshotRecorder(BaseRecorder):
    """Records the params, any pytree of arrays, at the end of every cycle.

    They are copied when the cycle ends, and written in the background: see
    `BaseRecorder`.

    A tensor's name is its path in the pytree: `params["dense"]["kernel"]` is
    `dense.kernel`.

    Args:
        folder: the folder of the snapshots; made if it is not there.
        schedule: the schedule of the run.
        options: `resume_from`, `background`, `max_pending`, `on_error`,
            `keep_last`, `keep_best`, `metric` and `mode`, as BaseRecorder has
            them.

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

    framework = "jax"
    framework_version = str(jax.__version__)

    def __init__(
        self,
        folder: str | os.PathLike[str] | SnapshotStore,
        schedule: Schedule,
        **options: Unpack[RecorderOptions],
    ) -> None:
        self._params: Any = None
        super().__init__(folder, check_schedule(schedule), **options)

    def step(self, params: Any, metrics: Metrics = None) -> bool:
        """Note that an update was done; call it with the params that the update returned.

        Where no cycle ends, the params are not looked at. At a cycle's end they
        are copied before this returns: their buffers may then be donated.

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
        self._params = params
        try:
            return self._advance(self._updates + 1, metrics)
        finally:
            self._params = None  # they must not live longer for having been recorded

    def record(self, buffer: SnapshotBuffer) -> int:
        """Record the members of a buffer, as `step` would have done at each one's update.

        The recorder then stands where the buffer does. Members up to where it
        stands already are passed over, so a buffer may be recorded, updated
        further, and recorded again.

        Args:
            buffer: see `snapshot_buffer`; its schedule must be the recorder's.

        Returns:
            How many snapshots were recorded.

        Raises:
            SnapshotError: a buffer of another schedule, or one behind the
                recorder; and as `step` does.
        """
        if not isinstance(buffer, SnapshotBuffer):
            raise SnapshotError(
                "Argument `buffer` must be what snapshot_buffer(...) gave. "
                f"Received: {shown(buffer)}; params are recorded by step(params)"
            )
        if buffer.schedule != self.schedule:
            raise SnapshotError(
                "Argument `buffer` must have the recorder's schedule. "
                f"Received: one with {buffer.schedule!r}, not {self.schedule!r}"
            )
        recorded = 0
        for step, params in buffer.list():
            if step >= self._updates:
                self._params = params
                try:
                    recorded += self._advance(step + 1, None)
                finally:
                    self._params = None
        self._advance(int(buffer.latest) + 1, None)
        return recorded

    def _weights(self) -> dict[str, Any]:
        leaves, _ = _named_leaves(self._params, SnapshotError)
        arrays = {name: _array(name, leaf) for name, leaf in leaves.items()}
        # All are on their way before the first is waited for.
        for array in arrays.values():
            if isinstance(array, jax.Array):
                array.copy_to_host_async()
        return arrays


class _Clock:
    """The ends of a schedule's cycles, as the static part of a pytree."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._hash = hash(schedule)  # which jit asks for at each call
        self._ends: dict[bool, Ends[NDArray[Any]]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Clock) and self.schedule == other.schedule

    def __hash__(self) -> int:
        return self._hash

    def ends(self, ops: _Operations) -> Ends[NDArray[Any]]:
        """The constants of the precision."""
        if ops.wide not in self._ends:
            self._ends[ops.wide] = Ends.of(
                self.schedule,
                wide=ops.wide,
                constant=lambda values: np.array(values, ops.index),
            )
        return self._ends[ops.wide]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("params", "steps", "taken", "latest"),
    meta_fields=("_clock",),
)
@dataclass(frozen=True, kw_only=True)
class SnapshotBuffer:
    """The params at the ends of the last cycles, stacked on the device; see `snapshot_buffer`.

    Attributes:
        params: the pytree of the params, with one axis more in front, of the
            members' slots.
        steps: the last step of the cycle at whose end a slot's member was taken.
        taken: how many members were taken in all. The slots are filled in turn,
            and the oldest member is overwritten.
        latest: the step of the last `update`; -1 before the first.
    """

    params: Any
    steps: jax.Array
    taken: jax.Array
    latest: jax.Array
    _clock: _Clock

    @property
    def schedule(self) -> Schedule:
        """The schedule of the run."""
        return self._clock.schedule

    def __len__(self) -> int:
        """The number of members that it holds; not inside of jit."""
        return min(int(self.taken), len(self.steps))

    def update(self, step: Any, params: Any) -> SnapshotBuffer:
        """The buffer after an update: with its params, if the update was its cycle's last.

        Pure, for jit, scan and donated buffers; the graph does not grow with the
        number of cycles, and where no cycle ends nothing is written.

        Args:
            step: the update that was done, counted from 0: an integer, or a
                traced one.
            params: the params that it returned.

        Raises:
            SnapshotError: params of another structure than the buffer's; the
                message names the first tensor that differs.
            ScheduleError: a step that cannot be; see `cyclic_cosine_schedule`.
        """
        self._check(params)
        ops = _Operations.now()
        ends = self._clock.ends(ops)
        step = ops.step(step, ends.limit)
        slots = len(self.steps)

        def take(held: tuple[Any, jax.Array, jax.Array]) -> tuple[Any, jax.Array, jax.Array]:
            stacked, steps, taken = held
            slot = lax.rem(taken, lax.full_like(taken, slots))

            def write(slots: jax.Array, value: Any) -> jax.Array:
                return lax.dynamic_update_index_in_dim(slots, value, slot, 0)

            written = jax.tree.map(write, stacked, params)
            return written, write(steps, step.astype(steps.dtype)), taken + 1

        held = self.params, self.steps, self.taken
        stacked, steps, taken = lax.cond(
            is_cycle_end(ends, step, ops), take, lambda held: held, held
        )
        latest = step.astype(self.latest.dtype)
        return replace(self, params=stacked, steps=steps, taken=taken, latest=latest)

    def list(self) -> list[tuple[int, Any]]:
        """The members, oldest first: the last step of each's cycle, and its params."""
        taken, slots = int(self.taken), len(self.steps)

        def member(slot: int) -> tuple[int, Any]:
            return int(self.steps[slot]), jax.tree.map(lambda leaf: leaf[slot], self.params)

        return [member(number % slots) for number in range(taken - len(self), taken)]

    def _check(self, params: Any) -> None:
        ours, theirs = (
            {
                name: (tuple(jnp.shape(leaf)), str(jnp.result_type(leaf)))
                for name, leaf in _named_leaves(tree, SnapshotError)[0].items()
            }
            for tree in (self.params, params)
        )
        ours = {name: (shape[1:], dtype) for name, (shape, dtype) in ours.items()}
        mismatch = first_mismatch(ours, theirs)
        if mismatch is None and jax.tree.structure(params) != jax.tree.structure(self.params):
            mismatch = "its pytree has other containers"
        if mismatch is not None:
            raise SnapshotError(
                "Argument `params` must keep the structure with which the buffer was made. "
                f"Received: params unlike the buffer's: {mismatch}"
            )


def snapshot_buffer(schedule: Schedule, params: Any, num_members: int) -> SnapshotBuffer:
    """A buffer for the snapshots of a training loop that runs inside of jit or scan.

    It keeps the params of the last `num_members` cycle ends, stacked on the
    device, with no callback to the host. It is a pytree, and so may be a scan's
    carry. Afterwards `SnapshotRecorder.record(buffer)` writes its members as
    snapshots, and `SnapshotEnsemble(apply_fn, buffer)` predicts with them.

    Args:
        schedule: the schedule of the run.
        params: the pytree of arrays to record, or what `jax.eval_shape` gives;
            only shapes and dtypes are looked at.
        num_members: how many members it holds.

    Returns:
        An empty buffer; `buffer.update(step, params)` gives the next.

    Raises:
        ScheduleError: no schedule, or one with more than 32,768 cycles of
            different lengths.
        SnapshotError: params that are no pytree of arrays.
        EnsembleError: a number of members that cannot be.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import cosanneal as ca
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> params = {"w": jnp.zeros(3)}
        >>> def train(carry, step):
        ...     params, buffer = carry
        ...     params = {"w": params["w"] + 1}
        ...     return (params, buffer.update(step, params)), None
        >>> carry = params, snapshot_buffer(schedule, params, num_members=2)
        >>> (params, buffer), _ = jax.lax.scan(train, carry, jnp.arange(6))
        >>> [(step, params["w"].tolist()) for step, params in buffer.list()]
        [(2, [3.0, 3.0, 3.0]), (5, [6.0, 6.0, 6.0])]
    """
    clock = _Clock(check_schedule(schedule))
    slots = check_steps("num_members", num_members, minimum=1)
    _named_leaves(params, SnapshotError)
    ops = _Operations.now()
    clock.ends(ops)  # what cannot be lowered is said here

    def stacked(leaf: Any) -> jax.Array:
        if _is_key(leaf):
            # A key is only made of keys; these are overwritten before they count.
            key = jax.random.key(0, impl=_key_kind(leaf)[1])
            return jnp.broadcast_to(key, (slots, *leaf.shape))
        return jnp.zeros((slots, *jnp.shape(leaf)), jnp.result_type(leaf))

    return SnapshotBuffer(
        params=jax.tree.map(stacked, params),
        steps=jnp.full(slots, -1, ops.index),
        taken=jnp.zeros((), ops.index),
        latest=jnp.full((), -1, ops.index),
        _clock=clock,
    )


class _HeldSnapshot(Snapshot):
    """A member of a buffer, where an ensemble looks for a file."""

    __slots__ = ("_params",)

    def __init__(self, step: int, params: Any, schedule: Schedule) -> None:
        path = _HELD / f"step-{step + 1}"
        super().__init__(path, cycle=schedule.cycle_at(step).index, step=step + 1)
        self._params = params
        self._metadata = {
            "cycle": self.cycle,
            "step": self.step,
            "rate": schedule.rate(step),
            "schedule": schedule.to_dict(),
            "framework": "jax",
        }

    def layout(self) -> dict[str, tuple[tuple[int, ...], str]]:
        return {name: (leaf.shape, str(leaf.dtype)) for name, leaf in self.load().items()}

    def load(self, *, framework: str = "jax", verify: bool = True) -> dict[str, Any]:  # noqa: ARG002
        leaves, _ = _named_leaves(self._params, EnsembleError)
        return {
            name: jax.random.key_data(leaf) if _is_key(leaf) else leaf
            for name, leaf in leaves.items()
        }

    def verify(self, progress: Callable[[int], None] | None = None) -> None:
        """There is no file that could be damaged."""


class _HeldSnapshots(SnapshotStore):
    """The members of a buffer, where an ensemble looks for a folder."""

    def __init__(self, buffer: SnapshotBuffer) -> None:
        super().__init__(_HELD)
        self._found = [
            _HeldSnapshot(step, params, buffer.schedule) for step, params in buffer.list()
        ]

    def list(self) -> list[Snapshot]:
        return [*self._found]


_HELD = Path("(a buffer)")


class SnapshotEnsemble(BaseEnsemble[Any]):
    """One prediction from the last snapshots: by default the mean of their probabilities.

    Args:
        apply_fn: the model as a function `apply_fn(params, *x)`, jitted for
            speed. It should predict as in evaluation: no dropout.
        folder: the folder of the snapshots, or a buffer that holds some (see
            `snapshot_buffer`).
        like: params of the structure that was recorded; members get its pytree
            type, its devices and its kind of arrays. Only its structure is
            kept, so it may be donated later, and may be what `jax.eval_shape`
            gives. A buffer knows it.
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
        statistics_fn: for `average_weights`, where the params hold running
            statistics: a function `statistics_fn(params, *x)` that returns the
            params with the statistics moved by the batch `x` as training moves
            them, `momentum * old + (1 - momentum) * batch`; without dropout. It
            is called on several params, to find out what the statistics are, and
            the momentum of each, which so does not matter: the batch's own are
            what counts. A variance named `var` or `variance` is taken to be
            about the `mean` beside it, and gains that between the batches; of
            anything else that moves, the mean over batches is taken. A batch
            counts by the size of its first array.

    Raises:
        EnsembleError: an argument that cannot be, or fewer snapshots than asked for.

    Example:
        >>> import tempfile
        >>> import jax, jax.numpy as jnp
        >>> import cosanneal as ca
        >>> params = {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}
        >>> folder = tempfile.mkdtemp()
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> with SnapshotRecorder(folder, schedule) as recorder:
        ...     for _ in range(6):
        ...         _ = recorder.step(params)
        >>> apply_fn = jax.jit(lambda params, x: x @ params["kernel"] + params["bias"])
        >>> ensemble = SnapshotEnsemble(apply_fn, folder, like=params, last=2)
        >>> ensemble.predict(jnp.zeros((5, 2))).shape
        (5, 3)
        >>> found = ensemble.average_weights(jnp.zeros((5, 2)), jnp.arange(5) % 3)
        >>> predictions = apply_fn(found.weights, jnp.zeros((5, 2)))

        With a module of flax that has BatchNorm, params are all of its
        variables, and the mean of their weights needs training data:

        >>> def statistics_fn(variables, x):
        ...     _, updates = model.apply(variables, x, train=True, mutable=["batch_stats"])
        ...     return {**variables, **updates}
        >>> def average(folder, variables, x_val, y_val, x_train):
        ...     ensemble = SnapshotEnsemble(
        ...         lambda variables, x: model.apply(variables, x, train=False),
        ...         folder,
        ...         like=variables,
        ...         statistics_fn=jax.jit(statistics_fn),
        ...     )
        ...     return ensemble.average_weights(x_val, y_val, train_data=x_train).weights

        And with nnx, where `graphdef, params = nnx.split(model)`:

        >>> def statistics_fn(params, x):
        ...     model = nnx.merge(graphdef, params)
        ...     model.set_attributes(use_running_average=False)
        ...     model(x)
        ...     return nnx.state(model)

    Source: Huang et al., "Snapshot Ensembles" (2017), section 3.
    """

    def __init__(
        self,
        apply_fn: Callable[..., Any],
        folder: str | os.PathLike[str] | SnapshotStore | SnapshotBuffer,
        like: Any = None,
        *,
        last: int | None = None,
        outputs: Outputs = "logits",
        class_axis: int | None = -1,
        pooling: Pooling = "probabilities",
        statistics_fn: Callable[..., Any] | None = None,
    ) -> None:
        if isinstance(folder, SnapshotBuffer):
            if like is None:
                like = jax.eval_shape(lambda: jax.tree.map(lambda leaf: leaf[0], folder.params))
            folder = _HeldSnapshots(folder)
        super().__init__(folder, last=last, outputs=outputs, class_axis=class_axis, pooling=pooling)
        if not callable(apply_fn):
            raise EnsembleError(
                "Argument `apply_fn` must be a function of the params and the input. "
                f"Received: {type(apply_fn).__name__}"
            )
        if statistics_fn is not None and not callable(statistics_fn):
            raise EnsembleError(
                "Argument `statistics_fn` must be a function of the params and the input. "
                f"Received: {type(statistics_fn).__name__}"
            )
        self.apply_fn, self.statistics_fn = apply_fn, statistics_fn
        self._batch_statistics = _first_statistics(like)
        leaves, self._structure = _named_leaves(like, EnsembleError)
        self._leaves = {name: _Leaf.of(leaf) for name, leaf in leaves.items()}

    def params(self, snapshot: Snapshot) -> Any:
        """A member's params, in the structure of `like`.

        Raises:
            SnapshotError: the snapshot is damaged.
            EnsembleError: it does not fit `like`; the message names the first
                tensor that differs.
        """
        layout = {name: (leaf.shape, leaf.dtype) for name, leaf in self._leaves.items()}
        loaded = self._tensors(snapshot, layout)
        return jax.tree_util.tree_unflatten(
            self._structure, [leaf.restore(loaded[name]) for name, leaf in self._leaves.items()]
        )

    def _batches(
        self, x: Any, batch_size: int | None, *, training: bool = False, name: str = "x"
    ) -> Batches:
        return Batches(
            x,
            batch_size=batch_size,
            arrays=(jax.Array, np.ndarray),
            convert=as_numpy,
            training=training,
            name=name,
        )

    def _by_name(self, weights: Any) -> dict[str, Any]:
        return _named_leaves(weights, EnsembleError)[0]

    def _from_names(self, named: Mapping[str, Any]) -> Any:
        return jax.tree_util.tree_unflatten(self._structure, [named[name] for name in self._leaves])

    def _running_statistics(self, members: Sequence[Snapshot]) -> Layers:  # noqa: ARG002
        if self.statistics_fn is not None:
            return [("what statistics_fn returns", None)]
        if self._batch_statistics is not None:
            raise EnsembleError(
                "Argument `statistics_fn` of the ensemble must be given for params with running "
                f"statistics, which a mean of weights needs anew. Received: none, and "
                f"{self._batch_statistics!r}"
            )
        return ()

    def _reestimated(self, weights: Any, layers: Layers, batches: Batches) -> Any:  # noqa: ARG002
        named = self._by_name(weights)
        momenta: dict[str, float] = {}
        found: dict[str, Moments] = {}
        for i, batch in enumerate(batches):
            if not i:
                momenta = self._momenta(named, batch)
                found = {name: Moments() for name in momenta}
            size = batch[0].size
            if not size:
                continue
            means = self._batch_moments(named, momenta, batch)
            for name, moments in found.items():
                mean = _mean_of(name, means)
                if mean is None:
                    moments.update(size, means[name], 0.0)
                else:
                    moments.update(size, means[mean], means[name])
        estimated = dict(named)
        for name, moments in found.items():
            if moments.count:
                value = moments.mean if _mean_of(name, found) is None else moments.variance()
                estimated[name] = narrow(value, named[name])
        return self._from_names(estimated)

    def _batch_moments(
        self, named: dict[str, Any], momenta: Mapping[str, float], batch: tuple[Any, ...]
    ) -> dict[str, NDArray[np.float64]]:
        """A batch's own statistics: what moved from 0, over how much of the way it moved."""
        zeros = {name: jnp.zeros_like(named[name]) for name in momenta}
        moved = self._moved({**named, **zeros}, batch)
        return {name: as_floats(moved[name]) / (1 - share) for name, share in momenta.items()}

    def _momenta(self, named: dict[str, Any], batch: tuple[Any, ...]) -> dict[str, float]:
        """What the statistics are among the params: how much of itself each keeps of a batch.

        `new = momentum * old + (1 - momentum) * batch`, whose last part is lost
        in rounding beside an `old` that is large.
        """
        floats = {name: leaf for name, leaf in named.items() if has_mean(leaf)}
        nudged = {name: leaf * (1 + 1 / 64) + 1 / 64 for name, leaf in floats.items()}
        moved = self._moved({**named, **nudged}, batch)
        names = [
            name
            for name, leaf in nudged.items()
            if not np.array_equal(as_floats(moved[name]), as_floats(leaf), equal_nan=True)
        ]
        if not names:
            raise EnsembleError(
                "Function `statistics_fn` must return the params with the running statistics "
                "moved by the batch, as in training. Received: params as they were"
            )
        large = {name: 2.0 ** (jnp.finfo(named[name].dtype).maxexp // 2) for name in names}
        moved = self._moved(
            {**named, **{name: jnp.full_like(named[name], large[name]) for name in names}}, batch
        )
        momenta: dict[str, float] = {}
        for name in names:
            kept = as_floats(moved[name]) / large[name]
            if kept.size:
                share = _decimal(float(kept.flat[0]), named[name].dtype)
                slack = float(jnp.finfo(named[name].dtype).eps)
                if not (np.abs(kept - share) <= slack).all() or not -slack <= share < 1:
                    raise self._no_moving_average(name)
                momenta[name] = share
        means = self._batch_moments(named, momenta, batch)
        moved = self._moved(named, batch)
        for name, share in momenta.items():
            old, new = as_floats(named[name]), as_floats(moved[name])
            expected = share * old + (1 - share) * means[name]
            scale = np.abs(old).max() + np.abs(means[name]).max()
            slack = 1e-2 * (1 - share) + 4 * float(jnp.finfo(named[name].dtype).eps)
            if not (np.abs(new - expected) <= slack * scale).all():
                raise self._no_moving_average(name)
        return momenta

    def _no_moving_average(self, name: str) -> EnsembleError:
        return EnsembleError(
            "Function `statistics_fn` must move each statistic as momentum * old + (1 - momentum) "
            "* batch, by one momentum below 1 and by statistics of the batch that depend on no "
            f"old ones and on no random numbers. Received: {name!r} moved otherwise; turn "
            "dropout off"
        )

    def _moved(self, named: dict[str, Any], batch: tuple[Any, ...]) -> dict[str, Any]:
        """The params after a batch."""
        statistics_fn = cast(Callable[..., Any], self.statistics_fn)
        moved, _ = _named_leaves(statistics_fn(self._from_names(named), *batch), EnsembleError)
        if moved.keys() != named.keys():
            unlike = sorted(moved.keys() ^ named.keys())
            raise EnsembleError(
                "Function `statistics_fn` must return params of the structure that it is given. "
                f"Received: {unlike[0]!r} in one of them only"
            )
        return moved

    def _load(self, snapshot: Snapshot) -> Any:
        return self.params(snapshot)

    @contextmanager
    def _borrowed(self) -> Iterator[Callable[[Any, tuple[Any, ...]], jax.Array]]:
        yield lambda params, batch: self._prediction(self.apply_fn(params, *batch))

    def _stack(self, snapshots: Sequence[Snapshot]) -> Callable[[tuple[Any, ...]], jax.Array]:
        members = [self.params(snapshot) for snapshot in snapshots]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)

        def one(params: Any, *batch: Any) -> jax.Array:
            return self._prediction(self.apply_fn(params, *batch))

        def every(stacked: Any, *batch: Any) -> Any:
            return jax.vmap(one, (0, *(None for _ in batch)))(stacked, *batch)

        compiled = jax.jit(every)
        return lambda batch: cast(jax.Array, compiled(stacked, *batch))

    def _joined(self, parts: Sequence[Any]) -> jax.Array:
        return cast(jax.Array, parts[0]) if len(parts) == 1 else jnp.concatenate(parts)

    def _devices(self) -> set[jax.Device]:
        found = {device for leaf in self._leaves.values() for device in leaf.devices}
        return found or {jnp.zeros(()).devices().pop()}

    def _where(self) -> object:
        return frozenset(self._devices())

    def _free_memory(self) -> int | None:
        devices = self._devices()
        if all(device.platform == "cpu" for device in devices):
            return free_host_memory()
        # Of devices that share the members, each has as much of them.
        known = [device.memory_stats() or {} for device in devices]
        if not all({"bytes_limit", "bytes_in_use"} <= each.keys() for each in known):
            return None
        return min(int(each["bytes_limit"] - each["bytes_in_use"]) for each in known)

    def _wait_for(self, predictions: Any) -> None:
        jax.block_until_ready(predictions)

    def _prediction(self, output: Any) -> jax.Array:
        if not isinstance(output, jax.Array | np.ndarray):
            raise EnsembleError(
                "The model must return one array. Received: "
                f"{type(output).__name__}; let apply_fn return the array to average"
            )
        return self._checked(jnp.asarray(output), output.shape)

    def _probabilities(self, logits: Any) -> Any:
        if self.class_axis is None:
            return jax.nn.sigmoid(logits)
        return jax.nn.softmax(logits, axis=self.class_axis)


class _Leaf(NamedTuple):
    """What is kept of a leaf of `like`, whose buffer may be donated meanwhile."""

    shape: tuple[int, ...]
    dtype: str
    restore: Callable[[NDArray[Any]], Any]
    devices: frozenset[jax.Device] = frozenset()

    @classmethod
    def of(cls, leaf: Any) -> _Leaf:
        sharding = getattr(leaf, "sharding", None)
        devices = frozenset(sharding.device_set) if sharding is not None else frozenset()
        if _is_key(leaf):
            data, kind = _key_kind(leaf)

            def wrapped(array: NDArray[Any]) -> Any:
                return jax.random.wrap_key_data(jnp.asarray(array), impl=kind)

            return cls(tuple(data.shape), str(data.dtype), wrapped)
        if isinstance(leaf, np.ndarray | np.generic):
            return cls(leaf.shape, str(leaf.dtype), lambda array: array)
        if not hasattr(leaf, "shape"):  # a number of Python's
            leaf = jnp.asarray(leaf)
        return cls(
            tuple(leaf.shape),
            str(leaf.dtype),
            lambda array: jax.device_put(array, sharding),
            devices,
        )


def _named_leaves(
    tree: Any, error: type[EnsembleError] | type[SnapshotError]
) -> tuple[dict[str, Any], Any]:
    """The leaves of a pytree by their paths, in the pytree's order, and its structure."""
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    leaves: dict[str, Any] = {}
    for path, leaf in paths:
        name = ".".join(_key_name(key) for key in path) or "params"
        if name in leaves:
            raise error(
                "The params must have a path of its own for every tensor. Received: two whose path "
                f"reads {name!r}; rename one"
            )
        known = isinstance(leaf, bool | int | float | complex)
        if not known and not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise error(
                f"The params must consist of arrays. Received: {name!r}, a {type(leaf).__name__}; "
                "leave out what is none, as equinox.filter(model, equinox.is_array) does"
            )
        leaves[name] = leaf
    if not leaves:
        raise error(f"The params must hold at least one array. Received: {shown(tree)}")
    return leaves, structure


def _decimal(value: float, dtype: Any) -> float:
    """The shortest decimal that a dtype rounds to a value.

    A momentum of 0.99 was given as such; of `1 - 0.99` float32 holds 17 bits.
    """
    rounded = np.asarray(value).astype(dtype)
    decimals = (float(f"{value:.{digits}g}") for digits in range(1, 17))
    return next((each for each in decimals if np.asarray(each).astype(dtype) == rounded), value)


def _mean_of(name: str, names: Container[str]) -> str | None:
    """The name of the mean that belongs to a variance; None of what is no variance."""
    *parts, last = name.split(".")
    after = ""
    if parts and last in ("value", "raw_value"):  # of a variable of flax' nnx
        after, last = f".{last}", parts.pop()
    for variance, mean in (("variance", "mean"), ("var", "mean")):
        if last == variance or last.endswith(f"_{variance}"):
            found = ".".join([*parts, last.removesuffix(variance) + mean]) + after
            return found if found in names else None
    return None


def _first_statistics(tree: Any) -> str | None:
    """The name of the first leaf that flax has as a statistic of batches."""

    def is_statistic(node: Any) -> bool:
        held = getattr(node, "type", None)  # of a state of nnx in older releases
        kinds = [*type(node).__mro__, *(held.__mro__ if isinstance(held, type) else ())]
        return any(kind.__name__ == "BatchStat" for kind in kinds)

    paths, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_statistic)
    for path, leaf in paths:
        parts = [_key_name(key) for key in path]
        if is_statistic(leaf) or "batch_stats" in parts:
            return ".".join(parts)
    return None


def _key_name(key: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_kind(leaf: Any) -> tuple[jax.ShapeDtypeStruct, Any]:
    """The data of a key, or of keys, which may be shapes alone; and how they were made."""
    kinds = []

    def data(key: jax.Array) -> jax.Array:
        kinds.append(jax.random.key_impl(key))
        return jax.random.key_data(key)

    return jax.eval_shape(data, leaf), kinds[0]


def _array(name: str, leaf: Any) -> Any:
    """A leaf as an array that numpy takes, and has the bytes of."""
    if isinstance(leaf, jax.core.Tracer):
        raise SnapshotError(
            f"The recorder must be stepped outside of jit. Received: {name!r} as a tracer"
        )
    if not hasattr(leaf, "shape"):
        leaf = jnp.asarray(leaf)
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array) and leaf.is_deleted():
        raise SnapshotError(
            f"The params must be those that the update returned. Received: {name!r}, whose buffer "
            "was deleted or donated"
        )
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        raise SnapshotError(
            f"The params must be in this process's reach. Received: {name!r}, sharded over "
            "several; gather it first"
        )
    return leaf
