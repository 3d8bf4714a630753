"""One model from the weights of several members: what it is, and whether it may be."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, overload

import numpy as np

from ..core.errors import EnsembleError, shown
from ..snapshots.store import Snapshot
from .analysis import Interpolation
from .arrays import as_floats
from .batches import Batches
from .metrics import brier_score, error_rate, log_loss, rmse
from .pooling import ValuePool
from .weights import (
    Weights,
    average_weights,
    exponential_weights,
    greedy_soup,
    interpolate_weights,
)

if TYPE_CHECKING:
    from .base import BaseEnsemble

SoupName: TypeAlias = Literal["uniform", "greedy", "exponential"]

# Layers with running statistics: what an error calls each, and what its adapter knows it by.
Layers: TypeAlias = Sequence[tuple[str, Any]]

# By how much of the ends' mean loss it may rise between two members.
BARRIER: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AveragedWeights:
    """The mean of some members' weights: one model, at the cost of one.

    Scores are by name: "log_loss", "brier" and "error", or of values "mse".
    They are None, and the lists of them empty, where no validation data were given.

    Args:
        weights: the mean, in the framework's own form: for torch what
            `load_state_dict` of the model takes; for JAX the pytree of the
            params; for Keras what `set_weights` of the model takes.
        members: the snapshots in it: oldest first, or of soup="greedy" in the
            order in which they were taken.
        shares: the share of each in the mean; they sum to 1.
        scores: of the averaged model.
        ensemble_scores: of the ensemble, as `predict` gives it.
        member_scores: of each of `members` alone.
        barriers: the loss on the way from each of `members` to the next; none of
            soup="greedy".
        statistics: whether running statistics were estimated anew.
    """

    weights: Any = field(repr=False)
    members: tuple[Snapshot, ...]
    shares: tuple[float, ...]
    scores: dict[str, float] | None
    ensemble_scores: dict[str, float] | None
    member_scores: tuple[dict[str, float], ...]
    barriers: tuple[Interpolation, ...]
    statistics: bool


class Judge:
    """The scores of predictions on validation data.

    Args:
        labels: the truth.
        values: whether predictions are values of a regression.
        class_axis: the axis of the classes, or None.
    """

    def __init__(self, labels: Any, *, values: bool, class_axis: int | None) -> None:
        self._labels, self._values, self._class_axis = labels, values, class_axis
        # What the loss is called in `scores`, and in a sentence.
        self.loss_name, self.title = ("mse", "MSE") if values else ("log_loss", "log-loss")

    def scores(self, prediction: Any) -> dict[str, float]:
        """The scores of probabilities, or of values."""
        if self._values:
            return {"mse": rmse(prediction, self._labels) ** 2}
        return {
            "log_loss": log_loss(prediction, self._labels, class_axis=self._class_axis),
            "brier": brier_score(prediction, self._labels, class_axis=self._class_axis),
            "error": error_rate(prediction, self._labels, class_axis=self._class_axis),
        }

    def all_scores(self, prediction: Any) -> dict[str, float]:
        """The scores; of a prediction that is not finite, infinity."""
        if np.isfinite(as_floats(prediction)).all():
            return self.scores(prediction)
        names = ("mse",) if self._values else ("log_loss", "brier", "error")
        return dict.fromkeys(names, math.inf)


class Moments:
    """The mean and the variance of numbers that come in batches, each number with the same weight.

    `M2 = sum_b n_b v_b + n_a n_b (m_b - m_a)**2 / (n_a + n_b)`, batch after batch

    with the number `n`, the mean `m` and the variance `v` of a batch, and of all
    before it: as if all had come in one batch. In the precision of what it is
    given, element by element of arrays.

    Example:
        >>> moments = Moments()
        >>> moments.update(2, 1.0, 1.0)  # of 0 and 2
        >>> moments.update(1, 4.0, 0.0)
        >>> moments.mean, round(moments.variance(), 4)
        (2.0, 2.6667)

    Source: Chan, Golub & LeVeque, "Updating Formulae and a Pairwise Algorithm for
    Computing Sample Variances" (1979), Eq. 2.1.
    """

    __slots__ = ("_squares", "count", "mean")

    def __init__(self) -> None:
        self.count: Any = 0.0
        self.mean: Any = 0.0
        self._squares: Any = 0.0

    def update(self, count: Any, mean: Any, variance: Any) -> None:
        """Take in a batch of so many numbers (at least one), its mean and its variance."""
        total = self.count + count
        away = mean - self.mean
        between = away * away * (self.count * count / total)
        self._squares = self._squares + variance * count + between
        self.mean = self.mean + away * (count / total)
        self.count = total

    def variance(self, correction: int = 0) -> Any:
        """The variance; with correction=1 the unbiased one, of at least two numbers."""
        return self._squares / (self.count - correction)


def check_soup(soup: object, decay: float | None, members: int) -> tuple[float, ...] | None:
    """The shares of members in a mean, oldest first; None where they are for the greedy soup."""
    if soup == "exponential":
        if decay is None:
            raise EnsembleError(
                "Argument `decay` must be given for soup='exponential'. Received: none; give a "
                "number in (0, 1], such as 0.5"
            )
        return exponential_weights(members, decay)
    if decay is not None:
        raise EnsembleError(
            "Argument `decay` must be left out but for soup='exponential'. "
            f"Received: decay={shown(decay)}, soup={shown(soup)}"
        )
    if soup == "uniform":
        return (1 / members,) * members
    if soup == "greedy":
        return None
    raise EnsembleError(
        "Argument `soup` must be 'uniform', 'greedy' or 'exponential'. "
        f"Received: soup={shown(soup)}"
    )


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
    first, second = (member.path.name for member in members)
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


class Averaging:
    """The mean of some of an ensemble's members, under way.

    Args:
        ensemble: the ensemble.
        members: those to average, oldest first.
        train: what statistics are estimated from; None where there are none.
        layers: those whose statistics are.
        inner: where to measure the loss between two members.
    """

    def __init__(
        self,
        ensemble: BaseEnsemble[Any],
        members: Sequence[Snapshot],
        train: Batches | None,
        layers: Layers,
        inner: Sequence[float],
    ) -> None:
        self._ensemble, self._members = ensemble, members
        self._train, self._layers, self._inner = train, layers, inner
        self._batches: Batches | None = None
        self._judge = Judge(None, values=False, class_axis=None)  # until labels are there
        self._scores: dict[Snapshot, dict[str, float]] = {}
        self._ensemble_scores: dict[str, float] | None = None
        # What the default tolerance would have refused.
        self._passed: list[str] = []

    def measure(self, batches: Batches, labels: Any) -> None:
        """Score every member, and the ensemble, on validation data."""
        ensemble = self._ensemble
        values = ensemble.outputs == "values"
        self._batches = batches
        labels = batches.labels() if labels is None else labels
        self._judge = judge = Judge(labels, values=values, class_axis=ensemble.class_axis)
        choice = ensemble.choice
        pool, value_pool = ensemble._pool(), ValuePool[Any]()
        weights = [1.0] * len(ensemble) if choice is None else choice.weights
        for snapshot, weight in zip(ensemble.members, weights, strict=True):
            if not weight and snapshot not in self._members:
                continue
            output = ensemble._predicted(ensemble._load(snapshot), batches)
            (value_pool if values else pool).update(output, weight)
            if snapshot in self._members:
                self._scores[snapshot] = judge.scores(ensemble._wide(output))
        pooled = value_pool.mean if values else pool.wide if choice is None else choice.finish(pool)
        if ensemble.pooling == "log-probabilities":
            pooled = np.exp(as_floats(pooled))
        self._ensemble_scores = judge.scores(pooled)

    def mean(self, mixture: Sequence[float], tolerance: float) -> AveragedWeights:
        """The mean at given shares, unless a barrier is in the way."""
        barriers: list[Interpolation] = []
        # With no limit set, the mean is taken, and what the default would refuse is said.
        limit = BARRIER if tolerance == math.inf else tolerance
        pairs = zip(self._members, self._members[1:], strict=False)
        for pair in pairs if self._batches is not None else ():
            barriers.append(self._between(*pair))
            self._check(too_high(barriers[-1], pair, limit, self._judge.title), tolerance)
        ensemble = self._ensemble
        named = average_weights(
            (ensemble._by_name(ensemble._load(each)) for each in self._members), weights=mixture
        )
        weights = self._estimated(named, len(self._members))
        found = self._finished(weights, self._members, mixture, barriers)
        if found.scores is not None and len(self._members) > 1:
            name = self._judge.loss_name
            losses = [score[name] for score in found.member_scores]
            line = math.fsum(a * b for a, b in zip(mixture, losses, strict=True))
            self._check(
                mean_too_high(found.scores[name], line, limit, self._judge.title), tolerance
            )
        if self._passed:
            warnings.warn(
                f"The weights were averaged across a barrier: {'; '.join(self._passed)}. Compare "
                "the scores with the ensemble's before the mean is used",
                UserWarning,
                stacklevel=3,
            )
        return found

    def greedy(self) -> AveragedWeights:
        """The mean of those that do not make it worse."""
        if len(self._members) == 1:
            return self.mean((1.0,), math.inf)
        ensemble, name = self._ensemble, self._judge.loss_name
        soup = greedy_soup(
            _Loaded(ensemble, self._members),
            lambda named: self._loss(self._estimated(named, 2)),
            alone=[self._scores[member][name] for member in self._members],
        )
        taken = [self._members[i] for i in soup.members]
        weights = self._estimated(soup.weights, len(taken))
        return self._finished(weights, taken, (1 / len(taken),) * len(taken), ())

    def _between(self, first: Snapshot, second: Snapshot) -> Interpolation:
        """The loss on the way from a member to the next."""
        ensemble, name = self._ensemble, self._judge.loss_name
        start, end = (ensemble._by_name(ensemble._load(each)) for each in (first, second))
        losses = [
            self._loss(self._estimated(interpolate_weights(start, end, share), 2))
            for share in self._inner
        ]
        return Interpolation.of(
            (0.0, *self._inner, 1.0),
            (self._scores[first][name], *losses, self._scores[second][name]),
        )

    def _estimated(self, named: Weights, members: int) -> Any:
        """Weights that are a mean of so many members', with statistics of their own."""
        weights = self._ensemble._from_names(named)
        if self._train is None or members == 1:
            return weights
        return self._ensemble._reestimated(weights, self._layers, self._train)

    def _loss(self, weights: Any) -> float:
        batches = cast(Batches, self._batches)
        output = self._ensemble._predicted(weights, batches)
        return self._judge.all_scores(self._ensemble._wide(output))[self._judge.loss_name]

    def _check(self, reason: str | None, tolerance: float) -> None:
        if reason is None:
            return
        if tolerance < math.inf:
            raise EnsembleError(
                "The members must lie in one valley of the loss for a mean of their weights. "
                f"Received: {reason}; predict with the ensemble instead, average fewer members "
                "(last=), or give barrier=math.inf for the mean all the same"
            )
        self._passed.append(reason)

    def _finished(
        self,
        weights: Any,
        members: Sequence[Snapshot],
        shares: Sequence[float],
        barriers: Sequence[Interpolation],
    ) -> AveragedWeights:
        scores = None
        if self._batches is not None:
            # A mean may overflow where no member does.
            output = self._ensemble._predicted(weights, self._batches)
            scores = self._judge.all_scores(self._ensemble._wide(output))
        return AveragedWeights(
            weights=self._ensemble._handed_out(weights),
            members=tuple(members),
            shares=tuple(shares),
            scores=scores,
            ensemble_scores=self._ensemble_scores,
            member_scores=tuple(self._scores[each] for each in members if each in self._scores),
            barriers=tuple(barriers),
            statistics=self._train is not None and len(members) > 1,
        )


class _Loaded(Sequence[Weights]):
    """Members' weights, each loaded when it is asked for."""

    def __init__(self, ensemble: BaseEnsemble[Any], members: Sequence[Snapshot]) -> None:
        self._ensemble, self._members = ensemble, members

    def __len__(self) -> int:
        return len(self._members)

    @overload
    def __getitem__(self, i: int) -> Weights: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Weights]: ...
    def __getitem__(self, i: int | slice) -> Weights | Sequence[Weights]:
        if isinstance(i, slice):
            return _Loaded(self._ensemble, self._members[i])
        return self._ensemble._by_name(self._ensemble._load(self._members[i]))
