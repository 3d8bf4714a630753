"""How the members are run on batches: streaming, resident, stacked, or as measured."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, Literal, TypeAlias, TypedDict, get_args

from ...core.errors import EnsembleError, plural, shown
from ...snapshots.store import Snapshot
from ..arrays import stacked_tensors
from ..members import Members
from ..model import ArrayT, Batch, Model, Weights
from .batches import Batches, arrays_of, samples_of
from .found import FoundOutputs
from .gaussian import is_pair, pair_of
from .outputs import OutputSpec
from .ragged import Ragged, check_ragged
from .taken import NestedPool, PoolT, Taken

Mode: TypeAlias = Literal["stream", "resident", "stacked", "auto"]

# Makes something of an output's pool.
Finish: TypeAlias = Callable[[FoundOutputs, Any], Any]

# How often `mode="auto"` has a batch predicted by each mode, after once for all that comes first.
_TRIALS: Final = 3


class PredictOptions(TypedDict, total=False):
    """How an ensemble is run on an input, and what becomes of its batches.

    Args:
        batch_size: of arrays, so many samples at a time; by default 256, or as many as
            the model is made for.
        mode: how the members are run; the results agree to rounding.
            "stream" (the default) has one member in memory at a time, and one sum in
            float64, however many there are; a loader must give the same
            batches in every pass, of which each member has one. "resident"
            keeps all members beside the model, on its device and for the
            next call, and takes one pass. "stacked" keeps them stacked, and
            runs all at once by a vectorized map, whose gain is greatest for
            small batches on a GPU. "auto" measures those two on the first
            batch of each shape and goes on with the faster one, or streams
            where four times all members do not fit into the device's free
            memory.
        ragged: what becomes of batches whose outputs differ in more than the number of
            samples (padded sequences, images of two sizes). "error" (the default)
            refuses them, and makes one array of all others. "list" gives a list with
            the prediction of each batch, also where they agree (of an `x` of arrays,
            which is one batch, with one). "pad" gives
            `(prediction, mask)`: one array that is as large as the largest along every
            axis and filled up with 0, and one of its shape without the classes, True
            where there is a prediction.
    """

    batch_size: int | None
    mode: Mode
    ragged: Ragged


def checked(
    output: Any,
    batch: Batch,
    taken: Taken,
    *members: Snapshot,
    stacked: bool = False,
) -> Any:
    """An output, which must have a row for each sample and be what outputs are.

    Args:
        output: of the model, for a batch.
        batch: what the model was given.
        taken: what outputs are.
        members: whose it is; none if it is of other weights than a member's.
        stacked: whether it is of several members, along a first axis.
    """
    samples = samples_of(batch)
    for each in taken.each(output):
        first = pair_of(each)[0] if is_pair(each) else each
        shape = tuple(first.shape)[1 if stacked else 0 :]
        if not shape or (samples is not None and shape[0] != samples):
            there = "a batch" if samples is None else plural(samples, "sample")
            raise EnsembleError(
                "The model must return a row for each sample of a batch, along the first axis. "
                f"Received: an output of shape {shape} for {there}"
            )
    # By their paths: two folders may have files of one name.
    taken.look(output, [str(each.path) for each in members], stacked=stacked)
    return output


def outputs_of(
    model: Model[Any],
    weights: Weights,
    batches: Batches,
    taken: Taken,
    *members: Snapshot,
) -> list[Any]:
    """The outputs of a model with some weights, a member's or others, for each batch."""
    with model.running(taken.pick) as run:
        return [checked(run(weights, batch), batch, taken, *members) for batch in batches]


def check_mode(mode: object) -> None:
    """Refuse what is no way to run members."""
    if mode not in get_args(Mode):
        raise EnsembleError(
            "Argument `mode` must be 'stream', 'resident', 'stacked' or 'auto'. "
            f"Received: mode={shown(mode)}"
        )


