"""An ensemble as a file of Keras or a SavedModel, and that run again."""

from __future__ import annotations

import os
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from ...core.atomic import arriving
from ...core.errors import EnsembleError, shown
from ...ensemble.structure import leaves
from .ensemble import SnapshotEnsemble

FORMATS: Final = ("keras", "savedmodel")


def export_ensemble(
    ensemble: SnapshotEnsemble,
    path: str | os.PathLike[str],
    *,
    format: str,  # noqa: A002
) -> None:
    """Write an ensemble as one file or folder, for batches of any size.

    It is `ensemble.as_model()`, with the members that count, their weights and the
    temperature. It has its name when it is whole and durable; a file of that name is
    replaced.

    Args:
        ensemble: one that has predicted.
        path: the file, which must end in .keras, or the folder of the SavedModel.
        format: "keras", which Keras loads where `cosanneal.adapters.keras` was imported, or
            "savedmodel", on Keras' backend TensorFlow.

    Raises:
        EnsembleError: no such format, or not on this backend; another ending; a folder that
            is there; or as `as_model`.

    Example:
        >>> import os, tempfile
        >>> import keras, numpy as np
        >>> import cosanneal as ca
        >>> from cosanneal.adapters.keras import SnapshotEnsemble, SnapshotRecorder
        >>> from cosanneal.adapters.keras.export import export_ensemble, run_export
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> model.compile(keras.optimizers.SGD(0.1), "mse")
        >>> folder, schedule = tempfile.mkdtemp(), ca.CyclicCosine(0.1, cycle_steps=1)
        >>> x = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
        >>> recorder = SnapshotRecorder(folder, schedule)
        >>> _ = model.fit(x, x @ np.ones((2, 3)), callbacks=[recorder], verbose=0)
        >>> ensemble = SnapshotEnsemble(model, folder, outputs="logits", class_axis=-1)
        >>> predicted = ensemble.predict(x)
        >>> export_ensemble(ensemble, os.path.join(folder, "ensemble.keras"), format="keras")
        >>> (found,) = run_export(os.path.join(folder, "ensemble.keras"), x, format="keras")
        >>> bool(abs(found - predicted).max() < 1e-6)
        True
    """
    _check_format(format)
    if format == "keras" and not os.fspath(path).endswith(".keras"):
        raise EnsembleError(
            f"The file must end in .keras, for format 'keras'. Received: {shown(os.fspath(path))}"
        )
    model = ensemble.as_model()
    with arriving(path, error=EnsembleError) as made:
        if format == "keras":
            model.save(made)
        else:
            model.export(os.fspath(made), verbose=False)


def run_export(
    path: str | os.PathLike[str],
    x: NDArray[Any],
    *,
    format: str,  # noqa: A002
) -> list[NDArray[Any]]:
    """What `export_ensemble` wrote gives for a batch.

    Args:
        path: the file or the folder.
        x: the batch, of shape (samples, ...), of any number of samples.
        format: as it was written.

    Returns:
        The outputs, in the order of the ensemble's, as arrays of numpy.

    Raises:
        EnsembleError: no such format, or not on this backend.
    """
    _check_format(format)
    if format == "keras":
        found = keras.saving.load_model(path).predict(x, verbose=0)
    else:
        if np.issubdtype(x.dtype, np.floating):
            x = x.astype(keras.config.floatx())
        found = keras.layers.TFSMLayer(os.fspath(path), call_endpoint="serve")(x)
    return [np.asarray(keras.ops.convert_to_numpy(each)) for each in leaves(found)]


def _check_format(format: object) -> None:  # noqa: A002
    if format not in FORMATS:
        raise EnsembleError(
            f"Argument `format` must be 'keras' or 'savedmodel'. Received: format={shown(format)}"
        )
    if format == "savedmodel" and keras.backend.backend() != "tensorflow":
        raise EnsembleError(
            "A SavedModel must be written and run on Keras' backend TensorFlow. Received: "
            f"{keras.backend.backend()}; set KERAS_BACKEND=tensorflow, which takes the same "
            "snapshots"
        )
