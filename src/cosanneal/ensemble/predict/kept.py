"""The members' predictions for the same data, kept in one array: in memory, or in a file."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...core.errors import EnsembleError, shown
from ...core.paths import local_path
from ..arrays import Kind
from .found import nonfinite
from .outputs import OutputSpec

# Bytes of predictions beyond which they are kept in a file.
IN_MEMORY: Final = 256 << 20


@contextlib.contextmanager
def kept_predictions(
    outputs: Iterable[Any],
    members: Sequence[str],
    known: Callable[[], OutputSpec],
    file: str | os.PathLike[str] | None,
) -> Iterator[NDArray[Any]]:
    """The probabilities of all members in one array, with the members along the first axis.

    Of pairs of means and variances, these lie along the second.

    Args:
        outputs: of each member in turn; one is in memory at a time.
        members: the name of each, at least one.
        known: says what the outputs are, once there are any.
        file: the .npy file to keep them in; without one they are in memory, or
            where they are large in a temporary file, for as long as the context.

    Raises:
        EnsembleError: the file cannot be written; a member's prediction is not finite;
            or the outputs are none that a mean of probabilities is made of.
    """
    if file is not None:
        file = local_path(file, error=EnsembleError)
    with contextlib.ExitStack() as stack:
        kept: NDArray[Any] | None = None
        for i, output in enumerate(outputs):
            spec = known()
            array = spec.kept(output)
            if not np.isfinite(array).all():
                raise nonfinite(members[i])
            if kept is None:
                # In float32 the probability of a logit of 20 is 1: how far it is from
                # that is lost, where no other class' probability says it.
                exact = spec.class_axis is None or "float64" in str(Kind.of(output).dtype)
                dtype = np.dtype(np.float64 if exact else np.float32)
                shape = (len(members), *array.shape)
                if file is None and math.prod(shape) * dtype.itemsize <= IN_MEMORY:
                    kept = np.empty(shape, dtype)
                else:
                    if file is None:
                        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
                        file = Path(stack.enter_context(folder)) / "predictions.npy"
                    try:
                        kept = np.lib.format.open_memmap(file, "w+", dtype, shape)
                    except OSError as error:
                        raise EnsembleError(
                            "Argument `keep` must be a file that can be written. "
                            f"Received: {shown(os.fspath(file))}: {error.strerror or error}"
                        ) from error
            kept[i] = array
        if kept is None:
            raise EnsembleError("An ensemble without members predicts nothing")
        yield kept
