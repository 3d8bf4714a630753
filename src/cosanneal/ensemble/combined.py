"""What a prediction boils down to: how the outputs of some members become one, as plain data.

An adapter runs the members in its framework's own form, traced into a graph that is shipped;
what is done with their outputs stands here, and in `predict/rules.py`, once for all of them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..core.errors import EnsembleError
from ..snapshots.store import Snapshot
from .choose.calibration import tempered
from .choose.choice import Choice
from .predict.form import Form
from .predict.found import FoundOutputs
from .predict.gaussian import like_pair, mapped, pair_of
from .predict.outputs import Outputs
from .predict.picking import pick_leaf
from .predict.rules import Moments, Pooling, Rule
from .predict.taken import Taken


class Operations(Protocol):
    """What a framework does with its arrays where a prediction is made of them."""

    def is_array(self, thing: object) -> bool:
        """Whether something is an array of the framework; also one that stands for others."""

    def widen(self, array: Any) -> Any:
        """An array in the dtype in which it is summed: its own, but at least float32."""

    def narrow(self, wide: Any, like: Any) -> Any:
        """What `widen` made, or was made of it, in the dtype of a member's array."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """How one output of the members becomes the ensemble's.

    With the weights `w` divided by their sum, and the temperature `T`: the pooled prediction
    as `Pool` has it, which is `sum(w p)` by default, and of it `softmax(log(p) / T)`, as
    `apply_temperature` has it. Of means and variances, the mixture's, as `GaussianPool` has
    it, with the variance at its scale.

    Args:
        weights: of the members, all above 0.
        outputs: what they return.
        class_axis: the axis of the classes, or None.
        pooling: the rule.
        temperature: after pooling.
        variance_scale: of the variance of means and variances.

    Example:
        >>> import numpy as np
        >>> combined = Combined(weights=(1.0, 3.0))
        >>> members = [np.array([[0.8, 0.2]]), np.array([[0.4, 0.6]])]
        >>> combined.of(members, lambda array: array, lambda wide, like: wide)
        array([[0.5, 0.5]])
    """

    weights: tuple[float, ...]
    outputs: Outputs = "probabilities"
    class_axis: int | None = -1
    pooling: Pooling = "probabilities"
    temperature: float = 1.0
    variance_scale: float = 1.0

    def of(
        self,
        outputs: Sequence[Any],
        widen: Callable[[Any], Any],
        narrow: Callable[[Any, Any], Any],
    ) -> Any:
        """The prediction of the members' outputs, in the form of the first.

        No number is looked at, and nothing is checked, so that a graph can be traced of it.

        Args:
            outputs: one for each weight: arrays, or pairs of them.
            widen: see `Operations`.
            narrow: likewise.
        """
        if self.outputs == "gaussian":
            moments = Moments()
            for output, weight in zip(outputs, self.weights, strict=True):
                mean, variance = pair_of(output)
                moments.add(widen(mean), widen(variance), weight)
            like, _ = pair_of(outputs[0])
            variance = moments.variance * self.variance_scale
            return like_pair(outputs[0], narrow(moments.mean, like), narrow(variance, like))
        inputs: Literal["logits", "probabilities"] = (
            "logits" if self.outputs == "logits" else "probabilities"
        )
        rule, total = Rule(self.pooling, inputs), None
        axis = None if len(outputs[0].shape) == 1 else self.class_axis
        for output, weight in zip(outputs, self.weights, strict=True):
            total = rule.add(total, rule.part(widen(output), axis), weight)
        pooled = rule.finished(total, sum(self.weights), axis)
        return narrow(tempered(pooled, self.temperature, self.class_axis), outputs[0])


@dataclass(frozen=True, slots=True)
class Combination:
    """How what the members return becomes what `predict` gives.

    Args:
        leaves: how each output that is taken is combined.
        form: the structure in which the predictions are given.
        paths: where each output is in what a member returns.
        names: the model's own of several outputs, as `Model.output_names` has them.
    """

    leaves: tuple[Combined, ...]
    form: Form
    paths: tuple[tuple[Any, ...], ...]
    names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        taken: Taken,
        weights: Mapping[Snapshot, float],
        choice_of: Callable[[FoundOutputs], Choice | None],
        names: Sequence[str] = (),
    ) -> Combination:
        """The combination of an ensemble's members.

        Args:
            taken: what is taken of what they return.
            weights: the members that count, with their weights.
            choice_of: the choice of an output, if that is the one by which it was made.
            names: see above.

        Raises:
            EnsembleError: it is not known yet what the outputs are.
        """
        leaves = []
        for found in taken.leaves:
            if not found.known:
                raise unseen("what the model's outputs are")
            spec, choice = found.spec, choice_of(found)
            leaves.append(
                Combined(
                    weights=tuple(weights.values()),
                    outputs=spec.outputs,
                    class_axis=spec.class_axis,
                    pooling=spec.pooling,
                    temperature=1.0 if choice is None else choice.temperature,
                    variance_scale=1.0 if choice is None else choice.variance_scale,
                )
            )
        paths = tuple(map(tuple, taken.paths))
        return cls(tuple(leaves), taken.form, paths, tuple(names))

    def pick(self, returned: Any, is_array: Callable[[object], bool]) -> tuple[Any, ...]:
        """The outputs that are taken, in what a member returned.

        Args:
            returned: what it returned.
            is_array: see `Operations`.

        Raises:
            EnsembleError: one is not there.
        """
        return tuple(
            pick_leaf(returned, path, is_array, self.names, pair=leaf.outputs == "gaussian")
            for path, leaf in zip(self.paths, self.leaves, strict=True)
        )

    def unstacked(self, picked: Sequence[Any]) -> list[tuple[Any, ...]]:
        """What `pick` gives for each member, of arrays that are stacked along a first axis."""
        places = map(operator.itemgetter, range(len(self.leaves[0].weights)))
        return [tuple(mapped(of_member, each) for each in picked) for of_member in places]

    def combine(self, picked: Sequence[Sequence[Any]], operations: Operations) -> Any:
        """The prediction, as `predict` gives it for a batch.

        Args:
            picked: for each member, what `pick` gives.
            operations: the framework's.
        """
        made = [
            leaf.of([each[i] for each in picked], operations.widen, operations.narrow)
            for i, leaf in enumerate(self.leaves)
        ]
        return self.form.fill(made) if self.form.several else made[0]


def unseen(what: str) -> EnsembleError:
    """The error for an ensemble that has run no batch, by which something is found out."""
    return EnsembleError(
        f"The ensemble must have run a batch before it is shipped, which finds out {what}. "
        "Received: one that has run none; call predict on some samples first"
    )
