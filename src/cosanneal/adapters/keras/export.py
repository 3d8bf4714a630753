"""An ensemble as a file of Keras, a SavedModel or a file of ONNX, and that run again."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Mapping
from typing import Any, Final, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from ...core.atomic import arriving
from ...core.errors import EnsembleError, shown
from ...ensemble.onnx_file import check_dtype, check_size, need_onnx, run_onnx
from ...ensemble.structure import leaves, map_leaves
from ...snapshots.file import count_bytes
from .dtypes import checked_dtype
from .ensemble import SnapshotEnsemble

FORMATS: Final = ("keras", "onnx", "savedmodel")

# By which Keras writes ONNX, on each backend where that is by a package that is kept up.
_WRITERS: Final[dict[str, Literal["onnxscript", "tf2onnx"]]] = {
    "torch": "onnxscript",
    "tensorflow": "tf2onnx",
}
_BACKENDS: Final = {"savedmodel": ("tensorflow",), "onnx": tuple(_WRITERS)}


def export_ensemble(
    ensemble: SnapshotEnsemble,
    path: str | os.PathLike[str],
    *,
    format: str,  # noqa: A002
    dtype: Any = None,
) -> None:
    """Write an ensemble as one file or folder, for batches of any size.

    It is `ensemble.as_model()`, with the members that count, their weights and the
    temperature. It has its name when it is whole and durable; a file of that name is
    replaced.

    Args:
        ensemble: one that has predicted.
        path: the file, which of Keras' own must end in .keras, or the folder of the SavedModel.
        format: "keras", which Keras loads where `cosanneal.adapters.keras` was imported;
            "savedmodel", on Keras' backend TensorFlow; or "onnx", for ONNX Runtime and others, of
            at most 2 GB, on Keras' backends torch, which needs the packages onnx and
            onnxscript, and TensorFlow, which needs onnx and tf2onnx.
        dtype: of the members' weights, as `as_model` has it: "float16", or but for "onnx"
            "bfloat16"; by default they are in their own. Of ONNX on the backend TensorFlow alone.

    Raises:
        EnsembleError: no such format or dtype, or not on this backend; another ending; a folder
            that is there; weights that are too large; a model that the exporter refuses; or as
            `as_model`.
        MissingExtraError: a package is not installed.

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
    _check_backend(format)
    if format == "keras" and not os.fspath(path).endswith(".keras"):
        raise EnsembleError(
            f"The file must end in .keras, for format 'keras'. Received: {shown(os.fspath(path))}"
        )
    if format == "onnx":
        _check_held(None if dtype is None else checked_dtype(dtype))
        need_onnx(_WRITERS[keras.backend.backend()])
    model = ensemble.as_model(dtype=dtype)
    if format == "onnx":
        sizes = (count_bytes(tuple(each.shape), each.dtype) for each in model.variables)
        check_size(sum(sizes), "keras")
    with arriving(path, error=EnsembleError) as made:
        if format == "keras":
            model.save(made)
        elif format == "savedmodel":
            model.export(os.fspath(made), verbose=False)
        else:
            _export_onnx(model, os.fspath(made))


def _export_onnx(model: keras.Model, path: str) -> None:
    # Without it Keras asks for a call, from which it would take one size of a batch.
    signature = [keras.tree.map_structure(_spec_of, model.input)]
    try:
        with warnings.catch_warnings():
            # Of the exporters, about what they use of their frameworks.
            warnings.simplefilter("ignore")
            model.export(path, format="onnx", verbose=False, input_signature=signature)
    except (OSError, EnsembleError):
        raise
    except Exception as error:
        first, *_ = (str(error).strip() or type(error).__name__).splitlines()
        raise EnsembleError(
            "The model must be one that Keras' exporter takes, to be written as onnx. Received: "
            f"one that it refuses: {type(error).__name__}: {first}"
        ) from error


def _spec_of(tensor: Any) -> keras.InputSpec:
    return keras.InputSpec(dtype=tensor.dtype, shape=tensor.shape, name=tensor.name)


def run_export(
    path: str | os.PathLike[str],
    x: Any,
    *,
    format: str,  # noqa: A002
) -> list[NDArray[Any]]:
    """What `export_ensemble` wrote gives for a batch.

    Args:
        path: the file or the folder.
        x: the batch, of shape (samples, ...), of any number of samples; or a tuple, a list or a
            dict of several, as the model takes them.
        format: as it was written.

    Returns:
        The outputs, in the order of the ensemble's, as arrays of numpy.

    Raises:
        EnsembleError: no such format, or a SavedModel on another backend; or of ONNX another
            number of inputs than the file takes.
        MissingExtraError: ONNX Runtime is not installed.
    """
    _check_format(format)
    if format == "onnx":
        # Where Keras gives no names, the file has its inputs in Keras' own order.
        return run_onnx(path, x if isinstance(x, Mapping) else keras.tree.flatten(x))
    _check_backend(format)
    x = [*x] if isinstance(x, tuple) else x
    if format == "keras":
        found = keras.saving.load_model(path).predict(x, verbose=0)
    else:
        x = map_leaves(_in_floatx, x)
        found = keras.layers.TFSMLayer(os.fspath(path), call_endpoint="serve")(x)
    return [np.asarray(keras.ops.convert_to_numpy(each)) for each in leaves(found)]


def _in_floatx(array: NDArray[Any]) -> NDArray[Any]:
    floating = np.issubdtype(array.dtype, np.floating)
    return array.astype(keras.config.floatx()) if floating else array


def _check_held(dtype: str | None) -> None:
    """Refuse a dtype that a file of ONNX would not hold."""
    check_dtype(dtype, "keras")
    if dtype == "float16" and keras.backend.backend() == "torch":
        # There Keras multiplies in float32 on the host, and the exporter keeps what is multiplied.
        raise EnsembleError(
            "A file of ONNX in float16 must be written on Keras' backend tensorflow. Received: "
            "torch, on which it would hold float32 again; set KERAS_BACKEND=tensorflow, which "
            "takes the same snapshots"
        )


def _check_format(format: object) -> None:  # noqa: A002
    if format not in FORMATS:
        raise EnsembleError(
            "Argument `format` must be 'keras', 'onnx' or 'savedmodel'. "
            f"Received: format={shown(format)}"
        )


def _check_backend(format: str) -> None:  # noqa: A002
    """Refuse a format that the backend, or this release of Keras, has not."""
    known, own = _BACKENDS.get(format), keras.backend.backend()
    if known is not None and own not in known:
        what = "A file of ONNX must be written"
        if format == "savedmodel":
            what = "A SavedModel must be written and run"
        raise EnsembleError(
            f"{what} on Keras' backend {' or '.join(known)}. Received: {own}; set "
            f"KERAS_BACKEND={known[0]}, which takes the same snapshots"
        )
    takes = inspect.signature(keras.Model.export).parameters
    if format == "onnx" and "input_signature" not in takes:
        raise EnsembleError(
            "A file of ONNX must be written by Keras 3.8 or newer. "
            f"Received: {keras.__version__}; update Keras"
        )
