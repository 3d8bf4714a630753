"""The running statistics among params, estimated anew from data.

What they are is not known beforehand: any leaf that a batch moves is one.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError
from ...ensemble.arrays import as_floats, narrow
from ...ensemble.predict.batches import Batches
from ...ensemble.weights.means import has_mean
from ...ensemble.weights.moments import Moments
from .tree import key_name

# The params by name, as training moves them by a batch.
MovedBy: TypeAlias = Callable[[Mapping[str, Any], tuple[Any, ...]], Mapping[str, Any]]


def first_statistics(tree: Any) -> str | None:
    """The name of the first leaf that flax has as a statistic of batches."""

    def is_statistic(node: Any) -> bool:
        held = getattr(node, "type", None)  # of a state of nnx in older releases
        kinds = [*type(node).__mro__, *(held.__mro__ if isinstance(held, type) else ())]
        return any(kind.__name__ == "BatchStat" for kind in kinds)

    paths, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_statistic)
    for path, leaf in paths:
        parts = [key_name(key) for key in path]
        if is_statistic(leaf) or "batch_stats" in parts:
            return ".".join(parts)
    return None


def estimate(named: Mapping[str, Any], batches: Batches, moved_by: MovedBy) -> dict[str, Any]:
    """Params by name with the running statistics of the data, as if all had come in one batch.

    What the statistics are, and how fast they move, is found out on the first batch.

    Args:
        named: the params.
        batches: of the training data.
        moved_by: the params by name after a batch, as training moves them.

    Raises:
        EnsembleError: nothing moves, or otherwise than a moving average.
    """
    momenta: dict[str, float] = {}
    found: dict[str, Moments] = {}
    for i, batch in enumerate(batches):
        if not i:
            momenta = _momenta(named, batch, moved_by)
            found = {name: Moments() for name in momenta}
        size = batch[0].size
        if not size:
            continue
        means = _batch_moments(named, momenta, batch, moved_by)
        for name, moments in found.items():
            mean = _mean_of(name, means)
            if mean is None:
                moments.update(size, means[name], 0.0)
            else:
                moments.update(size, means[mean], means[name])
    estimated = dict(named)
    for name, moments in found.items():
        if moments.count:
            value = moments.mean if _mean_of(name, found) is None else moments.variance()
            estimated[name] = narrow(value, named[name])
    return estimated


def _momenta(
    named: Mapping[str, Any], batch: tuple[Any, ...], moved_by: MovedBy
) -> dict[str, float]:
    """What the statistics are among the params: how much of itself each keeps of a batch.

    `new = momentum * old + (1 - momentum) * batch`, whose last part is lost
    in rounding beside an `old` that is large.
    """
    floats = {name: leaf for name, leaf in named.items() if has_mean(leaf)}
    nudged = {name: leaf * (1 + 1 / 64) + 1 / 64 for name, leaf in floats.items()}
    moved = moved_by({**named, **nudged}, batch)
    names = [
        name
        for name, leaf in nudged.items()
        if not np.array_equal(as_floats(moved[name]), as_floats(leaf), equal_nan=True)
    ]
    if not names:
        raise EnsembleError(
            "Function `statistics_fn` must return the params with the running statistics "
            "moved by the batch, as in training. Received: params as they were"
        )
    large = {name: 2.0 ** (jnp.finfo(named[name].dtype).maxexp // 2) for name in names}
    moved = moved_by(
        {**named, **{name: jnp.full_like(named[name], large[name]) for name in names}}, batch
    )
    momenta: dict[str, float] = {}
    for name in names:
        kept = as_floats(moved[name]) / large[name]
        if kept.size:
            share = _decimal(float(kept.flat[0]), named[name].dtype)
            slack = float(jnp.finfo(named[name].dtype).eps)
            if not (np.abs(kept - share) <= slack).all() or not -slack <= share < 1:
                raise _no_moving_average(name)
            momenta[name] = share
    means = _batch_moments(named, momenta, batch, moved_by)
    moved = moved_by(named, batch)
    for name, share in momenta.items():
        old, new = as_floats(named[name]), as_floats(moved[name])
        expected = share * old + (1 - share) * means[name]
        scale = np.abs(old).max() + np.abs(means[name]).max()
        slack = 1e-2 * (1 - share) + 4 * float(jnp.finfo(named[name].dtype).eps)
        if not (np.abs(new - expected) <= slack * scale).all():
            raise _no_moving_average(name)
    return momenta


def _batch_moments(
    named: Mapping[str, Any],
    momenta: Mapping[str, float],
    batch: tuple[Any, ...],
    moved_by: MovedBy,
) -> dict[str, NDArray[np.float64]]:
    """A batch's own statistics: what moved from 0, over how much of the way it moved."""
    zeros = {name: jnp.zeros_like(named[name]) for name in momenta}
    moved = moved_by({**named, **zeros}, batch)
    return {name: as_floats(moved[name]) / (1 - share) for name, share in momenta.items()}


def _no_moving_average(name: str) -> EnsembleError:
    return EnsembleError(
        "Function `statistics_fn` must move each statistic as momentum * old + (1 - momentum) "
        "* batch, by one momentum below 1 and by statistics of the batch that depend on no "
        f"old ones and on no random numbers. Received: {name!r} moved otherwise; turn "
        "dropout off"
    )


def _decimal(value: float, dtype: Any) -> float:
    """The shortest decimal that a dtype rounds to a value.

    A momentum of 0.99 was given as such; of `1 - 0.99` float32 holds 17 bits.
    """
    rounded = np.asarray(value).astype(dtype)
    decimals = (float(f"{value:.{digits}g}") for digits in range(1, 17))
    return next((each for each in decimals if np.asarray(each).astype(dtype) == rounded), value)


def _mean_of(name: str, names: Container[str]) -> str | None:
    """The name of the mean that belongs to a variance; None of what is no variance."""
    *parts, last = name.split(".")
    after = ""
    if parts and last in ("value", "raw_value"):  # of a variable of flax' nnx
        after, last = f".{last}", parts.pop()
    for variance, mean in (("variance", "mean"), ("var", "mean")):
        if last == variance or last.endswith(f"_{variance}"):
            found = ".".join([*parts, last.removesuffix(variance) + mean]) + after
            return found if found in names else None
    return None
