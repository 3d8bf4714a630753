"""Members that are parts of the weights: what they leave out is the model's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.errors import EnsembleError
from ..snapshots.part import Rest, RestDigests, rest_mismatch
from ..snapshots.store import Snapshot
from .model import Model, Weights


class Parts:
    """What snapshots leave out, taken from the model, which must have what they were taken with.

    Args:
        model: the model.
    """

    def __init__(self, model: Model[Any]) -> None:
        self._model = model
        # By the names: what is looked at, where it was, and as weights, which all members share.
        self._known: dict[frozenset[str], tuple[Rest, object, Weights]] = {}

    def whole(self, snapshot: Snapshot, stated: RestDigests, part: Weights) -> Weights:
        """A part with what it leaves out.

        Args:
            snapshot: the part's.
            stated: the digests of what it leaves out.
            part: as the model loaded it.

        Raises:
            EnsembleError: the model has another; the first tensor is named.
        """
        names, place = frozenset(stated), self._model.place()
        if names not in self._known or self._known[names][1] != place:
            own = self._model.own()
            weights = self._model.load(dict(own.tensors(names)))
            self._known[names] = Rest(own, names), place, weights
        rest, _, weights = self._known[names]
        moved = rest.moved()
        differing = rest_mismatch(stated, rest.digests()) if moved is None else moved
        if differing is not None:
            raise EnsembleError(unlike(snapshot, differing))
        every: Mapping[str, Any] = {**weights, **part}
        return {name: every[name] for name in self._model.layout()}


def unlike(snapshot: Snapshot, name: str) -> str:
    """That a model has another rest than a snapshot was taken with."""
    return (
        f"Snapshot {snapshot.path} is a part, and the model must have what it leaves out as it was "
        f"when it was taken. Received: a model with another tensor {name!r}; give a model with the "
        "weights with which that run began, such as those of the same pretrained model"
    )
