"""The snapshot ensemble that every adapter fills in."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ..core.errors import EnsembleError, check_steps, shown
from ..snapshots.file import Layout, count_bytes, first_mismatch
from ..snapshots.store import Snapshot, SnapshotStore
from .arrays import Kind, as_numpy, check_class_axis, check_count, widen
from .averaged import (
    BARRIER,
    AveragedWeights,
    Averaging,
    Layers,
    SoupName,
    check_inner,
    check_soup,
    check_tolerance,
)
from .batches import Batches
from .choice import Choice, Select
from .choice import fit as choose
from .metrics import Metric
from .pooling import Inputs, Pool, Pooling, ValuePool, check_pooling, probabilities_of
from .weights import Weights

Outputs: TypeAlias = Literal["logits", "probabilities", "values"]
Mode: TypeAlias = Literal["stream", "resident", "stacked", "auto"]

ArrayT = TypeVar("ArrayT")
PoolT = TypeVar("PoolT", Pool[Any], ValuePool[Any])

CHOICE_NAME: Final = "ensemble.json"

_REMEDY: Final = "; fit the ensemble again"

# Bytes of predictions beyond which `fit` keeps them in a file.
_IN_MEMORY: Final = 256 << 20

# A model that has a member's weights for the moment must not be lent again.
_LOCK: Final = threading.Lock()
_LOCKS: Final = weakref.WeakKeyDictionary[Any, threading.RLock]()

# How often `mode="auto"` has a batch predicted by each mode, after once for all that comes first.
_TRIALS: Final = 3


class BaseEnsemble(ABC, Generic[ArrayT]):
    """One prediction from the last snapshots of a run.

    Attributes:
        choice: what `fit` chose or `load` read, and `predict` goes by; None for
            all members at the same weight.
        measured: the seconds that a batch took in each mode, when mode="auto"
            last compared them; infinite for one that cannot be.

    Args:
        folder: the folder of the snapshots.
        last: how many of the newest to use; by default all.
        outputs: what the model returns: "logits" (a softmax over the class axis
            makes probabilities of them), "probabilities", or "values" of a
            regression, which are averaged.
        class_axis: the axis of the classes; None where each number is an
            outcome of its own (binary, multi-label), and a sigmoid makes its
            probability of its logit.
        pooling: how the members' predictions become one, as in `Pool`: by
            default the mean of their probabilities.

    Raises:
        EnsembleError: an argument that cannot be, or fewer snapshots than asked for.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | SnapshotStore,
        *,
        last: int | None = None,
        outputs: Outputs = "logits",
        class_axis: int | None = -1,
        pooling: Pooling = "probabilities",
    ) -> None:
        self.store = folder if isinstance(folder, SnapshotStore) else SnapshotStore(folder)
        if outputs not in get_args(Outputs):
            raise EnsembleError(
                "Argument `outputs` must be 'logits', 'probabilities' or 'values'. "
                f"Received: outputs={outputs!r}"
            )
        self.outputs = outputs
        if class_axis is not None and (
            isinstance(class_axis, bool) or not isinstance(class_axis, int) or not class_axis
        ):
            raise EnsembleError(
                "Argument `class_axis` must be an axis other than the first, along which the "
                f"samples lie, or None. Received: class_axis={shown(class_axis)}"
            )
        self.class_axis = class_axis
        self.pooling = check_pooling(pooling)
        if outputs == "values" and pooling != "probabilities":
            raise EnsembleError(
                "Argument `pooling` must be left out for outputs='values', whose mean is taken. "
                f"Received: pooling={pooling!r}"
            )
        found = self.store.list()
        if last is not None:
            last = check_steps("last", last, minimum=1)
        if not found or (last is not None and last > len(found)):
            wanted = "at least one snapshot" if last is None else f"the {last} snapshots asked for"
            raise EnsembleError(
                f"Folder {self.store.folder} must hold {wanted}. Received: {len(found)}; "
                "a snapshot is written at the end of each cycle"
            )
        self._members = tuple(found if last is None else found[-last:])
        self.choice: Choice | None = None
        self.measured: dict[str, float] = {}
        # Of members that were read: their tensors, and the digest of those.
        self._layouts: dict[Snapshot, Layout] = {}
        self._verified: dict[Snapshot, str | None] = {}
        # What the modes resident and stacked keep, of a model in one place.
        self._place: object = None
        self._held: dict[Snapshot, Any] = {}
        self._stacked: tuple[tuple[Snapshot, ...], Callable[[Any], ArrayT]] | None = None
        self._fastest: dict[object, Mode] = {}

    def __len__(self) -> int:
        return len(self._members)

    @property
    def members(self) -> tuple[Snapshot, ...]:
        """The snapshots of the ensemble, oldest first."""
        return self._members

    def predict(self, x: Any, *, batch_size: int | None = None, mode: Mode = "stream") -> ArrayT:
        """The members' predictions made one: by default their mean; after `fit`, as it chose.

        Args:
            x: the model's input, with the samples along the first axis: an
                array; a tuple of arrays for a model of several arguments; or an
                iterable of batches (but no list) such as a data loader, of which
                each is the input, or a tuple or list that begins with it, as in
                `(x, y)`.
            batch_size: of arrays, so many samples at a time; by default all at once.
            mode: how the members are run; the results agree to rounding.
                "stream" has one member in memory at a time, and one sum in
                float64, however many there are; a loader must give the same
                batches in every pass, of which each member has one. "resident"
                keeps all members beside the model, on its device and for the
                next call, and takes one pass. "stacked" keeps them stacked, and
                runs all at once by a vectorized map, whose gain is greatest for
                small batches on a GPU. "auto" measures those two on the first
                batch of each shape and goes on with the faster one, or streams
                where four times all members do not fit into the device's free
                memory.

        Predictions with one model take turns, also those of several ensembles in
        several threads; but nothing else may use it meanwhile.

        Returns:
            Probabilities (or values) in the dtype and on the device of a
            member's, in the order of the samples.

        Raises:
            SnapshotError: a snapshot is damaged.
            EnsembleError: a snapshot does not fit the model (the message names
                the first tensor that differs); or batches that change between
                two passes.
        """
        choice = self.choice
        weights = {
            snapshot: weight
            for snapshot, weight in zip(
                self._members, [1.0] * len(self) if choice is None else choice.weights, strict=True
            )
            if weight > 0
        }
        with contextlib.closing(self._pools(self._pool, weights, x, batch_size, mode)) as pools:
            return self._joined(
                [
                    each.value if choice is None else cast(ArrayT, choice.finish(each))
                    for each in pools
                ]
            )

    def predict_with_variance(
        self, x: Any, *, batch_size: int | None = None, mode: Mode = "stream"
    ) -> tuple[ArrayT, ArrayT]:
        """The mean of the members' values of a regression, and the variance between them.

        The variance leaves out the noise of the targets, which members that
        return values only do not know. Args and errors as in `predict`.

        Raises:
            EnsembleError: the ensemble's outputs are no values.
        """
        if self.outputs != "values":
            raise EnsembleError(
                "The ensemble must have outputs='values' for a variance. "
                f"Received: outputs={self.outputs!r}"
            )
        weights = dict.fromkeys(self._members, 1.0)
        with contextlib.closing(self._pools(ValuePool[Any], weights, x, batch_size, mode)) as pools:
            means, variances = zip(*((pool.mean, pool.variance) for pool in pools), strict=True)
        return self._joined(means), self._joined(variances)

    def member_predictions(self, x: Any, *, batch_size: int | None = None) -> Iterator[ArrayT]:
        """The prediction of each member in turn, oldest first.

        Args and errors as in `predict`; probabilities (or values), as
        `predict` averages them. One member is in memory at a time.
        """
        for prediction in self._member_outputs(self._batches(x, batch_size)):
            yield self._probabilities(prediction) if self.outputs == "logits" else prediction

    def release(self) -> None:
        """Give back the memory of the members that the modes resident and stacked keep."""
        self._held.clear()
        self._stacked = None

    def fit(
        self,
        x_val: Any,
        y_val: Any = None,
        *,
        select: Select = "last",
        metric: Metric = "log_loss",
        temperature: bool = True,
        batch_size: int | None = None,
        keep: str | os.PathLike[str] | None = None,
        steps: int = 50,
        bags: int = 0,
        seed: int = 0,
    ) -> Choice:
        """Choose members, weights and a temperature on validation data; `predict` then uses them.

        Every member is run once. Nothing but these data goes into the choice:
        report it on others.

        Args:
            x_val: the model's input for the validation data, as in `predict`.
            y_val: their true classes; by default what a loader's batches of
                `(x, y)` hold.
            select: "last", "greedy" or "weights", as in `cosanneal.ensemble.fit`.
            metric: "log_loss", "brier" or "error".
            temperature: also fit one temperature after pooling.
            batch_size: so many samples at a time; by default all at once.
            keep: a file to keep the members' probabilities in, one .npy array
                with the members along the first axis: float32, or float64 where
                class_axis is None. Without one, they are in memory, or where
                they are more than 256 MiB in a temporary file.
            steps: picks of select="greedy".
            bags: of select="greedy", as in `select_greedy`.
            seed: of the bags and the intervals.

        Returns:
            The choice, which is now `choice`.

        Raises:
            EnsembleError: the outputs are values, or not pooled by the mean of
                probabilities; or as in `cosanneal.ensemble.fit`.
            SnapshotError: a snapshot is damaged.

        Warns:
            UserWarning: fewer than 1000 validation samples.
        """
        self._check_mean()
        # Members that are no files have none, and a choice among them is one of arrays.
        digests = [
            snapshot.metadata["digest"]
            for snapshot in self._members
            if "digest" in snapshot.metadata
        ]
        batches = self._batches(x_val, batch_size)
        labels = batches.labels() if y_val is None else y_val
        with self._kept_predictions(batches, keep) as predictions:
            self.choice = choose(
                predictions,
                labels,
                select=select,
                metric=metric,
                temperature=temperature,
                names=[snapshot.path.name for snapshot in self._members],
                class_axis=self.class_axis,
                steps=steps,
                bags=bags,
                seed=seed,
                digests=digests or None,
            )
        return self.choice

    def average_weights(
        self,
        x_val: Any = None,
        y_val: Any = None,
        *,
        train_data: Any = None,
        last: int | None = None,
        soup: SoupName = "uniform",
        decay: float | None = None,
        barrier: float = BARRIER,
        shares: Sequence[float] = (0.25, 0.5, 0.75),
        batch_size: int | None = None,
        train_batch_size: int | None = None,
    ) -> AveragedWeights:
        """One model from the mean of members' weights, if no barrier parts them.

        `sum(share_i * weights_i)`, in float64, rounded once; then the running
        statistics of normalization layers are estimated anew.

        A mean of weights is a model only where the members lie in one valley of
        the loss. So the loss (the log-loss, or of values the MSE) on the
        validation data is measured first, on the straight line from each member
        to the next. Where it rises by more than the tolerance above the line
        between its ends, the mean is refused, by an error: a warning would leave
        a model behind that is worse than each of its members. So it is where the
        loss of the mean rises as much above that of its members.

        Statistics, such as BatchNorm's, are those of the training data as if
        all had come in one batch: each sample (and each position in it) counts
        the same, whatever the batches' sizes, and the variance between batches
        is part of it. While the data pass, every normalization layer normalizes
        by the batch's own statistics, as in training, and dropout is off. So the
        first one's statistics do not depend on the batches at all, and those of
        deeper ones as little as the batches are large. On the way between two
        members they are estimated at every point. A few thousand samples do. A
        layer that the data do not reach keeps the mean of its statistics; and one
        whose statistics are the same in all members (in Keras, one that is not
        trained) was frozen, and keeps them.

        Args:
            x_val: the model's input for validation data, as in `predict`. They
                may be left out with `barrier=math.inf`, or for one member.
            y_val: their true classes (or values); by default what a loader's
                batches of `(x, y)` hold.
            train_data: input as in `predict`, from the training data: arrays,
                or a loader, which may shuffle. Needed where the model has
                running statistics, and for nothing else.
            last: of so many of the newest members; by default of all. With
                soup="uniform" it is the window of latest weight averaging (LAWA).
            soup: "uniform", where all count the same; "exponential", the moving
                average with `decay`; or "greedy", which begins with the member of
                the lowest loss and takes those that do not make it worse, from
                the best one down. That is a stricter test than the barrier's,
                which is left out.
            decay: of soup="exponential", in (0, 1]: a member counts `decay`
                times as much as the next, as `cosanneal.ensemble.exponential_weights` has it.
            barrier: by how much the loss may rise, as a share of the mean loss
                of the ends; 0.1 lets it grow by a tenth. `math.inf` takes the
                mean all the same, with a warning where 0.1 would refuse it.
            shares: where to measure between two members, as shares of the way. Each
                takes a pass over the validation data, and with running statistics
                one over the training data.
            batch_size: of the validation data, where they are arrays, so many
                samples at a time; by default all at once.
            train_batch_size: of the training data, at most so many at a time, in
                batches of about one size.

        Returns:
            The mean, its members and scores. The model, and `choice`, stay as they are.

        Raises:
            EnsembleError: a barrier between two members; no training data for a
                model with running statistics (the message names the first layer),
                or no validation data to measure with; arguments that cannot be.
            SnapshotError: a snapshot is damaged.

        Warns:
            UserWarning: a barrier that only `barrier=math.inf` lets pass.

        Source: Izmailov et al., "Averaging Weights Leads to Wider Optima" (2018),
        section 3; Wortsman et al., "Model Soups" (2022), recipe 1; Kaddour, "Latest
        Weight Averaging" (2022); Frankle et al., "Linear Mode Connectivity" (2020).
        """
        if last is not None:
            last = check_count("last", last)
            if last > len(self):
                raise EnsembleError(
                    f"Argument `last` must be at most {len(self)}, the members there are. "
                    f"Received: last={last}"
                )
        members = self._members if last is None else self._members[-last:]
        mixture = check_soup(soup, decay, len(members))
        tolerance, inner = check_tolerance(barrier), check_inner(shares)
        several = len(members) > 1
        if x_val is None and several and (mixture is None or tolerance < math.inf):
            raise EnsembleError(
                "Argument `x_val` must be given for the loss between the members to be measured. "
                "Received: none; give validation data, or barrier=math.inf and another soup than "
                "'greedy' for the mean unmeasured"
            )
        layers = self._running_statistics(members) if several else ()
        if layers and train_data is None:
            raise EnsembleError(
                "Argument `train_data` must be given for a model with running statistics, which a "
                f"mean of weights needs anew. Received: none, and {layers[0][0]!r}; give input "
                "from the training data"
            )
        train = None
        if layers:
            train = self._batches(train_data, train_batch_size, training=True, name="train_data")
        with self._same_randomness():
            averaging = Averaging(self, members, train, layers, inner)
            if x_val is not None:
                averaging.measure(self._batches(x_val, batch_size), y_val)
            return averaging.greedy() if mixture is None else averaging.mean(mixture, tolerance)

    @contextlib.contextmanager
    def _kept_predictions(
        self, batches: Batches, keep: str | os.PathLike[str] | None
    ) -> Iterator[NDArray[Any]]:
        """The predictions of all members in one array, in memory or in a file."""
        with contextlib.ExitStack() as stack:
            kept: NDArray[Any] | None = None
            for i, output in enumerate(self._member_outputs(batches)):
                array = as_numpy(self._wide(output))
                if kept is None:
                    # In float32 the probability of a logit of 20 is 1: how far it is from
                    # that is lost, where no other class' probability says it.
                    exact = self.class_axis is None or "float64" in str(Kind.of(output).dtype)
                    dtype = np.dtype(np.float64 if exact else np.float32)
                    shape = (len(self), *array.shape)
                    if keep is None and math.prod(shape) * dtype.itemsize <= _IN_MEMORY:
                        kept = np.empty(shape, dtype)
                    else:
                        file = keep
                        if file is None:
                            folder = stack.enter_context(
                                tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
                            )
                            file = Path(folder) / "predictions.npy"
                        try:
                            kept = np.lib.format.open_memmap(file, "w+", dtype, shape)
                        except OSError as error:
                            raise EnsembleError(
                                "Argument `keep` must be a file that can be written. "
                                f"Received: {shown(os.fspath(file))}: {error.strerror or error}"
                            ) from error
                kept[i] = array
            if kept is None:
                raise EnsembleError("An ensemble without members predicts nothing")
            yield kept

    def save(self, path: str | os.PathLike[str] | None = None) -> None:
        """Write the choice as a small JSON file.

        Args:
            path: the file; by default `ensemble.json` beside the snapshots.

        Raises:
            EnsembleError: nothing was fitted, or the file cannot be written.
        """
        if self.choice is None:
            raise EnsembleError("There must be a choice to save. Received: none; call fit first")
        if path is None and self.choice.digests is None:
            raise EnsembleError(
                "Argument `path` must be given where the members are no files. Received: none"
            )
        self.choice.save(self.store.folder / CHOICE_NAME if path is None else path)

    def load(self, path: str | os.PathLike[str] | None = None) -> Choice:
        """Take over a choice that was saved: its members, weights and temperature.

        Args:
            path: the file; by default `ensemble.json` beside the snapshots.

        Returns:
            The choice, which is now `choice`.

        Raises:
            EnsembleError: the ensemble is none that could be fitted; no choice is
                there; one of its snapshots is missing,
                or is another than it was; or there are newer ones, among which
                it was not made.
        """
        self._check_mean()
        file = self.store.folder / CHOICE_NAME if path is None else Path(path)
        choice = Choice.load(file)
        if choice.class_axis != self.class_axis:
            raise EnsembleError(
                f"The choice in {file} must be with class_axis={self.class_axis}. Received: one "
                f"with class_axis={choice.class_axis}{_REMEDY}"
            )
        members = members_of(choice, self.store, file)
        self._members, self.choice = members, choice
        return choice

    def _check_mean(self) -> None:
        """Refuse a choice, which is one of weights of the mean, where none is taken."""
        if self.outputs == "values" or self.pooling != "probabilities":
            raise EnsembleError(
                "An ensemble must pool the mean of probabilities to be fitted. Received: "
                f"outputs={self.outputs!r}, pooling={self.pooling!r}"
            )

    def _pool(self) -> Pool[ArrayT]:
        """What makes one prediction of the members' outputs."""
        inputs: Inputs = "logits" if self.outputs == "logits" else "probabilities"
        return Pool(self.pooling, inputs=inputs, class_axis=self.class_axis)

    def _member_outputs(self, batches: Batches) -> Iterator[ArrayT]:
        for snapshot in self._members:
            yield self._predicted(self._load(snapshot), batches)

    def _predicted(self, weights: Any, batches: Batches) -> ArrayT:
        """The outputs of a model with some weights."""
        with self._borrowed() as run:
            return self._joined([run(weights, batch) for batch in batches])

    def _wide(self, output: ArrayT) -> Any:
        """The probabilities (or values) of a model's output in float64, as `widen` makes them."""
        wide = widen(output)
        return probabilities_of(wide, self.class_axis) if self.outputs == "logits" else wide

    def _pools(
        self,
        pool: Callable[[], PoolT],
        members: Mapping[Snapshot, float],
        x: Any,
        batch_size: int | None,
        mode: Mode,
    ) -> Generator[PoolT, None, None]:
        """For each batch a pool of some members' predictions, at their weights.

        The model is borrowed until it is closed.
        """
        if mode not in get_args(Mode):
            raise EnsembleError(
                "Argument `mode` must be 'stream', 'resident', 'stacked' or 'auto'. "
                f"Received: mode={shown(mode)}"
            )
        batches = self._batches(x, batch_size)
        if mode == "stream":
            yield from self._streamed(pool, members, batches)
            return
        with self._borrowed() as run:
            if self._place != (place := self._where()):
                self.release()
                self._place = place
            if mode == "auto" and not self._fits(members):
                yield from self._streamed(pool, members, batches)
                return
            for batch in batches:
                found = pool()
                if (mode if mode != "auto" else self._faster(members, run, batch)) == "stacked":
                    found.update_stacked(self._run_stacked(members, batch), tuple(members.values()))
                else:
                    for snapshot, weight in members.items():
                        found.update(run(self._resident(snapshot), batch), weight)
                yield found

    def _streamed(
        self, pool: Callable[[], PoolT], members: Mapping[Snapshot, float], batches: Batches
    ) -> Iterator[PoolT]:
        pools: list[PoolT] = []
        for snapshot, weight in members.items():
            weights = self._load(snapshot)
            with self._borrowed() as run:
                for i, batch in enumerate(batches):
                    if i == len(pools):
                        pools.append(pool())
                    pools[i].update(run(weights, batch), weight)
            del run, weights  # before the next one's are read
        pools.reverse()
        while pools:  # each is done with when the next is asked for
            yield pools.pop()

    def _resident(self, snapshot: Snapshot) -> Any:
        if snapshot not in self._held:
            self._held[snapshot] = self._load(snapshot)
        return self._held[snapshot]

    def _run_stacked(self, members: Iterable[Snapshot], batch: tuple[Any, ...]) -> ArrayT:
        """All members' predictions of a batch, along a first axis."""
        snapshots = tuple(members)
        stacked = self._stacked
        if stacked is None or stacked[0] != snapshots:
            self._stacked = stacked = None  # before the others are read
            self._stacked = stacked = snapshots, self._stack(snapshots)
        try:
            return stacked[1](batch)
        except EnsembleError:
            raise
        except Exception as error:
            first, *_ = (str(error) or type(error).__name__).splitlines()
            raise EnsembleError(
                "The model must be one that a vectorized map can run for all members at once, for "
                f"mode='stacked'. Received: {type(error).__name__}: {first}; give mode='resident'"
            ) from error

    def _fits(self, members: Iterable[Snapshot]) -> bool:
        """Whether members may be kept twice, in both modes that are to be compared, and as much."""
        if self._stacked is not None and self._stacked[0] == tuple(members):
            return True
        if all(member in self._held for member in members):
            return True
        free = self._free_memory()
        sizes = [
            count_bytes(shape, dtype)
            for member in members
            for shape, dtype in member.layout().values()
        ]
        return free is not None and 4 * sum(sizes) <= free

    def _faster(
        self,
        members: Mapping[Snapshot, float],
        run: Callable[[Any, Any], ArrayT],
        batch: tuple[Any, ...],
    ) -> Mode:
        """The mode that takes less time for batches of this shape."""
        key = tuple(members), self._place, tuple(tuple(each.shape) for each in batch)
        if key in self._fastest:
            return self._fastest[key]
        ways: dict[Mode, Callable[[], object]] = {
            "resident": lambda: [run(self._resident(member), batch) for member in members],
            "stacked": lambda: self._run_stacked(members, batch),
        }
        self.measured = {}
        for way, predict in ways.items():
            try:
                self._wait_for(predict())  # it compiles, reads and allocates
            except EnsembleError:
                if way == "resident":
                    raise
                self.measured[way] = math.inf
                continue
            times = []
            for _ in range(_TRIALS):
                start = time.perf_counter()
                self._wait_for(predict())
                times.append(time.perf_counter() - start)
            self.measured[way] = min(times)
        found = min(ways, key=lambda way: self.measured[way])
        self._fastest[key] = found
        if found == "resident":
            self._stacked = None
        elif "resident" not in self._fastest.values():
            self._held.clear()
        return found

    def _tensors(
        self, snapshot: Snapshot, model: Layout, *, framework: str = "numpy"
    ) -> dict[str, Any]:
        """A member's tensors by name, which must be such as the model's are."""
        if snapshot not in self._layouts:
            self._layouts[snapshot] = snapshot.layout()
        mismatch = first_mismatch(self._layouts[snapshot], model)
        if mismatch is not None:
            raise EnsembleError(f"Snapshot {snapshot.path} must fit the model: {mismatch}")
        # A file is compared with its digests once. It does not change under its
        # name, unless the run is begun anew.
        tensors = snapshot.load(framework=framework, verify=snapshot not in self._verified)
        digest = snapshot.metadata.get("digest")
        if self._verified.setdefault(snapshot, digest) != digest:
            raise EnsembleError(
                "The snapshots must stay as the ensemble read them first. Received: another one as "
                f"{snapshot.path}, by its digest; make a new ensemble"
            )
        return tensors

    def __repr__(self) -> str:
        steps = ", ".join(str(snapshot.step) for snapshot in self._members)
        return f"<{type(self).__name__} of {len(self)} snapshots of {self.store.folder}: {steps}>"

    def _checked(self, output: ArrayT, shape: tuple[int, ...]) -> ArrayT:
        """A model's output of a shape, which must have the classes' axis if it is logits."""
        if self.outputs == "logits":
            check_class_axis(shape, self.class_axis, "Logits")
        return output

    def _by_name(self, weights: Any) -> Weights:
        """What `_load` gives, as arrays by name."""
        return cast(Weights, weights)

    def _from_names(self, named: Weights) -> Any:
        """Arrays by name as what `_load` gives."""
        return named

    def _handed_out(self, weights: Any) -> Any:
        """What `_load` gives, in the form in which the framework's users have weights."""
        return weights

    def _same_randomness(self) -> AbstractContextManager[object]:
        """Leave the state of random generators that loaders draw from as it is."""
        return contextlib.nullcontext()

    @abstractmethod
    def _running_statistics(self, members: Sequence[Snapshot]) -> Layers:
        """The layers whose running statistics a mean of some members needs anew."""

    @abstractmethod
    def _reestimated(self, weights: Any, layers: Layers, batches: Batches) -> Any:
        """Weights with the running statistics of the data, as if all had come in one batch."""

    @abstractmethod
    def _batches(
        self, x: Any, batch_size: int | None, *, training: bool = False, name: str = "x"
    ) -> Batches:
        """The batches of an input, of the framework's arrays; see `Batches`."""

    @abstractmethod
    def _load(self, snapshot: Snapshot) -> Any:
        """A member's weights, as what `_borrowed` gives takes them, on the model's device."""

    @abstractmethod
    def _borrowed(self) -> AbstractContextManager[Callable[[Any, tuple[Any, ...]], ArrayT]]:
        """What runs the model with some weights on a batch; afterwards the model is as it was.

        What it returns is the model's output.
        """

    @abstractmethod
    def _stack(self, snapshots: Sequence[Snapshot]) -> Callable[[tuple[Any, ...]], ArrayT]:
        """What runs all members on a batch at once, and stacks what `_borrowed` would give."""

    @abstractmethod
    def _joined(self, parts: Sequence[ArrayT]) -> ArrayT:
        """The predictions of batches as one array."""

    @abstractmethod
    def _where(self) -> object:
        """Where the model is: weights that were loaded for another place do not fit it."""

    @abstractmethod
    def _free_memory(self) -> int | None:
        """The free bytes where the model is; None if they are not known."""

    @abstractmethod
    def _wait_for(self, predictions: Any) -> None:
        """Return when they are computed."""

    @abstractmethod
    def _probabilities(self, logits: ArrayT) -> ArrayT:
        """The softmax along the class axis; the sigmoid where that is None."""


