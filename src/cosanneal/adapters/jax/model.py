"""A function of params as an ensemble takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from numpy.typing import NDArray

from ...core.errors import EnsembleError
from ...ensemble.arrays import as_numpy
from ...ensemble.calls import explained_call
from ...ensemble.model import Batch, Pick, Weights, free_host_memory
from ...ensemble.predict.batches import BATCH_SIZE, Batches, bucket, map_arrays, rows_of
from ...ensemble.structure import leaves
from ...snapshots.file import Layout
from ...snapshots.ranks import ALONE
from .capture import PytreeCapture
from .layouts import Known
from .ranks import ranks_here
from .shards import here
from .statistics import estimate
from .tree import Alone, Leaf, named_leaves, tree_of


class JaxModel:
    """A function of params, into whose pytree members are put; see `cosanneal.ensemble.Model`.

    Args:
        apply_fn: `apply_fn(params, *x)`; of a dict, `apply_fn(params, batch)`.
        like: params of the structure, which is all that is kept of them.
        statistics_fn: the same of `statistics_fn`, where there are running statistics.

    Raises:
        EnsembleError: no functions, or params that are no pytree of arrays.
    """

    framework = "numpy"
    ranks = ALONE

    def __init__(
        self, apply_fn: Callable[..., Any], like: Any, statistics_fn: Callable[..., Any] | None
    ) -> None:
        for name, function in (("apply_fn", apply_fn), ("statistics_fn", statistics_fn)):
            if not callable(function) and (name == "apply_fn" or function is not None):
                raise EnsembleError(
                    f"Argument `{name}` must be a function of the params and the input. "
                    f"Received: {type(function).__name__}"
                )
        self.apply_fn: Callable[..., Any] = apply_fn
        self.statistics_fn: Callable[..., Any] | None = statistics_fn
        self._known = Known.of(like)
        leaves, self._structure = named_leaves(like, EnsembleError)
        self._leaves = {name: Leaf.of(leaf) for name, leaf in leaves.items()}
        self._own: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Of the structure, not the devices, which are this process'.
        shapes = {name: leaf.alone() for name, leaf in self._leaves.items()}
        like = self._own if self._own is not None else tree_of(self._structure, shapes)
        return _restored, (self.apply_fn, like, self.statistics_fn, self._own is not None)

    def layout(self) -> Layout:
        return {name: (leaf.shape, leaf.dtype) for name, leaf in self._leaves.items()}

    def same_as(self, other: Any) -> bool:
        return (
            isinstance(other, JaxModel)
            and other.apply_fn is self.apply_fn
            and other.statistics_fn is self.statistics_fn
            and (other._structure, other.layout()) == (self._structure, self.layout())
        )

    def place(self) -> object:
        return frozenset(self._devices())

    def keep(self, like: Any) -> None:
        """Keep the params themselves, from which comes what members that are parts leave out.

        Raises:
            EnsembleError: some that have no data.
        """
        for name, leaf in named_leaves(like, EnsembleError)[0].items():
            if isinstance(leaf, jax.ShapeDtypeStruct):
                raise EnsembleError(
                    "Argument `like` must be params with their data where the snapshots are parts, "
                    f"which leave the rest to it. Received: {name!r} as a shape alone; give the "
                    "params with which the run began"
                )
        self._own = like

    def own(self) -> PytreeCapture:
        return PytreeCapture(self._own, ranks_here())

    def is_array(self, thing: object) -> bool:
        return isinstance(thing, jax.Array | np.ndarray)

    def output_names(self) -> Sequence[str]:
        return ()

    def says_outputs(self, output: Any = None) -> None:
        """A function says nothing of itself."""

    def load(self, tensors: Mapping[str, Any]) -> Weights:
        return {name: self._leaves[name].restore(value) for name, value in tensors.items()}

    @contextmanager
    def running(self, pick: Pick) -> Iterator[Callable[[Weights, Batch], Any]]:
        yield lambda weights, batch: jax.tree.map(
            here, self._output(pick, self.export(weights), batch)
        )

    def stack(self, members: Sequence[Callable[[], Weights]], pick: Pick) -> Callable[[Batch], Any]:
        # Or each process could measure, and choose, another mode than the others.
        if self._of_several() is not None:
            raise EnsembleError(
                "Argument `mode` must be 'stream', 'resident' or 'auto' where the members lie over "
                "several processes. Received: mode='stacked'; give mode='resident'"
            )
        params = [self.export(load()) for load in members]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)

        def every(stacked: Any, batch: Batch) -> Any:
            return jax.vmap(lambda params: self._output(pick, params, batch))(stacked)

        compiled = jax.jit(every)
        return lambda batch: jax.tree.map(here, compiled(stacked, batch))

    def batches(
        self, x: Any, batch_size: int | None, *, training: bool = False, name: str = "x"
    ) -> Batches:
        arrays = [each for each in leaves(x) if isinstance(each, jax.Array)]
        if any(isinstance(each, jax.core.Tracer) for each in arrays):
            raise EnsembleError(
                f"An ensemble must be called outside of jit. Received: {name} as a tracer; jit the "
                "function of the params instead, apply_fn"
            )
        return Batches(
            x,
            batch_size=batch_size,
            arrays=(jax.Array, np.ndarray),
            convert=as_numpy,
            training=training,
            name=name,
            pick=_picked,
            cut=_cut,
            take=_at,
            # What was laid out over several devices is left so.
            usual_size=None if any(map(_is_laid_out, arrays)) else BATCH_SIZE,
            rows=_rows,
        )

    def join(self, outputs: Sequence[jax.Array]) -> jax.Array:
        return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs)

    def wait(self, outputs: Any) -> None:
        jax.block_until_ready(outputs)

    def free_memory(self) -> int | None:
        devices = self._devices()
        if self._of_several() is not None:
            return None  # of which each process would know its own, and do something else
        if all(device.platform == "cpu" for device in devices):
            return free_host_memory()
        # Of devices that share the members, each has as much of them.
        known = [device.memory_stats() or {} for device in devices]
        if not all({"bytes_limit", "bytes_in_use"} <= each.keys() for each in known):
            return None
        return min(int(each["bytes_limit"] - each["bytes_in_use"]) for each in known)

    def running_statistics(self, members: object) -> Sequence[str]:  # noqa: ARG002
        name = self._of_several()
        if name is not None:
            raise EnsembleError(
                "Argument `like` of an ensemble whose weights are averaged must lie in this "
                f"process alone. Received: {name!r}, which lies over several; give params of "
                "numpy's, or what jax.eval_shape gives of such"
            )
        if self.statistics_fn is not None:
            return ["what statistics_fn returns"]
        if self._known.first is not None:
            name, advice = self._known.first
            raise EnsembleError(
                "Argument `statistics_fn` of the ensemble must be given for params with running "
                f"statistics, which a mean of weights needs anew. Received: none, and {name}; "
                f"{advice}"
            )
        return ()

    def estimate(self, weights: Weights, layers: object, batches: Iterable[Batch]) -> Weights:  # noqa: ARG002
        def predicted(named: Mapping[str, Any], batch: Batch) -> jax.Array:
            found = jax.tree.leaves(_run(self.apply_fn, self.export(named), batch))
            arrays = [jnp.ravel(each) for each in found if self.is_array(each)]
            return jnp.concatenate(arrays or [jnp.zeros(0)])

        return estimate(weights, self._known, batches, self._moved_by, predicted)

    def same_randomness(self) -> AbstractContextManager[object]:
        return nullcontext()  # there is no global state of JAX'

    def export(self, weights: Weights) -> Any:
        return jax.tree_util.tree_unflatten(
            self._structure, [weights[name] for name in self._leaves]
        )

    def _output(self, pick: Pick, params: Any, batch: Batch) -> Any:
        """What is taken of the function's output for a batch, as JAX' arrays."""
        return jax.tree.map(jnp.asarray, pick(_run(self.apply_fn, params, batch)))

    def _moved_by(self, named: Mapping[str, Any], batch: Batch) -> dict[str, Any]:
        statistics_fn = cast(Callable[..., Any], self.statistics_fn)
        result = _run(statistics_fn, self.export(named), batch)
        if any(getattr(leaf, "is_deleted", bool)() for leaf in named.values()):
            raise EnsembleError(
                "Function `statistics_fn` must leave the params that it is given as they are. "
                "Received: one that donates them; jit it without donate_argnums"
            )
        moved, _ = named_leaves(result, EnsembleError)
        if moved.keys() != named.keys():
            unlike = sorted(moved.keys() ^ named.keys())
            raise EnsembleError(
                "Function `statistics_fn` must return params of the structure that it is given. "
                f"Received: {unlike[0]!r} in one of them only"
            )
        return moved

    def _of_several(self) -> str | None:
        """The name of a leaf that lies over several processes, if there is one."""
        own = jax.process_index()
        for name, leaf in self._leaves.items():
            if any(device.process_index != own for device in leaf.devices):
                return name
        return None

    def _devices(self) -> set[jax.Device]:
        found = {device for leaf in self._leaves.values() for device in leaf.devices}
        return found or {jnp.zeros(()).devices().pop()}


def _run(function: Callable[..., Any], params: Any, batch: Batch) -> Any:
    """What a function of the params gives for a batch: several arguments, or a dict as one."""
    several = isinstance(batch, tuple)
    # A dict of its own, which the function may write to.
    args = (params, *(batch if several else (dict(batch),)))
    with explained_call(
        function,
        args,
        {},
        title="The function of the params",
        way="a tuple's entries in order" if several else "a dict as one argument",
        remedy=f"lambda params, {'*batch: f(params, batch)' if several else 'x: f(params, **x)'}",
    ):
        return function(*args)


def _picked(array: Any, places: NDArray[np.intp]) -> Any:
    """Numbers of an array; by numpy where it has explicit axes, along which JAX picks none."""
    return (np.asarray(array) if _has_explicit_axes(array) else array).reshape(-1)[places]


def _restored(
    apply_fn: Callable[..., Any],
    like: Any,
    statistics_fn: Callable[..., Any] | None,
    kept: bool,
) -> JaxModel:
    """A model as another process had it.

    Args:
        apply_fn: as of `JaxModel`.
        like: params whose leaves are known by their shapes (`Alone`), or the params themselves.
        statistics_fn: as of `JaxModel`.
        kept: whether they are the params themselves, which the model kept.
    """
    if not kept:
        like = jax.tree.map(Alone.like, like)
    model = JaxModel(apply_fn, like, statistics_fn)
    if kept:
        model.keep(like)
    return model


def _cut(array: Any, start: int, end: int) -> Any:
    """Samples of an array; by numpy where it has explicit axes, along which JAX cuts none.

    Raises:
        EnsembleError: so many samples cannot lie as the array does.
    """
    if not _has_explicit_axes(array):
        return array[start:end]
    try:
        return jax.device_put(np.asarray(array)[start:end], array.sharding)
    except ValueError as error:
        raise EnsembleError(
            "Argument `batch_size` must be a multiple of the devices that samples with explicit "
            f"axes lie over. Received: a batch of {end - start} samples, and {array.sharding}; "
            "leave it out for all at once"
        ) from error


def _at(array: Any, places: NDArray[np.intp]) -> Any:
    """Samples of an array at some places; by numpy where it has explicit axes, as `_cut` has it.

    Raises:
        EnsembleError: so many samples cannot lie as the array does.
    """
    if not _has_explicit_axes(array):
        return array[places]
    try:
        return jax.device_put(np.asarray(array)[places], array.sharding)
    except ValueError as error:
        raise EnsembleError(
            "Argument `samples` must be a multiple of the devices that samples with explicit axes "
            f"lie over. Received: samples={len(places)}, and {array.sharding}; give another, or "
            "samples=None for all"
        ) from error


def _rows(batch: Batch, places: NDArray[np.intp]) -> Batch | None:
    """Some samples of a batch as one of a few sizes, where that is less than the whole.

    What lies over several devices is left so.
    """
    for each in leaves(batch):
        if isinstance(each, jax.Array) and (_is_laid_out(each) or _has_explicit_axes(each)):
            return None
    at = bucket(places, rows_of(batch) or 0)
    return None if at is None else map_arrays(lambda each: each[at], batch)


def _has_explicit_axes(array: Any) -> bool:
    sharding = getattr(array, "sharding", None)
    kinds = getattr(sharding.mesh, "axis_types", ()) if isinstance(sharding, NamedSharding) else ()
    return any(getattr(kind, "name", "") == "Explicit" for kind in kinds)


def _is_laid_out(array: jax.Array) -> bool:
    return len(array.sharding.device_set) > 1
