"""An example input, of which an ensemble is exported: an array, several in order, or by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..core.errors import EnsembleError, shown
from .predict.batches import LABEL_NAMES


def check_example(
    x: Any, is_array: Callable[[object], bool], kind: str, *, labels: bool = False
) -> None:
    """Refuse what is no input of arrays with as many samples each.

    Args:
        x: an array of shape (samples, ...), a tuple of such, or a dict of such by name.
        is_array: whether something is an array.
        kind: what an array is called, with its article.
        labels: whether names of labels are names as any other; `predict` takes what has one out.

    Raises:
        EnsembleError: it is another thing, or the numbers of samples differ.
    """
    several = isinstance(x, tuple | Mapping)
    given = [*(x.values() if isinstance(x, Mapping) else x)] if several else [x]
    named = not isinstance(x, Mapping) or all(isinstance(name, str) for name in x)
    if not given or not named or not all(is_array(each) and each.ndim for each in given):
        raise EnsembleError(
            f"Argument `x` must be {kind}, of shape (samples, ...); a tuple of such in the order "
            f"of the model's arguments; or a dict of such by name. Received: {shown(x)}"
        )
    if len({len(each) for each in given}) > 1:
        raise EnsembleError(
            "The arrays of `x` must have the same number of samples. "
            f"Received: {[len(each) for each in given]}"
        )
    taken_out = (
        [] if labels or not isinstance(x, Mapping) else [each for each in LABEL_NAMES if each in x]
    )
    if taken_out:
        raise EnsembleError(
            f"Argument `x` must have none of the names {', '.join(map(repr, LABEL_NAMES))}, which "
            f"predict takes for labels. Received: {taken_out[0]!r}; leave labels out, and give an "
            "input another name"
        )
