"""How the weights of a Keras model are captured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal

import keras
from keras import ops
from numpy.typing import NDArray

from ...core.errors import SnapshotError
from ...snapshots.capture import HostBuffers
from ...snapshots.file import Layout
from ...snapshots.part import chosen_by
from .names import array_of, named_weights


class ModelCapture:
    """The weights of a model; of a callback, once `fit` gave it one."""

    framework = "keras"
    version: str = str(keras.__version__)

    def __init__(self, model: keras.Model | None = None) -> None:
        self.model = model

    def tensors(
        self, names: Collection[str] | None = None, *, cut: Callable[[Any], Any] | None = None
    ) -> Mapping[str, NDArray[Any]]:
        """The weights as they are, or pieces of them: each is fetched when it is asked for."""
        weights = named_weights(self.model)
        if not weights:
            raise SnapshotError(
                "The model must be built when a snapshot is due. Received: a model without "
                "weights; call it on a batch, or model.build(input_shape), before training"
            )
        if names is not None:
            weights = {name: each for name, each in weights.items() if name in names}
        return _Fetched(weights, cut)

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

    def __init__(self, variables: Mapping[str, Any], cut: Callable[[Any], Any] | None) -> None:
        self._variables, self._cut = variables, cut

    def __len__(self) -> int:
        return len(self._variables)

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __getitem__(self, name: str) -> NDArray[Any]:
        variable = self._variables[name]
        if self._cut is not None:
            variable = self._cut(ops.convert_to_tensor(variable))
        return array_of(variable)
