"""Several members of a Keras model at once, as one model that maps over their weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops
from numpy.typing import NDArray

from ...ensemble.model import Forward, Pick
from .names import named_weights


class StackedModel(keras.Model):
    """A model with the stacked weights of several members, which runs them all at once.

    It is a model for the sake of `predict_on_batch`, which compiles it as the
    backend does.
    """

    def __init__(
        self,
        model: keras.Model,
        stacked: dict[str, NDArray[Any]],
        pick: Pick,
        forward: Forward[keras.Model] | None = None,
    ) -> None:
        super().__init__(name="stacked_members")
        names = {id(variable): name for name, variable in named_weights(model).items()}
        # What is no weight, such as a random state, stays the model's own.
        self._lists = [
            [names.get(id(variable)) for variable in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        ]
        # A model's own call need not have the argument.
        mode = {"training": False} if model._call_has_training_arg else {}

        # In functions, for Keras would take the model's weights for its own.
        def run(trainable: list[Any], others: list[Any], x: Any) -> Any:
            if forward is None:
                return pick(model.stateless_call(trainable, others, x, **mode)[0])
            variables = [*model.trainable_variables, *model.non_trainable_variables]
            mapping = zip(variables, [*trainable, *others], strict=True)
            with keras.StatelessScope(state_mapping=list(mapping)):
                return pick(forward(model, x))

        self._run: Callable[..., Any] = run
        self._own: Callable[[], Any] = lambda: (
            model.trainable_variables,
            model.non_trainable_variables,
        )
        self._held = {
            name: self.add_weight(
                value.shape,
                initializer="zeros",
                dtype=str(value.dtype),
                trainable=False,
                name=f"member_weight_{i}",
            )
            for i, (name, value) in enumerate(stacked.items())
        }
        for name, variable in self._held.items():
            variable.assign(stacked[name])
        self.built = True

    def call(self, x: Any) -> Any:
        """The outputs of all members, along a first axis."""

        def one(weights: dict[str, Any]) -> Any:
            lists = [
                [
                    ops.convert_to_tensor(own) if name is None else weights[name]
                    for own, name in zip(variables, names, strict=True)
                ]
                for variables, names in zip(self._own(), self._lists, strict=True)
            ]
            return self._run(*lists, x)

        return ops.vectorized_map(
            one, {name: ops.convert_to_tensor(value) for name, value in self._held.items()}
        )
