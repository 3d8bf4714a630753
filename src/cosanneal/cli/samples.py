"""The samples with which an exported file is compared: those of files, or drawn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import CosannealError, shown
from .arrays import load_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DRAWN = 8  # samples of chance, where only shapes are given

Input = Annotated[
    list[str] | None,
    typer.Option(
        help="Samples of the model's input to compare with, a .npy file of shape (samples, ...). "
        "Of a model of several inputs, once for each: in their order, or by name as "
        "NAME=FILE.npy.",
        metavar="[NAME=]FILE.NPY",
        show_default=False,
    ),
]
Shape = Annotated[
    list[str] | None,
    typer.Option(
        help=f"In place of --input: the shape of one sample; {_DRAWN} are drawn at random. Of "
        "several inputs as --input has it.",
        metavar="[NAME=]1x28x28",
        show_default=False,
    ),
]
InputDtype = Annotated[
    list[str] | None,
    typer.Option(
        help="With --shape: the samples' dtype, by default float32. Floats are normal, "
        "integers 0 or 1. Of several inputs once for all of them, once for each in their order, "
        "or by name as NAME=DTYPE.",
        metavar="[NAME=]DTYPE",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Samples:
    """What a model is given.

    Args:
        arrays: one for each of its inputs, with as many samples each.
        names: those of the inputs, where they were given.
        origin: the options that gave them.
    """

    arrays: tuple[NDArray[Any], ...]
    names: tuple[str, ...]
    origin: str

    def __len__(self) -> int:
        return len(self.arrays[0])

    def first(self) -> Samples:
        """The first sample alone."""
        return Samples(tuple(each[:1] for each in self.arrays), self.names, self.origin)

    def given(self) -> Any:
        """An array; or of several inputs a tuple, or by name a dict."""
        if self.names:
            return dict(zip(self.names, self.arrays, strict=True))
        return self.arrays if len(self.arrays) > 1 else self.arrays[0]


def samples_of(
    input: Sequence[str] | None,  # noqa: A002
    shape: Sequence[str] | None,
    dtype: Sequence[str] | None,
) -> Samples:
    """At least two samples: those of files, or drawn.

    Args:
        input: the files, as the option has them.
        shape: the shapes.
        dtype: the dtypes.

    Raises:
        CosannealError: one that cannot be, or that does not go with the others.
    """
    if bool(input) == bool(shape):
        received = "both" if input else "neither"
        raise CosannealError(
            f"Either option --input or option --shape must be given. Received: {received}"
        )
    if input:
        if dtype:
            raise CosannealError(
                "Option --input-dtype must be given with --shape alone. Received: it with --input, "
                "whose file has a dtype"
            )
        names, files = _named(input, "--input")
        arrays = tuple(map(_loaded, files))
        if len({*map(len, arrays)}) > 1:
            raise CosannealError(
                "The files of --input must have the same number of samples. Received: "
                f"{', '.join(map(str, map(len, arrays)))}"
            )
        if len(arrays[0]) == 1:
            import numpy as np

            arrays = tuple(np.concatenate([each, each]) for each in arrays)
        return Samples(arrays, names, "--input")
    names, shapes = _named(shape or (), "--shape")
    dtypes = _dtypes(dtype or ("float32",), names, len(shapes))
    arrays = tuple(_drawn(*each) for each in zip(shapes, dtypes, range(len(shapes)), strict=True))
    return Samples(arrays, names, " ".join(f"--shape {each}" for each in shape or ()))


def _named(texts: Sequence[str], option: str) -> tuple[tuple[str, ...], list[str]]:
    """The names before the values of an option, of all or of none, and the values."""
    found = [re.fullmatch(r"(?:([^\W\d][\w.-]*)=)?(.*)", text, re.DOTALL) for text in texts]
    pairs = [(each[1], each[2]) for each in found if each is not None]
    names = tuple(name for name, _ in pairs if name is not None)
    if len(names) not in (0, len(texts)) or len({*names}) < len(names):
        raise CosannealError(
            f"Option {option} must name all of the inputs, each once, or none. Received: "
            f"{' '.join(map(shown, texts))}"
        )
    return names, [value for _, value in pairs]


def _loaded(file: str) -> NDArray[Any]:
    """The samples in a file."""
    import numpy as np

    x = np.array(load_array(Path(file)))
    if x.ndim < 1 or len(x) < 1 or x.dtype.kind not in "fiub":
        raise CosannealError(
            "Option --input must hold numbers of shape (samples, ...), at least one sample. "
            f"Received: {x.dtype} of shape {x.shape} in {file}"
        )
    return x


def _dtypes(texts: Sequence[str], names: Sequence[str], count: int) -> list[str]:
    """The dtype of each input."""
    named, values = _named(texts, "--input-dtype")
    if named:
        strange = next((each for each in named if each not in names), None)
        if strange is not None:
            raise CosannealError(
                "Option --input-dtype must name inputs that --shape names. "
                f"Received: {strange!r}, where there are {', '.join(names) or 'no names'}"
            )
        by_name = dict(zip(named, values, strict=True))
        return [by_name.get(name, "float32") for name in names]
    if len(values) not in (1, count):
        raise CosannealError(
            "Option --input-dtype must be given once for all inputs, or once for each. Received: "
            f"{len(values)} of them for {count} inputs"
        )
    return values * count if len(values) == 1 else values


def _drawn(shape: str, dtype: str, seed: int) -> NDArray[Any]:
    """Samples of chance."""
    import numpy as np

    if not re.fullmatch(r"[1-9][0-9]{0,8}(x[1-9][0-9]{0,8})*", shape):
        raise CosannealError(
            "Option --shape must be positive numbers with an x between them, such as 1x28x28. "
            f"Received: {shown(shape)}"
        )
    sizes = (_DRAWN, *map(int, shape.split("x")))
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = np.dtype(object)
    if kind.kind not in "fiub":
        raise CosannealError(
            "Option --input-dtype must be a dtype of numpy's with numbers, such as float32 or "
            f"int64. Received: {shown(dtype)}"
        )
    generator = np.random.default_rng(seed)
    try:
        drawn = (
            generator.standard_normal(sizes)
            if kind.kind == "f"
            else generator.integers(2, size=sizes)
        )
    except (MemoryError, ValueError) as error:
        raise CosannealError(
            f"Option --shape must fit into memory. Received: {shown(shape)}"
        ) from error
    return np.asarray(drawn, kind)
