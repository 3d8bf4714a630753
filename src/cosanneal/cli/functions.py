"""Functions of the user's, as options name them."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.errors import CosannealError, shown


def named_function(text: str, option: str) -> Callable[[], Any]:
    """The function that `module:function` names.

    The module is imported as `import` would, with the current folder first on the path, where
    it stays, for what the function itself imports.

    Args:
        text: the option's text.
        option: its name, for messages.

    Raises:
        CosannealError: no such text, module or function, or a module that fails.
    """
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", text):
        raise CosannealError(
            f"Option {option} must be module:function, such as train:build_model of a file "
            f"train.py in the current folder. Received: {shown(text)}"
        )
    name, _, attribute = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        module = pkgutil.resolve_name(f"{name}:")
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed(text, option, error) from error
        raise CosannealError(
            f"Option {option} must name a module that can be imported. Received: {shown(text)}, "
            f"and there is no module {error.name!r}, looked for from the folder {here}"
        ) from error
    except (Exception, SystemExit) as error:
        raise _failed(text, option, error) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        received = "has none of that name" if found is None else f"has a {type(found).__name__}"
        raise CosannealError(
            f"Option {option} must name a function. Received: {shown(text)}, and the module {name} "
            f"({getattr(module, '__file__', None)}) {received} under it"
        )
    function: Callable[[], Any] = found
    return function


def called(function: Callable[[], Any], text: str, option: str) -> Any:
    """What the function returns.

    Raises:
        CosannealError: it fails.
    """
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise CosannealError(
            f"Option {option} must name a function that can be called without arguments. Received: "
            f"{shown(text)}, which fails: {type(error).__name__}: {error}"
        ) from error


def _failed(text: str, option: str, error: BaseException) -> CosannealError:
    return CosannealError(
        f"Option {option} must name a module that can be imported. Received: {shown(text)}, whose "
        f"import fails: {type(error).__name__}: {error}"
    )
