"""What the loss of a distillation takes, whatever the framework."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

from ..core.errors import EnsembleError, shown

# Beyond these the loss is lost in float32: T**2 times its precision is more than the loss itself,
# and a logit over T leaves the range.
LOWEST, HIGHEST = 1e-3, 1e3


def check_numbers(temperature: object, alpha: object) -> tuple[float, float]:
    """The temperature and the share of the ensemble's part, as floats."""
    checked = _number(temperature)
    if checked is None or not LOWEST <= checked <= HIGHEST:
        raise EnsembleError(
            "Argument `temperature` must be a number from 0.001 to 1000. "
            f"Received: temperature={shown(temperature)}"
        )
    share = _number(alpha)
    if share is None or not 0 <= share <= 1:
        raise EnsembleError(
            "Argument `alpha` must be a number from 0 (the labels alone) to 1 (the ensemble "
            f"alone). Received: alpha={shown(alpha)}"
        )
    return checked, share


def check_shapes(
    logits: Sequence[Any], probabilities: Sequence[Any], labels: Sequence[Any] | None
) -> None:
    """Shapes that fit each other; a size that a graph does not know yet is None, and fits any."""
    if len(logits) == 0 or logits[-1] in (0, 1) or 0 in logits:
        raise EnsembleError(
            "Argument `logits` must have the shape (..., classes), with at least 1 sample and 2 "
            f"classes. Received: logits of the shape {_text(logits)}"
        )
    if not _alike(logits, probabilities):
        raise EnsembleError(
            "Argument `probabilities` must have the shape of the logits, "
            f"{_text(logits)}. Received: probabilities of the shape {_text(probabilities)}; give "
            "what the ensemble predicts for the same batch"
        )
    if labels is not None and not _alike(logits[:-1], labels):
        raise EnsembleError(
            "Argument `labels` must have the shape of the logits without the classes, "
            f"{_text(logits[:-1])}. Received: labels of the shape {_text(labels)}; give the number "
            "of the class for each sample"
        )


def check_dtypes(logits: str, labels: str | None, *, floats: bool, integers: bool) -> None:
    """Logits with fractions, and labels that are whole numbers, as the framework knows them."""
    if not floats:
        raise EnsembleError(
            "Argument `logits` must be of a floating dtype, for the loss is derived by them. "
            f"Received: logits of {logits}"
        )
    if labels is not None and not integers:
        raise EnsembleError(
            "Argument `labels` must be of an integer dtype: the number of the class for each "
            f"sample. Received: labels of {labels}"
        )


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    return float(value)


def _alike(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(
        a is None or b is None or a == b for a, b in zip(one, other, strict=True)
    )


def _text(shape: Sequence[Any]) -> str:
    return str(tuple(shape))
