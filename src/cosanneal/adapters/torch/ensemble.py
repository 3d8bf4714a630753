"""The snapshot ensemble of torch modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack

from torch import Tensor, nn

from ...ensemble.ensemble import SnapshotEnsemble as Ensemble
from ...ensemble.model import Forward
from ...ensemble.options import EnsembleOptions
from ...snapshots.sources import Source
from .model import TorchModel


class SnapshotEnsemble(Ensemble[Tensor]):
    """One prediction from the last snapshots: by default the mean of their probabilities.

    The model is not touched. Members are loaded into a copy of its structure,
    which takes no memory for weights but the members' own, and which predicts in
    evaluation mode and without gradients. What is no weight is copied with it:
    hooks, buffers that are not persistent, plain attributes. The structure is
    that of the model when the ensemble is made; its device may change later. On
    the first batch it is looked whether the copy reaches the model's own weights
    by another way than its modules (a closure, a global), which is refused.

    What the model returns is a tensor, or holds one: `logits` of a dict or of one of
    transformers' outputs; the first item of a tuple. `EnsembleOptions` says more.

    Args:
        model: a model of the kind that was recorded, on the device to use; or a
            function that builds one, for a model that cannot be copied.
        folder: the folder of the snapshots, or a list of folders, files and snapshots.
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

    def __init__(
        self,
        model: nn.Module | Callable[[], nn.Module],
        folder: Source | Sequence[Source],
        *,
        forward: Forward[nn.Module] | None = None,
        **options: Unpack[EnsembleOptions],
    ) -> None:
        super().__init__(TorchModel(model, forward), folder, **options)
