"""Params that come a second time: a step too many, or an update that was none."""

from __future__ import annotations

import weakref
from typing import Any, Final

import jax

# So many steps are looked at. What is done wrong in a loop is done so from its beginning.
_STEPS: Final = 256


class Repeated:
    """Whether a step is given the very arrays of the step before.

    Arrays of JAX' are never written to, so that an update returns others, also those that
    optax.MultiSteps and optax.apply_if_finite leave as they were. Those of numpy may be written to,
    and say nothing. The arrays are not held.
    """

    def __init__(self) -> None:
        self._left = _STEPS
        self._before: list[weakref.ref[Any]] = []

    def are(self, params: Any) -> bool:
        """Whether all of them are those of the last call."""
        if not self._left:
            return False
        self._left -= 1
        arrays = [leaf for leaf in jax.tree.leaves(params) if hasattr(leaf, "shape")]
        if not arrays or not all(isinstance(leaf, jax.Array) for leaf in arrays):
            self._left = 0
            return False
        before = self._before
        self._before = [weakref.ref(leaf) for leaf in arrays] if self._left else []
        return len(before) == len(arrays) and all(
            ref() is leaf for ref, leaf in zip(before, arrays, strict=True)
        )
