"""A snapshot into a Keras model, and weights into the files that Keras' users open."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import h5py
import keras

from ...core.errors import SnapshotError
from ...ensemble.weights.one_model import AveragedWeights
from ...snapshots.capture import HostBuffers
from ...snapshots.export import check_format, exporting, write_arrays, write_snapshot
from ...snapshots.load import fitting_tensors
from ...snapshots.store import Snapshot
from .capture import ModelCapture
from .model import KerasModel, put_in_place
from .names import named_weights

Format: TypeAlias = Literal["keras", "safetensors"]


def load_snapshot(model: keras.Model, snapshot: Snapshot | str | os.PathLike[str]) -> None:
    """Load a snapshot's weights into a model, in place, on every backend.

    Everything is read, and checked, before anything is written; what layers made
    of their weights (Normalization) is made anew. Of a snapshot that is a part of
    the weights the model keeps the rest, which must be as it was.

    Args:
        model: the model, built. Its optimizer stays as it is.
        snapshot: the snapshot, or its file.

    Raises:
        SnapshotError: a damaged snapshot, or one that does not fit the model; the
            message names the first tensor that differs. Or no model that is built.

    Example:
        >>> import tempfile
        >>> import keras, numpy as np
        >>> import cosanneal as ca
        >>> from cosanneal.adapters.keras import CyclicCosineSchedule
        >>> from cosanneal.adapters.keras import SnapshotRecorder, load_snapshot
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(CyclicCosineSchedule(schedule)), "mse")
        >>> recorder = SnapshotRecorder(tempfile.mkdtemp(), schedule)
        >>> x, y = np.ones((6, 2)), np.ones((6, 1))
        >>> history = model.fit(x, y, batch_size=1, callbacks=[recorder], verbose=0)
        >>> load_snapshot(model, recorder.store.list()[0])
    """
    _check_model(model)
    put_in_place(model, fitting_tensors(snapshot, ModelCapture(model), framework="numpy"))


def export_weights(
    weights: Snapshot | AveragedWeights | Sequence[Any] | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    format: Format = "keras",  # noqa: A002
    model: keras.Model | None = None,
    overwrite: bool = False,
) -> None:
    """Write weights as a file that others open, atomically.

    "keras" is what `model.load_weights` opens, a `.weights.h5`: Keras' own
    `save_weights`, of a copy of the model, or of the model itself, which has its
    own weights again afterwards. No optimizer's state is in it, as Keras says by a
    warning where a compiled model loads it. "safetensors" holds them by name, as
    `dense/kernel`, for `safetensors.numpy.load_file`.

    Args:
        weights: a snapshot (or its file), what `average_weights` of an ensemble
            gave, or what `model.get_weights` gives. A part of the weights is
            written with the model's rest as "keras", and alone as "safetensors".
        path: the file.
        format: as above.
        model: a model of the kind, built: for "keras", and for weights that are no
            snapshot.
        overwrite: whether a file that is there is replaced.

    Raises:
        SnapshotError: a damaged snapshot, or one that does not fit the model; no
            model where one is needed; or a file that is there, or cannot be written.
        EnsembleError: a model that keeps a state, and cannot be copied.

    Example:
        >>> import pathlib, tempfile
        >>> import keras
        >>> from cosanneal.adapters.keras import export_weights
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> path = pathlib.Path(tempfile.mkdtemp(), "one.weights.h5")
        >>> export_weights(model.get_weights(), path, model=model)
        >>> model.load_weights(path)
    """
    check_format(
        format,
        ("keras", "safetensors"),
        "what torch opens is written by cosanneal.adapters.torch.export_weights",
    )
    weights = weights.weights if isinstance(weights, AveragedWeights) else weights
    stored = isinstance(weights, Snapshot | str | os.PathLike)
    if model is not None or format == "keras" or not stored:
        _check_model(model)
    if format == "keras" and not Path(path).name.endswith(".weights.h5"):
        raise SnapshotError(
            f"Argument `path` must end with .weights.h5, as Keras wants it. Received: {path}"
        )
    if format == "safetensors" and stored:
        with exporting(path, overwrite=overwrite) as file:
            write_snapshot(file, Snapshot.at(weights), {"format": "np"})  # type: ignore[arg-type]
        return
    tensors = _named(weights, model)
    with exporting(path, overwrite=overwrite) as file:
        if format == "safetensors":
            write_arrays(file, tensors, HostBuffers(), {"format": "np"})
            return
        with tempfile.TemporaryDirectory() as folder:
            saved, bare = (Path(folder, name) for name in ("all.weights.h5", "one.weights.h5"))
            with KerasModel(model).holding(tensors) as held:
                held.save_weights(saved)
            with h5py.File(saved) as one, h5py.File(bare, "w") as other:
                other.attrs.update(one.attrs)
                for name in one:
                    if name != "optimizer":  # whose state is of other weights
                        one.copy(name, other)
            with bare.open("rb") as source:
                shutil.copyfileobj(source, file)


def _named(weights: Any, model: Any) -> dict[str, Any]:
    """All of a model's weights, by name."""
    capture = ModelCapture(model)
    if isinstance(weights, Snapshot | str | os.PathLike):
        found = fitting_tensors(weights, capture, framework="numpy")
        return {**capture.tensors(capture.layout().keys() - found.keys()), **found}  # type: ignore[union-attr]
    own = [*model.weights]
    shapes = [tuple(each.shape) for each in own]
    if isinstance(weights, Mapping) or [getattr(each, "shape", None) for each in weights] != shapes:
        raise SnapshotError(
            "Argument `weights` must be a snapshot, averaged weights, or the arrays that "
            f"model.get_weights() gives. Received: {type(weights).__name__}, not of their shapes"
        )
    names = {id(variable): name for name, variable in named_weights(model).items()}
    return {names[id(each)]: value for each, value in zip(own, weights, strict=True)}


def _check_model(model: object) -> None:
    if not isinstance(model, keras.Model) or not model.built:
        what = "none" if model is None else type(model).__name__
        raise SnapshotError(
            "Argument `model` must be a keras.Model that is built. "
            f"Received: {what}; build a model by calling it on a batch"
        )
