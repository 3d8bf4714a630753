"""How a pytree of params is captured: its leaves, by their paths in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ...core.errors import SnapshotError, shown
from ...snapshots.capture import HostBuffers
from ...snapshots.file import Layout, check_tensor
from ...snapshots.part import chosen_by
from .tree import is_key, named_leaves


class PytreeCapture:
    """The leaves of a pytree, by their paths in it."""

    framework = "jax"
    version = str(jax.__version__)

    def __init__(self, params: Any = None) -> None:
        self._params = params

    @contextlib.contextmanager
    def of(self, params: Any) -> Iterator[None]:
        """Capture these params, which must not live longer for it."""
        self._params = params
        try:
            yield
        finally:
            self._params = None

    def check(self) -> dict[str, Any]:
        """The params as arrays, each of which a snapshot can hold; they are not copied yet.

        Raises:
            SnapshotError: one cannot be recorded.
        """
        arrays = self._arrays()
        for name, array in arrays.items():
            check_tensor(name, str(array.dtype))
        return arrays

    def tensors(
        self, names: Collection[str] | None = None, *, cut: Callable[[Any], Any] | None = None
    ) -> dict[str, Any]:
        """The params as they are, or pieces of them."""
        arrays = self._arrays(names)
        for name, array in arrays.items():
            check_tensor(name, str(array.dtype))
            if isinstance(array, jax.ShapeDtypeStruct):
                raise SnapshotError(
                    f"The params must have data. Received: {name!r}, a shape alone, as "
                    "jax.eval_shape gives it"
                )
        if cut is not None:
            arrays = {name: cut(array) for name, array in arrays.items()}
        # All are on their way before the first is waited for.
        for array in arrays.values():
            if isinstance(array, jax.Array):
                array.copy_to_host_async()
        return arrays

    def layout(self) -> Layout | None:
        """Their shapes and dtypes, within a step."""
        if self._params is None:
            return None
        return {name: (each.shape, each.dtype.name) for name, each in self._arrays().items()}

    def chosen(self, which: Literal["trainable"] | Callable[[str], bool]) -> set[str]:
        """The names of which the function says so; params do not say which of them train."""
        leaves, _ = named_leaves(self._params, SnapshotError)
        if which == "trainable":
            some = min(leaves)
            raise SnapshotError(
                "Argument `which` must be 'all' or a function of a tensor's name, for params do "
                "not say which of them train. Received: which='trainable'; give "
                f"which=lambda name: ..., of names such as {some!r}"
            )
        return chosen_by(which, leaves)

    def stamps(self, names: Collection[str]) -> dict[str, object]:  # noqa: ARG002
        """None: an array of JAX' is never written to, and another may hold the same."""
        return {}

    def buffers(self) -> HostBuffers:
        """Memory of numpy's."""
        return HostBuffers()

    def _arrays(self, names: Collection[str] | None = None) -> dict[str, Any]:
        leaves, _ = named_leaves(self._params, SnapshotError)
        return {
            name: _array(name, leaf)
            for name, leaf in leaves.items()
            if names is None or name in names
        }


def _array(name: str, leaf: Any) -> Any:
    """A leaf as an array that numpy takes, and has the bytes of."""
    if isinstance(leaf, jax.core.Tracer):
        raise SnapshotError(
            f"The recorder must be stepped outside of jit. Received: {name!r} as a tracer"
        )
    if not hasattr(leaf, "shape"):
        try:
            leaf = jnp.asarray(leaf)
        except OverflowError:
            raise SnapshotError(
                f"The params must hold numbers that JAX' integers hold. Received: {name!r}, "
                f"{shown(leaf)}; enable x64, or record it as an array of numpy's"
            ) from None
    if is_key(leaf):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array) and leaf.is_deleted():
        raise SnapshotError(
            f"The params must be those that the update returned. Received: {name!r}, whose buffer "
            "was deleted or donated"
        )
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if leaf.is_fully_replicated:  # over processes, each of which has the whole
            return leaf.addressable_data(0)
        raise SnapshotError(
            f"The params must be in this process's reach. Received: {name!r}, sharded over "
            "several; gather it first"
        )
    return leaf
