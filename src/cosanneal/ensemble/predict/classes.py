"""The classes of samples, from no more members than decide them, or than a budget has."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from ...snapshots.store import Snapshot
from ..arrays import EPS, Kind, as_numbers, as_numpy, namespace, narrow, widen
from ..model import ArrayT, Batch
from ..structure import parts
from .batches import Batches, rows_of
from .found import FoundOutputs
from .lead import BOUNDED, Lead, of_mean
from .modes import Finish, Mode, Modes, check_mode
from .outputs import OutputSpec
from .pooling import Pool
from .ragged import Ragged
from .taken import Taken


class Classes(Generic[ArrayT]):
    """Predicts the classes of samples, of which each has no more members than decide its class.

    `argmax_k sum(w p_k)`, and of outcomes whether `sum(w p) > 1/2`. The members come in the order
    of falling weight. A sample whose leading class those that are left cannot overtake (`Lead`)
    leaves its batch; one with several labels when all of them are decided. At least half of all
    weight has to be seen: three members of five that count the same.

    The classes are those of `predict`, of several equal ones the first: also by the rounding of
    its result to the outputs' dtype, and by its temperature, which can make two classes equal.
    Kernels round otherwise for batches of another size. So samples that a smaller batch leaves
    with two classes nearer than `NOISE` have their whole batch run once more, by all members, as
    `predict` does. Beyond that, as in half precision, two classes may be told apart otherwise, as
    `predict` itself does at another `batch_size`. What is left out is not looked at: a member
    that is needed for no sample is not read.

    With `care` below 1, samples leave earlier, by the rule of `Budget`: their classes may be
    others than those of `predict`. A sample that has had all members has that of `predict`, but
    where two classes are as near as sums in another order are; and no batch is run again. Where
    all members are run anyway, as in mode="stacked", the classes are those of `predict`.

    Samples are taken out of a batch that is a tuple of arrays or a dict of them, with as many rows
    as the output; of any other, the whole batch is run until all of its samples are decided. So it
    is where samples depend on each other: the first time that some are taken out of a batch of a
    kind, they are run both ways and compared. All members are run in mode="stacked", which
    "auto" is never; of a model with a state from batch to batch; and for other poolings than
    "probabilities" and "vote", where one member's logarithm can outweigh all others'.

    Streaming keeps one member, the sums of the samples that are not decided, and the classes.

    Attributes:
        passes: how many members were run on a sample in the last call, on average; of those
            of this process, where each has a share.

    Args:
        modes: what runs the model's members.
        taken: what their outputs are.
    """

    def __init__(self, modes: Modes[ArrayT], taken: Taken) -> None:
        self._modes, self._taken = modes, taken
        self._alone: dict[object, bool] = {}
        self.passes: float = 0.0

    def predict(
        self,
        weights: Mapping[Snapshot, float],
        finish: Finish,
        temperature: float,
        x: Any,
        *,
        care: float = 1.0,
        batch_size: int | None = None,
        mode: Mode = "stream",
        ragged: Ragged = "error",
    ) -> Any:
        """The classes of an input's samples.

        Args:
            weights: the members, in the order in which they come, and what each counts.
            finish: makes the prediction of a pool of all of them.
            temperature: at which it makes it.
            x: the input.
            care: how sure it must be that no class overtakes the leading one, from 0 to 1.
            batch_size: as in `PredictOptions`.
            mode: likewise.
            ragged: likewise.

        Raises:
            EnsembleError: outputs without classes; or as in `SnapshotEnsemble.predict`, of what
                is run.
        """
        check_mode(mode)
        self._taken.expect_classes()
        batches = self._modes.batches(x, batch_size, ragged)
        may_stop = not batches.are_linked and all(
            leaf.spec.pooling in BOUNDED for leaf in self._taken.leaves
        )
        plan = _Plan(
            self._taken,
            batches.some,
            tuple(weights.values()),
            finish,
            temperature,
            may_stop,
            care,
            self._alone,
        )
        if mode == "stacked":

            def run() -> list[Any]:
                pools = self._modes.pools(plan.pool, weights, batches, mode)
                with contextlib.closing(pools):
                    return [plan.numbers(each) for each in pools]

            found = batches.shared.ranks.agreed(run)
            self.passes = float(len(weights))
        else:
            decided = batches.shared.ranks.agreed(
                lambda: self._decided(plan, weights, batches, mode)
            )
            found = [each.numbers() for each in decided]
            samples = sum(each.samples for each in decided)
            self.passes = sum(each.runs for each in decided) / samples if samples else 0.0
        return self._modes.laid(found, batches, ragged, are_classes=True)

    def _decided(
        self, plan: _Plan, weights: Mapping[Snapshot, float], batches: Batches, mode: Mode
    ) -> list[_Batch]:
        """All batches, with their classes."""
        if mode == "stream":
            return self._streamed(plan, weights, batches)
        with self._modes.residents() as run:
            if mode == "auto" and not self._modes.fits(weights):
                return self._streamed(plan, weights, batches)
            found = []
            for batch in batches:
                found.append(_Batch(plan))
                for _ in range(2):  # the second time, what has to be run whole
                    for i, snapshot in enumerate(weights):
                        if found[-1].is_open:
                            found[-1].take(functools.partial(run, snapshot), batch, i)
                    found[-1].close()
            return found

    def _streamed(
        self, plan: _Plan, weights: Mapping[Snapshot, float], batches: Batches
    ) -> list[_Batch]:
        found: list[_Batch] = []
        for _ in range(2):
            for i, snapshot in enumerate(weights):
                if found and not any(each.is_open for each in found):
                    break
                with self._modes.member(snapshot) as run:
                    for j, batch in enumerate(batches):
                        if j == len(found):
                            found.append(_Batch(plan))
                        if found[j].is_open:
                            found[j].take(run, batch, i)
                del run  # with the member, before the next one is read
            for each in found:
                each.close()
        return found


@dataclass(slots=True)
class _Plan:
    """What is the same for all batches of a call.

    Args:
        taken: what the outputs are.
        some: makes a batch of some samples of another, or gives None.
        weights: the members', in the order in which they come.
        finish: makes the prediction of a pool of all of them.
        temperature: at which it makes it.
        may_stop: whether a member may be left out.
        care: as in `Classes.predict`.
        alone: by the kind of a batch, whether its samples were seen not to depend on each other.
    """

    taken: Taken
    some: Callable[[Batch, NDArray[np.intp]], Batch | None]
    weights: tuple[float, ...]
    finish: Finish
    temperature: float
    may_stop: bool
    care: float
    alone: dict[object, bool]

    def pool(self, spec: OutputSpec) -> Any:
        """What pools outputs, which must be of classes."""
        self.taken.expect_classes()
        return spec.pool()

    def numbers(self, pool: Any) -> Any:
        """The classes' numbers of a pool, or of a pool of several outputs, in the framework."""
        return self.taken.pooled(pool, self._numbers)

    def _numbers(self, found: FoundOutputs, pool: Pool[Any]) -> Any:
        value = self.finish(found, pool)
        return as_numbers(numbers_of(value, found), labels_like(value, found))


