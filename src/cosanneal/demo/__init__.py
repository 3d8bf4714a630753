"""The built-in demonstration: real scans of digits, and what one budget can buy on them.

The task, the budget and the report are shared; each framework adds one model
and one function `train`, from a `Training` to a `Trained`, in a module of its own.
"""

from enum import StrEnum


class Backend(StrEnum):
    """The frameworks that can train."""

    TORCH = "torch"
    JAX = "jax"
    KERAS = "keras"
