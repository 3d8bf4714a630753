"""One model from the weights of several members, if the loss between them lets it be one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias, Unpack, cast, overload

import numpy as np

from ...core.errors import EnsembleError, shown
from ...core.warn import warn
from ...snapshots.store import Snapshot
from ..arrays import SMALLEST, as_floats, check_count
from ..choose.calibration import row_temperature, tempered
from ..choose.choice import Choice
from ..labels import LabelOptions
from ..members import Members
from ..model import Model, Weights
from ..predict.batches import Batches
from ..predict.gaussian import GaussianPool, is_pair, pair_of
from ..predict.outputs import OutputSpec
from ..predict.pooling import Pool
from ..predict.sample import SAMPLES, Sample, check_samples
from ..predict.taken import Taken
from ..predict.validation import Validation
from ..score.metrics import METRICS, checked_rows, row_scores
from ..score.regression import gaussian_nll, mse
from .barrier import BARRIER, Interpolation, check_inner, check_tolerance, mean_too_high, too_high
from .means import average_weights, exponential_weights, greedy_soup, interpolate_weights
from .one_model import AveragedWeights, OneModel

SoupName: TypeAlias = Literal["uniform", "greedy", "exponential"]

# Of outputs other than classes, what the loss is called in scores and in a sentence.
_LOSSES: Final = {"values": ("mse", "MSE"), "gaussian": ("equivalent_mse", "equivalent MSE")}


class RecipeOptions(LabelOptions, total=False):
    """Which members are averaged, at which shares, what barrier is allowed, and what counts.

    Args:
        last: of so many of the newest members; by default of all. With
            soup="uniform" it is the window of latest weight averaging (LAWA).
        soup: "uniform" (the default), where all count the same; "exponential",
            the moving average with `decay`; or "greedy", which begins with the
            member of the lowest loss and takes those that do not make it worse,
            from the best one down. That is a stricter test than the barrier's,
            which is left out.
        decay: of soup="exponential", in (0, 1]: a member counts `decay` times as
            much as the next, as `cosanneal.ensemble.exponential_weights` has it.
        barrier: by how much the loss may rise, as a share of the mean loss of
            the ends; 0.1, the default, lets it grow by a tenth. `math.inf` takes
            the mean all the same, with a warning where 0.1 would refuse it.
        shares: where to measure between two members, as shares of the way; by
            default at a quarter, a half and three quarters. Each takes a pass over
            the validation data, and with running statistics one over the sample of the
            training data.
        temperature: whether the mean gets a temperature by the validation data; by default
            it does, where these have classes or outcomes.
        samples: from how many samples of the training data running statistics are estimated,
            by default 2048, drawn at random; None for all. `AveragedWeights` says how.
        seed: of the draw; 0 by default.
    """

    last: int | None
    soup: SoupName
    decay: float | None
    barrier: float
    shares: Sequence[float]
    temperature: bool
    samples: int | None
    seed: int


class Judge:
    """The scores of predictions on validation data.

    Args:
        labels: the truth.
        spec: what the predictions are.
        options: which of the labels count, and how much.
    """

    def __init__(self, labels: Any, spec: OutputSpec, options: LabelOptions | None = None) -> None:
        self._labels, self._options = labels, options or LabelOptions()
        self._outputs, self._class_axis = spec.outputs, spec.class_axis
        # What the loss is called in `scores`, and in a sentence.
        self.loss_name: str
        self.title: str
        self.loss_name, self.title = _LOSSES.get(spec.outputs, ("log_loss", "log-loss"))

    def scores(self, prediction: Any) -> dict[str, float]:
        """The scores of probabilities, of values, or of a mean and a variance."""
        if self._outputs in _LOSSES:
            return self._of_targets(prediction)
        rows, y = checked_rows(prediction, self._labels, self._class_axis, self._options)
        return {name: y.mean(row_scores(name, rows, y)) for name in METRICS}

    def all_scores(self, prediction: Any) -> dict[str, float]:
        """The scores; of a prediction that is not finite, infinity."""
        parts = pair_of(prediction) if is_pair(prediction) else (prediction,)
        if all(np.isfinite(as_floats(part)).all() for part in parts):
            with np.errstate(over="ignore"):
                return self.scores(prediction)
        names: dict[str, Sequence[str]] = {
            "values": ("mse",),
            "gaussian": ("gaussian_nll", "mse", "equivalent_mse"),
        }
        return dict.fromkeys(names.get(self._outputs, METRICS), math.inf)

    def calibrated(
        self, prediction: Any, otherwise: Any = None
    ) -> tuple[float, dict[str, float] | None]:
        """The temperature of the least log-loss, and the scores at it; of values 1, and none.

        Args:
            prediction: the probabilities.
            otherwise: of outcomes, 1 less these, where that is known to more digits.
        """
        if self._outputs in _LOSSES:
            return 1.0, None
        rows, y = checked_rows(prediction, self._labels, self._class_axis, self._options)
        if otherwise is not None:
            more, _ = checked_rows(otherwise, self._labels, self._class_axis, self._options)
            rows = np.stack([more[:, 1], rows[:, 1]], axis=1)
        temperature = row_temperature(rows, y)
        rows = tempered(rows, temperature, -1)
        return temperature, {name: y.mean(row_scores(name, rows, y)) for name in METRICS}

    def _of_targets(self, prediction: Any) -> dict[str, float]:
        """The scores of a regression, whose targets have weights, but are no labels."""
        counted = ("mask", "sample_weight")
        # Of batches of several lengths it is known how many each sample has, which no mean needs.
        given = {
            name: each
            for name, each in self._options.items()
            if each is not None and name != "counts"
        }
        for name in given:
            if name not in counted:
                raise EnsembleError(
                    f"Argument `{name}` must be left out for outputs={self._outputs!r}, whose "
                    "targets are no labels. Received: one"
                )
        if self._outputs == "values":
            return {"mse": mse(prediction, self._labels, **given)}
        means, variances = pair_of(prediction)
        floor = np.maximum(as_floats(variances), SMALLEST)
        nll = gaussian_nll(means, floor, self._labels, **given)
        with np.errstate(over="ignore"):
            equivalent = float(np.exp(2 * nll - 1) / (2 * np.pi))
        return {
            "gaussian_nll": nll,
            "mse": mse(means, self._labels, **given),
            "equivalent_mse": equivalent,
        }


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Which of the members are averaged, at which shares, and what barrier is allowed.

    Args:
        members: how many of the newest.
        mixture: the share of each, oldest first; None where they are for the greedy soup.
        tolerance: by how much the loss may rise, as a share of the ends' mean.
        inner: where to measure the loss between two members.
        options: which labels of the validation data count, and how much.
        temperature: whether to fit one.
        samples: of the training data, for statistics; None for all.
        seed: by which they are drawn.
    """

    members: int
    mixture: tuple[float, ...] | None
    tolerance: float
    inner: tuple[float, ...]
    options: LabelOptions = field(default_factory=LabelOptions)
    temperature: bool = True
    samples: int | None = SAMPLES
    seed: int = 0

    @classmethod
    def of(
        cls,
        members: int,
        *,
        last: int | None = None,
        soup: SoupName = "uniform",
        decay: float | None = None,
        barrier: float = BARRIER,
        shares: Sequence[float] = (0.25, 0.5, 0.75),
        temperature: bool = True,
        samples: int | None = SAMPLES,
        seed: int = 0,
        **options: Unpack[LabelOptions],
    ) -> Recipe:
        """The recipe for an ensemble of so many members, from what a user gives: `RecipeOptions`.

        Raises:
            EnsembleError: arguments that cannot be.
        """
        if last is not None:
            last = check_count("last", last)
            if last > members:
                raise EnsembleError(
                    f"Argument `last` must be at most {members}, the members there are. "
                    f"Received: last={last}"
                )
            members = last
        return cls(
            members=members,
            mixture=check_soup(soup, decay, members),
            tolerance=check_tolerance(barrier),
            inner=check_inner(shares),
            options=options,
            temperature=temperature,
            samples=check_samples(samples),
            seed=check_count("seed", seed, minimum=0),
        )


