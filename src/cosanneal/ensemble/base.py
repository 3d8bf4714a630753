"""The snapshot ensemble that every adapter fills in."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ..core.errors import EnsembleError, check_steps
from ..snapshots.file import Layout, first_mismatch
from ..snapshots.store import Snapshot, SnapshotStore
from .arrays import as_numpy, check_class_axis
from .choice import Choice, Select
from .choice import fit as choose
from .metrics import Metric
from .pooling import Inputs, Pool, Pooling, ValuePool, check_pooling

Outputs: TypeAlias = Literal["logits", "probabilities", "values"]

ArrayT = TypeVar("ArrayT")

CHOICE_NAME: Final = "ensemble.json"

_REMEDY: Final = "; fit the ensemble again"

# Bytes of predictions beyond which `fit` keeps them in a file.
_IN_MEMORY: Final = 256 << 20


class BaseEnsemble(ABC, Generic[ArrayT]):
    """One prediction from the last snapshots of a run.

    Attributes:
        choice: what `fit` chose or `load` read, and `predict` goes by; None for
            all members at the same weight.

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
        self.class_axis = class_axis
        self.pooling = check_pooling(pooling)
        if outputs == "values" and pooling != "probabilities":
            raise EnsembleError(
                "Argument `pooling` must be left out for outputs='values', whose mean is taken. "
                f"Received: pooling={pooling!r}"
            )
        # Whether logits are pooled as they are, and no probabilities made of them first.
        self._pools_logits = outputs == "logits" and pooling in ("logits", "log-probabilities")
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
        self._verified: set[Snapshot] = set()

    def __len__(self) -> int:
        return len(self._members)

    @property
    def members(self) -> tuple[Snapshot, ...]:
        """The snapshots of the ensemble, oldest first."""
        return self._members

    def predict(self, x: Any, *, batch_size: int | None = None) -> ArrayT:
        """The members' predictions made one: by default their mean; after `fit`, as it chose.

        One member is in memory at a time, and one sum in float64, however many
        there are.

        Args:
            x: the model's input: an array, or a tuple of arrays for a model of
                several arguments, with the samples along the first axis.
            batch_size: so many samples at a time; by default all at once.

        Returns:
            Probabilities (or values) in the dtype and on the device of a
            member's.

        Raises:
            SnapshotError: a snapshot is damaged.
            EnsembleError: a snapshot does not fit the model; the message names
                the first tensor that differs.
        """
        inputs: Inputs = "logits" if self._pools_logits else "probabilities"
        pool = Pool[ArrayT](self.pooling, inputs=inputs, class_axis=self.class_axis)
        if self.choice is None:
            for output in self._member_outputs(self._members, x, batch_size):
                pool.update(output)
            return pool.value
        weights = {
            snapshot: weight
            for snapshot, weight in zip(self._members, self.choice.weights, strict=True)
            if weight > 0
        }
        outputs = self._member_outputs(weights, x, batch_size)
        for output, weight in zip(outputs, weights.values(), strict=True):
            pool.update(output, weight)
        return cast(ArrayT, self.choice.finish(pool))

    def predict_with_variance(
        self, x: Any, *, batch_size: int | None = None
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
        pool = ValuePool[ArrayT]()
        for member in self._member_outputs(self._members, x, batch_size):
            pool.update(member)
        return pool.mean, pool.variance

    def member_predictions(self, x: Any, *, batch_size: int | None = None) -> Iterator[ArrayT]:
        """The prediction of each member in turn, oldest first.

        Args and errors as in `predict`; probabilities (or values), as
        `predict` averages them.
        """
        for output in self._member_outputs(self._members, x, batch_size):
            yield self._probabilities(output) if self._pools_logits else output

    def fit(
        self,
        x_val: Any,
        y_val: Any,
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
            y_val: their true classes.
            select: "last", "greedy" or "weights", as in `cosanneal.ensemble.fit`.
            metric: "log_loss", "brier" or "error".
            temperature: also fit one temperature after pooling.
            batch_size: so many samples at a time; by default all at once.
            keep: a file to keep the members' predictions in, one .npy array
                with the members along the first axis. Without one, they are in
                memory, or where they are more than 256 MiB in a temporary file.
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
        with self._kept_predictions(x_val, batch_size, keep) as predictions:
            self.choice = choose(
                predictions,
                y_val,
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

    @contextlib.contextmanager
    def _kept_predictions(
        self, x: Any, batch_size: int | None, keep: str | os.PathLike[str] | None
    ) -> Iterator[NDArray[Any]]:
        """The predictions of all members in one array, in memory or in a file."""
        with contextlib.ExitStack() as stack:
            kept: NDArray[Any] | None = None
            for i, prediction in enumerate(self.member_predictions(x, batch_size=batch_size)):
                array = as_numpy(prediction)
                if kept is None:
                    # Those that others have added to numpy, such as bfloat16, are for no file.
                    dtype = array.dtype if array.dtype.kind == "f" else np.dtype(np.float32)
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
                        kept = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
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

    def _member_outputs(
        self, members: Iterable[Snapshot], x: Any, batch_size: int | None
    ) -> Iterator[ArrayT]:
        """What is pooled of each of some members in turn."""
        if batch_size is not None:
            batch_size = check_steps("batch_size", batch_size, minimum=1)
        for snapshot in members:
            yield self._predict_member(snapshot, x, batch_size)

    def _tensors(
        self, snapshot: Snapshot, model: Layout, *, framework: str = "numpy"
    ) -> dict[str, Any]:
        """A member's tensors by name, which must be such as the model's are."""
        mismatch = first_mismatch(snapshot.layout(), model)
        if mismatch is not None:
            raise EnsembleError(f"Snapshot {snapshot.path} must fit the model: {mismatch}")
        # A file is compared with its digests once; it does not change under its name.
        tensors = snapshot.load(framework=framework, verify=snapshot not in self._verified)
        self._verified.add(snapshot)
        return tensors

    def __repr__(self) -> str:
        steps = ", ".join(str(snapshot.step) for snapshot in self._members)
        return f"<{type(self).__name__} of {len(self)} snapshots of {self.store.folder}: {steps}>"

    def _pooled(self, output: ArrayT, shape: tuple[int, ...]) -> ArrayT:
        """What is pooled of a model's output of a shape: its probabilities, but where not."""
        if self.outputs != "logits":
            return output
        check_class_axis(shape, self.class_axis, "Logits")
        return output if self._pools_logits else self._probabilities(output)

    @abstractmethod
    def _predict_member(self, snapshot: Snapshot, x: Any, batch_size: int | None) -> ArrayT:
        """What `_pooled` makes of one member's output for all of `x`."""

    @abstractmethod
    def _probabilities(self, logits: ArrayT) -> ArrayT:
        """The softmax along the class axis; the sigmoid where that is None."""


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


def count_samples(arguments: tuple[Any, ...], array: Any) -> int:
    """The number of samples in a model's arguments, which lie along their first axes.

    Args:
        arguments: what the model takes.
        array: the framework's kind of array, as `isinstance` takes it.

    Raises:
        EnsembleError: arguments of another kind, none, or of differing lengths.
    """
    if not arguments or not all(isinstance(each, array) and each.ndim for each in arguments):
        kinds = ", ".join(type(each).__name__ for each in arguments)
        raise EnsembleError(
            "Argument `x` must be an array with the samples along its first axis, or a tuple of "
            f"such. Received: {kinds or 'an empty tuple'}; predict batch by batch for a loader"
        )
    sizes = [len(each) for each in arguments]
    if len(set(sizes)) != 1:
        raise EnsembleError(
            f"The arrays of `x` must have the same number of samples. Received: {sizes}"
        )
    return sizes[0]
