"""An ensemble as one Keras model: members, weights, temperature and pooling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import keras
from keras import ops

from ...core.errors import EnsembleError
from ...ensemble.combined import Combination, Combined
from .dtypes import check_held
from .model import KerasModel, put_in_place


@keras.saving.register_keras_serializable("cosanneal")
class CombinedOutputs(keras.layers.Layer):
    """A layer that makes one prediction of the members' outputs.

    Its input is a list with an output of each member, or a pair of a mean and a variance.
    Sums are in the outputs' own dtype, but at least in float32; the result is in theirs, or
    in that of the sums.

    Args:
        combined: how they are combined, as `Combined` has it, or the fields of one.
        wide: whether the result stays in the dtype of the sums.
        options: what every layer takes.
    """

    def __init__(
        self, combined: Combined | Mapping[str, Any], *, wide: bool = False, **options: Any
    ) -> None:
        # Which would make float32 of float64.
        super().__init__(**{"autocast": False, "trainable": False} | options)
        if not isinstance(combined, Combined):
            combined = Combined(**{**combined, "weights": tuple(combined["weights"])})
        self.combined, self.wide = combined, wide

    def call(self, outputs: list[Any]) -> Any:
        """The prediction."""
        return self.combined.of(outputs, _widened, _left if self.wide else _narrowed)

    def get_config(self) -> dict[str, Any]:
        """What the layer is made of, as plain data."""
        fields = asdict(self.combined)
        config: dict[str, Any] = super().get_config()
        combined = fields | {"weights": [*fields["weights"]]}
        return config | {"combined": combined, "wide": self.wide}


def ship(
    model: KerasModel,
    members: Iterable[Mapping[str, Any]],
    combination: Combination,
    *,
    dtype: str | None = None,
) -> keras.Model:
    """The model of an ensemble.

    Args:
        model: the model.
        members: the weights of each member.
        combination: what is made of what they return.
        dtype: in which the members' layers hold their weights and compute.

    Raises:
        EnsembleError: a model that cannot be run as a part of another, of which there
            cannot be several, or not in that dtype.
    """
    if model.forward is not None:
        raise EnsembleError(
            "An ensemble must run its model as it is to be shipped as one of Keras. Received: one "
            "with forward=; make a model of what it does, such as keras.Model(inputs, outputs), "
            "and give the ensemble a function that builds it"
        )
    _check_form(combination.form.template)
    picked = []
    inputs: Any = None
    for i, weights in enumerate(members):
        member = model.another(dtype)
        _check(member)
        if dtype is not None:
            check_held(member, dtype)
        put_in_place(member, weights)
        # By which they are told apart; a copy has the name of its model.
        member.name, member.trainable = f"member_{i}", False
        if inputs is None:
            given = member.inputs[0] if isinstance(member, keras.Sequential) else member.input
            if isinstance(given, dict) and all(map(_is_symbolic, given.values())):
                # Files of other formats take them by the names of the inputs.
                inputs = {name: _input_like(each, name) for name, each in given.items()}
            else:
                inputs = keras.tree.map_structure(_input_like, given)
        picked.append(combination.pick(member(inputs, training=False), _is_symbolic))
    outputs = [
        CombinedOutputs(
            leaf, wide=dtype is not None, name=f"prediction_{i}" if i else "prediction"
        )([each[i] for each in picked])
        for i, leaf in enumerate(combination.leaves)
    ]
    made = combination.form.fill(outputs) if combination.form.several else outputs[0]
    return keras.Model(inputs, made, name="ensemble", trainable=False)


def _check_form(template: Any) -> None:
    """Refuse a structure of outputs that a model of Keras cannot have, or not be saved with."""
    if template is None:
        raise EnsembleError(
            "Argument `outputs` of the ensemble must be a dict of what is to be shipped, where "
            "some is left out. Received: a None in a list or a tuple, which no model of Keras "
            "returns"
        )
    if isinstance(template, Mapping):
        for key in template:
            if not isinstance(key, str):
                raise EnsembleError(
                    "Argument `outputs` of the ensemble must have texts as keys, for a model that "
                    f"is saved. Received: the key {key!r}; give a list, or names"
                )
        template = [each for each in template.values() if each is not None]
    for each in template if isinstance(template, tuple | list) else ():
        _check_form(each)


def _check(member: keras.Model) -> None:
    """Refuse a member that keeps a state, or whose inputs are not known."""
    if not getattr(member, "inputs", None):
        raise EnsembleError(
            "The model must be functional or Sequential, with inputs, for a model of several. "
            f"Received: a {type(member).__name__}, whose inputs are known only by calling it; give "
            "the ensemble a function that builds a functional model of it, as "
            "keras.Model(x, model(x)) with x = keras.Input(...)"
        )
    for layer in member._flatten_layers(include_self=False):
        if getattr(layer, "stateful", False):
            raise EnsembleError(
                "The model must keep no state from batch to batch, to be shipped. Received: one "
                f"with {layer.name!r}; build it with stateful=False"
            )


def _input_like(tensor: Any, name: str | None = None) -> Any:
    return keras.Input(
        batch_shape=tensor.shape, dtype=tensor.dtype, sparse=tensor.sparse, name=name or tensor.name
    )


def _is_symbolic(thing: object) -> bool:
    return isinstance(thing, keras.KerasTensor)


def _widened(array: Any) -> Any:
    dtype = keras.backend.standardize_dtype(array.dtype)
    return ops.cast(array, keras.backend.result_type(dtype, "float32"))


def _narrowed(wide: Any, like: Any) -> Any:
    dtype = keras.backend.standardize_dtype(like.dtype)
    return ops.cast(wide, dtype) if "float" in dtype else wide


def _left(wide: Any, like: Any) -> Any:  # noqa: ARG001
    return wide
