"""How a pytree of params is captured: its leaves, by their paths in it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ...core.errors import SnapshotError, shown
from ...snapshots.capture import HostBuffers, Parts
from ...snapshots.file import Layout, check_tensor
from ...snapshots.part import chosen_by
from ...snapshots.ranks import ALONE, Ranks
from .parting import described, parted
from .shards import is_in_all, is_in_parts, is_of_several, whole
from .tree import is_key, key_kind, named_leaves


class PytreeCapture:
    """The leaves of a pytree, by their paths in it.

    What several processes have a part of each is gathered one by one, by all of them at
    the same time.

    Args:
        params: the pytree.
        ranks: the processes that ask; where this one asks alone, parts are refused.
        writes: whether what is gathered is for this process.
    """

    framework = "jax"
    version: str = str(jax.__version__)

    def __init__(self, params: Any = None, ranks: Ranks = ALONE, *, writes: bool = True) -> None:
        self._params, self._ranks, self._writes = params, ranks, writes

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
        arrays = self._ranks.agreed(lambda: self._with_data(names))
        if not self._ranks.alone:
            arrays = self._gathered({name: _here(array) for name, array in arrays.items()})
        if cut is not None:
            arrays = {name: cut(array) for name, array in arrays.items()}
        # All are on their way before the first is waited for.
        for array in arrays.values():
            if isinstance(array, jax.Array) and self._writes:
                array.copy_to_host_async()
        return arrays

    def parts(self) -> Parts:
        """The params in the parts in which they lie on devices, of which none is gathered.

        A part is a device's. What several devices hold is in the part of one of them.
        """
        found = parted(self._ranks.agreed(self._with_data), self._ranks)
        for pieces in found.pieces.values():
            for piece in pieces.values():
                if isinstance(piece.data, jax.Array):
                    piece.data.copy_to_host_async()
        return found

    def _with_data(self, names: Collection[str] | None = None) -> dict[str, Any]:
        arrays = self._arrays(names)
        for name, array in arrays.items():
            check_tensor(name, str(array.dtype))
            if isinstance(array, jax.ShapeDtypeStruct):
                raise SnapshotError(
                    f"The params must have data. Received: {name!r}, a shape alone, as "
                    "jax.eval_shape gives it"
                )
        return arrays

    def _gathered(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """The arrays, those whole that are in parts; of these, none where it is not wanted."""
        names = [name for name, array in arrays.items() if is_in_parts(array)]
        ours = [[name, list(arrays[name].shape), str(arrays[name].dtype)] for name in names]
        firsts = self._ranks.shared(lambda: ours)
        # Or one would wait for ever for a part of what another does not have.
        self._ranks.agreed(lambda: _check_same(ours, firsts))
        found = dict(arrays)
        for name in names:
            gathered = whole(arrays[name])
            found[name] = gathered if self._writes else np.empty(0, gathered.dtype)
        return found

    def layout(self) -> Layout | None:
        """Their shapes and dtypes, within a step."""
        if self._params is None:
            return None
        leaves, _ = named_leaves(self._params, SnapshotError)
        return {name: _layout(name, leaf) for name, leaf in leaves.items()}

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
            name: self._array(name, leaf)
            for name, leaf in leaves.items()
            if names is None or name in names
        }

    def _array(self, name: str, leaf: Any) -> Any:
        """A leaf as an array that numpy takes, and has the bytes of; or one in parts."""
        leaf = _leaf(name, leaf)
        if is_key(leaf):
            leaf = jax.random.key_data(leaf)
        if not is_of_several(leaf):
            return leaf
        if not is_in_all(leaf):
            raise SnapshotError(
                "Params of several processes must lie in all of them. Received: "
                f"{name!r}, which lies in some alone; lay it out over a mesh of all, or give each "
                "process an array of its own"
            )
        if self._ranks.alone and leaf.is_fully_replicated:
            return _here(leaf)
        if self._ranks.alone:
            raise SnapshotError(
                f"The params must be in this process's reach. Received: {name!r}, sharded over "
                "several; gather it first"
            )
        return leaf


def _here(array: Any) -> Any:
    """Of an array over processes, each of which has the whole, this process' own."""
    if is_of_several(array) and array.is_fully_replicated:
        return array.addressable_data(0)
    return array


def _leaf(name: str, leaf: Any) -> Any:
    """A leaf as an array, which may be of keys."""
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
    if isinstance(leaf, jax.Array) and leaf.is_deleted():
        raise SnapshotError(
            f"The params must be those that the update returned. Received: {name!r}, whose buffer "
            "was deleted or donated"
        )
    return leaf


def _layout(name: str, leaf: Any) -> tuple[tuple[int, ...], str]:
    """The shape and dtype that a snapshot has of a leaf, which is not looked at."""
    leaf = _leaf(name, leaf)
    if is_key(leaf):
        leaf, _ = key_kind(leaf)
    return tuple(leaf.shape), leaf.dtype.name


def _check_same(ours: list[Any], firsts: list[Any]) -> None:
    """Refuse params of which other tensors are in parts here than in the first process."""
    for here, there in itertools.zip_longest(ours, firsts):
        if here != there:
            raise SnapshotError(
                "The params must be laid out over the processes in one way. Received: "
                f"{described(here)} in parts, and in the first process {described(there)}; step "
                "all recorders with the params of one update"
            )
