"""What is taken of what a model returns: one array, or several, and what each of them is.

`FoundOutputs` knows one array, `Pool` pools one; here they are composed. An output is an
array, or where several are taken a tuple with one for each leaf of the form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Generic, Protocol, TypeVar

from ...core.errors import EnsembleError, shown
from ..model import Model
from .form import Form, Path, is_structure, spread
from .found import FoundOutputs
from .outputs import REGRESSIONS, OutputSpec
from .picking import pick_leaf
from .ragged import Join, Ragged, laid

_ADVICE: Final = "; leave others out by None in outputs="

# What is done to so few numbers takes less time than to begin with it, for each member anew.
_FEW: Final = 1 << 14


class Updated(Protocol):
    """What takes in the members' outputs for a batch."""

    def update(self, output: Any, weight: float = 1.0, /) -> None:
        """Take in one member's."""

    def update_stacked(self, outputs: Any, weights: Sequence[float], /) -> None:
        """Take in several members', stacked along a first axis."""


PoolT = TypeVar("PoolT", bound=Updated)


class NestedPool(Generic[PoolT]):
    """A pool for each of several outputs.

    Args:
        pools: in the order in which the outputs come.
    """

    def __init__(self, pools: Sequence[PoolT]) -> None:
        self.pools: tuple[PoolT, ...] = tuple(pools)

    def update(self, outputs: Sequence[Any], weight: float = 1.0) -> None:
        """Take in one member's outputs."""
        for pool, output in zip(self.pools, outputs, strict=True):
            pool.update(output, weight)

    def update_stacked(self, outputs: Sequence[Any], weights: Sequence[float]) -> None:
        """Take in several members' outputs, each stacked along a first axis."""
        for pool, output in zip(self.pools, outputs, strict=True):
            pool.update_stacked(output, weights)


