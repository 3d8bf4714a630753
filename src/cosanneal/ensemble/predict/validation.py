"""Validation data: how a model's outputs for them lie beside their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError
from ...snapshots.ranks import Ranks
from ...snapshots.store import Snapshot
from ..arrays import as_numpy
from ..model import Model, Weights
from .batches import Batches
from .modes import outputs_of
from .outputs import OutputSpec
from .ragged import (
    Shape,
    are_ragged,
    as_label_rows,
    as_output_rows,
    counts_of_rows,
    laid,
    shapes_of,
)
from .share import Shared
from .taken import Taken


class Validation:
    """Validation data, on which outputs are judged by their labels.

    Outputs of batches that differ in more than the number of samples (padded
    sequences, images of two sizes) lie as rows, one for each label, and `counts` says
    how many each sample has. All others lie as the model gives them.

    Attributes:
        shared: what makes the results of all samples of those of this process.
        ranks: the processes for which one chooses: those that have a share of the samples, or
            a part of the model.

    Args:
        model: the model.
        taken: which of its outputs is judged.
        batches: of the validation data.
        labels: an array, or a list with an array for each batch; by default what
            the batches have.
        titles: what an error calls the input, and the labels.
    """

    def __init__(
        self,
        model: Model[Any],
        taken: Taken,
        batches: Batches,
        labels: Any = None,
        titles: tuple[str, str] = ("x_val", "y_val"),
    ) -> None:
        self._model, self._taken, self._batches = model, taken, batches
        self.shared: Shared = batches.shared
        self.ranks: Ranks = model.ranks if self.shared.ranks.alone else self.shared.ranks
        if labels is None:
            labels = self.ranks.agreed(lambda: batches.labels(taken.labels, titles))
        elif not isinstance(labels, list):  # which would be of batches, and no structure
            labels = taken.labels(labels)
        self._given = labels
        self._shapes: list[Shape] | None = None  # of the batches' outputs, once there are any

    def outputs(self, weights: Weights, *members: Snapshot) -> Any:
        """The outputs of a model with some weights, a member's or others, in one array."""
        parts = self.shared.ranks.agreed(
            lambda: outputs_of(self._model, weights, self._batches, self._taken, *members)
        )
        shapes = shapes_of(parts)
        if self._shapes is None:
            self._shapes = shapes
        if self._ragged and self.shared.ranks.alone:
            return as_output_rows(parts, self._taken.found.spec.class_axis)
        return self.shared.laid(self._model.join, lambda join: laid(join, parts, None, "error"))

    @property
    def spec(self) -> OutputSpec:
        """What `outputs` are; known once there are any."""
        spec = self._taken.found.spec
        if not self._ragged or spec.class_axis is None:
            return spec
        return replace(spec, class_axis=-1)

    @property
    def labels(self) -> Any:
        """The labels beside `outputs`; see `beside`."""
        return self.beside(self._given)

    def beside(self, given: Any) -> Any:
        """Labels, a mask of them or their weights, as they lie beside `outputs`.

        Args:
            given: an array, or a list with an array for each batch.

        Raises:
            EnsembleError: they do not fit the outputs.
        """
        shapes = self._known
        if self._ragged:
            return as_label_rows(given, shapes, self._taken.found.spec.class_axis)
        if not _are_of_batches(given, shapes):
            return given
        labels = [as_numpy(each) for each in given]
        for i, each in enumerate(labels):
            if each.shape[1:] != labels[0].shape[1:]:
                raise EnsembleError(
                    "The labels must be of one shape, but for the number of samples, where the "
                    f"outputs are. Received: {each.shape} in batch {i}, after {labels[0].shape}"
                )
        return self.shared.whole(np.concatenate(labels))

    @property
    def counts(self) -> NDArray[np.intp] | None:
        """How many rows each sample has; None where outputs are not rows."""
        if not self._ragged:
            return None
        return counts_of_rows(self._known, self._taken.found.spec.class_axis)

    def label_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of which labels count, as they lie beside `outputs`, among any others."""
        found = dict(options)
        for name in ("mask", "sample_weight"):
            if found.get(name) is not None:
                found[name] = self.beside(found[name])
        if self.counts is not None:
            found["counts"] = self.counts
        return found

    @property
    def _ragged(self) -> bool:
        return are_ragged(self._known)

    @property
    def _known(self) -> Sequence[Shape]:
        return self._shapes or [()]


def _are_of_batches(labels: Any, shapes: Sequence[Shape]) -> bool:
    """Whether labels are a list with an array for each batch."""
    if not isinstance(labels, list | tuple) or not all(map(_has_axes, labels)):
        return False
    return [len(each) for each in labels] == [shape[0] for shape in shapes]


def _has_axes(labels: Any) -> bool:
    return bool(getattr(labels, "shape", ()))
