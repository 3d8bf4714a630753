"""The snapshot ensemble that every adapter fills in."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, Literal, TypeAlias, TypeVar, get_args

from ..core.errors import EnsembleError, check_steps
from ..snapshots.store import Snapshot, SnapshotStore
from .arrays import check_class_axis
from .pooling import Inputs, Pool, Pooling, ValuePool, check_pooling

Outputs: TypeAlias = Literal["logits", "probabilities", "values"]

ArrayT = TypeVar("ArrayT")


class BaseEnsemble(ABC, Generic[ArrayT]):
    """One prediction from the last snapshots of a run.

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

    def __len__(self) -> int:
        return len(self._members)

    @property
    def members(self) -> tuple[Snapshot, ...]:
        """The snapshots of the ensemble, oldest first."""
        return self._members

    def predict(self, x: Any, *, batch_size: int | None = None) -> ArrayT:
        """The members' predictions made one: by default their mean.

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
        for member in self._member_outputs(x, batch_size):
            pool.update(member)
        return pool.value

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
        for member in self._member_outputs(x, batch_size):
            pool.update(member)
        return pool.mean, pool.variance

    def member_predictions(self, x: Any, *, batch_size: int | None = None) -> Iterator[ArrayT]:
        """The prediction of each member in turn, oldest first.

        Args and errors as in `predict`; probabilities (or values), as
        `predict` averages them.
        """
        for output in self._member_outputs(x, batch_size):
            yield self._probabilities(output) if self._pools_logits else output

    def _member_outputs(self, x: Any, batch_size: int | None) -> Iterator[ArrayT]:
        """What is pooled of each member in turn."""
        if batch_size is not None:
            batch_size = check_steps("batch_size", batch_size, minimum=1)
        for snapshot in self._members:
            yield self._predict_member(snapshot, x, batch_size)

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


def first_mismatch(
    found: dict[str, tuple[tuple[int, ...], str]],
    expected: dict[str, tuple[tuple[int, ...], str]],
    *,
    owner: str = "the model",
) -> str | None:
    """What first differs between the tensors of a snapshot and of a model, in words."""
    for name, (shape, dtype) in expected.items():
        if name not in found:
            return f"{owner}'s tensor {name!r} is not in it"
        if found[name] != (shape, dtype):
            theirs = f"{found[name][1]} of shape {found[name][0]}"
            return f"its tensor {name!r} is {theirs}, {owner}'s {dtype} of shape {shape}"
    for name in found:
        if name not in expected:
            return f"its tensor {name!r} is not in {owner}"
    return None