class _Batch:
    """The classes of a batch's samples, and which of them are not decided yet.

    Attributes:
        samples: how many there are.
        runs: on how many samples members were run.

    Args:
        plan: what is the same for all batches.
    """

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self.samples = self.runs = 0
        self._leads: list[Lead] = []
        self._likes: list[tuple[Kind, Kind]] = []  # of the outputs, and of their classes
        self._classes: list[Any] = []
        self._open = np.arange(0)  # the samples that are not decided
        self._moved = False  # whether some were run in another batch
        self._pool: Any = None  # of all members' outputs for the whole batch
        self._whole = not plan.may_stop
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether a further member is to be run."""
        return not self._closed and (not self._leads or self._whole or len(self._open) > 0)

    def take(self, run: Callable[[Batch], Any], batch: Batch, member: int) -> None:
        """Run the next member on the samples that are not decided.

        Args:
            run: runs it on a batch.
            batch: the whole batch.
            member: its place among all of them.
        """
        plan = self._plan
        outputs, cut = self._run(run, batch)
        if not self._leads and not self._whole:
            self._begin(outputs)
        if self._whole:
            self.samples = int(outputs[0].shape[0])
            self.runs += self.samples
            if self._pool is None:
                self._pool = plan.taken.pool(plan.pool)
            self._pool.update(outputs if plan.taken.several else outputs[0], plan.weights[member])
            return
        self.runs += len(self._open) if cut else self.samples
        self._moved = self._moved or cut
        decided = np.ones(len(self._open), np.bool_)
        for lead, each, (like, _) in zip(self._leads, outputs, self._likes, strict=True):
            wide = widen(each)
            wide = wide[: len(self._open)] if cut else wide[self._open]
            decided &= lead.update(wide, like, moved=cut)
        if decided.any():
            self._keep(np.flatnonzero(decided), [each.leaders for each in self._leads])
            left = np.flatnonzero(~decided)
            for lead in self._leads:
                lead.keep(left)
            self._open = self._open[left]

    def close(self) -> None:
        """Decide the samples that are left now that all members were run, or have them run anew."""
        if self._closed or self._whole:
            self._closed = True
            return
        if (
            self._moved
            and self._plan.care == 1
            and any(each.shaky or (len(self._open) and each.is_near) for each in self._leads)
        ):
            self._whole = True
            return
        self._closed = True
        if len(self._open):
            found = []
            for leaf, lead, (like, _) in zip(
                self._plan.taken.leaves, self._leads, self._likes, strict=True
            ):
                pool = of_mean(lead.mean, leaf.spec, like)
                found.append(numbers_of(self._plan.finish(leaf, pool), leaf))
            self._keep(np.arange(len(self._open)), found)

    def numbers(self) -> Any:
        """The classes' numbers, in the framework; a tuple of those of several outputs."""
        if self._pool is not None:
            return self._plan.numbers(self._pool)
        found = tuple(
            as_numbers(each, like)
            for each, (_, like) in zip(self._classes, self._likes, strict=True)
        )
        return found if self._plan.taken.several else found[0]

    def _begin(self, outputs: Sequence[Any]) -> None:
        """Make what is kept of the samples, of which the first member's outputs are there."""
        plan = self._plan
        plan.taken.expect_classes()
        self.samples = int(outputs[0].shape[0])
        if not self.samples:  # of which nothing is known, and a pool makes what there is
            self._whole = True
            return
        self._open = np.arange(self.samples)
        for leaf, output in zip(plan.taken.leaves, outputs, strict=True):
            self._leads.append(Lead(leaf.spec, plan.weights, plan.temperature, plan.care))
            # In no place: the samples that are left need not fit where all of them lie.
            like = Kind.of(output)._replace(place=None)
            self._likes.append((like, labels_like(output, leaf)))

    def _keep(self, places: NDArray[np.intp], numbers: Sequence[Any]) -> None:
        """Keep the classes of some of the samples that are left."""
        if not self._classes:
            self._classes = [
                each.new_zeros((self.samples, *each.shape[1:]))
                if hasattr(each, "new_zeros")
                else np.zeros((self.samples, *each.shape[1:]), np.int64)
                for each in numbers
            ]
        for classes, each in zip(self._classes, numbers, strict=True):
            classes[self._open[places]] = each[places]

    def _run(self, run: Callable[[Batch], Any], batch: Batch) -> tuple[tuple[Any, ...], bool]:
        """A member's outputs for all samples, or for those left; and whether it is these alone."""
        plan, each = self._plan, self._plan.taken.each
        part = None
        # In the second round, all samples are run; so they are where they cannot be taken out.
        if not self._whole and len(self._open) < self.samples == rows_of(batch):
            alike = tuple((key, array.ndim) for key, array in (parts(batch) or {}).items())
            if plan.alone.get(alike, True):
                part = plan.some(batch, self._open)
        if part is None:
            return each(run(batch)), False
        if alike in plan.alone:
            return each(run(part)), True
        whole = each(run(batch))
        try:
            plan.alone[alike] = self._are_alone(each(run(part)), whole)
        except Exception:  # of a model that is made for batches of one size, say
            plan.alone[alike] = False
        return whole, False

    def _are_alone(self, some: Sequence[Any], whole: Sequence[Any]) -> bool:
        """Whether samples have the same outputs when others are left out of the batch."""
        count = len(self._open)
        return all(
            part.shape[0] >= count
            and _are_close(
                as_numpy(widen(part))[:count], as_numpy(widen(every))[self._open], _eps(every)
            )
            for part, every in zip(some, whole, strict=True)
        )


