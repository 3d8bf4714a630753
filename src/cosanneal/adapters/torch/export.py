"""An ensemble in one file, of ONNX or of torch.export, and that file run again."""

from __future__ import annotations

import os
import warnings
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...core.atomic import arriving
from ...core.errors import EnsembleError, shown
from ...ensemble.onnx_file import check_size, need_onnx, run_onnx
from ...ensemble.structure import leaves
from .ensemble import SnapshotEnsemble

FORMATS: Final = ("onnx", "pt2")


def export_ensemble(
    ensemble: SnapshotEnsemble,
    path: str | os.PathLike[str],
    x: Any,
    *,
    format: str,  # noqa: A002
) -> None:
    """Write an ensemble as one file, for batches of any size.

    It is `ensemble.as_module()`, with the members that count, their weights and the
    temperature. The file has its name when it is whole and durable; a file of that name is
    replaced.

    Args:
        ensemble: one that has predicted.
        path: the file.
        x: an example input of at least two samples, of shape (samples, ...): an array of
            numpy or a tensor, floats of which are taken in the weights' dtype; or a tuple of such,
            of a model of several arguments.
        format: "onnx", for ONNX Runtime and others, of at most 2 GB, which needs the packages
            onnx and onnxscript; or "pt2", for torch.export.load.

    Raises:
        EnsembleError: no such format, or no such input; too large for it; torch cannot export
            the model; or as `as_module`.
        MissingExtraError: a package is not installed.

    Example:
        >>> import os, tempfile, torch
        >>> import cosanneal as ca
        >>> from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder
        >>> from cosanneal.adapters.torch.export import export_ensemble, run_export
        >>> model, folder = torch.nn.Linear(2, 3), tempfile.mkdtemp()
        >>> with SnapshotRecorder(folder, model, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        ...     _ = recorder.step()
        >>> ensemble, x = SnapshotEnsemble(model, folder), 9 * torch.randn(5, 2)
        >>> predicted = ensemble.predict(x)
        >>> file = os.path.join(folder, "ensemble.pt2")
        >>> export_ensemble(ensemble, file, x, format="pt2")
        >>> (found,) = run_export(file, x.numpy(), format="pt2")
        >>> bool(abs(found - predicted.numpy()).max() < 1e-6)
        True
    """
    _check_format(format)
    module = ensemble.as_module()
    batch = _like_weights(module, x)
    samples = torch.export.Dim("batch")
    dynamic = tuple({0: samples} for _ in batch)
    with arriving(path, error=EnsembleError) as file:
        if format == "onnx":
            need_onnx("onnxscript")
            held = (*module.parameters(), *module.buffers())
            check_size(sum(each.nbytes for each in held), "pt2")
        try:
            with warnings.catch_warnings():
                # Of torch's own exporter, about what it uses of torch.
                warnings.simplefilter("ignore")
                if format == "pt2":
                    program = torch.export.export(
                        module, batch, dynamic_shapes=dynamic, strict=False
                    )
                    torch.export.save(program, file)
                else:
                    made: Any = torch.onnx.export(
                        module,
                        batch,
                        dynamo=True,
                        dynamic_shapes=dynamic,
                        verbose=False,
                    )
                    made.save(file, external_data=False)
        except (OSError, EnsembleError):
            raise
        except Exception as error:
            raise EnsembleError(
                f"The model must be one that torch.export takes, to be written as {format}. "
                f"Received: one that it refuses: {_first_line(error)}"
            ) from error


def run_export(
    path: str | os.PathLike[str],
    x: Any,
    *,
    format: str,  # noqa: A002
) -> list[NDArray[Any]]:
    """What a file that `export_ensemble` wrote gives for a batch, in the runtime it is for.

    Args:
        path: the file.
        x: the batch, of shape (samples, ...), of any number of samples; or a tuple of several
            arguments, as for `export_ensemble`.
        format: "onnx", which needs the package onnxruntime, or "pt2".

    Returns:
        The outputs, in the order of the ensemble's, as arrays of numpy on the host.

    Raises:
        EnsembleError: no such format, or no such input; or of ONNX another number of arguments
            than the file takes, from which one that the model does not use is left out.
        MissingExtraError: the runtime is not installed.
    """
    _check_format(format)
    if format == "onnx":
        return run_onnx(path, _arguments(x))
    program = torch.export.load(path)
    module = program.module()
    with torch.no_grad():
        found = module(*_like_weights(module, x))
    return [each.detach().cpu().numpy() for each in leaves(found)]


def _like_weights(module: nn.Module, x: Any) -> tuple[Tensor, ...]:
    """The arguments of a batch where the weights are, with their floats in the weights' dtype."""
    batch = tuple(
        each if isinstance(each, Tensor) else torch.from_numpy(np.array(each))
        for each in _arguments(x)
    )
    for each in (*module.parameters(), *module.buffers()):
        if each.is_floating_point():
            device, dtype = each.device, each.dtype
            return tuple(
                one.to(device, dtype if one.is_floating_point() else None) for one in batch
            )
    return batch


def _arguments(x: Any) -> tuple[Any, ...]:
    """The model's arguments in a batch.

    Raises:
        EnsembleError: they are no arrays, or not of as many samples each.
    """
    given = x if isinstance(x, tuple) else (x,)
    if not given or not all(isinstance(each, Tensor | np.ndarray) and each.ndim for each in given):
        raise EnsembleError(
            "Argument `x` must be an array of numpy or a tensor, of shape (samples, ...), or a "
            f"tuple of such in the order of the model's arguments. Received: {shown(x)}"
        )
    if len({len(each) for each in given}) > 1:
        raise EnsembleError(
            "The arrays of `x` must have the same number of samples. "
            f"Received: {[len(each) for each in given]}"
        )
    return given


def _check_format(format: object) -> None:  # noqa: A002
    if format not in FORMATS:
        raise EnsembleError(
            f"Argument `format` must be 'onnx' or 'pt2'. Received: format={shown(format)}"
        )


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {line}"