class Modes(Generic[ArrayT]):
    """Runs the members of an ensemble, and keeps what its modes keep of them.

    Attributes:
        measured: the seconds that a batch took in each mode, when mode="auto"
            last compared them; infinite for one that cannot be.

    Args:
        model: the model that they are loaded into.
        members: what loads them.
        taken: what their outputs are.
    """

    def __init__(self, model: Model[ArrayT], members: Members, taken: Taken) -> None:
        self._model, self._members, self._taken = model, members, taken
        self.measured: dict[str, float] = {}
        # What the modes resident and stacked keep, of a model in one place.
        self._place: object = None
        self._held: dict[Snapshot, Weights] = {}
        self._stacked: tuple[tuple[Snapshot, ...], Callable[[Batch], Any]] | None = None
        self._fastest: dict[object, Mode] = {}

    @property
    def held(self) -> int:
        """How many members are kept one by one."""
        return len(self._held)

    def release(self) -> None:
        """Give back the memory of the members that are kept."""
        self._held.clear()
        self._stacked = None

    def predictions(
        self,
        pool: Callable[[OutputSpec], PoolT],
        weights: Mapping[Snapshot, float],
        x: Any,
        parts: Sequence[Finish],
        *,
        batch_size: int | None = None,
        mode: Mode = "stream",
        ragged: Ragged = "error",
    ) -> list[Any]:
        """What is made of some members' outputs for an input.

        Args:
            pool: makes what pools the outputs of a kind, of one batch.
            weights: the members, and what each counts.
            x: the input.
            parts: make an array each of such a pool, or something that has several.
            batch_size: as in `PredictOptions`.
            mode: likewise.
            ragged: likewise.

        Returns:
            For each of `parts`, what it made of all batches.
        """
        batches = self.batches(x, batch_size, ragged)

        def run() -> list[list[Any]]:
            made: list[list[Any]] = [[] for _ in parts]
            with contextlib.closing(self.pools(pool, weights, batches, mode)) as pools:
                for each in pools:
                    for finish, results in zip(parts, made, strict=True):
                        results.append(self._taken.pooled(each, finish))
                    del each
            return made

        made = batches.shared.ranks.agreed(run)
        return [self.laid(results, batches, ragged) for results in made]

    def of_each_member(self, x: Any, batch_size: int | None, ragged: Ragged) -> Iterator[Any]:
        """The prediction of each member in turn, as `PredictOptions` has it."""
        batches = self.batches(x, batch_size, ragged)

        def run(snapshot: Snapshot) -> list[Any]:
            weights = self._members.load(snapshot)
            outputs = outputs_of(self._model, weights, batches, self._taken, snapshot)
            return [self._taken.predictions(each) for each in outputs]

        for snapshot in self._members:
            parts = batches.shared.ranks.agreed(functools.partial(run, snapshot))
            yield self.laid(parts, batches, ragged)

    def batches(self, x: Any, batch_size: int | None, ragged: Ragged) -> Batches:
        """The batches of an input, of which results can be laid out as `ragged` has it."""
        check_ragged(ragged)
        batches = self._model.batches(x, batch_size)
        if ragged != "error":
            batches.shared.refuse("ragged", "give every process all of them, or predict on each")
        return batches

    def laid(
        self, parts: Sequence[Any], batches: Batches, ragged: Ragged, *, are_classes: bool = False
    ) -> Any:
        """What was made of each batch, as `ragged` has it; see `Taken.laid`."""
        if ragged == "list" and batches.are_cut:  # of what the user gave as one
            return [self._taken.laid(self._model.join, parts, "error", are_classes=are_classes)]
        return batches.shared.laid(
            self._model.join,
            lambda join: self._taken.laid(join, parts, ragged, are_classes=are_classes),
        )

    @contextlib.contextmanager
    def member(self, snapshot: Snapshot) -> Iterator[Callable[[Batch], Any]]:
        """What runs one member, which is in memory as long as that is held."""
        loaded = self._members.load(snapshot)
        with self._model.running(self._taken.pick) as run:
            yield lambda batch: checked(run(loaded, batch), batch, self._taken, snapshot)

    @contextlib.contextmanager
    def residents(self) -> Iterator[Callable[[Snapshot, Batch], Any]]:
        """What runs any member, each of which is kept from when it is first asked for."""
        with self._model.running(self._taken.pick) as run:
            self._meet_place()
            yield functools.partial(self._run_resident, run)

    def pools(
        self,
        pool: Callable[[OutputSpec], PoolT],
        weights: Mapping[Snapshot, float],
        batches: Batches,
        mode: Mode,
    ) -> Generator[PoolT | NestedPool[PoolT], None, None]:
        """For each batch a pool of some members' outputs, at their weights.

        `pool` makes one for outputs of a kind; of several, each has its own. The model
        is in use until the generator is closed.
        """
        check_mode(mode)
        if mode == "stream":
            yield from self._streamed(pool, weights, batches)
            return
        with self._model.running(self._taken.pick) as run:
            self._meet_place()
            if mode == "auto" and not self.fits(weights):
                yield from self._streamed(pool, weights, batches)
                return
            for batch in batches:
                if not weights:
                    continue
                if (mode if mode != "auto" else self._faster(weights, run, batch)) == "stacked":
                    outputs = self._run_stacked(weights, batch)
                    found = self._taken.pool(pool)
                    found.update_stacked(outputs, tuple(weights.values()))
                    yield found
                else:
                    yield self._pooled(pool, weights, run, batch)

    def _streamed(
        self,
        pool: Callable[[OutputSpec], PoolT],
        weights: Mapping[Snapshot, float],
        batches: Batches,
    ) -> Iterator[PoolT | NestedPool[PoolT]]:
        pools: list[PoolT | NestedPool[PoolT]] = []
        for snapshot, weight in weights.items():
            with self.member(snapshot) as run:
                for i, batch in enumerate(batches):
                    output = run(batch)
                    if i == len(pools):
                        pools.append(self._taken.pool(pool))
                    pools[i].update(output, weight)
            del run  # with the member, before the next one is read
        pools.reverse()
        while pools:  # each is done with when the next is asked for
            yield pools.pop()

    def _meet_place(self) -> None:
        """Let go of members that are kept for where the model was."""
        if self._place != (place := self._model.place()):
            self.release()
            self._place = place

    def _resident(self, snapshot: Snapshot) -> Weights:
        if snapshot not in self._held:
            self._held[snapshot] = self._members.load(snapshot)
        return self._held[snapshot]

    def _pooled(
        self,
        pool: Callable[[OutputSpec], PoolT],
        weights: Mapping[Snapshot, float],
        run: Callable[[Weights, Batch], Any],
        batch: Batch,
    ) -> PoolT | NestedPool[PoolT]:
        """A pool of the outputs of members that are kept; few numbers are looked at all at once."""
        first, *others = weights
        output = self._run_resident(run, first, batch)
        # Of the first it is known what outputs are, and so how they are pooled.
        found = self._taken.pool(pool)
        if not self._taken.are_few(output, len(weights)):
            found.update(output, weights[first])
            for each in others:
                found.update(self._run_resident(run, each, batch), weights[each])
            return found
        outputs = [output, *(run(self._resident(each), batch) for each in others)]
        stacked = stacked_tensors(outputs)
        if stacked is not None:
            checked(stacked[1:], batch, self._taken, *others, stacked=True)
            found.update_stacked(stacked, tuple(weights.values()))
            return found
        for each, output in zip(weights, outputs, strict=True):
            found.update(checked(output, batch, self._taken, each), weights[each])
        return found

    def _run_resident(
        self, run: Callable[[Weights, Batch], Any], snapshot: Snapshot, batch: Batch
    ) -> Any:
        return checked(run(self._resident(snapshot), batch), batch, self._taken, snapshot)

    def _run_stacked(self, weights: Mapping[Snapshot, float], batch: Batch) -> Any:
        """All members' outputs for a batch, along a first axis."""
        snapshots = tuple(weights)
        if self._stacked is None or self._stacked[0] != snapshots:
            self._stacked = None  # before the others are read
            loading = [lambda each=each: self._members.load(each) for each in snapshots]
            self._stacked = snapshots, self._model.stack(loading, self._taken.pick)
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
        return checked(outputs, batch, self._taken, *snapshots, stacked=True)

    def fits(self, weights: Mapping[Snapshot, float]) -> bool:
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
        run: Callable[[Weights, Batch], Any],
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
