"""How the members are run on batches: streaming, resident, stacked, or as measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, Literal, Protocol, TypeAlias, TypeVar, cast, get_args

from ...core.errors import EnsembleError, plural, shown
from ...snapshots.store import Snapshot
from ..members import Members
from ..model import ArrayT, Batch, Model, Weights
from .batches import Batches, arrays_of, samples_of
from .found import FoundOutputs
from .gaussian import is_pair, like_pair, pair_of

Mode: TypeAlias = Literal["stream", "resident", "stacked", "auto"]


class MemberPool(Protocol):
    """What takes in the members' outputs for a batch, as `Pool` does."""

    def update(self, output: Any, weight: float, /) -> None:
        """Take in one member's."""

    def update_stacked(self, outputs: Any, weights: Sequence[float], /) -> None:
        """Take in several members', along a first axis."""


PoolT = TypeVar("PoolT", bound=MemberPool)

# How often `mode="auto"` has a batch predicted by each mode, after once for all that comes first.
_TRIALS: Final = 3


def checked(
    output: ArrayT,
    batch: Batch,
    found: FoundOutputs,
    *members: Snapshot,
    stacked: bool = False,
) -> ArrayT:
    """An output, which must have a row for each sample and be what outputs are.

    Args:
        output: of the model, for a batch.
        batch: what the model was given.
        found: what outputs are.
        members: whose it is; none if it is of other weights than a member's.
        stacked: whether it is of several members, along a first axis.
    """
    first = pair_of(output)[0] if is_pair(output) else output
    shape = tuple(cast(Any, first).shape)[1 if stacked else 0 :]
    samples = samples_of(batch)
    if not shape or (samples is not None and shape[0] != samples):
        there = "a batch" if samples is None else plural(samples, "sample")
        raise EnsembleError(
            "The model must return a row for each sample of a batch, along the first axis. "
            f"Received: an output of shape {shape} for {there}"
        )
    # By their paths: two folders may have files of one name.
    found.look(output, [str(each.path) for each in members], stacked=stacked)
    return output


def joined(model: Model[ArrayT], parts: Sequence[ArrayT]) -> ArrayT:
    """The outputs of several batches as one array, or one pair.

    Raises:
        EnsembleError: they differ in more than their rows.
    """
    if is_pair(parts[0]):
        pairs = (joined(model, each) for each in zip(*map(pair_of, parts), strict=True))
        return cast(ArrayT, like_pair(parts[0], *pairs))
    shapes = [tuple(cast(Any, part).shape)[1:] for part in parts]
    for i, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise EnsembleError(
                "The outputs of all batches must have one shape, but for the number of rows. "
                f"Received: rows of shape {shape} for batch {i}, after {shapes[0]}; pad the "
                "batches to one length or size, or predict them one by one"
            )
    return model.join(parts)


def outputs_of(
    model: Model[ArrayT],
    weights: Weights,
    batches: Batches,
    found: FoundOutputs,
    *members: Snapshot,
) -> ArrayT:
    """The outputs of a model with some weights, a member's or others, for all batches."""
    with model.running() as run:
        parts = [checked(run(weights, batch), batch, found, *members) for batch in batches]
    return joined(model, parts)


