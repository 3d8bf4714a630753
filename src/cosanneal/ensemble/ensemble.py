"""The snapshot ensemble: one prediction from the members of a run, composed of its parts.

What a framework is needed for is a `Model`, which an adapter hands in. Which
members there are, how they are run, what is chosen among them and how their
weights are averaged stand in rooms of their own.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Generic, Self, TypedDict, Unpack, cast

from ..core.errors import EnsembleError
from ..snapshots.sources import Source
from ..snapshots.store import Snapshot, SnapshotStore
from .arrays import narrow
from .choose.choice import Choice, FitOptions
from .choose.regression import fit_outputs
from .members import Chosen, Members, Picked, check_alike
from .model import ArrayT, Model
from .predict.batches import Batches
from .predict.found import FoundOutputs
from .predict.kept import kept_predictions
from .predict.modes import Mode, Modes, PoolT, joined, outputs_of
from .predict.outputs import Auto, Outputs
from .predict.pooling import Pooling
from .predict.uncertainty import joined_uncertainty, uncertainty_of, uncertainty_pool
from .score.uncertainty import Uncertainty, ValueUncertainty
from .weights.averaging import AveragedWeights, Averaging, Recipe, RecipeOptions


class EnsembleOptions(TypedDict, total=False):
    """What every ensemble takes by keyword; `SnapshotEnsemble` says what each is.

    With `outputs="auto"` and `class_axis="auto"`, what is not given is found out
    once: from the model, where it says so for certain (the last activation or
    the loss of one of Keras', a softmax at the end of a torch.nn.Sequential);
    else from the first output. Rows in [0, 1] that sum to 1 along one axis are
    probabilities along it. Of two axes, and with numbers outside [0, 1], they
    are logits of classes. All else is an error that names what it could be: one
    number for each sample; numbers in [0, 1] that do not sum to 1; more axes.
    `predict_with_variance` takes them for values; `load` knows the class axis.
    (`class_axis=None` means outcomes, here and in all of `cosanneal.ensemble`.)

    Each output is looked at (on a device other than the host, the first of each
    member): a NaN is an error that names the member, and so are probabilities
    that are none; a UserWarning says once that logits are probabilities already.
    """

    last: int | None
    members: Chosen | None
    outputs: Outputs | Auto
    class_axis: int | Auto | None
    pooling: Pooling


class SnapshotEnsemble(Generic[ArrayT]):
    """One prediction from the last snapshots of a run.

    Attributes:
        model: what the members are loaded into.
        choice: what `fit` chose or `load` read, and `predict` goes by; None for
            all members at the same weight.

    Args:
        model: the model, as its framework's adapter makes it.
        folder: the folder of the snapshots, a file of one, a `Snapshot`, or a list of
            these: of several runs, say. The members are in the list's order, and those
            of a folder oldest first.
        last: how many of the last to use, in that order and of all together; by default
            all. With `members`, of those. (Of each folder: add two ensembles.)
        members: which snapshots to use: a function of a `Snapshot` that says so, or
            a list of names of files (`run1/cycle-...`, where two folders have one of
            that name) and numbers of cycles; by default all.
        outputs: what the model returns: "logits" (a softmax over the class axis
            makes probabilities of them), "probabilities", or of a regression "values",
            which are averaged, or "gaussian": a tuple or a list of means and variances, or
            a dict with "mean" and "variance", of which `predict` gives the mixture's in
            that form (`GaussianPool`); "auto" finds it out: see `EnsembleOptions`.
        class_axis: the axis of the classes; None where each number is an
            outcome of its own (binary, multi-label), and a sigmoid makes its
            probability of its logit; "auto" finds it out.
        pooling: "probabilities" (their mean), "logits" (their mean, which is
            the geometric mean of probabilities), "log-probabilities" (the
            logarithm of the mean probabilities) or "vote", as in `Pool`.

    Raises:
        EnsembleError: an argument that cannot be, fewer snapshots than asked for, or
            one that is a member twice.
    """

    def __init__(
        self,
        model: Model[ArrayT],
        folder: Source | Sequence[Source],
        *,
        last: int | None = None,
        members: Chosen | None = None,
        outputs: Outputs | Auto = "auto",
        class_axis: int | Auto | None = "auto",
        pooling: Pooling = "probabilities",
    ) -> None:
        self.model, self._settings = model, (outputs, class_axis, pooling)
        self._found = FoundOutputs(outputs, class_axis, pooling, model.says_outputs())
        self._begin(Members(model, Picked.of(folder, last, members)))

    def _begin(self, members: Members) -> None:
        self._members, self.choice = members, cast(Choice | None, None)
        self._modes = Modes(self.model, members, self._found)

    def __add__(self, other: Self) -> Self:
        """The ensemble of both's members, this one's first, without what either chose.

        Both must be of the very same model, with the same outputs, class_axis and pooling.
        """
        if not isinstance(other, SnapshotEnsemble):
            return NotImplemented
        check_alike(self.model, other.model, self._settings, other._settings)
        added = copy.copy(self)
        added._found = FoundOutputs(*self._settings, self.model.says_outputs())
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
        """The seconds that a batch took in each mode, when mode="auto" last compared them.

        Infinite for one that cannot be.
        """
        return self._modes.measured

    @property
    def held(self) -> int:
        """How many members mode="resident" keeps."""
        return self._modes.held

    def predict(self, x: Any, *, batch_size: int | None = None, mode: Mode = "stream") -> ArrayT:
        """The members' predictions made one: by default their mean; after `fit`, as it chose.

        Args:
            x: the model's input, with the samples along the first axis: an
                array; a tuple of arrays for a model of several arguments; or an
                iterable of batches (but no list) such as a data loader, of which
                each is the input, or a tuple or list that begins with it, as in
                `(x, y)`.
            batch_size: of arrays, so many samples at a time; by default all at once.
            mode: how the members are run; the results agree to rounding.
                "stream" has one member in memory at a time, and one sum in
                float64, however many there are; a loader must give the same
                batches in every pass, of which each member has one. "resident"
                keeps all members beside the model, on its device and for the
                next call, and takes one pass. "stacked" keeps them stacked, and
                runs all at once by a vectorized map, whose gain is greatest for
                small batches on a GPU. "auto" measures those two on the first
                batch of each shape and goes on with the faster one, or streams
                where four times all members do not fit into the device's free
                memory.

        Several threads may predict with one ensemble; they take turns.

        Returns:
            Probabilities (or values, or a pair), in the dtype and on the device of a member's.

        Raises:
            SnapshotError: a snapshot is damaged.
            EnsembleError: a snapshot does not fit the model (the message names
                the first tensor that differs); or batches that change between
                two passes.
        """
        choice = self.choice
        weights = self._weights()
        with self._pools(lambda: self._found.spec.pool(), weights, x, batch_size, mode) as pools:
            parts: list[ArrayT] = [
                each.value if choice is None else choice.finish(each) for each in pools
            ]
        return joined(self.model, parts)

    def predict_with_uncertainty(
        self, x: Any, *, batch_size: int | None = None, mode: Mode = "stream"
    ) -> Uncertainty[ArrayT] | ValueUncertainty[ArrayT]:
        """The prediction, how sure it is, and how far its members differ.

        An `Uncertainty` of classes or outcomes, a `ValueUncertainty` of values; both
        say what is in them. Members and weights, args and errors are as in `predict`,
        and so is the memory; also another pooling than the mean of probabilities.
        """
        finish = None if self.choice is None else self.choice.finish
        uncertainty_pool(self._found.spec)  # what cannot be is said before anything is run
        weights = self._weights()
        with self._pools(
            lambda: uncertainty_pool(self._found.spec), weights, x, batch_size, mode
        ) as pools:
            parts = [uncertainty_of(each, finish) for each in pools]
        return joined_uncertainty(parts, lambda arrays: joined(self.model, arrays))

    def predict_with_variance(
        self, x: Any, *, batch_size: int | None = None, mode: Mode = "stream"
    ) -> tuple[ArrayT, ArrayT]:
        """The mean and the variance of a regression, as `predict` weighs the members.

        The variance is that of the mixture (`GaussianPool`), at the scale that `fit` found.
        Of members that return values only, it is that between them, and the noise of the
        targets that `fit` found: before, it leaves the noise out. Args and errors as in
        `predict`; also outputs that are known to be no regression's.
        """
        self._found.expect_values()
        choice = self.choice
        with self._pools(
            lambda: self._found.spec.moments(), self._weights(), x, batch_size, mode
        ) as pools:
            both = [
                (each.mean, each.variance) if choice is None else choice.moments(each)
                for each in pools
            ]
        means, variances = zip(*both, strict=True)
        return joined(self.model, means), joined(self.model, variances)

    def member_predictions(self, x: Any, *, batch_size: int | None = None) -> Iterator[ArrayT]:
        """The prediction of each member in turn, oldest first.

        Args and errors as in `predict`; probabilities (or values), as
        `predict` averages them. One member is in memory at a time.
        """
        batches = self.model.batches(x, batch_size)
        for snapshot in self._members:
            output = self._outputs(snapshot, batches)
            spec = self._found.spec
            yield narrow(spec.wide(output), output) if spec.outputs == "logits" else output

    def release(self) -> None:
        """Give back the memory of the members that the modes resident and stacked keep."""
        self._modes.release()

    def fit(
        self,
        x_val: Any,
        y_val: Any = None,
        *,
        batch_size: int | None = None,
        keep: str | os.PathLike[str] | None = None,
        **options: Unpack[FitOptions],
    ) -> Choice:
        """Choose members, weights and a temperature on validation data; `predict` then uses them.

        Of a regression: members, weights and the variance.

        Every member is run once. Nothing but these data goes into the choice:
        report it on others.

        Args:
            x_val: the model's input for the validation data, as in `predict`.
            y_val: their true classes (or targets); by default what a loader's batches of
                `(x, y)` hold.
            batch_size: so many samples at a time; by default all at once.
            keep: a file to keep the members' probabilities in, one .npy array
                with the members along the first axis: float32, or float64 where
                class_axis is None. Without one, they are in memory, or where
                they are more than 256 MiB in a temporary file.
            options: `select`, `metric`, `temperature`, `steps`, `bags` and `seed`, as
                in `cosanneal.ensemble.fit`; for a regression as in `fit_regression`.

        Returns:
            The choice, which is now `choice`.

        Raises:
            EnsembleError: the outputs are not pooled by the mean of probabilities; or as
                in `cosanneal.ensemble.fit` and `fit_regression`.
            SnapshotError: a snapshot is damaged.

        Warns:
            UserWarning: fewer than 1000 validation samples.
        """
        self._found.check_mean()
        # Members that are no files have none, and a choice among some is one of arrays.
        digests = [each.metadata["digest"] for each in self._members if "digest" in each.metadata]
        batches = self.model.batches(x_val, batch_size)
        labels = batches.labels() if y_val is None else y_val
        names = self._members.names
        outputs = (self._outputs(snapshot, batches) for snapshot in self._members)
        with kept_predictions(outputs, names, self._found, keep) as predictions:
            self._found.check_mean()  # now that it is known what outputs are
            self.choice = fit_outputs(
                self._found.spec.outputs,
                predictions,
                labels,
                names=names,
                class_axis=self._found.spec.class_axis,
                digests=digests if len(digests) == len(self) else None,
                **options,
            )
        return self.choice

    def average_weights(
        self,
        x_val: Any = None,
        y_val: Any = None,
        *,
        train_data: Any = None,
        batch_size: int | None = None,
        train_batch_size: int | None = None,
        **options: Unpack[RecipeOptions],
    ) -> AveragedWeights:
        """One model from the mean of members' weights, if no barrier parts them.

        `sum(share_i * weights_i)`, in float64, rounded once; then the running
        statistics of normalization layers are estimated anew. `AveragedWeights`
        says what is measured, what is refused, and how the statistics come about.

        Args:
            x_val: the model's input for validation data, as in `predict`. They
                may be left out with `barrier=math.inf`, or for one member.
            y_val: their true classes (or values); by default what a loader's
                batches of `(x, y)` hold.
            train_data: input as in `predict`, from the training data: arrays,
                or a loader, which may shuffle. Needed where the model has
                running statistics, and for nothing else.
            batch_size: of the validation data, where they are arrays, so many
                samples at a time; by default all at once.
            train_batch_size: of the training data, at most so many at a time, in
                batches of about one size.
            options: `last`, `soup`, `decay`, `barrier` and `shares`: see `RecipeOptions`.

        Returns:
            The mean, its members and scores. The model, and `choice`, stay as they are.

        Raises:
            EnsembleError: a barrier between two members; no training data for a
                model with running statistics (the message names the first layer),
                or no validation data to measure with; arguments that cannot be.
            SnapshotError: a snapshot is damaged.

        Warns:
            UserWarning: a barrier that only `barrier=math.inf` lets pass.

        Source: Izmailov et al., "Averaging Weights Leads to Wider Optima" (2018),
        section 3; Wortsman et al., "Model Soups" (2022), recipe 1; Kaddour, "Latest
        Weight Averaging" (2022); Frankle et al., "Linear Mode Connectivity" (2020).
        """
        recipe = Recipe.of(len(self), **options)
        averaging = Averaging(
            self.model, self._members, self._found, recipe, train_data, train_batch_size
        )
        with self.model.same_randomness():
            if x_val is not None:
                batches = self.model.batches(x_val, batch_size)
                labels = batches.labels() if y_val is None else y_val
                finish = None if self.choice is None else self.choice.finish
                averaging.measure(batches, labels, self._weights(), finish)
            return averaging.result()

    def save(self, path: str | os.PathLike[str] | None = None) -> None:
        """Write the choice as a small JSON file.

        Args:
            path: the file; by default `ensemble.json` beside the snapshots of one folder.

        Raises:
            EnsembleError: nothing was fitted, or the file cannot be written.
        """
        if self.choice is None:
            raise EnsembleError("There must be a choice to save. Received: none; call fit first")
        if path is None and self.choice.digests is None:
            raise EnsembleError(
                "Argument `path` must be given where the members are no files. Received: none"
            )
        self.choice.save(self._members.beside(path))

    def load(self, path: str | os.PathLike[str] | None = None) -> Choice:
        """Take over a choice that was saved: its members, weights and temperature.

        Args:
            path: the file; by default `ensemble.json` beside the snapshots of one folder.

        Returns:
            The choice, which is now `choice`.

        Raises:
            EnsembleError: the ensemble is none that could be fitted; no choice is
                there; one of its snapshots is missing, or is another than it was;
                or there are newer ones, among which it was not made.
        """
        self._found.check_mean()
        file = self._members.beside(path)
        choice = Choice.load(file)
        members = self._members.among(choice, file)
        self._found.expect_outputs(choice.outputs, f"The choice in {file}")
        self._found.expect_class_axis(choice.class_axis, f"The choice in {file}")
        self._members.snapshots, self.choice = members, choice
        return choice

    def _outputs(self, snapshot: Snapshot, batches: Batches) -> ArrayT:
        return outputs_of(self.model, self._members.load(snapshot), batches, self._found, snapshot)

    def _weights(self) -> dict[Snapshot, float]:
        """The members that count, with their weights."""
        weights = [1.0] * len(self) if self.choice is None else self.choice.weights
        return {each: weight for each, weight in zip(self.members, weights, strict=True) if weight}

    def _pools(
        self,
        pool: Callable[[], PoolT],
        weights: Mapping[Snapshot, float],
        x: Any,
        batch_size: int | None,
        mode: Mode,
    ) -> contextlib.closing[Generator[PoolT, None, None]]:
        """For each batch a pool of the members' outputs; to be used in a `with` block."""
        batches = self.model.batches(x, batch_size)
        return contextlib.closing(self._modes.pools(pool, weights, batches, mode))
