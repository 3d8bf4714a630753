"""What a model's outputs are, and so what they become before and after they are pooled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from ...core.errors import EnsembleError, shown
from ..arrays import check_class_axis, probabilities_of, widen
from .pooling import Pool, Pooling, check_pooling

Outputs: TypeAlias = Literal["logits", "probabilities", "values"]
Auto: TypeAlias = Literal["auto"]


class Reading(NamedTuple):
    """What outputs are: their kind, and the axis of the classes or None."""

    outputs: Outputs
    class_axis: int | None

    @property
    def code(self) -> str:
        """The arguments that say it."""
        axis = "" if self.outputs == "values" else f", class_axis={self.class_axis}"
        return f'outputs="{self.outputs}"{axis}'


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What the members' outputs are and how they are pooled, as `SnapshotEnsemble` has it.

    Raises:
        EnsembleError: an argument that cannot be.
    """

    outputs: Outputs
    class_axis: int | None
    pooling: Pooling

    def __post_init__(self) -> None:
        if self.outputs not in get_args(Outputs):
            raise EnsembleError(
                "Argument `outputs` must be 'logits', 'probabilities' or 'values'. "
                f"Received: outputs={self.outputs!r}"
            )
        axis = self.class_axis
        if axis is not None and (isinstance(axis, bool) or not isinstance(axis, int) or not axis):
            raise EnsembleError(
                "Argument `class_axis` must be an axis other than the first, along which the "
                f"samples lie, or None. Received: class_axis={shown(axis)}"
            )
        check_pooling(self.pooling)
        if self.outputs == "values" and self.pooling != "probabilities":
            raise EnsembleError(
                "Argument `pooling` must be left out for outputs='values', whose mean is taken. "
                f"Received: pooling={self.pooling!r}"
            )

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse the shape of an output that has no axis of classes where it must have one."""
        if self.outputs == "logits":
            check_class_axis(shape, self.class_axis, "Logits")

    def check_mean(self) -> None:
        """Refuse a choice, which is one of weights of the mean, where none is taken."""
        if self.outputs == "values" or self.pooling != "probabilities":
            raise EnsembleError(
                "An ensemble must pool the mean of probabilities to be fitted. Received: "
                f"outputs={self.outputs!r}, pooling={self.pooling!r}"
            )

    def pool(self) -> Pool[Any]:
        """What makes one prediction of the members' outputs."""
        inputs: Literal["logits", "probabilities"] = (
            "logits" if self.outputs == "logits" else "probabilities"
        )
        return Pool(self.pooling, inputs=inputs, class_axis=self.class_axis)

    def wide(self, output: Any) -> Any:
        """The probabilities (or values) of an output in float64, as `widen` makes them."""
        wide = widen(output)
        return probabilities_of(wide, self.class_axis) if self.outputs == "logits" else wide
