"""Which members to take, and at what weight: chosen on held-out data.

Every choice is one of the weights `w` of the mean `sum(w p)` of the members'
probabilities, on the simplex: `w >= 0`, `sum(w) = 1`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, shown
from ..score.measures import AnyMetric, measure_of
from .calibration import best_temperature
from .held_out import HeldOut
from .joint import CalibratedLogLoss, least_calibrated
from .objectives import objective_of
from .search import Objective, greedy, least_log_loss

# What a mean of logarithms is rounded by, where it hardly falls any more.
_ROUNDING: Final = 1e-15


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Weights for the members, and what they score on the held-out data.

    Args:
        weights: one for each member; they sum to 1.
        score: the score that was made least.
        path: that score after each step of the search.
        gap: for a convex search, by how much at most the score is above the
            least one there is.
        temperature: of the mean, where it had a part in the search.
    """

    weights: tuple[float, ...]
    score: float
    path: tuple[float, ...] = ()
    gap: float | None = None
    temperature: float = 1.0


def last_scores(held_out: HeldOut, metric: AnyMetric = "log_loss") -> list[dict[str, float]]:
    """The scores of the mean of the last 1, 2, ... members, in the paper's order.

    Args:
        held_out: the members' predictions.
        metric: a score beside "log_loss", "brier" and "error", as `fit` takes it.

    Example:
        >>> members = [[[0.1, 0.9]], [[0.6, 0.4]], [[0.8, 0.2]]]
        >>> [round(row["log_loss"], 3) for row in last_scores(HeldOut(members, [0]))]
        [0.223, 0.357, 0.693]

    Source: Huang et al., "Snapshot Ensembles" (2017), section 4.3.
    """
    measure = measure_of(metric)
    scores = []
    total = np.zeros_like(held_out.rows(0))
    for m in range(1, len(held_out) + 1):
        total += held_out.rows(len(held_out) - m)
        scores.append(held_out.scores_of(total / m, measure))
    return scores


def last_weights(members: int, last: int) -> tuple[float, ...]:
    """The weights of the mean of the last so many of the members."""
    return (0.0,) * (members - last) + (1 / last,) * last


def select_last(held_out: HeldOut, metric: AnyMetric = "log_loss") -> Selection:
    """The mean of the last m members, with the m of the best score; of equals the least m.

    Args:
        held_out: the members' predictions.
        metric: what to make least: any that `fit` takes.

    Returns:
        The selection; its path has the score of each m from 1.

    Raises:
        EnsembleError: no such metric.

    Example:
        >>> members = [[[0.1, 0.9]], [[0.9, 0.1]], [[0.8, 0.2]]]
        >>> select_last(HeldOut(members, [0])).weights
        (0.0, 0.5, 0.5)
    """
    name = measure_of(metric).name
    path = tuple(row[name] for row in last_scores(held_out, metric))
    best = path.index(min(path))
    return Selection(weights=last_weights(len(held_out), best + 1), score=path[best], path=path)


