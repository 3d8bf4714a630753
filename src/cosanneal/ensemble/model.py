"""The one seam to a framework: a model that members' weights can be loaded into.

Each adapter has one class that is this protocol, and hands it to
`SnapshotEnsemble`; nothing else of an ensemble knows a framework. Whoever
brings another framework writes one such class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

from ..core.errors import EnsembleError
from ..snapshots.capture import Capture
from ..snapshots.file import Layout
from ..snapshots.ranks import Ranks
from .predict.batches import Batches
from .predict.outputs import Reading

ArrayT = TypeVar("ArrayT")

# What a model is given for some samples, as `Batches` makes it: a tuple of its arguments,
# each an array or a structure of arrays, which stand in their order; or a dict of them
# by name. Where the user's own function runs the model (`forward`), a `Whole`: a loader's
# batch as it came, of any kind.
Batch: TypeAlias = Any
ModelT = TypeVar("ModelT")
# How a user has a model run on a loader's batch: `forward(model, batch)` gives its output.
Forward: TypeAlias = Callable[[ModelT, Any], Any]
# What takes the arrays that are meant out of what the model returns, as `Taken.pick` does.
Pick: TypeAlias = Callable[[Any], Any]
# Weights as `Model.load` makes them: a mapping from a snapshot's names to arrays.
Weights: TypeAlias = Any


class Model(Protocol[ArrayT]):
    """A model that members' weights can be loaded into.

    It may be called from several threads at a time. The user's own model stays
    as it is: its weights, its modes, its hooks.

    Attributes:
        framework: in which `Snapshot.load` gives tensors: "numpy", "pt", "flax" or "tf".
        ranks: the processes that must load and run members together, where each has a part of
            the model, and the first reads the files; `cosanneal.snapshots.ranks.ALONE` of a
            whole model.
    """

    framework: str

    @property
    def ranks(self) -> Ranks:
        """The processes that must load and run members together."""

    def layout(self) -> Layout:
        """The shape and the dtype's name of each tensor that a member must have, by name."""

    def same_as(self, other: Any) -> bool:
        """Whether the `other` was made of the very same model: ensembles over both can be added."""

    def place(self) -> object:
        """Where the model is, and in which dtype: weights loaded for another place do not fit."""

    def own(self) -> Capture:
        """What gives the model's own tensors, where members are parts that leave some out."""

    def is_array(self, thing: object) -> bool:
        """Whether some `thing` is an array of the framework."""

    def output_names(self) -> Sequence[str]:
        """The names of several outputs that it returns as a list or a tuple, where it has some."""

    def says_outputs(self, output: Any = None) -> Reading | None:
        """What its output is, where it says so itself, for certain; None where it does not.

        Args:
            output: the key, the name or the place of one of several.
        """

    def load(self, tensors: Mapping[str, Any]) -> Weights:
        """Weights for a pass, in the model's place.

        Args:
            tensors: by name, of the layout, all of them or some: a snapshot's, or
                made of such weights. Of several `ranks`, only the first has them.
        """

    def running(self, pick: Pick) -> AbstractContextManager[Callable[[Weights, Batch], Any]]:
        """What runs the model with some weights on a batch: for one pass, in one thread at a time.

        The model predicts in evaluation mode and without gradients. Weights that
        were given in the call before, the very same mapping, need not be put in
        place again. At the end of the pass they are let go of.

        Args:
            pick: makes what the function returns of what the model does.
        """

    def stack(self, members: Sequence[Callable[[], Weights]], pick: Pick) -> Callable[[Batch], Any]:
        """What runs all members on a batch at once, and stacks what they would give one by one.

        Args:
            members: each loads one.
            pick: as in `running`; it is traced with the model.
        """

    def batches(
        self, x: Any, batch_size: int | None, *, training: bool = False, name: str = "x"
    ) -> Batches:
        """The batches of an input `x`, in the arrays that the model takes.

        Args as of `Batches`; `training` where statistics are estimated by them, `name` in errors.
        """

    def join(self, outputs: Sequence[ArrayT]) -> ArrayT:
        """The outputs of several batches, one at least, as one array."""

    def wait(self, outputs: Any) -> None:
        """Return when some outputs are computed."""

    def free_memory(self) -> int | None:
        """The free bytes where the model is; None if they are not known."""

    def running_statistics(self, members: Sequence[Callable[[], Weights]]) -> Sequence[str]:
        """The layers whose running statistics a mean of some members needs anew.

        Args:
            members: each loads one.

        Raises:
            EnsembleError: there are some that cannot be estimated.
        """

    def estimate(
        self, weights: Weights, layers: Sequence[str], batches: Iterable[Batch]
    ) -> Weights:
        """The `weights`, with these `layers`' statistics as if all `batches` had come in one."""

    def same_randomness(self) -> AbstractContextManager[object]:
        """Leave the state of random generators that loaders draw from as it is."""

    def export(self, weights: Weights) -> Any:
        """The `weights` in the form in which the framework's users have them."""


def check_forward(forward: Forward[ModelT] | None) -> Forward[ModelT] | None:
    """A function of a model and a batch, or none; refused where it is neither."""
    if forward is not None and not callable(forward):
        raise EnsembleError(
            "Argument `forward` must be a function of the model and a batch. "
            f"Received: {type(forward).__name__}"
        )
    return forward


def free_host_memory() -> int | None:
    """The bytes that this machine has free for more; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = [line for line in lines if line.startswith("MemAvailable:")]
        return int(found[0].split()[1]) * 1024
    except (OSError, IndexError, ValueError):  # on other systems
        return None
