"""The snapshot ensemble that every adapter fills in."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, Literal, TypeAlias, TypeVar, get_args

from ..core.averaging import RunningMean
from ..core.errors import EnsembleError, check_steps
from ..snapshots.store import Snapshot, SnapshotStore

Outputs: TypeAlias = Literal["logits", "probabilities", "values"]

ArrayT = TypeVar("ArrayT")


class BaseEnsemble(ABC, Generic[ArrayT]):
    """One prediction from the last snapshots of a run.

    Args:
        folder: the folder of the snapshots.
        last: how many of the newest to use; by default all.
        outputs: what the model returns: "logits" (a softmax over the class axis
            makes probabilities of them), "probabilities", or "values" of a
            regression. Members' probabilities, or values, are averaged.
        class_axis: the axis of the classes in the logits.

    Raises:
        EnsembleError: an argument that cannot be, or fewer snapshots than asked for.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | SnapshotStore,
        *,
        last: int | None = None,
        outputs: Outputs = "logits",
        class_axis: int = -1,
    ) -> None:
        self.store = folder if isinstance(folder, SnapshotStore) else SnapshotStore(folder)
        if outputs not in get_args(Outputs):
            raise EnsembleError(
                "Argument `outputs` must be 'logits', 'probabilities' or 'values'. "
                f"Received: outputs={outputs!r}"
            )
        self.outputs = outputs
        self.class_axis = class_axis
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
        """The mean of the members' predictions.

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
        mean = RunningMean[ArrayT]()
        member: ArrayT | None = None
        for member in self.member_predictions(x, batch_size=batch_size):
            mean.update(self._widen(member))
        if member is None:
            raise EnsembleError("An ensemble without members predicts nothing")
        return self._narrow(mean.value, member)

    def member_predictions(self, x: Any, *, batch_size: int | None = None) -> Iterator[ArrayT]:
        """The prediction of each member in turn, oldest first.

        Args and errors as in `predict`; probabilities (or values), as
        `predict` averages them.
        """
        if batch_size is not None:
            batch_size = check_steps("batch_size", batch_size, minimum=1)
        for snapshot in self._members:
            yield self._predict_member(snapshot, x, batch_size)

    def __repr__(self) -> str:
        steps = ", ".join(str(snapshot.step) for snapshot in self._members)
        return f"<{type(self).__name__} of {len(self)} snapshots of {self.store.folder}: {steps}>"

    def _check_logits(self, shape: tuple[int, ...]) -> None:
        if len(shape) < 2 or shape[self.class_axis] < 2:
            raise EnsembleError(
                f"Logits must have at least two classes along the class axis {self.class_axis}. "
                f"Received: an output of shape {tuple(shape)}; for a regression give "
                "outputs='values', for one probability outputs='probabilities'"
            )

    @abstractmethod
    def _predict_member(self, snapshot: Snapshot, x: Any, batch_size: int | None) -> ArrayT:
        """The prediction of one member for all of `x`."""

    @abstractmethod
    def _widen(self, prediction: ArrayT) -> ArrayT:
        """The prediction in the precision in which predictions are summed."""

    @abstractmethod
    def _narrow(self, mean: ArrayT, like: ArrayT) -> ArrayT:
        """The mean in the dtype of a member's prediction."""


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
