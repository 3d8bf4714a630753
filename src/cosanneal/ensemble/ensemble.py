"""The snapshot ensemble: one prediction from the members of a run, composed of its parts.

What a framework is needed for is a `Model`, which an adapter hands in. Which
members there are, how they are run, what is chosen among them and how their
weights are averaged stand in rooms of their own.
"""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Self, Unpack, cast

from ..core.errors import EnsembleError
from ..core.keywords import takes_options
from ..snapshots.sources import Source
from ..snapshots.store import Snapshot, SnapshotStore
from .cautions import warn_of_one
from .choose.budget import running_order
from .choose.choice import Choice, FitOptions
from .findings import EvaluateOptions
from .fitting import check_early, evaluate_members, fit_members, load_choice
from .members import Chosen, Members, Picked, check_alike
from .model import ArrayT, Model
from .predict.classes import Classes
from .predict.found import FoundOutputs
from .predict.modes import Finish, Modes, PredictOptions
from .predict.outputs import Auto, Outputs, OutputSpec, Structure
from .predict.pooling import Pooling
from .predict.ragged import Ragged
from .predict.taken import Taken
from .predict.uncertainty import uncertainty_of, uncertainty_pool
from .predict.validation import Validation
from .weights.averaging import Averaging, Recipe, RecipeOptions
from .weights.one_model import AveragedWeights


