"""The snapshot ensemble of Keras models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Unpack, cast

import keras
from numpy.typing import NDArray

from ...core.keywords import takes_options
from ...ensemble.combined import Combination
from ...ensemble.ensemble import SnapshotEnsemble as Ensemble
from ...ensemble.model import Forward
from ...ensemble.options import EnsembleOptions
from ...snapshots.sources import Source
from .dtypes import checked_dtype
from .model import KerasModel
from .shipped import ship


class SnapshotEnsemble(Ensemble[NDArray[Any]]):
    """One prediction from the last snapshots: by default the mean of their probabilities.

    The model is not touched: members are loaded into a copy made from its config,
    which has weights of its own as long as the ensemble lives.
    Where the config may not say all, since a layer is not Keras' own, the model
    itself holds them during a pass, and has its own weights again afterwards. It
    predicts as `model.predict_on_batch` does: in inference mode, compiled once for
    all members. Layers that keep a state begin each pass without one.

    It predicts on one device where a `tf.distribute` strategy made the model for several, and
    must be made and asked outside of its scope. Of several processes of JAX each predicts by
    itself, so that a model that lies over them must be one that can be copied, or a function.

    Of a functional model with several outputs, `output` is the name of the layer that
    makes the one to take (or a key of the dict, or a place), unless it is "logits".
    `EnsembleOptions` says more, and how several are taken at once.

    Args:
        model: a model of the kind that was recorded, built; or a function that
            builds one.
        folder: the folder of the snapshots or its URL, or a list of folders, files and snapshots.
        forward: how the model is run: `forward(model, batch)`, with a model that has a
            member's weights, and a batch whole, as the loader gives it, with its labels
            (or a cut through an `x` of arrays); arrays of other frameworks are numpy's
            by then. It is run eagerly, so that it may do anything, in inference mode
            (`training=False` need not be said), and without gradients. Where speed
            counts, let it call `model.predict_on_batch(...)`, which is compiled.
            By default a dict goes in as it is, but for labels ("labels", "label" or "y",
            if the model has no input of that name), a tuple or list as several
            inputs, and of `(x, y)` what stands first.
        options: `last`, `members`, `outputs`, `output`, `class_axis` and `pooling`, as
            `cosanneal.ensemble.SnapshotEnsemble` has them.

    Raises:
        EnsembleError: an argument that cannot be, or fewer snapshots than asked for; or, where
            Keras has several devices or processes, what is said above.

    Example:
        >>> import tempfile
        >>> import keras, numpy as np
        >>> import cosanneal as ca
        >>> from cosanneal.adapters.keras import CyclicCosineSchedule
        >>> from cosanneal.adapters.keras import SnapshotEnsemble, SnapshotRecorder
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> model.compile(keras.optimizers.SGD(CyclicCosineSchedule(schedule)), loss)
        >>> folder = tempfile.mkdtemp()
        >>> recorder = SnapshotRecorder(folder, schedule)
        >>> x, y = np.ones((6, 2)), np.arange(6) % 3
        >>> history = model.fit(x, y, batch_size=1, callbacks=[recorder], verbose=0)
        >>> ensemble = SnapshotEnsemble(model, folder, last=2)
        >>> ensemble.predict(np.zeros((5, 2))).shape
        (5, 3)
        >>> found = ensemble.average_weights(np.zeros((5, 2)), np.arange(5) % 3)
        >>> found.predict(np.zeros((5, 2))).shape  # of the one model, at its temperature
        (5, 3)
        >>> model.set_weights(found.weights)

        With a model of several outputs, of which one is averaged:

        >>> def predicted(model, folder, x):
        ...     ensemble = SnapshotEnsemble(
        ...         model, folder, forward=lambda model, batch: model(batch)["classes"]
        ...     )
        ...     return ensemble.predict(x)

    Source: Huang et al., "Snapshot Ensembles" (2017), section 3.
    """

    @takes_options(EnsembleOptions)
    def __init__(
        self,
        model: keras.Model | Callable[[], keras.Model],
        folder: Source | Sequence[Source],
        *,
        forward: Forward[keras.Model] | None = None,
        **options: Unpack[EnsembleOptions],
    ) -> None:
        super().__init__(KerasModel(model, forward), folder, **options)

    def as_model(self, *, dtype: Any = None) -> keras.Model:
        """The ensemble as one Keras model, to be saved, exported and run by itself.

        It takes the model's inputs and gives what `predict` gives for a batch: the prediction
        of the members that count, at their weights and temperature. The members are in it as
        copies, without trainable weights and in inference mode. `save("name.keras")` writes
        all of it; where that is loaded, `cosanneal.adapters.keras` must have been imported,
        for its one layer, `CombinedOutputs`. On TensorFlow, `export(folder)` writes a
        SavedModel, which needs no more than TensorFlow.

        Sums are in the outputs' own dtype, but at least in float32: they agree with those of
        `predict`, which are in float64, to 1e-6 of numbers up to 1. No number is looked at: a
        NaN stays one.

        Args:
            dtype: of the members' weights, "bfloat16", "float16" or "float32": the first two
                halve the memory that float32 takes. The layers compute in it, and take floats
                of the inputs in it; the prediction stays in the dtype in which it was pooled,
                at least float32. Where the ensemble has a function that builds the model, a
                layer that names a dtype of its own keeps it. By default the layers are in
                their own, and so is the prediction.

        Raises:
            EnsembleError: it is not known yet what the outputs are, since nothing was
                predicted; no such dtype, or a function whose model cannot be in it; the
                ensemble has `forward=`; the model is not functional or
                Sequential, keeps a state, or has layers that are not Keras' own, and no
                function that builds it was given; or a snapshot does not fit.
            SnapshotError: a snapshot is damaged.

        Example:
            >>> import os, tempfile
            >>> import keras, numpy as np
            >>> import cosanneal as ca
            >>> from cosanneal.adapters.keras import CyclicCosineSchedule
            >>> from cosanneal.adapters.keras import SnapshotEnsemble, SnapshotRecorder
            >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
            >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
            >>> model.compile(keras.optimizers.SGD(CyclicCosineSchedule(schedule)), "mse")
            >>> folder = tempfile.mkdtemp()
            >>> x, y = np.ones((6, 2)), np.ones((6, 3))
            >>> recorder = SnapshotRecorder(folder, schedule)
            >>> _ = model.fit(x, y, batch_size=1, callbacks=[recorder], verbose=0)
            >>> shipped = SnapshotEnsemble(model, folder, last=2).as_model()
            >>> shipped.save(os.path.join(folder, "ensemble.keras"))
            >>> loaded = keras.saving.load_model(os.path.join(folder, "ensemble.keras"))
            >>> np.array_equal(loaded.predict(x, verbose=0), shipped.predict(x, verbose=0))
            True

        Source: Huang et al., "Snapshot Ensembles" (2017), section 3.
        """
        held = None if dtype is None else checked_dtype(dtype)
        weights, model = self._weights(), cast(KerasModel, self.model)
        combination = Combination.of(
            self._taken, weights, self._choices(), self.model.output_names()
        )
        loaded = (self._members.load(each) for each in weights)
        return ship(model, loaded, combination, dtype=held)
