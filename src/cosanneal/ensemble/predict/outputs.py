"""What a model's outputs are, and so what they become before and after they are pooled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

from numpy.typing import NDArray

from ...core.errors import EnsembleError, shown
from ..arrays import as_numpy, check_class_axis, narrow, probabilities_of, widen
from .gaussian import GaussianPool, kept_pair, wide_pair
from .pooling import Pool, Pooling, ValuePool, check_pooling

Outputs: TypeAlias = Literal["logits", "probabilities", "values", "gaussian"]
Auto: TypeAlias = Literal["auto"]
# What says something of several outputs, each in its place.
Structure: TypeAlias = Mapping[Any, Any] | tuple[Any, ...] | list[Any]

# Of a regression: numbers, or pairs of them and their variances.
REGRESSIONS: Final[tuple[Outputs, ...]] = ("values", "gaussian")


class Reading(NamedTuple):
    """What outputs are: their kind, and the axis of the classes or None."""

    outputs: Outputs
    class_axis: int | None

    @property
    def code(self) -> str:
        """The arguments that say it."""
        axis = "" if self.outputs in REGRESSIONS else f", class_axis={self.class_axis}"
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
                "Argument `outputs` must be 'logits', 'probabilities', 'values' or 'gaussian'. "
                f"Received: outputs={self.outputs!r}"
            )
        axis = self.class_axis
        if axis is not None and (isinstance(axis, bool) or not isinstance(axis, int) or not axis):
            raise EnsembleError(
                "Argument `class_axis` must be an axis other than the first, along which the "
                f"samples lie, or None. Received: class_axis={shown(axis)}"
            )
        check_pooling(self.pooling)
        if self.outputs in REGRESSIONS and self.pooling != "probabilities":
            raise EnsembleError(
                f"Argument `pooling` must be left out for outputs={self.outputs!r}, whose mean is "
                f"taken. Received: pooling={self.pooling!r}"
            )

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse the shape of an output that has no axis of classes where it must have one."""
        if self.outputs == "logits":
            check_class_axis(shape, self.class_axis, "Logits")

    def check_mean(self) -> None:
        """Refuse a choice, which is one of weights of the mean, where none is taken."""
        if self.pooling != "probabilities":
            raise EnsembleError(
                "An ensemble must pool the mean of probabilities to be fitted. Received: "
                f"outputs={self.outputs!r}, pooling={self.pooling!r}"
            )

    def pool(self) -> Pool[Any] | GaussianPool[Any]:
        """What makes one prediction of the members' outputs."""
        if self.outputs == "gaussian":
            return GaussianPool()
        inputs: Literal["logits", "probabilities"] = (
            "logits" if self.outputs == "logits" else "probabilities"
        )
        return Pool(self.pooling, inputs=inputs, class_axis=self.class_axis)

    def moments(self) -> ValuePool[Any] | GaussianPool[Any]:
        """What makes a mean and a variance of the members' outputs."""
        return GaussianPool() if self.outputs == "gaussian" else ValuePool()

    def wide(self, output: Any) -> Any:
        """The probabilities (or values, or the pair) of an output in float64, as by `widen`."""
        if self.outputs == "gaussian":
            return wide_pair(output)
        wide = widen(output)
        return probabilities_of(wide, self.class_axis) if self.outputs == "logits" else wide

    def kept(self, output: Any) -> NDArray[Any]:
        """What `wide` makes of an output as one array of numpy's; of a pair, stacked."""
        wide = self.wide(output)
        return kept_pair(*wide) if self.outputs == "gaussian" else as_numpy(wide)

    def prediction(self, output: Any) -> Any:
        """The probabilities (or values, or the pair) of an output, of its kind and dtype."""
        return narrow(self.wide(output), output) if self.outputs == "logits" else output
