"""A snapshot into a module, and weights into the files that torch's users open."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from ...core.errors import MissingExtraError, SnapshotError
from ...ensemble.weights.one_model import AveragedWeights
from ...snapshots.export import check_format, exporting, write_arrays, write_snapshot
from ...snapshots.load import fitting_tensors
from ...snapshots.store import Snapshot
from .capture import ModuleCapture, PinnedBuffers
from .state import plain_name, unwrapped

Format: TypeAlias = Literal["safetensors", "torch", "peft"]


def load_snapshot(model: nn.Module, snapshot: Snapshot | str | os.PathLike[str]) -> None:
    """Load a snapshot's weights into a model, in place.

    By `load_state_dict`, on the devices where the model is. Everything is read,
    and checked, before anything is written. Of a snapshot that is a part of the
    weights the model keeps the rest, which must be as it was.

    Args:
        model: the model; torch.compile, DataParallel and DistributedDataParallel
            around it make no difference.
        snapshot: the snapshot, or its file.

    Raises:
        SnapshotError: a damaged snapshot, or one that does not fit the model; the
            message names the first tensor that differs.

    Example:
        >>> import tempfile, torch
        >>> import cosanneal as ca
        >>> from cosanneal.adapters.torch import SnapshotRecorder, load_snapshot
        >>> model = torch.nn.Linear(2, 1)
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> with SnapshotRecorder(tempfile.mkdtemp(), model, schedule) as recorder:
        ...     for _ in range(6):
        ...         _ = recorder.step()
        >>> load_snapshot(torch.nn.Linear(2, 1), recorder.store.list()[-1])
    """
    capture = ModuleCapture(model)
    tensors = fitting_tensors(snapshot, capture, framework="pt")
    module = unwrapped(model)
    names = {plain_name(name): name for name in module.state_dict(keep_vars=True)}
    state = {names[name]: value for name, value in tensors.items()}
    module.load_state_dict(state, strict=len(state) == len(names))


def export_weights(
    weights: Snapshot | AveragedWeights | Mapping[str, Tensor] | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    format: Format = "safetensors",  # noqa: A002
    model: nn.Module | None = None,
    overwrite: bool = False,
) -> None:
    """Write weights as a file that others open, atomically; under the model's own names.

    "safetensors" is what `from_pretrained` of transformers and
    `safetensors.torch.load_file` open: call it `model.safetensors`, beside the
    model's config. "torch" is what `torch.load(path, weights_only=True)` opens, for
    `load_state_dict`. "peft" is PEFT's own: the adapter that is active, under the
    names that PEFT gives it (by its `get_peft_model_state_dict`), which
    `PeftModel.from_pretrained` opens as `adapter_model.safetensors` beside what
    `model.peft_config["default"].save_pretrained(folder)` writes.

    Args:
        weights: a snapshot (or its file), what `average_weights` of an ensemble
            gave, or a state dict. Of parts of the weights it is the part; a state
            dict, or averaged weights, are written whole.
        path: the file.
        format: as above.
        model: the PEFT model, for format="peft".
        overwrite: whether a file that is there is replaced.

    Raises:
        SnapshotError: a damaged snapshot; tensors that the format cannot hold; a
            model that is not PEFT's; or a file that is there, or cannot be written.
        MissingExtraError: PEFT is not installed.

    Example:
        >>> import pathlib, tempfile, torch
        >>> from cosanneal.adapters.torch import export_weights
        >>> path = pathlib.Path(tempfile.mkdtemp(), "weights.pt")
        >>> export_weights(torch.nn.Linear(2, 1).state_dict(), path, format="torch")
        >>> list(torch.load(path, weights_only=True))
        ['weight', 'bias']
    """
    check_format(
        format,
        ("safetensors", "torch", "peft"),
        "a .weights.h5 of Keras' is written by cosanneal.adapters.keras.export_weights",
    )
    weights = weights.weights if isinstance(weights, AveragedWeights) else weights
    source = weights if isinstance(weights, Mapping) else Snapshot.at(weights)
    if format == "safetensors" and isinstance(source, Snapshot):
        with exporting(path, overwrite=overwrite) as file:
            write_snapshot(file, source, {"format": "pt"})
        return
    tensors: Mapping[str, Any] = (
        source.load(framework="pt") if isinstance(source, Snapshot) else source
    )
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise SnapshotError(
                "Argument `weights` must be a snapshot, averaged weights, or tensors by name. "
                f"Received: {name!r}, a {type(value).__name__}"
            )
    tensors = {plain_name(name): value.detach() for name, value in tensors.items()}
    if format == "peft":
        tensors = _adapter(tensors, model)
    with exporting(path, overwrite=overwrite) as file:
        if format == "torch":
            torch.save(dict(tensors), file)
        else:
            write_arrays(file, tensors, PinnedBuffers(), {"format": "pt"})


def _adapter(tensors: Mapping[str, Tensor], model: nn.Module | None) -> dict[str, Tensor]:
    """Those of an adapter of PEFT's, under the names of its files."""
    try:
        from peft import PeftModel, get_peft_model_state_dict
    except ModuleNotFoundError as error:
        if error.name != "peft":
            raise
        raise MissingExtraError(
            "Argument format='peft' needs the package peft, which is not installed. Install it "
            "with: python -m pip install peft"
        ) from error
    inner = None if model is None else unwrapped(model)
    if not isinstance(inner, PeftModel):
        raise SnapshotError(
            "Argument `model` must be the model of PEFT's whose adapter it is, for "
            f"format='peft'. Received: {type(inner).__name__}; give model=, as get_peft_model "
            "returned it"
        )
    name = inner.active_adapter
    found: dict[str, Tensor] = get_peft_model_state_dict(
        inner, state_dict={**inner.state_dict(), **tensors}, adapter_name=name
    )
    ours = {id(value) for value in tensors.values()}
    for missing in sorted(key for key, value in found.items() if id(value) not in ours):
        raise SnapshotError(
            f"The weights must have every tensor of the adapter {name!r}. Received: none for "
            f"{missing!r}; record them, by which='trainable'"
        )
    return found
