"""Warnings that name the user's own line, and not one of this library's."""

from __future__ import annotations

import inspect
import warnings
from typing import Final

# This library, and what calls it from within a user's call: a warning is of neither's code.
_BETWEEN: Final = {
    "cosanneal",
    *("torch", "accelerate", "lightning", "pytorch_lightning", "transformers"),
    *("keras", "tensorflow", "jax", "optax"),
    *("contextlib", "functools", "threading"),
}


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Warn at the line from which a user came here.

    It is the innermost one that is in no module of this library, or of a framework's. Where there
    is none, it is the line that calls this.

    Args:
        message: what to say, or a warning that says it.
        category: of a message; a warning has its own.
    """
    frame = inspect.currentframe()
    level = 1
    while frame is not None:
        frame = frame.f_back
        level += 1
        name = "" if frame is None else str(frame.f_globals.get("__name__", ""))
        if frame is not None and name.partition(".")[0] not in _BETWEEN:
            break
    warnings.warn(message, category, stacklevel=2 if frame is None else level)
