"""A file of ONNX: what it takes to write one, and one that is run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ..core.errors import EnsembleError, MissingExtraError
from .arrays import as_numpy

# What protobuf holds in one message, with some room for the graph.
MOST_BYTES: Final = 2**31 - 2**24

# What ONNX Runtime calls the floats that numpy has.
_FLOATS: Final = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
}


def need_onnx(writer: Literal["onnxscript", "tf2onnx"]) -> None:
    """Refuse to go on without what writes such files.

    Args:
        writer: the package that makes them of a framework's graphs.

    Raises:
        MissingExtraError: a package is not installed.
    """
    try:
        import onnx  # noqa: F401

        if writer == "tf2onnx":
            import tf2onnx  # noqa: F401
        else:
            import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in ("onnx", "onnxscript", "tf2onnx"):
            raise
        if writer == "tf2onnx":
            raise MissingExtraError(
                f"Writing ONNX from TensorFlow needs the package {error.name}, which is not "
                "installed. Install it with: python -m pip install onnx tf2onnx"
            ) from error
        raise MissingExtraError.for_extra(
            "onnx", package=error.name, needed_by="Writing ONNX"
        ) from error


def check_dtype(name: str | None, instead: str) -> None:
    """Refuse a dtype that ONNX Runtime does not compute in on the host.

    Args:
        name: the dtype's name, of the members' weights; None for their own.
        instead: the format that holds it.

    Raises:
        EnsembleError: it is bfloat16, of which a convolution is no valid graph.
    """
    if name == "bfloat16":
        raise EnsembleError(
            "Argument `dtype` must be float16 for format 'onnx', whose runtime does not compute in "
            f"bfloat16 on the host. Received: dtype={name}; give float16, or write format "
            f"{instead!r}"
        )


def check_size(size: int, instead: str) -> None:
    """Refuse weights that one file does not hold.

    Args:
        size: their bytes.
        instead: the format that does.

    Raises:
        EnsembleError: they are more.
    """
    if size > MOST_BYTES:
        raise EnsembleError(
            f"The members' weights must be at most {MOST_BYTES} bytes for one file of ONNX. "
            f"Received: {size} bytes; write format {instead!r}"
        )


def run_onnx(
    path: str | os.PathLike[str], given: Sequence[Any] | Mapping[str, Any]
) -> list[NDArray[Any]]:
    """What a file gives for some arrays, in ONNX Runtime on the host.

    Args:
        path: the file.
        given: the arrays, in the order of its inputs, or by their names.

    Raises:
        EnsembleError: another number of arrays than it takes, or other names.
        MissingExtraError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingExtraError.for_extra(
            "onnx", package="onnxruntime", needed_by="Running ONNX"
        ) from error
    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    taken = session.get_inputs()
    names = [each.name for each in taken]
    named = isinstance(given, Mapping)
    if {*names} != {*given} if named else len(names) != len(given):
        came = ", ".join(map(repr, given)) if named else f"{len(given)} arrays"
        raise EnsembleError(
            f"Argument `x` must be what the file takes: {', '.join(map(repr, names))}. "
            f"Received: {came}"
        )
    arrays = [given[name] for name in names] if isinstance(given, Mapping) else given
    fed = {}
    for each, argument in zip(taken, arrays, strict=True):
        array = as_numpy(argument)
        if np.issubdtype(array.dtype, np.floating):
            array = array.astype(_FLOATS.get(each.type, array.dtype))
        fed[each.name] = np.ascontiguousarray(array)
    return [*session.run(None, fed)]
