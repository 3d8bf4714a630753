"""Where the libraries of JAX keep running statistics among params: what their trees say of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import jax

from ...ensemble.weights.means import has_mean
from .tree import key_name

# In which state Equinox' BatchNorm has its mean and variance, by its mode.
_BATCH_NORM: Final = ("batch_state_index", "ema_state_index")
_LINEN: Final = (
    "with flax, let it return {**variables, **moved}, where `_, moved = model.apply(variables, x, "
    "train=True, mutable=['batch_stats'])`"
)
_NNX: Final = (
    "with nnx, let it merge the model, call set_attributes(use_running_average=False), run it on x "
    "and return nnx.state(model)"
)
_EQUINOX: Final = (
    "with Equinox, let it run the model on x with inference=False, as in training, and return the "
    "params with the new state"
)
_HAIKU: Final = (
    "with Haiku, let it return (params, state), with the new state of transform_with_state's "
    "`apply(params, state, rng, x, is_training=True)`"
)


class Guided(NamedTuple):
    """A statistic, and what the one has to do whose params hold it."""

    name: str
    advice: str


class Average(NamedTuple):
    """A moving average of Haiku's: the names of its tensors."""

    average: str
    hidden: str
    counter: str


@dataclass(kw_only=True)
class Known:
    """What the tree of some params says of the running statistics in it.

    Attributes:
        first: the first statistic; None where none is known for one.
        readings: what tensors are called in their library, whose names in the
            tree say less, or otherwise.
        averages: the moving averages of Haiku's.
        pairs: two tensors each that may be a mean and its variance; their names
            and their reading.
    """

    first: Guided | None = None
    readings: dict[str, str] = field(default_factory=dict)
    averages: list[Average] = field(default_factory=list)
    pairs: list[tuple[str, str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, tree: Any) -> Known:
        """What is known of a tree, which may be one of shapes alone."""
        known = cls()
        paths, _ = jax.tree_util.tree_flatten_with_path(
            tree,
            is_leaf=lambda node: (
                _is_statistic(node) or _equinox(node, "State") or _equinox(node, "StateIndex")
            ),
        )
        nodes = [(".".join(key_name(key) for key in path), node) for path, node in paths]
        known._read_equinox(nodes)
        known._read_haiku(dict(nodes))
        for name, node in nodes:
            if _is_statistic(node) or "batch_stats" in name.split("."):
                advice = _NNX if _is_statistic(node) else _LINEN
                known.first = known.first or Guided(repr(name), advice)
        return known

    def mean_of(self, names: Mapping[str, Any]) -> dict[str, str]:
        """Of those names that are a variance's, the name of the mean that belongs to it."""
        by_reading = {self.readings.get(name, name): name for name in names}
        means = {name: _mean_of(reading) for reading, name in by_reading.items()}
        return {
            name: by_reading[mean]
            for name, mean in means.items()
            if mean is not None and mean in by_reading
        }

    def shown(self, name: str) -> str:
        """A name as a message has it."""
        reading = self.readings.get(name)
        return repr(name) if reading is None else f"{name!r} ({reading})"

    def _read_equinox(self, nodes: list[tuple[str, Any]]) -> None:
        """Read the states, whose tensors have only numbers for names."""
        indices = {node.marker: name for name, node in nodes if _equinox(node, "StateIndex")}
        states = [(name, node) for name, node in nodes if _equinox(node, "State")]
        for name, state in states:
            values, markers = state.tree_flatten()
            owns = [f"{name}.{i}" if name else str(i) for i in range(len(values))]
            readings = [
                _plain(marker) if isinstance(marker, str) else indices.get(marker, own)
                for marker, own in zip(markers, owns, strict=True)
            ]
            for value, own, reading in zip(values, owns, readings, strict=True):
                layer = reading.removesuffix(".state_index")
                if layer != reading and f"{layer}.first_time_index" in readings:
                    reading = f"{layer}.ema_state_index"  # as releases before 0.12 call it
                leaves = dict(_leaves(own, value))
                for leaf in leaves:
                    self.readings[leaf] = reading + leaf.removeprefix(own)
                floats = [leaf for leaf, each in leaves.items() if has_mean(each)]
                if floats and self.first is None:
                    self.first = Guided(self.shown(floats[0]), _EQUINOX)
                if (
                    list(leaves) == floats == [f"{own}.0", f"{own}.1"]
                    and leaves[floats[0]].shape == leaves[floats[1]].shape
                    and reading.rsplit(".", 1)[-1] not in _BATCH_NORM
                ):
                    self.pairs.append((floats[0], floats[1], reading))
        if states:
            return
        for name, node in nodes:
            if _equinox(node, "StateIndex") and name.endswith("state_index"):
                whole = bool(jax.tree.leaves(node))
                self.first = Guided(
                    repr(name),
                    "its state is not among them: record (params, state)"
                    + whole * ", as equinox.nn.make_with_state parts a model",
                )
                return

    def _read_haiku(self, leaves: Mapping[str, Any]) -> None:
        for name in leaves:
            module = name.removesuffix(".average")
            found = Average(name, f"{module}.hidden", f"{module}.counter")
            if module != name and found.hidden in leaves and found.counter in leaves:
                self.averages.append(found)
                self.readings[found.hidden] = module.replace("/", ".").removesuffix("_ema")
                self.first = self.first or Guided(repr(name), _HAIKU)


def _equinox(node: Any, kind: str) -> bool:
    """Whether a node is of a class of Equinox', which need not be installed."""
    return any(
        each.__name__ == kind and each.__module__.startswith("equinox.")
        for each in type(node).__mro__
    )


def _is_statistic(node: Any) -> bool:
    """Whether flax has a node as a statistic of batches."""
    held = getattr(node, "type", None)  # of a state of nnx in older releases
    kinds = [*type(node).__mro__, *(held.__mro__ if isinstance(held, type) else ())]
    return any(kind.__name__ == "BatchStat" for kind in kinds)


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
        yield ".".join([prefix, *(key_name(key) for key in path)]), leaf


def _plain(marker: str) -> str:
    """The way to a state, with points: `Net.norms[0].state` is `Net.norms.0.state`."""
    return re.sub(r"\[['\"]?(.*?)['\"]?\]", r".\1", marker)


def _mean_of(name: str) -> str | None:
    """The name that the mean has which belongs to a variance; None of what is no variance."""
    *parts, last = name.split(".")
    after = ""
    if parts and last in ("value", "raw_value"):  # of a variable of flax' nnx
        after, last = f".{last}", parts.pop()
    if parts and parts[-1] in _BATCH_NORM:
        return ".".join([*parts, "0"]) if last == "1" else None
    for variance, mean in (("variance", "mean"), ("var", "mean")):
        if last == variance or last.endswith(f"_{variance}"):
            return ".".join([*parts, last.removesuffix(variance) + mean]) + after
    return None