def lock_of(model: Any) -> AbstractContextManager[object]:
    """A model's lock, the same one for all ensembles that borrow the model."""
    with _LOCK:
        return _LOCKS.setdefault(model, threading.RLock())


def members_of(choice: Choice, store: SnapshotStore, file: Path) -> tuple[Snapshot, ...]:
    """The snapshots among which a choice was made, all of them as they were then.

    Args:
        choice: the choice.
        store: their folder.
        file: where the choice was read, for the messages.

    Raises:
        EnsembleError: a choice of other predictions; a snapshot that is missing
            or another than it was; or newer ones.
        SnapshotError: a snapshot that cannot be read.
    """
    if choice.digests is None:
        raise EnsembleError(
            f"The choice in {file} must be of snapshots. Received: one of arrays{_REMEDY}"
        )
    snapshots = store.list()
    found = {snapshot.path.name: snapshot for snapshot in snapshots}
    for name, digest in zip(choice.members, choice.digests, strict=True):
        if name not in found:
            raise EnsembleError(
                f"Folder {store.folder} must hold the snapshots that the choice in {file} was made "
                f"among. Received: no {name}{_REMEDY}"
            )
        if found[name].metadata["digest"] != digest:
            raise EnsembleError(
                f"Snapshot {found[name].path} must be the one that the choice in {file} was made "
                f"among. Received: another, by its digest{_REMEDY}"
            )
    members = tuple(found[name] for name in choice.members)
    newest = snapshots[-1]
    if newest.step > members[-1].step:
        raise EnsembleError(
            f"Folder {store.folder} must hold no newer snapshots than the choice in {file} was "
            f"made among. Received: {newest.path.name}{_REMEDY}"
        )
    return members


def free_host_memory() -> int | None:
    """The bytes that this machine has free for more; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = [line for line in lines if line.startswith("MemAvailable:")]
        return int(found[0].split()[1]) * 1024
    except (OSError, IndexError, ValueError):  # on other systems
        return None
