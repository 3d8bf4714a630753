"""An option that there is not is said by the public name of what was called, with the nearest."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
ReturnT = TypeVar("ReturnT")


def check_options(name: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse an option that there is not.

    Args:
        name: the public name of what was called.
        given: the options' names.
        known: those that there are.

    Raises:
        TypeError: one that is not among them.
    """
    known = list(known)
    unknown = sorted(set(given) - set(known))
    if not unknown:
        return
    import difflib  # here, which an import of the core need not wait for

    nearest = difflib.get_close_matches(unknown[0], known, 1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(known)}"
    raise TypeError(f"{name} has no option {unknown[0]!r}; {hint}")


def takes_options(options: Any) -> Callable[[Callable[P, ReturnT]], Callable[P, ReturnT]]:
    """Have a function say itself which option it has not, in place of one that it calls.

    Args:
        options: the TypedDict of what it takes by keyword, beside its own arguments.

    Returns:
        What makes such a function of a function or a method.
    """

    def checking(function: Callable[P, ReturnT]) -> Callable[P, ReturnT]:
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        own = [
            each.name
            for each in inspect.signature(function).parameters.values()
            if each.kind in kinds and each.name != "self"
        ]
        known = dict.fromkeys([*own, *options.__annotations__])
        name = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> ReturnT:
            check_options(name, kwargs, known)
            return function(*args, **kwargs)

        return checked

    return checking
