"""The samples with which an exported file is compared: those of a file, or drawn."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import CosannealError, shown
from .arrays import load_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DRAWN = 8  # samples of chance, where only a shape is given

Input = Annotated[
    Path | None,
    typer.Option(
        help="Samples of the model's input to compare with, a .npy file of shape (samples, ...).",
        metavar="FILE.NPY",
        show_default=False,
    ),
]
Shape = Annotated[
    str | None,
    typer.Option(
        help=f"In place of --input: the shape of one sample; {_DRAWN} are drawn at random.",
        metavar="1x28x28",
        show_default=False,
    ),
]
InputDtype = Annotated[
    str | None,
    typer.Option(
        help="With --shape: the samples' dtype, by default float32. Floats are normal, "
        "integers 0 or 1.",
        metavar="DTYPE",
        show_default=False,
    ),
]


def samples_of(input: Path | None, shape: str | None, dtype: str | None) -> NDArray[Any]:  # noqa: A002
    """At least two samples: those of a file, or drawn."""
    import numpy as np

    if (input is None) == (shape is None):
        received = "neither" if input is None else "both"
        raise CosannealError(
            f"Either option --input or option --shape must be given. Received: {received}"
        )
    if input is not None:
        if dtype is not None:
            raise CosannealError(
                "Option --input-dtype must be given with --shape alone. Received: it with --input, "
                "whose file has a dtype"
            )
        x = np.array(load_array(input))
        if x.ndim < 1 or len(x) < 1 or x.dtype.kind not in "fiub":
            raise CosannealError(
                "Option --input must hold numbers of shape (samples, ...), at least one sample. "
                f"Received: {x.dtype} of shape {x.shape} in {input}"
            )
        return x if len(x) > 1 else np.concatenate([x, x])
    found = str(shape)
    if not re.fullmatch(r"[1-9][0-9]{0,8}(x[1-9][0-9]{0,8})*", found):
        raise CosannealError(
            "Option --shape must be positive numbers with an x between them, such as 1x28x28. "
            f"Received: {shown(found)}"
        )
    sizes = (_DRAWN, *map(int, found.split("x")))
    try:
        kind = np.dtype(dtype or "float32")
    except TypeError:
        kind = np.dtype(object)
    if kind.kind not in "fiub":
        raise CosannealError(
            "Option --input-dtype must be a dtype of numpy's with numbers, such as float32 or "
            f"int64. Received: {shown(dtype)}"
        )
    generator = np.random.default_rng(0)
    try:
        drawn = (
            generator.standard_normal(sizes)
            if kind.kind == "f"
            else generator.integers(2, size=sizes)
        )
    except (MemoryError, ValueError) as error:
        raise CosannealError(
            f"Option --shape must fit into memory. Received: {shown(found)}"
        ) from error
    return np.asarray(drawn, kind)