class SnapshotEnsemble(Generic[ArrayT]):
    """One prediction from the last snapshots of a run.

    It can be pickled, for other processes (spawned ones, Ray, Spark), and copied: what goes
    along is the model, the choice, and where the files are, of which each process
    reads the members anew. Functions that were given must be ones that can be pickled.

    Attributes:
        model: what the members are loaded into.
        choice: what `fit` chose or `load` read, and `predict` goes by; None for
            all members at the same weight.

    Args:
        model: the model, as its framework's adapter makes it.
        folder: the folder of the snapshots, a file of one, a `Snapshot`, or a list of
            these: of several runs, say. The members are in the list's order, and those
            of a folder oldest first.
        last: this and what follows: see `EnsembleOptions`.

    Raises:
        EnsembleError: an argument that cannot be, too few snapshots, or the same one twice.

    Example: see the `SnapshotEnsemble` of an adapter, which makes the model.
    """

    def __init__(
        self,
        model: Model[ArrayT],
        folder: Source | Sequence[Source],
        *,
        last: int | None = None,
        members: Chosen | None = None,
        outputs: Outputs | Auto | Structure = "auto",
        output: str | int | None = None,
        class_axis: int | Auto | Structure | None = "auto",
        pooling: Pooling | Structure = "probabilities",
    ) -> None:
        self.model: Model[ArrayT] = model
        self._settings = outputs, class_axis, pooling, output
        self._begin(Members(model, Picked.of(folder, last, members)))

    def _begin(self, members: Members) -> None:
        self._members, self.choice = members, cast(Choice | None, None)
        self._told = self.choice  # that it is of one member
        self._taken = Taken.of(self.model, *self._settings)
        self._modes, self._classes = _run_by(self.model, members, self._taken)

    def __getstate__(self) -> dict[str, Any]:
        """What copies and other processes get: the files' places, and no member's weights."""
        left_out = ("_modes", "_classes")
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._modes, self._classes = _run_by(self.model, self._members, self._taken)

    def __add__(self, other: Self) -> Self:
        """Both's members, without what either chose; of the very same model and options."""
        if not isinstance(other, SnapshotEnsemble):
            return NotImplemented
        check_alike(self.model, other.model, self._settings, other._settings)
        added = copy.copy(self)
        added._begin(self._members + other._members)
        return added

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        steps = ", ".join(str(snapshot.step) for snapshot in self._members)
        return f"<{type(self).__name__} of {len(self)} snapshots of {self._members.where}: {steps}>"

    @property
    def members(self) -> tuple[Snapshot, ...]:
        """The snapshots of the ensemble, in its order: of a folder, oldest first."""
        return self._members.snapshots

    @property
    def stores(self) -> tuple[SnapshotStore, ...]:
        """The folders that were given, in order."""
        return self._members.stores

    @property
    def measured(self) -> Mapping[str, float]:
        """The seconds of a batch in each mode that mode="auto" compared; infinite if it fails."""
        return self._modes.measured

    @property
    def held(self) -> int:
        """How many members mode="resident" keeps."""
        return self._modes.held

    @property
    def passes(self) -> float:
        """How many members the last `predict_classes` ran on a sample, on average."""
        return self._classes.passes

    @takes_options(PredictOptions)
    def predict(self, x: Any, **options: Unpack[PredictOptions]) -> ArrayT:
        """The members' predictions made one: by default their mean; after `fit`, as it chose.

        Args:
            x: the model's input, with the samples along the first axis: an
                array; a dict of arrays, or a tuple for a model of several arguments;
                or an iterable of batches such as a data loader, of which each is
                the input, or a tuple or list that begins with it, as in `(x, y)`.
                Labels in a dict ("labels", "label" or "y") do not go into the model.
                `cosanneal.ensemble.predict.batches.Batches` says all of it.
            options: `batch_size`, `mode` and `ragged`: see `PredictOptions`.

        Several threads may predict with one ensemble; they take turns. Under torch.distributed,
        a loader may give each process its share of the samples (`DistributedSampler`, one
        that accelerate prepared): then all must call, and each gets the whole, row i that of
        sample i of the dataset. So it is with `fit`, where one process chooses for all, and
        with `evaluate` and the validation data of `average_weights`.

        Returns:
            Probabilities (or values, or a pair), in the dtype and on the device of a member's;
            of several outputs, in the form of `outputs`.

        Raises:
            SnapshotError: a snapshot is damaged.
            EnsembleError: a snapshot does not fit the model (the message names
                the first tensor that differs); or batches that change between
                two passes.
        """
        finish = _finish(self._choices())
        (made,) = self._modes.predictions(OutputSpec.pool, self._weights(), x, [finish], **options)
        return cast(ArrayT, made)

    @takes_options(PredictOptions)
    def predict_classes(
        self, x: Any, *, exact: bool = False, **options: Unpack[PredictOptions]
    ) -> ArrayT:
        """The numbers of the classes that `predict` gives most to, by fewer passes where it can.

        `predict(x).argmax(class_axis)`, and of outcomes (`class_axis=None`) 1 where it is above
        1/2: the very same, also of equal classes the first. Members that cannot change a
        sample's class any more are not run on it; `passes` says how many were. `Classes` says
        how, when it is all of them, and what of rounding in batches of another size.

        After `fit(..., budget=1.5)` samples leave earlier, so that about so many members are run
        on one, and some classes are others than those of `predict`: `choice.budget` says how
        often that was wrong on the validation data. `exact=True` gives those of `predict` then.

        Args and errors as in `predict`; also outputs without classes ("values", "gaussian").

        Returns:
            Integers, in the shape of `predict` without the classes, of its kind and on its device;
            of several outputs, in the form of `outputs`.
        """
        choice, weights = self.choice, self._weights()
        temperature, care = (1.0, 1.0) if choice is None else (choice.temperature, choice.care)
        if choice is not None and choice.budget is not None and care < 1 and not exact:
            order = running_order(choice.weights, choice.budget.order)
            weights = {self.members[i]: choice.weights[i] for i in order}
        chosen = weights, _finish(self._choices()), temperature
        care = 1.0 if exact else care
        return cast(ArrayT, self._classes.predict(*chosen, x, care=care, **options))

    @takes_options(PredictOptions)
    def predict_with_uncertainty(self, x: Any, **options: Unpack[PredictOptions]) -> Any:
        """The prediction of `x`, how sure it is, and how far its members differ.

        An `Uncertainty` of classes or outcomes, a `ValueUncertainty` of values or of means and
        variances; both say what is in them. Of several outputs, a structure of these. Members
        and weights, args and errors are as in `predict`, and so is the memory; also another
        pooling than the mean of probabilities.

        Warns:
            UserWarning: `fit` chose one member, which does not differ from itself; once for a
                choice.
        """
        if self.choice is not None and self._told is not self.choice:
            self._told = self.choice
            warn_of_one(self.choice)
        choice_of = self._choices()

        def finish(found: FoundOutputs, pool: Any) -> Any:
            choice = choice_of(found)
            return uncertainty_of(pool, None if choice is None else choice.finish)

        self._taken.pool(uncertainty_pool)  # what cannot be is said before anything is run
        (made,) = self._modes.predictions(uncertainty_pool, self._weights(), x, [finish], **options)
        return made

    @takes_options(PredictOptions)
    def predict_with_variance(
        self, x: Any, **options: Unpack[PredictOptions]
    ) -> tuple[ArrayT, ArrayT]:
        """The mean and the variance of a regression, as `predict` weighs the members.

        The variance is that of the mixture (`GaussianPool`), at the scale that `fit` found.
        Of members that return values only, it is that between them, and the noise of the
        targets that `fit` found: before, it leaves the noise out. Args and errors as in
        `predict`, each of the two laid out as it has it; also outputs of which one is known
        to be no regression's.
        """
        self._taken.expect_values()
        choice_of = self._choices()

        def finish(found: FoundOutputs, pool: Any, i: int) -> Any:
            choice = choice_of(found)
            return (pool.mean, pool.variance)[i] if choice is None else choice.moments(pool)[i]

        parts = [functools.partial(finish, i=i) for i in range(2)]
        mean, variance = self._modes.predictions(
            OutputSpec.moments, self._weights(), x, parts, **options
        )
        return mean, variance

    def member_predictions(
        self, x: Any, *, batch_size: int | None = None, ragged: Ragged = "error"
    ) -> Iterator[ArrayT]:
        """The prediction of each member in turn, oldest first.

        Args and errors as in `predict`; probabilities (or values), as
        `predict` averages them. One member is in memory at a time.
        """
        return self._modes.of_each_member(x, batch_size, ragged)

    def release(self) -> None:
        """Give back the memory of the members that the modes resident and stacked keep."""
        self._modes.release()

    @takes_options(FitOptions)
    def fit(
        self,
        x_val: Any,
        y_val: Any = None,
        *,
        batch_size: int | None = None,
        output: str | int | None = None,
        keep: str | os.PathLike[str] | None = None,
        **options: Unpack[FitOptions],
    ) -> Choice:
        """Choose members, weights and a temperature on validation data; `predict` then uses them.

        Of a regression members, weights and the variance. Every member is run once. Nothing
        but these data goes into the choice: report it on others.

        Args:
            x_val: the model's input for the validation data, as in `predict`.
            y_val: their true classes (or targets); by default what a loader's batches of
                `(x, y)` hold, or dicts under "labels", "label" or "y". Of batches of
                several lengths, a list with an array for each.
            batch_size: so many samples at a time, as in `predict`.
            output: of several outputs, the one by which to choose; see `EnsembleOptions`.
            keep: a file to keep the members' probabilities in, one .npy array
                with the members along the first axis: float32, or float64 where
                class_axis is None; of several lengths, a row for each label. Without
                one, they are in memory, or where they are more than 256 MiB in a
                temporary file.
            options: `select`, `metric`, `temperature`, `budget`, `steps`, `bags`, `seed` and
                `baseline`, as in `cosanneal.ensemble.fit`, and those of `LabelOptions`; for a
                regression
                as in `fit_regression`.

        Returns:
            The choice, which is now `choice`.

        Raises:
            EnsembleError: the outputs are not pooled by the mean of probabilities; or as
                in `cosanneal.ensemble.fit` and `fit_regression`.
            SnapshotError: a snapshot is damaged.

        Warns:
            UserWarning: fewer than 1000 validation samples.
        """
        taken = self._taken.only(output)
        taken.found.check_mean()
        check_early(options.get("budget"), len(self), self._taken)
        data = Validation(self.model, taken, self.model.batches(x_val, batch_size), y_val)
        self.choice = fit_members(self._members, data, taken, keep, **options)
        return self.choice

    @takes_options(EvaluateOptions)
    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: int | None = None,
        output: Any = None,
        **options: Unpack[EvaluateOptions],
    ) -> dict[str, Any]:
        """What the members, their means and the choice are worth, as `analyze` says it.

        Args:
            x: this and `y` as in `fit`, but data that nothing was chosen by.
            y: see there.
            batch_size: see there.
            output: see there; by default the one that the choice was made by.
            options: see `EvaluateOptions` and `LabelOptions`.

        Returns and raises: as `analyze`, of a regression as `analyze_regression`; and `fit`.

        Warns:
            UserWarning: the data have the very scores of those that `fit` chose on.
        """
        choice = self.choice
        taken = self._taken.only(choice.output if choice and output is None else output)
        batches = self.model.batches(x, batch_size)
        data = Validation(self.model, taken, batches, y, ("x", "y"))
        return evaluate_members(self._members, data, taken, choice, **options)

    @takes_options(RecipeOptions)
    def average_weights(
        self,
        x_val: Any = None,
        y_val: Any = None,
        *,
        train_data: Any = None,
        batch_size: int | None = None,
        train_batch_size: int | None = None,
        output: str | int | None = None,
        **options: Unpack[RecipeOptions],
    ) -> AveragedWeights:
        """One model from the mean of members' weights, if no barrier parts them.

        `sum(share_i * weights_i)`, in float64, rounded once; then the running
        statistics of normalization layers are estimated anew. `AveragedWeights`
        says what is measured, what is refused, and how the statistics come about.

        Args:
            x_val: the model's input for validation data, as in `predict`. They
                may be left out with `barrier=math.inf`, or for one member.
            y_val: their true classes (or values), as in `fit`.
            train_data: input as in `predict`, from the training data: arrays,
                or a loader, which may shuffle. Needed where the model has
                running statistics, and for nothing else. A sample of it is taken,
                of 2048 by default (`samples=`).
            batch_size: of the validation data, where they are arrays, so many
                samples at a time, as in `predict`.
            train_batch_size: of the training data, at most so many at a time, in
                batches of about one size; by default all at once.
            output: of several outputs, the one by which to measure, as in `fit`.
            options: `last`, `soup`, `decay`, `barrier`, `shares`, `temperature`, `samples`
                and `seed`, and which labels count: see `RecipeOptions` and `LabelOptions`.

        Returns:
            The mean, its members, scores and temperature; its `predict` gives the prediction
            of that one model. The model, and `choice`, stay as they are.

        Raises:
            EnsembleError: a barrier between two members; no training data for a
                model with running statistics (the message names the first layer),
                or no validation data to measure with; arguments that cannot be.
            SnapshotError: a snapshot is damaged.

        Warns:
            UserWarning: a barrier that only `barrier=math.inf` lets pass.

        Source: see `AveragedWeights`.
        """
        recipe = Recipe.of(len(self), **options)
        taken = self._taken if x_val is None else self._taken.only(output)
        averaging = Averaging(
            *(self.model, self._members, taken, recipe, train_data, train_batch_size, self._taken)
        )
        with self.model.same_randomness():
            if x_val is not None:
                data = Validation(self.model, taken, self.model.batches(x_val, batch_size), y_val)
                averaging.measure(data, self._weights(), self._choices()(taken.found))
            return averaging.result()

    def save(self, path: str | os.PathLike[str] | None = None) -> None:
        """Write the choice as a small JSON file.

        Args:
            path: the local file; by default `ensemble.json` beside the snapshots of one folder,
                also of one at a URL, where it is put and read back as a snapshot is.

        Raises:
            EnsembleError: nothing was fitted, or the file cannot be written.
        """
        if self.choice is None:
            raise EnsembleError("There must be a choice to save. Received: none; call fit first")
        if path is None and self.choice.digests is None:
            raise EnsembleError(
                "Argument `path` must be given where the members are no files. Received: none"
            )
        with self._members.beside(path).writing(EnsembleError) as file:
            self.choice.save(file)

    def load(self, path: str | os.PathLike[str] | None = None) -> Choice:
        """Take over a choice that was saved: its members, weights and temperature.

        Args:
            path: the local file; by default `ensemble.json` beside the snapshots of one folder.

        Returns:
            The choice, which is now `choice`.

        Raises:
            EnsembleError: the ensemble is none that could be fitted; no choice is
                there; one of its snapshots is missing, or is another than it was;
                or there are newer ones, among which it was not made.
        """
        choice, self._members.snapshots = load_choice(self._members, self._taken, path)
        self.choice = choice
        return choice

    def _choices(self) -> Callable[[FoundOutputs], Choice | None]:
        """What tells the choice of an output, if that is the one by which it was made."""
        choice = self.choice
        judged = None if choice is None else self._taken.only(choice.output).found
        return lambda found: choice if found is judged else None

    def _weights(self) -> dict[Snapshot, float]:
        """The members that count, with their weights: by falling weight, and else in their order.

        So sums are in one order whether the last members are needed or not.
        """
        weights = [1.0] * len(self) if self.choice is None else self.choice.weights
        counted = [each for each in zip(self.members, weights, strict=True) if each[1]]
        return dict(sorted(counted, key=lambda each: -each[1]))


def _finish(choice_of: Callable[[FoundOutputs], Choice | None]) -> Finish:
    """What makes the prediction of a pool, as it was chosen for its output."""

    def finish(found: FoundOutputs, pool: Any) -> Any:
        choice = choice_of(found)
        return pool.value if choice is None else choice.finish(pool)

    return finish


def _run_by(
    model: Model[ArrayT], members: Members, taken: Taken
) -> tuple[Modes[ArrayT], Classes[ArrayT]]:
    """What runs members, and keeps what is kept of them."""
    modes = Modes(model, members, taken)
    return modes, Classes(modes, taken)
