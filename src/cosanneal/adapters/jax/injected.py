"""The rate that an optimizer of Optax had, where its state holds it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ...core.errors import SnapshotError, shown

_NAME = "learning_rate"


def checked_rate(rate: Any) -> float:
    """A rate as a float.

    Raises:
        SnapshotError: it is no number, or below 0, or not finite.
    """
    try:
        value = math.nan if isinstance(rate, bool | str | bytes) else float(rate)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise SnapshotError(
            "Argument `rate` must be the rate of the last update, a number of at least 0. "
            f"Received: rate={shown(rate)}"
        )
    return value


def rate_of(opt_state: Any) -> float:
    """The rate of the last update, from the state that `optax.inject_hyperparams` makes.

    Raises:
        SnapshotError: the state holds none, or several that differ.
    """

    def holds(node: Any) -> bool:
        return isinstance(getattr(node, "hyperparams", None), Mapping)

    found = {
        float(np.asarray(node.hyperparams[_NAME]))
        for node in jax.tree_util.tree_leaves(opt_state, is_leaf=holds)
        if holds(node) and _NAME in node.hyperparams
    }
    if len(found) != 1:
        received = f"rates of {sorted(found)}" if found else "none"
        raise SnapshotError(
            "Argument `opt_state` must hold one rate, as "
            "optax.inject_hyperparams(optax.sgd)(learning_rate=...) keeps it in "
            f"hyperparams[{_NAME!r}]. Received: {received}; give rate="
        )
    return checked_rate(found.pop())
