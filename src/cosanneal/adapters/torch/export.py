"""An ensemble in one file, of ONNX or of torch.export, and that file run again."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.atomic import arriving
from ...core.errors import EnsembleError, plural, shown
from ...ensemble.example import check_example
from ...ensemble.onnx_file import check_dtype, check_size, need_onnx, run_onnx
from ...ensemble.structure import leaves, map_leaves
from .ensemble import SnapshotEnsemble
from .model import TorchModel

FORMATS: Final = ("onnx", "pt2")

_Place: TypeAlias = tuple[torch.device, torch.dtype]


def export_ensemble(
    ensemble: SnapshotEnsemble,
    path: str | os.PathLike[str],
    x: Any,
    *,
    format: str,  # noqa: A002
    dtype: torch.dtype | None = None,
) -> None:
    """Write an ensemble as one file, for batches of any size.

    It is `ensemble.as_module()`, with the members that count, their weights and the
    temperature. The file has its name when it is whole and durable; a file of that name is
    replaced.

    Args:
        ensemble: one that has predicted.
        path: the file.
        x: an example input, of shape (samples, ...): an array of numpy or a tensor, floats of
            which are taken in the weights' dtype; a tuple of such, of a model of several
            arguments; or a dict of such, which are given by keyword, or where the ensemble has
            `forward=`, as its batch. Nothing of it but shapes and dtypes is in the file, whose
            inputs have the dict's names.
        format: "onnx", for ONNX Runtime and others, of at most 2 GB, which needs the packages
            onnx and onnxscript; or "pt2", for torch.export.load.
        dtype: of the members' weights, as `as_module` has it, such as torch.float16, or for "pt2"
            torch.bfloat16; the file then takes floats in float32, or in a wider dtype itself. By
            default they are in their own.

    Raises:
        EnsembleError: no such format, dtype, or input; too large for it; torch cannot export
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
    if format == "onnx":
        check_dtype("bfloat16" if dtype is torch.bfloat16 else None, "pt2")
    module = ensemble.as_module(dtype=dtype)
    place = _place_of(module.parameters(), module.buffers())
    if dtype is not None and place is not None:
        place = place[0], dtype if dtype.itemsize > 4 else torch.float32
    args, kwargs, dynamic, names = _traced(place, x, whole=_is_whole(ensemble))
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
                        module, args, kwargs, dynamic_shapes=dynamic, strict=False
                    )
                    torch.export.save(program, file)
                else:
                    made: Any = torch.onnx.export(
                        module,
                        # A dict at the end would be taken for keywords.
                        (*args, {}) if args and isinstance(args[-1], dict) else args,
                        kwargs=kwargs,
                        dynamo=True,
                        dynamic_shapes=dynamic,
                        input_names=names,
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
        x: the batch, of shape (samples, ...), of any number of samples; or a tuple or a dict of
            several, as for `export_ensemble`.
        format: "onnx", which needs the package onnxruntime, or "pt2".

    Returns:
        The outputs, in the order of the ensemble's, as arrays of numpy on the host.

    Raises:
        EnsembleError: no such format, or no such input; or of ONNX others than the file takes,
            from which one that the model does not use may be left out.
        MissingExtraError: the runtime is not installed.
    """
    _check_format(format)
    _check(x, labels=True)
    if format == "onnx":
        return run_onnx(path, x if isinstance(x, tuple | Mapping) else (x,))
    program = torch.export.load(path)
    taken, keywords = program.example_inputs
    args, kwargs = _arguments(x, whole=bool(taken))
    if _form((args, kwargs)) != _form((taken, keywords)):
        raise EnsembleError(
            f"Argument `x` must be what the file takes: {_form((taken, keywords))}. "
            f"Received: {_form((args, kwargs))}"
        )
    module = program.module()
    args, kwargs = _moved(_place_of(leaves((taken, keywords))), (args, kwargs))
    with torch.no_grad():
        found = module(*args, **kwargs)
    return [each.detach().cpu().numpy() for each in leaves(found)]


def _traced(
    place: _Place | None, x: Any, *, whole: bool
) -> tuple[tuple[Any, ...], dict[str, Any], Any, list[str] | None]:
    """What a module is traced with, with samples of any number, and the names of a dict's inputs.

    The file may hold what it was traced with, so that it is two samples of zeros.
    """
    _check(x, labels=whole)
    args, kwargs = _moved(place, _arguments(x, whole=whole))
    args, kwargs = map_leaves(lambda each: each.new_zeros((2, *each.shape[1:])), (args, kwargs))
    samples = torch.export.Dim("batch")
    dynamic = map_leaves(lambda _: {0: samples}, kwargs or args)
    return args, kwargs, dynamic, [*x] if isinstance(x, Mapping) else None


def _place_of(*held: Iterable[Tensor]) -> _Place | None:
    """The device and the dtype of the first tensor of floats; None where there is none."""
    for each in itertools.chain(*held):
        if each.is_floating_point():
            return each.device, each.dtype
    return None


def _moved(place: _Place | None, batch: Any) -> Any:
    """The arguments of a batch as tensors on a device, with their floats in a dtype."""

    def moved(each: Any) -> Tensor:
        tensor = each if isinstance(each, Tensor) else torch.from_numpy(np.array(each))
        if place is None:
            return tensor
        return tensor.to(place[0], place[1] if tensor.is_floating_point() else None)

    return map_leaves(moved, batch)


def _arguments(x: Any, *, whole: bool) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a module is called with for a batch: arguments in their order, and by keyword.

    Args:
        x: the batch.
        whole: whether a dict is one argument.
    """
    if isinstance(x, Mapping):
        return (({**x},), {}) if whole else ((), {**x})
    return (x if isinstance(x, tuple) else (x,)), {}


def _form(called: tuple[tuple[Any, ...], Mapping[str, Any]]) -> str:
    """What a module is called with, for a message."""
    args, kwargs = called
    named = kwargs or (args[0] if len(args) == 1 and isinstance(args[0], Mapping) else None)
    if named is None:
        return plural(len(args), "array")
    return f"a dict of {', '.join(map(repr, sorted(named)))}"


def _is_whole(ensemble: SnapshotEnsemble) -> bool:
    """Whether the ensemble's module takes a batch as it comes."""
    return cast(TorchModel, ensemble.model).forward is not None


def _check(x: Any, *, labels: bool) -> None:
    """Refuse no arrays, or not of as many samples each."""
    check_example(
        x,
        lambda each: isinstance(each, Tensor | np.ndarray),
        "an array of numpy or a tensor",
        labels=labels,
    )


def _check_format(format: object) -> None:  # noqa: A002
    if format not in FORMATS:
        raise EnsembleError(
            f"Argument `format` must be 'onnx' or 'pt2'. Received: format={shown(format)}"
        )


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {line}"
