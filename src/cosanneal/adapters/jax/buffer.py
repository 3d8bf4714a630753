"""Snapshots of a loop that runs inside of jit or scan: kept on the device, by a pure function."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from numpy.typing import NDArray

from ...core.difference import agree
from ...core.errors import EnsembleError, SnapshotError, check_steps, shown
from ...core.graph import Ends, is_cycle_end
from ...core.schedule import Schedule, check_schedule
from ...ensemble.arrays import check_count
from ...snapshots.file import TensorBytes, first_mismatch
from ...snapshots.finite import first_nonfinite
from ...snapshots.store import Snapshot, SnapshotStore
from .operations import Operations
from .shards import whole
from .tree import is_key, key_kind, named_leaves, sharding_of

# Which tell the buffers of a process apart, where files have their folders.
_NUMBERS: Final = itertools.count(1)


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

    def ends(self, ops: Operations) -> Ends[NDArray[Any]]:
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

    def extended(self, schedule: Schedule) -> SnapshotBuffer:
        """The buffer with its members, under a schedule extended from its own; not inside of jit.

        Args:
            schedule: one with the same cycles as far as the buffer came, such as
                `buffer.schedule.extended(num_cycles=2)`.

        Raises:
            SnapshotError: another schedule.
        """
        done = int(self.latest) + 1
        if not agree(self.schedule, check_schedule(schedule), done):
            raise SnapshotError(
                "Argument `schedule` must have the same cycles as the buffer's as far as it came, "
                f"{done} updates. Received: {schedule!r}, not {self.schedule!r} extended"
            )
        return replace(self, _clock=_Clock(schedule))

    def __len__(self) -> int:
        """The number of members that it holds; not inside of jit."""
        self._refuse_several()
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
        ops = Operations.now()
        ends = self._clock.ends(ops)
        if not isinstance(step, jax.Array):  # a schedule takes what lies before its beginning
            step = check_steps("step", step)
        step = ops.step(step, ends.limit)
        slots = len(self.steps)

        def take(held: tuple[Any, jax.Array, jax.Array]) -> tuple[Any, jax.Array, jax.Array]:
            stacked, steps, taken = held
            slot = lax.rem(taken, lax.full_like(taken, slots))

            def write(slots: jax.Array, value: Any) -> jax.Array:
                return lax.dynamic_update_index_in_dim(slots, value, slot, 0)

            written = jax.tree.map(write, stacked, params)
            # Not by `write`: of a few numbers, the step need not lie where the slots do.
            here = jnp.arange(slots) == slot
            return written, jnp.where(here, step.astype(steps.dtype), steps), taken + 1

        held = self.params, self.steps, self.taken
        stacked, steps, taken = lax.cond(
            is_cycle_end(ends, step, ops), take, lambda held: held, held
        )
        latest = step.astype(self.latest.dtype)
        return replace(self, params=stacked, steps=steps, taken=taken, latest=latest)

    def list(self) -> list[tuple[int, Any]]:
        """The members, oldest first: the last step of each's cycle, and its params.

        Raises:
            SnapshotError: buffers of several runs, as vmap and pmap give them.
        """
        self._refuse_several()
        taken, slots = int(self.taken), len(self.steps)

        def member(slot: int) -> tuple[int, Any]:
            def of(leaf: jax.Array) -> Any:
                return lax.index_in_dim(leaf, slot, keepdims=False)

            return int(self.steps[slot]), jax.tree.map(of, self.params)

        return [member(number % slots) for number in range(taken - len(self), taken)]

    def in_order(self) -> Sequence[tuple[int, Any]]:
        """The members as `list` has them, if they are of one run that went on and on.

        Raises:
            SnapshotError: a step that was not counted over the whole run; or as of `list`.
        """
        found = self.list()
        for (before, _), (step, _) in itertools.pairwise(found):
            if step <= before:
                raise SnapshotError(
                    "The steps of a buffer must count the updates of the whole run. Received: a "
                    f"member at step {step} after one at step {before}; give update(start + i, "
                    "...) where a loop counts anew, and begin again with a new buffer, or the "
                    "checkpoint's, where a run goes back to a checkpoint"
                )
        return found

    def _refuse_several(self) -> None:
        if jnp.ndim(self.taken):
            raise SnapshotError(
                "A buffer must be of one run. Received: those of several, of shape "
                f"{jnp.shape(self.taken)}, as vmap and pmap give them; take one of them by "
                "jax.tree.map(lambda leaf: leaf[i], buffer)"
            )

    def _check(self, params: Any) -> None:
        ours, theirs = (
            {
                name: (tuple(jnp.shape(leaf)), str(jnp.result_type(leaf)))
                for name, leaf in named_leaves(tree, SnapshotError)[0].items()
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
            only shapes, dtypes and shardings are looked at. Where they are
            sharded over a mesh, each device holds its part of every slot; over
            several processes, all make the buffer, and all record it.
        num_members: how many members it holds.

    Returns:
        An empty buffer; `buffer.update(step, params)` gives the next.

    Raises:
        ScheduleError: no schedule, or one with more than 32,768 cycles of
            different lengths.
        SnapshotError: params that are no pytree of arrays; or of several processes,
            and not on a mesh.
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
    slots = check_count("num_members", num_members)
    named_leaves(params, SnapshotError)
    ops = Operations.now()
    clock.ends(ops)  # what cannot be lowered is said here

    return SnapshotBuffer(
        params=jax.tree.map(lambda leaf: _empty(leaf, slots), params),
        steps=jnp.full(slots, -1, ops.index),
        taken=jnp.zeros((), ops.index),
        latest=jnp.full((), -1, ops.index),
        _clock=clock,
    )


def _empty(leaf: Any, slots: int) -> jax.Array:
    """Slots for a leaf, each shared over the devices as the leaf is, which may be of its type."""
    if isinstance(leaf, jax.core.Tracer):
        # A key is only made of keys; these are overwritten before they count.
        return lax.broadcast(leaf if is_key(leaf) else jnp.zeros_like(leaf), (slots,))

    def empty() -> jax.Array:
        if is_key(leaf):
            key = jax.random.key(0, impl=key_kind(leaf)[1])
            return jnp.broadcast_to(key, (slots, *leaf.shape))
        return jnp.zeros((slots, *jnp.shape(leaf)), jnp.result_type(leaf))

    sharding, known = getattr(leaf, "sharding", None), sharding_of(leaf)
    if sharding is not None and known is None:
        raise SnapshotError(
            "Argument `params` must say on which devices a sharded leaf lies. Received: one "
            f"on {sharding.mesh} alone, as jax.eval_shape gives it; give params themselves, or "
            "make the buffer under jax.set_mesh(mesh)"
        )
    several = known is not None and not known.is_fully_addressable
    if not isinstance(known, NamedSharding):
        if several:
            raise SnapshotError(
                "Params of several processes must lie on a mesh, so that a buffer can share its "
                f"slots over it. Received: a leaf with {shown(known)}; give it a NamedSharding"
            )
        return empty()
    laid = NamedSharding(known.mesh, PartitionSpec(None, *known.spec))
    if several:  # each process makes its part, for it can put none on the others' devices
        made: jax.Array = jax.jit(empty, out_shardings=laid)()
        return made
    return jax.device_put(empty(), laid)


def _slot(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    """What a slot of a leaf is, on the devices that have it."""
    sharding = getattr(leaf, "sharding", None)
    if isinstance(sharding, NamedSharding):
        sharding = NamedSharding(sharding.mesh, PartitionSpec(*tuple(sharding.spec)[1:]))
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype, sharding=sharding)
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)


class _HeldSnapshot(Snapshot):
    """A member of a buffer, where an ensemble looks for a file."""

    __slots__ = ("_params",)

    def __init__(self, step: int, params: Any, schedule: Schedule, folder: Path) -> None:
        path = folder / f"step-{step + 1}"
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
        leaves, _ = named_leaves(self._params, EnsembleError)
        return {
            name: jax.random.key_data(leaf) if is_key(leaf) else leaf
            for name, leaf in leaves.items()
        }

    def first_nonfinite(self) -> str | None:
        for name, leaf in self.load().items():
            # On its device; only what is not finite there is brought to the host.
            if jnp.issubdtype(leaf.dtype, jnp.inexact) and not jnp.isfinite(leaf).all():
                data = whole(leaf).reshape(-1).view(np.uint8).data
                if first_nonfinite({name: TensorBytes(str(leaf.dtype), leaf.shape, data)}):
                    return name
        return None

    def verify(self, progress: Callable[[int], None] | None = None) -> None:
        """There is no file that could be damaged."""


class HeldSnapshots(SnapshotStore):
    """The members of a buffer, where an ensemble looks for a folder.

    Attributes:
        like: the shapes of a member's params, where they lie on a mesh with that.
    """

    def __init__(self, buffer: SnapshotBuffer) -> None:
        name = f"(buffer {next(_NUMBERS)})"
        super().__init__(name)
        self.folder: Path = Path(name)  # and no such file beside the script
        self.like: Any = jax.tree.map(_slot, buffer.params)
        self._found = [
            _HeldSnapshot(step, params, buffer.schedule, self.folder)
            for step, params in buffer.in_order()
        ]

    @classmethod
    def among(cls, sources: Any) -> list[Any]:
        """Sources of members, one or a list, with these in the place of buffers."""
        listed = sources if isinstance(sources, list | tuple) else [sources]
        return [cls(each) if isinstance(each, SnapshotBuffer) else each for each in listed]

    def list(self) -> list[Snapshot]:
        """The members, oldest first."""
        return [*self._found]