class Averaging:
    """The mean of some members' weights, under way.

    Args:
        model: the model that they are loaded into.
        members: what loads them.
        taken: which of the model's outputs they are judged by.
        recipe: which are averaged, and how.
        train_data: what statistics are estimated from, where there are any.
        batch_size: of these data.
        all_taken: all of the outputs, which are predicted.

    Raises:
        EnsembleError: there are running statistics, and no data; or a model in shards.
    """

    def __init__(
        self,
        model: Model[Any],
        members: Members,
        taken: Taken,
        recipe: Recipe,
        train_data: Any,
        batch_size: int | None,
        all_taken: Taken,
    ) -> None:
        self._model, self._members, self._recipe = model, members, recipe
        self._taken, self._all_taken, self._spec = taken, all_taken, taken.found.spec
        self._chosen = members.snapshots[-recipe.members :]
        self._data: Validation | None = None
        self._judge = Judge(None, self._spec, recipe.options)  # until labels are there
        self._scores: dict[Snapshot, dict[str, float]] = {}
        self._ensemble_scores: dict[str, float] | None = None
        # What the default tolerance would have refused.
        self._passed: list[str] = []
        self._layers: Sequence[str] = ()
        self._train: Batches | None = None
        self._sample: Sample | None = None  # of these, once it is drawn
        if not model.ranks.alone:
            raise EnsembleError(
                "The model must not be sharded for average_weights. Received: one of which each "
                "process has a part; average the files, by cosanneal.ensemble.average_snapshots, "
                "and load that"
            )
        if recipe.members > 1:
            loading = [lambda each=each: members.load(each) for each in self._chosen]
            self._layers = model.running_statistics(loading)
        if self._layers:
            if train_data is None:
                raise EnsembleError(
                    "Argument `train_data` must be given for a model with running statistics, "
                    f"which a mean of weights needs anew. Received: none, and {self._layers[0]!r}; "
                    "give input from the training data"
                )
            self._train = model.batches(train_data, batch_size, training=True, name="train_data")

    def measure(
        self,
        data: Validation,
        weights: Mapping[Snapshot, float],
        choice: Choice | None,
    ) -> None:
        """Score every member to average on validation data, and the ensemble.

        Args:
            data: the validation data.
            weights: of the members in the ensemble.
            choice: by which the ensemble predicts, if there is one.
        """
        self._data = data
        pool: Pool[Any] | GaussianPool[Any] | None = None
        for snapshot in self._members:
            weight = weights.get(snapshot, 0.0)
            if weight or snapshot in self._chosen:
                output = self._outputs(self._members.load(snapshot), snapshot)
                if pool is None:  # it is known now what outputs are
                    spec = self._spec = data.spec
                    options = cast(LabelOptions, data.label_options(self._recipe.options))
                    pool, self._judge = spec.pool(), Judge(data.labels, spec, options)
                pool.update(output, weight)
                if snapshot in self._chosen:
                    self._scores[snapshot] = self._judge.scores(self._spec.wide(output))
        spec, pool = self._spec, cast("Pool[Any] | GaussianPool[Any]", pool)
        pooled = pool.wide
        if choice is not None:
            pooled = replace(choice, class_axis=spec.class_axis).finish(pool)
        if spec.pooling == "log-probabilities":
            pooled = np.exp(as_floats(pooled))
        self._ensemble_scores = self._judge.scores(pooled)

    def result(self) -> AveragedWeights:
        """The mean by the recipe.

        Raises:
            EnsembleError: a barrier is in the way, or what must be was not measured.
        """
        recipe = self._recipe
        free = recipe.mixture is not None and recipe.tolerance == math.inf
        if self._data is None and recipe.members > 1 and not free:
            raise EnsembleError(
                "Argument `x_val` must be given for the loss between the members to be measured. "
                "Received: none; give validation data, or barrier=math.inf and another soup than "
                "'greedy' for the mean unmeasured"
            )
        if recipe.members == 1:
            return self._mean((1.0,))
        return self._greedy() if recipe.mixture is None else self._mean(recipe.mixture)

    def _mean(self, mixture: Sequence[float]) -> AveragedWeights:
        """The mean at given shares, unless a barrier is in the way."""
        tolerance = self._recipe.tolerance
        barriers: list[Interpolation] = []
        # With no limit set, the mean is taken, and what the default would refuse is said.
        limit = BARRIER if tolerance == math.inf else tolerance
        pairs = zip(self._chosen, self._chosen[1:], strict=False)
        for pair in pairs if self._data is not None else ():
            barriers.append(self._between(*pair))
            self._check(too_high(barriers[-1], pair, limit, self._judge.title), tolerance)
        mean = self._model.load(self._averaged(mixture))
        found = self._finished(
            self._estimated(mean, len(self._chosen)), self._chosen, mixture, barriers
        )
        if found.scores is not None and len(self._chosen) > 1:
            name = self._judge.loss_name
            losses = [score[name] for score in found.member_scores]
            line = math.fsum(a * b for a, b in zip(mixture, losses, strict=True))
            self._check(
                mean_too_high(found.scores[name], line, limit, self._judge.title), tolerance
            )
        if self._passed:
            warn(
                f"The weights were averaged across a barrier: {'; '.join(self._passed)}. Compare "
                "the scores with the ensemble's before the mean is used"
            )
        return found

    def _averaged(self, mixture: Sequence[float]) -> Weights:
        """The mean by name; of what all leave out, the model's own, no sum is made."""
        left_out = set.intersection(
            *({*(each.metadata.get("rest") or ())} for each in self._chosen)
        )
        newest: Weights = {}

        def recorded() -> Iterator[Weights]:
            nonlocal newest
            for each in self._chosen:
                newest = self._members.load(each)
                yield {name: value for name, value in newest.items() if name not in left_out}

        mean = average_weights(recorded(), weights=mixture)
        return {name: mean.get(name, value) for name, value in newest.items()}

    def _greedy(self) -> AveragedWeights:
        """The mean of those that do not make it worse."""
        name = self._judge.loss_name
        soup = greedy_soup(
            _Loaded(self._members, self._chosen),
            lambda weights: self._loss(self._estimated(weights, 2)),
            alone=[self._scores[member][name] for member in self._chosen],
        )
        taken = [self._chosen[i] for i in soup.members]
        weights = self._estimated(soup.weights, len(taken))
        return self._finished(weights, taken, (1 / len(taken),) * len(taken), ())

    def _between(self, first: Snapshot, second: Snapshot) -> Interpolation:
        """The loss on the way from a member to the next."""
        name, inner = self._judge.loss_name, self._recipe.inner
        start, end = self._members.load(first), self._members.load(second)
        losses = [
            self._loss(self._estimated(interpolate_weights(start, end, share), 2))
            for share in inner
        ]
        ends = self._scores[first][name], self._scores[second][name]
        return Interpolation.of((0.0, *inner, 1.0), (ends[0], *losses, ends[1]))

    def _estimated(self, named: Mapping[str, Any], members: int) -> Weights:
        """Weights that are a mean of so many members', with statistics of their own."""
        weights = self._model.load(named)
        if self._train is None or members == 1:
            return weights
        if self._sample is None:
            self._sample = Sample.of(self._train, self._recipe.samples, self._recipe.seed)
        return self._model.estimate(weights, self._layers, self._sample)

    def _outputs(self, weights: Weights, *member: Snapshot) -> Any:
        return cast(Validation, self._data).outputs(weights, *member)

    def _loss(self, weights: Weights) -> float:
        # A mean may overflow where no member does.
        prediction = self._spec.wide(self._outputs(weights))
        return self._judge.all_scores(prediction)[self._judge.loss_name]

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
        weights: Weights,
        members: Sequence[Snapshot],
        shares: Sequence[float],
        barriers: Sequence[Interpolation],
    ) -> AveragedWeights:
        scores = calibrated = None
        temperature = 1.0
        if self._data is not None:
            output = self._outputs(weights)
            prediction = self._spec.wide(output)
            scores = self._judge.all_scores(prediction)
            if self._recipe.temperature and scores[self._judge.loss_name] < math.inf:
                of_logits = self._spec.outputs == "logits" and self._spec.class_axis is None
                otherwise = self._spec.wide(-output) if of_logits else None
                temperature, calibrated = self._judge.calibrated(prediction, otherwise)
        sample = self._sample
        names = f"{members[0].path.name} and {len(members) - 1} more"
        return AveragedWeights(
            weights=self._model.export(weights),
            members=tuple(members),
            shares=tuple(shares),
            scores=scores,
            calibrated_scores=calibrated,
            temperature=temperature,
            ensemble_scores=self._ensemble_scores,
            member_scores=tuple(self._scores[each] for each in members if each in self._scores),
            barriers=tuple(barriers),
            statistics=self._train is not None and len(members) > 1,
            samples=None if sample is None else sample.samples,
            seed=None if sample is None else sample.seed,
            predictor=OneModel(
                self._model,
                self._members,
                self._all_taken,
                self._taken.found,
                weights,
                f"the mean of the weights of {names}",
            ),
        )


class _Loaded(Sequence[Weights]):
    """Members' weights, each loaded when it is asked for."""

    def __init__(self, members: Members, snapshots: Sequence[Snapshot]) -> None:
        self._members, self._snapshots = members, snapshots

    def __len__(self) -> int:
        return len(self._snapshots)

    @overload
    def __getitem__(self, i: int) -> Weights: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Weights]: ...
    def __getitem__(self, i: int | slice) -> Weights | Sequence[Weights]:
        if isinstance(i, slice):
            return _Loaded(self._members, self._snapshots[i])
        return self._members.load(self._snapshots[i])