class Modes(Generic[ArrayT]):
    """Runs the members of an ensemble, and keeps what its modes keep of them.

    Attributes:
        measured: the seconds that a batch took in each mode, when mode="auto"
            last compared them; infinite for one that cannot be.

    Args:
        model: the model that they are loaded into.
        members: what loads them.
        found: what their outputs are.
    """

    def __init__(self, model: Model[ArrayT], members: Members, found: FoundOutputs) -> None:
        self._model, self._members, self._found = model, members, found
        self.measured: dict[str, float] = {}
        # What the modes resident and stacked keep, of a model in one place.
        self._place: object = None
        self._held: dict[Snapshot, Weights] = {}
        self._stacked: tuple[tuple[Snapshot, ...], Callable[[Batch], ArrayT]] | None = None
        self._fastest: dict[object, Mode] = {}

    @property
    def held(self) -> int:
        """How many members are kept one by one."""
        return len(self._held)

    def release(self) -> None:
        """Give back the memory of the members that are kept."""
        self._held.clear()
        self._stacked = None

    def pools(
        self,
        pool: Callable[[], PoolT],
        weights: Mapping[Snapshot, float],
        batches: Batches,
        mode: Mode,
    ) -> Generator[PoolT, None, None]:
        """For each batch a pool of some members' outputs, at their weights.

        The model is in use until the generator is closed.
        """
        if mode not in get_args(Mode):
            raise EnsembleError(
                "Argument `mode` must be 'stream', 'resident', 'stacked' or 'auto'. "
                f"Received: mode={shown(mode)}"
            )
        if mode == "stream":
            yield from self._streamed(pool, weights, batches)
            return
        with self._model.running() as run:
            if self._place != (place := self._model.place()):
                self.release()
                self._place = place
            if mode == "auto" and not self._fits(weights):
                yield from self._streamed(pool, weights, batches)
                return
            for batch in batches:
                found: PoolT | None = None
                if (mode if mode != "auto" else self._faster(weights, run, batch)) == "stacked":
                    outputs = self._run_stacked(weights, batch)
                    found = pool()
                    found.update_stacked(outputs, tuple(weights.values()))
                else:
                    for snapshot, weight in weights.items():
                        output = self._run_resident(run, snapshot, batch)
                        # Of the first it is known what outputs are, and so how they are pooled.
                        found = pool() if found is None else found
                        found.update(output, weight)
                if found is not None:
                    yield found

    def _streamed(
        self, pool: Callable[[], PoolT], weights: Mapping[Snapshot, float], batches: Batches
    ) -> Iterator[PoolT]:
        pools: list[PoolT] = []
        for snapshot, weight in weights.items():
            loaded = self._members.load(snapshot)
            with self._model.running() as run:
                for i, batch in enumerate(batches):
                    output = checked(run(loaded, batch), batch, self._found, snapshot)
                    if i == len(pools):
                        pools.append(pool())
                    pools[i].update(output, weight)
            del run, loaded  # before the next one's are read
        pools.reverse()
        while pools:  # each is done with when the next is asked for
            yield pools.pop()

    def _resident(self, snapshot: Snapshot) -> Weights:
        if snapshot not in self._held:
            self._held[snapshot] = self._members.load(snapshot)
        return self._held[snapshot]

    def _run_resident(
        self, run: Callable[[Weights, Batch], ArrayT], snapshot: Snapshot, batch: Batch
    ) -> ArrayT:
        return checked(run(self._resident(snapshot), batch), batch, self._found, snapshot)

    def _run_stacked(self, weights: Mapping[Snapshot, float], batch: Batch) -> ArrayT:
        """All members' outputs for a batch, along a first axis."""
        snapshots = tuple(weights)
        if self._stacked is None or self._stacked[0] != snapshots:
            self._stacked = None  # before the others are read
            loading = [lambda each=each: self._members.load(each) for each in snapshots]
            self._stacked = snapshots, self._model.stack(loading)
        try:
            outputs = self._stacked[1](batch)
        except EnsembleError:
            raise
        except Exception as error:
            first, *_ = (str(error) or type(error).__name__).splitlines()
            raise EnsembleError(
                "The model must be one that a vectorized map can run for all members at once, for "
                f"mode='stacked'. Received: {type(error).__name__}: {first}; give mode='resident'"
            ) from error
        return checked(outputs, batch, self._found, *snapshots, stacked=True)

    def _fits(self, weights: Mapping[Snapshot, float]) -> bool:
        """Whether members may be kept twice, in both modes that are to be compared, and as much."""
        snapshots = tuple(weights)
        if self._stacked is not None and self._stacked[0] == snapshots:
            return True
        if all(snapshot in self._held for snapshot in snapshots):
            return True
        free = self._model.free_memory()
        return free is not None and 4 * self._members.count_bytes(snapshots) <= free

    def _faster(
        self,
        weights: Mapping[Snapshot, float],
        run: Callable[[Weights, Batch], ArrayT],
        batch: Batch,
    ) -> Mode:
        """The mode that takes less time for batches of this shape."""
        key = tuple(weights), self._place, tuple(tuple(each.shape) for each in arrays_of(batch))
        if key in self._fastest:
            return self._fastest[key]
        ways: dict[Mode, Callable[[], object]] = {
            "resident": lambda: [self._run_resident(run, each, batch) for each in weights],
            "stacked": lambda: self._run_stacked(weights, batch),
        }
        self.measured = {}
        for way, predict in ways.items():
            try:
                self._model.wait(predict())  # it compiles, reads and allocates
            except EnsembleError:
                if way == "resident":
                    raise
                self.measured[way] = math.inf
                continue
            times = []
            for _ in range(_TRIALS):
                start = time.perf_counter()
                self._model.wait(predict())
                times.append(time.perf_counter() - start)
            self.measured[way] = min(times)
        found = min(ways, key=lambda way: self.measured[way])
        self._fastest[key] = found
        if found == "resident":
            self._stacked = None
        elif "resident" not in self._fastest.values():
            self._held.clear()
        return found
