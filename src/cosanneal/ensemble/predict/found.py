"""What a model's outputs are, found out: as it is told, as the model says, or by the first output.

Where they could be several things, nothing is guessed: an error names the readings.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ...core.errors import EnsembleError
from ...core.warn import warn
from ..arrays import EPS, as_numpy
from .gaussian import check_pair_shapes, is_pair, pair_of
from .outputs import REGRESSIONS, Auto, Outputs, OutputSpec, Reading
from .pooling import Pooling, negative_variance

# By how much probabilities that were said to be some may leave [0, 1], and their sum 1.
_SLACK: Final = 1e-2
# So many bits of sums must be those of 1 until they are no chance: one row of float32, three of
# half precision.
_BITS: Final = 12
# Rows that are looked at for whether they are the same.
_ROWS: Final = 64


class FoundOutputs:
    """What the outputs of an ensemble's model are, found once; in any thread.

    Args:
        outputs: what the user says they are; "auto" to find out.
        class_axis: likewise; None says that there is none.
        pooling: how they are pooled.
        said: what the model says of itself, if it does.

    Raises:
        EnsembleError: an argument that cannot be.
    """

    def __init__(
        self,
        outputs: Outputs | Auto,
        class_axis: int | Auto | None,
        pooling: Pooling,
        said: Reading | None,
    ) -> None:
        self._pooling, self._said = pooling, said
        self._outputs = self._given_outputs = outputs
        self._axis = class_axis
        self._lock = threading.Lock()
        self._spec: OutputSpec | None = None
        self._axes = 0  # of the output in which they were found
        self._warned = False
        self._looked: set[str] = set()  # the members of which an output was looked at
        # What is given is checked, whatever is found of the rest.
        OutputSpec(
            "probabilities" if outputs == "auto" else outputs,
            None if class_axis == "auto" else class_axis,
            pooling,
        )
        if said is not None and outputs in ("auto", said.outputs):
            self._outputs = said.outputs
            if class_axis == "auto":
                self._axis = said.class_axis
            elif class_axis is not None and said.outputs in REGRESSIONS:
                self._outputs = outputs  # which have no classes
        if self._outputs in REGRESSIONS and self._axis == "auto":
            self._axis = None
        self._settle()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.Lock()

    @property
    def spec(self) -> OutputSpec:
        """What they are. Until an output with samples was seen, anything does."""
        return self._spec or OutputSpec("probabilities", None, self._pooling)

    @property
    def known(self) -> bool:
        """Whether it is known what they are: as it was said, or by an output."""
        return self._spec is not None

    @property
    def class_axis(self) -> int | None:
        """The axis of the classes; the last, of outputs without samples of which nothing is known.

        (Of which `predict` makes no probabilities, as there are none.)
        """
        if self._spec is not None:
            return self._spec.class_axis
        return -1 if self._axis == "auto" else self._axis

    @property
    def are_pairs(self) -> bool:
        """Whether each is a pair of a mean and a variance."""
        return self._outputs == "gaussian"

    def refuse_pair(self, returned: object) -> None:
        """Refuse two arrays of which the first would be taken for values, and nobody said so.

        Raises:
            EnsembleError: they may be a mean and its variance, which must not be left out.
        """
        expected = self._given_outputs == "auto" and self._said is None
        if expected and self._spec and self._spec.outputs == "values" and is_pair(returned):
            shapes = [getattr(each, "shape", None) for each in pair_of(returned)]
            if shapes[0] is not None and shapes[0] == shapes[1]:
                raise EnsembleError(
                    "The model must return one array, or it must be known what each is. Received: "
                    f"a {type(returned).__name__} of two; of means and variances give "
                    'outputs="gaussian", and to leave one out output=0 or 1'
                )

    def expect_values(self) -> None:
        """Take outputs that are not known yet for the values of a regression.

        Raises:
            EnsembleError: they are known to be something else.
        """
        with self._lock:
            if self._outputs == "auto" and self._spec is None and self._axis in ("auto", None):
                self._spec = OutputSpec("values", None, self._pooling)
            spec = self._spec
        if spec is None or spec.outputs not in REGRESSIONS:
            said = self._outputs if spec is None else spec.outputs
            raise EnsembleError(
                "The ensemble must have outputs='values' or 'gaussian' for a variance. "
                f"Received: outputs={said!r}{self._whence()}"
            )

    def expect_classes(self) -> None:
        """Refuse values, which have no classes, as soon as that is known of them.

        Raises:
            EnsembleError: they are values, or pairs of a mean and a variance.
        """
        said = self._outputs if self._spec is None else self._spec.outputs
        if said in REGRESSIONS:
            raise EnsembleError(
                "The ensemble must have outputs of classes, or of outcomes, for their numbers. "
                f"Received: outputs={said!r}{self._whence()}"
            )

    def expect_outputs(self, outputs: str, what: str) -> None:
        """Take over what a choice is of, if it is not known.

        Args:
            outputs: "probabilities", of any classes; or what values a regression's are.
            what: what it is of, for the message.

        Raises:
            EnsembleError: it is of another kind of outputs.
        """
        with self._lock:
            if outputs in REGRESSIONS and self._outputs == "auto" and self._spec is None:
                self._outputs, self._axis = ("values" if outputs == "values" else "gaussian"), None
                self._settle()
            known = self._outputs if self._spec is None else self._spec.outputs
        if known != outputs and {known, outputs} & {*REGRESSIONS}:
            raise EnsembleError(
                f"{what} must be of the ensemble's outputs, {known!r}. Received: one of "
                f"{outputs!r}; fit the ensemble again"
            )

    def expect_class_axis(self, class_axis: int | None, what: str) -> None:
        """Take over the class axis of a choice, if it is not known.

        Args:
            class_axis: the axis.
            what: what it is of, for the message.

        Raises:
            EnsembleError: another one is known.
        """
        with self._lock:
            if self._axis == "auto" and self._spec is None:
                self._axis = class_axis
                self._settle()
            axis = self._axis if self._spec is None else self._spec.class_axis
            # Of outputs of so many axes, one may have two names.
            both = isinstance(axis, int) and isinstance(class_axis, int) and self._axes
            same = both and (axis or 0) % self._axes == (class_axis or 0) % self._axes
        if axis != class_axis and not same:
            raise EnsembleError(
                f"{what} must be with class_axis={axis}. Received: one with class_axis="
                f"{class_axis}; fit the ensemble again"
            )

    def check_mean(self) -> None:
        """Refuse a choice, which is one of weights of the mean, where none is taken."""
        if self._spec is not None or self._pooling != "probabilities":
            self.spec.check_mean()

    def look(self, output: Any, members: Sequence[str], *, stacked: bool = False) -> None:
        """Find out what outputs are, if that is not known; and whether this one is what they are.

        Args:
            output: of the model, for a batch.
            members: whose it is; of no member, its numbers are not looked at.
            stacked: whether the members' outputs lie along a first axis.

        Raises:
            EnsembleError: it could be several things; it is not what outputs
                are; or a member gives NaN, and is named.

        Warns:
            UserWarning: logits that are probabilities already; once.
        """
        if self.are_pairs:
            self._look_at_pair(output, members, stacked=stacked)
            return
        shape = tuple(output.shape)[1 if stacked else 0 :]
        if math.prod(shape) and not (stacked and self._are_as_known(output)):
            for i, member in enumerate(members):
                if self._is_due(output, member):
                    self._look(_Numbers(output[i] if stacked else output), member)
        self.spec.check(shape)

    def _are_as_known(self, output: Any) -> bool:
        """Whether several members' outputs, looked at all at once, are beyond doubt what all are.

        Tensors of torch alone, and on the host; in doubt, each is looked at by itself.
        """
        spec, torch = self._spec, sys.modules.get("torch")
        if spec is None or torch is None or not isinstance(output, torch.Tensor):
            return False
        if not (output.is_cpu and output.is_floating_point() and len(output)):
            return False
        least, most = (each.tolist() for each in output.detach().flatten(1).aminmax(dim=1))
        if not all(each < math.inf for each in most):
            return False
        if spec.outputs != "logits":
            return spec.outputs in REGRESSIONS
        if spec.class_axis is None or self._warned:
            return True
        ranges = zip(least, most, strict=True)
        return not any(low >= 0 and high <= 1 + _SLACK for low, high in ranges)

    def _look_at_pair(self, output: Any, members: Sequence[str], *, stacked: bool) -> None:
        """Refuse a pair that is none, or whose numbers are none."""
        mean, variance = pair_of(output)
        check_pair_shapes(mean, variance)
        for i, member in enumerate(members):
            parts = [each[i] if stacked else each for each in (mean, variance)]
            if math.prod(parts[0].shape) and self._is_due(mean, member):
                found = [_Numbers(part) for part in parts]
                if not all(-math.inf < each.least <= each.most < math.inf for each in found):
                    raise nonfinite(member)
                if found[1].least < 0:
                    raise negative_variance(found[1].least, member)
                self._looked.add(member)

    def _is_due(self, output: Any, member: str) -> bool:
        """Whether a member's output is looked at: on a device, which would be waited for, once."""
        there = getattr(getattr(output, "device", None), "type", "cpu") != "cpu"
        return not there or self._spec is None or member not in self._looked

    def _look(self, numbers: _Numbers, member: str) -> None:
        if not numbers.most < math.inf:  # a logit may be minus infinity, for what cannot be
            raise nonfinite(member)
        with self._lock:
            if self._spec is None:
                found = self._find(numbers)
                self._spec = OutputSpec(found.outputs, found.class_axis, self._pooling)
                self._axes = len(numbers.shape)
            self._looked.add(member)
        self._check(numbers, self._spec)

    def _find(self, numbers: _Numbers) -> Reading:
        """The one reading of an output under what is given.

        Raises:
            EnsembleError: there are several.
        """
        possible = [each for each in self._readings(numbers) if self._outputs in ("auto", each[0])]
        if len(possible) == 1:
            return possible[0]
        raise EnsembleError(
            "The ensemble must know what the model's outputs are. Received: an output "
            f"{numbers.described}, which could be several things; give "
            + ", or ".join(f"{reading.code} for {_meaning(reading)}" for reading in possible)
        )

    def _readings(self, numbers: _Numbers) -> list[Reading]:
        """What an output may be, by its shape and numbers; the likeliest first."""
        size, unit = len(numbers.shape), numbers.are_between_0_and_1
        if not numbers.ordered:  # complex
            return [Reading("values", None)]
        if self._axis is None:  # outcomes: 'values' would have been given as such
            return [Reading("probabilities", None)] * unit + [Reading("logits", None)]
        axes = [i - size if i == size - 1 else i for i in range(1, size) if numbers.shape[i] > 1]
        if self._axis != "auto":
            axes = [self._axis]
        sums = [axis for axis in axes if unit and numbers.sum_to_one(axis)]
        found = [Reading("probabilities", axis) for axis in sums]
        logits = [Reading("logits", axis) for axis in axes[:1] + axes[1:][-1:]]
        if self._outputs == "logits":
            return logits or [Reading("logits", None)]
        if self._axis != "auto":
            return found if sums and numbers.is_no_chance(axes[0]) else found + logits
        if len(sums) == 1 and (numbers.is_no_chance(sums[0]) or self._outputs == "probabilities"):
            return found
        if self._outputs == "auto" and size == 2 and axes and not unit:
            # Several outcomes of their own, or a regression of several targets, look
            # the same; classes are meant by almost everybody.
            return logits
        outcomes = [Reading("probabilities", None)] * (unit or self._outputs == "probabilities")
        return (found or outcomes) + (logits or [Reading("logits", None)]) + [_VALUES]

    def _check(self, numbers: _Numbers, spec: OutputSpec) -> None:
        """Refuse numbers that are not what outputs are, or warn where they seem not to be."""
        if not numbers.ordered or spec.outputs in REGRESSIONS:
            return
        axis = spec.class_axis
        if spec.outputs == "logits":
            if numbers.whole:
                raise EnsembleError(
                    "Logits must be of a floating dtype. Received: an output "
                    f"{numbers.described}, of dtype {numbers.dtype}, as the classes' own numbers "
                    "are; return what is before the argmax"
                )
            if axis is None or self._warned or not numbers.are_between_0_and_1:
                return
            if numbers.sum_to_one(axis) and numbers.is_no_chance(axis):
                self._warned = True
                warn(
                    "The outputs are taken for logits, and their softmax for probabilities, though "
                    f"they lie in [0, 1] and sum to 1 along axis {axis} already{self._whence()}. "
                    f'If they are probabilities, give outputs="probabilities", class_axis={axis}'
                )
            return
        sums = "" if axis is None else f" and sum to 1 along axis {axis}"
        if not -_SLACK <= numbers.least <= numbers.most <= 1 + _SLACK or not (
            axis is None or numbers.sum_to_one(axis, _SLACK)
        ):
            raise EnsembleError(
                f"Probabilities must lie in [0, 1]{sums}. Received: an output "
                f"{numbers.described}, taken for such{self._whence()}; give what it is by outputs= "
                "and class_axis=, such as " + _LOGITS.code + " for logits of classes"
            )

    def _whence(self) -> str:
        """Who says what outputs are."""
        if self._given_outputs != "auto":
            return f", since the ensemble was given outputs={self._given_outputs!r}"
        return ", since the model says so" if self._said else ", as the first output was"

    def _settle(self) -> None:
        if self._outputs != "auto" and self._axis != "auto":
            self._spec = OutputSpec(self._outputs, self._axis, self._pooling)


