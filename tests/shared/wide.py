"""64 bits in JAX for a while, by the name that its older releases have for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.experimental

_HOME: Any = jax if hasattr(jax, "enable_x64") else jax.experimental
enable_x64: Callable[[bool], AbstractContextManager[Any]] = _HOME.enable_x64
