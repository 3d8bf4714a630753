"""Pytrees of params as arrays by name, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from ...core.errors import EnsembleError, SnapshotError, shown
from .shards import put


def named_leaves(
    tree: Any, error: type[EnsembleError] | type[SnapshotError]
) -> tuple[dict[str, Any], Any]:
    """The leaves of a pytree by their paths, in the pytree's order, and its structure."""
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    leaves: dict[str, Any] = {}
    for path, leaf in paths:
        name = ".".join(key_name(key) for key in path) or "params"
        if name in leaves:
            raise error(
                "The params must have a path of its own for every tensor. Received: two whose path "
                f"reads {name!r}; rename one"
            )
        known = isinstance(leaf, bool | int | float | complex)
        if not known and not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise error(
                f"The params must consist of arrays. Received: {name!r}, a {type(leaf).__name__}; "
                "leave out what is none, as equinox.filter(model, equinox.is_array) does"
            )
        leaves[name] = leaf
    if not leaves:
        raise error(f"The params must hold at least one array. Received: {shown(tree)}")
    return leaves, structure


def tree_of(structure: Any, leaves: Mapping[str, Any]) -> Any:
    """The pytree of a structure, of leaves in the pytree's order."""
    return jax.tree_util.tree_unflatten(structure, list(leaves.values()))


@dataclass(frozen=True)
class Alone:
    """A leaf's shape and dtype, and whose array it is, without data and devices.

    Args:
        shape: of the array; of keys, of their data.
        dtype: its name.
        kind: "jax", "numpy", or how keys are made.
    """

    shape: tuple[int, ...]
    dtype: str
    kind: Any = "jax"

    def like(self) -> Any:
        """A leaf of the kind, on no device in particular."""
        if self.kind == "numpy":
            return np.zeros(self.shape, self.dtype)  # of which no page is touched
        data = jax.ShapeDtypeStruct(self.shape, self.dtype)
        if self.kind == "jax":
            return data
        return jax.eval_shape(lambda each: jax.random.wrap_key_data(each, impl=self.kind), data)


class Leaf(NamedTuple):
    """What is kept of a leaf of `like`, whose buffer may be donated meanwhile."""

    shape: tuple[int, ...]
    dtype: str
    restore: Callable[[Any], Any]
    devices: frozenset[Any] = frozenset()  # jax.Device, whose type JAX leaves open
    kind: Any = "jax"

    @property
    def is_of_several(self) -> bool:
        """Whether other processes have a part of it, too."""
        return len({device.process_index for device in self.devices}) > 1

    def alone(self) -> Alone:
        """What another process may know of it."""
        return Alone(self.shape, self.dtype, self.kind)

    @classmethod
    def of(cls, leaf: Any) -> Leaf:
        """What is kept of a leaf."""
        sharding = sharding_of(leaf)
        devices = frozenset(sharding.device_set) if sharding is not None else frozenset()
        if is_key(leaf):
            data, kind = key_kind(leaf)

            def wrapped(array: Any) -> Any:
                if is_key(array):
                    return array
                several = sharding is not None and not sharding.is_fully_addressable
                data = put(array, sharding) if several else jnp.asarray(array)
                return jax.random.wrap_key_data(data, impl=kind)

            return cls(tuple(data.shape), str(data.dtype), wrapped, devices, kind)
        if isinstance(leaf, np.ndarray | np.generic):
            return cls(leaf.shape, str(leaf.dtype), lambda array: array, kind="numpy")
        if not hasattr(leaf, "shape"):  # a number of Python's
            leaf = jnp.asarray(leaf)
        return cls(
            tuple(leaf.shape),
            str(leaf.dtype),
            lambda array: put(array, sharding),
            devices,
        )


def sharding_of(leaf: Any) -> Any:
    """Where a leaf lies; None where that is not known.

    With explicit axes, jax.eval_shape knows the axes and no devices: those are of
    jax.set_mesh.
    """
    sharding = getattr(leaf, "sharding", None)
    if not isinstance(sharding, NamedSharding) or isinstance(sharding.mesh, Mesh):
        return sharding
    mesh = jax.sharding.get_mesh()
    return None if mesh.empty else NamedSharding(mesh, sharding.spec)


def key_name(key: Any) -> str:
    """A step of a path, as it stands in a tensor's name."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is a random key, or an array of such."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def key_kind(leaf: Any) -> tuple[jax.ShapeDtypeStruct, Any]:
    """The data of a key, or of keys, which may be shapes alone; and how they were made."""
    kinds = []

    def data(key: jax.Array) -> jax.Array:
        kinds.append(jax.random.key_impl(key))
        return jax.random.key_data(key)

    return jax.eval_shape(data, leaf), kinds[0]
