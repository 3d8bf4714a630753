"""The snapshot ensemble of torch modules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Unpack, cast

import torch
from torch import Tensor, nn

from ...core.keywords import takes_options
from ...ensemble.combined import Combination
from ...ensemble.ensemble import SnapshotEnsemble as Ensemble
from ...ensemble.model import Forward
from ...ensemble.options import EnsembleOptions
from ...snapshots.sources import Source
from .lent import unsharded
from .model import TorchModel
from .shipped import EnsembleModule, ship


class SnapshotEnsemble(Ensemble[Tensor]):
    """One prediction from the last snapshots: by default the mean of their probabilities.

    The model is not touched. Members are loaded into a copy of its structure,
    which takes no memory for weights but the members' own, and which predicts in
    evaluation mode and without gradients. What is no weight is copied with it:
    hooks, buffers that are not persistent, plain attributes. The structure is
    that of the model when the ensemble is made; its device may change later. On
    the first batch it is looked whether the copy reaches the model's own weights
    by another way than its modules (a closure, a global), which is refused.

    A model in shards (FSDP2, tensor parallelism: DTensors) cannot be copied. It is lent: while
    something is predicted it has members' shards, and then its own weights again, bit for bit,
    also after an error; so long these are in the host's memory. All processes make the ensemble
    and call its methods together, outside of a forward and its backward, with the same input:
    of the first's outputs all have the prediction, and `fit` its choice. Where FSDP2 alone
    shards it, a loader may give each process its share. The first one reads the files; all
    must see the folder. `average_weights`, `as_module` and mode="stacked" need a whole model.

    What the model returns is a tensor, or holds one: `logits` of a dict or of one of
    transformers' outputs; the first item of a tuple. `EnsembleOptions` says more.

    Args:
        model: a model of the kind that was recorded, on the device to use; or a
            function that builds one, for a model that cannot be copied.
        folder: the folder of the snapshots or its URL, or a list of folders, files and snapshots.
        forward: how the model is run: `forward(model, batch)`, with the copy that has a
            member's weights, and a batch whole, as the loader gives it, with its labels
            (or a cut through an `x` of arrays); what is in it is moved to the model's
            device. By default a dict goes in by keyword without its labels ("labels",
            "label" or "y"), a tuple or list as several arguments, and of `(x, y)` what
            stands first.
        options: `last`, `members`, `outputs`, `output`, `class_axis` and `pooling`, as
            `cosanneal.ensemble.SnapshotEnsemble` has them.

    Arrays of numpy, and nested lists of numbers, are made tensors: of their floats such
    of the model's own floating dtype. Tensors stay in theirs.

    Raises:
        EnsembleError: an argument that cannot be, or fewer snapshots than asked for.

    Example:
        >>> import tempfile, torch
        >>> import cosanneal as ca
        >>> from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder
        >>> model = torch.nn.Linear(2, 3)
        >>> folder = tempfile.mkdtemp()
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> with SnapshotRecorder(folder, model, schedule) as recorder:
        ...     for _ in range(6):
        ...         _ = recorder.step()
        >>> ensemble = SnapshotEnsemble(model, folder, last=2)
        >>> x = torch.randn(50, 2)
        >>> ensemble.predict(x).shape
        torch.Size([50, 3])
        >>> found = ensemble.average_weights(x, torch.arange(50) % 3)
        >>> found.predict(x).shape  # of the one model, at its temperature
        torch.Size([50, 3])
        >>> model.load_state_dict(found.weights)
        <All keys matched successfully>

        With a model of transformers, of which batches are dicts with the labels in them:

        >>> def fitted(model, folder, validation_loader):
        ...     ensemble = SnapshotEnsemble(
        ...         model, folder, forward=lambda model, batch: model(**batch).logits
        ...     )
        ...     return ensemble.fit(validation_loader)

    Source: Huang et al., "Snapshot Ensembles" (2017), section 3.
    """

    @takes_options(EnsembleOptions)
    def __init__(
        self,
        model: nn.Module | Callable[[], nn.Module],
        folder: Source | Sequence[Source],
        *,
        forward: Forward[nn.Module] | None = None,
        **options: Unpack[EnsembleOptions],
    ) -> None:
        super().__init__(TorchModel(model, forward), folder, **options)

    def as_module(self, *, vmap: bool = False, dtype: torch.dtype | None = None) -> EnsembleModule:
        """The ensemble as one module, to be exported, compiled, saved and run by itself.

        Its forward takes what the model takes (or, of an ensemble with `forward=`, a batch) and
        returns what `predict` returns for one batch: the prediction of the members that count,
        at their weights and temperature. It is in evaluation mode, on the model's device, and
        no parameter needs a gradient. It goes through `torch.export.export` with a batch of
        any size, `torch.compile(fullgraph=True)`, `torch.jit.trace` and
        `torch.onnx.export(dynamo=True)`. Labels in an input are not taken out, and no number is
        looked at: a NaN stays one.

        Sums are in the outputs' own dtype, but at least in float32, which all devices and
        runtimes have. Of float64 they are, one after the other, those of `predict`, bit for
        bit, and with `vmap` to a few ulp; of float32 they agree with its sums in float64 to
        1e-6 of numbers up to 1, at a temperature of 0.1 or more.

        Args:
            vmap: whether the members' weights are stacked, and all run in one pass, by
                `torch.func.vmap`: faster for small batches on a GPU. `torch.jit.trace` does not
                take it, and `torch.export` only with a batch of one size where torch maps an
                operation so (BatchNorm, Embedding), which it says.
            dtype: of the members' weights, such as torch.bfloat16; floats of the input are
                then taken in it, and the prediction stays in the dtype in which it was pooled.
                By default the weights are in the model's, and so is the prediction.

        Returns:
            The module. What the snapshots leave out (`which=` of the recorder) is in memory
            once for all members, until the module is moved or cast.

        Raises:
            EnsembleError: nothing was predicted yet, by which it is found out what the outputs
                are, and that the model reaches its weights through its modules; for `vmap`,
                not with mode="stacked"; a model that keeps what it makes of its weights, with
                `vmap`; no floating dtype; or a snapshot that does not fit.
            SnapshotError: a snapshot is damaged.

        Example:
            >>> import tempfile, torch
            >>> import cosanneal as ca
            >>> from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder
            >>> model = torch.nn.Linear(2, 3)
            >>> folder = tempfile.mkdtemp()
            >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
            >>> with SnapshotRecorder(folder, model, schedule) as recorder:
            ...     for _ in range(6):
            ...         _ = recorder.step()
            >>> ensemble = SnapshotEnsemble(model, folder, last=2)
            >>> x = torch.randn(50, 2)
            >>> predicted = ensemble.predict(x)
            >>> module = ensemble.as_module()
            >>> torch.allclose(module(x), predicted, rtol=0, atol=1e-6)
            True
            >>> batch = torch.export.Dim("batch")
            >>> program = torch.export.export(module, (x,), dynamic_shapes=({0: batch},))
            >>> program.module()(x[:7]).shape
            torch.Size([7, 3])

        Source: Huang et al., "Snapshot Ensembles" (2017), section 3.
        """
        model = cast(TorchModel, self.model)
        unsharded(
            model.copy, "as_module", "make an ensemble of a model that is whole, in one process"
        )
        weights = self._weights()
        combination = Combination.of(self._taken, weights, self._choices())
        loads = [functools.partial(self._members.load, each) for each in weights]
        rests: list[set[str]] = [{*(each.metadata.get("rest") or ())} for each in weights]
        return ship(
            model,
            loads,
            set.intersection(*rests),
            combination,
            vmap=vmap,
            dtype=dtype,
        )