class Taken:
    """Which of a model's outputs are taken, and what each is.

    Attributes:
        form: the structure in which they are given back.
        paths: where each is in what the model returns.
        leaves: what each is.
        several: whether they are taken in a structure, be it of one.

    Args:
        model: the model.
        form: the structure in which they are given back.
        paths: where each is in what the model returns.
        leaves: what each is.
    """

    def __init__(
        self, model: Model[Any], form: Form, paths: Sequence[Path], leaves: Sequence[FoundOutputs]
    ) -> None:
        self._model = model
        self.form: Form = form
        self.paths: list[Path] = list(paths)
        self.leaves: list[FoundOutputs] = list(leaves)
        self.several: bool = form.several

    @classmethod
    def of(
        cls, model: Model[Any], outputs: Any, class_axis: Any, pooling: Any, output: Any
    ) -> Taken:
        """What a user asks for, as `SnapshotEnsemble` has it.

        Raises:
            EnsembleError: arguments that cannot be.
        """
        form = Form.of(outputs)
        if not form.several:
            if output is not None and (
                isinstance(output, bool) or not isinstance(output, str | int)
            ):
                raise EnsembleError(
                    "Argument `output` must be a key or a name, or the number of an item. "
                    f"Received: output={shown(output)}"
                )
            path = () if output is None else (output,)
            found = FoundOutputs(outputs, class_axis, pooling, model.says_outputs(output))
            return cls(model, form, [path], [found])
        if output is not None:
            raise EnsembleError(
                "Argument `output` must be left out where `outputs` is a structure, which says "
                f"what is taken. Received: output={shown(output)}"
            )
        axes = spread("class_axis", class_axis, form, "auto")
        poolings = spread("pooling", pooling, form, "probabilities")
        leaves = []
        for path, leaf, axis, rule in zip(form.paths, form.leaves, axes, poolings, strict=True):
            said = model.says_outputs(path[0]) if len(path) == 1 else None
            # One for all is for those that have classes, and are pooled by a rule.
            if leaf in REGRESSIONS:
                axis = axis if is_structure(class_axis) else None
                rule = rule if is_structure(pooling) else "probabilities"
            with _named(".".join(map(str, path))):
                leaves.append(FoundOutputs(leaf, axis, rule, said))
        return cls(model, form, form.paths, leaves)

    @property
    def found(self) -> FoundOutputs:
        """What the output is, or the first of several."""
        return self.leaves[0]

    def pick(self, returned: Any) -> Any:
        """The output, or a tuple of several, in what the model returned.

        Raises:
            EnsembleError: it is not there.
        """
        is_array = self._model.is_array
        if not self.several and not self.paths[0] and is_array(returned):
            return returned
        names = self._model.output_names()
        picked = []
        for path, found in zip(self.paths, self.leaves, strict=True):
            if not path and not found.are_pairs:
                found.refuse_pair(returned)
            picked.append(pick_leaf(returned, path, is_array, names, pair=found.are_pairs))
        return tuple(picked) if self.several else picked[0]

    def only(self, output: str | int | None) -> Taken:
        """One of several alone, by which members are judged.

        Args:
            output: its key or place, or the keys on the way to it with dots between
                them; None for the only one that is no values, or the only one.

        Raises:
            EnsembleError: there is none of that name, or several without one.
        """
        names = self.form.names
        if not self.several:
            if output is not None:
                raise EnsembleError(
                    "Argument `output` must be left out where `outputs=` of the ensemble is no "
                    f"structure. Received: output={shown(output)}"
                )
            return self
        if output is None:
            places = [i for i, leaf in enumerate(self.form.leaves) if leaf not in REGRESSIONS]
            places = places if len(names) > 1 else [0]
        else:
            places = [i for i, name in enumerate(names) if name == str(output)]
        if len(places) != 1:
            raise EnsembleError(
                f"Argument `output` must be one of {', '.join(map(repr, names))}, by which "
                f"members are judged. Received: {'none' if output is None else shown(output)}"
            )
        (i,) = places
        form = Form(self.form.leaves[i], [self.form.paths[i]], [self.form.leaves[i]])
        return Taken(self._model, form, [self.paths[i]], [self.leaves[i]])

    @property
    def name(self) -> str | None:
        """What one of several is called; None where there is one, or it is no leaf of a form."""
        return self.form.names[0] or None

    def labels(self, given: Any) -> Any:
        """The labels of one of several, which may be in a structure of the same form."""
        for key in self.form.paths[0]:
            if isinstance(given, Mapping):
                if key not in given:
                    raise EnsembleError(
                        f"The labels must have a key {key!r}, or be those of it alone. "
                        f"Received: a dict with {', '.join(map(repr, given))}"
                    )
            elif not (isinstance(given, tuple | list) and isinstance(key, int)):
                return given
            given = given[key]
        return given

    def look(self, output: Any, members: Sequence[str], *, stacked: bool = False) -> None:
        """Have every leaf look at its array; see `FoundOutputs.look`."""
        if not self.several:
            self.found.look(output, members, stacked=stacked)
            return
        for name, found, each in zip(self.form.names, self.leaves, self.each(output), strict=True):
            with _named(name):
                found.look(each, members, stacked=stacked)

    def are_few(self, output: Any, members: int) -> bool:
        """Whether outputs such as one, of so many members, are looked at and pooled at once."""
        if self.several or self.found.are_pairs or members < 2:
            return False
        numbers: int = math.prod(output.shape)
        return numbers * members <= _FEW

    def each(self, output: Any) -> tuple[Any, ...]:
        """The arrays (or what was made of them) in an output."""
        return output if self.several else (output,)

    def pool(self, make: Callable[[OutputSpec], PoolT]) -> PoolT | NestedPool[PoolT]:
        """What pools outputs: of each leaf, what `make` makes for it."""
        if not self.several:
            return make(self.found.spec)
        return NestedPool([make(found.spec) for found in self.leaves])

    def pooled(self, pool: Any, finish: Callable[[FoundOutputs, Any], Any]) -> Any:
        """What is made of a pool that `pool` made: an array, or a tuple of several.

        Args:
            pool: the pool.
            finish: makes an array of the pool of a leaf, which is given first.
        """
        pools = self.each(getattr(pool, "pools", pool))
        parts = tuple(finish(*each) for each in zip(self.leaves, pools, strict=True))
        return parts if self.several else parts[0]

    def predictions(self, output: Any) -> Any:
        """Probabilities (or values) of an output, in its own kind; see `OutputSpec.prediction`."""
        parts = tuple(
            found.spec.prediction(each)
            for found, each in zip(self.leaves, self.each(output), strict=True)
        )
        return parts if self.several else parts[0]

    def laid(
        self, join: Join, parts: Sequence[Any], ragged: Ragged, *, are_classes: bool = False
    ) -> Any:
        """The outputs of all batches, each in the form, as `ragged` has it; see `laid`.

        Args:
            join: as there.
            parts: as there.
            ragged: as there.
            are_classes: whether they are the numbers of classes, which have no axis of these.
        """
        axes = [None if are_classes else leaf.spec.class_axis for leaf in self.leaves]
        if not self.several:
            return laid(join, parts, axes[0], ragged)
        if ragged == "list":
            return [self.form.fill(part) for part in parts]
        found = []
        for name, axis, of_leaf in zip(
            self.form.names, axes, zip(*parts, strict=True), strict=True
        ):
            with _named(name):
                found.append(laid(join, of_leaf, axis, ragged))
        if ragged == "pad":
            arrays, masks = zip(*found, strict=True)
            return self.form.fill(arrays), self.form.fill(masks)
        return self.form.fill(found)

    def expect_values(self) -> None:
        """Take outputs that are not known yet for the values of a regression.

        Raises:
            EnsembleError: one is known to be something else.
        """
        for name, found in zip(self.form.names, self.leaves, strict=True):
            with _named(name, _ADVICE):
                found.expect_values()

    def expect_classes(self) -> None:
        """Refuse outputs that have no classes, as soon as that is known of them.

        Raises:
            EnsembleError: there is such a one.
        """
        for name, found in zip(self.form.names, self.leaves, strict=True):
            with _named(name, _ADVICE):
                found.expect_classes()


@contextmanager
def _named(name: str, advice: str = "") -> Iterator[None]:
    """Say of which of several outputs an error is."""
    try:
        yield
    except EnsembleError as error:
        if not name:
            raise
        raise EnsembleError(f"Output {name!r}: {error}{advice}") from error
