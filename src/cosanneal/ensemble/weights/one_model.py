"""One model from several members' weights: what it is, what it is worth, and what it predicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...snapshots.store import Snapshot
from ..arrays import narrow, widen
from ..choose.calibration import tempered
from ..members import Members
from ..model import Model, Weights
from ..predict.found import FoundOutputs
from ..predict.modes import Modes, outputs_of
from ..predict.outputs import OutputSpec
from ..predict.ragged import Ragged
from ..predict.taken import Taken
from .barrier import Interpolation


@dataclass(frozen=True, slots=True)
class OneModel:
    """A model with some weights that are no member's, to predict with.

    Args:
        model: the model that they are loaded into.
        members: whose mean they are.
        taken: what its outputs are.
        judged: the output that a temperature is of.
        weights: the weights, by name.
        name: what they are, for an error.
    """

    model: Model[Any]
    members: Members
    taken: Taken
    judged: FoundOutputs
    weights: Weights
    name: str

    def predict(self, x: Any, temperature: float, *, batch_size: int | None, ragged: Ragged) -> Any:
        """What it predicts for an input, at a temperature; see `AveragedWeights.predict`."""
        modes = Modes(self.model, self.members, self.taken)
        batches = modes.batches(x, batch_size, ragged)

        def made(found: FoundOutputs, output: Any) -> Any:
            pool = found.spec.pool()
            if temperature == 1 or found is not self.judged:
                pool.update(output)
                return pool.value
            pool.update(at_temperature(output, temperature, found.spec))
            return narrow(pool.wide, output)

        def run() -> list[Any]:
            parts = []
            outputs = outputs_of(self.model, self.model.load(self.weights), batches, self.taken)
            for output in outputs:
                self.taken.look(output, [self.name])
                each = zip(self.taken.leaves, self.taken.each(output), strict=True)
                several = tuple(made(found, one) for found, one in each)
                parts.append(several if self.taken.several else several[0])
            return parts

        return modes.laid(batches.shared.ranks.agreed(run), batches, ragged)


def at_temperature(output: Any, temperature: float, spec: OutputSpec) -> Any:
    """Logits over a temperature, or probabilities at it, in float64, as by `widen`."""
    wide = widen(output)
    if spec.outputs == "logits":
        return wide / temperature
    return tempered(wide, temperature, spec.class_axis)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AveragedWeights:
    """The mean of some members' weights: one model, at the cost of one.

    A mean of weights is a model only where the members lie in one valley of
    the loss. So the loss (the log-loss, of values the MSE, or of means and variances
    the MSE of that normal of one variance that has their Gaussian negative log-likelihood,
    `exp(2 nll - 1) / (2 pi)`: a share of it means something, for it is positive) on the
    validation data is measured first, on the straight line from each member
    to the next. Where it rises by more than the tolerance above the line
    between its ends, the mean is refused, by an error: a warning would leave
    a model behind that is worse than each of its members. So it is where the
    loss of the mean rises as much above that of its members.

    Statistics, such as BatchNorm's, are those of the training data as if
    all had come in one batch: each sample (and each position in it) counts
    the same, whatever the batches' sizes, and the variance between batches
    is part of it. While the data pass, every normalization layer normalizes
    by the batch's own statistics, as in training, and dropout is off. So the
    first one's statistics do not depend on the batches at all, and those of
    deeper ones as little as the batches are large. On the way between two
    members they are estimated at every point. A layer that the data do not
    reach keeps the mean of its statistics; and one whose statistics are the
    same in all members (in Keras, one that is not trained) was frozen, and
    keeps them.

    The data are a sample of `train_data`, one for all of the way and for the mean. By default it
    has 2048 samples, about as many as have a part in the running statistics of a training with
    momentum 0.1 and batches of 128; `samples=None` takes all. `seed` draws it. Of arrays, samples
    are drawn, in whatever order they lie. Of a loader, in whose order nothing but whole batches
    can be had, these are drawn by one pass over all of it, until there are enough (so there may be
    a few more), and kept in memory. Where a loader shuffles, its first batches do, and
    `train_data=itertools.islice(loader, 16)` reads no further.

    Scores are by name: "log_loss", "brier" and "error"; of values "mse"; of means and
    variances "gaussian_nll", "mse", and the loss, "equivalent_mse". They are
    None, and the lists of them empty, where no validation data were given.

    A mean of weights is surer, or less sure, than it is right, as its members are. So it gets
    a temperature of its own on the validation data, as `fit_temperature` finds one, for classes
    and outcomes; `predict` gives its probabilities at it. The weights know nothing of it:
    of a model that they are loaded into, divide the logits by `temperature`.

    Args:
        weights: the mean, in the framework's own form: for torch what
            `load_state_dict` of the model takes; for JAX the pytree of the
            params; for Keras what `set_weights` of the model takes.
        members: the snapshots in it: oldest first, or of soup="greedy" in the
            order in which they were taken.
        shares: the share of each in the mean; they sum to 1.
        scores: of the averaged model, with its probabilities as they are.
        calibrated_scores: of its probabilities at `temperature`, on the data that
            it was fitted on; None where none was fitted.
        temperature: of its probabilities, by the validation data; 1 where none was fitted: of
            values, without validation data, or by `temperature=False`.
        ensemble_scores: of the ensemble, as `predict` gives it.
        member_scores: of each of `members` alone.
        barriers: the loss on the way from each of `members` to the next; none of
            soup="greedy".
        statistics: whether running statistics were estimated anew.
        samples: from how many samples of the training data; None where none were, or
            where they were not counted: of a loader with `samples=None`, or whose
            batches do not say how many they have, which is taken whole.
        seed: by which the samples were drawn; None where all were taken.
        predictor: what `predict` runs: a `OneModel`.

    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima" (2018),
    section 3; Wortsman et al., "Model Soups" (2022), recipe 1; Kaddour, "Latest
    Weight Averaging" (2022); Frankle et al., "Linear Mode Connectivity" (2020).
    """

    weights: Any = field(repr=False)
    members: tuple[Snapshot, ...]
    shares: tuple[float, ...]
    scores: dict[str, float] | None
    calibrated_scores: dict[str, float] | None
    temperature: float
    ensemble_scores: dict[str, float] | None
    member_scores: tuple[dict[str, float], ...]
    barriers: tuple[Interpolation, ...]
    statistics: bool
    samples: int | None
    seed: int | None
    predictor: Any = field(repr=False)

    def predict(self, x: Any, *, batch_size: int | None = None, ragged: Ragged = "error") -> Any:
        """The prediction of the one model, at its temperature.

        `softmax(log(p) / T)` with the model's probabilities `p`; of outcomes the sigmoid of
        their log-odds over `T`. It is what the ensemble's `predict` gives, of this model in its
        members' place: its logarithm with pooling="log-probabilities", the class that it votes
        for with pooling="vote", values or a pair of a regression, and of several outputs all,
        with the temperature for the one that it was fitted on.

        Args:
            x: the input, as in `predict` of the ensemble.
            batch_size: see there.
            ragged: see there.

        Returns:
            As `predict` of the ensemble: in the dtype and on the device of the model's outputs.

        Raises:
            EnsembleError: the input does not fit, or the prediction is not finite.

        Example:
            >>> import tempfile, torch
            >>> import cosanneal as ca
            >>> from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder
            >>> model = torch.nn.Linear(2, 3)
            >>> folder = tempfile.mkdtemp()
            >>> with SnapshotRecorder(folder, model, ca.CyclicCosine(0.1, cycle_steps=1)) as each:
            ...     for _ in range(2):
            ...         _ = each.step()
            >>> x, y = torch.randn(50, 2), torch.arange(50) % 3
            >>> average = SnapshotEnsemble(model, folder).average_weights(x, y)
            >>> p = (model(x) / average.temperature).softmax(-1)  # all weights are the model's here
            >>> torch.allclose(average.predict(x), p, rtol=0, atol=1e-6)
            True

        Source: Guo et al., "On Calibration of Modern Neural Networks" (2017), section 4.2.
        """
        return self.predictor.predict(x, self.temperature, batch_size=batch_size, ragged=ragged)