_VALUES: Final = Reading("values", None)
_LOGITS: Final = Reading("logits", -1)


def _meaning(reading: Reading) -> str:
    """What a reading takes the numbers for, in words."""
    if reading.outputs == "values":
        return "values of a regression"
    noun = "logits" if reading.outputs == "logits" else "probabilities"
    axis = reading.class_axis
    if axis is None:
        return f"{noun} of outcomes that each happen or not (binary, multi-label)"
    return f"{noun} of classes along axis {axis}"


def nonfinite(member: str) -> EnsembleError:
    """The error for a member whose predictions are no numbers."""
    return EnsembleError(
        f"The members' predictions must be finite. Received: NaN or infinity from {member}; if the "
        "input has none, its weights make the model overflow: leave the member out by members="
    )


class _Numbers:
    """An output's numbers, looked at where they are.

    Args:
        output: an array of any framework, with one number at least.
    """

    def __init__(self, output: Any) -> None:
        self.shape = tuple(output.shape)
        self.dtype = output.dtype
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(output, torch.Tensor):
            output = output.detach() if output.requires_grad else output
            self.ordered = output.is_floating_point() or not output.is_complex()
            self.whole = self.ordered and not output.is_floating_point()
            self._array = output if output.is_floating_point() else output.double()
        else:
            array = as_numpy(output)
            self.ordered = array.dtype.kind != "c"
            self.whole = array.dtype.kind in "biu"
            # numpy does not know the floats that others have added to it well.
            known = array.dtype.kind in "fc" and array.dtype.isbuiltin == 1
            self._array = array if known else array.astype(np.float32)
        if not self.ordered:
            self.least = self.most = 0.0
        elif hasattr(self._array, "aminmax"):
            self.least, self.most = (float(each) for each in self._array.aminmax())
        else:
            self.least, self.most = float(self._array.min()), float(self._array.max())

    @property
    def are_between_0_and_1(self) -> bool:
        """Whether all are, but for rounding."""
        # The tolerance, which takes longer, is asked for where it matters alone.
        likely = self.ordered and self.least >= 0 and self.most <= 1 + _SLACK
        return likely and self.most <= 1 + self._tolerance(1)

    @property
    def described(self) -> str:
        """The shape and the range, in words."""
        return f"of shape {self.shape} with numbers from {self.least:.4g} to {self.most:.4g}"

    def sum_to_one(self, axis: int, tolerance: float | None = None) -> bool:
        """Whether all rows along an axis do, but for rounding."""
        if not -len(self.shape) <= axis < len(self.shape):
            return False
        if tolerance is None:
            tolerance = self._tolerance(self.shape[axis])
        array = self._array
        if isinstance(array, np.ndarray):
            sums = array.sum(axis=axis, dtype=np.float64)
        else:  # Apple's GPUs have no float64
            torch = sys.modules["torch"]
            wide = torch.float32 if array.device.type == "mps" else torch.float64
            sums = array.sum(dim=axis, dtype=wide)
        return bool((abs(sums - 1) <= tolerance).all())

    def is_no_chance(self, axis: int) -> bool:
        """Whether there are so many rows along an axis, that their sums are not 1 by chance."""
        array = self._array[:_ROWS]
        if not isinstance(array, np.ndarray):
            array = array.float().cpu().numpy()
        rows = np.moveaxis(array, axis, -1).reshape(-1, self.shape[axis])[:_ROWS]
        bits = -math.log2(2 * self._tolerance(self.shape[axis]))
        return len(np.unique(rows, axis=0)) * bits >= _BITS

    def _tolerance(self, count: int) -> float:
        """By how much the sum of so many numbers may be off by rounding."""
        eps = EPS.get(str(self.dtype).rpartition(".")[-1], _SLACK)
        return min(4 * eps * math.sqrt(count), _SLACK)
