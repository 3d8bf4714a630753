"""The loss between two members' weights, and whether it lets them be averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ...core.errors import EnsembleError, shown
from ...snapshots.sources import names_of
from ...snapshots.store import Snapshot
from .means import interpolate_weights

# By how much of the ends' mean loss it may rise between two members.
BARRIER: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpolation:
    """The loss along the straight line between two members' weights.

    Args:
        shares: how far along, from 0 (the first member) to 1 (the second).
        losses: the loss at each.
        barrier: by how much the loss rises above the line between its ends:
            `max(L(s) - ((1 - s) L(0) + s L(1)))`; 0 or more.
    """

    shares: tuple[float, ...]
    losses: tuple[float, ...]
    barrier: float

    @classmethod
    def of(cls, shares: Sequence[float], losses: Sequence[float]) -> Interpolation:
        """The losses at some shares, 0 and 1 among them, with their barrier."""
        start, end = losses[shares.index(0.0)], losses[shares.index(1.0)]
        rises = [
            value - ((1 - share) * start + share * end)
            for share, value in zip(shares, losses, strict=True)
            if 0 < share < 1
        ]
        return cls(shares=tuple(shares), losses=tuple(losses), barrier=max([0.0, *rises]))


def interpolate(
    loss: Callable[[dict[str, Any]], float],
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    *,
    shares: Iterable[float] | None = None,
) -> Interpolation:
    """The loss along the straight line between the weights of two members, and its barrier.

    `L(s) = loss((1 - s) * first + s * second)`

    Members that a barrier parts have found different solutions: averaging
    their predictions gains, averaging their weights does not.

    Args:
        loss: the loss (or the error) of weights.
        first: the weights at 0: arrays of any framework by name.
        second: the weights at 1.
        shares: where to look; by default 0, 0.1, ..., 1. 0 and 1 are needed.

    Raises:
        EnsembleError: names or shapes that differ, or shares without 0 and 1.

    Example:
        >>> import numpy as np
        >>> def loss(weights):
        ...     return float((weights["w"] ** 2 - 1) ** 2)
        >>> found = interpolate(loss, {"w": np.array(-1.0)}, {"w": np.array(1.0)})
        >>> found.losses[0], found.losses[5], found.barrier
        (0.0, 1.0, 1.0)

    Source: Huang et al., "Snapshot Ensembles" (2017), section 4.4; Frankle et al.,
    "Linear Mode Connectivity" (2020), and for the ends' line Entezari et al. (2022).
    """
    wanted = [i / 10 for i in range(11)] if shares is None else shares
    at = sorted({float(share) for share in wanted})
    if 0.0 not in at or 1.0 not in at:
        raise EnsembleError(
            f"Argument `shares` must hold 0 and 1, the members themselves. Received: {shown(at)}"
        )
    losses = [float(loss(interpolate_weights(first, second, share))) for share in at]
    return Interpolation.of(at, losses)


def check_tolerance(barrier: object) -> float:
    """`barrier` as a float of at least 0, or infinity."""
    if isinstance(barrier, bool) or not isinstance(barrier, int | float) or not barrier >= 0:
        raise EnsembleError(
            "Argument `barrier` must be a number of at least 0, or math.inf. "
            f"Received: barrier={shown(barrier)}"
        )
    return float(barrier)


def check_inner(shares: Sequence[float]) -> tuple[float, ...]:
    """The points between two members, without these, in order."""
    try:
        inner = sorted({float(share) for share in shares})
    except (TypeError, ValueError):
        inner = []
    if not inner or not all(0 < share < 1 for share in inner):
        raise EnsembleError(
            "Argument `shares` must be numbers between 0 and 1, at least one. "
            f"Received: shares={shown(shares)}"
        )
    return tuple(inner)


def too_high(
    found: Interpolation, members: Sequence[Snapshot], tolerance: float, title: str
) -> str | None:
    """What to say of a barrier between two members that is above the tolerance."""
    ends = (found.losses[0] + found.losses[-1]) / 2
    if found.barrier <= tolerance * ends:
        return None
    first, second = names_of(members).values()
    start, end = found.losses[0], found.losses[-1]
    _, top, share = max(
        (loss - (1 - share) * start - share * end, loss, share)
        for share, loss in zip(found.shares, found.losses, strict=True)
    )
    return (
        f"between {first} and {second} the {title} goes from {start:.4g} by way of {top:.4g}, at "
        f"{share:g} of the way, to {end:.4g}: a barrier of {found.barrier:.4g}, where "
        f"{tolerance:g} of the ends' mean is {tolerance * ends:.4g}"
    )


def mean_too_high(loss: float, members: float, tolerance: float, title: str) -> str | None:
    """What to say of a mean of weights whose loss is above that of its members."""
    if loss - members <= tolerance * members:
        return None
    return (
        f"the {title} of the mean is {loss:.4g}, and that of its members {members:.4g}, of which "
        f"{tolerance:g} more is allowed"
    )