def numbers_of(value: Any, found: FoundOutputs) -> Any:
    """The classes' numbers of a prediction, as `widen` has arrays.

    The first of the greatest; of outcomes, 1 where the probability is above 1/2.
    """
    wide = widen(value)
    axis = found.class_axis
    if axis is not None and wide.ndim > 1:
        return wide.argmax(axis)
    half = namespace(wide).full_like(wide, 0.5)
    if found.spec.pooling == "log-probabilities":  # of 1/2 as the prediction has it
        half = widen(narrow(namespace(wide).log(half), value))
    return (wide > half) * 1


def labels_like(output: Any, found: FoundOutputs) -> Kind:
    """The kind of what has one number for each label of an output, and lies as this does."""
    axis = found.class_axis
    if axis is None or output.ndim == 1:
        return Kind.of(output)
    first = (slice(None),) * (axis % output.ndim)
    return Kind.of(output[(*first, 0)])


def _eps(output: Any) -> float:
    """The spacing of the floats of an output at 1."""
    return EPS.get(str(output.dtype).rpartition(".")[-1], EPS["bfloat16"])


def _are_close(some: NDArray[Any], whole: NDArray[Any], eps: float) -> bool:
    """Whether outputs are the same but for what kernels round otherwise, also NaN and infinity."""
    finite = abs(whole[np.isfinite(whole)])
    slack = max(1e-3, 8 * eps) * max(finite.max(initial=0.0), 1e-6)
    return bool(np.isclose(some, whole, rtol=0, atol=slack, equal_nan=True).all())