def select_greedy(
    held_out: HeldOut,
    metric: AnyMetric = "log_loss",
    *,
    steps: int = 50,
    initial: int | None = None,
    bags: int = 0,
    bag_fraction: float = 0.5,
    seed: int = 0,
    calibrated: bool = False,
) -> Selection:
    """Members picked one after the other, with replacement, each for the best score of the mean.

    It starts with the `initial` best members by their own score, then adds
    `steps` times the member with which the mean scores best, and returns the
    best mean that it passed. Of equal members the later one is picked. With
    `bags`, it does so among each of so many random parts of the members, and
    takes the mean of what they return, which is less prone to fit the noise.

    Args:
        held_out: the members' predictions.
        metric: what to make least: any that `fit` takes. All but "log_loss" and
            "brier" need all predictions in memory, in float64; all but these and
            "error" score every mean anew, `steps + 1` times as many as members.
        steps: how many picks.
        initial: with how many to start; by default as many as score best.
        bags: how many random parts; 0 picks among all members, once.
        bag_fraction: the share of the members in each part.
        seed: of the parts.
        calibrated: for "log_loss" alone: make it least at each mean's own best temperature.
            What one member more would do is told to second order in the temperature, and
            what was picked is scored exactly: the result is not above the best single
            member's. It takes some 20 times as long.

    Returns:
        The selection; its path has the score after each pick (not with bags).

    Raises:
        EnsembleError: no such metric, a number that cannot be, or another metric than
            "log_loss" with `calibrated`.

    Example:
        >>> members = [[[0.9, 0.1], [0.8, 0.2]], [[0.2, 0.8], [0.3, 0.7]]]
        >>> [round(w, 3) for w in select_greedy(HeldOut(members, [0, 1]), steps=7).weights]
        [0.556, 0.444]

    Source: Caruana et al., "Ensemble Selection from Libraries of Models" (2004),
    section 2; the bags are those of section 2.3.
    """
    measure = measure_of(metric)
    if calibrated and measure.name != "log_loss":
        raise EnsembleError(
            "Argument `metric` must be 'log_loss' for calibrated=True. "
            f"Received: metric={shown(metric)}"
        )

    def objective(members: NDArray[np.intp]) -> Objective:
        if calibrated:
            return CalibratedLogLoss(held_out, members)
        return objective_of(held_out, members, measure)

    weights, path = greedy(
        objective,
        len(held_out),
        steps=steps,
        initial=initial,
        bags=bags,
        bag_fraction=bag_fraction,
        seed=seed,
    )
    found = tuple(weights.tolist())
    rows = held_out.pooled(weights)
    if calibrated:
        temperature, score = best_temperature(rows, held_out.labels)
        return Selection(weights=found, score=score, path=path, temperature=temperature)
    score = min(path) if path else measure.value(rows, held_out.labels)
    return Selection(weights=found, score=score, path=path)


def select_weights(
    held_out: HeldOut,
    *,
    tolerance: float = 1e-10,
    iterations: int = 200,
    calibrated: bool = False,
) -> Selection:
    """The weights of the least log-loss: `min_w -mean(log(sum_m w_m p_m[y]))` over the simplex.

    The log-loss is convex in `w`, and `max_m mean(p_m[y] / sum_m w_m p_m[y]) - 1`
    is by how much it can at most be above the least one: the duality gap. The
    search, by quadratic models whose minimum over `w >= 0` is exact, ends when
    the gap is below the tolerance. Members that do not help get weight 0.

    Args:
        held_out: the members' predictions.
        tolerance: the gap to reach, in nats.
        iterations: how many models at most; some ten are usual.
        calibrated: make the log-loss at the mean's own best temperature the least:
            `min_{w, T} -mean(log softmax(log(sum_m w_m p_m) / T)[y])`. It need not be convex
            in `w`, so there is no gap. The search begins with the best of these: the weights
            of the least plain log-loss, each member alone, and the mean of the last 2, 3, ...;
            each step follows a quadratic model, finds the temperature anew, exactly, and is
            taken only where the calibrated log-loss falls. So the result is not above any of
            these. It ends where no member's growing share lowers it by more than 1e-7 nats
            for each unit of share.

    Returns:
        The selection, with its gap; its path has the log-loss of each iterate.

    Warns:
        RuntimeWarning: the gap was not reached.

    Example:
        >>> members = [[[0.9, 0.1], [0.8, 0.2]], [[0.2, 0.8], [0.3, 0.7]]]
        >>> found = select_weights(HeldOut(members, [0, 1]))
        >>> [round(w, 4) for w in found.weights], found.gap < 1e-10
        ([0.5571, 0.4429], True)

    Source: Kim et al., "A Fast Algorithm for Maximum Likelihood Estimation of
    Mixture Proportions Using Sequential Quadratic Programming" (2020); the gap
    is that of Lindsay, "The Geometry of Mixture Likelihoods" (1983).
    """
    found = least_log_loss(
        held_out.likelihoods, held_out.weights, tolerance=tolerance, iterations=iterations
    )
    if calibrated:
        members = len(held_out)
        lasts = [np.array(last_weights(members, m)) for m in range(2, members + 1)]
        joint = least_calibrated(held_out, [found.weights, *np.eye(members), *lasts])
        return Selection(
            weights=tuple(joint.weights.tolist()),
            score=joint.score,
            path=joint.path,
            temperature=joint.temperature,
        )
    return Selection(
        weights=tuple(found.weights.tolist()), score=found.score, path=found.path, gap=found.gap
    )
