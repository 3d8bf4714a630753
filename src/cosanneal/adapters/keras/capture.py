"""How the weights of a Keras model are captured."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from ...core.errors import SnapshotError
from ...snapshots.capture import HostBuffers
from ...snapshots.file import Layout
from ...snapshots.part import chosen_by
from ...snapshots.ranks import ALONE, Ranks
from .names import array_of, named_weights
from .ranks import is_in_parts, is_of_several, whole


class ModelCapture:
    """The weights of a model; of a callback, once `fit` gave it one.

    What several processes have a part of each, as Keras' ModelParallel lays it out, is gathered
    one by one, by all of them at the same time.

    Args:
        model: the model, if it is known.
        ranks: the processes that ask; where this one asks alone, parts are refused.
    """

    framework = "keras"
    version: str = str(keras.__version__)

    def __init__(self, model: keras.Model | None = None, ranks: Ranks = ALONE) -> None:
        self.model: keras.Model | None = model
        self._ranks = ranks

    def tensors(
        self, names: Collection[str] | None = None, *, cut: Callable[[Any], Any] | None = None
    ) -> Mapping[str, NDArray[Any]]:
        """The weights as they are, or pieces of them: each is fetched when it is asked for."""
        weights = self._ranks.agreed(lambda: self._present(names))
        return _Fetched(weights, self._gathered(weights), cut)

    def _present(self, names: Collection[str] | None) -> dict[str, Any]:
        weights = named_weights(self.model)
        if not weights:
            raise SnapshotError(
                "The model must be built when a snapshot is due. Received: a model without "
                "weights; call it on a batch, or model.build(input_shape), before training"
            )
        if names is not None:
            weights = {name: each for name, each in weights.items() if name in names}
        for name, variable in weights.items():
            self._check_reach(name, variable.value)
        return weights

    def _check_reach(self, name: str, value: Any) -> None:
        """Refuse a variable of several processes that this one cannot have whole."""
        if not is_of_several(value):
            return
        there = {device.process_index for device in value.sharding.device_set}
        if len(there) < sys.modules["jax"].process_count():
            raise SnapshotError(
                "Variables of several processes must lie in all of them. Received: "
                f"{name!r}, which lies in some alone; give keras.distribution a mesh of all devices"
            )
        if self._ranks.alone and is_in_parts(value):
            raise SnapshotError(
                f"The weights must be in this process's reach. Received: {name!r}, of which each "
                "of several processes has a part; give a model that is built without a distribution"
            )

    def _gathered(self, weights: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Those whole that are in parts; empty where another process writes."""
        if self._ranks.alone:
            return {}
        ours = [
            [name, list(each.shape), str(each.dtype)]
            for name, each in weights.items()
            if is_in_parts(each.value)
        ]
        firsts = self._ranks.shared(lambda: ours)
        # Or one would wait for ever for a part of what another does not have.
        self._ranks.agreed(lambda: _check_same(ours, firsts))
        found: dict[str, NDArray[Any]] = {}
        for name, variable in weights.items():
            if is_in_parts(variable.value):
                array = whole(variable.value)
                found[name] = array if self._ranks.writes else np.empty(0, array.dtype)
        return found

    def layout(self) -> Layout | None:
        """Their shapes and dtypes, once `fit` gave the model."""
        if self.model is None:
            return None
        weights = named_weights(self.model)
        return {
            name: (tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype))
            for name, variable in weights.items()
        } or None

    def chosen(self, which: Literal["trainable"] | Callable[[str], bool]) -> set[str]:
        """What is asked for."""
        model: Any = self.model
        weights = named_weights(model)
        if which != "trainable":
            return chosen_by(which, weights)
        # A layer of LoRA has frozen kernels, and trains: what has more axes is no statistic.
        moving = {id(weight) for weight in model.trainable_weights}
        for layer in model._flatten_layers():
            inner = layer._flatten_layers(include_self=False, recursive=False)
            of_inner = {id(weight) for each in inner for weight in each.weights}
            own = [weight for weight in layer.weights if id(weight) not in of_inner]
            moving |= {id(each) for each in own if layer.trainable and len(each.shape) <= 1}
        return {name for name, weight in weights.items() if id(weight) in moving}

    def stamps(self, names: Collection[str]) -> dict[str, object]:  # noqa: ARG002
        """None that all backends have."""
        return {}

    def buffers(self) -> HostBuffers:
        """Memory of numpy's."""
        return HostBuffers()


class _Fetched(Mapping[str, NDArray[Any]]):
    """Variables as arrays, of which none is kept."""

    def __init__(
        self,
        variables: Mapping[str, Any],
        gathered: Mapping[str, NDArray[Any]],
        cut: Callable[[Any], Any] | None,
    ) -> None:
        self._variables, self._gathered, self._cut = variables, gathered, cut

    def __len__(self) -> int:
        return len(self._variables)

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name in self._gathered:
            array = self._gathered[name]
            return array if self._cut is None else np.ascontiguousarray(self._cut(array))
        variable = self._variables[name]
        if self._cut is not None:
            variable = self._cut(ops.convert_to_tensor(variable))
        return array_of(variable)


def _check_same(ours: list[Any], firsts: list[Any]) -> None:
    """Refuse a model of which other weights are in parts here than in the first process."""
    for here, there in itertools.zip_longest(ours, firsts):
        if here != there:
            raise SnapshotError(
                "The model must be laid out over the processes in one way. Received: "
                f"{here} in parts, and in the first process {there}; build it alike in all of them"
            )
