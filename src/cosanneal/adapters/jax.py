"""JAX and Optax: the schedule, the snapshot recorder and the snapshot ensemble."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple, Unpack, cast

from ..core.errors import (
    EnsembleError,
    MissingExtraError,
    ScheduleError,
    SnapshotError,
    check_steps,
    shown,
)
from ..core.lowering import Table, evaluate
from ..core.schedule import Schedule

try:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from jax import lax
    from numpy.typing import NDArray

    from ..ensemble.base import BaseEnsemble, Outputs, count_samples, first_mismatch
    from ..snapshots.recorder import BaseRecorder, Metrics, RecorderOptions, check_schedule
    from ..snapshots.store import Snapshot, SnapshotStore
except ModuleNotFoundError as error:
    if error.name not in ("jax", "jaxlib", "numpy", "optax", "safetensors"):
        raise
    raise MissingExtraError.for_extra(
        "jax", package=error.name, needed_by="cosanneal.adapters.jax"
    ) from error

__all__ = ["SnapshotEnsemble", "SnapshotRecorder", "cyclic_cosine_schedule"]


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

    def _weights(self) -> dict[str, Any]:
        leaves, _ = _named_leaves(self._params, SnapshotError)
        arrays = {name: _array(name, leaf) for name, leaf in leaves.items()}
        latest = self._last_layout()
        if latest is not None:
            which, before = latest
            layout = {name: (tuple(a.shape), str(a.dtype)) for name, a in arrays.items()}
            mismatch = first_mismatch(before, layout)
            if mismatch is not None:
                raise SnapshotError(
                    "Argument `params` must keep its structure from snapshot to snapshot. "
                    f"Received: params unlike those of the snapshot before, {which}: {mismatch}; "
                    "record another model into another folder"
                )
        # All are on their way before the first is waited for.
        for array in arrays.values():
            if isinstance(array, jax.Array):
                array.copy_to_host_async()
        return arrays


class SnapshotEnsemble(BaseEnsemble[Any]):
    """Predicts with the mean of the last snapshots' predictions.

    Args:
        apply_fn: the model as a function `apply_fn(params, *x)`, jitted for
            speed. It should predict as in evaluation: no dropout.
        folder: the folder of the snapshots.
        like: params of the structure that was recorded; members get its pytree
            type, its devices and its kind of arrays. Only its structure is
            kept, so it may be donated later, and may be what `jax.eval_shape`
            gives.
        last: how many of the newest to use; by default all.
        outputs: what the model returns: "logits" (a softmax over the class axis
            makes probabilities of them), "probabilities", or "values" of a
            regression.
        class_axis: the axis of the classes in the logits.

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

    Source: Huang et al., "Snapshot Ensembles" (2017), section 3.
    """

    def __init__(
        self,
        apply_fn: Callable[..., Any],
        folder: str | os.PathLike[str] | SnapshotStore,
        like: Any,
        *,
        last: int | None = None,
        outputs: Outputs = "logits",
        class_axis: int = -1,
    ) -> None:
        super().__init__(folder, last=last, outputs=outputs, class_axis=class_axis)
        if not callable(apply_fn):
            raise EnsembleError(
                "Argument `apply_fn` must be a function of the params and the input. "
                f"Received: {type(apply_fn).__name__}"
            )
        self.apply_fn = apply_fn
        leaves, self._structure = _named_leaves(like, EnsembleError)
        self._leaves = {name: _Leaf.of(leaf) for name, leaf in leaves.items()}
        self._verified: set[Snapshot] = set()

    def params(self, snapshot: Snapshot) -> Any:
        """A member's params, in the structure of `like`.

        Raises:
            SnapshotError: the snapshot is damaged.
            EnsembleError: it does not fit `like`; the message names the first
                tensor that differs.
        """
        # A file is read as a whole once; it does not change under its name.
        loaded = snapshot.load(verify=snapshot not in self._verified)
        self._verified.add(snapshot)
        found = {name: (value.shape, str(value.dtype)) for name, value in loaded.items()}
        expected = {name: (leaf.shape, leaf.dtype) for name, leaf in self._leaves.items()}
        mismatch = first_mismatch(found, expected)
        if mismatch is not None:
            raise EnsembleError(f"Snapshot {snapshot.path} must fit the model: {mismatch}")
        return jax.tree_util.tree_unflatten(
            self._structure, [leaf.restore(loaded[name]) for name, leaf in self._leaves.items()]
        )

    def _predict_member(self, snapshot: Snapshot, x: Any, batch_size: int | None) -> Any:
        arguments = x if isinstance(x, tuple) else (x,)
        samples = count_samples(arguments, jax.Array | np.ndarray)
        params = self.params(snapshot)
        size = batch_size or max(samples, 1)
        parts = [
            self._prediction(
                self.apply_fn(params, *(each[start : start + size] for each in arguments))
            )
            for start in range(0, max(samples, 1), size)
        ]
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts)

    def _prediction(self, output: Any) -> jax.Array:
        if not isinstance(output, jax.Array | np.ndarray):
            raise EnsembleError(
                "The model must return one array. Received: "
                f"{type(output).__name__}; let apply_fn return the array to average"
            )
        if self.outputs != "logits":
            return jnp.asarray(output)
        self._check_logits(output.shape)
        return jax.nn.softmax(output, axis=self.class_axis)

    def _widen(self, prediction: Any) -> Any:
        # Without x64, jax has no float64: sums are the host's.
        return np.asarray(prediction).astype(np.float64)

    def _narrow(self, mean: Any, like: Any) -> Any:
        return jax.device_put(mean.astype(like.dtype), like.sharding)


class _Leaf(NamedTuple):
    """What is kept of a leaf of `like`, whose buffer may be donated meanwhile."""

    shape: tuple[int, ...]
    dtype: str
    restore: Callable[[NDArray[Any]], Any]

    @classmethod
    def of(cls, leaf: Any) -> _Leaf:
        sharding = getattr(leaf, "sharding", None)
        if _is_key(leaf):
            data = jax.eval_shape(jax.random.key_data, leaf)
            kind = jax.random.key_impl(leaf)

            def wrapped(array: NDArray[Any]) -> Any:
                return jax.random.wrap_key_data(jnp.asarray(array), impl=kind)

            return cls(tuple(data.shape), str(data.dtype), wrapped)
        if isinstance(leaf, np.ndarray | np.generic):
            return cls(leaf.shape, str(leaf.dtype), lambda array: array)
        if not hasattr(leaf, "shape"):  # a number of Python's
            leaf = jnp.asarray(leaf)
        return cls(
            tuple(leaf.shape), str(leaf.dtype), lambda array: jax.device_put(array, sharding)
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


def _key_name(key: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


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
